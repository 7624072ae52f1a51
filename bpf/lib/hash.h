/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flow hash: a multiply and a fold for two words. The process computes the same (crates/tables), so that it can tell where
 * a flow goes without asking the kernel.
 */
#pragma once

#include "parse.h"

ALWAYS_INLINE __u64 hash_words(__u64 h, __u32 high, __u32 low)
{
	h = (h ^ ((__u64)high << 32 | low)) * 0x9E3779B97F4A7C15ULL;
	return h ^ (h >> 32);
}

/* `ports`: host order. */
ALWAYS_INLINE __u64 hash_upper(__u64 h, __u32 ports, __u8 proto)
{
	return hash_words(h, ports >> 24, ports << 8 | proto);
}

/* The value of an entry whose bits of the hash are those of `key`; 0 where the bucket has none. */
ALWAYS_INLINE __u32 value_in_bucket(void *table, __u32 bucket, __u64 key, __u32 value_bits)
{
	const struct hash_bucket *b = bpf_map_lookup_elem(table, &bucket);

	if (!b)
		return 0;
#pragma unroll
	for (int i = 0; i < BUCKET_ENTRIES; i++) {
		__u64 entry = b->entry[i];

		if ((entry ^ key) >> value_bits == 0)
			return entry & ((1u << value_bits) - 1);
	}
	return 0;
}

/* The only value that a key with this hash can have in a table of two halves of buckets, 0 for none. */
ALWAYS_INLINE __u32 value_by_hash(void *table, __u64 h, __u32 bucket_bits, __u32 value_bits)
{
	__u32 first = h >> (64 - bucket_bits);
	__u32 second = (1u << bucket_bits) + (h >> (64 - 2 * bucket_bits) & ((1u << bucket_bits) - 1));
	__u64 key = h << bucket_bits;
	__u32 value = value_in_bucket(table, first, key, value_bits);

	return value ? value : value_in_bucket(table, second, key, value_bits);
}

ALWAYS_INLINE __u64 hash_tuple(const struct packet *pkt, __be32 ports)
{
	const __be32 *src = pkt->src.word, *dst = pkt->dst.word;
	__u64 h = 0;

	if (pkt->is_ipv6) {
		h = hash_words(h, src[0], src[1]);
		h = hash_words(h, src[2], src[3]);
		h = hash_words(h, dst[0], dst[1]);
		h = hash_words(h, dst[2], dst[3]);
	} else {
		h = hash_words(h, src[3], dst[3]);
	}
	return hash_upper(h, bpf_ntohl(ports), pkt->proto);
}

ALWAYS_INLINE __u64 flow_hash(const struct packet *pkt)
{
	return hash_tuple(pkt, pkt->ports);
}

/* All packets of a client for an address, whatever they are. */
ALWAYS_INLINE __u64 client_hash(const struct packet *pkt)
{
	const __be32 *src = pkt->src.word, *dst = pkt->dst.word;
	__u64 h = 0;

	if (pkt->is_ipv6) {
		h = hash_words(h, src[0], src[1]);
		h = hash_words(h, src[2], src[3]);
		h = hash_words(h, dst[0], dst[1]);
		h = hash_words(h, dst[2], dst[3]);
	} else {
		h = hash_words(h, src[3], dst[3]);
	}
	return hash_upper(h, 0, 0);
}

/* Fast range (Lemire): the high half of a 32 by 32 product instead of a division. */
ALWAYS_INLINE __u32 hash_to_slot(__u64 h)
{
	return ((h >> 32) * RING_SLOTS) >> 32;
}

/*
 * The bucket of a next-hop group. The node's own seed is in it, so that routers behind each other do not all make the same choice
 * of what is left; the ring's slot is without, because all balancers have to agree.
 */
ALWAYS_INLINE __u32 hash_to_bucket(__u64 h)
{
	return (h ^ config.hash_seed) * 0x9E3779B97F4A7C15ULL >> (64 - GROUP_BUCKET_BITS);
}

/*
 * The hash of the packet at `off`, within the IP packet that ends at `end`; `turned` as if it went the other way. 0 where it cannot
 * be read. Neither options nor extension headers are looked behind, and no fragment has ports: all of a packet go the same way.
 */
ALWAYS_INLINE __u64 hash_inside(struct xdp_md *ctx, __u32 off, __u32 end, int is_ipv6, int turned)
{
	__u32 l4 = off, ports = 0;
	const __be32 *first, *second;
	const __be32 *upper;
	__u64 h = 0;
	__u8 proto;

	if (is_ipv6) {
		const struct ip6_header *ip = bytes_at(ctx, off, sizeof(*ip));

		l4 += sizeof(*ip);
		if (!ip || l4 > end || (ip->ver_tc_flow & bpf_htonl(0xf0000000)) != bpf_htonl(6u << 28))
			return 0;
		proto = ip->next_header;
		first = turned ? ip->dst : ip->src;
		second = turned ? ip->src : ip->dst;
	} else {
		const struct ip4_header *ip = bytes_at(ctx, off, sizeof(*ip));

		l4 += sizeof(*ip);
		if (!ip || l4 > end || ip->version_ihl >> 4 != 4)
			return 0;
		/* What has options, or is a fragment, is taken for a protocol without ports. */
		proto = ip->proto;
		if (ip->version_ihl != 0x45 || ip->frag & bpf_htons(IP4_MF | IP4_OFFSET_MASK))
			end = 0;
		first = turned ? &ip->dst : &ip->src;
		second = turned ? &ip->src : &ip->dst;
	}
	if (is_ipv6) {
		h = hash_words(h, first[0], first[1]);
		h = hash_words(h, first[2], first[3]);
		h = hash_words(h, second[0], second[1]);
		h = hash_words(h, second[2], second[3]);
	} else {
		h = hash_words(h, *first, *second);
	}
	upper = bytes_at(ctx, l4, 4);
	if (upper && l4 + 4 <= end && has_ports(proto))
		ports = bpf_ntohl(*upper);
	return hash_upper(h, turned ? ports >> 16 | ports << 16 : ports, proto);
}

/* An error about a packet, with the start of that behind eight bytes (RFC 792, RFC 4443 §2.1). */
ALWAYS_INLINE int is_icmp_error(const struct packet *pkt)
{
	__u8 type = pkt->icmp_type;

	if (!pkt->has_icmp || is_fragment(pkt))
		return 0;
	return pkt->is_ipv6 ? type < 128 : type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

/* Bytes of a GRE header (RFC 2784, RFC 2890) whose payload is IP; 0 for any other. */
ALWAYS_INLINE __u32 gre_len(struct xdp_md *ctx, const struct packet *pkt, int *is_ipv6)
{
	const __be16 *gre = bytes_at(ctx, pkt->l4, 4);
	__u32 flags;

	if (!gre)
		return 0;
	flags = bpf_ntohs(gre[0]);
	*is_ipv6 = gre[1] == bpf_htons(ETH_P_IPV6);
	/* Anything but checksum, key and sequence number: routing, or another version. */
	if (flags & ~0xb000u || (!*is_ipv6 && gre[1] != bpf_htons(ETH_P_IP)))
		return 0;
	return 4 + 4 * (flags >> 15) + 4 * (flags >> 13 & 1) + 4 * (flags >> 12 & 1);
}

/*
 * What spreads packets over next hops that is not their own addresses and ports: a tunnel has one pair of addresses for all its flows,
 * and an error about a packet has to go where the flow's answers go. One level deep. A function of its own: most packets are plain.
 */
static __noinline __u64 spread_hash(struct xdp_md *ctx, struct packet *pkt)
{
	__u32 end = pkt->l3 + pkt->len, off = 0;
	int is_ipv6 = pkt->is_ipv6, turned = 0;
	__u64 h = 0;

	if (is_icmp_error(pkt)) {
		off = pkt->l4 + 8;
		turned = 1;
	} else if (!is_fragment(pkt)) {
		if (pkt->proto == PROTO_IPIP || pkt->proto == PROTO_IPV6) {
			off = pkt->l4;
			is_ipv6 = pkt->proto == PROTO_IPV6;
		} else if (pkt->proto == PROTO_GRE) {
			__u32 len = gre_len(ctx, pkt, &is_ipv6);

			off = len ? pkt->l4 + len : 0;
		}
	}
	if (off)
		h = is_ipv6 ? hash_inside(ctx, off, end, 1, turned) : hash_inside(ctx, off, end, 0, turned);
	return h ? h : hash_tuple(pkt, is_fragment(pkt) ? 0 : pkt->ports);
}
