//! The slow path as the owner sees it: started when there is something to serve, told about changes, never waited for.

use std::sync::Arc;

use crossbeam::channel::Sender;
use model::desired::Node;
use model::network::Network;
use tokio::sync::mpsc;
use tracing::{error, info};

use super::affinity;
use super::event::Event;
use super::forwarding::Forwarding;
use crate::slowpath::{Config, DEFAULT_FRAMES, FromWorker, NetworkView, PortSockets, SlowPath, ToWorker, WorkerStats};

/// Messages of the workers that wait for the owner; a worker repeats what finds no room.
const MESSAGES: usize = 1024;

/// The running workers, if any.
pub(super) struct Workers {
    events: mpsc::Sender<Event>,
    running: Option<SlowPath>,
    ports: Vec<PortSockets>,
    cores: Vec<usize>,
    view: Arc<NetworkView>,
    failure: Option<String>,
}

impl Workers {
    pub(super) fn new(events: mpsc::Sender<Event>) -> Self {
        let view = Arc::new(NetworkView::default());
        Self { events, running: None, ports: Vec::new(), cores: Vec::new(), view, failure: None }
    }

    /// Sends a message to every worker.
    pub(super) fn tell(&self, message: &ToWorker) {
        if let Some(slow_path) = &self.running {
            slow_path.send(message);
        }
    }

    /// Why the workers do not run.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// What the workers count.
    pub(super) fn stats(&self) -> Vec<WorkerStats> {
        self.running.as_ref().map(SlowPath::stats).unwrap_or_default()
    }

    /// The workers could not follow a change of the ports.
    pub(super) fn failed(&mut self, failure: String) {
        error!(error = failure, "the slow path does not serve every interface");
        self.failure = Some(failure);
    }

    /// Stops the workers and waits for them.
    pub(super) fn stop(&mut self) {
        if let Some(slow_path) = self.running.take() {
            slow_path.stop();
        }
    }

    /// Brings the workers in line with a generation.
    pub(super) fn follow(&mut self, node: &Node, network: &Network, forwarding: &Forwarding) {
        let ports = ports(node, network, forwarding);
        if self.running.is_none() || node.worker_cores != self.cores {
            self.stop();
            self.cores.clone_from(&node.worker_cores);
            self.start(&ports, forwarding);
        } else if ports != self.ports {
            self.failure = None;
            self.tell(&ToWorker::Ports(ports.clone().into()));
        }
        self.ports = ports;
        let view = NetworkView::new(network, node);
        if *self.view != view {
            self.view = Arc::new(view);
            self.tell(&ToWorker::View(Arc::clone(&self.view)));
        }
    }

    fn start(&mut self, ports: &[PortSockets], forwarding: &Forwarding) {
        if ports.is_empty() {
            return;
        }
        let started = forwarding.dataplane().xsk_map().map_err(|error| error.to_string()).and_then(|xsk_map| {
            let config = Config { ports: ports.to_vec(), cores: self.cores.clone(), xsk_map, frames: DEFAULT_FRAMES };
            let events = self.bridge();
            affinity::unpinned(|| SlowPath::start(config, events)).map_err(|error| error.to_string())
        });
        match started {
            Ok(slow_path) => {
                info!(workers = self.cores.len().max(1), ports = ports.len(), "slow path started");
                slow_path.send(&ToWorker::View(Arc::clone(&self.view)));
                self.running = Some(slow_path);
                self.failure = None;
            }
            Err(failure) => {
                if self.failure.as_ref() != Some(&failure) {
                    error!(
                        error = failure,
                        "the slow path does not run: ARP, ND and ICMP for forwarded packets are missing"
                    );
                }
                self.failure = Some(failure);
            }
        }
    }

    /// A channel whose messages reach the owner as events, until the workers or the owner are gone.
    fn bridge(&self) -> Sender<FromWorker> {
        let (sender, messages) = crossbeam::channel::bounded(MESSAGES);
        let events = self.events.clone();
        let forward = move || {
            while let Ok(message) = messages.recv() {
                if events.blocking_send(Event::Worker(message)).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("worker-bridge".into()).spawn(forward) {
            error!(%error, "no thread for the workers' messages");
        }
        sender
    }
}

/// Which sockets the ports need.
fn ports(node: &Node, network: &Network, forwarding: &Forwarding) -> Vec<PortSockets> {
    let compiled = forwarding.compiled();
    let sockets = compiled.tables.ports.iter().filter_map(|(key, port)| {
        let device = network.links.get(&key.ifindex)?;
        let name = compiled.names.ports.get(&port.id)?;
        let (interface, _) = network.link_by_name(name)?;
        forwarding.is_attached(key.ifindex).then(|| PortSockets {
            port: port.id,
            interface,
            device: key.ifindex,
            name: device.name.clone(),
            queues: device.rx_queues.min(node.slow_path_queues),
        })
    });
    sockets.collect()
}
