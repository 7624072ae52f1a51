//! ```text
//! client -- router -+- left0 balancer right0 -+- switch -- 4 backends, each with the VIP on its loopback device
//!            |      +- left0 balancer right0 -+    |
//!            |      +- left0 balancer right0 -+    |
//!            +-------------------------------------+ the backends' answers
//! ```
//! The router is a Linux that spreads flows over the balancers by their ports and has no memory of any: when a next hop comes or goes, it
//! divides the hashes anew among all.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::netns::{End, Netns, Process, veth};

use crate::harness::Lab;
use crate::traffic::ECHO;

pub(crate) const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), 8080);
pub(crate) const BACKENDS: [&str; 4] = ["10.2.0.11", "10.2.0.12", "10.2.0.13", "10.2.0.14"];
pub(crate) const BALANCERS: usize = 3;
/// Addresses of the client, 10.1.0.2 and up.
const SOURCES: u8 = 8;

const DOCUMENTS: &str = "
apiVersion: margay.io/v1
kind: Node
metadata: {name: gw}
spec: {interfaces: [{name: left0}, {name: right0}]}
---
apiVersion: margay.io/v1
kind: VirtualService
metadata: {name: echo}
spec:
  addresses: [192.0.2.10]
  port: 8080
  protocol: TCP
  encap: {type: L2}
  healthCheck: {type: TCP, interval: 2s, timeout: 2s, fall: 5}
  backends:
";

/// The configuration of every balancer; the first backend drains or not.
pub(crate) fn documents(first_drains: bool) -> String {
    let backend = |address: &&str| {
        let drain = if first_drains && *address == BACKENDS[0] { ", drain: true" } else { "" };
        format!("  - {{address: {address}{drain}}}\n")
    };
    let backends: String = BACKENDS.iter().map(backend).collect();
    format!("{DOCUMENTS}{backends}")
}

pub(crate) struct World {
    pub(crate) client: Netns,
    pub(crate) router: Arc<Netns>,
    pub(crate) balancers: Vec<Lab>,
    _servers: Vec<Process>,
    _switch: Arc<Netns>,
    _backends: Vec<Netns>,
}

fn host() -> Netns {
    let host = Netns::new("balancers").unwrap();
    for key in ["all", "default"] {
        host.sysctl(&format!("net.ipv4.conf.{key}.rp_filter"), "0").unwrap();
    }
    host
}

/// A cable. Checksums are the senders', and both ends take in what is redirected to them.
fn cable(near: &Netns, near_name: &str, near_address: &str, far: &Netns, far_name: &str, far_address: &str) {
    let nets = |address: &str| address.split_whitespace().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
    let (ours, theirs) = (nets(near_address), nets(far_address));
    let near_end = End { netns: near, name: near_name, addresses: &ours };
    veth(near_end, End { netns: far, name: far_name, addresses: &theirs }).unwrap();
    for (netns, name) in [(near, near_name), (far, far_name)] {
        let features = ["tx", "off", "tso", "off", "gso", "off", "gro", "on"];
        netns.run("ethtool", &[["-K", name].as_slice(), &features].concat()).unwrap();
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let (client, router, switch) = (host(), Arc::new(host()), Arc::new(host()));
        switch.ip(&["link", "add", "br0", "type", "bridge"]).unwrap();
        switch.ip(&["link", "set", "br0", "up"]).unwrap();
        let plug = |netns: &Netns, name: &str, address: &str, port: &str| {
            cable(netns, name, address, &switch, port, "");
            switch.ip(&["link", "set", port, "master", "br0"]).unwrap();
        };
        let sources: Vec<String> = (2..2 + SOURCES).map(|n| format!("10.1.0.{n}/24")).collect();
        cable(&client, "eth0", &sources.join(" "), &router, "clients", "10.1.0.1/24");
        client.ip(&["route", "add", "default", "via", "10.1.0.1"]).unwrap();
        plug(&router, "fabric", "10.2.0.254/24", "router");

        let gateways: Vec<Netns> = (1..=BALANCERS).map(|n| Self::gateway(n, &router, &plug)).collect();
        router.sysctl("net.ipv4.ip_forward", "1").unwrap();
        // Addresses, protocol and ports out of each packet; by policy 1 it would take the number that the sender's socket gave it, which
        // another timeout changes.
        router.sysctl("net.ipv4.fib_multipath_hash_policy", "3").unwrap();
        router.sysctl("net.ipv4.fib_multipath_hash_fields", "0x37").unwrap();
        let hops: Vec<String> = (1..=BALANCERS).map(|n| format!("10.11.{n}.1")).collect();
        let mut route = vec!["route", "add", "192.0.2.10/32"];
        hops.iter().for_each(|hop| route.extend(["nexthop", "via", hop.as_str()]));
        router.ip(&route).unwrap();

        let backends: Vec<Netns> = BACKENDS.iter().map(|address| Self::backend(address, &plug)).collect();
        let servers: Vec<Process> =
            backends.iter().map(|backend| backend.spawn("/usr/bin/python3", &["-c", ECHO]).unwrap()).collect();
        for backend in &backends {
            let deadline = Instant::now() + Duration::from_secs(30);
            while !backend.run("ss", &["-Hltn", "sport = 8080"]).unwrap().contains("LISTEN") {
                assert!(Instant::now() < deadline, "a server starts");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let lab = |(n, gateway)| {
            let documents = documents(false);
            Lab::between(&format!("balancer{n}"), &documents, gateway, Arc::clone(&router), Arc::clone(&switch))
        };
        let balancers = gateways.into_iter().enumerate().map(lab).collect();
        Self { client, router, balancers, _servers: servers, _switch: switch, _backends: backends }
    }

    fn gateway(n: usize, router: &Netns, plug: &dyn Fn(&Netns, &str, &str, &str)) -> Netns {
        let gateway = host();
        let port = format!("lb{n}");
        cable(&gateway, "left0", &format!("10.11.{n}.1/24"), router, &port, &format!("10.11.{n}.2/24"));
        // A balancer whose link is gone is no next hop.
        router.sysctl(&format!("net.ipv4.conf.{port}.ignore_routes_with_linkdown"), "1").unwrap();
        plug(&gateway, "right0", &format!("10.2.0.{n}/24"), &port);
        gateway
    }

    fn backend(address: &str, plug: &dyn Fn(&Netns, &str, &str, &str)) -> Netns {
        let backend = host();
        let port = format!("s{}", address.rsplit('.').next().unwrap());
        plug(&backend, "eth0", &format!("{address}/24"), &port);
        backend.ip(&["route", "add", "default", "via", "10.2.0.254"]).unwrap();
        backend.ip(&["address", "add", "192.0.2.10/32", "dev", "lo"]).unwrap();
        backend
    }

    pub(crate) fn sources() -> Vec<IpAddr> {
        (2..2 + SOURCES).map(|n| Ipv4Addr::new(10, 1, 0, n).into()).collect()
    }

    /// Which balancer the router sends each of these clients' packets to, by its own word.
    pub(crate) fn ways(&self, ends: &[Option<SocketAddr>]) -> Vec<Option<usize>> {
        let mut questions = tempfile::NamedTempFile::new().unwrap();
        for end in ends.iter().flatten() {
            let (source, port) = (end.ip(), end.port());
            let flow = format!("iif clients ipproto tcp sport {port} dport {}", VIP.port());
            writeln!(questions, "route get {} from {source} {flow}", VIP.ip()).unwrap();
        }
        let answers = self.router.run("ip", &["-batch", questions.path().to_str().unwrap()]).unwrap();
        let way = |line: &str| line.split_once(" via 10.11.")?.1.split('.').next()?.parse::<usize>().ok();
        let mut ways = answers.lines().filter_map(way);
        let ways: Vec<_> = ends.iter().map(|end| end.and_then(|_| ways.next())).collect();
        assert!(ways.iter().zip(ends).all(|(way, end)| way.is_some() == end.is_some()), "one answer each: {answers}");
        ways
    }

    /// Waits until a balancer would announce the VIP: it serves with whomever it has found.
    pub(crate) fn until_announced(lab: &Lab) {
        lab.until("the VIP can be announced", |lab| {
            lab.get(&["vips"]).first().is_some_and(|vip| vip["announced"] == true)
        });
    }

    /// A machine that is gone from one moment to the next: agent, links and all.
    pub(crate) fn kill(lab: &mut Lab) {
        for link in ["left0", "right0"] {
            lab.gateway.ip(&["link", "set", link, "down"]).unwrap();
        }
        lab.stop("-KILL");
        Self::until_hops(lab, BALANCERS - 1);
    }

    /// Waits until the router has so many next hops for the VIP.
    fn until_hops(lab: &Lab, hops: usize) {
        lab.until("the router has noticed", |lab| {
            let route = lab.client.ip(&["route", "show", "192.0.2.10"]).unwrap();
            route.lines().filter(|line| line.contains("nexthop") && !line.contains("linkdown")).count() == hops
        });
    }

    /// A machine that knows nothing of what it was. The router sends packets by it when it has said that it serves.
    pub(crate) fn bring_back(lab: &mut Lab) {
        assert!(lab.margay(&["detach"]).status.success());
        let _ = std::fs::remove_dir_all(lab.directory.path().join("state"));
        lab.gateway.ip(&["link", "set", "right0", "up"]).unwrap();
        lab.start();
        Self::until_announced(lab);
        lab.gateway.ip(&["link", "set", "left0", "up"]).unwrap();
        Self::until_hops(lab, BALANCERS);
    }
}
