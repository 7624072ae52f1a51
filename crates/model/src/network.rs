//! What is found out about this node and around it: links, addresses and neighbours, which the kernel tells of, and the health of backends.
//!
//! The control thread fills a [`Network`] from netlink and from health checks and keeps it current; nothing here does I/O. It is an input of
//! [`compile`](crate::compile) and of the oracle, beside the resources and the routes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::health::Health;

/// A kernel interface index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfIndex(pub u32);

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Text that is not six hexadecimal octets separated by colons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an Ethernet address (expected six hexadecimal octets, as 02:00:5e:10:00:01)")]
pub struct BadMac(pub String);

impl std::str::FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac(text.to_owned());
        let mut octets = [0u8; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| (1..=2).contains(&p.len())).ok_or_else(bad)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(octets)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A VLAN device: frames of its parent that carry this tag (IEEE 802.1Q).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// The interface that carries the tagged frames.
    pub parent: IfIndex,
    /// VLAN identifier, 1 to 4094.
    pub id: u16,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Kernel name, at most 15 bytes.
    pub name: String,
    /// Its own Ethernet address.
    pub mac: Mac,
    /// Largest layer-3 packet it sends, in bytes.
    pub mtu: u32,
    /// Administratively up and with carrier.
    pub up: bool,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Set when this is a VLAN device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
}

/// Links, addresses and resolved neighbours, as the kernel reports them, and what checks say of backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Every link of the network namespace.
    pub links: BTreeMap<IfIndex, Link>,
    /// Interface addresses; the host bits are the address, the length is that of the connected prefix.
    pub addresses: BTreeSet<(IfIndex, IpNet)>,
    /// Neighbours with a valid link-layer address (ARP, RFC 826; ND, RFC 4861).
    pub neighbors: BTreeMap<(IfIndex, IpAddr), Mac>,
    /// Neighbours that were asked for and did not answer. What was never asked for is in neither.
    pub failed: BTreeSet<(IfIndex, IpAddr)>,
    /// What health checks have found; nobody's word but theirs.
    pub health: Health,
}

impl Network {
    /// The link called `name`, with its index.
    pub fn link_by_name(&self, name: &str) -> Option<(IfIndex, &Link)> {
        self.links.iter().find(|(_, link)| link.name == name).map(|(index, link)| (*index, link))
    }

    /// The addresses of one interface, in order.
    pub fn addresses_of(&self, index: IfIndex) -> impl Iterator<Item = IpNet> + '_ {
        self.addresses.iter().filter(move |(i, _)| *i == index).map(|(_, net)| *net)
    }

    /// True when `address` belongs to this node.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(_, net)| net.addr() == address)
    }
}
