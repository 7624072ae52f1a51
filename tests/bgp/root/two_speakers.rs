//! Two speakers of ours, each in its own namespace.

use std::sync::mpsc;
use std::time::Duration;

use model::desired::{Bgp, BgpPeer};

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
    let netns = std::sync::Arc::clone(&lab.theirs[0]);
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
