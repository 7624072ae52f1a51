//! Commands that work without an agent.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::client::{self, Client};
use super::output::{self, Format, Row};
use super::{ConfigArgs, Error};
use crate::control::api::types::Status;
use crate::control::{PinLock, check_privilege};
use crate::{config, dataplane};

/// `margay validate`: all diagnostics, 2 where there is an error among them.
pub(super) fn validate(args: &ConfigArgs) -> Result<ExitCode, Error> {
    match config::load_dir(&args.config, args.node.as_deref()) {
        Ok(loaded) => {
            if !loaded.warnings.is_empty() {
                eprintln!("{}", config::render(&loaded.warnings));
            }
            output::text(&format!("{}: valid for node {}\n", args.config.display(), loaded.desired.node.name))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("{error}");
            Ok(ExitCode::from(2))
        }
    }
}

/// `margay detach`: links, programs and maps go; refused while an agent runs on them.
pub(super) fn detach(pin_dir: &Path) -> Result<ExitCode, Error> {
    if !pin_dir.exists() {
        output::text(&format!("{}: nothing is pinned\n", pin_dir.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    check_privilege()?;
    let lock = PinLock::take(pin_dir)?;
    let detached = dataplane::detach_all(pin_dir)?;
    drop(lock);
    let (interfaces, maps) = (detached.interfaces.len(), detached.maps);
    output::text(&format!("{}: {interfaces} interfaces detached, {maps} maps unpinned\n", pin_dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// One thing that the program can do.
#[derive(Serialize)]
struct Feature {
    name: String,
    meaning: &'static str,
    /// Compiled into the program that is loaded; absent without an agent to ask.
    loaded: Option<bool>,
}

impl Row for Feature {
    const HEADER: &'static [&'static str] = &["FEATURE", "LOADED", "MEANING"];
    fn cells(&self) -> Vec<String> {
        let loaded = match self.loaded {
            None => "-",
            Some(true) => "yes",
            Some(false) => "no",
        };
        vec![self.name.clone(), loaded.to_owned(), self.meaning.to_owned()]
    }
}

fn meaning(feature: &str) -> &'static str {
    match feature {
        "decap_ipip" => "IPIP, 4in6 and 6in4 packets of configured peers are decapsulated",
        "decap_vxlan" => "VXLAN packets of configured peers and VNIs are decapsulated",
        "decap_gue" => "GUE packets of configured peers are decapsulated",
        "denied_sources" => "packets from denied prefixes are dropped",
        "denied_destinations" => "packets to denied prefixes are dropped",
        "filter" => "untracked policy of host endpoints is enforced",
        "source_validation" => "sources are let in where a route leads back to them",
        "max_mss" => "the maximum segment size of TCP is lowered to what fits",
        "vip" => "VIPs are balanced over backends",
        "affinity" => "clients stay with their backends",
        "quic" => "QUIC packets go to the server that their connection ID names",
        "vlan" => "VLAN tags are taken off and put on",
        "vrf" => "ports take their routes from VRFs",
        "slow_path" => "ARP, ND and ICMP errors by AF_XDP workers",
        _ => "",
    }
}

/// `margay features`: what the program can do, and whether the running agent's program does it.
pub(super) fn features(socket: &Path, format: Format) -> Result<ExitCode, Error> {
    let status: Option<Status> = match Client::new(socket).get("/v1/status") {
        Ok(status) => Some(status),
        Err(client::Error::Unreachable { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let known = serde_json::to_value(status.as_ref().map_or(model::tables::Features::FULL, |status| status.features))?;
    let features: Vec<Feature> = known
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, on)| Feature {
            meaning: meaning(name),
            name: name.replace('_', "-"),
            loaded: status.as_ref().and_then(|_| on.as_bool()),
        })
        .collect();
    match format {
        Format::Json => output::json(&features)?,
        Format::Table => output::text(&output::table(&features))?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_feature_has_a_meaning() {
        let features = serde_json::to_value(model::tables::Features::FULL).unwrap();
        for name in features.as_object().unwrap().keys() {
            assert!(!super::meaning(name).is_empty(), "{name}");
        }
    }
}
