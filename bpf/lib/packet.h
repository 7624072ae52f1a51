/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the stages know about the packet in hand, and how they reach its bytes.
 *
 * A stage returns CONTINUE or the XDP action that ends the packet's way. Offsets count from the start of the frame and
 * stay valid until a function that says "Invalidates: packet pointers" moves it; pointers never live across a stage.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "../config.h"
#include "../maps.h"

#define CONTINUE (-1)
#define ALWAYS_INLINE static __always_inline

#define IP4_DF 0x4000
#define IP4_MF 0x2000
#define IP4_OFFSET_MASK 0x1fff

/* No header that a stage looks at begins behind this offset: two tags, a tunnel, six IPv6 extension headers at 2 KiB. */
#define OFFSET_MAX 16383

#define PROTO_ICMP 1
#define PROTO_IPIP 4
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_IPV6 41
#define PROTO_GRE 47
#define PROTO_ICMPV6 58
#define PROTO_SCTP 132

/*
 * Lives in a per-CPU map and not on the stack: the verifier does not follow what a map holds, so stages join instead of
 * multiplying (on the stack, the flags alone made a million paths of it).
 */
struct packet {
	struct ip_addr src __attribute__((aligned(8))); /* IPv4 mapped */
	struct ip_addr dst;
	__u64 client; /* hash of the addresses, where clients stay */
	__u32 bytes;  /* of the frame as it came in */
	__u32 l3;     /* offset of the IP header = length of the link-layer header */
	__u32 l4;     /* offset behind the IP header and its extensions */
	__u32 len;    /* IP packet, bytes */
	__u32 port_id;
	__u32 filter;	  /* first op of the port's policy, then where its walk stands */
	__u32 filter_end; /* FILTER_ALLOW or FILTER_DENY once decided, else 0 */
	__u32 counter;	  /* what became of it; NR_COUNTERS until a verdict */
	__u32 next_hop;	  /* that it leaves by */
	__be32 ports;	  /* source's in the first half; 0 where has_ports is not set */
	__u16 ethertype;  /* host order */
	__u16 affinity;	  /* of the VIP, once its backend is asked for */
	__u16 frag;	  /* IPv4's field, host order; of IPv6 the same bits */
	__u8 proto;
	__u8 tos; /* TOS or traffic class */
	__u8 ttl;
	__u8 is_ipv6;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 has_icmp;
	__u8 has_ports;
	__u8 plain; /* as parse_plain() describes, where it still is at its place */
	__u8 decapsulated;
	__u8 host_scope; /* never forwarded: group or link-local destination */
	__u8 validation; /* the port's */
	__u8 opens;	 /* a connection: known where a flow is looked up */
	__u8 vrf;	 /* the port's */
	__u8 quote;	 /* of an ICMP error for an address of VIPs: enum quote */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} scratch SEC(".maps");

/* Nothing is known of it yet but its length, and nothing has become of it. */
ALWAYS_INLINE void begin_packet(const struct xdp_md *ctx, struct packet *pkt)
{
	pkt->bytes = ctx->data_end - ctx->data;
	pkt->counter = NR_COUNTERS;
	pkt->host_scope = 0;
	pkt->decapsulated = 0;
}

/* The packet's VRF, 0 for the default one. */
ALWAYS_INLINE __u32 vrf_of(const struct packet *pkt)
{
	return VRFS ? pkt->vrf : 0;
}

/* Any part of a fragmented packet. */
ALWAYS_INLINE int is_fragment(const struct packet *pkt)
{
	return pkt->frag & (IP4_MF | IP4_OFFSET_MASK);
}

/* A fragment other than the first. */
ALWAYS_INLINE int is_trailing(const struct packet *pkt)
{
	return pkt->frag & IP4_OFFSET_MASK;
}

/* Host order. */
ALWAYS_INLINE __u32 sport_of(const struct packet *pkt)
{
	return bpf_ntohl(pkt->ports) >> 16;
}

/* Host order. */
ALWAYS_INLINE __u32 dport_of(const struct packet *pkt)
{
	return bpf_ntohl(pkt->ports) & 0xffff;
}

/*
 * The `len` bytes at `off`, or NULL where the frame is shorter. The barrier keeps the compiler from folding the bound
 * that the verifier needs into earlier arithmetic; where the offset is a constant, folding is what is wanted.
 */
ALWAYS_INLINE void *bytes_at(const struct xdp_md *ctx, __u32 off, __u32 len)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;

	/* A context's pointers are 32 bits to the compiler, which copies them as such. */
	asm volatile("" : "+r"(data_end));
	if (!__builtin_constant_p(off)) {
		asm volatile("" : "+r"(off));
		if (off > OFFSET_MAX)
			return NULL;
	}
	if (!data)
		__builtin_unreachable();
	if (data + off + len > data_end)
		return NULL;
	return data + off;
}

#if EXPLAIN
ALWAYS_INLINE void trace_step(__u32 stage, __u32 id, __u64 detail)
{
	__u32 zero = 0;
	struct trace *t;
	__u32 n;

	t = bpf_map_lookup_elem(&trace, &zero);
	if (!t)
		return;
	n = t->steps;
	if (n >= TRACE_STEPS)
		return;
	t->step[n].stage = stage;
	t->step[n].id = id;
	t->step[n].detail = detail;
	t->steps = n + 1;
}
#else
ALWAYS_INLINE void trace_step(__u32 stage __attribute__((unused)), __u32 id __attribute__((unused)),
			      __u64 detail __attribute__((unused)))
{
}
#endif
