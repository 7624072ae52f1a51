/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connection IDs that name their server (draft-ietf-quic-load-balancers, plaintext): a connection keeps its backend when the client's
 * address or port changes. Of a packet only what every version of QUIC has is read (RFC 8999).
 */
#pragma once

#include "hash.h"

#define QUIC_LONG 0x80
#define QUIC_LONG_CID 6	  /* offset of the destination connection ID: behind flags, version and its length */
#define QUIC_SHORT_CID 1  /* behind the flags */
#define QUIC_NONCE_MIN 4  /* octets of a connection ID behind the server ID */
#define QUIC_SERVER_ID 16 /* octets that are read; any packet has more (RFC 9001 §5.4.2) */

/* The backend of these octets, which the low bytes of `first` begin with; `len` of them count. */
ALWAYS_INLINE __u32 server_of(__u32 vip, __u32 len, __u64 first, __u64 second)
{
	__u64 h = hash_words(0, vip, len);

	if (len < 8) {
		first &= (1ULL << 8 * (len & 7)) - 1;
		second = 0;
	} else {
		second &= (1ULL << 8 * (len & 7)) - 1;
	}
	h = hash_words(h, first >> 32, first);
	h = hash_words(h, second >> 32, second);
	return value_by_hash(&quic_servers, h, QUIC_BUCKET_BITS, BUCKET_SERVER_BITS);
}

/*
 * The backend whose server ID is in the packet's connection ID, 0 for none: the VIP has no QUIC, no configuration has the codepoint, or
 * nobody the ID, as in what a client chooses for its first packets. A function of its own: few VIPs have QUIC.
 */
static __noinline __u32 quic_server(struct xdp_md *ctx, const struct packet *pkt, __u32 vip)
{
	const struct vip *row = bpf_map_lookup_elem(&vips, &vip);
	__u32 off = pkt->l4 + UDP_LEN, end = pkt->l3 + pkt->len, cid, len;
	const __u8 *header;
	const __u64 *id;

	if (!row || !row->quic || !pkt->has_ports)
		return 0;
	header = bytes_at(ctx, off, QUIC_LONG_CID + 1);
	if (!header)
		return 0;
	if (header[0] & QUIC_LONG) {
		cid = off + QUIC_LONG_CID;
		len = row->quic >> (header[QUIC_LONG_CID] >> 5 << 2) & 0xf;
		if (header[QUIC_LONG_CID - 1] < 1 + len + QUIC_NONCE_MIN)
			return 0;
	} else {
		cid = off + QUIC_SHORT_CID;
		len = row->quic >> (header[QUIC_SHORT_CID] >> 5 << 2) & 0xf;
	}
	if (!len || cid + 1 + QUIC_SERVER_ID > end)
		return 0;
	id = bytes_at(ctx, cid + 1, QUIC_SERVER_ID);
	return id ? server_of(vip, len, id[0], id[1]) : 0;
}
