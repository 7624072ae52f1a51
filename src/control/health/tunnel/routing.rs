//! How the kernel brings marked packets to the device: a rule for the mark, and a table in which everything leads there.
//!
//! Routes go with the device. Rules outlive a process that is killed: they are known by their priority and protocol, the next process keeps the
//! one that it wants and takes away any other.

use std::net::{Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt as _;
use model::network::IfIndex;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Error, Handle, IpVersion, LinkUnspec, RouteMessageBuilder};

use super::Settings;

/// Priority of the rules: ahead of the main table and of rules that are given none.
pub(super) const PRIORITY: u32 = 12_397;
/// Who made a rule or a route, as `ip` shows it (`proto 109`).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(109);
/// Of the device: what leaves through it fits a path of 1,500 bytes in any outer header, and IPv6 asks for as much (RFC 8200 §5).
const MTU: u32 = 1_280;

/// Leaves the rules of a family as they are wanted: the one of `wanted` and no other.
pub(super) async fn settle_rules(handle: &Handle, family: IpVersion, wanted: Option<Settings>) -> Result<(), Error> {
    let rules: Vec<RuleMessage> = handle.rule().get(family.clone()).execute().try_collect().await?;
    let mut found = false;
    for rule in rules.into_iter().filter(is_own) {
        if wanted.is_some_and(|wanted| !found && leads(&rule, wanted)) {
            found = true;
        } else {
            handle.rule().del(rule).execute().await?;
        }
    }
    match wanted.filter(|_| !found) {
        Some(wanted) => add_rule(handle, family, wanted).await,
        None => Ok(()),
    }
}

fn is_own(rule: &RuleMessage) -> bool {
    [RuleAttribute::Priority(PRIORITY), RuleAttribute::Protocol(PROTOCOL)]
        .iter()
        .all(|attribute| rule.attributes.contains(attribute))
}

fn leads(rule: &RuleMessage, Settings { mark, table }: Settings) -> bool {
    [RuleAttribute::FwMark(mark), RuleAttribute::FwMask(u32::MAX), RuleAttribute::Table(table)]
        .iter()
        .all(|attribute| rule.attributes.contains(attribute))
}

async fn add_rule(handle: &Handle, family: IpVersion, Settings { mark, table }: Settings) -> Result<(), Error> {
    let mut rule = handle.rule().add().action(RuleAction::ToTable).priority(PRIORITY).fw_mark(mark).table_id(table);
    let message = rule.message_mut();
    message.header.family = match family {
        IpVersion::V4 => AddressFamily::Inet,
        IpVersion::V6 => AddressFamily::Inet6,
    };
    message.attributes.push(RuleAttribute::Protocol(PROTOCOL));
    rule.execute().await
}

/// Brings the device up, without an address of its own.
pub(super) async fn set_up(handle: &Handle, device: IfIndex) -> Result<(), Error> {
    let no_address = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let no_address = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![no_address])]);
    let link = || LinkUnspec::new_with_index(device.0);
    // Without IPv6 there is nothing that could be set.
    let _ = handle.link().set(link().append_extra_attribute(no_address).build()).execute().await;
    handle.link().set(link().mtu(MTU).up().build()).execute().await
}

/// Has everything in the table leave by the device.
pub(super) async fn add_route(
    handle: &Handle,
    family: IpVersion,
    settings: Settings,
    device: IfIndex,
) -> Result<(), Error> {
    handle.route().add(default_route(family, settings.table, device)).execute().await
}

fn default_route(family: IpVersion, table: u32, device: IfIndex) -> RouteMessage {
    match family {
        IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new()
            .table_id(table)
            .protocol(PROTOCOL)
            .scope(RouteScope::Link)
            .output_interface(device.0)
            .build(),
        IpVersion::V6 => {
            RouteMessageBuilder::<Ipv6Addr>::new().table_id(table).protocol(PROTOCOL).output_interface(device.0).build()
        }
    }
}
