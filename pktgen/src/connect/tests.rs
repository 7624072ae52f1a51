//! The engine against a model of a server, over a network that loses, repeats and reorders frames.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::clients::Clients;
use super::engine::{Engine, Load, Path};
use super::machine::{Exchange, Machine, Response};
use super::segment::{Body, Link, Packet, Segment, flag, write};
use super::stats::{Phase, Stats};
use super::{tcp, udp};

const MS: u64 = 1_000_000;
const TARGET: &str = "192.0.2.1:80";
const LINK: Link = Link { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2] };
const SERVER_MSS: u32 = 500;
const SERVER_RTO: u64 = 250 * MS;

/// A small random generator: tests must fail again with the same numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// One connection of the server: sends `response` bytes for every `request` bytes, in order, repeating what is not
/// acknowledged; closes after the first answer, or when the client has closed.
#[derive(Default)]
struct Served {
    rcv: u32,
    iss: u32,
    una: u32,
    nxt: u32,
    max: u32,
    end: u32,
    requested: u64,
    closing: bool,
    timer: Option<u64>,
}

struct Server {
    request: u64,
    response: u32,
    closes: bool,
    iss: u32,
    connections: HashMap<std::net::SocketAddr, Served>,
}

fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Served {
    fn transmit(&mut self, now: u64, out: &mut Vec<(u32, u8, u32)>) {
        while before(self.nxt, self.end) && self.nxt.wrapping_sub(self.una) < 8 * SERVER_MSS {
            let len = self.end.wrapping_sub(self.nxt).min(SERVER_MSS);
            out.push((self.nxt, flag::ACK, len));
            self.nxt = self.nxt.wrapping_add(len);
        }
        if self.closing && self.nxt == self.end {
            out.push((self.nxt, flag::ACK | flag::FIN, 0));
            self.nxt = self.nxt.wrapping_add(1);
        }
        if before(self.max, self.nxt) {
            self.max = self.nxt;
        }
        self.timer = (self.una != self.max).then_some(now + SERVER_RTO);
    }
}

impl Server {
    fn receive(&mut self, frame: &[u8], now: u64) -> Vec<Vec<u8>> {
        let packet = Packet::parse(frame).unwrap();
        let Body::Tcp(segment) = packet.body else {
            // UDP: an echo.
            return vec![framed(Packet { src: packet.dst, dst: packet.src, body: packet.body })];
        };
        if segment.has(flag::RST) {
            self.connections.remove(&packet.src);
            return Vec::new();
        }
        let mut out = Vec::new();
        if segment.has(flag::SYN) {
            let iss = self.iss;
            let served = self.connections.entry(packet.src).or_insert_with(|| Served {
                rcv: segment.seq.wrapping_add(1),
                iss,
                una: iss.wrapping_add(1),
                nxt: iss.wrapping_add(1),
                max: iss.wrapping_add(1),
                end: iss.wrapping_add(1),
                ..Served::default()
            });
            out.push((served.iss, flag::SYN | flag::ACK, 0));
        } else if let Some(served) = self.connections.get_mut(&packet.src) {
            if before(served.una, segment.ack) && !before(served.max, segment.ack) {
                served.una = segment.ack;
                if before(served.nxt, served.una) {
                    served.nxt = served.una;
                }
            }
            if segment.seq == served.rcv {
                served.rcv = served.rcv.wrapping_add(segment.len());
                let answered = served.requested / self.request.max(1);
                served.requested += segment.payload.len() as u64;
                let fresh = served.requested / self.request.max(1) - answered;
                served.end = served.end.wrapping_add(self.response * fresh as u32);
                served.closing |= segment.has(flag::FIN) || (self.closes && fresh > 0);
            }
            served.transmit(now, &mut out);
            if out.is_empty() && !segment.is_empty() {
                out.push((served.max, flag::ACK, 0));
            }
        }
        self.frames(packet, &out)
    }

    fn tick(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let due: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, served)| served.timer.is_some_and(|at| at <= now))
            .map(|(client, _)| *client)
            .collect();
        for client in due {
            let served = self.connections.get_mut(&client).unwrap();
            served.nxt = served.una;
            let mut out = Vec::new();
            served.transmit(now, &mut out);
            let from = Packet { src: client, dst: TARGET.parse().unwrap(), body: Body::Udp(&[]) };
            frames.extend(self.frames(from, &out));
        }
        frames
    }

    fn frames(&self, to: Packet<'_>, out: &[(u32, u8, u32)]) -> Vec<Vec<u8>> {
        let rcv = self.connections.get(&to.src).map_or(0, |served| served.rcv);
        out.iter()
            .map(|(seq, flags, len)| {
                let payload = vec![0x55; *len as usize];
                let mss = (flags & flag::SYN != 0).then_some(600);
                let segment = Segment { seq: *seq, ack: rcv, flags: *flags, window: 20_000, mss, payload: &payload };
                framed(Packet { src: to.dst, dst: to.src, body: Body::Tcp(segment) })
            })
            .collect()
    }
}

fn framed(packet: Packet<'_>) -> Vec<u8> {
    let mut out = vec![0; 2000];
    let len = write(&packet, LINK, &mut out).unwrap();
    out.truncate(len);
    out
}

/// Faults in parts of a thousand.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    lost: u64,
    repeated: u64,
    reordered: u64,
}

/// Runs until the engine is finished; the time that it took.
fn simulate<M: Machine>(engine: &mut Engine<M>, server: &mut Server, faults: Faults, seed: u64) -> u64 {
    let mut random = Random(seed);
    let mut wire: BTreeMap<(u64, u64), (bool, Vec<u8>)> = BTreeMap::new();
    let (mut number, mut now) = (0, 0);
    let mut frame = vec![0; 2000];
    while !engine.is_finished(now) {
        let mut sent = Vec::new();
        while let Some(entry) = wire.first_entry().filter(|entry| entry.key().0 <= now) {
            let (to_server, bytes) = entry.remove();
            if to_server {
                sent.extend(server.receive(&bytes, now).into_iter().map(|frame| (false, frame)));
            } else {
                engine.receive(&bytes, now);
            }
        }
        sent.extend(server.tick(now).into_iter().map(|frame| (false, frame)));
        engine.advance(now);
        while engine.has_output() {
            let len = engine.write_next(&mut frame).unwrap();
            sent.push((true, frame[..len].to_vec()));
        }
        for packet in sent {
            let copies = match random.below(1000) {
                chance if chance < faults.lost => 0,
                chance if chance < faults.lost + faults.repeated => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let late = if random.below(1000) < faults.reordered { random.below(20) } else { 0 };
                number += 1;
                wire.insert((now + (5 + late) * MS, number), packet.clone());
            }
        }
        now += MS;
        assert!(now < 3_600_000 * MS, "no end: {:?}", engine.stats().counts);
    }
    now
}

fn exchange(request: usize, requests: u32, response: Response) -> Exchange {
    Exchange {
        request: (0..request).map(|i| i as u8).collect(),
        requests,
        response,
        hold: Duration::ZERO,
        abort: false,
        syn_timeout: Duration::from_secs(600),
        timeout: Duration::from_secs(600),
        rto: Duration::from_secs(1),
        time_wait: Duration::from_secs(1),
        mss: 1460,
    }
}

fn engine<M: Machine>(exchange: Exchange, load: Load) -> Engine<M> {
    let clients = Clients::new("10.1.0.0/24".parse().unwrap(), 1024..=2047, 7);
    Engine::new(exchange, Path { target: TARGET.parse().unwrap(), link: LINK }, clients, load, Stats::new().unwrap(), 0)
}

fn count(count: u64, concurrent: u64) -> Load {
    Load { cps: None, concurrent: Some(concurrent), count: Some(count), duration: None }
}

fn server(request: usize, response: u32, closes: bool, iss: u32) -> Server {
    Server { request: request as u64, response, closes, iss, connections: HashMap::new() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Loss, duplication and reordering in both directions cost time, never a connection or a byte; sequence numbers wrap.
    #[test]
    fn everything_completes_over_a_bad_network(
        seed: u64, lost in 0..200u64, repeated in 0..200u64, reordered in 0..300u64, near_wrap: bool, iss: u32,
        request in 1..3000usize, requests in 1..4u32, response in 1..6000u32, closes: bool,
    ) {
        let iss = if near_wrap { u32::MAX - iss % 2000 } else { iss };
        let requests = if closes { 1 } else { requests };
        let wanted = if closes { Response::Close } else { Response::Bytes(response.into()) };
        let mut engine = engine::<tcp::Connection>(exchange(request, requests, wanted), count(20, 7));
        simulate(&mut engine, &mut server(request, response, closes, iss), Faults { lost, repeated, reordered }, seed);
        let counts = engine.stats().counts;
        prop_assert_eq!((counts.attempted, counts.established, counts.completed), (20, 20, 20), "{:?}", counts);
        prop_assert_eq!(counts.requests, 20 * u64::from(requests));
        prop_assert_eq!(counts.bytes_sent, 20 * u64::from(requests) * request as u64);
        prop_assert_eq!(counts.bytes_received, 20 * u64::from(requests) * u64::from(response));
        prop_assert_eq!(counts.bad_checksum, 0);
        prop_assert!(engine.peak() <= 7);
    }
}

#[test]
fn a_clean_network_needs_no_repetition() {
    let mut engine = engine::<tcp::Connection>(exchange(100, 1, Response::Bytes(2000)), count(50, 50));
    let end = simulate(&mut engine, &mut server(100, 2000, false, 1), Faults::default(), 1);
    let stats = engine.stats();
    assert_eq!((stats.counts.completed, stats.counts.retransmissions, stats.counts.unexpected), (50, 0, 0));
    // Handshake, answer, close: three round trips of 10 ms, and the steps of the simulation.
    assert!((30 * MS..50 * MS).contains(&end), "{end}");
    let connect = stats.connect.value_at_quantile(1.0);
    assert!((10 * MS..13 * MS).contains(&connect), "{connect}");
    assert_eq!(engine.peak(), 50);
}

#[test]
fn an_open_loop_keeps_its_rate_and_says_what_it_missed() {
    let load = Load { cps: Some(2000.0), concurrent: None, count: None, duration: Some(Duration::from_secs(1)) };
    let mut paced = engine::<tcp::Connection>(exchange(1, 1, Response::Bytes(1)), load);
    simulate(&mut paced, &mut server(1, 1, false, 1), Faults::default(), 1);
    let counts = paced.stats().counts;
    assert!((1999..=2001).contains(&counts.attempted) && counts.completed == counts.attempted, "{counts:?}");
    assert_eq!(paced.missed(), 0);
    // A pause of half a second: all but the last 10 ms of it are given up.
    let mut late = engine::<tcp::Connection>(exchange(1, 1, Response::Bytes(1)), load);
    late.advance(0);
    late.advance(500 * MS);
    assert_eq!((late.stats().counts.attempted, late.missed()), (1 + 21, 979));
}

#[test]
fn nobody_answers() {
    let silent = Exchange { syn_timeout: Duration::from_secs(5), ..exchange(1, 1, Response::Close) };
    let mut engine = engine::<tcp::Connection>(silent, count(10, 10));
    let end = simulate(&mut engine, &mut server(1, 1, true, 1), Faults { lost: 1000, ..Faults::default() }, 1);
    let counts = engine.stats().counts;
    assert_eq!((counts.timeouts.connect, counts.established, counts.retransmissions), (10, 0, 20));
    assert!((5000 * MS..5010 * MS).contains(&end));
}

#[test]
fn client_ends_are_not_used_twice_at_once() {
    let hold = Exchange { hold: Duration::from_secs(5), ..exchange(0, 1, Response::Bytes(0)) };
    let clients = Clients::new("10.1.0.1/32".parse().unwrap(), 1..=3, 0);
    let path = Path { target: TARGET.parse().unwrap(), link: LINK };
    let load = Load { cps: Some(1000.0), concurrent: None, count: Some(6), duration: None };
    let mut engine = Engine::<tcp::Connection>::new(hold, path, clients, load, Stats::new().unwrap(), 0);
    simulate(&mut engine, &mut server(1, 1, false, 1), Faults::default(), 1);
    let counts = engine.stats().counts;
    assert_eq!((counts.attempted, counts.completed, engine.peak()), (6, 6, 3));
    assert!(counts.exhausted > 0);
}

#[test]
fn datagrams_are_answered_or_given_up() {
    let mut echo = engine::<udp::Exchanges>(exchange(40, 3, Response::Close), count(20, 5));
    simulate(&mut echo, &mut server(1, 1, false, 1), Faults::default(), 1);
    let counts = echo.stats().counts;
    assert_eq!((counts.completed, counts.requests, counts.bytes_sent, counts.bytes_received), (20, 60, 2400, 2400));
    let impatient = Exchange { timeout: Duration::from_secs(1), ..exchange(40, 3, Response::Bytes(40)) };
    let mut lossy = engine::<udp::Exchanges>(impatient, count(200, 20));
    simulate(&mut lossy, &mut server(1, 1, false, 1), Faults { lost: 100, ..Faults::default() }, 1);
    let counts = lossy.stats().counts;
    assert_eq!(counts.completed + counts.timeouts.data, 200);
    assert!(counts.timeouts.data > 20 && counts.completed > 20, "{counts:?}");
}

#[test]
fn strangers_are_counted_and_nothing_else() {
    let mut engine = engine::<tcp::Connection>(exchange(1, 1, Response::Close), count(1, 1));
    engine.advance(0);
    let client = "10.1.0.1:1".parse().unwrap();
    for (src, dst) in [(TARGET.parse().unwrap(), client), ("192.0.2.9:80".parse().unwrap(), client)] {
        let segment = Segment { flags: flag::ACK, ..Segment::default() };
        engine.receive(&framed(Packet { src, dst, body: Body::Tcp(segment) }), MS);
        engine.receive(&framed(Packet { src, dst, body: Body::Udp(b"?") }), MS);
    }
    engine.receive(b"no frame", MS);
    assert_eq!((engine.stats().counts.unexpected, engine.open()), (5, 1));
    let mut counted = super::stats::ByPhase::default();
    counted.count(Phase::Close);
    assert_eq!((counted.close, counted.total()), (1, 1));
}
