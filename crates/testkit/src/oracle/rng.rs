//! Reproducible choices: the same seed makes the same configurations and packets on every machine.

/// A source of choices.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// A source whose choices follow from `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number below `end`; 0 where there is none.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.0.usize(..end) }
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.0.u32(..100) < percent
    }

    /// One of `items`.
    #[expect(clippy::expect_used, reason = "an empty list of choices is a mistake in a generator, not in its input")]
    pub fn of<T: Clone>(&mut self, items: impl AsRef<[T]>) -> T {
        let items = items.as_ref();
        let at = self.below(items.len());
        items.get(at).cloned().expect("something to choose from")
    }

    /// One of `items`, `None` where there is none.
    pub fn any<T: Clone>(&mut self, items: impl AsRef<[T]>) -> Option<T> {
        let items = items.as_ref();
        let at = self.below(items.len());
        items.get(at).cloned()
    }

    /// Some of `items`, each in `percent` of 100 cases, in order.
    pub fn some_of<T: Clone>(&mut self, items: &[T], percent: u32) -> Vec<T> {
        items.iter().filter(|_| self.chance(percent)).cloned().collect()
    }
}
