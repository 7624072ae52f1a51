//! Routes from a real BIRD through the whole agent, and over its death.

use serde_json::Value;

use crate::bird::{Bird, session, statics};
use crate::frr::Frr;
use crate::harness::Lab;

const DOCUMENTS: &str = "
apiVersion: margay.io/v1
kind: Node
metadata: {name: gw}
spec: {interfaces: [{name: left0}, {name: right0}]}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, nodeToNodeMeshEnabled: false, serviceExternalIPs: [{cidr: 192.0.2.0/24}]}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: router}
spec: {peerIP: 10.2.0.2, asNumber: 64513, keepaliveTime: 3s, maxRestartTime: 60s}
---
apiVersion: margay.io/v1
kind: VirtualService
metadata: {name: web}
spec: {addresses: [192.0.2.10], port: 80, protocol: TCP, encap: {type: IPIP}, backends: [{address: 10.1.0.2}]}
";

/// Routes in the FIB from a source.
fn from(lab: &Lab, source: &str) -> usize {
    let routes = lab.get(&["routes", "--limit", "100000"]);
    routes.iter().filter(|route: &&Value| route["source"] == source).count()
}

#[test]
fn learned_routes_forward_and_survive_a_restart_without_a_write() {
    let mut lab = Lab::new("bgp", DOCUMENTS);
    let session = session("margay", "10.2.0.2", 64513, "10.2.0.1 as 64512", &["ipv4"], "");
    let bird = Bird::start(&lab.server, "10.2.0.2", &(statics(400) + &session));
    lab.start();
    lab.until("BIRD's routes forward", |lab| from(lab, "ebgp") == 400);
    assert_eq!(lab.get(&["peers"])[0]["state"], "Established");
    lab.until("healthy", |lab| lab.status()["problems"].as_array().unwrap().is_empty());
    assert!(bird.ask("show route 192.0.2.10/32").contains("via 10.2.0.1"), "the VIP is announced");
    let way = lab.explain(&["udp", "10.1.0.2:1", "198.18.0.7:2", "-i", "left0"]);
    assert_eq!((way["verdict"].as_str(), way["detail"].as_str()), (Some("redirect"), Some("right0")), "{way:#}");

    lab.stop("-KILL");
    assert!(bird.ask("show route 192.0.2.10/32").contains("via 10.2.0.1"), "BIRD keeps it: forwarding goes on");
    lab.start();
    // What is read back answers the same, in as few prefixes as possible.
    assert!(from(&lab, "ebgp") + from(&lab, "adopted") > 0, "at no time without them");
    for host in [0, 199, 399] {
        let to = format!("198.18.{}.{}:2", host >> 8, host & 255);
        let way = lab.explain(&["udp", "10.1.0.2:1", &to, "-i", "left0"]);
        assert_eq!(way["detail"].as_str(), Some("right0"), "at no time without them: {way:#}");
    }
    lab.until("BGP has converged", |lab| from(lab, "ebgp") == 400 && lab.status()["tables"]["adopted"] == 0);
    assert_eq!(lab.metric("margay_config_map_writes_total", ""), 0, "{}", lab.words());

    bird.ask("disable four_b");
    lab.until("withdrawn routes are gone", |lab| from(lab, "ebgp") == 200);

    // What was withdrawn while nobody listened goes when BGP has converged, not before and not never.
    lab.stop("-TERM");
    bird.ask("enable four_b");
    bird.ask("disable four_a");
    lab.start();
    lab.until("only what is announced now", |lab| from(lab, "ebgp") == 200 && from(lab, "adopted") == 0);
    assert_eq!(lab.get(&["routes", "198.18.0.199"]).len(), 0, "of the first half");
    assert_eq!(lab.get(&["routes", "198.18.0.201"]).len(), 1, "of the second half");
}

fn leads_through(lab: &Lab, gateway: &str) -> bool {
    lab.get(&["routes", "20.0.1.0/24"]).iter().any(|route| route.to_string().contains(gateway))
}

/// RFC 8950 in both directions: FRR takes our address for the VIP's next hop, too.
#[test]
fn frr_and_margay_exchange_ipv4_routes_over_ipv6() {
    let mut lab = Lab::new("frr6", &DOCUMENTS.replace("peerIP: 10.2.0.2", "peerIP: fd02::2"));
    // FRR advertises itself as a router. A second address of the link's prefix could be what we connect from.
    lab.gateway.sysctl("net.ipv6.conf.right0.accept_ra", "0").unwrap();
    lab.server.ip(&["addr", "add", "20.0.1.7/32", "dev", "lo"]).unwrap();
    let bgp = "router bgp 64513\n bgp router-id 10.2.0.2\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
               neighbor fd02::1 remote-as 64512\n neighbor fd02::1 capability extended-nexthop\n \
               address-family ipv4 unicast\n  network 20.0.1.0/24\n  neighbor fd02::1 activate\n exit-address-family\n";
    let _frr = Frr::start(&lab.server, bgp);
    lab.start();
    lab.until("FRR's route forwards", |lab| leads_through(lab, "fd02::2"));
    lab.until_forwarded("20.0.1.7");
    assert_eq!(lab.ping("20.0.1.7", 10), 10);
    lab.until("FRR has installed the VIP", |lab| {
        lab.server.ip(&["route", "show", "192.0.2.10"]).unwrap().contains("via inet6")
    });
}

/// RFC 8950, and RFC 2545 where the global next hop is on no network of the link.
#[test]
fn ipv4_routes_with_ipv6_next_hops_forward() {
    let mut lab = Lab::new("nexthop", &DOCUMENTS.replace("peerIP: 10.2.0.2", "peerIP: fd02::2"));
    lab.server.ip(&["addr", "add", "20.0.1.7/32", "dev", "lo"]).unwrap();
    let many = "protocol static many { ipv4; route 20.0.1.0/24 blackhole; }\n";
    let start = |lab: &Lab, options: &str| {
        let session = session("margay", "fd02::2", 64513, "fd02::1 as 64512", &["ipv4"], "");
        let session = session.replace("ipv4 {", &format!("ipv4 {{ extended next hop on; {options}"));
        Bird::start(&lab.server, "10.2.0.2", &(many.to_owned() + &session))
    };
    let bird = start(&lab, "");
    lab.start();
    lab.until("BIRD's route forwards", |lab| leads_through(lab, "fd02::2"));
    lab.until_forwarded("20.0.1.7");
    assert_eq!(lab.ping("20.0.1.7", 10), 10);

    // With a global next hop that is not on the link, the link-local one beside it forwards.
    drop(bird);
    let _bird = start(&lab, "next hop address fd99::2;");
    lab.until("by its link-local address", |lab| leads_through(lab, "fe80::"));
    lab.until_forwarded("20.0.1.7");
    assert_eq!(lab.ping("20.0.1.7", 10), 10);
}
