//! `bpf/*.bpf.c` -> object and skeleton in OUT_DIR; nothing else.

use std::env;
use std::error::Error;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let builder = |name: &str, defines: &[&str]| {
        // The kernel's user-space headers keep asm/ in the multiarch directory.
        let include = format!("-I/usr/include/{arch}-linux-gnu");
        // A packet's bytes are read as words here and as fields there, as in the kernel, which is built so, too.
        let fixed = ["-mcpu=v3", "-fno-strict-aliasing", "-Werror"].map(str::to_owned);
        let defines = defines.iter().copied().map(str::to_owned);
        let args: Vec<String> = [include].into_iter().chain(fixed).chain(defines).collect();
        let mut builder = SkeletonBuilder::new();
        builder
            .source("bpf/xdp_uplink.bpf.c")
            .obj(out.join(name))
            .clang(env::var("CLANG").unwrap_or_else(|_| "clang-19".to_owned()))
            .clang_args(args);
        builder
    };
    builder("xdp_uplink.bpf.o", &[]).build_and_generate(out.join("xdp_uplink.skel.rs"))?;
    // The same source, built to record a packet's way, and both for nodes with VRFs.
    builder("xdp_explain.bpf.o", &["-DEXPLAIN=1"]).build()?;
    builder("xdp_uplink_vrfs.bpf.o", &["-DVRFS=1"]).build()?;
    builder("xdp_explain_vrfs.bpf.o", &["-DEXPLAIN=1", "-DVRFS=1"]).build()?;
    Ok(())
}
