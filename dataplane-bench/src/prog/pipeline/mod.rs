//! margay's own pipeline, whole and by stage.
//!
//! The shipped source is compiled into the harness of `bpf/frame.h`. Tables come from a configuration by the way that a
//! real one goes, and before anything is timed `explain` tells the verdict that the case names.

mod cases;
mod worlds;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use anyhow::{Context, ensure};
use libbpf_rs::OpenObject;
use margay::dataplane::Dataplane;
use model::verdict::Verdict;
use model::{Compiled, Ids};

use super::bench::{Bench, Keeps, Label, Subject};
use super::kernel::{Control, FrameState, Loaded, action, fill, image};
use cases::{Case, Destined, Part, Setting};
use skel::types;
use worlds::{INGRESS, World};

#[expect(
    unsafe_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::undocumented_unsafe_blocks,
    reason = "generated"
)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/pipeline.skel.rs"));
}

/// Every case there is.
pub(super) fn labels() -> Vec<Label> {
    cases::all().into_iter().flat_map(|setting| setting.cases).map(|case| case.label).collect()
}

/// Loads the configurations of the cases that `wanted` names.
pub(super) fn prepare(wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Bench>> {
    let mut benches = Vec::new();
    for Setting { before, world, cases } in cases::all() {
        let cases: Vec<Case> = cases.into_iter().filter(|case| wanted(&case.label.case)).collect();
        if let Some(first) = cases.first() {
            let made = load(before.map(|before| before()).as_ref(), &world(), &cases);
            let made = made.with_context(|| format!("the configuration of case {}", first.label.case));
            benches.extend(made?);
        }
    }
    Ok(benches)
}

/// Puts a configuration in force in a dataplane of its own, without an interface, and the bench's programs over its maps; after the one
/// before it, where there is one.
fn load(before: Option<&World>, world: &World, cases: &[Case]) -> anyhow::Result<Vec<Bench>> {
    let mut dataplane = Dataplane::open_unpinned()?;
    let mut ids = Ids::default();
    let mut generation = |world: &World| {
        let compiled = model::compile(&world.desired, &world.network, &world.rib, &mut ids)?;
        let notices = &compiled.notices;
        ensure!(notices.is_empty(), "the configuration does not take effect as it stands: {notices:?}");
        dataplane.apply(&compiled.tables, compiled.features, &compiled.parameters, &[])?;
        Ok(compiled)
    };
    before.map(&mut generation).transpose()?;
    let compiled = generation(world)?;

    let destinations = Destinations::of(cases);
    let mut frames = Vec::with_capacity(cases.len());
    for case in cases {
        let about = || format!("case {}", case.label.case);
        let frame = packet::notation::encode(&case.frame).with_context(about)?;
        let first = packet::notation::encode(&destinations.first_packet(case)).with_context(about)?;
        let explanation = dataplane.explain(&first, INGRESS).with_context(about)?;
        let (told, expected) = (explanation.verdict, case.verdict);
        ensure!(told == expected, "case {}: the frame ends as {told}, not as {expected}", case.label.case);
        frames.push(frame);
    }
    let mut programs: Vec<&str> = cases.iter().flat_map(|case| <[&str; 2]>::from(case.part.programs())).collect();
    programs.dedup();
    let loaded = Loaded::load(image!("pipeline"), &programs, |open| {
        specialise(open, &compiled, &dataplane)?;
        share(open, &dataplane)?;
        let mut table = open.maps_mut().find(|map| map.name() == "destinations").context("no table of destinations")?;
        Ok(table.set_max_entries(u32::try_from(destinations.all.len().max(1))?)?)
    })?;
    destinations.write(&loaded)?;
    let subject = Rc::new(Subject { loaded, _keeps: Keeps::Tables { _dataplane: Box::new(dataplane) } });
    cases.iter().zip(frames).map(|(case, frame)| bench(case, frame, &destinations, &subject)).collect()
}

fn bench(case: &Case, frame: Vec<u8>, destinations: &Destinations, subject: &Rc<Subject>) -> anyhow::Result<Bench> {
    let (without, with) = case.part.programs();
    // A stage's program passes what the stage lets through.
    let expected = if case.part == Part::Path { action_of(case.verdict) } else { action::PASS };
    let about = || format!("case {}", case.label.case);
    let mut state = FrameState::new(&frame, case.flows.vary()).with_context(about)?;
    if let Some((_, [at, bytes, checksum_at])) = case.flows.destinations() {
        state.set_destinations(at, bytes, checksum_at)?;
    }
    Ok(Bench {
        label: case.label.clone(),
        subject: Rc::clone(subject),
        without,
        with,
        frame_state: Some(state),
        frame,
        ingress: None,
        control: Control {
            mask: case.flows.count() - 1,
            first: destinations.first_index(case),
            expected,
            ..Control::default()
        },
    })
}

/// The addresses that the packets of some cases are sent to.
#[derive(Default)]
struct Destinations {
    all: Vec<u128>,
    first: BTreeMap<Destined, usize>,
}

impl Destinations {
    fn of(cases: &[Case]) -> Self {
        let mut destinations = Self::default();
        for (destined, _) in cases.iter().filter_map(|case| case.flows.destinations()) {
            if let Entry::Vacant(entry) = destinations.first.entry(destined) {
                entry.insert(destinations.all.len());
                destinations.all.extend(Self::draw(destined));
            }
        }
        destinations
    }

    fn draw(destined: Destined) -> Vec<u128> {
        let routes = match destined {
            Destined::Vips(vips) => return worlds::vip_addresses(vips),
            Destined::Routed(routes) => routes,
        };
        let mut drawn = routes.destinations(&routes.draw());
        let far = |address: &u128| worlds::is_far(*address, routes.is_ip6());
        let other = drawn.iter().copied().find(far).unwrap_or(0);
        drawn.iter_mut().filter(|address| !far(address)).for_each(|address| *address = other);
        drawn
    }

    fn first_index(&self, case: &Case) -> u32 {
        let first = case.flows.destinations().and_then(|(destined, _)| self.first.get(&destined));
        first.and_then(|first| u32::try_from(*first).ok()).unwrap_or(0)
    }

    /// The case's first packet, in the notation.
    fn first_packet(&self, case: &Case) -> String {
        let address = self.all.get(self.first_index(case) as usize).copied().unwrap_or(0);
        match case.flows.destinations() {
            None => case.frame.clone(),
            Some((destined, _)) if destined.is_ip6() => {
                case.frame.replacen("> :: ", &format!("> {} ", Ipv6Addr::from(address)), 1)
            }
            Some(_) => case.frame.replacen("> 0.0.0.0 ", &format!("> {} ", Ipv4Addr::from(address as u32)), 1),
        }
    }

    fn write(&self, loaded: &Loaded) -> anyhow::Result<()> {
        let index = |index: u32| index.to_ne_bytes().to_vec();
        // Addresses of IPv4 are the low bits, so they end in the last word.
        let values = self.all.iter().map(|address| address.to_be_bytes().to_vec());
        fill(&loaded.map("destinations")?, (0u32..).map(index).zip(values))
    }
}

/// The knobs that the configuration's features need and no more, as the running program has them.
fn specialise(open: &mut OpenObject, compiled: &Compiled, dataplane: &Dataplane) -> anyhow::Result<()> {
    let Compiled { features, parameters, .. } = compiled;
    let ([fib4_words, fib6_words], [denied4_words, denied6_words]) =
        (dataplane.fib_words()?, dataplane.denied_words()?);
    let layout = || "the object has no configuration";
    let mut rodata =
        open.maps_mut().find(|map| map.name().to_string_lossy().ends_with(".rodata")).with_context(layout)?;
    let base = std::mem::offset_of!(types::rodata, config);
    let value = rodata.initial_value_mut().and_then(|value| value.get_mut(base..)).with_context(layout)?;
    let mut put = |offset: usize, bytes: &[u8]| {
        let to = value.get_mut(offset..offset + bytes.len()).with_context(layout)?;
        to.copy_from_slice(bytes);
        anyhow::Ok(())
    };
    macro_rules! knob {
        ($($name:ident = $on:expr),* $(,)?) => {
            $(put(std::mem::offset_of!(types::config, $name), &[u8::from($on)])?;)*
        };
    }
    knob!(
        decap_ipip = features.decap_ipip,
        decap_vxlan = features.decap_vxlan,
        decap_gue = features.decap_gue,
        denied_sources = features.denied_sources,
        denied_destinations = features.denied_destinations,
        filter = features.filter,
        vip = features.vip,
        quic = features.quic,
        affinity = features.affinity,
        vlan = features.vlan,
        slow_path = features.slow_path,
        source_validation = features.source_validation,
        max_mss = features.max_mss,
    );
    put(std::mem::offset_of!(types::config, fib4_words), &fib4_words.to_ne_bytes())?;
    put(std::mem::offset_of!(types::config, fib6_words), &fib6_words.to_ne_bytes())?;
    put(std::mem::offset_of!(types::config, denied4_words), &denied4_words.to_ne_bytes())?;
    put(std::mem::offset_of!(types::config, denied6_words), &denied6_words.to_ne_bytes())?;
    put(std::mem::offset_of!(types::config, flow_lines), &dataplane.flow_lines()?.to_ne_bytes())?;
    put(std::mem::offset_of!(types::config, vxlan_port), &parameters.vxlan_port.to_ne_bytes())?;
    put(std::mem::offset_of!(types::config, gue_port), &parameters.gue_port.to_ne_bytes())?;
    put(std::mem::offset_of!(types::config, hash_seed), &parameters.hash_seed.to_ne_bytes())?;
    put(std::mem::offset_of!(types::config, punt_rate), &parameters.punt_rate.to_ne_bytes())
}

/// Has the bench's programs use the dataplane's maps.
fn share(open: &mut OpenObject, dataplane: &Dataplane) -> anyhow::Result<()> {
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if let Some((_, shared)) = dataplane.maps().find(|(shared, _)| *shared == name) {
            map.reuse_fd(shared).with_context(|| format!("sharing map {name}"))?;
        }
    }
    Ok(())
}

fn action_of(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Drop(_) => action::DROP,
        Verdict::Pass => action::PASS,
        Verdict::Tx => action::TX,
        Verdict::Redirect(_) | Verdict::Punt(_) => action::REDIRECT,
    }
}
