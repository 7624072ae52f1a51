//! Lowering of policy: Calico's kinds and Kubernetes', to [`Policies`].
//!
//! The datapath enforces untracked ingress policy of the tier `default`. What else a document asks for is an error when it is loaded
//! for the agent: a policy that is enforced in part is a hole in a firewall.

mod cluster;
mod endpoint;
mod kubernetes;
mod rule;
mod tier;
mod untracked;

use std::collections::BTreeSet;

use super::check::Checker;
use super::diagnostic::{Document, Report};
use super::{Item, push};
use crate::desired::Node;
use crate::document::Path;
use crate::policy::{Endpoint, Policies, Policy, Scope, Tier};
use crate::resources::calico::{GlobalNetworkPolicySpec, HostEndpointSpec};
use crate::resources::common::Resource;
use crate::resources::kubernetes::{
    ClusterNetworkPolicySpec, KubernetesNetworkPolicySpec, Labelled, Pod, PodSpec, PodStatus, PolicyDocument, Unread,
};
use crate::resources::policy::{
    NetworkPolicySpec, NetworkSetSpec, ProfileSpec, StagedGlobalNetworkPolicySpec, StagedKubernetesNetworkPolicySpec,
    StagedNetworkPolicySpec, TierSpec, WorkloadEndpointSpec,
};
pub(super) use rule::selector;
pub(super) use untracked::{host_endpoints, policies as untracked};

/// Documents of policy, by kind.
#[derive(Default)]
pub(super) struct PolicyDocuments {
    pub(super) hosts: Vec<Item<HostEndpointSpec>>,
    global: Vec<Item<GlobalNetworkPolicySpec>>,
    tiers: Vec<Item<TierSpec>>,
    namespaced: Vec<Item<NetworkPolicySpec>>,
    staged: Vec<Item<StagedNetworkPolicySpec>>,
    staged_global: Vec<Item<StagedGlobalNetworkPolicySpec>>,
    staged_kubernetes: Vec<Item<StagedKubernetesNetworkPolicySpec>>,
    sets: Vec<Item<NetworkSetSpec>>,
    profiles: Vec<Item<ProfileSpec>>,
    workloads: Vec<Item<WorkloadEndpointSpec>>,
    kubernetes: Vec<Item<KubernetesNetworkPolicySpec>>,
    cluster: Vec<Item<ClusterNetworkPolicySpec>>,
    namespaces: Vec<Item<(Unread, Unread)>>,
    accounts: Vec<Item<(Unread, Unread)>>,
    pods: Vec<Item<(PodSpec, PodStatus)>>,
}

impl PolicyDocuments {
    /// Takes a document, whose kind is one of policy.
    pub(super) fn add(&mut self, document: Document, report: &mut Report) {
        match document.kind {
            "GlobalNetworkPolicy" => push::<Resource<_>>(&mut self.global, document, report),
            "HostEndpoint" => push::<Resource<_>>(&mut self.hosts, document, report),
            "Tier" => push::<Resource<_>>(&mut self.tiers, document, report),
            "NetworkPolicy" => push::<Resource<_>>(&mut self.namespaced, document, report),
            "StagedNetworkPolicy" => push::<Resource<_>>(&mut self.staged, document, report),
            "StagedGlobalNetworkPolicy" => push::<Resource<_>>(&mut self.staged_global, document, report),
            "StagedKubernetesNetworkPolicy" => push::<Resource<_>>(&mut self.staged_kubernetes, document, report),
            "NetworkSet" | "GlobalNetworkSet" => push::<Resource<_>>(&mut self.sets, document, report),
            "Profile" => push::<Resource<_>>(&mut self.profiles, document, report),
            "WorkloadEndpoint" => push::<Resource<_>>(&mut self.workloads, document, report),
            "KubernetesNetworkPolicy" => push::<PolicyDocument<_>>(&mut self.kubernetes, document, report),
            "ClusterNetworkPolicy" => push::<PolicyDocument<_>>(&mut self.cluster, document, report),
            "Namespace" => push::<Labelled>(&mut self.namespaces, document, report),
            "ServiceAccount" => push::<Labelled>(&mut self.accounts, document, report),
            _ => push::<Pod>(&mut self.pods, document, report),
        }
    }

    /// Everything brought together. `node` is this node and `nodes` are all that are known; `tiers` the names of all Tier documents.
    pub(super) fn lower(&self, node: &str, nodes: &[Node], tiers: BTreeSet<&str>, report: &mut Report) -> Policies {
        let profiles = endpoint::profiles(&self.profiles, &self.namespaces, &self.accounts, report);
        let built_in = Tier::built_in();
        let known: BTreeSet<&str> = tiers.into_iter().chain(built_in.iter().map(|tier| tier.name.as_str())).collect();
        let mut tiers = tier::tiers(&self.tiers, report);
        tier::add(&self.global, &mut tiers, &known, report);
        tier::add(&self.namespaced, &mut tiers, &known, report);
        tier::add(&self.staged, &mut tiers, &known, report);
        tier::add(&self.staged_global, &mut tiers, &known, report);
        kubernetes::policies(&self.kubernetes, &mut tiers, report);
        kubernetes::staged(&self.staged_kubernetes, &mut tiers, report);
        cluster::policies(&self.cluster, &mut tiers, report);
        tiers.iter_mut().for_each(|tier| tier.policies.sort_by(Policy::cmp_order));
        let mut endpoints = endpoint::hosts(&self.hosts, node, nodes, &profiles, report);
        self.untracked_wildcards(&tiers, &endpoints, report);
        endpoints.extend(endpoint::workloads(&self.workloads, &profiles, report));
        endpoints.extend(endpoint::pods(&self.pods, &profiles, report));
        endpoints.sort_by(|a, b| (a.namespace(), &a.name).cmp(&(b.namespace(), &b.name)));
        let mut sets = endpoint::sets(&self.sets, &profiles, report);
        sets.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Policies { tiers, profiles, endpoints, sets }
    }

    /// Warns of untracked policy that selects an endpoint for all interfaces: Calico leaves it out there.
    fn untracked_wildcards(&self, tiers: &[Tier], endpoints: &[Endpoint], report: &mut Report) {
        let untracked =
            || tiers.iter().flat_map(|tier| &tier.policies).filter(|policy| policy.scope == Scope::Untracked);
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.is_wildcard()) {
            let Some(policy) = untracked().find(|policy| policy.selector.matches(&endpoint.labels)) else { continue };
            let Some(item) = self.hosts.iter().find(|item| item.document.name == endpoint.name) else { continue };
            let message = format!("{} does not track, and is of no effect on interfaceName '*'", policy.id);
            let mut check = Checker { document: &item.document, report };
            check.warning(&Path::spec().key("interfaceName"), message, Some("name the interface".to_owned()));
        }
    }
}
