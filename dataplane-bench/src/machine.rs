//! Where a figure was measured: without it, it means nothing.

use std::fmt;
use std::fs;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Boot parameters that move figures: isolation, frequency and sleep states, mitigations, huge pages.
const BOOT_ARGS: [&str; 15] = [
    "isolcpus",
    "nohz",
    "nohz_full",
    "rcu_nocbs",
    "irqaffinity",
    "mitigations",
    "nosmt",
    "idle",
    "intel_idle.max_cstate",
    "processor.max_cstate",
    "intel_pstate",
    "amd_pstate",
    "tsc",
    "hugepages",
    "transparent_hugepage",
];

/// The machine that was measured on. What it does not tell stays empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Machine {
    /// Model name of the first processor.
    pub(crate) cpu: String,
    /// Processors online.
    pub(crate) cores: u32,
    /// Revision of the processor's microcode.
    pub(crate) microcode: String,
    /// Frequency governor of the first processor; empty where the kernel scales nothing, as in most guests.
    pub(crate) governor: String,
    /// Hypervisor, as far as it tells: `guest of QEMU Standard PC`; empty on bare metal.
    pub(crate) virtualisation: String,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Boot parameters that move figures, as given.
    pub(crate) boot_args: Vec<String>,
    /// Vulnerabilities that the kernel works around, and how: `retbleed: Mitigation: untrained return thunk`.
    pub(crate) mitigations: Vec<String>,
    /// State of the BPF JIT: `on`, `off`, `on, hardened`.
    pub(crate) bpf_jit: String,
    /// Memory, MiB.
    pub(crate) memory_mib: u64,
    /// The interfaces that were measured over; empty when the run built its own.
    #[serde(default)]
    pub(crate) interfaces: Vec<Interface>,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Interface {
    /// Name.
    pub(crate) name: String,
    /// Driver module; empty for a virtual device.
    pub(crate) driver: String,
    /// Speed, Mbit/s, where the link tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) speed_mbps: Option<u64>,
    /// Receive queues.
    pub(crate) rx_queues: u32,
    /// Transmit queues.
    pub(crate) tx_queues: u32,
}

impl Machine {
    /// Reads it from /proc and /sys.
    pub(crate) fn read() -> Self {
        let cpuinfo = text("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let guest = field("flags").split(' ').any(|flag| flag == "hypervisor");
        let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        Self {
            cpu: field("model name"),
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            microcode: field("microcode"),
            governor: text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            virtualisation: if guest { hypervisor() } else { String::new() },
            kernel: text("/proc/sys/kernel/osrelease"),
            boot_args: boot_args(&text("/proc/cmdline")),
            mitigations: mitigations(),
            bpf_jit: bpf_jit(),
            memory_mib: memory_mib(&text("/proc/meminfo")),
            interfaces: Vec::new(),
        }
    }

    /// Two results may be laid side by side, ns by ns: same processor, cores, microcode, kernel and hypervisor.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let pairs = [
            ("cpu", &self.cpu, &other.cpu),
            ("cores", &self.cores.to_string(), &other.cores.to_string()),
            ("microcode", &self.microcode, &other.microcode),
            ("governor", &self.governor, &other.governor),
            ("virtualisation", &self.virtualisation, &other.virtualisation),
            ("kernel", &self.kernel, &other.kernel),
            ("boot arguments", &self.boot_args.join(" "), &other.boot_args.join(" ")),
            ("mitigations", &self.mitigations.join(", "), &other.mitigations.join(", ")),
            ("BPF JIT", &self.bpf_jit, &other.bpf_jit),
        ];
        let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        let differs = pairs.iter().filter(|(_, ours, theirs)| ours != theirs);
        differs.map(|(what, ours, theirs)| format!("{what}: {} and {}", shown(ours), shown(theirs))).collect()
    }
}

impl Interface {
    /// Reads it from /sys/class/net; what a device does not tell stays empty.
    pub(crate) fn read(name: &str) -> Self {
        let directory = Path::new("/sys/class/net").join(name);
        let queues = |kind: &str| {
            let entries = fs::read_dir(directory.join("queues")).into_iter().flatten().flatten();
            let count = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(kind)).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let driver = fs::read_link(directory.join("device/driver")).ok();
        let driver = driver.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        Self {
            name: name.to_owned(),
            driver: driver.unwrap_or_default(),
            // A link that is down or virtual reads as -1 or not at all.
            speed_mbps: text(directory.join("speed")).parse().ok(),
            rx_queues: queues("rx-"),
            tx_queues: queues("tx-"),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = if self.cores == 1 { "core" } else { "cores" };
        write!(f, "{}, {} {cores}", self.cpu, self.cores)?;
        if !self.virtualisation.is_empty() {
            write!(f, ", {}", self.virtualisation)?;
        }
        write!(f, ", Linux {}", self.kernel)
    }
}

/// Load averages over 1, 5 and 15 minutes: a busy machine measures itself.
pub(crate) fn load_average() -> [f64; 3] {
    let line = text("/proc/loadavg");
    let mut figures = line.split(' ').map(|figure| figure.parse().unwrap_or(0.0));
    std::array::from_fn(|_| figures.next().unwrap_or(0.0))
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn hypervisor() -> String {
    let vendor = text("/sys/class/dmi/id/sys_vendor");
    let product = text("/sys/class/dmi/id/product_name");
    let name = [vendor, product].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    if name.is_empty() { "virtual machine".to_owned() } else { format!("virtual machine ({name})") }
}

fn boot_args(cmdline: &str) -> Vec<String> {
    let known = |arg: &&str| BOOT_ARGS.contains(&arg.split_once('=').map_or(*arg, |(name, _)| name));
    cmdline.split_whitespace().filter(known).map(str::to_owned).collect()
}

fn mitigations() -> Vec<String> {
    let entries = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
    let mut all: Vec<String> = entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), text(entry.path())))
        .filter(|(_, state)| state != "Not affected" && !state.is_empty())
        .map(|(name, state)| format!("{name}: {state}"))
        .collect();
    all.sort_unstable();
    all
}

fn bpf_jit() -> String {
    let state = match text("/proc/sys/net/core/bpf_jit_enable").as_str() {
        "0" => "off",
        "" => return "unknown".to_owned(),
        _ => "on",
    };
    match text("/proc/sys/net/core/bpf_jit_harden").as_str() {
        "" | "0" => state.to_owned(),
        _ => format!("{state}, hardened"),
    }
}

fn memory_mib(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_tells_what_every_linux_tells() {
        let machine = Machine::read();
        assert!(machine.cores > 0 && !machine.kernel.is_empty() && machine.memory_mib > 0, "{machine:?}");
        assert!(machine.differences(&machine).is_empty());
        let lo = Interface::read("lo");
        assert!(lo.rx_queues >= 1 && lo.driver.is_empty(), "{lo:?}");
    }

    #[test]
    fn boot_parameters_that_move_figures_are_kept() {
        let args = boot_args("root=/dev/vda1 quiet isolcpus=1 nosmt console=ttyS0 idle=poll nohz_full=1 idlemap=3");
        assert_eq!(args, ["isolcpus=1", "nosmt", "idle=poll", "nohz_full=1"]);
    }

    #[test]
    fn what_differs_is_named() {
        let one = Machine { cpu: "A".to_owned(), kernel: "6.1".to_owned(), ..Machine::default() };
        let two = Machine { cpu: "B".to_owned(), governor: "performance".to_owned(), ..one.clone() };
        assert_eq!(one.differences(&two), ["cpu: A and B", "governor: none and performance"]);
    }
}
