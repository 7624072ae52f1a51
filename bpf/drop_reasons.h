/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Why packets are dropped and why they are punted: one row a reason, in the order in which a packet can meet them.
 * Name and help reach the CLI, the metrics and the documents through the object's read-only data.
 * A new reason goes to the end of its list: the number is part of the ABI.
 */
#pragma once

#define DROP_REASONS(X)                                                                                                \
	X(ETH_SHORT, "frame shorter than its Ethernet header and VLAN tags")                                           \
	X(IP4_SHORT, "IPv4 packet shorter than its header or its total length")                                        \
	X(IP4_HEADER, "IPv4 version, header length or total length invalid")                                           \
	X(IP4_CSUM, "IPv4 header checksum wrong")                                                                      \
	X(IP6_SHORT, "IPv6 packet shorter than its header or its payload length")                                      \
	X(IP6_HEADER, "IPv6 version or extension header invalid")                                                      \
	X(IP6_EXTHDR_LIMIT, "more than six IPv6 extension headers")                                                    \
	X(L4_SHORT, "TCP, UDP, SCTP or ICMP header cut off")                                                           \
	X(SRC_INVALID, "source address multicast, loopback, unspecified, or link-local in a packet to be forwarded")   \
	X(DST_INVALID, "destination address loopback, unspecified or IPv4-mapped")                                     \
	X(ETHERTYPE, "neither IP nor ARP on an interface with policy")                                                 \
	X(TUN_PEER_UNKNOWN, "tunnel packet from a source that no Tunnel names")                                        \
	X(TUN_VNI_UNKNOWN, "VXLAN network identifier that no Tunnel names")                                            \
	X(TUN_HEADER, "VXLAN or GUE header invalid, or no IP inside")                                                  \
	X(TUN_FRAGMENT, "fragment of a tunnel packet")                                                                 \
	X(TUN_NESTED, "tunnel packet for this node inside a tunnel packet")                                            \
	X(TUN_ECN, "outer congestion mark on an inner packet that cannot carry it (RFC 6040)")                         \
	X(DENYLIST, "source or destination is on a Denylist")                                                          \
	X(POLICY_DENY, "denied by an untracked policy")                                                                \
	X(VIP_NO_SERVICE, "VIP address without a service on this port")                                                \
	X(VIP_NO_BACKEND, "no usable backend behind the VIP")                                                          \
	X(VIP_FRAGMENT, "fragment for a VIP: its ports are unknown")                                                   \
	X(BLACKHOLE, "route says blackhole")                                                                           \
	X(MTU_NO_DF, "IPv4 packet larger than the next hop's MTU that may be fragmented")                              \
	X(PUNT_RATE, "punt over the rate limit of its reason")                                                         \
	X(PUNT_NO_WORKER, "punt without a slow-path worker on the queue")                                              \
	X(ADJUST_HEAD, "no headroom for the outer header")                                                             \
	X(INTERNAL, "a table refers to an entry that does not exist")                                                  \
	X(SRC_UNROUTED, "source validation: no route back to the source")                                              \
	X(SRC_INTERFACE, "source validation: the route back to the source leads by another interface")                 \
	X(TUN_SOURCE, "inner source that the Tunnel does not have behind this peer")                                   \
	X(TUN_REFLECTED, "tunnel packet from an address of this node, or with one or a VIP as inner source")           \
	X(VIP_ERROR_SHORT, "ICMP error for a VIP that quotes too little of the packet it is about")

/* Third column: what happens where no worker serves the queue: PASS to the host's stack, or DROP as PUNT_NO_WORKER. */
#define PUNT_REASONS(X)                                                                                                \
	X(NEIGHBOR, PASS, "next hop's link-layer address unresolved")                                                  \
	X(NEIGHBOR_ENCAP, DROP, "next hop's link-layer address unresolved, packet already encapsulated")               \
	X(TTL_EXCEEDED, PASS, "TTL or hop limit used up")                                                              \
	X(NO_ROUTE, DROP, "no route to the destination")                                                               \
	X(PROHIBIT, DROP, "route says prohibit")                                                                       \
	X(PACKET_TOO_BIG, DROP, "larger than the path's MTU and not to be fragmented")                                 \
	X(VIP_ECHO, DROP, "echo request to a VIP")
