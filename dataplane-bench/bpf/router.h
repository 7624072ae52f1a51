/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The rival of forwarding: a router in XDP on the kernel's own tables, with no more checks than it cannot do without, as
 * xdp-forward of xdp-tools. Its headers are not packed, so that a field is one load.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2

struct routed_link {
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
	__be16 ethertype;
};

/* Routes the packet; an XDP action. */
static __always_inline int route_packet(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct bpf_fib_lookup route = { .family = AF_INET };
	struct routed_link *link = data;
	struct iphdr *ip = data + sizeof(*link);
	__u32 csum;

	if ((void *)(ip + 1) > end || link->ethertype != bpf_htons(ETH_P_IP) || *(__u8 *)ip != 0x45 || ip->ttl <= 1)
		return XDP_PASS;
	route.tos = ip->tos;
	route.l4_protocol = ip->protocol;
	route.tot_len = bpf_ntohs(ip->tot_len);
	route.ipv4_src = ip->saddr;
	route.ipv4_dst = ip->daddr;
	route.ifindex = ctx->ingress_ifindex;
	if (bpf_fib_lookup(ctx, &route, sizeof(route), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_PASS;
	/* One less in the high byte is one more in the sum's complement (RFC 1624 §3). */
	csum = ip->check + (__u32)bpf_htons(0x0100);
	ip->check = csum + (csum >= 0xffff);
	ip->ttl--;
	__builtin_memcpy(link->destination, route.dmac, sizeof(route.dmac));
	__builtin_memcpy(link->source, route.smac, sizeof(route.smac));
	return bpf_redirect(route.ifindex, 0);
}
