//! Other projects' objects in the bench: that they run as they are, and that what is wrong with one is told. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const HEAD: &str = "
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC(\"license\") = \"GPL\";
";

/// Sends back what its map has the source port of, and only a packet that is as the bench made it: anything that an
/// earlier packet left behind makes a drop of it. Then it moves head, tail and metadata and writes over the head.
const MOVER: &str = "
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} allowed SEC(\".maps\");

SEC(\"xdp.frags\")
int mover(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 port, i;

	if (ctx->data_meta != ctx->data || data + 64 > (unsigned char *)end || data + 65 <= (unsigned char *)end)
		return XDP_DROP;
	if (data[12] != 8 || data[13] || data[14] != 0x45)
		return XDP_DROP;
	port = data[34] << 8 | data[35];
	if (!bpf_map_lookup_elem(&allowed, &port))
		return XDP_DROP;
	for (i = 0; i < 60; i++)
		data[i] = 0xff;
	if (bpf_xdp_adjust_meta(ctx, -8) || bpf_xdp_adjust_head(ctx, -36) || bpf_xdp_adjust_tail(ctx, -4))
		return XDP_ABORTED;
	return XDP_TX;
}
";

/// Passes to the second of its programs, which is named where it is needed.
const TWO: &str = "
SEC(\"xdp\") int first(struct xdp_md *ctx) { return XDP_DROP; }
SEC(\"xdp\") int second(struct xdp_md *ctx) { return XDP_PASS; }
SEC(\"xdp/devmap\") int third(struct xdp_md *ctx) { return XDP_PASS; }
";

const UNSAFE: &str = "
SEC(\"xdp\") int broken(struct xdp_md *ctx) { return *(char *)(long)ctx->data; }
";

const TC: &str = "
SEC(\"tc\") int classifier(struct __sk_buff *skb) { return 0; }
";

fn compile(directory: &TempDir, name: &str, source: &str) -> PathBuf {
    let (text, object) = (directory.path().join(format!("{name}.bpf.c")), directory.path().join(format!("{name}.o")));
    std::fs::write(&text, [HEAD, source].concat()).unwrap();
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang-19".to_owned());
    let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let status =
        Command::new(clang).args(["-O2", "-g", "--target=bpf", "-c", &include, "-o"]).arg(&object).arg(&text).status();
    assert!(status.unwrap().success());
    object
}

fn prog(arguments: &[&str]) -> Output {
    let bench = env!("CARGO_BIN_EXE_dataplane-bench");
    Command::new(bench).args(["prog", "--json", "--rounds", "3", "--repeat", "5000"]).args(arguments).output().unwrap()
}

fn rows(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is told of an object that cannot be measured.
fn refused(object: &str, more: &[&str]) -> String {
    let output = prog(&[&["--cases", "", "--object", object], more].concat());
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

mod root {
    use super::*;

    #[test]
    fn every_packet_is_met_as_if_it_were_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let mover = compile(&directory, "mover", MOVER);
        // Little endian and big: 40000 is the source port of the packet that is sent where none is named.
        let setup = "test -e $MARGAY_BENCH_PIN_DIR/allowed && id=$(echo \"$MARGAY_BENCH_MAPS\" | sed -n s/^allowed=//p) && \
                     bpftool map update id $id key hex 40 9c 00 00 value hex 01 00 00 00";
        let object = mover.to_str().unwrap();
        let output = prog(&[
            "--cases",
            "baseline/empty",
            "--object",
            object,
            "--setup",
            setup,
            "--expect",
            "tx",
            "--object",
            object,
            "--name",
            "mover-miss",
            "--expect",
            "drop",
        ]);
        let rows = rows(&output);
        let names: Vec<&str> = rows.iter().map(|row| row["case"].as_str().unwrap()).collect();
        assert_eq!(names, ["baseline/empty", "object/mover", "object/mover-miss"]);
        assert!(rows.iter().all(|row| row["baseline"] == true && row["rounds"] == 3));
        assert_eq!(rows[1]["about"], "mover of mover.o, tx");
        assert!(!std::fs::read_to_string("/proc/mounts").unwrap().contains("/tmp/.tmp"), "a mount is left");
    }

    #[test]
    fn one_of_several_programs_is_chosen_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let two = compile(&directory, "two", TWO);
        let two = two.to_str().unwrap();
        let error = refused(two, &[]);
        assert!(
            error.contains("several XDP programs") && error.contains("first, second") && !error.contains("third"),
            "{error}"
        );
        let error = refused(two, &["--program", "fourth"]);
        assert!(error.contains("no XDP program 'fourth'") && error.contains("first, second"), "{error}");
        let rows = rows(&prog(&["--cases", "", "--object", two, "--program", "second"]));
        assert_eq!(
            (rows[0]["case"].as_str(), rows[0]["about"].as_str()),
            (Some("object/second"), Some("second of two.o, pass"))
        );
    }

    #[test]
    fn what_is_wrong_with_an_object_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let error = refused("/nonexistent/rival.o", &[]);
        assert!(error.contains("/nonexistent/rival.o") && error.contains("No such file"), "{error}");
        let text = directory.path().join("text.o");
        std::fs::write(&text, "no object").unwrap();
        assert!(refused(text.to_str().unwrap(), &[]).contains("not an ELF object"));
        let error = refused(env!("CARGO_BIN_EXE_dataplane-bench"), &[]);
        assert!(error.contains("not a BPF object"), "{error}");
        let tc = compile(&directory, "tc", TC);
        assert!(refused(tc.to_str().unwrap(), &[]).contains("no XDP program"));
        let broken = compile(&directory, "broken", UNSAFE);
        let error = refused(broken.to_str().unwrap(), &[]);
        assert!(error.contains("the kernel refuses it") && error.contains("invalid access to packet"), "{error}");
    }

    #[test]
    fn a_set_up_that_fails_and_a_packet_that_ends_otherwise_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let mover = compile(&directory, "mover", MOVER);
        let mover = mover.to_str().unwrap();
        let error = refused(mover, &["--setup", "echo no such table >&2; exit 3"]);
        assert!(error.contains("no such table") && error.contains('3'), "{error}");
        let error = refused(mover, &["--expect", "tx"]);
        assert!(error.contains("ended as drop, not as tx"), "{error}");
        let error = refused(mover, &["--frame", "eth 02::1 > 02::2 / ip4 192.0.2.1 > 192.0.2.2 / udp 1 > 2"]);
        assert!(error.contains("/ pad 22"), "{error}");
        let error = refused(mover, &["--frame", "eth 02::1"]);
        assert!(error.contains("--frame"), "{error}");
    }
}
