//! A frame of one size, ready to be copied, with everything that a packet changes in it.
//!
//! What varies is zero in the template: a store is then an OR, and the sum of what a checksum covers is the template's plus
//! that of each value, whatever its place in its 16-bit word. A value at an odd offset counts 256-fold, which swaps the
//! bytes of every word (RFC 1071 §2 (B)).

use std::ops::Range;

use packet::Layer;
use packet::build::{self, Layout, Sum, SumKind};
use packet::layer::{SctpData, Tcp};
use packet::proto::{self, ip};

use super::error::{Fault, Place};
use super::field::Varying;
use super::{FRAME_MAX, FRAME_MIN};
use crate::receive::judge::Shape;
use crate::scenario::Stream;
use crate::source::LateStamp;
use crate::stamp::STAMP_LEN;

/// Most checksums in one frame.
pub(super) const SUMS_MAX: usize = 8;
/// Kind of a TCP option for experiments (RFC 6994); its length, kind and length among it.
const OPTION: [u8; 2] = [254, 20];
/// What a stamp takes in the header of a SYN.
const OPTION_LEN: usize = OPTION.len() + STAMP_LEN;

/// A frame of one size.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) bytes: Box<[u8]>,
    /// Those of the stream's fields that are in this frame.
    pub(super) edits: Box<[Edit]>,
    /// Checksums, innermost first.
    pub(super) sums: Box<[Resum]>,
    pub(super) stamp: Option<StampPlace>,
    pub(super) late: Option<LateStamp>,
    pub(super) shape: Option<Shape>,
}

/// A value that goes into the frame: `width` bytes at `at`, shifted up by `shift` bits.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    /// Index of the stream's field.
    pub(super) field: usize,
    pub(super) at: usize,
    pub(super) width: Width,
    pub(super) shift: u8,
    pub(super) feeds: Box<[Feed]>,
}

/// Bytes that are stored at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    B1,
    B2,
    B4,
    B8,
    B16,
}

impl Width {
    fn of(bytes: usize) -> Self {
        match bytes {
            0..=1 => Self::B1,
            2 => Self::B2,
            3..=4 => Self::B4,
            5..=8 => Self::B8,
            _ => Self::B16,
        }
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::B1 => 1,
            Self::B2 => 2,
            Self::B4 => 4,
            Self::B8 => 8,
            Self::B16 => 16,
        }
    }
}

/// A checksum that a value is part of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feed {
    /// Index of the checksum.
    pub(super) sum: usize,
    /// The value counts two to the power of this: 0 or 8.
    pub(super) shift: u8,
}

/// A checksum that is put together from its parts.
#[derive(Clone, Debug)]
pub(super) struct Resum {
    pub(super) kind: SumKind,
    pub(super) at: usize,
    /// Sum of everything that does not vary.
    pub(super) base: u64,
    /// What a CRC is taken over.
    pub(super) covers: Range<usize>,
    pub(super) feeds: Box<[Feed]>,
}

/// Where the stamp goes.
#[derive(Clone, Debug)]
pub(super) struct StampPlace {
    pub(super) at: usize,
    /// Where the complement of its sum goes, so that no checksum around it changes.
    pub(super) balance: Option<usize>,
    pub(super) feeds: Box<[Feed]>,
}

/// The layers of a stream without what fills them up.
struct Parts {
    head: Vec<Layer>,
    /// What the description gives of the payload.
    given: Vec<u8>,
    pad: Vec<u8>,
}

impl Parts {
    fn of(stream: &Stream) -> Self {
        let mut head = stream.layers.clone();
        let pad = match head.pop_if(|layer| matches!(layer, Layer::Pad(_))) {
            Some(Layer::Pad(pad)) => pad,
            _ => Vec::new(),
        };
        let mut given = Vec::new();
        while let Some(layer) = head.pop_if(|layer| matches!(layer, Layer::Data(_) | Layer::Raw(_))) {
            let bytes = if let Layer::Raw(bytes) = layer { bytes } else { data_of(&layer) };
            given.splice(0..0, bytes);
        }
        // A packet of SCTP has chunks.
        if let Some(Layer::Sctp(_)) = head.last() {
            head.push(Layer::SctpData(SctpData::default()));
        }
        Self { head, given, pad }
    }

    /// What lengths of payload are multiples of: chunks are padded (RFC 9260 §3.2), but a stamp is the end.
    fn step(&self) -> usize {
        if matches!(self.head.last(), Some(Layer::SctpData(_))) { 4 } else { 1 }
    }

    fn lay_out(&self, head: &[Layer], payload: Vec<u8>) -> Result<Layout, Fault> {
        let mut layers = head.to_vec();
        if !payload.is_empty() {
            layers.push(Layer::Raw(payload));
        }
        if !self.pad.is_empty() {
            layers.push(Layer::Pad(self.pad.clone()));
        }
        Ok(build::lay_out(&layers)?)
    }

    /// The header of a SYN takes the stamp where nothing else is to be sent and there is room.
    fn stamped_head(&self) -> Option<Vec<Layer>> {
        let mut head = self.head.clone();
        match head.last_mut() {
            Some(Layer::Tcp(tcp))
                if tcp.flags & Tcp::SYN != 0 && self.given.is_empty() && tcp.opts.len() + OPTION_LEN <= 40 =>
            {
                tcp.opts.extend(OPTION);
                tcp.opts.extend([0; STAMP_LEN]);
                Some(head)
            }
            _ => None,
        }
    }
}

fn data_of(layer: &Layer) -> Vec<u8> {
    if let Layer::Data(len) = layer { build::data(*len).collect() } else { Vec::new() }
}

/// The layers of `stream` as they are described.
pub(super) fn described(stream: &Stream) -> Result<Layout, Fault> {
    if !matches!(stream.layers.first(), Some(Layer::Eth(_))) {
        return Err(Fault::NoEthernet);
    }
    Ok(build::lay_out(&stream.layers)?)
}

/// The shortest frame of at least `wanted` bytes that headers, data and stamp make.
pub(super) fn possible(stream: &Stream, wanted: usize) -> Result<usize, Fault> {
    let parts = Parts::of(stream);
    let headers = parts.lay_out(&parts.head, Vec::new())?.bytes.len();
    let stamp = match (stream.stamp, parts.stamped_head()) {
        (false, _) => 0,
        // No payload, or one that is as long as the option.
        (true, Some(_)) => OPTION_LEN,
        (true, None) => STAMP_LEN,
    };
    let payload = wanted.max(FRAME_MIN).saturating_sub(headers).max(parts.given.len() + stamp);
    Ok(headers + payload.next_multiple_of(parts.step()))
}

/// The template for frames of `size` bytes.
pub(super) fn template(stream: &Stream, fields: &[Varying], size: usize) -> Result<Template, (Place, Fault)> {
    let (layout, stamp) = filled(stream, size).map_err(|fault| (Place::Size, fault))?;
    let frame = |fault| (Place::Frame, fault);
    let stamp = if stream.stamp { Some(stamp_place(stream, &layout, stamp).map_err(frame)?) } else { None };
    assemble(stream, fields, layout, stamp)
}

/// A frame of this size, with zeros where the stamp goes, and the offset of the stamp.
pub(super) fn filled(stream: &Stream, size: usize) -> Result<(Layout, usize), Fault> {
    let parts = Parts::of(stream);
    let refused = || Fault::Size { size, min: possible(stream, 0).unwrap_or(FRAME_MIN) };
    if !(FRAME_MIN..=FRAME_MAX).contains(&size) {
        return Err(refused());
    }
    let bare = parts.lay_out(&parts.head, parts.given.clone())?.bytes.len();
    let room = size.checked_sub(bare).ok_or_else(refused)?;
    if stream.stamp
        && room == OPTION_LEN
        && let Some(head) = parts.stamped_head()
    {
        let layout = parts.lay_out(&head, Vec::new())?;
        let at = layout.end - STAMP_LEN;
        return Ok((layout, at));
    }
    let stamp = if stream.stamp { STAMP_LEN } else { 0 };
    let filler = room.checked_sub(stamp).ok_or_else(refused)?;
    if !(parts.given.len() + room).is_multiple_of(parts.step()) {
        return Err(Fault::Unaligned { size, near: possible(stream, size)? });
    }
    let payload = parts.given.iter().copied().chain(build::data(filler)).chain(std::iter::repeat_n(0, stamp)).collect();
    let layout = parts.lay_out(&parts.head, payload)?;
    let at = layout.end - stamp;
    Ok((layout, at))
}

/// The stamp ends where the length of the outermost IP header says that the packet does.
fn stamp_place(stream: &Stream, layout: &Layout, at: usize) -> Result<usize, Fault> {
    let outermost = stream.layers.iter().zip(&layout.starts).find_map(|(layer, start)| {
        let (len_at, more) = match layer {
            Layer::Ip4(_) => (2, 0),
            Layer::Ip6(_) => (4, proto::IPV6_LEN),
            _ => return None,
        };
        let len = layout.bytes.get(start + len_at..)?.first_chunk().copied().map(u16::from_be_bytes)?;
        Some(start + usize::from(len) + more)
    });
    match outermost {
        Some(end) if end == at + STAMP_LEN => Ok(at),
        Some(_) => Err(Fault::Length),
        None => Err(Fault::NoIp),
    }
}

pub(super) fn assemble(
    stream: &Stream,
    fields: &[Varying],
    layout: Layout,
    stamp: Option<usize>,
) -> Result<Template, (Place, Fault)> {
    let shape = stamp.and_then(|_| shape(&stream.layers, &layout));
    let Layout { mut bytes, starts, sums, .. } = layout;
    let places: Vec<Window> = fields
        .iter()
        .map(|varying| {
            Window::new(
                starts.get(varying.layer).copied().unwrap_or(0) * 8 + varying.field.bit,
                varying.field.bits,
                bytes.len(),
            )
        })
        .collect();
    // A checksum that varies is not computed.
    let sums: Vec<Sum> =
        sums.into_iter().filter(|sum| places.iter().all(|place| place.field.start != sum.at)).collect();
    if sums.len() > SUMS_MAX {
        return Err((Place::Frame, Fault::Many { what: "computed checksums", max: SUMS_MAX }));
    }
    for place in &places {
        place.clear(&mut bytes);
    }
    for sum in &sums {
        bytes.get_mut(sum.at..sum.at + sum.width()).unwrap_or_default().fill(0);
    }
    let feeds = |bytes: &Range<usize>, origin: usize, narrow: bool, what: &str| {
        feeds(&stream.layers, &sums, bytes, origin, narrow, what)
    };
    let mut edits = Vec::with_capacity(places.len());
    for (field, (place, varying)) in places.iter().zip(fields).enumerate() {
        let narrow = place.width == Width::B1;
        let feeds =
            feeds(&place.field, place.at, narrow, varying.field.name).map_err(|fault| (varying.place, fault))?;
        edits.push(Edit { field, at: place.at, width: place.width, shift: place.shift, feeds });
    }
    let frame = |fault| (Place::Frame, fault);
    let stamp = match stamp {
        Some(at) => Some(StampPlace {
            at,
            balance: None,
            feeds: feeds(&(at..at + STAMP_LEN), at, false, "the stamp").map_err(frame)?,
        }),
        None => None,
    };
    let late = stamp.as_ref().and_then(|stamp| late(stamp, &sums));
    let mut resums = Vec::with_capacity(sums.len());
    for (number, sum) in sums.iter().enumerate() {
        let field = sum.at..sum.at + sum.width();
        let mut feeds = feeds(&field, sum.at, false, "another checksum").map_err(frame)?.into_vec();
        // It covers its own field, which is zero while it is computed.
        feeds.retain(|feed| feed.sum > number);
        let base = match sum.kind {
            SumKind::Crc32c => 0,
            SumKind::Internet | SumKind::Udp => {
                let covered = bytes.get(sum.covers.clone()).unwrap_or_default();
                u64::from(!sum.start(&bytes).bytes(covered).finish())
            }
        };
        resums.push(Resum { kind: sum.kind, at: sum.at, base, covers: sum.covers.clone(), feeds: feeds.into() });
    }
    Ok(Template { bytes: bytes.into(), edits: edits.into(), sums: resums.into(), stamp, late, shape })
}

/// The checksums that cover `bytes`, which are stored from `origin` on, as whole words unless `narrow`: as one byte.
fn feeds(
    layers: &[Layer],
    sums: &[Sum],
    bytes: &Range<usize>,
    origin: usize,
    narrow: bool,
    what: &str,
) -> Result<Box<[Feed]>, Fault> {
    let mut feeds = Vec::new();
    for (number, sum) in sums.iter().enumerate() {
        let ranges = [Some(&sum.covers), sum.pseudo.as_ref().map(|pseudo| &pseudo.addresses)];
        for range in ranges.into_iter().flatten() {
            if bytes.start >= range.end || bytes.end <= range.start {
                continue;
            }
            if bytes.start < range.start || bytes.end > range.end {
                let layer = layers.get(sum.layer).map_or("a layer", Layer::name);
                return Err(Fault::Partial { layer, what: what.to_owned() });
            }
            // The high byte of a word stands at an even offset; a window may begin in front of what is covered.
            let odd = origin.abs_diff(range.start) % 2 == 1;
            feeds.push(Feed { sum: number, shift: if odd != narrow { 8 } else { 0 } });
        }
    }
    Ok(feeds.into())
}

/// Where the time may be changed afterwards. An Internet checksum that covers the time makes up for it in every
/// checksum around it, so there is one to adjust at most; a CRC cannot be adjusted.
fn late(stamp: &StampPlace, sums: &[Sum]) -> Option<LateStamp> {
    let covering: Vec<&Sum> = stamp.feeds.iter().filter_map(|feed| sums.get(feed.sum)).collect();
    if covering.iter().any(|sum| sum.kind == SumKind::Crc32c) {
        return None;
    }
    let csum_at = match covering.first() {
        Some(sum) => Some(u16::try_from(sum.at).ok()?),
        None => None,
    };
    Some(LateStamp { time_at: u16::try_from(stamp.at + 12).ok()?, csum_at })
}

/// The window of 1, 2, 4, 8 or 16 bytes that a field is stored through.
struct Window {
    at: usize,
    width: Width,
    shift: u8,
    /// The bytes that hold bits of the field.
    field: Range<usize>,
    bits: usize,
}

impl Window {
    fn new(bit: usize, bits: usize, len: usize) -> Self {
        let field = bit / 8..(bit + bits).div_ceil(8);
        let width = Width::of(field.len());
        // The window begins with the field unless it would reach beyond the frame.
        let at = field.start.min(len.saturating_sub(width.bytes()));
        let shift = (at + width.bytes()) * 8 - (bit + bits);
        Self { at, width, shift: u8::try_from(shift).unwrap_or(0), field, bits }
    }

    /// Zeroes the bits of the field.
    fn clear(&self, bytes: &mut [u8]) {
        let mask = if self.bits >= 128 { u128::MAX } else { ((1u128 << self.bits) - 1) << self.shift };
        let end = self.at + self.width.bytes();
        let masks = mask.to_be_bytes().into_iter().skip(16 - self.width.bytes());
        for (byte, mask) in bytes.get_mut(self.at..end).unwrap_or_default().iter_mut().zip(masks) {
            *byte &= !mask;
        }
    }
}

/// What the receiver looks for: the innermost IP header and what follows it.
pub(super) fn shape(layers: &[Layer], layout: &Layout) -> Option<Shape> {
    let starts = layout.starts.get(..layers.len().min(layout.starts.len()))?;
    let is_ip = |layer: &Layer| matches!(layer, Layer::Ip4(_) | Layer::Ip6(_));
    let inner = layers.iter().rposition(is_ip)?;
    let l3 = starts.get(inner).copied()?;
    let v6 = matches!(layers.get(inner), Some(Layer::Ip6(_)));
    let is_extension = |layer: &Layer| matches!(layer, Layer::Ext(_) | Layer::Frag(_) | Layer::Ah(_));
    let transport =
        (inner + 1..layers.len()).find(|index| layers.get(*index).is_some_and(|layer| !is_extension(layer)));
    let l4 = transport.and_then(|index| starts.get(index).copied()).unwrap_or(layout.end);
    let byte = |at: usize| layout.bytes.get(at).copied().unwrap_or(0);
    let (protocol, header) = match transport.and_then(|index| layers.get(index)) {
        Some(Layer::Tcp(_)) => (ip::TCP, usize::from(byte(l4 + 12) >> 4) * 4),
        Some(Layer::Udp(_)) => (ip::UDP, proto::UDP_LEN),
        Some(Layer::Sctp(_)) => (ip::SCTP, proto::SCTP_LEN),
        Some(Layer::Icmp(icmp)) => (if icmp.v6 { ip::ICMPV6 } else { ip::ICMP }, proto::ICMP_LEN),
        _ => (byte(if v6 { l3 + 6 } else { l3 + 9 }), 0),
    };
    Some(Shape { end: layout.end, l3, v6, protocol, l4, payload: (l4 + header).min(layout.end) })
}
