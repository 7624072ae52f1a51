//! How many ICMP errors a worker sends (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).
//!
//! The program limits punts by reason and core before they get here; this limits what one receiver gets, so that a packet
//! with a forged source cannot make the node flood that source, and what a worker sends in all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// Errors a second, and at once, to one address: enough for a traceroute that sends all its probes at once.
const PER_SOURCE: f64 = 100.0;
/// Errors a second, and at once, in all.
const TOTAL: f64 = 1000.0;
/// Addresses that are remembered; a bucket that is full again is forgotten first.
const SOURCES_MAX: usize = 4096;

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn full(size: f64, now: Instant) -> Self {
        Self { tokens: size, filled: now }
    }

    /// Tokens at `now`: `size` a second and at most.
    fn level(&self, size: f64, now: Instant) -> f64 {
        (self.tokens + now.saturating_duration_since(self.filled).as_secs_f64() * size).min(size)
    }

    fn take(&mut self, size: f64, now: Instant) -> bool {
        let level = self.level(size, now);
        let granted = level >= 1.0;
        *self = Self { tokens: if granted { level - 1.0 } else { level }, filled: now };
        granted
    }
}

/// Token buckets of one worker.
#[derive(Debug)]
pub(super) struct RateLimit {
    total: Bucket,
    sources: HashMap<IpAddr, Bucket>,
}

impl RateLimit {
    pub(super) fn new(now: Instant) -> Self {
        Self { total: Bucket::full(TOTAL, now), sources: HashMap::new() }
    }

    /// True when an error may be sent to `destination` at `now`; it then counts as sent.
    pub(super) fn allow(&mut self, destination: IpAddr, now: Instant) -> bool {
        if self.sources.len() >= SOURCES_MAX {
            self.sources.retain(|_, bucket| bucket.level(PER_SOURCE, now) < PER_SOURCE);
        }
        // With every place taken by a busy address, a new one has no bucket to be judged by.
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&destination) {
            return false;
        }
        let source = self.sources.entry(destination).or_insert_with(|| Bucket::full(PER_SOURCE, now));
        // The source first: what is held back there must not use up the total of the others.
        source.take(PER_SOURCE, now) && self.total.take(TOTAL, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn host(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    fn granted(limit: &mut RateLimit, destination: IpAddr, tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| limit.allow(destination, now)).count()
    }

    #[test]
    fn one_source_gets_a_hundred_and_leaves_the_rest_to_others() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        assert_eq!(granted(&mut limit, host(1), 5000, start), 100);
        assert_eq!(granted(&mut limit, host(2), 5000, start), 100);
        assert_eq!(granted(&mut limit, host(1), 5000, start + Duration::from_millis(500)), 50);
        assert_eq!(
            granted(&mut limit, host(1), 5000, start + Duration::from_secs(60)),
            100,
            "no more than a second's worth"
        );
    }

    #[test]
    fn all_sources_together_get_a_thousand() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        let sent: usize = (0..3000).map(|n| granted(&mut limit, host(n), 1, start)).sum();
        assert_eq!(sent, 1000);
    }

    #[test]
    fn memory_is_bounded_and_recovers() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        for n in 0..20_000 {
            limit.allow(host(n), start);
        }
        assert!(limit.sources.len() <= SOURCES_MAX);
        assert!(limit.allow(host(99_999), start + Duration::from_secs(2)));
        assert!(limit.sources.len() < 10, "full buckets are forgotten");
    }
}
