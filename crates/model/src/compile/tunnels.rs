//! Whose tunnel packets are taken in, and what may be inside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::notice::CompileError;
use super::routes::Scope;
use crate::desired::Tunnel;
use crate::tables::{InnerSources, SourceRange, TunnelPeer};

/// Entries that fit the table of tunnel peers, the node's own addresses among them.
const PEERS_MAX: usize = 1 << 18;
/// Ranges of inner sources that fit their table.
const SOURCES_MAX: usize = 16_384;
/// Where IPv4 lies among the numbers of IPv6.
const IPV4: SourceRange = SourceRange { first: 0xffff << 32, last: 0xffff << 32 | 0xffff_ffff };

/// The tables of peers and of inner sources. Of two Tunnels with the same peer the first by name counts.
pub(super) fn tunnels(
    scope: Scope<'_>,
) -> Result<(BTreeMap<TunnelPeer, InnerSources>, Vec<SourceRange>), CompileError> {
    let mut peers = BTreeMap::new();
    let mut sources = Vec::new();
    let mut known: BTreeMap<Vec<SourceRange>, InnerSources> = BTreeMap::new();
    for tunnel in &scope.desired.tunnels {
        let ranges = tunnel.sources.as_deref().map(ranges);
        let inner = match ranges {
            None => InnerSources::Any,
            Some(ranges) => *known.entry(ranges).or_insert_with_key(|ranges| {
                let first = sources.len() as u32;
                sources.extend_from_slice(ranges);
                InnerSources::Ranges { first, count: ranges.len() as u32 }
            }),
        };
        for peer in &tunnel.peers {
            peers.entry(TunnelPeer { kind: tunnel.kind, source: peer.trunc() }).or_insert(inner);
        }
    }
    peers.extend(own(scope).into_iter().map(|peer| (peer, InnerSources::Own)));
    let too_many = |what, limit| Err(CompileError::TooMany { what, limit });
    if peers.len() > PEERS_MAX {
        return too_many("tunnel peers", PEERS_MAX);
    }
    if sources.len() > SOURCES_MAX {
        return too_many("inner sources of tunnels", SOURCES_MAX);
    }
    Ok((peers, sources))
}

/// The node's own addresses among those of peers: nobody else sends from them.
fn own(scope: Scope<'_>) -> Vec<TunnelPeer> {
    let addresses: BTreeSet<IpAddr> = scope.addresses().map(|(_, net)| net.addr()).collect();
    let of_tunnel = |tunnel: &Tunnel| {
        let own = |peer: &IpNet| addresses.range(peer.network()..=peer.broadcast()).copied().collect::<Vec<_>>();
        let peer = |address: IpAddr| TunnelPeer { kind: tunnel.kind, source: address.into() };
        tunnel.peers.iter().flat_map(own).map(peer).collect::<Vec<_>>()
    };
    scope.desired.tunnels.iter().flat_map(of_tunnel).collect()
}

/// The addresses of the prefixes, in order. IPv6 prefixes leave out where IPv4 lies.
fn ranges(prefixes: &[IpNet]) -> Vec<SourceRange> {
    let mut all: Vec<SourceRange> = prefixes.iter().flat_map(|prefix| range(*prefix)).collect();
    all.sort_unstable();
    let mut merged: Vec<SourceRange> = Vec::with_capacity(all.len());
    for range in all {
        match merged.last_mut() {
            Some(last) if range.first <= last.last => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

fn range(prefix: IpNet) -> impl Iterator<Item = SourceRange> {
    let number = |address: IpAddr| {
        u128::from(match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        })
    };
    let whole = SourceRange { first: number(prefix.network()), last: number(prefix.broadcast()) };
    let parts = match prefix {
        IpNet::V6(net) if net.contains(&Ipv6Addr::from(IPV4.first)) => [
            Some(SourceRange { last: IPV4.first - 1, ..whole }).filter(|below| below.first <= below.last),
            Some(SourceRange { first: IPV4.last + 1, ..whole }).filter(|above| above.first <= above.last),
        ],
        _ => [Some(whole), None],
    };
    parts.into_iter().flatten()
}
