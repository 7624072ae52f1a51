//! The kernel's table beside what is held and forwarded of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ipnet::IpNet;
use model::network::Network;
use model::rib::{Rib, Source, Way};
use sha2::{Digest as _, Sha256};

use super::forwarding::{self, interface_name};
use crate::control::api::types::{DifferenceKind, KernelDiff, List, RouteDifference, TableDigest};
use crate::control::event::Asked;
use crate::control::owner::Owner;

/// Compares a dump of the kernel's table with what is held of it and, where no better source has a route to the prefix, with
/// what forwards. At most `limit` differences are listed; all are counted.
pub(in crate::control) fn kernel_diff(owner: &Owner, asked: &Asked, kernel: &BTreeMap<IpNet, Way>) -> KernelDiff {
    let Asked { vrf, table, limit } = asked;
    let compiled = owner.forwarding.compiled();
    let of_vrf = vrf.as_ref().map(|name| forwarding::vrf_id(compiled, name).unwrap_or_default());
    let no_rib = Rib::default();
    let default = owner.routing.rib();
    let rib = if of_vrf.is_some() { default.table(*table).unwrap_or(&no_rib) } else { default };
    let in_force = |prefix: IpNet| match of_vrf {
        Some(vrf) => compiled.vrf_routes(vrf).get(&prefix).map(|(source, _)| *source),
        None => {
            let best = compiled.best_route(prefix, rib);
            best.filter(|(_, group)| compiled.tables.fib.get(&prefix) == Some(group)).map(|(source, _)| source)
        }
    };
    let mut differences = List { items: Vec::new(), total: 0 };
    let mut note = |prefix: IpNet, kind, kernel: Option<&Way>, margay: Option<&Way>| {
        differences.total += 1;
        if differences.items.len() < *limit {
            let [kernel, margay] = [kernel, margay].map(|way| way.map(|way| shown(way, &owner.network)));
            differences.items.push(RouteDifference { prefix, kind, kernel, margay });
        }
    };
    let (mut theirs, mut ours) = (Digest::default(), Digest::default());
    let mut forwarded = 0;
    let mut expected = kernel.iter().peekable();
    for (prefix, way) in held(rib) {
        while let Some((missing, way)) = expected.next_if(|(other, _)| **other < prefix) {
            theirs.add(*missing, way);
            note(*missing, DifferenceKind::Missing, Some(way), None);
        }
        ours.add(prefix, way);
        match expected.next_if(|(other, _)| **other == prefix) {
            None => note(prefix, DifferenceKind::Extra, None, Some(way)),
            Some((_, dumped)) => {
                theirs.add(prefix, dumped);
                if dumped != way {
                    note(prefix, DifferenceKind::Different, Some(dumped), Some(way));
                    continue;
                }
                match in_force(prefix) {
                    Some(Source::Kernel) => forwarded += 1,
                    Some(better) if better < Source::Kernel => {}
                    _ => note(prefix, DifferenceKind::NotForwarded, Some(dumped), Some(way)),
                }
            }
        }
    }
    for (missing, way) in expected {
        theirs.add(*missing, way);
        note(*missing, DifferenceKind::Missing, Some(way), None);
    }
    KernelDiff {
        vrf: vrf.clone(),
        table: *table,
        kernel: theirs.finish(),
        margay: ours.finish(),
        forwarded,
        differences,
    }
}

/// What is held of the kernel's table, by prefix.
fn held(rib: &Rib) -> impl Iterator<Item = (IpNet, &Way)> {
    rib.iter().filter_map(|(prefix, routes)| {
        let route = routes.iter().find(|route| route.source == Source::Kernel)?;
        Some((prefix, &rib.set_of(route.set)?.way))
    })
}

/// A table as one number.
#[derive(Default)]
struct Digest {
    hash: Sha256,
    routes: usize,
    line: String,
}

impl Digest {
    fn add(&mut self, prefix: IpNet, way: &Way) {
        self.line.clear();
        // Writing into a string cannot fail.
        let _ = write!(self.line, "{prefix} ");
        write_way(&mut self.line, way, |line, ifindex| line.push_str(&ifindex.to_string()));
        self.line.push('\n');
        self.hash.update(self.line.as_bytes());
        self.routes += 1;
    }

    fn finish(self) -> TableDigest {
        let sha256 = self.hash.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        TableDigest { routes: self.routes, sha256 }
    }
}

/// A way out in the words of `ip route`.
fn shown(way: &Way, network: &Network) -> String {
    let mut text = String::new();
    write_way(&mut text, way, |text, ifindex| text.push_str(&interface_name(network, ifindex)));
    text
}

fn write_way(text: &mut String, way: &Way, device: impl Fn(&mut String, model::network::IfIndex)) {
    match way {
        Way::Gateways(gateways) => {
            for (n, gateway) in gateways.iter().enumerate() {
                let _ = write!(text, "{}via {}", if n > 0 { " " } else { "" }, gateway.address);
                if let Some(ifindex) = gateway.ifindex {
                    text.push_str(" dev ");
                    device(text, ifindex);
                }
                if gateways.len() > 1 {
                    let _ = write!(text, " weight {}", gateway.weight);
                }
            }
        }
        Way::Link(ifindex) => {
            text.push_str("dev ");
            device(text, *ifindex);
        }
        Way::Host => text.push_str("host"),
        Way::Blackhole => text.push_str("blackhole"),
        Way::Prohibit => text.push_str("prohibit"),
        Way::Unreachable => text.push_str("unreachable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::network::IfIndex;
    use model::rib::Gateway;

    fn gateways(addresses: &[(&str, u32)]) -> Way {
        let gateway = |(address, weight): &(&str, u32)| Gateway {
            weight: *weight,
            ..Gateway::on_link(address.parse().unwrap(), IfIndex(7))
        };
        Way::through(addresses.iter().map(gateway)).unwrap()
    }

    #[test]
    fn ways_read_as_in_ip_route() {
        let network = Network::default();
        let text = |way: &Way| shown(way, &network);
        assert_eq!(text(&gateways(&[("192.0.2.1", 1)])), "via 192.0.2.1 dev if7");
        let two = gateways(&[("192.0.2.2", 3), ("192.0.2.1", 1)]);
        assert_eq!(text(&two), "via 192.0.2.1 dev if7 weight 1 via 192.0.2.2 dev if7 weight 3");
        assert_eq!(text(&Way::Link(IfIndex(7))), "dev if7");
    }

    #[test]
    fn a_digest_tells_tables_apart() {
        let digest = |routes: &[(&str, Way)]| {
            let mut digest = Digest::default();
            routes.iter().for_each(|(prefix, way)| digest.add(prefix.parse().unwrap(), way));
            digest.finish()
        };
        let table = [("10.0.0.0/8", Way::Blackhole), ("10.0.0.0/9", gateways(&[("192.0.2.1", 1)]))];
        assert_eq!(digest(&table), digest(&table));
        let others = [
            vec![table[0].clone()],
            vec![table[0].clone(), ("10.0.0.0/9", gateways(&[("192.0.2.2", 1)]))],
            vec![("10.0.0.0/8", Way::Prohibit), table[1].clone()],
        ];
        for other in others {
            assert_ne!(digest(&table).sha256, digest(&other).sha256);
        }
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(&[]), TableDigest { routes: 0, sha256: empty.to_owned() });
    }
}
