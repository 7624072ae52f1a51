//! client -- gateway (dataplane and slow path in this process) -- server, each in a namespace of its own.
//!
//! The gateway's control thread is as small as it can be: it resolves neighbours when the workers ask and tells them the
//! result. The tables stay as they were at the start, without a single neighbour, so that every packet that needs one
//! takes the slow path.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crossbeam::channel::unbounded;
use ipnet::IpNet;
use margay::control::netlink::{Change, NeighborEntry, Resolver, follow};
use margay::dataplane::{Attach, Dataplane, PortCounters};
use margay::slowpath::{Config, DEFAULT_FRAMES, FromWorker, NetworkView, PortSockets, SlowPath, ToWorker, WorkerStats};
use model::compile::{Compiled, compile};
use model::desired::Desired;
use model::ids::Ids;
use model::network::Network;
use model::rib::Rib;
use model::tables::{Port, PortId, PortKey};
use testkit::netns::{End, Netns, veth};
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

/// Addresses of the test network: the gateway has .1 and ::1, the others .2 and ::2.
pub(super) const SERVER: [&str; 2] = ["198.51.100.2", "2001:db8:2::2"];
/// A host behind the server, and one that does not exist on the server's link.
pub(super) const BEHIND: [&str; 2] = ["203.0.113.9", "2001:db8:3::9"];
pub(super) const ABSENT: [&str; 2] = ["198.51.100.77", "2001:db8:2::77"];

pub(super) struct Topology {
    pub(super) client: Netns,
    pub(super) gateway: Netns,
    pub(super) server: Netns,
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

impl Topology {
    /// `client:eth0 -- eth0:gateway:eth1 -- eth0:server`. Checksums are written by the senders: what a veth leaves to a
    /// device that never comes would be wrong on the wire of AF_XDP.
    pub(super) fn new() -> Self {
        let [client, gateway, server] = ["client", "gateway", "server"].map(|name| {
            let netns = Netns::new(&format!("slowpath-{name}")).unwrap();
            netns.sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
            netns.sysctl("net.ipv4.ip_forward", "1").unwrap();
            netns
        });
        veth(
            End { netns: &client, name: "eth0", addresses: &nets(&["192.0.2.2/24", "2001:db8:1::2/64"]) },
            End { netns: &gateway, name: "eth0", addresses: &nets(&["192.0.2.1/24", "2001:db8:1::1/64"]) },
        )
        .unwrap();
        veth(
            End { netns: &gateway, name: "eth1", addresses: &nets(&["198.51.100.1/24", "2001:db8:2::1/64"]) },
            End { netns: &server, name: "eth0", addresses: &nets(&["198.51.100.2/24", "2001:db8:2::2/64"]) },
        )
        .unwrap();
        for (netns, via4, via6) in [(&client, "192.0.2.1", "2001:db8:1::1"), (&server, "198.51.100.1", "2001:db8:2::1")]
        {
            netns.run("ethtool", &["-K", "eth0", "tx", "off"]).unwrap();
            netns.ip(&["route", "add", "default", "via", via4]).unwrap();
            netns.ip(&["-6", "route", "add", "default", "via", via6]).unwrap();
        }
        Self { client, gateway, server }
    }

    /// Loads the pipeline on the gateway and starts the workers, one a core of `cores`; `None` for no workers at all.
    pub(super) fn start(&self, desired: Desired, cores: Option<Vec<usize>>) -> Gateway {
        self.start_with(desired, cores, |_| ())
    }

    /// As [`Topology::start`], with what `pretend` adds to the kernel's state.
    pub(super) fn start_with(
        &self,
        desired: Desired,
        cores: Option<Vec<usize>>,
        pretend: impl FnOnce(&mut Network) + Send + 'static,
    ) -> Gateway {
        let (requests, inbox) = tokio_mpsc::channel(64);
        let (ready, started) = mpsc::channel();
        let thread = self.gateway.thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(control(desired, cores, pretend, inbox, &ready));
        });
        started.recv_timeout(Duration::from_secs(20)).expect("the gateway starts");
        Gateway { requests, thread: Some(thread) }
    }
}

enum Request {
    Stats(oneshot::Sender<(Vec<WorkerStats>, BTreeMap<u32, PortCounters>)>),
    /// Serve only the ports of these devices from now on.
    Serve(&'static [&'static str]),
    Stop,
}

/// The running gateway; stopped when dropped.
pub(super) struct Gateway {
    requests: tokio_mpsc::Sender<Request>,
    thread: Option<std::thread::JoinHandle<Result<(), testkit::netns::Error>>>,
}

impl Gateway {
    /// Numbers of the workers and counters of the ports.
    pub(super) fn stats(&self) -> (Vec<WorkerStats>, BTreeMap<u32, PortCounters>) {
        let (answer, stats) = oneshot::channel();
        self.requests.blocking_send(Request::Stats(answer)).unwrap();
        stats.blocking_recv().unwrap()
    }

    /// Takes the sockets of all but these devices away.
    pub(super) fn serve(&self, devices: &'static [&'static str]) {
        self.requests.blocking_send(Request::Serve(devices)).unwrap();
    }

    /// Waits until the workers have published what satisfies `enough`.
    pub(super) fn until(&self, enough: impl Fn(&[WorkerStats]) -> bool) -> Vec<WorkerStats> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (stats, _) = self.stats();
            if enough(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "{}", serde_json::to_string_pretty(&stats).unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.requests.blocking_send(Request::Stop);
        let joined = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            joined.unwrap().expect("the gateway ends well").unwrap();
        }
    }
}

enum Event {
    Kernel(Change),
    Worker(FromWorker),
}

async fn control(
    desired: Desired,
    cores: Option<Vec<usize>>,
    pretend: impl FnOnce(&mut Network),
    mut requests: tokio_mpsc::Receiver<Request>,
    ready: &mpsc::Sender<()>,
) {
    let (events, mut inbox) = tokio_mpsc::channel(1024);
    let kernel = tokio::spawn(follow(events.clone(), Event::Kernel));
    let resolver = Resolver::new().unwrap();
    let mut network = match inbox.recv().await {
        Some(Event::Kernel(Change::Snapshot(network))) => network,
        _ => panic!("the kernel's state comes first"),
    };
    pretend(&mut network);
    let without_neighbors = Network { neighbors: BTreeMap::new(), ..network.clone() };
    let compiled = compile(&desired, &without_neighbors, &Rib::default(), &mut Ids::default()).unwrap();
    let mut dataplane = Dataplane::open_unpinned().unwrap();
    apply(&mut dataplane, &compiled, &network);
    let slow_path = cores.map(|cores| {
        let (from_workers, messages) = unbounded();
        let ports = sockets(&compiled, &network, desired.node.slow_path_queues);
        let xsk_map = dataplane.xsk_map().unwrap();
        let slow_path =
            SlowPath::start(Config { ports, cores, xsk_map, frames: DEFAULT_FRAMES }, from_workers).unwrap();
        slow_path.send(&ToWorker::View(Arc::new(NetworkView::from(&network))));
        let events = events.clone();
        std::thread::spawn(move || {
            for message in messages {
                if events.blocking_send(Event::Worker(message)).is_err() {
                    break;
                }
            }
        });
        slow_path
    });
    let tell = |message: &ToWorker| slow_path.iter().for_each(|slow_path| slow_path.send(message));
    ready.send(()).unwrap();
    loop {
        tokio::select! {
            Some(event) = inbox.recv() => match event {
                Event::Kernel(change) => {
                    if let Change::Neighbor { ifindex, address, entry: NeighborEntry::Resolved(mac) } = change {
                        tell(&ToWorker::Resolved { ifindex, address, mac });
                    }
                    change.apply(&mut network);
                    tell(&ToWorker::View(Arc::new(NetworkView::from(&network))));
                }
                Event::Worker(FromWorker::Resolve { ifindex, address }) => {
                    if let Some(mac) = network.neighbors.get(&(ifindex, address)).copied() {
                        tell(&ToWorker::Resolved { ifindex, address, mac });
                    } else {
                        resolver.resolve(ifindex, address, false).await.unwrap();
                    }
                }
                Event::Worker(FromWorker::Failed(error)) => panic!("{error}"),
            },
            request = requests.recv() => match request {
                Some(Request::Stats(answer)) => {
                    let ports = compiled.tables.ports.values().map(|port| port.id).chain([PortId(0)]);
                    let counters = ports.map(|id| (id.0, dataplane.port_counters(id).unwrap())).collect();
                    let stats = slow_path.as_ref().map(SlowPath::stats).unwrap_or_default();
                    let _ = answer.send((stats, counters));
                }
                Some(Request::Serve(devices)) => {
                    let mut ports = sockets(&compiled, &network, desired.node.slow_path_queues);
                    ports.retain(|port| devices.contains(&port.name.as_str()));
                    tell(&ToWorker::Ports(ports.into()));
                }
                Some(Request::Stop) | None => break,
            },
        }
    }
    kernel.abort();
}

fn apply(dataplane: &mut Dataplane, compiled: &Compiled, network: &Network) {
    let attach: Vec<Attach> = compiled
        .attach
        .iter()
        .map(|(ifindex, mode)| Attach { ifindex: *ifindex, name: network.links[ifindex].name.clone(), mode: *mode })
        .collect();
    dataplane.apply(&compiled.tables, compiled.features, &compiled.parameters, &attach).unwrap();
}

/// Sockets of every port; the name of a port is that of the interface that answers for it.
fn sockets(compiled: &Compiled, network: &Network, queues: u32) -> Vec<PortSockets> {
    let sockets = |(key, port): (&PortKey, &Port)| {
        let device = &network.links[&key.ifindex];
        PortSockets {
            port: port.id,
            interface: network.link_by_name(&compiled.names.ports[&port.id]).unwrap().0,
            device: key.ifindex,
            name: device.name.clone(),
            queues: queues.min(device.rx_queues),
        }
    };
    compiled.tables.ports.iter().map(sockets).collect()
}
