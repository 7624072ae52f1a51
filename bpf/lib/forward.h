/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Routing and, at addresses of VIPs, load balancing: what the packet's next hop makes of it. */
#pragma once

#include "adjacency.h"
#include "decap.h"
#include "error.h"
#include "fib.h"
#include "mss.h"
#include "vip.h"

#define ICMP_ECHO_REQUEST 8
#define ICMPV6_ECHO_REQUEST 128

/* A VIP address, but none of its services. Invalidates: packet pointers. */
ALWAYS_INLINE int to_vip_address(struct xdp_md *ctx, struct packet *pkt)
{
	if (is_trailing(pkt))
		return drop(pkt, DROP_VIP_FRAGMENT);
	if (pkt->has_icmp && !is_fragment(pkt) &&
	    pkt->icmp_type == (pkt->is_ipv6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO_REQUEST))
		return punt_plain(ctx, pkt, PUNT_VIP_ECHO);
	if (is_error_of_flow(pkt) && pkt->quote == QUOTE_SHORT)
		return drop(pkt, DROP_VIP_ERROR_SHORT);
	return drop(pkt, DROP_VIP_NO_SERVICE);
}

/* One tunnel level is taken off, not two: what is still a tunnel packet for this node does not reach its stack. */
ALWAYS_INLINE int receive(struct packet *pkt)
{
	if (pkt->decapsulated && tunnel_kind_of(pkt))
		return drop(pkt, DROP_TUN_NESTED);
	return pass(pkt);
}

/* Invalidates: packet pointers. */
ALWAYS_INLINE int to_gateway(struct xdp_md *ctx, struct packet *pkt, const struct next_hop *nh)
{
	const struct adjacency *adj;
	int action;

	if (!pkt->plain && source_link_local(pkt))
		return drop(pkt, DROP_SRC_INVALID);
	if (pkt->ttl <= 1)
		return punt_plain(ctx, pkt, PUNT_TTL_EXCEEDED);
	if (nh->kind == NH_GLEAN) {
		limit_mss(ctx, pkt);
		return punt_neighbor(ctx, pkt, PUNT_NEIGHBOR, nh->ifindex, &pkt->dst);
	}
	adj = adjacency_of(nh->adjacency);
	if (!adj)
		return drop(pkt, DROP_INTERNAL);
	if (pkt->len > adj->mtu)
		return too_big(ctx, pkt, adj->mtu);
	limit_mss(ctx, pkt);
	if (!(adj->flags & ADJ_COMPLETE))
		return punt_neighbor(ctx, pkt, PUNT_NEIGHBOR, nh->ifindex, &nh->address);
	if (pkt->plain && adj->rewrite_len == 12)
		return send_plain(ctx, pkt, adj);
	action = decrement_ttl(ctx, pkt);
	if (action != CONTINUE)
		return action;
	action = rewrite_link(ctx, pkt, adj, 0, pkt->ethertype);
	if (action != CONTINUE)
		return action;
	return send(ctx, pkt, adj->ifindex);
}

/* Invalidates: packet pointers. */
ALWAYS_INLINE int forward(struct xdp_md *ctx, struct packet *pkt)
{
	const struct next_hop *nh;
	__u32 group;
	int action;

	if (pkt->host_scope)
		return pass(pkt);
	if (config.vip && (action = load_balance(ctx, pkt)) != CONTINUE)
		return action;
	group = fib_lookup(pkt);
	if (!group)
		return punt_plain(ctx, pkt, PUNT_NO_ROUTE);
	if (config.vip && group > VIP_GROUPS && (action = load_balance_at(ctx, pkt, group - VIP_GROUPS)) != CONTINUE)
		return action;
	nh = next_hop_of(ctx, pkt, group, 0);
	if (!nh)
		return drop(pkt, DROP_INTERNAL);
	switch (nh->kind) {
	case NH_FORWARD:
	case NH_GLEAN:
		return to_gateway(ctx, pkt, nh);
	case NH_RECEIVE:
		return receive(pkt);
	case NH_HOST:
		return pass(pkt);
	case NH_VIP:
		return to_vip_address(ctx, pkt);
	case NH_BLACKHOLE:
		return drop(pkt, DROP_BLACKHOLE);
	case NH_PROHIBIT:
		return punt_plain(ctx, pkt, PUNT_PROHIBIT);
	case NH_UNREACHABLE:
		return punt_plain(ctx, pkt, PUNT_NO_ROUTE);
	default:
		return drop(pkt, DROP_INTERNAL);
	}
}
