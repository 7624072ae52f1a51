//! Values of scenario files that may be written in more than one way.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Order, Sizes, file};
use crate::units;

/// A whole number, as `1000` or `1M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64);

/// An [`Order`]: `sequential`, `random` or `zipf 1.1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrderSpec(pub Order);

/// [`Sizes`]: a number, a list, sizes with weights, or the name of a mix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeSpec(pub Sizes);

/// A step: a number, or an address as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSpec(pub u128);

/// The value of a flag, or several: text, numbers, true or false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting(pub Vec<String>);

impl std::str::FromStr for OrderSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let zipf = || text.strip_prefix("zipf")?.trim().parse().ok().map(Order::Zipf);
        match text {
            "sequential" => Ok(Self(Order::Sequential)),
            "random" => Ok(Self(Order::Random)),
            _ => zipf().map(Self).ok_or_else(|| format!("'{text}' is no order\nwrite sequential, random or zipf 1.1")),
        }
    }
}

impl std::str::FromStr for SizeSpec {
    type Err = String;

    /// A number, several with commas, or the name of a mix.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(mix) = Sizes::named(text) {
            return Ok(Self(mix));
        }
        let sizes = text.split(',').map(|size| size.trim().parse().map(|size| (size, 1)));
        let parts = sizes.collect::<Result<Vec<_>, _>>();
        let wrong = |_| {
            format!("'{text}' is no size\nwrite bytes as 60, several as 60,590,1514, or {}", Sizes::NAMES.join(" or "))
        };
        Ok(Self(Sizes::Mix { parts: parts.map_err(wrong)?, raise: false }))
    }
}

/// A visitor of values that are written as whole numbers or as text.
struct Written<T> {
    expected: &'static str,
    number: fn(u64) -> T,
    text: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        Ok((self.number)(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let unsigned = u64::try_from(number);
        unsigned.map(self.number).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self.expected))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Written {
            expected: "a whole number, as 1000 or 1M",
            number: Count,
            text: |text| units::count(text).map(Count).map_err(|error| error.to_string()),
        })
    }
}

impl<'de> Deserialize<'de> for StepSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Written {
            expected: "a number, or an address as one",
            number: |number| StepSpec(number.into()),
            text: |text| {
                let wrong = || format!("'{text}' is no step\nwrite a number, or an address as one: 0.0.1.0, ::1:0:0");
                file::step(text).map(StepSpec).ok_or_else(wrong)
            },
        })
    }
}

impl<'de> Deserialize<'de> for OrderSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <Cow<'_, str>>::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for SizeSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl<'de> Visitor<'de> for SizeVisitor {
    type Value = SizeSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, a list of them, sizes with weights, imix or csit")
    }

    fn visit_u64<E: de::Error>(self, size: u64) -> Result<SizeSpec, E> {
        Ok(SizeSpec(Sizes::one(usize::try_from(size).unwrap_or(usize::MAX))))
    }

    fn visit_i64<E: de::Error>(self, size: i64) -> Result<SizeSpec, E> {
        match u64::try_from(size) {
            Ok(size) => self.visit_u64(size),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(size), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SizeSpec, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<SizeSpec, A::Error> {
        let mut parts = Vec::new();
        while let Some(size) = list.next_element::<usize>()? {
            parts.push((size, 1));
        }
        Ok(SizeSpec(Sizes::Mix { parts, raise: false }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SizeSpec, A::Error> {
        let mut parts = Vec::new();
        while let Some(size) = map.next_key::<String>()? {
            let bytes = size.parse().map_err(|_| de::Error::custom(format!("'{size}' is no number of bytes")))?;
            parts.push((bytes, map.next_value()?));
        }
        Ok(SizeSpec(Sizes::Mix { parts, raise: false }))
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SettingVisitor)
    }
}

struct SettingVisitor;

impl<'de> Visitor<'de> for SettingVisitor {
    type Value = Setting;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value of a flag, or a list of them")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Setting, E> {
        Ok(Setting(vec![value.to_string()]))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Setting, E> {
        Ok(Setting(vec![value.to_string()]))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Setting, E> {
        Ok(Setting(vec![value.to_string()]))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Setting, E> {
        Ok(Setting(vec![value.to_string()]))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Setting, E> {
        Ok(Setting(vec![value.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Setting, A::Error> {
        let mut values = Vec::new();
        while let Some(Setting(value)) = list.next_element()? {
            values.extend(value);
        }
        Ok(Setting(values))
    }
}

macro_rules! schema {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

schema!(Count, "Count", {
    "description": "A whole number, as 1000 or 1M",
    "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^[0-9.]+[kMG]?$" }]
});
schema!(StepSpec, "Step", {
    "description": "A number, or an address as one: 256, 0x100, 0.0.1.0, ::1:0:0",
    "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string" }]
});
schema!(OrderSpec, "Order", {
    "description": "One after the other, each as likely as the other, or the n-th with a probability in proportion to n^-s",
    "type": "string",
    "pattern": "^(sequential|random|zipf *[0-9.]+)$"
});
schema!(SizeSpec, "Size", {
    "description": "Bytes of the frame without FCS: one size, several in turn, sizes with weights, or a mix by name",
    "anyOf": [
        { "type": "integer", "minimum": 60, "maximum": 9022 },
        { "type": "string", "pattern": "^(imix|csit|[0-9]+( *, *[0-9]+)*)$" },
        { "type": "array", "items": { "type": "integer", "minimum": 60, "maximum": 9022 }, "minItems": 1 },
        {
            "type": "object",
            "patternProperties": { "^[0-9]+$": { "type": "integer", "minimum": 0 } },
            "additionalProperties": false,
            "minProperties": 1
        }
    ]
});
schema!(Setting, "Setting", {
    "description": "The value of a flag, or several",
    "anyOf": [
        { "type": ["string", "number", "boolean"] },
        { "type": "array", "items": { "type": ["string", "number", "boolean"] } }
    ]
});
