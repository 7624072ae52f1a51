//! The flow that a frame belongs to, for whoever tells where the program has sent it.

use packet::proto::{ethertype, ip};
use packet::view::{Frame, Ip};
use tables::hash::FlowKey;

use super::abi::types;
use super::explain::{Stage, Step};

/// What [`Stage::Decap`] calls IP in IP.
const KIND_IPIP: u32 = types::tunnel_kind::TUNNEL_IPIP.0;
/// UDP, VXLAN and the inner Ethernet header (RFC 7348 §5).
const VXLAN_BYTES: usize = 8 + 8 + 14;

/// The flow of a frame as it came in, and that of the packet inside, which is looked at from [`Stage::Decap`] on. `None`: no valid
/// IP packet.
pub fn flows(frame: &[u8], steps: &[Step]) -> (Option<FlowKey>, Option<FlowKey>) {
    let Ok(Frame { ip: Some(outer), .. }) = Frame::parse(frame) else { return (None, None) };
    let tunnel = steps.iter().find(|step| step.stage == Stage::Decap);
    let inner = tunnel.and_then(|tunnel| {
        let (at, ethertype) = match (tunnel.id, outer.protocol) {
            (KIND_IPIP, ip::IPV4) => (outer.l4, ethertype::IPV4),
            (KIND_IPIP, _) => (outer.l4, ethertype::IPV6),
            _ => {
                let behind = outer.l4 + VXLAN_BYTES;
                (behind, u16::from_be_bytes(frame.get(behind - 2..behind)?.try_into().ok()?))
            }
        };
        Ip::parse(frame.get(at..outer.l3 + outer.len)?, ethertype)?.ok()
    });
    (Some(flow(&outer)), inner.as_ref().map(flow))
}

fn flow(ip: &Ip) -> FlowKey {
    FlowKey { source: ip.src, destination: ip.dst, ports: ip.ports, protocol: ip.protocol }
}
