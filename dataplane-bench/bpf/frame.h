/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A harness that meets every packet afresh: BPF_PROG_TEST_RUN hands the frame of the last run to the next one, with all
 * that was done to it. Before each run the frame goes back to its place and length and its head is written anew, with
 * the bits of the next flow in it. The same harness around nothing is what gets subtracted.
 */
#pragma once

#include "control.h"

enum {
	HEAD_BYTES = 64, /* written anew; a measured frame is no shorter */
	LONG_HEAD_BYTES = 128,
};

enum moved {
	MOVED_HEAD = 1,
	MOVED_TAIL = 2,
	MOVED_META = 4,
};

struct frame {
	__u64 head[LONG_HEAD_BYTES / 8];
	volatile __u64 start; /* where the frame begins, 0 before the first packet of a run */
	volatile __u64 now;
	__u32 bytes;
	__u32 long_head;
	__u32 low_at; /* offsets of the 16-bit words that the flow's number is folded into, below HEAD_BYTES */
	__u32 high_at;
	__u32 csum_at;	/* IPv4 header checksum that covers the low word, 0 for none; the word is zero in `head` then */
	__u32 price;	/* enum moved: what is put back for every packet, moved or not */
	__u32 moved;	/* enum moved: what had to be put back */
	__u32 to_at;	/* offset of the destination address, 0: it stays; it is zero in `head` else */
	__u32 to_bytes; /* 4 or 16 */
	__u32 pad;
};

/* Destinations in the order of their use, IPv4 in the last word. Read in sequence, they cost next to nothing. */
struct destination {
	__be32 word[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* set before load */
	__type(key, __u32);
	__type(value, struct destination);
} destinations SEC(".maps");

struct frame frame SEC(".data.frame");

/* Odd, so that it goes through all flows, in an order that no prefetcher follows. */
#define FLOW_STRIDE 2654435761U

static __always_inline void *head_at(const struct xdp_md *ctx, __u32 off, __u32 len)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;

	asm volatile("" : "+r"(off));
	if (off > HEAD_BYTES)
		return NULL;
	if (data + off + len > data_end)
		return NULL;
	return data + off;
}

/*
 * Place, length and metadata as they were. A head that moved one way and a tail that moved the other cannot be told
 * apart by the length, so the frame's address is kept; through a map, since the verifier forgets there that it is one.
 * What the subject moves is put back at the same price where nothing was moved: the harness around nothing pays it, too.
 */
static __always_inline int put_back(struct xdp_md *ctx)
{
	__u32 meta, bytes;
	__s32 head;

	frame.now = (__u64)(long)ctx->data;
	if (!frame.start)
		frame.start = frame.now;

	meta = ctx->data - ctx->data_meta;
	asm volatile("" : "+r"(meta));
	if (meta)
		frame.moved |= MOVED_META;
	if ((meta || frame.price & MOVED_META) && bpf_xdp_adjust_meta(ctx, meta))
		return -1;
	head = (__s32)(frame.start - frame.now);
	if (head)
		frame.moved |= MOVED_HEAD;
	if ((head || frame.price & MOVED_HEAD) && bpf_xdp_adjust_head(ctx, head))
		return -1;
	bytes = ctx->data_end - ctx->data;
	asm volatile("" : "+r"(bytes));
	if (bytes != frame.bytes)
		frame.moved |= MOVED_TAIL;
	if ((bytes != frame.bytes || frame.price & MOVED_TAIL) &&
	    bpf_xdp_adjust_tail(ctx, (__s32)(frame.bytes - bytes)))
		return -1;
	return 0;
}

static __always_inline int write_flow(struct xdp_md *ctx)
{
	__u32 flow = next_packet() * FLOW_STRIDE & control.mask;
	__u32 csum_at = frame.csum_at, low_at = frame.low_at, sum;
	__u16 *word;

	word = head_at(ctx, low_at, sizeof(*word));
	if (!word)
		return -1;
	*word ^= (__u16)flow;
	word = head_at(ctx, frame.high_at, sizeof(*word));
	if (!word)
		return -1;
	*word ^= (__u16)(flow >> 16);
	if (!csum_at)
		return 0;
	word = head_at(ctx, csum_at, sizeof(*word));
	if (!word)
		return -1;
	/* The word was zero before: the sum grows by what is there now (RFC 1624 §3). */
	sum = (__u16) ~*word + (low_at & 1 ? __builtin_bswap16((__u16)flow) : (__u16)flow);
	sum = (sum & 0xffff) + (sum >> 16);
	*word = ~sum;
	return 0;
}

/* The next destination in place of the flow's bits, and what it adds to the checksum of IPv4 (RFC 1624 §3). */
static __always_inline int write_destination(struct xdp_md *ctx)
{
	__u32 i = control.first + (next_packet() & control.mask), csum_at = frame.csum_at, sum;
	const struct destination *to = bpf_map_lookup_elem(&destinations, &i);
	__be32 *address;
	__u16 *csum;

	address = head_at(ctx, frame.to_at, 16);
	if (!to || !address)
		return -1;
	if (frame.to_bytes == 16) {
		__builtin_memcpy(address, to, sizeof(*to));
		return 0;
	}
	*address = to->word[3];
	csum = head_at(ctx, csum_at, sizeof(*csum));
	if (!csum)
		return -1;
	sum = (__u16) ~*csum + (to->word[3] & 0xffff) + (to->word[3] >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*csum = ~((sum & 0xffff) + (sum >> 16));
	return 0;
}

/* The next packet, ready for the subject. Invalidates: packet pointers. */
static __always_inline int begin(struct xdp_md *ctx)
{
	__u64 *to;
	__u32 i;

	if (put_back(ctx))
		return -1;
	to = head_at(ctx, 0, HEAD_BYTES);
	if (!to)
		return -1;
#pragma unroll
	for (i = 0; i < HEAD_BYTES / 8; i++)
		to[i] = frame.head[i];
	if (frame.long_head) {
		to = head_at(ctx, HEAD_BYTES, LONG_HEAD_BYTES - HEAD_BYTES);
		if (!to)
			return -1;
#pragma unroll
		for (i = 0; i < (LONG_HEAD_BYTES - HEAD_BYTES) / 8; i++)
			to[i] = frame.head[HEAD_BYTES / 8 + i];
	}
	return frame.to_at ? write_destination(ctx) : write_flow(ctx);
}
