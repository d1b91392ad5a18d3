//! What is generated from `proto/shop.proto`.

pub mod pb {
    tonic::include_proto!("shop");
}
