//! The API's documents as tables.

use std::fmt::Write as _;

use model::tables::GROUP_BUCKETS;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use super::client::Client;
use super::output::{self, Format, Row};
use crate::control::api::ListKind;
use crate::control::api::types::{
    Backend, BackendHealth, BackendState, DifferenceKind, Drop, FibMemory, Filter, Flow, InterfaceState, KernelDiff,
    List, Neighbor, NextHop, NextHopKind, Peer, Policy, Route, RouteDifference, Status, Vip, WorkerCounter,
};

/// One `margay get`.
pub(super) struct Lister {
    pub(super) client: Client,
    pub(super) filter: Filter,
    pub(super) format: Format,
}

impl Lister {
    pub(super) fn show(&self, kind: ListKind) -> Result<(), Error> {
        match kind {
            ListKind::Routes => self.list::<Route>(kind),
            ListKind::Nexthops => self.list::<NextHop>(kind),
            ListKind::Neighbors => self.list::<Neighbor>(kind),
            ListKind::Vips => self.list::<Vip>(kind),
            ListKind::Backends => self.list::<Backend>(kind),
            ListKind::Peers => self.list::<Peer>(kind),
            ListKind::Policies => self.list::<Policy>(kind),
            ListKind::Drops => self.list::<Drop>(kind),
            ListKind::Flows => self.list::<Flow>(kind),
            ListKind::Workers => self.list::<WorkerCounter>(kind),
        }
    }

    fn list<R: Row + Serialize + DeserializeOwned>(&self, kind: ListKind) -> Result<(), Error> {
        let mut path = format!("/v1/{}?limit={}", kind.name(), self.filter.limit.unwrap_or_default());
        if let Some(of) = &self.filter.of {
            path += &format!("&of={}", escape(of));
        }
        if let Some(vrf) = &self.filter.vrf {
            path += &format!("&vrf={}", escape(vrf));
        }
        let list: List<R> = self.client.get(&path)?;
        match self.format {
            Format::Json => output::json(&list)?,
            Format::Table => output::text(&output::table(&list.items))?,
        }
        if self.format == Format::Table && list.total > list.items.len() {
            eprintln!("{} of {} shown; --limit {} for all", list.items.len(), list.total, list.total);
        }
        Ok(())
    }
}

/// Percent-encodes what is not unreserved (RFC 3986 §2.3).
pub(super) fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Seconds as `3d4h`, `2h5m`, `3m20s` or `12s`.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

pub(super) fn next_hop(hop: &NextHop) -> String {
    let interface = hop.interface.as_deref().map(|name| format!(" dev {name}")).unwrap_or_default();
    match (hop.kind, hop.address) {
        (NextHopKind::Forward, Some(address)) => {
            let state = hop.mac.map_or_else(|| "unresolved".to_owned(), |mac| mac.to_string());
            format!("{address}{interface} ({state})")
        }
        (kind, _) => format!("{}{interface}", kind_name(kind)),
    }
}

/// A share of a group as it is.
fn of_buckets(count: usize) -> String {
    format!("{count} of {GROUP_BUCKETS} buckets")
}

fn kind_name(kind: NextHopKind) -> &'static str {
    match kind {
        NextHopKind::Forward => "forward",
        NextHopKind::Glean => "connected",
        NextHopKind::Receive => "receive",
        NextHopKind::Host => "host",
        NextHopKind::Vip => "vip",
        NextHopKind::Blackhole => "blackhole",
        NextHopKind::Prohibit => "prohibit",
        NextHopKind::Unreachable => "unreachable",
    }
}

impl Row for Route {
    const HEADER: &'static [&'static str] = &["PREFIX", "SOURCE", "GROUP", "NEXT HOPS"];
    fn cells(&self) -> Vec<String> {
        let members: Vec<String> = self
            .next_hops
            .iter()
            .map(|member| match self.next_hops.len() {
                1 => next_hop(&member.next_hop),
                _ => format!(
                    "{} {:.0}% ({})",
                    next_hop(&member.next_hop),
                    member.share_percent,
                    of_buckets(member.buckets)
                ),
            })
            .collect();
        vec![self.prefix.to_string(), self.source.to_string(), self.group.to_string(), members.join("\n")]
    }
}

impl Row for NextHop {
    const HEADER: &'static [&'static str] = &["ID", "KIND", "ADDRESS", "INTERFACE", "MAC", "MTU", "PACKETS", "BYTES"];
    fn cells(&self) -> Vec<String> {
        let unresolved = if self.resolved() { "-" } else { "unresolved" };
        vec![
            self.id.to_string(),
            kind_name(self.kind).to_owned(),
            or_dash(self.address),
            or_dash(self.interface.as_deref()),
            self.mac.map_or_else(|| unresolved.to_owned(), |mac| mac.to_string()),
            or_dash(self.mtu),
            or_dash(self.sent.map(|sent| sent.packets)),
            or_dash(self.sent.map(|sent| sent.bytes)),
        ]
    }
}

impl Row for Neighbor {
    const HEADER: &'static [&'static str] = &["ADDRESS", "INTERFACE", "MAC", "IN USE"];
    fn cells(&self) -> Vec<String> {
        let used = if self.in_use { "yes" } else { "no" };
        vec![self.address.to_string(), self.interface.clone(), self.mac.to_string(), used.to_owned()]
    }
}

impl Row for Vip {
    const HEADER: &'static [&'static str] =
        &["SERVICE", "ADDRESS", "PORT", "PROTOCOL", "BACKENDS", "ANNOUNCED", "CHANGED", "PACKETS", "BYTES"];
    fn cells(&self) -> Vec<String> {
        let any = || "*".to_owned();
        vec![
            self.service.clone(),
            self.address.clone(),
            self.port.map_or_else(any, |port| port.to_string()),
            self.protocol.clone().unwrap_or_else(any),
            format!("{}/{}", self.usable, self.backends),
            if self.announced { "yes" } else { "no" }.to_owned(),
            self.changed_slots.to_string(),
            self.packets.to_string(),
            self.bytes.to_string(),
        ]
    }
}

impl Row for Backend {
    const HEADER: &'static [&'static str] =
        &["SERVICE", "VIP", "BACKEND", "ENCAP", "WEIGHT", "SHARE", "STATE", "LAST CHECK", "MTU", "PACKETS", "BYTES"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.service.clone(),
            self.vip.clone(),
            self.address.to_string(),
            self.encap.clone(),
            self.weight.to_string(),
            format!("{:.1}%", self.share_percent),
            backend_state(self),
            or_dash(self.health.as_ref().and_then(last_check)),
            or_dash(self.inner_mtu),
            self.packets.to_string(),
            self.bytes.to_string(),
        ]
    }
}

/// What a backend is, for how long, and how far it is from something else.
fn backend_state(backend: &Backend) -> String {
    let state = match backend.state {
        BackendState::Up => "up",
        BackendState::Draining => "draining",
        BackendState::Down if backend.usable => "down, used",
        BackendState::Down => "down",
        BackendState::Starting => "starting",
        BackendState::Unusable => "no route",
    };
    let Some(health) = &backend.health else { return state.to_owned() };
    let since = duration(health.since_seconds);
    match health.against {
        0 => format!("{state} {since}"),
        against => format!("{state} {since} ({against}/{} against)", health.needed),
    }
}

fn last_check(health: &BackendHealth) -> Option<String> {
    let last = health.last.as_ref()?;
    let result = last.error.as_deref().unwrap_or("ok");
    #[expect(clippy::cast_precision_loss, reason = "milliseconds with one digit")]
    let took = last.took_microseconds as f64 / 1000.0;
    let via = if health.via_tunnel && last.error.is_none() { " via tunnel" } else { "" };
    Some(format!("{result}{via}, {took:.1} ms, {} ago", duration(last.seconds_ago)))
}

impl Row for Peer {
    const HEADER: &'static [&'static str] =
        &["NAME", "ADDRESS", "ASN", "STATE", "UPTIME", "FAMILIES", "RECEIVED", "ACCEPTED", "SENT", "LAST ERROR"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.address.to_string(),
            self.asn.to_string(),
            self.state.clone(),
            or_dash(self.uptime_seconds.map(duration)),
            self.families.join(","),
            self.prefixes_received.to_string(),
            self.prefixes_accepted.to_string(),
            self.prefixes_sent.to_string(),
            or_dash(self.last_error.as_deref()),
        ]
    }
}

impl Row for Policy {
    const HEADER: &'static [&'static str] = &["#", "POLICY", "HOST ENDPOINTS", "RULES"];
    fn cells(&self) -> Vec<String> {
        vec![self.position.to_string(), self.name.clone(), self.endpoints.join("\n"), self.rules.join("\n")]
    }
}

impl Row for Drop {
    const HEADER: &'static [&'static str] = &["INTERFACE", "VERDICT", "REASON", "PACKETS", "BYTES", "MEANING"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.interface.clone(),
            self.verdict.clone(),
            self.reason.clone(),
            self.packets.to_string(),
            self.bytes.to_string(),
            self.help.clone(),
        ]
    }
}

impl Row for Flow {
    const HEADER: &'static [&'static str] = &["SERVICE", "VIP", "SLOT", "BACKEND", "STATE", "AGE"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.service.clone(),
            self.vip.clone(),
            self.slot.to_string(),
            self.backend.to_string(),
            if self.established { "established" } else { "new" }.to_owned(),
            duration(self.age_seconds),
        ]
    }
}

impl Row for WorkerCounter {
    const HEADER: &'static [&'static str] = &["WORKER", "COUNTER", "VALUE"];
    fn cells(&self) -> Vec<String> {
        vec![self.worker.to_string(), self.counter.clone(), self.value.to_string()]
    }
}

impl Row for RouteDifference {
    const HEADER: &'static [&'static str] = &["PREFIX", "DIFFERENCE", "KERNEL", "MARGAY"];
    fn cells(&self) -> Vec<String> {
        let kind = match self.kind {
            DifferenceKind::Missing => "missing",
            DifferenceKind::Extra => "extra",
            DifferenceKind::Different => "different",
            DifferenceKind::NotForwarded => "not forwarded",
        };
        vec![self.prefix.to_string(), kind.to_owned(), or_dash(self.kernel.as_deref()), or_dash(self.margay.as_deref())]
    }
}

/// `margay get routes --diff kernel` for people.
pub(super) fn kernel_diff(diff: &KernelDiff) -> String {
    let KernelDiff { vrf: _, table, kernel, margay, forwarded, differences } = diff;
    let mut out = format!(
        "kernel  {:>9} routes  sha256 {}  table {table}\nmargay  {:>9} routes  sha256 {}  {forwarded} forward\n",
        kernel.routes, kernel.sha256, margay.routes, margay.sha256
    );
    match differences.total {
        0 => out += "no difference\n",
        total => {
            let _ = writeln!(out, "{total} differences, {} shown\n", differences.items.len());
            out += &output::table(&differences.items);
        }
    }
    out
}

/// `margay status` for people.
pub(super) fn status(status: &Status) -> String {
    let mut out = String::new();
    let health = if status.problems.is_empty() { "healthy" } else { "DEGRADED" };
    let mut line = |title: &str, text: String| {
        let _ = writeln!(out, "{title:<12}{text}");
    };
    line("node", format!("{} · {health}", status.node));
    line("margay", format!("{} · pid {} · up {}", status.version, status.pid, duration(status.uptime_seconds)));
    line("generation", format!("{} · pinned in {}", status.generation, status.pin_dir.display()));
    let since = duration(status.config.since_seconds);
    let directory = status.config.directory.display();
    line(
        "config",
        match status.config.valid {
            true => format!("{directory} · in force since {since}"),
            false => format!(
                "{directory} · FAILED since {since}, {} errors, generation {} keeps forwarding",
                status.config.diagnostics.len(),
                status.generation
            ),
        },
    );
    let tables = &status.tables;
    line(
        "tables",
        format!(
            "{} routes · {} groups · {} next hops · {} neighbors · {} VIPs · {} backends · {} filter ops · {} denylisted",
            tables.fib,
            tables.groups,
            tables.next_hops,
            tables.neighbors,
            tables.vips,
            tables.backends,
            tables.filter_ops,
            tables.denylist
        ),
    );
    for (family, fib) in [("IPv4", &tables.fib4), ("IPv6", &tables.fib6)] {
        let (used, reserved) = (fib.bytes_used as f64 / 1e6, fib.bytes_reserved as f64 / 1e6);
        let blocks = fib.levels.iter().map(usize::to_string).collect::<Vec<_>>().join(" + ");
        let blocks = if blocks.is_empty() { "0".to_owned() } else { blocks };
        let away = if fib.away > 0 { format!(", {} outside of their lines", fib.away) } else { String::new() };
        line(
            "FIB",
            format!(
                "{family} {} prefixes · {used:.1} of {reserved:.1} MB · blocks by level {blocks}{away}",
                fib.prefixes
            ),
        );
    }
    if tables.denylist > 0 {
        let all = [&tables.denied4, &tables.denied6];
        let of = |bytes: fn(&FibMemory) -> usize| all.iter().map(|memory| bytes(memory)).sum::<usize>() as f64 / 1e6;
        let (used, reserved) = (of(|memory| memory.bytes_used), of(|memory| memory.bytes_reserved));
        line("denylist", format!("{} prefixes · {used:.1} of {reserved:.1} MB", tables.denylist));
    }
    if tables.vips > 0 {
        let of = tables.balancing;
        let (flows, rings) = (of.flow_table_bytes as f64 / 1e6, of.ring_bytes as f64 / 1e6);
        line(
            "flows",
            format!(
                "{} remembered, {} established, room for {} · {flows:.1} MB · {} rings · {rings:.1} MB",
                of.flows, of.flows_established, of.flows_max, of.rings
            ),
        );
    }
    if tables.adopted > 0 {
        line("restart", format!("{} adopted routes wait for BGP and the kernel's table", tables.adopted));
    }
    let kernel = &status.kernel_routes;
    line(
        "kernel",
        match kernel.table {
            None => "its routes are not followed".to_owned(),
            Some(table) => {
                let state = if kernel.synchronised { "synchronised" } else { "being read" };
                let audit = kernel.last_audit_seconds.map_or_else(|| "none yet".to_owned(), |s| duration(s) + " ago");
                let (routes, overruns, repaired) = (kernel.routes, kernel.overruns, kernel.repaired);
                format!(
                    "table {table} · {state} · {routes} routes · last audit {audit} · {repaired} repaired · {overruns} overruns"
                )
            }
        },
    );
    line("sessions", format!("{} of {} Established", status.sessions.established, status.sessions.configured));
    for interface in &status.interfaces {
        let state = match interface.state {
            InterfaceState::Forwarding => "forwarding",
            InterfaceState::Down => "DOWN",
            InterfaceState::Failed => "FAILED",
            InterfaceState::Missing => "MISSING",
        };
        let mode = format!("{:?}", interface.mode).to_lowercase();
        let vrf = interface.vrf.as_ref().map(|vrf| format!(" · VRF {vrf}")).unwrap_or_default();
        line("interface", format!("{} · {state} · {mode} mode{vrf}", interface.name));
    }
    for vrf in &status.vrfs {
        let table = vrf.table.map(|table| format!(" · {} of the kernel's table {table}", vrf.kernel_routes));
        line("VRF", format!("{} · {} routes{}", vrf.name, vrf.routes, table.unwrap_or_default()));
    }
    for diagnostic in &status.config.diagnostics {
        line("files say", diagnostic.replace('\n', "\n            "));
    }
    for problem in &status.problems {
        line("problem", problem.replace('\n', "\n            "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_parts_at_most() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m0s"), (3_725, "1h2m"), (90_000, "1d1h")] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn filters_are_escaped() {
        assert_eq!(escape("2001:db8::/32 &x"), "2001%3Adb8%3A%3A%2F32%20%26x");
    }
}
