//! The real program with one configuration in force, and what it does compared with what the oracle says.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use margay::dataplane::{Count, Dataplane, Explanation, PortCounters, Stage, TestRun, flows};
use model::compile::{CompileError, Compiled, Compiler};
use model::desired::Desired;
use model::ids::{Ids, Limits};
use model::network::{IfIndex, Network};
use model::oracle::{Judgement, Oracle};
use model::rib::Rib;
use model::tables::{BackendId, Features, GroupId, NextHopId, PortId, PortKey};
use model::verdict::Verdict;
use tables::hash;

use crate::netns::Netns;

/// One node's inputs.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// From the resources.
    pub desired: Desired,
    /// From the kernel.
    pub network: Network,
    /// From BGP and from before a restart.
    pub rib: Rib,
    /// What the tables hold.
    pub limits: Limits,
}

impl World {
    fn compile(&self) -> Result<Compiler, CompileError> {
        let mut compiler = Compiler::with_limits(Ids::default(), self.limits);
        compiler.compile(&self.desired, &self.network, &mut self.rib.clone())?;
        Ok(compiler)
    }
}

/// A frame and the interface that it comes in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The interface.
    pub ifindex: IfIndex,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
}

/// Interfaces that exist in the namespace of a test, with their indexes. A test run needs them; their names are free.
pub const INTERFACES: [(&str, IfIndex); 5] =
    [("p0", IfIndex(11)), ("p1", IfIndex(12)), ("p2", IfIndex(13)), ("p3", IfIndex(14)), ("h0", IfIndex(15))];

/// Makes [`INTERFACES`].
///
/// # Errors
/// What `ip` says.
pub fn prepare(netns: &Netns) -> Result<()> {
    for (name, index) in INTERFACES {
        let (index, peer) = (index.to_string(), format!("{name}-peer"));
        netns.ip(&["link", "add", name, "index", &index, "type", "veth", "peer", "name", &peer])?;
    }
    Ok(())
}

/// What the program is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureSet {
    /// What the configuration needs and nothing else.
    Smallest,
    /// Everything.
    Full,
}

impl FeatureSet {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Smallest, Self::Full];
}

impl fmt::Display for FeatureSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Smallest => "smallest feature set",
            Self::Full => "full feature set",
        })
    }
}

/// The oracle of `world` for a program with these features.
#[must_use]
pub fn oracle(world: &World, features: FeatureSet) -> Oracle<'_> {
    let mut oracle = Oracle::new(&world.desired, &world.network, &world.rib);
    // Which routes there is no room for is no question of what they mean; what then becomes of packets is.
    if world.limits != Limits::default()
        && let Ok(compiler) = world.compile()
    {
        oracle = oracle.without_room_for(compiler.routes_left_out(&world.rib));
    }
    match features {
        FeatureSet::Smallest => oracle,
        FeatureSet::Full => oracle.with_every_decap(),
    }
}

/// The program in a kernel of its own maps, attached to nothing.
#[derive(Debug)]
pub struct Program {
    dataplane: Dataplane,
    compiled: Compiled,
}

impl Program {
    /// Compiles `world` and loads it.
    ///
    /// # Errors
    /// What compiling or the kernel says.
    pub fn load(world: &World, features: FeatureSet) -> Result<Self> {
        let compiled = world.compile()?.compiled().clone();
        let features = match features {
            FeatureSet::Smallest => compiled.features,
            FeatureSet::Full => Features::FULL,
        };
        let mut dataplane = Dataplane::open_unpinned()?;
        dataplane.apply(&compiled.tables, features, &compiled.parameters, &[])?;
        Ok(Self { dataplane, compiled })
    }

    /// What stands in the tables.
    #[must_use]
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// The kernel side.
    #[must_use]
    pub fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// The way of a frame; changes nothing.
    ///
    /// # Errors
    /// Where the kernel refuses the run.
    pub fn explain(&mut self, arrival: &Arrival) -> Result<Explanation> {
        Ok(self.dataplane.explain(&arrival.frame, arrival.ifindex)?)
    }

    /// What is wrong where the next hop that the program chose is not in the bucket of the flow that the explanation names.
    fn bucket_difference(&self, frame: &[u8], explained: &Explanation) -> Option<String> {
        let tables = &self.compiled.tables;
        let (mut flow, inner_flow) = flows(frame, &explained.steps);
        let (mut group, mut balanced) = (GroupId(0), false);
        for step in &explained.steps {
            match step.stage {
                Stage::Decap => flow = inner_flow,
                Stage::Fib => group = GroupId(step.id),
                Stage::Backend => {
                    group = tables.backends.get(&BackendId(step.id))?.group;
                    balanced = true;
                }
                // Without a route, the stage before a tunnel is taken off finds what group 0 leads to: nothing.
                Stage::NextHop if group.0 > 0 => {
                    let flow = flow.map(|flow| if balanced { flow.balanced } else { flow.forwarded });
                    let seed = self.compiled.parameters.hash_seed;
                    let bucket = flow.map(|flow| hash::bucket(hash::flow_hash(&flow), seed));
                    let buckets = tables.groups.get(&group).map(|group| &group.buckets);
                    let found = bucket.and_then(|bucket| buckets?.get(bucket).copied());
                    if found != Some(NextHopId(step.id)) {
                        return Some(format!("{flow:?} is in bucket {bucket:?} of {group:?}: {found:?}, not {step:?}"));
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Runs the program on a frame as it does for the wire.
    ///
    /// # Errors
    /// Where the kernel refuses the run.
    pub fn run(&self, arrival: &Arrival) -> Result<TestRun> {
        Ok(self.dataplane.test_run(&arrival.frame, arrival.ifindex)?)
    }

    /// The port of an interface.
    ///
    /// # Errors
    /// Where the tables have none.
    pub fn port(&self, world: &World, interface: IfIndex) -> Result<PortId> {
        let vlan = world.network.links.get(&interface).and_then(|link| link.vlan);
        let key = match vlan {
            Some(vlan) => PortKey { ifindex: vlan.parent, vlan: Some(vlan.id) },
            None => PortKey { ifindex: interface, vlan: None },
        };
        Ok(self.compiled.tables.ports.get(&key).with_context(|| format!("{key:?} is no port"))?.id)
    }

    /// Every port's counters, port 0 included.
    ///
    /// # Errors
    /// Where the kernel refuses the look-up.
    pub fn counters(&self) -> Result<BTreeMap<PortId, PortCounters>> {
        let ids = self.compiled.tables.ports.values().map(|port| port.id).chain([PortId(0)]);
        ids.map(|id| Ok((id, self.dataplane.port_counters(id)?))).collect()
    }
}

/// Adds what a frame of `bytes` counts as.
pub fn count(counters: &mut PortCounters, verdict: Verdict, bytes: usize) {
    let one = Count { packets: 1, bytes: bytes as u64 };
    counters.rx += one;
    let counter = match verdict {
        Verdict::Pass => &mut counters.pass,
        Verdict::Tx => &mut counters.tx,
        Verdict::Redirect(_) => &mut counters.redirect,
        Verdict::Punt(reason) => counters.punt.entry(reason.name().to_owned()).or_default(),
        Verdict::Drop(reason) => counters.drop.entry(reason.name().to_owned()).or_default(),
    };
    *counter += one;
}

/// The fields of `struct punt_meta` (bpf/abi.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Number of the reason.
    pub reason: u8,
    /// `enum punt_flags`.
    pub flags: u8,
    /// Bytes before the IP header.
    pub l2_len: u16,
    /// Largest packet that fits, 0 where that is not the reason.
    pub mtu: u32,
    /// Where it came in.
    pub port: u32,
    /// Where the neighbour is, 0 where that is not the reason.
    pub egress: u32,
    /// What to resolve, IPv4 mapped, unspecified where that is not the reason.
    pub address: Ipv6Addr,
}

impl Meta {
    /// The metadata that the program put in front of a punted frame.
    ///
    /// # Errors
    /// Where these are not its 32 bytes.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let Ok([reason, flags, l0, l1, m0, m1, m2, m3, p0, p1, p2, p3, e0, e1, e2, e3, address @ ..]) =
            <[u8; 32]>::try_from(bytes)
        else {
            bail!("{} bytes of metadata", bytes.len());
        };
        Ok(Self {
            reason,
            flags,
            l2_len: u16::from_ne_bytes([l0, l1]),
            mtu: u32::from_ne_bytes([m0, m1, m2, m3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            egress: u32::from_ne_bytes([e0, e1, e2, e3]),
            address: Ipv6Addr::from(address),
        })
    }

    /// The metadata that the oracle's judgement asks for, `None` unless it is a punt.
    fn expected(judgement: &Judgement, port: PortId) -> Option<Self> {
        let Verdict::Punt(reason) = judgement.verdict else { return None };
        let meta = judgement.meta?;
        let (egress, address) = meta.neighbor.unzip();
        let tagged =
            judgement.frame.get(12..14) == Some(&[0x81, 0]) || judgement.frame.get(12..14) == Some(&[0x88, 0xa8]);
        Some(Self {
            reason: reason as u8,
            flags: u8::from(meta.decrement_ttl),
            l2_len: if tagged { 18 } else { 14 },
            mtu: meta.mtu.unwrap_or(0),
            port: port.0,
            egress: egress.map_or(0, |ifindex| ifindex.0),
            address: address.map_or(Ipv6Addr::UNSPECIFIED, |address| match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            }),
        })
    }
}

/// A frame on which program and oracle are not of one mind.
#[derive(Clone, Debug)]
pub struct Difference {
    /// In words, the program's answer first.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Compares one frame, explained and run, with its judgement.
///
/// # Errors
/// Where the kernel refuses a run.
pub fn compare(
    world: &World,
    program: &mut Program,
    arrival: &Arrival,
    judgement: &Judgement,
) -> Result<Option<Difference>> {
    let explained = program.explain(arrival)?;
    let differ = |what: String| Ok(Some(Difference { what }));
    if explained.verdict != judgement.verdict {
        return differ(format!(
            "the program says {}, the oracle {}\nstages: {:?}",
            explained.verdict, judgement.verdict, explained.steps
        ));
    }
    let frames = |what: &str, program: &[u8], oracle: &[u8]| {
        let text = packet::notation::decode;
        let (program, oracle) = (text(program), text(oracle));
        Some(Difference { what: format!("{what}\n  the program's: {program}\n  the oracle's:  {oracle}") })
    };
    if !matches!(judgement.verdict, Verdict::Drop(_)) && explained.frame != judgement.frame {
        let what = format!("{} with different frames", judgement.verdict);
        return Ok(frames(&what, &explained.frame, &judgement.frame));
    }
    if let Verdict::Punt(_) = judgement.verdict {
        let port = match judgement.port {
            Some(index) => program.port(world, index)?,
            None => PortId(0),
        };
        let (found, expected) = (Meta::read(&explained.meta)?, Meta::expected(judgement, port));
        if Some(found) != expected {
            return differ(format!("metadata {found:?}, the oracle asks for {expected:?}"));
        }
    }
    if let Some(what) = program.bucket_difference(&arrival.frame, &explained) {
        return differ(what);
    }
    let run = program.run(arrival)?;
    let verdict = judgement.verdict.without_worker();
    let action = match verdict {
        Verdict::Drop(_) => 1,
        Verdict::Pass => 2,
        Verdict::Tx => 3,
        Verdict::Redirect(_) => 4,
        Verdict::Punt(_) => bail!("a punt without a worker is no punt"),
    };
    if run.action != action {
        return differ(format!("XDP action {} instead of {action} ({verdict})", run.action));
    }
    if action != 1 && run.frame != judgement.frame {
        return Ok(frames("explained rightly, run with a different frame", &run.frame, &judgement.frame));
    }
    Ok(None)
}

/// A slow-path socket on queue 0 of every port: with it the program punts instead of falling back.
///
/// The sockets have a ring, as the map asks, and are bound to no device: nothing is ever delivered in a test run.
#[derive(Debug)]
pub struct Sockets {
    _open: Vec<OwnedFd>,
}

impl Sockets {
    /// Opens one a port and enters them in the program's map.
    ///
    /// # Errors
    /// A kernel without AF_XDP.
    pub fn open(program: &Program) -> Result<Self> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

        let map = program.dataplane.xsk_map()?;
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
        let id = info.lines().find_map(|line| line.strip_prefix("map_id:")).context("no map_id in fdinfo")?;
        let map = MapHandle::from_map_id(id.trim().parse()?)?;
        let mut open = Vec::new();
        for port in program.compiled.tables.ports.values() {
            let socket = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
            sockopt::set_xdp_rx_ring_size(&socket, 64)?;
            let key = Dataplane::xsk_key(port.id, 0).context("port without a queue")?;
            map.update(&key.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes(), MapFlags::ANY)?;
            open.push(socket);
        }
        Ok(Self { _open: open })
    }
}
