//! An order goes through all services; each shows whom the mesh says it was called by.

use super::{Observed, Step};
use crate::Error;
use crate::driver::caller::PATIENCE;
use crate::driver::town::Town;

pub(crate) const STEP: Step = Step { title: "1 an order goes through three services", run: |town| Box::pin(run(town)) };

/// Service, and whom its handler must see.
const WAY: [(&str, &str, &str); 3] = [
    ("gateway", "gateway is called by web", "spiffe://shop.example/ns/shop/sa/web"),
    ("orders", "orders is called by gateway", "spiffe://shop.example/ns/shop/sa/gateway"),
    ("payments", "payments is called by orders", "spiffe://shop.example/ns/shop/sa/orders"),
];

async fn run(town: &mut Town) -> Result<Observed, Error> {
    let web = town.caller("web").await?;
    let receipt = web.receipt(&town.tokens.token("gateway")?, PATIENCE).await?;
    let mut observed = Observed::default();
    for (at, (service, expected, peer)) in WAY.into_iter().enumerate() {
        let seen = receipt.way.get(at);
        let text = seen.map_or_else(|| "nothing".to_owned(), |seen| format!("{} sees {}", seen.service, seen.peer));
        observed.check(expected, text, seen.is_some_and(|seen| seen.service == service && seen.peer == peer));
    }
    Ok(observed)
}
