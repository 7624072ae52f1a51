//! What an interface can do, and how fast each back end is on it.
//!
//! The self-test sends frames that no host takes: to a locally administered unicast address, with the EtherType for local
//! experiments (IEEE 802 §9.2.3), for a bounded time. What the interface has counted as sent is the rate.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Backend, live};
use crate::interface::Interface;
use crate::pace::Pace;
use crate::progress::Progress;
use crate::receive::redirect::{XdpMode, features};
use crate::send::Limit;
use crate::source::{Source, Written};
use crate::transmit::{Plan, TransmitError, Transmitters};
use crate::umem;

/// Destination of test frames.
const NOBODY: [u8; 6] = [0x02, 0x00, 0x00, 0x70, 0x67, 0x00];
/// Local Experimental EtherType 1.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Bytes of test frames: the shortest that Ethernet has, without FCS.
const TEST_FRAME: usize = 60;

/// What an interface can do.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Probe {
    /// Interface.
    pub interface: String,
    /// Its driver, where it says.
    pub driver: Option<String>,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
    /// Programs run in the driver; none: the kernel does not tell.
    pub native_xdp: Option<bool>,
    /// Frames can be redirected to it (`ndo_xdp_xmit`); none: the kernel does not tell.
    pub redirect_target: Option<bool>,
    /// A program that is attached now.
    pub attached: Option<XdpMode>,
    /// AF_XDP on queue 0: zero-copy, copy or why not.
    pub af_xdp: String,
    /// Live frames: yes, or why not.
    pub live_frames: String,
    /// What `auto` would choose for short frames, and why.
    pub auto: Backend,
    /// Why.
    pub auto_because: String,
    /// Rates of the self-test, one core each; empty where nothing was to be sent.
    pub rates: Vec<Rate>,
}

/// How fast a back end is.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Rate {
    /// Back end.
    pub backend: Backend,
    /// Packets a second given to the kernel.
    pub produced_pps: f64,
    /// Packets a second that the interface counted as sent; none: it does not count them.
    pub sent_pps: Option<f64>,
    /// Packets that the interface dropped.
    pub dropped: u64,
    /// Why there is no rate.
    pub error: Option<String>,
}

/// Asks the interface; with `test`, sends for that long with each back end.
pub fn probe(interface: &Interface, test: Option<Duration>) -> Probe {
    let features = features(interface);
    // Asking by doing: a driver may promise zero-copy and refuse it on this queue or with this MTU.
    let af_xdp = match umem::open(interface.name(), 0, 1514) {
        Ok(opened) if opened.zero_copy => "zero-copy".to_owned(),
        Ok(_) => "copy".to_owned(),
        Err(error) => error.to_string(),
    };
    let live_frames = match live::Live::new(interface, TEST_FRAME, false, 1) {
        Ok(_) => "yes".to_owned(),
        Err(error) => error.to_string(),
    };
    let (auto, auto_because) = super::choose(interface, TEST_FRAME);
    let rates = test
        .map_or_else(Vec::new, |time| Backend::ALL.into_iter().map(|backend| rate(interface, backend, time)).collect());
    Probe {
        interface: interface.name().to_owned(),
        driver: interface.driver(),
        rx_queues: interface.rx_queues(),
        tx_queues: interface.tx_queues(),
        native_xdp: features.map(|features| features.native),
        redirect_target: features.map(|features| features.redirect_target),
        attached: features.and_then(|features| features.attached),
        af_xdp,
        live_frames,
        auto,
        auto_because,
        rates,
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |answer: Option<bool>, yes: &'static str, no: &'static str| match answer {
            Some(true) => yes,
            Some(false) => no,
            None => "unknown (kernel older than 6.3)",
        };
        writeln!(f, "interface    {}", self.interface)?;
        writeln!(f, "driver       {}", self.driver.as_deref().unwrap_or("unknown"))?;
        writeln!(f, "queues       {} RX, {} TX", self.rx_queues, self.tx_queues)?;
        let attached = if self.attached.is_some() { ", a program is attached" } else { "" };
        writeln!(f, "XDP          {}{attached}", told(self.native_xdp, "native", "generic only"))?;
        let why_not = if self.driver.as_deref() == Some("veth") {
            "no: the other end of a veth pair needs an XDP program, or GRO (ethtool -K PEER gro on)"
        } else {
            "no"
        };
        writeln!(f, "redirect to  {}", told(self.redirect_target, "yes (ndo_xdp_xmit)", why_not))?;
        writeln!(f, "AF_XDP       {}", self.af_xdp)?;
        writeln!(f, "live frames  {}", self.live_frames)?;
        writeln!(f, "auto         {} ({})", self.auto, self.auto_because)?;
        for rate in &self.rates {
            write!(f, "{:<12} ", rate.backend)?;
            match (&rate.error, rate.sent_pps) {
                (Some(error), _) => writeln!(f, "{error}")?,
                (None, Some(sent)) => {
                    writeln!(
                        f,
                        "{sent:.0} pps sent, {:.0} produced, {} frames dropped",
                        rate.produced_pps, rate.dropped
                    )?;
                }
                (None, None) => {
                    writeln!(f, "{:.0} pps produced; the interface does not count them", rate.produced_pps)?
                }
            }
        }
        if !self.rates.is_empty() {
            writeln!(
                f,
                "Rates are of one thread sending 60-byte frames that no host takes (EtherType 0x88b5); --no-send sends none."
            )?;
        }
        Ok(())
    }
}

/// Sends short frames that nobody takes as fast as this back end can, from one thread.
pub fn rate(interface: &Interface, backend: Backend, time: Duration) -> Rate {
    let measured = measure(interface, backend, time);
    let error = measured.as_ref().err().map(ToString::to_string);
    let mut rate = measured.unwrap_or(Rate { backend, produced_pps: 0.0, sent_pps: None, dropped: 0, error: None });
    rate.error = rate.error.or(error);
    rate
}

fn measure(interface: &Interface, backend: Backend, time: Duration) -> Result<Rate, TransmitError> {
    let plan =
        Plan { interface, backend: Some(backend), queues: &[0], cores: &[], pace: &Pace::MAX, late_stamps: false };
    let transmitters = Transmitters::open(plan, TEST_FRAME, |_, receiver, _| Some(receiver))?;
    let limit = Limit { count: None, duration: Some(time) };
    let source = Nobody { mac: interface.mac().unwrap_or_default() };
    let sent = transmitters.send([(source, None)], limit, &Progress::default())?;
    let seconds = sent.threads.iter().map(|(sent, _)| sent.elapsed_ns).max().unwrap_or(0).max(1) as f64 / 1e9;
    let packets: u64 = sent.threads.iter().map(|(sent, _)| sent.packets).sum();
    let counted = sent.sending.interface.filter(|counts| counts.packets > 0 || packets == 0);
    Ok(Rate {
        backend,
        produced_pps: packets as f64 / seconds,
        sent_pps: counted.map(|counts| counts.packets as f64 / seconds),
        dropped: counted.map_or(0, |counts| counts.dropped),
        error: sent.sending.broke_off,
    })
}

/// Test frames.
#[derive(Debug)]
struct Nobody {
    mac: [u8; 6],
}

impl Source for Nobody {
    fn longest(&self) -> usize {
        TEST_FRAME
    }

    fn next(&mut self, _now_ns: u64, out: &mut [u8]) -> Option<Written> {
        let frame = out.first_chunk_mut::<TEST_FRAME>()?;
        frame.fill(0);
        let (to, rest) = frame.split_at_mut(6);
        let (from, rest) = rest.split_at_mut(6);
        to.copy_from_slice(&NOBODY);
        from.copy_from_slice(&self.mac);
        *rest.first_chunk_mut::<2>()? = EXPERIMENTAL;
        Some(Written { len: TEST_FRAME, late: None })
    }
}
