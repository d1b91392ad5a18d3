//! Stock: how much of a thing is left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Stock {
    pub pieces: u32,
}

type Shelf = Arc<Mutex<HashMap<String, Stock>>>;

pub fn router() -> Router {
    Router::new().route("/stock/{item}", get(show).put(fill)).with_state(Shelf::default())
}

async fn show(State(shelf): State<Shelf>, Path(item): Path<String>) -> Json<Stock> {
    println!("somebody asks for {item}");
    let shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    Json(shelf.get(&item).copied().unwrap_or_default())
}

async fn fill(State(shelf): State<Shelf>, Path(item): Path<String>, Json(stock): Json<Stock>) -> StatusCode {
    shelf.lock().unwrap_or_else(PoisonError::into_inner).insert(item, stock);
    StatusCode::NO_CONTENT
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8446").await?;
    axum::serve(listener, router()).await?;
    Ok(())
}
