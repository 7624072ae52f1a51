//! GoBGP beside BIRD: equal paths of two speakers share the traffic.

use std::time::Duration;

use crate::bird::{Bird, session};
use crate::gobgp::GoBgp;
use crate::harness::{Lab, THEM, address, bgp, eventually, nets, peer};

const LOAD: Duration = Duration::from_secs(20);

#[test]
fn equal_paths_of_bird_and_gobgp_share_the_traffic() {
    let lab = Lab::new(2);
    let statics = "protocol static four { ipv4; route 198.18.0.0/24 blackhole; }\n\
                   protocol static six { ipv6; route 2001:db8:100::/48 blackhole; }\n";
    let config = statics.to_owned() + &session("m", "10.77.0.2", THEM, "10.77.0.1 as 65001", &["ipv4", "ipv6"], "");
    let bird = Bird::start(&lab.theirs[0], "10.77.0.2", &config);
    let gobgp = GoBgp::start(&lab.theirs[1], THEM + 1, "10.77.1.2", "10.77.1.1", 65001);
    lab.drive(|mut d| async move {
        let mut other = peer("10.77.1.2");
        other.asn = THEM + 1;
        d.configure(bgp(vec![peer("10.77.0.2"), other]));
        d.speaker.announce(nets(&["192.0.2.80/32", "2001:db8::80/128"]));
        d.until_established("10.77.0.2").await;
        d.until_established("10.77.1.2").await;
        gobgp.ask("global rib add 198.18.0.0/24 origin igp nexthop 10.77.1.2");
        gobgp.ask("global rib add -a ipv6 2001:db8:100::/48 origin igp nexthop 2001:db8:77:1::2");
        let both = [
            ("198.18.0.0/24", [address("10.77.0.2"), address("10.77.1.2")]),
            ("2001:db8:100::/48", [address("2001:db8:77:0::2"), address("2001:db8:77:1::2")]),
        ];
        for (prefix, gateways) in &both {
            let prefix = prefix.parse().unwrap();
            d.until(&format!("two gateways for {prefix}"), LOAD, |d| {
                d.rib.get(&prefix).is_some_and(|route| route.gateways == gateways.map(Into::into))
            })
            .await;
        }
        eventually("our prefixes at GoBGP", LOAD, || {
            gobgp.ask("neighbor 10.77.1.1 adj-in").contains("192.0.2.80/32")
                && gobgp.ask("neighbor 10.77.1.1 adj-in -a ipv6").contains("2001:db8::80/128")
        })
        .await;
        // A longer path is not equal.
        gobgp.ask("global rib add 198.18.0.0/24 origin igp nexthop 10.77.1.2 aspath 64999");
        let prefix = "198.18.0.0/24".parse().unwrap();
        d.until("BIRD's path alone", LOAD, |d| d.rib[&prefix].gateways == [address("10.77.0.2").into()]).await;
        drop(bird);
        d.until("GoBGP's path once BIRD's has expired or both are gone", LOAD, |d| !d.downs.is_empty()).await;
        assert!(d.rib.contains_key(&prefix), "BIRD restarts gracefully");
    });
}

/// It offers RFC 8950 to every neighbour with an IPv6 address.
#[test]
fn ipv4_routes_over_ipv6_have_ipv6_next_hops_in_both_directions() {
    let lab = Lab::new(1);
    let gobgp = GoBgp::start(&lab.theirs[0], THEM, "10.77.0.2", "2001:db8:77::1", 65001);
    lab.drive(|mut d| async move {
        d.configure(bgp(vec![peer("2001:db8:77::2")]));
        d.speaker.announce(nets(&["192.0.2.80/32", "2001:db8::80/128"]));
        d.until_established("2001:db8:77::2").await;
        gobgp.ask("global rib add 198.18.0.0/24 origin igp nexthop 2001:db8:77::2");
        d.until_routes(1, LOAD).await;
        let route = d.rib.values().next().unwrap();
        assert_eq!(route.gateways, [address("2001:db8:77::2").into()]);
        eventually("our prefixes at GoBGP", LOAD, || {
            let [four, six] = ["ipv4", "ipv6"].map(|of| gobgp.ask(&format!("neighbor 2001:db8:77::1 adj-in -a {of}")));
            let next_hop = |text: &str| text.contains("2001:db8:77::1 ");
            four.contains("192.0.2.80/32") && six.contains("2001:db8::80/128") && next_hop(&four) && next_hop(&six)
        })
        .await;
    });
}
