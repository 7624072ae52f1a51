//! Header fields by the names under which a rewrite is reported.

use std::fmt;
use std::str::FromStr;

use packet::proto::ip;

/// A header field, or a group of fields that are told apart no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Field {
    /// Source address.
    Src,
    /// Destination address.
    Dst,
    /// Source port; the identifier of an ICMP echo (RFC 5508 §3.1 treats it as one).
    Sport,
    /// Destination port.
    Dport,
    /// Differentiated services code point (RFC 2474).
    Dscp,
    /// Explicit congestion notification (RFC 3168).
    Ecn,
    /// TCP flags.
    Flags,
    /// TTL or hop limit higher than it was sent.
    TtlRaised,
    /// Anything else.
    Other,
}

impl Field {
    /// Every field with its name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("src", Self::Src),
        ("dst", Self::Dst),
        ("sport", Self::Sport),
        ("dport", Self::Dport),
        ("dscp", Self::Dscp),
        ("ecn", Self::Ecn),
        ("flags", Self::Flags),
        ("ttl_raised", Self::TtlRaised),
        ("other", Self::Other),
    ];

    /// Names what byte `at` of an IPv4 header belongs to, where the bits `diff` of it differ. TTL and checksum are judged apart.
    pub(super) fn of_ipv4(at: usize, diff: u8, changed: &mut FieldSet) {
        match at {
            1 => changed.traffic_class(diff),
            8 | 10 | 11 => {}
            12..16 => changed.insert(Self::Src),
            16..20 => changed.insert(Self::Dst),
            _ => changed.insert(Self::Other),
        }
    }

    /// The same for IPv6 and its extension headers.
    pub(super) fn of_ipv6(at: usize, diff: u8, changed: &mut FieldSet) {
        match at {
            0 if diff & 0xf0 == 0 => changed.traffic_class(diff << 4),
            // Low half of the traffic class, then the flow label.
            1 => {
                changed.traffic_class(diff >> 4);
                if diff & 0x0f != 0 {
                    changed.insert(Self::Other);
                }
            }
            7 => {}
            8..24 => changed.insert(Self::Src),
            24..40 => changed.insert(Self::Dst),
            _ => changed.insert(Self::Other),
        }
    }

    /// The same for a transport header; `None` for its checksum.
    pub(super) fn of_transport(protocol: u8, at: usize) -> Option<Self> {
        match (protocol, at) {
            (ip::TCP | ip::UDP | ip::SCTP, 0 | 1) => Some(Self::Sport),
            (ip::TCP | ip::UDP | ip::SCTP, 2 | 3) => Some(Self::Dport),
            (ip::TCP, 13) => Some(Self::Flags),
            (ip::ICMP | ip::ICMPV6, 4 | 5) => Some(Self::Sport),
            (ip::TCP, 16 | 17) | (ip::UDP, 6 | 7) | (ip::SCTP, 8..12) | (ip::ICMP | ip::ICMPV6, 2 | 3) => None,
            _ => Some(Self::Other),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::ALL.iter().find(|(_, field)| field == self).map_or(Ok(()), |(name, _)| f.write_str(name))
    }
}

/// A name that is no field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no header field (fields are {names})", names = Field::ALL.map(|(name, _)| name).join(", "))]
pub struct BadField(String);

impl FromStr for Field {
    type Err = BadField;

    fn from_str(text: &str) -> Result<Self, BadField> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, field)| field).ok_or_else(|| BadField(text.to_owned()))
    }
}

/// Some of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FieldSet(u16);

impl FieldSet {
    /// Adds one.
    pub fn insert(&mut self, field: Field) {
        self.0 |= 1 << field as u8;
    }

    /// Whether this one is in it.
    pub fn contains(self, field: Field) -> bool {
        self.0 & 1 << field as u8 != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Bits of a traffic class that differ: six of DSCP, two of ECN.
    fn traffic_class(&mut self, diff: u8) {
        if diff & 0xfc != 0 {
            self.insert(Field::Dscp);
        }
        if diff & 3 != 0 {
            self.insert(Field::Ecn);
        }
    }
}

impl Extend<Field> for FieldSet {
    fn extend<T: IntoIterator<Item = Field>>(&mut self, fields: T) {
        fields.into_iter().for_each(|field| self.insert(field));
    }
}

impl FromIterator<Field> for FieldSet {
    fn from_iter<T: IntoIterator<Item = Field>>(fields: T) -> Self {
        let mut set = Self::default();
        set.extend(fields);
        set
    }
}
