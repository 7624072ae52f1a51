//! Segments of real connections, and what the agent says about what opens one.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::harness::Lab;

const DOCUMENTS: &str = "
apiVersion: margay.io/v1
kind: Node
metadata: {name: gw}
spec: {interfaces: [{name: left0}, {name: right0, maxMSS: {ipv4: 1000, ipv6: 1300}}]}
---
apiVersion: margay.io/v1
kind: VirtualService
metadata: {name: web}
spec: {addresses: [192.0.2.10, '2001:db8:100::10'], port: 80, protocol: TCP, encap: {type: L2}, backends: [{address: 10.2.0.2}]}
";

/// Segments that each end of a connection from the client to the server sends, the client's first.
fn segments(lab: &Lab, to: SocketAddr) -> [u32; 2] {
    let listener = lab.server.thread(move || TcpListener::bind(to)).join().unwrap().unwrap().unwrap();
    let connect = move || TcpStream::connect_timeout(&to, Duration::from_secs(20));
    let client = lab.client.thread(connect).join().unwrap().unwrap().unwrap();
    let (server, _) = listener.accept().unwrap();
    [&client, &server].map(|stream| socket2::SockRef::from(stream).tcp_mss().unwrap())
}

#[test]
fn connections_agree_on_segments_that_fit() {
    let mut lab = Lab::new("mss", DOCUMENTS);
    for vip in ["192.0.2.10/32", "2001:db8:100::10/128"] {
        lab.server.ip(&["address", "add", vip, "dev", "lo"]).unwrap();
    }
    // The stamp of RFC 7323 takes 12 bytes of each segment, in both.
    lab.start();
    lab.until("healthy", |lab| lab.status()["problems"].as_array().unwrap().is_empty());
    for (address, port, most) in [
        ("10.2.0.2", 5_001, 1_000),
        ("fd02::2", 5_001, 1_300),
        ("192.0.2.10", 80, 1_000),
        ("2001:db8:100::10", 80, 1_300),
    ] {
        let address: IpAddr = address.parse().unwrap();
        let ends = segments(&lab, SocketAddr::new(address, port));
        assert_eq!(ends, [most - 12; 2], "{address}");
    }

    // A SYN that tells 1,460, as the client's kernel sends it.
    let link = lab.gateway.ip(&["-br", "link", "show", "left0"]).unwrap();
    let mac = link.split_whitespace().nth(2).unwrap();
    let syn = format!("eth 02::9 > {} / ip4 10.1.0.2 > 192.0.2.10 / tcp 5000 > 80 S opts=020405b4", mac);
    let frame = packet::notation::encode(&syn).unwrap();
    let capture = lab.directory.path().join("syn.pcap");
    let mut writer = pcap_file::pcap::PcapWriter::new(std::fs::File::create(&capture).unwrap()).unwrap();
    writer.write_packet(&pcap_file::pcap::PcapPacket::new(Duration::ZERO, frame.len() as u32, &frame)).unwrap();
    drop(writer);
    let way = lab.explain(&["-i", "left0", "--pcap", capture.to_str().unwrap()]);
    let steps = way[0]["steps"].as_array().unwrap();
    let said = steps.iter().find(|step| step["stage"] == "mss").unwrap_or_else(|| panic!("{way:#}"));
    assert_eq!(said["text"], "maximum segment size lowered from 1460 to 1000 bytes");
}
