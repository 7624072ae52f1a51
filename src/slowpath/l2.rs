//! Link-layer headers and the TTL: what forwarding does to a packet.

use model::network::Mac;
use packet::checksum;
use packet::proto::ethertype;

use super::view::LinkView;

/// Ethernet header with one VLAN tag.
const HEADER_MAX: usize = 18;

/// A link-layer header, ready to be put in front of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    bytes: [u8; HEADER_MAX],
    len: usize,
}

impl Header {
    /// The header of an IP packet that leaves by `link` to `destination`; `None` where `packet` is neither IPv4 nor IPv6.
    pub(super) fn new(destination: Mac, link: &LinkView, packet: &[u8]) -> Option<Self> {
        let ethertype = match packet.first()? >> 4 {
            4 => ethertype::IPV4,
            6 => ethertype::IPV6,
            _ => return None,
        };
        let mut header = Self { bytes: [0; HEADER_MAX], len: 0 };
        header.push(&destination.0)?;
        header.push(&link.mac.0)?;
        if let Some(vlan) = link.vlan {
            header.push(&ethertype::VLAN.to_be_bytes())?;
            header.push(&vlan.to_be_bytes())?;
        }
        header.push(&ethertype.to_be_bytes())?;
        Some(header)
    }

    fn push(&mut self, field: &[u8]) -> Option<()> {
        self.bytes.get_mut(self.len..self.len + field.len())?.copy_from_slice(field);
        self.len += field.len();
        Some(())
    }

    /// Its bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Puts this header in place of the first `l2_len` bytes of a frame of `len` bytes at the start of `buffer`. What lies
    /// behind the header, padding included, is moved where the lengths differ. Returns the new length, `None` where the
    /// buffer is too small.
    pub(super) fn replace(&self, buffer: &mut [u8], len: usize, l2_len: usize) -> Option<usize> {
        let new_len = len.checked_sub(l2_len)? + self.len;
        if new_len.max(len) > buffer.len() {
            return None;
        }
        buffer.copy_within(l2_len..len, self.len);
        buffer.get_mut(..self.len)?.copy_from_slice(self.as_bytes());
        Some(new_len)
    }
}

/// The sender of a frame.
pub(super) fn source(frame: &[u8]) -> Option<Mac> {
    frame.get(6..12)?.try_into().ok().map(Mac)
}

/// Decrements TTL or hop limit, the IPv4 checksum with it (RFC 1624). False where it is used up or this is no IP packet;
/// the packet is then unchanged.
pub(super) fn decrement_ttl(packet: &mut [u8]) -> bool {
    match packet {
        [version, _, _, _, _, _, _, hop_limit, ..] if *version >> 4 == 6 && *hop_limit > 1 => {
            *hop_limit -= 1;
            true
        }
        [version, _, _, _, _, _, _, _, ttl, protocol, high, low, ..] if *version >> 4 == 4 && *ttl > 1 => {
            let (old, new) = (u16::from_be_bytes([*ttl, *protocol]), u16::from_be_bytes([*ttl - 1, *protocol]));
            [*high, *low] = checksum::update(u16::from_be_bytes([*high, *low]), old, new).to_be_bytes();
            *ttl -= 1;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::network::IfIndex;

    fn link(vlan: Option<u16>) -> LinkView {
        LinkView { device: IfIndex(2), vlan, mac: Mac([2, 0, 0, 0, 0, 0xee]), mtu: 1500, addresses: vec![], vrf: None }
    }

    const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 0x01]);

    /// An IPv4 header (RFC 791) with a right checksum and eight bytes behind it.
    fn packet() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1];
        let sum = checksum::internet(&packet).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        packet.extend(1..=8);
        packet
    }

    fn rewritten(l2_len: usize, vlan: Option<u16>) -> Vec<u8> {
        let mut buffer = vec![0xaa; l2_len];
        buffer.extend(packet());
        let len = buffer.len();
        buffer.resize(len + 8, 0xcc);
        let header = Header::new(GATEWAY, &link(vlan), &packet()).unwrap();
        let new = header.replace(&mut buffer, len, l2_len).unwrap();
        buffer.truncate(new);
        buffer
    }

    #[test]
    fn the_header_grows_shrinks_or_stays() {
        let untagged = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xee, 0x08, 0x00][..], &packet()].concat();
        let tagged = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xee, 0x81, 0, 0, 10, 0x08, 0x00][..], &packet()].concat();
        for l2_len in [14, 18] {
            assert_eq!(rewritten(l2_len, None), untagged);
            assert_eq!(rewritten(l2_len, Some(10)), tagged);
        }
    }

    #[test]
    fn a_header_that_does_not_fit_is_refused() {
        let header = Header::new(GATEWAY, &link(Some(10)), &packet()).unwrap();
        assert_eq!(header.replace(&mut [0; 60], 60, 14), None);
        assert_eq!(header.replace(&mut [0; 60], 10, 14), None, "l2_len beyond the frame");
        assert_eq!(Header::new(GATEWAY, &link(None), &[]), None);
        assert_eq!(Header::new(GATEWAY, &link(None), &[0x55]), None);
    }

    #[test]
    fn ttl_and_checksum_go_down_together() {
        let mut v4 = packet();
        for ttl in (1..64).rev() {
            assert!(decrement_ttl(&mut v4));
            assert_eq!((v4[8], checksum::internet(&v4[..20])), (ttl, 0));
        }
        let before = v4.clone();
        assert!(!decrement_ttl(&mut v4), "1 must not become 0");
        assert_eq!(v4, before);
        let mut v6 = [0x60, 0, 0, 0, 0, 0, 59, 2];
        assert!(decrement_ttl(&mut v6));
        assert_eq!(v6[7], 1);
        assert!(!decrement_ttl(&mut v6));
        assert!(!decrement_ttl(&mut []));
    }
}
