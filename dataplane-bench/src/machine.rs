//! Where a figure was measured: without it, it means nothing.

use std::fs;

use serde::Serialize;

/// The machine and its state at the start of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// Model name of the first processor.
    cpu: String,
    /// Processors online.
    cores: usize,
    /// Running under a hypervisor.
    virtual_machine: bool,
    /// Kernel release.
    kernel: String,
    /// Load averages over 1, 5 and 15 minutes: a busy machine measures itself.
    load: String,
}

impl Machine {
    /// Reads it from /proc; what is not there stays empty.
    pub(crate) fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let load = text("/proc/loadavg");
        Self {
            cpu: field("model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            virtual_machine: field("flags").split(' ').any(|flag| flag == "hypervisor"),
            kernel: text("/proc/sys/kernel/osrelease"),
            load: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.virtual_machine { "virtual machine, " } else { "" };
        write!(f, "{}, {} cores, {kind}Linux {}, load {}", self.cpu, self.cores, self.kernel, self.load)
    }
}
