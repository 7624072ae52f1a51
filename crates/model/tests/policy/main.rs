//! Policy: what documents mean for a packet, case by case, and what is wrong with documents that mean nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod flows;
mod hosts;
mod index;
mod invariants;
mod kubernetes;
mod selectors;
mod tiers;

use margay_model::load::{Diagnostic, load_policy};
use margay_model::policy::{
    Decision, Direction, EndpointToHost, Expectation, Expected, Packet, Pipeline, Policies, Question,
};

/// A namespace `prod` with three pods: a client, a server with a named port, and a pod of another service account; a pod elsewhere.
const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: prod, labels: {env: prod}}
---
apiVersion: v1
kind: Namespace
metadata: {name: test, labels: {env: test}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: api, namespace: prod, labels: {trusted: 'yes'}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: prod, labels: {role: client}}
spec: {nodeName: n1}
status: {podIPs: [{ip: 10.0.0.1}, {ip: '2001:db8::1'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: prod, labels: {role: server}}
spec: {nodeName: n2, containers: [{ports: [{name: web, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]}
status: {podIPs: [{ip: 10.0.0.2}, {ip: '2001:db8::2'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: prod, labels: {role: api}}
spec: {nodeName: n1, serviceAccountName: api}
status: {podIP: 10.0.0.3}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: test, labels: {role: client}}
spec: {nodeName: n1}
status: {podIP: 10.1.0.1}
---
";

fn files(text: &str) -> Vec<(String, String)> {
    vec![("test.yaml".to_owned(), text.to_owned())]
}

fn policies(text: &str) -> Policies {
    load_policy(&files(text)).unwrap_or_else(|errors| panic!("{text}\n{}", render(&errors).join("\n"))).policies
}

fn render(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(ToString::to_string).collect()
}

/// Calico's document of a kind.
fn calico(kind: &str, metadata: &str, spec: &str) -> String {
    format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {spec}\n---\n")
}

/// A GlobalNetworkPolicy.
fn global(name: &str, spec: &str) -> String {
    calico("GlobalNetworkPolicy", &format!("name: {name}"), spec)
}

/// A NetworkPolicy of Calico in the namespace `prod`.
fn namespaced(name: &str, spec: &str) -> String {
    calico("NetworkPolicy", &format!("name: {name}, namespace: prod"), spec)
}

/// A NetworkPolicy of Kubernetes in the namespace `prod`.
fn kubernetes(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: prod}}\nspec: {spec}\n---\n"
    )
}

#[test]
fn the_examples_of_the_documentation_are_taken() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/policy.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
    let documents: String = blocks.filter(|block| !block.starts_with("- ")).collect();
    let loaded = load_policy(&files(&documents)).unwrap_or_else(|errors| panic!("{}", render(&errors).join("\n")));
    assert_eq!(render(&loaded.warnings), Vec::<String>::new());
    assert_eq!((loaded.policies.endpoints.len(), loaded.policies.sets.len(), loaded.policies.tiers.len()), (3, 2, 4));
    let flows = text.split("```yaml\n").skip(1).find(|block| block.starts_with("- ")).unwrap();
    let flows = Expectation::read("flows.yaml", flows.split("```").next().unwrap(), &loaded.policies).unwrap();
    for flow in &flows {
        let verdict = Expected::of(&flow.judge(&loaded.policies, EndpointToHost::Drop));
        assert_eq!(Some(verdict), flow.expected, "{flow:?}");
    }
    assert_eq!(flows.len(), 5);
}

/// What becomes of each flow, and what decided it: `allow: ...`, `deny: ...`.
fn judged(policies: &Policies, flows: &[&str]) -> Vec<String> {
    let text: String = flows.iter().map(|flow| format!("- {{{flow}}}\n")).collect();
    let flows =
        Expectation::read("flows.yaml", &text, policies).unwrap_or_else(|errors| panic!("{:?}", render(&errors)));
    let judge = |flow: &Expectation<'_>| {
        let judgement = flow.judge(policies, EndpointToHost::Drop);
        let decisive = judgement.decisive(None).map_or("outside".to_owned(), |step| step.decision.reason.to_string());
        format!("{}: {decisive}", Expected::of(&judgement))
    };
    flows.iter().map(judge).collect()
}

/// Flows with what is to become of them.
fn check(documents: &str, table: &[(&str, &str)]) {
    let policies = policies(&(PODS.to_owned() + documents));
    let flows: Vec<&str> = table.iter().map(|(flow, _)| *flow).collect();
    for ((flow, expected), found) in table.iter().zip(judged(&policies, &flows)) {
        assert_eq!(found, *expected, "{flow}\n{documents}");
    }
}

/// What one endpoint's policy says.
fn ask<'a>(
    policies: &'a Policies,
    endpoint: &str,
    pipeline: Pipeline,
    direction: Direction,
    packet: &'a Packet,
) -> Decision<'a> {
    let endpoint = match endpoint.split_once('/') {
        Some((namespace, name)) => policies.workload(namespace, name),
        None => policies.host(endpoint),
    };
    policies.decide(&Question { endpoint: endpoint.unwrap(), pipeline, direction, packet })
}

fn tcp(source: &str, destination: &str, port: u16) -> Packet {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    Packet { protocol: 6, source, destination, ports: Some((50_000, port)), icmp: None }
}
