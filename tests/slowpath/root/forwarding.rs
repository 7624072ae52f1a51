//! What clients and servers see of the slow path.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use model::desired::{
    AttachMode, Backend, Desired, Encap, Gateway, Interface, Node, RouteAction, Service, SourceValidation, StaticRoute,
};
use model::network::{IfIndex, Link, Mac, Network, Vlan};
use testkit::netns::{Netns, Process};

use super::gateway::{ABSENT, BEHIND, SERVER, Topology};

pub(super) const VIP: [&str; 2] = ["203.0.113.80", "2001:db8:80::80"];

pub(super) fn route(prefix: &str, action: RouteAction) -> StaticRoute {
    StaticRoute { name: prefix.to_owned(), prefix: prefix.parse().unwrap(), action, advertise: false, vrf: None }
}

pub(super) fn via(address: &str) -> RouteAction {
    RouteAction::Via(vec![Gateway { address: address.parse().unwrap(), interface: None, weight: 1 }])
}

/// Both interfaces, hosts behind the server, prefixes without a way, and a VIP.
pub(super) fn desired(interfaces: &[&str]) -> Desired {
    let interface = |name: &&str| Interface {
        name: (*name).to_owned(),
        mode: AttachMode::Native,
        source_validation: SourceValidation::Off,
        max_mss: Default::default(),
        vrf: None,
    };
    Desired {
        node: Node {
            name: "gateway".into(),
            interfaces: interfaces.iter().map(interface).collect(),
            slow_path_queues: 2,
            ..Node::default()
        },
        static_routes: vec![
            route("203.0.113.9/32", via(SERVER[0])),
            route("2001:db8:3::/64", via(SERVER[1])),
            route("203.0.113.13/32", RouteAction::Prohibit),
            route("2001:db8:13::/64", RouteAction::Prohibit),
        ],
        services: vec![Service {
            name: "web".into(),
            addresses: VIP.map(|vip| vip.parse::<IpAddr>().unwrap().into()).to_vec(),
            port: Some(80),
            protocol: Some(6),
            advertise: false,
            health: None,
            affinity: None,
            quic: None,
            backends: vec![Backend {
                address: SERVER[0].parse().unwrap(),
                weight: 1,
                encap: Encap::Ipip,
                drain: false,
            }],
        }],
        ..Desired::default()
    }
}

/// What `ping` says, whether it is answered or not.
fn ping(topology: &Topology, args: &[&str]) -> String {
    let mut command = topology.client.command("ping");
    let output = command.args(["-n", "-c1", "-W6"]).args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn assert_says(output: &str, words: &str) {
    assert!(output.contains(words), "not '{words}':\n{output}");
}

/// Sends datagrams 0, 1, 2, ... from the client at once, and returns those that the server got, in their order.
fn burst(topology: &Topology, server: IpAddr, count: u32) -> Vec<u32> {
    // A port of the kernel's choice: one of the last burst may still be held by a child that a test beside this one has forked.
    let receiver = topology.server.thread(move || UdpSocket::bind((server, 0)).unwrap()).join().unwrap().unwrap();
    let address = receiver.local_addr().unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let sender = topology.client.thread(move || {
        let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        // The connection fixes the source address, so that the burst is one flow.
        socket.connect(address).unwrap();
        for number in 0..count {
            socket.send(&number.to_be_bytes()).unwrap();
        }
    });
    sender.join().unwrap().unwrap();
    let mut got = Vec::new();
    let mut datagram = [0; 64];
    while got.len() < count as usize {
        let Ok(len) = receiver.recv(&mut datagram) else { break };
        got.push(u32::from_be_bytes(datagram[..len].try_into().unwrap()));
    }
    got
}

/// `tcpdump` on the server's interface: one line for each frame with its link-layer header, then its bytes.
struct Tap(Process);

impl Tap {
    /// `filter` is a capture expression: what the kernels on either side have to say (MLD, router solicitations) is at
    /// liberty to come at any moment.
    fn new(server: &Netns, filter: &str) -> Self {
        let mut command = server.command("tcpdump");
        command.args(["-l", "-n", "-e", "-x", "-i", "eth0", filter]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tap = Process::start(command).unwrap();
        let mut words = BufReader::new(tap.child().stderr.take().unwrap()).lines();
        words.find(|line| line.as_ref().unwrap().starts_with("listening")).expect("tcpdump listens").unwrap();
        Self(tap)
    }

    /// What it has seen once that is `enough`, or after ten seconds: a busy machine prints late.
    fn seen(mut self, enough: impl Fn(&str) -> bool) -> String {
        let lines = BufReader::new(self.0.child().stdout.take().unwrap()).lines();
        let (sender, printed) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut seen = String::new();
        while !enough(&seen) {
            let Ok(line) = printed.recv_timeout(deadline.saturating_duration_since(Instant::now())) else { break };
            seen.push_str(&line);
            seen.push('\n');
        }
        self.0.kill();
        drop(printed);
        // It ends by the closed pipe or by the closed channel, whichever it meets first.
        let _ = reader.join().unwrap();
        seen
    }
}

#[test]
fn the_first_packets_to_an_unresolved_neighbour_all_arrive_in_order() {
    let _shared = crate::FILES.read().unwrap();
    let topology = Topology::new();
    let gateway = topology.start(desired(&["eth0", "eth1"]), Some(vec![]));
    for (round, server) in SERVER.into_iter().enumerate() {
        assert_eq!(burst(&topology, server.parse().unwrap(), 50), (0..50).collect::<Vec<_>>(), "{server}");
        let forwarded = 50 * (round as u64 + 1);
        let stats = gateway.until(|stats| stats[0].neighbor.forwarded >= forwarded);
        assert_eq!((stats[0].neighbor.frames, stats[0].neighbor.dropped_full), (0, 0));
        assert_eq!(stats[0].resolve_ns.len(), stats[0].neighbor.forwarded);
    }
}

#[test]
fn packets_that_wait_survive_the_removal_of_an_interface() {
    let _shared = crate::FILES.read().unwrap();
    let topology = Topology::new();
    topology.gateway.ip(&["link", "add", "eth2", "type", "veth", "peer", "name", "eth3"]).unwrap();
    topology.gateway.ip(&["link", "set", "eth2", "up"]).unwrap();
    let gateway = topology.start(desired(&["eth0", "eth1", "eth2"]), Some(vec![]));
    // The server does not answer ARP for now.
    topology.server.sysctl("net.ipv4.conf.eth0.arp_ignore", "8").unwrap();
    std::thread::scope(|scope| {
        let got = scope.spawn(|| burst(&topology, SERVER[0].parse().unwrap(), 20));
        gateway.until(|stats| stats[0].neighbor.frames == 20);
        gateway.serve(&["eth0", "eth1"]);
        let stats = gateway.until(|stats| stats[0].rebuilds == 1);
        let interfaces: Vec<&str> = stats[0].sockets.iter().map(|socket| socket.interface.as_str()).collect();
        assert_eq!((stats[0].neighbor.frames, interfaces), (20, vec!["eth0", "eth1"]));
        topology.server.sysctl("net.ipv4.conf.eth0.arp_ignore", "0").unwrap();
        assert_eq!(got.join().unwrap(), (0..20).collect::<Vec<_>>());
    });
    assert_says(&ping(&topology, &[VIP[0]]), "1 received");
}

/// The kernel need not know VLAN devices: the worker writes the tag, and a tap on the server sees it.
#[test]
fn a_next_hop_on_a_vlan_gets_its_tag() {
    const VLAN_DEVICE: IfIndex = IfIndex(4001);
    let _shared = crate::FILES.read().unwrap();
    let topology = Topology::new();
    let pretend = |network: &mut Network| {
        let (parent, link) = network.link_by_name("eth1").unwrap();
        let link = Link { name: "eth1.7".into(), vlan: Some(Vlan { parent, id: 7 }), ..link.clone() };
        network.links.insert(VLAN_DEVICE, link);
        network.addresses.insert((VLAN_DEVICE, "198.18.0.1/24".parse().unwrap()));
        let neighbor = (VLAN_DEVICE, "198.18.0.2".parse().unwrap());
        network.neighbors.insert(neighbor, Mac([2, 0, 0, 0, 0, 0x77]));
    };
    let gateway = topology.start_with(desired(&["eth0", "eth1", "eth1.7"]), Some(vec![]), pretend);
    let tap = Tap::new(&topology.server, "ether dst 02:00:00:00:00:77");
    let sender = topology.client.thread(|| {
        let socket = UdpSocket::bind("0.0.0.0:5000").unwrap();
        socket.set_ttl(9).unwrap();
        for number in 0..50u32 {
            socket.send_to(&number.to_be_bytes(), "198.18.0.2:4000").unwrap();
        }
    });
    sender.join().unwrap().unwrap();
    gateway.until(|stats| stats[0].neighbor.forwarded >= 50);
    // Behind each frame's line stand its bytes, in two.
    let seen = tap.seen(|seen| seen.lines().filter(|line| line.contains("0x0010:")).count() >= 50);
    let frames: Vec<&str> = seen.lines().filter(|line| line.contains("ethertype")).collect();
    assert_eq!(frames.len(), 50, "{seen}");
    for frame in frames {
        assert_says(frame, "> 02:00:00:00:00:77, ethertype 802.1Q (0x8100), length 50: vlan 7, p 0, ethertype IPv4");
        assert_says(frame, "192.0.2.2.5000 > 198.18.0.2.4000: UDP, length 4");
    }
    let ttls = seen
        .lines()
        .filter(|line| line.contains("0x0000:"))
        .all(|line| line.split_whitespace().any(|word| word == "0811"));
    assert!(ttls, "TTL 8 and protocol 17 in every header:\n{seen}");
}

#[test]
fn a_packet_in_its_outer_header_waits_for_the_backends_neighbour() {
    let _shared = crate::FILES.read().unwrap();
    let topology = Topology::new();
    let gateway = topology.start(desired(&["eth0", "eth1"]), Some(vec![]));
    let tap = Tap::new(&topology.server, "ip proto 4");
    let client = topology.client.thread(|| {
        let service: SocketAddr = (VIP[0].parse::<IpAddr>().unwrap(), 80).into();
        // Nobody takes the packet out of its outer header; the SYN is what is looked for.
        TcpStream::connect_timeout(&service, Duration::from_millis(300)).unwrap_err()
    });
    client.join().unwrap().unwrap();
    let stats = gateway.until(|stats| stats[0].neighbor.forwarded >= 1);
    assert_eq!(stats[0].punts["NEIGHBOR_ENCAP"], stats[0].neighbor.forwarded);
    let is_encapsulated = |line: &str| {
        line.contains("198.51.100.1 > 198.51.100.2: ")
            && line.contains("192.0.2.2.")
            && line.contains("203.0.113.80.80: Flags [S]")
    };
    let seen = tap.seen(|seen| seen.lines().skip_while(|line| !is_encapsulated(line)).count() > 3);
    let at = seen.lines().position(is_encapsulated).unwrap_or_else(|| panic!("no SYN:\n{seen}"));
    let bytes: Vec<&str> = seen.lines().skip(at + 1).take(3).flat_map(|line| line.split_whitespace().skip(1)).collect();
    // Words 4 and 14: TTL and protocol, once outside and once inside. The outer TTL is the program's own, untouched here.
    assert_eq!((bytes[4], bytes[14]), ("4004", "3f06"), "{bytes:?}");
}

#[test]
fn a_frame_leaves_by_the_worker_that_has_a_socket_there() {
    let _shared = crate::FILES.read().unwrap();
    let topology = Topology::new();
    for (netns, side) in [(&topology.client, "tx"), (&topology.gateway, "rx")] {
        netns.run("ethtool", &["-L", "eth0", side, "2"]).unwrap();
    }
    let gateway = topology.start(desired(&["eth0", "eth1"]), Some(vec![0, 1]));
    // Every burst has a source port of its own, and the client's stack spreads those over its two transmit queues.
    for _ in 0..16 {
        assert_eq!(burst(&topology, SERVER[0].parse().unwrap(), 10), (0..10).collect::<Vec<_>>());
    }
    let stats = gateway.until(|stats| stats.iter().map(|worker| worker.neighbor.forwarded).sum::<u64>() >= 160);
    assert!(stats[1].handoff.sent > 0, "all came in by queue 0");
    assert_eq!((stats[1].handoff.dropped, stats[0].handoff.received), (0, stats[1].handoff.sent));
    assert_eq!((stats[0].core, stats[1].core), (Some(0), Some(1)));
}

#[test]
fn whoever_cannot_be_forwarded_is_told_why() {
    let _shared = crate::FILES.read().unwrap();
    let topology = Topology::new();
    topology.gateway.ip(&["link", "set", "eth1", "mtu", "1400"]).unwrap();
    let gateway = topology.start(desired(&["eth0", "eth1"]), Some(vec![]));
    for (args, answer) in [
        (&["-t1", SERVER[0]][..], "From 192.0.2.1 icmp_seq=1 Time to live exceeded"),
        (&["-t1", SERVER[1]], "From 2001:db8:1::1 icmp_seq=1 Time exceeded: Hop limit"),
        (&["203.0.113.13"], "From 192.0.2.1 icmp_seq=1 Packet filtered"),
        (&["2001:db8:13::1"], "From 2001:db8:1::1 icmp_seq=1 Destination unreachable: Administratively prohibited"),
        (&["203.0.113.200"], "From 192.0.2.1 icmp_seq=1 Destination Net Unreachable"),
        (&["2001:db8:99::1"], "From 2001:db8:1::1 icmp_seq=1 Destination unreachable: No route"),
        (&[ABSENT[0]], "From 192.0.2.1 icmp_seq=1 Destination Host Unreachable"),
        (&[ABSENT[1]], "From 2001:db8:1::1 icmp_seq=1 Destination unreachable: Address unreachable"),
        // On the link, where the worker asks the MTU, and behind a gateway, where the program does.
        (&["-Mdo", "-s1400", SERVER[0]], "From 192.0.2.1 icmp_seq=1 Frag needed and DF set (mtu = 1400)"),
        (&["-Mdo", "-s1400", SERVER[1]], "From 2001:db8:1::1 icmp_seq=1 Packet too big: mtu=1400"),
        (&["-Mdo", "-s1400", BEHIND[0]], "From 192.0.2.1 icmp_seq=1 Frag needed and DF set (mtu = 1400)"),
        (&["-Mdo", "-s1400", BEHIND[1]], "From 2001:db8:1::1 icmp_seq=1 Packet too big: mtu=1400"),
        // What fits goes through.
        (&["-Mdo", "-s1352", SERVER[0]], "1360 bytes from 198.51.100.2"),
        (&["-Mdo", "-s1352", SERVER[1]], "1360 bytes from 2001:db8:2::2"),
        (&[VIP[0]], "64 bytes from 203.0.113.80: icmp_seq=1 ttl=64"),
        (&[VIP[1]], "64 bytes from 2001:db8:80::80: icmp_seq=1 ttl=64"),
        (&["-s1400", VIP[0]], "1408 bytes from 203.0.113.80"),
    ] {
        assert_says(&ping(&topology, args), answer);
    }
    let stats = gateway.until(|stats| stats[0].icmp.errors >= 12 && stats[0].icmp.echo_replies >= 3);
    assert_eq!((stats[0].icmp.errors, stats[0].icmp.echo_replies, stats[0].malformed), (12, 3, 0));
    assert_eq!((stats[0].punts["PACKET_TOO_BIG"], stats[0].neighbor.dropped_mtu), (2, 2));
    assert_eq!(stats[0].neighbor.dropped_unreachable, 2);
}

#[test]
fn one_sender_cannot_make_the_gateway_flood_it() {
    let _shared = crate::FILES.read().unwrap();
    let topology = Topology::new();
    let gateway = topology.start(desired(&["eth0", "eth1"]), Some(vec![]));
    let sender = topology.client.thread(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..800 {
            // The answers come back as errors of the socket, which a later call would report.
            let _ = socket.send_to(&[0; 8], "203.0.113.200:9");
        }
    });
    sender.join().unwrap().unwrap();
    let stats = gateway.until(|stats| stats[0].punts["NO_ROUTE"] >= 800);
    let icmp = stats[0].icmp;
    assert_eq!(icmp.errors + icmp.rate_limited, 800);
    assert!((100..400).contains(&icmp.errors), "{icmp:?}");
}

#[test]
fn without_a_worker_the_kernel_answers_or_nobody() {
    let _shared = crate::FILES.read().unwrap();
    let topology = Topology::new();
    let gateway = topology.start(desired(&["eth0", "eth1"]), None);
    // The classes that fall back to the kernel, which forwards here.
    assert_says(&ping(&topology, &["-t1", SERVER[0]]), "From 192.0.2.1 icmp_seq=1 Time to live exceeded");
    assert_says(&ping(&topology, &[SERVER[0]]), "64 bytes from 198.51.100.2");
    // The classes that do not.
    for address in [VIP[0], "203.0.113.200", "203.0.113.13"] {
        let answer = ping(&topology, &["-W1", address]);
        assert_says(&answer, "100% packet loss");
        assert!(!answer.contains("From"), "{answer}");
    }
    let (_, counters) = gateway.stats();
    let dropped: u64 = counters.values().filter_map(|port| port.drop.get("PUNT_NO_WORKER")).map(|c| c.packets).sum();
    assert_eq!(dropped, 3);
    assert!(counters.values().all(|port| port.punt.is_empty()));
}

#[test]
fn a_stopped_slow_path_leaves_no_socket_behind() {
    let _shared = crate::FILES.read().unwrap();
    let topology = Topology::new();
    let first = topology.start(desired(&["eth0", "eth1"]), Some(vec![]));
    assert_says(&ping(&topology, &[VIP[0]]), "1 received");
    drop(first);
    let _second = topology.start(desired(&["eth0", "eth1"]), Some(vec![0]));
    assert_says(&ping(&topology, &[VIP[0]]), "1 received");
}
