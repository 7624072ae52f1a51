/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tables: the kernel's hashes, tries and arrays, and a DIR-24-8 in arrays. Sizes are set before load. */
#pragma once

#include "keys.h"

#define KERNEL_TABLE(name, map_type, flags, key_type)                                                                  \
	struct {                                                                                                       \
		__uint(type, map_type);                                                                                \
		__uint(map_flags, flags);                                                                              \
		__uint(max_entries, 1);                                                                                \
		__type(key, key_type);                                                                                 \
		__type(value, __u32);                                                                                  \
	} name SEC(".maps")

struct lpm4_key {
	__u32 prefix_len;
	__be32 address;
};

struct lpm6_key {
	__u32 prefix_len;
	struct key6 address;
};

KERNEL_TABLE(hash_64k, BPF_MAP_TYPE_HASH, 0, __u32);
KERNEL_TABLE(hash_1m, BPF_MAP_TYPE_HASH, 0, __u32);
KERNEL_TABLE(lru_64k, BPF_MAP_TYPE_LRU_HASH, 0, __u32);
KERNEL_TABLE(lru_1m, BPF_MAP_TYPE_LRU_HASH, 0, __u32);
KERNEL_TABLE(lru_full, BPF_MAP_TYPE_LRU_HASH, 0, __u32);
KERNEL_TABLE(lpm4_1k, BPF_MAP_TYPE_LPM_TRIE, BPF_F_NO_PREALLOC, struct lpm4_key);
KERNEL_TABLE(lpm4_100k, BPF_MAP_TYPE_LPM_TRIE, BPF_F_NO_PREALLOC, struct lpm4_key);
KERNEL_TABLE(lpm4_1m, BPF_MAP_TYPE_LPM_TRIE, BPF_F_NO_PREALLOC, struct lpm4_key);
KERNEL_TABLE(lpm6_1k, BPF_MAP_TYPE_LPM_TRIE, BPF_F_NO_PREALLOC, struct lpm6_key);
KERNEL_TABLE(lpm6_200k, BPF_MAP_TYPE_LPM_TRIE, BPF_F_NO_PREALLOC, struct lpm6_key);

/* A hit passes, a miss drops: the case says which of the two it expects of every packet. */
#define LOOKUP4(program, table)                                                                                        \
	SEC("xdp") int program(struct xdp_md *ctx __attribute__((unused)))                                             \
	{                                                                                                              \
		__u32 key = next_key4();                                                                               \
		const __u32 *value = bpf_map_lookup_elem(&table, &key);                                                \
                                                                                                                       \
		return account(value ? found(*value) : XDP_DROP);                                                      \
	}

#define LOOKUP_LPM4(program, table)                                                                                    \
	SEC("xdp") int program(struct xdp_md *ctx __attribute__((unused)))                                             \
	{                                                                                                              \
		struct lpm4_key key = { .prefix_len = 32, .address = bpf_htonl(next_key4()) };                         \
		const __u32 *value = bpf_map_lookup_elem(&table, &key);                                                \
                                                                                                                       \
		return account(value ? found(*value) : XDP_DROP);                                                      \
	}

#define LOOKUP_LPM6(program, table)                                                                                    \
	SEC("xdp") int program(struct xdp_md *ctx __attribute__((unused)))                                             \
	{                                                                                                              \
		__u32 i = next_index();                                                                                \
		const struct key6 *address = bpf_map_lookup_elem(&keys6, &i);                                          \
		struct lpm6_key key = { .prefix_len = 128 };                                                           \
		const __u32 *value;                                                                                    \
                                                                                                                       \
		if (address)                                                                                           \
			key.address = *address;                                                                        \
		value = bpf_map_lookup_elem(&table, &key);                                                             \
		return account(value ? found(*value) : XDP_DROP);                                                      \
	}

LOOKUP4(bench_hash_64k, hash_64k)
LOOKUP4(bench_hash_1m, hash_1m)
LOOKUP4(bench_lru_64k, lru_64k)
LOOKUP4(bench_lru_1m, lru_1m)
LOOKUP_LPM4(bench_lpm4_1k, lpm4_1k)
LOOKUP_LPM4(bench_lpm4_100k, lpm4_100k)
LOOKUP_LPM4(bench_lpm4_1m, lpm4_1m)
LOOKUP_LPM6(bench_lpm6_1k, lpm6_1k)
LOOKUP_LPM6(bench_lpm6_200k, lpm6_200k)

/* A key that was never there: a number below 2^20 from the table of keys, and above it how often that was gone through. */
SEC("xdp")
int bench_lru_insert(struct xdp_md *ctx __attribute__((unused)))
{
	__u32 round = control.next >> 20;
	__u32 key = next_key4() | round << 20;
	__u32 value = ~key;

	if (bpf_map_update_elem(&lru_full, &key, &value, BPF_NOEXIST))
		return account(XDP_DROP);
	return account(found(value));
}

/* ---- arrays ------------------------------------------------------------------------------------------------------ */

/* Elements of an array map are 8 bytes apart at least: smaller ones go into pages, which are as contiguous. */
enum {
	PAGE_SHIFT = 12,
	PAGE_ENTRIES = 1 << PAGE_SHIFT,
};

struct page16 {
	__u16 entry[PAGE_ENTRIES];
};

struct page32 {
	__u32 entry[PAGE_ENTRIES];
};

#define PAGES(name, page_type)                                                                                         \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                      \
		__uint(max_entries, 1);                                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, page_type);                                                                              \
	} name SEC(".maps")

PAGES(array_16m, struct page32);
PAGES(dir24, struct page16);
PAGES(dir8, struct page16);

/* The bound keeps the verifier content, the barrier keeps the compiler from proving it away. */
#define ENTRY(page, i)                                                                                                 \
	({                                                                                                             \
		__u32 within = (i);                                                                                    \
		asm volatile("" : "+r"(within));                                                                       \
		(page)->entry[within & (PAGE_ENTRIES - 1)];                                                            \
	})

SEC("xdp")
int bench_array(struct xdp_md *ctx __attribute__((unused)))
{
	__u32 index = next_key4(), number = index >> PAGE_SHIFT;
	const struct page32 *page = bpf_map_lookup_elem(&array_16m, &number);

	return account(page ? found(ENTRY(page, index)) : XDP_DROP);
}

/*
 * DIR-24-8 (Gupta, Lin, McKeown: Routing Lookups in Hardware at Memory Access Speeds, INFOCOM 1998): the first 24 bits
 * index a table of next hops; an entry with the top bit set names 256 entries of a second table, for the last 8 bits.
 * One access where no prefix is longer than 24 bits, two elsewhere.
 */
#define DIR_LONG 0x8000

SEC("xdp")
int bench_dir24_8(struct xdp_md *ctx __attribute__((unused)))
{
	__u32 address = next_key4();
	__u32 number = address >> (8 + PAGE_SHIFT);
	const struct page16 *page = bpf_map_lookup_elem(&dir24, &number);
	__u32 entry;

	if (!page)
		return account(XDP_ABORTED);
	entry = ENTRY(page, address >> 8);
	if (entry & DIR_LONG) {
		__u32 index = (entry & ~DIR_LONG) << 8 | (address & 0xff);

		number = index >> PAGE_SHIFT;
		page = bpf_map_lookup_elem(&dir8, &number);
		if (!page)
			return account(XDP_ABORTED);
		entry = ENTRY(page, index);
	}
	return account(entry ? found(entry) : XDP_DROP);
}

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

SEC("xdp")
int bench_percpu_counter(struct xdp_md *ctx __attribute__((unused)))
{
	__u32 index = next_key4();
	__u64 *counter = bpf_map_lookup_elem(&counters, &index);

	if (!counter)
		return account(XDP_DROP);
	++*counter;
	return account(found(index));
}
