use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::super::machine::Exchange;
use super::super::stats::Stats;
use super::*;

const ISS: u32 = 1000;
/// Initial sequence number of the other side.
const IRS: u32 = 5000;
const SECOND: u64 = 1_000_000_000;
const CLIENT: Client = Client { host: 0, port: 1024 };

/// One connection, a clock, and what it has sent.
struct Bench {
    exchange: Exchange,
    stats: Stats,
    out: VecDeque<Outgoing>,
    now: u64,
    connection: Connection,
}

fn exchange() -> Exchange {
    Exchange {
        request: b"GET /".to_vec(),
        requests: 1,
        response: Response::Bytes(10),
        hold: Duration::ZERO,
        abort: false,
        syn_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
        rto: Duration::from_secs(1),
        time_wait: Duration::from_secs(1),
        mss: 1460,
    }
}

impl Bench {
    /// SYN sent.
    fn new(exchange: Exchange) -> Self {
        let (mut stats, mut out) = (Stats::new().unwrap(), VecDeque::new());
        let mut cx = Context { now: 0, exchange: &exchange, stats: &mut stats, out: &mut out };
        let connection = Connection::open(&mut cx, CLIENT, ISS);
        Self { exchange, stats, out, now: 0, connection }
    }

    /// Handshake done, and what it sent then forgotten.
    fn established(exchange: Exchange) -> Self {
        let mut bench = Self::new(exchange);
        let turn = bench.feed(IRS, ISS + 1, flag::SYN | flag::ACK, &[]);
        assert_eq!((turn, bench.connection.state()), (Turn::STAY, State::Established));
        bench.out.clear();
        bench
    }

    fn act(&mut self, act: impl FnOnce(&mut Connection, &mut Context<'_>) -> Turn) -> Turn {
        let mut cx = Context { now: self.now, exchange: &self.exchange, stats: &mut self.stats, out: &mut self.out };
        act(&mut self.connection, &mut cx)
    }

    fn segment(&mut self, segment: Segment<'_>) -> Turn {
        self.act(|connection, cx| connection.receive(cx, &Body::Tcp(segment)))
    }

    fn feed(&mut self, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Turn {
        self.segment(Segment { seq, ack, flags, window: 10_000, mss: None, payload })
    }

    fn at(&mut self, now: u64) -> Turn {
        self.now = now;
        self.act(Connection::expire)
    }

    /// What was sent since the last call: flags, sequence number, acknowledgment, bytes.
    fn sent(&mut self) -> Vec<(u8, u32, u32, u16)> {
        self.out.drain(..).map(|out| (out.flags, out.seq, out.ack, out.len)).collect()
    }

    /// One in each state that is synchronized, with RCV.NXT and what acknowledges everything.
    fn in_state(state: State) -> (Self, u32, u32) {
        let mut bench = Self::established(exchange());
        let end = ISS + 6;
        let fin = flag::FIN | flag::ACK;
        let (rcv, ack) = match state {
            State::Established => (IRS + 1, end),
            State::LastAck => {
                let _ = bench.feed(IRS + 1, end, fin, &[]);
                (IRS + 2, end)
            }
            State::FinWait1 | State::FinWait2 | State::Closing | State::TimeWait => {
                let _ = bench.feed(IRS + 1, end, flag::ACK, &[0; 10]);
                match state {
                    State::FinWait1 => (IRS + 11, end),
                    State::FinWait2 => {
                        let _ = bench.feed(IRS + 11, end + 1, flag::ACK, &[]);
                        (IRS + 11, end + 1)
                    }
                    State::Closing => {
                        let _ = bench.feed(IRS + 11, end, fin, &[]);
                        (IRS + 12, end)
                    }
                    _ => {
                        let _ = bench.feed(IRS + 11, end + 1, fin, &[]);
                        (IRS + 12, end + 1)
                    }
                }
            }
            State::SynSent => unreachable!(),
        };
        assert_eq!(bench.connection.state(), state);
        bench.out.clear();
        (bench, rcv, ack)
    }
}

const SYNCHRONIZED: [State; 6] =
    [State::Established, State::FinWait1, State::FinWait2, State::Closing, State::LastAck, State::TimeWait];
const ACK: u8 = flag::ACK;

#[test]
fn a_connection_from_syn_to_time_wait() {
    let mut bench = Bench::new(exchange());
    assert_eq!(bench.sent(), [(flag::SYN, ISS, 0, 0)]);
    bench.now = 5_000_000;
    let _ = bench.segment(Segment {
        seq: IRS,
        ack: ISS + 1,
        flags: flag::SYN | ACK,
        window: 10_000,
        mss: Some(1000),
        payload: &[],
    });
    // The request is on the ACK.
    assert_eq!(bench.sent(), [(ACK | flag::PSH, ISS + 1, IRS + 1, 5)]);
    let _ = bench.feed(IRS + 1, ISS + 6, ACK, &[0; 4]);
    assert_eq!(bench.sent(), [(ACK, ISS + 6, IRS + 5, 0)]);
    let _ = bench.feed(IRS + 5, ISS + 6, ACK, &[0; 6]);
    assert_eq!(bench.sent(), [(ACK | flag::FIN, ISS + 6, IRS + 11, 0)]);
    let _ = bench.feed(IRS + 11, ISS + 7, ACK, &[]);
    assert_eq!(bench.connection.state(), State::FinWait2);
    bench.now = 9_000_000;
    let turn = bench.feed(IRS + 11, ISS + 7, ACK | flag::FIN, &[]);
    assert_eq!(turn, Turn { ended: Some(End::Completed), free: false });
    assert_eq!(bench.sent(), [(ACK, ISS + 7, IRS + 12, 0)]);
    // The FIN again, within TIME-WAIT; then it is over.
    let _ = bench.feed(IRS + 11, ISS + 7, ACK | flag::FIN, &[]);
    assert_eq!(bench.sent(), [(ACK, ISS + 7, IRS + 12, 0)]);
    assert_eq!(bench.connection.deadline(), 9_000_000 + SECOND);
    assert_eq!(bench.at(9_000_000 + SECOND), Turn { ended: None, free: true });
    let counts = bench.stats.counts;
    assert_eq!((counts.established, counts.requests, counts.retransmissions), (1, 1, 0));
    assert_eq!((counts.bytes_sent, counts.bytes_received, bench.stats.connect.len()), (5, 10, 1));
    // A histogram of three digits.
    assert!((4_990_000..=5_010_000).contains(&bench.stats.connect.max()));
}

#[test]
fn an_answer_until_close() {
    let mut bench = Bench::established(Exchange { response: Response::Close, ..exchange() });
    let _ = bench.feed(IRS + 1, ISS + 6, ACK, &[0; 100]);
    let turn = bench.feed(IRS + 101, ISS + 6, ACK | flag::FIN, &[0; 20]);
    assert_eq!((turn, bench.connection.state()), (Turn::STAY, State::LastAck));
    assert_eq!(bench.sent().last(), Some(&(ACK | flag::FIN, ISS + 6, IRS + 122, 0)));
    assert_eq!(bench.feed(IRS + 122, ISS + 7, ACK, &[]), Turn::over(End::Completed));
    assert_eq!(bench.stats.counts.bytes_received, 120);
}

#[test]
fn an_answer_that_ends_early_is_cut_short() {
    let mut bench = Bench::established(exchange());
    let _ = bench.feed(IRS + 1, ISS + 6, ACK | flag::FIN, &[0; 9]);
    assert_eq!(bench.feed(IRS + 11, ISS + 7, ACK, &[]), Turn::over(End::CutShort));
    // A server that closes before it has read the request.
    let mut bench = Bench::established(Exchange { response: Response::Close, ..exchange() });
    let _ = bench.feed(IRS + 1, ISS + 1, ACK | flag::FIN, &[]);
    assert_eq!(bench.feed(IRS + 2, ISS + 7, ACK, &[]), Turn::over(End::CutShort));
}

#[test]
fn requests_follow_each_other() {
    let mut bench = Bench::established(Exchange { requests: 2, ..exchange() });
    let _ = bench.feed(IRS + 1, ISS + 6, ACK, &[0; 10]);
    assert_eq!(bench.sent(), [(ACK | flag::PSH, ISS + 6, IRS + 11, 5)]);
    let _ = bench.feed(IRS + 11, ISS + 11, ACK, &[0; 10]);
    assert_eq!(bench.sent(), [(ACK | flag::FIN, ISS + 11, IRS + 21, 0)]);
    assert_eq!((bench.stats.counts.requests, bench.stats.first_byte.len()), (2, 2));
}

#[test]
fn a_hold_ends_by_itself_and_by_the_end_of_the_run() {
    let hold =
        Exchange { request: Vec::new(), response: Response::Bytes(0), hold: Duration::from_secs(30), ..exchange() };
    let mut bench = Bench::new(hold);
    let _ = bench.feed(IRS, ISS + 1, flag::SYN | ACK, &[]);
    assert_eq!(bench.sent(), [(flag::SYN, ISS, 0, 0), (ACK, ISS + 1, IRS + 1, 0)]);
    assert_eq!((bench.connection.deadline(), bench.at(29 * SECOND)), (30 * SECOND, Turn::STAY));
    let mut other = bench.connection.clone();
    assert_eq!(bench.at(30 * SECOND), Turn::STAY);
    assert_eq!(bench.sent(), [(ACK | flag::FIN, ISS + 1, IRS + 1, 0)]);
    other.wind_down(20 * SECOND);
    assert_eq!(other.deadline(), 20 * SECOND);
}

#[test]
fn an_abort_is_a_reset() {
    let mut bench = Bench::established(Exchange { abort: true, ..exchange() });
    assert_eq!(bench.feed(IRS + 1, ISS + 6, ACK, &[0; 10]), Turn::over(End::Completed));
    assert_eq!(bench.sent(), [(flag::RST | ACK, ISS + 6, IRS + 11, 0)]);
    // With nothing to say in between, the handshake is still completed.
    let bare = Exchange { abort: true, request: Vec::new(), response: Response::Bytes(0), ..exchange() };
    let mut bench = Bench::new(bare);
    bench.out.clear();
    assert_eq!(bench.feed(IRS, ISS + 1, flag::SYN | ACK, &[]), Turn::over(End::Completed));
    assert_eq!(bench.sent(), [(ACK, ISS + 1, IRS + 1, 0), (flag::RST | ACK, ISS + 1, IRS + 1, 0)]);
}

#[test]
fn a_refusal_is_believed_only_where_it_answers_the_syn() {
    let mut bench = Bench::new(exchange());
    assert_eq!(bench.feed(0, ISS, flag::RST | ACK, &[]), Turn::STAY);
    assert_eq!(bench.feed(0, 0, flag::RST, &[]), Turn::STAY);
    assert_eq!(bench.feed(0, ISS + 1, flag::RST | ACK, &[]), Turn::over(End::Reset(Phase::Connect)));
    let body = Body::Unreachable { protocol: 6 };
    assert_eq!(bench.act(|connection, cx| connection.receive(cx, &body)), Turn::over(End::Unreachable));
    let mut open = Bench::established(exchange());
    assert_eq!(open.act(|connection, cx| connection.receive(cx, &body)), Turn::STAY);
}

/// The other side still has an older connection of these ports: its challenge is answered by a reset, as a kernel does.
#[test]
fn an_old_connection_is_cleared() {
    let mut bench = Bench::new(exchange());
    bench.out.clear();
    assert_eq!(bench.feed(77, 4242, ACK, &[]), Turn::STAY);
    assert_eq!(bench.sent(), [(flag::RST, 4242, 0, 0)]);
    assert_eq!(bench.connection.state(), State::SynSent);
}

#[test]
fn a_reset_counts_at_its_exact_place() {
    for state in SYNCHRONIZED {
        let (mut bench, rcv, ack) = Bench::in_state(state);
        assert_eq!(bench.feed(rcv.wrapping_sub(1), ack, flag::RST, &[]), Turn::STAY, "{state:?}: old");
        assert_eq!(bench.sent(), []);
        assert_eq!(bench.feed(rcv + 1, ack, flag::RST, &[]), Turn::STAY, "{state:?}: near");
        assert_eq!(bench.sent().len(), 1, "{state:?}: challenged");
        assert_eq!(bench.feed(rcv + 70_000, ack, flag::RST, &[]), Turn::STAY, "{state:?}: far");
        assert_eq!(bench.sent(), []);
        let expected = match state {
            State::Established => Turn::over(End::Reset(Phase::Data)),
            State::TimeWait => Turn { ended: None, free: true },
            _ => Turn::over(End::Reset(Phase::Close)),
        };
        assert_eq!(bench.feed(rcv, ack, flag::RST, &[]), expected, "{state:?}");
    }
}

#[test]
fn a_syn_is_challenged() {
    for state in SYNCHRONIZED {
        let (mut bench, rcv, ack) = Bench::in_state(state);
        for seq in [IRS, rcv, rcv + 100_000] {
            assert_eq!(bench.feed(seq, ack, flag::SYN | ACK, &[]), Turn::STAY);
            assert_eq!(bench.sent(), [(ACK, bench.connection.max, rcv, 0)], "{state:?}");
        }
    }
}

#[test]
fn fins_that_cross() {
    let (mut bench, rcv, end) = Bench::in_state(State::Closing);
    assert_eq!(bench.feed(rcv, end + 1, ACK, &[]), Turn { ended: Some(End::Completed), free: false });
    assert_eq!(bench.connection.state(), State::TimeWait);
    // With the acknowledgment on it, a FIN leads to TIME-WAIT at once.
    let (mut bench, rcv, end) = Bench::in_state(State::FinWait1);
    assert_eq!(bench.feed(rcv, end + 1, ACK | flag::FIN, &[]).ended, Some(End::Completed));
}

#[test]
fn a_syn_is_repeated_ever_more_slowly_and_given_up() {
    let mut bench = Bench::new(exchange());
    bench.out.clear();
    for at in [1, 3, 7] {
        assert_eq!(bench.connection.deadline(), at * SECOND);
        assert_eq!(bench.at(at * SECOND), Turn::STAY);
        assert_eq!(bench.sent(), [(flag::SYN, ISS, 0, 0)]);
    }
    assert_eq!(bench.connection.deadline(), 10 * SECOND);
    assert_eq!(bench.at(10 * SECOND), Turn::over(End::TimedOut(Phase::Connect)));
    assert_eq!((bench.stats.counts.retransmissions, bench.sent()), (3, vec![]));
}

#[test]
fn a_lost_request_is_repeated_and_silence_given_up() {
    let mut bench = Bench::established(exchange());
    // The handshake took no time: the shortest timeout.
    assert_eq!(bench.connection.deadline(), RTO_MIN_NS);
    assert_eq!(bench.at(RTO_MIN_NS), Turn::STAY);
    assert_eq!(bench.sent(), [(ACK | flag::PSH, ISS + 1, IRS + 1, 5)]);
    assert_eq!(bench.connection.deadline(), 3 * RTO_MIN_NS);
    assert_eq!(bench.at(10 * SECOND), Turn::over(End::TimedOut(Phase::Data)));
    assert_eq!(bench.sent(), [(flag::RST | ACK, ISS + 6, IRS + 1, 0)]);
    assert_eq!((bench.stats.counts.retransmissions, bench.stats.counts.bytes_sent), (1, 5));
    let (mut bench, ..) = Bench::in_state(State::FinWait2);
    assert_eq!(bench.at(10 * SECOND), Turn::over(End::TimedOut(Phase::Close)));
}

#[test]
fn a_hole_is_asked_for_again() {
    let mut bench = Bench::established(exchange());
    let _ = bench.feed(IRS + 5, ISS + 6, ACK, &[0; 6]);
    assert_eq!(bench.sent(), [(ACK, ISS + 6, IRS + 1, 0)]);
    assert_eq!(bench.stats.counts.out_of_order, 1);
    // Half of it is known already.
    let _ = bench.feed(IRS + 1, ISS + 6, ACK, &[0; 4]);
    let _ = bench.feed(IRS + 3, ISS + 6, ACK, &[0; 8]);
    assert_eq!(bench.sent().last(), Some(&(ACK | flag::FIN, ISS + 6, IRS + 11, 0)));
    assert_eq!(bench.stats.counts.bytes_received, 10);
}

#[test]
fn windows_are_kept_and_probed() {
    let mut bench = Bench::new(Exchange { request: vec![7; 30_000], mss: 1000, ..exchange() });
    bench.out.clear();
    let open = |window, ack| Segment { seq: IRS, ack, flags: flag::SYN | ACK, window, mss: Some(1400), payload: &[] };
    let _ = bench.segment(open(2500, ISS + 1));
    let lens: Vec<_> = bench.sent().iter().map(|sent| sent.3).collect();
    assert_eq!(lens, [1000, 1000, 500]);
    let _ = bench.segment(Segment { seq: IRS + 1, window: 0, flags: ACK, ..open(0, ISS + 2501) });
    assert_eq!(bench.sent(), []);
    let _ = bench.at(bench.connection.deadline());
    assert_eq!(bench.sent(), [(ACK, ISS + 2501, IRS + 1, 1)], "a probe of one byte");
    // A wide window does not mean more than ten segments in flight.
    let _ = bench.segment(Segment { seq: IRS + 1, flags: ACK, ..open(60_000, ISS + 2502) });
    assert_eq!(bench.sent().len(), 10);
}

#[test]
fn acknowledgments_of_nothing_are_answered() {
    for ack in [ISS + 7, ISS.wrapping_sub(80_000)] {
        let mut bench = Bench::established(exchange());
        assert_eq!(bench.feed(IRS + 1, ack, ACK, &[0; 10]), Turn::STAY);
        assert_eq!(bench.sent(), [(ACK, ISS + 6, IRS + 1, 0)]);
        assert_eq!(bench.stats.counts.bytes_received, 0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Segment { seq: u32, ack: u32, flags: u8, window: u16, len: usize },
    Time(u64),
}

fn step() -> impl Strategy<Value = Step> {
    // Near the numbers that matter, or anywhere.
    let number = |near: u32| prop_oneof![3 => (0..40u32).prop_map(move |off| near.wrapping_add(off).wrapping_sub(10)), 1 => any::<u32>()];
    prop_oneof![
        8 => (number(IRS), number(ISS), any::<u8>(), any::<u16>(), 0..30usize)
            .prop_map(|(seq, ack, flags, window, len)| Step::Segment { seq, ack, flags, window, len }),
        1 => (0..5 * SECOND).prop_map(Step::Time),
    ]
}

proptest! {
    /// Whatever comes in whatever order: no panic, one end at most, and a deadline as long as it is not over.
    #[test]
    fn garbage_is_survived(steps in proptest::collection::vec(step(), 1..60), established: bool) {
        let mut bench = if established { Bench::established(exchange()) } else { Bench::new(exchange()) };
        let mut ended = false;
        for step in steps {
            let turn = match step {
                Step::Segment { seq, ack, flags, window, len } => {
                    bench.segment(Segment { seq, ack, flags, window, mss: None, payload: &[0; 30][..len] })
                }
                Step::Time(ns) => bench.at(bench.now + ns),
            };
            prop_assert!(!(ended && turn.ended.is_some()));
            ended |= turn.ended.is_some();
            if turn.free {
                break;
            }
            prop_assert!(bench.connection.deadline() < u64::MAX);
            prop_assert_eq!(ended, bench.connection.state() == State::TimeWait);
        }
    }
}
