//! A token bucket: packets a second, with a bound on what may be made up for after a delay.

/// Hands out permission to send.
#[derive(Clone, Debug)]
pub struct Pacer {
    rate_pps: Option<f64>,
    burst: f64,
    tokens: f64,
    refilled_ns: u64,
}

impl Pacer {
    /// `rate_pps` packets a second (`None`: as many as go), no more than `burst` at once; `now_ns` is the clock's now.
    pub fn new(rate_pps: Option<f64>, burst: u32, now_ns: u64) -> Self {
        Self { rate_pps, burst: burst.into(), tokens: 0.0, refilled_ns: now_ns }
    }

    /// How many of `wanted` packets may be sent at `now_ns`; they are taken from the bucket.
    pub fn take(&mut self, now_ns: u64, wanted: usize) -> usize {
        let Some(rate) = self.rate_pps else { return wanted };
        let elapsed_ns = now_ns.saturating_sub(self.refilled_ns);
        self.refilled_ns = self.refilled_ns.max(now_ns);
        // f64 holds every count of nanoseconds and packets of a run of 104 days exactly.
        self.tokens = (self.tokens + elapsed_ns as f64 * rate / 1e9).min(self.burst);
        let granted = (self.tokens.floor() as usize).min(wanted);
        self.tokens -= granted as f64;
        granted
    }

    /// Gives back what was taken but not sent.
    pub fn give_back(&mut self, packets: usize) {
        self.tokens += packets as f64;
    }

    /// Nanoseconds until the next packet may be sent.
    pub fn wait_ns(&self) -> u64 {
        match self.rate_pps {
            Some(rate) if self.tokens < 1.0 => ((1.0 - self.tokens) * 1e9 / rate).ceil() as u64,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_rate_everything_goes() {
        let mut pacer = Pacer::new(None, 1, 0);
        assert_eq!((pacer.take(0, 64), pacer.wait_ns()), (64, 0));
    }

    #[test]
    fn the_wait_is_long_enough_and_no_longer() {
        let mut pacer = Pacer::new(Some(3.0), 10, 0);
        assert_eq!(pacer.take(0, 1), 0);
        let wait = pacer.wait_ns();
        assert_eq!((pacer.clone().take(wait - 1, 1), pacer.take(wait, 1)), (0, 1));
    }

    #[test]
    fn a_pause_is_made_up_for_by_one_burst_only() {
        let mut pacer = Pacer::new(Some(1e6), 32, 0);
        assert_eq!(pacer.take(1_000_000_000, 1000), 32);
        assert_eq!(pacer.take(1_000_000_000, 1000), 0);
        pacer.give_back(5);
        assert_eq!(pacer.take(1_000_000_000, 1000), 5);
    }

    proptest! {
        /// Never more than rate and burst allow, and the whole rate when asked often enough.
        #[test]
        fn the_rate_holds(rate in 1000.0..1e7f64, steps in proptest::collection::vec(1..20_000u64, 100..300)) {
            let mut pacer = Pacer::new(Some(rate), 1000, 0);
            let (mut now, mut sent) = (0, 0);
            for step in steps {
                now += step;
                sent += pacer.take(now, 1000);
            }
            let due = now as f64 * rate / 1e9;
            prop_assert!((sent as f64) <= due + 1e-6, "{} of {}", sent, due);
            prop_assert!((sent as f64) >= due - 1.0 - 1e-6, "{} of {}", sent, due);
        }
    }
}
