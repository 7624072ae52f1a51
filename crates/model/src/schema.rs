//! JSON Schema of every kind: for editors, for `docs/schema`, for whoever generates configuration.
//!
//! A schema says what types and ranges can say. What holds between fields and between documents only
//! [`load`](crate::load::load) knows, so that a valid document can still be refused, never the other way round.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use crate::load::{CALICO, MARGAY};
use crate::resources::calico::{BgpConfigurationSpec, BgpPeerSpec, GlobalNetworkPolicySpec, HostEndpointSpec};
use crate::resources::common::Resource;
use crate::resources::kubernetes::{
    ClusterNetworkPolicySpec, KubernetesNetworkPolicySpec, Labelled, Pod, PolicyDocument,
};
use crate::resources::margay::{DenylistSpec, NodeSpec, StaticRouteSpec, TunnelSpec, VirtualServiceSpec, VrfSpec};
use crate::resources::policy::{
    NetworkPolicySpec, NetworkSetSpec, ProfileSpec, StagedGlobalNetworkPolicySpec, StagedKubernetesNetworkPolicySpec,
    StagedNetworkPolicySpec, TierSpec, WorkloadEndpointSpec,
};

/// The schema of each kind, by the kind's name; Kubernetes' NetworkPolicy is `KubernetesNetworkPolicy`, since Calico has one too.
pub fn schemas() -> BTreeMap<&'static str, Schema> {
    BTreeMap::from([
        kind::<Resource<NodeSpec>>(MARGAY, "Node"),
        kind::<Resource<VirtualServiceSpec>>(MARGAY, "VirtualService"),
        kind::<Resource<TunnelSpec>>(MARGAY, "Tunnel"),
        kind::<Resource<StaticRouteSpec>>(MARGAY, "StaticRoute"),
        kind::<Resource<DenylistSpec>>(MARGAY, "Denylist"),
        kind::<Resource<VrfSpec>>(MARGAY, "VRF"),
        kind::<Resource<BgpConfigurationSpec>>(CALICO, "BGPConfiguration"),
        kind::<Resource<BgpPeerSpec>>(CALICO, "BGPPeer"),
        kind::<Resource<GlobalNetworkPolicySpec>>(CALICO, "GlobalNetworkPolicy"),
        kind::<Resource<HostEndpointSpec>>(CALICO, "HostEndpoint"),
        kind::<Resource<TierSpec>>(CALICO, "Tier"),
        kind::<Resource<NetworkPolicySpec>>(CALICO, "NetworkPolicy"),
        kind::<Resource<StagedNetworkPolicySpec>>(CALICO, "StagedNetworkPolicy"),
        kind::<Resource<StagedGlobalNetworkPolicySpec>>(CALICO, "StagedGlobalNetworkPolicy"),
        kind::<Resource<StagedKubernetesNetworkPolicySpec>>(CALICO, "StagedKubernetesNetworkPolicy"),
        kind::<Resource<NetworkSetSpec>>(CALICO, "NetworkSet"),
        kind::<Resource<NetworkSetSpec>>(CALICO, "GlobalNetworkSet"),
        kind::<Resource<ProfileSpec>>(CALICO, "Profile"),
        kind::<Resource<WorkloadEndpointSpec>>(CALICO, "WorkloadEndpoint"),
        ("KubernetesNetworkPolicy", schema::<PolicyDocument<KubernetesNetworkPolicySpec>>(NETWORKING, "NetworkPolicy")),
        kind::<PolicyDocument<ClusterNetworkPolicySpec>>("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
        kind::<Labelled>("v1", "Namespace"),
        kind::<Labelled>("v1", "ServiceAccount"),
        kind::<Pod>("v1", "Pod"),
    ])
}

/// API group and version of Kubernetes' NetworkPolicy.
const NETWORKING: &str = "networking.k8s.io/v1";

fn kind<D: JsonSchema>(api_version: &str, kind: &'static str) -> (&'static str, Schema) {
    (kind, schema::<D>(api_version, kind))
}

fn schema<D: JsonSchema>(api_version: &str, kind: &str) -> Schema {
    let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut schema = generator.into_root_schema_for::<D>();
    schema.insert("title".to_owned(), json!(kind));
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (field, value) in [("apiVersion", api_version), ("kind", kind)] {
            if let Some(Value::Object(property)) = properties.get_mut(field) {
                property.insert("const".to_owned(), json!(value));
            }
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::deserialize::read;
    use crate::document::parse;

    fn documents(text: &str) -> Vec<Value> {
        let (trees, error) = parse(text);
        assert_eq!(error, None);
        trees.into_iter().map(|mut tree| read(&mut tree).0.unwrap()).collect()
    }

    /// What the document's kind is called in [`schemas`].
    fn name(document: &Value) -> &str {
        if document["apiVersion"] == NETWORKING {
            "KubernetesNetworkPolicy"
        } else {
            document["kind"].as_str().unwrap()
        }
    }

    fn errors(document: &Value) -> Vec<String> {
        let schema = schemas().remove(name(document)).unwrap();
        let validator = jsonschema::draft202012::new(schema.as_value()).unwrap();
        validator.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path())).collect()
    }

    #[test]
    fn examples_of_the_documentation_match() {
        let mut kinds = std::collections::BTreeSet::new();
        for page in ["configuration.md", "policy.md"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
            let text = std::fs::read_to_string(path).unwrap();
            let blocks = text.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
            // A list is a file of flows.
            for document in blocks.flat_map(documents).filter(Value::is_object) {
                assert_eq!(errors(&document), Vec::<String>::new(), "{document}");
                kinds.insert(name(&document).to_owned());
            }
        }
        assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), schemas().keys().copied().collect::<Vec<_>>());
    }

    #[test]
    fn wrong_documents_do_not_match() {
        let service = |spec: &str| {
            format!("{{apiVersion: margay.io/v1, kind: VirtualService, metadata: {{name: web}}, spec: {spec}}}")
        };
        let good = "{addresses: [192.0.2.1], port: 80, protocol: TCP, backends: [{address: 10.0.0.1}]}";
        for (broken, place) in [
            (service(&good.replace("80", "0")), "/spec/port"),
            (service(&good.replace("80", "eighty")), "/spec/port"),
            (service(&good.replace("10.0.0.1", "10.0.0")), "/spec/backends/0/address"),
            (service(&good.replace("port", "prot")), "/spec"),
            (service(&good.replace("10.0.0.1}", "10.0.0.1, weight: 1001}")), "/spec/backends/0/weight"),
            (service(&good.replace("10.0.0.1}", "10.0.0.1, encap: {type: GRE}}")), "/spec/backends/0/encap"),
            (service(good).replace("margay.io/v1", "margay.io/v2"), "/apiVersion"),
            (service(good).replace("name", "nom"), "/metadata"),
        ] {
            let [document] = documents(&broken).try_into().unwrap();
            let errors = errors(&document);
            assert!(!errors.is_empty() && errors.iter().all(|e| e.starts_with(place)), "{broken}: {errors:?}");
        }
    }
}
