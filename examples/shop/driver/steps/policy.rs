//! A rule of a DENY policy decides, over HTTP and over gRPC, and the audit line says which.

use serde_json::Value;
use tonic::Code;

use super::{Observed, Step};
use crate::Error;
use crate::driver::town::Town;

pub(crate) const STEP: Step = Step {
    title: "3 an identity that policy does not allow is refused, and the audit line says why",
    run: |town| Box::pin(run(town)),
};

const BATCH: &str = "spiffe://shop.example/ns/shop/sa/batch";

async fn run(town: &mut Town) -> Result<Observed, Error> {
    let mut observed = Observed::default();
    let batch = town.caller("batch").await?;

    let status = batch.order(Some(&town.tokens.token("gateway")?)).await?.status();
    observed.check("HTTP: 403", format!("{status} for sa/batch"), status == 403);
    let record = town.audited(&["gateway"], by_batch).await?;
    let (seen, named) = decided(&record, "shop/revoked");
    observed.check("audit: policy shop/revoked, rule 0", seen, named);

    let answer = batch.refund(Some(&town.tokens.token("payments")?)).await;
    let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
    observed.check(
        "gRPC: PERMISSION_DENIED",
        format!("{code:?} for sa/batch").to_string(),
        code == Code::PermissionDenied,
    );
    let record = town.audited(&["payments-1", "payments-2", "payments-3"], by_batch).await?;
    let (seen, named) = decided(&record, "shop/no-refunds");
    observed.check("audit: policy shop/no-refunds, rule 0", seen, named);
    Ok(observed)
}

fn by_batch(record: &Value) -> bool {
    record["peer"] == BATCH
}

fn decided(record: &Value, policy: &str) -> (String, bool) {
    let [outcome, reason, by, rule] =
        ["outcome", "reason", "policy", "rule"].map(|field| record.get(field).cloned().unwrap_or_default());
    let named = outcome == "deny" && by == policy && rule == 0;
    (format!("{outcome} by {reason}: policy {by}, rule {rule}").replace('"', ""), named)
}
