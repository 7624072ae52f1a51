/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flow hash: a multiply and a fold a word. The process computes the same (crates/tables), so that it can tell where
 * a flow goes without asking the kernel.
 */
#pragma once

#include "packet.h"

ALWAYS_INLINE __u64 hash_word(__u64 h, __u32 word)
{
	h = (h ^ word) * 0x9E3779B97F4A7C15ULL;
	return h ^ (h >> 32);
}

ALWAYS_INLINE __u64 flow_hash(const struct packet *pkt)
{
	__u64 h = 0;

	if (pkt->is_ipv6) {
#pragma unroll
		for (int i = 0; i < 4; i++)
			h = hash_word(h, pkt->src.word[i]);
#pragma unroll
		for (int i = 0; i < 4; i++)
			h = hash_word(h, pkt->dst.word[i]);
	} else {
		h = hash_word(h, pkt->src.word[3]);
		h = hash_word(h, pkt->dst.word[3]);
	}
	h = hash_word(h, bpf_ntohl(pkt->ports));
	return hash_word(h, pkt->proto);
}

/* Fast range (Lemire): the high half of a 32 by 32 product instead of a division. */
ALWAYS_INLINE __u32 hash_to_slot(__u64 h)
{
	return ((h >> 32) * RING_SLOTS) >> 32;
}

/* Other bits than the slot's, so that group and ring do not follow each other. */
ALWAYS_INLINE __u32 hash_to_bucket(__u64 h)
{
	return (h >> 8) & (GROUP_BUCKETS - 1);
}
