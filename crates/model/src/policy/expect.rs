//! A file of flows and what is expected of them, as a person writes it.
//!
//! ```yaml
//! - {from: prod/web, to: prod/db, port: 5432, expect: allow}
//! - {from: 192.0.2.9, to: prod/db, port: 5432, expect: deny}
//! ```
//! An end is a workload (`namespace/name`), a host endpoint (`name`) or an address; an address that an endpoint has stands for the
//! endpoint.

use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;

use super::{Endpoint, EndpointToHost, Flow, Judgement, Packet, Policies};
use crate::desired::protocol;
use crate::document::Mark;
use crate::file::{Document, Path, one_of};
use crate::load::Diagnostic;
use crate::resources::common::{Address, NumberOrText};

/// Source port of flows that name none: the first of the dynamic ones (RFC 6335).
const SOURCE_PORT: u16 = 49_152;
/// Type of ICMP echo requests.
const ECHO_REQUEST: u8 = 8;
/// Type of ICMPv6 echo requests.
const ECHO_REQUEST_V6: u8 = 128;

/// What should become of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// It may pass.
    Allow,
    /// It is dropped.
    Deny,
}

impl Expected {
    /// What became of a flow.
    pub fn of(judgement: &Judgement<'_>) -> Self {
        if judgement.allowed { Self::Allow } else { Self::Deny }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// A flow as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    from: String,
    to: String,
    from_address: Option<Address>,
    to_address: Option<Address>,
    ip_version: Option<u8>,
    protocol: Option<NumberOrText>,
    port: Option<u16>,
    source_port: Option<u16>,
    icmp: Option<Icmp>,
    enters: Option<String>,
    leaves: Option<String>,
    expect: Option<Expected>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Icmp {
    r#type: u8,
    #[serde(default)]
    code: u8,
}

/// One flow of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation<'a> {
    /// Where it stands.
    pub at: Mark,
    /// Its source and destination as they are written.
    pub ends: (String, String),
    /// Its first packet.
    pub packet: Packet,
    /// What is expected; nothing where absent.
    pub expected: Option<Expected>,
    source: Option<&'a Endpoint>,
    destination: Option<&'a Endpoint>,
    enters: Option<&'a Endpoint>,
    leaves: Option<&'a Endpoint>,
}

impl<'a> Expectation<'a> {
    /// Reads the flows in `text`, which is called `file` in errors.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn read(file: &str, text: &str, policies: &'a Policies) -> Result<Vec<Self>, Vec<Diagnostic>> {
        let mut document = Document::parse(file, text)?;
        let written: Vec<Written> = document.read()?;
        let mut reader = Reader { document: &document, policies, errors: Vec::new() };
        let flows = written.iter().enumerate().filter_map(|(i, flow)| reader.flow(flow, &Path::default().index(i)));
        let flows: Vec<Self> = flows.collect();
        if reader.errors.is_empty() { Ok(flows) } else { Err(reader.errors) }
    }

    /// What becomes of it.
    pub fn judge(&'a self, policies: &'a Policies, endpoint_to_host: EndpointToHost) -> Judgement<'a> {
        let (source, destination, enters, leaves) = (self.source, self.destination, self.enters, self.leaves);
        policies.judge(&Flow { source, destination, enters, leaves, packet: &self.packet, endpoint_to_host })
    }
}

/// One end of a flow.
struct End<'a> {
    endpoint: Option<&'a Endpoint>,
    /// Addresses that it may have.
    addresses: Vec<IpAddr>,
}

struct Reader<'a, 'd> {
    document: &'d Document,
    policies: &'a Policies,
    errors: Vec<Diagnostic>,
}

impl<'a> Reader<'a, '_> {
    fn flow(&mut self, flow: &Written, at: &Path) -> Option<Expectation<'a>> {
        let source = self.end(&flow.from, flow.from_address, ["from", "fromAddress"], at);
        let destination = self.end(&flow.to, flow.to_address, ["to", "toAddress"], at);
        let enters = self.host(flow.enters.as_ref(), &at.key("enters"));
        let leaves = self.host(flow.leaves.as_ref(), &at.key("leaves"));
        let (source, destination) = (source?, destination?);
        let (from, to) = self.addresses(&source, &destination, flow.ip_version, at)?;
        let (protocol, ports, icmp) = self.payload(flow, from.is_ipv4(), at)?;
        Some(Expectation {
            at: self.document.locate(at),
            ends: (flow.from.clone(), flow.to.clone()),
            packet: Packet { protocol, source: from, destination: to, ports, icmp },
            expected: flow.expect,
            source: source.endpoint,
            destination: destination.endpoint,
            enters: enters?,
            leaves: leaves?,
        })
    }

    fn error(&mut self, at: &Path, message: String, help: &str) {
        let help = Some(help.to_owned()).filter(|help| !help.is_empty());
        self.errors.push(Diagnostic { help, ..self.document.error(at, message) });
    }

    /// A workload, a host endpoint or an address, and the address that it has in this flow.
    fn end(&mut self, text: &str, address: Option<Address>, fields: [&str; 2], at: &Path) -> Option<End<'a>> {
        let [field, address_field] = fields;
        let given = address.map(|address| vec![address.0]);
        if let Ok(address) = text.parse::<IpAddr>() {
            let endpoint = self.policies.endpoints.iter().find(|endpoint| endpoint.addresses.contains(&address));
            return Some(End { endpoint, addresses: given.unwrap_or_else(|| vec![address]) });
        }
        let endpoint = self.endpoint(text, &at.key(field))?;
        let addresses = given.unwrap_or_else(|| endpoint.addresses.clone());
        if addresses.is_empty() {
            let message = format!("{text} has no address");
            self.error(&at.key(field), message, &format!("write its address: {address_field}: 192.0.2.1"));
            return None;
        }
        Some(End { endpoint: Some(endpoint), addresses })
    }

    fn endpoint(&mut self, text: &str, at: &Path) -> Option<&'a Endpoint> {
        let found = match text.split_once('/') {
            Some((namespace, name)) => self.policies.workload(namespace, name),
            None => self.policies.host(text),
        };
        if found.is_none() {
            let (message, help) = if text.contains('/') {
                let help = "a Pod is an endpoint when it has spec.nodeName and status.podIPs, and no hostNetwork; else it is its \
                            WorkloadEndpoint";
                (format!("there is no workload {text}"), help.to_owned())
            } else {
                let hosts = self.policies.endpoints.iter().filter(|endpoint| endpoint.namespace().is_none());
                let names: Vec<&str> = hosts.map(|host| host.name.as_str()).collect();
                let help = if names.is_empty() { String::new() } else { format!("; {}", one_of(text, &names)) };
                (
                    format!("'{text}' is neither an address nor a HostEndpoint"),
                    format!("a workload is written namespace/name{help}"),
                )
            };
            self.error(at, message, &help);
        }
        found
    }

    /// A host endpoint, if one is named; `None` where that is an error.
    fn host(&mut self, name: Option<&String>, at: &Path) -> Option<Option<&'a Endpoint>> {
        let Some(name) = name else { return Some(None) };
        let host = self.endpoint(name, at)?;
        if host.namespace().is_some() {
            self.error(at, format!("{name} is a workload"), "name the HostEndpoint of an interface");
            return None;
        }
        Some(Some(host))
    }

    /// Addresses of one family, IPv4 first.
    fn addresses(&mut self, from: &End<'_>, to: &End<'_>, version: Option<u8>, at: &Path) -> Option<(IpAddr, IpAddr)> {
        if let Some(version) = version.filter(|version| ![4, 6].contains(version)) {
            self.error(&at.key("ipVersion"), format!("must be 4 or 6, is {version}"), "");
            return None;
        }
        let of = |end: &End<'_>, v4: bool| end.addresses.iter().copied().find(|address| address.is_ipv4() == v4);
        let pair = |v4: bool| Some((of(from, v4)?, of(to, v4)?));
        let found = match version {
            Some(version) => pair(version == 4),
            None => pair(true).or_else(|| pair(false)),
        };
        if found.is_none() {
            let of = version.map_or_else(String::new, |version| format!(" of IPv{version}"));
            self.error(at, format!("the ends have no addresses of one family{of}"), "write fromAddress or toAddress");
        }
        found
    }

    /// Protocol, ports, ICMP type and code.
    fn payload(&mut self, flow: &Written, v4: bool, at: &Path) -> Option<Payload> {
        let protocol = match &flow.protocol {
            None => protocol::TCP,
            Some(NumberOrText::Number(number)) => match u8::try_from(*number) {
                Ok(number) => number,
                Err(_) => {
                    self.error(&at.key("protocol"), format!("must be 0 to 255, is {number}"), "");
                    return None;
                }
            },
            Some(NumberOrText::Text(name)) => match protocol::by_name(name) {
                Some(protocol::ICMP | protocol::ICMPV6) if !v4 => protocol::ICMPV6,
                Some(number) => number,
                None => {
                    let names = protocol::NAMES.map(|(name, _)| name);
                    self.error(&at.key("protocol"), format!("'{name}' is not a protocol"), &one_of(name, &names));
                    return None;
                }
            },
        };
        let has_ports = [protocol::TCP, protocol::UDP, protocol::SCTP, protocol::UDPLITE].contains(&protocol);
        let is_icmp = [protocol::ICMP, protocol::ICMPV6].contains(&protocol);
        match flow.port {
            None if has_ports => self.error(at, "needs the field 'port'".to_owned(), ""),
            Some(_) if !has_ports => self.error(&at.key("port"), "this protocol has no ports".to_owned(), ""),
            _ => {}
        }
        if flow.icmp.is_some() && !is_icmp {
            self.error(&at.key("icmp"), "icmp needs protocol ICMP or ICMPv6".to_owned(), "");
        }
        let echo = Icmp { r#type: if v4 { ECHO_REQUEST } else { ECHO_REQUEST_V6 }, code: 0 };
        let icmp = is_icmp.then(|| flow.icmp.unwrap_or(echo)).map(|icmp| (icmp.r#type, icmp.code));
        let ports = flow.port.map(|port| (flow.source_port.unwrap_or(SOURCE_PORT), port));
        Some((protocol, ports, icmp))
    }
}

/// Protocol, source and destination port, ICMP type and code.
type Payload = (u8, Option<(u16, u16)>, Option<(u8, u8)>);
