//! How frames leave: three ways to the wire behind one trait.
//!
//! | back end | how | where |
//! |---|---|---|
//! | [`live`] | XDP live frames: a program redirects pages to the interface | interfaces with `ndo_xdp_xmit`, kernel >= 5.18 |
//! | [`xsk`] | AF_XDP TX ring, zero-copy where the driver can, else copy | every interface; one socket a queue |
//! | [`packet`] | AF_PACKET TX ring without qdisc | every interface |
//!
//! A frame is written once, into the slot it is sent from, and only after the slot was reserved: a back end never has to
//! take a written frame back. Which one is used is what was asked for, or what [`choose`] says; the report gives the reason, and
//! nothing falls back silently.

pub mod live;
pub mod packet;
pub mod probe;
pub mod xsk;

use std::fmt;
use std::io;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::interface::{Interface, TxCounts};
use crate::receive::redirect::features;
use crate::send::Sent;
use crate::source::Written;

/// A way to the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// AF_XDP.
    Xsk,
    /// XDP live frames.
    Live,
    /// AF_PACKET TX ring.
    Packet,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Live, Self::Xsk, Self::Packet];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xsk => "xsk",
            Self::Live => "live",
            Self::Packet => "packet",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No such back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write xsk, live, packet or auto")]
pub struct NoSuchBackend;

impl FromStr for Backend {
    type Err = NoSuchBackend;

    fn from_str(text: &str) -> Result<Self, NoSuchBackend> {
        Self::ALL.into_iter().find(|backend| backend.name() == text).ok_or(NoSuchBackend)
    }
}

/// Chooses a back end for frames up to `longest` bytes by what the interface's driver says, without sending anything, and
/// says why: zero-copy AF_XDP, then live frames where the interface takes redirected frames, then AF_XDP in copy mode.
pub fn choose(interface: &Interface, longest: usize) -> (Backend, String) {
    let Some(features) = features(interface) else {
        return (Backend::Xsk, "the kernel does not tell what the driver can (older than 6.3)".to_owned());
    };
    if features.zero_copy {
        (Backend::Xsk, "the driver has zero-copy AF_XDP".to_owned())
    } else if !features.redirect_target {
        (Backend::Xsk, "no zero-copy, and the interface takes no redirected frames now".to_owned())
    } else if longest > live::FRAME_MAX {
        (Backend::Xsk, format!("no zero-copy, and live frames have at most {} bytes", live::FRAME_MAX))
    } else {
        (Backend::Live, "no zero-copy, but the interface takes redirected frames".to_owned())
    }
}

/// How frames were sent, and what the interface says about it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Sending {
    /// Back end.
    pub backend: Backend,
    /// Why this one.
    pub why: String,
    /// Sending threads.
    pub threads: usize,
    /// What the interface has counted meanwhile, other traffic included; none where it has gone.
    pub interface: Option<TxCounts>,
    /// Packets that the kernel took but has not confirmed to have sent.
    pub unconfirmed: u64,
    /// Times that the interface was down.
    pub outages: u64,
    /// How long it was down, in nanoseconds.
    pub outage_ns: u64,
    /// Why sending ended early.
    pub broke_off: Option<String>,
}

impl Sending {
    /// The sum of what threads say.
    pub fn new((backend, why): (Backend, String), sent: &[&Sent], interface: Option<TxCounts>) -> Self {
        Self {
            backend,
            why,
            threads: sent.len(),
            interface,
            unconfirmed: sent.iter().map(|thread| thread.unconfirmed).sum(),
            outages: sent.iter().map(|thread| thread.outages).max().unwrap_or(0),
            outage_ns: sent.iter().map(|thread| thread.outage_ns).max().unwrap_or(0),
            broke_off: sent.iter().find_map(|thread| thread.broke_off.as_ref().map(ToString::to_string)),
        }
    }
}

impl fmt::Display for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        writeln!(f, "back end  {}, {} {threads} ({})", self.backend, self.threads, self.why)?;
        if let Some(TxCounts { packets, dropped }) = self.interface
            && dropped > 0
        {
            writeln!(f, "          the interface sent {packets} and dropped {dropped}")?;
        }
        if self.unconfirmed > 0 {
            writeln!(f, "          {} packets not confirmed by the kernel", self.unconfirmed)?;
        }
        if self.outages > 0 {
            writeln!(f, "          {} times down, {:.3} s in all", self.outages, self.outage_ns as f64 / 1e9)?;
        }
        if let Some(why) = &self.broke_off {
            writeln!(f, "          BROKE OFF: {why}")?;
        }
        Ok(())
    }
}

/// One sending thread's way to the wire.
///
/// [`slot`](Self::slot), write, [`push`](Self::push), and again; [`flush`](Self::flush) when there is no slot or nothing
/// more is due. Every frame that was pushed counts as produced.
pub trait Tx: Send {
    /// The next free slot; it takes the longest frame of the run. `None`: flush first.
    fn slot(&mut self) -> Option<&mut [u8]>;

    /// The slot holds this frame, which leaves at `due_ns` (CLOCK_MONOTONIC) where the back end
    /// [waits](Self::waits) by itself and at the next flush where it does not; 0: at once.
    fn push(&mut self, frame: Written, due_ns: u64);

    /// Gives the kernel everything that was pushed. `departed` learns when each frame left, in their order, where
    /// the back end knows.
    ///
    /// # Errors
    /// [`TxError`]; the frames are produced all the same.
    fn flush(&mut self, departed: &mut dyn FnMut(u64)) -> Result<(), TxError>;

    /// Waits at most `patience_ns` for what the kernel has taken but not sent. Returns how many frames that still is.
    fn settle(&mut self, patience_ns: u64) -> u64;

    /// Whether a flush waits for the due times of its frames. Else the caller flushes when they are due.
    fn waits(&self) -> bool;
}

/// Why frames did not leave.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TxError {
    /// The interface is down; sending goes on when it is back.
    #[error("the interface is down")]
    Down,
    /// The interface no longer exists.
    #[error("the interface has gone")]
    Gone,
    /// A signal came; nothing is wrong.
    #[error("interrupted")]
    Interrupted,
    /// The kernel refused.
    #[error("the kernel refused to send: {0}")]
    Kernel(io::Error),
}

impl From<io::Error> for TxError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENETDOWN | libc::ENETUNREACH) => Self::Down,
            Some(libc::ENODEV | libc::ENXIO) => Self::Gone,
            Some(libc::EINTR) => Self::Interrupted,
            _ => Self::Kernel(error),
        }
    }
}
