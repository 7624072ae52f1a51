/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Source validation: a packet may come from where an answer would go (RFC 3704), by the FIB's own tables. */
#pragma once

#include "fib.h"
#include "verdict.h"

/* What has no route by nature is left alone: link-local sources, and the unspecified one that asks everybody. */
ALWAYS_INLINE int has_no_route(const struct packet *pkt)
{
	return source_link_local(pkt) || !(pkt->is_ipv6 ? ip6_low_word(&pkt->src) : pkt->src.word[3]);
}

ALWAYS_INLINE int validate_source(struct packet *pkt)
{
	const __u64 *found;
	__u64 ports;
	__u32 group;
	int by_default;

	if (!config.source_validation || pkt->validation == VALIDATE_OFF || has_no_route(pkt))
		return CONTINUE;
	group = fib_group(vrf_of(pkt), &pkt->src, pkt->is_ipv6, &by_default);
	found = bpf_map_lookup_elem(&origins, &group);
	ports = found ? *found : 0;
	/* No way back for `loose`, but where it stands in for routes that found no room: those may come from anywhere. */
	if (pkt->validation == VALIDATE_LOOSE && by_default && ports != ORIGINS_ANY)
		group = ports = 0;
	trace_step(STAGE_SOURCE, group, pkt->validation);
	if (!(ports & 1))
		return drop(pkt, DROP_SRC_UNROUTED);
	if (pkt->validation != VALIDATE_LOOSE && !(ports >> (pkt->port_id & 63) & 1))
		return drop(pkt, DROP_SRC_INTERFACE);
	return CONTINUE;
}
