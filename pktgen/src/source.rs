//! Where frames come from: whatever can write the next one.
//!
//! A source belongs to one sending thread and knows nothing of how frames leave; a back end knows nothing of what is in
//! them. Frames are written once, into the memory that they are sent from.

/// Frames, one after the other.
pub trait Source: Send {
    /// Bytes of the longest frame that [`next`](Self::next) may write.
    fn longest(&self) -> usize;

    /// When the next frame is due, in nanoseconds after the first: only sources with times of their own (traces) say.
    fn due_ns(&self) -> Option<u64> {
        None
    }

    /// Writes the next frame to the start of `out`, which takes [`longest`](Self::longest) bytes. `now_ns` is the time of
    /// sending as far as it is known (CLOCK_MONOTONIC). `None`: there are no more.
    fn next(&mut self, now_ns: u64, out: &mut [u8]) -> Option<Written>;
}

/// A frame that has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its bytes.
    pub len: usize,
    /// Where a back end that knows the true time of departure may put it.
    pub late: Option<LateStamp>,
}

/// Place of the time of departure in a frame: 32 bits, big-endian, the low bits of CLOCK_MONOTONIC in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateStamp {
    /// Offset of the time.
    pub time_at: u16,
    /// Offset of the one Internet checksum that covers it, to be adjusted (RFC 1624); none where nothing covers it.
    pub csum_at: Option<u16>,
}
