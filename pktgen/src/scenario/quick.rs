//! The common case in a few words: one stream of one protocol between two addresses.

use std::net::IpAddr;

use packet::Layer;
use packet::layer::{Eth, Icmp, Ip4, Ip6, Quic, Sctp, SctpData, Tcp, Udp, Vlan};
use packet::proto::{ethertype, icmp4, icmp6};

use super::Stream;

/// Connection identifier of QUIC-shaped packets.
const DCID: [u8; Quic::SHORT_DCID] = *b"pktgen\0\0";
/// TCP flag ACK (RFC 9293 §3.1).
const ACK: u16 = 0x10;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP SYNs; the shortest carry the stamp in an experimental option (RFC 6994).
    TcpSyn,
    /// TCP segments with ACK set, as in an established connection.
    Tcp,
    /// Echo requests.
    Icmp,
    /// SCTP with a DATA chunk.
    Sctp,
    /// UDP with a short header of QUIC in front of the payload.
    Quic,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quick {
    /// UDP, TCP, ...
    pub protocol: Protocol,
    /// Source address of the first flow.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Source port of the first flow, or identifier of an echo request.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// VLAN tags, outermost first. All but the innermost are service tags (IEEE 802.1ad).
    pub vlans: Vec<u16>,
}

/// Addresses of two families.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source {src} and destination {dst} are not of one family (give two IPv4 or two IPv6 addresses)")]
pub struct Families {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
}

impl Quick {
    /// UDP between two addresses, from port 1024 on to the discard port.
    pub fn udp(src: IpAddr, dst: IpAddr) -> Self {
        Self { protocol: Protocol::Udp, src, dst, sport: 1024, dport: 9, vlans: Vec::new() }
    }

    /// One flow of the shortest frames; Ethernet addresses are those of the run.
    ///
    /// # Errors
    /// Where the addresses are of two families.
    pub fn stream(&self) -> Result<Stream, Families> {
        let mut layers = vec![Layer::Eth(Eth::default())];
        layers.extend(self.vlans.iter().enumerate().map(|(index, id)| {
            let inner = index + 1 < self.vlans.len();
            // The ethertype in front of a tag is the tag's own.
            Layer::Vlan(Vlan { id: *id, tpid: inner.then_some(ethertype::QINQ), ..Vlan::default() })
        }));
        layers.push(match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Layer::Ip4(Ip4 { df: true, ..Ip4::new(src, dst) }),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Layer::Ip6(Ip6::new(src, dst)),
            (src, dst) => return Err(Families { src, dst }),
        });
        let (sport, dport) = (self.sport, self.dport);
        let tcp = |flags| Layer::Tcp(Tcp::new(sport, dport, flags));
        match self.protocol {
            Protocol::Udp => layers.push(Layer::Udp(Udp { sport, dport, ..Udp::default() })),
            Protocol::TcpSyn => layers.push(tcp(Tcp::SYN)),
            Protocol::Tcp => layers.push(tcp(ACK)),
            Protocol::Icmp => {
                let v6 = self.src.is_ipv6();
                let [high, low] = sport.to_be_bytes();
                let kind = if v6 { icmp6::ECHO } else { icmp4::ECHO };
                layers.push(Layer::Icmp(Icmp { v6, kind, rest: [high, low, 0, 0], ..Icmp::default() }));
            }
            Protocol::Sctp => {
                layers.push(Layer::Sctp(Sctp { sport, dport, ..Sctp::default() }));
                layers.push(Layer::SctpData(SctpData::default()));
            }
            Protocol::Quic => {
                layers.push(Layer::Udp(Udp { sport, dport, ..Udp::default() }));
                layers.push(Layer::Quic(Quic::Short { bits: 0, dcid: DCID.to_vec() }));
            }
        }
        Ok(Stream { fill_eth: true, ..Stream::new("quick", layers) })
    }
}
