/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The last stage: TTL, the link-layer header of the adjacency, the outer header of a backend where there is one, and out.
 * All that moves packet data on the way out is here, in one adjust_head.
 */
#pragma once

#include "hash.h"
#include "parse.h"
#include "punt.h"

#define OUTER_TTL 64
#define TUNNEL_SPORT_MIN 49152
#define VXLAN_OVERHEAD (8 + 8 + ETH_LEN)
#define GUE_OVERHEAD 8

ALWAYS_INLINE void forwarded_ip4(struct ip4_header *ip)
{
	/* TTL, in the low byte, and protocol as one word: a byte stored and its word loaded is a load that waits for the store. */
	__u16 before = *(__u16 *)&ip->ttl, after = before - 1;

	*(__u16 *)&ip->ttl = after;
	ip->csum = csum_replace(ip->csum, before, after);
}

ALWAYS_INLINE void forwarded_plain(const struct packet *pkt, __u8 *ip)
{
	if (pkt->is_ipv6)
		((struct ip6_header *)ip)->hop_limit--;
	else
		forwarded_ip4((struct ip4_header *)ip);
}

/* Forwarding uses one hop up (RFC 1812 §5.3.1). The caller has seen that more than one is left. */
ALWAYS_INLINE int decrement_ttl(struct xdp_md *ctx, struct packet *pkt)
{
	if (pkt->is_ipv6) {
		struct ip6_header *ip = bytes_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip)
			return drop(pkt, DROP_INTERNAL);
		ip->hop_limit--;
	} else {
		struct ip4_header *ip = bytes_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip)
			return drop(pkt, DROP_INTERNAL);
		forwarded_ip4(ip);
	}
	return CONTINUE;
}

/*
 * Makes room for, or takes off, the difference between the frame's link-layer header and the new one plus `outer_len`,
 * and writes the adjacency's header with `ethertype`. `l3` then points at the first byte behind it: at the outer header
 * where there is one. Invalidates: packet pointers.
 */
ALWAYS_INLINE int rewrite_link(struct xdp_md *ctx, struct packet *pkt, const struct adjacency *adj, __u32 outer_len,
			       __u16 ethertype)
{
	int tagged = config.vlan && adj->rewrite_len == 16;
	__u32 link_len = tagged ? ETH_LEN + VLAN_LEN : ETH_LEN;
	int grow = (int)(link_len + outer_len) - (int)pkt->l3;
	__u8 *p;

	if (grow && bpf_xdp_adjust_head(ctx, -grow))
		return drop(pkt, DROP_ADJUST_HEAD);
	pkt->l3 = link_len;
	p = bytes_at(ctx, 0, ETH_LEN);
	if (!p)
		return drop(pkt, DROP_INTERNAL);
	__builtin_memcpy(p, adj->rewrite, 12);
	if (!tagged) {
		*(__be16 *)(p + 12) = bpf_htons(ethertype);
		return CONTINUE;
	}
	p = bytes_at(ctx, 12, VLAN_LEN + 2);
	if (!p)
		return drop(pkt, DROP_INTERNAL);
	__builtin_memcpy(p, adj->rewrite + 12, VLAN_LEN);
	*(__be16 *)(p + VLAN_LEN) = bpf_htons(ethertype);
	return CONTINUE;
}

/* A plain packet by an adjacency without a tag: everything stays in its place. */
ALWAYS_INLINE int send_plain(struct xdp_md *ctx, struct packet *pkt, const struct adjacency *adj)
{
	__u8 *p = bytes_at(ctx, 0, ETH_LEN + sizeof(struct ip4_header));

	if (!p)
		return drop(pkt, DROP_INTERNAL);
	forwarded_plain(pkt, p + ETH_LEN);
	__builtin_memcpy(p, adj->rewrite, 12);
	return send(ctx, pkt, adj->ifindex);
}

/* Unresolved: the slow path asks for the neighbour and sends the packet. Invalidates: packet pointers. */
ALWAYS_INLINE int punt_neighbor(struct xdp_md *ctx, struct packet *pkt, enum punt_reason reason, __u32 ifindex,
				const struct ip_addr *address)
{
	struct punt p = {
		.reason = reason,
		.flags = reason == PUNT_NEIGHBOR ? PUNT_DECREMENT_TTL : 0,
		.egress_ifindex = ifindex,
		.address = address,
	};

	return punt(ctx, pkt, &p);
}

ALWAYS_INLINE const struct adjacency *adjacency_of(__u32 id)
{
	const struct adjacency *adj = bpf_map_lookup_elem(&adjacencies, &id);

	if (adj)
		trace_step(STAGE_ADJACENCY, id, adj->ifindex);
	return adj;
}

/* The last word of the outer source. The backend's card may spread by addresses alone, and IP in IP has no ports to differ by. */
ALWAYS_INLINE __be32 outer_source(const struct backend *b, __u64 hash)
{
	return b->source.word[3] | bpf_htonl(hash & ((1u << (b->varied & 31)) - 1));
}

/* Outer IP header (RFC 2003 §3.1, RFC 2473 §4) at `l3`; TOS or traffic class is the inner packet's. */
ALWAYS_INLINE int write_outer_ip(struct xdp_md *ctx, struct packet *pkt, const struct backend *b, __u8 proto,
				 __u32 payload_len, __u64 hash)
{
	if (b->flags & BACKEND_OUTER_IPV6) {
		struct ip6_header *ip = bytes_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip)
			return drop(pkt, DROP_INTERNAL);
		ip->ver_tc_flow = bpf_htonl(6u << 28 | (__u32)pkt->tos << 20 | (hash & 0xfffff));
		ip->payload_len = bpf_htons(payload_len);
		ip->next_header = proto;
		ip->hop_limit = OUTER_TTL;
		__builtin_memcpy(ip->src, &b->source, sizeof(ip->src));
		ip->src[3] = outer_source(b, hash);
		__builtin_memcpy(ip->dst, &b->destination, sizeof(ip->dst));
	} else {
		struct ip4_header *ip = bytes_at(ctx, pkt->l3, sizeof(*ip));

		if (!ip)
			return drop(pkt, DROP_INTERNAL);
		ip->version_ihl = 0x45;
		ip->tos = pkt->tos;
		ip->total_len = bpf_htons(sizeof(*ip) + payload_len);
		ip->id = 0;
		ip->frag = bpf_htons(IP4_DF);
		ip->ttl = OUTER_TTL;
		ip->proto = proto;
		ip->csum = 0;
		ip->src = outer_source(b, hash);
		ip->dst = b->destination.word[3];
		ip->csum = csum_fold(csum_words((const __u16 *)ip, sizeof(*ip) / 2));
	}
	return CONTINUE;
}

/* UDP, VXLAN (RFC 7348 §5) and inner Ethernet header at `off`. */
ALWAYS_INLINE int write_vxlan(struct xdp_md *ctx, struct packet *pkt, const struct backend *b, __u32 off, __u64 hash)
{
	__u16 inner_type = pkt->is_ipv6 ? ETH_P_IPV6 : ETH_P_IP;
	__u8 *p = bytes_at(ctx, off, VXLAN_OVERHEAD);
	struct eth_header *eth;

	if (!p)
		return drop(pkt, DROP_INTERNAL);
	((__be16 *)p)[0] = bpf_htons(TUNNEL_SPORT_MIN + (hash & 0x3fff));
	((__be16 *)p)[1] = bpf_htons(config.vxlan_port);
	((__be16 *)p)[2] = bpf_htons(VXLAN_OVERHEAD + pkt->len);
	((__be16 *)p)[3] = 0;
	((__be32 *)p)[2] = bpf_htonl(0x08000000);
	p[12] = b->vni[0];
	p[13] = b->vni[1];
	p[14] = b->vni[2];
	p[15] = 0;
	eth = (struct eth_header *)(p + 16);
	__builtin_memcpy(eth->destination, b->inner_destination, 6);
	__builtin_memcpy(eth->source, b->inner_source, 6);
	eth->ethertype = bpf_htons(inner_type);
	return CONTINUE;
}

/*
 * Room for an outer header of `len` bytes in front of a plain packet, and the link-layer header of an adjacency without a tag: one move and a
 * check on either side of it. The outer header's place, NULL where there is none. Invalidates: packet pointers.
 */
ALWAYS_INLINE __u32 *room_before_plain(struct xdp_md *ctx, const struct packet *pkt, const struct adjacency *adj,
				       __u32 len, __u16 ethertype)
{
	__u8 *p = bytes_at(ctx, ETH_LEN, sizeof(struct ip4_header));

	if (!p)
		return NULL;
	forwarded_plain(pkt, p);
	if (bpf_xdp_adjust_head(ctx, -(int)len))
		return NULL;
	p = bytes_at(ctx, 0, ETH_LEN + len);
	if (!p)
		return NULL;
	__builtin_memcpy(p, adj->rewrite, 12);
	*(__be16 *)(p + 12) = bpf_htons(ethertype);
	return (__u32 *)(p + ETH_LEN);
}

/* A plain packet in an IPv4 header (RFC 2003 §3.1), a word at a time, and out. Invalidates: packet pointers. */
ALWAYS_INLINE int send_plain_in_ip4(struct xdp_md *ctx, struct packet *pkt, const struct backend *b,
				    const struct adjacency *adj, __u64 hash)
{
	__u32 first = 0x45 | (__u32)pkt->tos << 8 | (__u32)bpf_htons(sizeof(struct ip4_header) + pkt->len) << 16;
	__u32 second = (__u32)bpf_htons(IP4_DF) << 16;
	__u32 third = OUTER_TTL | (pkt->is_ipv6 ? PROTO_IPV6 : PROTO_IPIP) << 8;
	__be32 source = outer_source(b, hash), destination = b->destination.word[3];
	__u64 sum = (__u64)first + second + third + source + destination;
	__u32 *word = room_before_plain(ctx, pkt, adj, sizeof(struct ip4_header), ETH_P_IP);

	if (!word)
		return drop(pkt, DROP_ADJUST_HEAD);
	word[0] = first;
	word[1] = second;
	word[2] = third | (__u32)csum_fold(csum_halves(sum)) << 16;
	word[3] = source;
	word[4] = destination;
	return send(ctx, pkt, adj->ifindex);
}

/* The same in an IPv6 header (RFC 2473 §4). Invalidates: packet pointers. */
ALWAYS_INLINE int send_plain_in_ip6(struct xdp_md *ctx, struct packet *pkt, const struct backend *b,
				    const struct adjacency *adj, __u64 hash)
{
	__u32 *word = room_before_plain(ctx, pkt, adj, sizeof(struct ip6_header), ETH_P_IPV6);

	if (!word)
		return drop(pkt, DROP_ADJUST_HEAD);
	word[0] = bpf_htonl(6u << 28 | (__u32)pkt->tos << 20 | (hash & 0xfffff));
	word[1] = bpf_htons(pkt->len) | (pkt->is_ipv6 ? PROTO_IPV6 : PROTO_IPIP) << 16 | (__u32)OUTER_TTL << 24;
	copy_ip6((struct ip_addr *)(word + 2), b->source.word);
	word[5] = outer_source(b, hash);
	copy_ip6((struct ip_addr *)(word + 6), b->destination.word);
	return send(ctx, pkt, adj->ifindex);
}

/* UDP at `off` in front of the packet as it is: GUE variant 1 (draft-ietf-intarea-gue-09 §4). No checksum (RFC 6935 §5 for IPv6). */
ALWAYS_INLINE int write_gue(struct xdp_md *ctx, struct packet *pkt, __u32 off, __u64 hash)
{
	__be16 *udp = bytes_at(ctx, off, GUE_OVERHEAD);

	if (!udp)
		return drop(pkt, DROP_INTERNAL);
	udp[0] = bpf_htons(TUNNEL_SPORT_MIN + (hash & 0x3fff));
	udp[1] = bpf_htons(config.gue_port);
	udp[2] = bpf_htons(GUE_OVERHEAD + pkt->len);
	udp[3] = 0;
	return CONTINUE;
}

/* Puts the backend's outer header and the adjacency's link-layer header in front. Invalidates: packet pointers. */
ALWAYS_INLINE int encap(struct xdp_md *ctx, struct packet *pkt, const struct backend *b, const struct adjacency *adj,
			__u64 hash)
{
	__u32 ip_len = b->flags & BACKEND_OUTER_IPV6 ? sizeof(struct ip6_header) : sizeof(struct ip4_header);
	__u32 udp_len = b->outer_kind == OUTER_VXLAN ? VXLAN_OVERHEAD : b->outer_kind == OUTER_GUE ? GUE_OVERHEAD : 0;
	__u8 proto = udp_len ? PROTO_UDP : pkt->is_ipv6 ? PROTO_IPV6 : PROTO_IPIP;
	int action =
		rewrite_link(ctx, pkt, adj, ip_len + udp_len, b->flags & BACKEND_OUTER_IPV6 ? ETH_P_IPV6 : ETH_P_IP);

	if (action != CONTINUE)
		return action;
	action = write_outer_ip(ctx, pkt, b, proto, udp_len + pkt->len, hash);
	if (action != CONTINUE || !udp_len)
		return action;
	if (b->outer_kind == OUTER_GUE)
		return write_gue(ctx, pkt, pkt->l3 + ip_len, hash);
	return write_vxlan(ctx, pkt, b, pkt->l3 + ip_len, hash);
}
