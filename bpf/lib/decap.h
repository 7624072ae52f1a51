/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tunnel packets for this node: IP in IP and VXLAN, from configured peers only, one level deep. An open decapsulator is
 * an open relay, so a packet is taken in only where outer source, outer destination and network identifier are all known.
 */
#pragma once

#include "fib.h"
#include "parse.h"

#define VXLAN_LEN 8
#define VXLAN_FLAG_VNI 0x08
#define UDP_LEN 8
#define ECN_MASK 3
#define ECN_CE 3

/* A packet of an encapsulation that this node takes in: enum tunnel_kind, 0 for none. */
ALWAYS_INLINE int tunnel_kind_of(const struct packet *pkt)
{
	if (config.decap_ipip && (pkt->proto == PROTO_IPIP || pkt->proto == PROTO_IPV6))
		return TUNNEL_IPIP;
	if (config.decap_vxlan && pkt->proto == PROTO_UDP && pkt->has_ports && dport_of(pkt) == config.vxlan_port)
		return TUNNEL_VXLAN;
	return 0;
}

ALWAYS_INLINE int known_peer(struct packet *pkt, int kind, const __u8 *vni)
{
	struct tunnel_peer_key key = {
		.prefix_len = 32 + 128,
		.kind = kind | (pkt->is_ipv6 ? TUNNEL_SOURCE6 : 0),
		.source = pkt->src,
	};

	__builtin_memcpy(key.vni, vni, sizeof(key.vni));
	return bpf_map_lookup_elem(&tunnel_peers, &key) != NULL;
}

/*
 * ECN (RFC 6040 §4.2): a congestion mark of the outer header moves to an inner packet that can carry it. `inner` is the
 * freshly parsed inner packet, still at its offset behind the outer headers.
 */
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

/* Takes the outer headers off: the frame keeps its link-layer header. Invalidates: packet pointers. */
ALWAYS_INLINE int strip_outer(struct xdp_md *ctx, struct packet *pkt, __u32 link_len)
{
	__u32 outer_len = pkt->l3 - link_len;
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
	pkt->l3 -= outer_len;
	pkt->l4 -= outer_len;

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

/* In the default VRF only. Invalidates: packet pointers. After it, `pkt` is the inner packet. */
ALWAYS_INLINE int decap(struct xdp_md *ctx, struct packet *pkt)
{
	int kind = tunnel_kind_of(pkt);
	__u32 link_len = pkt->l3;
	__u32 outer_end = pkt->l3 + pkt->len;
	__u32 inner = pkt->l4;
	__u8 outer_tos = pkt->tos;
	__u8 vni[3] = {};
	__u16 ethertype = pkt->proto == PROTO_IPIP ? ETH_P_IP : ETH_P_IPV6;
	const struct next_hop *nh;
	__u32 vni_key;
	int action;

	if (!kind || pkt->host_scope || vrf_of(pkt))
		return CONTINUE;
	nh = next_hop_of(ctx, pkt, fib_lookup(pkt), 0);
	if (!nh || nh->kind != NH_RECEIVE)
		return CONTINUE;
	if (is_fragment(pkt))
		return drop(pkt, DROP_TUN_FRAGMENT);
	if (kind == TUNNEL_VXLAN) {
		action = parse_vxlan(ctx, pkt, vni, &ethertype);
		if (action != CONTINUE)
			return action;
		inner += UDP_LEN + VXLAN_LEN + ETH_LEN;
	}
	vni_key = (__u32)vni[0] << 16 | (__u32)vni[1] << 8 | vni[2];
	trace_step(STAGE_DECAP, kind, vni_key);
	if (!known_peer(pkt, kind, vni)) {
		if (kind == TUNNEL_VXLAN && !bpf_map_lookup_elem(&vnis, &vni_key))
			return drop(pkt, DROP_TUN_VNI_UNKNOWN);
		return drop(pkt, DROP_TUN_PEER_UNKNOWN);
	}
	pkt->l3 = inner;
	pkt->ethertype = ethertype;
	pkt->decapsulated = 1;
	action = parse_ip(ctx, pkt, outer_end);
	if (action != CONTINUE)
		return action;
	action = decap_ecn(ctx, pkt, outer_tos);
	if (action != CONTINUE)
		return action;
	return strip_outer(ctx, pkt, link_len);
}
