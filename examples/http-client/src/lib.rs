//! The orders service, as its callers like to see it.

use std::time::Duration;

use mesh_tower::{Client, Error};
use serde::{Deserialize, Serialize};

/// What was ordered, and by whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub id: u64,
    pub item: String,
    #[serde(default)]
    pub placed_by: String,
}

/// Calls `orders`. Clones are handles: keep one for the whole program.
#[derive(Debug, Clone)]
pub struct Shop {
    orders: Client,
}

impl Shop {
    pub fn new(orders: Client) -> Self {
        Self { orders }
    }

    /// Places an order. The key lets the service tell a repetition from a second order, so that this may be repeated.
    pub async fn place(&self, id: u64, item: &str) -> Result<Order, Error> {
        let order = Order { id, item: item.to_owned(), placed_by: String::new() };
        let key = format!("order-{id}");
        self.orders.post("/orders").idempotency_key(key).json(&order).send().await?.json().await
    }

    /// Finds an order. It is worth no more than a second; the route allows two.
    pub async fn find(&self, id: u64) -> Result<Order, Error> {
        self.orders.get(&format!("/orders/{id}")).timeout(Duration::from_secs(1)).send().await?.json().await
    }
}
