// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The pipeline in a harness that undoes what it did to the packet, so that one BPF_PROG_TEST_RUN of a million repeats
 * meets a million fresh packets. The shipped pipeline is compiled in as it is; the same harness around nothing is what
 * gets subtracted.
 */
#include "../../bpf/xdp_uplink.bpf.c"

enum {
	HEAD_BYTES = 64, /* of the frame that are written anew: link layer, IPv6 header, ports; frames are no shorter */
	KERNEL_ENTRIES = 65536,
};

struct harness {
	__u64 head[HEAD_BYTES / 8];
	__u32 bytes; /* of the frame */
	__u32 vary;  /* offset of the 16 bits that tell flows apart, below HEAD_BYTES */
	__u32 csum;  /* offset of the IPv4 header checksum that covers them, 0 for none; they are zero in `head` then */
	__u32 mask;  /* flows - 1, a power of two */
	__u32 moves_head; /* the pipeline moves the head: the harness moves it, too */
	__u32 next;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct harness);
} harness SEC(".maps");

/* What the kernel's own tables cost: the pipeline's FIB key in a trie, its address in a hash. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KERNEL_ENTRIES);
	__type(key, struct fib4_key);
	__type(value, __u32);
} kernel_lpm SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KERNEL_ENTRIES);
	__type(key, __u32);
	__type(value, __u32);
} kernel_hash SEC(".maps");

/* An odd multiplier walks through all flows in an order that no prefetcher follows. */
#define STRIDE 40503

static __always_inline int write_head(struct xdp_md *ctx, struct harness *h)
{
	__u16 flow = h->next * STRIDE & h->mask;
	__u32 vary = h->vary, csum = h->csum, i;
	void *data;
	__u64 *head;
	__u16 *word;

	h->next++;
	data = bytes_at(ctx, 0, HEAD_BYTES);
	if (!data)
		return -1;
	head = data;
#pragma unroll
	for (i = 0; i < HEAD_BYTES / 8; i++)
		head[i] = h->head[i];
	word = bytes_at(ctx, vary, sizeof(*word));
	if (!word)
		return -1;
	*word = flow;
	if (csum) {
		__u32 sum;

		word = bytes_at(ctx, csum, sizeof(*word));
		if (!word)
			return -1;
		/* The words were zero before: the sum grows by what is there now (RFC 1624 §3). */
		sum = (__u16) ~*word + (vary & 1 ? __builtin_bswap16(flow) : flow);
		sum = (sum & 0xffff) + (sum >> 16);
		*word = ~sum;
	}
	return 0;
}

/* The head back to where it was. Where the pipeline moves it, the empty harness moves it by nothing, at the same price. */
static __always_inline int put_back(struct xdp_md *ctx, const struct harness *h)
{
	__u32 bytes = ctx->data_end - ctx->data;

	/* Pointers are subtracted from each other and nothing else: the verifier takes no other arithmetic. */
	asm volatile("" : "+r"(bytes));
	return h->moves_head ? bpf_xdp_adjust_head(ctx, (int)(bytes - h->bytes)) : 0;
}

static __always_inline struct harness *the_harness(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&harness, &zero);
}

SEC("xdp")
int bench_pipeline(struct xdp_md *ctx)
{
	struct harness *h = the_harness();
	int action;

	if (!h || write_head(ctx, h))
		return XDP_ABORTED;
	action = uplink(ctx);
	return put_back(ctx, h) ? XDP_ABORTED : action;
}

SEC("xdp")
int bench_nothing(struct xdp_md *ctx)
{
	struct harness *h = the_harness();

	if (!h || write_head(ctx, h))
		return XDP_ABORTED;
	return put_back(ctx, h) ? XDP_ABORTED : XDP_PASS;
}

static __always_inline const __be32 *destination(const struct xdp_md *ctx)
{
	return bytes_at(ctx, ETH_LEN + 16, sizeof(__be32));
}

SEC("xdp")
int bench_hash(struct xdp_md *ctx)
{
	struct harness *h = the_harness();
	const __be32 *address;
	__u32 key;

	if (!h || write_head(ctx, h))
		return XDP_ABORTED;
	address = destination(ctx);
	if (!address)
		return XDP_ABORTED;
	key = *address;
	if (!bpf_map_lookup_elem(&kernel_hash, &key))
		return XDP_ABORTED;
	return put_back(ctx, h) ? XDP_ABORTED : XDP_PASS;
}

SEC("xdp")
int bench_lpm(struct xdp_md *ctx)
{
	struct harness *h = the_harness();
	struct fib4_key key = { .prefix_len = 32 };
	const __be32 *address;

	if (!h || write_head(ctx, h))
		return XDP_ABORTED;
	address = destination(ctx);
	if (!address)
		return XDP_ABORTED;
	key.addr = *address;
	if (!bpf_map_lookup_elem(&kernel_lpm, &key))
		return XDP_ABORTED;
	return put_back(ctx, h) ? XDP_ABORTED : XDP_PASS;
}

SEC("xdp")
int bench_empty(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_PASS;
}
