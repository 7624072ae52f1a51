//! What can be said on the command line, one group of flags a file.

mod check;
mod connect;
mod pace;
mod probe;
mod replay;
mod scenario;
mod traffic;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Parser, Subcommand};
use pktgen::pace::Pace;
use pktgen::run::Config;
use pktgen::scenario::file::Loaded;

use check::CheckArgs;
pub(crate) use connect::ConnectArgs;
use pace::PaceArgs;
pub(crate) use probe::ProbeArgs;
use replay::ReplayArgs;
use traffic::TrafficArgs;

pub(crate) use scenario::parse;

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
    /// Open TCP connections, or send UDP requests, from many client addresses to a server or balancer.
    Connect(Box<ConnectArgs>),
    /// Be the far end of a run that was started elsewhere with --via; it speaks over standard input and output.
    Agent,
    /// Show what an interface can do: driver, XDP, AF_XDP, queues, and how fast each back end sends on it.
    Probe(ProbeArgs),
}

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("end").required(true).multiple(true).args(["count", "duration", "replay"])))]
pub(crate) struct RunArgs {
    /// Interface to send on.
    interface: Option<String>,
    /// The same, as a flag.
    #[arg(long, value_name = "IF", conflicts_with = "interface")]
    from: Option<String>,
    /// Interface to receive on; may be the same.
    #[arg(long, value_name = "IF")]
    to: Option<String>,
    /// Command that runs `pktgen agent` where the interface of --to is: 'ssh root@far'. Left out: it is here.
    #[arg(long, value_name = "COMMAND", requires = "to")]
    via: Option<String>,
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    replay: ReplayArgs,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    pub(crate) check: CheckArgs,
}

impl RunArgs {
    /// The run that these arguments ask for.
    pub(crate) fn config(&self, file: Option<&Loaded>) -> anyhow::Result<Config> {
        let from = self.interface.as_ref().or(self.from.as_ref());
        let scenario = self.traffic.scenario(file)?;
        let limit = self.pace.limit();
        let replay = self.replay.load(limit.count.is_some() || limit.duration.is_some())?;
        let pace = match self.pace.pace()? {
            Pace::MAX if replay.is_some() => self.replay.pace(),
            pace => pace,
        };
        let receive = self.check.options();
        if replay.is_some() && receive.latency {
            bail!("--latency needs stamps, which the frames of a capture do not carry");
        }
        if replay.is_none() && scenario.wants_eth() && self.traffic.dst_mac.is_none() && self.to.is_none() {
            bail!("--dst-mac is missing: give the Ethernet address of the first router, or an interface to receive on");
        }
        Ok(Config {
            from: from.cloned().context("the interface to send on is missing: pktgen run eth0 ...")?,
            to: self.to.clone(),
            via: self.via.clone(),
            scenario,
            replay,
            src_mac: self.traffic.src_mac,
            dst_mac: self.traffic.dst_mac,
            pace,
            of_maximum: self.pace.of_maximum(),
            backend: self.pace.backend(),
            limit,
            queues: self.pace.queues(),
            cores: self.pace.cores.clone(),
            receive,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use packet::notation::print;
    use pktgen::scenario::{Scenario, Sizes};

    use super::*;

    fn config(line: &str) -> Result<Config, String> {
        let args = Args::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string())?;
        match args.command {
            Command::Run(run) => run.config(None).map_err(|e| format!("{e:#}")),
            Command::Connect(_) | Command::Agent | Command::Probe(_) => Err("another command".to_owned()),
        }
    }

    #[test]
    fn a_line_becomes_a_run() {
        let config = config(
            "pktgen run eth0 --dst-mac 02::1 --flows 10 --pps 1.5M --for 500ms --size 60,1514 --queues 0,1 --cores 2,3",
        )
        .unwrap();
        assert_eq!(config.dst_mac, Some([2, 0, 0, 0, 0, 1]));
        let [stream] = config.scenario.streams.try_into().unwrap();
        assert_eq!(print(&stream.layers[1..]), "ip4 198.18.0.1 > 198.19.0.1 df / udp 1024 > 9");
        assert_eq!((stream.flows, stream.sizes), (10, Sizes::Mix { parts: vec![(60, 1), (1514, 1)], raise: false }));
        assert_eq!((config.pace, config.limit.duration), (Pace::constant_pps(1.5e6), Some(Duration::from_millis(500))));
        assert_eq!((config.queues, config.cores), (vec![0, 1], vec![2, 3]));
    }

    #[test]
    fn the_common_case_is_one_line() {
        let config = config("pktgen run eth0 --to eth1 --pps 1M --flows 1M --size imix --for 10s").unwrap();
        assert_eq!((config.from.as_str(), config.to.as_deref()), ("eth0", Some("eth1")));
        assert_eq!((config.pace, config.limit.duration), (Pace::constant_pps(1e6), Some(Duration::from_secs(10))));
        assert_eq!((config.scenario.streams[0].flows, config.scenario.seed), (1_000_000, Scenario::SEED));
        assert_eq!(Some(&config.scenario.streams[0].sizes), Sizes::named("imix").as_ref());
    }

    #[test]
    fn frames_are_described_in_a_few_words() {
        for (words, expected) in [
            ("", "ip4 198.18.0.1 > 198.19.0.1 df / udp 1024 > 9"),
            ("--ipv6 --protocol tcp-syn --dport 80", "ip6 2001:2::1 > 2001:2:0:1::1 / tcp 1024 > 80 S"),
            ("--protocol tcp --src 10.0.0.1 --dst 10.0.0.2", "ip4 10.0.0.1 > 10.0.0.2 df / tcp 1024 > 9 A"),
            ("--protocol icmp --sport 7", "ip4 198.18.0.1 > 198.19.0.1 df / icmp echo id=7"),
            ("--ipv6 --protocol icmp", "ip6 2001:2::1 > 2001:2:0:1::1 / icmp6 echo id=1024"),
            ("--protocol sctp", "ip4 198.18.0.1 > 198.19.0.1 df / sctp 1024 > 9 / sctp-data"),
            ("--protocol quic", "ip4 198.18.0.1 > 198.19.0.1 df / udp 1024 > 443 / quic short dcid=706b7467656e0000"),
            ("--vlan 100", "vlan 100 / ip4 198.18.0.1 > 198.19.0.1 df / udp 1024 > 9"),
            ("--vlan 100 --vlan 10", "vlan 100 tpid=0x88a8 / vlan 10 / ip4 198.18.0.1 > 198.19.0.1 df / udp 1024 > 9"),
        ] {
            let config = config(&format!("pktgen run eth0 --dst-mac 02::1 --count 1 {words}")).unwrap();
            assert_eq!(print(&config.scenario.streams[0].layers[1..]), expected);
            pktgen::traffic::Plan::new(&config.scenario, 1).unwrap();
        }
        let line = [
            "pktgen",
            "run",
            "eth0",
            "--count=1",
            "--no-stamp",
            "--frame",
            "eth 02::1 > 02::2 / arp who-has 1.1.1.1 tell 2.2.2.2",
        ];
        let Command::Run(run) = Args::try_parse_from(line).unwrap().command else { panic!("run") };
        let scenario = run.config(None).unwrap().scenario;
        assert!(!scenario.streams[0].stamp && !scenario.wants_eth());
    }

    #[test]
    fn mistakes_are_named() {
        for (line, expected) in [
            ("pktgen run eth0 --dst-mac 02::1", "<--count <N>|--for <TIME>|--replay <FILE>>"),
            ("pktgen run eth0 --count 1", "--dst-mac is missing"),
            ("pktgen run eth0 --count 1 --dst-mac 02:1", "write an Ethernet address"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --rate 0", "`0` is no rate"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --rate fast", "`fast` is no rate"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --size small", "or imix"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --latency", "--to <IF>"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --fail-if lost", "is no condition"),
            ("pktgen run eth0 --for=-1 --dst-mac 02::1", "500ms"),
            ("pktgen run --count 1 --dst-mac 02::1", "the interface to send on is missing"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --frame eth --dport 80", "cannot be used with"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --frame ip5", "layer 1: 'ip5' is no layer"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --dst ::1", "not of one family"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --order zipf", "write sequential, random or zipf 1.1"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --vlan 4096", "4096 is not in 0..=4095"),
        ] {
            let error = config(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
