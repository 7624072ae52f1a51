//! Scenario files: YAML with a published schema (`docs/schema/pktgen-scenario.json`).
//!
//! The reader is that of margay's resources: unknown keys are errors with a suggestion, and everything that is wrong is
//! reported at once, each with file, line and field.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::file::{Document, Path};
use model::load::Diagnostic;
use schemars::JsonSchema;
use serde::Deserialize;

use super::spec::{Count, OrderSpec, Setting, SizeSpec, StepSpec};
use super::{Each, Order, Scenario, Sizes, Stream, Vary, frame};
use crate::stamp::FLOWS_MAX;
use crate::traffic::{Place, Plan};

/// What `pktgen run --scenario` sends.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Seed of everything random: same seed, same packets. Left out: 1.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Flags of `pktgen run` by name, without the dashes in front. Flags on the command line override them.
    #[serde(default)]
    pub run: BTreeMap<String, Setting>,
    /// What is sent, at least one stream.
    #[schemars(length(min = 1))]
    pub streams: Vec<StreamSpec>,
}

/// Packets of one kind.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamSpec {
    /// Name in the report. Left out: its number.
    #[serde(default)]
    pub name: Option<String>,
    /// The frame in the packet notation, headers only or with the start of the payload. A bare `eth` in front, or none, takes
    /// the Ethernet addresses of the run.
    pub frame: String,
    /// Share of the packets, in proportion to the other streams' weights. Left out: 1.
    #[serde(default)]
    pub weight: Option<u32>,
    /// Bytes of the frame without FCS: a number, several in turn, sizes with weights, `imix` or `csit`. Left out: the
    /// shortest.
    #[serde(default)]
    pub size: Option<SizeSpec>,
    /// Number of flows. Left out: as many as `vary` tells apart, or 1.
    #[serde(default)]
    pub flows: Option<Count>,
    /// Which flow is next. Left out: sequential.
    #[serde(default)]
    pub order: Option<OrderSpec>,
    /// Header fields that vary. Left out: flows differ in source port, then in source address.
    #[serde(default)]
    pub vary: Vec<VarySpec>,
    /// Send IP packets of more bytes than this as fragments.
    #[serde(default)]
    pub fragment: Option<u16>,
    /// Packets end in a stamp of 18 bytes, by which the receiver checks them. Left out: true.
    #[serde(default)]
    pub stamp: Option<bool>,
}

/// A header field that varies.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VarySpec {
    /// `layer.field`, or `layer.index.field` counting layers of that name from the outermost; without an index the innermost.
    pub field: String,
    /// Number of values; the first is the frame's own.
    pub count: Count,
    /// From one value to the next: a number, or an address as a number. Left out: 1.
    #[serde(default)]
    pub step: Option<StepSpec>,
    /// Which value is next. Left out: sequential.
    #[serde(default)]
    pub order: Option<OrderSpec>,
    /// Left out: flow.
    #[serde(default)]
    pub each: Option<EachSpec>,
}

/// When a field takes its next value.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EachSpec {
    /// It tells flows apart and stays with each.
    Flow,
    /// It differs from packet to packet of a flow.
    Packet,
}

/// A scenario file that has been read.
#[derive(Debug)]
pub struct Loaded {
    /// What is sent.
    pub scenario: Scenario,
    /// Flags of the run, by name, with the values that were given to each.
    pub run: BTreeMap<String, Vec<String>>,
    document: Document,
}

impl Loaded {
    /// Reads a scenario; `name` is the file's, for errors.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut document = Document::parse(name, text)?;
        let file: File = document.read()?;
        let path = Path::default();
        if file.streams.is_empty() {
            return Err(vec![document.error(&path.key("streams"), "no streams: give at least one")]);
        }
        let (mut streams, mut errors) = (Vec::new(), Vec::new());
        for (index, spec) in file.streams.iter().enumerate() {
            match spec.stream(index) {
                Ok(stream) => streams.push(stream),
                Err(message) => errors.push(document.error(&path.key("streams").index(index).key("frame"), message)),
            }
        }
        // Streams that are missing would move the numbers of the others.
        if errors.is_empty() {
            let scenario = Scenario { seed: file.seed.unwrap_or(Scenario::SEED), streams };
            for error in Plan::check(&scenario) {
                let stream = path.key("streams").index(error.stream);
                let place = match error.place {
                    Place::Frame => stream.key("frame"),
                    Place::Size => stream.key("size"),
                    Place::Flows => stream.key("flows"),
                    Place::Order => stream.key("order"),
                    Place::Fragment => stream.key("fragment"),
                    Place::Weight => stream.key("weight"),
                    Place::Vary(number, field) => stream.key("vary").index(number).key(field),
                };
                errors.push(document.error(&place, error.fault.to_string()));
            }
            if errors.is_empty() {
                let run = file.run.into_iter().map(|(flag, setting)| (flag, setting.0)).collect();
                return Ok(Self { scenario, run, document });
            }
        }
        Err(errors)
    }

    /// An error about a flag of the run.
    pub fn run_error(&self, flag: &str, message: impl Into<String>) -> Diagnostic {
        self.document.error(&Path::default().key("run").key(flag), message)
    }
}

impl StreamSpec {
    /// The error is about the frame.
    fn stream(&self, index: usize) -> Result<Stream, String> {
        let (layers, fill_eth) = frame::parse(&self.frame).map_err(|error| error.to_string())?;
        let vary: Vec<Vary> = self.vary.iter().map(VarySpec::vary).collect();
        let flows = self.flows.as_ref().map_or_else(|| told_apart(&vary), |count| count.0);
        Ok(Stream {
            name: self.name.clone().unwrap_or_else(|| (index + 1).to_string()),
            weight: self.weight.unwrap_or(1),
            layers,
            fill_eth,
            sizes: self.size.as_ref().map_or(Sizes::Shortest, |size| size.0.clone()),
            flows: u32::try_from(flows).unwrap_or(u32::MAX),
            order: self.order.map_or(Order::Sequential, |order| order.0),
            vary,
            fragment: self.fragment.map(usize::from),
            stamp: self.stamp.unwrap_or(true),
        })
    }
}

impl VarySpec {
    fn vary(&self) -> Vary {
        Vary {
            field: self.field.clone(),
            count: u32::try_from(self.count.0).unwrap_or(u32::MAX),
            step: self.step.map_or(1, |step| step.0),
            order: self.order.map_or(Order::Sequential, |order| order.0),
            each: match self.each {
                None | Some(EachSpec::Flow) => Each::Flow,
                Some(EachSpec::Packet) => Each::Packet,
            },
        }
    }
}

/// Flows that differ, as the wheels of an odometer do.
fn told_apart(vary: &[Vary]) -> u64 {
    let wheels = vary.iter().filter(|vary| vary.order == Order::Sequential && vary.each == Each::Flow);
    wheels.fold(1, |flows: u64, vary| flows.saturating_mul(vary.count.max(1).into())).min(FLOWS_MAX.into())
}

/// The number of an address or a number.
pub(super) fn step(text: &str) -> Option<u128> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(match address {
            IpAddr::V4(address) => u32::from(address).into(),
            IpAddr::V6(address) => address.into(),
        });
    }
    match text.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16).ok(),
        None => crate::units::count(text).ok().map(u128::from),
    }
}
