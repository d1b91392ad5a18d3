//! An order goes through all services; each shows whom the mesh says it was called by.

use mesh_tower::Client;

use super::{Observed, Step};
use crate::Error;
use crate::driver::town::Town;
use crate::gateway::{Order, Receipt};

pub(crate) const STEP: Step = Step {
    title: "1 an order goes through three services",
    expected: "gateway sees web, orders sees gateway, payments sees orders",
    run: |town| Box::pin(run(town)),
};

const WAY: [(&str, &str); 3] = [
    ("gateway", "spiffe://shop.example/ns/shop/sa/web"),
    ("orders", "spiffe://shop.example/ns/shop/sa/gateway"),
    ("payments", "spiffe://shop.example/ns/shop/sa/orders"),
];

async fn run(town: &mut Town) -> Result<Observed, Error> {
    let web = town.caller("web").await?;
    let gateway = Client::new(&web, "gateway")?;
    let token = town.tokens.token("gateway")?;
    let order = Order { id: 1, cents: 499 };
    let answer = gateway.post("/orders").bearer_token(&token).json(&order).send().await?;
    let receipt: Receipt = answer.error_for_status()?.json().await?;
    let way: Vec<_> = receipt.way.iter().map(|seen| (seen.service.as_str(), seen.peer.as_str())).collect();
    let text = way.iter().map(|(service, peer)| format!("{service} sees {peer}")).collect::<Vec<_>>().join(", ");
    Ok(if way == WAY { Observed::expected(text) } else { Observed::differs(text) })
}
