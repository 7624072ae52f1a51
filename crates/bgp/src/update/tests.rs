//! Dispositions of RFC 7606, one case each, on hand-made UPDATEs.

use super::*;

const EXTERNAL: bool = false;
const INTERNAL: bool = true;

fn context(internal: bool) -> Context {
    Context { four_octet_as: true, internal, families: Family::ALL.to_vec(), extended_next_hop: true }
}

fn attribute(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flags, kind, u8::try_from(value.len()).unwrap()];
    bytes.extend_from_slice(value);
    bytes
}

fn origin() -> Vec<u8> {
    attribute(0x40, 1, &[0])
}

fn path() -> Vec<u8> {
    attribute(0x40, 2, &[2, 1, 0, 0, 0xfd, 0xe9])
}

fn next_hop() -> Vec<u8> {
    attribute(0x40, 3, &[192, 0, 2, 1])
}

/// MP_REACH_NLRI of 2001:db8:f::/48 via 2001:db8::1.
fn mp_reach() -> Vec<u8> {
    let mut value = vec![0, 2, 1, 16, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    value.extend([48, 0x20, 0x01, 0x0d, 0xb8, 0, 0x0f]);
    attribute(0x80, 14, &value)
}

const NLRI: &[u8] = &[24, 198, 51, 100];

fn message(withdrawn: &[u8], attributes: &[Vec<u8>], nlri: &[u8]) -> codec::UpdateMessage {
    codec::UpdateMessage {
        withdrawn_routes: withdrawn.to_vec().into(),
        path_attributes: attributes.concat().into(),
        nlri: nlri.to_vec().into(),
    }
}

fn accepted(internal: bool, attributes: &[Vec<u8>], nlri: &[u8]) -> Update {
    match decode(&message(&[], attributes, nlri), &context(internal)) {
        Ok(Decoded::Update(update)) => update,
        other => panic!("{other:?}"),
    }
}

fn v4() -> IpNet {
    "198.51.100.0/24".parse().unwrap()
}

fn v6() -> IpNet {
    "2001:db8:f::/48".parse().unwrap()
}

#[test]
fn one_update_may_announce_both_families_with_a_next_hop_each() {
    let update = accepted(EXTERNAL, &[mp_reach(), origin(), path(), next_hop()], NLRI);
    assert_eq!(update.malformed, Vec::<String>::new());
    let groups: Vec<_> =
        update.announced.iter().map(|(a, prefixes)| (a.next_hop.to_string(), prefixes.clone())).collect();
    assert_eq!(groups, [("192.0.2.1".to_owned(), vec![v4()]), ("2001:db8::1".to_owned(), vec![v6()])]);
    assert_eq!(*update.announced[0].0.as_path, [65001]);
}

/// MP_REACH_NLRI of 198.51.100.0/24 with these addresses as next hop.
fn mp_reach_v4(next_hop: &[&str]) -> Vec<u8> {
    let addresses = next_hop.iter().flat_map(|address| address.parse::<Ipv6Addr>().unwrap().octets());
    let mut value = vec![0, 1, 1, u8::try_from(16 * next_hop.len()).unwrap()];
    value.extend(addresses);
    value.push(0);
    value.extend(NLRI);
    attribute(0x80, 14, &value)
}

#[test]
fn ipv4_prefixes_may_have_ipv6_next_hops() {
    for (sent, next_hop, link_local) in [
        (&["2001:db8::1"][..], "2001:db8::1", None),
        (&["2001:db8::1", "fe80::1"], "2001:db8::1", Some("fe80::1")),
        (&["2001:db8::1", "::"], "2001:db8::1", None),
        (&["::", "fe80::1"], "fe80::1", Some("fe80::1")),
        (&["fe80::1", "fe80::1"], "fe80::1", Some("fe80::1")),
        (&["fe80::1"], "fe80::1", Some("fe80::1")),
    ] {
        let update = accepted(EXTERNAL, &[mp_reach_v4(sent), origin(), path()], &[]);
        assert_eq!(update.malformed, Vec::<String>::new(), "{sent:?}");
        let [(attributes, prefixes)] = update.announced.as_slice() else { panic!("{update:?}") };
        assert_eq!(*prefixes, [v4()]);
        assert_eq!(attributes.next_hop, next_hop.parse::<IpAddr>().unwrap(), "{sent:?}");
        assert_eq!(attributes.link_local, link_local.map(|address| address.parse().unwrap()), "{sent:?}");
    }
    for sent in [&["::"][..], &["2001:db8::1", "2001:db8::2"], &["ff02::1"]] {
        let update = accepted(EXTERNAL, &[mp_reach_v4(sent), origin(), path()], &[]);
        assert_eq!((update.withdrawn, update.announced), (vec![v4()], vec![]), "{sent:?}");
    }
}

#[test]
fn ipv6_next_hops_of_ipv4_prefixes_have_to_be_agreed_on() {
    let context = Context { extended_next_hop: false, ..context(EXTERNAL) };
    let attributes = [mp_reach_v4(&["2001:db8::1"]), origin(), path()];
    let Ok(Decoded::Update(update)) = decode(&message(&[], &attributes, &[]), &context) else { panic!() };
    assert_eq!((update.withdrawn, update.announced, update.malformed.len()), (vec![v4()], vec![], 1));
}

#[test]
fn withdrawals_of_both_families() {
    let unreach = attribute(0x80, 15, &[0, 2, 1, 48, 0x20, 0x01, 0x0d, 0xb8, 0, 0x0f]);
    let decoded = decode(&message(NLRI, &[unreach], &[]), &context(EXTERNAL)).unwrap();
    assert_eq!(decoded, Decoded::Update(Update { withdrawn: vec![v4(), v6()], ..Update::default() }));
}

#[test]
fn end_of_rib_markers() {
    let unreach = attribute(0x80, 15, &[0, 2, 1]);
    for (attributes, family) in [(vec![], Family::Ipv4), (vec![unreach], Family::Ipv6)] {
        let decoded = decode(&message(&[], &attributes, &[]), &context(EXTERNAL));
        assert_eq!(decoded, Ok(Decoded::EndOfRib(family)));
    }
}

#[test]
fn treat_as_withdraw() {
    let cases: [(&str, bool, Vec<Vec<u8>>); 12] = [
        ("ORIGIN of value 3", EXTERNAL, vec![attribute(0x40, 1, &[3]), path(), next_hop()]),
        ("ORIGIN of two bytes", EXTERNAL, vec![attribute(0x40, 1, &[0, 0]), path(), next_hop()]),
        ("ORIGIN as optional", EXTERNAL, vec![attribute(0xc0, 1, &[0]), path(), next_hop()]),
        ("no ORIGIN", EXTERNAL, vec![path(), next_hop()]),
        ("no AS_PATH", EXTERNAL, vec![origin(), next_hop()]),
        ("no NEXT_HOP", EXTERNAL, vec![origin(), path()]),
        ("AS_PATH overrun", EXTERNAL, vec![origin(), attribute(0x40, 2, &[2, 9, 0, 0]), next_hop()]),
        ("empty external AS_PATH", EXTERNAL, vec![origin(), attribute(0x40, 2, &[]), next_hop()]),
        ("NEXT_HOP of 3 bytes", EXTERNAL, vec![origin(), path(), attribute(0x40, 3, &[192, 0, 2])]),
        ("MED of 3 bytes", EXTERNAL, vec![origin(), path(), next_hop(), attribute(0x80, 4, &[0, 0, 1])]),
        ("COMMUNITIES of 3 bytes", EXTERNAL, vec![origin(), path(), next_hop(), attribute(0xc0, 8, &[0, 0, 1])]),
        ("internal LOCAL_PREF of 3", INTERNAL, vec![origin(), path(), next_hop(), attribute(0x40, 5, &[0, 0, 1])]),
    ];
    for (name, internal, attributes) in cases {
        let update = accepted(internal, &attributes, NLRI);
        assert_eq!((update.withdrawn, update.announced), (vec![v4()], vec![]), "{name}");
        assert!(!update.malformed.is_empty(), "{name}");
    }
}

#[test]
fn a_malformed_attribute_withdraws_both_families() {
    let update = accepted(EXTERNAL, &[mp_reach(), attribute(0x40, 1, &[3]), path(), next_hop()], NLRI);
    assert_eq!(update.withdrawn, [v4(), v6()]);
}

#[test]
fn an_attribute_that_overruns_its_section_withdraws() {
    let mut overrun = attribute(0xc0, 8, &[0, 0, 0, 1]);
    overrun[2] = 200;
    let update = accepted(EXTERNAL, &[origin(), path(), next_hop(), overrun], NLRI);
    assert_eq!((update.withdrawn, update.announced), (vec![v4()], vec![]));
}

#[test]
fn attribute_discard() {
    let cases: [(&str, bool, Vec<u8>); 5] = [
        ("ATOMIC_AGGREGATE with a value", EXTERNAL, attribute(0x40, 6, &[1])),
        ("AGGREGATOR of 7 bytes", EXTERNAL, attribute(0xc0, 7, &[0; 7])),
        ("external LOCAL_PREF of 3 bytes", EXTERNAL, attribute(0x40, 5, &[0, 0, 1])),
        ("external ORIGINATOR_ID of 3 bytes", EXTERNAL, attribute(0x80, 9, &[0, 0, 1])),
        ("second MED", EXTERNAL, [attribute(0x80, 4, &[0; 4]), attribute(0x80, 4, &[0, 0, 0, 9])].concat()),
    ];
    for (name, internal, extra) in cases {
        let update = accepted(internal, &[origin(), path(), next_hop(), extra], NLRI);
        assert_eq!(update.withdrawn, [], "{name}");
        assert_eq!(update.announced[0].1, [v4()], "{name}");
        assert!(!update.malformed.is_empty(), "{name}");
    }
}

#[test]
fn session_reset_only_where_the_nlri_cannot_be_found() {
    let whole = [origin(), path(), next_hop()].concat();
    let cases: [(&str, codec::UpdateMessage, u8); 4] = [
        ("NLRI of length 33", message(&[], std::slice::from_ref(&whole), &[33, 1, 2, 3, 4, 5]), 10),
        ("NLRI that ends early", message(&[], std::slice::from_ref(&whole), &[24, 198]), 10),
        ("withdrawn of length 33", message(&[33, 1, 2, 3, 4, 5], &[], &[]), 10),
        ("two MP_REACH_NLRI", message(&[], &[mp_reach(), mp_reach(), origin(), path()], &[]), 1),
    ];
    for (name, message, subcode) in cases {
        let error = decode(&message, &context(EXTERNAL)).expect_err(name);
        assert_eq!((error.code, error.subcode), (code::UPDATE_MESSAGE, subcode), "{name}");
    }
    let short = attribute(0x80, 14, &[0, 2, 1, 16, 0x20]);
    let error = decode(&message(&[], &[short, origin(), path()], &[]), &context(EXTERNAL)).unwrap_err();
    assert_eq!(error.code, code::UPDATE_MESSAGE);
}

#[test]
fn families_that_are_not_agreed_on_are_ignored() {
    let only_v4 = Context { families: vec![Family::Ipv4], ..context(EXTERNAL) };
    let decoded = decode(&message(&[], &[mp_reach(), origin(), path(), next_hop()], NLRI), &only_v4).unwrap();
    let Decoded::Update(update) = decoded else { panic!("{decoded:?}") };
    assert_eq!(update.announced.len(), 1);
    assert_eq!(update.announced[0].1, [v4()]);
}

#[test]
fn attributes_of_internal_peers_count_only_from_internal_peers() {
    let extra = [
        attribute(0x40, 5, &[0, 0, 0, 7]),
        attribute(0x80, 9, &[10, 0, 0, 9]),
        attribute(0x80, 10, &[10, 0, 0, 9, 10, 0, 0, 8]),
        attribute(0x80, 4, &[0, 0, 0, 3]),
    ];
    let all: Vec<Vec<u8>> = [origin(), path(), next_hop()].into_iter().chain(extra).collect();
    let from = |internal| Attributes::clone(&accepted(internal, &all, NLRI).announced[0].0);
    let internal = from(INTERNAL);
    assert_eq!((internal.local_pref, internal.originator, internal.clusters), (Some(7), Some([10, 0, 0, 9].into()), 2));
    assert_eq!(internal.med, Some(3));
    let external = from(EXTERNAL);
    assert_eq!((external.local_pref, external.originator, external.clusters), (None, None, 0));
}

#[test]
fn as4_path_of_a_two_octet_peer_is_put_back() {
    let two_octets = Context { four_octet_as: false, ..context(EXTERNAL) };
    // AS_TRANS, then AS4_PATH with 4200000001 (RFC 6793 §4.2.3).
    let path = attribute(0x40, 2, &[2, 2, 0xfd, 0xe9, 0x5b, 0xa0]);
    let as4 = attribute(0xc0, 17, &[2, 1, 0xfa, 0x56, 0xea, 0x01]);
    let decoded = decode(&message(&[], &[origin(), path, next_hop(), as4], NLRI), &two_octets).unwrap();
    let Decoded::Update(update) = decoded else { panic!("{decoded:?}") };
    assert_eq!(*update.announced[0].0.as_path, [65001, 4_200_000_001]);
}
