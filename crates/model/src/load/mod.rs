//! Documents to [`Desired`]: all of them, or every reason why not.
//!
//! Pure: the caller reads the files. Three passes, each over everything: syntax and types of each document; its ranges and references;
//! what holds between documents. A pass keeps quiet about values that an earlier one found broken, so that every line of the
//! answer is something to mend.

mod bgp;
mod check;
mod diagnostic;
mod health;
mod policy;
mod quic;
mod service;
mod vrf;

use std::collections::HashMap;

use serde::de::DeserializeOwned;

pub use diagnostic::{Diagnostic, Severity};
use diagnostic::{Document, Purpose, Report};

use crate::desired::{Desired, Node};
use crate::document::deserialize::{one_of, read};
use crate::document::{Mark, Path, Tree, Value, parse};
use crate::policy::Policies;
use crate::resources::calico::{BgpConfigurationSpec, BgpPeerSpec};
use crate::resources::common::{self, Metadata, Resource};
use crate::resources::margay::{DenylistSpec, NodeSpec, StaticRouteSpec, TunnelSpec, VirtualServiceSpec, VrfSpec};

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 32 << 20;

/// What [`load`] makes of valid documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The desired state of this node.
    pub desired: Desired,
    /// Things that work but look wrong.
    pub warnings: Vec<Diagnostic>,
    /// Every interface that the documents of this node name, for those who know which there are.
    pub interfaces: Vec<InterfaceMention>,
}

/// A place where a document names an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceMention {
    /// The name.
    pub interface: String,
    /// True when nothing works without the interface; false when the document only waits for it.
    pub required: bool,
    file: String,
    at: Mark,
    document: String,
    field: String,
}

impl InterfaceMention {
    fn new(interface: &str, required: bool, document: &Document, path: &Path) -> Self {
        Self {
            interface: interface.to_owned(),
            required,
            file: document.file.clone(),
            at: document.locate(path),
            document: document.label(),
            field: path.to_string(),
        }
    }

    /// Something to say about the interface at this place.
    pub fn diagnostic(&self, severity: Severity, message: String, help: Option<String>) -> Diagnostic {
        Diagnostic {
            file: self.file.clone(),
            at: self.at,
            severity,
            document: self.document.clone(),
            field: self.field.clone(),
            message,
            help,
        }
    }
}

/// What [`load_policy`] makes of valid documents.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedPolicy {
    /// The policy of all nodes.
    pub policies: Policies,
    /// Things that work but look wrong.
    pub warnings: Vec<Diagnostic>,
}

/// Loads the policy in the documents of `files`, all that can be evaluated and not only what is enforced. No Node is needed; all
/// other documents are checked as [`load`] does.
///
/// # Errors
/// Every error of every file, in the order of files and lines, warnings among them.
pub fn load_policy(files: &[(String, String)]) -> Result<LoadedPolicy, Vec<Diagnostic>> {
    let mut report = Report::new(Purpose::Evaluation);
    let documents = Documents::read(files, &mut report);
    let desired = documents.lower("", None, &mut report);
    if report.has_errors() {
        return Err(report.finish(files));
    }
    Ok(LoadedPolicy { policies: desired.policy, warnings: report.finish(files) })
}

/// Loads the documents of `files`, pairs of a name and its text, for the node `node_name`; where that is not given, for
/// the only `Node` document.
///
/// # Errors
/// Every error of every file, in the order of files and lines, warnings among them.
pub fn load(files: &[(String, String)], node_name: Option<&str>) -> Result<Loaded, Vec<Diagnostic>> {
    let mut report = Report::new(Purpose::Agent);
    let documents = Documents::read(files, &mut report);
    let selected = documents.select_node(node_name, &mut report);
    // Without its node the documents are checked all the same.
    let name = selected.map(|item| item.document.name.as_str()).or(node_name).unwrap_or_default();
    let desired = documents.lower(name, selected, &mut report);
    if selected.is_none() || report.has_errors() {
        return Err(report.finish(files));
    }
    let interfaces = documents.interface_mentions(name);
    Ok(Loaded { desired, warnings: report.finish(files), interfaces })
}

/// A document read as its type.
struct Item<S> {
    document: Document,
    metadata: Metadata,
    spec: S,
}

/// The documents of all files, by kind.
#[derive(Default)]
struct Documents {
    nodes: Vec<Item<NodeSpec>>,
    services: Vec<Item<VirtualServiceSpec>>,
    tunnels: Vec<Item<TunnelSpec>>,
    routes: Vec<Item<StaticRouteSpec>>,
    denylists: Vec<Item<DenylistSpec>>,
    vrfs: Vec<Item<VrfSpec>>,
    bgp_configurations: Vec<Item<BgpConfigurationSpec>>,
    bgp_peers: Vec<Item<BgpPeerSpec>>,
    policy: policy::PolicyDocuments,
    /// A Node document too broken to be read: its absence is not to be complained about.
    broken_node: bool,
    /// Where each kind and name, with its namespace, stands first, and where else.
    names: HashMap<(&'static str, String), (String, Mark)>,
    duplicates: Vec<Diagnostic>,
}

/// API group and version of margay's own kinds.
pub(crate) const MARGAY: &str = "margay.io/v1";
/// API group and version of Calico's kinds.
pub(crate) const CALICO: &str = "projectcalico.org/v3";
/// Kinds of [`MARGAY`].
const MARGAY_KINDS: [&str; 6] = ["Node", "VirtualService", "Tunnel", "StaticRoute", "Denylist", "VRF"];
/// Kinds of [`CALICO`] that are read.
const CALICO_KINDS: [&str; 4] = ["BGPConfiguration", "BGPPeer", "GlobalNetworkPolicy", "HostEndpoint"];
/// Kinds of [`CALICO`] that are evaluated and not enforced.
const CALICO_EVALUATED: [&str; 9] = [
    "GlobalNetworkSet",
    "NetworkPolicy",
    "NetworkSet",
    "Profile",
    "StagedGlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy",
    "StagedNetworkPolicy",
    "Tier",
    "WorkloadEndpoint",
];
/// Calico's other kinds.
const CALICO_UNREAD: [&str; 12] = [
    "BGPFilter",
    "BlockAffinity",
    "CalicoNodeStatus",
    "ClusterInformation",
    "FelixConfiguration",
    "IPAMConfiguration",
    "IPAMBlock",
    "IPAMHandle",
    "IPPool",
    "IPReservation",
    "KubeControllersConfiguration",
    "Node",
];
/// Kubernetes' kinds that are evaluated and not enforced: API group and version, the kind, and what it is called here.
const KUBERNETES_EVALUATED: [(&str, &str, &str); 5] = [
    ("networking.k8s.io/v1", "NetworkPolicy", "KubernetesNetworkPolicy"),
    ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "ClusterNetworkPolicy"),
    ("v1", "Namespace", "Namespace"),
    ("v1", "Pod", "Pod"),
    ("v1", "ServiceAccount", "ServiceAccount"),
];
/// Kinds that live in a namespace, as they are called here.
const NAMESPACED: [&str; 8] = [
    "KubernetesNetworkPolicy",
    "NetworkPolicy",
    "NetworkSet",
    "Pod",
    "ServiceAccount",
    "StagedKubernetesNetworkPolicy",
    "StagedNetworkPolicy",
    "WorkloadEndpoint",
];
/// Namespace of a document that names none.
const DEFAULT_NAMESPACE: &str = "default";

impl Documents {
    fn read(files: &[(String, String)], report: &mut Report) -> Self {
        let mut documents = Self::default();
        for (file, text) in files {
            documents.add_file(file, text, report);
        }
        documents.find_duplicates(report);
        documents
    }

    fn add_file(&mut self, file: &str, text: &str, report: &mut Report) {
        let whole = |message: String, at, help| Diagnostic {
            file: file.to_owned(),
            at,
            severity: Severity::Error,
            document: String::new(),
            field: String::new(),
            message,
            help,
        };
        if text.len() > MAX_FILE_BYTES {
            let message = format!("the file has {} bytes, at most {MAX_FILE_BYTES} are read", text.len());
            report.diagnostics.push(whole(message, Mark::default(), None));
            return;
        }
        let (trees, error) = parse(text);
        for tree in trees {
            self.add_tree(file, tree, report);
        }
        if let Some(error) = error {
            // What follows the error is not known, and a Node may be in it.
            self.broken_node = true;
            let help = error.help.map(str::to_owned);
            report.diagnostics.push(whole(error.message, error.at, help));
        }
    }

    /// A document, or a list of them as `calicoctl get` and `kubectl get` print it.
    fn add_tree(&mut self, file: &str, mut tree: Tree, report: &mut Report) {
        if !matches!(tree.value, Value::Map(_)) {
            let document = Document::unknown(file, tree);
            report.error(
                &document,
                &Path::default(),
                "a document is a mapping with apiVersion, kind, metadata and spec",
            );
            return;
        }
        if !tree.text("kind").is_some_and(|kind| kind.ends_with("List")) {
            self.add_document(file, tree, report);
            return;
        }
        match tree.take("items").map(|items| items.value) {
            Some(Value::Seq(items)) => items.into_iter().for_each(|item| self.add_tree(file, item, report)),
            _ => {
                let document = Document::unknown(file, tree);
                report.error(&document, &Path::default().key("kind"), "a list of documents needs them in 'items'");
            }
        }
    }

    fn add_document(&mut self, file: &str, tree: Tree, report: &mut Report) {
        let mut document = Document::unknown(file, tree);
        let api_version = document.tree.text("apiVersion").map(str::to_owned);
        let kind = document.tree.text("kind").map(str::to_owned);
        let metadata = |field| document.tree.get("metadata").and_then(|m| m.text(field)).map(str::to_owned);
        let (name, namespace) = (metadata("name").unwrap_or_default(), metadata("namespace"));
        document.name = name;
        let (Some(api_version), Some(kind)) = (api_version, kind) else {
            for field in ["apiVersion", "kind"] {
                if document.tree.text(field).is_none() {
                    report.error(&document, &Path::default(), format!("needs the field '{field}'"));
                }
            }
            return;
        };
        let Some(known) = known_kind(&api_version, &kind, &document, report) else { return };
        document.kind = known;
        if NAMESPACED.contains(&known) {
            document.namespace = Some(namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()));
        }
        self.note_name(&document);
        match known {
            "Node" => {
                let before = self.nodes.len();
                push::<Resource<_>>(&mut self.nodes, document, report);
                self.broken_node |= self.nodes.len() == before;
            }
            "VirtualService" => push::<Resource<_>>(&mut self.services, document, report),
            "Tunnel" => push::<Resource<_>>(&mut self.tunnels, document, report),
            "StaticRoute" => push::<Resource<_>>(&mut self.routes, document, report),
            "Denylist" => push::<Resource<_>>(&mut self.denylists, document, report),
            "VRF" => push::<Resource<_>>(&mut self.vrfs, document, report),
            "BGPConfiguration" => push::<Resource<_>>(&mut self.bgp_configurations, document, report),
            "BGPPeer" => push::<Resource<_>>(&mut self.bgp_peers, document, report),
            _ => self.policy.add(document, report),
        }
    }

    fn note_name(&mut self, document: &Document) {
        if document.name.is_empty() {
            return;
        }
        let path = Path::default().key("metadata").key("name");
        let at = document.tree.locate(&path);
        let key = (document.kind, document.full_name());
        match self.names.get(&key) {
            None => drop(self.names.insert(key, (document.file.clone(), at))),
            Some((file, first)) => self.duplicates.push(Diagnostic {
                file: document.file.clone(),
                at,
                severity: Severity::Error,
                document: document.label(),
                field: path.to_string(),
                message: format!("there is another {} in {file}:{}", document.label(), first.line),
                help: Some("give one of them another name, or take it away".to_owned()),
            }),
        }
    }

    fn find_duplicates(&mut self, report: &mut Report) {
        report.diagnostics.append(&mut self.duplicates);
    }

    /// Names of all documents of a kind, be they broken ones.
    fn names_of(&self, kind: &'static str) -> impl Iterator<Item = &str> {
        self.names.keys().filter(move |(of, _)| *of == kind).map(|(_, name)| name.as_str())
    }

    /// Everything that is right in itself, brought together for the node `name`, which `selected` is about if it is there.
    fn lower(&self, name: &str, selected: Option<&Item<NodeSpec>>, report: &mut Report) -> Desired {
        let node = selected.map(|item| service::node(item, report));
        let others = self.nodes.iter().filter(|other| other.document.name != name);
        let nodes: Vec<Node> = others.map(|other| service::node(other, report)).chain(node.clone()).collect();
        let labels = selected.map(|item| item.metadata.labels.clone()).unwrap_or_default();
        let policy = self.policy.lower(name, &nodes, self.names_of("Tier").collect(), report);
        let vrfs = vrf::vrfs(&self.vrfs, node.as_ref(), report);
        vrf::references(&self.nodes, &self.routes, &self.names_of("VRF").collect(), report);
        let me = bgp::Me { name, labels: &labels, node: node.as_ref() };
        let host_endpoints = policy::host_endpoints(&policy, name);
        Desired {
            services: service::services(&self.services, report),
            vrfs,
            tunnels: service::tunnels(&self.tunnels, report),
            static_routes: service::routes(&self.routes, report),
            denylist: service::denylist(&self.denylists, report),
            policies: policy::untracked(&policy, &host_endpoints),
            host_endpoints,
            policy,
            bgp: bgp::bgp(&self.bgp_configurations, &self.bgp_peers, &me, report),
            node: node.clone().unwrap_or_default(),
        }
    }

    fn interface_mentions(&self, node: &str) -> Vec<InterfaceMention> {
        let at = Path::spec();
        let mut mentions = Vec::new();
        for item in self.nodes.iter().filter(|item| item.document.name == node) {
            for (i, interface) in item.spec.interfaces.iter().enumerate() {
                let path = at.key("interfaces").index(i).key("name");
                mentions.push(InterfaceMention::new(&interface.name, true, &item.document, &path));
            }
        }
        for item in &self.routes {
            for (i, hop) in item.spec.next_hops.iter().flatten().enumerate() {
                let path = at.key("nextHops").index(i).key("interface");
                mentions
                    .extend(hop.interface.iter().map(|name| InterfaceMention::new(name, true, &item.document, &path)));
            }
        }
        for item in self.policy.hosts.iter().filter(|item| item.spec.node.as_deref() == Some(node)) {
            let path = at.key("interfaceName");
            let name = item.spec.interface_name.iter().filter(|name| !name.is_empty());
            mentions.extend(name.map(|name| InterfaceMention::new(name, false, &item.document, &path)));
        }
        mentions
    }

    fn select_node(&self, node_name: Option<&str>, report: &mut Report) -> Option<&Item<NodeSpec>> {
        let mut complain = |message: String, help: &str| {
            report.diagnostics.push(Diagnostic {
                file: String::new(),
                at: Mark::default(),
                severity: Severity::Error,
                document: String::new(),
                field: String::new(),
                message,
                help: Some(help.to_owned()),
            });
        };
        let names: Vec<&str> = self.nodes.iter().map(|item| item.document.name.as_str()).collect();
        match (node_name, self.nodes.as_slice()) {
            (Some(name), nodes) => {
                let found = nodes.iter().find(|item| item.document.name == name);
                if found.is_none() && !self.broken_node {
                    let have = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    complain(
                        format!("no Node document is called '{name}'; there is {have}"),
                        "name this node with --node",
                    );
                }
                found
            }
            (None, [only]) => Some(only),
            (None, []) => {
                if !self.broken_node {
                    complain(
                        "there is no Node document".to_owned(),
                        "add one that lists the interfaces: apiVersion: margay.io/v1, kind: Node",
                    );
                }
                None
            }
            (None, _) => {
                complain(
                    format!("there are several Node documents: {}", names.join(", ")),
                    "name this node with --node",
                );
                None
            }
        }
    }
}

/// The kind of a document as it is called here, or an error about it.
fn known_kind(api_version: &str, kind: &str, document: &Document, report: &mut Report) -> Option<&'static str> {
    let evaluates = report.purpose == Purpose::Evaluation;
    let path = Path::default().key("kind");
    let find = |kinds: &[&'static str]| kinds.iter().copied().find(|known| *known == kind);
    let (found, kinds): (_, Vec<&str>) = match api_version {
        MARGAY => (find(&MARGAY_KINDS), MARGAY_KINDS.to_vec()),
        CALICO if evaluates => {
            (find(&CALICO_KINDS).or_else(|| find(&CALICO_EVALUATED)), [&CALICO_KINDS[..], &CALICO_EVALUATED].concat())
        }
        CALICO => (find(&CALICO_KINDS), CALICO_KINDS.to_vec()),
        _ => {
            let of_group = || KUBERNETES_EVALUATED.iter().filter(|(group, ..)| evaluates && *group == api_version);
            if of_group().next().is_none() {
                unknown_group(api_version, document, report);
                return None;
            }
            let found = of_group().find(|(_, known, _)| *known == kind).map(|(.., name)| *name);
            (found, of_group().map(|(_, kind, _)| *kind).collect())
        }
    };
    if found.is_some() {
        return found;
    }
    if api_version == CALICO && [&CALICO_UNREAD[..], &CALICO_EVALUATED].concat().contains(&kind) {
        report.not_enforced(document, &path, &format!("kind {kind}"));
    } else if api_version == MARGAY || api_version == CALICO {
        report.error_help(document, &path, format!("{api_version} has no kind '{kind}'"), one_of(kind, &kinds));
    } else {
        report.error_help(document, &path, format!("kind '{kind}' of {api_version} is not read"), one_of(kind, &kinds));
    }
    None
}

fn unknown_group(api_version: &str, document: &Document, report: &mut Report) {
    let mut groups = vec![MARGAY, CALICO];
    if report.purpose == Purpose::Evaluation {
        groups.extend(KUBERNETES_EVALUATED.iter().map(|(group, ..)| *group));
        groups.dedup();
    }
    let (last, first) = groups.split_last().unwrap_or((&MARGAY, &[]));
    let help = format!("expected {} or {last}", first.join(", "));
    let path = Path::default().key("apiVersion");
    report.error_help(document, &path, format!("'{api_version}' is not known"), help);
}

/// Reads a document as its type and puts it with the others of its kind.
fn push<D: common::Document + DeserializeOwned>(
    items: &mut Vec<Item<D::Spec>>,
    mut document: Document,
    report: &mut Report,
) {
    let (resource, problems) = read::<D>(&mut document.tree);
    let label = document.label();
    report.diagnostics.extend(problems.into_iter().map(|problem| {
        let field = problem.path.to_string();
        // What is wrong with a password is not to stand in a log.
        let secret = field.contains(bgp::PASSWORD);
        Diagnostic {
            file: document.file.clone(),
            at: problem.at,
            severity: Severity::Error,
            document: label.clone(),
            field,
            message: if secret { "expected text".to_owned() } else { problem.message },
            help: if secret { Some("write it in quotes".to_owned()) } else { problem.help },
        }
    }));
    if let Some(resource) = resource {
        let (metadata, spec) = resource.into_parts();
        check::name(&document, report);
        check::namespace(&document, &metadata, report);
        items.push(Item { document, metadata, spec });
    }
}
