//! The packets of a run: any of them can be written at any time, from its flow, its number and the time of sending.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use packet::build::SumKind;
use packet::proto::ip;

use super::arithmetic::{Divisor, mix, turns};
use super::error::{Fault, Place, TrafficError};
use super::field::{self, Varying};
use super::fragment;
use super::source::{PlanSource, Share};
use super::template::{self, Edit, Feed, SUMS_MAX, Template, Width};
use crate::receive::judge::{Reference, Shape};
use crate::scenario::{Order, Scenario, Sizes, Stream};
use crate::source::Written;
use crate::stamp::{self, FLOWS_MAX, STAMP_LEN, Stamp};

/// Longest round of sizes in a flow, and of streams in a run.
const ROUND_MAX: usize = 4096;

/// The packets of a run. Clones share them.
#[derive(Clone, Debug)]
pub struct Plan {
    inner: Arc<Inner>,
}

/// One stream of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Numbers of its flows.
    pub flows: Range<u32>,
    /// Its packets carry stamps.
    pub stamped: bool,
}

#[derive(Debug)]
struct Inner {
    magic: u32,
    seed: u64,
    streams: Vec<StreamPlan>,
    /// Whose turn it is, among streams.
    turns: Vec<u32>,
    flows: u32,
    longest: usize,
}

/// The packets of one stream.
#[derive(Debug)]
pub(super) struct StreamPlan {
    name: String,
    /// Number of its first flow in the run.
    first: u32,
    flows: u32,
    stamped: bool,
    pub(super) order: Order,
    fields: Vec<Varying>,
    templates: Vec<Template>,
    /// The packets of a round.
    round: Vec<Slot>,
    round_len: Divisor,
    /// Datagrams of a round, where they are fragmented.
    datagrams: Option<u32>,
}

/// One packet in a round of sizes.
#[derive(Clone, Copy, Debug)]
struct Slot {
    template: u32,
    /// Number of its datagram in the round.
    datagram: u32,
    /// Fragments of that from this one on.
    left: u32,
}

impl Plan {
    /// Prepares the packets of `scenario` for a run with this magic.
    ///
    /// # Errors
    /// The first of what [`check`](Self::check) finds.
    pub fn new(scenario: &Scenario, magic: u32) -> Result<Self, TrafficError> {
        let (streams, errors) = plans(scenario);
        let turns = match errors.into_iter().next() {
            Some(error) => return Err(error),
            None => rounds(scenario)?,
        };
        let flows = streams.last().map_or(0, |stream| stream.first + stream.flows);
        let frames = streams.iter().flat_map(|stream| &stream.templates);
        let longest = frames.map(|template| template.bytes.len()).max().unwrap_or(0);
        Ok(Self { inner: Arc::new(Inner { magic, seed: scenario.seed, streams, turns, flows, longest }) })
    }

    /// Everything that is wrong with `scenario`, one error for a stream; nothing when it can be sent.
    pub fn check(scenario: &Scenario) -> Vec<TrafficError> {
        let (_, mut errors) = plans(scenario);
        errors.extend(rounds(scenario).err());
        errors
    }

    /// Bytes of the longest frame.
    pub fn longest(&self) -> usize {
        self.inner.longest
    }

    /// Number of flows, all streams together: those of the first stream come first.
    pub fn flows(&self) -> u32 {
        self.inner.flows
    }

    /// What the packets of this run carry to tell them from others.
    pub fn magic(&self) -> u32 {
        self.inner.magic
    }

    /// The seed of everything random.
    pub fn seed(&self) -> u64 {
        self.inner.seed
    }

    /// The streams, as they were given.
    pub fn streams(&self) -> impl ExactSizeIterator<Item = StreamInfo<'_>> {
        self.inner.streams.iter().map(|stream| StreamInfo {
            name: &stream.name,
            flows: stream.flows(),
            stamped: stream.stamped,
        })
    }

    /// Source address and port of a flow, as its first packet has them in the innermost headers; no port where there is none,
    /// and nothing where packets carry no stamp.
    pub fn endpoint(&self, flow: u32) -> Option<(IpAddr, Option<u16>)> {
        let shape = Reference::shape(self, flow, 0)?;
        let mut frame = vec![0; self.longest()];
        self.write(flow, 0, 0, &mut frame);
        let address = if shape.v6 {
            let octets: [u8; 16] = frame.get(shape.l3 + 8..)?.first_chunk().copied()?;
            IpAddr::from(octets)
        } else {
            let octets: [u8; 4] = frame.get(shape.l3 + 12..)?.first_chunk().copied()?;
            IpAddr::from(octets)
        };
        let ported = matches!(shape.protocol, ip::TCP | ip::UDP | ip::SCTP);
        let port = frame.get(shape.l4..)?.first_chunk().copied().map(u16::from_be_bytes).filter(|_| ported);
        Some((address, port))
    }

    /// Index of the stream that `flow` belongs to.
    pub fn stream_of(&self, flow: u32) -> Option<usize> {
        let after = self.inner.streams.partition_point(|stream| stream.first <= flow);
        (flow < self.inner.flows).then(|| after.checked_sub(1)).flatten()
    }

    /// Writes packet `seq` of `flow`, sent at `sent_ns` (the low bits of CLOCK_MONOTONIC), to the start of `out`. What is no
    /// flow of this run, or does not fit, has length 0.
    pub fn write(&self, flow: u32, seq: u32, sent_ns: u32, out: &mut [u8]) -> Written {
        match self.stream_of(flow).and_then(|stream| self.inner.streams.get(stream)) {
            Some(stream) => stream.write(self.inner.magic, Stamp { flow, seq, sent_ns }, out),
            None => NOTHING,
        }
    }

    /// One thread's share of the packets.
    ///
    /// # Errors
    /// Where a stream has fewer flows than there are threads.
    pub fn source(&self, share: Share) -> Result<PlanSource, TrafficError> {
        PlanSource::new(self, share)
    }

    pub(super) fn stream(&self, index: usize) -> Option<&StreamPlan> {
        self.inner.streams.get(index)
    }

    pub(super) fn turns(&self) -> &[u32] {
        &self.inner.turns
    }
}

impl Reference for Plan {
    fn flows(&self) -> u32 {
        self.inner.flows
    }

    fn streams(&self) -> usize {
        self.inner.streams.len()
    }

    fn stream_of(&self, flow: u32) -> usize {
        self.stream_of(flow).unwrap_or(0)
    }

    fn longest(&self) -> usize {
        self.inner.longest
    }

    fn write(&self, flow: u32, seq: u32, sent_ns: u32, out: &mut [u8]) -> usize {
        self.write(flow, seq, sent_ns, out).len
    }

    fn shape(&self, flow: u32, seq: u32) -> Option<Shape> {
        let stream = self.inner.streams.get(self.stream_of(flow)?)?;
        stream.turn(flow - stream.first, seq)?.0.shape
    }
}

const NOTHING: Written = Written { len: 0, late: None };

/// The plan of every stream that has one, and what is wrong with the others.
fn plans(scenario: &Scenario) -> (Vec<StreamPlan>, Vec<TrafficError>) {
    let (mut plans, mut errors) = (Vec::new(), Vec::new());
    let mut first = 0u64;
    for (index, stream) in scenario.streams.iter().enumerate() {
        let error =
            |(place, fault)| TrafficError { stream: index, name: stream.name.clone(), place, fault: Box::new(fault) };
        let flows = first + u64::from(stream.flows);
        if stream.flows == 0 || flows > FLOWS_MAX.into() {
            errors.push(error((Place::Flows, Fault::Flows { flows })));
            continue;
        }
        let seed = mix(scenario.seed, u64::try_from(index).unwrap_or(0));
        match StreamPlan::new(stream, u32::try_from(first).unwrap_or(0), seed) {
            Ok(plan) => plans.push(plan),
            Err(fault) => errors.push(error(fault)),
        }
        first = flows;
    }
    (plans, errors)
}

/// Whose turn it is among the streams.
fn rounds(scenario: &Scenario) -> Result<Vec<u32>, TrafficError> {
    let weights: Vec<u32> = scenario.streams.iter().map(|stream| stream.weight).collect();
    turns(&weights, ROUND_MAX).ok_or_else(|| TrafficError {
        stream: 0,
        name: scenario.streams.first().map_or_else(String::new, |stream| stream.name.clone()),
        place: Place::Weight,
        fault: Box::new(Fault::Weights { max: ROUND_MAX }),
    })
}

impl StreamPlan {
    fn new(stream: &Stream, first: u32, seed: u64) -> Result<Self, (Place, Fault)> {
        if let Order::Zipf(exponent) = stream.order
            && super::arithmetic::Ranks::new(stream.flows, exponent).is_none()
        {
            return Err((Place::Order, Fault::Exponent(exponent.to_string())));
        }
        let (name, flows, order, stamped) = (stream.name.clone(), stream.flows, stream.order, stream.stamp);
        let prepared;
        let stream = match stream.fragment {
            Some(_) => {
                prepared = fragment::prepared(stream).map_err(|fault| (Place::Fragment, fault))?;
                &prepared
            }
            None => stream,
        };
        let layout = template::described(stream).map_err(|fault| (Place::Frame, fault))?;
        let fields = field::resolve(stream, &layout, seed)?;
        let (sizes, turns) = sizes(stream)?;
        let mut templates = Vec::new();
        // Of each size, the templates of its fragments.
        let mut pieces = Vec::with_capacity(sizes.len());
        for size in sizes {
            let from = templates.len();
            match stream.fragment {
                Some(mtu) => templates.extend(fragment::templates(stream, &fields, size, mtu)?),
                None => templates.push(template::template(stream, &fields, size)?),
            }
            pieces.push(from..templates.len());
        }
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let mut round = Vec::new();
        for (datagram, turn) in turns.iter().enumerate() {
            let pieces = usize::try_from(*turn).ok().and_then(|turn| pieces.get(turn)).cloned().unwrap_or_default();
            let end = pieces.end;
            round.extend(pieces.map(|template| Slot {
                template: narrow(template),
                datagram: narrow(datagram),
                left: narrow(end - template),
            }));
        }
        let round_len = Divisor::new(narrow(round.len()));
        let datagrams = stream.fragment.map(|_| narrow(turns.len()));
        Ok(Self { name, first, flows, stamped, order, fields, templates, round, round_len, datagrams })
    }

    /// Numbers of its flows in the run.
    pub(super) fn flows(&self) -> Range<u32> {
        self.first..self.first + self.flows
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Template of packet `seq` of a flow, and the number of its datagram in the flow. Sizes go round over the packets of a flow,
    /// and each flow starts elsewhere in the round, but for fragments, which must not start within a datagram.
    #[inline]
    fn turn(&self, flow: u32, seq: u32) -> Option<(&Template, u32)> {
        if let ([only], None) = (self.templates.as_slice(), self.datagrams) {
            return Some((only, seq));
        }
        let start = if self.datagrams.is_some() { 0 } else { self.round_len.split(flow).1 };
        let (rounds, turn) = self.round_len.split(seq.wrapping_add(start));
        let slot = self.round.get(usize::try_from(turn).ok()?)?;
        let packet = self.datagrams.map_or(seq, |datagrams| rounds.wrapping_mul(datagrams).wrapping_add(slot.datagram));
        Some((self.templates.get(usize::try_from(slot.template).ok()?)?, packet))
    }

    /// Fragments of a datagram from packet `seq` on; 1 where nothing is fragmented.
    #[inline]
    pub(super) fn pieces(&self, seq: u32) -> u32 {
        if self.datagrams.is_none() {
            return 1;
        }
        let slot = usize::try_from(self.round_len.split(seq).1).ok().and_then(|turn| self.round.get(turn));
        slot.map_or(1, |slot| slot.left)
    }

    /// Writes the frame of `stamp`, whose flow is one of this stream.
    #[inline]
    pub(super) fn write(&self, magic: u32, stamp: Stamp, out: &mut [u8]) -> Written {
        let flow = stamp.flow.wrapping_sub(self.first);
        let Some((template, packet)) = self.turn(flow, stamp.seq) else { return NOTHING };
        let Some(out) = out.get_mut(..template.bytes.len()) else { return NOTHING };
        out.copy_from_slice(&template.bytes);
        let mut totals = [0; SUMS_MAX];
        for edit in &template.edits {
            let Some(field) = self.fields.get(edit.field) else { continue };
            edit.store(field.values.at(flow, packet), out, &mut totals);
        }
        if let Some(place) = &template.stamp
            && let Some(bytes) = out.get_mut(place.at..place.at + STAMP_LEN)
        {
            stamp::write(bytes, magic, stamp);
            let sum = stamp_sum(bytes);
            feed(&place.feeds, sum, &mut totals);
            if let Some(at) = place.balance {
                put(out, at, (!fold(sum)).to_be_bytes());
            }
        }
        template.sum(out, &mut totals);
        Written { len: out.len(), late: template.late }
    }
}

impl Edit {
    /// ORs a value into the frame and adds it to the checksums that cover it.
    #[inline]
    fn store(&self, value: u128, out: &mut [u8], totals: &mut [u64; SUMS_MAX]) {
        let value = value << self.shift;
        // Where the field is narrower the upper halves are zero.
        let (high, low) = ((value >> 64) as u64, value as u64);
        let Some(out) = out.get_mut(self.at..) else { return };
        match self.width {
            Width::B1 => or(out, [low as u8]),
            Width::B2 => or(out, (low as u16).to_be_bytes()),
            Width::B4 => or(out, (low as u32).to_be_bytes()),
            Width::B8 => or(out, low.to_be_bytes()),
            Width::B16 => or(out, value.to_be_bytes()),
        }
        feed(&self.feeds, words(low) + words(high), totals);
    }
}

#[inline]
fn or<const N: usize>(out: &mut [u8], value: [u8; N]) {
    if let Some(place) = out.first_chunk_mut::<N>() {
        place.iter_mut().zip(value).for_each(|(byte, value)| *byte |= value);
    }
}

/// A number whose one's complement sum of 16-bit words is that of `value`.
#[inline]
fn words(value: u64) -> u64 {
    (value >> 32) + (value & 0xffff_ffff)
}

#[inline]
fn feed(feeds: &[Feed], value: u64, totals: &mut [u64; SUMS_MAX]) {
    for feed in feeds {
        if let Some(total) = totals.get_mut(feed.sum) {
            *total += value << feed.shift;
        }
    }
}

#[inline]
fn stamp_sum(stamp: &[u8]) -> u64 {
    let word = |at: usize| stamp.get(at..).and_then(|rest| rest.first_chunk().copied()).map_or(0, u64::from_be_bytes);
    let last = stamp.get(16..).and_then(|rest| rest.first_chunk().copied()).map_or(0, u16::from_be_bytes);
    words(word(0)) + words(word(8)) + u64::from(last)
}

impl Template {
    /// Writes the checksums: each is final before one that covers it is summed up.
    #[inline]
    fn sum(&self, out: &mut [u8], totals: &mut [u64; SUMS_MAX]) {
        for (number, sum) in self.sums.iter().enumerate() {
            let value = match sum.kind {
                SumKind::Crc32c => {
                    let crc = crc32c::crc32c(out.get(sum.covers.clone()).unwrap_or_default()).swap_bytes();
                    put(out, sum.at, crc.to_be_bytes());
                    u64::from(crc)
                }
                SumKind::Internet | SumKind::Udp => {
                    let total = sum.base + totals.get(number).copied().unwrap_or(0);
                    let csum = match (!fold(total), sum.kind) {
                        (0, SumKind::Udp) => 0xffff,
                        (csum, _) => csum,
                    };
                    put(out, sum.at, csum.to_be_bytes());
                    u64::from(csum)
                }
            };
            feed(&sum.feeds, value, totals);
        }
    }
}

#[inline]
fn put<const N: usize>(out: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = out.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>()) {
        *place = value;
    }
}

/// Adds the carries of a sum of words back in (RFC 1071 §2 (A)).
#[inline]
fn fold(total: u64) -> u16 {
    let total = words(total);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    total as u16
}

/// The sizes that occur, and the round in which they come.
fn sizes(stream: &Stream) -> Result<(Vec<usize>, Vec<u32>), (Place, Fault)> {
    let frame = |fault| (Place::Frame, fault);
    let (parts, raise) = match &stream.sizes {
        Sizes::Shortest => return Ok((vec![template::possible(stream, 0).map_err(frame)?], vec![0])),
        Sizes::Mix { parts, raise } => (parts, *raise),
    };
    let weights: Vec<u32> = parts.iter().map(|(_, weight)| *weight).collect();
    let round = turns(&weights, ROUND_MAX).ok_or((Place::Size, Fault::Mix { max: ROUND_MAX }))?;
    let size = |size: usize| if raise { template::possible(stream, size).map_err(frame) } else { Ok(size) };
    Ok((parts.iter().map(|(wanted, _)| size(*wanted)).collect::<Result<_, _>>()?, round))
}
