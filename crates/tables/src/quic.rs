//! QUIC servers by VIP and server ID: buckets as those of VIPs ([`crate::vips`]), and likewise an entry comes and goes by one store and
//! never moves. An entry is 48 bits of the hash and a backend; with the bits that choose its bucket, a server ID that nobody has is
//! taken for one of a bucket's four once in 2^59.

use crate::hash;

/// Buckets of each half.
pub const BUCKETS: usize = 8_192;
/// Entries of a bucket.
pub const BUCKET_ENTRIES: usize = 4;
/// Server IDs at most: a quarter of the places.
pub const SERVERS_MAX: usize = BUCKETS * BUCKET_ENTRIES / 2;

/// Bits of an entry below its print: the backend.
const BACKEND_BITS: u32 = 16;

/// Entries of a bucket, 0 for none.
pub type Bucket = [u64; BUCKET_ENTRIES];

/// No place is left in either bucket of a server ID, or one that looks the same is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A VIP's server ID, and the backend that has it, not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    hash: u64,
    backend: u16,
}

impl Server {
    /// The server ID is zero behind its `len` octets.
    #[must_use]
    pub fn new(vip: u32, len: u8, id: [u8; 16], backend: u16) -> Self {
        Self { hash: hash::server_hash(vip, len, id), backend }
    }

    fn entry(self) -> u64 {
        self.hash << BACKEND_BITS | u64::from(self.backend)
    }

    /// The buckets that may have it: one of each half, by their index in the table.
    fn buckets(self) -> [usize; 2] {
        let first = self.hash >> (u64::BITS - BUCKETS.ilog2());
        let second = self.hash >> (u64::BITS - 2 * BUCKETS.ilog2());
        [first as usize, BUCKETS + second as usize % BUCKETS]
    }
}

fn is_same(entry: u64, other: u64) -> bool {
    entry != 0 && (entry ^ other) >> BACKEND_BITS == 0
}

/// The contents of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    buckets: Vec<Bucket>,
}

impl Default for Servers {
    fn default() -> Self {
        Self { buckets: vec![[0; BUCKET_ENTRIES]; 2 * BUCKETS] }
    }
}

impl Servers {
    /// The table as it is, by the index of its buckets.
    pub fn adopt(buckets: impl IntoIterator<Item = (usize, Bucket)>) -> Self {
        let mut servers = Self::default();
        for (index, bucket) in buckets {
            if let Some(place) = servers.buckets.get_mut(index) {
                *place = bucket;
            }
        }
        servers
    }

    /// Buckets that hold anything, by their index.
    pub fn buckets(&self) -> impl Iterator<Item = (usize, &Bucket)> {
        self.buckets.iter().enumerate().filter(|(_, bucket)| **bucket != [0; BUCKET_ENTRIES])
    }

    /// The backend of a server ID, as the program finds it.
    pub fn find(&self, server: Server) -> Option<u16> {
        let buckets = server.buckets().into_iter().filter_map(|index| self.buckets.get(index));
        buckets.flatten().find(|entry| is_same(**entry, server.entry())).map(|entry| *entry as u16)
    }

    /// The table that holds these and no others. What is in both tables stays in its place, and a new one does not take the place
    /// of one that goes, as long as another is free.
    ///
    /// # Errors
    /// A server ID finds no place.
    pub fn with(&self, wanted: impl IntoIterator<Item = Server>) -> Result<Self, Full> {
        let mut next = Self::default();
        let mut new = Vec::new();
        for server in wanted {
            match self.place_of(server) {
                Some(at) if next.word(at) == 0 => next.put(at, server),
                Some(_) => return Err(Full),
                None => new.push(server),
            }
        }
        for server in new {
            let at = next.free_place(self, server).filter(|_| next.place_of(server).is_none()).ok_or(Full)?;
            next.put(at, server);
        }
        Ok(next)
    }

    fn word(&self, (bucket, place): (usize, usize)) -> u64 {
        self.buckets.get(bucket).and_then(|bucket| bucket.get(place)).copied().unwrap_or(0)
    }

    fn put(&mut self, (bucket, place): (usize, usize), server: Server) {
        if let Some(word) = self.buckets.get_mut(bucket).and_then(|bucket| bucket.get_mut(place)) {
            *word = server.entry();
        }
    }

    /// Where a server ID stands.
    fn place_of(&self, server: Server) -> Option<(usize, usize)> {
        server.buckets().into_iter().find_map(|index| {
            let place = self.buckets.get(index)?.iter().position(|entry| is_same(*entry, server.entry()))?;
            Some((index, place))
        })
    }

    /// A free place in the emptier of the two buckets, the first of equals; in a place that `former` did not use, where there is one.
    fn free_place(&self, former: &Self, server: Server) -> Option<(usize, usize)> {
        let places =
            server.buckets().into_iter().flat_map(|index| (0..BUCKET_ENTRIES).map(move |place| (index, place)));
        let used = |index: usize| self.buckets.get(index).map_or(0, |b| b.iter().filter(|word| **word != 0).count());
        let free = places.filter(|at| self.word(*at) == 0);
        free.min_by_key(|at| (former.word(*at) != 0, used(at.0)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn server(vip: u32, len: u8, id: u64, backend: u16) -> Server {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&id.to_le_bytes());
        Server::new(vip, len, octets, backend)
    }

    #[test]
    fn as_many_as_there_can_be_find_a_place() {
        for len in [2, 4, 8] {
            let wanted: Vec<Server> =
                (0..SERVERS_MAX as u64).map(|n| server(n as u32 % 3, len, n, n as u16 | 1)).collect();
            let servers = Servers::default().with(wanted.iter().copied()).unwrap();
            assert!(wanted.iter().all(|server| servers.find(*server) == Some(server.backend)));
            let others = (0..SERVERS_MAX as u64).map(|n| server(3, len, n, 0));
            assert_eq!(others.filter(|other| servers.find(*other).is_some()).count(), 0);
        }
    }

    #[test]
    fn a_server_id_is_one_of_its_vip_and_length() {
        let servers = Servers::default().with([server(1, 4, 7, 9), server(2, 4, 7, 10), server(1, 5, 7, 11)]).unwrap();
        let found = [(1, 4), (2, 4), (1, 5), (2, 5)].map(|(vip, len)| servers.find(server(vip, len, 7, 0)));
        assert_eq!(found, [Some(9), Some(10), Some(11), None]);
    }

    #[test]
    fn nothing_stands_twice() {
        assert_eq!(Servers::default().with([server(1, 4, 7, 9), server(1, 4, 7, 10)]), Err(Full));
        let servers = Servers::default().with([server(1, 4, 7, 9)]).unwrap();
        assert_eq!(servers.with([server(1, 4, 7, 9), server(1, 4, 7, 10)]), Err(Full));
    }

    proptest! {
        /// Histories: the table has what is wanted, and nothing that stays has moved.
        #[test]
        fn what_stays_does_not_move(
            steps in prop::collection::vec(prop::collection::btree_map((1u32..9, 0u64..40), 1u16..1_000, 0..200), 1..8),
        ) {
            let mut servers = Servers::default();
            for step in steps {
                let of = |((vip, id), backend): (&(u32, u64), &u16)| server(*vip, 4, *id, *backend);
                let wanted: Vec<Server> = step.iter().map(of).collect();
                let next = servers.with(wanted.iter().copied()).unwrap();
                prop_assert_eq!(next.buckets().flat_map(|(_, b)| b).filter(|word| **word != 0).count(), wanted.len());
                for server in &wanted {
                    prop_assert_eq!(next.find(*server), Some(server.backend));
                    if let Some(place) = servers.place_of(*server) {
                        prop_assert_eq!(next.place_of(*server), Some(place));
                    }
                }
                let buckets: BTreeMap<usize, Bucket> = next.buckets().map(|(index, bucket)| (index, *bucket)).collect();
                prop_assert_eq!(&Servers::adopt(buckets), &next);
                servers = next;
            }
        }
    }
}
