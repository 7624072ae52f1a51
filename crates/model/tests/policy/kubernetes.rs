//! Kubernetes' policies (section by section of their conversion).

use margay_model::load::load_policy;

use super::{PODS, calico, check, files, global, kubernetes, namespaced, policies, render};

const FLOW: &str = "from: prod/client, to: prod/server, port: 80";
const ALLOWED: &str = "allow: tier default: KubernetesNetworkPolicy prod/p: ingress[0]";
const ENDED: &str = "deny: tier default: end, after KubernetesNetworkPolicy prod/p";

/// A policy for `prod/server` with one ingress rule.
fn ingress(rule: &str) -> String {
    kubernetes("p", &format!("{{podSelector: {{matchLabels: {{role: server}}}}, ingress: [{{{rule}}}]}}"))
}

/// Which sources a rule lets in to `prod/server`: prod/client, prod/api, test/client, an address in 10/8, an address elsewhere.
fn let_in(rule: &str) -> [bool; 5] {
    let flows = ["prod/client", "prod/api", "test/client", "10.9.0.1", "192.0.2.1"]
        .map(|from| format!("from: {from}, to: prod/server, port: 80"));
    let flows: Vec<&str> = flows.iter().map(String::as_str).collect();
    let judged = super::judged(&policies(&(PODS.to_owned() + &ingress(rule))), &flows);
    std::array::from_fn(|i| judged[i].starts_with("allow"))
}

#[test]
fn it_stands_at_order_1000_of_the_default_tier() {
    let before = |order: u32| global("g", &format!("{{order: {order}, ingress: [{{action: Deny}}]}}"));
    check(&(ingress("") + &before(999)), &[(FLOW, "deny: tier default: GlobalNetworkPolicy g: ingress[0]")]);
    check(&(ingress("") + &before(1001)), &[(FLOW, ALLOWED)]);
}

#[test]
fn it_selects_pods_of_its_namespace() {
    let vm = calico(
        "WorkloadEndpoint",
        "name: vm, namespace: prod",
        "{node: n1, orchestrator: openstack, ipNetworks: [10.0.0.9/32], profiles: [projectcalico-default-allow]}",
    );
    let all = kubernetes("p", "{podSelector: {}}") + &vm;
    check(
        &all,
        &[
            (FLOW, ENDED),
            ("from: prod/client, to: test/client, port: 80", "allow: profile kns.test: ingress[0]"),
            ("from: test/client, to: prod/vm, port: 80", "allow: profile projectcalico-default-allow: ingress[0]"),
        ],
    );
}

#[test]
fn peers_select_pods_and_namespaces() {
    //                                                          client api    test   net    else
    assert_eq!(let_in(""), [true, true, true, true, true]);
    assert_eq!(let_in("from: []"), [true, true, true, true, true]);
    assert_eq!(let_in("from: [{podSelector: {}}]"), [true, true, false, false, false]);
    assert_eq!(let_in("from: [{podSelector: {matchLabels: {role: client}}}]"), [true, false, false, false, false]);
    assert_eq!(let_in("from: [{namespaceSelector: {}}]"), [true, true, true, false, false]);
    assert_eq!(let_in("from: [{namespaceSelector: {matchLabels: {env: test}}}]"), [false, false, true, false, false]);
    let both = "from: [{namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {role: client}}}]";
    assert_eq!(let_in(both), [true, false, false, false, false]);
    let either = "from: [{namespaceSelector: {matchLabels: {env: test}}}, {podSelector: {matchLabels: {role: api}}}]";
    assert_eq!(let_in(either), [false, true, true, false, false]);
    let named = "from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: prod}}}]";
    assert_eq!(let_in(named), [true, true, false, false, false]);
}

#[test]
fn blocks_are_prefixes_without_their_exceptions() {
    assert_eq!(let_in("from: [{ipBlock: {cidr: 10.0.0.0/8}}]"), [true, true, true, true, false]);
    assert_eq!(
        let_in("from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/24]}}]"),
        [false, false, true, true, false]
    );
}

#[test]
fn expressions_of_label_selectors() {
    let expression =
        |expression: &str| let_in(&format!("from: [{{podSelector: {{matchExpressions: [{{{expression}}}]}}}}]"));
    assert_eq!(expression("key: role, operator: In, values: [client, db]"), [true, false, false, false, false]);
    assert_eq!(expression("key: role, operator: NotIn, values: [client]"), [false, true, false, false, false]);
    assert_eq!(expression("key: absent, operator: NotIn, values: [x]"), [true, true, false, false, false]);
    assert_eq!(expression("key: role, operator: Exists"), [true, true, false, false, false]);
    assert_eq!(expression("key: role, operator: DoesNotExist"), [false; 5]);
    // A namespace without a label is not what is in no namespace.
    let unlabelled = "from: [{namespaceSelector: {matchExpressions: [{key: env, operator: NotIn, values: [test]}]}}]";
    assert_eq!(let_in(unlabelled), [true, true, false, false, false]);
}

#[test]
fn ports_are_tcp_by_default_and_merge_by_protocol() {
    let udp = "from: prod/client, to: prod/server, protocol: UDP, port: 80";
    let web = "from: prod/client, to: prod/server, port: 8080";
    check(&ingress("ports: [{port: 80}]"), &[(FLOW, ALLOWED), (udp, ENDED), (web, ENDED)]);
    check(&ingress("ports: [{protocol: UDP, port: 80}]"), &[(FLOW, ENDED), (udp, ALLOWED)]);
    check(&ingress("ports: [{}]"), &[(FLOW, ALLOWED), (web, ALLOWED), (udp, ENDED)]);
    check(&ingress("ports: [{port: 80}, {}]"), &[(FLOW, ALLOWED), (web, ALLOWED), (udp, ENDED)]);
    check(&ingress("ports: [{}, {port: 80}]"), &[(FLOW, ALLOWED), (web, ALLOWED)]);
    check(&ingress("ports: [{port: 80, endPort: 90}]"), &[(FLOW, ALLOWED), (web, ENDED)]);
    check(&ingress("ports: [{port: web}]"), &[(FLOW, ENDED), (web, ALLOWED)]);
    check(&ingress("ports: [{port: 80}, {port: 8080}]"), &[(FLOW, ALLOWED), (web, ALLOWED), (udp, ENDED)]);
    let icmp = "from: prod/client, to: prod/server, protocol: ICMP";
    check(&ingress(""), &[(icmp, ALLOWED)]);
    check(&ingress("ports: [{}]"), &[(icmp, ENDED)]);
}

#[test]
fn one_rule_a_protocol_and_peer() {
    let text = ingress(
        "ports: [{port: 80}, {port: 53, protocol: UDP}], from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8}}]",
    );
    let policies = policies(&text);
    let policy = &policies.tiers[1].policies[0];
    assert_eq!(policy.ingress.as_ref().map(Vec::len), Some(4));
}

#[test]
fn absent_types_are_filled_in_as_the_api_server_does() {
    let verdicts = |spec: &str| {
        let text = kubernetes("p", &format!("{{podSelector: {{matchLabels: {{role: server}}}}{spec}}}"));
        let flows = [FLOW, "from: prod/server, to: prod/client, port: 80"];
        let judged = super::judged(&policies(&(PODS.to_owned() + &text)), &flows);
        judged.iter().map(|text| text.starts_with("allow")).collect::<Vec<_>>()
    };
    assert_eq!(verdicts(""), [false, true]);
    assert_eq!(verdicts(", egress: [{ports: [{port: 1}]}]"), [false, false]);
    assert_eq!(verdicts(", egress: [{}]"), [false, true]);
    assert_eq!(verdicts(", policyTypes: [Egress]"), [true, false]);
    assert_eq!(verdicts(", policyTypes: [Ingress, Egress]"), [false, false]);
}

#[test]
fn rules_of_a_direction_that_is_not_among_the_types_are_warned_of() {
    let text = kubernetes("p", "{podSelector: {}, policyTypes: [Ingress], egress: [{}]}");
    let warnings = render(&load_policy(&files(&text)).unwrap().warnings);
    assert_eq!(
        warnings,
        [
            "test.yaml:4:57: warning: KubernetesNetworkPolicy prod/p: spec.egress: is of no effect without policyTypes Egress\n  \
          help: add Egress to policyTypes, or take the rules away"
        ]
    );
}

/// A ClusterNetworkPolicy for `prod/server`.
fn cluster(name: &str, tier: &str, priority: u32, rules: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec:\n  \
         tier: {tier}\n  priority: {priority}\n  subject: {{pods: {{namespaceSelector: {{matchLabels: {{env: prod}}}}, podSelector: \
         {{matchLabels: {{role: server}}}}}}}}\n  {rules}\n---\n"
    )
}

const ANY: &str = "from: [{namespaces: {}}]";

#[test]
fn cluster_policy_goes_before_or_after_all_other() {
    let rule = |action: &str| format!("ingress: [{{action: {action}, {ANY}}}]");
    let deny = global("deny", "{order: 1, ingress: [{action: Deny}]}");
    let pass = global("pass", "{order: 1, ingress: [{action: Pass}]}");
    let admin = cluster("a", "Admin", 1, &rule("Accept"));
    let of =
        |tier: &str, verdict: &str| format!("{verdict}: tier {tier}: KubernetesClusterNetworkPolicy a: ingress[0]");
    check(&(admin + &deny), &[(FLOW, &of("kube-admin", "allow"))]);
    let baseline = cluster("a", "Baseline", 1, &rule("Deny"));
    check(&(baseline.clone() + &deny), &[(FLOW, "deny: tier default: GlobalNetworkPolicy deny: ingress[0]")]);
    check(&(baseline.clone() + &pass), &[(FLOW, &of("kube-baseline", "deny"))]);
    check(&baseline, &[(FLOW, &of("kube-baseline", "deny"))]);
    let passed = cluster("a", "Admin", 1, &rule("Pass")) + &cluster("b", "Admin", 2, &rule("Deny"));
    check(&passed, &[(FLOW, "allow: profile kns.prod: ingress[0]")]);
}

#[test]
fn cluster_policy_is_asked_by_priority_and_its_tiers_pass() {
    let rule = |action: &str| format!("ingress: [{{action: {action}, {ANY}}}]");
    let text = cluster("b", "Admin", 1, &rule("Deny")) + &cluster("a", "Admin", 2, &rule("Accept"));
    check(&text, &[(FLOW, "deny: tier kube-admin: KubernetesClusterNetworkPolicy b: ingress[0]")]);
    let text =
        cluster("a", "Admin", 1, "ingress: [{action: Accept, from: [{namespaces: {matchLabels: {env: test}}}]}]");
    check(
        &text,
        &[
            (FLOW, "allow: profile kns.prod: ingress[0]"),
            (
                "from: test/client, to: prod/server, port: 80",
                "allow: tier kube-admin: KubernetesClusterNetworkPolicy a: ingress[0]",
            ),
        ],
    );
    // A direction without rules is none: it does not end even a tier that would deny.
    let policies = policies(&cluster("a", "Admin", 1, &rule("Deny")));
    let policy = &policies.tiers[0].policies[0];
    assert_eq!((policy.ingress.is_some(), policy.egress.is_some()), (true, false));
}

#[test]
fn cluster_policy_has_peers_and_ports() {
    let accepted = |rule: &str, flow: &str| {
        let text = cluster("a", "Admin", 1, &format!("ingress: [{{action: Deny, {rule}}}]"));
        super::judged(&policies(&(PODS.to_owned() + &text)), &[flow])[0].starts_with("deny")
    };
    assert!(accepted("from: [{pods: {podSelector: {matchLabels: {role: client}}}}]", FLOW));
    assert!(!accepted("from: [{pods: {podSelector: {matchLabels: {role: api}}}}]", FLOW));
    assert!(!accepted(ANY, "from: 192.0.2.1, to: prod/server, port: 80"));
    let ports = |port: &str| accepted(&format!("{ANY}, protocols: [{{tcp: {{destinationPort: {port}}}}}]"), FLOW);
    assert!(ports("{number: 80}"));
    assert!(!ports("{number: 81}"));
    assert!(ports("{range: {start: 80, end: 90}}"));
    assert!(!accepted(&format!("{ANY}, protocols: [{{udp: {{}}}}]"), FLOW));
    assert!(accepted(&format!("{ANY}, protocols: [{{tcp: {{}}}}, {{tcp: {{destinationPort: {{number: 1}}}}}}]"), FLOW));
}

/// Calico's conversion lets a negated selector of namespaces pick what is in none.
#[test]
fn namespaces_of_a_cluster_policy_are_namespaces() {
    let set = calico("GlobalNetworkSet", "name: net", "{nets: [192.0.2.0/24]}");
    let outside = "from: 192.0.2.1, to: prod/server, port: 80";
    let denied = "deny: tier kube-admin: KubernetesClusterNetworkPolicy a: ingress[0]";
    for peer in ["{}", "{matchExpressions: [{key: env, operator: NotIn, values: [test]}]}"] {
        let text = cluster("a", "Admin", 1, &format!("ingress: [{{action: Deny, from: [{{namespaces: {peer}}}]}}]"));
        check(&(text + &set), &[(FLOW, denied), (outside, "allow: profile kns.prod: ingress[0]")]);
    }
}

#[test]
fn networks_of_a_cluster_policy_may_be_of_both_families() {
    let text = cluster("a", "Admin", 1, "egress: [{action: Deny, to: [{networks: [10.0.0.0/24, '2001:db8::/32']}]}]");
    let denied = "deny: tier kube-admin: KubernetesClusterNetworkPolicy a: egress[0]";
    check(
        &text,
        &[
            ("from: prod/server, to: prod/client, port: 80", denied),
            ("from: prod/server, to: prod/client, port: 80, ipVersion: 6", denied),
            ("from: prod/server, to: test/client, port: 80", "allow: profile kns.test: ingress[0]"),
        ],
    );
}

#[test]
fn a_cluster_rule_that_cannot_be_evaluated_fails_closed() {
    let flow = "from: prod/server, to: prod/client, port: 80";
    let denied = "deny: tier kube-admin: KubernetesClusterNetworkPolicy a: egress[0]";
    let left_out = "allow: profile kns.prod: ingress[0]";
    for peer in ["nodes: {}", "domainNames: [example.org]"] {
        for (action, expected) in [("Deny", denied), ("Pass", denied), ("Accept", left_out)] {
            let text = cluster("a", "Admin", 1, &format!("egress: [{{action: {action}, to: [{{{peer}}}]}}]"));
            check(&text, &[(flow, expected)]);
        }
    }
    let text = cluster(
        "a",
        "Admin",
        1,
        &format!("ingress: [{{action: Deny, {ANY}, protocols: [{{destinationNamedPort: web}}]}}]"),
    );
    check(&text, &[(FLOW, "deny: tier kube-admin: KubernetesClusterNetworkPolicy a: ingress[0]")]);
    let warnings = render(&load_policy(&files(&text)).unwrap().warnings);
    assert_eq!(
        warnings,
        [
            "test.yaml:8:89: warning: ClusterNetworkPolicy a: spec.ingress[0].protocols[0].destinationNamedPort: cannot be evaluated: \
          destinationNamedPort; the rule denies everything"
        ]
    );
}

#[test]
fn namespaces_and_accounts_become_profiles() {
    let policies = policies(PODS);
    let names: Vec<&str> = policies.profiles.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["kns.prod", "kns.test", "ksa.prod.api", "ksa.prod.default", "ksa.test.default", "projectcalico-default-allow"]
    );
    let server = policies.workload("prod", "server").unwrap();
    assert_eq!(server.profiles, ["kns.prod", "ksa.prod.default"]);
    let ports: Vec<(&str, u8, u16)> = server.ports.iter().map(|p| (p.name.as_str(), p.protocol, p.port)).collect();
    assert_eq!(ports, [("web", 6, 8080), ("dns", 17, 53)]);
    let api = policies.workload("prod", "api").unwrap();
    for (label, value) in [
        ("role", "api"),
        ("projectcalico.org/namespace", "prod"),
        ("projectcalico.org/orchestrator", "k8s"),
        ("projectcalico.org/serviceaccount", "api"),
        ("pcns.env", "prod"),
        ("pcns.projectcalico.org/name", "prod"),
        ("pcns.kubernetes.io/metadata.name", "prod"),
        ("pcsa.trusted", "yes"),
        ("pcsa.projectcalico.org/name", "api"),
    ] {
        assert_eq!(api.labels.get(label).map(String::as_str), Some(value), "{label}");
    }
}

#[test]
fn a_list_as_kubectl_prints_it() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: prod, uid: x}, spec: \
                {finalizers: [kubernetes]}, status: {phase: Active}}\n- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
                metadata: {name: p, namespace: prod}, spec: {podSelector: {}}, status: {}}\n- {apiVersion: v1, kind: \
                ServiceAccount, metadata: {name: api, namespace: prod}, secrets: [{name: x}]}\n";
    let policies = policies(text);
    assert_eq!((policies.tiers[1].policies.len(), policies.profiles.len()), (1, 4));
}

#[test]
fn a_document_without_a_namespace_is_in_default() {
    let text = namespaced("p", "{}").replace(", namespace: prod", "");
    assert_eq!(policies(&text).tiers[1].policies[0].id.namespace.as_deref(), Some("default"));
}
