//! What compile has to say to the operator.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// Something that is configured or learned and does not take effect as it stands. It is no error: the rest forwards, and
/// the notice goes away when its cause does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Notice {
    /// A configured interface is not there (yet).
    #[error("interface {interface} of Node {node} does not exist")]
    InterfaceMissing {
        /// The node's name.
        node: String,
        /// The configured name.
        interface: String,
    },
    /// A VLAN device on a VLAN device: frames with two tags are not forwarded.
    #[error(
        "interface {interface} is a VLAN inside the VLAN device {parent}: frames with two tags are left to the kernel"
    )]
    VlanInVlan {
        /// The configured device.
        interface: String,
        /// Its parent.
        parent: String,
    },
    /// A host endpoint whose interface is not one of the node's ports.
    #[error("HostEndpoint {endpoint} stands for no configured interface of this node")]
    EndpointWithoutPort {
        /// Document name.
        endpoint: String,
    },
    /// A second host endpoint for a port: only the first by name applies, a named interface before expectedIPs.
    #[error("HostEndpoint {endpoint} is not applied: {other} stands for {interface} already")]
    EndpointShadowed {
        /// The one that is left out.
        endpoint: String,
        /// The one that applies.
        other: String,
        /// Their interface.
        interface: String,
    },
    /// A static route without a usable gateway.
    #[error("StaticRoute {route} ({prefix}) is not installed: none of its gateways can be reached")]
    StaticRouteUnreachable {
        /// Document name.
        route: String,
        /// Its destination.
        prefix: IpNet,
    },
    /// Some, not all, gateways of a static route are unusable.
    #[error("StaticRoute {route} ({prefix}) does without gateway {gateway}: it cannot be reached")]
    StaticGatewayUnreachable {
        /// Document name.
        route: String,
        /// Its destination.
        prefix: IpNet,
        /// The gateway.
        gateway: IpAddr,
    },
    /// A static route with a gateway on the interface of another VRF.
    #[error("StaticRoute {route} ({prefix}) of {vrf} has a gateway on {interface} of {other}: it is left out")]
    StaticRouteLeavesVrf {
        /// Document name.
        route: String,
        /// Its destination.
        prefix: IpNet,
        /// The route's VRF.
        vrf: String,
        /// The gateway's interface.
        interface: String,
        /// The interface's VRF.
        other: String,
    },
    /// Routes of the kernel with a way out by the interface of another VRF.
    #[error(
        "{routes} routes of the kernel in {vrf}, {first} one of them, lead by {interface} of {other}: that way is left out"
    )]
    RoutesLeaveVrf {
        /// The routes' VRF.
        vrf: String,
        /// The interface.
        interface: String,
        /// The interface's VRF.
        other: String,
        /// How many.
        routes: usize,
        /// One of them.
        first: IpNet,
    },
    /// Routes beyond the capacity of a VRF, or of the tables behind it.
    #[error("VRF {vrf} is full: {routes} routes are left out")]
    VrfFull {
        /// Its name.
        vrf: String,
        /// How many.
        routes: usize,
    },
    /// A BGP next hop that nothing leads to.
    #[error("BGP next hop {gateway} cannot be reached: {routes} routes do without it")]
    BgpGatewayUnreachable {
        /// The next hop.
        gateway: IpAddr,
        /// How many routes have it.
        routes: usize,
    },
    /// Routes to addresses that are never routed.
    #[error("{routes} routes of {origin} are refused, {first} the first: their addresses are never routed (RFC 6890)")]
    Martians {
        /// Who tells of them.
        origin: String,
        /// How many.
        routes: usize,
        /// The lowest of them.
        first: IpNet,
    },
    /// A gateway that does not answer, whose flows others carry.
    #[error("gateway {gateway} on {interface} does not answer: its flows take the other gateways")]
    GatewayFailed {
        /// The gateway.
        gateway: IpAddr,
        /// Its interface.
        interface: String,
    },
    /// Routes beyond the capacity of the tables behind the FIB.
    #[error("next-hop groups are full: {routes} routes with next hops of their own are left out")]
    GroupsFull {
        /// How many.
        routes: usize,
    },
    /// Routes beyond the capacity of the FIB.
    #[error("FIB is full: {routes} routes of this family are left out")]
    FibFull {
        /// How many.
        routes: usize,
    },
    /// A VIP of all ports on an address that the host needs for itself.
    #[error(
        "VirtualService {service} does not serve {address}, an address of this node: a service without port would take what the host is sent"
    )]
    VipOfHost {
        /// Document name.
        service: String,
        /// The address.
        address: IpAddr,
    },
    /// Checks via tunnel of a VIP that is the host's own address: the host would answer them itself.
    #[error(
        "VirtualService {service} cannot be checked via tunnel: {address} is an address of this node, where its checks would end"
    )]
    CheckOfHost {
        /// Document name.
        service: String,
        /// The address.
        address: IpAddr,
    },
    /// A backend that gets no packets.
    #[error("backend {backend} of VirtualService {service} {problem}")]
    BackendUnusable {
        /// Document name.
        service: String,
        /// Its address.
        backend: IpAddr,
        /// Why.
        problem: BackendProblem,
    },
    /// So few backends are healthy that the checks are not believed.
    #[error("VirtualService {service} has fewer healthy backends than its panicThreshold: all of them are used")]
    ServicePanics {
        /// Document name.
        service: String,
    },
    /// Backends that nothing is known of yet.
    #[error("{backends} backends of VirtualService {service} are not used yet: their first health check is not over")]
    BackendsStarting {
        /// Document name.
        service: String,
        /// How many.
        backends: usize,
    },
}

/// Why a backend gets no packets, or none that a check speaks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum BackendProblem {
    /// Health checks have failed.
    #[error("is down: {reason}")]
    Down {
        /// What came of the check that decided.
        reason: String,
    },
    /// No FIB entry forwards to it.
    #[error("has no route")]
    NoRoute,
    /// It is an address of this node, or a VIP.
    #[error("is an address of this node")]
    Local,
    /// L2 and not on the link of a port.
    #[error("is not on the link of a configured interface, which encap type L2 needs")]
    NotOnLink,
    /// Its route leaves by an interface that is no port.
    #[error("is behind an interface that the Node does not list")]
    NotAPort,
    /// No outer source address of its family.
    #[error("has no outer source: set encap.sourceIPv4 or sourceIPv6 of the Node, or give {interface} an address")]
    NoSource {
        /// Egress interface.
        interface: String,
    },
}

impl Notice {
    /// True where it follows from a verdict about a backend, which was told of when it was given.
    pub fn is_of_checks(&self) -> bool {
        matches!(
            self,
            Self::BackendsStarting { .. } | Self::BackendUnusable { problem: BackendProblem::Down { .. }, .. }
        )
    }

    /// True where both tell of the same thing, though of other numbers of routes.
    pub fn is_about_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::BgpGatewayUnreachable { gateway, .. }, Self::BgpGatewayUnreachable { gateway: same, .. }) => {
                gateway == same
            }
            (Self::VrfFull { vrf, .. }, Self::VrfFull { vrf: same, .. }) => vrf == same,
            (Self::RoutesLeaveVrf { vrf, interface, .. }, Self::RoutesLeaveVrf { vrf: same, interface: by, .. }) => {
                (vrf, interface) == (same, by)
            }
            (Self::FibFull { .. }, Self::FibFull { .. }) | (Self::GroupsFull { .. }, Self::GroupsFull { .. }) => true,
            (Self::Martians { origin, .. }, Self::Martians { origin: same, .. }) => origin == same,
            (Self::BackendsStarting { service, .. }, Self::BackendsStarting { service: same, .. }) => service == same,
            // What a check says of it may change while it is down.
            (
                Self::BackendUnusable { service, backend, problem: BackendProblem::Down { .. } },
                Self::BackendUnusable { service: same, backend: too, problem: BackendProblem::Down { .. } },
            ) => (service, backend) == (same, too),
            _ => self == other,
        }
    }
}

impl Serialize for Notice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Desired state that does not fit the tables. Nothing changes: the generation in force stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Compiled policies of all ports are too long.
    #[error("untracked policies compile to {ops} filter ops, {limit} fit: use fewer or wider nets and ports")]
    FilterTooLong {
        /// How many.
        ops: usize,
        /// How many fit.
        limit: usize,
    },
    /// More entries than a table has.
    #[error("more {what} than the {limit} that fit")]
    TooMany {
        /// Plural noun.
        what: &'static str,
        /// How many fit.
        limit: usize,
    },
}
