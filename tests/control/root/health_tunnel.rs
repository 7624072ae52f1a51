//! Health checks via tunnel, against servers that have the VIP or do not, behind unmodified kernels.

use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use testkit::netns::{End, Netns, Process, veth};

use crate::harness::Lab;

const VIPS: [&str; 2] = ["192.0.2.10", "2001:db8:100::10"];
/// Of the VXLAN device at the second server.
const INNER_MAC: &str = "02:00:00:00:00:99";
/// The servers' addresses: on one link, behind a VXLAN device, and of one that has neither VIP nor tunnel.
const ON_LINK: [&str; 2] = ["10.2.0.2", "fd02::2"];
const IN_VXLAN: [&str; 2] = ["10.3.0.2", "fd03::2"];
const WITHOUT: [&str; 2] = ["10.4.0.2", "fd04::2"];

const NODE: &str = "
apiVersion: margay.io/v1
kind: Node
metadata: {name: gw}
spec:
  interfaces:
  - {name: left0}
  - {name: right0, sourceValidation: strict}
  - {name: vx0, sourceValidation: loose}
  - {name: bare0}
";

/// The VXLAN device of a family at the second server.
fn vxlan_of(family: usize) -> String {
    format!("{{type: VXLAN, vni: {}, mac: '{INNER_MAC}'}}", 4096 + family)
}

/// A service for each family, of the backends that `some` names.
fn services(protocol: &str, check: &str, some: &[[&str; 2]]) -> String {
    let service = |(family, vip): (usize, &&str)| {
        let encap = |backend: &str| match backend {
            _ if backend == ON_LINK[family] => "{type: L2}".to_owned(),
            _ if backend == IN_VXLAN[family] => vxlan_of(family),
            _ => "{type: IPIP}".to_owned(),
        };
        let backends: String = some
            .iter()
            .map(|addresses| format!("  - {{address: '{}', encap: {}}}\n", addresses[family], encap(addresses[family])))
            .collect();
        format!(
            "---\napiVersion: margay.io/v1\nkind: VirtualService\nmetadata: {{name: web{family}}}\nspec:\n  addresses: ['{vip}']\n  \
             port: 8080\n  protocol: {protocol}\n  healthCheck: {check}\n  backends:\n{backends}"
        )
    };
    NODE.to_owned() + &VIPS.iter().enumerate().map(service).collect::<String>()
}

struct World {
    lab: Lab,
    vxlan: Netns,
    bare: Netns,
}

/// Takes whatever comes to it, by whatever device.
fn trusting(host: &Netns) {
    for key in ["all", "default"] {
        host.sysctl(&format!("net.ipv4.conf.{key}.rp_filter"), "0").unwrap();
    }
}

fn vip(host: &Netns, what: &str) {
    for (vip, length) in VIPS.iter().zip([32, 128]) {
        host.ip(&["address", what, &format!("{vip}/{length}"), "dev", "lo"]).unwrap();
    }
}

impl World {
    fn new(name: &str, documents: &str) -> Self {
        let lab = Lab::new(name, documents);
        let [vxlan, bare] = ["tunnel-vxlan", "tunnel-bare"].map(|name| Netns::new(name).unwrap());
        [&lab.gateway, &lab.server, &vxlan, &bare].into_iter().for_each(trusting);
        for (near, far, n) in [("vx0", &vxlan, 3), ("bare0", &bare, 4)] {
            let nets = |host: u32| [format!("10.{n}.0.{host}/24"), format!("fd0{n}::{host}/64")];
            let [ours, theirs] = [1, 2].map(|host| nets(host).map(|net| net.parse().unwrap()));
            veth(
                End { netns: &lab.gateway, name: near, addresses: &ours },
                End { netns: far, name: "eth0", addresses: &theirs },
            )
            .unwrap();
            far.ip(&["route", "add", "default", "via", &format!("10.{n}.0.1")]).unwrap();
            far.ip(&["-6", "route", "add", "default", "via", &format!("fd0{n}::1")]).unwrap();
            far.run("ethtool", &["-K", "eth0", "gro", "on", "tx", "off"]).unwrap();
        }
        for (device, vni, local) in [("vxlan4", "4096", IN_VXLAN[0]), ("vxlan6", "4097", IN_VXLAN[1])] {
            let device = ["link", "add", device, "address", INNER_MAC, "type", "vxlan", "id", vni, "local", local];
            let checksums = if local.contains(':') { ["udp6zerocsumrx"].as_slice() } else { &[] };
            vxlan.ip(&[device.as_slice(), &["dstport", "4789", "nolearning"], checksums].concat()).unwrap();
        }
        for device in ["vxlan4", "vxlan6"] {
            vxlan.ip(&["link", "set", device, "up"]).unwrap();
        }
        [&*lab.server, &vxlan].into_iter().for_each(|host| vip(host, "add"));
        Self { lab, vxlan, bare }
    }

    fn backend(&self, address: &str) -> Value {
        self.lab.get(&["backends", address]).remove(0)
    }

    fn is(&self, address: &str, state: &str) -> bool {
        self.backend(address)["state"] == state
    }

    fn until_all(&self, addresses: &[&str], state: &str) {
        self.lab
            .until(&format!("{addresses:?} are {state}"), |_| addresses.iter().all(|address| self.is(address, state)));
    }

    fn last_error(&self, address: &str) -> String {
        self.backend(address)["health"]["last"]["error"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the last check of a backend says this.
    fn until_said(&self, address: &str, words: &str) {
        self.lab.until(&format!("of {address}: {words}"), |_| self.last_error(address).contains(words));
    }

    /// Rules, routes and devices of checks via tunnel that the gateway has.
    fn left_behind(&self) -> Vec<String> {
        let gateway = &self.lab.gateway;
        let rules = ["-4", "-6"].map(|family| gateway.ip(&[family, "rule", "show"]).unwrap());
        let mut found: Vec<String> = rules
            .iter()
            .flat_map(|rules| rules.lines())
            .filter(|line| line.contains("fwmark"))
            .map(str::to_owned)
            .collect();
        found
            .extend(gateway.ip(&["link", "show"]).unwrap().lines().filter(|l| l.contains("margay")).map(str::to_owned));
        for family in ["-4", "-6"] {
            let routes = gateway.ip(&[family, "route", "show", "table", "all"]).unwrap();
            found.extend(routes.lines().filter(|line| line.contains("margay-check")).map(str::to_owned));
        }
        found
    }
}

/// A web server at one address; it serves an empty directory.
fn web(host: &Netns, directory: &std::path::Path, address: &str) -> Process {
    let root = directory.join("www");
    std::fs::create_dir_all(&root).unwrap();
    let root = root.display().to_string();
    let mut command = host.command("/usr/bin/python3");
    command.args(["-m", "http.server", "8080", "--bind", address, "--directory", &root]);
    Process::start({
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    })
    .unwrap()
}

fn webs(world: &World, host: &Netns, addresses: [&str; 2]) -> [Process; 2] {
    addresses.map(|address| web(host, world.lab.directory.path(), address))
}

const TCP: &str = "{type: TCP, via: tunnel, interval: 200ms, timeout: 150ms, rise: 2, fall: 2}";

#[test]
fn who_serves_the_vip_is_up_and_who_only_answers_is_not() {
    let all = [ON_LINK, IN_VXLAN, WITHOUT];
    let mut world = World::new("tunnel", &services("TCP", TCP, &all));
    let _servers =
        [webs(&world, &world.lab.server, VIPS), webs(&world, &world.vxlan, VIPS), webs(&world, &world.bare, WITHOUT)];
    world.lab.start();
    world.until_all(&[ON_LINK, IN_VXLAN].concat(), "up");
    world.until_all(&WITHOUT, "down");
    for (address, vip) in WITHOUT.iter().zip(VIPS) {
        let wanted =
            format!("no connection within 150ms: the backend may not take IPIP off, or not have {vip} on its loopback");
        world.until_said(address, &wanted);
        assert_eq!(world.backend(address)["usable"], false);
    }
    assert_eq!(world.backend(ON_LINK[0])["health"]["check"], "TCP 192.0.2.10:8080 via tunnel to 10.2.0.2");
    let table = world.lab.margay(&["get", "backends", ON_LINK[0]]).stdout;
    assert!(String::from_utf8_lossy(&table).contains("ok via tunnel, "), "{}", String::from_utf8_lossy(&table));
    // The same backends by their own addresses: only those that nobody can reach through the VIP answer there.
    world.lab.write("lab.yaml", &services("TCP", &TCP.replace("via: tunnel, ", ""), &all));
    world.until_all(&WITHOUT, "up");
    world.until_all(&[ON_LINK, IN_VXLAN].concat(), "down");
    world.lab.until("nothing is needed any more", |_| world.left_behind().is_empty());

    let http = "{type: HTTP, via: tunnel, interval: 200ms, timeout: 150ms, rise: 2, fall: 2}";
    world.lab.write("lab.yaml", &services("TCP", http, &all));
    world.until_all(&[ON_LINK, IN_VXLAN].concat(), "up");
    world.until_all(&WITHOUT, "down");
    for vip in VIPS {
        let host = if vip.contains(':') { format!("[{vip}]") } else { vip.to_owned() };
        for _ in 0..8 {
            world.lab.client.run("curl", &["-sf", "-m", "5", &format!("http://{host}:8080/")]).unwrap();
        }
    }
    world.lab.stop("-TERM");
    assert_eq!(world.left_behind(), [""; 0]);
}

#[test]
fn a_backend_that_loses_its_vip_goes_down_and_comes_back() {
    let mut world = World::new("tunnel-vip", &services("TCP", TCP, &[ON_LINK, IN_VXLAN]));
    let any = "import socket, threading
def serve(family, address):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((address, 8080)); s.listen(64)
    while True: kept.append(s.accept()[0])
kept = []
threading.Thread(target=serve, args=(socket.AF_INET, '')).start()
serve(socket.AF_INET6, '::')";
    let _servers = [&*world.lab.server, &world.vxlan].map(|host| host.spawn("/usr/bin/python3", &["-c", any]).unwrap());
    world.lab.start();
    let all = [ON_LINK, IN_VXLAN].concat();
    world.until_all(&all, "up");
    // The server learns that a check is over, whoever closes first.
    world.lab.until("twenty checks", |_| {
        all.iter().all(|address| world.backend(address)["health"]["succeeded"].as_u64() > Some(20))
    });
    for host in [&*world.lab.server, &world.vxlan] {
        world.lab.until("no connection is left", |_| {
            let open = host.run("ss", &["-Htn", "state", "connected", "sport = :8080"]).unwrap();
            open.lines().count() < 5
        });
    }
    vip(&world.vxlan, "del");
    world.until_all(&IN_VXLAN, "down");
    assert!(ON_LINK.iter().all(|address| world.is(address, "up")), "one of two at the same VIP");
    vip(&world.vxlan, "add");
    world.until_all(&IN_VXLAN, "up");
    // What takes the packets out of their tunnel.
    world.vxlan.ip(&["link", "set", "vxlan4", "down"]).unwrap();
    world.until_all(&IN_VXLAN[..1], "down");
    world.until_said(IN_VXLAN[0], "may not take VXLAN off");
    assert!(world.is(IN_VXLAN[1], "up"));
    world.vxlan.ip(&["link", "set", "vxlan4", "up"]).unwrap();
    world.until_all(&all, "up");
    // A host that is gone altogether, and is there again with another address of its link.
    world.lab.server.ip(&["link", "set", "eth0", "down"]).unwrap();
    world.until_all(&ON_LINK[..1], "down");
    world.lab.server.ip(&["link", "set", "eth0", "address", "02:00:00:00:07:07", "up"]).unwrap();
    world.until_all(&ON_LINK[..1], "up");
}

#[test]
fn datagrams_and_echoes_go_the_same_way() {
    let udp = "{type: UDP, via: tunnel, interval: 200ms, timeout: 150ms, send: ping, expect: pong}";
    let mut world = World::new("tunnel-udp", &services("UDP", udp, &[ON_LINK, IN_VXLAN, WITHOUT]));
    let answering = |host: &Netns, address: &str| {
        let family = if address.contains(':') { "AF_INET6" } else { "AF_INET" };
        let program = format!(
            "import socket\ns = socket.socket(socket.{family}, socket.SOCK_DGRAM)\ns.bind(('{address}', 8080))\n\
             while True:\n    data, peer = s.recvfrom(2048)\n    if data == b'ping': s.sendto(b'pong', peer)"
        );
        host.spawn("/usr/bin/python3", &["-c", &program]).unwrap()
    };
    let servers = VIPS.map(|vip| answering(&world.lab.server, vip));
    let _more = [VIPS.map(|vip| answering(&world.vxlan, vip)), WITHOUT.map(|own| answering(&world.bare, own))];
    world.lab.start();
    let all = [ON_LINK, IN_VXLAN].concat();
    world.until_all(&all, "up");
    world.until_all(&WITHOUT, "down");
    world.until_said(WITHOUT[0], "no UDP answer within 150ms: the backend may not take IPIP off");
    drop(servers);
    world.until_all(&ON_LINK, "down");
    for address in ON_LINK {
        world.until_said(address, "port unreachable");
    }

    let icmp = "{type: ICMP, via: tunnel, interval: 200ms, timeout: 150ms, rise: 2, fall: 2}";
    world.lab.write("lab.yaml", &services("UDP", icmp, &[ON_LINK, IN_VXLAN, WITHOUT]));
    world.until_all(&all, "up");
    world.until_all(&WITHOUT, "down");
    world.until_said(WITHOUT[1], "no echo reply within 150ms: the backend may not take IPIP off");
    vip(&world.lab.server, "del");
    world.until_all(&ON_LINK, "down");
    world.until_said(ON_LINK[0], "the backend may not have 192.0.2.10 on its loopback");
    assert!(IN_VXLAN.iter().all(|address| world.is(address, "up")));

    // Silence may be enough, but not of what has not been asked.
    let any = "{type: UDP, via: tunnel, interval: 200ms, timeout: 150ms, rise: 2, fall: 2}";
    world.lab.write("lab.yaml", &services("UDP", any, &[ON_LINK, WITHOUT]));
    world.until_all(&[ON_LINK, WITHOUT].concat(), "up");
    world.lab.server.ip(&["address", "flush", "dev", "eth0"]).unwrap();
    for address in ON_LINK {
        world.lab.gateway.ip(&["neigh", "del", address, "dev", "right0"]).unwrap();
    }
    world.until_all(&ON_LINK, "down");
    for address in ON_LINK {
        world.until_said(address, &format!("neighbour {address} does not answer"));
    }
}

/// What no kernel here takes off another margay does, with the VIP on the loopback of its host.
#[test]
fn encapsulations_are_those_of_clients_packets() {
    let documents = |kind: &str| services("TCP", TCP, &[WITHOUT]).replace("{type: IPIP}", &format!("{{type: {kind}}}"));
    let mut world = World::new("tunnel-encap", &documents("IPIP"));
    let backend = std::mem::replace(&mut world.bare, Netns::new("tunnel-none").unwrap());
    vip(&backend, "add");
    let _servers = webs(&world, &backend, VIPS);
    let tunnel = |kind: &str| {
        let peers = "[10.4.0.1, 'fd04::1']";
        let name = kind.to_lowercase();
        format!(
            "---\napiVersion: margay.io/v1\nkind: Tunnel\nmetadata: {{name: {name}}}\nspec: {{type: {kind}, peers: {peers}}}\n"
        )
    };
    let node = "apiVersion: margay.io/v1\nkind: Node\nmetadata: {name: gw}\nspec: {interfaces: [{name: eth0}]}\n";
    let (client, server) = (Arc::clone(&world.lab.client), Arc::clone(&world.lab.server));
    let taking = node.to_owned() + &tunnel("IPIP") + &tunnel("GUE");
    let mut decap = Lab::between("tunnel-decap", &taking, backend, client, server);
    decap.start();
    world.lab.start();
    world.until_all(&WITHOUT, "up");
    world.lab.write("lab.yaml", &documents("GUE"));
    world.lab.until("GUE", |_| world.backend(WITHOUT[0])["encap"] == "GUE");
    let asked = world.backend(WITHOUT[0])["health"]["succeeded"].as_u64();
    world
        .lab
        .until("asked in it", |_| world.backend(WITHOUT[0])["health"]["succeeded"].as_u64() > asked.map(|n| n + 2));
    world.until_all(&WITHOUT, "up");
    decap.write("lab.yaml", &(node.to_owned() + &tunnel("IPIP")));
    world.until_all(&WITHOUT, "down");
    world.until_said(WITHOUT[0], "may not take GUE off");
    world.lab.write("lab.yaml", &documents("IPIP"));
    world.until_all(&WITHOUT, "up");
}

/// Nobody goes out who was in; what the killed process left is used, or taken away.
#[test]
fn a_process_that_is_killed_leaves_nothing_in_the_way() {
    let documents = services("TCP", TCP, &[ON_LINK, WITHOUT]);
    let mut world = World::new("tunnel-kill", &documents);
    let _servers = [webs(&world, &world.lab.server, VIPS), webs(&world, &world.bare, WITHOUT)];
    world.lab.start();
    world.until_all(&ON_LINK, "up");
    world.until_all(&WITHOUT, "down");
    let rule = |table: &str| format!("12397:\tfrom all fwmark 0x306d lookup {table} proto 109");
    let rules = |world: &World| -> Vec<String> {
        world
            .left_behind()
            .into_iter()
            .filter(|line| line.contains("fwmark"))
            .map(|line| line.trim().to_owned())
            .collect()
    };
    assert_eq!(rules(&world), [rule("12397"), rule("12397")]);

    world.lab.stop("-KILL");
    assert_eq!(rules(&world), [rule("12397"), rule("12397")], "and no device");
    assert_eq!(world.left_behind().len(), 2);
    let before = world.lab.words().len();
    world.lab.start();
    for address in ON_LINK {
        assert_eq!(world.backend(address)["share_percent"].as_f64(), Some(100.0), "from the first generation on");
    }
    world.until_all(&WITHOUT, "down");
    world
        .lab
        .until("asked again", |_| ON_LINK.iter().all(|address| world.backend(address)["health"]["succeeded"] != 0));
    assert_eq!(rules(&world), [rule("12397"), rule("12397")]);
    let said = world.lab.words()[before..].to_owned();
    assert!(
        !ON_LINK.iter().any(|address| said.contains(&format!("backend={address}"))),
        "never anything else:\n{said}"
    );

    // Another mark, another table.
    world.lab.write(
        "lab.yaml",
        &documents.replace(
            "metadata: {name: gw}\nspec:",
            "metadata: {name: gw}\nspec:\n  healthChecks: {mark: 77, table: 78}",
        ),
    );
    let other = "12397:\tfrom all fwmark 0x4d lookup 78 proto 109".to_owned();
    world.lab.until("the other mark", |_| rules(&world) == [other.clone(), other.clone()]);
    world.lab.until("asked that way", |_| {
        world.lab.gateway.ip(&["route", "show", "table", "78"]).is_ok_and(|r| r.contains("margay-check"))
    });
    let asked = world.backend(ON_LINK[0])["health"]["succeeded"].as_u64();
    world
        .lab
        .until("asked again", |_| world.backend(ON_LINK[0])["health"]["succeeded"].as_u64() > asked.map(|n| n + 2));
    assert!(ON_LINK.iter().all(|address| world.is(address, "up")));

    // Killed, and started without such checks.
    world.lab.stop("-KILL");
    assert_eq!(world.left_behind().len(), 2);
    world.lab.write("lab.yaml", NODE);
    world.lab.start();
    world.lab.until("nothing is left", |_| world.left_behind().is_empty());
}

/// A rule of somebody else's that takes the checks' packets away does not make backends healthy that are not; nor does an address of this node.
#[test]
fn what_does_not_go_through_the_tunnel_is_no_answer() {
    let mut world = World::new("tunnel-else", &services("TCP", TCP, &[ON_LINK, WITHOUT]));
    let _servers = [webs(&world, &world.lab.server, VIPS), webs(&world, &world.bare, WITHOUT)];
    world.lab.start();
    world.until_all(&ON_LINK, "up");
    let gateway = &world.lab.gateway;
    gateway.ip(&["route", "add", &format!("{}/32", VIPS[0]), "via", "10.2.0.2", "table", "99"]).unwrap();
    gateway.ip(&["rule", "add", "to", VIPS[0], "lookup", "99", "priority", "100"]).unwrap();
    world.until_all(&ON_LINK[..1], "down");
    world.until_said(ON_LINK[0], "its packets do not come to margay-check");
    assert!(world.is(ON_LINK[1], "up"));
    gateway.ip(&["rule", "del", "priority", "100"]).unwrap();
    world.until_all(&ON_LINK[..1], "up");
    // Somebody takes the device away.
    gateway.ip(&["link", "del", "margay-check"]).unwrap();
    world.lab.until("another is there", |world| world.gateway.ip(&["link", "show", "margay-check"]).is_ok());
    let asked = world.backend(ON_LINK[0])["health"]["succeeded"].as_u64();
    world
        .lab
        .until("asked again", |_| world.backend(ON_LINK[0])["health"]["succeeded"].as_u64() > asked.map(|n| n + 2));

    gateway.ip(&["address", "add", "192.0.2.10/32", "dev", "lo"]).unwrap();
    world.until_all(&ON_LINK[..1], "down");
    world.until_said(ON_LINK[0], "192.0.2.10 is an address of this node: a check of it ends here");
    let problems = world.lab.status()["problems"].to_string();
    assert!(
        problems.contains("VirtualService web0 cannot be checked via tunnel: 192.0.2.10 is an address"),
        "{problems}"
    );
}

/// The checks go out from an address of the VIP's family, whatever the backend's.
#[test]
fn a_vip_and_its_backend_may_be_of_different_families() {
    let document = |vip: &str| {
        services("TCP", TCP, &[IN_VXLAN]).split("---").take(2).collect::<Vec<_>>().join("---").replace(VIPS[0], vip)
    };
    let mut world = World::new("tunnel-families", &document(VIPS[1]));
    let _servers = webs(&world, &world.vxlan, VIPS);
    world.lab.start();
    world.until_all(&IN_VXLAN[..1], "up");
    assert_eq!(world.backend(IN_VXLAN[0])["health"]["check"], "TCP [2001:db8:100::10]:8080 via tunnel to 10.3.0.2");
    world.lab.gateway.ip(&["-6", "address", "del", "fd03::1/64", "dev", "vx0"]).unwrap();
    world.until_all(&IN_VXLAN[..1], "down");
    let said = "no IPv6 address on the interface towards it, from which to ask 2001:db8:100::10";
    world.until_said(IN_VXLAN[0], said);
}

/// Answers have the VIP's address, which the host's own filter of sources may not expect.
#[test]
fn the_hosts_filter_of_sources_has_to_let_answers_in() {
    let mut world = World::new("tunnel-filter", &services("TCP", TCP, &[ON_LINK]));
    let _servers = webs(&world, &world.lab.server, VIPS);
    world.lab.start();
    world.until_all(&ON_LINK, "up");
    let gateway = &world.lab.gateway;
    let filter = |mode: &str| gateway.sysctl("net.ipv4.conf.all.rp_filter", mode).unwrap();
    let four = &ON_LINK[..1];
    filter("2");
    world.until_all(four, "down");
    gateway.ip(&["route", "add", "default", "via", "10.1.0.2"]).unwrap();
    world.until_all(four, "up");
    filter("1");
    world.until_all(four, "down");
    gateway.ip(&["route", "add", "192.0.2.10/32", "via", "10.2.0.2"]).unwrap();
    world.until_all(four, "up");
    assert!(world.is(ON_LINK[1], "up"), "IPv6 has none");
}

/// A backend behind a route of the kernel is not judged before that is known; without a route it is down.
#[test]
fn a_backend_needs_a_route() {
    const ROUTED: &str = "10.7.0.1";
    let document = services("TCP", TCP, &[IN_VXLAN]).split("---").take(2).collect::<Vec<_>>().join("---");
    let mut world = World::new("tunnel-route", &document.replace(IN_VXLAN[0], ROUTED));
    world.vxlan.ip(&["address", "add", &format!("{ROUTED}/32"), "dev", "lo"]).unwrap();
    let _servers = webs(&world, &world.vxlan, VIPS);
    world.lab.gateway.ip(&["route", "add", "10.7.0.0/16", "via", IN_VXLAN[0]]).unwrap();
    world.lab.until("it listens", |_| world.vxlan.run("ss", &["-Hltn"]).unwrap().lines().count() >= 2);
    world.lab.start();
    world.until_all(&[ROUTED], "up");
    assert!(!world.lab.words().contains("no packet is sent"), "{}", world.lab.words());
    let route = |what: &str| world.lab.gateway.ip(&["route", what, "10.7.0.0/16", "via", IN_VXLAN[0]]).unwrap();
    route("del");
    world.until_all(&[ROUTED], "down");
    world.until_said(ROUTED, "no packet is sent to it: it has no route");
    route("add");
    world.until_all(&[ROUTED], "up");
}
