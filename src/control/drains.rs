//! Backends that the operator drains by command, beside those of the configuration. Kept in a file, so that neither a restart nor a reboot
//! sends new flows where somebody is at work.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use model::desired::Desired;
use serde::{Deserialize, Serialize};
use tracing::{error, info};

use super::api::types::{DrainRequest, Drained};

/// Largest file that is read, in bytes: more than all backends of a node come to.
const MAX_BYTES: u64 = 16 << 20;

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    service: String,
    backend: IpAddr,
}

/// What the file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    drained: BTreeSet<Named>,
}

/// Why a backend is not drained, or not given back.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is none.
    #[error("{0}")]
    Unknown(String),
    /// It would be forgotten.
    #[error("{path}: {source}; nothing is changed")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is drained by command.
#[derive(Debug)]
pub(super) struct Drains {
    path: PathBuf,
    commanded: BTreeSet<Named>,
    /// What the configuration drains.
    configured: BTreeSet<Named>,
    /// The file cannot be read, and has not been replaced since.
    problem: Option<String>,
}

impl Drains {
    /// What was drained before. A file that cannot be read drains nothing: that is told, and the node forwards.
    pub(super) fn open(state_dir: &Path, node: &str) -> Self {
        let path = state_dir.join(format!("drained-{node}.json"));
        let mut problem = None;
        let commanded = match read(&path) {
            Ok(document) => document.drained,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => {
                let words = format!(
                    "{}: {error}; what was drained by command is not known: drain again what is to be, which replaces the file",
                    path.display()
                );
                error!("{words}");
                problem = Some(words);
                BTreeSet::new()
            }
        };
        for Named { service, backend } in &commanded {
            info!(service, %backend, "still drained by command");
        }
        Self { path, commanded, configured: BTreeSet::new(), problem }
    }

    /// Takes the configuration in and drains what was commanded. A command ends when its backend leaves the configuration.
    pub(super) fn apply(&mut self, desired: &mut Desired) {
        self.configured.clear();
        let mut there = BTreeSet::new();
        for service in &mut desired.services {
            for backend in &mut service.backends {
                let named = Named { service: service.name.clone(), backend: backend.address };
                if backend.drain {
                    self.configured.insert(named.clone());
                }
                if self.commanded.contains(&named) {
                    backend.drain = true;
                    there.insert(named);
                }
            }
        }
        if there != self.commanded {
            self.commanded = there;
            if let Err(error) = self.write(&self.commanded) {
                error!(%error, "backends that are gone are not forgotten");
            }
        }
    }

    /// Drains a backend, or gives it back, in every service that has it or in one. What `desired` wants of it is changed then, and the
    /// file holds it.
    pub(super) fn command(&mut self, request: &DrainRequest, desired: &mut Desired) -> Result<Vec<Drained>, Error> {
        let wanted: Vec<Named> = named(request, desired)?;
        let mut commanded = self.commanded.clone();
        for named in &wanted {
            if !request.undo {
                commanded.insert(named.clone());
            } else if self.configured.contains(named) {
                let Named { service, backend } = named;
                let message = format!("the configuration drains {backend} of {service}: take 'drain' away there");
                return Err(Error::Unknown(message));
            } else {
                commanded.remove(named);
            }
        }
        if commanded != self.commanded {
            self.write(&commanded)?;
            self.commanded = commanded;
            self.problem = None;
        }
        for service in &mut desired.services {
            let of_service = wanted.iter().filter(|named| named.service == service.name);
            let addresses: BTreeSet<IpAddr> = of_service.map(|named| named.backend).collect();
            let backends = service.backends.iter_mut().filter(|backend| addresses.contains(&backend.address));
            backends.for_each(|backend| backend.drain = !request.undo);
        }
        let drained = |Named { service, backend }| Drained { service, backend, draining: !request.undo };
        Ok(wanted.into_iter().map(drained).collect())
    }

    /// What is wrong with the file.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Replaces the file by one that is whole.
    fn write(&self, commanded: &BTreeSet<Named>) -> Result<(), Error> {
        let write = || {
            if let Some(directory) = self.path.parent() {
                fs::create_dir_all(directory)?;
            }
            let unready = self.path.with_extension(format!("{}", std::process::id()));
            let mut file = File::create(&unready)?;
            let document = Document { drained: commanded.clone() };
            file.write_all(&serde_json::to_vec_pretty(&document)?)?;
            file.sync_all()?;
            fs::rename(unready, &self.path)
        };
        write().map_err(|source| Error::File { path: self.path.clone(), source })
    }
}

fn read(path: &Path) -> io::Result<Document> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > MAX_BYTES {
        return Err(io::Error::other(format!("has {length} bytes, at most {MAX_BYTES} are read")));
    }
    Ok(serde_json::from_reader(io::BufReader::new(file))?)
}

/// The backends that a request is about.
fn named(request: &DrainRequest, desired: &Desired) -> Result<Vec<Named>, Error> {
    let DrainRequest { backend, service: only, .. } = request;
    let services = desired.services.iter().filter(|service| only.as_ref().is_none_or(|only| *only == service.name));
    let has = |service: &&model::desired::Service| service.backends.iter().any(|found| found.address == *backend);
    let found: Vec<Named> =
        services.filter(has).map(|service| Named { service: service.name.clone(), backend: *backend }).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    Err(Error::Unknown(match only {
        Some(only) if !desired.services.iter().any(|service| service.name == *only) => {
            format!("there is no VirtualService '{only}'")
        }
        Some(only) => format!("VirtualService {only} has no backend {backend}"),
        None => format!("no VirtualService has a backend {backend}"),
    }))
}

#[cfg(test)]
mod tests {
    use model::desired::{Backend, Encap, Service, protocol};

    use super::*;

    fn desired(services: &[(&str, &[&str])]) -> Desired {
        let backend =
            |address: &&str| Backend { address: address.parse().unwrap(), weight: 1, encap: Encap::Ipip, drain: false };
        let service = |(name, backends): &(&str, &[&str])| Service {
            name: (*name).to_owned(),
            addresses: Vec::new(),
            port: Some(80),
            protocol: Some(protocol::TCP),
            advertise: true,
            health: None,
            affinity: None,
            quic: None,
            backends: backends.iter().map(backend).collect(),
        };
        Desired { services: services.iter().map(service).collect(), ..Desired::default() }
    }

    fn request(backend: &str, service: Option<&str>, undo: bool) -> DrainRequest {
        DrainRequest { backend: backend.parse().unwrap(), service: service.map(str::to_owned), undo }
    }

    fn draining(desired: &Desired) -> Vec<String> {
        let of_service = |service: &Service| {
            let backends = service.backends.iter().filter(|backend| backend.drain);
            backends.map(|backend| format!("{} {}", service.name, backend.address)).collect::<Vec<_>>()
        };
        desired.services.iter().flat_map(of_service).collect()
    }

    #[test]
    fn a_command_outlives_the_process_and_ends_with_its_backend() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let fresh = || desired(&[("api", &["10.0.0.1"]), ("web", &["10.0.0.1", "10.0.0.2"])]);
        let mut now = fresh();
        let mut drains = Drains::open(&state, "gw");
        drains.apply(&mut now);
        let drained = drains.command(&request("10.0.0.1", None, false), &mut now).unwrap();
        assert_eq!(drained.iter().map(|d| d.service.as_str()).collect::<Vec<_>>(), ["api", "web"]);
        assert_eq!(draining(&now), ["api 10.0.0.1", "web 10.0.0.1"]);
        drains.command(&request("10.0.0.1", Some("api"), true), &mut now).unwrap();
        assert_eq!(draining(&now), ["web 10.0.0.1"]);

        let mut again = Drains::open(&state, "gw");
        let mut now = fresh();
        again.apply(&mut now);
        assert_eq!(draining(&now), ["web 10.0.0.1"]);
        let mut other = fresh();
        Drains::open(&state, "gw2").apply(&mut other);
        assert_eq!(draining(&other), [""; 0], "another node's");

        again.apply(&mut desired(&[("web", &["10.0.0.2"])]));
        let mut now = fresh();
        Drains::open(&state, "gw").apply(&mut now);
        assert_eq!(draining(&now), [""; 0]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut now = desired(&[("web", &["10.0.0.1", "10.0.0.2"])]);
        now.services[0].backends[1].drain = true;
        let mut drains = Drains::open(directory.path(), "gw");
        drains.apply(&mut now);
        for (request, error) in [
            (request("10.0.0.3", None, false), "no VirtualService has a backend 10.0.0.3"),
            (request("10.0.0.3", Some("web"), false), "VirtualService web has no backend 10.0.0.3"),
            (request("10.0.0.1", Some("wbe"), false), "there is no VirtualService 'wbe'"),
            (request("10.0.0.2", None, true), "the configuration drains 10.0.0.2 of web: take 'drain' away there"),
        ] {
            assert_eq!(drains.command(&request, &mut now).unwrap_err().to_string(), error);
        }
        assert_eq!(draining(&now), ["web 10.0.0.2"]);

        // A file where the directory should be.
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let mut drains = Drains::open(&path, "gw");
        let error = drains.command(&request("10.0.0.1", None, false), &mut now).unwrap_err().to_string();
        assert!(error.ends_with("nothing is changed"), "{error}");
        assert_eq!(draining(&now), ["web 10.0.0.2"]);
    }

    #[test]
    fn a_broken_file_drains_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let long = "[".repeat(100_000);
        for text in
            ["", "{", "[]", "{\"drained\": [{\"service\": \"web\", \"backend\": \"10.0.0.300\"}]}", long.as_str()]
        {
            fs::write(directory.path().join("drained-gw.json"), text).unwrap();
            let mut now = desired(&[("web", &["10.0.0.1"])]);
            let mut drains = Drains::open(directory.path(), "gw");
            drains.apply(&mut now);
            assert_eq!(draining(&now), [""; 0], "{text:.20}");
            assert!(drains.problem().is_some_and(|problem| problem.contains("drained-gw.json")));
            drains.command(&request("10.0.0.1", None, false), &mut now).unwrap();
            assert_eq!(drains.problem(), None);
            assert_eq!(Drains::open(directory.path(), "gw").commanded.len(), 1);
        }
    }
}
