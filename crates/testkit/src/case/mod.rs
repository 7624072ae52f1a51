//! Packet cases as data: `tests/packet/<area>/*.toml`, run through the loaded program and through the oracle.
//!
//! ```toml
//! about = "what the case shows"
//! config = """documents, as in a configuration directory; a Node comes from topology.toml unless there is one here"""
//! workers = true            # default; false: no slow-path socket, punts fall back
//! full = true               # default; false: only with the smallest feature set
//! [links.eth1]              # changes to topology.toml
//! neighbors = {}
//! [[bgp]]                   # routes as BGP would have chosen them
//! prefix = "203.0.113.0/24"
//! gateways = ["10.0.0.2"]
//! alternatives = ["10.0.1.11"]
//! [[step]]                  # frames in order; the flow table remembers
//! in = "eth 02::2 > 02::a0 / ip4 203.0.113.9 > 10.0.1.11 / udp 1 > 2"
//! port = "eth0"
//! out = "redirect(eth1) eth 02::a1 > 02::11 / ip4 203.0.113.9 > 10.0.1.11 ttl=63 / udp 1 > 2"
//! ```
//! `out` is a verdict: `pass`, `tx`, `redirect(LINK)`, `punt(REASON)` or `drop(REASON)`, and the frame that leaves; without a frame,
//! it leaves as it came in. `meta` says what a punt tells the slow path, `count` which counters move in this step.

mod run;
mod valid;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use model::ids::Limits;
use model::network::{IfIndex, Link, Mac, Network, Vlan};
use model::rib::{BgpRoute, Gateway, Rib, Way};
use serde::Deserialize;

use crate::program::World;

pub use run::{Totals, run};

/// What a case says of a link; what is left out stays as in the topology.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkSpec {
    ifindex: Option<u32>,
    mac: Option<Short>,
    mtu: Option<u32>,
    up: Option<bool>,
    /// Parent and identifier of a VLAN device.
    vlan: Option<(String, u16)>,
    addresses: Option<Vec<IpNet>>,
    neighbors: Option<BTreeMap<IpAddr, Short>>,
}

/// An Ethernet address as the notation writes it: `02::a0`.
#[derive(Clone, Copy, Debug)]
struct Short(Mac);

impl<'de> Deserialize<'de> for Short {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The notation's own reader, on a header with this destination.
        let frame = packet::notation::encode(&format!("eth 02::1 > {text}")).map_err(serde::de::Error::custom)?;
        let octets = frame.first_chunk().copied().ok_or_else(|| serde::de::Error::custom("no address"))?;
        Ok(Self(Mac(octets)))
    }
}

/// `tests/packet/topology.toml`: what every case starts from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Documents, used by cases without a Node of their own.
    config: String,
    links: BTreeMap<String, LinkSpec>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KernelSpec {
    prefix: IpNet,
    gateway: IpAddr,
    /// Link that the gateway is on.
    link: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BgpSpec {
    prefix: IpNet,
    gateways: Vec<IpAddr>,
    /// Gateways of paths that were not chosen.
    #[serde(default)]
    alternatives: Vec<IpAddr>,
    #[serde(default)]
    internal: bool,
}

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub about: String,
    #[serde(default)]
    config: String,
    #[serde(default = "yes")]
    workers: bool,
    /// A program with every decap stage asks for peers even where no Tunnel is configured.
    #[serde(default = "yes")]
    full: bool,
    #[serde(default)]
    links: BTreeMap<String, LinkSpec>,
    #[serde(default)]
    bgp: Vec<BgpSpec>,
    #[serde(default)]
    kernel: Vec<KernelSpec>,
    /// How many prefixes the FIB of each family has room for, as far as learned routes are concerned.
    room: Option<[usize; 2]>,
    /// Frames in order.
    pub step: Vec<Step>,
}

fn yes() -> bool {
    true
}

/// One frame and what must become of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The frame, in packet notation.
    pub r#in: String,
    /// Link that it comes in by.
    pub port: String,
    /// Verdict and frame.
    pub out: String,
    /// What a punt tells the slow path.
    #[serde(default)]
    pub meta: Option<MetaSpec>,
    /// Counters that move, such as `drop.POLICY_DENY`.
    #[serde(default)]
    pub count: BTreeMap<String, u64>,
}

/// Part of `struct punt_meta`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetaSpec {
    /// Largest packet that fits.
    #[serde(default)]
    pub mtu: u32,
    /// Link that the neighbour is on.
    pub egress: Option<String>,
    /// The neighbour.
    pub address: Option<IpAddr>,
    /// The TTL has still to be decremented.
    #[serde(default)]
    pub decrement_ttl: bool,
}

impl Topology {
    /// Reads `topology.toml` of `dir`.
    ///
    /// # Errors
    /// A file that cannot be read or says something else.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("topology.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}

impl Case {
    /// Reads one file.
    ///
    /// # Errors
    /// A file that cannot be read or says something else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Ok(toml::from_str(&text)?)
    }

    /// The inputs that the case describes.
    ///
    /// # Errors
    /// Every diagnostic of its documents.
    pub fn world(&self, topology: &Topology) -> Result<World> {
        let mut files = Vec::new();
        if !self.config.lines().any(|line| line.trim() == "kind: Node") {
            files.push(("topology.toml".to_owned(), topology.config.clone()));
        }
        files.push(("config".to_owned(), self.config.clone()));
        let loaded = model::load::load(&files, None).map_err(|diagnostics| {
            let text: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
            anyhow::anyhow!(text.join("\n"))
        })?;
        let mut rib = Rib::default();
        for route in &self.bgp {
            rib.set_bgp(
                route.prefix,
                &BgpRoute {
                    gateways: route.gateways.clone(),
                    alternatives: route.alternatives.clone(),
                    internal: route.internal,
                },
            );
        }
        let network = self.network(topology)?;
        for route in &self.kernel {
            let (link, _) = network.link_by_name(&route.link).context("a route by a link that is not there")?;
            if let Some(way) = Way::through([Gateway::on_link(route.gateway, link)]) {
                rib.set_kernel(route.prefix, way);
            }
        }
        let default = Limits::default();
        let limits = Limits { prefixes: self.room.unwrap_or(default.prefixes), ..default };
        Ok(World { desired: loaded.desired, network, rib, limits })
    }

    fn network(&self, topology: &Topology) -> Result<Network> {
        let mut specs = topology.links.clone();
        for (name, change) in &self.links {
            let spec = specs.entry(name.clone()).or_default();
            let change = change.clone();
            *spec = LinkSpec {
                ifindex: change.ifindex.or(spec.ifindex),
                mac: change.mac.or(spec.mac),
                mtu: change.mtu.or(spec.mtu),
                up: change.up.or(spec.up),
                vlan: change.vlan.or(spec.vlan.take()),
                addresses: change.addresses.or(spec.addresses.take()),
                neighbors: change.neighbors.or(spec.neighbors.take()),
            };
        }
        let index_of = |name: &str| {
            let index = specs.get(name).and_then(|spec| spec.ifindex);
            index.map(IfIndex).with_context(|| format!("link {name} has no ifindex"))
        };
        let mut network = Network::default();
        for (name, spec) in &specs {
            let index = index_of(name)?;
            let vlan = match &spec.vlan {
                Some((parent, id)) => Some(Vlan { parent: index_of(parent)?, id: *id }),
                None => None,
            };
            let link = Link {
                name: name.clone(),
                mac: spec.mac.with_context(|| format!("link {name} has no mac"))?.0,
                mtu: spec.mtu.unwrap_or(1500),
                up: spec.up.unwrap_or(true),
                rx_queues: 1,
                vlan,
            };
            if network.links.insert(index, link).is_some() {
                bail!("two links with index {index}");
            }
            network.addresses.extend(spec.addresses.iter().flatten().map(|net| (index, *net)));
            let neighbors = spec.neighbors.iter().flatten();
            network.neighbors.extend(neighbors.map(|(address, mac)| ((index, *address), mac.0)));
        }
        Ok(network)
    }
}

/// The case files below `dir`, by area and name.
///
/// # Errors
/// A directory that cannot be read.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for area in std::fs::read_dir(dir)? {
        let area = area?.path();
        if !area.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&area)? {
            found.push(file?.path());
        }
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    found.sort();
    Ok(found)
}
