//! What is sent.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use packet::layer::{Layer, Mac};
use pktgen::interface::Interface;
use pktgen::template::{Protocol, Traffic, min_size};
use pktgen::units;

/// Frame sizes of the simple Internet mix: IP packets of 40, 576 and 1500 bytes as 7 : 4 : 1, spread out.
const IMIX: [usize; 12] = [60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 60, 590];

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolArg {
    Udp,
    TcpSyn,
}

#[derive(Debug, clap::Args)]
pub(super) struct TrafficArgs {
    /// Ethernet destination: the first router. Left out: the address of the interface in --to.
    #[arg(long, value_name = "MAC", value_parser = mac)]
    dst_mac: Option<Mac>,
    /// Ethernet source. Left out: the interface's own.
    #[arg(long, value_name = "MAC", value_parser = mac)]
    src_mac: Option<Mac>,
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
    /// What to send.
    #[arg(long, value_enum, default_value = "udp")]
    protocol: ProtocolArg,
    /// Source port of the first flow; the flows of an address use this to 65535.
    #[arg(long, value_name = "PORT", default_value_t = 1024)]
    sport: u16,
    /// Destination port.
    #[arg(long, value_name = "PORT", default_value_t = 9)]
    dport: u16,
    /// Number of flows.
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    flows: u64,
    /// Bytes of a frame without FCS, several of them with commas, or `imix`. Left out: the shortest.
    #[arg(long, value_name = "BYTES", value_parser = sizes)]
    size: Option<Sizes>,
}

/// Frame sizes in the order in which they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sizes {
    Imix,
    Bytes(Vec<usize>),
}

impl TrafficArgs {
    /// The packets; those without a destination go to the interface in `to`.
    pub(super) fn traffic(&self, to: Option<&str>) -> anyhow::Result<Traffic> {
        let dst_mac = match (self.dst_mac, to) {
            (Some(mac), _) => mac,
            (None, Some(to)) => Interface::new(to)?.mac()?,
            (None, None) => bail!("--dst-mac is missing: give the Ethernet address of the first router"),
        };
        let protocol = match self.protocol {
            ProtocolArg::Udp => Protocol::Udp,
            ProtocolArg::TcpSyn => Protocol::TcpSyn,
        };
        let min = min_size(self.src, protocol);
        let sizes = match &self.size {
            None => vec![min],
            Some(Sizes::Bytes(sizes)) => sizes.clone(),
            Some(Sizes::Imix) => IMIX.map(|size| size.max(min)).to_vec(),
        };
        Ok(Traffic {
            src_mac: self.src_mac.unwrap_or_default(),
            dst_mac,
            src: self.src,
            dst: self.dst,
            protocol,
            sport: self.sport,
            dport: self.dport,
            flows: u32::try_from(self.flows).unwrap_or(u32::MAX),
            sizes,
        })
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
    if text == "imix" {
        return Ok(Sizes::Imix);
    }
    let sizes = text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>();
    Ok(Sizes::Bytes(sizes.context("write bytes as 60, several as 60,590,1514, or imix")?))
}
