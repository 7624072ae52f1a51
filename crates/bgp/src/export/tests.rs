//! What goes out is read back by the decoder of a peer.

use super::*;
use crate::update::{Context, Decoded, decode};
use crate::wire::{Framer, Message};

fn established(families: &[Family], four_octet_as: bool) -> Established {
    Established {
        router_id: Ipv4Addr::LOCALHOST,
        hold_seconds: 90,
        families: families.to_vec(),
        four_octet_as,
        graceful_restart: true,
        extended_next_hop: true,
    }
}

const NEXT_HOPS: NextHops = NextHops {
    v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
    v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    link_local: None,
    over_ipv6: false,
};

/// Those of a session over IPv6, on a link.
const OVER_IPV6: NextHops =
    NextHops { link_local: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)), over_ipv6: true, ..NEXT_HOPS };

fn out(local_asn: u32, internal: bool) -> AdjRibOut {
    AdjRibOut::new(local_asn, internal, &established(&Family::ALL, true), NEXT_HOPS)
}

fn routes(prefixes: &[&str], communities: &[Community]) -> Announced {
    let communities = Arc::new(communities.iter().copied().collect::<BTreeSet<_>>());
    prefixes.iter().map(|p| (p.parse().unwrap(), Arc::clone(&communities))).collect()
}

/// All messages, decoded, with their attributes as the codec sees them.
fn drain(out: &mut AdjRibOut, four_octet_as: bool, internal: bool) -> Vec<(Decoded, Vec<PathAttribute>)> {
    let context = Context { four_octet_as, internal, families: Family::ALL.to_vec(), extended_next_hop: true };
    std::iter::from_fn(|| out.next_message())
        .map(|bytes| {
            assert!((23..=MAX_MESSAGE_BYTES).contains(&bytes.len()), "{} bytes", bytes.len());
            let mut framer = Framer::default();
            framer.push(&bytes);
            let Ok(Some(Message::Update(message))) = framer.next() else { panic!("no UPDATE: {bytes:?}") };
            let attributes = message.parse(four_octet_as, false, &[]).unwrap().attributes;
            let decoded = decode(&message, &context).unwrap();
            if let Decoded::Update(update) = &decoded {
                assert_eq!(update.malformed, Vec::<String>::new());
            }
            (decoded, attributes)
        })
        .collect()
}

fn updates(out: &mut AdjRibOut) -> Vec<crate::Update> {
    drain(out, true, false)
        .into_iter()
        .map(|(decoded, _)| match decoded {
            Decoded::Update(update) => update,
            Decoded::EndOfRib(family) => panic!("End-of-RIB of {family}"),
        })
        .collect()
}

fn nets(prefixes: &[&str]) -> Vec<IpNet> {
    prefixes.iter().map(|p| p.parse().unwrap()).collect()
}

#[test]
fn an_external_peer_gets_our_as_and_no_local_pref() {
    let mut out = out(65001, false);
    out.set(&routes(&["192.0.2.80/32", "2001:db8::80/128"], &[]));
    let sent = drain(&mut out, true, false);
    assert_eq!(sent.len(), 2);
    for ((decoded, attributes), (prefix, next_hop)) in
        sent.iter().zip([("192.0.2.80/32", "192.0.2.1"), ("2001:db8::80/128", "2001:db8::1")])
    {
        let Decoded::Update(update) = decoded else { panic!("{decoded:?}") };
        let [(route, prefixes)] = update.announced.as_slice() else { panic!("{update:?}") };
        assert_eq!(prefixes, &nets(&[prefix]));
        assert_eq!(route.next_hop, next_hop.parse::<IpAddr>().unwrap());
        assert_eq!(*route.as_path, [65001]);
        assert!(!attributes.iter().any(|a| matches!(a, PathAttribute::LocalPref(_))));
    }
}

#[test]
fn an_internal_peer_gets_local_pref_and_an_empty_path() {
    let mut out = out(65001, true);
    out.set(&routes(&["192.0.2.80/32"], &[]));
    let sent = drain(&mut out, true, true);
    let [(Decoded::Update(update), _)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(update.announced[0].0.local_pref, Some(100));
    assert!(update.announced[0].0.as_path.is_empty());
}

#[test]
fn a_two_octet_peer_still_learns_our_as() {
    let mut out = AdjRibOut::new(4_200_000_001, false, &established(&Family::ALL, false), NEXT_HOPS);
    out.set(&routes(&["192.0.2.80/32"], &[]));
    let sent = drain(&mut out, false, false);
    let [(Decoded::Update(update), _)] = sent.as_slice() else { panic!("{sent:?}") };
    // AS_TRANS in AS_PATH, the real one in AS4_PATH (RFC 6793 §4.2.2).
    assert_eq!(*update.announced[0].0.as_path, [4_200_000_001]);
}

#[test]
fn communities_of_both_kinds_go_out() {
    let mut out = out(65001, false);
    out.set(&routes(&["192.0.2.80/32"], &[Community::Large(1, 2, 3), Community::Standard(65001, 7)]));
    let sent = drain(&mut out, true, false);
    assert!(sent[0].1.contains(&PathAttribute::Communities(vec![65001 << 16 | 7])));
    assert!(sent[0].1.contains(&PathAttribute::LargeCommunities(vec![codec::LargeCommunity::new(1, 2, 3)])));
}

#[test]
fn only_differences_go_out() {
    let mut out = out(65001, false);
    out.set(&routes(&["192.0.2.1/32", "192.0.2.2/32"], &[]));
    assert_eq!(updates(&mut out)[0].announced[0].1, nets(&["192.0.2.1/32", "192.0.2.2/32"]));
    out.set(&routes(&["192.0.2.2/32", "192.0.2.3/32", "2001:db8::3/128"], &[]));
    let sent = updates(&mut out);
    assert_eq!(sent[0].withdrawn, nets(&["192.0.2.1/32"]));
    assert_eq!(sent[1].announced[0].1, nets(&["192.0.2.3/32"]));
    assert_eq!(sent[2].announced[0].1, nets(&["2001:db8::3/128"]));
    assert_eq!(out.len(), 3);
    out.set(&routes(&["192.0.2.2/32", "192.0.2.3/32", "2001:db8::3/128"], &[]));
    assert_eq!(out.next_message(), None);
    // Other communities are another route.
    out.set(&routes(&["192.0.2.2/32"], &[Community::Standard(1, 1)]));
    let sent = updates(&mut out);
    assert_eq!(sent.iter().map(|u| u.withdrawn.len()).sum::<usize>(), 2);
    assert_eq!(sent[2].announced[0].1, nets(&["192.0.2.2/32"]));
}

#[test]
fn what_is_taken_back_before_it_went_out_is_not_announced() {
    let mut out = out(65001, false);
    out.set(&routes(&["192.0.2.1/32"], &[]));
    out.set(&Announced::new());
    assert_eq!(updates(&mut out).iter().map(|u| u.announced.len()).sum::<usize>(), 0);
    out.set(&routes(&["192.0.2.1/32"], &[]));
    out.next_message();
    out.set(&Announced::new());
    out.set(&routes(&["192.0.2.1/32"], &[]));
    let sent = updates(&mut out);
    assert!(sent.iter().all(|u| u.withdrawn.is_empty()), "{sent:?}");
}

#[test]
fn many_prefixes_fill_messages_and_lose_none() {
    let mut out = out(65001, false);
    let communities = Arc::new(BTreeSet::new());
    let wanted: Announced = (0..5000u32)
        .flat_map(|n| {
            let v4 = Ipv4Addr::from(0x0a00_0000 + n);
            let v6 = Ipv6Addr::from((0x2001_0db8_u128 << 96) + u128::from(n));
            [IpNet::new(v4.into(), 32).unwrap(), IpNet::new(v6.into(), 128).unwrap()]
        })
        .map(|prefix| (prefix, Arc::clone(&communities)))
        .collect();
    out.set(&wanted);
    let sent = updates(&mut out);
    let announced: BTreeSet<IpNet> = sent.iter().flat_map(|u| &u.announced).flat_map(|(_, p)| p).copied().collect();
    assert_eq!(announced, wanted.keys().copied().collect());
    // 5 and 17 bytes a prefix in messages of 4,096.
    assert!(sent.len() <= 30, "{} messages", sent.len());
    out.set(&Announced::new());
    let sent = updates(&mut out);
    assert_eq!(sent.iter().map(|u| u.withdrawn.len()).sum::<usize>(), 10_000);
    assert!(sent.len() <= 30, "{} messages", sent.len());
}

#[test]
fn end_of_rib_comes_after_the_routes_for_each_family() {
    let mut out = out(65001, false);
    out.set(&routes(&["192.0.2.1/32"], &[]));
    out.end_of_rib();
    let sent: Vec<Decoded> = drain(&mut out, true, false).into_iter().map(|(d, _)| d).collect();
    assert!(matches!(sent[0], Decoded::Update(_)));
    assert_eq!(sent[1..], Family::ALL.map(Decoded::EndOfRib));
}

#[test]
fn a_refresh_sends_one_family_again() {
    let mut out = out(65001, false);
    out.set(&routes(&["192.0.2.1/32", "2001:db8::1/128"], &[]));
    updates(&mut out);
    out.refresh(Family::Ipv6);
    let sent = updates(&mut out);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].announced[0].1, nets(&["2001:db8::1/128"]));
}

#[test]
fn a_family_without_next_hop_or_agreement_is_not_announced() {
    let wanted = routes(&["192.0.2.1/32", "2001:db8::1/128"], &[]);
    let only_v4 = NextHops { v6: None, ..NEXT_HOPS };
    let mut without_address = AdjRibOut::new(1, false, &established(&Family::ALL, true), only_v4);
    let mut without_family = AdjRibOut::new(1, false, &established(&[Family::Ipv4], true), NEXT_HOPS);
    for out in [&mut without_address, &mut without_family] {
        out.set(&wanted);
        assert_eq!(updates(out).len(), 1);
        assert_eq!(out.len(), 1);
        assert!(!out.speaks(Family::Ipv6));
    }
}

#[test]
fn over_ipv6_a_peer_that_takes_it_gets_ipv4_prefixes_with_our_ipv6_address() {
    for (extended_next_hop, v4, expected) in [
        (true, NEXT_HOPS.v4, Some("2001:db8::1")),
        (true, None, Some("2001:db8::1")),
        (false, NEXT_HOPS.v4, Some("192.0.2.1")),
        (false, None, None),
    ] {
        let established = Established { extended_next_hop, ..established(&Family::ALL, true) };
        let mut out = AdjRibOut::new(65001, false, &established, NextHops { v4, ..OVER_IPV6 });
        assert_eq!(out.speaks(Family::Ipv4), expected.is_some());
        out.set(&routes(&["192.0.2.80/32"], &[]));
        let sent: Vec<_> = updates(&mut out).into_iter().flat_map(|update| update.announced).collect();
        let next_hops: Vec<_> = sent.iter().map(|(attributes, _)| attributes.next_hop).collect();
        assert_eq!(next_hops, expected.map(|address| address.parse::<IpAddr>().unwrap()).as_slice());
        for (attributes, prefixes) in &sent {
            assert_eq!(*prefixes, nets(&["192.0.2.80/32"]));
            assert_eq!(attributes.link_local, OVER_IPV6.link_local.filter(|_| extended_next_hop));
        }
        out.set(&Announced::new());
        let withdrawn: Vec<_> = updates(&mut out).into_iter().flat_map(|update| update.withdrawn).collect();
        assert_eq!(withdrawn.len(), next_hops.len());
    }
}

#[test]
fn communities_that_leave_no_room_do_not_hang_the_session() {
    let mut out = out(65001, false);
    let many: Vec<_> = (0..2000).map(|n| Community::Standard(1, n)).collect();
    out.set(&routes(&["192.0.2.1/32"], &many));
    while out.next_message().is_some() {}
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn announced() -> impl Strategy<Value = Announced> {
        let prefix = prop_oneof![
            (any::<u32>(), 0u8..=32).prop_map(|(a, n)| IpNet::new(Ipv4Addr::from(a).into(), n).unwrap().trunc()),
            (any::<u128>(), 0u8..=128).prop_map(|(a, n)| IpNet::new(Ipv6Addr::from(a).into(), n).unwrap().trunc()),
        ];
        let community = prop_oneof![
            (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Community::Standard(a, b)),
            (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(a, b, c)| Community::Large(a, b, c)),
        ];
        let communities = prop::collection::btree_set(community, 0..70).prop_map(Arc::new);
        prop::collection::btree_map(prefix, communities, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A peer that applies what it is sent knows what was set last, however much of it went out in between.
        #[test]
        fn the_peer_ends_up_with_what_was_set(
            sets in prop::collection::vec((announced(), 0usize..5), 1..5),
            internal: bool,
            four_octet_as: bool,
            over_ipv6: bool,
        ) {
            let next_hops = if over_ipv6 { OVER_IPV6 } else { NEXT_HOPS };
            let established = established(&Family::ALL, four_octet_as);
            let mut out = AdjRibOut::new(4_200_000_001, internal, &established, next_hops);
            let context = Context { four_octet_as, internal, families: Family::ALL.to_vec(), extended_next_hop: true };
            let mut known = BTreeSet::new();
            let last = sets.len() - 1;
            for (n, (wanted, messages)) in sets.iter().enumerate() {
                out.set(wanted);
                for _ in 0..if n == last { usize::MAX } else { *messages } {
                    let Some(bytes) = out.next_message() else { break };
                    prop_assert!(bytes.len() <= MAX_MESSAGE_BYTES);
                    let mut framer = Framer::default();
                    framer.push(&bytes);
                    let Ok(Some(Message::Update(message))) = framer.next() else { panic!("no UPDATE: {bytes:?}") };
                    let Ok(Decoded::Update(update)) = decode(&message, &context) else { panic!("{message:?}") };
                    prop_assert_eq!(update.malformed, Vec::<String>::new());
                    for prefix in update.withdrawn {
                        known.remove(&prefix);
                    }
                    for (_, prefixes) in update.announced {
                        known.extend(prefixes);
                    }
                }
            }
            prop_assert_eq!(known, sets[last].0.keys().copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(out.len(), sets[last].0.len());
        }
    }
}
