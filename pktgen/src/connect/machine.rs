//! What TCP and UDP connections have in common: bytes and time in, packets and counts out, no I/O and no clock.

use std::collections::VecDeque;
use std::time::Duration;

use super::clients::Client;
use super::segment::{Body, Packet, Segment};
use super::stats::{End, Stats};

/// When an answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// After this many bytes; 0: when the request is acknowledged (UDP: when it is sent).
    Bytes(u64),
    /// When the other side closes.
    Close,
}

/// What every connection does.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Bytes of a request; none: connect only.
    pub request: Vec<u8>,
    /// Requests one after the other on each connection.
    pub requests: u32,
    /// When each is answered.
    pub response: Response,
    /// How long a connection stays open after the last answer.
    pub hold: Duration,
    /// End with RST instead of FIN.
    pub abort: bool,
    /// How long a handshake may take.
    pub syn_timeout: Duration,
    /// How long nothing may come while something is waited for.
    pub timeout: Duration,
    /// First retransmission timeout, before a round trip has been measured.
    pub rto: Duration,
    /// How long a closed connection answers retransmitted FINs.
    pub time_wait: Duration,
    /// Longest payload of a segment to send and to ask for.
    pub mss: u16,
}

impl Exchange {
    /// Whether anything is to be sent or awaited.
    pub fn has_request(&self) -> bool {
        !self.request.is_empty()
    }

    /// Bytes of a request.
    pub fn request_len(&self) -> u32 {
        u32::try_from(self.request.len()).unwrap_or(u32::MAX)
    }
}

/// A duration in nanoseconds.
pub(super) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// A packet to send: the request is looked up when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// From where.
    pub client: Client,
    /// TCP header.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Control bits; for UDP none.
    pub flags: u8,
    /// With a SYN: the option.
    pub mss: Option<u16>,
    /// Where in the request its payload starts.
    pub at: u32,
    /// Bytes of payload.
    pub len: u16,
}

impl Outgoing {
    /// Its payload.
    pub fn payload<'a>(&self, exchange: &'a Exchange) -> &'a [u8] {
        let at = usize::try_from(self.at).unwrap_or(usize::MAX);
        exchange.request.get(at..at.saturating_add(self.len.into())).unwrap_or_default()
    }

    /// As a segment with this receive window.
    pub fn segment<'a>(&self, exchange: &'a Exchange, window: u16) -> Segment<'a> {
        let payload = self.payload(exchange);
        Segment { seq: self.seq, ack: self.ack, flags: self.flags, window, mss: self.mss, payload }
    }
}

/// Everything a connection sees of the world at one moment.
pub struct Context<'a> {
    /// Now; any clock that does not go back.
    pub now: u64,
    /// What is to be done.
    pub exchange: &'a Exchange,
    /// Where things are counted.
    pub stats: &'a mut Stats,
    /// Packets to send, in order.
    pub out: &'a mut VecDeque<Outgoing>,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Turn {
    /// It has ended now, this way; it says so once.
    pub ended: Option<End>,
    /// It can be forgotten: nothing that may still come needs an answer.
    pub free: bool,
}

impl Turn {
    /// Goes on.
    pub const STAY: Self = Self { ended: None, free: false };

    /// Ended and to be forgotten.
    pub fn over(end: End) -> Self {
        Self { ended: Some(end), free: true }
    }
}

/// One connection.
pub trait Machine: Sized {
    /// Opens it: the first packet goes out. `iss` is the initial send sequence number.
    fn open(cx: &mut Context<'_>, client: Client, iss: u32) -> Self;

    /// A packet came for it.
    fn receive(&mut self, cx: &mut Context<'_>, body: &Body<'_>) -> Turn;

    /// Its deadline may have come.
    fn expire(&mut self, cx: &mut Context<'_>) -> Turn;

    /// No new connections are made any more: what is only held open closes.
    fn wind_down(&mut self, now: u64);

    /// When it wants to be woken up.
    fn deadline(&self) -> u64;

    /// Its client end.
    fn client(&self) -> Client;

    /// When it was opened.
    fn opened(&self) -> u64;

    /// Whether a packet is of the protocol that this speaks.
    fn speaks(packet: &Packet<'_>) -> bool;
}
