//! Compiles the `.proto` files with protox, in Rust, so that `protoc` is not needed.

use std::error::Error;
use std::path::Path;

use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let protos = ["shard", "encoder", "decoder", "blocks"].map(|name| format!("baton/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=baton");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(&protos)?;
    // For server reflection.
    let out_dir = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out_dir).join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    println!("cargo:rustc-env=BATON_PROTOCOL={}", protocol(&protos)?);
    let descriptors = compiler.file_descriptor_set();
    // Prompt states are most of the traffic. `Bytes` shares the received buffer; `Vec<u8>` would copy it.
    tonic_prost_build::configure().bytes(".baton.v1").compile_fds(descriptors)?;
    Ok(())
}

/// Names the contracts by the release and a fingerprint of the `.proto` files, so that no change is
/// forgotten.
fn protocol(protos: &[String]) -> Result<String, Box<dyn Error>> {
    let mut sha256 = Sha256::new();
    for proto in protos {
        println!("cargo:rerun-if-changed={proto}");
        sha256.update(std::fs::read(proto)?);
    }
    let fingerprint: String = sha256.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{fingerprint}", std::env::var("CARGO_PKG_VERSION")?))
}
