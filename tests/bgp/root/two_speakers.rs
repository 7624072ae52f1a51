//! Two speakers of ours, each in its own namespace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use model::desired::{Bgp, BgpPeer};
use model::rib::Gateway;
use testkit::netns::Netns;

use crate::harness::{Driven, Lab, THEM, US, bgp, drive_in, finish, nets, peer};

const LOAD: Duration = Duration::from_secs(20);

/// The other side of [`bgp`].
fn theirs() -> Bgp {
    Bgp { asn: THEM, ..bgp(vec![BgpPeer { asn: US, ..peer("10.77.0.1") }]) }
}

/// Both connect at once, again and again: one connection stays, and no session that was up ends over it.
#[test]
fn crossing_connections_do_not_flap() {
    let lab = Lab::new(1);
    let other = drive_in(&lab.theirs[0], |mut d| async move {
        for _ in 0..10 {
            d.speaker.configure(Some(theirs()), "10.77.0.2".parse().unwrap());
            d.speaker.announce(nets(&["198.51.100.0/24"]));
            d.until("a route", LOAD, |d| d.rib.len() == 1).await;
            d.pass(Duration::from_millis(200)).await;
            assert_eq!(d.downs, []);
            d.speaker.configure(None, "10.77.0.2".parse().unwrap());
            d.until_routes(0, LOAD).await;
            d.downs.clear();
        }
    });
    lab.drive(move |mut d| async move {
        d.configure(bgp(vec![peer("10.77.0.2")]));
        d.speaker.announce(nets(&["192.0.2.80/32"]));
        d.until("the other side is done", Duration::from_secs(120), |_| other.is_finished()).await;
        finish(other);
        d.until_routes(0, LOAD).await;
        for (_, reason) in &d.downs {
            assert!(reason.contains("peer de-configured"), "{reason}");
        }
        assert_eq!(d.downs.len(), 10);
    });
}

/// A speaker that is killed and comes back: its routes stay at the other one all the time.
#[test]
fn a_restart_takes_no_route_away() {
    let lab = Lab::new(1);
    let announces = |mut d: Driven, until: mpsc::Receiver<()>| async move {
        d.speaker.configure(Some(theirs()), "10.77.0.2".parse().unwrap());
        d.until_established("10.77.0.1").await;
        d.speaker.announce(nets(&["198.51.100.0/24", "2001:db8:100::/48"]));
        d.until("told to end", LOAD, |_| until.try_recv().is_ok()).await;
    };
    let (stop_first, first_ends) = mpsc::channel();
    let (stop_second, second_ends) = mpsc::channel();
    let first = drive_in(&lab.theirs[0], move |d| announces(d, first_ends));
    let netns = Arc::clone(&lab.theirs[0]);
    lab.drive(move |mut d| async move {
        d.configure(bgp(vec![peer("10.77.0.2")]));
        d.speaker.announce(nets(&[]));
        d.until_routes(2, LOAD).await;
        d.least = 2;
        stop_first.send(()).unwrap();
        d.until("session down", LOAD, |d| !d.downs.is_empty()).await;
        finish(first);
        let second = drive_in(&netns, move |d| announces(d, second_ends));
        d.until_established("10.77.0.2").await;
        d.pass(Duration::from_secs(1)).await;
        assert_eq!((d.least, d.rib.len()), (2, 2));
        stop_second.send(()).unwrap();
        finish(second);
    });
}

/// Two peers tell of a prefix, and the second's path is not chosen: it is an alternative while it is there.
#[test]
fn a_path_that_is_not_chosen_is_an_alternative() {
    let lab = Lab::new(2);
    let speaks = |of: usize, asn: u32| {
        let (tell, told) = mpsc::channel::<bool>();
        let thread = drive_in(&lab.theirs[of], move |mut d| async move {
            let us = BgpPeer { asn: US, ..peer(&format!("10.77.{of}.1")) };
            d.speaker.configure(Some(Bgp { asn, ..bgp(vec![us]) }), format!("10.77.{of}.2").parse().unwrap());
            d.speaker.announce(nets(&[]));
            loop {
                let mut said = Err(TryRecvError::Empty);
                d.until("told what to do", 6 * LOAD, |_| {
                    said = told.try_recv();
                    said != Err(TryRecvError::Empty)
                })
                .await;
                let Ok(announces) = said else { return };
                d.speaker.announce(nets(if announces { &["198.51.100.0/24"] } else { &[] }));
            }
        });
        (tell, thread)
    };
    // The internal one's AS_PATH is shorter.
    let (best, first) = speaks(0, US);
    let (other, second) = speaks(1, THEM);
    lab.drive(move |mut d| async move {
        let peers = || vec![BgpPeer { asn: US, ..peer("10.77.0.2") }, peer("10.77.1.2")];
        d.configure(Bgp { alternatives: true, ..bgp(peers()) });
        d.speaker.announce(nets(&[]));
        let prefix = "198.51.100.0/24".parse().unwrap();
        let leads = |d: &Driven| {
            let of =
                |gateways: &[Gateway]| gateways.iter().map(|g| g.address.to_string()).collect::<Vec<_>>().join(" ");
            d.rib.get(&prefix).map(|route| (of(&route.gateways), of(&route.alternatives)))
        };
        let is = |gateway: &str, alternative: &str| Some((gateway.to_owned(), alternative.to_owned()));
        best.send(true).unwrap();
        d.until("a route", LOAD, |d| leads(d) == is("10.77.0.2", "")).await;
        other.send(true).unwrap();
        d.until("an alternative", LOAD, |d| leads(d) == is("10.77.0.2", "10.77.1.2")).await;
        d.configure(bgp(peers()));
        d.until("none where nobody asks", LOAD, |d| leads(d) == is("10.77.0.2", "")).await;
        d.configure(Bgp { alternatives: true, ..bgp(peers()) });
        d.until("it again", LOAD, |d| leads(d) == is("10.77.0.2", "10.77.1.2")).await;
        best.send(false).unwrap();
        d.until("the other is chosen", LOAD, |d| leads(d) == is("10.77.1.2", "")).await;
        other.send(false).unwrap();
        d.until_routes(0, LOAD).await;
        assert_eq!(d.downs, [], "no session has ended over it");
    });
    finish(first);
    finish(second);
}

/// The same link-local address on two links is two nodes, whoever connects.
#[test]
fn a_link_local_address_on_two_links_is_two_peers() {
    for passive in [true, false] {
        let lab = Lab::new(2);
        let link_local = |n: u8| -> [String; 2] { [format!("fe80::{n}/64"), format!("fe80::{n}")] };
        let [ours, theirs] = [link_local(1), link_local(2)];
        let add = |netns: &Netns, address: &str, interface: &str| {
            netns.ip(&["address", "add", address, "dev", interface, "nodad"]).unwrap();
        };
        let mut threads = Vec::new();
        let stop = Arc::new(AtomicBool::new(false));
        for (n, netns) in lab.theirs.iter().enumerate() {
            add(&lab.ours, &ours[0], &format!("peer{n}"));
            add(netns, &theirs[0], "uplink");
            let us = BgpPeer { asn: US, interface: Some("uplink".to_owned()), passive: !passive, ..peer(&ours[1]) };
            let stop = Arc::clone(&stop);
            threads.push(drive_in(netns, move |mut d| async move {
                let id = format!("10.77.{n}.2").parse().unwrap();
                d.speaker.configure(Some(Bgp { asn: THEM, ..bgp(vec![us]) }), id);
                d.speaker.announce(nets(&[&format!("2001:db8:{n}00::/48")]));
                let ends = |_: &Driven| stop.load(Ordering::Relaxed);
                d.until("told to end", 6 * LOAD, ends).await;
            }));
        }
        let address = theirs[1].clone();
        lab.drive(move |mut d| async move {
            let on = |n: usize| BgpPeer {
                name: format!("peer-{n}"),
                interface: Some(format!("peer{n}")),
                passive,
                ..peer(&address)
            };
            d.configure(bgp(vec![on(0), on(1)]));
            d.speaker.announce(nets(&[]));
            d.until_routes(2, LOAD).await;
            let gateways: Vec<String> = d.rib.values().map(|route| route.gateways[0].address.to_string()).collect();
            assert_eq!(gateways, ["2001:db8:77::2", "2001:db8:77:1::2"]);
            // One of them goes, and the other stays.
            d.configure(bgp(vec![on(1)]));
            d.until_routes(1, LOAD).await;
            assert_eq!(d.downs.len(), 1);
            let states: Vec<_> = d.speaker.peers().into_iter().map(|peer| (peer.name, peer.state)).collect();
            assert_eq!(states, [("peer-1".to_owned(), "Established".to_owned())]);
            stop.store(true, Ordering::Relaxed);
        });
        threads.into_iter().for_each(finish);
    }
}
