//! Compiles the `.proto` files with protox, in Rust, so that `protoc` is not needed.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let protos = ["baton/v1/shard.proto", "baton/v1/encoder.proto", "baton/v1/decoder.proto"];
    println!("cargo:rerun-if-changed=baton");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(protos)?;
    // For server reflection.
    let out_dir = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out_dir).join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let descriptors = compiler.file_descriptor_set();
    // Prompt states are most of the traffic. `Bytes` shares the received buffer; `Vec<u8>` would copy it.
    tonic_prost_build::configure().bytes(".baton.v1").compile_fds(descriptors)?;
    Ok(())
}
