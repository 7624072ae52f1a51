/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Helpers that a forwarding program calls. Each takes its key as the look-ups do, so that one harness serves all. */
#pragma once

#include "keys.h"

#define AF_INET 2
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
