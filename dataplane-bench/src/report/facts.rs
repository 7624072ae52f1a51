//! What a reader must know beside the figures, in words.

use super::figure;
use crate::result::{BenchResult, Run};

/// One line that says what the page is about.
pub(crate) fn title(result: &BenchResult) -> String {
    let duts = || result.rates.iter().map(|row| &row.dut).chain(result.ndr.iter().map(|row| &row.dut));
    match (result.prog.is_empty(), duts().next().is_none()) {
        (false, false) => "what packets cost, and how many go through",
        (false, true) => "what packets cost",
        (true, false) => "how many packets go through",
        (true, true) => "measurements of a data plane",
    }
    .to_owned()
}

/// When it was measured and with what.
pub(crate) fn when(result: &BenchResult) -> String {
    let started = result.runs.first().map_or("at an unknown time", |run| run.started.as_str());
    let seconds: f64 = result.runs.iter().map(|run| run.seconds).sum();
    let git = result.tool.git.as_ref().map_or_else(String::new, |git| format!(", commit {git}"));
    format!(
        "{started}, {:.0} minutes of measuring, dataplane-bench {}{git}",
        (seconds / 60.0).ceil(),
        result.tool.version
    )
}

/// What casts doubt on the figures.
pub(crate) fn warning(result: &BenchResult) -> Option<String> {
    let mut doubts = Vec::new();
    if result.runs.iter().any(|run| run.quick) {
        doubts.push("A quick run, to see that it works: the figures are rough.".to_owned());
    }
    // Measuring itself loads one core or two; before the first run there should be nothing.
    if let Some(run) = result.runs.first()
        && run.load.first().is_some_and(|load| *load > f64::from(result.machine.cores) * 0.5)
    {
        let load = run.load.first().copied().unwrap_or_default();
        doubts.push(format!(
            "The machine was busy before the first run (load {load:.1} on {} cores).",
            result.machine.cores
        ));
    }
    doubts.extend(stalls(result));
    if result.machine.bpf_jit.starts_with("off") {
        doubts.push("The BPF JIT is off: programs were interpreted.".to_owned());
    }
    (!doubts.is_empty()).then(|| doubts.join(" "))
}

/// Stalls of the machine, where they bound what was measured: the worst run counts.
fn stalls(result: &BenchResult) -> Option<String> {
    let all = || result.runs.iter().flat_map(|run| &run.stalls);
    let worst = all().max_by(|a, b| a.per_second.total_cmp(&b.per_second)).filter(|worst| worst.per_second >= 1.0)?;
    let longest = all().map(|stalls| stalls.longest_ms).fold(0.0, f64::max);
    Some(format!(
        "The machine itself stalled: core {} was away for a millisecond or more {} times a second, {} ms at the longest. \
         A queue of 256 packets overflows in 1 ms at 256 kpps, so drop-free loads, high percentiles of latency and losses \
         during changes are bounded by the machine, for all devices alike; rates at full load are not.",
        worst.core,
        figure::number(worst.per_second),
        figure::number(longest)
    ))
}

/// The same of one run, core by core.
pub(crate) fn run_stalls(run: &Run) -> String {
    let of = |stalls: &crate::result::Stalls| {
        format!("{}: {}, {} ms", stalls.core, figure::number(stalls.per_second), figure::number(stalls.longest_ms))
    };
    if run.stalls.is_empty() { "–".to_owned() } else { run.stalls.iter().map(of).collect::<Vec<_>>().join("; ") }
}

/// The machine, name by name.
pub(crate) fn machine(result: &BenchResult) -> Vec<(&'static str, String)> {
    let machine = &result.machine;
    let or = |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
    let mut facts = vec![
        ("Processor", or(&machine.cpu, "unknown")),
        ("Cores", machine.cores.to_string()),
        ("Microcode", or(&machine.microcode, "unknown")),
        ("Frequency governor", or(&machine.governor, "none visible")),
        ("Virtualisation", or(&machine.virtualisation, "none")),
        ("Memory", format!("{} MiB", super::figure::count(machine.memory_mib))),
        ("Kernel", machine.kernel.clone()),
        ("Boot arguments", or(&machine.boot_args.join(" "), "none that move figures")),
        ("BPF JIT", machine.bpf_jit.clone()),
        ("Mitigations", or(&machine.mitigations.join("; "), "none needed")),
    ];
    for interface in &machine.interfaces {
        let speed = interface.speed_mbps.map_or_else(String::new, |speed| format!(", {speed} Mbit/s"));
        let driver = or(&interface.driver, "virtual");
        let queues = format!("{} receive and {} transmit queues", interface.rx_queues, interface.tx_queues);
        facts.push(("Interface", format!("{}: {driver}{speed}, {queues}", interface.name)));
    }
    facts.push(("Commit", result.tool.git.clone().unwrap_or_else(|| "not built in a checkout".to_owned())));
    facts
}

/// A command line that a shell reads as it was.
pub(crate) fn command(run: &Run) -> String {
    let quoted = |word: &String| {
        let plain = |byte: char| byte.is_ascii_alphanumeric() || "-_./=:,%+@".contains(byte);
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    let program =
        run.command.first().map_or("dataplane-bench", |program| program.rsplit('/').next().unwrap_or(program));
    let arguments = run.command.iter().skip(1).map(quoted);
    std::iter::once(program.to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// The subcommand of a run.
pub(crate) fn subcommand(run: &Run) -> &str {
    run.command.get(1).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Stalls;

    #[test]
    fn commands_can_be_pasted() {
        let words = ["/usr/bin/dataplane-bench", "prog", "--cases", "lb/*", "it's"];
        let run = Run { command: words.map(str::to_owned).to_vec(), ..Run::default() };
        assert_eq!(command(&run), r"dataplane-bench prog --cases 'lb/*' 'it'\''s'");
    }

    #[test]
    fn doubts_are_told() {
        let mut result = BenchResult::start(None);
        result.machine.bpf_jit = "off".to_owned();
        result.runs[0].load = [0.0; 3];
        result.runs[0].quick = true;
        let stalls = |core, per_second| Stalls { core, per_second, percent: 5.0, longest_ms: 7.5 };
        result.runs[0].stalls = vec![stalls(0, 0.5)];
        assert!(!warning(&result).unwrap().contains("stalled"));
        result.runs[0].stalls.push(stalls(1, 12.0));
        let told = warning(&result).unwrap();
        assert!(told.contains("core 1 was away for a millisecond or more 12 times a second, 7.5 ms"), "{told}");
        let warning = warning(&result).unwrap();
        assert!(
            warning.contains("quick run") && warning.contains("JIT is off") && !warning.contains("busy"),
            "{warning}"
        );
    }
}
