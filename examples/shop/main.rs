//! A shop of three services, each process with its own identity, that plays what the mesh promises.
//!
//! `cargo run --bin shop` starts the driver. It starts this same program again as `gateway`, `orders` and three
//! `payments`, plays the steps against them and prints a table of what was expected and what was seen.

mod driver;
mod gateway;
mod orders;
mod payments;
mod role;
mod seen;

/// Generated from `proto/shop.proto`.
#[allow(missing_docs, clippy::all, unreachable_pub, reason = "generated code")]
mod pb {
    tonic::include_proto!("shop");
}

use std::process::ExitCode;

/// What may go wrong in an example; told to the user and the end of it.
type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => driver::run().await,
        ["role", name, dir] => role::run(name, dir.as_ref()).await.map(|()| true),
        _ => Err("usage: shop    (it starts its own processes)".into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("shop: {error}");
            ExitCode::FAILURE
        }
    }
}
