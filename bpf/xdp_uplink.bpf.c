// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The wire side. A packet's way from top to bottom; each stage is a header in lib/, the contract is docs/datapath.md.
 */
#include "lib/parse.h"
#include "lib/source.h"
#include "lib/decap.h"
#include "lib/denylist.h"
#include "lib/filter.h"
#include "lib/forward.h"

static __always_inline int pipeline(struct xdp_md *ctx, struct packet *pkt)
{
	int action;

	if ((action = parse_link(ctx, pkt)) != CONTINUE)
		return action;
	if (!parse_plain(ctx, pkt, pkt->bytes) && (action = parse_ip(ctx, pkt, pkt->bytes)) != CONTINUE)
		return action;
	if ((action = validate_source(pkt)) != CONTINUE)
		return action;
	if ((action = decap(ctx, pkt)) != CONTINUE)
		return action;
	if ((action = denylist(pkt)) != CONTINUE)
		return action;
	if ((action = filter_packet(pkt)) != CONTINUE)
		return action;
	return forward(ctx, pkt);
}

/* The pipeline and its account. */
static __always_inline int uplink(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct packet *pkt = bpf_map_lookup_elem(&scratch, &zero);
	int action;

	if (!pkt)
		return XDP_PASS;
	pkt->bytes = ctx->data_end - ctx->data;
	pkt->counter = NR_COUNTERS;
	pkt->host_scope = 0;
	pkt->decapsulated = 0;
	action = pipeline(ctx, pkt);
	count(pkt);
	return action;
}

SEC("xdp")
int xdp_uplink(struct xdp_md *ctx)
{
	return uplink(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
