//! The way of a trial: an interface to send on, an interface that counts, whatever is between, and one trial over it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use packet::layer::Mac;
use pktgen::interface::Interface;
use pktgen::progress::Progress;
use testkit::netns::Netns;

use super::sender::{Load, Sent, pktgen as sender};
use super::sink::{Count, Latencies, Sink};
use super::traffic::Traffic;
use super::{FROM, FROM_MAC, IN_MAC, Lab, OUT_MAC, Pair, TO_MAC, frame};

/// After the last packet was sent: how long nothing must arrive for a trial to be over, and how long that may take. RFC 2544
/// section 23 waits two seconds; queues of a lab are empty within milliseconds.
const SILENCE: Duration = Duration::from_millis(20);
const SILENCE_PATIENCE: Duration = Duration::from_secs(2);

/// Two ends and the sink on the second.
#[derive(Debug)]
pub(crate) struct Path {
    /// Namespace of both ends; the caller's own where absent.
    netns: Option<Arc<Netns>>,
    from: String,
    /// Where frames are sent to on the first link.
    next_hop: Mac,
    ends: Option<frame::Ends>,
    sink: Sink,
}

/// What one trial has sent and what arrived.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trial {
    /// By the sender.
    pub(crate) sent: Sent,
    /// By the sink.
    pub(crate) received: u64,
}

impl Path {
    /// Through a lab.
    ///
    /// # Errors
    /// The sink cannot be attached.
    pub(crate) fn through(lab: &Lab) -> anyhow::Result<Self> {
        let ends = frame::Ends { routed: (OUT_MAC, TO_MAC), sent: (FROM_MAC, IN_MAC) };
        Self::new(Some(Arc::clone(&lab.generator)), FROM, &lab.to, IN_MAC, Some(ends))
    }

    /// From one end of a link to the other.
    ///
    /// # Errors
    /// The sink cannot be attached.
    pub(crate) fn along(pair: &Pair) -> anyhow::Result<Self> {
        Self::new(Some(Arc::clone(&pair.netns)), FROM, &pair.to, TO_MAC, None)
    }

    /// Between two interfaces of the caller's namespace.
    ///
    /// # Errors
    /// There is no such interface, or the sink cannot be attached.
    pub(crate) fn between(from: &str, to: &str, next_hop: Mac) -> anyhow::Result<Self> {
        Self::new(None, from, to, next_hop, None)
    }

    fn new(
        netns: Option<Arc<Netns>>,
        from: &str,
        to: &str,
        next_hop: Mac,
        ends: Option<frame::Ends>,
    ) -> anyhow::Result<Self> {
        let sink = inside(netns.as_deref(), || {
            Interface::new(from)?;
            Sink::attach(Interface::new(to)?.index()).with_context(|| format!("the sink on {to}"))
        })??;
        Ok(Self { netns, from: from.to_owned(), next_hop, ends, sink })
    }

    /// Runs `work` on a thread inside the namespace of both ends.
    ///
    /// # Errors
    /// The thread cannot enter it, or panics.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        inside(self.netns.as_deref(), work)
    }

    /// The sink.
    pub(crate) fn sink(&self) -> &Sink {
        &self.sink
    }

    /// What a frame that leaves the device must name, where that is known.
    pub(crate) fn ends(&self) -> Option<frame::Ends> {
        self.ends
    }

    /// The interface that is sent on, and the Ethernet address of what is behind it.
    pub(crate) fn first_link(&self) -> (&str, Mac) {
        (&self.from, self.next_hop)
    }

    /// Sends a load with pktgen and counts what arrives, to the last packet.
    ///
    /// # Errors
    /// The load cannot be sent.
    pub(crate) fn trial(&self, traffic: &Traffic, load: &Load) -> anyhow::Result<Trial> {
        self.watched(traffic, load, &Progress::default())
    }

    /// The same; `progress` can end it early.
    ///
    /// # Errors
    /// The load cannot be sent.
    pub(crate) fn watched(&self, traffic: &Traffic, load: &Load, progress: &Progress) -> anyhow::Result<Trial> {
        self.counted(|| sender::send(&self.from, self.next_hop, traffic, load, progress))
    }

    /// The same with the latencies of the packets that arrived, from the time in each packet's stamp to the sink.
    ///
    /// # Errors
    /// The load cannot be sent.
    pub(crate) fn timed(&self, traffic: &Traffic, load: &Load) -> anyhow::Result<(Trial, Latencies)> {
        let before = self.sink.latencies()?;
        self.sink.time(true)?;
        let trial = self.trial(traffic, &Load { timed: true, ..load.clone() });
        self.sink.time(false)?;
        Ok((trial?, self.sink.latencies()?.since(&before)))
    }

    /// What the sink has counted from before `send` until nothing more arrives after it.
    ///
    /// # Errors
    /// Those of `send`.
    pub(crate) fn counted(&self, send: impl FnOnce() -> anyhow::Result<Sent> + Send) -> anyhow::Result<Trial> {
        let before = self.sink.count()?;
        let sent = self.inside(send)??;
        let after = self.wait_for_silence()?;
        Ok(Trial { sent, received: after.packets - before.packets })
    }

    /// What the sink has counted once nothing more arrives.
    fn wait_for_silence(&self) -> anyhow::Result<Count> {
        let deadline = Instant::now() + SILENCE_PATIENCE;
        let mut last = self.sink.count()?;
        loop {
            thread::sleep(SILENCE);
            let now = self.sink.count()?;
            if now.packets == last.packets || Instant::now() >= deadline {
                return Ok(now);
            }
            last = now;
        }
    }
}

pub(crate) fn inside<T: Send>(netns: Option<&Netns>, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Some(netns) = netns {
                netns.enter()?;
            }
            anyhow::Ok(work())
        });
        thread.join().map_err(|_| anyhow::anyhow!("a thread of the lab panicked"))?
    })
}
