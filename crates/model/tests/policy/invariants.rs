//! What holds for all policy: the order of documents means nothing, and neither does how policies are cut into tiers.

use margay_model::load::load_policy;
use margay_model::policy::{Action, Direction, Packet, Pipeline, Policies, Question, Rule, Tier, TierAction, Verdict};
use proptest::prelude::*;

use super::{PODS, calico, global, kubernetes, namespaced, policies};

/// A rule that matches some of the packets below.
fn rules() -> impl Strategy<Value = String> {
    let action = prop_oneof![Just("Allow"), Just("Deny"), Just("Pass"), Just("Log")];
    let condition = prop_oneof![
        Just(""),
        Just("protocol: TCP"),
        Just("protocol: TCP, destination: {ports: [80]}"),
        Just("protocol: UDP, destination: {ports: [dns]}"),
        Just("source: {selector: role == 'client'}"),
        Just("source: {namespaceSelector: env == 'test'}"),
        Just("source: {notNets: [10.0.0.0/24]}"),
        Just("source: {serviceAccounts: {names: [api]}}"),
        Just("ipVersion: 6"),
    ];
    (action, condition).prop_map(|(action, condition)| {
        let comma = if condition.is_empty() { "" } else { ", " };
        format!("{{action: {action}{comma}{condition}}}")
    })
}

/// Selector, order, ingress and egress rules, and a number for the kind.
type Written = (&'static str, i32, Vec<String>, Vec<String>, u8);

/// Documents of policies with different names in one tier, each with its place.
fn policy_documents() -> impl Strategy<Value = Vec<String>> {
    let selector = prop_oneof![Just("all()"), Just("role == 'server'"), Just("role in {'client', 'api'}")];
    let policy =
        (selector, -2..3_i32, prop::collection::vec(rules(), 0..4), prop::collection::vec(rules(), 0..3), 0..4_u8);
    prop::collection::vec(policy, 0..6).prop_map(|policies| {
        let document = |(i, policy): (usize, Written)| {
            let (selector, order, ingress, egress, kind) = policy;
            let rules = format!("ingress: [{}], egress: [{}]", ingress.join(", "), egress.join(", "));
            let spec = format!("{{selector: \"{selector}\", order: {order}, {rules}}}");
            match kind {
                0 => namespaced(&format!("p{i}"), &spec),
                1 => calico("StagedGlobalNetworkPolicy", &format!("name: p{i}"), &spec),
                2 => kubernetes(&format!("p{i}"), "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"),
                _ => global(&format!("p{i}"), &spec),
            }
        };
        policies.into_iter().enumerate().map(document).collect()
    })
}

fn packets() -> impl Strategy<Value = Packet> {
    let addresses = prop_oneof![
        Just(("10.0.0.1", "10.0.0.2")),
        Just(("10.0.0.3", "10.0.0.2")),
        Just(("10.1.0.1", "10.0.0.2")),
        Just(("192.0.2.1", "10.0.0.2")),
        Just(("2001:db8::1", "2001:db8::2")),
    ];
    let payload = prop_oneof![Just((6, 80)), Just((6, 81)), Just((17, 53)), Just((17, 54))];
    (addresses, payload).prop_map(|((source, destination), (protocol, port))| {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Packet { protocol, source, destination, ports: Some((50_000, port)), icmp: None }
    })
}

/// The verdicts of both directions for `prod/server`.
fn verdicts(policies: &Policies, packet: &Packet) -> [Verdict; 2] {
    let endpoint = policies.workload("prod", "server").unwrap();
    [Direction::Ingress, Direction::Egress].map(|direction| {
        policies.decide(&Question { endpoint, pipeline: Pipeline::Workload, direction, packet }).verdict
    })
}

/// `policies` with the first `at` policies of the tier `default` in a tier of their own, which passes what they do not decide.
///
/// What applied in the first part alone ends the second as it ended the whole: by a policy there that says nothing.
fn split(policies: &Policies, at: usize) -> Policies {
    let mut split = policies.clone();
    let position = default_tier(policies);
    let first = &mut split.tiers[position];
    let mut second = Tier::new("second", first.order, first.default_action);
    second.policies = first.policies.split_off(at);
    for policy in &first.policies {
        let mut rest = policy.clone();
        rest.id.name += "-rest";
        let empty = |rules: &Option<Vec<Rule>>| rules.as_ref().map(|_| Vec::new());
        (rest.ingress, rest.egress) = (empty(&policy.ingress), empty(&policy.egress));
        second.policies.push(rest);
    }
    first.default_action = TierAction::Pass;
    split.tiers.insert(position + 1, second);
    split
}

fn default_tier(policies: &Policies) -> usize {
    policies.tiers.iter().position(|tier| tier.name == Tier::DEFAULT).unwrap()
}

/// Takes the Pass rules out of the first `at` policies: they would leave another tier once it is split.
fn without_pass(policies: &mut Policies, at: usize) {
    let position = default_tier(policies);
    for policy in &mut policies.tiers[position].policies[..at] {
        for rules in [&mut policy.ingress, &mut policy.egress].into_iter().flatten() {
            rules.retain(|rule| rule.action != Action::Pass);
        }
    }
}

proptest! {
    #[test]
    fn splitting_a_tier_with_pass_changes_no_verdict(
        documents in policy_documents(),
        packet in packets(),
        at in 0..6_usize,
    ) {
        let mut whole = policies(&(PODS.to_owned() + &documents.concat()));
        let at = at.min(documents.len());
        without_pass(&mut whole, at);
        prop_assert_eq!(verdicts(&split(&whole, at), &packet), verdicts(&whole, &packet));
    }

    #[test]
    fn the_order_of_documents_means_nothing(
        (documents, shuffled) in policy_documents().prop_flat_map(|documents| {
            let all: Vec<String> = PODS.split_inclusive("---\n").map(str::to_owned).chain(documents).collect();
            (Just(all.clone()), Just(all).prop_shuffle())
        }),
    ) {
        let file = |documents: &[String]| vec![("f.yaml".to_owned(), documents.concat())];
        let one_each: Vec<(String, String)> =
            shuffled.iter().enumerate().map(|(i, text)| (format!("{i}.yaml"), text.clone())).collect();
        let expected = load_policy(&file(&documents)).unwrap().policies;
        prop_assert_eq!(&load_policy(&file(&shuffled)).unwrap().policies, &expected);
        prop_assert_eq!(&load_policy(&one_each).unwrap().policies, &expected);
    }

    /// A staged policy alone changes no verdict, whatever it says.
    #[test]
    fn staged_policy_decides_nothing(documents in policy_documents(), rule in rules(), packet in packets()) {
        let text = PODS.to_owned() + &documents.concat();
        let staged = calico("StagedGlobalNetworkPolicy", "name: staged", &format!("{{order: -9, ingress: [{rule}], egress: [{rule}]}}"));
        prop_assert_eq!(verdicts(&policies(&(text.clone() + &staged)), &packet), verdicts(&policies(&text), &packet));
    }
}
