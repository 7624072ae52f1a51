//! Checks that more than one kind needs.

use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;

use super::diagnostic::{Document, Purpose, Report};
use crate::desired::protocol;
use crate::document::Path;
use crate::resources::common::{Cidr, Metadata, NumberOrText};

/// Longest kernel interface name, in bytes (`IFNAMSIZ` less its terminator).
const MAX_INTERFACE_NAME: usize = 15;

/// Longest name of a document.
const MAX_NAME: usize = 253;
/// Longest name of a namespace.
const MAX_NAMESPACE: usize = 63;

/// Checks one field at a time, in the document it belongs to.
pub(super) struct Checker<'a> {
    pub(super) document: &'a Document,
    pub(super) report: &'a mut Report,
}

impl Checker<'_> {
    pub(super) fn error(&mut self, path: &Path, message: impl Into<String>) {
        self.report.error(self.document, path, message);
    }

    pub(super) fn error_help(&mut self, path: &Path, message: impl Into<String>, help: impl Into<String>) {
        self.report.error_help(self.document, path, message, help);
    }

    pub(super) fn not_enforced(&mut self, path: &Path, what: &str) {
        self.report.not_enforced(self.document, path, what);
    }

    /// Something that can be evaluated and is not enforced.
    pub(super) fn evaluated_only(&mut self, path: &Path, what: &str) {
        if self.report.purpose == Purpose::Agent {
            self.not_enforced(path, what);
        }
    }

    /// Something that can be neither enforced nor evaluated; `help` is for whoever evaluates.
    pub(super) fn unevaluated(&mut self, path: &Path, what: &str, help: &str) {
        match self.report.purpose {
            Purpose::Agent => self.not_enforced(path, what),
            Purpose::Evaluation => self.error_help(path, format!("cannot be evaluated: {what}"), help),
        }
    }

    pub(super) fn warning(&mut self, path: &Path, message: impl Into<String>, help: Option<String>) {
        self.report.warning(self.document, path, message, help);
    }

    /// `value`, which must be `min` to `max`; the nearest allowed one where it is not.
    pub(super) fn range<T: Ord + Display>(&mut self, path: &Path, value: T, min: T, max: T) -> T {
        if value < min || value > max {
            self.error(path, format!("must be {min} to {max}, is {value}"));
        }
        value.clamp(min, max)
    }

    /// At most `max` elements.
    pub(super) fn at_most(&mut self, path: &Path, count: usize, max: usize, what: &str) {
        if count > max {
            self.error(path, format!("at most {max} {what} are allowed, there are {count}"));
        }
    }

    /// A prefix whose host bits must be zero.
    pub(super) fn prefix(&mut self, path: &Path, cidr: Cidr) -> IpNet {
        if cidr.has_host_bits() {
            let message = format!("{} has host bits set", cidr.0);
            self.error_help(path, message, format!("write {}", cidr.prefix()));
        }
        cidr.prefix()
    }

    /// A prefix as Calico takes it: host bits are cut off.
    pub(super) fn calico_prefix(&mut self, path: &Path, cidr: Cidr) -> IpNet {
        if cidr.has_host_bits() {
            let message = format!("{} has host bits set; {} is meant", cidr.0, cidr.prefix());
            self.warning(path, message, Some(format!("write {}", cidr.prefix())));
        }
        cidr.prefix()
    }

    /// An interface name as the kernel takes it.
    pub(super) fn interface_name(&mut self, path: &Path, name: &str) {
        if name.is_empty() || name == "." || name == ".." {
            self.error(path, format!("'{name}' is not an interface name"));
        } else if name.len() > MAX_INTERFACE_NAME {
            let message =
                format!("interface names have at most {MAX_INTERFACE_NAME} bytes, '{name}' has {}", name.len());
            self.error(path, message);
        } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
            self.error(path, format!("'{name}' is not an interface name: it has a '/', a ':' or a space"));
        }
    }

    /// An address that one machine can have and packets can be forwarded to.
    pub(super) fn host_address(&mut self, path: &Path, address: IpAddr, what: &str) {
        let kind = if address.is_unspecified() {
            "the unspecified address"
        } else if address.is_multicast() {
            "a multicast address"
        } else if address.is_loopback() {
            "a loopback address"
        } else if address == IpAddr::from([255; 4]) {
            "the broadcast address"
        } else {
            return;
        };
        self.error(path, format!("{address} is {kind} and cannot be {what}"));
    }

    /// TCP, UDP or SCTP, by name in any case or by number.
    pub(super) fn transport(&mut self, path: &Path, text: &NumberOrText) -> Option<u8> {
        let number = match text {
            NumberOrText::Number(n) => u8::try_from(*n).ok(),
            NumberOrText::Text(name) => match name.to_ascii_uppercase().as_str() {
                "TCP" => Some(protocol::TCP),
                "UDP" => Some(protocol::UDP),
                "SCTP" => Some(protocol::SCTP),
                _ => None,
            },
        };
        let number = number.filter(|n| [protocol::TCP, protocol::UDP, protocol::SCTP].contains(n));
        if number.is_none() {
            self.error(path, format!("must be TCP, UDP or SCTP, is '{text}'"));
        }
        number
    }
}

/// Checks a document's name: a DNS subdomain (RFC 1123), as Kubernetes and Calico want it.
pub(super) fn name(document: &Document, report: &mut Report) {
    let name = &document.name;
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| alphanumeric(Some(c)) || c == '-';
    let label = |l: &str| alphanumeric(l.chars().next()) && alphanumeric(l.chars().last()) && l.chars().all(inner);
    let path = Path::default().key("metadata").key("name");
    if name.len() > MAX_NAME {
        report.error(document, &path, format!("a name has at most {MAX_NAME} characters, this has {}", name.len()));
    } else if !name.split('.').all(label) {
        let message = format!("'{name}' is not a name of a document");
        report.error_help(
            document,
            &path,
            message,
            "names are of a-z, 0-9, '-' and '.', with a letter or digit at each end",
        );
    }
}

/// Checks the namespace that a document names: one label of a DNS name, and only where the kind lives in one.
pub(super) fn namespace(document: &Document, metadata: &Metadata, report: &mut Report) {
    let Some(written) = &metadata.namespace else { return };
    let path = Path::default().key("metadata").key("namespace");
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if document.namespace.is_none() {
        let help = format!("a {} is in no namespace", document.kind);
        report.error_help(document, &path, "unknown field 'namespace'", help);
    } else if !(1..=MAX_NAMESPACE).contains(&written.len())
        || !written.chars().all(inner)
        || written.starts_with('-')
        || written.ends_with('-')
    {
        let help = "names are of a-z, 0-9 and '-', at most 63, with a letter or digit at each end";
        report.error_help(document, &path, format!("'{written}' is not a name of a namespace"), help);
    }
}

/// True for 169.254.0.0/16 and fe80::/10.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// "IPv4" or "IPv6".
pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
