//! Where the fields of a header are: for whoever changes one field of a frame that is already built.
//!
//! Names are those of the notation; values are what the wire carries (`ip4.frag` counts units of eight bytes).

use crate::layer::{Icmp, Layer, Quic};

/// A field of a header: `bits` bits, the first of them `bit` bits behind the start of the layer, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name, as the notation writes it.
    pub name: &'static str,
    /// Offset in bits.
    pub bit: usize,
    /// Width in bits, 1 to 128.
    pub bits: usize,
}

const fn f(name: &'static str, bit: usize, bits: usize) -> Field {
    Field { name, bit, bits }
}

const ETH: &[Field] = &[f("dst", 0, 48), f("src", 48, 48), f("type", 96, 16)];
const VLAN: &[Field] = &[f("pcp", 0, 3), f("dei", 3, 1), f("id", 4, 12), f("type", 16, 16)];
const ARP: &[Field] = &[f("sha", 64, 48), f("sender", 112, 32), f("tha", 144, 48), f("target", 192, 32)];
const IP4: &[Field] = &[
    f("ver", 0, 4),
    f("ihl", 4, 4),
    f("tos", 8, 8),
    f("len", 16, 16),
    f("id", 32, 16),
    f("rf", 48, 1),
    f("df", 49, 1),
    f("mf", 50, 1),
    f("frag", 51, 13),
    f("ttl", 64, 8),
    f("proto", 72, 8),
    f("csum", 80, 16),
    f("src", 96, 32),
    f("dst", 128, 32),
];
const IP6: &[Field] = &[
    f("ver", 0, 4),
    f("tc", 4, 8),
    f("flow", 12, 20),
    f("len", 32, 16),
    f("proto", 48, 8),
    f("hlim", 56, 8),
    f("src", 64, 128),
    f("dst", 192, 128),
];
const EXT: &[Field] = &[f("proto", 0, 8), f("len", 8, 8)];
const FRAG: &[Field] = &[f("proto", 0, 8), f("off", 16, 13), f("more", 31, 1), f("id", 32, 32)];
const AH: &[Field] = &[f("proto", 0, 8), f("len", 8, 8), f("spi", 32, 32), f("seq", 64, 32)];
const TCP: &[Field] = &[
    f("sport", 0, 16),
    f("dport", 16, 16),
    f("seq", 32, 32),
    f("ack", 64, 32),
    f("off", 96, 4),
    f("bits", 100, 12),
    f("win", 112, 16),
    f("csum", 128, 16),
    f("urg", 144, 16),
];
const UDP: &[Field] = &[f("sport", 0, 16), f("dport", 16, 16), f("len", 32, 16), f("csum", 48, 16)];
const SCTP: &[Field] = &[f("sport", 0, 16), f("dport", 16, 16), f("tag", 32, 32), f("csum", 64, 32)];
const ICMP: &[Field] = &[
    f("type", 0, 8),
    f("code", 8, 8),
    f("csum", 16, 16),
    f("rest", 32, 32),
    f("id", 32, 16),
    f("seq", 48, 16),
    f("mtu", 48, 16),
];
const ICMP6: &[Field] = &[
    f("type", 0, 8),
    f("code", 8, 8),
    f("csum", 16, 16),
    f("rest", 32, 32),
    f("id", 32, 16),
    f("seq", 48, 16),
    f("mtu", 32, 32),
];
const VXLAN: &[Field] = &[f("flags", 0, 8), f("res1", 8, 24), f("vni", 32, 24), f("res2", 56, 8)];

const SCTP_DATA: &[Field] =
    &[f("flags", 8, 8), f("len", 16, 16), f("tsn", 32, 32), f("sid", 64, 16), f("ssn", 80, 16), f("ppid", 96, 32)];
const GENEVE: &[Field] = &[f("flags", 8, 8), f("type", 16, 16), f("vni", 32, 24), f("res", 56, 8)];
const GRE: &[Field] = &[f("type", 16, 16)];
const GUE: &[Field] = &[f("proto", 8, 8), f("flags", 16, 16)];
const QUIC_LONG: &[Field] = &[f("bits", 2, 6), f("version", 8, 32)];
const QUIC_SHORT: &[Field] = &[f("bits", 2, 6)];

/// The fields of a layer.
pub fn fields(layer: &Layer) -> Vec<Field> {
    let mut fields = fixed(layer).to_vec();
    match layer {
        Layer::Gre(h) => {
            let mut bit = 32;
            for (name, there, bits) in [("csum", h.sum, 16), ("key", h.key.is_some(), 32), ("seq", h.seq.is_some(), 32)]
            {
                if there {
                    fields.push(f(name, bit, bits));
                    bit += 32;
                }
            }
        }
        Layer::Quic(Quic::Long { dcid, scid, .. }) => {
            fields.extend(cid("dcid", 6, dcid));
            fields.extend(cid("scid", 7 + dcid.len(), scid));
        }
        Layer::Quic(Quic::Short { dcid, .. }) => fields.extend(cid("dcid", 1, dcid)),
        _ => {}
    }
    fields
}

/// A connection identifier counts in its last 16 bytes.
fn cid(name: &'static str, at: usize, cid: &[u8]) -> Option<Field> {
    let bytes = cid.len().min(16);
    (bytes > 0).then(|| f(name, (at + cid.len() - bytes) * 8, bytes * 8))
}

/// The fields that are in the same place in every header of a kind.
fn fixed(layer: &Layer) -> &'static [Field] {
    match layer {
        Layer::Eth(_) => ETH,
        Layer::Vlan(_) => VLAN,
        Layer::Arp(_) => ARP,
        Layer::Ip4(_) => IP4,
        Layer::Ip6(_) => IP6,
        Layer::Ext(_) => EXT,
        Layer::Frag(_) => FRAG,
        Layer::Ah(_) => AH,
        Layer::Tcp(_) => TCP,
        Layer::Udp(_) => UDP,
        Layer::Sctp(_) => SCTP,
        Layer::Icmp(Icmp { v6: false, .. }) => ICMP,
        Layer::Icmp(Icmp { v6: true, .. }) => ICMP6,
        Layer::Vxlan(_) => VXLAN,
        Layer::SctpData(_) => SCTP_DATA,
        Layer::Geneve(_) => GENEVE,
        Layer::Gre(_) => GRE,
        Layer::Gue(_) => GUE,
        Layer::Quic(Quic::Long { .. }) => QUIC_LONG,
        Layer::Quic(Quic::Short { .. }) => QUIC_SHORT,
        Layer::Data(_) | Layer::Raw(_) | Layer::Pad(_) => &[],
    }
}
