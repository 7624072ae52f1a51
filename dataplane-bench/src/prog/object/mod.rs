//! Any other project's XDP object, in the same rounds as everything else.
//!
//! The harness enters the foreign program by a tail call, so it runs as it is, in the kernel, a million times a system
//! call; before each packet the harness puts back what the program did to the last one. Its maps are its own, pinned in
//! a file system that only this run sees, for a command to fill.

mod options;

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use libbpf_rs::{
    MapCore, MapFlags, MapType, Object, ObjectBuilder, OpenObject, PrintLevel, ProgramAttachType, ProgramType,
    set_print,
};

use super::bench::{Bench, Keeps, Label, Subject};
use super::kernel::{Control, FrameState, Loaded, Vary, action, image, slot};
use super::sandbox::{BpfFs, EGRESS, INGRESS, Sandbox};
use crate::result;

pub(super) use options::Objects;
use options::Spec;

/// What the measured packet is where nothing else is said: TCP, 64 bytes.
const FRAME: &str = "eth 02::ff > 02::1 / ip4 198.51.100.7 > 192.0.2.10 / tcp 40000 > 80 / data 10";
/// Packets whose action is looked at one by one before anything is timed.
const WATCHED: u32 = 64;
/// Lines of the verifier's log and of a command's output that an error shows.
const SHOWN_LINES: usize = 20;

/// A foreign object and where its maps are pinned.
#[derive(Debug)]
pub(super) struct Foreign {
    _object: Object,
    _pins: BpfFs,
}

/// Loads the objects of a command line, fills their maps and tries their packets.
pub(super) fn prepare(objects: &Objects, sandbox: &Sandbox) -> anyhow::Result<Vec<Bench>> {
    objects.0.iter().map(|spec| bench(spec, sandbox).with_context(|| spec.file.display().to_string())).collect()
}

/// The objects' names and hashes.
pub(super) fn hashes(objects: &Objects) -> anyhow::Result<Vec<result::Object>> {
    let hash = |spec: &Spec| result::Object::of_file(&spec.file).with_context(|| spec.file.display().to_string());
    objects.0.iter().map(hash).collect()
}

fn bench(spec: &Spec, sandbox: &Sandbox) -> anyhow::Result<Bench> {
    let text = spec.frame.as_deref().unwrap_or(FRAME);
    let frame = packet::notation::encode(text).context("--frame")?;
    let flows = spec.flows.unwrap_or(1);
    let vary = (flows > 1).then(|| {
        Vary::source_of(&frame).context("--flows needs an untagged frame, IPv6 or IPv4 without options, in --frame")
    });
    let state = FrameState::new(&frame, vary.transpose()?).context("--frame")?;

    let pins = BpfFs::mount()?;
    let (object, name) = load(spec, pins.path())?;
    if let Some(command) = &spec.setup {
        set_up(command, &object, pins.path())?;
    }
    let loaded = Loaded::load(image!("object"), &["bench_object", "bench_tail", "bench_empty"], |_| Ok(()))?;
    let slots = loaded.map("slots")?;
    let put = |to: slot, program: i32| slots.update(&to.0.to_ne_bytes(), &program.to_ne_bytes(), MapFlags::ANY);
    put(slot::SLOT_EMPTY, loaded.program("bench_empty")?.as_fd().as_raw_fd())?;
    let program = object.progs_mut().find(|program| program.name() == name.as_str()).context("the program is gone")?;
    put(slot::SLOT_SUBJECT, program.as_fd().as_raw_fd()).context("the kernel does not tail-call this program")?;

    let file = spec.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let case = format!("object/{}", spec.name.as_ref().unwrap_or(&name));
    let mut bench = Bench {
        label: Label { case, about: format!("{name} of {file}"), baseline: true, ..Label::default() },
        subject: Rc::new(Subject {
            loaded,
            _keeps: Keeps::Foreign { _foreign: Foreign { _object: object, _pins: pins } },
        }),
        without: "bench_tail",
        with: "bench_object",
        frame,
        frame_state: Some(state),
        ingress: Some(sandbox.ingress),
        control: Control { mask: flows - 1, ..Control::default() },
    };
    bench.control.expected = match spec.expect {
        Some(expected) => expected,
        None => bench.first_action()?,
    };
    bench.label.about += &format!(", {}", action::name(bench.control.expected));
    if flows > 1 {
        bench.label.about += &format!(", {flows} flows");
    }
    // Of a run, the kernel tells the last packet's action: as many runs as packets to look at.
    for packets in 1..=WATCHED {
        bench.advance(packets).with_context(|| format!("packet {packets} of a run"))?;
    }
    Ok(bench)
}

/// What libbpf said since [`said`] was called last: the verifier's log is among it.
static SAID: Mutex<String> = Mutex::new(String::new());

fn said() -> String {
    let text = std::mem::take(&mut *SAID.lock().unwrap_or_else(PoisonError::into_inner));
    last_lines(&text)
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or(&lines).join("\n")
}

/// Loads the chosen program over maps pinned in `pins`, and tells its name.
fn load(spec: &Spec, pins: &Path) -> anyhow::Result<(Object, String)> {
    let bytes = fs::read(&spec.file).context("reading the object")?;
    ensure!(bytes.starts_with(b"\x7fELF"), "not an ELF object (compile the program with clang --target=bpf)");
    let listener = |_: PrintLevel, text: String| SAID.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
    let printed = set_print(Some((PrintLevel::Warn, listener)));
    said();
    let loaded = (|| {
        let mut builder = ObjectBuilder::default();
        builder.pin_root_path(pins)?;
        let opened = builder.open_file(&spec.file);
        let mut open = opened.map_err(|error| anyhow::anyhow!("not a BPF object: {error}\n{}", said()))?;
        let name = choose(&open, spec.program.as_deref())?;
        configure(&mut open, &name, pins)?;
        let object = open.load().map_err(|error| anyhow::anyhow!("the kernel refuses it: {error}\n{}", said()))?;
        Ok((object, name))
    })();
    set_print(printed);
    loaded
}

/// The wanted one of the object's XDP programs; the only one where none is named.
fn choose(open: &OpenObject, wanted: Option<&str>) -> anyhow::Result<String> {
    let candidates: Vec<String> = open
        .progs()
        .filter(|program| is_xdp(program.prog_type(), &program.section().to_string_lossy()))
        .map(|program| program.name().to_string_lossy().into_owned())
        .collect();
    let listed = candidates.join(", ");
    match (wanted, candidates.as_slice()) {
        (_, []) => bail!("it has no XDP program (none in a section 'xdp')"),
        (Some(wanted), _) if candidates.iter().any(|name| name == wanted) => Ok(wanted.to_owned()),
        (Some(wanted), _) => bail!("it has no XDP program '{wanted}'; it has {listed}"),
        (None, [only]) => Ok(only.clone()),
        (None, _) => bail!("it has several XDP programs, choose one with --program: {listed}"),
    }
}

/// Programs of a DEVMAP or CPUMAP see other packets. Sections of old, `xdp_something`, say nothing to libbpf.
fn is_xdp(program: ProgramType, section: &str) -> bool {
    let in_maps = section.contains("devmap") || section.contains("cpumap");
    match program {
        ProgramType::Xdp => !in_maps,
        ProgramType::Unspec => section.starts_with("xdp"),
        _ => false,
    }
}

/// What is loaded, as what, and where its maps are pinned.
fn configure(open: &mut OpenObject, name: &str, pins: &Path) -> anyhow::Result<()> {
    // Where programs call each other by number, the others belong to it.
    let calls = open.maps().any(|map| map.map_type() == MapType::ProgArray);
    for mut program in open.progs_mut() {
        let chosen = program.name() == name;
        let xdp = is_xdp(program.prog_type(), &program.section().to_string_lossy());
        program.set_autoload(chosen || (calls && xdp));
        if xdp {
            // A tail call joins only programs of one kind: one for frames of several buffers is loaded as one for frames of
            // one. Its section says which it is, and libbpf forgets the section when the type changes.
            program.set_prog_type(ProgramType::SocketFilter);
            program.set_prog_type(ProgramType::Xdp);
            program.set_attach_type(ProgramAttachType::Xdp);
            program.set_flags(0);
        }
    }
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        // The sections of its variables are maps, too; the file system takes no dots.
        if !name.contains('.') {
            map.set_pin_path(pins.join(&name)).with_context(|| format!("map {name}"))?;
        }
    }
    Ok(())
}

/// Runs the command that fills the maps, in the run's own namespaces.
fn set_up(command: &str, object: &Object, pins: &Path) -> anyhow::Result<()> {
    let mut maps = OsString::new();
    for map in object.maps() {
        let id = map.info().with_context(|| format!("map {}", map.name().to_string_lossy()))?.info.id;
        maps.push(map.name());
        maps.push(format!("={id}\n"));
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null());
    shell.env("MARGAY_BENCH_PIN_DIR", pins).env("MARGAY_BENCH_MAPS", maps);
    shell.env("MARGAY_BENCH_INGRESS", INGRESS).env("MARGAY_BENCH_EGRESS", EGRESS);
    let output = shell.output().context("starting sh for --setup")?;
    let words = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let words = last_lines(&String::from_utf8_lossy(words));
    ensure!(output.status.success(), "--setup '{command}' failed ({}): {words}", output.status);
    Ok(())
}
