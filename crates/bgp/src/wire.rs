//! The message codec behind one door: framing, decoding and encoding in the crate's own terms.
//!
//! A byte stream that cannot be framed or a message that cannot be decoded becomes a [`Fault`], which carries the
//! NOTIFICATION that RFC 4271 §6 asks for. Messages are at most 4,096 bytes in both directions: Extended Messages
//! (RFC 8654) is not offered.

use bytes::{Bytes, BytesMut};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustbgpd_wire as codec;

use crate::Family;
use crate::notification::{Notification, code, header};

/// Longest message, header included (RFC 4271 §4.1).
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// Length of the header (RFC 4271 §4.1).
pub const HEADER_BYTES: usize = 19;

const MARKER_BYTES: usize = 16;
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
pub(crate) const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;
const ROUTE_REFRESH: u8 = 5;

/// A message of the peer, its attributes still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Open(codec::OpenMessage),
    Update(codec::UpdateMessage),
    Notification(Notification),
    Keepalive,
    /// ROUTE-REFRESH for a family that is spoken here; `None` for any other, which RFC 2918 §4 ignores.
    Refresh(Option<Family>),
}

/// What is wrong with the bytes that a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answer with this and close.
    Answer(Notification),
    /// Close without a word: an error in a NOTIFICATION is never answered (RFC 4271 §6.4).
    Silent,
}

/// Cuts a byte stream into messages.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    buffer: BytesMut,
}

impl Framer {
    /// Takes in what the connection has delivered.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that have not been taken out.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Type of the next message; `None` until its header has arrived.
    pub(crate) fn next_kind(&self) -> Result<Option<u8>, Fault> {
        Ok(peek(&self.buffer)?.map(|(kind, _)| kind))
    }

    /// The next whole message; `None` until more bytes have arrived. After an error the stream cannot be used any more.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Fault> {
        let Some((kind, length)) = peek(&self.buffer)? else { return Ok(None) };
        if self.buffer.len() < length {
            return Ok(None);
        }
        decode(kind, self.buffer.split_to(length).freeze()).map(Some)
    }
}

fn header_error(subcode: u8, data: &[u8]) -> Fault {
    Fault::Answer(Notification { code: code::MESSAGE_HEADER, subcode, data: Bytes::copy_from_slice(data) })
}

/// Type and length of the message that the buffer starts with, checked as RFC 4271 §6.1 asks.
fn peek(buffer: &[u8]) -> Result<Option<(u8, usize)>, Fault> {
    // A wrong marker is an error as soon as it shows, not only once a whole header has arrived.
    if buffer.iter().take(MARKER_BYTES).any(|byte| *byte != 0xff) {
        return Err(header_error(header::CONNECTION_NOT_SYNCHRONIZED, &[]));
    }
    let Some(&[high, low, kind]) = buffer.get(MARKER_BYTES..HEADER_BYTES) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let allowed = match kind {
        OPEN => 29..=MAX_MESSAGE_BYTES,
        UPDATE => 23..=MAX_MESSAGE_BYTES,
        NOTIFICATION => 21..=MAX_MESSAGE_BYTES,
        KEEPALIVE => HEADER_BYTES..=HEADER_BYTES,
        ROUTE_REFRESH => 23..=23,
        // The length is judged first: a length that no type has is the worse sign.
        _ => HEADER_BYTES..=MAX_MESSAGE_BYTES,
    };
    if !allowed.contains(&length) {
        return Err(header_error(header::BAD_MESSAGE_LENGTH, &[high, low]));
    }
    if !(OPEN..=ROUTE_REFRESH).contains(&kind) {
        return Err(header_error(header::BAD_MESSAGE_TYPE, &[kind]));
    }
    Ok(Some((kind, length)))
}

fn decode(kind: u8, mut message: Bytes) -> Result<Message, Fault> {
    #[expect(clippy::cast_possible_truncation, reason = "4096 fits")]
    const LIMIT: u16 = MAX_MESSAGE_BYTES as u16;
    match codec::decode_message(&mut message, LIMIT) {
        Ok(codec::Message::Open(open)) => Ok(Message::Open(open)),
        Ok(codec::Message::Update(update)) => Ok(Message::Update(update)),
        Ok(codec::Message::Notification(n)) => Ok(Message::Notification(from_codec(&n))),
        Ok(codec::Message::Keepalive) => Ok(Message::Keepalive),
        Ok(codec::Message::RouteRefresh(refresh)) => {
            // Subtypes are those of Enhanced Route Refresh (RFC 7313), which is not offered.
            let plain = refresh.subtype() == codec::RouteRefreshSubtype::Normal;
            let family = refresh.afi().zip(refresh.safi()).and_then(|(afi, safi)| from_afi(afi, safi));
            Ok(Message::Refresh(family.filter(|_| plain)))
        }
        // The codec may learn further messages; the type was checked above, so this one has no meaning here.
        Ok(_) => Err(header_error(header::BAD_MESSAGE_TYPE, &[kind])),
        Err(_) if kind == NOTIFICATION => Err(Fault::Silent),
        Err(error) => Err(Fault::Answer(answer(&error))),
    }
}

/// The NOTIFICATION for a message that could not be decoded.
pub(crate) fn answer(error: &codec::DecodeError) -> Notification {
    let (code, subcode, data) = error.to_notification();
    Notification { code: code.as_u8(), subcode, data: bounded(data) }
}

/// Keeps the offending attribute that a NOTIFICATION quotes within one message.
fn bounded(data: Bytes) -> Bytes {
    data.slice(..data.len().min(MAX_MESSAGE_BYTES - HEADER_BYTES - 2))
}

pub(crate) fn from_codec(notification: &codec::NotificationMessage) -> Notification {
    Notification {
        code: notification.code.as_u8(),
        subcode: notification.subcode,
        data: bounded(notification.data.clone()),
    }
}

pub(crate) fn encode_notification(notification: &Notification) -> Bytes {
    encode(&codec::Message::Notification(codec::NotificationMessage::new(
        codec::NotificationCode::from_u8(notification.code),
        notification.subcode,
        bounded(notification.data.clone()),
    )))
}

/// Encodes a message that this crate has built within the protocol's limits; empty where it has not, which every caller's
/// tests exclude.
pub(crate) fn encode(message: &codec::Message) -> Bytes {
    codec::encode_message(message).map(BytesMut::freeze).unwrap_or_default()
}

pub(crate) fn to_afi(family: Family) -> (codec::Afi, codec::Safi) {
    match family {
        Family::Ipv4 => (codec::Afi::Ipv4, codec::Safi::Unicast),
        Family::Ipv6 => (codec::Afi::Ipv6, codec::Safi::Unicast),
    }
}

pub(crate) fn from_afi(afi: codec::Afi, safi: codec::Safi) -> Option<Family> {
    match (afi, safi) {
        (codec::Afi::Ipv4, codec::Safi::Unicast) => Some(Family::Ipv4),
        (codec::Afi::Ipv6, codec::Safi::Unicast) => Some(Family::Ipv6),
        _ => None,
    }
}

/// A decoded prefix: host bits are zero and the length is in range, or there is none.
pub(crate) fn from_prefix(prefix: codec::Prefix) -> Option<IpNet> {
    match prefix {
        codec::Prefix::V4(p) => Ipv4Net::new(p.addr, p.len).ok().map(IpNet::V4),
        codec::Prefix::V6(p) => Ipv6Net::new(p.addr, p.len).ok().map(IpNet::V6),
    }
}

pub(crate) fn to_prefix(prefix: IpNet) -> codec::Prefix {
    match prefix {
        IpNet::V4(p) => codec::Prefix::V4(codec::Ipv4Prefix::new(p.network(), p.prefix_len())),
        IpNet::V6(p) => codec::Prefix::V6(codec::Ipv6Prefix::new(p.network(), p.prefix_len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(kind: u8, length: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xff; 16];
        bytes.extend(length.to_be_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(body);
        bytes
    }

    fn first(bytes: &[u8]) -> Result<Option<Message>, Fault> {
        let mut framer = Framer::default();
        framer.push(bytes);
        framer.next()
    }

    fn refused(bytes: &[u8]) -> (u8, u8, Vec<u8>) {
        match first(bytes) {
            Err(Fault::Answer(n)) => (n.code, n.subcode, n.data.to_vec()),
            other => panic!("accepted: {other:?}"),
        }
    }

    #[test]
    fn a_message_is_whole_only_with_its_last_byte() {
        let keepalive = framed(KEEPALIVE, 19, &[]);
        let mut framer = Framer::default();
        for byte in &keepalive[..18] {
            framer.push(&[*byte]);
            assert_eq!(framer.next(), Ok(None));
        }
        framer.push(&keepalive[18..]);
        framer.push(&keepalive);
        assert_eq!(framer.next(), Ok(Some(Message::Keepalive)));
        assert_eq!(framer.next(), Ok(Some(Message::Keepalive)));
        assert_eq!(framer.next(), Ok(None));
    }

    #[test]
    fn header_errors_are_those_of_rfc_4271_section_6_1() {
        let mut bad_marker = framed(KEEPALIVE, 19, &[]);
        bad_marker[3] = 0;
        assert_eq!(refused(&bad_marker), (1, 1, vec![]));
        for (kind, length) in [(OPEN, 28), (UPDATE, 22), (NOTIFICATION, 20), (KEEPALIVE, 20), (UPDATE, 4097), (9, 18)] {
            assert_eq!(refused(&framed(kind, length, &[])), (1, 2, length.to_be_bytes().to_vec()), "type {kind}");
        }
        assert_eq!(refused(&framed(6, 19, &[])), (1, 3, vec![6]));
        assert_eq!(refused(&framed(0, 19, &[])), (1, 3, vec![0]));
    }

    #[test]
    fn a_refresh_of_another_family_is_nothing() {
        assert_eq!(first(&framed(5, 23, &[0, 1, 0, 1])), Ok(Some(Message::Refresh(Some(Family::Ipv4)))));
        assert_eq!(first(&framed(5, 23, &[0, 2, 0, 1])), Ok(Some(Message::Refresh(Some(Family::Ipv6)))));
        assert_eq!(first(&framed(5, 23, &[0, 1, 0, 128])), Ok(Some(Message::Refresh(None))));
        assert_eq!(first(&framed(5, 23, &[0x40, 4, 0, 71])), Ok(Some(Message::Refresh(None))));
    }

    #[test]
    fn a_notification_that_quotes_too_much_still_fits() {
        let long = Notification { code: 3, subcode: 1, data: Bytes::from(vec![7; 9000]) };
        let bytes = encode_notification(&long);
        assert_eq!(bytes.len(), MAX_MESSAGE_BYTES);
        assert!(matches!(first(&bytes), Ok(Some(Message::Notification(n))) if n.code == 3 && n.subcode == 1));
    }

    mod properties {
        use proptest::prelude::*;

        use super::*;

        /// The codec's message again, where there is one.
        fn again(message: &Message) -> Option<Bytes> {
            Some(match message {
                Message::Open(open) => encode(&codec::Message::Open(open.clone())),
                Message::Update(update) => encode(&codec::Message::Update(update.clone())),
                Message::Notification(notification) => encode_notification(notification),
                Message::Keepalive => encode(&codec::Message::Keepalive),
                Message::Refresh(family) => {
                    let (afi, safi) = to_afi((*family)?);
                    encode(&codec::Message::RouteRefresh(codec::RouteRefreshMessage::new(afi, safi)))
                }
            })
        }

        /// Bodies that come close to OPENs and UPDATEs, and any others.
        fn body() -> impl Strategy<Value = (u8, Vec<u8>)> {
            let any_body = (OPEN..=ROUTE_REFRESH, prop::collection::vec(any::<u8>(), 0..120));
            let capability = (
                prop::sample::select(vec![1u8, 2, 5, 6, 9, 64, 65, 69, 70, 71, 200]),
                prop::collection::vec(any::<u8>(), 0..12),
            )
                .prop_map(|(code, value)| [vec![code, u8::try_from(value.len()).unwrap()], value].concat());
            let open = (any::<[u8; 8]>(), prop::collection::vec(capability, 0..6)).prop_map(|(fixed, capabilities)| {
                let capabilities = capabilities.concat();
                let length = u8::try_from(capabilities.len()).unwrap();
                (OPEN, [&[4][..], &fixed, &[length + 2, 2, length], &capabilities].concat())
            });
            let attributes =
                prop::collection::vec((any::<u8>(), 0u8..40, prop::collection::vec(any::<u8>(), 0..20)), 0..6);
            let update = (attributes, prop::collection::vec(any::<u8>(), 0..30)).prop_map(|(attributes, nlri)| {
                let attributes: Vec<u8> = attributes
                    .into_iter()
                    .flat_map(|(flags, kind, value)| {
                        [vec![flags & 0xe0, kind, u8::try_from(value.len()).unwrap()], value].concat()
                    })
                    .collect();
                let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
                (UPDATE, [&[0, 0][..], &length, &attributes, &nlri].concat())
            });
            prop_oneof![any_body, open, update]
        }

        proptest! {
            /// What is decoded means the same once it has been encoded and decoded again, and its bytes are stable then.
            #[test]
            fn decoding_is_stable((kind, body) in body()) {
                let length = u16::try_from(HEADER_BYTES + body.len()).unwrap();
                if let Ok(Some(message)) = first(&framed(kind, length, &body))
                    && let Some(bytes) = again(&message)
                {
                    let reread = first(&bytes);
                    prop_assert_eq!(&reread, &Ok(Some(message)));
                    prop_assert_eq!(reread.ok().flatten().and_then(|m| again(&m)), Some(bytes));
                }
            }

            #[test]
            fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
                let mut framer = Framer::default();
                framer.push(&bytes);
                while let Ok(Some(_)) = framer.next() {}
            }
        }
    }
}
