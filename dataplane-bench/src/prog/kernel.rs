//! The bench's own objects in the kernel: opened, loaded, told what to do, run.

use std::mem::offset_of;

use anyhow::{Context, bail, ensure};
use libbpf_rs::{Map, MapCore, MapFlags, Object, ObjectBuilder, OpenObject, ProgramInput, ProgramMut};

use skel::types;
pub(super) use skel::types::slot;

#[expect(
    unsafe_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::undocumented_unsafe_blocks,
    reason = "generated"
)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/object.skel.rs"));
}

/// Alignment that libelf wants of an ELF image in memory.
#[repr(C, align(8))]
pub(super) struct Image<T: ?Sized>(pub(super) T);

/// One of the bench's objects, as it was compiled in.
macro_rules! image {
    ($name:literal) => {{
        static IMAGE: &$crate::prog::kernel::Image<[u8]> =
            &$crate::prog::kernel::Image(*include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o")));
        &IMAGE.0
    }};
}
pub(super) use image;

/// The bench's objects by name and hash.
pub(super) fn objects() -> [crate::result::Object; 3] {
    use crate::result::Object;
    [
        Object::of("baseline.bpf.o", image!("baseline")),
        Object::of("pipeline.bpf.o", image!("pipeline")),
        Object::of("object.bpf.o", image!("object")),
    ]
}

/// `enum xdp_action`.
pub(super) mod action {
    pub(in crate::prog) const DROP: u32 = 1;
    pub(in crate::prog) const PASS: u32 = 2;
    pub(in crate::prog) const TX: u32 = 3;
    pub(in crate::prog) const REDIRECT: u32 = 4;
    /// Their names, by number, as the uapi header has them.
    pub(in crate::prog) const NAMES: [&str; 5] = ["aborted", "drop", "pass", "tx", "redirect"];

    /// Name of an action.
    pub(in crate::prog) fn name(action: u32) -> String {
        let name = NAMES.get(action as usize);
        name.map_or_else(|| format!("action {action}"), |name| (*name).to_owned())
    }
}

/// Bytes of the frame that the harness writes anew, by the length of the frame (`frame.h`).
pub(super) const HEAD_BYTES: usize = 64;
const LONG_HEAD_BYTES: usize = 128;

/// A loaded object.
#[derive(Debug)]
pub(super) struct Loaded {
    object: Object,
}

impl Loaded {
    /// Opens `image`, has `configure` set what is set before load, and loads it with the programs named in `programs`.
    pub(super) fn load(
        image: &[u8],
        programs: &[&str],
        configure: impl FnOnce(&mut OpenObject) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut open = ObjectBuilder::default().name("bench")?.open_memory(image).context("opening the programs")?;
        for mut program in open.progs_mut() {
            let wanted = programs.iter().any(|name| program.name() == *name);
            program.set_autoload(wanted);
        }
        configure(&mut open)?;
        Ok(Self { object: open.load().context("loading the programs")? })
    }

    pub(super) fn map(&self, name: &str) -> anyhow::Result<Map<'_>> {
        self.object.maps().find(|map| map.name() == name).with_context(|| format!("the object has no map {name}"))
    }

    pub(super) fn program(&self, name: &str) -> anyhow::Result<ProgramMut<'_>> {
        let mut programs = self.object.progs_mut();
        programs.find(|program| program.name() == name).with_context(|| format!("the object has no program {name}"))
    }

    fn store(&self, map: &str, value: &[u8]) -> anyhow::Result<()> {
        self.map(map)?.update(&0u32.to_ne_bytes(), value, MapFlags::ANY).with_context(|| format!("writing {map}"))
    }

    fn value(&self, map: &str) -> anyhow::Result<Vec<u8>> {
        let value = self.map(map)?.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).with_context(|| format!("reading {map}"));
        value?.with_context(|| format!("{map} is empty"))
    }

    /// Runs `program` on `repeat` packets.
    pub(super) fn run(&self, program: &str, run: &Run<'_>, repeat: u32) -> anyhow::Result<Ran> {
        self.store(".data.control", &run.control.bytes()?)?;
        if let Some(frame) = run.frame_state {
            self.store(".data.frame", &frame.bytes)?;
        }
        let mut context = run.ingress.map(|ifindex| xdp_md(run.frame.len(), ifindex));
        let input = ProgramInput {
            data_in: Some(run.frame),
            context_in: context.as_deref_mut(),
            repeat,
            ..ProgramInput::default()
        };
        let output = self.program(program)?.test_run(input).with_context(|| format!("running {program}"))?;
        let after = self.value(".data.control")?;
        let ran = Ran {
            ns: u64::try_from(output.duration.as_nanos())?,
            action: output.return_value,
            unexpected: u64::from_ne_bytes(take(&after, offset_of!(types::control, unexpected))?),
            result: u64::from_ne_bytes(take(&after, offset_of!(types::control, result))?),
        };
        if ran.unexpected > 0 {
            let (expected, last, result) = (action::name(run.control.expected), action::name(ran.action), ran.result);
            let unexpected = ran.unexpected;
            bail!("{program}: {unexpected} of {repeat} packets did not end as {expected} (last: {last}, {result:#x})");
        }
        Ok(ran)
    }

    /// What the harness had to put back since its state was last written: bits of `enum moved`.
    pub(super) fn moved(&self) -> anyhow::Result<u32> {
        let state = self.value(".data.frame")?;
        Ok(u32::from_ne_bytes(take(&state, offset_of!(types::frame, moved))?))
    }
}

/// `struct xdp_md` for a frame that came in by `ifindex`: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
/// egress_ifindex (the uapi header).
fn xdp_md(bytes: usize, ifindex: u32) -> Vec<u8> {
    [0, bytes as u32, 0, ifindex, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// What a run is given.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) control: Control,
    pub(super) frame: &'a [u8],
    pub(super) frame_state: Option<&'a FrameState>,
    /// Interface that the frame comes in by; loopback where absent.
    pub(super) ingress: Option<u32>,
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ran {
    /// Mean time of a packet, whole ns: the kernel rounds down.
    pub(super) ns: u64,
    /// XDP action of the last packet.
    pub(super) action: u32,
    /// Packets with another action than expected, where the program counts them.
    unexpected: u64,
    /// What the last look-up found.
    pub(super) result: u64,
}

/// `struct control`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Control {
    /// Number of the next packet.
    pub(super) next: u32,
    /// Keys or flows less one.
    pub(super) mask: u32,
    /// First key.
    pub(super) first: u32,
    /// XDP action of every packet.
    pub(super) expected: u32,
}

impl Control {
    fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let mut value = vec![0; size_of::<types::control>()];
        put(&mut value, offset_of!(types::control, next), &self.next.to_ne_bytes())?;
        put(&mut value, offset_of!(types::control, mask), &self.mask.to_ne_bytes())?;
        put(&mut value, offset_of!(types::control, first), &self.first.to_ne_bytes())?;
        put(&mut value, offset_of!(types::control, expected), &self.expected.to_ne_bytes())?;
        // No table holds it: what a look-up has found is told from what none has touched.
        put(&mut value, offset_of!(types::control, result), &u64::MAX.to_ne_bytes())?;
        Ok(value)
    }
}

/// Where the number of a flow goes in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vary {
    /// Offset of its low 16 bits.
    pub(super) low_at: usize,
    /// Offset of its high 16 bits; where there are no more than 65,536 flows they are zero.
    pub(super) high_at: usize,
    /// The IPv4 header checksum that covers the low bits.
    pub(super) checksum_at: Option<usize>,
}

impl Vary {
    /// The last two bytes of the source address, then the source port, of an untagged frame (RFC 791 §3.1).
    pub(super) const IP4_SOURCE: Self = Self { low_at: 14 + 14, high_at: 14 + 20, checksum_at: Some(14 + 10) };
    /// The same of IPv6 (RFC 8200 §3).
    const IP6_SOURCE: Self = Self { low_at: 14 + 22, high_at: 14 + 40, checksum_at: None };

    /// Where the sources of a frame of any kind can differ; `None` where that is not known.
    pub(super) fn source_of(frame: &[u8]) -> Option<Self> {
        match (frame.get(12..14)?, frame.get(14)?) {
            ([0x08, 0x00], 0x45) => Some(Self::IP4_SOURCE),
            ([0x86, 0xdd], _) => Some(Self::IP6_SOURCE),
            _ => None,
        }
    }
}

/// `struct frame`, ready to be written.
#[derive(Debug)]
pub(super) struct FrameState {
    bytes: Vec<u8>,
}

impl FrameState {
    /// The state for `frame`, whose flows differ as `vary` says.
    ///
    /// # Errors
    /// The frame is too short, or what varies lies behind what is written anew or is not zero in it.
    pub(super) fn new(frame: &[u8], vary: Option<Vary>) -> anyhow::Result<Self> {
        let (bytes, missing) = (frame.len(), HEAD_BYTES.saturating_sub(frame.len()));
        ensure!(
            missing == 0,
            "the frame has {bytes} bytes, the harness needs {HEAD_BYTES}: put ' / pad {missing}' behind it"
        );
        let long = frame.len() >= LONG_HEAD_BYTES;
        let head =
            frame.get(..if long { LONG_HEAD_BYTES } else { HEAD_BYTES }).context("frame shorter than its head")?;
        // One flow: its number is 0, and folded in anywhere changes nothing.
        let vary = vary.unwrap_or(Vary { low_at: 0, high_at: 0, checksum_at: None });
        for at in [vary.low_at, vary.high_at] {
            ensure!(at + 2 <= HEAD_BYTES, "offset {at} lies behind the {HEAD_BYTES} bytes that the harness writes");
        }
        if vary.checksum_at.is_some() {
            let word: [u8; 2] = take(frame, vary.low_at)?;
            ensure!(word == [0, 0], "the bits that vary must be zero in the frame, or its checksum cannot be kept");
        }
        let mut state = Self { bytes: vec![0; size_of::<types::frame>()] };
        state.put(offset_of!(types::frame, head), head)?;
        state.put32(offset_of!(types::frame, bytes), frame.len())?;
        state.put32(offset_of!(types::frame, long_head), usize::from(long))?;
        state.put32(offset_of!(types::frame, low_at), vary.low_at)?;
        state.put32(offset_of!(types::frame, high_at), vary.high_at)?;
        state.put32(offset_of!(types::frame, csum_at), vary.checksum_at.unwrap_or(0))?;
        Ok(state)
    }

    /// Has every packet bear the next address of the object's table of destinations, at this offset, where the frame is zero.
    pub(super) fn set_destinations(&mut self, at: usize, bytes: usize, checksum_at: usize) -> anyhow::Result<()> {
        self.put32(offset_of!(types::frame, to_at), at)?;
        self.put32(offset_of!(types::frame, to_bytes), bytes)?;
        self.put32(offset_of!(types::frame, csum_at), checksum_at)
    }

    /// What is put back for every packet, moved or not: bits of `enum moved`.
    pub(super) fn set_price(&mut self, moved: u32) -> anyhow::Result<()> {
        self.put(offset_of!(types::frame, price), &moved.to_ne_bytes())
    }

    fn put32(&mut self, offset: usize, value: usize) -> anyhow::Result<()> {
        self.put(offset, &u32::try_from(value)?.to_ne_bytes())
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) -> anyhow::Result<()> {
        put(&mut self.bytes, offset, bytes)
    }
}

fn put(value: &mut [u8], offset: usize, bytes: &[u8]) -> anyhow::Result<()> {
    let to = value.get_mut(offset..offset + bytes.len()).context("the object has another layout")?;
    to.copy_from_slice(bytes);
    Ok(())
}

fn take<const N: usize>(value: &[u8], offset: usize) -> anyhow::Result<[u8; N]> {
    let bytes = value.get(offset..offset + N).context("the object has another layout")?;
    Ok(bytes.try_into()?)
}

/// Writes entries in batches: a million single calls take seconds.
pub(super) fn fill(map: &impl MapCore, entries: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> anyhow::Result<()> {
    const BATCH: u32 = 65_536;
    let (mut keys, mut values, mut count) = (Vec::new(), Vec::new(), 0);
    let name = map.name().to_string_lossy().into_owned();
    let flush = |keys: &mut Vec<u8>, values: &mut Vec<u8>, count: &mut u32| {
        if *count > 0 {
            map.update_batch(keys, values, *count, MapFlags::ANY, MapFlags::ANY)
                .with_context(|| format!("filling {name}"))?;
        }
        keys.clear();
        values.clear();
        *count = 0;
        anyhow::Ok(())
    };
    for (key, value) in entries {
        keys.extend(key);
        values.extend(value);
        count += 1;
        if count == BATCH {
            flush(&mut keys, &mut values, &mut count)?;
        }
    }
    flush(&mut keys, &mut values, &mut count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(frame: &[u8], vary: Option<Vary>) -> String {
        FrameState::new(frame, vary).unwrap_err().to_string()
    }

    #[test]
    fn a_frame_must_fill_the_head_and_leave_the_bits_that_vary_alone() {
        assert!(refused(&[0; 60], None).contains("put ' / pad 4' behind it"));
        let vary = |low_at, checksum_at| Some(Vary { low_at, high_at: 0, checksum_at });
        assert!(refused(&[0; 64], vary(63, None)).contains("offset 63"));
        assert!(refused(&[1; 64], vary(28, Some(24))).contains("must be zero"));
        assert!(FrameState::new(&[1; 64], vary(28, None)).is_ok());
    }

    #[test]
    fn longer_frames_are_written_further() {
        let long = |bytes| {
            let state = FrameState::new(&vec![7; bytes], None).unwrap();
            let (head, long) = (offset_of!(types::frame, head), offset_of!(types::frame, long_head));
            (state.bytes[head + 127], state.bytes[long])
        };
        assert_eq!((long(64), long(127), long(128)), ((0, 0), (0, 0), (7, 1)));
    }

    #[test]
    fn actions_have_the_names_of_the_uapi_header() {
        let named = [action::DROP, action::PASS, action::TX, action::REDIRECT].map(action::name);
        assert_eq!(named, ["drop", "pass", "tx", "redirect"]);
        assert_eq!(action::name(9), "action 9");
    }
}
