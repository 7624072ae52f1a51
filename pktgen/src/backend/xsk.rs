//! AF_XDP: frames of a UMEM on the TX ring of one queue ([`crate::umem`]).
//!
//! A frame in hand is a reserved place on the ring, so nothing is written that cannot be sent, and up to a ring of frames is
//! under way while the next burst is written. Packets longer than a chunk are spread over several descriptors.

use super::{Tx, TxError};
use crate::clock::now_ns;
use crate::source::Written;
use crate::umem::{Frame, Receiver, Sender};

/// Frames given to the kernel at once.
const BURST: usize = 128;

/// The sending half of a socket.
#[derive(Debug)]
pub struct Xsk {
    sender: Sender,
    /// The other half, where nothing else holds it: some drivers leak buffers when nobody fills the ring.
    _receiver: Option<Receiver>,
    current: Option<Frame>,
    burst: Vec<Frame>,
    /// Packets under way, and where each ends among the frames of a burst.
    longest: usize,
    /// A packet that needs several chunks is written here first.
    long: Vec<u8>,
}

impl Xsk {
    /// Sends packets up to `longest` bytes, as the socket was opened for, through this half of it.
    pub fn new(sender: Sender, receiver: Option<Receiver>, longest: usize) -> Self {
        Self {
            sender,
            _receiver: receiver,
            current: None,
            burst: Vec::with_capacity(2 * BURST),
            longest,
            long: Vec::new(),
        }
    }

    /// Spreads `len` bytes of `long` over chunks; there are enough, or there would have been no slot.
    fn spread(&mut self, len: usize) {
        let mut rest = self.long.get(..len).unwrap_or_default();
        while !rest.is_empty() {
            let Some(mut frame) = self.sender.alloc() else { return };
            let room = self.sender.room(&mut frame);
            let part = rest.len().min(room.len());
            let (now, later) = rest.split_at(part);
            if let Some(place) = room.get_mut(..part) {
                place.copy_from_slice(now);
            }
            self.sender.set_len(&mut frame, part, !later.is_empty());
            self.burst.push(frame);
            rest = later;
        }
    }
}

impl Tx for Xsk {
    fn slot(&mut self) -> Option<&mut [u8]> {
        if self.burst.len() >= BURST {
            return None;
        }
        if self.current.is_none() {
            self.current = self.sender.alloc();
        }
        let frame = self.current.as_mut()?;
        let chunk = self.sender.room(frame).len();
        if self.longest <= chunk {
            return self.current.as_mut().map(|frame| self.sender.room(frame));
        }
        if self.sender.available() < self.longest.div_ceil(chunk) {
            return None;
        }
        self.long.resize(self.longest, 0);
        Some(&mut self.long)
    }

    fn push(&mut self, frame: Written, _due_ns: u64) {
        if self.long.is_empty() {
            let Some(mut current) = self.current.take() else { return };
            self.sender.set_len(&mut current, frame.len, false);
            self.burst.push(current);
        } else {
            self.spread(frame.len);
        }
    }

    fn flush(&mut self, _departed: &mut dyn FnMut(u64)) -> Result<(), TxError> {
        self.sender.submit(&mut self.burst);
        Ok(self.sender.kick()?)
    }

    fn settle(&mut self, patience_ns: u64) -> u64 {
        let deadline = now_ns().saturating_add(patience_ns);
        while self.sender.in_kernel() > 0 && now_ns() < deadline && self.sender.kick().is_ok() {
            std::thread::yield_now();
        }
        u64::try_from(self.sender.in_kernel()).unwrap_or(u64::MAX)
    }

    fn waits(&self) -> bool {
        false
    }
}
