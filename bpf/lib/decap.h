/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tunnel packets for this node: IP in IP, VXLAN and GUE, from configured peers only, one level deep. An open decapsulator is
 * an open relay, so a packet is taken in only where outer source, outer destination and network identifier are all known and
 * the inner source is one that is behind that peer.
 */
#pragma once

#include "fib.h"
#include "parse.h"

#define GUE_LEN 4
#define VXLAN_LEN 8
#define VXLAN_FLAG_VNI 0x08
#define ECN_MASK 3
#define ECN_CE 3
#define TUNNEL_SOURCE_STEPS 15 /* 2^15 is more than half of TUNNEL_SOURCES_MAX */

/* A packet of an encapsulation that this node takes in: enum tunnel_kind, 0 for none. */
ALWAYS_INLINE int tunnel_kind_of(const struct packet *pkt)
{
	if (config.decap_ipip && (pkt->proto == PROTO_IPIP || pkt->proto == PROTO_IPV6))
		return TUNNEL_IPIP;
	if (config.decap_vxlan && pkt->proto == PROTO_UDP && pkt->has_ports && dport_of(pkt) == config.vxlan_port)
		return TUNNEL_VXLAN;
	if (config.decap_gue && pkt->proto == PROTO_UDP && pkt->has_ports && dport_of(pkt) == config.gue_port)
		return TUNNEL_GUE;
	return 0;
}

ALWAYS_INLINE const struct tunnel_peer *peer_of(const struct packet *pkt, int kind, const __u8 *vni)
{
	struct tunnel_peer_key key = {
		.prefix_len = 32 + 128,
		.kind = kind | (pkt->is_ipv6 ? TUNNEL_SOURCE6 : 0),
		.source = pkt->src,
	};

	__builtin_memcpy(key.vni, vni, sizeof(key.vni));
	return bpf_map_lookup_elem(&tunnel_peers, &key);
}

enum owner {
	OWNER_OTHER,
	OWNER_SELF, /* an address of this node */
	OWNER_VIP,
};

/*
 * Whose an address is, by the FIB of the default VRF. Global, as those below: the verifier walks it once and goes on with one state, whatever
 * led there.
 */
__noinline int owner_of(const struct ip_addr *address, int is_ipv6)
{
	const struct group *group;
	const struct next_hop *nh;
	int by_default;
	__u32 id;

	if (!address)
		return OWNER_OTHER;
	id = fib_group(0, address, is_ipv6, &by_default);
	group = bpf_map_lookup_elem(&groups, &id);
	if (!group)
		return OWNER_OTHER;
	/* Either has one next hop. */
	id = group->bucket[0] & (GROUP_SINGLE - 1);
	nh = bpf_map_lookup_elem(&next_hops, &id);
	if (!nh)
		return OWNER_OTHER;
	return nh->kind == NH_RECEIVE ? OWNER_SELF : nh->kind == NH_VIP ? OWNER_VIP : OWNER_OTHER;
}

ALWAYS_INLINE int is_above(const __u64 *a, __u64 high, __u64 low)
{
	return a[0] > high || (a[0] == high && a[1] > low);
}

/*
 * Whether the packet's source is in one of these ranges of tunnel_sources: of those that begin at or before it, the last. A search
 * of an array: a prefix trie of the kernel's takes several times as long.
 */
static __noinline int source_in_ranges(const struct packet *pkt, __u32 first, __u32 ranges)
{
	const struct source_range *range;
	__u32 begun = 0, rest = ranges, at;
	__u64 high, low;

	high = (__u64)bpf_ntohl(pkt->src.word[0]) << 32 | bpf_ntohl(pkt->src.word[1]);
	low = (__u64)bpf_ntohl(pkt->src.word[2]) << 32 | bpf_ntohl(pkt->src.word[3]);
	for (int step = 0; step < TUNNEL_SOURCE_STEPS && rest; step++) {
		__u32 half = rest / 2;

		at = first + begun + half;
		range = bpf_map_lookup_elem(&tunnel_sources, &at);
		if (!range)
			return 0;
		if (is_above(range->first, high, low)) {
			rest = half;
		} else {
			begun += half + 1;
			rest -= half + 1;
		}
	}
	if (!begun)
		return 0;
	at = first + begun - 1;
	range = bpf_map_lookup_elem(&tunnel_sources, &at);
	return range && (range->last[0] > high || (range->last[0] == high && range->last[1] >= low));
}

/* The inner packet: whether what it says of its source can be so behind this peer. */
ALWAYS_INLINE int decap_source(struct packet *inner, const struct tunnel_peer *peer)
{
	int owner = owner_of(&inner->src, inner->is_ipv6);

	if (owner == OWNER_SELF || (owner == OWNER_VIP && !peer->sources))
		return drop(inner, DROP_TUN_REFLECTED);
	if (peer->sources && !source_in_ranges(inner, peer->first, peer->sources))
		return drop(inner, DROP_TUN_SOURCE);
	return CONTINUE;
}

/* ECN (RFC 6040 §4.2): a congestion mark of the outer header moves to an inner packet that can carry it. */
ALWAYS_INLINE int decap_ecn(struct xdp_md *ctx, struct packet *inner, __u8 outer_tos)
{
	__u8 ecn = inner->tos & ECN_MASK;

	if ((outer_tos & ECN_MASK) != ECN_CE || ecn == ECN_CE)
		return CONTINUE;
	if (!ecn)
		return drop(inner, DROP_TUN_ECN);
	if (inner->is_ipv6) {
		__u8 *header = bytes_at(ctx, inner->l3, 2);

		if (!header)
			return drop(inner, DROP_INTERNAL);
		header[1] |= ECN_CE << 4;
	} else {
		struct ip4_header *ip = bytes_at(ctx, inner->l3, sizeof(*ip));
		__u16 before, after;

		if (!ip)
			return drop(inner, DROP_INTERNAL);
		before = *(__u16 *)ip;
		ip->tos |= ECN_CE;
		after = *(__u16 *)ip;
		ip->csum = csum_replace(ip->csum, before, after);
	}
	inner->tos |= ECN_CE;
	return CONTINUE;
}

/* Takes `outer_len` bytes behind the link-layer header off, which the frame keeps. Invalidates: packet pointers. */
ALWAYS_INLINE int strip_outer(struct xdp_md *ctx, struct packet *pkt, __u32 outer_len)
{
	__u32 link_len = pkt->l3;
	struct {
		__u32 word[3];
	} macs;
	__u32 tag = 0;
	__u8 *p;

	p = bytes_at(ctx, 0, ETH_LEN);
	if (!p)
		return drop(pkt, DROP_INTERNAL);
	__builtin_memcpy(&macs, p, sizeof(macs));
	if (link_len > ETH_LEN) {
		p = bytes_at(ctx, 12, VLAN_LEN);
		if (!p)
			return drop(pkt, DROP_INTERNAL);
		__builtin_memcpy(&tag, p, sizeof(tag));
	}
	if (bpf_xdp_adjust_head(ctx, outer_len))
		return drop(pkt, DROP_INTERNAL);
	p = bytes_at(ctx, 0, ETH_LEN + VLAN_LEN);
	if (!p)
		return drop(pkt, DROP_INTERNAL);
	__builtin_memcpy(p, &macs, sizeof(macs));
	if (link_len > ETH_LEN) {
		__builtin_memcpy(p + 12, &tag, sizeof(tag));
		*(__be16 *)(p + 16) = bpf_htons(pkt->ethertype);
	} else {
		*(__be16 *)(p + 12) = bpf_htons(pkt->ethertype);
	}
	return CONTINUE;
}

/* VXLAN (RFC 7348 §5): checks the header, tells the identifier and the inner ethertype. */
ALWAYS_INLINE int parse_vxlan(struct xdp_md *ctx, struct packet *pkt, __u8 *vni, __u16 *ethertype)
{
	const __u32 len = UDP_LEN + VXLAN_LEN + ETH_LEN;
	const __u8 *p = bytes_at(ctx, pkt->l4, len);

	if (!p || pkt->l4 + len > pkt->l3 + pkt->len || !(p[UDP_LEN] & VXLAN_FLAG_VNI))
		return drop(pkt, DROP_TUN_HEADER);
	vni[0] = p[UDP_LEN + 4];
	vni[1] = p[UDP_LEN + 5];
	vni[2] = p[UDP_LEN + 6];
	*ethertype = (__u16)p[len - 2] << 8 | p[len - 1];
	if (*ethertype != ETH_P_IP && *ethertype != ETH_P_IPV6)
		return drop(pkt, DROP_TUN_HEADER);
	return CONTINUE;
}

/*
 * GUE (draft-ietf-intarea-gue-09): tells where the inner packet is and its ethertype. Variant 1 has no header (§4). Of variant 0 (§3)
 * what is data without flags; flags and private data that nobody has agreed on are refused, as the draft asks.
 */
ALWAYS_INLINE int parse_gue(struct xdp_md *ctx, struct packet *pkt, __u32 *inner, __u16 *ethertype)
{
	__u32 end = pkt->l3 + pkt->len, at = pkt->l4 + UDP_LEN;
	const __u8 *p = bytes_at(ctx, at, 1);
	__u8 version;

	if (!p || at + 1 > end)
		return drop(pkt, DROP_TUN_HEADER);
	version = *p >> 4;
	if (!version) {
		p = bytes_at(ctx, at, GUE_LEN);
		if (!p || at + GUE_LEN > end || p[0] || p[2] || p[3])
			return drop(pkt, DROP_TUN_HEADER);
		version = p[1] == PROTO_IPIP ? 4 : p[1] == PROTO_IPV6 ? 6 : 0;
		at += GUE_LEN;
	}
	if (version != 4 && version != 6)
		return drop(pkt, DROP_TUN_HEADER);
	*ethertype = version == 4 ? ETH_P_IP : ETH_P_IPV6;
	*inner = at;
	return CONTINUE;
}

/* The inner packet, where the outer one was. */
__noinline int parse_inner(struct xdp_md *ctx, struct packet *pkt, __u32 end)
{
	if (!pkt)
		return XDP_PASS;
	return parse_plain(ctx, pkt, end) ? CONTINUE : parse_ip(ctx, pkt, end);
}

/* A packet of an encapsulation that is taken in here. Invalidates: packet pointers. */
__noinline int take_in(struct xdp_md *ctx, struct packet *pkt)
{
	__u32 outer_end, inner, vni_key;
	const struct tunnel_peer *peer;
	__u16 ethertype;
	__u8 outer_tos, vni[3] = {};
	int kind, action;

	if (!pkt)
		return XDP_PASS;
	kind = tunnel_kind_of(pkt);
	outer_end = pkt->l3 + pkt->len;
	inner = pkt->l4;
	outer_tos = pkt->tos;
	ethertype = pkt->proto == PROTO_IPIP ? ETH_P_IP : ETH_P_IPV6;
	if (owner_of(&pkt->dst, pkt->is_ipv6) != OWNER_SELF)
		return CONTINUE;
	if (is_fragment(pkt))
		return drop(pkt, DROP_TUN_FRAGMENT);
	if (kind == TUNNEL_VXLAN) {
		action = parse_vxlan(ctx, pkt, vni, &ethertype);
		if (action != CONTINUE)
			return action;
		inner += UDP_LEN + VXLAN_LEN + ETH_LEN;
	} else if (kind == TUNNEL_GUE) {
		action = parse_gue(ctx, pkt, &inner, &ethertype);
		if (action != CONTINUE)
			return action;
	}
	vni_key = (__u32)vni[0] << 16 | (__u32)vni[1] << 8 | vni[2];
	trace_step(STAGE_DECAP, kind, vni_key);
	peer = peer_of(pkt, kind, vni);
	if (!peer) {
		if (kind == TUNNEL_VXLAN && !bpf_map_lookup_elem(&vnis, &vni_key))
			return drop(pkt, DROP_TUN_VNI_UNKNOWN);
		return drop(pkt, DROP_TUN_PEER_UNKNOWN);
	}
	if (peer->own)
		return drop(pkt, DROP_TUN_REFLECTED);
	/* The link-layer header is put in front of what is there. */
	if (inner + sizeof(struct ip4_header) > outer_end)
		return drop(pkt, ethertype == ETH_P_IP ? DROP_IP4_SHORT : DROP_IP6_SHORT);
	pkt->ethertype = ethertype;
	pkt->decapsulated = 1;
	inner -= pkt->l3;
	action = strip_outer(ctx, pkt, inner);
	if (action != CONTINUE)
		return action;
	action = parse_inner(ctx, pkt, outer_end - inner);
	if (action != CONTINUE)
		return action;
	action = decap_source(pkt, peer);
	if (action != CONTINUE)
		return action;
	return decap_ecn(ctx, pkt, outer_tos);
}

/* In the default VRF only. Invalidates: packet pointers. After it, `pkt` is the inner packet. */
ALWAYS_INLINE int decap(struct xdp_md *ctx, struct packet *pkt)
{
	if (!tunnel_kind_of(pkt) || pkt->host_scope || vrf_of(pkt))
		return CONTINUE;
	return take_in(ctx, pkt);
}
