//! Host endpoints: their pipelines, failsafe ports, and which interface has which (statements 4 to 6 and 8).

use margay_model::policy::{Direction, EndpointToHost, Expectation, Expected, Packet, Pipeline, Policies};

use super::{PODS, ask, calico, check, files, global, judged, policies, render, tcp};

const NODE: &str = "apiVersion: margay.io/v1\nkind: Node\nmetadata: {name: n1}\nspec:\n  interfaces: [{name: eth0}]\n  \
                    failsafeInboundHostPorts: [{protocol: TCP, port: 22, net: 192.0.2.0/24}]\n  \
                    failsafeOutboundHostPorts: [{protocol: UDP, port: 53}]\n---\n";

/// A host endpoint of node n1 with the address 192.0.2.10.
fn host(name: &str, interface: &str, profiles: &str) -> String {
    let spec = format!("{{node: n1, {interface}expectedIPs: [192.0.2.10], profiles: [{profiles}]}}");
    calico("HostEndpoint", &format!("name: {name}, labels: {{host: {name}}}"), &spec)
}

fn uplink(profiles: &str) -> String {
    host("uplink", "interfaceName: eth0, ", profiles)
}

/// What each pipeline of `uplink` says about a packet towards port 80, as verdict and reason.
fn pipelines(policies: &Policies, direction: Direction) -> Vec<String> {
    let packet = match direction {
        Direction::Ingress => tcp("198.51.100.1", "192.0.2.10", 80),
        Direction::Egress => tcp("192.0.2.10", "198.51.100.1", 80),
    };
    let say = |pipeline| {
        let decision = ask(policies, "uplink", pipeline, direction, &packet);
        format!("{pipeline} {}: {}", decision.verdict, decision.reason)
    };
    [Pipeline::Untracked, Pipeline::PreDnat, Pipeline::Forward, Pipeline::Host].map(say).to_vec()
}

#[test]
fn a_host_endpoint_without_policy_drops_what_no_profile_allows_and_forwards_everything() {
    let text = NODE.to_owned() + &uplink("");
    for direction in [Direction::Ingress, Direction::Egress] {
        assert_eq!(
            pipelines(&policies(&text), direction),
            [
                "untracked next: no policy decides",
                "pre-DNAT next: no policy decides",
                "forward allow: no policy decides",
                "host deny: no profile matches",
            ]
        );
    }
    let open = policies(&(NODE.to_owned() + &uplink("projectcalico-default-allow")));
    assert_eq!(pipelines(&open, Direction::Ingress)[3], "host allow: profile projectcalico-default-allow: ingress[0]");
    // No host endpoint, no policy.
    let flow = ["from: 198.51.100.1, to: 192.0.2.10, port: 80"];
    assert_eq!(judged(&policies(NODE), &flow), ["allow: outside"]);
}

#[test]
fn each_pipeline_asks_its_own_policies() {
    let asked = |flags: &str| {
        let text = global("p", &format!("{{{flags} ingress: [{{action: Deny}}]}}"));
        let said = pipelines(
            &policies(&(NODE.to_owned() + &uplink("projectcalico-default-allow") + &text)),
            Direction::Ingress,
        );
        said.iter().map(|text| text.contains("deny: tier default: GlobalNetworkPolicy p")).collect::<Vec<_>>()
    };
    assert_eq!(asked(""), [false, false, false, true]);
    assert_eq!(asked("applyOnForward: true,"), [false, false, true, true]);
    assert_eq!(asked("doNotTrack: true, applyOnForward: true,"), [true, false, false, false]);
    assert_eq!(asked("preDNAT: true, applyOnForward: true,"), [false, true, false, false]);
}

#[test]
fn untracked_and_pre_dnat_policy_has_no_end_of_tier() {
    let said = |flags: &str| {
        let text =
            global("p", &format!("{{{flags} applyOnForward: true, ingress: [{{action: Allow, protocol: UDP}}]}}"));
        pipelines(&policies(&(NODE.to_owned() + &uplink("projectcalico-default-allow") + &text)), Direction::Ingress)
    };
    assert_eq!(said("doNotTrack: true,")[0], "untracked next: no policy decides");
    assert_eq!(said("preDNAT: true,")[1], "pre-DNAT next: no policy decides");
    let end = "deny: tier default: end, after GlobalNetworkPolicy p";
    assert_eq!(said("")[2..], [format!("forward {end}"), format!("host {end}")]);
}

#[test]
fn policy_of_hosts_alone_is_not_asked_about_workloads() {
    let flow = "from: 198.51.100.1, to: prod/server, port: 80";
    for flags in ["doNotTrack: true", "preDNAT: true"] {
        let text = global("p", &format!("{{{flags}, applyOnForward: true, ingress: [{{action: Deny}}]}}"));
        check(&text, &[(flow, "allow: profile kns.prod: ingress[0]")]);
    }
    let text = global("p", "{applyOnForward: true, ingress: [{action: Deny}]}");
    check(&text, &[(flow, "deny: tier default: GlobalNetworkPolicy p: ingress[0]")]);
}

#[test]
fn what_untracked_or_pre_dnat_policy_allows_is_final_for_its_endpoint() {
    let deny = global("deny", "{selector: has(host), applyOnForward: true, ingress: [{action: Deny}]}");
    let to_host = "from: 198.51.100.1, to: uplink, port: 80";
    let through = "from: 198.51.100.1, to: prod/server, port: 80, enters: uplink";
    let documents = NODE.to_owned() + &uplink("") + &deny;
    let denied = "deny: tier default: GlobalNetworkPolicy deny: ingress[0]";
    check(&documents, &[(to_host, denied), (through, denied)]);
    for flags in ["doNotTrack: true", "preDNAT: true"] {
        let allow = global(
            "allow",
            &format!("{{selector: has(host), {flags}, applyOnForward: true, ingress: [{{action: Allow}}]}}"),
        );
        check(
            &(documents.clone() + &allow),
            &[
                (to_host, "allow: tier default: GlobalNetworkPolicy allow: ingress[0]"),
                // The workload's own policy is asked all the same.
                (through, "allow: profile kns.prod: ingress[0]"),
            ],
        );
        // And so is that of the interface by which it leaves.
        let out = global("out", "{selector: has(host), applyOnForward: true, egress: [{action: Deny}]}");
        let flow = "from: 198.51.100.1, to: 203.0.113.1, port: 80, enters: uplink, leaves: uplink";
        check(
            &(documents.clone() + &allow + &out),
            &[(flow, "deny: tier default: GlobalNetworkPolicy out: egress[0]")],
        );
    }
}

#[test]
fn pre_dnat_policy_is_for_what_comes_in() {
    let text = global("p", "{preDNAT: true, applyOnForward: true, ingress: [{action: Deny}]}");
    let policies = policies(&(NODE.to_owned() + &uplink("") + &text));
    assert_eq!(pipelines(&policies, Direction::Egress)[1], "pre-DNAT next: no policy decides");
}

#[test]
fn failsafe_ports_go_ahead_of_every_stage_but_forwarding() {
    let deny = ["", "doNotTrack: true,", "preDNAT: true,"].map(|flags| {
        let egress = if flags.contains("DNAT") { "" } else { ", egress: [{action: Deny}]" };
        let name = if flags.is_empty() { "normal" } else { &flags[..5].to_lowercase() };
        global(name, &format!("{{{flags} applyOnForward: true, ingress: [{{action: Deny}}]{egress}}}"))
    });
    let policies = policies(&(NODE.to_owned() + &uplink("") + &deny.concat()));
    let verdicts = |direction, packet: &Packet| {
        [Pipeline::Untracked, Pipeline::PreDnat, Pipeline::Forward, Pipeline::Host]
            .map(|pipeline| ask(&policies, "uplink", pipeline, direction, packet).verdict.to_string())
    };
    let ssh = tcp("192.0.2.1", "192.0.2.10", 22);
    assert_eq!(verdicts(Direction::Ingress, &ssh), ["next", "next", "deny", "allow"]);
    // The prefix of a failsafe port is that of the other side.
    assert_eq!(verdicts(Direction::Ingress, &tcp("198.51.100.1", "192.0.2.10", 22)), ["deny", "deny", "deny", "deny"]);
    assert_eq!(verdicts(Direction::Ingress, &tcp("192.0.2.1", "192.0.2.10", 23)), ["deny", "deny", "deny", "deny"]);
    let udp = |packet: Packet, ports| Packet { protocol: 17, ports: Some(ports), ..packet };
    let dns = udp(tcp("192.0.2.10", "198.51.100.1", 0), (50_000, 53));
    assert_eq!(verdicts(Direction::Egress, &dns), ["next", "next", "deny", "allow"]);
    // Untracked policy sees replies as packets of their own.
    let reply = udp(tcp("198.51.100.1", "192.0.2.10", 0), (53, 50_000));
    assert_eq!(verdicts(Direction::Ingress, &reply), ["next", "deny", "deny", "deny"]);
    let reply = Packet { ports: Some((22, 50_000)), ..tcp("192.0.2.10", "192.0.2.1", 0) };
    assert_eq!(verdicts(Direction::Egress, &reply), ["next", "next", "deny", "deny"]);
}

#[test]
fn failsafe_ports_are_felixs_where_the_node_is_not_known() {
    let text = uplink("") + &global("p", "{ingress: [{action: Deny}]}");
    check(&text, &[("from: 198.51.100.1, to: uplink, port: 22", "allow: failsafe port")]);
}

#[test]
fn what_becomes_of_packets_to_the_own_host() {
    let verdict = |documents: &str, action| {
        let policies = policies(&(PODS.to_owned() + NODE + documents));
        let flows = Expectation::read("f", "- {from: prod/client, to: all, port: 80}", &policies);
        let flows = flows.unwrap_or_else(|errors| panic!("{:?}", render(&errors)));
        Expected::of(&flows[0].judge(&policies, action))
    };
    let open = host("all", "interfaceName: '*', ", "projectcalico-default-allow");
    let closed = host("all", "interfaceName: '*', ", "");
    let actions = [EndpointToHost::Drop, EndpointToHost::Accept, EndpointToHost::Return];
    let (allow, deny) = (Expected::Allow, Expected::Deny);
    assert_eq!(actions.map(|action| verdict(&open, action)), [deny, allow, allow]);
    assert_eq!(actions.map(|action| verdict(&closed, action)), [deny, allow, deny]);
    // The workload's egress policy comes first.
    let out = global("out", "{selector: role == 'client', egress: [{action: Deny}]}");
    assert_eq!(actions.map(|action| verdict(&(open.clone() + &out), action)), [deny, deny, deny]);
    // A named interface is not the one that the workload's packets come in by.
    let named = host("all", "interfaceName: eth0, ", "");
    assert_eq!(verdict(&named, EndpointToHost::Return), allow);
}

#[test]
fn a_named_endpoint_has_its_interface_then_one_by_address_then_the_one_for_all() {
    let found = |documents: &str, interface: &str| {
        let policies = policies(documents);
        let address = "192.0.2.10".parse().unwrap();
        policies.host_endpoint_of("n1", interface, &[address]).map(|endpoint| endpoint.name.clone())
    };
    let name = |name: &str| Some(name.to_owned());
    let (named, by_address) = (host("named", "interfaceName: eth0, ", ""), host("by-address", "", ""));
    let all = host("all", "interfaceName: '*', ", "");
    let together = named.clone() + &by_address + &all;
    assert_eq!(found(&together, "eth0"), name("named"));
    assert_eq!(found(&together, "eth1"), name("by-address"));
    // One that names another interface never matches by its addresses.
    assert_eq!(found(&named, "eth1"), None);
    assert_eq!(found(&(named + &all), "eth1"), name("all"));
    // Of two the first by name.
    assert_eq!(
        found(&(host("b", "interfaceName: eth0, ", "") + &host("a", "interfaceName: eth0, ", "")), "eth0"),
        name("a")
    );
    let elsewhere = all.replace("node: n1", "node: n2");
    assert_eq!(found(&elsewhere, "eth0"), None);
}

#[test]
fn untracked_policy_is_left_out_where_an_endpoint_is_for_all_interfaces() {
    let untracked = global("p", "{doNotTrack: true, applyOnForward: true, ingress: [{action: Deny}]}");
    let text = host("uplink", "interfaceName: '*', ", "projectcalico-default-allow") + &untracked;
    assert_eq!(pipelines(&policies(&text), Direction::Ingress)[0], "untracked next: no policy decides");
    let warnings = render(&margay_model::load::load_policy(&files(&text)).unwrap().warnings);
    assert_eq!(
        warnings,
        [
            "test.yaml:4:33: warning: HostEndpoint uplink: spec.interfaceName: GlobalNetworkPolicy p does not track, and is of no \
          effect on interfaceName '*'\n  help: name the interface"
        ]
    );
}

#[test]
fn hosts_send_by_untracked_then_normal_policy() {
    let flow = "from: uplink, to: 198.51.100.1, port: 80";
    let documents = NODE.to_owned() + &uplink("projectcalico-default-allow");
    check(&documents, &[(flow, "allow: profile projectcalico-default-allow: egress[0]")]);
    let untracked = global("u", "{doNotTrack: true, applyOnForward: true, egress: [{action: Deny}]}");
    check(&(documents.clone() + &untracked), &[(flow, "deny: tier default: GlobalNetworkPolicy u: egress[0]")]);
    let normal = global("n", "{selector: has(host), egress: [{action: Allow, protocol: UDP}]}");
    check(&(documents + &normal), &[(flow, "deny: tier default: end, after GlobalNetworkPolicy n")]);
}
