//! Sockets alone: no program sends them anything.

use std::os::fd::{AsFd as _, OwnedFd};

use crossbeam::channel::unbounded;
use libbpf_rs::{MapHandle, MapType, libbpf_sys};
use margay::slowpath::{Config, DEFAULT_FRAMES, Error, PortSockets, SlowPath, ToWorker};
use model::network::IfIndex;
use model::tables::PortId;
use testkit::netns::Netns;

/// An XSKMAP as the pipeline's, without a program.
fn xsk_map() -> MapHandle {
    let opts = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    MapHandle::create(MapType::Xskmap, Some("xsks"), 4, 4, 64 * 64, &opts).unwrap()
}

fn fd(map: &MapHandle) -> OwnedFd {
    map.as_fd().try_clone_to_owned().unwrap()
}

fn ifindex(netns: &Netns, name: &str) -> IfIndex {
    let json = netns.ip(&["-j", "link", "show", name]).unwrap();
    let links: serde_json::Value = serde_json::from_str(&json).unwrap();
    IfIndex(u32::try_from(links[0]["ifindex"].as_u64().unwrap()).unwrap())
}

/// A namespace with a veth pair of two queues in it, `p0` and `p1`, up.
fn two_ports() -> Netns {
    let netns = Netns::new("slowpath").unwrap();
    let queues = ["numrxqueues", "2", "numtxqueues", "2"];
    let pair = [&["link", "add", "p0"][..], &queues, &["type", "veth", "peer", "name", "p1"], &queues].concat();
    netns.ip(&pair).unwrap();
    for name in ["p0", "p1"] {
        netns.ip(&["link", "set", name, "up"]).unwrap();
    }
    netns
}

fn port(netns: &Netns, id: u32, name: &str) -> PortSockets {
    let ifindex = ifindex(netns, name);
    PortSockets { port: PortId(id), interface: ifindex, device: ifindex, name: name.to_owned(), queues: 2 }
}

/// Starts the workers in `netns`; threads inherit the namespace of the thread that starts them.
fn start(netns: &Netns, ports: Vec<PortSockets>, cores: Vec<usize>, xsk_map: OwnedFd) -> Result<SlowPath, Error> {
    let config = Config { ports, cores, xsk_map, frames: DEFAULT_FRAMES };
    netns.thread(move || SlowPath::start(config, unbounded().0)).join().unwrap().unwrap()
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn sockets_come_and_go_two_hundred_times_and_leave_nothing() {
    let _alone = crate::FILES.write().unwrap();
    let (netns, map) = (two_ports(), xsk_map());
    let one_queue = |port| PortSockets { queues: 1, ..port };
    let ports = [port(&netns, 1, "p0"), port(&netns, 2, "p1")].map(one_queue);
    let mut before = 0;
    for round in 0..200 {
        let slow_path = start(&netns, ports.to_vec(), vec![], fd(&map)).unwrap();
        slow_path.stop();
        if round == 0 {
            before = open_files();
        }
    }
    assert_eq!(open_files(), before);
}

#[test]
fn a_socket_that_cannot_be_bound_is_named() {
    let _shared = crate::FILES.read().unwrap();
    let (netns, map) = (two_ports(), xsk_map());
    let (p0, p1) = (port(&netns, 1, "p0"), port(&netns, 2, "p1"));
    let holder = start(&netns, vec![p0.clone()], vec![], fd(&map)).unwrap();
    let busy = start(&netns, vec![p1.clone(), p0.clone()], vec![], fd(&map)).unwrap_err().to_string();
    assert!(busy.starts_with("AF_XDP socket on p0 queue 0: ") && busy.contains("another process"), "{busy}");
    holder.stop();
    start(&netns, vec![p1.clone(), p0], vec![], fd(&map)).unwrap().stop();
    let beyond = PortSockets { queues: 3, ..p1.clone() };
    let beyond = start(&netns, vec![beyond], vec![], fd(&map)).unwrap_err().to_string();
    assert!(beyond.starts_with("AF_XDP socket on p1 queue 2: "), "{beyond}");
    let absent = PortSockets { name: "absent".into(), ..p1.clone() };
    let absent = start(&netns, vec![absent], vec![], fd(&map)).unwrap_err().to_string();
    assert!(absent.starts_with("AF_XDP socket on absent queue 0: ") && absent.contains("does not exist"), "{absent}");
    let outside = PortSockets { port: PortId(64), ..p1 };
    let outside = start(&netns, vec![outside], vec![], fd(&map)).unwrap_err().to_string();
    assert!(outside.starts_with("XSKMAP key 4096 (p1 queue 0): "), "{outside}");
}

#[test]
fn a_core_that_does_not_exist_is_named() {
    let _shared = crate::FILES.read().unwrap();
    let (netns, map) = (two_ports(), xsk_map());
    let error = start(&netns, vec![port(&netns, 1, "p0")], vec![0, 900], fd(&map)).unwrap_err().to_string();
    assert!(error.starts_with("worker 1 on core 900: "), "{error}");
}

#[test]
fn ports_come_and_go_while_the_workers_run() {
    let _shared = crate::FILES.read().unwrap();
    let (netns, map) = (two_ports(), xsk_map());
    let (p0, p1) = (port(&netns, 1, "p0"), port(&netns, 2, "p1"));
    let slow_path = start(&netns, vec![p0.clone()], vec![0, 1], fd(&map)).unwrap();
    let sockets = |wanted: &[&[(&str, u32)]]| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let stats = slow_path.stats();
            let have: Vec<Vec<(&str, u32)>> = stats
                .iter()
                .map(|worker| worker.sockets.iter().map(|s| (s.interface.as_str(), s.queue)).collect())
                .collect();
            if have == wanted {
                return stats.iter().map(|worker| worker.rebuilds).collect::<Vec<_>>();
            }
            assert!(std::time::Instant::now() < deadline, "{have:?} is not {wanted:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    sockets(&[&[("p0", 0)], &[("p0", 1)]]);
    slow_path.send(&ToWorker::Ports([p0, p1.clone()].into()));
    let rebuilds = sockets(&[&[("p0", 0), ("p1", 0)], &[("p0", 1), ("p1", 1)]]);
    assert_eq!(rebuilds, [0, 0], "a new interface joins the UMEM in use");
    slow_path.send(&ToWorker::Ports([p1].into()));
    assert_eq!(sockets(&[&[("p1", 0)], &[("p1", 1)]]), [1, 1], "the first socket's queue is released too");
    slow_path.stop();
}

#[test]
fn an_interface_need_not_be_up() {
    let _shared = crate::FILES.read().unwrap();
    let (netns, map) = (two_ports(), xsk_map());
    netns.ip(&["link", "set", "p0", "down"]).unwrap();
    start(&netns, vec![port(&netns, 1, "p0")], vec![], fd(&map)).unwrap().stop();
}
