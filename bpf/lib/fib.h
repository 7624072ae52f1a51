/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Destination -> group -> bucket -> next hop. A failed next hop is one store, whatever number of prefixes lead to it. */
#pragma once

#include "hash.h"
#include "packet.h"

/* Blocks that one address can lead through, six bits each in the worst case. */
#define FIB4_BLOCKS 3
#define FIB6_BLOCKS 19

/* There is no instruction for it: the number of ones, by adding neighbours. */
ALWAYS_INLINE __u32 count_ones(__u64 x)
{
	x -= (x >> 1) & 0x5555555555555555ULL;
	x = (x & 0x3333333333333333ULL) + ((x >> 2) & 0x3333333333333333ULL);
	x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (x * 0x0101010101010101ULL) >> 56;
}

/* Six bits of the address: the value of the run that the bit is in. A value is one byte, or two where `wide` is 1 and not 0. */
ALWAYS_INLINE __u32 fib_node(const __u32 *block, __u64 window, __u32 wide)
{
	__u64 up_to = (2ULL << (window >> 58)) - 1;
	/* A node's first bit is set, so at least one and at most 64. */
	__u32 rank = count_ones(*(const __u64 *)block & up_to);
	__u32 at = 7 - wide + rank + (rank & -wide);

	/* Keeps the bound, which the compiler knows of and the verifier does not. */
	asm volatile("" : "+r"(at));
	at &= sizeof(*block) * FIB_BLOCK_REACH - 1;
	/* The byte behind one is masked: cheaper than a branch, and one way for the verifier. */
	return *(const __u16 *)((const __u8 *)block + at) & (0xff | (-wide & 0xff00));
}

/*
 * 32 bits of the address: a search of 2^steps - 1 bounds without a branch, so that there is one way for the verifier and none to
 * mispredict. The masks are for the verifier, too, and kept from a compiler that knows better; of a step too many, `half` is zero.
 */
ALWAYS_INLINE __u32 fib_range(const __u32 *block, __u64 window, __u32 steps)
{
	__u32 size, half, rank = 0;
	__u64 bits = window >> 32;

	asm volatile("" : "+r"(steps));
	size = half = (1u << (steps & 7)) & 0x1f;
#pragma unroll
	for (int step = 0; step < 4; step++) {
		__u64 bound;

		half >>= 1;
		bound = block[(rank + half - 1) & 15];
		/* All ones where the bound is not above: the difference does not borrow. */
		rank += half & (__u32)((__s64) ~(bits - bound) >> 63);
	}
	/* The values begin behind the bounds. */
	return ((const __u16 *)block)[(rank & 15) + 2 * ((size - 1) & 15)];
}

/* The word of the reference for the first bits of the address; how many there are in a line is known when this is compiled. */
ALWAYS_INLINE __u64 fib_root_word(__u64 high, __u32 roots_a_line)
{
	__u64 root = high >> (64 - FIB_ROOT_BITS);
	__u64 word = root / roots_a_line * FIB_LINE + root % roots_a_line;

	/* The compiler knows that the mask does nothing, verifiers of older kernels do not. */
	asm volatile("" : "+r"(word));
	return word & ((1 << FIB_ROOT_BITS) / roots_a_line * FIB_LINE - 1);
}

/*
 * The group of the longest prefix, 0 for none. The same as tables::fib::find, which says why a look-up is never in the way
 * of a change. `high` and `low` are the address; IPv4's 32 bits are the high ones.
 */
ALWAYS_INLINE __u32 fib_find(const __u32 *word, __u32 words, __u32 roots_a_line, __u64 high, __u64 low, int blocks)
{
	__u32 ref = word[fib_root_word(high, roots_a_line)];
	__u64 window = high << FIB_ROOT_BITS;

	for (int i = 0; i < blocks; i++) {
		__u32 kind = ref >> FIB_KIND_SHIFT;
		__u32 index = ref & ((1u << FIB_KIND_SHIFT) - 1);
		const __u32 *block;
		__u32 value;

		if (kind == FIB_KIND_GROUP)
			return ref;
		if (kind & FIB_KIND_LOW_HALF)
			window = low;
		kind &= FIB_KIND_LOW_HALF - 1;
		if (index >= words - FIB_BLOCK_REACH)
			return 0;
		block = word + index;
		if (kind <= FIB_KIND_BYTES) {
			value = fib_node(block, window, kind & FIB_KIND_NODE);
			window <<= 6;
		} else {
			value = fib_range(block, window, kind - FIB_KIND_RANGE);
			window <<= 32;
		}
		if (!(value & FIB_VALUE_DEEPER))
			return value;
		ref = block[value & (FIB_BLOCK_REACH - 1)];
	}
	return ref >> FIB_KIND_SHIFT ? 0 : ref;
}

/* The high and the low half of an IPv6 address. */
ALWAYS_INLINE __u64 high_half(const struct ip_addr *address)
{
	return (__u64)bpf_ntohl(address->word[0]) << 32 | bpf_ntohl(address->word[1]);
}

ALWAYS_INLINE __u64 low_half(const struct ip_addr *address)
{
	return (__u64)bpf_ntohl(address->word[2]) << 32 | bpf_ntohl(address->word[3]);
}

/* The same in a VRF, whose table has both families. What has no route there has none. */
ALWAYS_INLINE __u32 vrf_group(__u32 vrf, const struct ip_addr *address, int is_ipv6, int *by_default)
{
	__u32 index = vrf - 1, group;
	const __u32 *word = bpf_map_lookup_elem(&vrfs, &index);

	*by_default = 0;
	if (!word)
		return 0;
	group = fib_find(word, config.vrf_words, FIB6_ROOTS_A_LINE, high_half(address), low_half(address), FIB6_BLOCKS);
	if (group && group != VRF_UNMATCHED)
		return group;
	*by_default = 1;
	return word[is_ipv6 ? FIB6_DEFAULT_WORD : VRF_DEFAULT4_WORD];
}

/* The group of the longest prefix that `address` matches, 0 where there is none; `by_default` is set where that is the default route's. */
ALWAYS_INLINE __u32 fib_group(__u32 vrf, const struct ip_addr *address, int is_ipv6, int *by_default)
{
	__u32 zero = 0, group = 0;
	const __u32 *word;

	if (vrf)
		return vrf_group(vrf, address, is_ipv6, by_default);
	if (is_ipv6) {
		word = bpf_map_lookup_elem(&fib6, &zero);
		if (word)
			group = fib_find(word, config.fib6_words, FIB6_ROOTS_A_LINE, high_half(address),
					 low_half(address), FIB6_BLOCKS);
		*by_default = word && !group;
		if (*by_default)
			group = word[FIB6_DEFAULT_WORD];
	} else {
		word = bpf_map_lookup_elem(&fib4, &zero);
		if (word)
			group = fib_find(word, config.fib4_words, FIB4_ROOTS_A_LINE,
					 (__u64)bpf_ntohl(address->word[3]) << 32, 0, FIB4_BLOCKS);
		*by_default = word && !group;
		if (*by_default)
			group = word[FIB4_DEFAULT_WORD];
	}
	return group;
}

/* The group of the longest prefix of the destination, 0 where there is none. */
ALWAYS_INLINE __u32 fib_lookup(const struct packet *pkt)
{
	int by_default;
	__u32 group = fib_group(vrf_of(pkt), &pkt->dst, pkt->is_ipv6, &by_default);

	trace_step(STAGE_FIB, group, 0);
	return group;
}

/* The group's next hop for a flow, NULL where the tables are at odds. `hash` is 0 where it has not been needed yet. */
ALWAYS_INLINE const struct next_hop *next_hop_of(struct xdp_md *ctx, struct packet *pkt, __u32 group_id, __u64 hash)
{
	const struct group *group = bpf_map_lookup_elem(&groups, &group_id);
	const struct next_hop *nh;
	__u32 id;

	if (!group)
		return NULL;
	id = group->bucket[0];
	if (!(id & GROUP_SINGLE)) {
		if (!hash)
			hash = pkt->plain ? flow_hash(pkt) : spread_hash(ctx, pkt);
		id = group->bucket[hash_to_bucket(hash)];
	}
	id &= GROUP_SINGLE - 1;
	pkt->next_hop = id;
	nh = bpf_map_lookup_elem(&next_hops, &id);
	if (nh)
		trace_step(STAGE_NEXT_HOP, id, nh->kind);
	return nh;
}
