/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Destination -> group -> bucket -> next hop. A failed next hop is one store, whatever number of prefixes lead to it. */
#pragma once

#include "hash.h"
#include "packet.h"

/* The group of the longest matching prefix, 0 where there is none. */
ALWAYS_INLINE __u32 fib_lookup(const struct packet *pkt)
{
	__u32 *group;

	if (pkt->is_ipv6) {
		struct fib6_key key = { .prefix_len = 128 };

		__builtin_memcpy(key.addr, &pkt->dst, sizeof(key.addr));
		group = bpf_map_lookup_elem(&fib6, &key);
	} else {
		struct fib4_key key = { .prefix_len = 32, .addr = pkt->dst.word[3] };

		group = bpf_map_lookup_elem(&fib4, &key);
	}
	trace_step(STAGE_FIB, group ? *group : 0, 0);
	return group ? *group : 0;
}

/* The group's next hop for a flow, NULL where the tables are at odds. */
ALWAYS_INLINE const struct next_hop *next_hop_of(__u32 group_id, __u64 hash)
{
	const struct group *group = bpf_map_lookup_elem(&groups, &group_id);
	const struct next_hop *nh;
	__u32 id;

	if (!group)
		return NULL;
	id = group->bucket[hash_to_bucket(hash)];
	nh = bpf_map_lookup_elem(&next_hops, &id);
	if (nh)
		trace_step(STAGE_NEXT_HOP, id, nh->kind);
	return nh;
}
