//! Every metric that margay serves: name, kind, labels and help, declared once. docs/metrics.md is written from here and a
//! test compares it (`UPDATE_EXPECTED=1 cargo test -p margay --lib metrics` rewrites it).
//!
//! Values are read when a scrape asks for them, from where they are counted; a label that has no value any more is not
//! in the next scrape. Labels are bounded by the configuration: interfaces, reasons, VIPs, backends, peers, workers.

use metrics_exporter_prometheus::PrometheusBuilder;

/// Whether a metric only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows; starts over with the kernel maps or the process.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name as Prometheus sees it.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub help: &'static str,
}

impl Metric {
    /// Sets the value of one series in the scrape that is being rendered. `values` go with the labels in order.
    pub fn set(&self, values: &[&str], value: u64) {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        let labels: Vec<(String, String)> =
            self.labels.iter().zip(values).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match self.kind {
            Kind::Counter => metrics::counter!(self.name, &labels).absolute(value),
            #[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other type")]
            Kind::Gauge => metrics::gauge!(self.name, &labels).set(value as f64),
        }
    }

    fn describe(&self) {
        match self.kind {
            Kind::Counter => metrics::describe_counter!(self.name, self.help),
            Kind::Gauge => metrics::describe_gauge!(self.name, self.help),
        }
    }
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// All of them, in the order of the documentation.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD_INFO: Gauge "margay_build_info" ["version"] "Always 1; the version that is running is its label.";
    UPTIME: Gauge "margay_process_uptime_seconds" [] "How long the agent has been running.";
    CONFIG_VALID: Gauge "margay_config_valid" [] "1 when the files in the configuration directory are what forwards, 0 when they have errors and the last good generation is kept.";
    GENERATION: Gauge "margay_config_generation" [] "Generation in force.";
    COMPILE_TIME: Gauge "margay_config_compile_microseconds" [] "How long the last generation took to compile.";
    APPLY_TIME: Gauge "margay_config_apply_microseconds" [] "How long the last generation took to be written to the kernel.";
    APPLY_WRITES: Counter "margay_config_map_writes_total" [] "Map entries written or deleted, all generations of this process.";
    APPLY_FAILURES: Counter "margay_config_apply_failures_total" [] "Generations that could not be compiled or written.";
    PROBLEMS: Gauge "margay_status_problems" [] "Problems that `margay status` lists; 0 is healthy.";
    PORT_UP: Gauge "margay_port_up" ["interface"] "1 when the program is attached and the link has carrier.";
    PORT_RX_PACKETS: Counter "margay_port_rx_packets_total" ["interface"] "Frames received; equals the sum of all verdicts.";
    PORT_RX_BYTES: Counter "margay_port_rx_bytes_total" ["interface"] "Bytes of these frames.";
    PORT_VERDICT_PACKETS: Counter "margay_port_verdict_packets_total" ["interface", "verdict"] "Frames by verdict: pass, tx or redirect.";
    PORT_VERDICT_BYTES: Counter "margay_port_verdict_bytes_total" ["interface", "verdict"] "Bytes of these frames, as they came in.";
    PORT_PUNT_PACKETS: Counter "margay_port_punt_packets_total" ["interface", "reason"] "Frames handed to the slow path, by reason.";
    PORT_PUNT_BYTES: Counter "margay_port_punt_bytes_total" ["interface", "reason"] "Bytes of these frames.";
    PORT_DROP_PACKETS: Counter "margay_port_drop_packets_total" ["interface", "reason"] "Frames dropped, by reason.";
    PORT_DROP_BYTES: Counter "margay_port_drop_bytes_total" ["interface", "reason"] "Bytes of these frames.";
    TABLE_ENTRIES: Gauge "margay_table_entries" ["table"] "Entries in force, by table.";
    DENYLIST_BYTES: Gauge "margay_denylist_bytes" ["family", "state"] "Memory of denied prefixes by family, ip4 or ip6: used, and reserved for it.";
    FIB_BYTES: Gauge "margay_fib_bytes" ["family", "state"] "Memory of the FIB by family, ip4 or ip6: used, and reserved for it.";
    FIB_DEPTH: Gauge "margay_fib_depth" ["family"] "Most blocks that a look-up in the FIB goes through, by family; 0 where the first reference has every answer.";
    FIB_BLOCKS: Gauge "margay_fib_blocks" ["family", "level"] "Blocks of the FIB by family and by how many blocks a look-up has gone through with them: level 1 is the first.";
    FIB_AWAY: Gauge "margay_fib_away_blocks" ["family"] "First blocks of IPv4 look-ups that lie outside of the cache line where the look-up begins: those that do not fit, and for a second or so those that have changed.";
    ROUTES_LEFT_OUT: Gauge "margay_fib_left_out_routes" ["table"] "Routes that there is no room for, by what is full: fib4, fib6, or the groups of next hops. What covers them answers, or the host's stack where the kernel has them.";
    FIB_ADOPTED: Gauge "margay_fib_adopted_entries" [] "Routes adopted after a restart that no source has claimed yet.";
    RIB_ROUTES: Gauge "margay_rib_routes" ["source"] "Routes in the RIB by source: kernel, bgp or adopted.";
    KERNEL_SYNCHRONISED: Gauge "margay_kernel_routes_synchronised" [] "1 when every route of the kernel's table is held; 0 while it is first read, and where none is followed.";
    KERNEL_AUDITS: Counter "margay_kernel_routes_audits_total" [] "Comparisons of what is held with a dump of the kernel's table.";
    KERNEL_REPAIRED: Counter "margay_kernel_routes_repaired_total" [] "Prefixes that audits found to differ from the kernel's table, and repaired.";
    KERNEL_OVERRUNS: Counter "margay_kernel_routes_overruns_total" [] "How often notifications of routes were lost; each time the table was read again.";
    NEIGHBORS: Gauge "margay_neighbor_entries" ["state"] "Next hops by state of their link-layer address: resolved or unresolved; and gateways that do not answer: failed.";
    NEXT_HOP_PACKETS: Counter "margay_next_hop_packets_total" ["next_hop", "interface"] "Packets sent to a next hop, a gateway or a host on a link; next hops that none was sent to are left out.";
    NEXT_HOP_BYTES: Counter "margay_next_hop_bytes_total" ["next_hop", "interface"] "Bytes of these packets, as they came in.";
    FLOWS: Gauge "margay_flow_table_entries" ["state"] "Flows that the flow table remembers, those of ring slots that have changed: established, or opening where only the packet that opens them has been seen.";
    FLOWS_MAX: Gauge "margay_flow_table_size_entries" [] "Flows that the flow table has room for, all cores together.";
    BALANCING_BYTES: Gauge "margay_vip_memory_bytes" ["table"] "Memory of load balancing: the flow_table, and the rings of all VIPs.";
    VIP_BACKENDS: Gauge "margay_vip_backends" ["vip", "state"] "Backends of a VIP that are usable and unusable.";
    VIP_CHANGED: Gauge "margay_vip_changed_slots" ["vip"] "Slots of a VIP's ring, of 65,537, that have changed: their flows are looked for in the flow table.";
    BACKEND_PACKETS: Counter "margay_backend_packets_total" ["vip", "backend"] "Packets sent to a backend of a VIP.";
    BACKEND_BYTES: Counter "margay_backend_bytes_total" ["vip", "backend"] "Bytes of these packets, as they came in.";
    BACKEND_STATE: Gauge "margay_backend_state" ["vip", "backend", "state"] "1 for what a backend of a VIP is: up, draining, down, starting (not checked yet) or unusable (no route); 0 for what it is not.";
    BACKEND_CHECKS: Counter "margay_backend_checks_total" ["vip", "backend", "result"] "Health checks of a backend by result, ok or failed; a backend that several VIPs check in the same way is checked once for all.";
    BACKEND_CHECK_TIME: Gauge "margay_backend_check_microseconds" ["vip", "backend"] "How long the last health check of a backend took.";
    CHECKS_LATE: Counter "margay_health_checks_late_total" [] "Health checks that began more than 200 ms late, because as many as may be were under way.";
    BGP_SESSION_UP: Gauge "margay_bgp_session_up" ["peer"] "1 when the session is Established.";
    BGP_PREFIXES: Gauge "margay_bgp_prefixes" ["peer", "direction"] "Prefixes in the Adj-RIB-In (received) and Adj-RIB-Out (advertised).";
    WORKER_PUNTS: Counter "margay_worker_punts_total" ["worker", "reason"] "Frames that a slow-path worker took, by reason.";
    WORKER_EVENTS: Counter "margay_worker_events_total" ["worker", "event"] "What a worker did with them: ICMP sent or held back, frames forwarded or dropped.";
    WORKER_LATENCY: Gauge "margay_worker_latency_nanoseconds" ["worker", "work", "part"] "Time from a frame taken to its answer sent (answer), or to itself sent once its neighbour was resolved (resolve): p50, p90, p99, p999 and max since the start.";
    WORKER_FRAMES: Gauge "margay_worker_frames" ["worker", "place"] "Frames of a worker's UMEM by where they are.";
    SOCKET_FRAMES: Counter "margay_socket_frames_total" ["interface", "queue", "event"] "Frames of an AF_XDP socket: rx, tx, and what was lost for want of ring space.";
}

/// Renders one scrape: `set` gives every series its value through [`Metric::set`].
pub fn render(set: impl FnOnce()) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        ALL.iter().for_each(Metric::describe);
        set();
    });
    recorder.handle().render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> String {
        let mut page = String::from(
            "# Metrics\n\nServed on `--metrics ADDR` under `/metrics`. Written from `src/metrics.rs`; do not edit.\n\n\
             On every interface `rx = pass + tx + redirect + punt by reason + drop by reason`, in packets and in bytes.\n\n\
             | name | type | labels | meaning |\n|---|---|---|---|\n",
        );
        for metric in ALL {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let labels = metric.labels.join(", ");
            page += &format!("| `{}` | {kind} | {labels} | {} |\n", metric.name, metric.help);
        }
        page
    }

    #[test]
    fn the_reference_page_is_what_is_declared() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), reference(), "UPDATE_EXPECTED=1 rewrites it");
    }

    #[test]
    fn names_follow_the_rules() {
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        for metric in ALL {
            assert!(metric.name.starts_with("margay_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len(), "a name is declared twice");
    }

    #[test]
    fn a_scrape_holds_only_what_was_set_in_it() {
        let first = render(|| PORT_DROP_PACKETS.set(&["eth0", "NO_ROUTE"], 7));
        assert!(first.contains(r#"margay_port_drop_packets_total{interface="eth0",reason="NO_ROUTE"} 7"#), "{first}");
        assert!(first.contains("# TYPE margay_port_drop_packets_total counter"), "{first}");
        let second = render(|| BGP_SESSION_UP.set(&["tor"], 1));
        assert!(second.contains(r#"margay_bgp_session_up{peer="tor"} 1"#), "{second}");
        assert!(!second.contains("eth0"), "{second}");
    }
}
