//! The kernel's links, addresses and neighbours as the control thread sees them, followed live in a namespace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::IpAddr;
use std::time::Duration;

use margay::control::netlink::{Change, NeighborEntry, Resolver, follow};
use model::network::{IfIndex, Network, Vlan};
use testkit::netns::{End, Netns, veth};
use tokio::sync::mpsc;

/// Applies changes until `holds`, or panics with what was seen last.
async fn until(events: &mut mpsc::Receiver<Change>, network: &mut Network, holds: impl Fn(&Network) -> bool) {
    while !holds(network) {
        let change = tokio::time::timeout(Duration::from_secs(20), events.recv()).await;
        change.unwrap_or_else(|_| panic!("not seen within 20 s: {network:#?}")).unwrap().apply(network);
    }
}

fn index(network: &Network, name: &str) -> Option<IfIndex> {
    network.link_by_name(name).map(|(index, _)| index)
}

#[test]
fn links_addresses_and_neighbours_are_followed() {
    let (here, there) = (Netns::new("ctlnl").unwrap(), Netns::new("ctlnl").unwrap());
    veth(
        End { netns: &here, name: "up0", addresses: &["10.9.0.1/24".parse().unwrap(), "fd09::1/64".parse().unwrap()] },
        End { netns: &there, name: "up1", addresses: &["10.9.0.2/24".parse().unwrap(), "fd09::2/64".parse().unwrap()] },
    )
    .unwrap();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            here.enter().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(scenario(&here, &there));
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

async fn scenario(here: &Netns, there: &Netns) {
    let (sender, mut events) = mpsc::channel(64);
    tokio::spawn(follow(sender, |change| change));
    let mut network = Network::default();

    let Some(Change::Snapshot(first)) = events.recv().await else { panic!("the first event is a snapshot") };
    network.clone_from(&first);
    until(&mut events, &mut network, |n| n.link_by_name("up0").is_some_and(|(_, link)| link.up)).await;
    let up0 = index(&network, "up0").unwrap();
    assert_eq!(network.links[&up0].rx_queues, 1, "veth allocates more queues than it uses");
    assert!(network.addresses.contains(&(up0, "10.9.0.1/24".parse().unwrap())));

    // Resolution by the kernel, both families, then a change of the neighbour's own address.
    let resolver = Resolver::new().unwrap();
    let (v4, v6): (IpAddr, IpAddr) = ("10.9.0.2".parse().unwrap(), "fd09::2".parse().unwrap());
    let absent: IpAddr = "10.9.0.77".parse().unwrap();
    for address in [v4, v6, absent] {
        resolver.resolve(up0, address, true).await.unwrap();
        resolver.resolve(up0, address, true).await.expect("asking again is no error");
    }
    until(&mut events, &mut network, |n| n.neighbors.contains_key(&(up0, v4)) && n.neighbors.contains_key(&(up0, v6)))
        .await;
    assert!(here.ip(&["neigh", "show", "10.9.0.2", "dev", "up0"]).unwrap().contains("managed"));
    resolver.resolve(up0, v4, false).await.unwrap();
    assert!(!here.ip(&["neigh", "show", "10.9.0.2", "dev", "up0"]).unwrap().contains("managed"));

    there.ip(&["link", "set", "up1", "address", "02:00:00:00:00:99"]).unwrap();
    here.ip(&["neigh", "replace", "10.9.0.2", "lladdr", "02:00:00:00:00:99", "dev", "up0"]).unwrap();
    until(&mut events, &mut network, |n| n.neighbors.get(&(up0, v4)).is_some_and(|mac| mac.0[5] == 0x99)).await;

    // Nobody has this address: the failure is reported, so that waiting packets can be answered.
    let failed = Change::Neighbor { ifindex: up0, address: absent, entry: NeighborEntry::Failed };
    let found = tokio::time::timeout(Duration::from_secs(10), async {
        while let Some(change) = events.recv().await {
            if change == failed {
                return true;
            }
            change.apply(&mut network);
        }
        false
    });
    assert!(found.await.expect("the kernel gives up within 10 s"));
    assert!(resolver.resolve(IfIndex(9999), v4, false).await.is_err(), "an interface that does not exist");

    match here.ip(&["link", "add", "link", "up0", "name", "up0.7", "type", "vlan", "id", "7"]) {
        Ok(_) => {
            until(&mut events, &mut network, |n| {
                n.link_by_name("up0.7").is_some_and(|(_, link)| link.vlan == Some(Vlan { parent: up0, id: 7 }))
            })
            .await;
        }
        Err(error) => {
            assert!(error.to_string().contains("Unknown device type"), "{error}");
            eprintln!("this kernel has no VLAN devices: not tested");
        }
    }
    here.ip(&["addr", "del", "10.9.0.1/24", "dev", "up0"]).unwrap();
    until(&mut events, &mut network, |n| !n.is_local("10.9.0.1".parse().unwrap())).await;
    there.ip(&["link", "set", "up1", "down"]).unwrap();
    until(&mut events, &mut network, |n| !n.links[&up0].up).await;
    here.ip(&["link", "del", "up0"]).unwrap();
    until(&mut events, &mut network, |n| index(n, "up0").is_none() && index(n, "up0.7").is_none()).await;
    assert!(network.addresses.iter().all(|(of, _)| *of != up0));
    assert!(network.neighbors.keys().all(|(of, _)| *of != up0));
}

#[test]
fn a_flood_of_changes_ends_in_the_kernels_state() {
    let here = Netns::new("ctlnl").unwrap();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            here.enter().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (sender, mut events) = mpsc::channel(1);
                tokio::spawn(follow(sender, |change| change));
                let mut network = Network::default();
                events.recv().await.unwrap().apply(&mut network);
                here.ip(&["link", "add", "d0", "type", "veth", "peer", "name", "d1"]).unwrap();
                here.ip(&["link", "set", "d0", "up"]).unwrap();
                // Far more than the socket's buffer holds while nobody reads: this blocks the runtime on purpose.
                let mut batch = String::new();
                for i in 0..6000u32 {
                    batch += &format!(
                        "neigh add 10.{}.{}.{} lladdr 02:00:00:00:{:02x}:{:02x} dev d0\n",
                        1 + i / 65536,
                        (i / 256) % 256,
                        i % 256,
                        (i / 256) % 256,
                        i % 256
                    );
                }
                let file = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(file.path(), batch).unwrap();
                here.ip(&["-batch", file.path().to_str().unwrap()]).unwrap();
                let mut snapshots = 0;
                while network.neighbors.len() < 6000 {
                    let change = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
                    let change = change.unwrap_or_else(|_| panic!("only {}", network.neighbors.len())).unwrap();
                    snapshots += usize::from(matches!(change, Change::Snapshot(_)));
                    change.apply(&mut network);
                }
                assert!(snapshots > 0, "the buffer was meant to overrun");
            });
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
