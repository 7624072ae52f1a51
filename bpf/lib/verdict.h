/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The only place that ends a packet's way. Each function notes what became of the packet; the entry program counts it
 * once, beside rx, so rx = pass + tx + redirect + punt + drop fails to hold as soon as a path ends without a verdict.
 */
#pragma once

#include "packet.h"

ALWAYS_INLINE int pass(struct packet *pkt)
{
	pkt->counter = COUNTER_PASS;
	trace_step(STAGE_VERDICT, XDP_PASS, 0);
	return XDP_PASS;
}

ALWAYS_INLINE int drop(struct packet *pkt, enum drop_reason reason)
{
	pkt->counter = COUNTER_DROP + reason;
	trace_step(STAGE_VERDICT, XDP_DROP, reason);
	return XDP_DROP;
}

/* One packet more, and its bytes as it came in. */
ALWAYS_INLINE void add(struct pkt_count *c, const struct packet *pkt)
{
	c->packets++;
	c->bytes += pkt->bytes;
}

ALWAYS_INLINE void count_next_hop(const struct packet *pkt)
{
	__u32 id = pkt->next_hop;
	struct pkt_count *c;

	if (EXPLAIN)
		return;
	c = bpf_map_lookup_elem(&next_hop_counters, &id);
	if (c)
		add(c, pkt);
}

/* Out by the interface it came in by, or by another, to its next hop. */
ALWAYS_INLINE int send(struct xdp_md *ctx, struct packet *pkt, __u32 ifindex)
{
	count_next_hop(pkt);
	if (ifindex == ctx->ingress_ifindex) {
		pkt->counter = COUNTER_TX;
		trace_step(STAGE_VERDICT, XDP_TX, ifindex);
		return XDP_TX;
	}
	pkt->counter = COUNTER_REDIRECT;
	trace_step(STAGE_VERDICT, XDP_REDIRECT, ifindex);
	return bpf_redirect(ifindex, 0);
}

/* Counts the packet, once, when its way has ended. */
ALWAYS_INLINE void count(const struct packet *pkt)
{
	__u32 id = pkt->port_id;
	__u32 verdict = pkt->counter;
	struct port_counters *c;

	if (EXPLAIN)
		return;
	c = bpf_map_lookup_elem(&counters, &id);
	if (!c)
		return;
	add(&c->counter[COUNTER_RX], pkt);
	asm volatile("" : "+r"(verdict));
	if (verdict >= NR_COUNTERS)
		return;
	add(&c->counter[verdict], pkt);
}
