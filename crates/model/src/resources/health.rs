//! `healthCheck` of a `VirtualService`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::common::{Duration, NumberOrText};

/// What backends are asked, how often, and what follows from their answers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HealthCheckSpec {
    /// TCP, HTTP, HTTPS, UDP or ICMP.
    #[serde(rename = "type")]
    pub kind: HealthCheckType,
    /// The way that checks go: direct, to the backend's own address, or tunnel, to the service's first address in what clients' packets
    /// to the backend are sent in; direct where absent.
    pub via: Option<HealthCheckVia>,
    /// Port that is asked, 1 to 65535, not of ICMP; that of the service where absent.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// From one check of a backend to the next, 100ms to 1h; 2s where absent.
    pub interval: Option<Duration>,
    /// Longest that an answer may take, 10ms to the interval; 1s where absent, or the interval where that is shorter.
    pub timeout: Option<Duration>,
    /// Checks that have to succeed in a row before a backend that is down is used again, 1 to 100; 2 where absent.
    #[schemars(range(min = 1, max = 100))]
    pub rise: Option<u32>,
    /// Checks that have to fail in a row before a backend is down, 1 to 100; 3 where absent.
    #[schemars(range(min = 1, max = 100))]
    pub fall: Option<u32>,
    /// How far an interval may be off at random, in percent of it, 0 to 50; 10 where absent.
    #[schemars(range(min = 0, max = 50))]
    pub jitter: Option<u32>,
    /// Share of healthy backends in percent, below which all are used whatever the checks say, 0 to 100; 0, never, where absent.
    #[schemars(range(min = 0, max = 100))]
    pub panic_threshold: Option<u32>,
    /// Request method; HTTP and HTTPS only; GET where absent.
    pub method: Option<HttpMethod>,
    /// Path of the request, with query; HTTP and HTTPS only; / where absent.
    #[schemars(regex(pattern = r"^/"))]
    pub path: Option<String>,
    /// Host field of the request; HTTP and HTTPS only; the address and port that are asked where absent.
    pub host: Option<String>,
    /// Statuses that are healthy, each a number or a range as 200-299; HTTP and HTTPS only; 200-399 where absent.
    #[schemars(length(min = 1))]
    pub statuses: Option<Vec<NumberOrText>>,
    /// Name that the server is asked for, and that its certificate has to have where it is verified; HTTPS only; host where that is
    /// given.
    pub server_name: Option<String>,
    /// Whether the certificate has to be valid for its name, or for the address that is asked where there is no name; HTTPS only; false
    /// where absent.
    pub verify: Option<bool>,
    /// File of the certificates, in PEM, that servers' certificates are verified by; HTTPS only; the system's where absent.
    #[schemars(regex(pattern = r"^/"))]
    pub ca_file: Option<String>,
    /// What is sent, as text; UDP only; an empty datagram where absent.
    pub send: Option<String>,
    /// The same in hexadecimal; UDP only.
    #[schemars(regex(pattern = r"^([0-9a-fA-F]{2})*$"))]
    pub send_hex: Option<String>,
    /// What an answer has to contain, as text; UDP only; where absent, silence is healthy, too.
    pub expect: Option<String>,
    /// The same in hexadecimal; UDP only.
    #[schemars(regex(pattern = r"^([0-9a-fA-F]{2})*$"))]
    pub expect_hex: Option<String>,
}

/// The words for kinds of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum HealthCheckType {
    /// A connection is accepted.
    #[serde(rename = "TCP")]
    Tcp,
    /// A request is answered with a status that is expected.
    #[serde(rename = "HTTP")]
    Http,
    /// The same over TLS.
    #[serde(rename = "HTTPS")]
    Https,
    /// A datagram is answered as expected, or not refused.
    #[serde(rename = "UDP")]
    Udp,
    /// An echo request is answered.
    #[serde(rename = "ICMP")]
    Icmp,
}

/// The words for ways of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthCheckVia {
    /// To the backend's own address.
    Direct,
    /// To the VIP at the backend.
    Tunnel,
}

impl HealthCheckType {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
        }
    }
}

/// Methods that change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// The whole answer.
    Get,
    /// The answer without its body.
    Head,
    /// What the server can do.
    Options,
}

impl HttpMethod {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
        }
    }
}
