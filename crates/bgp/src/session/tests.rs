//! Two sessions that talk through byte buffers, with a clock that only moves when told.

use std::collections::BTreeMap;

use super::*;
use crate::{AdjRibOut, NextHops};

pub(crate) fn config(local: u32, peer: u32, id: u8) -> Config {
    Config {
        local_asn: local,
        router_id: Ipv4Addr::new(10, 0, 0, id),
        peer_asn: peer,
        hold_seconds: 90,
        restart_seconds: 120,
        forwarding_preserved: true,
        passive: false,
        seed: u64::from(id),
    }
}

/// One side with its timers and everything that it has reported.
struct Side {
    session: Session,
    timers: BTreeMap<Timer, Duration>,
    reports: Vec<Action>,
    wants_connection: bool,
}

impl Side {
    fn new(config: Config) -> Self {
        Self { session: Session::new(config), timers: BTreeMap::new(), reports: Vec::new(), wants_connection: false }
    }

    fn reported(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.reports)
    }
}

/// Two sides, A (0) and B (1), and the connections between them.
struct Pair {
    sides: [Side; 2],
    now: Duration,
    /// Bytes on their way: to which side, on which connection.
    wire: Vec<(usize, ConnectionId, Bytes)>,
    /// Open connections.
    open: Vec<ConnectionId>,
    /// A side that does not answer: what it is sent is lost.
    dead: Option<usize>,
}

impl Pair {
    fn new(a: Config, b: Config) -> Self {
        Self {
            sides: [Side::new(a), Side::new(b)],
            now: Duration::ZERO,
            wire: Vec::new(),
            open: Vec::new(),
            dead: None,
        }
    }

    fn feed(&mut self, side: usize, event: Event<'_>) {
        let actions = self.sides[side].session.handle(event);
        for action in actions {
            match action {
                Action::Connect => self.sides[side].wants_connection = true,
                Action::Send(id, bytes) => self.wire.push((1 - side, id, bytes)),
                Action::Close(id) => {
                    if self.open.contains(&id) {
                        self.open.retain(|c| *c != id);
                        self.wire.push((1 - side, id, Bytes::new()));
                    }
                }
                Action::SetTimer(timer, after) => {
                    self.sides[side].timers.insert(timer, self.now + after);
                }
                Action::StopTimer(timer) => {
                    self.sides[side].timers.remove(&timer);
                }
                report => self.sides[side].reports.push(report),
            }
        }
    }

    fn connect(&mut self, from: usize, id: u64) {
        let id = ConnectionId(id);
        self.open.push(id);
        self.sides[from].wants_connection = false;
        self.feed(from, Event::Connected(id, Direction::Outgoing));
        self.feed(1 - from, Event::Connected(id, Direction::Incoming));
    }

    /// Delivers everything that is on its way, in order.
    fn settle(&mut self) {
        while !self.wire.is_empty() {
            let (to, id, bytes) = self.wire.remove(0);
            if self.dead == Some(to) {
                continue;
            }
            if bytes.is_empty() {
                self.feed(to, Event::Closed(id));
            } else {
                self.feed(to, Event::Received(id, &bytes));
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let next = (0..2)
                .filter(|side| self.dead != Some(*side))
                .flat_map(|side| self.sides[side].timers.iter().map(move |(timer, at)| (*at, side, *timer)))
                .min_by_key(|(at, ..)| *at);
            match next {
                Some((at, side, timer)) if at <= end => {
                    self.now = at;
                    self.sides[side].timers.remove(&timer);
                    self.feed(side, Event::Timer(timer));
                    self.settle();
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn states(&self) -> [State; 2] {
        [self.sides[0].session.state(), self.sides[1].session.state()]
    }

    fn established(a: Config, b: Config) -> Self {
        let mut pair = Self::new(a, b);
        pair.feed(0, Event::Start);
        pair.feed(1, Event::Start);
        pair.connect(0, 1);
        pair.settle();
        assert_eq!(pair.states(), [State::Established; 2]);
        pair.sides[0].wants_connection = false;
        pair.sides[1].wants_connection = false;
        pair
    }
}

fn passive(mut config: Config) -> Config {
    config.passive = true;
    config
}

fn external() -> (Config, Config) {
    (config(65001, 65002, 1), passive(config(65002, 65001, 2)))
}

fn down(reports: &[Action]) -> (&DownReason, &[Family]) {
    reports
        .iter()
        .find_map(|r| match r {
            Action::Down { reason, retained } => Some((reason, retained.as_slice())),
            _ => None,
        })
        .expect("no Down reported")
}

#[test]
fn two_sessions_agree() {
    let (a, b) = external();
    let mut pair = Pair::established(a, b);
    let reports = pair.sides[0].reported();
    let [Action::Up(ConnectionId(1), up)] = reports.as_slice() else { panic!("{reports:?}") };
    assert_eq!(up.router_id, Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(up.families, Family::ALL);
    assert_eq!(up.hold_seconds, 90);
    assert!(up.four_octet_as && up.graceful_restart && up.extended_next_hop);
    // Keepalives hold the session for as long as both sides live.
    pair.pass(3600);
    assert_eq!(pair.states(), [State::Established; 2]);
    assert!(pair.sides[0].reported().is_empty());
}

#[test]
fn the_lower_hold_time_counts() {
    let (a, mut b) = external();
    b.hold_seconds = 9;
    let mut pair = Pair::established(a, b);
    assert!(matches!(pair.sides[0].reported().as_slice(), [Action::Up(_, up)] if up.hold_seconds == 9));
}

#[test]
fn a_silent_peer_is_given_up_after_the_hold_time() {
    let (a, b) = external();
    let mut pair = Pair::established(a, b);
    pair.sides[0].reported();
    pair.dead = Some(1);
    pair.pass(89);
    assert_eq!(pair.states()[0], State::Established);
    pair.pass(2);
    let reports = pair.sides[0].reported();
    let (reason, retained) = down(&reports);
    assert_eq!(*reason, DownReason::Sent(Notification::new(code::HOLD_TIMER_EXPIRED, 0)));
    assert!(retained.is_empty(), "a NOTIFICATION ends the routes");
}

#[test]
fn a_wrong_as_is_refused() {
    let (a, mut b) = external();
    b.local_asn = 65003;
    let mut pair = Pair::new(a, b);
    pair.feed(0, Event::Start);
    pair.feed(1, Event::Start);
    pair.connect(0, 1);
    pair.settle();
    assert_eq!(pair.sides[0].session.last_error(), Some(&DownReason::Sent(Notification::new(2, 2))));
    assert!(pair.sides[0].timers.contains_key(&Timer::Connect), "it tries again");
    assert!(pair.open.is_empty());
}

#[test]
fn retries_are_spaced_out_and_capped() {
    let mut session = Session::new(external().0);
    session.handle(Event::Start);
    let mut delays = Vec::new();
    for _ in 0..10 {
        let actions = session.handle(Event::ConnectFailed);
        let [Action::SetTimer(Timer::Connect, delay)] = actions.as_slice() else { panic!("{actions:?}") };
        delays.push(delay.as_secs_f64());
        assert_eq!(session.handle(Event::Timer(Timer::Connect)), [Action::Connect]);
    }
    for (n, delay) in delays.iter().enumerate() {
        let full = f64::from(1 << n.min(5)).min(30.0);
        assert!((0.75 * full..=full).contains(delay), "{delays:?}");
    }
}

#[test]
fn of_two_crossing_connections_the_one_of_the_higher_identifier_stays() {
    // B has the higher identifier, so the connection that B opened stays, whichever is ahead.
    for first in [0, 1] {
        let (a, mut b) = external();
        b.passive = false;
        let mut pair = Pair::new(a, b);
        pair.feed(0, Event::Start);
        pair.feed(1, Event::Start);
        pair.connect(first, u64::try_from(first).unwrap());
        pair.connect(1 - first, u64::try_from(1 - first).unwrap());
        pair.settle();
        assert_eq!(pair.states(), [State::Established; 2]);
        assert_eq!(pair.open, [ConnectionId(1)], "first {first}");
        for side in &mut pair.sides {
            let reports = side.reported();
            assert!(matches!(reports.as_slice(), [Action::Up(ConnectionId(1), _)]), "no flap: {reports:?}");
        }
    }
}

#[test]
fn a_connection_that_crossed_the_established_one_does_not_end_it() {
    let (a, mut b) = external();
    b.passive = false;
    let mut pair = Pair::new(a, b);
    pair.feed(0, Event::Start);
    pair.feed(1, Event::Start);
    // B's connection reaches A before the session is up, and B's OPEN on it only afterwards.
    pair.open.push(ConnectionId(9));
    pair.feed(0, Event::Connected(ConnectionId(9), Direction::Incoming));
    pair.connect(0, 1);
    pair.settle();
    assert_eq!(pair.states()[0], State::OpenSent, "it waits for that OPEN");
    pair.pass(6);
    assert_eq!(pair.states()[0], State::Established, "not for ever");
    let mut late = Session::new(config(65002, 65001, 2));
    late.handle(Event::Start);
    let open = late.handle(Event::Connected(ConnectionId(9), Direction::Outgoing));
    let Some(Action::Send(_, open)) = open.first() else { panic!("{open:?}") };
    pair.feed(0, Event::Received(ConnectionId(9), open));
    assert_eq!(pair.states()[0], State::Established);
    assert!(matches!(pair.sides[0].reported().as_slice(), [Action::Up(..)]));
    assert!(!pair.open.contains(&ConnectionId(9)));
}

#[test]
fn an_open_waits_no_longer_than_for_the_other_connection() {
    let (a, mut b) = external();
    b.passive = false;
    let mut pair = Pair::new(a, b);
    pair.feed(0, Event::Start);
    pair.feed(1, Event::Start);
    // A never sees the connection that B has opened, and that would win.
    pair.feed(1, Event::Connected(ConnectionId(9), Direction::Outgoing));
    pair.connect(0, 1);
    pair.settle();
    assert_eq!(pair.states(), [State::OpenConfirm, State::OpenSent]);
    pair.feed(1, Event::Closed(ConnectionId(9)));
    pair.settle();
    assert_eq!(pair.states(), [State::Established; 2]);
}

#[test]
fn what_waits_behind_an_open_is_bounded() {
    let (a, mut b) = external();
    b.passive = false;
    let mut pair = Pair::new(a, b);
    pair.feed(0, Event::Start);
    pair.feed(1, Event::Start);
    pair.feed(1, Event::Connected(ConnectionId(9), Direction::Outgoing));
    pair.connect(0, 1);
    pair.settle();
    let held = ConnectionId(1);
    assert!(!pair.sides[1].session.is_full(held));
    let keepalive = wire::encode(&rustbgpd_wire::Message::Keepalive);
    let mut bytes = 0;
    while !pair.sides[1].session.is_full(held) {
        pair.feed(1, Event::Received(held, &keepalive));
        bytes += keepalive.len();
        assert!(bytes < 5 * wire::MAX_MESSAGE_BYTES);
    }
    assert!(!pair.sides[1].session.is_full(ConnectionId(9)), "the other connection is read");
    pair.feed(1, Event::Timer(Timer::Collision(held)));
    pair.settle();
    assert!(!pair.sides[1].session.is_full(held));
    assert_eq!(pair.states(), [State::Established; 2], "nothing of it is lost");
}

#[test]
fn a_connection_that_the_peer_ends_at_once_is_no_restart() {
    let (a, mut b) = external();
    b.passive = false;
    let mut pair = Pair::established(a, b.clone());
    pair.sides[0].reported();
    let mut other = Session::new(b);
    other.handle(Event::Start);
    let open = other.handle(Event::Connected(ConnectionId(2), Direction::Outgoing));
    let Some(Action::Send(_, open)) = open.first() else { panic!("{open:?}") };
    pair.open.push(ConnectionId(2));
    pair.feed(0, Event::Connected(ConnectionId(2), Direction::Incoming));
    pair.feed(0, Event::Received(ConnectionId(2), open));
    pair.pass(60);
    let cease = wire::encode_notification(&Notification::cease(cease::CONNECTION_COLLISION));
    pair.feed(0, Event::Received(ConnectionId(2), &cease));
    assert!(!pair.open.contains(&ConnectionId(2)));
    assert_eq!((pair.states()[0], pair.sides[0].reported()), (State::Established, vec![]));
}

#[test]
fn a_lost_connection_leaves_stale_routes_until_the_restart_time_is_over() {
    let (a, b) = external();
    let mut pair = Pair::established(a, b);
    pair.sides[0].reported();
    pair.dead = Some(1);
    pair.feed(0, Event::Closed(ConnectionId(1)));
    let reports = pair.sides[0].reported();
    assert_eq!(down(&reports), (&DownReason::Closed, Family::ALL.as_slice()));
    pair.pass(119);
    assert_eq!(pair.sides[0].reported(), []);
    pair.pass(2);
    assert_eq!(pair.sides[0].reported(), Family::ALL.map(Action::FlushStale));
}

#[test]
fn a_peer_that_comes_back_replaces_its_stale_routes() {
    let (a, b) = external();
    let mut pair = Pair::established(a, b.clone());
    pair.sides[0].reported();
    pair.sides[1] = Side::new(b);
    pair.feed(1, Event::Start);
    pair.feed(0, Event::Closed(ConnectionId(1)));
    pair.connect(0, 2);
    pair.settle();
    let reports = pair.sides[0].reported();
    assert!(matches!(reports.as_slice(), [Action::Down { .. }, Action::Up(ConnectionId(2), _)]), "{reports:?}");
    for (family, end) in Family::ALL.into_iter().zip(end_of_ribs()) {
        pair.feed(0, Event::Received(ConnectionId(2), &end));
        assert_eq!(pair.sides[0].reported(), [Action::FlushStale(family), Action::EndOfRib(family)]);
    }
    pair.pass(1000);
    assert_eq!(pair.sides[0].reported(), []);
}

#[test]
fn a_peer_that_lost_its_forwarding_state_loses_its_stale_routes_at_once() {
    let (a, mut b) = external();
    let mut pair = Pair::established(a, b.clone());
    pair.sides[0].reported();
    b.forwarding_preserved = false;
    pair.sides[1] = Side::new(b);
    pair.feed(1, Event::Start);
    pair.feed(0, Event::Closed(ConnectionId(1)));
    pair.connect(0, 2);
    pair.settle();
    let reports = pair.sides[0].reported();
    assert_eq!(reports[2..], Family::ALL.map(Action::FlushStale));
}

#[test]
fn stale_routes_of_a_peer_that_never_ends_its_rib_go_in_the_end() {
    let (a, b) = external();
    let mut pair = Pair::established(a, b.clone());
    pair.sides[1] = Side::new(b);
    pair.feed(1, Event::Start);
    pair.feed(0, Event::Closed(ConnectionId(1)));
    pair.connect(0, 2);
    pair.settle();
    pair.sides[0].reported();
    pair.pass(STALE_SECONDS - 1);
    assert_eq!(pair.sides[0].reported(), []);
    pair.pass(2);
    assert_eq!(pair.sides[0].reported(), Family::ALL.map(Action::FlushStale));
    assert_eq!(pair.states(), [State::Established; 2]);
}

#[test]
fn a_new_connection_of_a_restarted_peer_replaces_the_old_one() {
    let (a, mut b) = external();
    b.passive = false;
    let mut pair = Pair::established(a, b.clone());
    pair.sides[0].reported();
    // B was killed: A has not noticed, and hears of it by B's new connection.
    pair.sides[1] = Side::new(b);
    pair.feed(1, Event::Start);
    pair.connect(1, 2);
    pair.settle();
    let reports = pair.sides[0].reported();
    assert_eq!(down(&reports), (&DownReason::PeerRestarted, Family::ALL.as_slice()));
    assert!(matches!(reports.last(), Some(Action::Up(ConnectionId(2), _))), "{reports:?}");
    assert_eq!(pair.states(), [State::Established; 2]);
}

#[test]
fn without_graceful_restart_a_second_connection_is_refused() {
    let (mut a, mut b) = external();
    a.restart_seconds = 0;
    b.passive = false;
    let mut pair = Pair::established(a, b.clone());
    pair.sides[0].reported();
    pair.sides[1] = Side::new(b);
    pair.feed(1, Event::Start);
    pair.connect(1, 2);
    pair.settle();
    assert_eq!(pair.sides[0].reported(), []);
    assert_eq!(
        pair.sides[1].session.last_error(),
        Some(&DownReason::Received(Notification::cease(cease::CONNECTION_COLLISION)))
    );
}

#[test]
fn stopping_says_why_or_keeps_quiet_for_a_restart() {
    for (reason, expected, retained) in [
        (StopReason::Shutdown, DownReason::Received(Notification::cease(2)), 0),
        (StopReason::Deconfigured, DownReason::Received(Notification::cease(3)), 0),
        (StopReason::Reconfigured, DownReason::Received(Notification::cease(6)), 0),
        (StopReason::Restart, DownReason::Closed, 2),
    ] {
        let (a, b) = external();
        let mut pair = Pair::established(a, b);
        pair.sides[1].reported();
        pair.feed(0, Event::Stop(reason));
        pair.settle();
        let reports = pair.sides[1].reported();
        assert_eq!(down(&reports).0, &expected);
        assert_eq!(down(&reports).1.len(), retained);
        assert_eq!(pair.states()[0], State::Idle);
    }
}

#[test]
fn messages_out_of_place_are_state_machine_errors() {
    let (a, b) = external();
    let mut early = Session::new(a.clone());
    early.handle(Event::Start);
    early.handle(Event::Connected(ConnectionId(1), Direction::Outgoing));
    let keepalive = wire::encode(&rustbgpd_wire::Message::Keepalive);
    early.handle(Event::Received(ConnectionId(1), &keepalive));
    assert_eq!(early.last_error(), Some(&DownReason::Sent(Notification::new(5, 1))));

    let mut pair = Pair::established(a, b.clone());
    let mut other = Session::new(b);
    other.handle(Event::Start);
    let actions = other.handle(Event::Connected(ConnectionId(1), Direction::Incoming));
    let Some(Action::Send(_, open)) = actions.first() else { panic!("{actions:?}") };
    pair.feed(0, Event::Received(ConnectionId(1), open));
    assert_eq!(pair.sides[0].session.last_error(), Some(&DownReason::Sent(Notification::new(5, 3))));
}

#[test]
fn an_error_in_a_notification_is_not_answered() {
    let (a, b) = external();
    let mut pair = Pair::established(a, b);
    pair.sides[0].reported();
    let notification = wire::encode_notification(&Notification::new(99, 99));
    let answers = pair.sides[0].session.handle(Event::Received(ConnectionId(1), &notification));
    assert!(!answers.iter().any(|a| matches!(a, Action::Send(..))), "{answers:?}");
    assert_eq!(down(&answers).0, &DownReason::Received(Notification::new(99, 99)));
}

#[test]
fn a_refresh_is_passed_on_only_when_established() {
    let (a, b) = external();
    let mut pair = Pair::established(a, b);
    pair.sides[0].reported();
    let mut refresh = vec![0xff; 16];
    refresh.extend([0, 23, 5, 0, 2, 0, 1]);
    pair.feed(0, Event::Received(ConnectionId(1), &refresh));
    assert_eq!(pair.sides[0].reported(), [Action::Refresh(Family::Ipv6)]);
}

fn end_of_ribs() -> [Bytes; 2] {
    let established = Established {
        router_id: Ipv4Addr::LOCALHOST,
        hold_seconds: 90,
        families: Family::ALL.to_vec(),
        four_octet_as: true,
        graceful_restart: true,
        extended_next_hop: false,
    };
    let mut out = AdjRibOut::new(65002, false, &established, NextHops::default());
    out.end_of_rib();
    let ends = [out.next_message().unwrap(), out.next_message().unwrap()];
    assert_eq!(out.next_message(), None);
    ends
}

mod crossing {
    //! Both sides connect at once: what happens must not depend on when either side is told of what.

    use std::collections::VecDeque;

    use super::*;

    /// The connection that a side has opened, with what is on its way to either side: bytes, then nothing where it was closed.
    #[derive(Default)]
    struct Link {
        told: [bool; 2],
        closed: [bool; 2],
        to: [VecDeque<Bytes>; 2],
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Step {
        /// A side is told that a connection stands.
        Tell(usize, usize),
        /// A side is told the next that has arrived.
        Deliver(usize, usize),
    }

    struct Crossing {
        sessions: [Session; 2],
        links: [Link; 2],
        reports: [Vec<Action>; 2],
    }

    impl Crossing {
        fn new(configs: &[Config; 2]) -> Self {
            let sessions = configs.clone().map(Session::new);
            let mut crossing =
                Self { sessions, links: [(); 2].map(|()| Link::default()), reports: [Vec::new(), Vec::new()] };
            for side in 0..2 {
                assert_eq!(crossing.sessions[side].handle(Event::Start), [Action::Connect]);
            }
            crossing
        }

        fn possible(&self) -> Vec<Step> {
            let places = [(0, 0), (0, 1), (1, 0), (1, 1)];
            let tell = places.into_iter().filter(|(link, side)| !self.links[*link].told[*side]);
            let deliver = places.into_iter().filter(|(link, side)| {
                let link = &self.links[*link];
                link.told[*side] && !link.closed[*side] && !link.to[*side].is_empty()
            });
            tell.map(|(l, s)| Step::Tell(l, s)).chain(deliver.map(|(l, s)| Step::Deliver(l, s))).collect()
        }

        fn take(&mut self, step: Step) {
            let id = |link: usize| ConnectionId(link as u64);
            let (side, actions) = match step {
                Step::Tell(link, side) => {
                    self.links[link].told[side] = true;
                    let direction = if link == side { Direction::Outgoing } else { Direction::Incoming };
                    (side, self.sessions[side].handle(Event::Connected(id(link), direction)))
                }
                Step::Deliver(link, side) => {
                    let bytes = self.links[link].to[side].pop_front().unwrap();
                    let event =
                        if bytes.is_empty() { Event::Closed(id(link)) } else { Event::Received(id(link), &bytes) };
                    (side, self.sessions[side].handle(event))
                }
            };
            for action in actions {
                match action {
                    Action::Send(id, bytes) => self.links[id.0 as usize].to[1 - side].push_back(bytes),
                    Action::Close(id) => {
                        let link = &mut self.links[id.0 as usize];
                        if !std::mem::replace(&mut link.closed[side], true) {
                            link.to[1 - side].push_back(Bytes::new());
                        }
                    }
                    Action::SetTimer(..) | Action::StopTimer(_) => {}
                    report => self.reports[side].push(report),
                }
            }
        }
    }

    /// Every order there is, each replayed from the start: `choices` counts through them like an odometer.
    fn every_order(configs: &[Config; 2]) -> usize {
        let (mut choices, mut orders): (Vec<(usize, usize)>, usize) = (Vec::new(), 0);
        loop {
            let mut crossing = Crossing::new(configs);
            let mut taken = Vec::new();
            loop {
                let possible = crossing.possible();
                if possible.is_empty() {
                    break;
                }
                if taken.len() == choices.len() {
                    choices.push((0, possible.len()));
                }
                let step = possible[choices[taken.len()].0];
                taken.push(step);
                crossing.take(step);
            }
            orders += 1;
            let up = |side: usize| match crossing.reports[side].as_slice() {
                [Action::Up(id, _)] => Some(*id),
                _ => None,
            };
            assert!(up(0).is_some() && up(0) == up(1), "{:?} after {taken:?}", crossing.reports);
            assert_eq!(crossing.sessions.each_ref().map(Session::state), [State::Established; 2]);
            while choices.pop_if(|(at, of)| *at + 1 == *of).is_some() {}
            match choices.last_mut() {
                Some((at, _)) => *at += 1,
                None => return orders,
            }
        }
    }

    #[test]
    fn in_whatever_order_either_side_is_told_there_is_one_session_that_stays() {
        for restart_seconds in [0, 120] {
            let side = |local, peer, id| Config { restart_seconds, ..config(local, peer, id) };
            let orders = every_order(&[side(65001, 65002, 1), side(65002, 65001, 2)]);
            assert!(orders > 1000, "{orders}");
        }
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn established_with(bytes: &[Vec<u8>]) {
        let (a, b) = external();
        let mut pair = Pair::established(a, b);
        pair.sides[0].reported();
        for chunk in bytes {
            pair.feed(0, Event::Received(ConnectionId(1), chunk));
        }
        // Whatever came, the session is either as it was or down for a reason that was sent or received.
        let reports = pair.sides[0].reported();
        let is_down = reports.iter().any(|r| matches!(r, Action::Down { .. }));
        assert_eq!(is_down, pair.states()[0] != State::Established);
    }

    proptest! {
        #[test]
        fn no_bytes_confuse_an_established_session(bytes in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
            established_with(&bytes);
        }

        #[test]
        fn no_framed_bytes_confuse_an_established_session(
            messages in prop::collection::vec((1u8..6, prop::collection::vec(any::<u8>(), 0..200)), 1..8)
        ) {
            let framed: Vec<_> = messages.into_iter().map(|(kind, body)| {
                let mut bytes = vec![0xff; 16];
                bytes.extend(u16::try_from(body.len() + 19).unwrap().to_be_bytes());
                bytes.push(kind);
                bytes.extend(body);
                bytes
            }).collect();
            established_with(&framed);
        }
    }
}
