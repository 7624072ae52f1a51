/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors for flows of VIPs: what they quote is a packet that a backend has sent as the VIP, and that somebody on the way to the
 * client could not deliver, or only in smaller pieces. They go where the flow goes, for path MTU discovery most of all.
 */
#pragma once

#include "vip.h"

#define ICMP_REDIRECT 5
#define ICMP_ERROR_LEN 8

enum quote {
	QUOTE_OTHER,
	QUOTE_SHORT,
	QUOTE_FLOW,
};

/* Whose packet is quoted does not get to know of redirects, which are between neighbours. */
ALWAYS_INLINE int is_error_of_flow(const struct packet *pkt)
{
	return is_icmp_error(pkt) && (pkt->is_ipv6 || pkt->icmp_type != ICMP_REDIRECT);
}

ALWAYS_INLINE int ip6_equal(const __be32 *a, const __be32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

/*
 * Reads the packet that the error quotes: one of the VIP that the error is for, directly behind its header the ports, where it has any,
 * four bytes which are enough. Source, protocol and ports of `pkt` become those of the packets that this one answers; the caller puts them back.
 */
ALWAYS_INLINE int take_quoted_flow(struct xdp_md *ctx, struct packet *pkt)
{
	__u32 end = pkt->l3 + pkt->len, off = pkt->l4 + ICMP_ERROR_LEN, l4;
	const __be32 *upper;
	__u8 proto;

	if (pkt->is_ipv6) {
		const struct ip6_header *ip = bytes_at(ctx, off, sizeof(*ip));

		l4 = off + sizeof(*ip);
		if (!ip || l4 > end)
			return QUOTE_SHORT;
		if ((ip->ver_tc_flow & bpf_htonl(0xf0000000)) != bpf_htonl(6u << 28) ||
		    !ip6_equal(ip->src, pkt->dst.word))
			return QUOTE_OTHER;
		proto = ip->next_header;
		__builtin_memcpy(&pkt->src, ip->dst, sizeof(pkt->src));
	} else {
		const struct ip4_header *ip = bytes_at(ctx, off, sizeof(*ip));

		l4 = off + sizeof(*ip);
		if (!ip || l4 > end)
			return QUOTE_SHORT;
		if (ip->version_ihl != 0x45 || ip->frag & bpf_htons(IP4_MF | IP4_OFFSET_MASK) ||
		    ip->src != pkt->dst.word[3])
			return QUOTE_OTHER;
		proto = ip->proto;
		map_ip4(&pkt->src, ip->dst);
	}
	pkt->ports = 0;
	pkt->proto = proto;
	if (!has_ports(proto))
		return QUOTE_FLOW;
	upper = bytes_at(ctx, l4, 4);
	if (!upper || l4 + 4 > end)
		return QUOTE_SHORT;
	pkt->ports = *upper >> 16 | *upper << 16;
	return QUOTE_FLOW;
}

/*
 * What is for an address or a prefix of VIPs, by its number, and for no VIP of its own port there: CONTINUE where it is for none of any
 * port either. An error goes where the flow goes that it is about, and is not remembered as a packet of it: anybody can send
 * one. Global: the verifier walks it once. Invalidates: packet pointers.
 */
__noinline int load_balance_at(struct xdp_md *ctx, struct packet *pkt, __u32 number)
{
	const struct backend *b = NULL;
	struct ip_addr source;
	__u32 vip = 0, id = 0;
	int is_flow = 1;
	__u64 hash = 0;
	__be32 ports;
	__u8 proto;

	if (!pkt)
		return XDP_PASS;
	source = pkt->src;
	proto = pkt->proto;
	ports = pkt->ports;
	if (is_error_of_flow(pkt)) {
		pkt->quote = take_quoted_flow(ctx, pkt);
		is_flow = pkt->quote == QUOTE_FLOW;
		if (is_flow && has_ports(pkt->proto))
			vip = vip_of(pkt);
	}
	if (is_flow && !vip)
		vip = vip_of_any(pkt, number);
	if (vip) {
		trace_step(STAGE_VIP, vip, 0);
		hash = flow_hash(pkt);
		b = backend_for(ctx, pkt, vip, hash, &id);
	}
	pkt->src = source;
	pkt->proto = proto;
	pkt->ports = ports;
	if (!vip)
		return CONTINUE;
	if (!b)
		return drop(pkt, DROP_VIP_NO_BACKEND);
	return to_backend(ctx, pkt, b, id, hash);
}
