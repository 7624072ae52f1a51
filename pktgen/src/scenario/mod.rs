//! What a run is to send, as it is described: streams of packets, sizes, flows, and what varies between packets.
//!
//! ```text
//! YAML file, or flags -> Scenario -> traffic::Plan -> frames
//! ```
//! A frame is described in the packet notation, one language for tests and generator; its payload is left to the plan.

pub mod file;
pub mod frame;
pub mod quick;
pub mod spec;

use packet::Layer;
use packet::layer::{Eth, Mac};

/// Streams and the seed of everything random in them.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Scenario {
    /// Same seed, same packets.
    pub seed: u64,
    /// At least one.
    pub streams: Vec<Stream>,
}

/// Packets of one kind.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stream {
    /// For the report and for errors.
    pub name: String,
    /// Share of the packets (of the datagrams, where they are fragmented), in proportion to the other streams' weights.
    pub weight: u32,
    /// The frame, outermost layer first; the first is Ethernet. Data at its end starts the payload.
    #[serde(with = "notation")]
    pub layers: Vec<Layer>,
    /// The Ethernet addresses are those of the run's interface and first router.
    pub fill_eth: bool,
    /// Frame sizes, before fragmentation.
    pub sizes: Sizes,
    /// Number of flows, at least 1.
    pub flows: u32,
    /// Which flow is next.
    pub order: Order,
    /// What differs between packets; empty: flows differ in source port, then in source address.
    pub vary: Vec<Vary>,
    /// Largest IP packet, in bytes; larger ones are sent as fragments. None: never.
    pub fragment: Option<usize>,
    /// Packets end in a stamp, by which the receiver checks them.
    pub stamp: bool,
}

impl Stream {
    /// One flow of the shortest frames of `layers`, which start with Ethernet.
    pub fn new(name: impl Into<String>, layers: Vec<Layer>) -> Self {
        Self {
            name: name.into(),
            weight: 1,
            layers,
            fill_eth: false,
            sizes: Sizes::Shortest,
            flows: 1,
            order: Order::Sequential,
            vary: Vec::new(),
            fragment: None,
            stamp: true,
        }
    }
}

/// An order of flows or values.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Order {
    /// One after the other, round after round.
    Sequential,
    /// Each as likely as the other.
    Random,
    /// The n-th with a probability in proportion to n to the power of minus this.
    Zipf(f64),
}

/// When a field takes its next value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Each {
    /// It tells flows apart and stays with each. Sequential fields count like an odometer, the first one fastest.
    Flow,
    /// It differs from packet to packet of a flow.
    Packet,
}

/// A header field that varies.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Vary {
    /// `layer.field` or `layer.index.field`: `ip4.src`, `udp.sport`, `ip4.0.dst`. Without an index the innermost.
    pub field: String,
    /// Number of values, at least 1.
    pub count: u32,
    /// From one value to the next, modulo the width of the field; the first is the frame's own.
    pub step: u128,
    /// Which value is next.
    pub order: Order,
    /// When.
    pub each: Each,
}

/// Frame sizes in bytes, without FCS.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Sizes {
    /// As few bytes as headers, data and stamp take, but not below Ethernet's 60.
    Shortest,
    /// Sizes with weights. A size below the shortest possible is refused, or raised where `raise` says so: a mix by name.
    Mix {
        /// Size and weight.
        parts: Vec<(usize, u32)>,
        /// Sizes that cannot be are replaced by the nearest larger one that can.
        raise: bool,
    },
}

impl Sizes {
    /// Names of the mixes.
    pub const NAMES: [&str; 2] = ["imix", "csit"];

    /// One size.
    pub fn one(bytes: usize) -> Self {
        Self::Mix { parts: vec![(bytes, 1)], raise: false }
    }

    /// A mix by name. `imix` is the simple Internet mix, IP packets of 40, 576 and 1500 bytes as 7 : 4 : 1. `csit` is that of
    /// FD.io's benchmarks, frames of 64, 570 and 1518 bytes with FCS as 28 : 16 : 4.
    pub fn named(name: &str) -> Option<Self> {
        let parts = match name {
            "imix" => vec![(60, 7), (590, 4), (1514, 1)],
            "csit" => vec![(60, 28), (566, 16), (1514, 4)],
            _ => return None,
        };
        Some(Self::Mix { parts, raise: true })
    }
}

impl Scenario {
    /// The seed of those that do not say.
    pub const SEED: u64 = 1;

    /// One stream.
    pub fn one(stream: Stream) -> Self {
        Self { seed: Self::SEED, streams: vec![stream] }
    }

    /// Whether some frame was described without Ethernet addresses.
    pub fn wants_eth(&self) -> bool {
        self.streams.iter().any(|stream| stream.fill_eth)
    }

    /// Gives Ethernet addresses to the frames that were described without.
    pub fn fill_eth(&mut self, src: Mac, dst: Mac) {
        for stream in self.streams.iter_mut().filter(|stream| stream.fill_eth) {
            if let Some(Layer::Eth(eth)) = stream.layers.first_mut() {
                *eth = Eth { src, dst, ethertype: eth.ethertype };
            }
        }
    }
}

/// Layers as text, where a scenario travels to another process.
mod notation {
    use packet::Layer;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(layers: &[Layer], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&packet::notation::print(layers))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Layer>, D::Error> {
        packet::notation::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
