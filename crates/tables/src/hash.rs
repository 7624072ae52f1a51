//! The flow hash, bit for bit the one of the program (`docs/datapath.md`, "Flow hash").
//!
//! One hash a packet answers for everything that spreads flows: ring slot, next-hop bucket, VXLAN source port and IPv6
//! flow label. They take different bits, so that flows of one bucket still spread over a ring; the bucket is a node's own choice.

use std::net::IpAddr;

use crate::buckets::GROUP_BUCKETS;
use crate::maglev::RING_SLOTS;

/// 2^64 divided by the golden ratio, odd (Knuth, The Art of Computer Programming, §6.4).
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
/// First dynamic port (RFC 6335 §6): VXLAN source ports start here (RFC 7348 §5).
const FIRST_SOURCE_PORT: u16 = 49_152;

/// What identifies a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Source and destination port; `None` where the packet has none: fragments but the first, ICMP, other protocols.
    pub ports: Option<(u16, u16)>,
    /// IP protocol number.
    pub protocol: u8,
}

/// The hash of a flow.
#[must_use]
pub fn flow_hash(key: &FlowKey) -> u64 {
    let (source_port, destination_port) = key.ports.unwrap_or((0, 0));
    let hash = match (key.source, key.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => add(0, word(&source.octets()), word(&destination.octets())),
        (source, destination) => add_address(add_address(0, source), destination),
    };
    let ports = u32::from(source_port) << 16 | u32::from(destination_port);
    add(hash, ports >> 24, ports << 8 | u32::from(key.protocol))
}

/// The hash of everything of a client for an address: what its slot is found by where clients stay with their backends.
#[must_use]
pub fn client_hash(source: IpAddr, destination: IpAddr) -> u64 {
    flow_hash(&FlowKey { source, destination, ports: None, protocol: 0 })
}

/// The hash of a VIP: of the destination's address, port and protocol. IPv4 addresses take one round, so the last octets have to be the low bits
/// and the high bits of the hash have to be taken.
#[must_use]
pub(crate) fn service_hash(address: IpAddr, port: u16, protocol: u8) -> u64 {
    let upper = u32::from(port.to_be()) << 16 | u32::from(protocol);
    match address {
        IpAddr::V4(v4) => add(0, v4.to_bits(), upper),
        IpAddr::V6(v6) => add_address(add(0, v6.to_bits() as u32, upper), address),
    }
}

/// The hash of a QUIC server ID of a VIP, zero behind its `len` octets.
#[must_use]
pub(crate) fn server_hash(vip: u32, len: u8, id: [u8; 16]) -> u64 {
    let (words, _) = id.as_chunks::<4>();
    // Eight octets are loaded as one number, the first of them lowest.
    let halves = words.as_chunks::<2>().0.iter();
    halves.fold(add(0, vip, len.into()), |hash, [low, high]| add(hash, word(high), word(low)))
}

/// The slot of a flow in a Maglev ring, 0 to [`RING_SLOTS`] - 1.
#[must_use]
pub fn ring_slot(hash: u64) -> usize {
    (((hash >> 32) * RING_SLOTS as u64) >> 32) as usize
}

/// The bucket of a flow in a next-hop group of the node with this [`seed`], 0 to [`GROUP_BUCKETS`] - 1.
#[must_use]
pub fn bucket(hash: u64, seed: u64) -> usize {
    ((hash ^ seed).wrapping_mul(MULTIPLIER) >> (u64::BITS - GROUP_BUCKETS.ilog2())) as usize
}

/// What makes a node's choice among next hops its own: routers behind each other that chose alike would leave next hops unused.
/// From the name, so that it outlives the process (FNV-1a of Fowler, Noll and Vo).
#[must_use]
pub fn seed(node: &str) -> u64 {
    node.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The UDP source port of VXLAN packets of a flow, 49152 to 65535 (RFC 7348 §5).
#[must_use]
pub fn source_port(hash: u64) -> u16 {
    FIRST_SOURCE_PORT + (hash & 0x3fff) as u16
}

/// The source of a flow's outer headers, where `varied` low bits of it, below 32, are the flow's; clear in `source`.
#[must_use]
pub fn outer_source(source: IpAddr, varied: u8, hash: u64) -> IpAddr {
    let bits = hash as u32 & ((1 << (varied & 31)) - 1);
    match source {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) | bits).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) | u128::from(bits)).into()),
    }
}

/// The flow label of outer IPv6 headers of a flow, 20 bits (RFC 6438).
#[must_use]
pub fn flow_label(hash: u64) -> u32 {
    (hash & 0xf_ffff) as u32
}

fn add(hash: u64, high: u32, low: u32) -> u64 {
    let hash = (hash ^ (u64::from(high) << 32 | u64::from(low))).wrapping_mul(MULTIPLIER);
    hash ^ hash >> 32
}

/// The program loads network-order words as they lie, hence little-endian here.
fn word(octets: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*octets)
}

fn add_address(hash: u64, address: IpAddr) -> u64 {
    let octets = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let (words, _) = octets.as_chunks::<4>();
    words.as_chunks::<2>().0.iter().fold(hash, |hash, [high, low]| add(hash, word(high), word(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: &str, destination: &str, ports: Option<(u16, u16)>, protocol: u8) -> FlowKey {
        FlowKey { source: source.parse().unwrap(), destination: destination.parse().unwrap(), ports, protocol }
    }

    /// All of a client is one flow, whatever it is.
    #[test]
    fn a_client_is_its_address() {
        let (source, destination) = ("203.0.113.9".parse().unwrap(), "192.0.2.10".parse().unwrap());
        let client = client_hash(source, destination);
        assert_eq!(client, add(add(0, word(&[203, 0, 113, 9]), word(&[192, 0, 2, 10])), 0, 0));
        assert_ne!(client, client_hash("203.0.113.10".parse().unwrap(), destination));
    }

    /// The definition of the page, word by word.
    fn by_definition(words: &[u64]) -> u64 {
        let mut h: u64 = 0;
        for w in words {
            h = (h ^ w).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            h ^= h >> 32;
        }
        h
    }

    #[test]
    fn words_of_ipv4() {
        let flow = key("10.0.0.1", "192.0.2.10", Some((40_000, 80)), 6);
        assert_eq!(flow_hash(&flow), by_definition(&[0x0100_000a_0a02_00c0, (40_000 << 16 | 80) << 8 | 6]));
    }

    #[test]
    fn words_of_ipv6() {
        let flow = key("2001:db8::1", "2001:db8:100::10", Some((40_000, 80)), 17);
        let addresses = [0xb80d_0120_0000_0000, 0x0100_0000, 0xb80d_0120_0000_0001, 0x1000_0000];
        let words: Vec<u64> = addresses.into_iter().chain([(40_000 << 16 | 80) << 8 | 17]).collect();
        assert_eq!(flow_hash(&flow), by_definition(&words));
    }

    #[test]
    fn without_ports_the_word_is_zero() {
        let without = key("10.0.0.1", "192.0.2.10", None, 1);
        let zero = key("10.0.0.1", "192.0.2.10", Some((0, 0)), 1);
        assert_eq!(flow_hash(&without), flow_hash(&zero));
    }

    /// Fixed values: a change of the hash moves every flow of every gateway, so it has to be meant.
    #[test]
    fn known_values() {
        let tcp = flow_hash(&key("10.0.0.1", "192.0.2.10", Some((40_000, 80)), 6));
        assert_eq!(tcp, KNOWN_TCP);
        let ranges = (ring_slot(u64::MAX), ring_slot(0), source_port(u64::MAX), flow_label(u64::MAX));
        assert_eq!(ranges, (65_536, 0, 65_535, 0xf_ffff));
        assert_eq!((bucket(tcp, 0), bucket(tcp, 1), bucket(tcp, seed("edge-1"))), KNOWN_BUCKETS);
        // The authors' own.
        assert_eq!((seed(""), seed("a"), seed("foobar")), (0xcbf29ce484222325, 0xaf63dc4c8601ec8c, 0x85944171f73967e8));
    }

    #[test]
    fn the_outer_source_stays_within_its_prefix() {
        let of = |source: &str, varied, hash| outer_source(source.parse().unwrap(), varied, hash).to_string();
        assert_eq!(of("172.16.0.0", 16, u64::MAX), "172.16.255.255");
        assert_eq!(of("172.16.0.0", 16, 0xaaaa_bbbb_cccc_0102), "172.16.1.2");
        assert_eq!(of("172.16.0.16", 4, u64::MAX), "172.16.0.31");
        assert_eq!(of("192.0.2.1", 0, u64::MAX), "192.0.2.1");
        assert_eq!(of("fd00::", 31, u64::MAX), "fd00::7fff:ffff");
    }

    const KNOWN_BUCKETS: (usize, usize, usize) = (39, 15, 21);
    const KNOWN_TCP: u64 = 1_634_025_348_273_485_288;

    /// Flows that differ in one place by one: source port, source, destination, the second half of an IPv6 address, its first.
    #[test]
    fn flows_spread_evenly_whatever_tells_them_apart() {
        let base = || key("10.0.0.1", "192.0.2.10", Some((40_000, 80)), 6);
        let ip4 = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0001 + n));
        let ip6 =
            |n: u32, shift: u32| IpAddr::from(std::net::Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(n) << shift));
        let patterns: [(&str, &dyn Fn(u32) -> FlowKey); 6] = [
            ("ports", &|n| FlowKey {
                source: ip4(n / 60_000),
                ports: Some((1024 + (n % 60_000) as u16, 80)),
                ..base()
            }),
            ("sources", &|n| FlowKey { source: ip4(n), ..base() }),
            ("destinations", &|n| FlowKey { destination: ip4(n << 8), ..base() }),
            ("low half", &|n| FlowKey { source: ip6(n, 0), destination: ip6(1, 0), ..base() }),
            ("prefixes", &|n| FlowKey { source: ip6(1, 0), destination: ip6(n, 64), ..base() }),
            ("without ports", &|n| FlowKey { source: ip4(n), ports: None, protocol: 47, ..base() }),
        ];
        for (name, flow) in patterns {
            let mut counts = [[0u32; 64]; 3];
            for n in 0..64_000 {
                let h = flow_hash(&flow(n));
                counts[0][ring_slot(h) * 64 / RING_SLOTS] += 1;
                counts[1][bucket(h, seed("edge-1")) * 64 / GROUP_BUCKETS] += 1;
                // What the lines of the flow table, source ports and labels are made of.
                counts[2][h as usize % 64] += 1;
            }
            // 1000 expected; six standard deviations of a uniform choice are 190.
            assert!(counts.iter().flatten().all(|count| (810..=1190).contains(count)), "{name}: {counts:?}");
        }
    }

    /// Two routers behind each other, each with 4 ways on: flows that take one way at the first take all four at the second.
    #[test]
    fn nodes_choose_independently() {
        let (first, second) = (seed("spine-1"), seed("leaf-1"));
        let mut ways = [[0u32; 4]; 4];
        for port in 0..16_000u16 {
            let h = flow_hash(&key("10.0.0.1", "192.0.2.10", Some((port, 80)), 17));
            ways[bucket(h, first) % 4][bucket(h, second) % 4] += 1;
        }
        // 1000 expected.
        assert!(ways.iter().flatten().all(|flows| (800..=1200).contains(flows)), "{ways:?}");
    }
}
