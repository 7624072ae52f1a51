//! A thousand times each back end is opened, used and dropped: nothing of it is left in the process or the kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use std::fs;
    use std::time::{Duration, Instant};

    use libbpf_rs::query::ProgInfoIter;
    use pktgen::backend::Tx;
    use pktgen::backend::live::Live;
    use pktgen::backend::packet::PacketRing;
    use pktgen::backend::xsk::Xsk;
    use pktgen::interface::Interface;
    use pktgen::source::Written;
    use pktgen::umem;
    use testkit::netns::{End, Netns, veth};

    const CYCLES: usize = 1000;
    /// Closing a socket waits for the kernel's readers; waits of several threads are one.
    const THREADS: usize = 8;

    /// What a leak would leave behind.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
    struct Held {
        descriptors: usize,
        mappings: usize,
        locked_kb: u64,
        programs: usize,
    }

    fn held() -> Held {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        Held {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            // Not those of the allocator, which keeps some for each thread.
            mappings: fs::read_to_string("/proc/self/maps")
                .unwrap()
                .lines()
                .filter(|line| line.contains("bpf-map") || line.contains("socket:") || line.contains("bpf_map"))
                .count(),
            locked_kb: locked.trim().trim_end_matches(" kB").parse().unwrap(),
            programs: ProgInfoIter::default().filter(|program| program.name.to_bytes() == b"pktgen_live").count(),
        }
    }

    fn cycle(backend: &str, interface: &Interface) {
        let mut tx: Box<dyn Tx> = match backend {
            "live" => Box::new(Live::new(interface, 60, false, 64).unwrap()),
            "packet" => Box::new(PacketRing::new(interface, 60).unwrap()),
            _ => {
                let opened = umem::open_deep(interface.name(), 0, 60, 64).unwrap();
                Box::new(Xsk::new(opened.sender, Some(opened.receiver), 60))
            }
        };
        for _ in 0..10 {
            tx.slot().unwrap()[..60].copy_from_slice(&[2; 60]);
            tx.push(Written { len: 60, late: None }, 0);
        }
        tx.flush(&mut |_| {}).unwrap();
        assert_eq!(tx.settle(2_000_000_000), 0);
    }

    fn cycles(backend: &'static str, wires: &[Netns]) {
        let started = Instant::now();
        let threads: Vec<_> = wires
            .iter()
            .map(|wire| {
                wire.thread(move || {
                    let near = Interface::new("w0").unwrap();
                    (0..CYCLES / THREADS).for_each(|_| cycle(backend, &near));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        println!("{backend}: {CYCLES} cycles in {:.1} s", started.elapsed().as_secs_f64());
    }

    #[test]
    fn a_thousand_cycles_leave_nothing() {
        let wires: Vec<Netns> = (0..THREADS)
            .map(|_| {
                let ns = Netns::new("packet-cycle").unwrap();
                let end = |name| End { netns: &ns, name, addresses: &[] };
                veth(end("w0"), end("w1")).unwrap();
                ns.run("ethtool", &["-K", "w1", "gro", "on"]).unwrap();
                ns
            })
            .collect();
        for backend in ["packet", "xsk", "live"] {
            let before = held();
            cycles(backend, &wires);
            // The kernel frees some of it a moment later; other pktgens on the machine have programs, too.
            let deadline = Instant::now() + Duration::from_secs(20);
            let mut after = held();
            while (after.descriptors, after.mappings, after.locked_kb, after.programs)
                > (before.descriptors, before.mappings, before.locked_kb, before.programs)
                && Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(100));
                after = held();
            }
            assert_eq!(after.descriptors, before.descriptors, "{backend}");
            assert_eq!(after.mappings, before.mappings, "{backend}");
            assert_eq!(after.locked_kb, before.locked_kb, "{backend}");
            assert!(after.programs <= before.programs, "{backend}: {after:?} {before:?}");
        }
    }
}
