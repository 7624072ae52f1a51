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
use diagnostic::{Document, Report};

use crate::desired::Desired;
use crate::document::deserialize::{one_of, read};
use crate::document::{Mark, Path, Tree, Value, parse};
use crate::resources::calico::{BgpConfigurationSpec, BgpPeerSpec, GlobalNetworkPolicySpec, HostEndpointSpec};
use crate::resources::common::{Metadata, Resource};
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

/// Loads the documents of `files`, pairs of a name and its text, for the node `node_name`; where that is not given, for
/// the only `Node` document.
///
/// # Errors
/// Every error of every file, in the order of files and lines, warnings among them.
pub fn load(files: &[(String, String)], node_name: Option<&str>) -> Result<Loaded, Vec<Diagnostic>> {
    let mut report = Report::default();
    let mut documents = Documents::default();
    for (file, text) in files {
        documents.add_file(file, text, &mut report);
    }
    documents.find_duplicates(&mut report);
    let desired = documents.lower(node_name, &mut report);
    match desired {
        Some(desired) if !report.has_errors() => {
            let interfaces = documents.interface_mentions(&desired.node.name);
            Ok(Loaded { desired, warnings: report.finish(files), interfaces })
        }
        _ => Err(report.finish(files)),
    }
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
    host_endpoints: Vec<Item<HostEndpointSpec>>,
    policies: Vec<Item<GlobalNetworkPolicySpec>>,
    /// A Node document too broken to be read: its absence is not to be complained about.
    broken_node: bool,
    /// Where each kind and name stands first, and where else.
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
/// Calico's other kinds.
const CALICO_UNREAD: [&str; 21] = [
    "BGPFilter",
    "BlockAffinity",
    "CalicoNodeStatus",
    "ClusterInformation",
    "FelixConfiguration",
    "GlobalNetworkSet",
    "IPAMConfiguration",
    "IPAMBlock",
    "IPAMHandle",
    "IPPool",
    "IPReservation",
    "KubeControllersConfiguration",
    "NetworkPolicy",
    "NetworkSet",
    "Node",
    "Profile",
    "StagedGlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy",
    "StagedNetworkPolicy",
    "Tier",
    "WorkloadEndpoint",
];

impl Documents {
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
            let document = Document { file: file.to_owned(), tree, kind: "", name: String::new() };
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
                let document = Document { file: file.to_owned(), tree, kind: "", name: String::new() };
                report.error(&document, &Path::default().key("kind"), "a list of documents needs them in 'items'");
            }
        }
    }

    fn add_document(&mut self, file: &str, tree: Tree, report: &mut Report) {
        let name = tree.get("metadata").and_then(|m| m.text("name")).unwrap_or_default().to_owned();
        let api_version = tree.text("apiVersion").map(str::to_owned);
        let kind = tree.text("kind").map(str::to_owned);
        let mut document = Document { file: file.to_owned(), tree, kind: "", name };
        let (Some(api_version), Some(kind)) = (api_version, kind) else {
            for field in ["apiVersion", "kind"] {
                if document.tree.text(field).is_none() {
                    report.error(&document, &Path::default(), format!("needs the field '{field}'"));
                }
            }
            return;
        };
        let kinds: &[&'static str] = match api_version.as_str() {
            MARGAY => &MARGAY_KINDS,
            CALICO => &CALICO_KINDS,
            _ => {
                let help = format!("expected {MARGAY} or {CALICO}");
                let path = Path::default().key("apiVersion");
                report.error_help(&document, &path, format!("'{api_version}' is not known"), help);
                return;
            }
        };
        let Some(known) = kinds.iter().find(|k| **k == kind) else {
            let path = Path::default().key("kind");
            if api_version == CALICO && CALICO_UNREAD.contains(&kind.as_str()) {
                report.not_enforced(&document, &path, &format!("kind {kind}"));
            } else {
                let message = format!("{api_version} has no kind '{kind}'");
                report.error_help(&document, &path, message, one_of(&kind, kinds));
            }
            return;
        };
        document.kind = known;
        self.note_name(&document);
        match *known {
            "Node" => {
                let before = self.nodes.len();
                push(&mut self.nodes, document, report);
                self.broken_node |= self.nodes.len() == before;
            }
            "VirtualService" => push(&mut self.services, document, report),
            "Tunnel" => push(&mut self.tunnels, document, report),
            "StaticRoute" => push(&mut self.routes, document, report),
            "Denylist" => push(&mut self.denylists, document, report),
            "VRF" => push(&mut self.vrfs, document, report),
            "BGPConfiguration" => push(&mut self.bgp_configurations, document, report),
            "BGPPeer" => push(&mut self.bgp_peers, document, report),
            "GlobalNetworkPolicy" => push(&mut self.policies, document, report),
            _ => push(&mut self.host_endpoints, document, report),
        }
    }

    fn note_name(&mut self, document: &Document) {
        if document.name.is_empty() {
            return;
        }
        let path = Path::default().key("metadata").key("name");
        let at = document.tree.locate(&path);
        let key = (document.kind, document.name.clone());
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

    /// Everything that is right in itself, brought together. `None` where there is no node to do it.
    fn lower(&self, node_name: Option<&str>, report: &mut Report) -> Option<Desired> {
        let selected = self.select_node(node_name, report);
        // Without its node the documents are checked all the same.
        let name = selected.map(|item| item.document.name.as_str()).or(node_name).unwrap_or_default();
        let node = selected.map(|item| service::node(item, report));
        for other in self.nodes.iter().filter(|other| other.document.name != name) {
            service::node(other, report);
        }
        let labels = selected.map(|item| item.metadata.labels.clone()).unwrap_or_default();
        let host_endpoints = policy::host_endpoints(&self.host_endpoints, name, report);
        let policies = policy::policies(&self.policies, &host_endpoints, report);
        let vrfs = vrf::vrfs(&self.vrfs, node.as_ref(), report);
        let names = self.names.keys().filter(|(kind, _)| *kind == "VRF").map(|(_, name)| name.as_str()).collect();
        vrf::references(&self.nodes, &self.routes, &names, report);
        let me = bgp::Me { name, labels: &labels, node: node.as_ref() };
        let desired = Desired {
            services: service::services(&self.services, report),
            vrfs,
            tunnels: service::tunnels(&self.tunnels, report),
            static_routes: service::routes(&self.routes, report),
            denylist: service::denylist(&self.denylists, report),
            host_endpoints,
            policies,
            bgp: bgp::bgp(&self.bgp_configurations, &self.bgp_peers, &me, report),
            node: node?,
        };
        Some(desired)
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
        for item in self.host_endpoints.iter().filter(|item| item.spec.node.as_deref() == Some(node)) {
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

/// Reads a document as its type and puts it with the others of its kind.
fn push<S: DeserializeOwned>(items: &mut Vec<Item<S>>, mut document: Document, report: &mut Report) {
    let (resource, problems) = read::<Resource<S>>(&mut document.tree);
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
        check::name(&document, report);
        items.push(Item { document, metadata: resource.metadata, spec: resource.spec });
    }
}
