//! The order of evaluation: tiers, policies, rules, ends of tiers, profiles (statements 1 to 4, 7 and 9 of Calico's semantics).

use margay_model::policy::{Direction, EndpointToHost, Expectation, Pipeline, Reason, Verdict};

use super::{PODS, ask, calico, check, global, namespaced, policies, tcp};

const FLOW: &str = "from: prod/client, to: prod/server, port: 80";

/// A tier, and a policy in it that does `action` to everything.
fn tier(name: &str, order: &str, action: &str) -> String {
    calico("Tier", &format!("name: {name}"), &format!("{{{order}}}"))
        + &global(&format!("of-{name}"), &format!("{{tier: {name}, ingress: [{{action: {action}}}]}}"))
}

#[test]
fn without_policy_the_namespace_allows() {
    check("", &[(FLOW, "allow: profile kns.prod: ingress[0]")]);
}

#[test]
fn tiers_are_asked_by_order_then_by_name() {
    let deny_first = tier("b", "order: 10", "Deny") + &tier("a", "order: 20", "Allow");
    check(&deny_first, &[(FLOW, "deny: tier b: GlobalNetworkPolicy of-b: ingress[0]")]);
    let by_name = tier("b", "order: 10", "Deny") + &tier("a", "order: 10", "Allow");
    check(&by_name, &[(FLOW, "allow: tier a: GlobalNetworkPolicy of-a: ingress[0]")]);
    // A tier without an order comes last, behind Calico's default.
    let last = tier("a", "", "Allow") + &global("deny", "{ingress: [{action: Deny}]}");
    check(&last, &[(FLOW, "deny: tier default: GlobalNetworkPolicy deny: ingress[0]")]);
}

#[test]
fn policies_are_asked_by_order_then_by_the_text_name_namespace_kind() {
    let policies = |first: &str, second: &str| {
        global("b", &format!("{{{first} ingress: [{{action: Deny}}]}}"))
            + &global("a", &format!("{{{second} ingress: [{{action: Allow}}]}}"))
    };
    let (a, b) = (
        "allow: tier default: GlobalNetworkPolicy a: ingress[0]",
        "deny: tier default: GlobalNetworkPolicy b: ingress[0]",
    );
    check(&policies("order: 1,", "order: 2,"), &[(FLOW, b)]);
    check(&policies("order: 1,", "order: 1,"), &[(FLOW, a)]);
    check(&policies("", ""), &[(FLOW, a)]);
    // Without an order it comes last, even behind one whose name is greater.
    check(&policies("order: 1e300,", ""), &[(FLOW, b)]);
    check(&policies("order: -1,", "order: 0,"), &[(FLOW, b)]);
    // "a-b//Global.." is before "a//Global..": '-' is before '/'.
    let text = global("a", "{ingress: [{action: Deny}]}") + &global("a-b", "{ingress: [{action: Allow}]}");
    check(&text, &[(FLOW, "allow: tier default: GlobalNetworkPolicy a-b: ingress[0]")]);
    // Of one name in two kinds, the one in no namespace is first: "a//.." is before "a/prod/..".
    let text = namespaced("a", "{ingress: [{action: Deny}]}") + &global("a", "{ingress: [{action: Allow}]}");
    check(&text, &[(FLOW, a)]);
}

#[test]
fn rules_are_asked_in_order_and_the_first_match_decides() {
    let text = namespaced(
        "web",
        "{ingress: [{action: Deny, protocol: TCP, destination: {ports: [81]}}, {action: Allow, protocol: TCP}, {action: Deny}]}",
    );
    check(
        &text,
        &[
            (FLOW, "allow: tier default: NetworkPolicy prod/web: ingress[1]"),
            ("from: prod/client, to: prod/server, port: 81", "deny: tier default: NetworkPolicy prod/web: ingress[0]"),
            (
                "from: prod/client, to: prod/server, protocol: UDP, port: 80",
                "deny: tier default: NetworkPolicy prod/web: ingress[2]",
            ),
        ],
    );
}

#[test]
fn log_goes_on_and_is_told() {
    let text = global("log", "{order: 1, ingress: [{action: Log}]}")
        + &global("allow", "{order: 2, ingress: [{action: Log, protocol: UDP}, {action: Log}, {action: Allow}]}");
    let policies = policies(&(PODS.to_owned() + &text));
    let packet = tcp("10.0.0.1", "10.0.0.2", 80);
    let decision = ask(&policies, "prod/server", Pipeline::Workload, Direction::Ingress, &packet);
    assert_eq!(decision.verdict, Verdict::Allow);
    let logged: Vec<String> = decision.logged.iter().map(ToString::to_string).collect();
    assert_eq!(
        logged,
        ["tier default: GlobalNetworkPolicy log: ingress[0]", "tier default: GlobalNetworkPolicy allow: ingress[1]"]
    );
}

#[test]
fn a_policy_of_log_rules_alone_ends_its_tier() {
    check(
        &global("log", "{ingress: [{action: Log}]}"),
        &[(FLOW, "deny: tier default: end, after GlobalNetworkPolicy log")],
    );
}

#[test]
fn pass_goes_to_the_next_tier_and_from_the_last_to_the_profiles() {
    let text = tier("first", "order: 1", "Pass") + &tier("second", "order: 2", "Deny");
    check(&text, &[(FLOW, "deny: tier second: GlobalNetworkPolicy of-second: ingress[0]")]);
    // It skips the policies behind it in its own tier.
    let text = global("pass", "{order: 1, ingress: [{action: Pass}]}")
        + &global("deny", "{order: 2, ingress: [{action: Deny}]}");
    check(&text, &[(FLOW, "allow: profile kns.prod: ingress[0]")]);
}

#[test]
fn a_tier_in_which_a_policy_applied_ends_with_its_default_action() {
    let unmatched = |action: &str| {
        calico("Tier", "name: t", &format!("{{order: 1{action}}}"))
            + &global("udp", "{tier: t, ingress: [{action: Allow, protocol: UDP}]}")
            + &global("later", "{tier: t, order: 5, ingress: []}")
    };
    let later = "deny: tier t: end, after GlobalNetworkPolicy later";
    check(&unmatched(""), &[(FLOW, later)]);
    check(&unmatched(", defaultAction: Deny"), &[(FLOW, later)]);
    check(&unmatched(", defaultAction: Pass"), &[(FLOW, "allow: profile kns.prod: ingress[0]")]);
    // A policy for the other direction, or for other endpoints, is none.
    check(
        &global("out", "{types: [Egress], egress: [{action: Allow}]}"),
        &[(FLOW, "allow: profile kns.prod: ingress[0]")],
    );
    let others = global("others", "{selector: role == 'client', ingress: [{action: Allow, protocol: UDP}]}");
    check(&others, &[(FLOW, "allow: profile kns.prod: ingress[0]")]);
}

#[test]
fn a_tier_of_staged_policy_alone_is_skipped() {
    let text = calico("StagedGlobalNetworkPolicy", "name: deny", "{ingress: [{action: Deny}]}");
    check(&text, &[(FLOW, "allow: profile kns.prod: ingress[0]")]);
}

#[test]
fn staged_policy_tells_what_it_would_decide() {
    let told = |text: &str, port: u16| {
        let policies = policies(&(PODS.to_owned() + text));
        let packet = tcp("10.0.0.1", "10.0.0.2", port);
        let decision = ask(&policies, "prod/server", Pipeline::Workload, Direction::Ingress, &packet);
        let staged = decision.staged.iter().map(|s| format!("{}: {}: {}", s.policy, s.verdict, s.reason));
        (decision.verdict, staged.collect::<Vec<_>>())
    };
    let staged = |action: &str, spec: &str| {
        calico("StagedNetworkPolicy", "name: web, namespace: prod", &format!("{{stagedAction: {action}{spec}}}"))
    };
    let deny = ", ingress: [{action: Deny, protocol: TCP, destination: {ports: [80]}}, {action: Allow}]";
    let set = staged("Set", deny);
    let would = "StagedNetworkPolicy prod/web: deny: tier default: StagedNetworkPolicy prod/web: ingress[0]";
    assert_eq!(told(&set, 80), (Verdict::Allow, vec![would.to_owned()]));
    assert_eq!(told(&staged("Learn", deny), 80), (Verdict::Allow, vec![would.to_owned()]));
    assert_eq!(told(&set, 81), (Verdict::Allow, vec![]));
    assert_eq!(told(&staged("Ignore", deny), 80), (Verdict::Allow, vec![]));
    // It takes the place of the enforced policy of its name: what that one allows first counts no more.
    let enforced = namespaced("web", "{order: 1, ingress: [{action: Allow}]}");
    assert_eq!(told(&(enforced.clone() + &set), 80), (Verdict::Allow, vec![would.to_owned()]));
    // Another name is asked first and decides.
    let other = namespaced("other", "{order: 1, ingress: [{action: Allow}]}");
    assert_eq!(told(&(other + &set), 80), (Verdict::Allow, vec![]));
    // Taking away the only policy leaves the profile.
    let enforced = namespaced("web", "{ingress: [{action: Deny}]}");
    let would = "StagedNetworkPolicy prod/web: allow: profile kns.prod: ingress[0]";
    assert_eq!(told(&(enforced + &staged("Delete", "")), 80), (Verdict::Deny, vec![would.to_owned()]));
    // Kubernetes' own.
    let kubernetes = calico("StagedKubernetesNetworkPolicy", "name: none, namespace: prod", "{podSelector: {}}");
    let would = "StagedKubernetesNetworkPolicy prod/none: deny: tier default: end, after StagedKubernetesNetworkPolicy prod/none";
    assert_eq!(told(&kubernetes, 80), (Verdict::Allow, vec![would.to_owned()]));
}

/// A workload without Kubernetes, with these profiles.
fn workload(profiles: &str) -> String {
    calico(
        "WorkloadEndpoint",
        "name: vm, namespace: prod, labels: {role: vm}",
        &format!("{{node: n1, orchestrator: openstack, ipNetworks: [10.0.0.9/32], profiles: [{profiles}]}}"),
    )
}

#[test]
fn profiles_decide_in_order_and_without_a_match_the_packet_is_dropped() {
    let profile = |name: &str, spec: &str| calico("Profile", &format!("name: {name}"), spec);
    let flow = "from: prod/client, to: prod/vm, port: 80";
    let two =
        profile("a", "{ingress: [{action: Allow, protocol: UDP}]}") + &profile("b", "{ingress: [{action: Allow}]}");
    check(&(workload("a, b") + &two), &[(flow, "allow: profile b: ingress[0]")]);
    check(&(workload("a") + &two), &[(flow, "deny: no profile matches")]);
    check(&workload(""), &[(flow, "deny: no profile matches")]);
    let deny = profile("a", "{ingress: [{action: Log}, {action: Deny}]}");
    check(&(workload("a") + &deny), &[(flow, "deny: profile a: ingress[1]")]);
    // Pass in a profile denies.
    let pass = profile("a", "{ingress: [{action: Pass}]}") + &profile("b", "{ingress: [{action: Allow}]}");
    check(&(workload("a, b") + &pass), &[(flow, "deny: profile a: ingress[0]")]);
}

#[test]
fn a_profile_that_does_not_exist_denies() {
    let flow = "from: prod/client, to: prod/vm, port: 80";
    check(&workload("absent, projectcalico-default-allow"), &[(flow, "deny: profile absent does not exist")]);
    check(
        &workload("projectcalico-default-allow, absent"),
        &[(flow, "allow: profile projectcalico-default-allow: ingress[0]")],
    );
}

#[test]
fn absent_types_follow_from_the_rules() {
    let both = [FLOW, "from: prod/server, to: prod/client, port: 80"];
    let verdicts = |spec: &str| {
        let policies =
            policies(&(PODS.to_owned() + &namespaced("p", &format!("{{selector: role == 'server', {spec}}}"))));
        super::judged(&policies, &both).iter().map(|text| text.starts_with("allow")).collect::<Vec<_>>()
    };
    let (ingress, egress) = ("ingress: [{action: Deny}]", "egress: [{action: Deny}]");
    assert_eq!(verdicts(ingress), [false, true]);
    assert_eq!(verdicts(egress), [true, false]);
    assert_eq!(verdicts(&format!("{ingress}, {egress}")), [false, false]);
    assert_eq!(verdicts("order: 1"), [false, true]);
    assert_eq!(verdicts(&format!("types: [Egress], {ingress}")), [true, false]);
}

#[test]
fn a_rule_for_one_family_never_widens_to_the_other() {
    let v6 = "from: prod/client, to: prod/server, port: 80, ipVersion: 6";
    for rule in ["ipVersion: 4", "source: {nets: [10.0.0.0/8]}", "source: {notNets: [192.0.2.0/24]}"] {
        let text = namespaced("p", &format!("{{selector: role == 'server', ingress: [{{action: Allow, {rule}}}]}}"));
        check(
            &text,
            &[
                (FLOW, "allow: tier default: NetworkPolicy prod/p: ingress[0]"),
                (v6, "deny: tier default: end, after NetworkPolicy prod/p"),
            ],
        );
    }
}

#[test]
fn named_ports_are_those_of_the_endpoints_that_the_rule_selects() {
    let web = "from: prod/client, to: prod/server, port: 8080";
    let allowed = "allow: tier default: NetworkPolicy prod/p: ingress[0]";
    let ended = "deny: tier default: end, after NetworkPolicy prod/p";
    let policy = |destination: &str| {
        let rule = format!("{{action: Allow, protocol: TCP, destination: {{{destination}}}}}");
        namespaced("p", &format!("{{selector: role == 'server', ingress: [{rule}]}}"))
    };
    check(&policy("ports: [web]"), &[(web, allowed), (FLOW, ended)]);
    check(&policy("ports: [web, 80]"), &[(web, allowed), (FLOW, allowed)]);
    check(&policy("selector: role == 'server', ports: [web]"), &[(web, allowed)]);
    check(&policy("selector: role == 'api', ports: [web]"), &[(web, ended)]);
    // A name that nothing has matches nothing; as an exception it excepts nothing.
    check(&policy("ports: [nowhere]"), &[(web, ended), (FLOW, ended)]);
    check(&policy("notPorts: [nowhere]"), &[(web, allowed)]);
    check(&policy("notPorts: [web]"), &[(web, ended), (FLOW, allowed)]);
    // The protocol counts.
    check(&policy("ports: [dns]"), &[("from: prod/client, to: prod/server, port: 53", ended)]);
}

#[test]
fn every_field_of_a_rule_counts() {
    let table = [
        ("protocol: TCP", "port: 80", true),
        ("protocol: 6", "port: 80", true),
        ("protocol: UDP", "port: 80", false),
        ("notProtocol: TCP", "port: 80", false),
        ("notProtocol: UDP", "port: 80", true),
        ("protocol: ICMP", "protocol: ICMP", true),
        ("protocol: ICMP, icmp: {type: 8}", "protocol: ICMP", true),
        ("protocol: ICMP, icmp: {type: 8, code: 1}", "protocol: ICMP", false),
        ("protocol: ICMP, icmp: {type: 3}", "protocol: ICMP, icmp: {type: 3, code: 4}", true),
        ("protocol: ICMP, notICMP: {type: 8}", "protocol: ICMP", false),
        ("protocol: ICMP, notICMP: {type: 8, code: 1}", "protocol: ICMP", true),
        ("protocol: TCP, destination: {ports: ['80:90']}", "port: 90", true),
        ("protocol: TCP, destination: {ports: ['80:90']}", "port: 91", false),
        ("protocol: TCP, destination: {notPorts: ['80:90']}", "port: 91", true),
        ("protocol: TCP, source: {ports: [1000]}", "port: 80, sourcePort: 1000", true),
        ("protocol: TCP, source: {ports: [1000]}", "port: 80", false),
        ("source: {nets: [10.0.0.1/32]}", "port: 80", true),
        ("source: {notNets: [10.0.0.1/32]}", "port: 80", false),
        ("destination: {nets: [10.0.0.0/30]}", "port: 80", true),
        ("destination: {nets: [10.0.1.0/30]}", "port: 80", false),
        ("protocol: SCTP, destination: {ports: [80]}", "protocol: SCTP, port: 80", true),
        ("protocol: 47", "protocol: 47", true),
    ];
    for (rule, flow, matches) in table {
        let text = namespaced("p", &format!("{{selector: role == 'server', ingress: [{{action: Allow, {rule}}}]}}"));
        let expected = if matches {
            "allow: tier default: NetworkPolicy prod/p: ingress[0]"
        } else {
            "deny: tier default: end, after NetworkPolicy prod/p"
        };
        check(&text, &[(&format!("from: prod/client, to: prod/server, {flow}"), expected)]);
    }
}

#[test]
fn the_source_is_judged_before_the_destination() {
    let text = namespaced("out", "{selector: role == 'client', egress: [{action: Deny}]}")
        + &namespaced("in", "{selector: role == 'server', ingress: [{action: Deny}]}");
    check(&text, &[(FLOW, "deny: tier default: NetworkPolicy prod/out: egress[0]")]);
    check(
        &text,
        &[("from: 192.0.2.1, to: prod/server, port: 80", "deny: tier default: NetworkPolicy prod/in: ingress[0]")],
    );
    check(&text, &[("from: 192.0.2.1, to: 192.0.2.2, port: 80", "allow: outside")]);
}

#[test]
fn both_ends_are_asked_whatever_the_first_says() {
    let text = namespaced("out", "{selector: role == 'client', egress: [{action: Deny}]}")
        + &namespaced("in", "{selector: role == 'server', ingress: [{action: Allow}]}");
    let policies = policies(&(PODS.to_owned() + &text));
    let flows = Expectation::read("f", &format!("- {{{FLOW}}}"), &policies).unwrap();
    let judgement = flows[0].judge(&policies, EndpointToHost::Drop);
    let steps: Vec<String> =
        judgement.steps.iter().map(|s| format!("{} {}: {}", s.endpoint, s.direction, s.decision.verdict)).collect();
    assert_eq!(steps, ["prod/client egress: deny", "prod/server ingress: allow"]);
    assert!(!judgement.allowed);
}

#[test]
fn calicos_own_tiers_are_there() {
    let policies = policies("");
    let tiers: Vec<(&str, f64)> = policies.tiers.iter().map(|tier| (tier.name.as_str(), tier.order)).collect();
    assert_eq!(tiers, [("kube-admin", 1e3), ("default", 1e6), ("kube-baseline", 1e7)]);
    // Written down as they are they change nothing.
    let again = super::policies(&calico("Tier", "name: default", "{order: 1000000, defaultAction: Deny}"));
    assert_eq!(policies, again);
}

#[test]
fn a_reason_names_what_decided() {
    let policies = policies(&(PODS.to_owned() + &namespaced("web", "{ingress: [{action: Deny}]}")));
    let packet = tcp("10.0.0.1", "10.0.0.2", 80);
    let decision = ask(&policies, "prod/server", Pipeline::Workload, Direction::Ingress, &packet);
    let Reason::Rule(rule) = decision.reason else { panic!("{:?}", decision.reason) };
    assert_eq!(
        (rule.tier, rule.policy.name.as_str(), rule.direction, rule.index),
        ("default", "web", Direction::Ingress, 0)
    );
}
