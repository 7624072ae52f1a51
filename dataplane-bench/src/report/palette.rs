//! Bars are blue for ours and grey for rivals. Curves have a colour for each device over the whole page: those of Okabe
//! and Ito, told apart with any kind of colour vision; ours are blue, the rivals the others, in the order in which they appear.

use super::rivals;
use crate::result::BenchResult;

const OURS: [&str; 3] = ["own1", "own2", "own3"];
const RIVALS: [&str; 5] = ["rival1", "rival2", "rival3", "rival4", "rival5"];

/// The class of a bar.
pub(crate) fn bar(ours: bool) -> String {
    if ours { "own1" } else { "base" }.to_owned()
}

/// Device -> class of its curves.
pub(crate) struct Palette(Vec<(String, &'static str)>);

impl Palette {
    /// Gives every device that has curves its class.
    pub(crate) fn of(result: &BenchResult) -> Self {
        let drawn = result.loss.iter().map(|row| &row.dut).chain(result.latency.iter().map(|row| &row.dut));
        let mut known: Vec<(String, &'static str)> = Vec::new();
        for dut in drawn {
            if known.iter().any(|(name, _)| name == dut) {
                continue;
            }
            let ours = rivals::is_ours(dut);
            let classes: &[&str] = if ours { &OURS } else { &RIVALS };
            let taken = known.iter().filter(|(name, _)| rivals::is_ours(name) == ours).count();
            // More devices than colours: they repeat, and the names beside the curves tell.
            known.push((dut.clone(), classes.get(taken % classes.len()).copied().unwrap_or("rival1")));
        }
        Self(known)
    }

    /// The class of a device.
    pub(crate) fn class(&self, dut: &str) -> String {
        let known = self.0.iter().find(|(name, _)| name == dut);
        known.map_or(if rivals::is_ours(dut) { "own1" } else { "rival1" }, |(_, class)| class).to_owned()
    }
}
