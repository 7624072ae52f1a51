//! Arbitrary UPDATE bodies through an established session into a RIB: what it reports adds up, and what it then announces
//! to another session arrives there unchanged.
#![no_main]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bgp::export::Announced;
use bgp::rib::{Link, Peer};
use bgp::{
    Action, AdjRibOut, Config, ConnectionId, Direction, Established, Event, Family, NextHops, PeerId, Rib, Session,
    Update,
};
use libfuzzer_sys::fuzz_target;

const ID: ConnectionId = ConnectionId(1);
const PEER: PeerId = PeerId(1);

fn config(local: u32, peer: u32, id: u8) -> Config {
    Config {
        local_asn: local,
        router_id: Ipv4Addr::new(10, 0, 0, id),
        peer_asn: peer,
        hold_seconds: 90,
        restart_seconds: 0,
        forwarding_preserved: true,
        passive: false,
        seed: 1,
    }
}

/// A session with `peer_asn` that has exchanged OPENs and KEEPALIVEs.
fn established(peer_asn: u32) -> (Session, Established) {
    let mut sides = [Session::new(config(65001, peer_asn, 1)), Session::new(config(peer_asn, 65001, 2))];
    let mut wire: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut up = None;
    let mut take = |from: usize, actions: Vec<Action>, wire: &mut Vec<(usize, Vec<u8>)>| {
        for action in actions {
            match action {
                Action::Send(_, bytes) => wire.push((1 - from, bytes.to_vec())),
                Action::Up(_, established) if from == 0 => up = Some(established),
                _ => {}
            }
        }
    };
    for (n, direction) in [(0, Direction::Outgoing), (1, Direction::Incoming)] {
        sides[n].handle(Event::Start);
        let actions = sides[n].handle(Event::Connected(ID, direction));
        take(n, actions, &mut wire);
    }
    while !wire.is_empty() {
        let (to, bytes) = wire.remove(0);
        let actions = sides[to].handle(Event::Received(ID, &bytes));
        take(to, actions, &mut wire);
    }
    let [session, _] = sides;
    (session, up.expect("established"))
}

fn framed(body: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(19 + body.len()).ok().filter(|length| *length <= 4096)?;
    let mut bytes = vec![0xff; 16];
    bytes.extend(length.to_be_bytes());
    bytes.push(2);
    bytes.extend_from_slice(body);
    Some(bytes)
}

fn updates(session: &mut Session, bytes: &[u8]) -> Vec<Update> {
    let actions = session.handle(Event::Received(ID, bytes));
    actions.into_iter().filter_map(|a| if let Action::Update(update) = a { Some(update) } else { None }).collect()
}

fuzz_target!(|input: (bool, Vec<&[u8]>)| {
    let (internal, bodies) = input;
    let (mut session, established_with) = established(if internal { 65001 } else { 65002 });
    let mut rib = Rib::new(65001, Ipv4Addr::new(10, 0, 0, 1));
    let peer = Peer {
        router_id: established_with.router_id,
        address: [192, 0, 2, 2].into(),
        internal,
        local: vec![[192, 0, 2, 1].into()],
        link: internal.then(|| Link { interface: 1, networks: vec!["2001:db8::/64".parse().expect("a network")] }),
    };
    rib.up(PEER, peer);
    let mut routes = BTreeMap::new();
    for bytes in bodies.iter().filter_map(|body| framed(body)) {
        for update in updates(&mut session, &bytes) {
            for (prefix, route) in rib.update(PEER, &update) {
                assert_ne!(routes.insert(prefix, route.clone()).flatten(), route, "a change that is none");
            }
        }
    }
    for (prefix, route) in &routes {
        assert_eq!(rib.route(*prefix), *route);
    }
    let (received, accepted) = rib.counts(PEER);
    assert!(accepted <= received && received == rib.len());

    // Encode what was decoded, and decode it again.
    let none = Arc::default();
    let wanted: Announced =
        routes.iter().filter(|(_, route)| route.is_some()).map(|(prefix, _)| (*prefix, Arc::clone(&none))).collect();
    let next_hops = NextHops {
        v4: Some([192, 0, 2, 1].into()),
        v6: Some("2001:db8::1".parse().expect("an address")),
        link_local: internal.then(|| "fe80::1".parse().expect("an address")),
        over_ipv6: internal,
    };
    let (mut other, _) = established(65002);
    let mut out = AdjRibOut::new(65002, false, &established_with, next_hops);
    out.set(&wanted);
    let mut arrived = Vec::new();
    while let Some(bytes) = out.next_message() {
        for update in updates(&mut other, &bytes) {
            assert!(update.malformed.is_empty() && update.withdrawn.is_empty());
            arrived.extend(update.announced.into_iter().flat_map(|(_, prefixes)| prefixes));
        }
    }
    arrived.sort_unstable();
    assert!(arrived.iter().eq(wanted.keys()));
    assert_eq!(established_with.families, Family::ALL);
    rib.down(PEER, &[]);
    assert!(rib.is_empty());
});
