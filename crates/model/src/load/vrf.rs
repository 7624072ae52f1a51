//! Lowering of VRFs, and of the names by which interfaces and routes refer to them.

use std::collections::{BTreeMap, BTreeSet};

use super::Item;
use super::check::Checker;
use super::diagnostic::Report;
use crate::desired::{KernelRoutes, Node, Vrf};
use crate::document::Path;
use crate::document::deserialize::one_of;
use crate::resources::margay::{NodeSpec, StaticRouteSpec, VrfSpec};

/// Most VRFs of a node, the default one aside.
const MAX_VRFS: usize = 255;
/// Tables that the kernel has a use for (linux/rtnetlink.h), with their names.
pub(super) const RESERVED: [(u32, &str); 4] = [(0, "unspecified"), (253, "default"), (254, "main"), (255, "local")];

pub(super) fn vrfs(items: &[Item<VrfSpec>], node: Option<&Node>, report: &mut Report) -> Vec<Vrf> {
    let followed = node.map_or_else(|| Some(KernelRoutes::default()), |node| node.kernel_routes);
    let mut seen: BTreeMap<u32, &Item<VrfSpec>> = BTreeMap::new();
    let at = Path::spec().key("table");
    for item in items {
        let mut check = Checker { document: &item.document, report };
        let Some(table) = item.spec.table else { continue };
        if let Some((_, name)) = RESERVED.iter().find(|(reserved, _)| *reserved == table) {
            check.error_help(&at, format!("table {table} is the kernel's own ({name})"), "take another number");
        } else if let Some(other) = seen.get(&table) {
            check.error(&at, format!("table {table} is already that of {}", other.document.place(&at)));
        } else if followed.is_some_and(|routes| routes.table == table) {
            check.error(&at, format!("table {table} is that of the Node's kernelRoutes, whose routes are of no VRF"));
        } else if node.is_some_and(|node| node.check_table == table) {
            let message = format!("table {table} is that of the Node's healthChecks, which leads to backends alone");
            check.error_help(&at, message, "take another number, or set healthChecks.table of the Node");
        } else if followed.is_none() {
            let help = "kernelRoutes of the Node is not enabled".to_owned();
            check.warning(&at, "the table is not followed", Some(help));
        }
        seen.entry(table).or_insert(item);
    }
    if let Some(last) = items.last() {
        let mut check = Checker { document: &last.document, report };
        check.at_most(&Path::default(), items.len(), MAX_VRFS, "VRFs on a node");
    }
    let vrf = |item: &Item<VrfSpec>| Vrf { name: item.document.name.clone(), table: item.spec.table };
    let mut vrfs: Vec<Vrf> = items.iter().map(vrf).collect();
    vrfs.sort_by(|a, b| a.name.cmp(&b.name));
    vrfs
}

/// Every name of a VRF has to be one. A document too broken to be read is not there, and has been told of.
pub(super) fn references(
    nodes: &[Item<NodeSpec>],
    routes: &[Item<StaticRouteSpec>],
    known: &BTreeSet<&str>,
    report: &mut Report,
) {
    let at = Path::spec();
    for item in nodes {
        for (i, interface) in item.spec.interfaces.iter().enumerate() {
            let mut check = Checker { document: &item.document, report };
            reference(interface.vrf.as_deref(), &at.key("interfaces").index(i).key("vrf"), known, &mut check);
        }
    }
    for item in routes {
        let mut check = Checker { document: &item.document, report };
        reference(item.spec.vrf.as_deref(), &at.key("vrf"), known, &mut check);
        if item.spec.vrf.is_some() && item.spec.advertise == Some(true) {
            let message = "a route in a VRF is not announced: BGP is in the default VRF only";
            check.error(&at.key("advertise"), message);
        }
    }
}

fn reference(vrf: Option<&str>, at: &Path, known: &BTreeSet<&str>, check: &mut Checker<'_>) {
    let Some(vrf) = vrf.filter(|vrf| !known.contains(vrf)) else { return };
    let known: Vec<&str> = known.iter().copied().collect();
    let help = if known.is_empty() { "add a document of kind VRF".to_owned() } else { one_of(vrf, &known) };
    check.error_help(at, format!("there is no VRF '{vrf}'"), help);
}
