/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The keys of the look-ups, in the order of their use: the process has shuffled them, so the look-ups go where no
 * prefetcher follows, while the keys themselves are read in sequence and cost next to nothing.
 */
#pragma once

#include "control.h"

struct key6 {
	__be32 word[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* set before load */
	__type(key, __u32);
	__type(value, __u64); /* an array's elements are 8 bytes apart in any case */
} keys4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* set before load */
	__type(key, __u32);
	__type(value, struct key6);
} keys6 SEC(".maps");

static __always_inline __u32 next_index(void)
{
	return control.first + (next_packet() & control.mask);
}

static __always_inline __u32 next_key4(void)
{
	__u32 i = next_index();
	const __u64 *key = bpf_map_lookup_elem(&keys4, &i);

	return key ? *key : 0;
}

SEC("xdp")
int bench_key4(struct xdp_md *ctx __attribute__((unused)))
{
	found(next_key4());
	return account(control.expected);
}

SEC("xdp")
int bench_key6(struct xdp_md *ctx __attribute__((unused)))
{
	__u32 i = next_index();
	const struct key6 *key = bpf_map_lookup_elem(&keys6, &i);

	found(key ? key->word[0] ^ key->word[1] ^ key->word[2] ^ key->word[3] : 0);
	return account(control.expected);
}
