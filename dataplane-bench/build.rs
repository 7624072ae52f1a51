//! `bpf/*.bpf.c`, the pipeline of the root package in one of them, -> objects and the types they share in OUT_DIR.

use std::env;
use std::error::Error;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-changed=../bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    for name in ["baseline", "pipeline", "object", "lab"] {
        SkeletonBuilder::new()
            .source(format!("bpf/{name}.bpf.c"))
            .obj(out.join(format!("{name}.bpf.o")))
            .clang(env::var("CLANG").unwrap_or_else(|_| "clang-19".to_owned()))
            .clang_args([
                format!("-I/usr/include/{arch}-linux-gnu"),
                "-mcpu=v3".to_owned(),
                // A packet's bytes are read as words here and as fields there, as in the kernel, which is built so, too.
                "-fno-strict-aliasing".to_owned(),
                "-Werror".to_owned(),
            ])
            .build_and_generate(out.join(format!("{name}.skel.rs")))?;
    }
    Ok(())
}
