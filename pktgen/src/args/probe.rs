//! What `probe` takes.

use std::time::Duration;

use pktgen::units;

#[derive(Debug, clap::Args)]
pub(crate) struct ProbeArgs {
    /// Interface.
    pub(crate) interface: String,
    /// Send nothing: no rates are measured. Else each back end sends frames that no host takes (a locally administered
    /// destination, EtherType 0x88b5) as fast as it can.
    #[arg(long)]
    pub(crate) no_send: bool,
    /// How long each back end sends.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = units::duration)]
    pub(crate) time: Duration,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
