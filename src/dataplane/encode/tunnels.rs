//! Peers of tunnels and the inner sources behind them.

use model::desired::TunnelKind;
use model::tables::{InnerSources, SourceRange, Tables, TunnelPeer};

use super::{Encoded, Entries, SOURCES_HALF, Table, ip_addr, mapped_prefix_len, vni_bytes};
use crate::dataplane::abi::{self, types};

/// The key of a peer.
pub(super) fn tunnel_peer(peer: &TunnelPeer) -> types::tunnel_peer_key {
    let (kind, vni) = match peer.kind {
        TunnelKind::Ipip => (types::tunnel_kind::TUNNEL_IPIP, 0),
        TunnelKind::Vxlan { vni } => (types::tunnel_kind::TUNNEL_VXLAN, vni),
        TunnelKind::Gue => (types::tunnel_kind::TUNNEL_GUE, 0),
    };
    let family = if peer.source.addr().is_ipv6() { types::tunnel_kind::TUNNEL_SOURCE6.0 } else { 0 };
    types::tunnel_peer_key {
        prefix_len: 32 + mapped_prefix_len(peer.source),
        kind: (kind.0 | family) as u8,
        vni: vni_bytes(vni),
        source: ip_addr(peer.source.network()),
    }
}

/// Its value; ranges from `base` on.
pub(super) fn inner_sources(inner: InnerSources, base: usize) -> types::tunnel_peer {
    match inner {
        InnerSources::Own => types::tunnel_peer { own: 1, ..Default::default() },
        InnerSources::Any => types::tunnel_peer::default(),
        InnerSources::Ranges { first, count } => {
            types::tunnel_peer { own: 0, first: first.saturating_add(base as u32), sources: count }
        }
    }
}

fn source_range(range: &SourceRange) -> types::source_range {
    let halves = |address: u128| [(address >> 64) as u64, address as u64];
    types::source_range { first: halves(range.first), last: halves(range.last) }
}

/// The entries of the inner sources, written from `base` on.
pub(in crate::dataplane) fn sources(tables: &Tables, base: usize) -> Entries {
    let entry = |(index, range): (u32, &SourceRange)| {
        (abi::bytes_of(&index).to_vec(), abi::bytes_of(&source_range(range)).to_vec())
    };
    (base as u32..).zip(&tables.tunnel_sources).map(entry).collect()
}

/// The half of the map of inner sources that the peers use.
pub(in crate::dataplane) fn sources_base(entries: &Encoded) -> usize {
    let peers = entries.table(Table::TunnelPeers).values();
    let upper = peers
        .filter_map(|bytes| abi::from_bytes::<types::tunnel_peer>(bytes))
        .any(|peer| peer.first as usize >= SOURCES_HALF);
    if upper { SOURCES_HALF } else { 0 }
}
