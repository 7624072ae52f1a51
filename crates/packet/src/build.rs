//! Layers to bytes.
//!
//! Two passes: headers are written outermost first with zero where a length or checksum goes, then these are filled in
//! innermost first, since an outer checksum covers the inner ones. Every length reaches to the end of the frame, padding
//! excepted; a shorter one is an override. [`lay_out`] tells what each checksum was taken over, so that whoever changes
//! a frame afterwards need not know it a second time.

use std::ops::Range;

use crate::checksum::Checksum;
use crate::layer::{
    Ah, Arp, Eth, Ext, ExtKind, Frag, Geneve, Gre, Gue, Icmp, Ip4, Ip6, Layer, Override, Quic, SctpData, Tcp, Vlan,
    Vxlan,
};
use crate::proto::{self, ethertype, ip};
use crate::read::put;

/// Layers that make no frame. `layer` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A length does not fit its field.
    #[error("layer {layer} ({name}): {bytes} bytes do not fit its length field (put less data behind it, or set len=)")]
    TooLong {
        /// Its place.
        layer: usize,
        /// Its name.
        name: &'static str,
        /// What would have to be written.
        bytes: usize,
    },
    /// A field has a length that the header cannot express.
    #[error("layer {layer} ({name}): {field} has {bytes} bytes, but must have {must}")]
    Size {
        /// Its place.
        layer: usize,
        /// Its name.
        name: &'static str,
        /// The field.
        field: &'static str,
        /// What it has.
        bytes: usize,
        /// What it must have.
        must: &'static str,
    },
    /// The checksum covers the addresses of an IP header that is not there.
    #[error("layer {layer} ({name}): its checksum needs an {needs} layer in front (add one, or set csum=)")]
    NoPseudoHeader {
        /// Its place.
        layer: usize,
        /// Its name.
        name: &'static str,
        /// The layers that would do.
        needs: &'static str,
    },
    /// Padding that is not at the end.
    #[error("layer {layer} (pad): padding lies beyond every length, so it must be the last layer")]
    PadInside {
        /// Its place.
        layer: usize,
    },
}

/// Byte `index` of a `data` layer.
fn data_byte(index: usize) -> u8 {
    u8::try_from(index & 0xff).unwrap_or_default()
}

/// The bytes of a `data` layer of this length: 0, 1, 2, ... 255, 0, ...
pub fn data(len: usize) -> impl Iterator<Item = u8> {
    (0..len).map(data_byte)
}

/// A frame with the places that depend on each other.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The frame.
    pub bytes: Vec<u8>,
    /// Offset of each layer.
    pub starts: Vec<usize>,
    /// Where padding starts: no length reaches beyond.
    pub end: usize,
    /// The checksums that were computed, innermost first: each may cover those before it. Forced ones are not here.
    pub sums: Vec<Sum>,
}

/// A computed checksum of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Index of its layer.
    pub layer: usize,
    /// Its algorithm, which says its width too.
    pub kind: SumKind,
    /// Offset of the field.
    pub at: usize,
    /// Offsets of the bytes that it covers, the field among them.
    pub covers: Range<usize>,
    /// What it covers beside them.
    pub pseudo: Option<Pseudo>,
}

/// How a checksum is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumKind {
    /// 16 bits, one's complement (RFC 1071).
    Internet,
    /// The same, with 0xffff in place of 0, which means none (RFC 768).
    Udp,
    /// 32 bits, CRC32c (RFC 9260 §6.8).
    Crc32c,
}

/// A pseudo header (RFC 768, RFC 8200 §8.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pseudo {
    /// Offsets of source and destination address in the frame.
    pub addresses: Range<usize>,
    /// Protocol number of the transport header.
    pub protocol: u8,
    /// Its length field.
    pub len: u32,
}

impl Sum {
    /// The checksum over the bytes of `frame` as they are, in host order. The field itself must be zero.
    pub fn over(&self, frame: &[u8]) -> u32 {
        let covered = frame.get(self.covers.clone()).unwrap_or_default();
        match self.kind {
            SumKind::Crc32c => crc32c::crc32c(covered).swap_bytes(),
            SumKind::Internet => self.start(frame).bytes(covered).finish().into(),
            SumKind::Udp => match self.start(frame).bytes(covered).finish() {
                0 => 0xffff,
                sum => sum.into(),
            },
        }
    }

    /// The sum of the pseudo header, zero without one.
    pub fn start(&self, frame: &[u8]) -> Checksum {
        self.pseudo.as_ref().map_or_else(Checksum::default, |pseudo| {
            let addresses = frame.get(pseudo.addresses.clone()).unwrap_or_default();
            Checksum::default().bytes(addresses).bytes(&pseudo.len.to_be_bytes()).word(pseudo.protocol.into())
        })
    }

    /// Bytes of the field.
    pub fn width(&self) -> usize {
        if self.kind == SumKind::Crc32c { 4 } else { 2 }
    }
}

/// The bytes of a frame made of `layers`, outermost first.
///
/// # Errors
/// A length that does not fit its field, a field of impossible size, a transport header without IP in front, padding
/// inside.
pub fn frame(layers: &[Layer]) -> Result<Vec<u8>, BuildError> {
    Ok(lay_out(layers)?.bytes)
}

/// The same frame, with the places of its layers and checksums.
///
/// # Errors
/// As [`frame`].
pub fn lay_out(layers: &[Layer]) -> Result<Layout, BuildError> {
    let starts = Vec::with_capacity(layers.len());
    let mut writer = Writer { layers, out: Vec::with_capacity(128), starts, end: 0, sums: Vec::new() };
    for index in 0..layers.len() {
        writer.write(index)?;
    }
    let pad = layers.last().map_or(0, |layer| if let Layer::Pad(bytes) = layer { bytes.len() } else { 0 });
    writer.end = writer.out.len() - pad;
    for index in (0..layers.len()).rev() {
        writer.finish(index)?;
    }
    Ok(Layout { bytes: writer.out, starts: writer.starts, end: writer.end, sums: writer.sums })
}

struct Writer<'a> {
    layers: &'a [Layer],
    out: Vec<u8>,
    /// Where each layer starts.
    starts: Vec<usize>,
    /// Where padding starts.
    end: usize,
    sums: Vec<Sum>,
}

impl Writer<'_> {
    fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.out.extend(value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.out.extend(value.to_be_bytes());
    }

    fn next(&self, index: usize) -> Option<&Layer> {
        self.layers.get(index + 1)
    }

    fn size(
        &self,
        index: usize,
        field: &'static str,
        bytes: usize,
        good: bool,
        must: &'static str,
    ) -> Result<(), BuildError> {
        let name = self.layers.get(index).map_or("", Layer::name);
        if good { Ok(()) } else { Err(BuildError::Size { layer: index + 1, name, field, bytes, must }) }
    }

    fn write(&mut self, index: usize) -> Result<(), BuildError> {
        self.starts.push(self.out.len());
        let layers = self.layers;
        let Some(layer) = layers.get(index) else { return Ok(()) };
        match layer {
            Layer::Eth(h) => self.eth(index, h),
            Layer::Vlan(h) => self.vlan(index, h),
            Layer::Arp(h) => self.arp(index, h),
            Layer::Ip4(h) => return self.ip4(index, h),
            Layer::Ip6(h) => self.ip6(index, h),
            Layer::Ext(h) => return self.ext(index, h),
            Layer::Frag(h) => self.frag(index, h),
            Layer::Ah(h) => return self.ah(index, h),
            Layer::Tcp(h) => return self.tcp(index, h),
            Layer::Udp(h) => {
                self.u16(h.sport);
                self.u16(h.dport);
                self.u32(0);
            }
            Layer::Sctp(h) => {
                self.u16(h.sport);
                self.u16(h.dport);
                self.u32(h.tag);
                self.u32(0);
            }
            Layer::Icmp(h) => self.icmp(h),
            Layer::SctpData(h) => self.sctp_data(h),
            Layer::Vxlan(h) => self.vxlan(h),
            Layer::Geneve(h) => return self.geneve(index, h),
            Layer::Gre(h) => self.gre(index, h),
            Layer::Gue(h) => return self.gue(index, h),
            Layer::Quic(h) => return self.quic(index, h),
            Layer::Data(len) => self.out.extend(data(*len)),
            Layer::Raw(bytes) => self.out.extend(bytes),
            Layer::Pad(bytes) => {
                if index + 1 != layers.len() {
                    return Err(BuildError::PadInside { layer: index + 1 });
                }
                self.out.extend(bytes);
            }
        }
        Ok(())
    }

    fn eth(&mut self, index: usize, h: &Eth) {
        self.out.extend(h.dst);
        self.out.extend(h.src);
        let ethertype = low16(h.ethertype).unwrap_or_else(|| ethertype_of(self.next(index)));
        self.u16(ethertype);
    }

    fn vlan(&mut self, index: usize, h: &Vlan) {
        self.u16(u16::from(h.pcp & 7) << 13 | u16::from(h.dei) << 12 | h.id & 0xfff);
        let ethertype = low16(h.ethertype).unwrap_or_else(|| ethertype_of(self.next(index)));
        self.u16(ethertype);
    }

    fn arp(&mut self, index: usize, h: &Arp) {
        let eth = self.layers.get(..index).unwrap_or_default().iter().rev().find_map(|layer| match layer {
            Layer::Eth(eth) => Some(eth),
            _ => None,
        });
        let sender_mac = h.sender_mac.or(eth.map(|eth| eth.src)).unwrap_or_default();
        let target_mac = h.target_mac.or(eth.filter(|_| h.reply).map(|eth| eth.dst)).unwrap_or_default();
        self.u16(1);
        self.u16(ethertype::IPV4);
        self.out.extend([6, 4]);
        self.u16(if h.reply { 2 } else { 1 });
        self.out.extend(sender_mac);
        self.out.extend(h.sender.octets());
        self.out.extend(target_mac);
        self.out.extend(h.target.octets());
    }

    fn ip4(&mut self, index: usize, h: &Ip4) -> Result<(), BuildError> {
        let opts = h.opts.len();
        self.size(index, "opts", opts, opts <= 40 && opts.is_multiple_of(4), "a multiple of 4, at most 40")?;
        self.size(index, "frag", h.frag.into(), h.frag.is_multiple_of(8), "an offset that is a multiple of 8")?;
        let words = (proto::IPV4_LEN + opts) / 4;
        let ver = low8(h.ver).unwrap_or(4) << 4;
        self.u8(ver | low8(h.ihl).unwrap_or(u8::try_from(words).unwrap_or_default()) & 0xf);
        self.u8(h.tos);
        self.u16(0);
        self.u16(h.id);
        self.u16(u16::from(h.rf) << 15 | u16::from(h.df) << 14 | u16::from(h.mf) << 13 | (h.frag / 8));
        self.u8(h.ttl);
        let protocol = low8(h.proto).unwrap_or_else(|| protocol_of(self.next(index), ip::EXPERIMENTAL));
        self.u8(protocol);
        self.u16(0);
        self.out.extend(h.src.octets());
        self.out.extend(h.dst.octets());
        self.out.extend(&h.opts);
        Ok(())
    }

    fn ip6(&mut self, index: usize, h: &Ip6) {
        let ver = u32::from(low8(h.ver).unwrap_or(6)) << 28;
        self.u32(ver | u32::from(h.tc) << 20 | h.flow & 0xf_ffff);
        self.u16(0);
        self.next_header(index, h.next);
        self.u8(h.hlim);
        self.out.extend(h.src.octets());
        self.out.extend(h.dst.octets());
    }

    fn next_header(&mut self, index: usize, next: Override) {
        let next = low8(next).unwrap_or_else(|| protocol_of(self.next(index), ip::NO_NEXT));
        self.u8(next);
    }

    fn ext(&mut self, index: usize, h: &Ext) -> Result<(), BuildError> {
        let len = h.body.len() + 2;
        self.size(
            index,
            "body",
            h.body.len(),
            len.is_multiple_of(8) && len <= 2048,
            "6 more than a multiple of 8, at most 2046",
        )?;
        self.next_header(index, h.next);
        self.u8(low8(h.len).unwrap_or(u8::try_from(len / 8 - 1).unwrap_or_default()));
        self.out.extend(&h.body);
        Ok(())
    }

    fn frag(&mut self, index: usize, h: &Frag) {
        self.next_header(index, h.next);
        self.u8(0);
        self.u16(h.off & !7 | u16::from(h.more));
        self.u32(h.id);
    }

    fn ah(&mut self, index: usize, h: &Ah) -> Result<(), BuildError> {
        let icv = h.icv.len();
        self.size(index, "icv", icv, icv.is_multiple_of(4) && icv <= 1016, "a multiple of 4, at most 1016")?;
        self.next_header(index, h.next);
        self.u8(low8(h.len).unwrap_or(u8::try_from((12 + icv) / 4 - 2).unwrap_or_default()));
        self.u16(0);
        self.u32(h.spi);
        self.u32(h.seq);
        self.out.extend(&h.icv);
        Ok(())
    }

    fn tcp(&mut self, index: usize, h: &Tcp) -> Result<(), BuildError> {
        let opts = h.opts.len();
        self.size(index, "opts", opts, opts <= 40 && opts.is_multiple_of(4), "a multiple of 4, at most 40")?;
        self.u16(h.sport);
        self.u16(h.dport);
        self.u32(h.seq);
        self.u32(h.ack);
        let words = u16::try_from((proto::TCP_LEN + opts) / 4).unwrap_or_default();
        self.u16(low16(h.off).unwrap_or(words) << 12 | h.flags & 0xfff);
        self.u16(h.win);
        self.u16(0);
        self.u16(h.urg);
        self.out.extend(&h.opts);
        Ok(())
    }

    fn icmp(&mut self, h: &Icmp) {
        self.out.extend([h.kind, h.code, 0, 0]);
        self.out.extend(h.rest);
        if let Some(neighbor) = &h.neighbor {
            self.out.extend(neighbor.target.octets());
            for (option, mac) in [(1, neighbor.sll), (2, neighbor.tll)] {
                if let Some(mac) = mac {
                    self.out.extend([option, 1]);
                    self.out.extend(mac);
                }
            }
        }
    }

    fn vxlan(&mut self, h: &Vxlan) {
        self.u32(u32::from(low8(h.flags).unwrap_or(8)) << 24 | h.res1.unwrap_or(0) & 0xff_ffff);
        self.u32(h.vni << 8 | h.res2.unwrap_or(0) & 0xff);
    }

    fn sctp_data(&mut self, h: &SctpData) {
        self.out.extend([0, h.flags, 0, 0]);
        self.u32(h.tsn);
        self.u16(h.sid);
        self.u16(h.ssn);
        self.u32(h.ppid);
    }

    fn geneve(&mut self, index: usize, h: &Geneve) -> Result<(), BuildError> {
        let opts = h.opts.len();
        self.size(index, "opts", opts, opts <= 252 && opts.is_multiple_of(4), "a multiple of 4, at most 252")?;
        self.u8(u8::try_from(opts / 4).unwrap_or_default());
        self.u8(h.flags);
        let ethertype = low16(h.ethertype).unwrap_or_else(|| ethertype_of(self.next(index)));
        self.u16(ethertype);
        self.u32(h.vni << 8 | h.res.unwrap_or(0) & 0xff);
        self.out.extend(&h.opts);
        Ok(())
    }

    fn gre(&mut self, index: usize, h: &Gre) {
        let flags = u16::from(h.sum) << 15 | u16::from(h.key.is_some()) << 13 | u16::from(h.seq.is_some()) << 12;
        self.u16(flags);
        let ethertype = low16(h.ethertype).unwrap_or_else(|| ethertype_of(self.next(index)));
        self.u16(ethertype);
        for field in [h.sum.then_some(0), h.key, h.seq].into_iter().flatten() {
            self.u32(field);
        }
    }

    fn gue(&mut self, index: usize, h: &Gue) -> Result<(), BuildError> {
        let opts = h.opts.len();
        self.size(index, "opts", opts, opts <= 124 && opts.is_multiple_of(4), "a multiple of 4, at most 124")?;
        self.u8(u8::from(h.control) << 5 | u8::try_from(opts / 4).unwrap_or_default());
        // A control message without a type is of type 0.
        let nothing = if h.control { 0 } else { ip::NO_NEXT };
        let proto = low8(h.proto).unwrap_or_else(|| protocol_of(self.next(index), nothing));
        self.u8(proto);
        self.u16(h.flags);
        self.out.extend(&h.opts);
        Ok(())
    }

    fn quic(&mut self, index: usize, h: &Quic) -> Result<(), BuildError> {
        let (Quic::Long { dcid, .. } | Quic::Short { dcid, .. }) = h;
        self.size(index, "dcid", dcid.len(), dcid.len() <= Quic::CID_MAX, "at most 20")?;
        match h {
            Quic::Long { bits, version, dcid, scid } => {
                self.size(index, "scid", scid.len(), scid.len() <= Quic::CID_MAX, "at most 20")?;
                self.u8(0xc0 | bits & 0x3f);
                self.u32(*version);
                for cid in [dcid, scid] {
                    self.u8(u8::try_from(cid.len()).unwrap_or_default());
                    self.out.extend(cid);
                }
            }
            Quic::Short { bits, dcid } => {
                self.u8(0x40 | bits & 0x3f);
                self.out.extend(dcid);
            }
        }
        Ok(())
    }

    /// Fills in what depends on the layers behind this one: they are final.
    fn finish(&mut self, index: usize) -> Result<(), BuildError> {
        let layers = self.layers;
        let (Some(layer), Some(start)) = (layers.get(index), self.starts.get(index).copied()) else { return Ok(()) };
        let rest = start..self.end;
        match layer {
            Layer::Ip4(h) => {
                let len = self.length(index, h.len, rest.len())?;
                put(&mut self.out, start + 2, &len.to_be_bytes());
                let header = start..start + proto::IPV4_LEN + h.opts.len();
                self.sum(h.csum, Sum::plain(index, start + 10, header));
            }
            Layer::Ip6(h) => {
                let len = self.length(index, h.len, rest.len() - proto::IPV6_LEN)?;
                put(&mut self.out, start + 4, &len.to_be_bytes());
            }
            Layer::Udp(h) => {
                let len = self.length(index, h.len, rest.len())?;
                put(&mut self.out, start + 4, &len.to_be_bytes());
                let sum = Sum { kind: SumKind::Udp, ..Sum::plain(index, start + 6, rest) };
                self.transport(h.csum, sum, ip::UDP, len.into())?;
            }
            Layer::Tcp(h) => {
                let len = rest.len();
                self.transport(h.csum, Sum::plain(index, start + 16, rest), ip::TCP, len)?;
            }
            Layer::Icmp(h) if h.v6 => {
                let len = rest.len();
                self.transport(h.csum, Sum::plain(index, start + 2, rest), ip::ICMPV6, len)?;
            }
            Layer::Icmp(h) => self.sum(h.csum, Sum::plain(index, start + 2, rest)),
            Layer::Sctp(h) => {
                self.sum(h.csum, Sum { kind: SumKind::Crc32c, ..Sum::plain(index, start + 8, rest) });
            }
            Layer::SctpData(h) => {
                let len = self.length(index, h.len, rest.len())?;
                put(&mut self.out, start + 2, &len.to_be_bytes());
            }
            Layer::Gre(h) if h.sum => self.sum(h.csum, Sum::plain(index, start + 4, rest)),
            _ => {}
        }
        Ok(())
    }

    fn length(&self, index: usize, forced: Override, bytes: usize) -> Result<u16, BuildError> {
        let name = self.layers.get(index).map_or("", Layer::name);
        match low16(forced) {
            Some(len) => Ok(len),
            None => u16::try_from(bytes).map_err(|_| BuildError::TooLong { layer: index + 1, name, bytes }),
        }
    }

    /// Writes a checksum: the forced one, or what is computed now.
    fn sum(&mut self, forced: Override, sum: Sum) {
        let value = forced.unwrap_or_else(|| sum.over(&self.out)).to_be_bytes();
        let (_, field) = value.split_at(value.len() - sum.width());
        put(&mut self.out, sum.at, field);
        if forced.is_none() {
            self.sums.push(sum);
        }
    }

    /// The checksum of a transport header whose pseudo header says `len` bytes; bytes beyond the frame count as absent.
    /// The destination is the IP header's even where a routing header names a later one.
    fn transport(&mut self, forced: Override, sum: Sum, protocol: u8, len: usize) -> Result<(), BuildError> {
        if forced.is_some() {
            self.sum(forced, sum);
            return Ok(());
        }
        let (layer, name) = (sum.layer + 1, self.layers.get(sum.layer).map_or("", Layer::name));
        let headers = self.layers.iter().zip(&self.starts).take(sum.layer);
        let addresses = headers.rev().find_map(|(layer, start)| match layer {
            Layer::Ip4(_) => Some(start + 12..start + proto::IPV4_LEN),
            Layer::Ip6(_) => Some(start + 8..start + proto::IPV6_LEN),
            _ => None,
        });
        let needs = if protocol == ip::ICMPV6 { "ip6" } else { "ip4 or ip6" };
        let addresses = addresses
            .filter(|addresses| addresses.len() == 32 || protocol != ip::ICMPV6)
            .ok_or(BuildError::NoPseudoHeader { layer, name, needs })?;
        // The pseudo header of IPv4 has 16 bits for it.
        let most = if addresses.len() == 32 { u32::MAX } else { u16::MAX.into() };
        let said = u32::try_from(len).ok().filter(|len| *len <= most);
        let said = said.ok_or(BuildError::TooLong { layer, name, bytes: len })?;
        let end = sum.covers.end.min(sum.covers.start + len);
        let pseudo = Some(Pseudo { addresses, protocol, len: said });
        self.sum(None, Sum { covers: sum.covers.start..end, pseudo, ..sum });
        Ok(())
    }
}

impl Sum {
    fn plain(layer: usize, at: usize, covers: Range<usize>) -> Self {
        Self { layer, kind: SumKind::Internet, at, covers, pseudo: None }
    }
}

fn low8(value: Override) -> Option<u8> {
    value.map(|value| u8::try_from(value & 0xff).unwrap_or_default())
}

fn low16(value: Override) -> Option<u16> {
    value.map(|value| u16::try_from(value & 0xffff).unwrap_or_default())
}

fn ethertype_of(next: Option<&Layer>) -> u16 {
    match next {
        Some(Layer::Ip4(_)) => ethertype::IPV4,
        Some(Layer::Ip6(_)) => ethertype::IPV6,
        Some(Layer::Arp(_)) => ethertype::ARP,
        Some(Layer::Vlan(h)) => h.tpid.unwrap_or(ethertype::VLAN),
        // Only in front of an inner frame: GRE and Geneve.
        Some(Layer::Eth(_)) => ethertype::TEB,
        _ => ethertype::EXPERIMENTAL,
    }
}

/// The number of what comes next; `nothing` where the packet ends.
fn protocol_of(next: Option<&Layer>, nothing: u8) -> u8 {
    match next {
        Some(Layer::Ip4(_)) => ip::IPV4,
        Some(Layer::Ip6(_)) => ip::IPV6,
        Some(Layer::Ext(Ext { kind: ExtKind::HopByHop, .. })) => ip::HOP_BY_HOP,
        Some(Layer::Ext(Ext { kind: ExtKind::Destination, .. })) => ip::DST_OPTS,
        Some(Layer::Ext(Ext { kind: ExtKind::Routing, .. })) => ip::ROUTING,
        Some(Layer::Frag(_)) => ip::FRAGMENT,
        Some(Layer::Ah(_)) => ip::AH,
        Some(Layer::Gre(_)) => ip::GRE,
        Some(Layer::Tcp(_)) => ip::TCP,
        Some(Layer::Udp(_)) => ip::UDP,
        Some(Layer::Sctp(_)) => ip::SCTP,
        Some(Layer::Icmp(Icmp { v6: false, .. })) => ip::ICMP,
        Some(Layer::Icmp(Icmp { v6: true, .. })) => ip::ICMPV6,
        Some(Layer::Pad(_)) | None => nothing,
        Some(_) => ip::EXPERIMENTAL,
    }
}
