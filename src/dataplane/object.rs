//! The XDP object: opened, specialised, loaded over shared maps.
//!
//! Maps are made once and outlive every program. A program instance is the object with its knobs set, verified anew: the
//! knobs are read-only data, so what a feature set does not use is not in the instance.

use std::collections::BTreeMap;
use std::fs;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use libbpf_rs::{MapCore, MapHandle, Object, ObjectBuilder, OpenObject};
use model::ids::Ids;
use model::tables::{Features, Parameters};
use serde::Serialize;

use super::abi::types;
use super::error::Error;
use super::fib::MAPS;
use super::mapped::Mapped;
use super::pins::Pins;

/// Alignment that libelf wants of an ELF image in memory.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

/// What is attached, and the same source built to record a packet's way.
static UPLINK: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/xdp_uplink.bpf.o")));
static EXPLAIN: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/xdp_explain.bpf.o")));
/// Both built for nodes with VRFs.
static UPLINK_VRFS: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/xdp_uplink_vrfs.bpf.o")));
static EXPLAIN_VRFS: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/xdp_explain_vrfs.bpf.o")));

/// Maps that belong to one program instance alone.
const PRIVATE: [&str; 3] = ["punt_buckets", "scratch", "trace"];

fn is_private(name: &str) -> bool {
    PRIVATE.contains(&name) || name.contains(".rodata")
}

/// The maps that all instances and all generations of the process share.
#[derive(Debug)]
pub(super) struct SharedMaps {
    maps: BTreeMap<String, MapHandle>,
}

impl SharedMaps {
    /// Opens the pinned maps of `dir`, or makes those that are not there and pins them; unpinned where `dir` is `None`.
    /// Tells whether any was there before.
    pub(super) fn open(dir: Option<&Path>) -> Result<(Self, bool), Error> {
        let mut found = false;
        let mut object = open_object(UPLINK)?;
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if is_private(&name) {
                continue;
            }
            let Some(path) = dir.map(|dir| dir.join(&name)) else { continue };
            if path.exists() {
                found = true;
                // Maps whose size is configured or grows: what is there counts, whatever this build begins with.
                if name == "flows" || MAPS.contains(&name.as_str()) {
                    let pinned = MapHandle::from_pinned_path(&path).map_err(load)?;
                    map.set_max_entries(pinned.max_entries()).map_err(load)?;
                    map.set_value_size(pinned.value_size()).map_err(load)?;
                }
            }
            map.set_pin_path(&path).map_err(load)?;
        }
        for mut program in object.progs_mut() {
            program.set_autoload(false);
        }
        let object = object.load().map_err(load)?;
        let mut maps = BTreeMap::new();
        for map in object.maps() {
            let name = map.name().to_string_lossy().into_owned();
            if !is_private(&name) {
                maps.insert(name, MapHandle::try_from(&map).map_err(load)?);
            }
        }
        Ok((Self { maps }, found))
    }

    /// The map called `name`.
    pub(super) fn get(&self, name: &'static str) -> Result<&MapHandle, Error> {
        self.maps.get(name).ok_or(Error::NoMap(name))
    }

    /// Every map with its name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.maps.iter().map(|(name, map)| (name.as_str(), map.as_fd()))
    }

    /// Replaces the flow table by one of so many lines, with what it remembers. Programs that still look at the former one go on
    /// remembering there: it is handed over once more when none does.
    pub(super) fn resize_flows(&mut self, dir: Option<&Path>, lines: u32) -> Result<Former, Error> {
        let old = self.get("flows")?;
        let former = Former(mapped_flows(old)?);
        let opts = libbpf_rs::libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
            map_flags: libbpf_rs::libbpf_sys::BPF_F_MMAPABLE,
            ..Default::default()
        };
        let bytes = lines * LINE_BYTES;
        let flows = MapHandle::create(old.map_type(), Some("flows"), old.key_size(), bytes, 1, &opts).map_err(load)?;
        self.replace(dir, "flows", flows)?;
        former.hand_over(self)?;
        Ok(former)
    }

    /// The flow table as memory.
    pub(super) fn flows(&self) -> Result<Mapped, Error> {
        mapped_flows(self.get("flows")?)
    }

    /// Puts another map in the place of one, in the pin directory in one step. Programs keep what they were loaded with.
    pub(super) fn replace(&mut self, dir: Option<&Path>, name: &'static str, mut map: MapHandle) -> Result<(), Error> {
        if let Some(dir) = dir {
            let (path, beside) = (dir.join(name), dir.join(format!("{name}-new")));
            let failed = |source| Error::Pin { path: path.clone(), source };
            Pins::remove(&beside)?;
            map.pin(&beside).map_err(load)?;
            fs::rename(&beside, &path).map_err(failed)?;
        }
        self.maps.insert(name.to_owned(), map);
        Ok(())
    }

    /// What the maps that grow hold now.
    pub(super) fn sizes(&self) -> Result<Sizes, Error> {
        let [ip4, ip6, denied4, denied6, vrfs] = MAPS;
        let words = |name| Ok::<u32, Error>(self.get(name)?.value_size() / size_of::<u32>() as u32);
        Ok(Sizes {
            fib_words: [words(ip4)?, words(ip6)?],
            denied_words: [words(denied4)?, words(denied6)?],
            vrf_words: words(vrfs)?,
            vrfs: self.get(vrfs)?.max_entries(),
        })
    }

    /// Lines of the flow table.
    pub(super) fn flow_lines(&self) -> Result<u32, Error> {
        Ok(self.get("flows")?.value_size() / LINE_BYTES)
    }
}

// One layout, two languages.
const _: () = {
    use tables::flows;
    use types::{flow_entry, limits};
    assert!(limits::FLOW_WAYS.0 as usize == flows::WAYS);
    assert!(limits::BACKENDS_MAX.0 == Ids::LAST_BACKEND + 1);
    assert!(flow_entry::FLOW_SEEN_SHIFT.0 == flows::SEEN_SHIFT && flow_entry::FLOW_BEGAN_SHIFT.0 == flows::BEGAN_SHIFT);
    assert!(flow_entry::FLOW_STAMP_MASK.0 as u64 == flows::STAMP_MASK);
    assert!(flow_entry::FLOW_ESTABLISHED.0 as u64 == flows::ESTABLISHED);
    assert!(flow_entry::FLOW_BACKEND_SHIFT.0 == flows::BACKEND_SHIFT);
    // Within a tick of the stamp.
    let idle_ns = (flow_entry::FLOW_IDLE.0 as u128 + 1) << flows::SEEN_SHIFT;
    assert!(idle_ns.abs_diff(model::marks::OVER.as_nanos()) < 1 << flows::SEEN_SHIFT);
};

/// Bytes of a line of the flow table.
const LINE_BYTES: u32 = types::limits::FLOW_WAYS.0 * size_of::<u64>() as u32;

/// A flow table that another has taken the place of.
#[derive(Debug)]
pub(super) struct Former(Mapped);

impl Former {
    /// Takes over what it remembers and the present one does not.
    pub(super) fn hand_over(&self, maps: &SharedMaps) -> Result<(), Error> {
        tables::flows::take_over(self.0.long_words(), maps.flows()?.long_words());
        Ok(())
    }
}

fn mapped_flows(map: &MapHandle) -> Result<Mapped, Error> {
    let words = map.value_size() as usize / size_of::<u32>();
    Mapped::new(map, words, 0).map_err(|source| Error::Map { map: "flows", operation: "mmap", source: source.into() })
}

fn load(source: libbpf_rs::Error) -> Error {
    Error::Load { source }
}

fn open_object(image: &Aligned<[u8]>) -> Result<OpenObject, Error> {
    ObjectBuilder::default().name("xdp_uplink").and_then(|b| b.open_memory(&image.0)).map_err(load)
}

/// Lines of a flow table for as many flows as there are to be.
pub(super) fn flow_lines(parameters: &Parameters) -> u32 {
    tables::flows::lines_for(parameters.flow_table_entries as usize, types::limits::FLOW_LINES_MIN.0 as usize) as u32
}

/// Sizes of the maps that grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Words of the IPv4 and of the IPv6 FIB.
    pub(super) fib_words: [u32; 2],
    /// Words of the maps of denied prefixes, likewise.
    pub(super) denied_words: [u32; 2],
    /// Words of a VRF.
    pub(super) vrf_words: u32,
    /// VRFs that there is room for.
    vrfs: u32,
}

/// What an instance is specialised for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Knobs {
    /// What the tables need.
    pub(super) features: Features,
    /// UDP port of VXLAN.
    pub(super) vxlan_port: u16,
    pub(super) gue_port: u16,
    /// Punts a second, reason and core.
    pub(super) punt_rate: u32,
    /// Sizes of the maps that grow.
    pub(super) sizes: Sizes,
    /// Lines of the flow table.
    pub(super) flow_lines: u32,
    /// The node's own, in the choice among next hops.
    pub(super) hash_seed: u64,
    /// What is done with it.
    pub(super) purpose: Purpose,
}

/// What an instance is for. All but the first record the way of a packet and change nothing outside it: an object of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be attached.
    Forward,
    /// To tell the way of a packet of the wire.
    Explain,
    /// To put in front of a packet what packets for a backend get.
    Encapsulate,
}

impl Purpose {
    /// The program that serves it.
    fn program(self) -> &'static str {
        match self {
            Self::Forward | Self::Explain => "xdp_uplink",
            Self::Encapsulate => "xdp_to_backend",
        }
    }
}

impl Knobs {
    pub(super) fn new(features: Features, parameters: &Parameters, sizes: Sizes) -> Self {
        let Parameters { vxlan_port, gue_port, punt_rate, hash_seed, .. } = *parameters;
        let flow_lines = flow_lines(parameters);
        Self { features, vxlan_port, gue_port, punt_rate, sizes, flow_lines, hash_seed, purpose: Purpose::Forward }
    }

    /// Writes the knobs into the initial value of the read-only data.
    fn store(&self, rodata: &mut [u8]) -> Option<()> {
        let base = offset_of!(types::rodata, config);
        let mut put = |offset: usize, bytes: &[u8]| {
            rodata.get_mut(base + offset..base + offset + bytes.len()).map(|to| to.copy_from_slice(bytes))
        };
        let f = &self.features;
        put(offset_of!(types::config, decap_ipip), &[u8::from(f.decap_ipip)])?;
        put(offset_of!(types::config, decap_vxlan), &[u8::from(f.decap_vxlan)])?;
        put(offset_of!(types::config, decap_gue), &[u8::from(f.decap_gue)])?;
        put(offset_of!(types::config, denied_sources), &[u8::from(f.denied_sources)])?;
        put(offset_of!(types::config, denied_destinations), &[u8::from(f.denied_destinations)])?;
        put(offset_of!(types::config, filter), &[u8::from(f.filter)])?;
        put(offset_of!(types::config, vip), &[u8::from(f.vip)])?;
        put(offset_of!(types::config, quic), &[u8::from(f.quic)])?;
        put(offset_of!(types::config, affinity), &[u8::from(f.affinity)])?;
        put(offset_of!(types::config, vlan), &[u8::from(f.vlan)])?;
        put(offset_of!(types::config, source_validation), &[u8::from(f.source_validation)])?;
        put(offset_of!(types::config, max_mss), &[u8::from(f.max_mss)])?;
        put(offset_of!(types::config, slow_path), &[u8::from(f.slow_path)])?;
        put(offset_of!(types::config, vxlan_port), &self.vxlan_port.to_ne_bytes())?;
        put(offset_of!(types::config, gue_port), &self.gue_port.to_ne_bytes())?;
        let [fib4_words, fib6_words] = self.sizes.fib_words;
        put(offset_of!(types::config, fib4_words), &fib4_words.to_ne_bytes())?;
        put(offset_of!(types::config, fib6_words), &fib6_words.to_ne_bytes())?;
        let [denied4_words, denied6_words] = self.sizes.denied_words;
        put(offset_of!(types::config, denied4_words), &denied4_words.to_ne_bytes())?;
        put(offset_of!(types::config, denied6_words), &denied6_words.to_ne_bytes())?;
        put(offset_of!(types::config, flow_lines), &self.flow_lines.to_ne_bytes())?;
        put(offset_of!(types::config, vrf_words), &self.sizes.vrf_words.to_ne_bytes())?;
        put(offset_of!(types::config, hash_seed), &self.hash_seed.to_ne_bytes())?;
        put(offset_of!(types::config, punt_rate), &self.punt_rate.to_ne_bytes())
    }
}

/// A loaded program.
#[derive(Debug)]
pub(super) struct Instance {
    object: Object,
    pub(super) knobs: Knobs,
}

impl Instance {
    /// Verifies and loads the object with these knobs over the shared maps.
    pub(super) fn load(maps: &SharedMaps, knobs: Knobs) -> Result<Self, Error> {
        let mut object = open_object(match (knobs.features.vrf, knobs.purpose) {
            (false, Purpose::Forward) => UPLINK,
            (false, Purpose::Explain | Purpose::Encapsulate) => EXPLAIN,
            (true, Purpose::Forward) => UPLINK_VRFS,
            (true, Purpose::Explain | Purpose::Encapsulate) => EXPLAIN_VRFS,
        })?;
        for mut program in object.progs_mut() {
            let wanted = program.name() == knobs.purpose.program();
            program.set_autoload(wanted);
        }
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if let Some(shared) = maps.maps.get(&name) {
                map.reuse_fd(shared.as_fd()).map_err(load)?;
            } else if name.contains(".rodata") {
                map.initial_value_mut().and_then(|rodata| knobs.store(rodata)).ok_or(Error::Layout("rodata"))?;
            }
        }
        Ok(Self { object: object.load().map_err(load)?, knobs })
    }

    /// The program.
    pub(super) fn program(&self) -> Result<libbpf_rs::ProgramMut<'_>, Error> {
        let name = self.knobs.purpose.program();
        self.object.progs_mut().find(|program| program.name() == name).ok_or(Error::NoMap(name))
    }

    /// A map of this instance alone.
    pub(super) fn private_map(&self, name: &'static str) -> Result<libbpf_rs::Map<'_>, Error> {
        self.object.maps().find(|map| map.name() == name).ok_or(Error::NoMap(name))
    }
}

/// A drop or punt reason, in the words of the program's source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Its name, as in counters and metrics.
    pub name: String,
    /// What it means.
    pub help: String,
}

/// Every reason, by the program's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reasons {
    /// Why packets are dropped.
    pub drops: Vec<Reason>,
    /// Why packets are punted.
    pub punts: Vec<Reason>,
}

impl Reasons {
    /// Reads them from the object's read-only data.
    ///
    /// # Errors
    /// [`Error::Layout`] for an object of another build.
    pub fn read() -> Result<Self, Error> {
        let mut object = open_object(UPLINK)?;
        let layout = || Error::Layout("rodata");
        let rodata =
            object.maps_mut().find(|map| map.name().to_string_lossy().contains(".rodata")).ok_or_else(layout)?;
        let bytes = rodata.initial_value().ok_or_else(layout)?;
        let rows = |offset: usize, count: usize, width: usize| {
            let area = bytes.get(offset..offset + count * width).ok_or_else(layout)?;
            let text = |row: &[u8]| row.iter().take_while(|c| **c != 0).map(|c| char::from(*c)).collect::<String>();
            Ok::<_, Error>(area.chunks_exact(width).map(text).collect::<Vec<_>>())
        };
        let zip = |names: Vec<String>, help: Vec<String>| {
            names.into_iter().zip(help).map(|(name, help)| Reason { name, help }).collect()
        };
        let drops = types::drop_reason::NR_DROP_REASONS.0 as usize;
        let punts = types::punt_reason::NR_PUNT_REASONS.0 as usize;
        Ok(Self {
            drops: zip(
                rows(offset_of!(types::rodata, drop_names), drops, NAME_LEN)?,
                rows(offset_of!(types::rodata, drop_help), drops, HELP_LEN)?,
            ),
            punts: zip(
                rows(offset_of!(types::rodata, punt_names), punts, NAME_LEN)?,
                rows(offset_of!(types::rodata, punt_help), punts, HELP_LEN)?,
            ),
        })
    }
}

/// Bytes of a reason's name and of its help in the object.
const NAME_LEN: usize = 24;
const HELP_LEN: usize = 96;
