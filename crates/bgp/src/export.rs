//! Adj-RIB-Out of one peer: which prefixes it has been told of, and the UPDATEs that bring it up to date.
//!
//! Routes are originated here and nowhere else: what is learned from a peer is never passed on. Next hop is always
//! ourselves; AS_PATH is our AS towards an external peer and empty towards an internal one, which gets LOCAL_PREF instead
//! (RFC 4271 §5.1). Messages are made one at a time, so a slow peer costs differences, not memory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use rustbgpd_wire as codec;
use rustbgpd_wire::PathAttribute;

use crate::wire::{self, MAX_MESSAGE_BYTES};
use crate::{Established, Family};

/// LOCAL_PREF of our routes towards internal peers.
const LOCAL_PREF: u32 = 100;

/// A community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997, `aa:nn`.
    Standard(u16, u16),
    /// RFC 8092, `aa:nn:mm`.
    Large(u32, u32, u32),
}

/// What we announce: prefixes with their communities.
pub type Announced = BTreeMap<IpNet, Arc<BTreeSet<Community>>>;

/// Our own addresses on the session, the next hops of what we announce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHops {
    /// For IPv4 prefixes.
    pub v4: Option<Ipv4Addr>,
    /// For IPv6 prefixes, and for IPv4 ones where they go over IPv6 and the peer takes that; without either address, prefixes
    /// of a family are not announced.
    pub v6: Option<Ipv6Addr>,
    /// Our link-local address, where the peer is on that link: it goes beside the global one (RFC 2545 §3).
    pub link_local: Option<Ipv6Addr>,
    /// The session runs over IPv6.
    pub over_ipv6: bool,
}

/// The Adj-RIB-Out of one established session.
#[derive(Debug)]
pub struct AdjRibOut {
    local_asn: u32,
    internal: bool,
    four_octet_as: bool,
    families: Vec<Family>,
    next_hops: NextHops,
    /// IPv4 prefixes have our IPv6 address as next hop (RFC 8950).
    extended_next_hop: bool,
    /// What the peer will know once all pending messages are out.
    routes: Announced,
    withdraw: BTreeSet<IpNet>,
    /// Prefixes to announce, by what their UPDATE has in common.
    announce: BTreeMap<(Family, Arc<BTreeSet<Community>>), BTreeSet<IpNet>>,
    end_of_rib: BTreeSet<Family>,
}

impl AdjRibOut {
    /// The Adj-RIB-Out of a session that has just come up: the peer knows nothing.
    #[must_use]
    pub fn new(local_asn: u32, internal: bool, established: &Established, next_hops: NextHops) -> Self {
        Self {
            local_asn,
            internal,
            four_octet_as: established.four_octet_as,
            families: established.families.clone(),
            next_hops,
            extended_next_hop: established.extended_next_hop && next_hops.over_ipv6 && next_hops.v6.is_some(),
            routes: Announced::new(),
            withdraw: BTreeSet::new(),
            announce: BTreeMap::new(),
            end_of_rib: BTreeSet::new(),
        }
    }

    /// Can prefixes of this family be announced on this session?
    #[must_use]
    pub fn speaks(&self, family: Family) -> bool {
        self.families.contains(&family) && self.next_hop(family).is_some()
    }

    fn next_hop(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 if !self.extended_next_hop => self.next_hops.v4.map(IpAddr::V4),
            Family::Ipv4 | Family::Ipv6 => self.next_hops.v6.map(IpAddr::V6),
        }
    }

    /// Replaces everything that is announced; only the difference to what was set before goes out.
    pub fn set(&mut self, wanted: &Announced) {
        let gone: Vec<IpNet> = self.routes.keys().filter(|prefix| !wanted.contains_key(*prefix)).copied().collect();
        for prefix in gone {
            self.forget(prefix);
            self.withdraw.insert(prefix);
        }
        for (prefix, communities) in wanted {
            if self.speaks(Family::of(*prefix)) && self.routes.get(prefix) != Some(communities) {
                self.forget(*prefix);
                self.plan(*prefix, communities);
            }
        }
    }

    /// The first set of routes is complete: End-of-RIB goes out after them, for each family (RFC 4724 §2).
    pub fn end_of_rib(&mut self) {
        self.end_of_rib.extend(&self.families);
    }

    /// Announces all routes of a family again (RFC 2918).
    pub fn refresh(&mut self, family: Family) {
        let again: Vec<_> = self
            .routes
            .iter()
            .filter(|(prefix, _)| Family::of(**prefix) == family)
            .map(|(prefix, communities)| (*prefix, Arc::clone(communities)))
            .collect();
        for (prefix, communities) in again {
            self.plan(prefix, &communities);
        }
    }

    /// Number of prefixes that the peer is told of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// The peer is told of nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The next UPDATE to send, at most 4,096 bytes; `None` once the peer is up to date. Withdrawals come first.
    pub fn next_message(&mut self) -> Option<Bytes> {
        if let Some(family) = self.withdraw.first().map(|prefix| Family::of(*prefix)) {
            return Some(self.next_withdrawal(family));
        }
        if let Some((family, communities)) = self.announce.keys().next().cloned() {
            return Some(self.next_announcement(family, communities));
        }
        let family = self.end_of_rib.pop_first()?;
        Some(self.build(&[], withdrawal(family, &[])))
    }

    fn forget(&mut self, prefix: IpNet) {
        if let Some(communities) = self.routes.remove(&prefix) {
            let key = (Family::of(prefix), communities);
            if let Some(pending) = self.announce.get_mut(&key) {
                pending.remove(&prefix);
                if pending.is_empty() {
                    self.announce.remove(&key);
                }
            }
        }
    }

    fn plan(&mut self, prefix: IpNet, communities: &Arc<BTreeSet<Community>>) {
        self.withdraw.remove(&prefix);
        self.routes.insert(prefix, Arc::clone(communities));
        self.announce.entry((Family::of(prefix), Arc::clone(communities))).or_default().insert(prefix);
    }

    fn next_withdrawal(&mut self, family: Family) -> Bytes {
        let empty = self.build(&[], withdrawal(family, &[])).len();
        let prefixes = take_fitting(&mut self.withdraw, family, empty);
        self.build(&[], withdrawal(family, &prefixes))
    }

    fn next_announcement(&mut self, family: Family, communities: Arc<BTreeSet<Community>>) -> Bytes {
        let empty = {
            let attributes = self.attributes(family, &communities, &[]);
            self.build(&[], Contents { attributes, ..Contents::default() }).len()
        };
        let key = (family, communities);
        let mut pending = self.announce.remove(&key).unwrap_or_default();
        let prefixes = take_fitting(&mut pending, family, empty);
        let attributes = self.attributes(family, &key.1, &prefixes);
        // Where not even one prefix fits beside its communities, none ever will.
        if !pending.is_empty() && !prefixes.is_empty() {
            self.announce.insert(key, pending);
        }
        let in_body = self.next_hop(family).is_some_and(|next_hop| next_hop.is_ipv4());
        let announced: &[IpNet] = if in_body { &prefixes } else { &[] };
        self.build(announced, Contents { attributes, ..Contents::default() })
    }

    /// The path attributes of our routes; prefixes with an IPv6 next hop are inside (RFC 4760 §3, RFC 8950 §3, and first as
    /// RFC 7606 §5.1 asks).
    fn attributes(&self, family: Family, communities: &BTreeSet<Community>, prefixes: &[IpNet]) -> Vec<PathAttribute> {
        let mut attributes = Vec::new();
        let next_hop = self.next_hop(family);
        if let Some(next_hop @ IpAddr::V6(_)) = next_hop {
            let (afi, safi) = wire::to_afi(family);
            attributes.push(PathAttribute::MpReachNlri(Box::new(codec::MpReachNlri {
                afi,
                safi,
                next_hop,
                link_local_next_hop: self.next_hops.link_local,
                announced: entries(prefixes),
                flowspec_announced: Vec::new(),
                evpn_announced: Vec::new(),
                bgpls_announced: Vec::new(),
                vpn_announced: Vec::new(),
                labeled_announced: Vec::new(),
                rtc_announced: Vec::new(),
            })));
        }
        attributes.push(PathAttribute::Origin(codec::Origin::Igp));
        let segments =
            if self.internal { Vec::new() } else { vec![codec::AsPathSegment::AsSequence(vec![self.local_asn])] };
        attributes.push(PathAttribute::AsPath(codec::AsPath { segments }));
        if let Some(IpAddr::V4(next_hop)) = next_hop {
            attributes.push(PathAttribute::NextHop(next_hop));
        }
        if self.internal {
            attributes.push(PathAttribute::LocalPref(LOCAL_PREF));
        }
        let mut standard = Vec::new();
        let mut large = Vec::new();
        for community in communities {
            match *community {
                Community::Standard(high, low) => standard.push(u32::from(high) << 16 | u32::from(low)),
                Community::Large(a, b, c) => large.push(codec::LargeCommunity::new(a, b, c)),
            }
        }
        if !standard.is_empty() {
            attributes.push(PathAttribute::Communities(standard));
        }
        if !large.is_empty() {
            attributes.push(PathAttribute::LargeCommunities(large));
        }
        attributes
    }

    fn build(&self, announced: &[IpNet], contents: Contents) -> Bytes {
        let update = codec::UpdateMessage::try_build(
            &body_entries(announced),
            &body_entries(&contents.withdrawn),
            &contents.attributes,
            self.four_octet_as,
            false,
            codec::Ipv4UnicastMode::Body,
        );
        update.map(|update| wire::encode(&codec::Message::Update(update))).unwrap_or_default()
    }
}

/// What an UPDATE has besides IPv4 prefixes that it announces.
#[derive(Default)]
struct Contents {
    withdrawn: Vec<IpNet>,
    attributes: Vec<PathAttribute>,
}

/// The withdrawal of prefixes of one family; of none, it is the End-of-RIB marker.
fn withdrawal(family: Family, prefixes: &[IpNet]) -> Contents {
    match family {
        Family::Ipv4 => Contents { withdrawn: prefixes.to_vec(), attributes: Vec::new() },
        Family::Ipv6 => {
            let (afi, safi) = wire::to_afi(family);
            let attribute = PathAttribute::MpUnreachNlri(Box::new(codec::MpUnreachNlri {
                afi,
                safi,
                withdrawn: entries(prefixes),
                flowspec_withdrawn: Vec::new(),
                evpn_withdrawn: Vec::new(),
                bgpls_withdrawn: Vec::new(),
                vpn_withdrawn: Vec::new(),
                labeled_withdrawn: Vec::new(),
                rtc_withdrawn: Vec::new(),
            }));
            Contents { withdrawn: Vec::new(), attributes: vec![attribute] }
        }
    }
}

/// Takes as many prefixes of a family as fit one message whose other parts have `used` bytes.
fn take_fitting(from: &mut BTreeSet<IpNet>, family: Family, used: usize) -> Vec<IpNet> {
    // The attribute that holds IPv6 prefixes needs one more byte for its length once it is long (RFC 4271 §4.3).
    let mut room = MAX_MESSAGE_BYTES.saturating_sub(used + 1);
    let mut taken = Vec::new();
    for prefix in from.iter() {
        let bytes = 1 + usize::from(prefix.prefix_len()).div_ceil(8);
        if Family::of(*prefix) != family || bytes > room {
            break;
        }
        room -= bytes;
        taken.push(*prefix);
    }
    for prefix in &taken {
        from.remove(prefix);
    }
    taken
}

fn entries(prefixes: &[IpNet]) -> Vec<codec::NlriEntry> {
    prefixes.iter().map(|prefix| codec::NlriEntry { path_id: 0, prefix: wire::to_prefix(*prefix) }).collect()
}

fn body_entries(prefixes: &[IpNet]) -> Vec<codec::Ipv4NlriEntry> {
    entries(prefixes)
        .into_iter()
        .filter_map(|entry| match entry.prefix {
            codec::Prefix::V4(prefix) => Some(codec::Ipv4NlriEntry { path_id: 0, prefix }),
            codec::Prefix::V6(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
