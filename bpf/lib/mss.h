/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What opens a TCP connection says how large the other end's segments may be (RFC 9293 §3.7.1). A port lowers that, in what comes in or goes out
 * by it, to what fits the way beyond.
 */
#pragma once

#include "csum.h"

#define TCP_LEN 20
#define TCP_OPTIONS_MAX 40
#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_MSS 2
#define TCP_OPTION_MSS_LEN 4

/* The lower of what the port that the packet came in by and the one that it leaves by let through, 0 for no matter. */
ALWAYS_INLINE __u32 most_mss(const struct packet *pkt)
{
	__u32 port = pkt->port_id, id = pkt->next_hop;
	const struct clamp *in = bpf_map_lookup_elem(&clamps_in, &port), *out = NULL;
	const struct next_hop *nh = bpf_map_lookup_elem(&next_hops, &id);
	__u32 most = 0, other = 0;

	if (nh) {
		__u32 device = nh->ifindex;

		out = bpf_map_lookup_elem(&clamps_out, &device);
	}
	if (in)
		most = pkt->is_ipv6 ? in->mss6 : in->mss4;
	if (out)
		other = pkt->is_ipv6 ? out->mss6 : out->mss4;
	return !most || (other && other < most) ? other : most;
}

/* The option's value, two bytes at `off`, becomes `most` where it is larger. */
ALWAYS_INLINE void lower_mss(struct xdp_md *ctx, struct packet *pkt, __u32 off, __u32 most)
{
	__u16 *value = bytes_at(ctx, off, sizeof(*value)), *csum, before, after = bpf_htons(most);

	if (!value || bpf_ntohs(*value) <= most)
		return;
	before = *value;
	*value = after;
	trace_step(STAGE_MSS, most, bpf_ntohs(before));
	/* Astride two words of what the checksum covers, it counts with its bytes exchanged (RFC 1071 §2). */
	if ((off - pkt->l4) & 1) {
		before = __builtin_bswap16(before);
		after = __builtin_bswap16(after);
	}
	csum = bytes_at(ctx, pkt->l4 + 16, sizeof(*csum));
	if (csum)
		*csum = csum_replace(*csum, before, after);
}

/*
 * Walks the options of a SYN, as far as they are well formed, and lowers the maximum segment size that it tells. One that tells none is left
 * alone: that is the smallest. Global: the verifier walks it once.
 */
__noinline int clamp_mss(struct xdp_md *ctx, struct packet *pkt)
{
	__u32 most, off, end;
	const __u8 *p;

	if (!pkt)
		return 0;
	most = most_mss(pkt);
	off = pkt->l4 + TCP_LEN;
	p = bytes_at(ctx, pkt->l4, TCP_LEN);
	if (!most || !p)
		return 0;
	end = pkt->l4 + (p[12] >> 4) * 4;
	if (end > pkt->l3 + pkt->len)
		return 0;
	for (int i = 0; i < TCP_OPTIONS_MAX; i++) {
		__u32 len;

		if (off >= end)
			break;
		/* All that is known of an offset from one option to the next, for the verifier to see that it has been here before. */
		off &= OFFSET_MAX;
		p = bytes_at(ctx, off, 1);
		if (!p || *p == TCP_OPTION_END)
			break;
		if (*p == TCP_OPTION_NOP) {
			off++;
			continue;
		}
		p = bytes_at(ctx, off, 2);
		if (!p)
			break;
		len = p[1];
		if (len < 2 || off + len > end)
			break;
		if (p[0] == TCP_OPTION_MSS && len == TCP_OPTION_MSS_LEN)
			lower_mss(ctx, pkt, off + 2, most);
		off += len;
	}
	return 0;
}

/* A packet that is forwarded by `pkt->next_hop`. */
ALWAYS_INLINE void limit_mss(struct xdp_md *ctx, struct packet *pkt)
{
	const __u8 *flags;

	if (!config.max_mss || pkt->proto != PROTO_TCP || !pkt->has_ports)
		return;
	/* SYN without RST: with ACK, too. */
	flags = bytes_at(ctx, pkt->l4 + 13, 1);
	if (flags && (*flags & 0x06) == 0x02)
		clamp_mss(ctx, pkt);
}
