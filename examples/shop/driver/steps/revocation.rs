//! Somebody who may order is put on the list of those who may not.

use std::time::Duration;

use super::{Observed, Step};
use crate::Error;
use crate::driver::load::Load;
use crate::driver::town::Town;
use crate::driver::wait::until;
use crate::role::{Role, write_whole};

pub(crate) const STEP: Step =
    Step { title: "7 a policy file is edited: partner is revoked", run: |town| Box::pin(run(town)) };

const BATCH: &str = "principals: [shop.example/ns/shop/sa/batch]";
const BATCH_AND_PARTNER: &str = "principals: [shop.example/ns/shop/sa/batch, shop.example/ns/shop/sa/partner]";
const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(10);

async fn run(town: &mut Town) -> Result<Observed, Error> {
    let mut observed = Observed::default();
    let token = town.tokens.token("gateway")?;
    let web = town.caller("web").await?;
    let load = Load::start(&web, &token);
    load.goes_on(20).await?;
    let partner = town.caller("partner").await?;
    let status = partner.order(Some(&token)).await?.status();
    observed.check("before: partner may order", format!("{status}"), status == 200);

    let file = town.layout.policy("gateway", Role::Gateway);
    let policy = std::fs::read_to_string(&file)?;
    write_whole(&file, &policy.replace(BATCH, BATCH_AND_PARTNER))?;
    let refused = async || {
        // The order that is under way when the policy changes may be cut off without an answer.
        let status = partner.order(Some(&token)).await.map(|ordered| ordered.status());
        Ok(status.ok().filter(|status| *status != 200))
    };
    let (status, took) = until("partner to be refused", LIMIT, refused).await?;
    let seen = format!("{status} after {} ms", took.as_millis());
    observed.check("refused within 1 s of the edit", seen, status == 403 && took <= SECOND);
    // Refused on it, or it was asked to leave, as that of one whom policy could let nothing do, and then on the next: which
    // stays, so that refusing somebody does not cost a handshake each time.
    let connections = partner.connections();
    let mut let_in = 0;
    for _ in 0..10 {
        let status = partner.order(Some(&token)).await.map(|ordered| ordered.status());
        let_in += u32::from(!matches!(status, Ok(403)));
    }
    let how = if connections == 1 { "refused on it" } else { "ended, and refused on the next" };
    let seen = if let_in == 0 { how.to_owned() } else { format!("{let_in} of 10 more were not refused") };
    observed.check("its open connection is no way in", seen, let_in == 0);
    let again = town.caller("partner").await?;
    let status = again.order(Some(&token)).await?.status();
    observed.check("and on a new one", format!("{status}"), status == 403);

    let tally = load.end().await?;
    observed.check("web, who stays: 0 failed requests", tally.text(), tally.failed.is_empty());
    Ok(observed)
}
