//! What can be said on the command line.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use packet::layer::{Layer, Mac};
use pktgen::interface::Interface;
use pktgen::run::Config;
use pktgen::send::Limit;
use pktgen::template::{Protocol, Traffic, min_size};
use pktgen::threshold::Threshold;

/// Frame sizes of the simple Internet mix: IP packets of 40, 576 and 1500 bytes as 7 : 4 : 1, spread out.
const IMIX: [usize; 12] = [60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 60, 590];

/// AF_XDP packet generator and checking receiver.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send packets, and check what arrives where --to is given.
    Run(Box<RunArgs>),
    /// Show what an interface can do: driver, native or generic XDP, zero-copy or copy, queues.
    Probe(ProbeArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ProbeArgs {
    /// Interface.
    pub(crate) interface: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolArg {
    Udp,
    TcpSyn,
}

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("end").required(true).multiple(true).args(["count", "duration"])))]
pub(crate) struct RunArgs {
    /// Interface to send on.
    interface: String,
    /// Interface to receive on; may be the same.
    #[arg(long, value_name = "IF")]
    to: Option<String>,
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
    #[arg(long, value_name = "N", default_value_t = 1)]
    flows: u32,
    /// Bytes of a frame without FCS, several of them with commas, or `imix`. Left out: the shortest.
    #[arg(long, value_name = "BYTES", value_parser = sizes)]
    size: Option<Sizes>,
    /// Packets a second (250k, 1.5M), or `max`.
    #[arg(long, value_name = "PPS", default_value = "max", value_parser = rate)]
    rate: Rate,
    /// Stop after this many packets.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Stop after this many seconds.
    #[arg(long = "for", id = "duration", value_name = "SECS", value_parser = seconds)]
    duration: Option<Duration>,
    /// Queues to send on, one thread each.
    #[arg(long, value_name = "QUEUE,...", value_delimiter = ',', default_value = "0")]
    queues: Vec<u32>,
    /// Cores for the sending threads in their order, then for the receiving one.
    #[arg(long, value_name = "CORE,...", value_delimiter = ',')]
    cores: Vec<usize>,
    /// Measure latencies: CLOCK_MONOTONIC from writing a packet to taking it off the RX ring.
    #[arg(long, requires = "to")]
    latency: bool,
    /// How long nothing must arrive after the last packet was sent, in seconds.
    #[arg(long, value_name = "SECS", default_value = "0.5", value_parser = seconds)]
    drain: Duration,
    /// Exit with 3 where this holds: loss>0, rate<1e6, p99>50000 (latencies in ns). May be repeated.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) fail_if: Vec<Threshold>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Packets a second; none: as many as go.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rate(Option<f64>);

/// Frame sizes in the order in which they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sizes {
    Imix,
    Bytes(Vec<usize>),
}

impl RunArgs {
    /// The run that these arguments ask for.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let dst_mac = match (self.dst_mac, &self.to) {
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
        Ok(Config {
            from: self.interface.clone(),
            to: self.to.clone(),
            traffic: Traffic {
                src_mac: self.src_mac.unwrap_or_default(),
                dst_mac,
                src: self.src,
                dst: self.dst,
                protocol,
                sport: self.sport,
                dport: self.dport,
                flows: self.flows,
                sizes,
            },
            rate_pps: self.rate.0,
            limit: Limit { count: self.count, duration: self.duration },
            queues: self.queues.clone(),
            cores: self.cores.clone(),
            latency: self.latency,
            drain: self.drain,
        })
    }
}

/// The notation of the packet tests knows how addresses are written.
fn mac(text: &str) -> anyhow::Result<Mac> {
    match packet::notation::parse(&format!("eth {text} > ::")).as_deref() {
        Ok([Layer::Eth(eth)]) => Ok(eth.src),
        _ => bail!("write an Ethernet address as 02:00:00:00:00:01 or 02::1"),
    }
}

fn rate(text: &str) -> anyhow::Result<Rate> {
    if text == "max" {
        return Ok(Rate(None));
    }
    let (number, unit) = match text.as_bytes() {
        [number @ .., b'k'] => (number, 1e3),
        [number @ .., b'M'] => (number, 1e6),
        number => (number, 1.0),
    };
    let number: f64 = std::str::from_utf8(number)?.parse().context("write packets a second as 250000, 250k or 1.5M")?;
    if !(number * unit >= 1.0 && number.is_finite()) {
        bail!("write at least one packet a second, or max");
    }
    Ok(Rate(Some(number * unit)))
}

fn sizes(text: &str) -> anyhow::Result<Sizes> {
    if text == "imix" {
        return Ok(Sizes::Imix);
    }
    let sizes = text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>();
    Ok(Sizes::Bytes(sizes.context("write bytes as 60, several as 60,590,1514, or imix")?))
}

fn seconds(text: &str) -> anyhow::Result<Duration> {
    let seconds: f64 = text.parse().context("write seconds as 10 or 0.5")?;
    Duration::try_from_secs_f64(seconds).context("write seconds as 10 or 0.5")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: &str) -> Result<Config, String> {
        let args = Args::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string())?;
        match args.command {
            Command::Run(run) => run.config().map_err(|e| e.to_string()),
            Command::Probe(_) => Err("probe".to_owned()),
        }
    }

    #[test]
    fn a_line_becomes_a_run() {
        let config = config(
            "pktgen run eth0 --dst-mac 02::1 --flows 10 --rate 1.5M --for 0.5 --size 60,1514 --queues 0,1 --cores 2,3",
        )
        .unwrap();
        assert_eq!(config.traffic.dst_mac, [2, 0, 0, 0, 0, 1]);
        assert_eq!(config.traffic.src.to_string(), "198.18.0.1");
        assert_eq!((config.traffic.flows, config.traffic.sizes), (10, vec![60, 1514]));
        assert_eq!((config.rate_pps, config.limit.duration), (Some(1.5e6), Some(Duration::from_millis(500))));
        assert_eq!((config.queues, config.cores), (vec![0, 1], vec![2, 3]));
    }

    #[test]
    fn ipv6_moves_the_defaults_and_imix_respects_the_stamp() {
        let config = config("pktgen run eth0 --dst-mac 02::1 --ipv6 --count 1 --size imix").unwrap();
        assert_eq!((config.traffic.src.to_string(), config.traffic.dst.is_ipv6()), ("2001:2::1".to_owned(), true));
        assert_eq!(config.traffic.sizes.iter().filter(|size| **size == 80).count(), 7);
        assert_eq!(config.rate_pps, None);
    }

    #[test]
    fn mistakes_are_named() {
        for (line, expected) in [
            ("pktgen run eth0 --dst-mac 02::1", "<--count <N>|--for <SECS>>"),
            ("pktgen run eth0 --count 1", "--dst-mac is missing"),
            ("pktgen run eth0 --count 1 --dst-mac 02:1", "write an Ethernet address"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --rate 0", "at least one packet a second"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --rate fast", "write packets a second"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --size small", "or imix"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --latency", "--to <IF>"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --fail-if lost", "is no condition"),
            ("pktgen run eth0 --for=-1 --dst-mac 02::1", "write seconds"),
        ] {
            let error = config(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
