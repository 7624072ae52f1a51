//! What is sent into a device, and what must come out of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Shortest frame that a 64-byte Ethernet frame has without its check sequence.
pub(crate) const SHORTEST: usize = 60;

/// UDP flows. Flow n has the source port `FIRST_PORT + n`; when the ports are used up, flows go on with the next address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Source address of the first flow.
    pub(crate) source: IpAddr,
    /// Where it goes.
    pub(crate) destination: IpAddr,
    /// UDP port that it goes to.
    pub(crate) port: u16,
    /// Flows.
    pub(crate) flows: u32,
    /// Bytes of each frame, without the check sequence.
    pub(crate) frame_bytes: usize,
}

/// Source port of the first flow of an address.
pub(crate) const FIRST_PORT: u16 = 1024;
/// Flows of an address.
pub(crate) const PORTS: u32 = u16::MAX as u32 - FIRST_PORT as u32 + 1;

impl Traffic {
    /// Plain IPv4 through the device, in the shortest frames.
    pub(crate) fn ipv4(flows: u32) -> Self {
        Self {
            source: Ipv4Addr::new(198, 18, 1, 1).into(),
            destination: Ipv4Addr::new(198, 19, 1, 1).into(),
            port: 9,
            flows,
            frame_bytes: SHORTEST,
        }
    }

    /// Source address and port of a flow.
    pub(crate) fn source_of(&self, flow: u32) -> (IpAddr, u16) {
        let step = flow / PORTS;
        let address = match self.source {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().wrapping_add(step)).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().wrapping_add(step.into())).into(),
        };
        // Below PORTS, so the sum is a port.
        (address, FIRST_PORT + u16::try_from(flow % PORTS).unwrap_or(0))
    }

    /// For a row of results.
    pub(crate) fn describe(&self) -> String {
        let flows = if self.flows == 1 { "1 flow".to_owned() } else { format!("{} flows", self.flows) };
        let family = if self.source.is_ipv4() { "IPv4" } else { "IPv6" };
        format!("{family} UDP, {flows}, {}-byte frames (+4 FCS)", self.frame_bytes)
    }
}

/// What becomes of traffic on its way through a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Destinations that it may have now, of the outer header where it was put into one.
    pub(crate) destinations: Vec<IpAddr>,
    /// UDP port that it goes to now.
    pub(crate) port: u16,
    /// Hops that the innermost header has lost.
    pub(crate) hops: u8,
    /// It is inside an outer IP header.
    pub(crate) encapsulated: bool,
    /// The link-layer addresses are those of the next link; a bridge leaves them as they are.
    pub(crate) routed: bool,
}

impl Expected {
    /// It is routed, and nothing else.
    pub(crate) fn forwarded(traffic: &Traffic) -> Self {
        Self { destinations: vec![traffic.destination], port: traffic.port, hops: 1, encapsulated: false, routed: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_go_on_with_the_next_address() {
        let traffic = Traffic::ipv4(1 << 20);
        assert_eq!(traffic.source_of(0), ("198.18.1.1".parse().unwrap(), 1024));
        assert_eq!(traffic.source_of(PORTS - 1), ("198.18.1.1".parse().unwrap(), 65535));
        assert_eq!(traffic.source_of(PORTS), ("198.18.1.2".parse().unwrap(), 1024));
    }
}
