//! Prefixes whose packets are dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// What of a prefix is denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    /// Packets from there.
    pub source: bool,
    /// Packets to there.
    pub destination: bool,
}

impl Denied {
    /// Packets from there.
    pub const SOURCE: Self = Self { source: true, destination: false };
    /// Packets to there.
    pub const DESTINATION: Self = Self { source: false, destination: true };

    /// What either of them denies.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self { source: self.source || other.source, destination: self.destination || other.destination }
    }
}

/// All denied prefixes of a node. Copies share them: a million is common, and a generation that has the same ones is not to pay for it.
#[derive(Clone, Default)]
pub struct Denylist(Arc<Contents>);

#[derive(Default, PartialEq)]
struct Contents {
    /// What is listed of each prefix itself.
    listed: BTreeMap<IpNet, Denied>,
    /// The same with what is listed of those around it.
    prefixes: BTreeMap<IpNet, Denied>,
    anywhere: Denied,
}

impl Denylist {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.prefixes.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.prefixes.len()
    }

    /// Prefixes, host bits zero, with what is denied there, be it by a prefix around them.
    pub fn prefixes(&self) -> &BTreeMap<IpNet, Denied> {
        &self.0.prefixes
    }

    /// What is denied anywhere.
    pub fn anywhere(&self) -> Denied {
        self.0.anywhere
    }

    /// What is denied of an address: what is listed gone through one by one, as a measure for tables made from
    /// [`prefixes`](Self::prefixes).
    pub fn of(&self, address: IpAddr) -> Denied {
        let around = self.0.listed.iter().filter(|(prefix, _)| prefix.contains(&address));
        around.fold(Denied::default(), |all, (_, denied)| all.or(*denied))
    }

    /// True where both are one, without looking at what they hold.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for Denylist {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.0 == other.0
    }
}

impl Eq for Denylist {}

impl fmt::Debug for Denylist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.prefixes.fmt(f)
    }
}

impl FromIterator<(IpNet, Denied)> for Denylist {
    fn from_iter<I: IntoIterator<Item = (IpNet, Denied)>>(prefixes: I) -> Self {
        let mut listed: BTreeMap<IpNet, Denied> = BTreeMap::new();
        for (prefix, denied) in prefixes {
            let entry = listed.entry(prefix.trunc()).or_default();
            *entry = entry.or(denied);
        }
        // In order, so that what is around a prefix comes before it.
        let mut around: Vec<(IpNet, Denied)> = Vec::new();
        let mut prefixes = listed.clone();
        for (prefix, denied) in &mut prefixes {
            while around.pop_if(|(outer, _)| !outer.contains(prefix)).is_some() {}
            if let Some((_, outer)) = around.last() {
                *denied = denied.or(*outer);
            }
            around.push((*prefix, *denied));
        }
        let anywhere = listed.values().fold(Denied::default(), |anywhere, denied| anywhere.or(*denied));
        Self(Arc::new(Contents { listed, prefixes, anywhere }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(prefixes: &[(&str, Denied)]) -> Denylist {
        prefixes.iter().map(|(prefix, denied)| (prefix.parse().unwrap(), *denied)).collect()
    }

    #[test]
    fn what_is_around_a_prefix_holds_there_too() {
        let both = Denied::SOURCE.or(Denied::DESTINATION);
        let denied = list(&[
            ("10.1.2.0/24", Denied::DESTINATION),
            ("10.0.0.9/8", Denied::SOURCE),
            ("10.1.2.3/32", Denied::DESTINATION),
            ("11.0.0.0/8", Denied::DESTINATION),
            ("::/0", Denied::SOURCE),
            ("2001:db8::/32", Denied::DESTINATION),
        ]);
        let expected = [
            ("10.0.0.0/8", Denied::SOURCE),
            ("10.1.2.0/24", both),
            ("10.1.2.3/32", both),
            ("11.0.0.0/8", Denied::DESTINATION),
            ("::/0", Denied::SOURCE),
            ("2001:db8::/32", both),
        ];
        let found: Vec<(String, Denied)> = denied.prefixes().iter().map(|(p, d)| (p.to_string(), *d)).collect();
        assert_eq!(found, expected.map(|(prefix, denied)| (prefix.to_owned(), denied)));
        assert_eq!(denied.of("10.9.9.9".parse().unwrap()), Denied::SOURCE);
        assert_eq!(denied.of("12.0.0.1".parse().unwrap()), Denied::default());
        assert_eq!(denied.anywhere(), both);
    }

    #[test]
    fn two_lists_of_the_same_prefixes_are_equal() {
        let one = list(&[("10.0.0.0/8", Denied::SOURCE)]);
        assert!(one.is_same(&one.clone()));
        let other = list(&[("10.0.0.0/8", Denied::SOURCE), ("10.0.0.1/8", Denied::SOURCE)]);
        assert!(one == other && !one.is_same(&other));
        assert_ne!(one, list(&[("10.0.0.0/8", Denied::DESTINATION)]));
    }
}
