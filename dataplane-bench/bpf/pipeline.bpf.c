// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The pipeline as it is shipped, and single stages of it, each in the harness of frame.h. A stage's program is the one
 * before it and the stage, so that a difference is the stage.
 */
#include "../../bpf/xdp_uplink.bpf.c"

#include "frame.h"

/* The packet up to its ports, as in pipeline(). */
static __always_inline int parse(struct xdp_md *ctx, struct packet *pkt)
{
	int action;

	begin_packet(ctx, pkt);
	action = parse_link(ctx, pkt);
	if (action != CONTINUE || parse_plain(ctx, pkt, pkt->bytes))
		return action;
	return parse_ip(ctx, pkt, pkt->bytes);
}

static __always_inline struct packet *the_packet(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

SEC("xdp")
int bench_frame(struct xdp_md *ctx)
{
	return account(begin(ctx) ? XDP_ABORTED : (int)control.expected);
}

SEC("xdp")
int bench_parse(struct xdp_md *ctx)
{
	struct packet *pkt = the_packet();

	if (!pkt || begin(ctx) || parse(ctx, pkt) != CONTINUE)
		return account(XDP_ABORTED);
	return account(XDP_PASS);
}

SEC("xdp")
int bench_fib(struct xdp_md *ctx)
{
	struct packet *pkt = the_packet();

	if (!pkt || begin(ctx) || parse(ctx, pkt) != CONTINUE)
		return account(XDP_ABORTED);
	control.result = fib_lookup(pkt);
	return account(control.result ? XDP_PASS : XDP_ABORTED);
}

SEC("xdp")
int bench_denied(struct xdp_md *ctx)
{
	struct packet *pkt = the_packet();

	if (!pkt || begin(ctx) || parse(ctx, pkt) != CONTINUE)
		return account(XDP_ABORTED);
	control.result = denied_of(&pkt->dst, pkt->is_ipv6);
	return account(control.result ? XDP_PASS : XDP_ABORTED);
}

SEC("xdp")
int bench_path(struct xdp_md *ctx)
{
	return account(begin(ctx) ? XDP_ABORTED : uplink(ctx));
}
