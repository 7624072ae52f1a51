//! Any frame parses or is refused, what is found lies inside it, and answers to it are themselves well-formed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packet::icmp::{self, Error};
use packet::view::{Frame, Ip};

fuzz_target!(|bytes: &[u8]| {
    let Ok(frame) = Frame::parse(bytes) else { return };
    let Some(ip) = frame.ip else { return };
    assert!(ip.l3 < ip.l4 && ip.l4 <= ip.l3 + ip.len && ip.l3 + ip.len <= bytes.len());
    let packet = frame.packet().expect("inside the frame");
    assert_eq!(frame.payload().map(<[u8]>::len), Some(ip.l3 + ip.len - ip.l4));

    let from = if ip.src.is_ipv4() { [192, 0, 2, 1].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() };
    if let Ok(answer) = icmp::error_packet(packet, Error::TimeExceeded, from) {
        let parsed = Ip::parse(&answer, frame.ethertype).expect("IP").expect("well-formed");
        assert_eq!((parsed.src, parsed.dst, parsed.len), (from, ip.src, answer.len()));
    }
    let mut packet = packet.to_vec();
    if let Ok(len) = icmp::echo_reply(&mut packet) {
        let parsed = Ip::parse(&packet[..len], frame.ethertype).expect("IP").expect("well-formed");
        assert_eq!((parsed.src, parsed.dst, parsed.len), (ip.dst, ip.src, len));
    }
});
