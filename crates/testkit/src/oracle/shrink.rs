//! From a difference to a small one: what can be left out of configuration and frame while the two still disagree.

use std::fmt;

use anyhow::Result;

use ipnet::IpNet;
use model::rib::{Learned, Rib, Source, Way};

use crate::program::{Arrival, Difference, FeatureSet, Program, World, compare, oracle};

/// Loads that shrinking may take: each is a program verified by the kernel.
const LOADS: usize = 400;

/// A difference with what causes it.
pub(super) struct Story {
    world: World,
    arrival: Arrival,
    difference: Difference,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let World { desired, network, rib, limits } = &self.world;
        writeln!(f, "{}", self.difference)?;
        writeln!(f, "frame on interface {}: {}", self.arrival.ifindex, packet::notation::decode(&self.arrival.frame))?;
        writeln!(f, "ports: {:?}", desired.node.interfaces.iter().map(|i| &i.name).collect::<Vec<_>>())?;
        let node = &desired.node;
        writeln!(f, "encap sources: {:?} {:?}", node.encap_source_v4, node.encap_source_v6)?;
        writeln!(f, "encap prefixes: {:?} {:?}", node.encap_prefix_v4, node.encap_prefix_v6)?;
        writeln!(f, "failsafe: {:?} {:?}", node.failsafe_inbound, node.failsafe_outbound)?;
        network.links.iter().try_for_each(|(index, link)| writeln!(f, "link {index}: {link:?}"))?;
        network.addresses.iter().try_for_each(|(index, net)| writeln!(f, "address {index}: {net}"))?;
        network.neighbors.iter().try_for_each(|(key, mac)| writeln!(f, "neighbor {} {}: {mac}", key.0, key.1))?;
        writeln!(f, "failed: {:?}\n{limits:?}", network.failed)?;
        desired.services.iter().try_for_each(|service| writeln!(f, "{service:?}"))?;
        desired.tunnels.iter().try_for_each(|tunnel| writeln!(f, "{tunnel:?}"))?;
        desired.static_routes.iter().try_for_each(|route| writeln!(f, "{route:?}"))?;
        writeln!(f, "denylist: {:?}", desired.denylist)?;
        desired.host_endpoints.iter().try_for_each(|endpoint| writeln!(f, "{endpoint:?}"))?;
        desired.policies.iter().try_for_each(|policy| writeln!(f, "{policy:?}"))?;
        learned(rib).try_for_each(|(prefix, source, way)| writeln!(f, "{source:?} {prefix}: {way:?}"))
    }
}

fn learned(rib: &Rib) -> impl Iterator<Item = (IpNet, Source, &Way)> {
    let of_prefix = |(prefix, routes): (IpNet, &[Learned])| {
        let way = |route: &Learned| Some((prefix, route.source, &rib.set_of(route.set)?.way));
        routes.iter().filter_map(way).collect::<Vec<_>>()
    };
    rib.iter().flat_map(of_prefix)
}

/// Leaves out one thing after the other, then shortens the frame.
pub(super) fn shrink(world: World, features: FeatureSet, arrival: Arrival) -> Result<Story> {
    let mut loads = LOADS;
    let mut differs = |world: &World, arrival: &Arrival| -> Result<Option<Difference>> {
        if loads == 0 {
            return Ok(None);
        }
        loads -= 1;
        // What does not load any more is no smaller form of the same difference.
        let Ok(mut program) = Program::load(world, features) else { return Ok(None) };
        let judgement = oracle(world, features).judge(&arrival.frame, arrival.ifindex);
        compare(world, &mut program, arrival, &judgement)
    };
    let unseen = || Difference { what: "seen once, not when the configuration was loaded again".to_owned() };
    let difference = differs(&world, &arrival)?.unwrap_or_else(unseen);
    let mut story = Story { world, arrival, difference };
    let mut place = 0;
    while let Some(smaller) = without(&story.world, place) {
        match differs(&smaller, &story.arrival)? {
            Some(difference) => story = Story { world: smaller, difference, ..story },
            None => place += 1,
        }
    }
    for keep in [14, 34, 54, 74, 94, 134] {
        let frame = story.arrival.frame.get(..keep).unwrap_or_default().to_vec();
        let shorter = Arrival { frame, ..story.arrival };
        if shorter.frame.len() == keep
            && let Some(difference) = differs(&story.world, &shorter)?
        {
            story = Story { arrival: shorter, difference, ..story };
            break;
        }
    }
    Ok(story)
}

/// The world without its thing number `place`; `None` beyond the last. Whole documents come before their parts.
fn without(world: &World, place: usize) -> Option<World> {
    let mut smaller = world.clone();
    let mut place = place;
    let World { desired, network, rib, limits: _ } = &mut smaller;
    let mut done = remove(&mut desired.services, &mut place)
        || remove(&mut desired.policies, &mut place)
        || remove(&mut desired.host_endpoints, &mut place)
        || remove(&mut desired.static_routes, &mut place)
        || remove(&mut desired.tunnels, &mut place)
        || remove(&mut desired.node.interfaces, &mut place)
        || remove(&mut desired.node.failsafe_inbound, &mut place)
        || remove(&mut desired.node.failsafe_outbound, &mut place);
    if !done && let Some(prefix) = take(desired.denylist.prefixes().keys(), &mut place) {
        let others = desired.denylist.prefixes().iter().filter(|(other, _)| **other != prefix);
        desired.denylist = others.map(|(prefix, denied)| (*prefix, *denied)).collect();
        done = true;
    }
    let of_rib: Vec<_> = learned(rib).filter_map(|(prefix, source, _)| Some((prefix, source.origin()?))).collect();
    if !done && let Some((prefix, origin)) = take(of_rib.iter(), &mut place) {
        rib.remove(prefix, origin);
        done = true;
    }
    if !done && let Some(key) = take(network.neighbors.keys(), &mut place) {
        done = network.neighbors.remove(&key).is_some();
    }
    if !done && let Some(key) = take(network.addresses.iter(), &mut place) {
        done = network.addresses.remove(&key);
    }
    for service in &mut desired.services {
        done = done || remove(&mut service.backends, &mut place);
        done = done || (service.addresses.len() > 1 && remove(&mut service.addresses, &mut place));
    }
    for policy in &mut desired.policies {
        done = done || remove(&mut policy.rules, &mut place);
    }
    for tunnel in &mut desired.tunnels {
        done = done || (tunnel.peers.len() > 1 && remove(&mut tunnel.peers, &mut place));
        if let Some(sources) = tunnel.sources.as_mut().filter(|sources| sources.len() > 1) {
            done = done || remove(sources, &mut place);
        }
    }
    done.then_some(smaller)
}

/// Removes item `place`, or takes the number of items off `place`.
fn remove<T>(items: &mut Vec<T>, place: &mut usize) -> bool {
    if *place < items.len() {
        items.remove(*place);
        return true;
    }
    *place -= items.len();
    false
}

/// Item `place`, or takes the number of items off `place`.
fn take<'a, T: Clone + 'a>(items: impl ExactSizeIterator<Item = &'a T>, place: &mut usize) -> Option<T> {
    let len = items.len();
    if *place < len {
        let mut items = items;
        return items.nth(*place).cloned();
    }
    *place -= len;
    None
}
