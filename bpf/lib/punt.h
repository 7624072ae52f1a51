/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hand-over to the slow path: rate limit, metadata in front of the frame, the AF_XDP socket of this port and queue.
 * Where no worker serves the queue, the reason says whether the host's stack gets the packet or nobody.
 */
#pragma once

#include "verdict.h"

struct punt {
	enum punt_reason reason;
	__u32 flags;
	__u32 mtu;
	__u32 egress_ifindex;
	const struct ip_addr *address;
};

#define FALLBACK_PASS 1
#define FALLBACK_DROP 0

ALWAYS_INLINE int punt_falls_back_to_pass(enum punt_reason reason)
{
	/* clang-format off */
	switch (reason) {
#define X(name, fallback, help)                                                                                        \
	case PUNT_##name:                                                                                              \
		return FALLBACK_##fallback;
		PUNT_REASONS(X)
#undef X
	default:
		return 0;
	}
	/* clang-format on */
}

/* A token bucket per reason and CPU, refilled by the coarse clock: exact to a jiffy, which the burst hides. */
ALWAYS_INLINE int punt_allowed(enum punt_reason reason)
{
	const __u64 second_ns = 1000000000ULL;
	__u64 rate = config.punt_rate;
	__u32 key = reason;
	struct punt_bucket *b = bpf_map_lookup_elem(&punt_buckets, &key);
	__u64 now, elapsed, fresh;

	if (!b)
		return 0;
	now = bpf_ktime_get_coarse_ns();
	elapsed = now - b->refilled_ns;
	fresh = elapsed >= second_ns ? rate : elapsed * rate / second_ns;
	if (fresh) {
		b->tokens = b->tokens + fresh > rate ? rate : b->tokens + fresh;
		b->refilled_ns = now;
	}
	if (!b->tokens)
		return 0;
	b->tokens--;
	return 1;
}

ALWAYS_INLINE int punt_fallback(struct packet *pkt, enum punt_reason reason)
{
	return punt_falls_back_to_pass(reason) ? pass(pkt) : drop(pkt, DROP_PUNT_NO_WORKER);
}

/* Invalidates: packet pointers (the metadata area moves). */
ALWAYS_INLINE int punt(struct xdp_md *ctx, struct packet *pkt, const struct punt *p)
{
	__u32 queue = ctx->rx_queue_index;
	__u32 key = pkt->port_id * QUEUES_PER_PORT + queue;
	struct punt_meta *meta;
	int action = XDP_PASS;

	trace_step(STAGE_PUNT, p->reason, p->mtu);
	if (!config.slow_path)
		return punt_fallback(pkt, p->reason);
	if (!EXPLAIN && !punt_allowed(p->reason))
		return drop(pkt, DROP_PUNT_RATE);

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta)))
		return drop(pkt, DROP_INTERNAL);
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return drop(pkt, DROP_INTERNAL);
	__builtin_memset(meta, 0, sizeof(*meta));
	meta->reason = p->reason;
	meta->flags = p->flags;
	meta->l2_len = pkt->l3;
	meta->mtu = p->mtu;
	meta->port = pkt->port_id;
	meta->egress_ifindex = p->egress_ifindex;
	if (p->address)
		meta->address = *p->address;

	if (EXPLAIN) {
		pkt->counter = COUNTER_PUNT + p->reason;
		trace_step(STAGE_VERDICT, XDP_REDIRECT, 0);
		return XDP_REDIRECT;
	}
	if (queue < QUEUES_PER_PORT)
		action = bpf_redirect_map(&xsks, key, XDP_PASS);
	if (action == XDP_REDIRECT) {
		pkt->counter = COUNTER_PUNT + p->reason;
		return action;
	}
	bpf_xdp_adjust_meta(ctx, sizeof(*meta));
	return punt_fallback(pkt, p->reason);
}

/* A reason that needs nothing but the packet. Invalidates: packet pointers. */
ALWAYS_INLINE int punt_plain(struct xdp_md *ctx, struct packet *pkt, enum punt_reason reason)
{
	struct punt p = { .reason = reason };

	return punt(ctx, pkt, &p);
}

/* Larger than `mtu`: the sender is told where it forbids fragments. Invalidates: packet pointers. */
ALWAYS_INLINE int too_big(struct xdp_md *ctx, struct packet *pkt, __u32 mtu)
{
	struct punt p = { .reason = PUNT_PACKET_TOO_BIG, .mtu = mtu };

	if (!(pkt->frag & IP4_DF))
		return drop(pkt, DROP_MTU_NO_DF);
	return punt(ctx, pkt, &p);
}
