//! A compiler that follows changes ends where compiling everything at once does, and tells what has changed.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use proptest::prelude::*;

use super::build::*;
use crate::compile::compiler::{Changed, Compiler};
use crate::desired::SourceValidation;
use crate::ids::{Ids, Limits, Loss};
use crate::network::IfIndex;
use crate::rib::{Alternative, BgpRoute, Gateway as Learned, Origin, Way};
use crate::tables::GroupId;

const GATEWAYS: [&str; 7] = ["10.0.0.2", "10.0.0.3", "10.1.0.2", "10.9.0.1", "10.4.0.9", "172.16.0.1", "2001:db8::2"];
const PREFIXES: [&str; 12] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.9.0.0/16",
    "10.9.1.0/24",
    "10.0.0.0/25",
    "10.0.0.2/32",
    "10.1.0.0/24",
    "172.16.0.0/12",
    "172.16.0.1/32",
    "198.51.100.0/24",
    "2001:db8:9::/48",
    "::/0",
];

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Bgp(usize, Vec<usize>, Vec<usize>, bool),
    Kernel(usize, KernelWay, Option<u32>),
    Validation(usize, SourceValidation),
    Withdrawn(usize, bool),
    Adopted(usize, usize, u32),
    NoneAdopted,
    Neighbor(u32, usize, bool),
    Up(u32, bool),
    Lost(u32),
    Failed(u32, usize),
    Service(Vec<usize>),
}

#[derive(Clone, Debug)]
pub(super) enum KernelWay {
    Gateways(Vec<(usize, u32)>),
    Link(u32),
    Other(usize),
}

pub(super) fn happening() -> impl Strategy<Value = Happening> {
    let gateways = || prop::collection::vec(0..GATEWAYS.len(), 1..4);
    let kernel = prop_oneof![
        prop::collection::vec((0..GATEWAYS.len(), 2u32..6), 1..3).prop_map(KernelWay::Gateways),
        (2u32..6).prop_map(KernelWay::Link),
        (0usize..4).prop_map(KernelWay::Other),
    ];
    let prefix = || 0..PREFIXES.len();
    let validation = prop::sample::select(vec![
        SourceValidation::Off,
        SourceValidation::Loose,
        SourceValidation::Strict,
        SourceValidation::Feasible,
    ]);
    prop_oneof![
        4 => (prefix(), gateways(), any::<bool>()).prop_map(|(p, g, internal)| Happening::Bgp(p, g, Vec::new(), internal)),
        3 => (prefix(), gateways(), gateways()).prop_map(|(p, g, beside)| Happening::Bgp(p, g, beside, false)),
        2 => (prefix(), kernel, prop::option::of(2u32..6)).prop_map(|(p, way, beside)| Happening::Kernel(p, way, beside)),
        1 => (0usize..2, validation).prop_map(|(port, validation)| Happening::Validation(port, validation)),
        3 => (prefix(), any::<bool>()).prop_map(|(p, kernel)| Happening::Withdrawn(p, kernel)),
        1 => (prefix(), 0..GATEWAYS.len(), 2u32..5).prop_map(|(p, g, i)| Happening::Adopted(p, g, i)),
        1 => Just(Happening::NoneAdopted),
        2 => (2u32..5, 0..GATEWAYS.len(), any::<bool>()).prop_map(|(i, g, known)| Happening::Neighbor(i, g, known)),
        1 => (2u32..5, any::<bool>()).prop_map(|(i, up)| Happening::Up(i, up)),
        1 => (2u32..4).prop_map(Happening::Lost),
        2 => (2u32..5, 0..GATEWAYS.len()).prop_map(|(i, g)| Happening::Failed(i, g)),
        1 => gateways().prop_map(Happening::Service),
    ]
}

pub(super) fn happen(mut world: World, happening: &Happening) -> World {
    match happening {
        Happening::Bgp(prefix, gateways, alternatives, internal) => {
            let [gateways, alternatives] =
                [gateways, alternatives].map(|all| all.iter().map(|g| ip(GATEWAYS[*g])).collect());
            world.rib.set_bgp(net(PREFIXES[*prefix]), &BgpRoute { gateways, alternatives, internal: *internal });
        }
        Happening::Kernel(prefix, way, beside) => {
            let way = match way {
                KernelWay::Gateways(gateways) => {
                    let on_link = |(g, i): &(usize, u32)| Learned::on_link(ip(GATEWAYS[*g]), IfIndex(*i));
                    Way::through(gateways.iter().map(on_link)).unwrap()
                }
                KernelWay::Link(ifindex) => Way::Link(IfIndex(*ifindex)),
                KernelWay::Other(n) => [Way::Host, Way::Blackhole, Way::Prohibit, Way::Unreachable][*n].clone(),
            };
            let beside = beside.iter().map(|ifindex| Alternative::Link(IfIndex(*ifindex)));
            world.rib.set_kernel_beside(net(PREFIXES[*prefix]), way, beside.collect());
        }
        Happening::Withdrawn(prefix, kernel) => {
            world.rib.remove(net(PREFIXES[*prefix]), if *kernel { Origin::Kernel } else { Origin::Bgp });
        }
        Happening::Adopted(prefix, g, ifindex) => {
            world.rib.set_adopted(net(PREFIXES[*prefix]), [(ip(GATEWAYS[*g]), IfIndex(*ifindex))]);
        }
        Happening::Validation(port, validation) => {
            world.desired.node.interfaces[*port].source_validation = *validation;
        }
        Happening::NoneAdopted => drop(world.rib.clear(Origin::Adopted)),
        Happening::Neighbor(ifindex, g, true) => {
            world.network.failed.remove(&(IfIndex(*ifindex), ip(GATEWAYS[*g])));
            return world.neighbor(*ifindex, GATEWAYS[*g], 9);
        }
        Happening::Neighbor(ifindex, g, false) => {
            world.network.neighbors.remove(&(IfIndex(*ifindex), ip(GATEWAYS[*g])));
        }
        Happening::Up(ifindex, up) => world.link_mut(*ifindex).up = *up,
        Happening::Lost(ifindex) => world.link_mut(*ifindex).up = false,
        Happening::Failed(ifindex, g) => return world.failed(*ifindex, GATEWAYS[*g]),
        Happening::Service(backends) => {
            world.desired.services.clear();
            let backends: Vec<&str> = backends.iter().map(|g| GATEWAYS[*g]).collect();
            return world.service("web", &["192.0.2.10"], &backends);
        }
    }
    world
}

pub(super) fn start() -> World {
    World::two_ports()
        .link(4, "mgmt")
        .address(4, "10.4.0.1/24")
        .static_route("172.16.0.0/16", &["10.0.0.2", "10.1.0.2"])
}

/// What each prefix does and where its packets come from, whatever the numbers of its group.
pub(super) fn meaning(compiled: &crate::compile::Compiled) -> BTreeMap<IpNet, Vec<String>> {
    let origins = |group: &GroupId| compiled.tables.origins.get(group).map(|origins| format!("from {:#x}", origins.0));
    let of = |group: &GroupId| compiled.hops(*group).into_iter().chain(origins(group)).collect();
    compiled.tables.fib.iter().map(|(prefix, group)| (*prefix, of(group))).collect()
}

/// Writes what the compiler told of into a copy of the FIB, as the kernel's side does.
fn write(copy: &mut BTreeMap<IpNet, GroupId>, compiler: &mut Compiler) {
    let fib = &compiler.compiled().tables.fib;
    match compiler.changed() {
        Changed::Everything => copy.clone_from(fib),
        Changed::Prefixes(prefixes) => {
            for prefix in prefixes {
                match fib.get(prefix) {
                    Some(group) => drop(copy.insert(*prefix, *group)),
                    None => drop(copy.remove(prefix)),
                }
            }
        }
    }
    compiler.written();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn following_ends_where_compiling_at_once_does(
        bursts in prop::collection::vec(prop::collection::vec(happening(), 1..4), 1..20),
    ) {
        let mut world = start();
        let mut compiler = Compiler::new(Ids::default());
        let mut copy = BTreeMap::new();
        for burst in &bursts {
            let (desired, network) = (world.desired.clone(), world.network.clone());
            world = burst.iter().fold(world, happen);
            for happening in burst {
                match happening {
                    Happening::Lost(ifindex) => drop(compiler.lose(Loss::Link(IfIndex(*ifindex)))),
                    Happening::Failed(ifindex, g) => {
                        drop(compiler.lose(Loss::Neighbor(IfIndex(*ifindex), ip(GATEWAYS[*g]))));
                    }
                    _ => {}
                }
            }
            // Who says that something is lost compiles next, even if it is back by then.
            let lost = burst.iter().any(|happening| matches!(happening, Happening::Lost(_) | Happening::Failed(..)));
            let only_routes = !lost && desired == world.desired && network == world.network;
            if !(only_routes && compiler.follow(&mut world.rib)) {
                let differs = compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
                prop_assert!(differs || compiler.changed().is_empty());
            }
            write(&mut copy, &mut compiler);
            let compiled = compiler.compiled();
            prop_assert_eq!(&copy, &compiled.tables.fib, "what was told is what changed");
            let whole = world.clone().compile();
            prop_assert_eq!(meaning(compiled), meaning(&whole));
            prop_assert_eq!(&compiled.announce, &whole.announce);
            prop_assert_eq!(&compiled.notices, &whole.notices);
            prop_assert_eq!(compiled.routes(&world.rib), whole.routes(&world.rib));
        }
    }
}

#[test]
fn a_lost_gateway_of_many_prefixes_changes_its_group_and_no_prefix() {
    // Both gateways are known neighbours, so each has a group of its own, too.
    let mut world = start().neighbor(2, "10.0.0.2", 2).neighbor(3, "10.1.0.2", 3);
    for n in 0..1000u32 {
        world = world.bgp(&format!("100.64.{}.{}/30", n >> 6, (n & 63) * 4), &["10.0.0.2", "10.1.0.2"]);
    }
    let mut compiler = Compiler::new(Ids::default());
    compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    compiler.written();
    let before = compiler.compiled().tables.clone();
    let lost = compiler.lose(Loss::Link(IfIndex(3)));
    assert_eq!(lost, [compiler.compiled().group_of("100.64.0.0/30")], "one group for all of them");
    let at_once = compiler.compiled().tables.groups.clone();
    world.link_mut(3).up = false;
    assert!(compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap());
    let after = compiler.compiled();
    assert_eq!(at_once[&lost[0]], after.tables.groups[&lost[0]], "what compiling finds is there already");
    let Changed::Prefixes(changed) = compiler.changed() else { panic!("only differences are told") };
    let connected = [net("10.1.0.0/24"), net("10.1.0.2/32")];
    assert_eq!(changed.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from(connected), "of the link alone");
    let group = after.group_of("100.64.0.0/30");
    assert_eq!(before.fib[&net("100.64.0.0/30")], group);
    let moved = before.groups[&group].buckets.iter().zip(&after.tables.groups[&group].buckets);
    let survivor = after.tables.groups[&group].buckets[0];
    assert!(moved.into_iter().all(|(before, after)| *after == survivor && (before == after || *before != survivor)));

    // A restart in this state finds every prefix in the group that it is in.
    let mut restarted = Compiler::new(Ids::adopt(&after.tables));
    restarted.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    assert_eq!(restarted.compiled().tables.fib, after.tables.fib);

    world.link_mut(2).up = false;
    compiler.written();
    compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    assert_eq!(compiler.compiled().tables.fib.keys().filter(|prefix| prefix.prefix_len() == 30).count(), 0);
    world.link_mut(3).up = true;
    compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    assert_eq!(compiler.compiled().tables.fib.keys().filter(|prefix| prefix.prefix_len() == 30).count(), 1000);
}

#[test]
fn a_gateway_that_does_not_answer_leaves_its_groups_and_no_prefix_moves() {
    let mut world = start().neighbor(2, "10.0.0.2", 2).neighbor(3, "10.1.0.2", 3).bgp("100.63.0.0/24", &["10.1.0.2"]);
    for n in 0..100u32 {
        world = world.bgp(&format!("100.64.{n}.0/24"), &["10.0.0.2", "10.1.0.2"]);
    }
    let mut compiler = Compiler::new(Ids::default());
    compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    compiler.written();
    let before = compiler.compiled().tables.clone();
    assert_eq!(compiler.compiled().share("100.64.0.0/24", "10.1.0.2"), 32);
    let lost = compiler.lose(Loss::Neighbor(IfIndex(3), ip("10.1.0.2")));
    assert_eq!(lost, [compiler.compiled().group_of("100.64.0.0/24")], "one store for all of them");
    let at_once = compiler.compiled().tables.groups.clone();
    world = world.failed(3, "10.1.0.2");
    compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    let compiled = compiler.compiled();
    assert_eq!(compiled.tables.groups, at_once, "what compiling finds is there already");
    let Changed::Prefixes(changed) = compiler.changed() else { panic!("only differences are told") };
    assert_eq!(changed, &[net("10.1.0.2/32")], "the neighbour's own");
    assert_eq!(compiled.route("100.64.0.0/24").unwrap(), "10.0.0.2@2");
    assert_eq!(compiled.route("100.63.0.0/24").unwrap(), "10.1.0.2@3?", "the only one stays, and is asked for");
    assert_eq!(compiled.failed_gateways, BTreeSet::from([(IfIndex(3), ip("10.1.0.2"))]));
    assert_eq!(compiled.notices(), ["gateway 10.1.0.2 on eth1 does not answer: its flows take the other gateways"]);

    // Of gateways none of which answers, each is as good as the other.
    assert_eq!(compiler.lose(Loss::Neighbor(IfIndex(2), ip("10.0.0.2"))), [], "they have no others");
    world = world.failed(2, "10.0.0.2");
    compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    assert_eq!(compiler.compiled().route("100.64.0.0/24").unwrap(), "10.0.0.2@2? 10.1.0.2@3?");
    assert_eq!(compiler.compiled().failed_gateways, BTreeSet::new());
    for (ifindex, gateway, last) in [(2, "10.0.0.2", 2), (3, "10.1.0.2", 3)] {
        world.network.failed.remove(&(IfIndex(ifindex), ip(gateway)));
        world = world.neighbor(ifindex, gateway, last);
    }
    compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    assert_eq!(compiler.compiled().share("100.64.0.0/24", "10.1.0.2"), 32);
    assert_eq!(compiler.compiled().group_of("100.64.0.0/24"), before.fib[&net("100.64.0.0/24")]);
}

#[test]
fn routes_beyond_the_fib_are_left_out_told_of_and_taken_in_when_there_is_room() {
    let mut world = World::two_ports();
    let own = world.clone().compile().tables.fib.len();
    let limits = Limits { prefixes: [own, 100], ..Limits::default() };
    let mut compiler = Compiler::with_limits(Ids::default(), limits);
    for n in 0..8 {
        world = world.bgp(&format!("100.64.{n}.0/24"), &["10.0.0.2"]);
    }
    compiler.compile(&world.desired, &world.network, &mut world.rib).unwrap();
    // The own prefixes of IPv6 are not of this family.
    let v6 = compiler.compiled().tables.fib.keys().filter(|prefix| prefix.addr().is_ipv6()).count();
    let in_fib = |compiler: &Compiler| {
        compiler.compiled().tables.fib.keys().filter(|prefix| prefix.to_string().starts_with("100.64")).count()
    };
    assert_eq!(in_fib(&compiler), v6);
    let full = |n: usize| format!("FIB is full: {n} routes of this family are left out");
    assert_eq!(compiler.compiled().notices(), [full(8 - v6)]);
    world.rib.remove(net("100.64.0.0/24"), Origin::Bgp);
    assert!(compiler.follow(&mut world.rib));
    assert_eq!((in_fib(&compiler), compiler.compiled().notices()), (v6, vec![full(7 - v6)]), "the next moves up");
    assert!(!compiler.compiled().tables.fib.contains_key(&net("100.64.7.0/24")));
    for n in 1..8 - v6 {
        world.rib.remove(net(&format!("100.64.{n}.0/24")), Origin::Bgp);
    }
    assert!(compiler.follow(&mut world.rib));
    assert_eq!((in_fib(&compiler), compiler.compiled().notices()), (v6, vec![]));
    assert!(compiler.compiled().tables.fib.contains_key(&net("100.64.7.0/24")));
}
