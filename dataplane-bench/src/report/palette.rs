//! One colour for one device over the whole page. The colours are those of Okabe and Ito, told apart with any kind of colour
//! vision; ours are blue, the rivals the others, in the order in which they appear.

use super::rivals;
use crate::result::BenchResult;

const OURS: [&str; 3] = ["own1", "own2", "own3"];
const RIVALS: [&str; 5] = ["rival1", "rival2", "rival3", "rival4", "rival5"];

/// Device -> class.
pub(crate) struct Palette(Vec<(String, &'static str)>);

impl Palette {
    /// Gives every device of a result its class.
    pub(crate) fn of(result: &BenchResult) -> Self {
        let rates = result.rates.iter().filter(|row| !rivals::is_generator(row)).map(|row| &row.dut);
        let searched = result.ndr.iter().map(|row| &row.dut).chain(result.loss.iter().map(|row| &row.dut));
        let timed = result.latency.iter().map(|row| &row.dut).chain(result.reconf.iter().map(|row| &row.dut));
        let mut known: Vec<(String, &'static str)> = Vec::new();
        for dut in rates.chain(searched).chain(timed) {
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
