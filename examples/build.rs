//! Compiles the shop's proto without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=shop/proto");
    let files = protox::compile(["shop.proto"], ["shop/proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
