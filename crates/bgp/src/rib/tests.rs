//! One test a step of the choice, then the life of paths.

use super::*;
use crate::update::Origin;

const US: u32 = 65000;

fn rib(peers: &[(u32, bool)]) -> Rib {
    let mut rib = Rib::new(US, Ipv4Addr::new(10, 0, 0, 100));
    for (n, internal) in peers {
        rib.up(PeerId(*n), peer(*n, *internal));
    }
    rib
}

fn peer(n: u32, internal: bool) -> Peer {
    Peer {
        router_id: Ipv4Addr::from(0x0a00_0000 + n),
        address: IpAddr::V4(Ipv4Addr::from(0xc000_0200 + n)),
        internal,
        local: vec!["192.0.2.100".parse().unwrap(), "2001:db8::100".parse().unwrap()],
        link: None,
    }
}

/// A path through gateway 192.0.2.`n`.
fn path(n: u32) -> Attributes {
    Attributes {
        next_hop: IpAddr::V4(Ipv4Addr::from(0xc000_0200 + n)),
        link_local: None,
        origin: Origin::Igp,
        as_path: [64_000 + n, 64_999].into(),
        med: None,
        local_pref: None,
        originator: None,
        clusters: 0,
    }
}

fn prefix() -> IpNet {
    "198.51.100.0/24".parse().unwrap()
}

fn announce(rib: &mut Rib, n: u32, attributes: Attributes) -> Changes {
    announce_all(rib, n, attributes, &[prefix()])
}

fn announce_all(rib: &mut Rib, n: u32, attributes: Attributes, prefixes: &[IpNet]) -> Changes {
    let update = Update { announced: vec![(Arc::new(attributes), prefixes.to_vec())], ..Update::default() };
    rib.update(PeerId(n), &update)
}

fn withdraw(rib: &mut Rib, n: u32, prefixes: &[IpNet]) -> Changes {
    rib.update(PeerId(n), &Update { withdrawn: prefixes.to_vec(), ..Update::default() })
}

fn via(gateways: &[u32], internal: bool) -> Option<BgpRoute> {
    let gateway = |n: &u32| Gateway { address: IpAddr::V4(Ipv4Addr::from(0xc000_0200 + n)), interface: None };
    let gateways = gateways.iter().map(gateway).collect();
    Some(BgpRoute { gateways, alternatives: Vec::new(), internal })
}

/// The gateways chosen of paths from external peers 1, 2, ...
fn chosen(paths: &[Attributes]) -> Option<BgpRoute> {
    let ids: Vec<u32> = (1..).take(paths.len()).collect();
    let mut rib = rib(&ids.iter().map(|n| (*n, false)).collect::<Vec<_>>());
    for (n, attributes) in ids.into_iter().zip(paths) {
        announce(&mut rib, n, attributes.clone());
    }
    rib.route(prefix())
}

#[test]
fn step_1_paths_that_cannot_be_used_are_left_out() {
    let unusable = [
        Attributes { as_path: [64_001, US].into(), ..path(1) },
        Attributes { originator: Some(Ipv4Addr::new(10, 0, 0, 100)), ..path(1) },
        Attributes { next_hop: "192.0.2.100".parse().unwrap(), ..path(1) },
        Attributes { next_hop: "fe80::1".parse().unwrap(), ..path(1) },
        Attributes { next_hop: "127.0.0.1".parse().unwrap(), ..path(1) },
    ];
    for attributes in unusable {
        assert_eq!(chosen(&[attributes.clone(), path(2)]), via(&[2], false), "{attributes:?}");
        let mut rib = rib(&[(1, false)]);
        assert_eq!(announce(&mut rib, 1, attributes), []);
        assert_eq!(rib.counts(PeerId(1)), (1, 0));
    }
}

#[test]
fn step_1_ipv6_needs_a_usable_ipv6_next_hop() {
    let prefix: IpNet = "2001:db8:f::/48".parse().unwrap();
    for (next_hop, usable) in [
        ("2001:db8::1", true),
        ("fe80::1", false),
        ("::ffff:192.0.2.1", false),
        ("2001:db8::100", false),
        ("::1", false),
    ] {
        let mut rib = rib(&[(1, false)]);
        let attributes = Attributes { next_hop: next_hop.parse().unwrap(), ..path(1) };
        announce_all(&mut rib, 1, attributes, &[prefix]);
        assert_eq!(rib.route(prefix).is_some(), usable, "{next_hop}");
    }
}

#[test]
fn step_1_a_next_hop_of_the_other_family_is_for_ipv4_prefixes() {
    for (prefix, next_hop, usable) in [
        ("198.51.100.0/24", "2001:db8::1", true),
        ("198.51.100.0/24", "::ffff:192.0.2.1", false),
        ("2001:db8:f::/48", "192.0.2.1", false),
    ] {
        let (prefix, address): (IpNet, IpAddr) = (prefix.parse().unwrap(), next_hop.parse().unwrap());
        let mut rib = rib(&[(1, false)]);
        announce_all(&mut rib, 1, Attributes { next_hop: address, ..path(1) }, &[prefix]);
        let gateways = rib.route(prefix).map(|route| route.gateways);
        assert_eq!(gateways, usable.then(|| vec![Gateway { address, interface: None }]), "{prefix} via {next_hop}");
    }
}

#[test]
fn a_link_local_next_hop_is_for_where_the_global_one_is_not_on_the_link() {
    let link = Link { interface: 7, networks: vec!["2001:db8::/64".parse().unwrap(), "fe80::/64".parse().unwrap()] };
    let on_link = Some(("fe80::1", Some(7)));
    for (link, next_hop, link_local, expected) in [
        (Some(&link), "2001:db8::1", Some("fe80::1"), Some(("2001:db8::1", None))),
        (Some(&link), "2001:db8:1::1", Some("fe80::1"), on_link),
        (Some(&link), "fe80::1", Some("fe80::1"), on_link),
        (Some(&link), "2001:db8:1::1", None, Some(("2001:db8:1::1", None))),
        // Our own, and without a link.
        (Some(&link), "fe80::100", Some("fe80::100"), None),
        (None, "2001:db8:1::1", Some("fe80::1"), Some(("2001:db8:1::1", None))),
        (None, "fe80::1", Some("fe80::1"), None),
    ] {
        let mut rib = Rib::new(US, Ipv4Addr::new(10, 0, 0, 100));
        let mut peer = Peer { link: link.cloned(), ..peer(1, false) };
        peer.local.push("fe80::100".parse().unwrap());
        rib.up(PeerId(1), peer);
        let link_local = link_local.map(|address| address.parse().unwrap());
        announce(&mut rib, 1, Attributes { next_hop: next_hop.parse().unwrap(), link_local, ..path(1) });
        let gateways = rib.route(prefix()).map(|route| route.gateways);
        let gateway = |(address, interface): (&str, _)| Gateway { address: address.parse().unwrap(), interface };
        assert_eq!(gateways, expected.map(|expected| vec![gateway(expected)]), "{link:?} {next_hop} {link_local:?}");
    }
}

#[test]
fn step_2_preference_beats_everything_after_it() {
    let mut rib = rib(&[(1, true), (2, false)]);
    announce(&mut rib, 1, Attributes { local_pref: Some(101), as_path: [1, 2, 3, 4].into(), ..path(1) });
    announce(&mut rib, 2, path(2));
    assert_eq!(rib.route(prefix()), via(&[1], true));
    announce(&mut rib, 1, Attributes { local_pref: Some(99), as_path: [].into(), ..path(1) });
    assert_eq!(rib.route(prefix()), via(&[2], false));
}

#[test]
fn step_3_the_shorter_as_path() {
    assert_eq!(chosen(&[Attributes { as_path: [1, 2, 3].into(), ..path(1) }, path(2)]), via(&[2], false));
}

#[test]
fn step_4_the_better_origin() {
    assert_eq!(chosen(&[Attributes { origin: Origin::Incomplete, ..path(1) }, path(2)]), via(&[2], false));
    assert_eq!(
        chosen(&[Attributes { origin: Origin::Incomplete, ..path(1) }, Attributes { origin: Origin::Egp, ..path(2) }]),
        via(&[2], false)
    );
}

#[test]
fn step_5_med_counts_within_one_neighbouring_as() {
    let med = |n, asn: u32, med| Attributes { as_path: [asn, 9].into(), med, ..path(n) };
    assert_eq!(chosen(&[med(1, 7, Some(10)), med(2, 7, Some(5))]), via(&[2], false));
    assert_eq!(chosen(&[med(1, 7, None), med(2, 7, Some(5))]), via(&[1], false), "none is the lowest");
    assert_eq!(chosen(&[med(1, 7, Some(10)), med(2, 8, Some(5))]), via(&[1, 2], false), "another AS");
    assert_eq!(chosen(&[med(1, 7, Some(10)), med(2, 8, Some(5)), med(3, 7, Some(1))]), via(&[2, 3], false));
}

#[test]
fn step_6_external_before_internal() {
    let mut rib = rib(&[(1, true), (2, false)]);
    announce(&mut rib, 1, Attributes { local_pref: Some(100), ..path(1) });
    announce(&mut rib, 2, path(2));
    assert_eq!(rib.route(prefix()), via(&[2], false));
    withdraw(&mut rib, 2, &[prefix()]);
    assert_eq!(rib.route(prefix()), via(&[1], true));
}

#[test]
fn equal_paths_share_the_traffic() {
    assert_eq!(chosen(&[path(3), path(1), path(2)]), via(&[1, 2, 3], false));
    let mut rib = rib(&[(1, true), (2, true)]);
    announce(&mut rib, 1, path(1));
    announce(&mut rib, 2, path(2));
    assert_eq!(rib.route(prefix()), via(&[1, 2], true));
}

#[test]
fn equal_paths_through_one_gateway_are_one() {
    assert_eq!(chosen(&[path(1), Attributes { as_path: [5, 6].into(), ..path(1) }]), via(&[1], false));
}

#[test]
fn steps_7_and_8_pick_when_there_are_too_many() {
    let count = u32::try_from(MAX_PATHS).unwrap() + 2;
    // Peers have ascending identifiers; the first two announce another originator and lose.
    let mut rib = rib(&(1..=count).map(|n| (n, true)).collect::<Vec<_>>());
    for n in 1..=count {
        let originator = (n <= 2).then(|| Ipv4Addr::new(255, 0, 0, 1));
        announce(&mut rib, n, Attributes { originator, ..path(n) });
    }
    let gateways: Vec<u32> = (3..=count).collect();
    assert_eq!(rib.route(prefix()), via(&gateways, true));
}

#[test]
fn only_changes_of_the_route_are_reported() {
    let mut rib = rib(&[(1, false), (2, false)]);
    assert_eq!(announce(&mut rib, 1, path(1)), [(prefix(), via(&[1], false))]);
    assert_eq!(announce(&mut rib, 1, path(1)), []);
    assert_eq!(announce(&mut rib, 2, Attributes { as_path: [1, 2, 3].into(), ..path(2) }), []);
    assert_eq!(announce(&mut rib, 2, path(2)), [(prefix(), via(&[1, 2], false))]);
    assert_eq!(withdraw(&mut rib, 1, &[prefix()]), [(prefix(), via(&[2], false))]);
    assert_eq!(withdraw(&mut rib, 1, &[prefix()]), []);
    assert_eq!(withdraw(&mut rib, 2, &[prefix()]), [(prefix(), None)]);
    assert!(rib.is_empty());
    assert_eq!((rib.counts(PeerId(1)), rib.counts(PeerId(2))), ((0, 0), (0, 0)));
}

#[test]
fn a_session_that_ends_takes_its_paths_along() {
    let mut rib = rib(&[(1, false), (2, false)]);
    announce(&mut rib, 1, path(1));
    announce(&mut rib, 2, path(2));
    assert_eq!(rib.down(PeerId(1), &[]), [(prefix(), via(&[2], false))]);
    assert_eq!(announce(&mut rib, 1, path(1)), [], "no session, no paths");
}

#[test]
fn retained_paths_forward_until_they_are_replaced_or_flushed() {
    let prefixes: Vec<IpNet> = ["198.51.100.0/24", "203.0.113.0/24"].map(|p| p.parse().unwrap()).to_vec();
    let mut rib = rib(&[(1, false)]);
    announce_all(&mut rib, 1, path(1), &prefixes);
    assert_eq!(rib.down(PeerId(1), &[Family::Ipv4]), []);
    assert_eq!(rib.route(prefixes[0]), via(&[1], false));
    rib.up(PeerId(1), peer(1, false));
    assert_eq!(announce_all(&mut rib, 1, path(1), &prefixes[..1]), []);
    assert_eq!(rib.flush_stale(PeerId(1), Family::Ipv6), []);
    assert_eq!(rib.flush_stale(PeerId(1), Family::Ipv4), [(prefixes[1], None)]);
    assert_eq!(rib.counts(PeerId(1)), (1, 1));
}

#[test]
fn a_family_that_is_not_retained_goes_at_once() {
    let v6: IpNet = "2001:db8:f::/48".parse().unwrap();
    let mut rib = rib(&[(1, false)]);
    announce(&mut rib, 1, path(1));
    announce_all(&mut rib, 1, Attributes { next_hop: "2001:db8::1".parse().unwrap(), ..path(1) }, &[v6]);
    assert_eq!(rib.down(PeerId(1), &[Family::Ipv4]), [(v6, None)]);
}

#[test]
fn a_second_restart_does_not_keep_what_the_first_left() {
    let mut rib = rib(&[(1, false)]);
    announce(&mut rib, 1, path(1));
    rib.down(PeerId(1), &[Family::Ipv4]);
    rib.up(PeerId(1), peer(1, false));
    assert_eq!(rib.down(PeerId(1), &[Family::Ipv4]), [(prefix(), None)]);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn attributes() -> impl Strategy<Value = Attributes> {
        (1u32..9, 0u8..3, prop::collection::vec(1u32..4, 0..3), prop::option::of(0u32..3), prop::option::of(99u32..102))
            .prop_map(|(n, origin, as_path, med, local_pref)| Attributes {
                origin: [Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(origin)],
                as_path: as_path.into(),
                med,
                local_pref,
                ..path(n)
            })
    }

    proptest! {
        /// The route depends on the paths, not on the order in which they came (unlike speakers that compare pairwise).
        #[test]
        fn the_order_of_arrival_does_not_matter(
            paths in prop::collection::vec((attributes(), any::<bool>()), 1..6), rotate in 0usize..6
        ) {
            let peers: Vec<_> = (0u32..).zip(&paths).map(|(n, (_, internal))| (n, *internal)).collect();
            let mut order: Vec<usize> = (0..paths.len()).collect();
            order.rotate_left(rotate % paths.len());
            let [mut one, mut other] = [rib(&peers), rib(&peers)];
            for n in 0..paths.len() {
                announce(&mut one, u32::try_from(n).unwrap(), paths[n].0.clone());
                announce(&mut other, u32::try_from(order[n]).unwrap(), paths[order[n]].0.clone());
            }
            prop_assert_eq!(one.route(prefix()), other.route(prefix()));
            prop_assert!(one.route(prefix()).is_some());
        }

        /// Replaying the reported changes gives the Loc-RIB, and taking everything back leaves nothing.
        #[test]
        fn changes_add_up(steps in prop::collection::vec((0u32..4, 0u8..4, prop::option::of(attributes())), 0..60)) {
            let mut rib = rib(&[(0, false), (1, false), (2, true), (3, true)]);
            let net = |n: u8| IpNet::new(Ipv4Addr::new(198, 51, n, 0).into(), 24).unwrap();
            let mut seen = HashMap::new();
            for (n, which, attributes) in steps {
                let changes = match attributes {
                    Some(attributes) => announce_all(&mut rib, n, attributes, &[net(which)]),
                    None => withdraw(&mut rib, n, &[net(which)]),
                };
                for (prefix, route) in changes {
                    let before = seen.insert(prefix, route.clone()).flatten();
                    prop_assert_ne!(before, route, "a change that is none");
                }
            }
            for which in 0..4 {
                prop_assert_eq!(seen.get(&net(which)).cloned().flatten(), rib.route(net(which)));
            }
            for n in 0..4 {
                rib.down(PeerId(n), &[]);
            }
            prop_assert!(rib.is_empty());
        }
    }
}

fn beside(gateways: &[u32], alternatives: &[u32]) -> Option<BgpRoute> {
    let alternatives = via(alternatives, false).map(|route| route.gateways).unwrap_or_default();
    via(gateways, false).map(|route| BgpRoute { alternatives, ..route })
}

#[test]
fn what_other_paths_lead_by_is_told_where_it_is_asked_for() {
    let mut rib = rib(&[(1, false), (2, false), (3, false), (4, false)]);
    let longer = |n| Attributes { as_path: [64_000 + n, 64_500, 64_999].into(), ..path(n) };
    announce(&mut rib, 1, path(1));
    assert_eq!(announce(&mut rib, 2, longer(2)), [], "nobody asks");
    assert_eq!(rib.tell_alternatives(true), [(prefix(), beside(&[1], &[2]))]);
    assert_eq!(rib.tell_alternatives(true), []);
    assert_eq!(announce(&mut rib, 3, longer(3)), [(prefix(), beside(&[1], &[2, 3]))]);
    let looping = Attributes { as_path: [64_001, US].into(), ..path(4) };
    assert_eq!(announce(&mut rib, 4, looping), [], "cannot be used");
    assert_eq!(announce(&mut rib, 4, path(4)), [(prefix(), beside(&[1, 4], &[2, 3]))]);
    assert_eq!(withdraw(&mut rib, 2, &[prefix()]), [(prefix(), beside(&[1, 4], &[3]))]);
    assert_eq!(
        announce(&mut rib, 3, Attributes { next_hop: path(1).next_hop, ..longer(3) }),
        [(prefix(), via(&[1, 4], false))]
    );
    assert_eq!(rib.down(PeerId(1), &[]), [(prefix(), beside(&[4], &[1]))], "the same gateway by another peer");
    assert_eq!(rib.tell_alternatives(false), [(prefix(), via(&[4], false))]);
    assert_eq!(withdraw(&mut rib, 4, &[prefix()]), [(prefix(), via(&[1], false))]);
}
