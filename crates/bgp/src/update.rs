//! UPDATE: what a peer announces and withdraws, with malformed attributes handled as RFC 7606 asks.
//!
//! A session is reset only where the NLRI cannot be located; otherwise the routes of the UPDATE are withdrawn, or the
//! attribute is discarded where it cannot influence the choice of a route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use rustbgpd_wire as codec;
use rustbgpd_wire::validate::{UpdateValidationOptions, validate_update_attributes_with_context};
use rustbgpd_wire::{ErrorDisposition, PathAttribute};

use crate::notification::{Notification, code};
use crate::{Family, wire};

/// ORIGIN, best first (RFC 4271 §5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Interior to the originating AS.
    Igp,
    /// Learned via EGP.
    Egp,
    /// By other means.
    Incomplete,
}

/// The path attributes that choose between routes (RFC 4271 §5, RFC 4456 §8).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// Where packets go: NEXT_HOP, or the global address of MP_REACH_NLRI; its link-local one where that is all there is.
    pub next_hop: IpAddr,
    /// The link-local address of MP_REACH_NLRI, on the link that the session runs over (RFC 2545 §3).
    pub link_local: Option<Ipv6Addr>,
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, nearest AS first; AS_SETs do not occur (RFC 9774).
    pub as_path: Box<[u32]>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF, from internal peers only.
    pub local_pref: Option<u32>,
    /// ORIGINATOR_ID, from internal peers only.
    pub originator: Option<Ipv4Addr>,
    /// Length of CLUSTER_LIST, from internal peers only.
    pub clusters: usize,
}

/// What one UPDATE changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes that are no longer reachable through the peer.
    pub withdrawn: Vec<IpNet>,
    /// Prefixes with the attributes they share; one entry a next hop, so at most two.
    pub announced: Vec<(Arc<Attributes>, Vec<IpNet>)>,
    /// Attributes that were malformed, with what was done about each (RFC 7606), for the log.
    pub malformed: Vec<String>,
}

/// A decoded UPDATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    Update(Update),
    /// The marker of RFC 4724 §2.
    EndOfRib(Family),
}

/// What a session has negotiated, as far as UPDATEs are concerned.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) four_octet_as: bool,
    pub(crate) internal: bool,
    pub(crate) families: Vec<Family>,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub(crate) extended_next_hop: bool,
}

/// Decodes an UPDATE.
///
/// # Errors
/// The NOTIFICATION of a session reset, only where the NLRI cannot be located (RFC 7606 §3 (j), §5.3).
pub(crate) fn decode(message: &codec::UpdateMessage, context: &Context) -> Result<Decoded, Notification> {
    let mut parsed = message
        .parse_revised(context.four_octet_as, context.internal, false, &[])
        .map_err(|error| wire::answer(&error))?;
    if let Some(family) = end_of_rib(message, &parsed) {
        return Ok(if context.families.contains(&family) {
            Decoded::EndOfRib(family)
        } else {
            Decoded::Update(Update::default())
        });
    }
    parsed.update.attributes.iter_mut().for_each(settle_next_hop);
    let reach = Reach::of(&parsed.update);
    let mut judgement = Judgement::of(&parsed.malformed);
    judgement.validate(&parsed.update.attributes, &reach, context)?;

    let spoken = |prefix: &IpNet| context.families.contains(&Family::of(*prefix));
    let mut update = Update { withdrawn: withdrawn(&parsed.update), malformed: judgement.notes, ..Update::default() };
    for (next_hop, mut prefixes) in reach.groups {
        prefixes.retain(spoken);
        if judgement.worst >= Some(ErrorDisposition::TreatAsWithdraw) {
            update.withdrawn.extend(prefixes);
        } else if let Some(next_hop) = next_hop
            && !prefixes.is_empty()
        {
            let attributes = attributes(&parsed.update.attributes, next_hop, context.internal);
            update.announced.push((Arc::new(attributes), prefixes));
        }
    }
    update.withdrawn.retain(spoken);
    Ok(Decoded::Update(update))
}

/// Gives an MP_REACH_NLRI with a link-local next hop alone one form of the several that are sent: the same address in both
/// places. Where there is none, the second place may hold the unspecified address.
fn settle_next_hop(attribute: &mut PathAttribute) {
    let PathAttribute::MpReachNlri(mp) = attribute else { return };
    let IpAddr::V6(first) = mp.next_hop else { return };
    mp.link_local_next_hop = mp.link_local_next_hop.filter(|second| !second.is_unspecified());
    match mp.link_local_next_hop {
        Some(second) if first.is_unspecified() => mp.next_hop = IpAddr::V6(second),
        None if first.is_unicast_link_local() => mp.link_local_next_hop = Some(first),
        _ => {}
    }
}

/// The next hop of some prefixes, with its link-local address beside it.
type NextHop = (IpAddr, Option<Ipv6Addr>);

/// What an UPDATE announces, whatever its attributes are worth.
struct Reach {
    /// There is NLRI in the body.
    body: bool,
    /// There is an MP_REACH_NLRI, of whatever family.
    multiprotocol: bool,
    /// IPv4 prefixes have an IPv6 next hop.
    extended: bool,
    /// Prefixes with the next hop that goes with them.
    groups: [(Option<NextHop>, Vec<IpNet>); 2],
}

impl Reach {
    fn of(update: &codec::ParsedUpdate) -> Self {
        let next_hop = update.attributes.iter().find_map(|a| match a {
            PathAttribute::NextHop(address) => Some((IpAddr::V4(*address), None)),
            _ => None,
        });
        let mp = update.attributes.iter().find_map(|a| match a {
            PathAttribute::MpReachNlri(mp) => Some(mp),
            _ => None,
        });
        let unicast = mp.filter(|mp| wire::from_afi(mp.afi, mp.safi).is_some());
        Self {
            body: !update.announced.is_empty(),
            multiprotocol: mp.is_some(),
            extended: unicast.is_some_and(|mp| mp.afi == codec::Afi::Ipv4 && mp.next_hop.is_ipv6()),
            groups: [
                (next_hop, prefixes(update.announced.iter().map(|e| codec::Prefix::V4(e.prefix)))),
                (
                    unicast.map(|mp| (mp.next_hop, mp.link_local_next_hop)),
                    prefixes(unicast.into_iter().flat_map(|mp| &mp.announced).map(|e| e.prefix)),
                ),
            ],
        }
    }
}

/// What the attributes of an UPDATE are worth: the strongest disposition counts (RFC 7606 §3 (h)).
struct Judgement {
    worst: Option<ErrorDisposition>,
    notes: Vec<String>,
}

impl Judgement {
    fn of(malformed: &[codec::MalformedAttribute]) -> Self {
        Self {
            worst: malformed.iter().map(|m| m.disposition).max(),
            notes: malformed
                .iter()
                .map(|m| format!("attribute {}: {} ({})", m.type_code, m.error, m.disposition.as_str()))
                .collect(),
        }
    }

    /// Judges the attributes together: those that are missing, and values that cannot be (RFC 4271 §6.3).
    fn validate(&mut self, attributes: &[PathAttribute], reach: &Reach, context: &Context) -> Result<(), Notification> {
        let announces = reach.body || reach.multiprotocol;
        // NEXT_HOP is mandatory on internal sessions too (RFC 4271 §5.1.3), whatever the codec thinks of those.
        let external = true;
        // Whether there is a link for a link-local next hop is for the RIB to say.
        let mut options = UpdateValidationOptions::default();
        options.link_local_next_hop = true;
        options.allow_ipv4_link_local_mp_reach_next_hop = true;
        if let Err(invalid) =
            validate_update_attributes_with_context(attributes, announces, reach.body, external, options)
        {
            let error = invalid.error;
            if error.disposition == ErrorDisposition::SessionReset {
                let (code, subcode) = (code::UPDATE_MESSAGE, error.subcode);
                return Err(Notification { code, subcode, data: error.data.into() });
            }
            let what = format!("UPDATE error subcode {}", error.subcode);
            self.add(invalid.type_code, &what, error.disposition);
        }
        if reach.extended && !context.extended_next_hop {
            self.add(14, "IPv6 next hop of IPv4 prefixes, not agreed on", ErrorDisposition::TreatAsWithdraw);
        }
        if announces && !context.internal && as_path(attributes).is_empty() {
            self.add(2, "empty AS_PATH from an external peer", ErrorDisposition::TreatAsWithdraw);
        }
        Ok(())
    }

    fn add(&mut self, type_code: u8, what: &str, disposition: ErrorDisposition) {
        self.notes.push(format!("attribute {type_code}: {what} ({})", disposition.as_str()));
        self.worst = self.worst.max(Some(disposition));
    }
}

/// What an UPDATE withdraws, in the body and in MP_UNREACH_NLRI.
fn withdrawn(update: &codec::ParsedUpdate) -> Vec<IpNet> {
    let mut all = prefixes(update.withdrawn.iter().map(|e| codec::Prefix::V4(e.prefix)));
    for attribute in &update.attributes {
        if let PathAttribute::MpUnreachNlri(mp) = attribute
            && wire::from_afi(mp.afi, mp.safi).is_some()
        {
            all.extend(prefixes(mp.withdrawn.iter().map(|e| e.prefix)));
        }
    }
    all
}

fn prefixes(entries: impl Iterator<Item = codec::Prefix>) -> Vec<IpNet> {
    entries.filter_map(wire::from_prefix).collect()
}

/// The End-of-RIB marker of RFC 4724 §2: an UPDATE that is empty, or whose only attribute is an empty MP_UNREACH_NLRI.
fn end_of_rib(message: &codec::UpdateMessage, parsed: &codec::RevisedParsedUpdate) -> Option<Family> {
    if !message.withdrawn_routes.is_empty() || !message.nlri.is_empty() || !parsed.malformed.is_empty() {
        return None;
    }
    if message.path_attributes.is_empty() {
        return Some(Family::Ipv4);
    }
    match parsed.update.attributes.as_slice() {
        [PathAttribute::MpUnreachNlri(mp)] if mp.withdrawn.is_empty() => wire::from_afi(mp.afi, mp.safi),
        _ => None,
    }
}

fn as_path(attributes: &[PathAttribute]) -> Box<[u32]> {
    attributes
        .iter()
        .filter_map(|a| match a {
            PathAttribute::AsPath(path) => Some(path.asns()),
            _ => None,
        })
        .flatten()
        .collect()
}

fn attributes(attributes: &[PathAttribute], (next_hop, link_local): NextHop, internal: bool) -> Attributes {
    let mut result = Attributes {
        next_hop,
        link_local,
        origin: Origin::Incomplete,
        as_path: as_path(attributes),
        med: None,
        local_pref: None,
        originator: None,
        clusters: 0,
    };
    for attribute in attributes {
        match attribute {
            PathAttribute::Origin(codec::Origin::Igp) => result.origin = Origin::Igp,
            PathAttribute::Origin(codec::Origin::Egp) => result.origin = Origin::Egp,
            PathAttribute::Med(med) => result.med = Some(*med),
            // An external peer's are ignored (RFC 4271 §5.1.5, RFC 4456 §8).
            PathAttribute::LocalPref(value) if internal => result.local_pref = Some(*value),
            PathAttribute::OriginatorId(id) if internal => result.originator = Some(*id),
            PathAttribute::ClusterList(list) if internal => result.clusters = list.len(),
            _ => {}
        }
    }
    result
}

#[cfg(test)]
mod tests;
