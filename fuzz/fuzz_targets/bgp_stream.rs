//! Arbitrary bytes into an established session: it is as it was, or down with a reason; never a panic, never an answer
//! longer than a message.
#![no_main]

use std::net::Ipv4Addr;

use bgp::{Action, Config, ConnectionId, Direction, Event, Session, State};
use libfuzzer_sys::fuzz_target;

const ID: ConnectionId = ConnectionId(1);

fn config(local: u32, peer: u32, id: u8) -> Config {
    Config {
        local_asn: local,
        router_id: Ipv4Addr::new(10, 0, 0, id),
        peer_asn: peer,
        hold_seconds: 90,
        restart_seconds: 120,
        forwarding_preserved: true,
        passive: false,
        seed: 1,
    }
}

/// A session that has exchanged OPENs and KEEPALIVEs with another one.
fn established() -> Session {
    let mut sides = [Session::new(config(65001, 65002, 1)), Session::new(config(65002, 65001, 2))];
    let mut wire: Vec<(usize, Vec<u8>)> = Vec::new();
    for (n, direction) in [(0, Direction::Outgoing), (1, Direction::Incoming)] {
        sides[n].handle(Event::Start);
        send(&mut wire, n, &sides[n].handle(Event::Connected(ID, direction)));
    }
    while !wire.is_empty() {
        let (to, bytes) = wire.remove(0);
        let actions = sides[to].handle(Event::Received(ID, &bytes));
        send(&mut wire, to, &actions);
    }
    let [session, _] = sides;
    assert_eq!(session.state(), State::Established);
    session
}

fn send(wire: &mut Vec<(usize, Vec<u8>)>, from: usize, actions: &[Action]) {
    for action in actions {
        if let Action::Send(_, bytes) = action {
            wire.push((1 - from, bytes.to_vec()));
        }
    }
}

fuzz_target!(|chunks: Vec<&[u8]>| {
    let mut session = established();
    let mut down = false;
    for chunk in chunks {
        for action in session.handle(Event::Received(ID, chunk)) {
            match action {
                Action::Send(_, bytes) => assert!((19..=4096).contains(&bytes.len())),
                Action::Down { .. } => down = true,
                _ => assert!(!down || matches!(action, Action::Close(_) | Action::SetTimer(..) | Action::StopTimer(_))),
            }
        }
        assert_eq!(down, session.state() != State::Established);
    }
});
