/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From bytes to `struct packet`: link layer, IPv4 and IPv6, ports. Order of checks as in docs/datapath.md section 1. */
#pragma once

#include "csum.h"
#include "verdict.h"

#define ETH_LEN 14
#define VLAN_LEN 4
#define UDP_LEN 8
#define VLAN_ID_MASK 0x0fff
#define IP6_EXTHDR_MAX 6

struct eth_header {
	__u8 destination[6];
	__u8 source[6];
	__be16 ethertype;
};
_Static_assert(sizeof(struct eth_header) == ETH_LEN, "eth_header");

struct ip4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_len;
	__be16 id;
	__be16 frag;
	__u8 ttl;
	__u8 proto;
	__u16 csum;
	__be32 src;
	__be32 dst;
};
_Static_assert(sizeof(struct ip4_header) == 20, "ip4_header");

struct ip6_header {
	__be32 ver_tc_flow;
	__be16 payload_len;
	__u8 next_header;
	__u8 hop_limit;
	__be32 src[4];
	__be32 dst[4];
};
_Static_assert(sizeof(struct ip6_header) == 40, "ip6_header");

ALWAYS_INLINE void set_port(struct packet *pkt, const struct port *port)
{
	pkt->port_id = port ? port->id : 0;
	pkt->filter = port ? port->filter : FILTER_NONE;
	if (config.source_validation)
		pkt->validation = port ? port->validation : VALIDATE_OFF;
	if (VRFS)
		pkt->vrf = port ? port->vrf : 0;
}

ALWAYS_INLINE int mac_equal(const __u8 *a, const __u8 *b)
{
	return *(__u32 *)a == *(__u32 *)b && *(__u16 *)(a + 4) == *(__u16 *)(b + 4);
}

/* 01:80:c2:00:00:0x: never relayed by bridges (IEEE 802.1D §7.12.6): LLDP, LACP, spanning tree, 802.1X. */
ALWAYS_INLINE int mac_link_local(const __u8 *mac)
{
	return mac[0] == 0x01 && mac[1] == 0x80 && mac[2] == 0xc2 && !mac[3] && !mac[4] && mac[5] < 0x10;
}

ALWAYS_INLINE int is_vlan(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

/* Ethernet and tags: which port the frame belongs to, and whether it is for this node. */
ALWAYS_INLINE int parse_link(struct xdp_md *ctx, struct packet *pkt)
{
	__u32 ifindex = ctx->ingress_ifindex;
	const struct port *port = bpf_map_lookup_elem(&ports, &ifindex);
	struct eth_header *eth;
	__be16 ethertype;

	set_port(pkt, port);
	eth = bytes_at(ctx, 0, ETH_LEN);
	if (!eth)
		return drop(pkt, DROP_ETH_SHORT);
	pkt->l3 = ETH_LEN;
	ethertype = eth->ethertype;
	if (is_vlan(ethertype)) {
		int customer = ethertype == bpf_htons(ETH_P_8021Q);
		__be16 *tag = bytes_at(ctx, ETH_LEN, VLAN_LEN);
		__u32 vlan;

		if (!tag)
			return drop(pkt, DROP_ETH_SHORT);
		vlan = bpf_ntohs(tag[0]) & VLAN_ID_MASK;
		ethertype = tag[1];
		pkt->l3 = ETH_LEN + VLAN_LEN;
		if (is_vlan(ethertype) && !bytes_at(ctx, ETH_LEN + VLAN_LEN, VLAN_LEN))
			return drop(pkt, DROP_ETH_SHORT);
		if (is_vlan(ethertype) || !customer) {
			port = NULL;
		} else if (vlan) {
			struct vlan_port_key key = { .ifindex = ifindex, .vlan = vlan };

			port = config.vlan ? bpf_map_lookup_elem(&vlan_ports, &key) : NULL;
		}
		set_port(pkt, port);
		eth = bytes_at(ctx, 0, ETH_LEN);
		if (!eth)
			return drop(pkt, DROP_ETH_SHORT);
	}
	pkt->ethertype = bpf_ntohs(ethertype);
	trace_step(STAGE_PORT, pkt->port_id, pkt->ethertype);
	if (!port || !port->id)
		return pass(pkt);
	if (!mac_equal(eth->destination, port->mac)) {
		if (!(eth->destination[0] & 1))
			return pass(pkt);
		pkt->host_scope = 1;
	}

	if (pkt->ethertype == ETH_P_IP || pkt->ethertype == ETH_P_IPV6)
		return CONTINUE;
	if (pkt->ethertype == ETH_P_ARP || mac_link_local(eth->destination))
		return pass(pkt);
	if (config.filter && pkt->filter != FILTER_NONE)
		return drop(pkt, DROP_ETHERTYPE);
	return pass(pkt);
}

ALWAYS_INLINE void map_ip4(struct ip_addr *to, __be32 addr)
{
	__u64 low = (__u64)addr << 32 | bpf_htonl(0xffff), high = 0;

	to = __builtin_assume_aligned(to, 8);
	__builtin_memcpy(&to->word[0], &high, sizeof(high));
	__builtin_memcpy(&to->word[2], &low, sizeof(low));
}

ALWAYS_INLINE int ip4_in(__be32 addr, __u32 net, int len)
{
	return (bpf_ntohl(addr) ^ net) >> (32 - len) == 0;
}

/* Martian addresses (RFC 1812 §5.3.7, RFC 6890) and destinations that are the host's alone. */
ALWAYS_INLINE int check_ip4(struct packet *pkt)
{
	__be32 src = pkt->src.word[3];
	__be32 dst = pkt->dst.word[3];
	int group = ip4_in(dst, 0xe0000000, 4) || dst == 0xffffffff;

	if (ip4_in(src, 0xe0000000, 4) || ip4_in(src, 0x7f000000, 8) || src == 0xffffffff || (!src && !group))
		return drop(pkt, DROP_SRC_INVALID);
	if (ip4_in(dst, 0x7f000000, 8) || ip4_in(dst, 0, 8))
		return drop(pkt, DROP_DST_INVALID);
	if (group || ip4_in(dst, 0xa9fe0000, 16))
		pkt->host_scope = 1;
	return CONTINUE;
}

ALWAYS_INLINE int ip6_link_local(const struct ip_addr *a)
{
	return (a->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

ALWAYS_INLINE int ip6_multicast(const struct ip_addr *a)
{
	return (a->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

ALWAYS_INLINE int ip6_mapped(const struct ip_addr *a)
{
	return !a->word[0] && !a->word[1] && a->word[2] == bpf_htonl(0xffff);
}

/* The last 32 bits of an address under ::/96, or all ones where it is not under it. */
ALWAYS_INLINE __u32 ip6_low_word(const struct ip_addr *a)
{
	return a->word[0] || a->word[1] || a->word[2] ? 0xffffffff : bpf_ntohl(a->word[3]);
}

ALWAYS_INLINE int check_ip6(struct packet *pkt)
{
	int group = ip6_multicast(&pkt->dst);
	__u32 src = ip6_low_word(&pkt->src);

	if (ip6_multicast(&pkt->src) || src == 1 || ip6_mapped(&pkt->src) || (!src && !group))
		return drop(pkt, DROP_SRC_INVALID);
	if (ip6_low_word(&pkt->dst) <= 1 || ip6_mapped(&pkt->dst))
		return drop(pkt, DROP_DST_INVALID);
	if (group || ip6_link_local(&pkt->dst))
		pkt->host_scope = 1;
	return CONTINUE;
}

ALWAYS_INLINE int source_link_local(const struct packet *pkt)
{
	return pkt->is_ipv6 ? ip6_link_local(&pkt->src) : ip4_in(pkt->src.word[3], 0xa9fe0000, 16);
}

/* `end`: offset behind the bytes that may belong to the packet. */
ALWAYS_INLINE int parse_ip4(struct xdp_md *ctx, struct packet *pkt, __u32 end)
{
	struct ip4_header *ip = bytes_at(ctx, pkt->l3, sizeof(*ip));
	__u32 sum, header_len;

	if (!ip || pkt->l3 + sizeof(*ip) > end)
		return drop(pkt, DROP_IP4_SHORT);
	header_len = (ip->version_ihl & 0x0f) * 4;
	if (ip->version_ihl >> 4 != 4 || header_len < sizeof(*ip))
		return drop(pkt, DROP_IP4_HEADER);
	sum = csum_words((const __u16 *)ip, sizeof(*ip) / 2);
	pkt->is_ipv6 = 0;
	pkt->len = bpf_ntohs(ip->total_len);
	pkt->proto = ip->proto;
	pkt->tos = ip->tos;
	pkt->ttl = ip->ttl;
	map_ip4(&pkt->src, ip->src);
	map_ip4(&pkt->dst, ip->dst);
	pkt->frag = bpf_ntohs(ip->frag);

	if (header_len > sizeof(*ip)) {
		if (pkt->l3 + header_len > end)
			return drop(pkt, DROP_IP4_SHORT);
		for (__u32 i = sizeof(*ip); i < 60; i += 4) {
			const __u16 *word;

			if (i >= header_len)
				break;
			word = bytes_at(ctx, pkt->l3 + i, 4);
			if (!word)
				return drop(pkt, DROP_IP4_SHORT);
			sum += csum_words(word, 2);
		}
	}
	if (csum_fold(sum))
		return drop(pkt, DROP_IP4_CSUM);
	if (pkt->len < header_len)
		return drop(pkt, DROP_IP4_HEADER);
	if (pkt->l3 + pkt->len > end)
		return drop(pkt, DROP_IP4_SHORT);
	pkt->l4 = pkt->l3 + header_len;
	return check_ip4(pkt);
}

ALWAYS_INLINE int is_extension(__u8 proto)
{
	return proto == 0 || proto == 43 || proto == 44 || proto == 51 || proto == 60;
}

/* Extension headers up to the upper-layer protocol (RFC 8200 §4); `l4` ends behind the last. */
ALWAYS_INLINE int walk_extensions(struct xdp_md *ctx, struct packet *pkt)
{
	__u32 end = pkt->l3 + pkt->len;

#pragma unroll
	for (int i = 0; i <= IP6_EXTHDR_MAX; i++) {
		const __u8 *header;
		__u32 len;

		if (!is_extension(pkt->proto) || is_trailing(pkt))
			return CONTINUE;
		if (i == IP6_EXTHDR_MAX)
			return drop(pkt, DROP_IP6_EXTHDR_LIMIT);
		header = bytes_at(ctx, pkt->l4, 8);
		if (!header || pkt->l4 + 8 > end)
			return drop(pkt, DROP_IP6_SHORT);
		if (pkt->proto == 44) {
			__u32 frag = (__u32)header[2] << 8 | header[3];

			len = 8;
			pkt->frag = IP4_DF | (frag & 1 ? IP4_MF : 0) | frag >> 3;
		} else if (pkt->proto == 51) {
			len = ((__u32)header[1] + 2) * 4;
		} else {
			len = ((__u32)header[1] + 1) * 8;
		}
		if (pkt->l4 + len > end)
			return drop(pkt, DROP_IP6_SHORT);
		pkt->proto = header[0];
		pkt->l4 += len;
	}
	return CONTINUE;
}

ALWAYS_INLINE int parse_ip6(struct xdp_md *ctx, struct packet *pkt, __u32 end)
{
	struct ip6_header *ip = bytes_at(ctx, pkt->l3, sizeof(*ip));
	__u32 first_word;
	int action;

	if (!ip || pkt->l3 + sizeof(*ip) > end)
		return drop(pkt, DROP_IP6_SHORT);
	first_word = bpf_ntohl(ip->ver_tc_flow);
	if (first_word >> 28 != 6)
		return drop(pkt, DROP_IP6_HEADER);
	pkt->is_ipv6 = 1;
	pkt->len = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	pkt->proto = ip->next_header;
	pkt->tos = first_word >> 20;
	pkt->ttl = ip->hop_limit;
	__builtin_memcpy(&pkt->src, ip->src, sizeof(pkt->src));
	__builtin_memcpy(&pkt->dst, ip->dst, sizeof(pkt->dst));
	pkt->frag = IP4_DF;
	pkt->l4 = pkt->l3 + sizeof(*ip);
	if (pkt->l3 + pkt->len > end)
		return drop(pkt, DROP_IP6_SHORT);
	action = walk_extensions(ctx, pkt);
	if (action != CONTINUE)
		return action;
	return check_ip6(pkt);
}

ALWAYS_INLINE int has_ports(__u8 proto)
{
	return proto == PROTO_TCP || proto == PROTO_UDP || proto == PROTO_SCTP;
}

/* Ports of TCP, UDP and SCTP, type and code of ICMP. */
ALWAYS_INLINE int parse_upper(struct xdp_md *ctx, struct packet *pkt)
{
	int ports = has_ports(pkt->proto);
	int icmp = pkt->proto == (pkt->is_ipv6 ? PROTO_ICMPV6 : PROTO_ICMP);
	const __u8 *header;

	pkt->has_ports = 0;
	pkt->has_icmp = 0;
	pkt->ports = 0;
	if (is_trailing(pkt) || (!ports && !icmp))
		return CONTINUE;
	header = bytes_at(ctx, pkt->l4, 4);
	if (!header || pkt->l4 + 4 > pkt->l3 + pkt->len)
		return drop(pkt, DROP_L4_SHORT);
	if (ports) {
		pkt->has_ports = 1;
		pkt->ports = *(const __be32 *)header;
	} else {
		pkt->has_icmp = 1;
		pkt->icmp_type = header[0];
		pkt->icmp_code = header[1];
	}
	return CONTINUE;
}

/* The IP packet at `l3`, of the family that `ethertype` says, within the first `end` bytes of the frame. */
ALWAYS_INLINE int parse_ip(struct xdp_md *ctx, struct packet *pkt, __u32 end)
{
	int action = pkt->ethertype == ETH_P_IP ? parse_ip4(ctx, pkt, end) : parse_ip6(ctx, pkt, end);

	pkt->plain = 0;
	if (action != CONTINUE)
		return action;
	trace_step(STAGE_PARSE, pkt->ethertype, pkt->proto);
	return parse_upper(ctx, pkt);
}

/* The first byte of an IPv4 address that no check is about: not 0, loopback, link-local, group or reserved. */
ALWAYS_INLINE int is_ordinary(__u32 byte)
{
	return byte - 1 < 0xe0 - 1 && byte != 127 && byte != 169;
}

/*
 * True for a multiple of 0xffff, which a sum of 16-bit words that is all ones when folded is (RFC 1071 §2). One word of 32 bits is
 * the sum of its halves to this modulus. The division is a multiplication by the inverse of 0xffff modulo 2^64.
 */
ALWAYS_INLINE int csum_is_good(__u64 sum)
{
	const __u64 quotient_max = 0x0001000100010001ULL;

	return -(sum * quotient_max) <= quotient_max;
}

/* IP in IP that may be for this node. */
ALWAYS_INLINE int may_carry_ip(__u32 proto)
{
	return config.decap_ipip && (proto == PROTO_IPIP || proto == PROTO_IPV6);
}

/* One look-up in a set of bits: a comparison with each were as many ways for the verifier. */
ALWAYS_INLINE int is_plain_upper(__u32 proto)
{
	__u64 set = 1ULL << PROTO_TCP | 1ULL << PROTO_UDP;

	if (config.decap_ipip)
		set |= 1ULL << PROTO_IPIP | 1ULL << PROTO_IPV6;
	asm volatile("" : "+r"(set));
	return proto < 64 && set >> (proto & 63) & 1;
}

/* What TCP and UDP have, and only what is spread by its own addresses and ports is plain. */
ALWAYS_INLINE void take_plain_upper(struct packet *pkt, __u32 proto, __be32 word)
{
	int ports = !may_carry_ip(proto);

	pkt->proto = proto;
	pkt->ports = ports ? word : 0;
	pkt->has_ports = ports;
	pkt->has_icmp = 0;
	pkt->plain = ports;
}

ALWAYS_INLINE int parse_plain_ip4(struct xdp_md *ctx, struct packet *pkt, __u32 end)
{
	const __u32 *word;
	__u32 len, proto;

	word = bytes_at(ctx, ETH_LEN, sizeof(struct ip4_header) + 4);
	if (!word || (word[0] & 0xff) != 0x45)
		return 0;
	if (word[1] & bpf_htonl(IP4_MF | IP4_OFFSET_MASK))
		return 0;
	proto = word[2] >> 8 & 0xff;
	if (!is_plain_upper(proto))
		return 0;
	if (!is_ordinary(word[3] & 0xff) || !is_ordinary(word[4] & 0xff))
		return 0;
	if (!csum_is_good((__u64)word[0] + word[1] + word[2] + word[3] + word[4]))
		return 0;
	len = bpf_ntohs(word[0] >> 16);
	if (len < sizeof(struct ip4_header) + 4 || ETH_LEN + len > end)
		return 0;
	map_ip4(&pkt->src, word[3]);
	map_ip4(&pkt->dst, word[4]);
	take_plain_upper(pkt, proto, word[5]);
	pkt->l4 = ETH_LEN + sizeof(struct ip4_header);
	pkt->len = len;
	pkt->frag = word[1] >> 8 & IP4_DF;
	pkt->tos = word[0] >> 8;
	pkt->ttl = word[2];
	pkt->is_ipv6 = 0;
	trace_step(STAGE_PARSE, ETH_P_IP, proto);
	return 1;
}

/* The first byte of an IPv6 address that no check is about: global unicast (RFC 4291 §2.4) or unique local (RFC 4193 §3.1). */
ALWAYS_INLINE int is_ordinary_ip6(__u32 byte)
{
	return (byte & 0xe0) == 0x20 || (byte & 0xfe) == 0xfc;
}

/* Eight bytes at a time: there is no other way to say that addresses in a packet need not be aligned. */
ALWAYS_INLINE void copy_ip6(struct ip_addr *to, const __u32 *word)
{
	((__u64 *)to)[0] = *(const __u64 *)word;
	((__u64 *)to)[1] = *(const __u64 *)(word + 2);
}

ALWAYS_INLINE int parse_plain_ip6(struct xdp_md *ctx, struct packet *pkt, __u32 end)
{
	const __u32 *word;
	__u32 first, len, proto;

	word = bytes_at(ctx, ETH_LEN, sizeof(struct ip6_header) + 4);
	if (!word)
		return 0;
	first = bpf_ntohl(word[0]);
	proto = word[1] >> 16 & 0xff;
	if (first >> 28 != 6 || !is_plain_upper(proto))
		return 0;
	if (!is_ordinary_ip6(word[2] & 0xff) || !is_ordinary_ip6(word[6] & 0xff))
		return 0;
	len = sizeof(struct ip6_header) + bpf_ntohs(word[1]);
	if (len < sizeof(struct ip6_header) + 4 || ETH_LEN + len > end)
		return 0;
	copy_ip6(&pkt->src, word + 2);
	copy_ip6(&pkt->dst, word + 6);
	take_plain_upper(pkt, proto, word[10]);
	pkt->l4 = ETH_LEN + sizeof(struct ip6_header);
	pkt->len = len;
	pkt->frag = IP4_DF;
	pkt->tos = first >> 20;
	pkt->ttl = word[1] >> 24;
	pkt->is_ipv6 = 1;
	trace_step(STAGE_PARSE, ETH_P_IPV6, proto);
	return 1;
}

/*
 * Nearly every packet, at a fraction of the cost: without a tag, options or extension headers, whole, TCP or UDP, between ordinary addresses.
 * One check of the length, constant offsets, a word at a time. False, and nothing has been decided, for any other: parse_ip()
 * looks at it from the start. `end`: offset behind the bytes that may belong to the packet.
 */
ALWAYS_INLINE int parse_plain(struct xdp_md *ctx, struct packet *pkt, __u32 end)
{
	if (pkt->l3 != ETH_LEN)
		return 0;
	if (pkt->ethertype == ETH_P_IP)
		return parse_plain_ip4(ctx, pkt, end);
	return pkt->ethertype == ETH_P_IPV6 && parse_plain_ip6(ctx, pkt, end);
}
