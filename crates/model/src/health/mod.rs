//! Health of backends: what is asked of them, what the answers mean, and when to ask again.
//!
//! Nothing here does I/O and nothing reads a clock: probes are made by the control side, which tells [`Schedule`] what came of them
//! and is told which verdicts that changes.

mod progress;
mod schedule;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use progress::Progress;
pub use schedule::{CheckId, Report, Schedule};

use crate::desired::{Backend, Service};
use crate::tables::VipKey;

/// How the backends of a service are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceHealth {
    /// The check, the same for each.
    pub check: Arc<HealthCheck>,
    /// Share of healthy backends in percent below which all are used; 0 for never.
    pub panic_percent: u32,
}

/// One check: what is sent, what is expected, and how often.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HealthCheck {
    /// What is sent and what is expected.
    pub probe: Probe,
    /// The way that it goes.
    pub via: Via,
    /// Port; that of the service where absent.
    pub port: Option<u16>,
    /// From one check to the next.
    pub interval: Duration,
    /// Longest that an answer may take; no longer than the interval.
    pub timeout: Duration,
    /// Checks that succeed in a row before a backend that is down is up; at least 1.
    pub rise: u32,
    /// Checks that fail in a row before a backend that is up is down; at least 1.
    pub fall: u32,
    /// How far an interval may be off, in percent of it.
    pub jitter_percent: u32,
}

/// The way that a check goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// To the backend's own address, by the kernel's routes.
    #[default]
    Direct,
    /// To the VIP, in what clients' packets to the backend are sent in.
    Tunnel,
}

/// What is sent to a backend and what is expected of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// A TCP connection is accepted.
    Tcp,
    /// An HTTP/1.1 request is answered with one of the expected statuses.
    Http(HttpProbe),
    /// A datagram is answered.
    Udp(UdpProbe),
    /// An ICMP echo request is answered.
    Icmp,
}

/// An HTTP request and what its answer has to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpProbe {
    /// Request method.
    pub method: &'static str,
    /// Path with query, from the first `/` on.
    pub path: String,
    /// The `Host` field; address and port where absent.
    pub host: Option<String>,
    /// First and last status of each range that is expected.
    pub statuses: Vec<(u16, u16)>,
    /// Over TLS.
    pub tls: Option<TlsProbe>,
}

/// How TLS is spoken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TlsProbe {
    /// Name that is asked for (RFC 6066 §3).
    pub server_name: Option<String>,
    /// What the certificate is verified by; it is not where absent.
    pub verify: Option<Roots>,
}

/// Certificates that others are verified by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Roots {
    /// Those of the system.
    System,
    /// Those of this file, in PEM.
    File(String),
}

/// A datagram and its answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UdpProbe {
    /// What is sent.
    pub send: Vec<u8>,
    /// What the answer has to contain; where absent, anything but ICMP errors is healthy, silence included.
    pub expect: Option<Vec<u8>>,
}

/// What one check is made of: what is asked, and of whom. Services that ask the same of the same share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The backend.
    pub address: IpAddr,
    /// The VIP that is asked, where it is not the backend's own address.
    pub vip: Option<VipKey>,
    /// The port.
    pub port: u16,
    /// What is asked.
    pub check: Arc<HealthCheck>,
}

impl Target {
    /// Where packets are sent to: to the backend, or to the first address of the VIP.
    pub fn asked(&self) -> SocketAddr {
        SocketAddr::new(self.vip.map_or(self.address, |vip| vip.prefix.network()), self.port)
    }
}

impl fmt::Display for Target {
    /// `TCP 10.1.0.11:80`, `HTTP GET 10.1.0.11:80/health`, `TCP 192.0.2.10:80 via tunnel to 10.1.0.11`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.asked();
        match &self.check.probe {
            Probe::Tcp => write!(f, "TCP {end}"),
            Probe::Http(http) => {
                let scheme = if http.tls.is_some() { "HTTPS" } else { "HTTP" };
                write!(f, "{scheme} {} {end}{}", http.method, http.path)
            }
            Probe::Udp(_) => write!(f, "UDP {end}"),
            Probe::Icmp => write!(f, "ICMP echo {}", end.ip()),
        }?;
        if self.vip.is_some() { write!(f, " via tunnel to {}", self.address) } else { Ok(()) }
    }
}

/// What is known of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No check has ended yet, and nothing is known from before: it is not used.
    Starting,
    /// It is used.
    Up,
    /// It is not; why.
    Down(String),
}

impl Standing {
    /// True where it serves.
    pub fn is_up(&self) -> bool {
        *self == Self::Up
    }
}

/// What is known of each target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    standings: BTreeMap<Target, Standing>,
}

impl Health {
    /// What is known of a target; it is starting where nothing is.
    pub fn of(&self, target: &Target) -> &Standing {
        self.standings.get(target).unwrap_or(&Standing::Starting)
    }

    /// Notes what is known; true where that is news.
    pub fn set(&mut self, target: Target, standing: Standing) -> bool {
        self.standings.insert(target, standing.clone()) != Some(standing)
    }

    /// Forgets all targets but those that are wanted.
    pub fn retain(&mut self, wanted: impl Fn(&Target) -> bool) {
        self.standings.retain(|target, _| wanted(target));
    }

    /// What is known of a backend; up where its service checks none.
    pub fn of_backend(&self, service: &Service, backend: &Backend) -> &Standing {
        service.target(backend).map_or(&Standing::Up, |target| self.of(&target))
    }

    /// True where so few backends of the service are up that all are used.
    pub fn panics(&self, service: &Service) -> bool {
        let Some(health) = service.health.as_ref().filter(|health| health.panic_percent > 0) else { return false };
        let backends = service.backends.iter();
        let (mut up, mut judged) = (0, 0);
        for standing in backends.map(|backend| self.of_backend(service, backend)) {
            up += usize::from(standing.is_up());
            judged += usize::from(*standing != Standing::Starting);
        }
        // Before every backend has been judged nothing is known of the share.
        judged == service.backends.len() && up * 100 < service.backends.len() * health.panic_percent as usize
    }
}

impl Service {
    /// What is checked of one of its backends; `None` where nothing is.
    pub fn target(&self, backend: &Backend) -> Option<Target> {
        let check = &self.health.as_ref()?.check;
        let port = if check.probe == Probe::Icmp { 0 } else { check.port.or(self.port)? };
        Some(Target { address: backend.address, vip: self.checked_vip(), port, check: Arc::clone(check) })
    }

    /// The VIP that checks via tunnel ask: that of the first address. `None` where they do not go that way.
    pub fn checked_vip(&self) -> Option<VipKey> {
        let health = self.health.as_ref().filter(|health| health.check.via == Via::Tunnel);
        health.and_then(|_| VipKey::of(self).next())
    }
}
