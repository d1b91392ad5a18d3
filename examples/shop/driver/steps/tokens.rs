//! A token is asked for, and judged, at both doors.

use tonic::Code;

use super::{Observed, Step};
use crate::Error;
use crate::driver::town::Town;

pub(crate) const STEP: Step =
    Step { title: "4 a token must be there, valid, and meant for us", run: |town| Box::pin(run(town)) };

async fn run(town: &mut Town) -> Result<Observed, Error> {
    let mut observed = Observed::default();
    let web = town.caller("web").await?;
    let tokens = &town.tokens;
    let refused = (401, Code::Unauthenticated);
    let table = [
        ("no token: 401, UNAUTHENTICATED", None, None, refused),
        ("expired: 401, UNAUTHENTICATED", Some(tokens.expired("gateway")?), Some(tokens.expired("payments")?), refused),
        ("for others: 401, UNAUTHENTICATED", Some(tokens.token("payments")?), Some(tokens.token("gateway")?), refused),
        ("good: 200, OK", Some(tokens.token("gateway")?), Some(tokens.token("payments")?), (200, Code::Ok)),
    ];
    for (expected, http, grpc, wanted) in table {
        let status = web.order(http.as_deref()).await?.status();
        let code = web.refund(grpc.as_deref()).await.map_or_else(|status| status.code(), |_| Code::Ok);
        observed.check(expected, format!("{status}, {code:?}"), (status, code) == wanted);
    }
    Ok(observed)
}
