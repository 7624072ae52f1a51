//! Running the program on a packet without the wire: for `explain`, for the tests, for the bench.
//!
//! `explain` uses an instance of its own: the same source with the same knobs over the same maps, built to record each
//! stage and to change nothing outside the packet. The attached program pays nothing for it.

use libbpf_rs::{MapCore, MapFlags, ProgramInput};
use model::network::IfIndex;
use model::verdict::{DropReason, PuntReason, Verdict};
use serde::Serialize;

use super::abi::{self, types};
use super::error::Error;
use super::object::Instance;

/// Room for what the program puts in front of a frame: metadata and outer headers.
const GROWTH: usize = 256;
/// The kernel refuses shorter frames (`ETH_HLEN`).
pub const SHORTEST_FRAME: usize = 14;

/// Outcome of one run of the attached program's instance on one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// XDP action (`XDP_DROP` 1, `XDP_PASS` 2, `XDP_TX` 3, `XDP_REDIRECT` 4).
    pub action: u32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// The metadata in front of it, empty unless punted.
    pub meta: Vec<u8>,
}

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Headers: `id` is the ethertype, `detail` the protocol.
    Parse,
    /// `id` is the port, `detail` the ethertype.
    Port,
    /// Tunnel packet for this node: `id` 1 IPIP, 2 VXLAN, 3 GUE, `detail` the VNI.
    Decap,
    /// `id` 1 where the source is denied, 2 where the destination is.
    Denylist,
    /// `id` is the op that decided.
    Filter,
    /// `id` is the VIP.
    Vip,
    /// `id` is the backend remembered for the flow, 0 for none.
    Flow,
    /// `id` is the backend that the QUIC connection ID names.
    Quic,
    /// `id` is the backend of the slot `detail`.
    Ring,
    /// `id` is the backend; `detail` 0 L2, 1 IPIP, 2 VXLAN, 3 GUE.
    Backend,
    /// `id` is the next-hop group, 0 for no route.
    Fib,
    /// `id` is the next hop, `detail` its kind.
    NextHop,
    /// `id` is the adjacency, `detail` the egress interface.
    Adjacency,
    /// `id` is the punt reason, `detail` the MTU told.
    Punt,
    /// `id` is the group of the route back to the source, `detail` 1 for loose, 2 for strict.
    Source,
    /// The maximum segment size of TCP was `detail` and is `id` now.
    Mss,
    /// The end: `id` is the XDP action.
    Verdict,
}

impl Stage {
    fn from_abi(stage: u32) -> Option<Self> {
        use types::stage as s;
        Some(match stage {
            n if n == s::STAGE_PARSE.0 => Self::Parse,
            n if n == s::STAGE_PORT.0 => Self::Port,
            n if n == s::STAGE_DECAP.0 => Self::Decap,
            n if n == s::STAGE_DENYLIST.0 => Self::Denylist,
            n if n == s::STAGE_FILTER.0 => Self::Filter,
            n if n == s::STAGE_VIP.0 => Self::Vip,
            n if n == s::STAGE_FLOW.0 => Self::Flow,
            n if n == s::STAGE_QUIC.0 => Self::Quic,
            n if n == s::STAGE_RING.0 => Self::Ring,
            n if n == s::STAGE_BACKEND.0 => Self::Backend,
            n if n == s::STAGE_FIB.0 => Self::Fib,
            n if n == s::STAGE_NEXT_HOP.0 => Self::NextHop,
            n if n == s::STAGE_ADJACENCY.0 => Self::Adjacency,
            n if n == s::STAGE_PUNT.0 => Self::Punt,
            n if n == s::STAGE_SOURCE.0 => Self::Source,
            n if n == s::STAGE_MSS.0 => Self::Mss,
            n if n == s::STAGE_VERDICT.0 => Self::Verdict,
            _ => return None,
        })
    }
}

/// One stage that a packet went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The stage.
    pub stage: Stage,
    /// What it found; its meaning depends on the stage.
    pub id: u32,
    /// More of it.
    pub detail: u64,
}

/// The way of a packet through the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Stages in order.
    pub steps: Vec<Step>,
    /// What becomes of it, given a worker for punts and a token for each.
    pub verdict: Verdict,
    /// The frame as it leaves.
    pub frame: Vec<u8>,
    /// The metadata of a punt.
    pub meta: Vec<u8>,
}

/// Runs `instance` once on `frame` as if it had come in by `ifindex`, receive queue 0.
pub(super) fn run(instance: &Instance, frame: &[u8], ifindex: IfIndex) -> Result<TestRun, Error> {
    let failed = |source| Error::TestRun { len: frame.len(), source };
    let ctx = types::xdp_md { data_end: frame.len() as u32, ingress_ifindex: ifindex.0, ..Default::default() };
    let mut ctx_in = abi::bytes_of(&ctx).to_vec();
    let mut ctx_out = vec![0; ctx_in.len()];
    let mut out = vec![0; frame.len() + GROWTH];
    let program = instance.program()?;
    let input = ProgramInput {
        context_in: Some(&mut ctx_in),
        context_out: Some(&mut ctx_out),
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..Default::default()
    };
    let (action, written) = {
        let output = program.test_run(input).map_err(failed)?;
        (output.return_value, output.data.map_or(0, |data| data.len()))
    };
    let ctx: types::xdp_md = abi::from_bytes(&ctx_out).ok_or(Error::Layout("xdp_md"))?;
    out.truncate(written);
    let frame = out.split_off((ctx.data as usize).min(out.len()));
    Ok(TestRun { action, frame, meta: out })
}

/// Runs the explaining `instance` and tells the packet's way.
pub(super) fn explain(instance: &Instance, frame: &[u8], ifindex: IfIndex) -> Result<Explanation, Error> {
    let map = instance.private_map("trace")?;
    let key = 0u32.to_ne_bytes();
    let map_error = |operation| move |source| Error::Map { map: "trace", operation, source };
    map.update(&key, abi::bytes_of(&types::trace::default()), MapFlags::ANY).map_err(map_error("clear"))?;
    let run = run(instance, frame, ifindex)?;
    let bytes = map.lookup(&key, MapFlags::ANY).map_err(map_error("read"))?.ok_or(Error::Layout("trace"))?;
    let trace: types::trace = abi::from_bytes(&bytes).ok_or(Error::Layout("trace"))?;
    let steps: Vec<Step> = trace
        .step
        .iter()
        .take(trace.steps as usize)
        .filter_map(|s| Some(Step { stage: Stage::from_abi(s.stage)?, id: s.id, detail: s.detail }))
        .collect();
    let verdict = verdict(&steps).ok_or(Error::Layout("trace"))?;
    Ok(Explanation { steps, verdict, frame: run.frame, meta: run.meta })
}

fn verdict(steps: &[Step]) -> Option<Verdict> {
    let last = steps.last().filter(|step| step.stage == Stage::Verdict)?;
    let punt = steps.iter().rev().find(|step| step.stage == Stage::Punt);
    Some(match last.id {
        libbpf_rs::libbpf_sys::XDP_DROP => Verdict::Drop(*DropReason::ALL.get(last.detail as usize)?),
        libbpf_rs::libbpf_sys::XDP_PASS => Verdict::Pass,
        libbpf_rs::libbpf_sys::XDP_TX => Verdict::Tx,
        libbpf_rs::libbpf_sys::XDP_REDIRECT => match punt {
            Some(punt) => Verdict::Punt(*PuntReason::ALL.get(punt.id as usize)?),
            None => Verdict::Redirect(IfIndex(u32::try_from(last.detail).ok()?)),
        },
        _ => return None,
    })
}
