//! ICMP echo requests and what answers to them bring back (RFC 792, RFC 4443 §4).

use etherparse::icmpv4::{TYPE_ECHO_REPLY, TYPE_ECHO_REQUEST};
use etherparse::icmpv6;
use etherparse::{Icmpv4Slice, Icmpv6Slice, Ipv4HeaderSlice};

use crate::checksum;

/// Octets behind the header of a request: what an answer is known by, beside its source.
pub const TOKEN_BYTES: usize = 8;
/// ICMP and ICMPv6 echo header.
const HEADER_BYTES: usize = 8;

/// An echo request with `token` behind its header. Of IPv6 without its checksum, which the kernel adds (RFC 3542 §3.1).
pub fn request(ipv6: bool, token: [u8; TOKEN_BYTES]) -> [u8; HEADER_BYTES + TOKEN_BYTES] {
    let mut request = [0; HEADER_BYTES + TOKEN_BYTES];
    let kind = if ipv6 { icmpv6::TYPE_ECHO_REQUEST } else { TYPE_ECHO_REQUEST };
    let [first, .., t0, t1, t2, t3, t4, t5, t6, t7] = &mut request;
    *first = kind;
    [*t0, *t1, *t2, *t3, *t4, *t5, *t6, *t7] = token;
    if !ipv6 {
        let [high, low] = checksum::internet(&request).to_be_bytes();
        let [_, _, at_high, at_low, ..] = &mut request;
        (*at_high, *at_low) = (high, low);
    }
    request
}

/// What an echo reply brings back, of IPv4 behind its IP header, as raw sockets have it; `None` for any other packet.
pub fn token_of(ipv6: bool, packet: &[u8]) -> Option<[u8; TOKEN_BYTES]> {
    let payload = if ipv6 {
        let reply = Icmpv6Slice::from_slice(packet).ok()?;
        (reply.type_u8() == icmpv6::TYPE_ECHO_REPLY).then(|| reply.payload().to_vec())?
    } else {
        let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
        let reply = Icmpv4Slice::from_slice(packet.get(header.slice().len()..)?).ok()?;
        (reply.type_u8() == TYPE_ECHO_REPLY).then(|| reply.payload().to_vec())?
    };
    payload.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the stack of a host makes of a request: the other type, and of IPv4 its header in front.
    fn reply(ipv6: bool, token: [u8; TOKEN_BYTES]) -> Vec<u8> {
        let mut reply = request(ipv6, token).to_vec();
        reply[0] = if ipv6 { icmpv6::TYPE_ECHO_REPLY } else { TYPE_ECHO_REPLY };
        if ipv6 {
            return reply;
        }
        let mut packet = vec![0x45, 0, 0, 36, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
        packet.append(&mut reply);
        packet
    }

    #[test]
    fn a_reply_brings_the_token_back_and_nothing_else_does() {
        let token = [1, 2, 3, 4, 5, 6, 7, 8];
        for ipv6 in [false, true] {
            let reply = reply(ipv6, token);
            assert_eq!(token_of(ipv6, &reply), Some(token));
            let requested =
                if ipv6 { request(true, token).to_vec() } else { [&reply[..20], &request(false, token)].concat() };
            assert_eq!(token_of(ipv6, &requested), None, "our own request");
            for length in 0..reply.len() {
                assert_eq!(token_of(ipv6, &reply[..length]), None, "{length} bytes of it");
            }
            assert_eq!(token_of(ipv6, &[reply.as_slice(), &[0]].concat()), None, "more than was sent");
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_request() {
        let request = request(false, [9; TOKEN_BYTES]);
        assert_eq!(checksum::internet(&request), 0, "RFC 1071: the sum over all of it is all ones");
    }
}
