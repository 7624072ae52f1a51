//! Every way of sending packets to a backend, with unmodified kernels at both ends: the kernel's own tunnels take them out, TCP goes through in
//! both directions, and no kernel finds a checksum wrong.
//!
//! `client:eth0 -- eth0:gateway:eth1 -- eth0:backend`. The backend has the VIPs on its loopback device and answers as them, to the client itself. Tunnels that
//! the kernel here may not have are tried in a guest: `scripts/vm-test peers`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use std::io::{Read as _, Write as _};
    use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
    use std::sync::mpsc::{Sender, channel};
    use std::thread::JoinHandle;
    use std::time::Duration;

    use ipnet::IpNet;
    use margay::dataplane::{Attach, Dataplane, PortCounters};
    use model::compile::Compiler;
    use model::desired::{AttachMode, Backend, Desired, Encap, Interface, Service, SourceValidation};
    use model::ids::Ids;
    use model::network::{IfIndex, Link, Mac, Network};
    use model::rib::Rib;
    use testkit::netns::{End, Error, Netns, veth};

    const TCP: u8 = 6;
    /// Of the link to the backend: what comes from clients fits with any outer header.
    const UNDERLAY_MTU: u32 = 1_600;
    const VIPS: [&str; 2] = ["203.0.113.10", "2001:db8:100::10"];
    const BACKENDS: [&str; 2] = ["198.51.100.2", "2001:db8:2::2"];
    /// Of the VXLAN device.
    const INNER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x99]);
    const VNI: u32 = 4_096;
    /// Sent each way on each connection.
    const BYTES: usize = 10_000_000;

    const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 1, 2]);
    const GATEWAY_MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 1, 1]), Mac([2, 0, 0, 0, 2, 1])];
    const BACKEND_MAC: Mac = Mac([2, 0, 0, 0, 2, 2]);

    fn nets(texts: [&str; 2]) -> [IpNet; 2] {
        texts.map(|text| text.parse().unwrap())
    }

    struct Hosts {
        client: Netns,
        gateway: Netns,
        backend: Netns,
    }

    impl Hosts {
        fn new() -> Self {
            let [client, gateway, backend] = ["client", "gateway", "backend"].map(|name| {
                let host = Netns::new(&format!("peers-{name}")).unwrap();
                for key in ["all", "default"] {
                    host.sysctl(&format!("net.ipv4.conf.{key}.rp_filter"), "0").unwrap();
                }
                host
            });
            veth(
                End { netns: &client, name: "eth0", addresses: &nets(["192.0.2.2/24", "2001:db8:1::2/64"]) },
                End { netns: &gateway, name: "eth0", addresses: &nets(["192.0.2.1/24", "2001:db8:1::1/64"]) },
            )
            .unwrap();
            veth(
                End { netns: &gateway, name: "eth1", addresses: &nets(["198.51.100.1/24", "2001:db8:2::1/64"]) },
                End { netns: &backend, name: "eth0", addresses: &nets(["198.51.100.2/24", "2001:db8:2::2/64"]) },
            )
            .unwrap();
            let [left, right] = GATEWAY_MACS;
            let mtu = UNDERLAY_MTU.to_string();
            for (host, device, mac) in [
                (&client, "eth0", CLIENT_MAC),
                (&gateway, "eth0", left),
                (&gateway, "eth1", right),
                (&backend, "eth0", BACKEND_MAC),
            ] {
                host.ip(&["link", "set", device, "address", &mac.to_string()]).unwrap();
                // Checksums are the senders', and segments no larger than the link: what a device is left to do never happens on a veth.
                let features = ["tx", "off", "tso", "off", "gso", "off", "gro", "on"];
                host.run("ethtool", &[["-K", device].as_slice(), &features].concat()).unwrap();
            }
            gateway.ip(&["link", "set", "eth1", "mtu", &mtu]).unwrap();
            backend.ip(&["link", "set", "eth0", "mtu", &mtu]).unwrap();
            for (host, via4, via6) in
                [(&client, "192.0.2.1", "2001:db8:1::1"), (&backend, "198.51.100.1", "2001:db8:2::1")]
            {
                host.ip(&["route", "add", "default", "via", via4]).unwrap();
                host.ip(&["-6", "route", "add", "default", "via", via6]).unwrap();
            }
            // Answers fit the client's link.
            backend.ip(&["route", "change", "default", "via", "198.51.100.1", "mtu", "1500"]).unwrap();
            backend.ip(&["-6", "route", "change", "default", "via", "2001:db8:2::1", "mtu", "1500"]).unwrap();
            let [vip4, vip6] = VIPS;
            backend.ip(&["address", "add", &format!("{vip4}/32"), "dev", "lo"]).unwrap();
            backend.ip(&["-6", "address", "add", &format!("{vip6}/128"), "dev", "lo"]).unwrap();
            Self { client, gateway, backend }
        }

        fn network() -> Network {
            let mut network = Network::default();
            let index = |name| {
                let socket =
                    rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
                        .unwrap();
                IfIndex(rustix::net::netdevice::name_to_index(socket, name).unwrap())
            };
            let links = [
                ("eth0", 1_500, ["192.0.2.1/24", "2001:db8:1::1/64"]),
                ("eth1", UNDERLAY_MTU, ["198.51.100.1/24", "2001:db8:2::1/64"]),
            ];
            for ((name, mtu, addresses), mac) in links.into_iter().zip(GATEWAY_MACS) {
                let link = Link { name: name.to_owned(), mac, mtu, up: true, rx_queues: 1, vlan: None };
                network.links.insert(index(name), link);
                network.addresses.extend(nets(addresses).map(|net| (index(name), net)));
            }
            let clients = ["192.0.2.2", "2001:db8:1::2"].map(|address| (index("eth0"), address, CLIENT_MAC));
            let backends = BACKENDS.map(|address| (index("eth1"), address, BACKEND_MAC));
            for (index, address, mac) in clients.into_iter().chain(backends) {
                network.neighbors.insert((index, address.parse().unwrap()), mac);
            }
            network
        }

        /// A gateway that sends what is for the VIPs to this address of the backend.
        fn start(&self, backend: &str, encap: Encap) -> Gateway {
            let mut desired = Desired::default();
            for name in ["eth0", "eth1"] {
                desired.node.interfaces.push(Interface {
                    name: name.to_owned(),
                    mode: AttachMode::Native,
                    source_validation: SourceValidation::Off,
                    max_mss: Default::default(),
                    vrf: None,
                });
            }
            desired.services.push(Service {
                name: "web".to_owned(),
                addresses: VIPS.map(|vip| vip.parse::<IpAddr>().unwrap().into()).to_vec(),
                port: Some(80),
                protocol: Some(TCP),
                advertise: false,
                health: None,
                affinity: None,
                quic: None,
                backends: vec![Backend { address: backend.parse().unwrap(), weight: 1, encap, drain: false }],
            });
            let (started, ready) = channel();
            let (stop, stopped) = channel::<Sender<Vec<PortCounters>>>();
            let thread = self.gateway.thread(move || {
                let network = Self::network();
                let mut compiler = Compiler::new(Ids::default());
                compiler.compile(&desired, &network, &mut Rib::default()).unwrap();
                let compiled = compiler.compiled();
                assert_eq!(compiled.notices, []);
                let attach = compiled.attach.iter().map(|(ifindex, mode)| Attach {
                    ifindex: *ifindex,
                    name: network.links[ifindex].name.clone(),
                    mode: *mode,
                });
                let attach: Vec<Attach> = attach.collect();
                let mut dataplane = Dataplane::open_unpinned().unwrap();
                dataplane.apply(&compiled.tables, compiled.features, &compiled.parameters, &attach).unwrap();
                started.send(()).unwrap();
                if let Ok(answer) = stopped.recv() {
                    let ports = compiled.tables.ports.values();
                    answer.send(ports.map(|port| dataplane.port_counters(port.id).unwrap()).collect()).unwrap();
                }
            });
            ready.recv_timeout(Duration::from_secs(120)).expect("the gateway starts");
            Gateway { stop, thread }
        }

        /// Both VIPs by a gateway that sends to this address of the backend.
        fn serve(&self, backend: &str, encap: Encap) {
            let gateway = self.start(backend, encap);
            for vip in VIPS {
                self.fetch(vip.parse().unwrap())
                    .unwrap_or_else(|error| panic!("{encap:?} to {backend}, {vip}: {error}"));
            }
            for counters in gateway.stop() {
                let dropped: u64 = counters.drop.values().map(|count| count.packets).sum();
                assert_eq!(dropped, 0, "{encap:?} to {backend}: {counters:?}");
            }
            for host in [&self.client, &self.backend] {
                let snmp = host.run("cat", &["/proc/net/snmp", "/proc/net/snmp6"]).unwrap();
                assert_eq!(checksum_errors(&snmp), 0, "{encap:?} to {backend}: {snmp}");
            }
        }

        /// A request with a body and its answer, by HTTP/1.1.
        fn fetch(&self, vip: IpAddr) -> std::io::Result<()> {
            let listener = self.backend.thread(move || TcpListener::bind((vip, 80))).join().unwrap().unwrap()?;
            let server = std::thread::spawn(move || {
                let (stream, _) = listener.accept()?;
                exchange(stream, "HTTP/1.1 200 OK", false)
            });
            let client = self.client.thread(move || {
                let stream = TcpStream::connect_timeout(&SocketAddr::new(vip, 80), Duration::from_secs(20))?;
                exchange(stream, "PUT / HTTP/1.1", true)
            });
            let asked = client.join().unwrap().unwrap()?;
            let answered = server.join().unwrap()?;
            assert_eq!((asked.as_str(), answered.as_str()), ("HTTP/1.1 200 OK", "PUT / HTTP/1.1"));
            Ok(())
        }
    }

    struct Gateway {
        stop: Sender<Sender<Vec<PortCounters>>>,
        thread: JoinHandle<Result<(), Error>>,
    }

    impl Gateway {
        /// Takes the program off and tells what the ports counted.
        fn stop(self) -> Vec<PortCounters> {
            let (answer, counters) = channel();
            self.stop.send(answer).unwrap();
            let counters = counters.recv().unwrap();
            self.thread.join().unwrap().unwrap();
            counters
        }
    }

    /// Bytes that tell a place from every other nearby.
    fn body() -> Vec<u8> {
        (0..BYTES).map(|n| (n.wrapping_mul(2_654_435_761) >> 16) as u8).collect()
    }

    /// Sends a message that begins with `line` before or after it takes one, and tells the other's first line.
    fn exchange(mut stream: TcpStream, line: &str, asks: bool) -> std::io::Result<String> {
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        let mut message = format!("{line}\r\nHost: web\r\nContent-Length: {BYTES}\r\n\r\n").into_bytes();
        message.extend(body());
        if asks {
            stream.write_all(&message)?;
        }
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let mut received = vec![0; BYTES];
        stream.read_exact(&mut received)?;
        assert!(received == body(), "what arrives is what was sent");
        if !asks {
            stream.write_all(&message)?;
        }
        Ok(String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned())
    }

    /// What a kernel counts as wrong: `InCsumErrors` of both families, and TCP segments received in error.
    fn checksum_errors(snmp: &str) -> u64 {
        let mut errors = 0;
        let lines: Vec<&str> = snmp.lines().collect();
        for pair in lines.windows(2) {
            let (names, values) = (pair[0].split_whitespace(), pair[1].split_whitespace());
            if pair[0].split(':').next() == pair[1].split(':').next() {
                let named = names.zip(values).filter(|(name, _)| ["InCsumErrors", "InErrs"].contains(name));
                errors += named.filter_map(|(_, value)| value.parse::<u64>().ok()).sum::<u64>();
            }
        }
        let six = lines.iter().filter_map(|line| line.split_once(char::is_whitespace));
        errors
            + six
                .filter(|(name, _)| name.ends_with("InCsumErrors"))
                .filter_map(|(_, v)| v.trim().parse::<u64>().ok())
                .sum::<u64>()
    }

    #[test]
    fn errors_are_found_where_a_kernel_tells_of_them() {
        let snmp = "Ip: InReceives InHdrErrors\nIp: 7 0\nTcp: InSegs InErrs InCsumErrors\nTcp: 100 2 1\nUdp: InDatagrams InCsumErrors\nUdp: 5 4\nIp6InReceives 9\nUdp6InCsumErrors \t3\n";
        assert_eq!(checksum_errors(snmp), 10);
    }

    #[test]
    fn frames_with_another_destination() {
        let hosts = Hosts::new();
        for backend in BACKENDS {
            hosts.serve(backend, Encap::L2);
        }
    }

    #[test]
    fn vxlan() {
        for backend in BACKENDS {
            let hosts = Hosts::new();
            let (mac, vni) = (INNER_MAC.to_string(), VNI.to_string());
            let device = ["link", "add", "vxlan0", "address", &mac, "type", "vxlan", "id", &vni];
            let rest = ["dstport", "4789", "local", backend, "udp6zerocsumrx", "nolearning"];
            let rest = if backend.contains(':') {
                rest.to_vec()
            } else {
                rest.into_iter().filter(|w| *w != "udp6zerocsumrx").collect()
            };
            hosts.backend.ip(&[device.as_slice(), &rest].concat()).unwrap();
            hosts.backend.sysctl("net.ipv4.conf.vxlan0.rp_filter", "0").unwrap();
            hosts.backend.ip(&["link", "set", "vxlan0", "mtu", "1500", "up"]).unwrap();
            hosts.serve(backend, Encap::Vxlan { vni: VNI, mac: INNER_MAC });
        }
    }

    /// The devices that take in what no other tunnel is for.
    fn open_tunnels(backend: &Netns) {
        // IPv4 beside IPv6.
        backend.ip(&["-6", "tunnel", "change", "ip6tnl0", "mode", "any"]).unwrap();
        for device in ["tunl0", "sit0", "ip6tnl0"] {
            backend.ip(&["link", "set", device, "up"]).unwrap();
            backend.sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), "0").unwrap();
        }
    }

    #[test]
    #[ignore = "needs a kernel with ipip, sit and ip6_tunnel: scripts/vm-test peers"]
    fn ip_in_ip() {
        let hosts = Hosts::new();
        open_tunnels(&hosts.backend);
        for backend in BACKENDS {
            hosts.serve(backend, Encap::Ipip);
        }
    }

    #[test]
    #[ignore = "needs a kernel with fou: scripts/vm-test peers"]
    fn gue() {
        let hosts = Hosts::new();
        open_tunnels(&hosts.backend);
        for family in ["-4", "-6"] {
            hosts.backend.ip(&[family, "fou", "add", "port", "6080", "gue"]).unwrap();
        }
        for backend in BACKENDS {
            hosts.serve(backend, Encap::Gue);
        }
    }
}
