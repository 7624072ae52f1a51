//! The flow that a frame belongs to, for whoever tells where the program has sent it.

use packet::proto::{ethertype, ip};
use packet::view::{Frame, Ip};
use tables::hash::FlowKey;

use super::abi::types;
use super::explain::{Stage, Step};

/// What [`Stage::Decap`] calls IP in IP.
const KIND_IPIP: u32 = types::tunnel_kind::TUNNEL_IPIP.0;
/// What it calls GUE.
const KIND_GUE: u32 = types::tunnel_kind::TUNNEL_GUE.0;
/// UDP, and a header of GUE's variant 0.
const UDP_BYTES: usize = 8;
const GUE_BYTES: usize = 4;
/// UDP, VXLAN and the inner Ethernet header (RFC 7348 §5).
const VXLAN_BYTES: usize = 8 + 8 + 14;
/// What an ICMP error has in front of the packet that it is about (RFC 792, RFC 4443 §2.1).
const ICMP_ERROR_BYTES: usize = 8;
/// Flags of GRE that stand for a word each: checksum, key, sequence number (RFC 2784, RFC 2890).
const GRE_WORDS: [u16; 3] = [0x8000, 0x2000, 0x1000];

/// What a packet is spread by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its own addresses and ports.
    pub own: FlowKey,
    /// Over backends, and over the next hops of the one that was chosen: its own, or of an ICMP error those of the packets that the
    /// one it is about answers.
    pub balanced: FlowKey,
    /// Over next hops where it is forwarded: of a tunnel the packet inside, of an ICMP error the answers to the packet that it is about,
    /// of a fragment the addresses alone.
    pub forwarded: FlowKey,
}

/// The flow of a frame as it came in, and that of the packet inside, which is looked at from [`Stage::Decap`] on. `None`: no valid
/// IP packet.
pub fn flows(frame: &[u8], steps: &[Step]) -> (Option<Flow>, Option<Flow>) {
    let Ok(Frame { ip: Some(outer), .. }) = Frame::parse(frame) else { return (None, None) };
    let tunnel = steps.iter().find(|step| step.stage == Stage::Decap);
    let inner = tunnel.and_then(|tunnel| {
        let (at, ethertype) = match (tunnel.id, outer.protocol) {
            (KIND_IPIP, ip::IPV4) => (outer.l4, ethertype::IPV4),
            (KIND_IPIP, _) => (outer.l4, ethertype::IPV6),
            (KIND_GUE, _) => {
                let at = outer.l4 + UDP_BYTES;
                match frame.get(at..)? {
                    [0, ip::IPV4, ..] => (at + GUE_BYTES, ethertype::IPV4),
                    [0, ..] => (at + GUE_BYTES, ethertype::IPV6),
                    [first, ..] => (at, if first >> 4 == 4 { ethertype::IPV4 } else { ethertype::IPV6 }),
                    [] => return None,
                }
            }
            _ => {
                let behind = outer.l4 + VXLAN_BYTES;
                (behind, u16::from_be_bytes(frame.get(behind - 2..behind)?.try_into().ok()?))
            }
        };
        let bytes = frame.get(at..outer.l3 + outer.len)?;
        Some(flow(&Ip::parse(bytes, ethertype)?.ok()?, bytes))
    });
    let packet = frame.get(outer.l3..).unwrap_or_default();
    (Some(flow(&Ip { l3: 0, l4: outer.l4 - outer.l3, ..outer }, packet)), inner)
}

/// `packet` begins with the IP header.
fn flow(ip: &Ip, packet: &[u8]) -> Flow {
    let own = FlowKey { source: ip.src, destination: ip.dst, ports: ip.ports, protocol: ip.protocol };
    // A fragment header around a whole packet makes no fragment (RFC 6946).
    let forwarded = if ip.fragment.is_some_and(|fragment| fragment.more || fragment.offset > 0) {
        FlowKey { ports: None, ..own }
    } else {
        packet.get(ip.l4..ip.len).and_then(|payload| carried(ip, payload)).unwrap_or(own)
    };
    let balanced = if ip.icmp.is_some() { forwarded } else { own };
    Flow { own, balanced, forwarded }
}

/// The flow of the packet that a whole one carries.
fn carried(ip: &Ip, payload: &[u8]) -> Option<FlowKey> {
    let is_error = |kind: u8| if ip.src.is_ipv6() { kind < 128 } else { matches!(kind, 3 | 4 | 5 | 11 | 12) };
    match ip.protocol {
        ip::IPV4 => start_of(payload, ethertype::IPV4),
        ip::IPV6 => start_of(payload, ethertype::IPV6),
        ip::GRE => {
            let (flags, rest) = payload.split_first_chunk()?;
            let (ethertype, rest) = rest.split_first_chunk()?;
            let flags = u16::from_be_bytes(*flags);
            let words = GRE_WORDS.iter().filter(|flag| flags & **flag != 0).count();
            let known = GRE_WORDS.iter().fold(0, |all, flag| all | flag);
            if flags & !known != 0 {
                return None;
            }
            start_of(rest.get(4 * words..)?, u16::from_be_bytes(*ethertype))
        }
        _ if ip.icmp.is_some_and(|(kind, _)| is_error(kind)) => {
            let ethertype = if ip.src.is_ipv6() { ethertype::IPV6 } else { ethertype::IPV4 };
            let FlowKey { source, destination, ports, protocol } =
                start_of(payload.get(ICMP_ERROR_BYTES..)?, ethertype)?;
            let ports = ports.map(|(source, destination)| (destination, source));
            Some(FlowKey { source: destination, destination: source, ports, protocol })
        }
        _ => None,
    }
}

/// The flow of a packet that need not be there as a whole: ports only directly behind a header without options, of no fragment.
fn start_of(packet: &[u8], ethertype: u16) -> Option<FlowKey> {
    let (header, payload): (Header, _) = match ethertype {
        ethertype::IPV4 => {
            let (header, payload) = packet.split_first_chunk::<20>()?;
            let &[first, _, _, _, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
            let plain = first == 0x45 && u16::from_be_bytes([f0, f1]) & 0x3fff == 0;
            let addresses = ([s0, s1, s2, s3].into(), [d0, d1, d2, d3].into());
            ((first >> 4 == 4, addresses, protocol), if plain { payload } else { &[] })
        }
        ethertype::IPV6 => {
            let (header, payload) = packet.split_first_chunk::<40>()?;
            let (start, addresses) = header.split_first_chunk::<8>()?;
            let (source, destination) = addresses.split_first_chunk::<16>()?;
            let &[first, _, _, _, _, _, protocol, _] = start;
            let destination: [u8; 16] = destination.try_into().ok()?;
            ((first >> 4 == 6, ((*source).into(), destination.into()), protocol), payload)
        }
        _ => return None,
    };
    let (valid, (source, destination), protocol) = header;
    let has_ports = matches!(protocol, ip::TCP | ip::UDP | ip::SCTP);
    let ports = payload.first_chunk::<4>().filter(|_| has_ports);
    let ports = ports.map(|[a, b, c, d]| (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])));
    valid.then_some(FlowKey { source, destination, ports, protocol })
}

/// The right version; source and destination; protocol.
type Header = (bool, (std::net::IpAddr, std::net::IpAddr), u8);
