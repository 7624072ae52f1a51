//! A case that is ready to run, and its rounds.

use std::rc::Rc;

use anyhow::{Context, ensure};
use margay::dataplane::Dataplane;

use crate::result::Scale;

use super::kernel::{Control, FrameState, Loaded, Ran, Run, action};
use super::object::Foreign;

/// Packets that a new case is watched on before it is timed; more where it has more flows, so that what is remembered of each is.
const SETTLE_PACKETS: u32 = 4096;
/// Where every packet is to be new there is no end of them.
const MOST_SETTLE_PACKETS: u32 = 1 << 22;

/// What a row is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Label {
    pub(super) case: String,
    pub(super) about: String,
    /// A kernel primitive or another project's program.
    pub(super) baseline: bool,
    /// Case that does the same work in the usual way.
    pub(super) rival: Option<&'static str>,
    /// Point of a curve of cost against scale.
    pub(super) scale: Option<Scale>,
}

/// Programs in the kernel that several cases share.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) loaded: Loaded,
    pub(super) _keeps: Keeps,
}

/// What the programs need to stay as they are.
#[derive(Debug)]
pub(super) enum Keeps {
    /// Nothing but themselves.
    Nothing,
    /// The dataplane whose maps they share: the rings' contents go with their last owner.
    Tables { _dataplane: Box<Dataplane> },
    /// The object that they call: a slot of a program array goes with its maps.
    Foreign { _foreign: Foreign },
}

/// One round of one case, ns per packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// The harness around nothing.
    pub(super) without_ns: u64,
    /// The harness around what is measured.
    pub(super) with_ns: u64,
}

/// A case that is ready to run.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) label: Label,
    pub(super) subject: Rc<Subject>,
    /// Program with the harness around nothing.
    pub(super) without: &'static str,
    /// Program with the harness around what is measured.
    pub(super) with: &'static str,
    pub(super) frame: Vec<u8>,
    /// For programs in the harness that writes frames.
    pub(super) frame_state: Option<FrameState>,
    /// Interface that packets come in by; loopback where absent.
    pub(super) ingress: Option<u32>,
    pub(super) control: Control,
}

impl Bench {
    fn run(&self, program: &str, repeat: u32) -> anyhow::Result<Ran> {
        let run = Run {
            control: self.control,
            frame: &self.frame,
            frame_state: self.frame_state.as_ref(),
            ingress: self.ingress,
        };
        self.subject.loaded.run(program, &run, repeat)
    }

    /// Runs the measured program on the next `packets` packets and goes on behind them.
    pub(super) fn advance(&mut self, packets: u32) -> anyhow::Result<Ran> {
        let ran = self.run(self.with, packets)?;
        let (got, expected) = (action::name(ran.action), action::name(self.control.expected));
        ensure!(ran.action == self.control.expected, "the packet ended as {got}, not as {expected}");
        self.control.next = self.control.next.wrapping_add(packets);
        Ok(ran)
    }

    /// XDP action of the first packet, whatever it is.
    pub(super) fn first_action(&self) -> anyhow::Result<u32> {
        Ok(self.run(self.with, 1)?.action)
    }

    /// Runs packet number `index` alone.
    pub(super) fn probe(&mut self, index: u32) -> anyhow::Result<Ran> {
        self.control.next = index;
        self.advance(1)
    }

    /// Watches what the program does to its frame, so that the harness around nothing can pay the same for putting it
    /// back.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        self.advance(self.control.mask.saturating_add(1).clamp(SETTLE_PACKETS, MOST_SETTLE_PACKETS))?;
        if let Some(state) = &mut self.frame_state {
            state.set_price(self.subject.loaded.moved()?)?;
        }
        Ok(())
    }

    /// One round: both programs back to back, in the order that is asked for.
    pub(super) fn round(&mut self, repeat: u32, without_first: bool) -> anyhow::Result<Round> {
        let round = (|| {
            let before = if without_first { Some(self.run(self.without, repeat)?.ns) } else { None };
            let with_ns = self.advance(repeat)?.ns;
            let without_ns = before.map_or_else(|| self.run(self.without, repeat).map(|ran| ran.ns), Ok)?;
            anyhow::Ok(Round { without_ns, with_ns })
        })();
        round.with_context(|| format!("case {}", self.label.case))
    }
}
