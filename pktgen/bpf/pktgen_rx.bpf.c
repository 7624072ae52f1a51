// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Takes this run's packets out of an interface's traffic: those that end in a stamp with its magic (src/stamp.rs has the
 * layout). The length in the outermost IP header tells where that is, so nothing behind it is parsed.
 *
 * What is ours is counted, whatever becomes of it afterwards: `arrivals` is what the interface delivered. Then it goes to
 * the AF_XDP socket of its queue or, with `count_only`, is dropped. Everything else passes to the kernel. With `count_any`
 * every IP packet is ours.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define QUEUES_MAX 256
#define STAMP_LEN 18
/* No longer packet is looked at: 9000 bytes and what a tunnel adds are far below. */
#define FRAME_MASK 0x3fff
/* In the place of an ethertype: none that this program takes. */
#define NOTE_MARK 0xffff
/* Packets between two readings of the clock. */
#define CLOCK_EVERY 64

/* First word of the stamp. */
const volatile __be32 magic = 0;
/* Count and drop: no socket, no cost of user space. */
const volatile __u8 count_only = 0;
/* Every IP packet is ours. */
const volatile __u8 count_any = 0;
/* Put a note with the time of arrival in front of each packet. */
const volatile __u8 note_arrival = 0;

/* What was ours on one CPU. From first_ns to last_ns, `timed` packets came after the first. */
struct arrivals {
	__u64 packets;
	__u64 bytes;
	__u64 first_ns;
	__u64 last_ns;
	__u64 timed;
	/* Packets without a note: the driver has no room in front of them. */
	__u64 unnoted;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arrivals);
} arrivals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* In front of a packet where `note_arrival` is set. */
struct note {
	__u64 arrived_ns;
	__u32 zero;
	__be16 mark;
	__u16 zero2;
};

/* Offset of the end of the outermost IP packet; 0: no IP. */
static __always_inline __u32 packet_end(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u32 l3 = sizeof(*eth);
	__be16 *ip;
	__be16 kind;

	if ((void *)(eth + 1) > data_end)
		return 0;
	kind = eth->h_proto;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		__be16 *tag = data + l3;

		if (kind != bpf_htons(ETH_P_8021Q) && kind != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 2) > data_end)
			return 0;
		kind = tag[1];
		l3 += 4;
	}
	ip = data + l3;
	if ((void *)(ip + 3) > data_end)
		return 0;
	if (kind == bpf_htons(ETH_P_IP))
		return l3 + bpf_ntohs(ip[1]);
	if (kind == bpf_htons(ETH_P_IPV6))
		return l3 + 40 + bpf_ntohs(ip[2]);
	return 0;
}

static __always_inline int is_ours(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	__u32 end = packet_end(ctx);
	__be32 *stamp;
	__be32 found;
	__u32 at;

	if (count_any)
		return end != 0;
	if (end < STAMP_LEN + sizeof(struct ethhdr) || end > FRAME_MASK)
		return 0;
	at = (end - STAMP_LEN) & FRAME_MASK;
	stamp = data + at;
	if ((void *)stamp + STAMP_LEN <= data_end)
		return *stamp == magic;
	/* Cut off, or behind the first buffer. */
	if (bpf_xdp_get_buff_len(ctx) < end || bpf_xdp_load_bytes(ctx, at, &found, sizeof(found)))
		return 0;
	return found == magic;
}

static __always_inline int count(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct arrivals *counts = bpf_map_lookup_elem(&arrivals, &zero);

	if (!counts)
		return 0;
	if (counts->packets % CLOCK_EVERY == 0) {
		counts->last_ns = bpf_ktime_get_ns();
		counts->timed = counts->packets;
		if (!counts->packets)
			counts->first_ns = counts->last_ns;
	}
	counts->packets++;
	counts->bytes += bpf_xdp_get_buff_len(ctx);
	return 1;
}

static __always_inline void note(struct xdp_md *ctx)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 zero = 0;
	struct arrivals *counts;
	struct note *note;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*note))) {
		counts = bpf_map_lookup_elem(&arrivals, &zero);
		if (counts)
			counts->unnoted++;
		return;
	}
	note = (void *)(long)ctx->data;
	if ((void *)(note + 1) > (void *)(long)ctx->data_end)
		return;
	note->arrived_ns = now;
	note->zero = 0;
	note->mark = bpf_htons(NOTE_MARK);
	note->zero2 = 0;
}

SEC("xdp.frags")
int pktgen_rx(struct xdp_md *ctx)
{
	if (!is_ours(ctx) || !count(ctx))
		return XDP_PASS;
	if (count_only)
		return XDP_DROP;
	if (note_arrival)
		note(ctx);
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
