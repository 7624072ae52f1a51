//! A TCP client, as much of RFC 9293 as it takes to connect, send requests, read answers and close.
//!
//! States are those of §3.3.2 without the passive half: CLOSE-WAIT is left at once, by a FIN of our own. Segments are accepted,
//! acknowledged and challenged as in §3.10.7 and RFC 5961; what comes behind a gap is thrown away and asked for
//! again with the acknowledgment that TCP calls a duplicate. Loss is repaired by the retransmission timer alone (RFC 6298, with
//! a round trip measured in the handshake, going back to the first unacknowledged byte). There is no
//! congestion control: at most [`FLIGHT_MAX`] segments are in flight, which is the initial window of RFC 6928.

use super::clients::Client;
use super::machine::{Context, Machine, Outgoing, Response, Turn, ns};
use super::segment::{Body, Packet, Segment, flag};
use super::stats::{End, Phase};

/// Segments in flight at most.
pub const FLIGHT_MAX: u32 = 10;
/// Receive window that is offered; the option to scale it is not.
pub const WINDOW: u16 = u16::MAX;
/// Where the other side names no MSS (RFC 9293 §3.7.1, IPv4; the shortest there is).
const MSS_DEFAULT: u16 = 536;
/// Bounds of the retransmission timeout. RFC 6298 wants a second at least; 200 ms is what Linux does.
const RTO_MIN_NS: u64 = 200_000_000;
const RTO_MAX_NS: u64 = 60_000_000_000;
const NEVER: u64 = u64::MAX;

/// States of RFC 9293 §3.3.2 that a client which closes at once can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// SYN sent.
    SynSent,
    /// Open.
    Established,
    /// FIN sent.
    FinWait1,
    /// FIN acknowledged.
    FinWait2,
    /// FINs crossed.
    Closing,
    /// The other side closed first; FIN sent.
    LastAck,
    /// Both sides have closed.
    TimeWait,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    opened: u64,
    /// When to retransmit, and when to give up.
    rto_at: u64,
    expires_at: u64,
    /// When the request that is being answered was sent.
    asked_at: u64,
    /// Bytes of its answer.
    received: u64,
    client: Client,
    iss: u32,
    /// SND.UNA, SND.NXT (which goes back for a retransmission) and the highest SND.NXT.
    una: u32,
    nxt: u32,
    max: u32,
    /// Behind the last byte that may be sent: the end of the request that waits for its answer, and the place of the FIN.
    end: u32,
    rcv_nxt: u32,
    /// SND.WND.
    window: u16,
    mss: u16,
    rto_ns: u64,
    answered: u32,
    state: State,
    /// How often the timeout has been doubled since something was acknowledged.
    backoff: u8,
    /// What is still to be acknowledged by us, and what has been seen.
    ack_due: bool,
    fin_queued: bool,
    holding: bool,
    first_byte: bool,
    peer_closed: bool,
    cut_short: bool,
    /// The SYN was sent more than once: no round trip can be measured (Karn).
    syn_repeated: bool,
}

// A million of them are open at once.
const _: () = assert!(size_of::<Connection>() <= 104);

/// a < b in sequence space (RFC 9293 §3.4).
fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

impl Machine for Connection {
    fn open(cx: &mut Context<'_>, client: Client, iss: u32) -> Self {
        let mut new = Self {
            opened: cx.now,
            rto_at: NEVER,
            expires_at: cx.now + ns(cx.exchange.syn_timeout),
            asked_at: cx.now,
            received: 0,
            client,
            iss,
            una: iss,
            nxt: iss,
            max: iss,
            end: iss,
            rcv_nxt: 0,
            window: 0,
            mss: cx.exchange.mss,
            rto_ns: ns(cx.exchange.rto),
            answered: 0,
            state: State::SynSent,
            backoff: 0,
            ack_due: false,
            fin_queued: false,
            holding: false,
            first_byte: false,
            peer_closed: false,
            cut_short: false,
            syn_repeated: false,
        };
        new.send_syn(cx);
        new
    }

    fn receive(&mut self, cx: &mut Context<'_>, body: &Body<'_>) -> Turn {
        match body {
            Body::Tcp(segment) if self.state == State::SynSent => self.in_syn_sent(cx, segment),
            Body::Tcp(segment) => self.synchronized(cx, segment),
            // A hard error only while nothing has been heard of the other side (RFC 5927 §5.2).
            Body::Unreachable { .. } if self.state == State::SynSent => Turn::over(End::Unreachable),
            _ => Turn::STAY,
        }
    }

    fn expire(&mut self, cx: &mut Context<'_>) -> Turn {
        if cx.now >= self.expires_at {
            return match self.state {
                State::TimeWait => Turn { ended: None, free: true },
                State::Established if self.holding => self.close(cx),
                _ => {
                    if self.state != State::SynSent {
                        self.send_reset(cx);
                    }
                    Turn::over(End::TimedOut(self.phase()))
                }
            };
        }
        if cx.now >= self.rto_at {
            self.backoff = self.backoff.saturating_add(1);
            self.rto_at = NEVER;
            self.nxt = self.una;
            if self.state == State::SynSent {
                self.syn_repeated = true;
                self.send_syn(cx);
            } else {
                self.transmit(cx, true);
            }
        }
        Turn::STAY
    }

    fn wind_down(&mut self, now: u64) {
        if self.holding && self.state == State::Established {
            self.expires_at = self.expires_at.min(now);
        }
    }

    fn deadline(&self) -> u64 {
        self.rto_at.min(self.expires_at)
    }

    fn client(&self) -> Client {
        self.client
    }

    fn opened(&self) -> u64 {
        self.opened
    }

    fn speaks(packet: &Packet<'_>) -> bool {
        matches!(packet.body, Body::Tcp(_) | Body::Unreachable { protocol: packet::proto::ip::TCP })
    }
}

impl Connection {
    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    fn phase(&self) -> Phase {
        match self.state {
            State::SynSent => Phase::Connect,
            State::Established => Phase::Data,
            _ => Phase::Close,
        }
    }

    /// RFC 9293 §3.10.7.3.
    fn in_syn_sent(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Turn {
        let acks_syn = segment.has(flag::ACK) && segment.ack == self.iss.wrapping_add(1);
        if segment.has(flag::ACK) && !acks_syn {
            // An old connection of this pair on the other side: the reset clears it, the next SYN gets through.
            if !segment.has(flag::RST) {
                cx.out.push_back(self.outgoing(segment.ack, flag::RST));
            }
            cx.stats.counts.unexpected += 1;
            return Turn::STAY;
        }
        if segment.has(flag::RST) {
            if acks_syn {
                return Turn::over(End::Reset(Phase::Connect));
            }
            cx.stats.counts.unexpected += 1;
            return Turn::STAY;
        }
        if !(acks_syn && segment.has(flag::SYN)) {
            // A SYN alone would be a simultaneous open, which no server does.
            cx.stats.counts.unexpected += 1;
            return Turn::STAY;
        }
        self.state = State::Established;
        self.rcv_nxt = segment.seq.wrapping_add(1);
        (self.una, self.nxt, self.max) = (segment.ack, segment.ack, segment.ack);
        self.window = segment.window;
        self.mss = segment.mss.unwrap_or(MSS_DEFAULT).clamp(1, cx.exchange.mss);
        let age = cx.now - self.opened;
        cx.stats.counts.established += 1;
        cx.stats.connect.saturating_record(age);
        // SRTT + 4 RTTVAR of one measurement is three round trips (RFC 6298 §2.2).
        self.rto_ns = if self.syn_repeated { ns(cx.exchange.rto) } else { (3 * age).clamp(RTO_MIN_NS, RTO_MAX_NS) };
        self.rto_at = NEVER;
        self.backoff = 0;
        self.asked_at = cx.now;
        self.end = self.una.wrapping_add(cx.exchange.request_len());
        self.ack_due = true;
        self.progress(cx);
        self.proceed(cx)
    }

    /// RFC 9293 §3.10.7.4, every state but SYN-SENT.
    fn synchronized(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Turn {
        let ahead = segment.seq.wrapping_sub(self.rcv_nxt).cast_signed();
        let in_window = (0..=i32::from(WINDOW)).contains(&ahead);
        if segment.has(flag::RST) {
            return match (ahead, in_window, self.state) {
                (0, _, State::TimeWait) => Turn { ended: None, free: true },
                (0, _, _) => Turn::over(End::Reset(self.phase())),
                // RFC 5961 §3.2: a reset that is only near the mark is challenged.
                (_, true, _) => {
                    self.send_ack(cx);
                    Turn::STAY
                }
                _ => {
                    cx.stats.counts.unexpected += 1;
                    Turn::STAY
                }
            };
        }
        let acked = segment.ack.wrapping_sub(self.una).cast_signed();
        let sensible = acked >= -i32::from(WINDOW) && !before(self.max, segment.ack);
        if segment.has(flag::SYN) || !segment.has(flag::ACK) || !sensible || ahead > i32::from(WINDOW) {
            // A repeated SYN, ACK says that our ACK was lost; a new SYN is challenged (RFC 5961 §4), and so is what
            // lies outside the window or acknowledges something unsent or long gone (§5).
            if segment.has(flag::SYN | flag::ACK) {
                self.send_ack(cx);
            }
            return Turn::STAY;
        }
        let turn = self.acknowledged(cx, segment);
        if turn.ended.is_some() {
            return turn;
        }
        self.text(cx, segment, ahead);
        // A FIN counts once everything in front of it has come.
        let fin = segment.seq.wrapping_add(u32::try_from(segment.payload.len()).unwrap_or(0));
        if segment.has(flag::FIN) && fin == self.rcv_nxt { self.finished(cx) } else { self.proceed(cx) }
    }

    fn acknowledged(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> Turn {
        if !before(segment.ack, self.una) {
            self.window = segment.window;
        }
        if before(self.una, segment.ack) {
            self.una = segment.ack;
            if before(self.nxt, self.una) {
                self.nxt = self.una;
            }
            self.backoff = 0;
            self.rto_at = if self.una == self.max { NEVER } else { cx.now + self.rto() };
            self.progress(cx);
        }
        if self.fin_queued && self.una == self.end.wrapping_add(1) {
            match self.state {
                State::FinWait1 => self.state = State::FinWait2,
                State::Closing => return self.time_wait(cx),
                State::LastAck => return Turn { ended: Some(self.verdict()), free: true },
                _ => {}
            }
        }
        Turn::STAY
    }

    /// Takes the data that is next in order.
    fn text(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>, ahead: i32) {
        if segment.is_empty() {
            // A keep-alive probe repeats an old number and wants to hear the current one.
            self.ack_due |= ahead < 0;
            return;
        }
        self.ack_due = true;
        if ahead > 0 {
            cx.stats.counts.out_of_order += 1;
            return;
        }
        let old = usize::try_from(ahead.unsigned_abs()).unwrap_or(usize::MAX);
        let fresh = segment.payload.get(old..).unwrap_or_default().len();
        if fresh == 0 || !matches!(self.state, State::Established | State::FinWait1 | State::FinWait2) {
            return;
        }
        if !self.first_byte {
            self.first_byte = true;
            cx.stats.first_byte.saturating_record(cx.now - self.asked_at);
        }
        self.rcv_nxt = self.rcv_nxt.wrapping_add(u32::try_from(fresh).unwrap_or(0));
        self.received += fresh as u64;
        cx.stats.counts.bytes_received += fresh as u64;
        self.progress(cx);
    }

    /// The other side closes and everything in front of its FIN has come.
    fn finished(&mut self, cx: &mut Context<'_>) -> Turn {
        self.ack_due = true;
        self.peer_closed = true;
        match self.state {
            State::Established => {
                self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
                self.settle(cx);
                self.cut_short = self.answered < cx.exchange.requests.max(1);
                // CLOSE-WAIT ends at once: there is nothing more to say.
                if cx.exchange.abort {
                    return self.close(cx);
                }
                self.state = State::LastAck;
                self.queue_fin(cx);
                Turn::STAY
            }
            State::FinWait1 => {
                self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
                self.state = State::Closing;
                self.transmit(cx, false);
                Turn::STAY
            }
            State::FinWait2 => {
                self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
                self.time_wait(cx)
            }
            _ => self.proceed(cx),
        }
    }

    /// Counts the answers that are complete, and allows the next request.
    fn settle(&mut self, cx: &mut Context<'_>) {
        let all = cx.exchange.requests.max(1);
        let len = cx.exchange.request_len();
        while self.answered < all && !before(self.una, self.end) {
            match cx.exchange.response {
                Response::Bytes(wanted) if self.received >= wanted => self.received -= wanted,
                // Called with the FIN behind the answer, which is the only one then.
                Response::Close if self.peer_closed => {}
                _ => return,
            }
            self.answered += 1;
            cx.stats.counts.requests += u64::from(cx.exchange.has_request());
            if self.answered < all {
                self.first_byte = false;
                self.asked_at = cx.now;
                self.end = self.end.wrapping_add(len);
            }
        }
    }

    /// Does what is next after a segment: the next request, the close, or just an acknowledgment.
    fn proceed(&mut self, cx: &mut Context<'_>) -> Turn {
        if self.state == State::Established && !self.holding {
            self.settle(cx);
            if self.answered >= cx.exchange.requests.max(1) {
                let hold = ns(cx.exchange.hold);
                if hold == 0 {
                    return self.close(cx);
                }
                self.holding = true;
                self.expires_at = cx.now + hold;
            }
        }
        self.transmit(cx, false);
        Turn::STAY
    }

    /// Closes, or aborts.
    fn close(&mut self, cx: &mut Context<'_>) -> Turn {
        self.holding = false;
        if cx.exchange.abort {
            // Without the ACK of the handshake there would be nothing on the other side to abort.
            if self.ack_due && self.max == self.iss.wrapping_add(1) {
                self.send_ack(cx);
            }
            self.send_reset(cx);
            return Turn::over(self.verdict());
        }
        self.state = State::FinWait1;
        self.queue_fin(cx);
        Turn::STAY
    }

    /// A FIN goes out behind what has been sent; what has not been sent yet is given up.
    fn queue_fin(&mut self, cx: &mut Context<'_>) {
        self.fin_queued = true;
        self.end = self.max;
        self.expires_at = cx.now + ns(cx.exchange.timeout);
        self.transmit(cx, false);
    }

    fn time_wait(&mut self, cx: &mut Context<'_>) -> Turn {
        self.send_ack(cx);
        self.state = State::TimeWait;
        self.rto_at = NEVER;
        self.expires_at = cx.now + ns(cx.exchange.time_wait);
        Turn { ended: Some(self.verdict()), free: false }
    }

    fn verdict(&self) -> End {
        if self.cut_short { End::CutShort } else { End::Completed }
    }

    /// Something new was heard: patience starts again.
    fn progress(&mut self, cx: &Context<'_>) {
        if !self.holding && self.state != State::TimeWait {
            self.expires_at = cx.now + ns(cx.exchange.timeout);
        }
    }

    /// Sends what the windows allow, or the acknowledgment that is due. `probe`: one byte beyond a closed window.
    fn transmit(&mut self, cx: &mut Context<'_>, probe: bool) {
        let mut sent = false;
        while let Some(out) = self.next_segment(cx, probe) {
            let taken = u32::from(out.len) + u32::from(out.flags & flag::FIN != 0);
            let end = out.seq.wrapping_add(taken);
            if before(out.seq, self.max) {
                cx.stats.counts.retransmissions += 1;
            }
            if before(self.max, end) {
                cx.stats.counts.bytes_sent += u64::from(out.len).min(end.wrapping_sub(self.max).into());
                self.max = end;
            }
            self.nxt = end;
            cx.out.push_back(out);
            sent = true;
        }
        if sent {
            self.ack_due = false;
        } else if self.ack_due {
            self.send_ack(cx);
        }
        // The timer also runs over a closed window, to probe it (RFC 9293 §3.8.6.1).
        let waiting = self.una != self.max || before(self.nxt, self.end);
        if waiting && self.rto_at == NEVER {
            self.rto_at = cx.now + self.rto();
        }
    }

    /// The segment at SND.NXT, where there is one to send.
    fn next_segment(&self, cx: &Context<'_>, probe: bool) -> Option<Outgoing> {
        if !before(self.nxt, self.end) {
            let fin = self.fin_queued && self.nxt == self.end;
            return fin.then(|| self.outgoing(self.nxt, flag::FIN | flag::ACK));
        }
        let window = u32::from(self.window).max(probe.into()).min(FLIGHT_MAX * u32::from(self.mss));
        let room = window.saturating_sub(self.nxt.wrapping_sub(self.una));
        let request = cx.exchange.request_len();
        let at = self.nxt.wrapping_sub(self.iss.wrapping_add(1)).checked_rem(request)?;
        let len = self.end.wrapping_sub(self.nxt).min(request - at).min(room).min(self.mss.into());
        let flags = if at + len == request { flag::ACK | flag::PSH } else { flag::ACK };
        let len = u16::try_from(len).ok().filter(|len| *len > 0)?;
        Some(Outgoing { at, len, ..self.outgoing(self.nxt, flags) })
    }

    fn send_syn(&mut self, cx: &mut Context<'_>) {
        let mss = Some(cx.exchange.mss);
        cx.out.push_back(Outgoing { mss, ..self.outgoing(self.iss, flag::SYN) });
        cx.stats.counts.retransmissions += u64::from(self.max != self.iss);
        self.nxt = self.iss.wrapping_add(1);
        self.max = self.nxt;
        self.rto_at = cx.now + self.rto();
    }

    /// The retransmission timeout, doubled for each time that it has passed (RFC 6298 §5.5).
    fn rto(&self) -> u64 {
        self.rto_ns.saturating_mul(1 << self.backoff.min(16)).min(RTO_MAX_NS)
    }

    fn send_ack(&mut self, cx: &mut Context<'_>) {
        self.ack_due = false;
        cx.out.push_back(self.outgoing(self.max, flag::ACK));
    }

    fn send_reset(&mut self, cx: &mut Context<'_>) {
        cx.out.push_back(self.outgoing(self.max, flag::RST | flag::ACK));
    }

    fn outgoing(&self, seq: u32, flags: u8) -> Outgoing {
        let ack = if flags & flag::ACK != 0 { self.rcv_nxt } else { 0 };
        Outgoing { client: self.client, seq, ack, flags, mss: None, at: 0, len: 0 }
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
