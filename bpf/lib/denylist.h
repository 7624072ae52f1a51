/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Listed sources are dropped, ahead of everything that a policy says. */
#pragma once

#include "verdict.h"

ALWAYS_INLINE int denylist(struct packet *pkt)
{
	__u32 *listed;

	if (!config.denylist)
		return CONTINUE;
	if (pkt->is_ipv6) {
		struct fib6_key key = { .prefix_len = 128 };

		__builtin_memcpy(key.addr, &pkt->src, sizeof(key.addr));
		listed = bpf_map_lookup_elem(&denylist6, &key);
	} else {
		struct fib4_key key = { .prefix_len = 32, .addr = pkt->src.word[3] };

		listed = bpf_map_lookup_elem(&denylist4, &key);
	}
	trace_step(STAGE_DENYLIST, !!listed, 0);
	return listed ? drop(pkt, DROP_DENYLIST) : CONTINUE;
}
