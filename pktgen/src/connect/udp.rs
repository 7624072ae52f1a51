//! A UDP client: a request, its answer, and so on, from one address and port. Nothing is sent again: a request without an
//! answer is a time-out, so loss is counted and not hidden.

use super::clients::Client;
use super::machine::{Context, Machine, Outgoing, Response, Turn, ns};
use super::segment::{Body, Packet};
use super::stats::{End, Phase};

/// One client socket.
#[derive(Clone, Debug)]
pub struct Exchanges {
    opened: u64,
    expires_at: u64,
    asked_at: u64,
    /// Bytes of the answer to the request that is out.
    received: u64,
    client: Client,
    answered: u32,
    heard: bool,
    holding: bool,
    first_byte: bool,
}

impl Machine for Exchanges {
    fn open(cx: &mut Context<'_>, client: Client, _iss: u32) -> Self {
        let mut new = Self {
            opened: cx.now,
            expires_at: 0,
            asked_at: cx.now,
            received: 0,
            client,
            answered: 0,
            heard: false,
            holding: false,
            first_byte: false,
        };
        new.ask(cx);
        new
    }

    fn receive(&mut self, cx: &mut Context<'_>, body: &Body<'_>) -> Turn {
        match body {
            // Nobody listens there (RFC 1122 §4.1.3.3): the answer that a reset is to TCP.
            Body::Unreachable { .. } => Turn::over(End::Unreachable),
            Body::Udp(_) if self.holding => {
                cx.stats.counts.unexpected += 1;
                Turn::STAY
            }
            Body::Udp(payload) => self.answer(cx, payload),
            Body::Tcp(_) => Turn::STAY,
        }
    }

    fn expire(&mut self, cx: &mut Context<'_>) -> Turn {
        if cx.now < self.expires_at {
            return Turn::STAY;
        }
        if self.holding {
            return Turn::over(End::Completed);
        }
        Turn::over(End::TimedOut(Phase::Data))
    }

    fn wind_down(&mut self, now: u64) {
        if self.holding {
            self.expires_at = self.expires_at.min(now);
        }
    }

    fn deadline(&self) -> u64 {
        self.expires_at
    }

    fn client(&self) -> Client {
        self.client
    }

    fn opened(&self) -> u64 {
        self.opened
    }

    fn speaks(packet: &Packet<'_>) -> bool {
        matches!(packet.body, Body::Udp(_) | Body::Unreachable { protocol: packet::proto::ip::UDP })
    }
}

impl Exchanges {
    fn ask(&mut self, cx: &mut Context<'_>) {
        let len = u16::try_from(cx.exchange.request.len()).unwrap_or(u16::MAX);
        let unanswered = cx.exchange.response == Response::Bytes(0);
        // Where no answer is awaited, nothing separates the requests.
        let copies = if unanswered { cx.exchange.requests.max(1) } else { 1 };
        for _ in 0..copies {
            cx.out.push_back(Outgoing { client: self.client, seq: 0, ack: 0, flags: 0, mss: None, at: 0, len });
            cx.stats.counts.bytes_sent += u64::from(len);
        }
        self.asked_at = cx.now;
        self.first_byte = false;
        self.received = 0;
        self.expires_at = cx.now + ns(cx.exchange.timeout);
        if unanswered {
            self.hold(cx);
        }
    }

    fn hold(&mut self, cx: &Context<'_>) {
        self.holding = true;
        self.expires_at = cx.now + ns(cx.exchange.hold);
    }

    fn answer(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Turn {
        if !self.heard {
            self.heard = true;
            cx.stats.counts.established += 1;
        }
        if !self.first_byte {
            self.first_byte = true;
            cx.stats.first_byte.saturating_record(cx.now - self.asked_at);
        }
        self.received += payload.len() as u64;
        cx.stats.counts.bytes_received += payload.len() as u64;
        // Without a number of bytes one datagram is the answer.
        if matches!(cx.exchange.response, Response::Bytes(wanted) if self.received < wanted) {
            self.expires_at = cx.now + ns(cx.exchange.timeout);
            return Turn::STAY;
        }
        self.answered += 1;
        cx.stats.counts.requests += 1;
        if self.answered < cx.exchange.requests.max(1) {
            self.ask(cx);
            return Turn::STAY;
        }
        if cx.exchange.hold.is_zero() {
            return Turn::over(End::Completed);
        }
        self.hold(cx);
        Turn::STAY
    }
}
