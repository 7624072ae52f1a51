//! `bpf/pktgen_rx.bpf.c` -> object and skeleton in OUT_DIR; nothing else.

use std::env;
use std::error::Error;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    SkeletonBuilder::new()
        .source("bpf/pktgen_rx.bpf.c")
        .obj(out.join("pktgen_rx.bpf.o"))
        .clang(env::var("CLANG").unwrap_or_else(|_| "clang-19".to_owned()))
        // The kernel's user-space headers keep asm/ in the multiarch directory.
        .clang_args([format!("-I/usr/include/{arch}-linux-gnu"), "-mcpu=v3".to_owned(), "-Werror".to_owned()])
        .build_and_generate(out.join("pktgen_rx.skel.rs"))?;
    Ok(())
}
