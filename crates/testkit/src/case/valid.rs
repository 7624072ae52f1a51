//! A second opinion on emitted frames: every IPv4 header and every transport checksum, through tunnels, by `etherparse`.

use anyhow::{Context as _, Result, ensure};
use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};

/// UDP ports of tunnels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) vxlan: u16,
    pub(super) gue: u16,
}

/// All checksums of a frame are right.
///
/// # Errors
/// What is wrong with it.
pub(super) fn frame(bytes: &[u8], ports: Ports) -> Result<()> {
    packet(&SlicedPacket::from_ethernet(bytes)?, ports)
}

fn packet(packet: &SlicedPacket<'_>, ports: Ports) -> Result<()> {
    let Some(net) = &packet.net else { return Ok(()) };
    let payload = match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            ensure!(header.header_checksum == header.calc_header_checksum(), "IPv4 header checksum wrong");
            ip.payload()
        }
        NetSlice::Ipv6(ip) => ip.payload(),
        NetSlice::Arp(_) => return Ok(()),
    };
    if payload.fragmented {
        return Ok(());
    }
    if payload.ip_number == IpNumber::IPV4 || payload.ip_number == IpNumber::IPV6 {
        return self::packet(&SlicedPacket::from_ip(payload.payload)?, ports);
    }
    if let Some(transport) = &packet.transport {
        transport_checksum(net, transport)?;
        let TransportSlice::Udp(udp) = transport else { return Ok(()) };
        if udp.destination_port() == ports.vxlan {
            let inner = udp.payload().get(8..).context("VXLAN header cut off")?;
            return frame(inner, ports);
        }
        if udp.destination_port() == ports.gue {
            // Variant 1, or variant 0 without fields.
            let behind = if udp.payload().first().is_some_and(|first| first >> 4 == 0) { 4 } else { 0 };
            let inner = udp.payload().get(behind..).context("GUE header cut off")?;
            return self::packet(&SlicedPacket::from_ip(inner)?, ports);
        }
    }
    Ok(())
}

fn transport_checksum(net: &NetSlice<'_>, transport: &TransportSlice<'_>) -> Result<()> {
    let (found, expected) = match (net, transport) {
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            (tcp.checksum(), tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())?)
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            (tcp.checksum(), tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())?)
        }
        // 0 is no checksum: allowed over IPv4 (RFC 768) and for tunnels over IPv6 (RFC 6935).
        (_, TransportSlice::Udp(udp)) if udp.checksum() == 0 => return Ok(()),
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let (source, destination) = (ip.header().source(), ip.header().destination());
            (udp.checksum(), header.calc_checksum_ipv4_raw(source, destination, udp.payload())?)
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let (source, destination) = (ip.header().source(), ip.header().destination());
            (udp.checksum(), header.calc_checksum_ipv6_raw(source, destination, udp.payload())?)
        }
        (NetSlice::Ipv4(_), TransportSlice::Icmpv4(icmp)) => {
            (icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()))
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let (source, destination) = (ip.header().source(), ip.header().destination());
            (icmp.checksum(), icmp.icmp_type().calc_checksum(source, destination, icmp.payload())?)
        }
        _ => return Ok(()),
    };
    ensure!(found == expected, "transport checksum {found:#06x}, should be {expected:#06x}");
    Ok(())
}
