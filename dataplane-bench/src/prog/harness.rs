//! One case, loaded: tables in maps, the frame in the harness, programs ready to run.

use std::mem::{MaybeUninit, offset_of};

use anyhow::{Context, ensure};
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Map, MapCore, MapFlags, OpenObject, ProgramInput};
use margay::dataplane::Dataplane;
use model::Ids;
use model::verdict::Verdict;

use super::cases::{Case, INGRESS, MANY, Subject, Vary, World, many_prefixes};
use super::report::Round;
use skel::{BenchSkel, BenchSkelBuilder, OpenBenchSkel, types};

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
    include!(concat!(env!("OUT_DIR"), "/bench.skel.rs"));
}

/// Where libbpf keeps an opened object.
pub(super) type Storage = MaybeUninit<OpenObject>;

/// Bytes of the frame that the harness writes anew for each packet (`HEAD_BYTES`).
const HEAD_BYTES: usize = 64;
/// Offsets from the start of an IPv4 frame (RFC 791 §3.1).
const IP4_CHECKSUM: u32 = 14 + 10;
const IP4_SOURCE: u32 = 14 + 12;
const IP4_DESTINATION: u32 = 14 + 16;

/// A case that is ready to run.
pub(super) struct Bench<'a> {
    skel: BenchSkel<'a>,
    subject: &'static str,
    /// What the subject returns for every packet.
    action: u32,
    frame: Vec<u8>,
    /// The rings' contents go with their last owner.
    _dataplane: Option<Dataplane>,
}

impl<'a> Bench<'a> {
    /// Compiles and writes the tables, loads the programs over them, and checks that the frame ends as the case says.
    pub(super) fn prepare(case: &Case, storage: &'a mut Storage) -> anyhow::Result<Self> {
        let frame = packet::notation::encode(&case.frame)?;
        ensure!(frame.len() >= HEAD_BYTES, "the frame has {} bytes, the harness needs {HEAD_BYTES}", frame.len());
        let mut open = BenchSkelBuilder::default().open(storage).context("opening the programs")?;
        let (subject, dataplane, verdict) = match &case.subject {
            Subject::Pipeline(world, verdict) => {
                ("bench_pipeline", Some(over_tables(&mut open, world, &frame, *verdict)?), *verdict)
            }
            Subject::KernelHash => ("bench_hash", None, Verdict::Pass),
            Subject::KernelLpm => ("bench_lpm", None, Verdict::Pass),
        };
        for mut program in open.open_object_mut().progs_mut() {
            let wanted = [subject, "bench_nothing", "bench_empty"];
            let load = wanted.iter().any(|name| program.name().to_str() == Some(*name));
            program.set_autoload(load);
        }
        let skel = open.load().context("loading the programs")?;
        let write = |map: &dyn MapCore, key: &[u8], value: &[u8]| map.update(key, value, MapFlags::ANY);
        write(&skel.maps.harness, &0u32.to_ne_bytes(), &harness(case, &frame)?).context("writing the harness")?;
        match &case.subject {
            Subject::Pipeline(..) => {}
            // The keys are the frame's destinations, one in each prefix.
            Subject::KernelHash => {
                fill(&skel.maps.kernel_hash, |[a, b, c, _], last| vec![a, b, c, last], &frame)?;
            }
            Subject::KernelLpm => {
                let key = |[a, b, c, d]: [u8; 4], _| [24u32.to_ne_bytes(), [a, b, c, d]].concat();
                fill(&skel.maps.kernel_lpm, key, &frame)?;
            }
        }
        let action = action_of(verdict);
        Ok(Self { skel, subject, action, frame, _dataplane: dataplane })
    }

    /// Runs `repeat` packets through each of the three programs.
    pub(super) fn round(&mut self, repeat: u32) -> anyhow::Result<Round> {
        let (_, empty_ns) = self.run("bench_empty", repeat)?;
        let (_, without_ns) = self.run("bench_nothing", repeat)?;
        let (action, with_ns) = self.run(self.subject, repeat)?;
        ensure!(action == self.action, "{} returned {action}, not {}", self.subject, self.action);
        Ok(Round { empty_ns, without_ns, with_ns })
    }

    /// What the program returned for the last packet, and ns per packet.
    fn run(&self, name: &str, repeat: u32) -> anyhow::Result<(u32, u64)> {
        let mut programs = self.skel.object().progs_mut();
        let program = programs.find(|program| program.name() == name).with_context(|| format!("no program {name}"))?;
        let input = ProgramInput { data_in: Some(&self.frame), repeat, ..Default::default() };
        let output = program.test_run(input).with_context(|| format!("running {name}"))?;
        Ok((output.return_value, u64::try_from(output.duration.as_nanos())?))
    }
}

/// Puts the case's tables in force in a dataplane of its own, without an interface, and has `open` share its maps and
/// its features. The frame must end with `verdict` there.
fn over_tables(
    open: &mut OpenBenchSkel<'_>,
    world: &World,
    frame: &[u8],
    verdict: Verdict,
) -> anyhow::Result<Dataplane> {
    let compiled = model::compile(&world.desired, &world.network, &world.rib, &mut Ids::default())?;
    ensure!(compiled.notices.is_empty(), "the configuration does not take effect as it stands: {:?}", compiled.notices);
    let mut dataplane = Dataplane::open_unpinned()?;
    dataplane.apply(&compiled.tables, compiled.features, &compiled.parameters, &[])?;
    let explanation = dataplane.explain(frame, INGRESS)?;
    ensure!(explanation.verdict == verdict, "the frame ends as {}, not as {verdict}", explanation.verdict);

    let config = &mut open.maps.rodata_data.as_deref_mut().context("the object has no read-only data")?.config;
    let on = u8::from;
    config.decap_ipip = on(compiled.features.decap_ipip);
    config.decap_vxlan = on(compiled.features.decap_vxlan);
    config.denylist = on(compiled.features.denylist);
    config.filter = on(compiled.features.filter);
    config.vip = on(compiled.features.vip);
    config.vlan = on(compiled.features.vlan);
    config.slow_path = on(compiled.features.slow_path);
    config.explain = 0;
    config.vxlan_port = compiled.parameters.vxlan_port;
    config.punt_rate = compiled.parameters.punt_rate;
    for mut map in open.open_object_mut().maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if let Some((_, shared)) = dataplane.maps().find(|(shared, _)| *shared == name) {
            if name == "flows" {
                map.set_max_entries(compiled.parameters.flow_table_entries)?;
            }
            map.reuse_fd(shared).with_context(|| format!("sharing map {name}"))?;
        }
    }
    Ok(dataplane)
}

/// The value of the harness map, `struct harness`.
fn harness(case: &Case, frame: &[u8]) -> anyhow::Result<Vec<u8>> {
    let head = frame.get(..HEAD_BYTES).context("frame shorter than its head")?;
    // One flow: the last bytes of the head take the place of bits that vary.
    let (vary, checksum, flows) = match case.vary {
        None => (HEAD_BYTES as u32 - 2, 0, 1),
        Some(Vary::Source) => (IP4_SOURCE + 2, IP4_CHECKSUM, MANY),
        Some(Vary::DestinationNet) => (IP4_DESTINATION + 1, IP4_CHECKSUM, MANY),
    };
    let mut value = vec![0; size_of::<types::harness>()];
    let mut put = |offset: usize, bytes: &[u8]| {
        let to = value.get_mut(offset..offset + bytes.len()).context("struct harness has another layout")?;
        to.copy_from_slice(bytes);
        anyhow::Ok(())
    };
    put(offset_of!(types::harness, head), head)?;
    put(offset_of!(types::harness, bytes), &u32::try_from(frame.len())?.to_ne_bytes())?;
    put(offset_of!(types::harness, vary), &vary.to_ne_bytes())?;
    put(offset_of!(types::harness, csum), &checksum.to_ne_bytes())?;
    put(offset_of!(types::harness, mask), &(flows - 1).to_ne_bytes())?;
    put(offset_of!(types::harness, moves_head), &u32::from(case.encapsulates).to_ne_bytes())?;
    Ok(value)
}

/// One entry for each prefix; `key` makes it from the prefix and the last byte of the frame's destination.
fn fill(map: &Map<'_>, key: impl Fn([u8; 4], u8) -> Vec<u8>, frame: &[u8]) -> anyhow::Result<()> {
    let last = *frame.get(IP4_DESTINATION as usize + 3).context("frame without destination")?;
    for prefix in many_prefixes() {
        if let std::net::IpAddr::V4(address) = prefix.addr() {
            map.update(&key(address.octets(), last), &1u32.to_ne_bytes(), MapFlags::ANY)?;
        }
    }
    Ok(())
}

/// `enum xdp_action`.
fn action_of(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Drop(_) => 1,
        Verdict::Pass => 2,
        Verdict::Tx => 3,
        Verdict::Redirect(_) | Verdict::Punt(_) => 4,
    }
}
