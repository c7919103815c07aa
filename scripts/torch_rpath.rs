//! Build script shared by every crate whose binaries or tests load libtorch.
//!
//! Owns one decision: where a finished binary finds `libtorch_cpu.so` at run time. It writes the run path
//! with `rustc-link-arg`, which, unlike `rustflags` in `.cargo/config.toml`, survives a `RUSTFLAGS`
//! environment variable.

#![allow(clippy::print_stdout, reason = "cargo reads a build script's standard output")]

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        let lib = std::path::Path::new(&libtorch).join("lib");
        let lib = lib.canonicalize().unwrap_or(lib);
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
    // Beside an installed binary (a container image): bin/baton with lib/libtorch_cpu.so.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
}
