//! Load, tables, encode, reconcile, counters: the only place that speaks to the kernel about BPF.
//!
//! [`Dataplane`] owns the shared maps, the program instance in force and the links. Maps and links are pinned: the
//! process may die while packets flow, and the next one finds what is there, writes only differences and replaces the
//! program in one step. No call waits for anything but the kernel; nothing here knows of tokio.

mod abi;
mod counters;
mod encapsulate;
mod encode;
mod error;
mod explain;
mod fib;
mod flow;
mod grace;
mod link;
mod mapped;
mod object;
mod pair;
mod pins;
mod reconcile;
mod vrf;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use model::compile::Changed;
use model::denylist::Denylist;
use model::desired::AttachMode;
use model::marks::OVER;
use model::network::IfIndex;
use model::tables::{BackendId, Features, GroupId, NextHopId, Parameters, PortId, Tables, VipId};
use serde::{Deserialize, Serialize};
use tables::flows::{Entry, entries};

pub use abi::types;
pub use counters::{Count, PortCounters};
pub use encapsulate::{Encapsulated, Encapsulator};
pub use error::Error;
pub use explain::{Explanation, SHORTEST_FRAME, Stage, Step, TestRun};
pub use flow::{Flow as PacketFlow, flows};
pub use object::{Reason, Reasons};
pub use pins::{Detached, detach_all};

use fib::Prefixes;
use link::XdpLink;
use object::{Instance, Knobs, Purpose, SharedMaps};
use pins::Pins;
use reconcile::{Failure, Kernel};

/// An interface that carries the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Its index.
    pub ifindex: IfIndex,
    /// Its name, for messages.
    pub name: String,
    /// Driver or generic hook.
    pub mode: AttachMode,
}

/// What one [`Dataplane::apply`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Map entries written or deleted, references of the FIB stored, rings swapped.
    pub writes: usize,
    /// A new program instance was loaded and put in force.
    pub program_replaced: bool,
    /// Interfaces that got or lost the program.
    pub links_changed: usize,
}

/// A remembered flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its backend, and so its VIP.
    pub backend: BackendId,
    /// Slot of the VIP's ring.
    pub slot: usize,
    /// It has sent more than what opened it.
    pub established: bool,
    /// Since it was last seen, where it is established, else since it began.
    pub age: Duration,
}

/// A flow of which one packet has been seen, and no other for so long, is over.
const OPENING: Duration = Duration::from_secs(60);

impl Flow {
    /// False for one that has been silent for so long that it is over.
    pub fn may_go_on(&self) -> bool {
        self.age < if self.established { OVER } else { OPENING }
    }
}

/// What load balancing remembers, and the memory that it has for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalancingUsage {
    /// Flows in the flow table.
    pub remembered: usize,
    /// Those of them that have sent more than what opened them.
    pub established: usize,
    /// Room for flows, all cores together.
    pub entries_max: usize,
    /// Memory of the flow table.
    pub flow_table_bytes: usize,
    /// Rings, one a VIP.
    pub rings: usize,
    /// Their memory.
    pub ring_bytes: usize,
}

/// Nanoseconds of the clock that flows and rings are stamped by.
fn since_boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The kernel side of margay.
#[derive(Debug)]
pub struct Dataplane {
    pins: Option<Pins>,
    maps: SharedMaps,
    kernel: Kernel,
    adopted: Option<Tables>,
    instance: Option<Instance>,
    explainer: Option<Instance>,
    links: BTreeMap<IfIndex, (AttachMode, XdpLink)>,
    /// The interfaces of the last generation.
    attach: Vec<Attach>,
}

impl Dataplane {
    /// Opens the pinned state below `pin_dir`, or makes it. Attached programs keep running untouched until the first
    /// [`apply`](Self::apply).
    ///
    /// # Errors
    /// No BPF file system, no privilege, or a kernel that refuses a map.
    pub fn open(pin_dir: PathBuf) -> Result<Self, Error> {
        Self::with_pins(Some(Pins::prepare(&pin_dir)?))
    }

    /// A dataplane that vanishes with the process: for tests and measurements.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_unpinned() -> Result<Self, Error> {
        Self::with_pins(None)
    }

    fn with_pins(pins: Option<Pins>) -> Result<Self, Error> {
        let dir = pins.as_ref().map(Pins::maps_dir);
        let (maps, found) = SharedMaps::open(dir.as_deref())?;
        let kernel = if found { Kernel::read(&maps)? } else { Kernel::new(&maps)? };
        let adopted = found.then(|| Tables {
            fib: kernel.fibs().answers(),
            vrfs: kernel.fibs().answers_by_vrf(),
            ..encode::decode(kernel.state())
        });
        Ok(Self {
            pins,
            maps,
            kernel,
            adopted,
            instance: None,
            explainer: None,
            links: BTreeMap::new(),
            attach: Vec::new(),
        })
    }

    /// The tables that an earlier process left in force: ports, VIPs, rings, backends, FIB, groups, next hops and
    /// adjacencies. `None` on a fresh start.
    pub fn adopted(&self) -> Option<&Tables> {
        self.adopted.as_ref()
    }

    /// Puts a generation in force: what is new in the tables first, then the program where the features changed, then the
    /// interfaces, so that no interface forwards ahead of its policy, and last the deletes.
    ///
    /// # Errors
    /// A table that does not fit is refused before anything is written. A failure on the way leaves maps consistent:
    /// what was written is remembered, and the next call goes on from there.
    pub fn apply(
        &mut self,
        tables: &Tables,
        features: Features,
        parameters: &Parameters,
        attach: &[Attach],
    ) -> Result<Applied, Error> {
        self.apply_changed(tables, &Changed::Everything, features, parameters, attach)
    }

    /// As [`apply`](Self::apply), where it is known which prefixes of the FIB are not what was last applied.
    ///
    /// # Errors
    /// As [`apply`](Self::apply); after one, `changed` must tell of what the failed call was told of, too.
    pub fn apply_changed(
        &mut self,
        tables: &Tables,
        changed: &Changed,
        features: Features,
        parameters: &Parameters,
        attach: &[Attach],
    ) -> Result<Applied, Error> {
        let desired = encode::encode(tables, self.kernel.bases_for(tables), self.kernel.state())?;
        self.attach = attach.to_vec();
        let mut applied = Applied::default();
        self.kernel.fibs_mut().begin();
        let wanted = Prefixes { routes: &tables.fib, vrfs: &tables.vrfs, denylist: &tables.denylist };
        if *changed == Changed::Everything {
            self.make_room(wanted)?;
        }
        let knobs = Knobs::new(features, parameters, self.maps.sizes()?);
        let resized = self.maps.flow_lines()? != knobs.flow_lines;
        // The successor is verified before the tables move: what cannot be loaded changes nothing.
        let maps_dir = self.pins.as_ref().map(Pins::maps_dir);
        let former = if resized { Some(self.maps.resize_flows(maps_dir.as_deref(), knobs.flow_lines)?) } else { None };
        let stale = resized || self.instance.as_ref().is_none_or(|instance| instance.knobs != knobs);
        let mut successor = if stale { Some(Instance::load(&self.maps, knobs)?) } else { None };

        let prefixes = (wanted, changed);
        while let Err(failure) = self.kernel.write(&self.maps, &desired, prefixes, &mut applied.writes) {
            let Failure::Outgrown(outgrown) = failure else { return Err(failure.into_error()) };
            self.give_more_room(outgrown, wanted)?;
            successor = Some(Instance::load(&self.maps, Knobs { sizes: self.maps.sizes()?, ..knobs })?);
        }
        if let Some(successor) = successor {
            self.instance = Some(successor);
            self.explainer = None;
            applied.program_replaced = true;
        }
        applied.links_changed += self.reconcile_links(attach, applied.program_replaced)?;
        while let Err(failure) = self.kernel.clear(&self.maps, &desired, prefixes, &mut applied.writes) {
            let Failure::Outgrown(outgrown) = failure else { return Err(failure.into_error()) };
            self.move_to_more_room(outgrown, wanted, knobs, &mut applied)?;
        }
        // What was remembered in the meantime.
        former.map_or(Ok(()), |former| former.hand_over(&self.maps))?;
        Ok(applied)
    }

    /// Gives tables that are to hold far more than they can larger maps at once, before they are filled in vain.
    fn make_room(&mut self, wanted: Prefixes<'_>) -> Result<(), Error> {
        while let Some(outgrown) = self.kernel.fibs().too_small_for(wanted) {
            self.give_more_room(outgrown, wanted)?;
        }
        Ok(())
    }

    /// Writes groups that are not what was last applied: a store each, whatever the number of prefixes behind them.
    ///
    /// # Errors
    /// [`Error::Map`] where the kernel refuses a write.
    pub fn apply_groups(&mut self, tables: &Tables, changed: &[GroupId]) -> Result<usize, Error> {
        let groups = changed.iter().filter_map(|id| Some((*id, tables.groups.get(id)?)));
        self.kernel.write_groups(&self.maps, groups)
    }

    /// Writes prefixes of the FIB that are not what was last applied, where nothing else is different: plain stores.
    ///
    /// # Errors
    /// As [`apply_changed`](Self::apply_changed).
    pub fn apply_routes(&mut self, fib: &BTreeMap<IpNet, GroupId>, changed: &Changed) -> Result<Applied, Error> {
        let knobs = self.instance.as_ref().ok_or(Error::NotApplied)?.knobs;
        let mut applied = Applied::default();
        self.kernel.fibs_mut().begin();
        while let Err(outgrown) = self.kernel.apply_routes((fib, changed), &mut applied.writes) {
            let wanted = Prefixes { routes: fib, vrfs: &BTreeMap::new(), denylist: &Denylist::default() };
            self.move_to_more_room(outgrown, wanted, knobs, &mut applied)?;
        }
        Ok(applied)
    }

    /// Fills a larger map, and has a program that is specialised to it take over. The former program looks on in the former
    /// map; what it refers to goes only when its successor is in force.
    fn move_to_more_room(
        &mut self,
        outgrown: fib::Outgrown,
        wanted: Prefixes<'_>,
        knobs: Knobs,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        self.give_more_room(outgrown, wanted)?;
        let knobs = Knobs { sizes: self.maps.sizes()?, ..knobs };
        self.instance = Some(Instance::load(&self.maps, knobs)?);
        self.explainer = None;
        applied.program_replaced = true;
        let attach = self.attach.clone();
        applied.links_changed += self.reconcile_links(&attach, true)?;
        Ok(())
    }

    /// Puts a larger map, filled, in the place of one that has no room.
    fn give_more_room(&mut self, outgrown: fib::Outgrown, wanted: Prefixes<'_>) -> Result<(), Error> {
        let larger = self.kernel.fibs().larger(outgrown, wanted)?;
        let dir = self.pins.as_ref().map(Pins::maps_dir);
        self.maps.replace(dir.as_deref(), larger.name, larger.map()?)?;
        tracing::info!(map = larger.name, words = larger.words(), "a table has outgrown its map and has a larger one");
        self.kernel.fibs_mut().take(larger);
        Ok(())
    }

    /// How full the flow table is, and the memory of all rings.
    ///
    /// # Errors
    /// [`Error::Map`] where the kernel refuses the table's memory.
    pub fn balancing_usage(&self) -> Result<BalancingUsage, Error> {
        let table = self.maps.flows()?;
        let entries_max = table.long_words().len();
        let mut usage = BalancingUsage {
            entries_max,
            flow_table_bytes: entries_max * size_of::<u64>(),
            rings: self.kernel.state().rings.len(),
            ..BalancingUsage::default()
        };
        usage.ring_bytes = usage.rings * encode::RING_BYTES;
        for entry in entries(table.long_words()) {
            usage.remembered += 1;
            usage.established += usize::from(entry.is_established());
        }
        Ok(usage)
    }

    /// Lines of the flow table: for programs that measure over the same tables.
    ///
    /// # Errors
    /// [`Error::NoMap`] for an object of another build.
    pub fn flow_lines(&self) -> Result<u32, Error> {
        self.maps.flow_lines()
    }

    /// Words of the IPv4 and of the IPv6 map of denied prefixes: likewise.
    ///
    /// # Errors
    /// [`Error::NoMap`] for an object of another build.
    pub fn denied_words(&self) -> Result<[u32; 2], Error> {
        Ok(self.maps.sizes()?.denied_words)
    }

    /// Words of the IPv4 and of the IPv6 FIB's map: likewise.
    ///
    /// # Errors
    /// [`Error::NoMap`] for an object of another build.
    pub fn fib_words(&self) -> Result<[u32; 2], Error> {
        Ok(self.maps.sizes()?.fib_words)
    }

    /// Brings parts of the FIB that changes have led out of their cache lines back, as far as the last packets have left the
    /// places where they belong; true where nothing is left to do. Never waits.
    pub fn fold(&mut self) -> bool {
        self.kernel.fibs_mut().fold()
    }

    /// How far look-ups in the IPv4 and the IPv6 FIB go.
    pub fn fib_depth(&self) -> [&tables::fib::Depth; 2] {
        self.kernel.fibs().depth()
    }

    /// What all VRFs but the default one take together.
    pub fn vrf_usage(&self) -> tables::fib::Usage {
        self.kernel.fibs().usage_of_vrfs()
    }

    /// What denied prefixes of IPv4 and of IPv6 take.
    pub fn denied_usage(&self) -> [tables::fib::Usage; 2] {
        self.kernel.fibs().usage_of_denied()
    }

    /// What the IPv4 and the IPv6 FIB take.
    pub fn fib_usage(&self) -> [tables::fib::Usage; 2] {
        self.kernel.fibs().usage()
    }

    fn reconcile_links(&mut self, attach: &[Attach], program_replaced: bool) -> Result<usize, Error> {
        let mut changed = 0;
        self.forget_unwanted_links(attach, &mut changed)?;
        let Some(instance) = &self.instance else { return Ok(changed) };
        let program = instance.program()?;
        for want in attach {
            let failed = |source| Error::Attach { interface: want.name.clone(), mode: want.mode, source };
            if let Some((_, link)) = self.links.get(&want.ifindex) {
                if program_replaced {
                    link.update(program.as_fd()).map_err(failed)?;
                }
                continue;
            }
            let pin = self.pins.as_ref().map(|pins| pins.link(want.ifindex));
            let link = match pin.as_deref().map(|pin| adopt_link(pin, want.ifindex)).transpose()?.flatten() {
                Some(link) => {
                    link.update(program.as_fd()).map_err(failed)?;
                    link
                }
                None => {
                    let link = XdpLink::attach(program.as_fd(), want.ifindex, want.mode).map_err(failed)?;
                    if let Some(pin) = &pin {
                        link.pin(pin).map_err(|source| Error::Pin { path: pin.clone(), source })?;
                    }
                    changed += 1;
                    link
                }
            };
            self.links.insert(want.ifindex, (want.mode, link));
        }
        Ok(changed)
    }

    /// Takes the program off interfaces that are not wanted any more, or in another mode.
    fn forget_unwanted_links(&mut self, attach: &[Attach], changed: &mut usize) -> Result<(), Error> {
        let wanted: BTreeMap<IfIndex, AttachMode> = attach.iter().map(|a| (a.ifindex, a.mode)).collect();
        let gone = |link: &XdpLink| link.ifindex().ok().flatten().is_none();
        let drop_link = |ifindex: IfIndex, link: &XdpLink, pins: &Option<Pins>| {
            // An interface that is gone has taken its program along.
            if !gone(link)
                && let Err(error) = link.detach()
            {
                tracing::warn!(%ifindex, %error, "detaching the program failed");
            }
            pins.as_ref().map_or(Ok(()), |pins| Pins::remove(&pins.link(ifindex)))
        };
        let stale: Vec<IfIndex> = self
            .links
            .iter()
            .filter(|(ifindex, (mode, link))| wanted.get(ifindex) != Some(mode) || gone(link))
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in stale {
            if let Some((_, link)) = self.links.remove(&ifindex) {
                drop_link(ifindex, &link, &self.pins)?;
                *changed += 1;
            }
        }
        let Some(pins) = &self.pins else { return Ok(()) };
        for ifindex in pins.linked()?.into_iter().filter(|ifindex| !wanted.contains_key(ifindex)) {
            let path = pins.link(ifindex);
            let link = XdpLink::open(&path).map_err(|source| Error::Pin { path, source })?;
            drop_link(ifindex, &link, &self.pins)?;
            *changed += 1;
        }
        Ok(())
    }

    /// The maps that all program instances share, by name: for programs that measure over the same tables.
    pub fn maps(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.maps.iter()
    }

    /// Interfaces that carry the program.
    pub fn attached(&self) -> impl Iterator<Item = (IfIndex, AttachMode)> + '_ {
        self.links.iter().map(|(ifindex, (mode, _))| (*ifindex, *mode))
    }

    /// Counters of a port; port 0 counts frames of no port.
    ///
    /// # Errors
    /// [`Error::Map`] where the kernel refuses the look-up.
    pub fn port_counters(&self, port: PortId) -> Result<PortCounters, Error> {
        counters::port(&self.maps, port)
    }

    /// Packets sent to a backend, in bytes of the frames as they came in.
    ///
    /// # Errors
    /// [`Error::Map`] where the kernel refuses the look-up.
    pub fn backend_count(&self, backend: BackendId) -> Result<Count, Error> {
        counters::backend(&self.maps, backend)
    }

    /// What has left by a next hop: frames as they came in.
    ///
    /// # Errors
    /// [`Error::Map`] where the kernel refuses the look-up.
    pub fn next_hop_count(&self, next_hop: NextHopId) -> Result<Count, Error> {
        counters::next_hop(&self.maps, next_hop)
    }

    /// Remembered flows, in no order.
    ///
    /// # Errors
    /// [`Error::Map`] where the kernel refuses the table's memory.
    pub fn flows(&self) -> Result<Vec<Flow>, Error> {
        let table = self.maps.flows()?;
        let now_ns = since_boot_ns();
        let flow = |entry: Entry| Flow {
            backend: BackendId(entry.backend()),
            slot: entry.ring_slot(),
            established: entry.is_established(),
            age: Duration::from_nanos(entry.age_ns(now_ns)),
        };
        Ok(entries(table.long_words()).map(flow).collect())
    }

    /// The map that slow-path sockets are put in, at [`xsk_key`](Self::xsk_key).
    ///
    /// # Errors
    /// [`Error::NoMap`] for an object of another build.
    pub fn xsk_map(&self) -> Result<OwnedFd, Error> {
        let failed = |source: std::io::Error| Error::Map { map: "xsks", operation: "duplicate", source: source.into() };
        self.maps.get("xsks")?.as_fd().try_clone_to_owned().map_err(failed)
    }

    /// Key of the socket of one receive queue of a port; `None` beyond the queues that the program serves.
    pub fn xsk_key(port: PortId, queue: u32) -> Option<u32> {
        let queues = types::limits::QUEUES_PER_PORT.0;
        (queue < queues && port.0 < types::limits::PORTS_MAX.0).then(|| port.0 * queues + queue)
    }

    /// Runs the program in force once on `frame` as if it had come in by `ifindex`. Counters, flows and punt tokens move
    /// as they do for a packet of the wire.
    ///
    /// # Errors
    /// [`Error::TestRun`]: the kernel takes no frame shorter than [`SHORTEST_FRAME`], and only existing interfaces.
    pub fn test_run(&self, frame: &[u8], ifindex: IfIndex) -> Result<TestRun, Error> {
        explain::run(self.instance.as_ref().ok_or(Error::NotApplied)?, frame, ifindex)
    }

    /// Tells the way of `frame` through the program in force, and changes nothing.
    ///
    /// # Errors
    /// As [`test_run`](Self::test_run).
    pub fn explain(&mut self, frame: &[u8], ifindex: IfIndex) -> Result<Explanation, Error> {
        let knobs = self.instance.as_ref().ok_or(Error::NotApplied)?.knobs;
        let explainer = match self.explainer.take() {
            Some(explainer) => explainer,
            None => Instance::load(&self.maps, Knobs { purpose: Purpose::Explain, ..knobs })?,
        };
        let explanation = explain::explain(&explainer, frame, ifindex);
        self.explainer = Some(explainer);
        // The map holds two generations of policy; the tables know of one.
        let base = encode::filter_base(self.kernel.state()) as u32;
        let mut explanation = explanation?;
        for step in explanation.steps.iter_mut().filter(|step| step.stage == Stage::Filter) {
            step.id = step.id.saturating_sub(base);
        }
        Ok(explanation)
    }

    /// What makes of a packet for a backend what the program in force would: see [`Encapsulator`]. One that is made after
    /// [`apply`](Self::apply) has replaced the program has that one's knobs.
    ///
    /// # Errors
    /// [`Error::NotApplied`] before the first generation, else of loading it.
    pub fn encapsulator(&self) -> Result<Encapsulator, Error> {
        let knobs = self.instance.as_ref().ok_or(Error::NotApplied)?.knobs;
        Ok(Encapsulator::new(Instance::load(&self.maps, Knobs { purpose: Purpose::Encapsulate, ..knobs })?))
    }

    /// The program in force, for other callers of `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    /// [`Error::NotApplied`] before the first generation.
    pub fn with_program<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> Result<R, Error> {
        let program = self.instance.as_ref().ok_or(Error::NotApplied)?.program()?;
        Ok(f(program.as_fd()))
    }

    /// Instructions that the verifier walked for the program in force.
    ///
    /// # Errors
    /// [`Error::NotApplied`] before the first generation.
    pub fn verified_instructions(&self) -> Result<u32, Error> {
        self.with_program(link::verified_instructions)?.map_err(|source| Error::Load { source: source.into() })
    }

    /// The ring of a VIP as the kernel has it.
    pub fn ring(&self, vip: VipId) -> Option<&model::tables::Ring> {
        self.kernel.state().rings.get(&vip)
    }
}

/// The pinned link at `pin` if it still sits on `ifindex`; a dead one is removed.
fn adopt_link(pin: &std::path::Path, ifindex: IfIndex) -> Result<Option<XdpLink>, Error> {
    if !pin.exists() {
        return Ok(None);
    }
    let failed = |source| Error::Pin { path: pin.to_owned(), source };
    let link = XdpLink::open(pin).map_err(failed)?;
    if link.ifindex().map_err(failed)? == Some(ifindex) {
        return Ok(Some(link));
    }
    Pins::remove(pin)?;
    Ok(None)
}
