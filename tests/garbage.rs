//! Truncated and garbage frames of every length through the program and the oracle.
//!
//! Lengths from 0 to 128 bytes. The kernel's test run takes nothing under 14 bytes (`ETH_HLEN`): the
//! shorter ones are judged by the oracle alone, and that the kernel refuses them is part of the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod root {
    use std::collections::BTreeMap;
    use std::path::Path;

    use margay::dataplane::{PortCounters, SHORTEST_FRAME};
    use model::network::IfIndex;
    use model::tables::PortId;
    use model::verdict::{DropReason, Verdict};
    use testkit::case::{Case, Topology, files};
    use testkit::netns::Netns;
    use testkit::oracle::rng::Rng;
    use testkit::program::{Arrival, FeatureSet, Program, World, compare, count, oracle, prepare};

    const LONGEST: usize = 128;
    const ETH0: IfIndex = IfIndex(11);
    /// A configuration in which every stage has something to do.
    const CONFIG: &str = include_str!("garbage.yaml");

    /// Every length of every frame of the packet cases, and as many random ones behind each plausible start.
    fn frames(dir: &Path) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for path in files(dir).unwrap() {
            for step in Case::read(&path).unwrap().step {
                let frame = packet::notation::encode(&step.r#in).unwrap();
                frames.extend((0..=LONGEST.min(frame.len())).map(|len| frame[..len].to_vec()));
            }
        }
        frames.sort();
        frames.dedup();
        let mut rng = Rng::new(128);
        let starts = [
            "eth 02::2 > 02::a0 type=0x0800 / hex 45",
            "eth 02::2 > 02::a0 type=0x86dd / hex 60",
            "eth 02::2 > 02::a0 type=0x8100 / hex 0064080045",
            "eth 02::2 > 02::a0",
            "hex 00",
        ];
        for start in starts {
            let start = packet::notation::encode(start).unwrap();
            for len in 0..=LONGEST {
                for _ in 0..20 {
                    let mut frame = start.clone();
                    frame.resize_with(len, || rng.bits() as u8);
                    frames.push(frame);
                }
            }
        }
        frames
    }

    fn world(topology: &Topology) -> World {
        let case: Case = toml::from_str(&format!("about = \"\"\nconfig = '''{CONFIG}'''\nstep = []\n")).unwrap();
        let mut world = case.world(topology).unwrap();
        world.desired.node.punt_rate = 1_000_000_000;
        world
    }

    fn every_frame(world: &World, features: FeatureSet, frames: &[Vec<u8>]) -> usize {
        let mut program = Program::load(world, features).unwrap();
        let oracle = oracle(world, features);
        let mut expected: BTreeMap<PortId, PortCounters> = BTreeMap::new();
        let mut run = 0;
        for frame in frames {
            let judgement = oracle.judge(frame, ETH0);
            let arrival = Arrival { ifindex: ETH0, frame: frame.clone() };
            if frame.len() < SHORTEST_FRAME {
                assert_eq!(judgement.verdict, Verdict::Drop(DropReason::EthShort));
                assert!(program.run(&arrival).is_err(), "the kernel takes {} bytes", frame.len());
                continue;
            }
            let difference = compare(world, &mut program, &arrival, &judgement).unwrap();
            if let Some(difference) = difference {
                panic!("{features}: {}\n{difference}", packet::notation::decode(frame));
            }
            let port = judgement.port.map_or(PortId(0), |index| program.port(world, index).unwrap());
            count(expected.entry(port).or_default(), judgement.verdict.without_worker(), frame.len());
            run += 1;
        }
        for (port, counters) in program.counters().unwrap() {
            assert_eq!(counters, expected.remove(&port).unwrap_or_default(), "port {}", port.0);
            assert_eq!(counters.accounted(), counters.rx, "port {}", port.0);
        }
        run
    }

    #[test]
    fn frames_of_every_length_from_0_to_128_bytes() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packet");
        let frames = frames(&dir);
        for len in 0..=LONGEST {
            assert!(frames.iter().filter(|frame| frame.len() == len).count() >= 50, "{len} bytes");
        }
        let world = world(&Topology::read(&dir).unwrap());
        let netns = Netns::new("garbage").unwrap();
        prepare(&netns).unwrap();
        let work = move || FeatureSet::ALL.map(|features| every_frame(&world, features, &frames));
        let run = netns.thread(work).join().unwrap().unwrap();
        println!("{run:?} frames with the smallest and the full feature set");
    }
}
