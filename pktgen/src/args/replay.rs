//! A capture instead of made packets.

use std::path::PathBuf;

use anyhow::bail;
use pktgen::pace::{Pace, Shape, Unit};
use pktgen::replay::{Capture, Options, PerLoop, Replay, Rewrite, Snapped};
use pktgen::units;

/// Flags that describe packets to be made.
const MADE: [&str; 13] = [
    "scenario", "frame", "protocol", "src", "dst", "ipv6", "sport", "dport", "vlan", "flows", "order", "size",
    "no_stamp",
];

#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// Send the frames of this pcap or pcapng file, with their times unless --speed or --pps say otherwise.
    #[arg(long, value_name = "FILE", conflicts_with_all = MADE)]
    pub(super) replay: Option<PathBuf>,
    /// So many times as fast as captured, or `max`.
    #[arg(long, value_name = "FACTOR|max", requires = "replay", conflicts_with_all = ["pps", "bps"], value_parser = speed)]
    speed: Option<Speed>,
    /// How often the capture is sent; 0: until --count or --for.
    #[arg(long = "loop", id = "loops", value_name = "N", default_value = "1", requires = "replay", value_parser = units::count)]
    loops: u64,
    /// Changes to every frame: eth.dst=MAC,eth.src=MAC,vlan=ID|none,ip.src=NET/LEN,ip.dst=...,ip=OLD->NEW.
    #[arg(long, value_name = "RULE,...", requires = "replay")]
    rewrite: Option<Rewrite>,
    /// What each further loop adds, so that it is new flows: ip.src=1,ip.dst=1,port.src=1.
    #[arg(long, value_name = "STEP,...", requires = "replay")]
    per_loop: Option<PerLoop>,
    /// Fill packets that were captured in part up with zeros.
    #[arg(long, requires = "replay")]
    pad: bool,
}

/// How many times as fast; none: as fast as goes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Speed(Option<f64>);

impl ReplayArgs {
    /// The capture, where one is named. `bounded`: the run ends by itself.
    pub(super) fn load(&self, bounded: bool) -> anyhow::Result<Option<Replay>> {
        let Some(path) = &self.replay else { return Ok(None) };
        if self.loops == 0 && !bounded {
            bail!("--loop 0 does not end by itself: give --count or --for");
        }
        let capture = Capture::load(path, if self.pad { Snapped::Pad } else { Snapped::Refuse })?;
        let options = Options {
            loops: (self.loops > 0).then_some(self.loops),
            rewrite: self.rewrite.clone().unwrap_or_default(),
            per_loop: self.per_loop.unwrap_or_default(),
        };
        Ok(Some(Replay::new(&capture, options)))
    }

    /// The pace of a replay for which none was given.
    pub(super) fn pace(&self) -> Pace {
        match self.speed {
            Some(Speed(None)) => Pace::MAX,
            Some(Speed(Some(speed))) => Pace { shape: Shape::Trace { speed }, unit: Unit::Packets },
            None => Pace { shape: Shape::Trace { speed: 1.0 }, unit: Unit::Packets },
        }
    }
}

fn speed(text: &str) -> anyhow::Result<Speed> {
    if text == "max" {
        return Ok(Speed(None));
    }
    let factor = units::number(text)?;
    if factor <= 0.0 {
        bail!("write a factor above 0 as 2 or 0.5, or max");
    }
    Ok(Speed(Some(factor)))
}
