/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Helpers that a forwarding program calls. Each takes its key as the look-ups do, so that one harness serves all. */
#pragma once

#include "keys.h"
#include "router.h"

#define BYTES_MOVED 20 /* an outer IPv4 header */

/* Of the run's own network namespace. */
struct interfaces {
	__u32 ingress;
	__u32 egress;
};

const volatile struct interfaces interfaces SEC(".rodata.interfaces");

/* The whole look-up with policy rules, as a router without tricks calls it: route, neighbour, both MACs. */
SEC("xdp")
int bench_fib_lookup(struct xdp_md *ctx)
{
	struct bpf_fib_lookup route = {
		.family = AF_INET,
		.l4_protocol = 17,
		.tot_len = 46,
		.ifindex = ctx->ingress_ifindex,
		.ipv4_src = bpf_htonl(0xc6336407), /* 198.51.100.7 */
		.ipv4_dst = bpf_htonl(next_key4()),
	};
	long answer;

	if (ctx->ingress_ifindex != interfaces.ingress)
		return account(XDP_ABORTED);
	answer = bpf_fib_lookup(ctx, &route, sizeof(route), 0);
	if (answer != BPF_FIB_LKUP_RET_SUCCESS) {
		found(answer);
		return account(XDP_DROP);
	}
	return account(route.ifindex == interfaces.egress ? found(route.dmac[5]) : XDP_ABORTED);
}

/* Ethernet and IPv4 of a packet to route, checksum included: 198.51.100.7 > key, UDP, TTL 64. */
struct routed {
	struct routed_link link;
	/* As in struct iphdr, whose alignment would leave a gap. */
	__u8 version_ihl;
	__u8 tos;
	__be16 total_len;
	__be16 id;
	__be16 frag;
	__u8 ttl;
	__u8 proto;
	__u16 csum;
	__be16 src[2];
	__be16 dst[2];
};
_Static_assert(sizeof(struct routed) == sizeof(struct routed_link) + sizeof(struct iphdr), "routed");

static __always_inline struct routed *next_routed(const struct xdp_md *ctx)
{
	struct routed *p = (void *)(long)ctx->data;
	__u32 sum, key = bpf_htonl(next_key4());

	if ((void *)(p + 1) > (void *)(long)ctx->data_end)
		return NULL;
	__builtin_memset(p, 2, 12);
	p->link.ethertype = bpf_htons(0x0800);
	p->version_ihl = 0x45;
	p->tos = 0;
	p->total_len = bpf_htons(46);
	p->id = 0;
	p->frag = 0;
	p->ttl = 64;
	p->proto = 17;
	p->src[0] = bpf_htons(0xc633);
	p->src[1] = bpf_htons(0x6407);
	p->dst[0] = key & 0xffff;
	p->dst[1] = key >> 16;
	/* The sum of what is constant, in network order, and of the destination (RFC 1071). */
	sum = bpf_htons(0x4500) + bpf_htons(46) + bpf_htons(64 << 8 | 17) + bpf_htons(0xc633) + bpf_htons(0x6407) +
	      (key & 0xffff) + (key >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	p->csum = ~((sum & 0xffff) + (sum >> 16));
	return p;
}

SEC("xdp")
int bench_routed(struct xdp_md *ctx)
{
	const struct routed *p = next_routed(ctx);

	found(p ? p->csum : 0);
	return account(p ? (int)control.expected : XDP_ABORTED);
}

SEC("xdp")
int bench_router(struct xdp_md *ctx)
{
	struct routed *p = next_routed(ctx);

	int action;

	if (!p)
		return account(XDP_ABORTED);
	action = route_packet(ctx);
	found(p->link.destination[5]);
	return account(action);
}

SEC("xdp")
int bench_redirect(struct xdp_md *ctx __attribute__((unused)))
{
	found(next_key4());
	return account(bpf_redirect(interfaces.egress, 0));
}

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

SEC("xdp")
int bench_redirect_map(struct xdp_md *ctx __attribute__((unused)))
{
	found(next_key4());
	return account(bpf_redirect_map(&devices, 0, XDP_ABORTED));
}

SEC("xdp")
int bench_adjust_head(struct xdp_md *ctx)
{
	found(next_key4());
	if (bpf_xdp_adjust_head(ctx, -BYTES_MOVED) || bpf_xdp_adjust_head(ctx, BYTES_MOVED))
		return account(XDP_ABORTED);
	return account(XDP_PASS);
}

SEC("xdp")
int bench_adjust_tail(struct xdp_md *ctx)
{
	found(next_key4());
	if (bpf_xdp_adjust_tail(ctx, BYTES_MOVED) || bpf_xdp_adjust_tail(ctx, -BYTES_MOVED))
		return account(XDP_ABORTED);
	return account(XDP_PASS);
}

SEC("xdp")
int bench_ktime(struct xdp_md *ctx __attribute__((unused)))
{
	next_key4();
	return account(found(bpf_ktime_get_ns()));
}

SEC("xdp")
int bench_jiffies(struct xdp_md *ctx __attribute__((unused)))
{
	next_key4();
	return account(found(bpf_jiffies64()));
}

SEC("xdp")
int bench_csum_diff(struct xdp_md *ctx __attribute__((unused)))
{
	__be32 before = 0, after = next_key4();

	return account(found(bpf_csum_diff(&before, sizeof(before), &after, sizeof(after), 0)));
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} callees SEC(".maps");

SEC("xdp")
int bench_tail_callee(struct xdp_md *ctx __attribute__((unused)))
{
	found(next_key4());
	return account(XDP_PASS);
}

SEC("xdp")
int bench_tail_call(struct xdp_md *ctx)
{
	bpf_tail_call_static(ctx, &callees, 0);
	return account(XDP_ABORTED);
}
