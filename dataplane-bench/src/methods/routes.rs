//! `routes`: what routes cost the control side. A full table is loaded from the RIB into the maps; single routes change at a
//! rate while traffic flows; a next hop that every route leads through is lost and comes back.
//!
//! The tables are margay's own, in this process, by the way that the agent takes: RIB, compiler, maps. Packets go through
//! the attached program from a generator to two next hops, each with a sink: what they received together is what was sent,
//! or a packet was lost or went elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use ipnet::IpNet;
use margay::dataplane::{Attach, Dataplane};
use model::compile::{Changed, Compiler};
use model::desired::{AttachMode, Desired, Interface, SourceValidation};
use model::ids::Ids;
use model::network::{IfIndex, Link, Mac, Network};
use model::rib::{BgpRoute, Rib};
use pktgen::progress::Progress;

use super::{Budget, Stop, ensure_root, progress, seconds};
use crate::lab::cores::{Cores, Work};
use crate::lab::path::Path;
use crate::lab::sender::Load;
use crate::lab::sink::Sink;
use crate::lab::traffic::Traffic;
use crate::lab::watch::Watch;
use crate::lab::{FROM_MAC, IN_MAC, Lab, NEXT_HOP4, OUT, OUT_MAC, TO_MAC};
use crate::prog::prefixes::Prefixes;
use crate::report::figure::Unit;
use crate::result::{BenchResult, Keep, RoutesRow};

/// Seed of the tables and of the order of changes.
const SEED: u64 = 0x6d61_7267_6179;
/// The second next hop, which the lab gets for this method alone.
const OUT2: &str = "out2";
const OUT2_ADDRESS: &str = "198.18.2.1/24";
const NEXT_HOP4_2: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 2);
/// Gateways that the routes lead through.
const GATEWAYS: u32 = 250;
/// The prefix of the traffic.
const TRAFFIC: &str = "198.19.1.0/24";
/// Prefixes beside it that change, in turn with it.
const OTHERS: usize = 100_000;
/// Before the first change and after the last, and between a lost next hop and its return.
const QUIET: Duration = Duration::from_millis(20);

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// IPv4 prefixes of the table.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    ipv4: usize,
    /// IPv6 prefixes of the table.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    ipv6: usize,
    /// Times that the table is loaded.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    loads: u32,
    /// Changes of a route a second.
    #[arg(long, value_name = "RATE", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    changes: u32,
    /// How long routes change.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = seconds)]
    duration: Duration,
    /// Times that a next hop is lost and comes back.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    failovers: u32,
    /// Packets a second while routes change and next hops are lost.
    #[arg(long, value_name = "PPS", default_value_t = 50_000.0)]
    pps: f64,
    /// Flows of these packets.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    flows: u32,
    /// Print the rows as JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keep: Keep,
}

/// Measures and prints.
///
/// # Errors
/// Not root, or the lab, the tables or the traffic cannot be made.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    ensure_root()?;
    let stop = Stop::install()?;
    crate::lab::sweep()?;
    let mut result = BenchResult::start(None);
    let cores = Cores::assign(1)?;
    let lab = Arc::new(Lab::new(1)?);
    let second = lab.second_exit(OUT2, OUT2_ADDRESS, &NEXT_HOP4_2.to_string())?;
    cores.place(&lab, Work::Process)?;
    let watch = Watch::start(cores.all());
    let path = Path::through(&lab)?;
    let second = path.inside(|| Sink::attach(pktgen::interface::Interface::new(&second)?.index()))??;
    let scene = Scene { options, stop: &stop, cores: &cores, path: &path, second: &second };
    // The program is attached, and packets are run through it, where its interfaces are.
    result.routes = crate::lab::path::inside(Some(&lab.device), || scene.measure(&lab.ingress))??;
    if let Some(run) = result.runs.last_mut() {
        run.stalls = watch.end();
    }
    options.keep.finish(&mut result)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&result.routes)?);
    } else {
        println!("{}", table(&result.routes));
    }
    Ok(())
}

/// What the measurements share.
struct Scene<'a> {
    options: &'a Options,
    stop: &'a Stop,
    cores: &'a Cores,
    path: &'a Path,
    second: &'a Sink,
}

/// The control side, as the agent has it.
struct Control {
    desired: Desired,
    network: Network,
    rib: Rib,
    compiler: Compiler,
    dataplane: Dataplane,
    attach: Vec<Attach>,
}

impl Scene<'_> {
    fn measure(&self, ingress: &str) -> anyhow::Result<Vec<RoutesRow>> {
        let core = core_affinity::CoreId { id: self.cores.device };
        ensure!(core_affinity::set_for_current(core), "cannot run on core {}", core.id);
        let rib = self.rib(|number| via(&[gateway(number)]))?;
        progress(format_args!("{} routes drawn", rib.len()));
        let mut rows = Vec::new();
        let mut control = None;
        let [mut compile, mut write] = [const { Vec::new() }; 2];
        for _ in 0..self.options.loads {
            self.stop.check()?;
            drop(control.take());
            let mut fresh = Control::new(ingress, rib.clone())?;
            let start = Instant::now();
            fresh.compiler.compile(&fresh.desired, &fresh.network, &mut fresh.rib)?;
            compile.push(ns(start.elapsed()));
            let compiled = Instant::now();
            fresh.write()?;
            write.push(ns(compiled.elapsed()));
            let (compile, write) = (compile.last().unwrap_or(&0.0), write.last().unwrap_or(&0.0));
            let text = |ns: &f64| Unit::Latency.show(*ns);
            progress(format_args!("loaded: compiled in {}, written in {}", text(compile), text(write)));
            control = Some(fresh);
        }
        let mut control = control.context("nothing was loaded")?;
        let (ip4, ip6) = (self.options.ipv4, self.options.ipv6);
        let about = format!("{ip4} IPv4 and {ip6} IPv6 routes through {GATEWAYS} gateways");
        let both: Vec<f64> = compile.iter().zip(&write).map(|(compile, write)| compile + write).collect();
        rows.push(row("load", &format!("{about}: from the RIB into the maps, program loaded"), &both));
        rows.push(row("load/compile", "the same: which route forwards, and where to", &compile));
        rows.push(row("load/write", "the same: into the maps", &write));
        let [ip4, ip6] = control.dataplane.fib_usage().map(|usage| (usage.words * 4) as f64 / 1e6);
        progress(format_args!("FIB: IPv4 {ip4:.2} MB, IPv6 {ip6:.2} MB"));
        rows.extend(self.changes(&mut control)?);
        drop(control);
        let mut control = Control::new(ingress, self.rib(|_| via(&[NEXT_HOP4, NEXT_HOP4_2]))?)?;
        control.compiler.compile(&control.desired, &control.network, &mut control.rib)?;
        control.write()?;
        rows.extend(self.failovers(&mut control)?);
        Ok(rows)
    }

    /// The table; `route` tells where the route of each number leads. IPv6 prefixes have IPv4 next hops (RFC 8950), too.
    fn rib(&self, route: impl Fn(u32) -> BgpRoute) -> anyhow::Result<Rib> {
        let mut rib = Rib::default();
        for (length, address, number) in Prefixes::ip4(self.options.ipv4, SEED).iter() {
            rib.set_bgp(IpNet::new(IpAddr::V4(Ipv4Addr::from(address as u32)), length)?, &route(number));
        }
        for (length, address, number) in Prefixes::ip6(self.options.ipv6, SEED).iter() {
            rib.set_bgp(IpNet::new(IpAddr::V6(Ipv6Addr::from(address)), length)?, &route(number));
        }
        rib.set_bgp(TRAFFIC.parse()?, &route(0));
        Ok(rib)
    }

    /// A next hop is lost and comes back, with packets on the way.
    fn failovers(&self, control: &mut Control) -> anyhow::Result<[RoutesRow; 2]> {
        let [mut times, mut compiled] = [const { Vec::new() }; 2];
        let carried = self.under_traffic(|| {
            for _ in 0..self.options.failovers {
                self.stop.check()?;
                let group = control.traffic_group()?;
                let before = control.buckets(group);
                let start = Instant::now();
                control.lose(OUT2)?;
                times.push(ns(start.elapsed()));
                let stray = self.second.count()?.packets;
                let after = control.buckets(control.traffic_group()?);
                let survivors = before.iter().zip(&after).filter(|(before, after)| before == after).count();
                ensure!(survivors == before.len() / 2, "{survivors} of {} buckets kept their next hop", before.len());
                let start = Instant::now();
                control.set_up(OUT2, false)?;
                compiled.push(ns(start.elapsed()));
                thread::sleep(QUIET);
                // What the program had sent is in the sink's queue for a moment.
                let strays = self.second.count()?.packets - stray;
                ensure!(strays <= 64, "{strays} packets went to the next hop that was lost");
                control.set_up(OUT2, true)?;
                thread::sleep(QUIET);
            }
            Ok(())
        })?;
        let about = "the next hop of half the flows of every route is lost: until none go there, survivors not moved";
        let lost = RoutesRow { offered: carried.offered, lost: carried.lost, ..row("failover", about, &times) };
        Ok([lost, row("failover/compile", "the generation that follows", &compiled)])
    }

    /// Single routes change at a rate; every second one is the traffic's.
    fn changes(&self, control: &mut Control) -> anyhow::Result<[RoutesRow; 2]> {
        let ways = [via(&[NEXT_HOP4]), via(&[NEXT_HOP4_2]), via(&[NEXT_HOP4, NEXT_HOP4_2])];
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut others: Vec<IpNet> = control.rib.iter().map(|(prefix, _)| prefix).collect();
        rng.shuffle(&mut others);
        others.truncate(OTHERS);
        let traffic: IpNet = TRAFFIC.parse()?;
        // Ways out that are known: what is measured is a change of a route, not a new next hop.
        for (way, prefix) in ways.iter().zip(&others) {
            control.rib.set_bgp(*prefix, way);
        }
        control.compile_and_write()?;
        let frame = self.frame()?;
        let every = Duration::from_secs(1) / self.options.changes;
        let count = (self.options.duration.as_secs_f64() * f64::from(self.options.changes)) as u32;
        let [mut stored, mut visible] = [const { Vec::new() }; 2];
        let carried = self.under_traffic(|| {
            let budget = Budget::new(Some(self.options.duration * 2));
            let begin = Instant::now();
            for number in 0..count {
                let due = begin + every * number;
                while Instant::now() < due {
                    std::hint::spin_loop();
                }
                if number.is_multiple_of(1024) {
                    self.stop.check()?;
                    ensure!(!budget.spent(), "{number} changes took twice the time that {count} should take");
                }
                let own = number.is_multiple_of(2);
                let prefix = if own { traffic } else { *rng.choice(&others).context("there are no routes")? };
                let to = (number / 2) as usize % 2;
                let way = ways.get(if own { to } else { rng.usize(..ways.len()) }).context("no way out")?;
                let start = Instant::now();
                control.rib.set_bgp(prefix, way);
                ensure!(control.compiler.follow(&mut control.rib), "a change of a route took a compilation");
                let compiled = control.compiler.compiled();
                control.dataplane.apply_routes(&compiled.tables.fib, control.compiler.changed())?;
                control.compiler.written();
                stored.push(ns(start.elapsed()));
                // A hundred a second are looked at through the program.
                if own && (number / 2).is_multiple_of((self.options.changes / 200).max(1)) {
                    let run = control.dataplane.test_run(&frame, control.ingress()?)?;
                    visible.push(ns(start.elapsed()));
                    let expected = if to == 0 { TO_MAC } else { second_mac() };
                    let went = run.frame.get(..6).unwrap_or_default();
                    ensure!(
                        went == expected,
                        "after change {number} a packet went to {went:02x?}, not to {expected:02x?}"
                    );
                }
            }
            Ok(())
        })?;
        for port in control.compiler.compiled().names.ports.keys() {
            let counters = control.dataplane.port_counters(*port)?;
            for (reason, count) in counters.punt.iter().chain(&counters.drop) {
                progress(format_args!("{} packets were not forwarded: {reason}", count.packets));
            }
        }
        let about =
            format!("one route of the full table changes, {} a second: until its store is done", self.options.changes);
        let stored = RoutesRow { offered: carried.offered, lost: carried.lost, ..row("change", &about, &stored) };
        let about = "the same: until a packet that was run through the program came out by the new next hop";
        Ok([stored, row("change/visible", about, &visible)])
    }

    /// A frame of the traffic as it comes in.
    fn frame(&self) -> anyhow::Result<Vec<u8>> {
        let text = |mac: packet::layer::Mac| crate::lab::mac_text(mac);
        let (from, to) = (text(FROM_MAC), text(IN_MAC));
        Ok(packet::notation::encode(&format!(
            "eth {from} > {to} / ip4 198.18.1.1 > 198.19.1.1 / udp 1024 > 9 / pad 18"
        ))?)
    }

    /// Holds the load over `work`, from a while before to a while after it.
    fn under_traffic(&self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Carried> {
        let traffic = Traffic::ipv4(self.options.flows);
        let load = Load {
            pps: Some(self.options.pps),
            duration: self.options.duration * 3 + Duration::from_secs(60),
            packets: None,
            cores: self.cores.generator.clone(),
            backend: None,
            timed: false,
            steps: Vec::new(),
        };
        let watch = Progress::default();
        let second = self.second.count()?.packets;
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let trial = self.path.watched(&traffic, &load, &watch);
                ended.store(true, Ordering::Release);
                trial
            });
            thread::sleep(QUIET);
            let worked = work();
            let early = ended.load(Ordering::Acquire);
            thread::sleep(QUIET);
            watch.stop();
            let trial = sending.join().map_err(|_| anyhow::anyhow!("the generator panicked"))?;
            worked?;
            let trial = trial?;
            ensure!(!early, "the load ended before the work was done");
            let received = trial.received + self.second.count()?.packets - second;
            let offered = trial.sent.packets;
            ensure!(received <= offered, "{received} packets arrived where {offered} were sent");
            Ok(Carried { offered: Some(offered), lost: Some(offered - received) })
        })
    }
}

/// What became of the packets of a measurement.
struct Carried {
    offered: Option<u64>,
    lost: Option<u64>,
}

impl Control {
    fn new(ingress: &str, rib: Rib) -> anyhow::Result<Self> {
        let mut desired = Desired::default();
        let mut network = Network::default();
        let mut attach = Vec::new();
        let links = [
            (ingress, IN_MAC, "198.18.0.1/24", IpAddr::from([198, 18, 0, 2]), FROM_MAC),
            (OUT, OUT_MAC, "198.19.0.1/24", NEXT_HOP4.into(), TO_MAC),
            (OUT2, crate::lab::OUT2_MAC, OUT2_ADDRESS, NEXT_HOP4_2.into(), second_mac()),
        ];
        for (name, mac, address, neighbor, neighbor_mac) in links {
            let ifindex = IfIndex(pktgen::interface::Interface::new(name)?.index());
            let link = Link { name: name.to_owned(), mac: Mac(mac), mtu: 1500, up: true, rx_queues: 1, vlan: None };
            network.links.insert(ifindex, link);
            network.addresses.insert((ifindex, address.parse()?));
            network.neighbors.insert((ifindex, neighbor), Mac(neighbor_mac));
            if name == OUT {
                let others = (1..GATEWAYS).map(|number| ((ifindex, IpAddr::V4(gateway(number))), Mac(TO_MAC)));
                network.neighbors.extend(others);
            }
            desired.node.interfaces.push(Interface {
                name: name.to_owned(),
                mode: AttachMode::Native,
                source_validation: SourceValidation::Off,
                max_mss: Default::default(),
                vrf: None,
            });
            attach.push(Attach { ifindex, name: name.to_owned(), mode: AttachMode::Native });
        }
        let (compiler, dataplane) = (Compiler::new(Ids::default()), Dataplane::open_unpinned()?);
        Ok(Self { desired, network, rib, compiler, dataplane, attach })
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let compiled = self.compiler.compiled();
        let changed = self.compiler.changed();
        let (features, parameters) = (compiled.features, &compiled.parameters);
        self.dataplane.apply_changed(&compiled.tables, changed, features, parameters, &self.attach)?;
        self.compiler.written();
        Ok(())
    }

    fn compile_and_write(&mut self) -> anyhow::Result<()> {
        self.compiler.compile(&self.desired, &self.network, &mut self.rib)?;
        if let Changed::Everything = self.compiler.changed() {
            anyhow::bail!("everything was compiled where a difference was expected");
        }
        self.write()
    }

    /// What a notification of the kernel that a link went down or came up leads to.
    fn set_up(&mut self, name: &str, up: bool) -> anyhow::Result<()> {
        let link = self.network.links.values_mut().find(|link| link.name == name).context("there is no such link")?;
        link.up = up;
        self.compile_and_write()
    }

    /// What the agent does first when it is told of a link that went down.
    fn lose(&mut self, name: &str) -> anyhow::Result<()> {
        let attached = self.attach.iter().find(|attach| attach.name == name).context("there is no such link")?;
        let groups = self.compiler.lose(attached.ifindex);
        self.dataplane.apply_groups(&self.compiler.compiled().tables, &groups)?;
        Ok(())
    }

    fn ingress(&self) -> anyhow::Result<IfIndex> {
        Ok(self.attach.first().context("nothing is attached")?.ifindex)
    }

    fn traffic_group(&self) -> anyhow::Result<model::tables::GroupId> {
        let group = self.compiler.compiled().tables.fib.get(&TRAFFIC.parse()?);
        group.copied().context("the traffic has no route")
    }

    fn buckets(&self, group: model::tables::GroupId) -> Vec<model::tables::NextHopId> {
        self.compiler.compiled().tables.groups.get(&group).map(|group| group.buckets.clone()).unwrap_or_default()
    }
}

/// The gateways of the table, the lab's own the first.
fn gateway(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(NEXT_HOP4.to_bits() + number % GATEWAYS)
}

fn second_mac() -> packet::layer::Mac {
    crate::lab::TO2_MAC
}

fn via(gateways: &[Ipv4Addr]) -> BgpRoute {
    BgpRoute {
        gateways: gateways.iter().map(|gateway| IpAddr::V4(*gateway)).collect(),
        alternatives: Vec::new(),
        internal: false,
    }
}

fn ns(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// A row of times.
fn row(what: &str, about: &str, times: &[f64]) -> RoutesRow {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = sorted.len().saturating_sub(1);
        sorted.get((share * last as f64).round() as usize).copied().unwrap_or(0.0)
    };
    RoutesRow {
        what: what.to_owned(),
        about: about.to_owned(),
        count: sorted.len() as u64,
        median_ns: at(0.5),
        p99_ns: at(0.99),
        max_ns: at(1.0),
        offered: None,
        lost: None,
    }
}

fn table(rows: &[RoutesRow]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["what", "times", "median", "99 %", "longest", "sent", "lost", "about"]);
    for row in rows {
        let packets = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
        table.add_row([
            row.what.clone(),
            row.count.to_string(),
            Unit::Latency.show(row.median_ns),
            Unit::Latency.show(row.p99_ns),
            Unit::Latency.show(row.max_ns),
            packets(row.offered),
            packets(row.lost),
            row.about.clone(),
        ]);
    }
    table
}
