//! Endpoints, network sets and profiles, with the labels that they have from others.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::Item;
use super::super::check::Checker;
use super::super::diagnostic::{Purpose, Report};
use super::rule::{NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX, is_port_name, rules};
use crate::desired::{Node, protocol};
use crate::document::Path;
use crate::policy::{
    ALLOW_PROFILE, Endpoint, EndpointKind, HostInterface, Labels, NAMESPACE_LABEL, NamedPort, NetworkSet,
    ORCHESTRATOR_LABEL, Profile, SERVICE_ACCOUNT_LABEL,
};
use crate::resources::calico::HostEndpointSpec;
use crate::resources::common::{Address, Cidr};
use crate::resources::kubernetes::{Container, PodSpec, PodStatus, Unread};
use crate::resources::policy::{NetworkSetSpec, ProfileSpec, QosControls, WorkloadEndpointSpec, WorkloadPort};

/// Profile of everything in a namespace, less the namespace's name.
const NAMESPACE_PROFILE: &str = "kns.";
/// Profile of everything with a service account, less its namespace and name.
const SERVICE_ACCOUNT_PROFILE: &str = "ksa.";
/// Name of a namespace or service account among the labels that it passes on.
const NAME_LABEL: &str = "projectcalico.org/name";
/// What Kubernetes labels every namespace with: its name.
const KUBERNETES_NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Service account that every namespace has, and every pod that names no other.
const DEFAULT_ACCOUNT: &str = "default";
/// Most packets per second that can be asked for.
const MAX_PACKET_RATE: u32 = 10_000;

/// Profiles by name.
pub(super) type Profiles = BTreeMap<String, Profile>;

/// Calico's profile, those of the documents, and those that namespaces and service accounts stand for.
pub(super) fn profiles(
    items: &[Item<ProfileSpec>],
    namespaces: &[Item<(Unread, Unread)>],
    accounts: &[Item<(Unread, Unread)>],
    report: &mut Report,
) -> Profiles {
    let mut profiles = Profiles::from([(ALLOW_PROFILE.to_owned(), Profile::allow_all())]);
    for namespace in namespaces {
        let name = &namespace.document.name;
        let mut labels = namespace.metadata.labels.clone();
        labels.entry(KUBERNETES_NAME_LABEL.to_owned()).or_insert_with(|| name.clone());
        let labels = passed_on(&labels, name, NAMESPACE_PREFIX);
        profiles.insert(format!("{NAMESPACE_PROFILE}{name}"), Profile { labels, ..Profile::allow_all() });
        let account = passed_on(&Labels::new(), DEFAULT_ACCOUNT, SERVICE_ACCOUNT_PREFIX);
        profiles.insert(account_profile(name, DEFAULT_ACCOUNT), Profile { labels: account, ..Profile::default() });
    }
    for account in accounts {
        let name = &account.document.name;
        let labels = passed_on(&account.metadata.labels, name, SERVICE_ACCOUNT_PREFIX);
        let namespace = account.document.namespace.as_deref().unwrap_or_default();
        profiles.insert(account_profile(namespace, name), Profile { labels, ..Profile::default() });
    }
    for item in items {
        let mut check = Checker { document: &item.document, report };
        let profile = Profile {
            ingress: rules(&item.spec.ingress, &Path::spec().key("ingress"), None, &mut check),
            egress: rules(&item.spec.egress, &Path::spec().key("egress"), None, &mut check),
            labels: item.spec.labels_to_apply.clone(),
        };
        if profiles.insert(item.document.name.clone(), profile).is_some() {
            let path = Path::default().key("metadata").key("name");
            let help = "it is Calico's own, or made of a Namespace or ServiceAccount that is here: take one away";
            check.error_help(&path, format!("there is another profile {}", item.document.name), help);
        }
    }
    profiles
}

fn account_profile(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PROFILE}{namespace}.{name}")
}

/// Labels of a namespace or service account as its members have them.
fn passed_on(labels: &Labels, name: &str, prefix: &str) -> Labels {
    let named = (NAME_LABEL.to_owned(), name.to_owned());
    labels
        .iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .chain([named])
        .map(|(k, v)| (prefix.to_owned() + &k, v))
        .collect()
}

/// `labels` with those of `profiles` behind them: what is nearer counts.
fn inherit(mut labels: Labels, names: &[String], profiles: &Profiles) -> Labels {
    for (label, value) in names.iter().filter_map(|name| profiles.get(name)).flat_map(|profile| &profile.labels) {
        labels.entry(label.clone()).or_insert_with(|| value.clone());
    }
    labels
}

/// Warns of profiles that do not exist.
fn missing_profiles(names: &[String], profiles: &Profiles, check: &mut Checker<'_>) {
    for (i, name) in names.iter().enumerate() {
        if !profiles.contains_key(name) {
            let message = format!("there is no profile {name}: it denies whatever no policy allows");
            check.warning(&Path::spec().key("profiles").index(i), message, Some("add its document".to_owned()));
        }
    }
}

/// HostEndpoints: of all nodes, or of `node` alone where they are to be enforced. `nodes` are those that are known.
pub(super) fn hosts(
    items: &[Item<HostEndpointSpec>],
    node: &str,
    nodes: &[Node],
    profiles: &Profiles,
    report: &mut Report,
) -> Vec<Endpoint> {
    let mut result = Vec::new();
    for item in items {
        let mut check = Checker { document: &item.document, report };
        let (spec, at) = (&item.spec, Path::spec());
        let host = spec.node.as_deref().unwrap_or_default();
        if host.is_empty() {
            check.error(&at, "needs the field 'node'");
        } else if host != node && check.report.purpose == Purpose::Agent {
            continue;
        }
        for (i, _) in spec.ports.iter().enumerate() {
            check.evaluated_only(&at.key("ports").index(i), "named ports");
        }
        if check.report.purpose == Purpose::Evaluation {
            missing_profiles(&spec.profiles, profiles, &mut check);
        } else if spec.profiles != [ALLOW_PROFILE] {
            check.error_help(
                &at.key("profiles"),
                "not enforced yet: profiles other than projectcalico-default-allow, and none at all, which drops all \
                 host traffic that no tracked policy allows",
                format!("write profiles: [{ALLOW_PROFILE}]"),
            );
        }
        let Some(interface) = host_interface(spec, &mut check) else { continue };
        let known = nodes.iter().find(|node| node.name == host).cloned().unwrap_or_default();
        let written: Vec<WorkloadPort> = spec.ports.iter().map(WorkloadPort::from).collect();
        result.push(Endpoint {
            kind: EndpointKind::Host {
                interface,
                failsafe_inbound: known.failsafe_inbound,
                failsafe_outbound: known.failsafe_outbound,
            },
            name: item.document.name.clone(),
            node: host.to_owned(),
            addresses: spec.expected_ips.iter().map(|address| address.0).collect(),
            labels: inherit(item.metadata.labels.clone(), &spec.profiles, profiles),
            profiles: spec.profiles.clone(),
            ports: ports(&written, &at.key("ports"), &mut check),
        });
    }
    result.sort_by(|a, b| a.name.cmp(&b.name));
    result
}

fn host_interface(spec: &HostEndpointSpec, check: &mut Checker<'_>) -> Option<HostInterface> {
    let at = Path::spec();
    match spec.interface_name.as_deref() {
        Some("*") => {
            check.evaluated_only(&at.key("interfaceName"), "interfaceName '*', a policy for all interfaces together");
            Some(HostInterface::All)
        }
        Some(name) if !name.is_empty() => {
            check.interface_name(&at.key("interfaceName"), name);
            Some(HostInterface::Named(name.to_owned()))
        }
        _ if spec.expected_ips.is_empty() => {
            check.error(&at, "needs 'interfaceName' or 'expectedIPs'");
            None
        }
        _ => Some(HostInterface::ByAddress),
    }
}

fn ports(list: &[WorkloadPort], at: &Path, check: &mut Checker<'_>) -> Vec<NamedPort> {
    let named = list.iter().enumerate().filter_map(|(i, port)| {
        let at = at.index(i);
        check.range(&at.key("port"), port.port, 1, u16::MAX);
        let protocol = check.transport(&at.key("protocol"), &port.protocol)?;
        let name = port.name.clone().filter(|name| !name.is_empty())?;
        if !is_port_name(&name) {
            let help = "names are of letters, digits and '._-', at most 128, and not a number";
            check.error_help(&at.key("name"), format!("'{name}' is not a name of a port"), help);
        }
        Some(NamedPort { name, protocol, port: port.port })
    });
    named.collect()
}

/// WorkloadEndpoints.
pub(super) fn workloads(
    items: &[Item<WorkloadEndpointSpec>],
    profiles: &Profiles,
    report: &mut Report,
) -> Vec<Endpoint> {
    let endpoint = |item: &Item<WorkloadEndpointSpec>| {
        let mut check = Checker { document: &item.document, report };
        let (spec, at) = (&item.spec, Path::spec());
        if spec.node.as_deref().unwrap_or_default().is_empty() {
            check.error(&at, "needs the field 'node'");
        }
        if let Some(name) = &spec.interface_name {
            check.interface_name(&at.key("interfaceName"), name);
        }
        if let Some(limits) = &spec.qos_controls {
            packet_rates(limits, &mut check);
        }
        missing_profiles(&spec.profiles, profiles, &mut check);
        let namespace = item.document.namespace.clone().unwrap_or_default();
        let mut labels = item.metadata.labels.clone();
        labels.insert(NAMESPACE_LABEL.to_owned(), namespace.clone());
        for (label, value) in
            [(ORCHESTRATOR_LABEL, &spec.orchestrator), (SERVICE_ACCOUNT_LABEL, &spec.service_account_name)]
        {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                labels.insert(label.to_owned(), value.clone());
            }
        }
        Endpoint {
            kind: EndpointKind::Workload { namespace },
            name: item.document.name.clone(),
            node: spec.node.clone().unwrap_or_default(),
            addresses: addresses(&spec.ip_networks, &at.key("ipNetworks"), &mut check),
            labels: inherit(labels, &spec.profiles, profiles),
            profiles: spec.profiles.clone(),
            ports: ports(&spec.ports, &at.key("ports"), &mut check),
        }
    };
    items.iter().map(endpoint).collect()
}

/// Addresses that are written as prefixes.
fn addresses(list: &[Cidr], at: &Path, check: &mut Checker<'_>) -> Vec<IpAddr> {
    for (i, Cidr(net)) in list.iter().enumerate() {
        if net.prefix_len() != net.max_prefix_len() {
            let message = format!("{net} is not one address");
            check.error_help(&at.index(i), message, format!("write {}/{}", net.addr(), net.max_prefix_len()));
        }
    }
    list.iter().map(|Cidr(net)| net.addr()).collect()
}

fn packet_rates(limits: &QosControls, check: &mut Checker<'_>) {
    let at = Path::spec().key("qosControls");
    for (field, rate) in
        [("ingressPacketRate", limits.ingress_packet_rate), ("egressPacketRate", limits.egress_packet_rate)]
    {
        if let Some(rate) = rate {
            check.range(&at.key(field), rate, 1, MAX_PACKET_RATE);
        }
    }
}

/// Pods that have an address of their own.
pub(super) fn pods(items: &[Item<(PodSpec, PodStatus)>], profiles: &Profiles, report: &mut Report) -> Vec<Endpoint> {
    let pod = |item: &Item<(PodSpec, PodStatus)>| {
        let mut check = Checker { document: &item.document, report };
        let (spec, status) = &item.spec;
        let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let node = spec.node_name.clone().filter(|node| !node.is_empty())?;
        let addresses = pod_addresses(status, &mut check);
        if spec.host_network || finished || addresses.is_empty() {
            return None;
        }
        let namespace = item.document.namespace.clone().unwrap_or_default();
        let account = spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_ACCOUNT);
        let names = vec![format!("{NAMESPACE_PROFILE}{namespace}"), account_profile(&namespace, account)];
        pod_parents(&names, &namespace, account, profiles, &mut check);
        let mut labels = item.metadata.labels.clone();
        labels.insert(NAMESPACE_LABEL.to_owned(), namespace.clone());
        labels.insert(ORCHESTRATOR_LABEL.to_owned(), "k8s".to_owned());
        labels.insert(SERVICE_ACCOUNT_LABEL.to_owned(), account.to_owned());
        Some(Endpoint {
            kind: EndpointKind::Workload { namespace },
            name: item.document.name.clone(),
            node,
            addresses,
            labels: inherit(labels, &names, profiles),
            profiles: names,
            ports: container_ports(spec, &mut check),
        })
    };
    items.iter().filter_map(pod).collect()
}

fn pod_addresses(status: &PodStatus, check: &mut Checker<'_>) -> Vec<IpAddr> {
    if !status.pod_ips.is_empty() {
        return status.pod_ips.iter().map(|ip| ip.ip.0).collect();
    }
    let Some(text) = status.pod_ip.as_deref().filter(|text| !text.is_empty()) else { return Vec::new() };
    match text.parse::<Address>() {
        Ok(address) => vec![address.0],
        Err(error) => {
            check.error(&Path::default().key("status").key("podIP"), error.to_string());
            Vec::new()
        }
    }
}

/// Warns of a namespace or service account without a document.
fn pod_parents(names: &[String], namespace: &str, account: &str, profiles: &Profiles, check: &mut Checker<'_>) {
    let [of_namespace, of_account] = names else { return };
    if !profiles.contains_key(of_namespace) {
        let message = format!("there is no Namespace {namespace}: whatever no policy allows is denied");
        let at = Path::default().key("metadata").key("namespace");
        check.warning(&at, message, Some("add its document".to_owned()));
    } else if !profiles.contains_key(of_account) {
        let message = format!("there is no ServiceAccount {namespace}/{account}: selectors see no labels of it");
        check.warning(&Path::spec().key("serviceAccountName"), message, Some("add its document".to_owned()));
    }
}

fn container_ports(spec: &PodSpec, check: &mut Checker<'_>) -> Vec<NamedPort> {
    let runs_on = |container: &Container| container.restart_policy.as_deref() == Some("Always");
    let lists = [("containers", &spec.containers, false), ("initContainers", &spec.init_containers, true)];
    let mut ports = Vec::new();
    for (field, containers, is_init) in lists {
        for (i, container) in containers.iter().enumerate().filter(|(_, container)| !is_init || runs_on(container)) {
            for (j, port) in container.ports.iter().enumerate() {
                let at = Path::spec().key(field).index(i).key("ports").index(j).key("protocol");
                let protocol = port.protocol.as_ref().map_or(Some(protocol::TCP), |name| check.transport(&at, name));
                if let (Some(name), Some(protocol)) = (port.name.clone(), protocol) {
                    ports.push(NamedPort { name, protocol, port: port.container_port });
                }
            }
        }
    }
    ports
}

/// NetworkSets and GlobalNetworkSets.
pub(super) fn sets(items: &[Item<NetworkSetSpec>], profiles: &Profiles, report: &mut Report) -> Vec<NetworkSet> {
    let set = |item: &Item<NetworkSetSpec>| {
        let mut check = Checker { document: &item.document, report };
        let namespace = item.document.namespace.clone();
        let mut labels = item.metadata.labels.clone();
        if let Some(namespace) = &namespace {
            labels.insert(NAMESPACE_LABEL.to_owned(), namespace.clone());
            labels = inherit(labels, &[format!("{NAMESPACE_PROFILE}{namespace}")], profiles);
        }
        let at = Path::spec().key("nets");
        let nets = item.spec.nets.iter().enumerate().map(|(i, net)| check.calico_prefix(&at.index(i), *net));
        NetworkSet { namespace, name: item.document.name.clone(), labels, nets: nets.collect() }
    };
    items.iter().map(set).collect()
}
