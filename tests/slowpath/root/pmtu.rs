//! Path MTU discovery through a VIP, with unmodified kernels at both ends: errors about what a backend sends reach that backend, and a
//! client is told what fits the tunnel to it.
//!
//! `far:eth0 -- eth1:client:eth0 -- eth0:gateway:eth1 -- eth0:server`: the client's host is a router here, the way on from it takes 1,400
//! bytes, and neither end knows. The server answers as the VIP, past the gateway's tables of flows.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use model::desired::{Desired, Encap};
use model::network::Mac;
use testkit::netns::{End, Netns, veth};

use super::forwarding::{VIP, desired, route, via};
use super::gateway::{Gateway, Topology};

const FAR: [&str; 2] = ["10.66.0.2", "2001:db8:66::2"];
/// Of the client's host towards the gateway.
const CLIENT: [&str; 2] = ["192.0.2.2", "2001:db8:1::2"];
const MAC: Mac = Mac([2, 0, 0, 0, 0, 0x99]);
/// More than a window at the start, so that there is no end without an answer.
const BYTES: usize = 400_000;

fn with(encap: Encap) -> Desired {
    let mut desired = desired(&["eth0", "eth1"]);
    // No neighbour is in the tables: every packet takes the slow path, which has not to be what limits it.
    desired.node.punt_rate = 1_000_000;
    desired.static_routes.extend([route("10.66.0.0/24", via(CLIENT[0])), route("2001:db8:66::/64", via(CLIENT[1]))]);
    for backend in desired.services.iter_mut().flat_map(|service| &mut service.backends) {
        backend.encap = encap;
    }
    desired
}

/// The host behind the narrow link.
fn far(topology: &Topology) -> Netns {
    let far = Netns::new("slowpath-far").unwrap();
    let nets = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap());
    veth(
        End { netns: &far, name: "eth0", addresses: &nets(["10.66.0.2/24", "2001:db8:66::2/64"]) },
        End { netns: &topology.client, name: "eth1", addresses: &nets(["10.66.0.1/24", "2001:db8:66::1/64"]) },
    )
    .unwrap();
    topology.client.ip(&["link", "set", "eth1", "mtu", "1400"]).unwrap();
    far.run("ethtool", &["-K", "eth0", "tx", "off"]).unwrap();
    far.ip(&["route", "add", "default", "via", "10.66.0.1"]).unwrap();
    far.ip(&["-6", "route", "add", "default", "via", "2001:db8:66::1"]).unwrap();
    far
}

/// The VIP on the server, which takes it out of VXLAN where that is how it comes.
fn become_backend(server: &Netns, encap: Encap) {
    server.sysctl("net.ipv4.conf.all.rp_filter", "0").unwrap();
    server.sysctl("net.ipv4.conf.default.rp_filter", "0").unwrap();
    server.ip(&["address", "add", &format!("{}/32", VIP[0]), "dev", "lo"]).unwrap();
    server.ip(&["-6", "address", "add", &format!("{}/128", VIP[1]), "dev", "lo"]).unwrap();
    if matches!(encap, Encap::Vxlan { .. }) {
        let mac = MAC.to_string();
        let device = ["link", "add", "vxlan0", "address", &mac, "type", "vxlan", "id", "4096"];
        let rest = ["dstport", "4789", "local", "198.51.100.2", "nolearning"];
        server.ip(&[device.as_slice(), &rest].concat()).unwrap();
        server.sysctl("net.ipv4.conf.vxlan0.rp_filter", "0").unwrap();
        server.ip(&["link", "set", "vxlan0", "up"]).unwrap();
    }
}

/// `from` connects to the VIP and the server sends, or the other way round; how many bytes arrived, in 20 seconds at most.
fn transfer(from: &Netns, server: &Netns, vip: IpAddr, down: bool) -> usize {
    let listener = server.thread(move || TcpListener::bind((vip, 80)).unwrap()).join().unwrap().unwrap();
    let patience = Some(Duration::from_secs(20));
    let send = move |mut stream: TcpStream| {
        stream.set_write_timeout(patience).unwrap();
        stream.write_all(&vec![7; BYTES]).map_or(0, |()| BYTES)
    };
    let receive = move |mut stream: TcpStream| {
        stream.set_read_timeout(patience).unwrap();
        let (mut bytes, mut buffer) = (0, [0; 65_536]);
        while bytes < BYTES {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(more) => bytes += more,
            }
        }
        bytes
    };
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        if down { send(stream) } else { receive(stream) }
    });
    let client = from.thread(move || {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(vip, 80), Duration::from_secs(10)).unwrap();
        if down { receive(stream) } else { send(stream) }
    });
    let (at_client, at_server) = (client.join().unwrap().unwrap(), served.join().unwrap());
    if down { at_client } else { at_server }
}

/// No packet was for nobody, and every one has its verdict.
fn assert_accounted(gateway: &Gateway) {
    let (_, ports) = gateway.stats();
    for counters in ports.values() {
        let dropped: u64 = counters.drop.values().map(|count| count.packets).sum();
        assert_eq!(dropped, 0, "{counters:?}");
    }
}

#[test]
fn a_backend_hears_of_a_narrow_link_beyond_the_gateway() {
    let _shared = crate::FILES.read().unwrap();
    for encap in [Encap::L2, Encap::Vxlan { vni: 4096, mac: MAC }] {
        let topology = Topology::new();
        let far = far(&topology);
        become_backend(&topology.server, encap);
        let gateway = topology.start(with(encap), Some(vec![]));
        for (vip, far_address) in VIP.iter().zip(FAR) {
            let bytes = transfer(&far, &topology.server, vip.parse().unwrap(), true);
            assert_eq!(bytes, BYTES, "{encap:?}, {vip}");
            let learned = topology.server.ip(&["route", "get", far_address, "from", vip]).unwrap();
            assert!(learned.contains("mtu 1400"), "{encap:?}: {learned}");
        }
        assert_accounted(&gateway);
    }
}

#[test]
fn a_client_hears_what_fits_the_tunnel() {
    let _shared = crate::FILES.read().unwrap();
    let topology = Topology::new();
    let encap = Encap::Vxlan { vni: 4096, mac: MAC };
    become_backend(&topology.server, encap);
    let gateway = topology.start(with(encap), Some(vec![]));
    for vip in VIP {
        let bytes = transfer(&topology.client, &topology.server, vip.parse().unwrap(), false);
        assert_eq!(bytes, BYTES, "{vip}");
        let learned = topology.client.ip(&["route", "get", vip]).unwrap();
        assert!(learned.contains("mtu 1450"), "{learned}");
    }
    assert!(gateway.until(|stats| stats[0].icmp.errors >= 2)[0].punts["PACKET_TOO_BIG"] >= 2);
    assert_accounted(&gateway);
}
