/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Untracked policy: a straight-line program of tests with a way out for match, miss and absence of the field. Jumps go
 * forward only, so the walk ends. Its cost grows with the rules; the classifier that replaces it stands behind filter().
 */
#pragma once

#include "verdict.h"

#define FILTER_OPS_PER_CALL 16

ALWAYS_INLINE int address_in(const struct ip_addr *a, const struct filter_op *op)
{
	__u32 differs = 0;

#pragma unroll
	for (int i = 0; i < 4; i++)
		differs |= (a->word[i] ^ op->value.word[i]) & op->mask.word[i];
	return !differs;
}

ALWAYS_INLINE __u32 after_test(const struct filter_op *op, int matches)
{
	return matches ? op->on_match : op->on_miss;
}

/* Where the op sends this packet. */
ALWAYS_INLINE __u32 filter_step(const struct packet *pkt, const struct filter_op *op)
{
	__u32 first = op->value.word[0], last = op->value.word[1];

	switch (op->field) {
	case FILTER_SRC4:
		return after_test(op, address_in(&pkt->src, op));
	case FILTER_SRC6:
		return after_test(op, pkt->is_ipv6 && address_in(&pkt->src, op));
	case FILTER_DST4:
		return after_test(op, address_in(&pkt->dst, op));
	case FILTER_DST6:
		return after_test(op, pkt->is_ipv6 && address_in(&pkt->dst, op));
	case FILTER_SPORT:
		return pkt->has_ports ? after_test(op, sport_of(pkt) >= first && sport_of(pkt) <= last) : op->on_absent;
	case FILTER_DPORT:
		return pkt->has_ports ? after_test(op, dport_of(pkt) >= first && dport_of(pkt) <= last) : op->on_absent;
	case FILTER_PROTO:
		return after_test(op, pkt->proto == first);
	case FILTER_IP_VERSION:
		return after_test(op, (pkt->is_ipv6 ? 6 : 4) == first);
	case FILTER_ICMP: {
		__u32 icmp = (__u32)pkt->icmp_type << 8 | pkt->icmp_code;

		return pkt->has_icmp ? after_test(op, !((icmp ^ first) & op->mask.word[0])) : op->on_absent;
	}
	default:
		return FILTER_DENY;
	}
}

/* One op; true where the walk has ended. Where it stands is in the packet, whose contents the verifier does not follow. */
ALWAYS_INLINE int filter_next_op(struct packet *pkt)
{
	__u32 at = pkt->filter;
	const struct filter_op *op = bpf_map_lookup_elem(&filter, &at);
	__u32 next = op ? filter_step(pkt, op) : FILTER_DENY;

	if (next == FILTER_ALLOW || next == FILTER_DENY) {
		pkt->filter_end = next;
		return 1;
	}
	if (next <= at) {
		pkt->filter_end = FILTER_DENY;
		return 1;
	}
	pkt->filter = next;
	return 0;
}

/* Several ops a call: calling back costs as much as half a dozen of them. */
static long filter_visit(__u32 i __attribute__((unused)), void *arg)
{
	struct packet *pkt = *(struct packet **)arg;

	for (int n = 0; n < FILTER_OPS_PER_CALL; n++)
		if (filter_next_op(pkt))
			return 1;
	return 0;
}

/* No end within the longest program there can be means tables at odds: closed, not open. */
ALWAYS_INLINE int filter_packet(struct packet *pkt)
{
	const __u32 calls = (FILTER_OPS_MAX / 2 + FILTER_OPS_PER_CALL - 1) / FILTER_OPS_PER_CALL;

	if (!config.filter || pkt->filter == FILTER_NONE)
		return CONTINUE;
	pkt->filter_end = 0;
	bpf_loop(calls, filter_visit, &pkt, 0);
	trace_step(STAGE_FILTER, pkt->filter, pkt->filter_end);
	return pkt->filter_end == FILTER_ALLOW ? CONTINUE : drop(pkt, DROP_POLICY_DENY);
}
