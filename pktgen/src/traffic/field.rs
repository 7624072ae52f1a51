//! Header fields that vary: where each is, and its value for a flow and a packet.

use packet::Layer;
use packet::build::Layout;
use packet::field::{Field, fields};

use super::arithmetic::{Divisor, Ranks, SplitMix, below, mix};
use super::error::{Fault, Place};
use super::fragment;
use crate::scenario::{Each, Order, Stream, Vary};
use crate::stamp::FLOWS_MAX;

/// A field of one of a stream's layers that varies.
#[derive(Clone, Debug)]
pub(super) struct Varying {
    /// Index of the layer.
    pub(super) layer: usize,
    pub(super) field: Field,
    pub(super) values: Values,
    /// For errors.
    pub(super) place: Place,
}

/// The values of a field.
#[derive(Clone, Debug)]
pub(super) struct Values {
    start: u128,
    step: u128,
    mask: u128,
    index: Index,
}

/// Which value it is.
#[derive(Clone, Debug)]
enum Index {
    /// The wheel of an odometer that counts flows: a turn for every `divide` flows.
    Wheel {
        divide: Divisor,
        count: Divisor,
    },
    /// The number of the packet in the stream, were its flows sent in turn.
    Packet {
        count: u64,
        flows: u64,
    },
    Random {
        seed: u64,
        count: u32,
        each: Each,
    },
    Zipf {
        seed: u64,
        ranks: Ranks,
        each: Each,
    },
}

impl Values {
    /// The value for packet `packet` of `flow`, at the low end of its bits.
    #[inline]
    pub(super) fn at(&self, flow: u32, packet: u32) -> u128 {
        let number = |each| match each {
            Each::Flow => u64::from(flow),
            Each::Packet => u64::from(packet) << 24 | u64::from(flow),
        };
        let index = match &self.index {
            Index::Wheel { divide, count } => count.split(divide.split(flow).0).1,
            Index::Packet { count, flows } => {
                u32::try_from((u64::from(packet) * flows + u64::from(flow)) % count).unwrap_or(0)
            }
            Index::Random { seed, count, each } => below(mix(*seed, number(*each)), *count),
            Index::Zipf { seed, ranks, each } => ranks.draw(&mut SplitMix(mix(*seed, number(*each)))),
        };
        self.start.wrapping_add(self.step.wrapping_mul(index.into())) & self.mask
    }

    /// Whether there is but one value, so that the field need not be written.
    fn is_constant(&self) -> bool {
        matches!(&self.index, Index::Wheel { count, .. } if count.get() == 1)
    }
}

/// The fields of `stream` that vary. `layout` is that of its layers.
pub(super) fn resolve(stream: &Stream, layout: &Layout, seed: u64) -> Result<Vec<Varying>, (Place, Fault)> {
    let mut vary = stream.vary.clone();
    if vary.is_empty() {
        vary = five_tuple(&stream.layers, layout, stream.flows);
    }
    // Datagrams that are fragmented are told apart by their identification.
    if let Some(id) = stream.fragment.and_then(|_| fragment::identification(&stream.layers))
        && vary.iter().all(|vary| vary.field != id && vary.field != id.replace(".0", ""))
    {
        let count = if id.starts_with("ip4") { 1 << 16 } else { u32::MAX };
        vary.push(Vary { field: id.to_owned(), count, step: 1, order: Order::Sequential, each: Each::Packet });
    }
    let mut found: Vec<Varying> = Vec::new();
    let mut divide = 1u64;
    for (number, vary) in vary.iter().enumerate() {
        let place = Place::Vary(number, "field");
        let (layer, field) = locate(&stream.layers, &vary.field).map_err(|fault| (place, fault))?;
        let overlaps = |other: &&Varying| {
            other.layer == layer
                && other.field.bit < field.bit + field.bits
                && field.bit < other.field.bit + other.field.bits
        };
        if found.iter().find(overlaps).is_some() {
            return Err((place, Fault::Twice));
        }
        let max = if field.bits >= 32 { u64::from(u32::MAX) } else { 1 << field.bits };
        if vary.count == 0 || u64::from(vary.count) > max {
            let fault = Fault::Values { count: vary.count, bits: field.bits, max };
            return Err((Place::Vary(number, "count"), fault));
        }
        let index = index(vary, number, seed, stream.flows, &mut divide)?;
        let start = read(&layout.bytes, layout.starts.get(layer).copied().unwrap_or(0) * 8 + field.bit, field.bits);
        let mask = if field.bits >= 128 { u128::MAX } else { (1 << field.bits) - 1 };
        found.push(Varying { layer, field, values: Values { start, step: vary.step, mask, index }, place });
    }
    found.retain(|varying| !varying.values.is_constant());
    Ok(found)
}

fn index(vary: &Vary, number: usize, seed: u64, flows: u32, divide: &mut u64) -> Result<Index, (Place, Fault)> {
    let seed = mix(seed, u64::try_from(number).unwrap_or(0));
    Ok(match (vary.order, vary.each) {
        (Order::Sequential, Each::Flow) => {
            let wheel = u32::try_from((*divide).min(FLOWS_MAX.into())).unwrap_or(FLOWS_MAX);
            *divide = divide.saturating_mul(vary.count.into());
            Index::Wheel { divide: Divisor::new(wheel), count: Divisor::new(vary.count) }
        }
        (Order::Sequential, Each::Packet) => Index::Packet { count: vary.count.into(), flows: flows.into() },
        (Order::Random, each) => Index::Random { seed, count: vary.count, each },
        (Order::Zipf(exponent), each) => {
            let ranks = Ranks::new(vary.count, exponent)
                .ok_or_else(|| (Place::Vary(number, "order"), Fault::Exponent(exponent.to_string())))?;
            Index::Zipf { seed, ranks, each }
        }
    })
}

/// How flows differ when nothing is said: in source port up to the last one, or ICMP's identifier, then in source address.
fn five_tuple(layers: &[Layer], layout: &Layout, flows: u32) -> Vec<Vary> {
    let wheel = |layer: &Layer, name: &str, count: u32| Vary {
        field: format!("{}.{name}", layer.name()),
        count: count.max(1),
        step: 1,
        order: Order::Sequential,
        each: Each::Flow,
    };
    let mut vary = Vec::new();
    for (layer, start) in layers.iter().zip(&layout.starts).rev() {
        let name = match layer {
            Layer::Tcp(_) | Layer::Udp(_) | Layer::Sctp(_) => "sport",
            Layer::Icmp(_) => "id",
            Layer::Ip4(_) | Layer::Ip6(_) => {
                vary.push(wheel(layer, "src", flows));
                break;
            }
            _ => continue,
        };
        if let Some(field) = fields(layer).iter().find(|field| field.name == name)
            && vary.is_empty()
        {
            let first = u32::try_from(read(&layout.bytes, start * 8 + field.bit, 16)).unwrap_or(0);
            vary.push(wheel(layer, name, flows.min(0x1_0000 - first)));
        }
    }
    vary
}

/// The layer and field of a path.
fn locate(layers: &[Layer], path: &str) -> Result<(usize, Field), Fault> {
    let parts: Vec<&str> = path.split('.').collect();
    let (name, index, field) = match parts.as_slice() {
        [layer, field] => (*layer, None, *field),
        [layer, index, field] => {
            (*layer, Some(index.parse::<usize>().map_err(|_| Fault::Path(path.to_owned()))?), *field)
        }
        _ => return Err(Fault::Path(path.to_owned())),
    };
    let mut named = layers.iter().enumerate().filter(|(_, layer)| layer.name() == name);
    let found = match index {
        Some(index) => named.nth(index),
        None => named.next_back(),
    };
    let (at, layer) = found.ok_or_else(|| Fault::NoLayer {
        layer: name.to_owned(),
        index,
        have: layers.iter().map(Layer::name).collect(),
    })?;
    let known = fields(layer);
    let field = known.iter().find(|known| known.name == field).ok_or_else(|| Fault::NoField {
        layer: layer.name(),
        field: field.to_owned(),
        have: known.iter().map(|field| field.name).collect(),
    })?;
    Ok((at, *field))
}

/// `bits` bits of `bytes`, the first of them bit `bit`; bits beyond the end are 0.
fn read(bytes: &[u8], bit: usize, bits: usize) -> u128 {
    (bit..bit + bits).fold(0, |value, bit| {
        let byte = bytes.get(bit / 8).copied().unwrap_or(0);
        value << 1 | u128::from(byte >> (7 - bit % 8) & 1)
    })
}
