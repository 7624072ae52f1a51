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
	begin_packet(ctx, pkt);
	action = pipeline(ctx, pkt);
	count(pkt);
	return action;
}

SEC("xdp")
int xdp_uplink(struct xdp_md *ctx)
{
	return uplink(ctx);
}

#if EXPLAIN
/* A packet of this node for one backend: what clients' packets to it get is put in front. */
static __always_inline int encapsulate(struct xdp_md *ctx, struct packet *pkt)
{
	const struct eth_header *eth = bytes_at(ctx, 0, ETH_LEN);
	const struct backend *b;
	int action;
	__u32 id;

	set_port(pkt, NULL);
	if (!eth)
		return drop(pkt, DROP_ETH_SHORT);
	id = bpf_ntohl(*(const __be32 *)(eth->destination + 2));
	pkt->l3 = ETH_LEN;
	pkt->ethertype = bpf_ntohs(eth->ethertype);
	if (!parse_plain(ctx, pkt, pkt->bytes) && (action = parse_ip(ctx, pkt, pkt->bytes)) != CONTINUE)
		return action;
	b = bpf_map_lookup_elem(&backends, &id);
	if (!b || !b->group)
		return drop(pkt, DROP_VIP_NO_BACKEND);
	return to_backend(ctx, pkt, b, id, flow_hash(pkt));
}

/*
 * For health checks, which take the way of clients' packets: the last four bytes of the frame's destination are the backend's id, whether
 * it serves or not. It comes in by no port, and nothing is counted.
 */
SEC("xdp")
int xdp_to_backend(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct packet *pkt = bpf_map_lookup_elem(&scratch, &zero);

	if (!pkt)
		return XDP_PASS;
	begin_packet(ctx, pkt);
	return encapsulate(ctx, pkt);
}
#endif

char LICENSE[] SEC("license") = "Dual BSD/GPL";
