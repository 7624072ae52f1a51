//! A datagram as the fragments that it is sent as, each a frame of its own with a stamp of its own.
//!
//! The transport checksum, which only the first fragment carries, covers the stamps of all of them, and their times are not
//! known yet when the first is written. So each stamp has the complement of its own sum in front of it: together they add
//! nothing, and the datagram is right once it is reassembled, at whatever times its fragments were sent.

use std::ops::Range;

use packet::Layer;
use packet::build::{Layout, SumKind};
use packet::checksum;
use packet::layer::Frag;
use packet::proto::{self, ip};

use super::FRAME_MIN;
use super::error::{Fault, Place};
use super::field::Varying;
use super::template::{Edit, Feed, Resum, StampPlace, Template, assemble, filled, shape};
use crate::receive::judge::Shape;
use crate::scenario::Stream;
use crate::source::LateStamp;
use crate::stamp::{STAMP_LEN, TIME_AT};

/// A stamp and the complement of its sum.
const TAIL: usize = 2 + STAMP_LEN;

/// The stream with the header that its fragments need, which is IPv6's only.
///
/// # Errors
/// Where its outermost IP header cannot be that of fragments.
pub(super) fn prepared(stream: &Stream) -> Result<Stream, Fault> {
    let mut stream = stream.clone();
    let ip = outermost(&stream.layers).ok_or(Fault::NoFragments("there is no IP layer"))?;
    match (stream.layers.get(ip), stream.layers.get(ip + 1)) {
        (Some(Layer::Ip4(h)), _) if h.df => return Err(Fault::NoFragments("ip4 has df (leave it out)")),
        (Some(Layer::Ip4(h)), _) if h.mf || h.frag > 0 || h.len.is_some() || !h.opts.is_empty() => {
            return Err(Fault::NoFragments("ip4 has mf, frag=, len= or opts= (leave them out)"));
        }
        (Some(Layer::Ip6(h)), _) if h.len.is_some() => {
            return Err(Fault::NoFragments("ip6 has len= (leave it out)"));
        }
        (Some(Layer::Ip6(_)), Some(Layer::Ext(_) | Layer::Frag(_) | Layer::Ah(_))) => {
            return Err(Fault::NoFragments("ip6 has extension headers (leave them out)"));
        }
        (Some(Layer::Ip6(_)), _) => stream.layers.insert(ip + 1, Layer::Frag(Frag::default())),
        _ => {}
    }
    if matches!(stream.layers.last(), Some(Layer::Pad(_))) {
        return Err(Fault::NoFragments("there is padding behind the packet (leave out pad)"));
    }
    Ok(stream)
}

/// The field that fragments of a datagram have in common, and by which datagrams are told apart.
pub(super) fn identification(layers: &[Layer]) -> Option<&'static str> {
    outermost(layers)
        .and_then(|ip| layers.get(ip))
        .map(|layer| if layer.name() == "ip4" { "ip4.0.id" } else { "frag.0.id" })
}

fn outermost(layers: &[Layer]) -> Option<usize> {
    layers.iter().position(|layer| matches!(layer, Layer::Ip4(_) | Layer::Ip6(_)))
}

/// The frames of a datagram that unfragmented would be a frame of `size` bytes. `stream` is prepared.
pub(super) fn templates(
    stream: &Stream,
    fields: &[Varying],
    size: usize,
    mtu: usize,
) -> Result<Vec<Template>, (Place, Fault)> {
    let whole = Stream { stamp: false, ..stream.clone() };
    let (mut layout, _) = filled(&whole, size).map_err(|fault| (Place::Size, fault))?;
    let cut = Cut::new(stream, &layout, mtu).map_err(|fault| (Place::Fragment, fault))?;
    let shape = stream.stamp.then(|| shape(&stream.layers, &layout)).flatten();
    if stream.stamp {
        for piece in &cut.pieces {
            layout.bytes.get_mut(piece.end - TAIL..piece.end).unwrap_or_default().fill(0);
        }
    }
    let template = assemble(&whole, fields, layout, None)?;
    cut.check(&template, stream.stamp).map_err(|fault| (Place::Fragment, fault))?;
    (0..cut.pieces.len())
        .map(|piece| cut.piece(&template, shape, piece, stream.stamp))
        .collect::<Option<_>>()
        .ok_or((Place::Fragment, Fault::NoFragments("the datagram is too long")))
}

/// Where a datagram is cut.
struct Cut {
    /// Outermost IP header.
    ip: usize,
    v6: bool,
    /// First byte behind the headers that every fragment has.
    start: usize,
    /// Bytes of the datagram in each fragment.
    pieces: Vec<Range<usize>>,
}

impl Cut {
    fn new(stream: &Stream, layout: &Layout, mtu: usize) -> Result<Self, Fault> {
        let index = outermost(&stream.layers).unwrap_or(0);
        let ip = layout.starts.get(index).copied().unwrap_or(0);
        let v6 = matches!(stream.layers.get(index), Some(Layer::Ip6(_)));
        let headers = if v6 { proto::IPV6_LEN + 8 } else { proto::IPV4_LEN };
        let start = ip + headers;
        // Every fragment but the last has a multiple of 8 bytes (RFC 791 §3.2, RFC 8200 §4.5).
        let room = mtu.saturating_sub(headers) & !7;
        // A frame has at least 60 bytes, and room for its stamp.
        let least = FRAME_MIN.saturating_sub(start).max(if stream.stamp { TAIL } else { 8 });
        if room < least {
            return Err(Fault::Mtu { mtu, min: headers + least.next_multiple_of(8) });
        }
        let mut pieces: Vec<Range<usize>> =
            (start..layout.end).step_by(room).map(|from| from..layout.end.min(from + room)).collect();
        // What would be too short for a stamp takes eight bytes after eight from the piece before it.
        if let [.., before, last] = pieces.as_mut_slice()
            && last.len() < least
        {
            let moved = (least - last.len()).next_multiple_of(8);
            if before.len() < moved + least {
                return Err(Fault::Mtu { mtu, min: mtu + 8 });
            }
            before.end -= moved;
            last.start -= moved;
        }
        Ok(Self { ip, v6, start, pieces })
    }

    /// Everything that changes must be in the first fragment, and in no tail.
    fn check(&self, template: &Template, stamped: bool) -> Result<(), Fault> {
        let first = self.pieces.first().map_or(0, |piece| piece.end - if stamped { TAIL } else { 0 });
        let edits = template.edits.iter().map(|edit| edit.at + edit.width.bytes());
        let sums = template.sums.iter().map(|sum| sum.at + 4);
        if edits.chain(sums).any(|end| end > first) {
            return Err(Fault::NoFragments("the headers do not fit into the first fragment (give it more bytes)"));
        }
        if template.sums.iter().any(|sum| sum.kind == SumKind::Crc32c) {
            return Err(Fault::NoFragments("SCTP's CRC covers every fragment's time of sending (force csum=)"));
        }
        Ok(())
    }

    /// The template of one fragment.
    fn piece(&self, whole: &Template, shape: Option<Shape>, number: usize, stamped: bool) -> Option<Template> {
        let piece = self.pieces.get(number)?.clone();
        let more = number + 1 < self.pieces.len();
        let mut bytes = whole.bytes.get(..self.start)?.to_vec();
        bytes.extend(whole.bytes.get(piece.clone())?);
        let offset = u16::try_from(piece.start - self.start).ok()?;
        let (len_at, len, flags_at, flags) = if self.v6 {
            (self.ip + 4, bytes.len() - self.ip - proto::IPV6_LEN, self.start - 6, offset | u16::from(more))
        } else {
            (self.ip + 2, bytes.len() - self.ip, self.ip + 6, (u16::from(more) << 13) | (offset / 8))
        };
        // The other two bits in front of IPv4's offset are the stream's: reserved, and "don't fragment", which it has not.
        let reserved = bytes.get(flags_at).copied().unwrap_or(0) & if self.v6 { 0 } else { 0x80 };
        bytes.get_mut(len_at..len_at + 2)?.copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
        bytes.get_mut(flags_at..flags_at + 2)?.copy_from_slice(&(flags | u16::from(reserved) << 8).to_be_bytes());
        // Later fragments have the headers in front of the datagram only.
        let here = |at: usize| number == 0 || at < self.start;
        let kept: Vec<usize> =
            (0..whole.sums.len()).filter(|sum| whole.sums.get(*sum).is_some_and(|sum| here(sum.at))).collect();
        let feeds = |feeds: &[Feed]| -> Box<[Feed]> {
            let place = |feed: &Feed| kept.iter().position(|kept| *kept == feed.sum);
            feeds.iter().filter_map(|feed| Some(Feed { sum: place(feed)?, ..*feed })).collect()
        };
        let edits = whole.edits.iter().filter(|edit| here(edit.at));
        let edits = edits.map(|edit| Edit { feeds: feeds(&edit.feeds), ..edit.clone() }).collect();
        let sums = kept.iter().filter_map(|sum| whole.sums.get(*sum)).map(|sum| {
            let header = bytes.get(sum.covers.clone()).unwrap_or_default();
            let base = if sum.at < self.start { u64::from(!checksum::internet(header)) } else { sum.base };
            Resum { base, feeds: feeds(&sum.feeds), ..sum.clone() }
        });
        let sums = sums.collect();
        let at = bytes.len() - STAMP_LEN;
        let stamp = stamped.then(|| StampPlace { at, balance: Some(at - 2), feeds: Box::default() });
        let late = LateStamp { time_at: u16::try_from(at + TIME_AT).ok()?, csum_at: Some(u16::try_from(at - 2).ok()?) };
        let shape = shape.map(|shape| {
            if number == 0 {
                return Shape { end: bytes.len(), ..shape };
            }
            let (l4, payload, protocol) = (self.start, self.start, ip::FRAGMENT);
            Shape { end: bytes.len(), l3: self.ip, v6: self.v6, protocol, l4, payload }
        });
        Some(Template { bytes: bytes.into(), edits, sums, stamp, late: stamped.then_some(late), shape })
    }
}
