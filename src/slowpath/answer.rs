//! ICMP errors as frames: who answers, from which address, to which neighbour.
//!
//! An error leaves by the interface that the packet came in by, to the Ethernet address that it came from. A worker has no
//! routes, and needs none: the sender of the frame is the source itself or the router that the source's packets take,
//! which knows the way back. The kernel would ask its own routing table, which margay's routes need not be in.

use std::net::IpAddr;

use model::network::IfIndex;
use packet::icmp::{self, Refused};
use packet::proto::ethertype;
use packet::view::Ip;

use super::l2::{self, Header};
use super::view::{LinkView, NetworkView};

/// Writes the error about `frame`, whose IP header is at `l2_len` and which came in by `ingress`, into `out`. Returns the
/// link that it leaves by and its length.
///
/// # Errors
/// [`Refused`]: no answer may be sent, or there is no address to send it from ([`Refused::From`]).
pub(super) fn error_frame<'a>(
    frame: &[u8],
    l2_len: usize,
    error: icmp::Error,
    view: &'a NetworkView,
    ingress: IfIndex,
    out: &mut [u8],
) -> Result<(&'a LinkView, usize), Refused> {
    let packet = frame.get(l2_len..).ok_or(Refused::NotIp)?;
    let from = match packet.first().map(|first| first >> 4) {
        Some(4) => view.source_v4(ingress).map(IpAddr::V4),
        Some(6) => view.source_v6(ingress).map(IpAddr::V6),
        _ => return Err(Refused::NotIp),
    };
    let (from, link) = from.zip(view.link(ingress)).ok_or(Refused::From)?;
    let sender = l2::source(frame).ok_or(Refused::NotIp)?;
    let header = Header::new(sender, link, packet).ok_or(Refused::NotIp)?;
    let header = header.as_bytes();
    let (front, rest) = out.split_at_mut_checked(header.len()).ok_or(Refused::Buffer { needed: header.len() })?;
    front.copy_from_slice(header);
    let len = icmp::error(packet, error, from, rest)?;
    Ok((link, header.len() + len))
}

/// The IP packet at the start of `packet`; `None` where it is none or not a whole one.
pub(super) fn parse(packet: &[u8]) -> Option<Ip> {
    let ethertype = match packet.first()? >> 4 {
        4 => ethertype::IPV4,
        6 => ethertype::IPV6,
        _ => return None,
    };
    Ip::parse(packet, ethertype)?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::network::{Link, Mac, Network, Vlan};
    use packet::icmp::Unreachable;
    use packet::notation;
    use proptest::prelude::*;

    const BACK: &str = "eth 02:00:00:00:00:ee > 02:00:00:00:00:aa";

    fn view() -> NetworkView {
        let link = |name: &str, vlan| Link {
            name: name.into(),
            mac: Mac([2, 0, 0, 0, 0, 0xee]),
            mtu: 1500,
            up: true,
            rx_queues: 1,
            vlan,
        };
        NetworkView::from(&Network {
            links: [
                (IfIndex(2), link("eth0", None)),
                (IfIndex(3), link("eth0.7", Some(Vlan { parent: IfIndex(2), id: 7 }))),
            ]
            .into(),
            addresses: [(2, "192.0.2.1/24"), (2, "2001:db8::1/64"), (2, "fe80::1/64"), (3, "203.0.113.1/24")]
                .map(|(index, net)| (IfIndex(index), net.parse().unwrap()))
                .into(),
            ..Network::default()
        })
    }

    /// The answer to a frame that came in by `ingress`, in the notation of the packet tests.
    fn answer(frame: &str, l2_len: usize, error: icmp::Error, ingress: u32) -> Result<String, Refused> {
        let (view, mut out) = (view(), [0; 2048]);
        let frame = notation::encode(frame).unwrap();
        let (link, len) = error_frame(&frame, l2_len, error, &view, IfIndex(ingress), &mut out)?;
        assert_eq!(link.device, IfIndex(2));
        Ok(notation::decode(&out[..len]))
    }

    #[test]
    fn the_neighbour_gets_it_back_from_an_address_of_the_interface() {
        let packet = "ip4 198.51.100.7 > 8.8.8.8 ttl=1 / udp 5 > 6 / data 8";
        assert_eq!(
            answer(&format!("eth 02::aa > 02::ee / {packet}"), 14, icmp::Error::TimeExceeded, 2).unwrap(),
            format!("{BACK} / ip4 192.0.2.1 > 198.51.100.7 tos=192 df / icmp ttl-exceeded / {packet}")
        );
        let packet = "ip6 2001:db8:7::7 > 2001:db8:9::9 / udp 5 > 6 / data 8";
        assert_eq!(
            answer(&format!("eth 02::aa > 02::ee / {packet}"), 14, icmp::Error::PacketTooBig { mtu: 1400 }, 2).unwrap(),
            format!("{BACK} / ip6 2001:db8::1 > 2001:db8:7::7 / icmp6 packet-too-big mtu=1400 / {packet}")
        );
    }

    #[test]
    fn a_vlan_answers_with_its_tag_and_its_own_address() {
        let packet = "ip4 203.0.113.9 > 8.8.8.8 / udp 5 > 6 / data 8";
        let error = icmp::Error::Unreachable(Unreachable::Prohibited);
        assert_eq!(
            answer(&format!("eth 02::aa > 02::ee / vlan 7 / {packet}"), 18, error, 3).unwrap(),
            format!("{BACK} / vlan 7 / ip4 203.0.113.1 > 203.0.113.9 tos=192 df / icmp unreachable code=13 / {packet}")
        );
    }

    #[test]
    fn no_answer_where_none_may_be_sent() {
        let about = |packet: &str, ingress| {
            answer(&format!("eth 02::aa > 02::ee / {packet}"), 14, icmp::Error::TimeExceeded, ingress)
        };
        assert_eq!(about("ip4 198.51.100.7 > 8.8.8.8 / icmp unreachable", 2), Err(Refused::IsError));
        assert_eq!(about("ip4 198.51.100.7 > 8.8.8.8 / udp 1 > 2", 99), Err(Refused::From), "unknown interface");
        assert_eq!(about("hex 00", 2), Err(Refused::NotIp));
    }

    proptest! {
        /// The program checks what it punts, but a worker does not rely on it.
        #[test]
        fn any_frame_gets_a_whole_answer_or_none(
            mut frame in proptest::collection::vec(any::<u8>(), 0..2000),
            l2_len in 0usize..40,
            v6: bool,
        ) {
            if let Some(first) = frame.get_mut(l2_len) {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            let (view, mut out) = (view(), [0; 2048]);
            if let Ok((_, len)) = error_frame(&frame, l2_len, icmp::Error::TimeExceeded, &view, IfIndex(3), &mut out) {
                prop_assert!(parse(&out[18..len]).is_some());
            }
            let mut buffer = [frame.as_slice(), &[0; 8]].concat();
            let header = Header::new(Mac::default(), view.link(IfIndex(3)).unwrap(), &[0x45]).unwrap();
            let replaced = header.replace(&mut buffer, frame.len(), l2_len);
            prop_assert_eq!(replaced, frame.len().checked_sub(l2_len).map(|rest| rest + 18).filter(|len| *len <= buffer.len()));
            l2::decrement_ttl(&mut frame);
        }
    }
}
