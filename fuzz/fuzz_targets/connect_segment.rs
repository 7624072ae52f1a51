//! Any frame is a packet of a connection or is refused; what is one can be written again, and a client in any state
//! survives it.
#![no_main]

use std::collections::VecDeque;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pktgen::connect::clients::Client;
use pktgen::connect::machine::{Context, Exchange, Machine as _, Response};
use pktgen::connect::segment::{Body, Link, Packet, Segment, flag, write};
use pktgen::connect::stats::Stats;
use pktgen::connect::tcp::Connection;

const ISS: u32 = 1000;

fuzz_target!(|input: (Vec<u8>, bool, Vec<(u32, u32, u8, u16, u8)>)| {
    let (frame, answered, segments) = input;
    if let Ok(packet) = Packet::parse(&frame)
        && !matches!(packet.body, Body::Unreachable { .. })
    {
        let mut out = vec![0; frame.len() + 100];
        let len = write(&packet, Link::default(), &mut out).expect("what was parsed fits");
        assert_eq!(Packet::parse(&out[..len]), Ok(packet));
    }

    let exchange = Exchange {
        request: vec![7; 3000],
        requests: 2,
        response: Response::Bytes(100),
        hold: Duration::ZERO,
        abort: false,
        syn_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        rto: Duration::from_secs(1),
        time_wait: Duration::from_secs(1),
        mss: 1460,
    };
    let (mut stats, mut out) = (Stats::new().expect("constant bounds"), VecDeque::new());
    let mut cx = Context { now: 0, exchange: &exchange, stats: &mut stats, out: &mut out };
    let mut connection = Connection::open(&mut cx, Client { host: 0, port: 1 }, ISS);
    if answered {
        let handshake = Segment { ack: ISS + 1, flags: flag::SYN | flag::ACK, window: 5000, ..Segment::default() };
        let _ = connection.receive(&mut cx, &Body::Tcp(handshake));
    }
    let data = [0x55; 255];
    for (seq, ack, flags, window, len) in segments {
        let payload = &data[..usize::from(len)];
        let segment = Segment { seq, ack: ISS.wrapping_add(ack), flags, window, mss: None, payload };
        let turn = connection.receive(&mut cx, &Body::Tcp(segment));
        cx.now += u64::from(window) * 100_000;
        if turn.free || connection.expire(&mut cx).free {
            return;
        }
        assert!(connection.deadline() < u64::MAX);
    }
});
