//! What is sent: a scenario file, a frame in the packet notation, or a protocol between two addresses.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use packet::layer::{Layer, Mac};
use pktgen::scenario::file::Loaded;
use pktgen::scenario::quick::{Protocol, Quick};
use pktgen::scenario::spec::{OrderSpec, SizeSpec};
use pktgen::scenario::{Order, Scenario, Sizes, Stream, frame};
use pktgen::units;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolArg {
    Udp,
    TcpSyn,
    Tcp,
    Icmp,
    Sctp,
    Quic,
}

#[derive(Debug, clap::Args)]
pub(super) struct TrafficArgs {
    /// What to send, as a YAML file; its `run` section may have any of these flags, which those of the command line override.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["frame", "protocol", "src", "dst", "ipv6", "sport", "dport", "vlan"])]
    scenario: Option<PathBuf>,
    /// What to send, in the packet notation: 'eth / ip4 198.18.0.1 > 198.19.0.1 / udp 1024 > 80'.
    #[arg(long, value_name = "NOTATION", conflicts_with_all = ["protocol", "src", "dst", "ipv6", "sport", "dport", "vlan"])]
    frame: Option<String>,
    /// Ethernet destination: the first router. Left out: the address of the interface in --to.
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub(super) dst_mac: Option<Mac>,
    /// Ethernet source. Left out: the interface's own.
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub(super) src_mac: Option<Mac>,
    /// Source address of the first flow; when its ports are used up, flows go on with the next address.
    #[arg(long, value_name = "ADDRESS", default_value_if("ipv6", "true", "2001:2::1"), default_value = "198.18.0.1")]
    src: IpAddr,
    /// Destination address.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value_if("ipv6", "true", "2001:2:0:1::1"),
        default_value = "198.19.0.1"
    )]
    dst: IpAddr,
    /// Make the default addresses those for IPv6 benchmarks (RFC 5180), not for IPv4 (RFC 2544).
    #[arg(long)]
    ipv6: bool,
    /// Which protocol to send.
    #[arg(long, value_enum, default_value = "udp")]
    protocol: ProtocolArg,
    /// Source port of the first flow; the flows of an address use this to 65535.
    #[arg(long, value_name = "PORT", default_value_t = 1024)]
    sport: u16,
    /// Destination port. Left out: 9, and 443 for QUIC.
    #[arg(long, value_name = "PORT")]
    dport: Option<u16>,
    /// VLAN tag; may be repeated, outermost first.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(0..=4095))]
    vlan: Vec<u16>,
    /// Number of flows. Left out: 1, or what the scenario says.
    #[arg(long, value_name = "N", value_parser = units::count)]
    flows: Option<u64>,
    /// Which flow is next: sequential, random or 'zipf 1.1'.
    #[arg(long, value_name = "ORDER", value_parser = order)]
    order: Option<Order>,
    /// Bytes of a frame without FCS, several of them with commas, imix or csit. Left out: the shortest.
    #[arg(long, value_name = "BYTES", value_parser = sizes)]
    size: Option<Sizes>,
    /// Send without stamps: nothing can be checked, but frames may be shorter.
    #[arg(long)]
    no_stamp: bool,
    /// Seed of everything random: same seed, same packets.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl TrafficArgs {
    /// What is to be sent.
    pub(super) fn scenario(&self, file: Option<&Loaded>) -> anyhow::Result<Scenario> {
        let mut scenario = match (file, &self.frame) {
            (Some(file), _) => file.scenario.clone(),
            (None, Some(text)) => {
                let (layers, fill_eth) = frame::parse(text).context("--frame")?;
                Scenario::one(Stream { fill_eth, ..Stream::new("frame", layers) })
            }
            (None, None) => Scenario::one(self.quick().stream()?),
        };
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        for stream in &mut scenario.streams {
            if let Some(flows) = self.flows {
                stream.flows = u32::try_from(flows).unwrap_or(u32::MAX);
            }
            stream.order = self.order.unwrap_or(stream.order);
            if let Some(sizes) = &self.size {
                stream.sizes = sizes.clone();
            }
            stream.stamp &= !self.no_stamp;
        }
        Ok(scenario)
    }

    fn quick(&self) -> Quick {
        let (protocol, dport) = match self.protocol {
            ProtocolArg::Udp => (Protocol::Udp, 9),
            ProtocolArg::TcpSyn => (Protocol::TcpSyn, 9),
            ProtocolArg::Tcp => (Protocol::Tcp, 9),
            ProtocolArg::Icmp => (Protocol::Icmp, 9),
            ProtocolArg::Sctp => (Protocol::Sctp, 9),
            ProtocolArg::Quic => (Protocol::Quic, 443),
        };
        let dport = self.dport.unwrap_or(dport);
        Quick { protocol, src: self.src, dst: self.dst, sport: self.sport, dport, vlans: self.vlan.clone() }
    }
}

/// The notation of the packet tests knows how addresses are written.
pub(super) fn mac(text: &str) -> anyhow::Result<Mac> {
    match packet::notation::parse(&format!("eth {text} > ::")).as_deref() {
        Ok([Layer::Eth(eth)]) => Ok(eth.src),
        _ => bail!("write an Ethernet address as 02:00:00:00:00:01 or 02::1"),
    }
}

fn sizes(text: &str) -> anyhow::Result<Sizes> {
    text.parse::<SizeSpec>().map(|size| size.0).map_err(|error| anyhow!(error))
}

fn order(text: &str) -> anyhow::Result<Order> {
    text.parse::<OrderSpec>().map(|order| order.0).map_err(|error| anyhow!(error))
}
