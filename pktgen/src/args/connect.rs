//! `pktgen connect`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ArgGroup;
use ipnet::IpNet;
use packet::layer::Mac;
use pktgen::connect::engine::Load;
use pktgen::connect::machine::{Exchange, Response};
use pktgen::connect::report::ConnectFigure;
use pktgen::connect::{Config, Protocol};
use pktgen::threshold::Threshold;
use pktgen::units;

use super::traffic::mac;

/// What fills a request of which only the length is given.
const FILLER: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

#[derive(Debug, clap::Args)]
#[command(
    group(ArgGroup::new("load").required(true).multiple(true).args(["cps", "concurrent"])),
    group(ArgGroup::new("until").required(true).multiple(true).args(["count", "duration"]))
)]
pub(crate) struct ConnectArgs {
    /// Interface towards the server.
    interface: String,
    /// Server, or the balancer in front of it, as 192.0.2.80:80 or [2001:db8::80]:80.
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// Send UDP requests instead of opening TCP connections.
    #[arg(long)]
    udp: bool,
    /// Client addresses, which this host must not have; the other side must route them to this interface's address.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    clients: IpNet,
    /// Client ports.
    #[arg(long, value_name = "FIRST-LAST", default_value = "1024-65535", value_parser = ports)]
    ports: RangeInclusive<u16>,
    /// Ethernet address of the next hop. Left out: what the kernel's route and neighbour table say.
    #[arg(long, value_name = "MAC", value_parser = mac)]
    dst_mac: Option<Mac>,
    /// Begin this many connections a second, whatever becomes of them.
    #[arg(long, value_name = "N", value_parser = rate)]
    cps: Option<f64>,
    /// Have this many connections open at most; without --cps, keep that many open.
    #[arg(long, value_name = "N", value_parser = units::count)]
    concurrent: Option<u64>,
    /// Begin this many connections.
    #[arg(long, value_name = "N", value_parser = units::count)]
    count: Option<u64>,
    /// Begin connections for this time: 10s, 500ms, or seconds. Those that are open then finish.
    #[arg(long = "for", id = "duration", value_name = "TIME", value_parser = units::duration)]
    duration: Option<Duration>,
    /// Request, with \r \n \t \0 \\ and \xNN.
    #[arg(long, value_name = "TEXT", value_parser = unescape)]
    request: Option<Request>,
    /// Request of this many bytes.
    #[arg(long, value_name = "BYTES", conflicts_with = "request", value_parser = units::count)]
    request_bytes: Option<u64>,
    /// Answer: `close` (until the server closes; UDP: one datagram) or a number of bytes. Left out: `close` where there is a
    /// request, else 0.
    #[arg(long, value_name = "close|BYTES", value_parser = response)]
    response: Option<Response>,
    /// Requests one after the other on each connection.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_connection: u32,
    /// How long a connection stays open after its last answer.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = units::duration)]
    hold: Duration,
    /// End connections with RST instead of FIN.
    #[arg(long)]
    abort: bool,
    /// Give up a handshake after this time.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::duration)]
    syn_timeout: Duration,
    /// Give up when nothing came for this time while something is waited for.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration)]
    timeout: Duration,
    /// First retransmission timeout, before a round trip is known (RFC 6298).
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    rto: Duration,
    /// How long a closed connection answers FINs that come again.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    time_wait: Duration,
    /// Longest payload of a segment; never more than the interface's MTU allows.
    #[arg(long, value_name = "BYTES", default_value_t = 1460, value_parser = clap::value_parser!(u16).range(64..))]
    mss: u16,
    /// Core for the thread.
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// Exit with 3 where this holds: failed>0, cps<10k, connect_p99>1e6 (latencies in ns). May be repeated.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) fail_if: Vec<Threshold<ConnectFigure>>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Bytes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Request(Vec<u8>);

impl ConnectArgs {
    /// The run that these arguments ask for.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let request = match (&self.request, self.request_bytes) {
            (Some(Request(bytes)), _) => bytes.clone(),
            (None, Some(len)) => {
                let len = usize::try_from(len).ok().filter(|len| *len < 1 << 30);
                FILLER.iter().copied().cycle().take(len.context("--request-bytes must be less than 1 GiB")?).collect()
            }
            (None, None) => Vec::new(),
        };
        let response = match self.response {
            Some(response) => response,
            None if request.is_empty() => Response::Bytes(0),
            None => Response::Close,
        };
        Ok(Config {
            interface: self.interface.clone(),
            target: self.to,
            protocol: if self.udp { Protocol::Udp } else { Protocol::Tcp },
            clients: self.clients,
            ports: self.ports.clone(),
            dst_mac: self.dst_mac,
            exchange: Exchange {
                request,
                requests: self.requests_per_connection,
                response,
                hold: self.hold,
                abort: self.abort,
                syn_timeout: self.syn_timeout,
                timeout: self.timeout,
                rto: self.rto,
                time_wait: self.time_wait,
                mss: self.mss,
            },
            load: Load { cps: self.cps, concurrent: self.concurrent, count: self.count, duration: self.duration },
            core: self.core,
        })
    }
}

fn prefix(text: &str) -> anyhow::Result<IpNet> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).context("write a prefix as 10.1.0.0/16 or 2001:db8:1::/64")
}

fn ports(text: &str) -> anyhow::Result<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first @ 1..), Ok(last)) if first <= last => Ok(first..=last),
        _ => bail!("write ports as 1024-65535, the lower one first"),
    }
}

fn rate(text: &str) -> anyhow::Result<f64> {
    let cps = units::number(text)?;
    if !(0.001..=1e8).contains(&cps) {
        bail!("write connections a second as 500, 10k or 0.5");
    }
    Ok(cps)
}

fn response(text: &str) -> anyhow::Result<Response> {
    match text {
        "close" => Ok(Response::Close),
        _ => Ok(Response::Bytes(units::count(text).context("write close, or a number of bytes")?)),
    }
}

fn unescape(text: &str) -> anyhow::Result<Request> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digit = |byte: Option<u8>| char::from(byte.unwrap_or(b'?')).to_digit(16);
                let value = digit(rest.next()).zip(digit(rest.next())).map(|(high, low)| high * 16 + low);
                value.and_then(|value| u8::try_from(value).ok()).context("write two hex digits behind \\x")?
            }
            _ => bail!("write \\r, \\n, \\t, \\0, \\\\ or \\xNN; a backslash alone means nothing"),
        });
    }
    Ok(Request(bytes))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};

    fn config(rest: &str) -> Result<Config, String> {
        let line = format!("pktgen connect eth0 --to 192.0.2.1:80 --clients 10.1.0.0/16 {rest}");
        let args = Args::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        match args.command {
            Command::Connect(connect) => connect.config().map_err(|error| error.to_string()),
            _ => Err("another command".to_owned()),
        }
    }

    #[test]
    fn a_line_becomes_a_run() {
        let config =
            config(r"--cps 10k --for 5s --request GET\x20/\r\n --concurrent 100 --ports 2000-2999 --dst-mac 02::1")
                .unwrap();
        assert_eq!((config.load.cps, config.load.concurrent, config.load.count), (Some(10_000.0), Some(100), None));
        assert_eq!(
            (config.exchange.request.as_slice(), config.exchange.response),
            (&b"GET /\r\n"[..], Response::Close)
        );
        assert_eq!((config.ports, config.dst_mac), (2000..=2999, Some([2, 0, 0, 0, 0, 1])));
    }

    #[test]
    fn defaults_follow_the_request() {
        let bare = config("--concurrent 1 --count 1").unwrap().exchange;
        assert_eq!((bare.request.len(), bare.response), (0, Response::Bytes(0)));
        let filled = config("--concurrent 1 --count 1 --request-bytes 100 --response 1k").unwrap().exchange;
        assert_eq!((filled.request.len(), filled.response), (100, Response::Bytes(1000)));
    }

    #[test]
    fn mistakes_are_named() {
        for (rest, expected) in [
            ("--count 1", "<--cps <N>|--concurrent <N>>"),
            ("--cps 1", "<--count <N>|--for <TIME>>"),
            ("--cps 0 --count 1", "500, 10k"),
            ("--cps 1 --count 1 --ports 9-5", "the lower one first"),
            ("--cps 1 --count 1 --response until", "number of bytes"),
            (r"--cps 1 --count 1 --request \q", "a backslash alone"),
            (r"--cps 1 --count 1 --request \x4", "two hex digits"),
            ("--cps 1 --count 1 --request-bytes 2G", "less than 1 GiB"),
            ("--cps 1 --count 1 --requests-per-connection 0", "0 is not in 1.."),
            ("--cps 1 --count 1 --fail-if loss>0", "figures are cps, failed,"),
        ] {
            let error = config(rest).unwrap_err();
            assert!(error.contains(expected), "{rest}: {error}");
        }
    }
}
