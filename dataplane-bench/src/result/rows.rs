//! The rows of a result: what was measured, with every value behind the medians.
//!
//! Fields end in their unit (`_ns`, `_pps`, `_ms`, `_bytes`, `_percent`). Fields that not every method knows are
//! optional and left out of the JSON when empty. Adding an optional field keeps the schema's version; changing or removing
//! one does not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How large the thing was whose cost is drawn against scale: 1,000 rules, 65,536 flows, a million prefixes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Scale {
    /// Rows of one family are points of one curve: `nftables, linear`, `policy`, `load balancer, IPv4`.
    pub(crate) family: String,
    /// What is counted: `flows`, `rules`, `prefixes`, `services`.
    pub(crate) unit: String,
    /// How many.
    pub(crate) value: f64,
}

/// ns per packet of one case of `prog`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ProgRow {
    /// Name, by area: `lb/ipip4-hot`, `baseline/hash-hit-hot`.
    pub(crate) case: String,
    /// Configuration and packet in a few words.
    pub(crate) about: String,
    /// A kernel primitive, an empty program or another project's program: what the others are held against.
    pub(crate) baseline: bool,
    /// Median over rounds of the raw time per run, harness included, ns.
    pub(crate) ns_median: f64,
    /// 25th percentile of the same, ns.
    pub(crate) ns_p25: f64,
    /// 75th percentile of the same, ns.
    pub(crate) ns_p75: f64,
    /// Median over rounds of the difference to the empty program or harness of the same round, ns.
    pub(crate) ns_net: f64,
    /// Rounds, interleaved with those of the other cases.
    pub(crate) rounds: u32,
    /// Raw time per run in each round, ns.
    pub(crate) round_ns: Vec<f64>,
    /// Net time per run in each round, ns; same order.
    pub(crate) net_ns: Vec<f64>,
    /// Case of the same run that does the same work in the usual way: `baseline/lpm4-1m-random` for a route lookup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rival: Option<String>,
    /// Point of a curve of cost against scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scale: Option<Scale>,
}

/// A rate: what a device under test delivers, or what a generator sends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RateRow {
    /// Device under test (`kernel-forward`, `margay-forward`) or generator (`generator/live`, `generator/tcpreplay`).
    pub(crate) dut: String,
    /// What was sent and how it was driven, in a few words; rows of one scenario are comparable.
    pub(crate) scenario: String,
    /// Another project's, or the plain way to do it: what ours are held against.
    #[serde(default)]
    pub(crate) baseline: bool,
    /// Device or generator of the same scenario that does the same work in the usual way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rival: Option<String>,
    /// Frame size without FCS, bytes.
    pub(crate) frame_bytes: u32,
    /// Flows offered.
    pub(crate) flows: u64,
    /// Cores that sent, where that was varied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cores: Option<u32>,
    /// Unit of the values: `pps`.
    pub(crate) unit: String,
    /// Median of the values.
    pub(crate) median: f64,
    /// 25th percentile.
    pub(crate) p25: f64,
    /// 75th percentile.
    pub(crate) p75: f64,
    /// Received per second in each trial; for a generator, what the far end of the cable was given.
    pub(crate) values: Vec<f64>,
    /// Median of what was sent per second, pps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sent_median: Option<f64>,
    /// Point of a curve of rate against scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scale: Option<Scale>,
    /// What the reader must know: `generator-bound`, `XDP in generic mode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// Bounds of a search for the highest load at a loss goal: MLRsearch (draft-ietf-bmwg-mlrsearch) or RFC 2544, section 26.1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct NdrRow {
    /// Device under test.
    pub(crate) dut: String,
    /// Goal: `NDR 0 %`, `PDR 0.5 %`, `RFC 2544 throughput`.
    pub(crate) goal: String,
    /// Frame size without FCS, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) frame_bytes: Option<u32>,
    /// Flows offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) flows: Option<u64>,
    /// Highest load known to meet the goal, pps; 0 when not even the lowest load did.
    pub(crate) relevant_lower_pps: f64,
    /// Lowest load known to miss the goal, pps; absent when the highest load met it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relevant_upper_pps: Option<f64>,
    /// Conditional throughput at the relevant lower bound, pps; absent where the method has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) conditional_throughput_pps: Option<f64>,
    /// Trials spent.
    pub(crate) trials: u32,
    /// Time spent, seconds.
    pub(crate) seconds: f64,
    /// What the reader must know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// Loss at one load: RFC 2544, section 26.3.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LossRow {
    /// Device under test.
    pub(crate) dut: String,
    /// Frame size without FCS, bytes.
    pub(crate) frame_bytes: u32,
    /// Load offered, pps.
    pub(crate) load_pps: f64,
    /// Load in percent of the highest that was offered.
    pub(crate) load_percent: f64,
    /// Frames offered.
    pub(crate) offered: u64,
    /// Frames that did not come back.
    pub(crate) lost: u64,
}

/// Back-to-back frames: RFC 2544, section 26.4, as updated by RFC 9004.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BackToBackRow {
    /// Device under test.
    pub(crate) dut: String,
    /// Frame size without FCS, bytes.
    pub(crate) frame_bytes: u32,
    /// Mean over repetitions of the longest burst without loss, frames.
    pub(crate) burst_frames: f64,
    /// Longest burst without loss of each repetition, frames.
    pub(crate) values: Vec<f64>,
    /// Rate at which a burst was sent, pps.
    pub(crate) burst_pps: f64,
    /// Throughput that the burst is held against, pps.
    pub(crate) throughput_pps: f64,
    /// Implied buffer time, ms (RFC 9004, section 6.4).
    pub(crate) buffer_ms: f64,
    /// Buffer time corrected for what was forwarded while the buffer filled, ms (same section).
    pub(crate) corrected_buffer_ms: f64,
    /// What the reader must know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// Critical load of a soak: the load at which the loss ratio is the target (PLRsearch, draft-vpolak-bmwg-plrsearch).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SoakRow {
    /// Device under test.
    pub(crate) dut: String,
    /// Frame size without FCS, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) frame_bytes: Option<u32>,
    /// Target of packet loss ratio, such as 1e-7.
    pub(crate) target_loss_ratio: f64,
    /// Estimated critical load, pps.
    pub(crate) critical_pps: f64,
    /// Standard deviation of the estimate, pps.
    pub(crate) stdev_pps: f64,
    /// Trials spent.
    pub(crate) trials: u32,
    /// Time spent, seconds.
    pub(crate) seconds: f64,
    /// What the reader must know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// One-way latency at one load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LatencyRow {
    /// Device under test.
    pub(crate) dut: String,
    /// Load in words: `50 % of the drop-free rate`.
    pub(crate) load: String,
    /// Load, percent of the rate that `load` names.
    pub(crate) load_percent: f64,
    /// Load offered, pps.
    pub(crate) load_pps: f64,
    /// Frame size without FCS, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) frame_bytes: Option<u32>,
    /// Packets whose latency was taken.
    pub(crate) samples: u64,
    /// Lowest, ns.
    pub(crate) min: f64,
    /// Median, ns.
    pub(crate) p50: f64,
    /// 90th percentile, ns.
    pub(crate) p90: f64,
    /// 99th percentile, ns.
    pub(crate) p99: f64,
    /// 99.9th percentile, ns.
    pub(crate) p999: f64,
    /// Highest, ns.
    pub(crate) max: f64,
    /// Clock and places of the two time stamps.
    pub(crate) clock: String,
    /// What the instrument itself adds, measured without a device, ns; it is not subtracted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bias_ns: Option<f64>,
    /// What the bias is and how it was measured.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) bias: String,
    /// Curve by percentile: `[value in ns, percentile 0..=100]`, ascending.
    pub(crate) histogram: Vec<[f64; 2]>,
    /// What the reader must know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// What a change of configuration costs while traffic flows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ReconfRow {
    /// Device under test.
    pub(crate) dut: String,
    /// The change: `add 1,000 routes`, `kill -9 and restart`.
    pub(crate) change: String,
    /// Load held over the change, pps.
    pub(crate) load_pps: f64,
    /// Frames offered.
    pub(crate) offered: u64,
    /// Frames lost.
    pub(crate) lost: u64,
    /// Effective blocked time, lost / load, ms.
    pub(crate) blocked_ms: f64,
    /// Time that the change took by the clock of whoever made it, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) change_ms: Option<f64>,
    /// What the reader must know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// What routes cost the control side: loading a table, changing a route, losing a next hop.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RoutesRow {
    /// What was done: `load`, `change`, `failover`, and parts of these.
    pub(crate) what: String,
    /// The same in a few words.
    pub(crate) about: String,
    /// How many times it was done.
    pub(crate) count: u64,
    /// Median of the times, ns.
    pub(crate) median_ns: f64,
    /// Their 99th percentile, ns.
    pub(crate) p99_ns: f64,
    /// The longest, ns.
    pub(crate) max_ns: f64,
    /// Packets that were sent meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) offered: Option<u64>,
    /// Packets of those that arrived at none of the next hops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
}

/// One trial as it was: what every figure above was made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Trial {
    /// Subcommand and goal: `ndr`, `rate`, `rfc2544/throughput`.
    pub(crate) test: String,
    /// Device under test.
    pub(crate) dut: String,
    /// Frame size without FCS, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) frame_bytes: Option<u32>,
    /// Load intended, pps.
    pub(crate) load_pps: f64,
    /// Duration, seconds.
    pub(crate) duration_s: f64,
    /// Frames that the load and duration ask for; one that was not sent counts as lost.
    pub(crate) wanted: u64,
    /// Frames sent.
    pub(crate) sent: u64,
    /// Frames received.
    pub(crate) received: u64,
}
