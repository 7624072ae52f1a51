//! The configuration directory: which files are read, what is said of them, when a change is noticed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use margay::config::{Error, check_network, load_dir, read_dir, render, watch};
use model::network::{IfIndex, Link, Mac, Network};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

const NODE: &str = "apiVersion: margay.io/v1\nkind: Node\nmetadata: {name: gw1}\nspec: {interfaces: [{name: eth0}]}\n";
const ROUTE: &str = "apiVersion: margay.io/v1\nkind: StaticRoute\nmetadata: {name: lab}\nspec:\n  prefix: 10.9.0.0/16\n  \
                     nextHops: [{address: 10.0.0.2, interface: eth7}]\n";
const ENDPOINT: &str = "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: uplink}\n\
                        spec: {node: gw1, interfaceName: eth8, profiles: [projectcalico-default-allow]}\n";

#[test]
fn documents_by_name_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.yaml", "a.yml", "c.json", ".hidden.yaml", "notes.txt", "b.yaml~", "yaml"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    fs::create_dir(dir.path().join("sub.yaml")).unwrap();
    symlink(dir.path().join("b.yaml"), dir.path().join("link.yaml")).unwrap();
    symlink(dir.path().join("nowhere"), dir.path().join("dangling.yaml")).unwrap();
    let files = read_dir(dir.path()).unwrap();
    let names: Vec<&str> =
        files.iter().map(|(name, _)| Path::new(name).file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["a.yml", "b.yaml", "c.json", "link.yaml"]);
    assert_eq!(read_dir(&dir.path().join("notes.txt")).unwrap().len(), 1);
    let error = read_dir(&dir.path().join("absent")).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot read {}/absent: ", dir.path().display())), "{error}");
    fs::write(dir.path().join("b.yaml"), [0xff, 0xfe]).unwrap();
    assert!(matches!(read_dir(dir.path()), Err(Error::Read { path, .. }) if path.ends_with("b.yaml")));
}

#[test]
fn errors_are_counted_and_placed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("node.yaml"), NODE.replace("eth0", "an-interface-too-long")).unwrap();
    fs::write(dir.path().join("route.yaml"), ROUTE.replace("10.9.0.0", "10.9.0.1")).unwrap();
    let error = load_dir(dir.path(), None).unwrap_err();
    let text = error.to_string().replace(&dir.path().display().to_string(), "DIR");
    assert_eq!(
        text,
        "DIR/node.yaml:4:28: error: Node gw1: spec.interfaces[0].name: interface names have at most 15 bytes, \
         'an-interface-too-long' has 21\n\
         DIR/route.yaml:5:11: error: StaticRoute lab: spec.prefix: 10.9.0.1/16 has host bits set\n  help: write 10.9.0.0/16\n\
         2 errors"
    );
}

#[test]
fn interfaces_that_are_not_there() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("node.yaml", NODE), ("route.yaml", ROUTE), ("endpoint.yaml", ENDPOINT)] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let loaded = load_dir(dir.path(), None).unwrap();
    let mut network = Network::default();
    for (index, name) in ["lo", "eth0"].into_iter().enumerate() {
        let link = Link { name: name.to_owned(), mac: Mac::default(), mtu: 1500, up: true, rx_queues: 1, vlan: None };
        network.links.insert(IfIndex(u32::try_from(index).unwrap() + 1), link);
    }
    let text = render(&check_network(&loaded, &network)).replace(&dir.path().display().to_string(), "DIR");
    assert_eq!(
        text,
        "DIR/route.yaml:6:45: error: StaticRoute lab: spec.nextHops[0].interface: there is no interface 'eth7'\n  \
         help: this machine has lo, eth0\n\
         DIR/endpoint.yaml:4:34: warning: HostEndpoint uplink: spec.interfaceName: there is no interface 'eth8'\n  \
         help: this machine has lo, eth0\n1 error, 1 warning"
    );
}

/// A burst that a stall of the machine has cut in two has two ticks, and rightly. It is made again then; ticks of its own a fault
/// would give each time.
const ATTEMPTS: usize = 5;

/// Makes a change and waits for its tick, and that it is the only one.
async fn one_tick(ticks: &mut UnboundedReceiver<()>, change: &str, mut make: impl FnMut()) {
    for _ in 0..ATTEMPTS {
        make();
        let first = timeout(Duration::from_secs(30), ticks.recv()).await;
        assert_eq!(first.unwrap_or_else(|_| panic!("no tick: {change}")), Some(()));
        let mut more = 0;
        while timeout(Duration::from_millis(500), ticks.recv()).await.is_ok() {
            more += 1;
            assert!(more < 5, "ticks without end: {change}");
        }
        if more == 0 {
            return;
        }
    }
    panic!("more than one tick, {ATTEMPTS} times: {change}");
}

#[tokio::test]
async fn every_way_to_change_a_file_is_one_tick() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let file = at("node.yaml");
    fs::write(&file, NODE).unwrap();
    let (sender, mut ticks) = unbounded_channel();
    let watcher = watch(dir.path(), sender).unwrap();

    one_tick(&mut ticks, "writes in place", || (0..10).for_each(|_| fs::write(&file, NODE).unwrap())).await;

    one_tick(&mut ticks, "an editor's rename", || {
        fs::write(at(".node.yaml.swp"), NODE).unwrap();
        fs::rename(at(".node.yaml.swp"), &file).unwrap();
    })
    .await;

    // As Kubernetes mounts a ConfigMap: the files link into ..data, which links to a directory and is replaced by a rename.
    one_tick(&mut ticks, "links made", || {
        for version in ["..1", "..2"] {
            fs::create_dir_all(at(version)).unwrap();
            fs::write(at(version).join("linked.yaml"), NODE.replace("gw1", &format!("gw{version}"))).unwrap();
        }
        for (name, target) in [("..data", "..1"), ("linked.yaml", "..data/linked.yaml")] {
            let _ = fs::remove_file(at(name));
            symlink(target, at(name)).unwrap();
        }
    })
    .await;
    one_tick(&mut ticks, "a link swapped", || {
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    })
    .await;
    assert!(read_dir(dir.path()).unwrap()[0].1.contains("gw..2"));

    one_tick(&mut ticks, "a removal", || {
        if !file.exists() {
            fs::write(&file, NODE).unwrap();
        }
        fs::remove_file(&file).unwrap();
    })
    .await;

    // Reading is no change.
    read_dir(dir.path()).unwrap();
    assert!(timeout(Duration::from_millis(500), ticks.recv()).await.is_err());

    drop(watcher);
    assert_eq!(timeout(Duration::from_secs(30), ticks.recv()).await, Ok(None), "the thread ends with the watcher");
}

#[tokio::test]
async fn what_cannot_be_watched_is_an_error() {
    let (sender, _ticks) = unbounded_channel();
    let error = watch(Path::new("/nonexistent/margay"), sender).unwrap_err();
    assert!(error.to_string().starts_with("cannot watch /nonexistent/margay: "), "{error}");
}
