//! The client ends of connections: every address of a prefix with every port of a range, in an order that spreads.
//!
//! The order is a walk with a step that shares no factor with the number of pairs, so each pair comes once before any
//! comes again, and successive connections differ in address and port. It starts at a random place: like the port selection
//! of RFC 6056 §3.3 it cannot be guessed from outside, and two runs after each other do not begin with the same pairs, which the
//! other side may still have in TIME-WAIT.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// Addresses used of a prefix at most.
const HOSTS_MAX: u64 = 1 << 24;
/// The golden ratio as a fraction of 2^64: multiples of it are spread evenly over the circle.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// One client end: the number of the address in the prefix, and the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Number of the address; 0 is the first usable.
    pub host: u32,
    /// Port.
    pub port: u16,
}

/// All client ends.
#[derive(Clone, Debug)]
pub struct Clients {
    net: IpNet,
    /// Bits between the network address and the first host.
    first: u64,
    hosts: u64,
    ports: RangeInclusive<u16>,
    pairs: u64,
    step: u64,
    at: u64,
}

impl Clients {
    /// The addresses of `net` (network and broadcast address left out where there are any) with `ports`. `start` is any
    /// number; the walk begins there.
    pub fn new(net: IpNet, ports: RangeInclusive<u16>, start: u64) -> Self {
        let net = net.trunc();
        let bits = u32::from(net.max_prefix_len() - net.prefix_len()).min(HOSTS_MAX.ilog2());
        let all = 1u64 << bits;
        let (first, hosts) = match (net, bits) {
            (_, 0) => (0, 1),
            (_, 1) => (0, 2),
            (IpNet::V4(_), _) => (1, all - 2),
            // The all-zero interface identifier is the routers' anycast address (RFC 4291 §2.6.1).
            (IpNet::V6(_), _) => (1, all - 1),
        };
        let pairs = hosts * (u64::from(*ports.end()).saturating_sub((*ports.start()).into()) + 1);
        let share = (u128::from(pairs) * u128::from(GOLDEN)) >> 64;
        let mut step = u64::try_from(share).unwrap_or(1).max(1);
        while gcd(step, pairs) != 1 {
            step += 1;
        }
        Self { net, first, hosts, ports, pairs, step, at: start % pairs }
    }

    /// How many there are.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }

    /// The address of a client.
    pub fn address(&self, host: u32) -> IpAddr {
        let offset = self.first + u64::from(host);
        match self.net.network() {
            IpAddr::V4(network) => {
                Ipv4Addr::from_bits(network.to_bits().wrapping_add(u32::try_from(offset).unwrap_or(0))).into()
            }
            IpAddr::V6(network) => Ipv6Addr::from_bits(network.to_bits().wrapping_add(offset.into())).into(),
        }
    }

    /// The number of an address; `None` where it is no client's.
    pub fn host(&self, address: IpAddr) -> Option<u32> {
        let offset = match (address, self.net.network()) {
            (IpAddr::V4(address), IpAddr::V4(network)) => address.to_bits().checked_sub(network.to_bits())?.into(),
            (IpAddr::V6(address), IpAddr::V6(network)) => {
                u64::try_from(address.to_bits().checked_sub(network.to_bits())?).ok()?
            }
            _ => return None,
        };
        let host = offset.checked_sub(self.first).filter(|host| *host < self.hosts)?;
        u32::try_from(host).ok()
    }
}

/// One after the other, for ever.
impl Iterator for Clients {
    type Item = Client;

    fn next(&mut self) -> Option<Client> {
        self.at = (self.at + self.step) % self.pairs;
        let port = u64::from(*self.ports.start()) + self.at / self.hosts;
        Some(Client {
            host: u32::try_from(self.at % self.hosts).unwrap_or(0),
            port: u16::try_from(port).unwrap_or(*self.ports.end()),
        })
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_pair_comes_once_before_any_comes_again() {
        for (net, ports, pairs) in [
            ("10.1.0.0/28", 1000..=1009, 140),
            ("10.1.0.7/32", 1..=9, 9),
            ("10.1.0.4/31", 5..=5, 2),
            ("2001:db8::/124", 1..=7, 105),
        ] {
            let mut clients = Clients::new(net.parse().unwrap(), ports.clone(), 12345);
            assert_eq!(clients.pairs(), pairs, "{net}");
            let seen: HashSet<_> = clients.by_ref().take(pairs as usize).collect();
            assert_eq!(seen.len() as u64, pairs, "{net}");
            for client in seen {
                let address = clients.address(client.host);
                assert!(ports.contains(&client.port) && net.parse::<IpNet>().unwrap().contains(&address));
                assert_eq!(clients.host(address), Some(client.host));
            }
        }
    }

    #[test]
    fn successive_connections_are_apart() {
        let clients = Clients::new("10.0.0.0/16".parse().unwrap(), 1024..=65535, 0);
        let first: Vec<_> = clients.take(100).collect();
        assert_eq!(first.iter().map(|client| client.host).collect::<HashSet<_>>().len(), 100);
        assert!(first.windows(2).all(|pair| pair[0].port.abs_diff(pair[1].port) > 1000));
    }

    #[test]
    fn other_addresses_are_nobodys() {
        let clients = Clients::new("10.1.0.0/24".parse().unwrap(), 1..=2, 0);
        for address in ["10.1.0.0", "10.1.0.255", "10.1.1.1", "10.0.255.255", "2001:db8::1"] {
            assert_eq!(clients.host(address.parse().unwrap()), None, "{address}");
        }
        // A prefix with more addresses than are used.
        let wide = Clients::new("2001:db8::/32".parse().unwrap(), 1..=2, 0);
        assert_eq!(wide.host("2001:db8::1:0:0:0".parse().unwrap()), None);
        assert_eq!(wide.host(wide.address(5)), Some(5));
    }
}
