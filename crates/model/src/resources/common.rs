//! What the kinds have in common: metadata, addresses, prefixes, numbers that may be written as text.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// A document: its kind, its name and what it asks for.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Resource<S> {
    /// API group and version.
    pub api_version: String,
    /// Kind of the resource.
    pub kind: String,
    /// Name, labels and annotations.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: S,
}

/// What every kind of document has.
pub trait Document {
    /// What is particular to it.
    type Spec;

    /// Its metadata, and the rest of what is looked at.
    fn into_parts(self) -> (Metadata, Self::Spec);
}

impl<S> Document for Resource<S> {
    type Spec = S;

    fn into_parts(self) -> (Metadata, S) {
        (self.metadata, self.spec)
    }
}

/// A resource's metadata, as Kubernetes has it; what only its API server fills in is accepted and not looked at.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metadata {
    /// Name, unique among the resources of its kind and namespace.
    pub name: String,
    /// Namespace, of the kinds that live in one.
    pub namespace: Option<String>,
    /// Labels, which selectors see.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Kept by the API server.
    pub uid: Option<String>,
    /// Kept by the API server.
    pub resource_version: Option<String>,
    /// Kept by the API server.
    pub generation: Option<i64>,
    /// Kept by the API server.
    pub creation_timestamp: Option<String>,
    /// Kept by the API server.
    pub deletion_timestamp: Option<String>,
    /// Kept by the API server.
    pub deletion_grace_period_seconds: Option<i64>,
    /// Kept by the API server.
    pub generate_name: Option<String>,
    /// Kept by the API server.
    pub self_link: Option<String>,
    /// Kept by the API server.
    #[serde(default)]
    pub finalizers: Vec<String>,
    /// Kept by the API server.
    #[serde(default)]
    pub owner_references: Vec<BTreeMap<String, serde_json::Value>>,
    /// Kept by the API server.
    #[serde(default)]
    pub managed_fields: Vec<BTreeMap<String, serde_json::Value>>,
}

/// Text parsed by `FromStr`, with its error as the message.
fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

/// An IPv4 or IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub IpAddr);

/// Text that is neither an IPv4 nor an IPv6 address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an IP address")]
pub struct BadAddress(String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        text.parse().map(Self).map_err(|_| BadAddress(crate::document::deserialize::shorten(text)))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An IPv4 or IPv6 address.",
            "type": "string",
            "pattern": "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$",
        })
    }
}

/// A prefix, host bits kept as written; one address stands for the prefix that has only it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(pub IpNet);

/// Text that is neither a prefix nor an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCidr {
    /// Neither form.
    #[error("'{0}' is not a prefix\nwrite it as 10.0.0.0/8 or 2001:db8::/32")]
    Form(String),
    /// The address is right, the length is not.
    #[error("prefix length '{length}' is out of range\nit is 0 to {max} for an address like {address}")]
    Length {
        /// As written.
        length: String,
        /// The longest of the family.
        max: u8,
        /// The address before it.
        address: IpAddr,
    },
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr::Form(crate::document::deserialize::shorten(text));
        let Some((address, length)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(|a| Self(IpNet::from(a))).map_err(|_| bad());
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let wrong = || BadCidr::Length { length: crate::document::deserialize::shorten(length), max, address };
        let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        let bits = length.parse::<u8>().ok().filter(|_| digits).ok_or_else(wrong)?;
        IpNet::new(address, bits).map(Self).map_err(|_| wrong())
    }
}

impl Cidr {
    /// The prefix with its host bits zero.
    pub fn prefix(self) -> IpNet {
        self.0.trunc()
    }

    /// True when a bit behind the prefix length is set.
    pub fn has_host_bits(self) -> bool {
        self.0.addr() != self.0.network()
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl JsonSchema for Cidr {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cidr".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A prefix (10.0.0.0/8, 2001:db8::/32), or one address.",
            "type": "string",
            "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$",
        })
    }
}

/// A number, or text: Calico's `NumOrString` and Kubernetes' `IntOrString`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NumberOrText {
    /// A number.
    Number(i64),
    /// Text.
    Text(String),
}

impl fmt::Display for NumberOrText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for NumberOrText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = NumberOrText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or text")
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<NumberOrText, E> {
                Ok(NumberOrText::Number(n))
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<NumberOrText, E> {
                i64::try_from(n).map(NumberOrText::Number).map_err(|_| E::custom(format!("{n} is out of range")))
            }

            fn visit_f64<E: de::Error>(self, n: f64) -> Result<NumberOrText, E> {
                Err(E::custom(format!("expected a whole number or text, found {n}\nwrite text in quotes")))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<NumberOrText, E> {
                Ok(NumberOrText::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for NumberOrText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NumberOrText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"] })
    }
}

/// A duration as Go writes it: `90s`, `1m30s`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub std::time::Duration);

/// Text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a duration\nwrite numbers with units: 90s, 1m30s, 500ms, 1h")]
pub struct BadDuration(String);

impl FromStr for Duration {
    type Err = BadDuration;

    fn from_str(text: &str) -> Result<Self, BadDuration> {
        let bad = || BadDuration(crate::document::deserialize::shorten(text));
        if text == "0" {
            return Ok(Self(std::time::Duration::ZERO));
        }
        let mut rest = text;
        let mut seconds = 0.0;
        while !rest.is_empty() || seconds == 0.0 {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
            let (number, tail) = rest.split_at(digits);
            let number: f64 = number.parse().map_err(|_| bad())?;
            let units = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(units);
            let scale = match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(bad()),
            };
            seconds += number * scale;
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        std::time::Duration::try_from_secs_f64(seconds).map(Self).map_err(|_| bad())
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration in Go's notation: 90s, 1m30s, 500ms.",
            "type": "string",
            "pattern": "^(0|([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$",
        })
    }
}
