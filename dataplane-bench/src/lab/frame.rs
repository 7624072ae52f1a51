//! Frames as the plain senders write them, and whether what came out of a device is what it should be.

use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use etherparse::{InternetSlice, LinkSlice, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use packet::layer::Mac;

use super::traffic::{Expected, Traffic};

/// Hops that a frame may take; pktgen's traffic has as many.
pub(crate) const HOPS: u8 = 64;

/// A frame of a flow.
///
/// # Errors
/// Its length does not hold its headers, or its addresses are of two families.
pub(crate) fn build(traffic: &Traffic, flow: u32, from: Mac, to: Mac) -> anyhow::Result<Vec<u8>> {
    let (source, port) = traffic.source_of(flow);
    let link = PacketBuilder::ethernet2(from, to);
    let (network, headers) = match (source, traffic.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (link.ipv4(source.octets(), destination.octets(), HOPS), 14 + 20 + 8)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (link.ipv6(source.octets(), destination.octets(), HOPS), 14 + 40 + 8)
        }
        (source, destination) => bail!("{source} and {destination} are not of one family"),
    };
    let payload = traffic.frame_bytes.checked_sub(headers);
    let payload = vec![0; payload.with_context(|| format!("a frame has at least {headers} bytes"))?];
    let mut frame = Vec::with_capacity(traffic.frame_bytes);
    network.udp(port, traffic.port).write(&mut frame, &payload)?;
    Ok(frame)
}

/// The ends that a frame which left a device must name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// Link-layer source and destination where it was routed.
    pub(crate) routed: (Mac, Mac),
    /// Those that it was sent with.
    pub(crate) sent: (Mac, Mac),
}

/// Whether `bytes`, the start of a frame that left the device, is one of `traffic` with what `expected` has done to it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(bytes: &[u8], traffic: &Traffic, expected: &Expected, ends: Ends) -> anyhow::Result<()> {
    let frame = SlicedPacket::from_ethernet(bytes).context("it cannot be parsed")?;
    let Some(LinkSlice::Ethernet2(link)) = &frame.link else { bail!("it has no Ethernet header") };
    let macs = if expected.routed { ends.routed } else { ends.sent };
    ensure!(
        (link.source(), link.destination()) == macs,
        "its link-layer addresses are {:02x?} > {:02x?}",
        link.source(),
        link.destination()
    );
    let outer = network(frame.net.as_ref())?;
    ensure!(
        expected.destinations.contains(&outer.destination),
        "its destination is {}, none of {:?}",
        outer.destination,
        expected.destinations
    );
    if !expected.encapsulated {
        return inner(&frame, &outer, traffic, expected);
    }
    let next = SlicedPacket::from_ip(outer.payload).context("what is inside cannot be parsed")?;
    let inside = network(next.net.as_ref())?;
    ensure!(inside.destination == traffic.destination, "the destination inside is {}", inside.destination);
    inner(&next, &inside, traffic, expected)
}

/// What matters of an IP header.
struct Network<'a> {
    source: IpAddr,
    destination: IpAddr,
    hops: u8,
    payload: &'a [u8],
}

fn network<'a>(net: Option<&InternetSlice<'a>>) -> anyhow::Result<Network<'a>> {
    match net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            ensure!(header.header_checksum == header.calc_header_checksum(), "its IPv4 header checksum is wrong");
            Ok(Network {
                source: IpAddr::from(header.source),
                destination: IpAddr::from(header.destination),
                hops: header.time_to_live,
                payload: ip.payload().payload,
            })
        }
        Some(NetSlice::Ipv6(ip)) => Ok(Network {
            source: ip.header().source_addr().into(),
            destination: ip.header().destination_addr().into(),
            hops: ip.header().hop_limit(),
            payload: ip.payload().payload,
        }),
        _ => bail!("it is no IP packet"),
    }
}

fn inner(frame: &SlicedPacket<'_>, ip: &Network<'_>, traffic: &Traffic, expected: &Expected) -> anyhow::Result<()> {
    ensure!(HOPS.checked_sub(expected.hops) == Some(ip.hops), "it has {} hops left of {HOPS}", ip.hops);
    let Some(TransportSlice::Udp(udp)) = &frame.transport else { bail!("it is no UDP packet") };
    ensure!(udp.destination_port() == expected.port, "it goes to port {}", udp.destination_port());
    let last = traffic.source_of(traffic.flows.saturating_sub(1)).0;
    ensure!((traffic.source..=last).contains(&ip.source), "its source is {}", ip.source);
    let header = udp.to_header();
    let sum = match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), udp.payload())?
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), udp.payload())?
        }
        _ => bail!("its addresses are of two families"),
    };
    ensure!(header.checksum == 0 && ip.source.is_ipv4() || header.checksum == sum, "its UDP checksum is wrong");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];
    const ENDS: Ends = Ends { routed: (B, A), sent: (A, B) };

    /// The frame as a router would send it on.
    fn routed(traffic: &Traffic) -> Vec<u8> {
        let mut frame = build(traffic, 3, B, A).unwrap();
        // The time to live falls by one, and its header's sum grows by as much (RFC 1624).
        frame[22] -= 1;
        frame[24] += 1;
        frame
    }

    #[test]
    fn a_routed_frame_passes_and_every_fault_is_named() {
        let traffic = Traffic::ipv4(10);
        let expected = Expected::forwarded(&traffic);
        check(&routed(&traffic), &traffic, &expected, ENDS).unwrap();
        for (at, words) in [
            (0, "link-layer addresses"),
            (23, "checksum"),
            (25, "checksum"),
            (33, "destination"),
            (37, "port"),
            (45, "UDP checksum"),
        ] {
            let mut frame = routed(&traffic);
            frame[at] ^= 0x10;
            if at == 33 {
                let sum = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0.calc_header_checksum();
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            let error = format!("{:#}", check(&frame, &traffic, &expected, ENDS).unwrap_err());
            assert!(error.contains(words), "byte {at}: {error}");
        }
        let error = check(&build(&traffic, 3, B, A).unwrap(), &traffic, &expected, ENDS).unwrap_err().to_string();
        assert!(error.contains("64 hops left"), "{error}");
    }

    #[test]
    fn frames_have_the_length_that_was_asked_for() {
        let wide = Traffic {
            source: "2001:2:0:1::1".parse().unwrap(),
            destination: "2001:2:0:8001::1".parse().unwrap(),
            frame_bytes: 80,
            ..Traffic::ipv4(1)
        };
        for traffic in [Traffic::ipv4(1), wide, Traffic { frame_bytes: 1514, ..Traffic::ipv4(1) }] {
            assert_eq!(build(&traffic, 0, A, B).unwrap().len(), traffic.frame_bytes);
        }
        assert!(build(&Traffic { frame_bytes: 20, ..Traffic::ipv4(1) }, 0, A, B).is_err());
    }
}
