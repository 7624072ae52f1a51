//! What selectors of policies and of rules pick: namespaces, service accounts, network sets, labels of parents.

use std::collections::BTreeMap;

use margay_model::selector::{Requirement, Selector};
use proptest::prelude::*;

use super::{PODS, calico, check, files, global, namespaced, policies, render};

const FROM_PROD: &str = "from: prod/client, to: prod/server, port: 80";
const FROM_API: &str = "from: prod/api, to: prod/server, port: 80";
const FROM_TEST: &str = "from: test/client, to: prod/server, port: 80";
const FROM_NET: &str = "from: 198.51.100.7, to: prod/server, port: 80";
const FROM_SET: &str = "from: 203.0.113.7, to: prod/server, port: 80";
const FROM_HOST: &str = "from: uplink, to: prod/server, port: 80";

/// A GlobalNetworkSet, a NetworkSet of `prod` and an open host endpoint, all with the label role.
fn others() -> String {
    calico("GlobalNetworkSet", "name: net, labels: {role: net}", "{nets: [198.51.100.0/24]}")
        + &calico("NetworkSet", "name: set, namespace: prod, labels: {role: set}", "{nets: [203.0.113.0/24]}")
        + &calico(
            "HostEndpoint",
            "name: uplink, labels: {role: host}",
            "{node: n9, interfaceName: eth0, expectedIPs: [192.0.2.10], profiles: [projectcalico-default-allow]}",
        )
}

/// Which of the sources above a rule with this source lets in to `prod/server`, of a policy in `prod` or of a global one.
fn let_in(source: &str, is_global: bool) -> [bool; 6] {
    let spec = format!("{{selector: role == 'server', ingress: [{{action: Allow, source: {{{source}}}}}]}}");
    let policy = if is_global { global("p", &spec) } else { namespaced("p", &spec) };
    let policies = policies(&(PODS.to_owned() + &others() + &policy));
    let flows = [FROM_PROD, FROM_API, FROM_TEST, FROM_NET, FROM_SET, FROM_HOST];
    let judged = super::judged(&policies, &flows);
    std::array::from_fn(|i| judged[i].starts_with("allow"))
}

#[test]
fn a_rule_selects_in_the_namespace_of_its_policy() {
    //                                           prod   api    test   net    set    host
    assert_eq!(let_in("selector: has(role)", false), [true, true, false, false, true, false]);
    assert_eq!(let_in("selector: has(role)", true), [true, true, true, true, true, true]);
    assert_eq!(let_in("selector: role == 'client'", false), [true, false, false, false, false, false]);
    assert_eq!(let_in("selector: role == 'client'", true), [true, false, true, false, false, false]);
    // Nothing selects: everything, known or not.
    assert_eq!(let_in("", false), [true; 6]);
    // A notSelector alone is enough to limit it to the namespace.
    assert_eq!(let_in("notSelector: role == 'client'", false), [false, true, false, false, true, false]);
    assert_eq!(let_in("notSelector: role == 'client'", true), [false, true, false, true, true, true]);
}

#[test]
fn a_namespace_selector_takes_it_elsewhere() {
    for is_global in [false, true] {
        let let_in = |source: &str| let_in(source, is_global);
        assert_eq!(let_in("namespaceSelector: all()"), [true, true, true, false, true, false]);
        assert_eq!(let_in("namespaceSelector: env == 'test'"), [false, false, true, false, false, false]);
        assert_eq!(
            let_in("namespaceSelector: projectcalico.org/name == 'prod'"),
            [true, true, false, false, true, false]
        );
        assert_eq!(
            let_in("namespaceSelector: kubernetes.io/metadata.name == 'prod'"),
            [true, true, false, false, true, false]
        );
        assert_eq!(let_in("namespaceSelector: global()"), [false, false, false, true, false, true]);
        assert_eq!(let_in("namespaceSelector: env == 'test' || global()"), [false, false, true, true, false, true]);
        assert_eq!(
            let_in("namespaceSelector: all(), selector: role == 'client'"),
            [true, false, true, false, false, false]
        );
        assert_eq!(
            let_in("namespaceSelector: global(), selector: role == 'net'"),
            [false, false, false, true, false, false]
        );
        // As in Calico, what has no namespace has none with that label either.
        assert_eq!(let_in("namespaceSelector: env != 'test'"), [true, true, false, true, true, true]);
    }
}

#[test]
fn service_accounts_by_name_and_by_label() {
    assert_eq!(let_in("serviceAccounts: {names: [api]}", false), [false, true, false, false, false, false]);
    assert_eq!(let_in("serviceAccounts: {names: [default]}", false), [true, false, false, false, false, false]);
    assert_eq!(let_in("serviceAccounts: {names: [default, api]}", true), [true, true, true, false, false, false]);
    assert_eq!(
        let_in("serviceAccounts: {selector: trusted == 'yes'}", false),
        [false, true, false, false, false, false]
    );
    let by_name = "serviceAccounts: {selector: projectcalico.org/name == 'default'}";
    assert_eq!(let_in(by_name, true), [true, false, true, false, false, false]);
    let both = "serviceAccounts: {names: [default], selector: trusted == 'yes'}";
    assert_eq!(let_in(both, true), [false; 6]);
    let with_selector = "serviceAccounts: {names: [default]}, selector: role == 'client'";
    assert_eq!(let_in(with_selector, false), [true, false, false, false, false, false]);
    let elsewhere = "serviceAccounts: {names: [default]}, namespaceSelector: env == 'test'";
    assert_eq!(let_in(elsewhere, false), [false, false, true, false, false, false]);
}

#[test]
fn prefixes_and_selectors_must_both_hold() {
    assert_eq!(let_in("selector: has(role), nets: [10.0.0.1/32]", true), [true, false, false, false, false, false]);
    assert_eq!(let_in("selector: has(role), notNets: [10.0.0.1/32]", true), [false, true, true, true, true, true]);
}

#[test]
fn an_empty_set_matches_nothing() {
    assert_eq!(let_in("selector: role == 'nobody'", true), [false; 6]);
    assert_eq!(let_in("notSelector: role == 'nobody'", true), [true; 6]);
}

#[test]
fn policies_select_endpoints_by_namespace_and_service_account() {
    let denied = |spec: &str| {
        let text = global("p", &format!("{{{spec}ingress: [{{action: Deny}}]}}"));
        let flows = ["client", "server", "api"].map(|pod| format!("from: 192.0.2.1, to: prod/{pod}, port: 80"));
        let flows: Vec<&str> =
            flows.iter().map(String::as_str).chain(["from: 192.0.2.1, to: test/client, port: 80"]).collect();
        let judged = super::judged(&policies(&(PODS.to_owned() + &text)), &flows);
        judged.iter().map(|text| text.starts_with("deny")).collect::<Vec<_>>()
    };
    assert_eq!(denied(""), [true, true, true, true]);
    assert_eq!(denied("namespaceSelector: env == 'test', "), [false, false, false, true]);
    assert_eq!(denied("namespaceSelector: all(), selector: role == 'client', "), [true, false, false, true]);
    assert_eq!(denied("serviceAccountSelector: trusted == 'yes', "), [false, false, true, false]);
    assert_eq!(denied("serviceAccountSelector: all(), "), [true, true, true, true]);
    // The labels that Calico gives endpoints can be selected by as well.
    assert_eq!(denied("selector: projectcalico.org/namespace == 'test', "), [false, false, false, true]);
    assert_eq!(denied("selector: projectcalico.org/orchestrator == 'k8s', "), [true, true, true, true]);
    assert_eq!(denied("selector: projectcalico.org/serviceaccount == 'api', "), [false, false, true, false]);
}

#[test]
fn a_policy_of_a_namespace_is_for_its_workloads_alone() {
    let text = namespaced("p", "{ingress: [{action: Deny}]}") + &others();
    check(
        &text,
        &[
            (FROM_PROD, "deny: tier default: NetworkPolicy prod/p: ingress[0]"),
            ("from: 192.0.2.1, to: test/client, port: 80", "allow: profile kns.test: ingress[0]"),
            ("from: 192.0.2.1, to: uplink, port: 80", "allow: profile projectcalico-default-allow: ingress[0]"),
        ],
    );
}

#[test]
fn labels_of_profiles_are_inherited_and_own_ones_go_before() {
    let workload =
        calico(
            "WorkloadEndpoint",
            "name: vm, namespace: prod, labels: {a: own}",
            "{node: n1, ipNetworks: [10.0.0.9/32], profiles: [first, second]}",
        ) + &calico("Profile", "name: first", "{ingress: [{action: Allow}], labelsToApply: {a: first, b: first}}")
            + &calico("Profile", "name: second", "{labelsToApply: {b: second, c: second}}");
    let labels = policies(&(PODS.to_owned() + &workload)).workload("prod", "vm").unwrap().labels.clone();
    let found: Vec<&str> = ["a", "b", "c"].iter().map(|label| labels[*label].as_str()).collect();
    assert_eq!(found, ["own", "first", "second"]);
}

#[test]
fn missing_parents_are_warned_of_and_deny() {
    let pod = |spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: prod}}\nspec: {{nodeName: n1{spec}}}\nstatus: {{podIP: 10.0.0.1}}\n---\n"
        )
    };
    let loaded = margay_model::load::load_policy(&files(&pod(""))).unwrap();
    assert_eq!(
        render(&loaded.warnings),
        [
            "test.yaml:3:32: warning: Pod prod/a: metadata.namespace: there is no Namespace prod: whatever no policy allows is \
          denied\n  help: add its document"
        ]
    );
    let flow = ["from: 192.0.2.1, to: prod/a, port: 80"];
    assert_eq!(super::judged(&loaded.policies, &flow), ["deny: profile kns.prod does not exist"]);
    let account = pod(", serviceAccountName: web") + "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod}\n";
    let loaded = margay_model::load::load_policy(&files(&account)).unwrap();
    assert_eq!(
        render(&loaded.warnings),
        [
            "test.yaml:4:42: warning: Pod prod/a: spec.serviceAccountName: there is no ServiceAccount prod/web: selectors see no \
          labels of it\n  help: add its document"
        ]
    );
    assert_eq!(super::judged(&loaded.policies, &flow), ["allow: profile kns.prod: ingress[0]"]);
}

#[test]
fn pods_without_an_address_of_their_own_are_no_endpoints() {
    let pod = |spec: &str, status: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: prod}}\nspec: {{{spec}}}\nstatus: {{{status}}}\n"
        )
    };
    let count = |spec: &str, status: &str| policies(&pod(spec, status)).endpoints.len();
    let address = "podIPs: [{ip: 10.0.0.1}]";
    assert_eq!(count("nodeName: n1", address), 1);
    assert_eq!(count("nodeName: n1, volumes: []", &format!("{address}, phase: Running, qosClass: Burstable")), 1);
    assert_eq!(count("nodeName: n1, hostNetwork: true", address), 0);
    assert_eq!(count("nodeName: n1", "phase: Pending"), 0);
    assert_eq!(count("", address), 0);
    assert_eq!(count("nodeName: n1", &format!("{address}, phase: Succeeded")), 0);
    assert_eq!(count("nodeName: n1", &format!("{address}, phase: Failed")), 0);
}

#[test]
fn what_a_selector_requires() {
    let requirement = |text: &str| {
        let selector = Selector::parse(text).unwrap();
        let said = selector.requirements().into_iter().map(|requirement| match requirement {
            Requirement::Nothing => "-".to_owned(),
            Requirement::Label(label) => label.to_owned(),
            Requirement::Values(label, values) => {
                format!("{label}={}", values.into_iter().collect::<Vec<_>>().join("|"))
            }
        });
        said.collect::<Vec<_>>().join(" ")
    };
    for (text, expected) in [
        ("all()", ""),
        ("has(a)", "a"),
        ("!has(a)", ""),
        ("a == 'x'", "a=x"),
        ("a != 'x'", ""),
        ("a in {'x', 'y'}", "a=x|y"),
        ("a in {}", "a="),
        ("a not in {'x'}", ""),
        ("a starts with 'x'", "a"),
        ("has(a) && b == 'x' && c != 'y'", "a b=x"),
        ("a == 'x' || a == 'y'", "a=x|y"),
        ("a == 'x' || has(a)", "a"),
        ("a == 'x' || b == 'y'", ""),
        ("a == 'x' && (b == 'y' || c == 'z')", "a=x"),
        ("(has(a) && b == 'x') || b == 'y'", "b=x|y"),
    ] {
        assert_eq!(requirement(text), expected, "{text}");
    }
}

#[test]
fn keywords_are_labels_too() {
    let labels: BTreeMap<String, String> = ["all", "global", "has", "in", "not", "contains", "starts"]
        .map(|label| (label.to_owned(), "x".to_owned()))
        .into();
    for text in [
        "all == 'x'",
        "global == 'x'",
        "has == 'x'",
        "has(has)",
        "has(all)",
        "in in {'x'}",
        "not not in {'y'}",
        "contains contains 'x'",
        "starts starts with 'x'",
        "not in {'x'}",
    ] {
        assert!(Selector::parse(text).unwrap().matches(&labels), "{text}");
    }
}

fn selectors() -> impl Strategy<Value = String> {
    let label = prop_oneof![Just("a"), Just("b")];
    let leaf = prop_oneof![
        label.clone().prop_map(|l| format!("has({l})")),
        (label.clone(), prop_oneof![Just("=="), Just("!="), Just("contains")], "[xy]{0,1}")
            .prop_map(|(l, op, v)| format!("{l} {op} '{v}'")),
        (label, prop_oneof![Just("in"), Just("not in")], "[xy]").prop_map(|(l, op, v)| format!("{l} {op} {{'{v}'}}")),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|s| format!("!({s})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("({a}) || ({b})")),
        ]
    })
}

proptest! {
    /// Nothing that a selector picks lacks what it requires.
    #[test]
    fn requirements_are_necessary(
        text in selectors(),
        labels in prop::collection::btree_map("[ab]", "[xy]{0,1}", 0..3),
    ) {
        let selector = Selector::parse(&text).unwrap();
        if selector.matches(&labels) {
            for requirement in selector.requirements() {
                let holds = match requirement {
                    Requirement::Nothing => true,
                    Requirement::Label(label) => labels.contains_key(label),
                    Requirement::Values(label, values) => labels.get(label).is_some_and(|v| values.contains(v.as_str())),
                };
                prop_assert!(holds, "{}", text);
            }
        }
    }

    /// What is put together is as if it had been written.
    #[test]
    fn selectors_that_are_put_together_have_canonical_text(a in selectors(), b in selectors()) {
        let parse = |text: &str| Selector::parse(text).unwrap();
        let parents = parse(&format!("({a}) || !global()")).of_parents("p.", Some("member"));
        for made in [parse(&a).negated(), parse(&a).negated().negated(), parents, Selector::and([parse(&a), parse(&b)])] {
            prop_assert_eq!(parse(&made.to_string()), made);
        }
    }

    /// A selector of parents picks the child of whom it picks, and members by all().
    #[test]
    fn selectors_of_parents_see_their_labels(
        text in selectors(),
        labels in prop::collection::btree_map("[ab]", "[xy]{0,1}", 0..3),
    ) {
        let selector = Selector::parse(&text).unwrap();
        let child = labels.iter().map(|(k, v)| (format!("p.{k}"), v.clone())).collect();
        prop_assert_eq!(selector.clone().of_parents("p.", None).matches(&child), selector.matches(&labels));
    }
}
