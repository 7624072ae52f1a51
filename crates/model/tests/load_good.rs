//! Valid configuration: what each field becomes. The examples of docs/configuration.md are read from the document itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use margay_model::desired::*;
use margay_model::health::*;
use margay_model::load::{Loaded, load};
use margay_model::network::Mac;

const NODE: &str = "apiVersion: margay.io/v1\nkind: Node\nmetadata: {name: gw1, labels: {rack: r1}}\nspec:\n  interfaces: [{name: eth0}]\n  encap: {sourceIPv4: 10.0.0.1}\n---\n";

fn load_text(text: &str) -> Loaded {
    load(&[("test.yaml".to_owned(), NODE.to_owned() + text)], None).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    })
}

/// A document of `kind` with this spec.
fn document(kind: &str, name: &str, spec: &str) -> String {
    let group = match kind {
        "BGPConfiguration" | "BGPPeer" | "GlobalNetworkPolicy" | "HostEndpoint" => "projectcalico.org/v3",
        _ => "margay.io/v1",
    };
    format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn documentation() -> Vec<(String, String)> {
    let text = fs::read_to_string(repository("docs/configuration.md")).unwrap();
    let blocks = text.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    blocks.enumerate().map(|(i, block)| (format!("block-{i}.yaml"), block)).collect()
}

#[test]
fn documentation_is_valid() {
    let loaded = load(&documentation(), Some("gw1")).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    });
    assert_eq!(loaded.warnings, []);
    let desired = loaded.desired;
    let node = &desired.node;
    assert_eq!((node.name.as_str(), node.interfaces[0].name.as_str()), ("gw1", "eth0"));
    assert_eq!(node.interfaces[0].mode, AttachMode::Native);
    assert_eq!((node.control_core, node.worker_cores.as_slice()), (Some(0), [1].as_slice()));
    assert_eq!((node.failsafe_inbound.len(), node.failsafe_outbound.len()), (1, 1));
    let [dns, h3, vpn, web] = &desired.services[..] else { panic!("{:?}", desired.services) };
    let prefixes: Vec<String> = vpn.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        (prefixes.as_slice(), vpn.port, vpn.protocol),
        (["192.0.2.10/32", "198.51.100.0/24"].map(str::to_owned).as_slice(), None, None)
    );
    assert_eq!((web.addresses.len(), web.port, web.protocol), (2, Some(80), Some(protocol::TCP)));
    assert!(web.advertise);
    assert_eq!([vpn.affinity, web.affinity], [Some(Duration::from_secs(28_800)), None]);
    let quic = h3.quic.as_ref().unwrap();
    let servers: Vec<String> = quic.servers.iter().map(|(id, address)| format!("{id} {address}")).collect();
    assert_eq!(
        (quic.lengths, servers.as_slice()),
        ([2, 0, 0, 0, 0, 0, 0, 0], ["0001 10.1.0.11", "0002 10.1.0.12"].map(str::to_owned).as_slice())
    );
    assert_eq!(
        web.backends[0],
        Backend { address: "10.1.0.11".parse().unwrap(), weight: 2, encap: Encap::Ipip, drain: false }
    );
    let http = Probe::Http(HttpProbe {
        method: "GET",
        path: "/health".to_owned(),
        host: Some("www.example.org".to_owned()),
        statuses: vec![(200, 299), (401, 401)],
        tls: None,
    });
    assert_eq!(web.health.as_ref().unwrap().check.probe, http);
    let Probe::Udp(question) = &dns.health.as_ref().unwrap().check.probe else { panic!("{dns:?}") };
    assert_eq!((question.send.len(), question.expect.as_deref()), (17, Some([0x6d, 0x67].as_slice())));
    assert_eq!(dns.backends.iter().map(|backend| backend.drain).collect::<Vec<_>>(), [false, true]);
    let mac = Mac([2, 0, 0, 0, 0, 0x12]);
    assert_eq!(web.backends[1].encap, Encap::Vxlan { vni: 4096, mac });
    assert_eq!(desired.tunnels[1].kind, TunnelKind::Vxlan { vni: 4096 });
    assert_eq!(desired.denylist.len(), 3);
    let gateway = Gateway { address: "10.0.0.2".parse().unwrap(), interface: Some("eth0".to_owned()), weight: 1 };
    assert_eq!(desired.static_routes[2].action, RouteAction::Via(vec![gateway]));
    assert_eq!(desired.vrfs, [Vrf { name: "blue".to_owned(), table: Some(10) }]);
    assert_eq!(desired.static_routes[0].vrf.as_deref(), Some("blue"));
    assert_eq!(desired.policies[0].endpoints, ["uplink"]);
    let rules = &desired.policies[0].rules;
    assert_eq!(rules[0].destination.ports, [PortRange { first: 23, last: 23 }, PortRange { first: 6000, last: 6100 }]);
    let peer = &desired.bgp.as_ref().unwrap().peers[0];
    assert_eq!((peer.asn, peer.port, peer.passive), (64_513, 179, true));
    assert_eq!((peer.keepalive_seconds, peer.restart_seconds), (30, 120));
}

#[test]
fn the_examples_of_the_lab_are_valid() {
    for node in ["gw1", "gw2"] {
        let directory = fs::read_dir(repository("examples").join(node)).unwrap();
        let files: Vec<(String, String)> = directory
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
            .map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap()))
            .collect();
        let loaded = load(&files, Some(node)).unwrap_or_else(|errors| {
            panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        });
        assert_eq!(loaded.warnings, [], "{node}");
        assert!(!loaded.desired.services.is_empty(), "{node}");
    }
}

#[test]
fn defaults() {
    let loaded = load_text("");
    let expected = Node {
        name: "gw1".to_owned(),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            mode: AttachMode::Native,
            source_validation: SourceValidation::Off,
            max_mss: Default::default(),
            vrf: None,
        }],
        encap_source_v4: Some("10.0.0.1".parse().unwrap()),
        ..Node::default()
    };
    assert_eq!(loaded.desired, Desired { node: expected, ..Desired::default() });
    assert_eq!(loaded.desired.node.failsafe_inbound[0], Failsafe { protocol: protocol::TCP, port: 22, net: None });
    let spec = "{addresses: [192.0.2.1], port: 53, protocol: UDP, backends: [{address: 10.1.0.1}]}";
    let service = &load_text(&document("VirtualService", "dns", spec)).desired.services[0];
    assert!(service.advertise);
    assert_eq!(
        service.backends[0],
        Backend { address: "10.1.0.1".parse().unwrap(), weight: 1, encap: Encap::Ipip, drain: false }
    );
    let check = |text: &str| {
        let spec = spec.replace("backends", &format!("healthCheck: {text}, backends"));
        let service = load_text(&document("VirtualService", "dns", &spec)).desired.services.remove(0);
        let target = service.target(&service.backends[0]).unwrap().to_string();
        (Arc::unwrap_or_clone(service.health.unwrap().check), target)
    };
    let tcp = HealthCheck {
        probe: Probe::Tcp,
        via: Via::Direct,
        port: None,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        jitter_percent: 10,
    };
    assert_eq!(check("{type: TCP}"), (tcp.clone(), "TCP 10.1.0.1:53".to_owned()));
    let half = Duration::from_millis(500);
    let quick = HealthCheck { interval: half, timeout: half, port: Some(80), ..tcp.clone() };
    assert_eq!(check("{type: TCP, interval: 500ms, port: 80}"), (quick, "TCP 10.1.0.1:80".to_owned()));
    assert_eq!(check("{type: ICMP}").1, "ICMP echo 10.1.0.1");
    assert_eq!(check("{type: HTTP}").1, "HTTP GET 10.1.0.1:53/");
    assert_eq!(check("{type: HTTP, via: tunnel}").1, "HTTP GET 192.0.2.1:53/ via tunnel to 10.1.0.1");
    assert_eq!(check("{type: ICMP, via: tunnel}").1, "ICMP echo 192.0.2.1 via tunnel to 10.1.0.1");
    assert_eq!(check("{type: TCP, via: tunnel}").0, HealthCheck { via: Via::Tunnel, ..tcp.clone() });
    assert_eq!(check("{type: TCP, via: direct}").0, tcp);
    for (written, name) in [
        ("host: www.example.org:8443", Some("www.example.org")),
        ("host: 192.0.2.1", None),
        ("host: '[2001:db8::1]:443'", None),
        ("host: www.example.org, serverName: example.net", Some("example.net")),
    ] {
        let (https, _) = check(&format!("{{type: HTTPS, {written}}}"));
        let Probe::Http(HttpProbe { tls: Some(tls), .. }) = https.probe else { panic!("{https:?}") };
        assert_eq!((tls.server_name.as_deref(), tls.verify), (name, None), "{written}");
    }
    let bgp = load_text(&document("BGPConfiguration", "default", "{}")).desired.bgp.unwrap();
    assert_eq!((bgp.asn, bgp.listen_port), (64_512, 179));
    let bgp = load_text(&document("BGPPeer", "tor", "{peerIP: 10.0.0.2, asNumber: 1}")).desired.bgp.unwrap();
    let peer = &bgp.peers[0];
    assert_eq!((peer.keepalive_seconds, peer.restart_seconds, peer.source, peer.ttl_security), (80, 120, None, None));
    assert_eq!(
        loaded.desired.node.kernel_routes,
        Some(KernelRoutes { table: 254, audit_seconds: 60, alternatives: false })
    );
    let node = NODE.replace("  encap", "  kernelRoutes: {enabled: false, table: 10}\n  encap");
    assert_eq!(load(&[("n".to_owned(), node)], None).unwrap().desired.node.kernel_routes, None);
    let node = NODE.replace("  encap", "  kernelRoutes: {table: 10, auditSeconds: 0}\n  encap");
    let kernel_routes = load(&[("n".to_owned(), node)], None).unwrap().desired.node.kernel_routes;
    assert_eq!(kernel_routes, Some(KernelRoutes { table: 10, audit_seconds: 0, alternatives: false }));
    assert_eq!((loaded.desired.node.check_mark, loaded.desired.node.check_table), (12_397, 12_397));
    let node = NODE.replace("  encap", "  healthChecks: {mark: 7, table: 4294967295}\n  encap");
    let node = load(&[("n".to_owned(), node)], None).unwrap().desired.node;
    assert_eq!((node.check_mark, node.check_table), (7, u32::MAX));
    let node = NODE.replace("  encap", "  failsafeInboundHostPorts: []\n  encap");
    let desired = load(&[("n".to_owned(), node)], None).unwrap().desired;
    assert_eq!(desired.node.failsafe_inbound, []);
    assert_eq!(desired.node.failsafe_outbound, Node::default().failsafe_outbound);
}

#[test]
fn encapsulation_comes_from_the_backend_then_the_service() {
    let spec = "
  addresses: [192.0.2.1]
  port: 80
  protocol: TCP
  encap: {type: VXLAN, vni: 7}
  backends:
  - {address: 10.1.0.1, encap: {type: VXLAN, mac: '2:0:0:0:0:1'}}
  - {address: 10.1.0.2, encap: {type: VXLAN, vni: 8, mac: '02:00:00:00:00:02'}}
  - {address: 10.1.0.3, encap: {type: L2}}
  - {address: 10.1.0.4, encap: {type: IPIP}}";
    let service = &load_text(&document("VirtualService", "web", spec)).desired.services[0];
    let encaps: Vec<Encap> = service.backends.iter().map(|b| b.encap).collect();
    let vxlan = |vni, last| Encap::Vxlan { vni, mac: Mac([2, 0, 0, 0, 0, last]) };
    assert_eq!(encaps, [vxlan(7, 1), vxlan(8, 2), Encap::L2, Encap::Ipip]);
}

fn policy_names(text: &str) -> Vec<String> {
    load_text(text).desired.policies.into_iter().map(|p| p.name).collect()
}

#[test]
fn policies_go_by_order_then_name_and_without_order_last() {
    let policy = |name: &str, order: &str| {
        document("GlobalNetworkPolicy", name, &format!("{{doNotTrack: true, applyOnForward: true{order}}}"))
    };
    let text =
        policy("z", ", order: -1.5") + &policy("last-b", "") + &policy("b", ", order: 10") + &policy("last-a", "");
    let text = text + &policy("a", ", order: 10") + &policy("c", ", order: 9.5");
    assert_eq!(policy_names(&text), ["z", "c", "a", "b", "last-a", "last-b"]);
}

#[test]
fn selectors_pick_host_endpoints_of_this_node() {
    let endpoint = |name: &str, node: &str, role: &str, which: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: {name}, labels: {{role: {role}}}}}\n\
             spec: {{node: {node}, {which}, profiles: [projectcalico-default-allow]}}\n---\n"
        )
    };
    let endpoints = endpoint("b", "gw1", "edge", "interfaceName: eth0")
        + &endpoint("a", "gw1", "core", "expectedIPs: [10.0.0.1, '2001:db8::1']")
        + &endpoint("c", "gw2", "edge", "interfaceName: '*'");
    let policy = |name: &str, selector: &str| {
        let spec = format!("{{doNotTrack: true, applyOnForward: true, selector: \"{selector}\"}}");
        document("GlobalNetworkPolicy", name, &spec)
    };
    let text = endpoints + &policy("p1", "role == 'edge'") + &policy("p2", "") + &policy("p3", "has(zone)");
    let desired = load_text(&text).desired;
    let picked: BTreeMap<&str, Vec<String>> =
        desired.policies.iter().map(|p| (p.name.as_str(), p.endpoints.clone())).collect();
    assert_eq!(picked["p1"], ["b"]);
    assert_eq!(picked["p2"], ["a", "b"]);
    assert_eq!(picked["p3"], Vec::<String>::new());
    let interfaces: Vec<&EndpointInterface> = desired.host_endpoints.iter().map(|e| &e.interface).collect();
    let addresses = vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    assert_eq!(interfaces, [&EndpointInterface::ByAddress(addresses), &EndpointInterface::Named("eth0".to_owned())]);
}

#[test]
fn rules_keep_their_meaning() {
    let rules = [
        ("{action: Allow, protocol: UDP, source: {nets: [10.0.0.0/8]}}", Some(4)),
        ("{action: Pass, source: {notNets: ['2001:db8::/32']}}", Some(6)),
        ("{action: Deny, ipVersion: 6}", Some(6)),
        ("{action: Deny, protocol: ICMP, icmp: {type: 8, code: 0}, notICMP: {type: 3}}", None),
        ("{action: Deny, protocol: 132, destination: {ports: ['5:7'], notPorts: ['6', 7]}}", None),
        ("{action: Deny, notProtocol: UDPLite, metadata: {annotations: {why: x}}}", None),
    ];
    let list: String = rules.iter().map(|(rule, _)| format!("\n  - {rule}")).collect();
    let spec = format!(
        "\n  doNotTrack: true\n  applyOnForward: true\n  performanceHints: [AssumeNeededOnEveryNode]\n  ingress:{list}"
    );
    let policies = load_text(&document("GlobalNetworkPolicy", "p", &spec)).desired.policies;
    let lowered = &policies[0].rules;
    let versions: Vec<Option<u8>> = lowered.iter().map(|r| r.ip_version).collect();
    assert_eq!(versions, rules.map(|(_, version)| version));
    assert_eq!(lowered[1].action, RuleAction::Pass);
    assert_eq!(lowered[3].protocol, Some(1));
    assert_eq!(lowered[3].icmp, Some(IcmpMatch { kind: 8, code: Some(0) }));
    assert_eq!(lowered[3].not_icmp, Some(IcmpMatch { kind: 3, code: None }));
    assert_eq!(lowered[4].destination.ports, [PortRange { first: 5, last: 7 }]);
    let not_ports = [PortRange { first: 6, last: 6 }, PortRange { first: 7, last: 7 }];
    assert_eq!(lowered[4].destination.not_ports, not_ports);
    assert_eq!(lowered[5].not_protocol, Some(136));
}

#[test]
fn a_node_has_its_own_bgp_configuration_and_peers() {
    let text = document(
        "BGPConfiguration",
        "default",
        "{asNumber: '1.10', listenPort: 1790, serviceExternalIPs: [{cidr: 192.0.2.0/24}], serviceClusterIPs: [{cidr: 10.96.0.0/12}],
          communities: [{name: blue, value: '64512:1'}], prefixAdvertisements: [{cidr: 192.0.2.0/24, communities: [blue, '1:2:3']}]}",
    ) + &document("BGPConfiguration", "node.gw1", "{asNumber: 65001}")
        + &document("BGPConfiguration", "node.gw2", "{asNumber: 65002}")
        + &document("BGPPeer", "all", "{peerIP: 10.0.0.2, asNumber: 64513, sourceAddress: UseNodeIP, ttlSecurity: 2}")
        + &document("BGPPeer", "mine", "{node: gw1, peerIP: '[2001:db8::2]:1790', asNumber: 64513, maxRestartTime: 0s}")
        + &document("BGPPeer", "rack", "{nodeSelector: \"rack == 'r1'\", peerIP: '10.0.0.3:1790', asNumber: 65001, keepaliveTime: 1m30s}")
        + &document("BGPPeer", "other-rack", "{nodeSelector: \"rack == 'r2'\", peerIP: 10.0.0.4, asNumber: 1}")
        + &document("BGPPeer", "unnumbered", "{peerIP: '[fe80::1%eth0]:1790', asNumber: 64513}")
        + &document("BGPPeer", "theirs", "{node: gw2, peerIP: 10.0.0.5, asNumber: 1}");
    let bgp = load_text(&text).desired.bgp.unwrap();
    assert_eq!((bgp.asn, bgp.listen_port), (65_001, 1790));
    assert_eq!(bgp.advertise, ["10.96.0.0/12".parse().unwrap(), "192.0.2.0/24".parse().unwrap()]);
    let communities = vec![Community::Standard(64_512, 1), Community::Large(1, 2, 3)];
    assert_eq!(bgp.communities, [("192.0.2.0/24".parse().unwrap(), communities)]);
    let peers: Vec<_> = bgp.peers.iter().map(|p| (p.name.as_str(), p.address.to_string(), p.port)).collect();
    assert_eq!(
        peers,
        [
            ("all", "10.0.0.2".to_owned(), 179),
            ("mine", "2001:db8::2".to_owned(), 1790),
            ("rack", "10.0.0.3".to_owned(), 1790),
            ("unnumbered", "fe80::1".to_owned(), 1790)
        ]
    );
    assert_eq!((bgp.peers[2].interface.as_deref(), bgp.peers[3].interface.as_deref()), (None, Some("eth0")));
    assert_eq!((bgp.peers[0].source, bgp.peers[0].ttl_security), (Some("10.0.0.1".parse().unwrap()), Some(2)));
    assert_eq!((bgp.peers[1].restart_seconds, bgp.peers[2].keepalive_seconds), (0, 90));
}

#[test]
fn json_and_lists_and_exported_metadata_are_read() {
    let text = r#"{
	"apiVersion": "projectcalico.org/v3", "kind": "BGPPeerList", "metadata": {"resourceVersion": "77"},
	"items": [{
		"apiVersion": "projectcalico.org/v3", "kind": "BGPPeer",
		"metadata": {"name": "tor", "uid": "3fa85f64", "resourceVersion": "12", "generation": 2,
			"creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"margay.io/password": "s3cret"}},
		"spec": {"peerIP": "10.0.0.2", "asNumber": 64513, "filters": null}
	}]
}"#;
    let files = [("node.yaml".to_owned(), NODE.to_owned()), ("peers.json".to_owned(), text.to_owned())];
    let loaded = load(&files, None).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(loaded.desired.bgp.unwrap().peers[0].password.as_deref(), Some("s3cret"));
}

#[test]
fn the_order_of_files_makes_no_difference() {
    let service = |name: &str, last: u8| {
        let spec =
            format!("{{addresses: [192.0.2.{last}], port: 1, protocol: TCP, backends: [{{address: 10.0.0.9}}]}}");
        (name.to_owned(), document("VirtualService", name, &spec))
    };
    let mut files = vec![("node".to_owned(), NODE.to_owned()), service("b", 2), service("a", 1), service("c", 3)];
    let forward = load(&files, None).unwrap().desired;
    files.reverse();
    assert_eq!(load(&files, None).unwrap().desired, forward);
}

#[test]
fn aliases_are_expanded() {
    let text = "apiVersion: margay.io/v1\nkind: Tunnel\nmetadata: {name: a}\nspec: &it {type: IPIP, peers: [&p 10.0.0.0/24]}\n---\n\
                apiVersion: margay.io/v1\nkind: Tunnel\nmetadata: {name: b}\nspec: {type: VXLAN, vni: 1, peers: [&q 10.0.0.0/24, 10.1.0.0/24]}\n";
    assert_eq!(load_text(text).desired.tunnels.len(), 2);
    let text = "apiVersion: margay.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  addresses: [192.0.2.1]\n  port: 80\n  \
                protocol: TCP\n  backends:\n  - {address: 10.0.0.2, encap: &e {type: L2}}\n  - {address: 10.0.0.3, encap: *e}\n";
    assert_eq!(load_text(text).desired.services[0].backends[1].encap, Encap::L2);
}
