//! Compiles the `.proto` files with protox, in Rust, so that no `protoc` has to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let protos = ["baton/v1/shard.proto", "baton/v1/encoder.proto", "baton/v1/decoder.proto"];
    println!("cargo:rerun-if-changed=baton");
    let descriptors = protox::compile(protos, ["."])?;
    // Prompt states are the bulk of the traffic: `Bytes` shares the received buffer where `Vec<u8>` would copy it.
    tonic_prost_build::configure().bytes(".baton.v1").compile_fds(descriptors)?;
    Ok(())
}
