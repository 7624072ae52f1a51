//! Packets across the gateway, and what the agent says about them.

use crate::harness::Lab;

const DOCUMENTS: &str = "
apiVersion: margay.io/v1
kind: Node
metadata: {name: gw}
spec: {interfaces: [{name: left0}, {name: right0}]}
---
apiVersion: margay.io/v1
kind: StaticRoute
metadata: {name: beyond}
spec: {prefix: 198.51.100.0/24, nextHops: [{address: 10.2.0.2}]}
---
apiVersion: margay.io/v1
kind: Denylist
metadata: {name: abuse}
spec: {sources: [10.1.0.66/32]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: left, labels: {role: edge}}
spec: {node: gw, interfaceName: left0, profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: edge-in}
spec:
  selector: role == 'edge'
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: TCP, destination: {ports: [23]}}
  - {action: Allow}
---
apiVersion: margay.io/v1
kind: VirtualService
metadata: {name: web}
spec: {addresses: [192.0.2.10], port: 80, protocol: TCP, encap: {type: IPIP}, backends: [{address: 10.2.0.2}]}
";

#[test]
fn packets_cross_and_every_one_is_accounted_for() {
    let mut lab = Lab::new("cross", DOCUMENTS);
    lab.start();
    lab.until("healthy", |lab| lab.status()["problems"].as_array().unwrap().is_empty());
    assert_eq!(lab.ping("10.2.0.2", 20), 20, "the first waits for its neighbour in the slow path");
    assert_eq!(lab.ping("fd02::2", 20), 20);
    assert!(lab.metric("margay_port_verdict_packets_total", r#"verdict="redirect""#) >= 60);

    lab.client.ip(&["addr", "add", "10.1.0.66/24", "dev", "eth0"]).unwrap();
    let denied =
        lab.client.command("ping").args(["-q", "-c3", "-i0.1", "-W1", "-I", "10.1.0.66", "10.2.0.2"]).output().unwrap();
    assert!(!denied.status.success());
    let drops = lab.get(&["drops", "DENYLIST"]);
    assert_eq!(drops.iter().map(|drop| drop["packets"].as_u64().unwrap()).sum::<u64>(), 3, "{drops:?}");
    assert_eq!(drops[0]["interface"], "left0");
    assert!(drops[0]["help"].as_str().unwrap().contains("Denylist"), "{drops:?}");

    lab.until("rx = pass + tx + redirect + punts + drops", |lab| {
        ["left0", "right0"].iter().all(|name| {
            let label = format!(r#"interface="{name}""#);
            let sum: u64 = ["verdict", "punt", "drop"]
                .iter()
                .map(|kind| lab.metric(&format!("margay_port_{kind}_packets_total"), &label))
                .sum();
            sum > 0 && sum == lab.metric("margay_port_rx_packets_total", &label)
        })
    });
}

/// Which route was taken is told with its prefix, source, group, bucket, next hop and adjacency: of packets by a route of several
/// gateways, of those to a backend, and of what a tunnel carries.
#[test]
fn explain_tells_the_prefix_the_group_the_bucket_and_the_adjacency() {
    let documents = DOCUMENTS
        .replace("nextHops: [{address: 10.2.0.2}]", "nextHops: [{address: 10.2.0.2, weight: 3}, {address: 10.2.0.3}]")
        + "---
apiVersion: margay.io/v1
kind: Tunnel
metadata: {name: from-client}
spec: {type: IPIP, peers: [10.1.0.2/32]}
";
    let mut lab = Lab::new("bucket", &documents);
    lab.server.ip(&["addr", "add", "10.2.0.3/24", "dev", "eth0"]).unwrap();
    lab.start();
    lab.until("both gateways are resolved", |lab| {
        ["10.2.0.2", "10.2.0.3"].iter().all(|gateway| lab.get(&["nexthops", gateway])[0]["mac"].is_string())
    });
    let mac = lab.get(&["nexthops", "10.2.0.2"])[0]["mac"].clone();

    let rows = lab.get(&["routes", "198.51.100.128/25"]);
    let [row] = rows.as_slice() else { panic!("{rows:#?}") };
    assert_eq!((&row["prefix"], &row["source"]), (&"198.51.100.0/24".into(), &"static".into()), "what covers it");
    let member = |row: &serde_json::Value, n: usize| (row[n]["address"].clone(), row[n]["buckets"].clone());
    assert_eq!(member(&row["next_hops"], 0), ("10.2.0.2".into(), 48.into()));
    assert_eq!(member(&row["next_hops"], 1), ("10.2.0.3".into(), 16.into()));
    let table = String::from_utf8(lab.margay(&["get", "routes", "198.51.100.7"]).stdout).unwrap();
    let first = format!("10.2.0.2 dev right0 ({}) 75% (48 of 64 buckets)", mac.as_str().unwrap());
    assert!(table.contains(&first), "{table}");

    let mut taken = std::collections::BTreeMap::new();
    for port in 1..33 {
        let way = lab.explain(&["udp", &format!("10.1.0.2:{port}"), "198.51.100.7:53", "-i", "left0"]);
        let route = &way["route"];
        assert_eq!((&route["prefix"], &route["source"]), (&"198.51.100.0/24".into(), &"static".into()), "{way:#}");
        assert_eq!((&route["group"], &route["members"]), (&row["group"], &row["next_hops"]), "{way:#}");
        let (bucket, hop) = (route["bucket"].as_u64().unwrap(), &route["next_hop"]);
        let same = taken.entry(bucket).or_insert_with(|| hop.clone());
        assert_eq!(same, hop, "a bucket has one next hop");
        let text = |stage: &str| {
            let steps = way["steps"].as_array().unwrap();
            steps.iter().find(|step| step["stage"] == stage).unwrap()["text"].as_str().unwrap().to_owned()
        };
        let group =
            format!("198.51.100.0/24 static, group {}: via 10.2.0.2 dev right0 48/64, via 10.2.0.3", row["group"]);
        assert!(text("fib").starts_with(&group), "{way:#}");
        let address = hop["address"].as_str().unwrap();
        assert_eq!(text("next hop"), format!("bucket {bucket} of 64: via {address} dev right0"));
        assert!(text("adjacency").contains(hop["mac"].as_str().unwrap()), "{way:#}");
    }
    let gateways: std::collections::BTreeSet<_> = taken.values().map(|hop| hop["address"].to_string()).collect();
    assert_eq!(gateways.len(), 2, "32 flows: {taken:#?}");

    let way = lab.explain(&["tcp", "10.1.0.2:1000", "192.0.2.10:80", "-i", "left0"]);
    let route = &way["route"];
    assert_eq!((&route["destination"], &route["prefix"]), (&"10.2.0.2".into(), &"10.2.0.2/32".into()), "{way:#}");
    assert_eq!((&route["source"], &route["next_hop"]["mac"]), (&"connected".into(), &mac), "{way:#}");
    let way = lab.explain(&["udp", "10.1.0.2:1", "203.0.113.1:2", "-i", "left0"]);
    assert_eq!((&way["route"]["group"], &way["route"]["prefix"]), (&0.into(), &serde_json::Value::Null), "{way:#}");

    // The flow inside the tunnel is what is routed.
    let link = lab.gateway.ip(&["-j", "link", "show", "left0"]).unwrap();
    let link: serde_json::Value = serde_json::from_str(&link).unwrap();
    let port = link[0]["address"].as_str().unwrap();
    let inner = "ip4 10.9.0.9 > 198.51.100.7 / udp 7 > 53 / data 8";
    let frame = format!("eth 02::1 > {port} / ip4 10.1.0.2 > 10.1.0.1 / {inner}");
    let capture = lab.directory.path().join("tunnel.pcap");
    let mut writer = pcap_file::pcap::PcapWriter::new(std::fs::File::create(&capture).unwrap()).unwrap();
    for text in [frame, format!("eth 02::1 > {port} / {inner}")] {
        let frame = packet::notation::encode(&text).unwrap();
        let packet = pcap_file::pcap::PcapPacket::new(std::time::Duration::ZERO, frame.len() as u32, &frame);
        writer.write_packet(&packet).unwrap();
    }
    drop(writer);
    let ways = lab.explain(&["-i", "left0", "--pcap", capture.to_str().unwrap()]);
    assert_eq!(ways[0]["route"]["prefix"], "198.51.100.0/24", "{ways:#}");
    assert_eq!(ways[0]["route"], ways[1]["route"], "with and without the tunnel");
}

/// A gateway that ceases to answer: its flows go by the other one, and come back with it. The only gateway of a route stays.
#[test]
fn flows_leave_a_gateway_that_does_not_answer_and_come_back() {
    let documents = DOCUMENTS
        .replace("nextHops: [{address: 10.2.0.2}]", "nextHops: [{address: 10.2.0.2}, {address: 10.2.0.3}]")
        + "---
apiVersion: margay.io/v1
kind: StaticRoute
metadata: {name: by-one}
spec: {prefix: 203.0.113.0/24, nextHops: [{address: 10.2.0.3}]}
";
    let mut lab = Lab::new("silent", &documents);
    lab.server.ip(&["addr", "add", "10.2.0.3/24", "dev", "eth0"]).unwrap();
    lab.server.ip(&["addr", "add", "198.51.100.7/32", "dev", "lo"]).unwrap();
    // The kernel takes a minute for this unless told otherwise.
    for (setting, value) in [
        ("base_reachable_time_ms", "1000"),
        ("delay_first_probe_time", "1"),
        ("ucast_solicit", "2"),
        ("mcast_solicit", "2"),
        ("retrans_time_ms", "200"),
    ] {
        let setting = format!("net.ipv4.neigh.right0.{setting}={value}");
        lab.gateway.run("sysctl", &["-q", "-w", &setting]).unwrap();
    }
    lab.start();
    let members = |lab: &Lab, to: &str| -> Vec<String> {
        let row = &lab.get(&["routes", to])[0];
        let members = row["next_hops"].as_array().unwrap().iter();
        members.map(|hop| format!("{} {}", hop["address"].as_str().unwrap(), hop["buckets"])).collect()
    };
    lab.until("both are resolved", |lab| {
        ["10.2.0.2", "10.2.0.3"].iter().all(|gateway| lab.get(&["nexthops", gateway])[0]["mac"].is_string())
    });
    assert_eq!(members(&lab, "198.51.100.0/24"), ["10.2.0.2 32", "10.2.0.3 32"]);
    assert_eq!(lab.ping("198.51.100.7", 5), 5);
    let group = lab.get(&["routes", "198.51.100.0/24"])[0]["group"].clone();

    lab.server.ip(&["addr", "del", "10.2.0.3/24", "dev", "eth0"]).unwrap();
    lab.until("its flows go by the other one", |lab| members(lab, "198.51.100.0/24") == ["10.2.0.2 64"]);
    assert_eq!(lab.get(&["routes", "198.51.100.0/24"])[0]["group"], group, "no prefix has moved");
    assert_eq!(members(&lab, "203.0.113.0/24"), ["10.2.0.3 64"], "who has no other waits");
    let problem = "gateway 10.2.0.3 on right0 does not answer: its flows take the other gateways";
    assert_eq!(lab.status()["problems"], serde_json::json!([problem]));
    assert_eq!(lab.metric("margay_neighbor_entries", r#"state="failed""#), 1);
    for port in 1..9 {
        let way = lab.explain(&["udp", &format!("10.1.0.2:{port}"), "198.51.100.7:53", "-i", "left0"]);
        assert_eq!((&way["verdict"], &way["route"]["next_hop"]["address"]), (&"redirect".into(), &"10.2.0.2".into()));
    }
    // What the kernel tries and gives up on again and again is no news.
    let generation = lab.status()["generation"].clone();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(lab.status()["generation"], generation, "{}", lab.words());

    lab.server.ip(&["addr", "add", "10.2.0.3/24", "dev", "eth0"]).unwrap();
    lab.until("it has its flows again", |lab| members(lab, "198.51.100.0/24") == ["10.2.0.2 32", "10.2.0.3 32"]);
    lab.until("healthy", |lab| lab.status()["problems"].as_array().unwrap().is_empty());
    assert_eq!(lab.ping("198.51.100.7", 5), 5);
}

/// The frame that a UDP packet to `destination` leaves as.
fn way_of(lab: &Lab, destination: &str) -> String {
    let way = lab.explain(&["udp", "10.1.0.2:1000", destination, "-i", "left0"]);
    way["frame"].as_str().unwrap().to_owned()
}

#[test]
fn explain_names_what_the_packet_meets_and_changes_nothing() {
    let mut lab = Lab::new("explain", DOCUMENTS);
    lab.start();
    lab.until("the backend is resolved", |lab| {
        lab.get(&["nexthops", "10.2.0.2"]).first().is_some_and(|hop| hop["mac"].is_string())
    });
    let before = lab.metric("margay_port_drop_packets_total", "") + lab.metric("margay_backend_packets_total", "");
    let text = |way: &serde_json::Value, stage: &str| {
        let steps = way["steps"].as_array().unwrap();
        let step =
            steps.iter().find(|step| step["stage"] == stage).unwrap_or_else(|| panic!("no stage {stage}: {way:#}"));
        step["text"].as_str().unwrap().to_owned()
    };

    let way = lab.explain(&["tcp", "10.1.0.2:1000", "198.51.100.7:23", "-i", "left0"]);
    assert_eq!(way["verdict"], "drop", "{way:#}");
    assert!(way["detail"].as_str().unwrap().starts_with("POLICY_DENY"), "{way:#}");
    assert_eq!(text(&way, "policy"), "edge-in, rule 1: Deny TCP to port 23");

    let way = lab.explain(&["tcp", "10.1.0.2:1000", "192.0.2.10:80", "-i", "left0"]);
    assert_eq!((way["verdict"].as_str(), way["detail"].as_str()), (Some("redirect"), Some("right0")), "{way:#}");
    assert_eq!(text(&way, "policy"), "edge-in, rule 2: Allow");
    assert!(text(&way, "vip").contains("VirtualService web"), "{way:#}");
    assert!(text(&way, "backend").contains("IPIP 10.2.0.1 -> 10.2.0.2"), "{way:#}");
    assert!(text(&way, "adjacency").contains("dev right0"), "{way:#}");

    let way = lab.explain(&["udp", "10.1.0.2:1000", "198.51.100.7:53", "-i", "left0"]);
    assert!(text(&way, "next hop").contains("via 10.2.0.2 dev right0"), "{way:#}");
    let way = lab.explain(&["icmp", "10.1.0.66", "198.51.100.7", "-i", "left0"]);
    assert_eq!(text(&way, "denylist"), "source is listed");
    let way = lab.explain(&["udp", "[fd01::2]:1", "[2001:db8::1]:2", "-i", "left0"]);
    assert_eq!((way["verdict"].as_str(), text(&way, "fib").as_str()), (Some("punt"), "no route"), "{way:#}");

    // A capture goes through as it is: the frame that left for the server, coming in again, is for another host.
    let capture = lab.directory.path().join("capture.pcap");
    let mut writer = pcap_file::pcap::PcapWriter::new(std::fs::File::create(&capture).unwrap()).unwrap();
    let left = way_of(&lab, "198.51.100.7:53");
    let bytes: Vec<u8> =
        (0..left.len()).step_by(2).map(|at| u8::from_str_radix(&left[at..at + 2], 16).unwrap()).collect();
    for frame in [&bytes[..], &[0; 14]] {
        let packet = pcap_file::pcap::PcapPacket::new(std::time::Duration::ZERO, frame.len() as u32, frame);
        writer.write_packet(&packet).unwrap();
    }
    drop(writer);
    let ways = lab.explain(&["-i", "left0", "--pcap", capture.to_str().unwrap()]);
    assert_eq!(ways.as_array().unwrap().len(), 2, "{ways:#}");
    assert_eq!(ways[0]["verdict"], "pass", "{ways:#}");
    assert_eq!(ways[0]["frame"].as_str(), Some(left.as_str()), "untouched");

    let human = lab.margay(&["explain", "tcp", "10.1.0.2:1000", "192.0.2.10:80", "-i", "left0"]);
    let words = String::from_utf8(human.stdout).unwrap();
    assert!(words.lines().any(|line| line.starts_with("=>") && line.ends_with("redirect: right0")), "{words}");
    assert!(lab.get(&["flows"]).is_empty(), "no flow was remembered");
    let after = lab.metric("margay_port_drop_packets_total", "") + lab.metric("margay_backend_packets_total", "");
    assert_eq!(before, after, "no counter moved");
}
