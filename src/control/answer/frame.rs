//! The frame that stands for a five-tuple: what the client would have sent, on the wire of an interface.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use model::network::Mac;

use crate::control::api::QueryError;
use crate::control::api::types::Tuple;

/// Source of frames that are made up: locally administered, never on a wire.
const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 0xee];

/// Builds the frame of `tuple` to the Ethernet address `mac`, tagged where the port is a VLAN.
///
/// # Errors
/// [`QueryError::Invalid`] where the tuple is no packet.
pub(super) fn frame(tuple: &Tuple, mac: Mac, vlan: Option<u16>) -> Result<Vec<u8>, QueryError> {
    let invalid = |text: String| QueryError::Invalid(text);
    let ethernet = PacketBuilder::ethernet2(SOURCE, mac.0);
    let vlan = match vlan.map(etherparse::VlanId::try_new) {
        Some(id) => Some(id.map_err(|_| invalid("the VLAN identifier is out of range".into()))?),
        None => None,
    };
    let ip = match (tuple.source, tuple.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            match vlan {
                Some(id) => ethernet.single_vlan(id).ipv4(source, destination, 64),
                None => ethernet.ipv4(source, destination, 64),
            }
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            match vlan {
                Some(id) => ethernet.single_vlan(id).ipv6(source, destination, 64),
                None => ethernet.ipv6(source, destination, 64),
            }
        }
        _ => return Err(invalid("source and destination are of different families".into())),
    };
    let (source_port, destination_port) = (tuple.source_port, tuple.destination_port);
    let mut frame = Vec::new();
    let written = match tuple.protocol.as_str() {
        "tcp" => tcp(ip, tuple)?.write(&mut frame, &[]),
        "udp" => ip.udp(source_port, destination_port).write(&mut frame, &[]),
        "icmp" if tuple.source.is_ipv4() => ip.icmpv4_echo_request(1, 1).write(&mut frame, &[]),
        "icmp" => ip.icmpv6_echo_request(1, 1).write(&mut frame, &[]),
        "sctp" => {
            // An INIT chunk (RFC 9260 §3.3.2) behind the common header; the checksum is not looked at.
            let mut init = vec![0u8; 12];
            init.splice(0..2, source_port.to_be_bytes());
            init.splice(2..4, destination_port.to_be_bytes());
            init.extend([1, 0, 0, 20]);
            init.extend([0; 16]);
            ip.write(&mut frame, etherparse::IpNumber(model::desired::protocol::SCTP), &init)
        }
        other => return Err(invalid(format!("protocol '{other}' is none of tcp, udp, sctp, icmp"))),
    };
    written.map_err(|error| invalid(error.to_string()))?;
    Ok(frame)
}

fn tcp(
    ip: etherparse::PacketBuilderStep<etherparse::IpHeaders>,
    tuple: &Tuple,
) -> Result<etherparse::PacketBuilderStep<etherparse::TcpHeader>, QueryError> {
    let mut tcp = ip.tcp(tuple.source_port, tuple.destination_port, 1, 65_535);
    let flags = if tuple.flags.is_empty() { "S" } else { tuple.flags.as_str() };
    for flag in flags.chars() {
        tcp = match flag {
            'F' => tcp.fin(),
            'S' => tcp.syn(),
            'R' => tcp.rst(),
            'P' => tcp.psh(),
            'A' => tcp.ack(1),
            'U' => tcp.urg(0),
            _ => return Err(QueryError::Invalid(format!("'{flag}' is none of the TCP flags FSRPAU"))),
        };
    }
    Ok(tcp)
}

/// Bytes of hexadecimal text.
///
/// # Errors
/// [`QueryError::Invalid`] where it is none, or longer than `limit` bytes.
pub(super) fn from_hex(text: &str, limit: usize) -> Result<Vec<u8>, QueryError> {
    let invalid = |text: &str| QueryError::Invalid(format!("the frame is not hexadecimal: {text}"));
    if text.len() > limit * 2 {
        return Err(QueryError::Invalid(format!("the frame is longer than {limit} bytes")));
    }
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(invalid("it has an odd number of digits"));
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| invalid("it has other characters than digits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    fn tuple(protocol: &str, source: &str, destination: &str) -> Tuple {
        Tuple {
            protocol: protocol.into(),
            source: source.parse().unwrap(),
            source_port: 1234,
            destination: destination.parse().unwrap(),
            destination_port: 80,
            flags: String::new(),
        }
    }

    #[test]
    fn a_tuple_becomes_the_packet_that_it_names() {
        for (source, destination) in [("10.0.0.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::2")] {
            for vlan in [None, Some(7)] {
                for protocol in ["tcp", "udp", "sctp", "icmp"] {
                    let bytes = frame(&tuple(protocol, source, destination), Mac([2; 6]), vlan).unwrap();
                    let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
                    assert_eq!(packet.vlan_ids().len(), usize::from(vlan.is_some()));
                    assert_eq!(matches!(packet.net, Some(NetSlice::Ipv4(_))), source.contains('.'));
                    match (protocol, packet.transport) {
                        ("tcp", Some(TransportSlice::Tcp(tcp))) => assert!(tcp.syn() && tcp.destination_port() == 80),
                        ("udp", Some(TransportSlice::Udp(udp))) => assert_eq!(udp.source_port(), 1234),
                        ("icmp", Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_))) | ("sctp", None) => {}
                        (_, other) => panic!("{protocol}: {other:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        let mixed = frame(&tuple("tcp", "10.0.0.1", "2001:db8::1"), Mac::default(), None).unwrap_err();
        assert!(mixed.to_string().contains("families"), "{mixed}");
        let flags = Tuple { flags: "SX".into(), ..tuple("tcp", "10.0.0.1", "10.0.0.2") };
        assert!(frame(&flags, Mac::default(), None).unwrap_err().to_string().contains("'X'"));
        assert_eq!(from_hex("00ffA0", 3).unwrap(), [0, 0xff, 0xa0]);
        for (text, part) in [("0", "odd"), ("zz", "characters"), ("é0", "odd"), ("00000000", "longer")] {
            let error = from_hex(text, 3).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
