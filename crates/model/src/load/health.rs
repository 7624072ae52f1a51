//! Lowering of `healthCheck`.

use std::sync::Arc;
use std::time::Duration;

use super::check::Checker;
use crate::document::Path;
use crate::health::{HealthCheck, HttpProbe, Probe, Roots, ServiceHealth, TlsProbe, UdpProbe, Via};
use crate::resources::common::{Duration as Written, NumberOrText};
use crate::resources::health::{HealthCheckSpec, HealthCheckType, HealthCheckVia};

const INTERVAL: Duration = Duration::from_secs(2);
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(1);
const MIN_TIMEOUT: Duration = Duration::from_millis(10);
/// Statuses of HTTP (RFC 9110 §15).
const STATUSES: std::ops::RangeInclusive<u16> = 100..=599;
/// Longest path and longest host, in bytes.
const MAX_PATH: usize = 2048;
const MAX_HOST: usize = 255;
/// Longest datagram, in bytes: what fits a packet of 1,280 bytes of either family.
const MAX_PAYLOAD: usize = 1232;

const OF_HTTP: &str = "only types HTTP and HTTPS have it";
const OF_HTTPS: &str = "only type HTTPS has it";
const OF_UDP: &str = "only type UDP has it";

/// The check of a service. `unasked` is what it is where its own port cannot be asked.
pub(super) fn health(spec: &HealthCheckSpec, unasked: Option<&str>, check: &mut Checker<'_>) -> Option<ServiceHealth> {
    let at = Path::spec().key("healthCheck");
    // Without its type nothing else can be judged.
    if !check.document.is_sound(&at.key("type")) {
        return None;
    }
    let port = spec.port.map(|port| check.range(&at.key("port"), port, 1, u16::MAX));
    if let Some(service) = unasked.filter(|_| port.is_none() && spec.kind != HealthCheckType::Icmp) {
        let message = format!("type {} cannot ask the port of {service}", spec.kind.name());
        check.error_help(&at, message, "set 'port' to one of the server that can be asked");
    }
    let (interval, timeout) = times(spec, &at, check);
    let mut range = |name: &str, value: Option<u32>, default: u32, min: u32, max: u32| {
        value.map_or(default, |value| check.range(&at.key(name), value, min, max))
    };
    let (rise, fall) = (range("rise", spec.rise, 2, 1, 100), range("fall", spec.fall, 3, 1, 100));
    let jitter_percent = range("jitter", spec.jitter, 10, 0, 50);
    let panic_percent = range("panicThreshold", spec.panic_threshold, 0, 0, 100);
    let probe = probe(spec, &at, check);
    let via = match spec.via {
        None | Some(HealthCheckVia::Direct) => Via::Direct,
        Some(HealthCheckVia::Tunnel) => Via::Tunnel,
    };
    let check = HealthCheck { probe, via, port, interval, timeout, rise, fall, jitter_percent };
    Some(ServiceHealth { check: Arc::new(check), panic_percent })
}

/// Interval and time-out.
fn times(spec: &HealthCheckSpec, at: &Path, check: &mut Checker<'_>) -> (Duration, Duration) {
    let interval = spec.interval.map_or(INTERVAL, |Written(interval)| interval);
    if !INTERVALS.contains(&interval) {
        check.error(&at.key("interval"), format!("must be 100ms to 1h, is {interval:?}"));
    }
    let timeout = spec.timeout.map_or(TIMEOUT.min(interval), |Written(timeout)| timeout);
    if timeout < MIN_TIMEOUT {
        check.error(&at.key("timeout"), format!("must be 10ms to the interval, is {timeout:?}"));
    } else if timeout > interval {
        let message = format!("{timeout:?} is longer than the interval, {interval:?}");
        check.error_help(
            &at.key("timeout"),
            message,
            "a check has to end before the next begins: lower it, or raise 'interval'",
        );
    }
    (interval, timeout)
}

fn probe(spec: &HealthCheckSpec, at: &Path, check: &mut Checker<'_>) -> Probe {
    use HealthCheckType::{Http, Https, Icmp, Tcp, Udp};
    let kind = spec.kind;
    let fields = [
        ("port", spec.port.is_some(), kind != Icmp, "type ICMP has none"),
        ("method", spec.method.is_some(), matches!(kind, Http | Https), OF_HTTP),
        ("path", spec.path.is_some(), matches!(kind, Http | Https), OF_HTTP),
        ("host", spec.host.is_some(), matches!(kind, Http | Https), OF_HTTP),
        ("statuses", spec.statuses.is_some(), matches!(kind, Http | Https), OF_HTTP),
        ("serverName", spec.server_name.is_some(), kind == Https, OF_HTTPS),
        ("verify", spec.verify.is_some(), kind == Https, OF_HTTPS),
        ("caFile", spec.ca_file.is_some(), kind == Https, OF_HTTPS),
        ("send", spec.send.is_some(), kind == Udp, OF_UDP),
        ("sendHex", spec.send_hex.is_some(), kind == Udp, OF_UDP),
        ("expect", spec.expect.is_some(), kind == Udp, OF_UDP),
        ("expectHex", spec.expect_hex.is_some(), kind == Udp, OF_UDP),
    ];
    for (name, _, _, message) in fields.into_iter().filter(|(_, set, allowed, _)| *set && !*allowed) {
        check.error(&at.key(name), message);
    }
    match kind {
        Tcp => Probe::Tcp,
        Http => Probe::Http(http(spec, at, check)),
        Https => Probe::Http(HttpProbe { tls: Some(tls(spec, at, check)), ..http(spec, at, check) }),
        Udp => Probe::Udp(UdpProbe {
            send: payload(at, ("send", spec.send.as_deref()), ("sendHex", spec.send_hex.as_deref()), check)
                .unwrap_or_default(),
            expect: payload(at, ("expect", spec.expect.as_deref()), ("expectHex", spec.expect_hex.as_deref()), check),
        }),
        Icmp => Probe::Icmp,
    }
}

fn tls(spec: &HealthCheckSpec, at: &Path, check: &mut Checker<'_>) -> TlsProbe {
    if let Some(name) = &spec.server_name {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if name.len() > MAX_HOST || !name.split('.').all(label) || name.parse::<std::net::IpAddr>().is_ok() {
            let path = at.key("serverName");
            check.error_help(&path, "is not a DNS name", "write the name that the certificate has: www.example.org");
        }
    }
    if let Some(file) = &spec.ca_file {
        if !file.starts_with('/') {
            check.error_help(&at.key("caFile"), "must be an absolute path", "write it from / on");
        }
        if spec.verify != Some(true) {
            check.error_help(&at.key("caFile"), "has no effect: nothing is verified", "set verify: true");
        }
    }
    // A host that is a name is what the server is asked for, too; its port is nobody's name.
    let of_host = spec.host.as_deref().and_then(|host| host.split(':').next());
    let of_host = of_host.filter(|host| host.contains(|c: char| c.is_ascii_alphabetic()) && !host.starts_with('['));
    let server_name = spec.server_name.as_deref().or(of_host).map(str::to_owned);
    let roots = || spec.ca_file.clone().map_or(Roots::System, Roots::File);
    TlsProbe { server_name, verify: spec.verify.unwrap_or(false).then(roots) }
}

/// The octets of two digits each; `None` for anything else.
pub(super) fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let octet = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2 && !text.starts_with('+'))?;
        u8::from_str_radix(text, 16).ok()
    };
    text.as_bytes().chunks(2).map(octet).collect()
}

/// What is sent or expected, written as text or in hexadecimal.
fn payload(
    at: &Path,
    (name, text): (&str, Option<&str>),
    (hex_name, hex): (&str, Option<&str>),
    check: &mut Checker<'_>,
) -> Option<Vec<u8>> {
    if text.is_some() && hex.is_some() {
        check.error(&at.key(hex_name), format!("'{name}' says it already"));
    }
    let path = at.key(if hex.is_some() { hex_name } else { name });
    let bytes = match (text, hex) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(hex)) => {
            let Some(bytes) = hexadecimal(hex) else {
                check.error_help(&path, "is not hexadecimal", "write two digits an octet: 0a1b");
                return None;
            };
            bytes
        }
        (None, None) => return None,
    };
    if bytes.len() > MAX_PAYLOAD {
        check.error(&path, format!("has {} bytes, at most {MAX_PAYLOAD} fit", bytes.len()));
    }
    if name == "expect" && bytes.is_empty() {
        check.error_help(&path, "must not be empty", "leave it out where any answer, and none, is healthy");
    }
    Some(bytes)
}

fn http(spec: &HealthCheckSpec, at: &Path, check: &mut Checker<'_>) -> HttpProbe {
    let path = spec.path.clone().unwrap_or_else(|| "/".to_owned());
    text_of_request(&at.key("path"), &path, MAX_PATH, check);
    if !path.starts_with('/') {
        let help = format!("write /{}", crate::document::deserialize::shorten(&path));
        check.error_help(&at.key("path"), "must begin with '/'", help);
    } else if path.contains('#') {
        check.error(&at.key("path"), "has a '#': a fragment is not sent");
    }
    if let Some(host) = &spec.host {
        let path = at.key("host");
        text_of_request(&path, host, MAX_HOST, check);
        if host.is_empty() {
            check.error(&path, "must not be empty");
        } else if host.contains(['/', '@', '?', '#']) {
            check.error_help(&path, "is not a host", "write the name alone, or with a port: www.example.org:8080");
        }
    }
    let statuses = match &spec.statuses {
        None => vec![(200, 399)],
        Some(written) => statuses(written, &at.key("statuses"), check),
    };
    let method = spec.method.map_or("GET", |method| method.name());
    HttpProbe { method, path, host: spec.host.clone(), statuses, tls: None }
}

/// What stands in the head of a request is visible ASCII: anything else would end it, or make another one of it.
fn text_of_request(at: &Path, text: &str, most: usize, check: &mut Checker<'_>) {
    if text.len() > most {
        check.error(at, format!("has {} bytes, at most {most} are sent", text.len()));
    } else if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic()) {
        check.error_help(at, format!("has a {bad:?}"), "write what is not visible ASCII in percent-encoding");
    }
}

fn statuses(written: &[NumberOrText], at: &Path, check: &mut Checker<'_>) -> Vec<(u16, u16)> {
    if written.is_empty() {
        check.error(at, "must list at least one status");
    }
    let mut ranges = Vec::with_capacity(written.len());
    for (i, text) in written.iter().enumerate() {
        let text = text.to_string();
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        let status = |text: &str| text.trim().parse::<u16>().ok();
        match (status(first), status(last)) {
            (Some(first), Some(last)) if !STATUSES.contains(&first) || !STATUSES.contains(&last) => {
                check.error(&at.index(i), format!("statuses are 100 to 599, this is {text}"));
            }
            (Some(first), Some(last)) if first > last => {
                check.error_help(
                    &at.index(i),
                    format!("{text} ends before it begins"),
                    format!("write {last}-{first}"),
                );
            }
            (Some(first), Some(last)) => ranges.push((first, last)),
            _ => {
                let shown = crate::document::deserialize::shorten(&text);
                check.error_help(
                    &at.index(i),
                    format!("'{shown}' is not a status"),
                    "write 200, or a range as 200-299",
                );
            }
        }
    }
    ranges.sort_unstable();
    ranges
}
