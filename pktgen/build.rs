//! `bpf/*.bpf.c` -> objects and skeletons in OUT_DIR; nothing else.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    for entry in fs::read_dir("bpf")? {
        let source = entry?.path();
        let Some(name) = source.file_name().and_then(|name| name.to_str()?.strip_suffix(".bpf.c")) else { continue };
        SkeletonBuilder::new()
            .source(&source)
            .obj(out.join(format!("{name}.bpf.o")))
            .clang(env::var("CLANG").unwrap_or_else(|_| "clang-19".to_owned()))
            // The kernel's user-space headers keep asm/ in the multiarch directory.
            .clang_args([format!("-I/usr/include/{arch}-linux-gnu"), "-mcpu=v3".to_owned(), "-Werror".to_owned()])
            .build_and_generate(out.join(format!("{name}.skel.rs")))?;
    }
    Ok(())
}
