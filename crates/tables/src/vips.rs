//! VIPs by address, port and protocol. An entry has 40 bits of the key's hash; whether the VIP is meant, its own row says.

use std::net::{IpAddr, Ipv4Addr};

use crate::{dleft, hash};

/// VIPs by the [`hash`](Key::hash) of what they answer to: indices from 1 and below 2^24.
pub type Vips = dleft::Table<2_048, 24>;

/// What a VIP answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Destination address.
    pub address: IpAddr,
    /// Destination port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl Key {
    /// What [`Vips`] know it by.
    #[must_use]
    pub fn hash(self) -> u64 {
        hash::service_hash(self.address, self.port, self.protocol)
    }
}

/// What stands for the address in the key of a prefix's VIP: its number, as 0.0.x.y, to where no packet goes. Asked for where a packet's
/// own address has led to nothing.
#[must_use]
pub const fn prefix(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(0, 0, high, low))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn key(family: u8, number: u16, port: u16) -> Key {
        let n = u32::from(number);
        let address: IpAddr = match family {
            0 => prefix(number),
            4 => Ipv4Addr::from(0xc633_6400 + n).into(),
            _ => Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(n)).into(),
        };
        Key { address, port, protocol: 6 }
    }

    /// As many as there can be, in the patterns that configurations have, in half as many places again and more.
    #[test]
    fn all_vips_find_a_place() {
        for family in [0, 4, 6] {
            let one_address = (1..=4_095u16).map(|n| key(family, 1, n));
            let one_port = (1..=4_095u16).map(|n| key(family, n, 80));
            let both = (1..=2_047u16).flat_map(|n| [80, 443].map(|port| key(family, n, port)));
            for keys in [one_address.collect::<Vec<_>>(), one_port.collect(), both.collect()] {
                let wanted: Vec<(u64, u64)> = keys.into_iter().map(Key::hash).zip(1..).collect();
                let vips = Vips::default().with(wanted.iter().copied()).unwrap();
                assert!(wanted.iter().all(|(hash, vip)| vips.find(*hash) == Some(*vip)));
                let fullest = vips.buckets().map(|(_, b)| b.iter().filter(|word| **word != 0).count()).max();
                assert!(fullest < Some(dleft::BUCKET_ENTRIES), "{fullest:?}");
            }
        }
    }
}
