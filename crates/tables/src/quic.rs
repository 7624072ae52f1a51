//! QUIC servers by VIP and server ID. An entry is 48 bits of the hash and a backend; with the bits that choose its bucket, a server ID
//! that nobody has is taken for one of a bucket's four once in 2^59.

use crate::{dleft, hash};

/// Backends by the [`hash`](fn@hash) of a VIP and a server ID of theirs.
pub type Servers = dleft::Table<8_192, 16>;

/// Server IDs at most: a quarter of the places.
pub const SERVERS_MAX: usize = Servers::ENTRIES / 4;

/// What [`Servers`] know a VIP's server ID by. The server ID is zero behind its `len` octets.
#[must_use]
pub fn hash(vip: u32, len: u8, id: [u8; 16]) -> u64 {
    hash::server_hash(vip, len, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(vip: u32, len: u8, id: u64) -> u64 {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&id.to_le_bytes());
        hash(vip, len, octets)
    }

    #[test]
    fn as_many_as_there_can_be_find_a_place() {
        for len in [2, 4, 8] {
            let wanted: Vec<(u64, u64)> =
                (0..SERVERS_MAX as u64).map(|n| (server(n as u32 % 3, len, n), n & 0xffff | 1)).collect();
            let servers = Servers::default().with(wanted.iter().copied()).unwrap();
            assert!(wanted.iter().all(|(hash, backend)| servers.find(*hash) == Some(*backend)));
            let others = (0..SERVERS_MAX as u64).map(|n| server(3, len, n));
            assert_eq!(others.filter(|other| servers.find(*other).is_some()).count(), 0);
        }
    }

    #[test]
    fn a_server_id_is_one_of_its_vip_and_length() {
        let wanted = [(server(1, 4, 7), 9), (server(2, 4, 7), 10), (server(1, 5, 7), 11)];
        let servers = Servers::default().with(wanted).unwrap();
        let found = [(1, 4), (2, 4), (1, 5), (2, 5)].map(|(vip, len)| servers.find(server(vip, len, 7)));
        assert_eq!(found, [Some(9), Some(10), Some(11), None]);
    }
}
