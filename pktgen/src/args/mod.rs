//! What can be said on the command line, one group of flags a file.

mod check;
mod connect;
mod pace;
mod traffic;

use clap::{ArgGroup, Parser, Subcommand};
use pktgen::run::Config;

use check::CheckArgs;
pub(crate) use connect::ConnectArgs;
use pace::PaceArgs;
use traffic::TrafficArgs;

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

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("end").required(true).multiple(true).args(["count", "duration"])))]
pub(crate) struct RunArgs {
    /// Interface to send on.
    interface: String,
    /// Interface to receive on; may be the same.
    #[arg(long, value_name = "IF")]
    to: Option<String>,
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    pub(crate) check: CheckArgs,
}

impl RunArgs {
    /// The run that these arguments ask for.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        Ok(Config {
            from: self.interface.clone(),
            to: self.to.clone(),
            traffic: self.traffic.traffic(self.to.as_deref())?,
            pace: self.pace.pace(),
            backend: self.pace.backend(),
            limit: self.pace.limit(),
            queues: self.pace.queues.clone(),
            cores: self.pace.cores.clone(),
            receive: self.check.options(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pktgen::pace::Pace;

    use super::*;

    fn config(line: &str) -> Result<Config, String> {
        let args = Args::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string())?;
        match args.command {
            Command::Run(run) => run.config().map_err(|e| e.to_string()),
            Command::Connect(_) | Command::Agent | Command::Probe(_) => Err("another command".to_owned()),
        }
    }

    #[test]
    fn a_line_becomes_a_run() {
        let config = config(
            "pktgen run eth0 --dst-mac 02::1 --flows 10 --pps 1.5M --for 500ms --size 60,1514 --queues 0,1 --cores 2,3",
        )
        .unwrap();
        assert_eq!(config.traffic.dst_mac, [2, 0, 0, 0, 0, 1]);
        assert_eq!(config.traffic.src.to_string(), "198.18.0.1");
        assert_eq!((config.traffic.flows, config.traffic.sizes), (10, vec![60, 1514]));
        assert_eq!((config.pace, config.limit.duration), (Pace::constant_pps(1.5e6), Some(Duration::from_millis(500))));
        assert_eq!((config.queues, config.cores), (vec![0, 1], vec![2, 3]));
    }

    #[test]
    fn ipv6_moves_the_defaults_and_imix_respects_the_stamp() {
        let config = config("pktgen run eth0 --dst-mac 02::1 --ipv6 --count 1 --size imix").unwrap();
        assert_eq!((config.traffic.src.to_string(), config.traffic.dst.is_ipv6()), ("2001:2::1".to_owned(), true));
        assert_eq!(config.traffic.sizes.iter().filter(|size| **size == 80).count(), 7);
        assert_eq!(config.pace, Pace::MAX);
    }

    #[test]
    fn mistakes_are_named() {
        for (line, expected) in [
            ("pktgen run eth0 --dst-mac 02::1", "<--count <N>|--for <TIME>>"),
            ("pktgen run eth0 --count 1", "--dst-mac is missing"),
            ("pktgen run eth0 --count 1 --dst-mac 02:1", "write an Ethernet address"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --rate 0", "at least one packet a second"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --rate fast", "250k or 1.5M"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --size small", "or imix"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --latency", "--to <IF>"),
            ("pktgen run eth0 --count 1 --dst-mac 02::1 --fail-if lost", "is no condition"),
            ("pktgen run eth0 --for=-1 --dst-mac 02::1", "500ms"),
        ] {
            let error = config(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
