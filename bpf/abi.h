/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The only definition of what the programs and the process share: keys and values of the maps, enums and limits.
 * libbpf-cargo makes the Rust types from the object's BTF; nothing is declared a second time.
 *
 * Rules: every struct is named, padding is explicit, a size is asserted beside each. Addresses are 16 bytes in network
 * order, IPv4 as ::ffff:a.b.c.d (RFC 4291 §2.5.5.2), so that one code path serves both families. A layout that changes
 * moves ABI_VERSION, which is part of the pin path.
 */
#pragma once

#include "drop_reasons.h"

enum limits {
	ABI_VERSION = 10,
	PORTS_MAX = 64,	      /* ports; index 0 counts packets of unknown ones */
	QUEUES_PER_PORT = 64, /* slow-path sockets a port */
	IFINDEX_MAX = 4096,   /* interfaces that can carry the program */
	VLAN_PORTS_MAX = 1024,
	FILTER_OPS_MAX = 16384, /* two halves: one in force, one being written */
	FILTER_NONE = 0xffff,
	TUNNEL_PEERS_MAX = 1 << 18, /* addresses of this node in the prefixes of peers among them */
	TUNNEL_SOURCES_MAX = 32768, /* two halves: one in force, one being written */
	VIPS_MAX = 4096,
	BUCKET_ENTRIES = 4,
	VIP_BUCKET_BITS = 11, /* buckets of each half of the table, as a power of two */
	BACKENDS_MAX = 32768,
	QUIC_BUCKET_BITS = 13, /* likewise */
	RING_SLOTS = 65537,
	FLOW_WAYS = 8,	      /* entries of a line of the flow table, which is a cache line */
	FLOW_LINES_MIN = 128, /* a power of two, as any number of lines */
	FIB_ROOT_BITS = 18,
	FIB_LINE = 16,		/* words of a cache line */
	FIB4_ROOTS_A_LINE = 2,	/* references in a line; blocks that they lead to are behind them */
	FIB6_ROOTS_A_LINE = 16, /* no room for blocks */
	/* The group of the default route, behind these lines. */
	FIB4_DEFAULT_WORD = (1 << FIB_ROOT_BITS) / FIB4_ROOTS_A_LINE * FIB_LINE,
	FIB6_DEFAULT_WORD = (1 << FIB_ROOT_BITS) / FIB6_ROOTS_A_LINE * FIB_LINE,
	FIB_BLOCK_REACH = 256, /* words behind the beginning of a block that a look-up may touch */
	/* Words of a FIB at first; it is replaced by a larger one as it grows. */
	FIB4_WORDS_MIN = FIB4_DEFAULT_WORD + (1 << 18),
	FIB6_WORDS_MIN = FIB6_DEFAULT_WORD + (1 << 18),
	DENIED_WORDS_MIN = FIB6_DEFAULT_WORD + (1 << 16), /* of each family, with 16 references in a line */
	/* A VRF has both families in the layout of IPv6: IPv4 as ::ffff:a.b.c.d, where no IPv6 packet and no IPv6 route goes. */
	VRFS_MAX = 255,
	VRF_WORDS_MIN = FIB6_DEFAULT_WORD + (1 << 16), /* of each, at first */
	VRF_DEFAULT4_WORD = FIB6_DEFAULT_WORD + 1,     /* the group of the IPv4 default route */
	VRF_UNMATCHED = (1 << 15) - 1,		       /* group of ::ffff:0:0/96 in every VRF: no IPv4 route matches */
	FIB4_MAX = 1 << 21,
	FIB6_MAX = 1 << 19,
	GROUPS_MAX = 32768,
	VIP_GROUPS = 28671, /* group of VIP address 0, which is none: those of the others are behind it */
	GROUP_BUCKET_BITS = 6,
	GROUP_BUCKETS = 1 << GROUP_BUCKET_BITS,
	NEXT_HOPS_MAX = 65536,
	ADJACENCIES_MAX = 65536,
	TRACE_STEPS = 32,
};

/* ---- counters ---------------------------------------------------------------------------------------------------- */

enum drop_reason {
#define X(name, help) DROP_##name,
	DROP_REASONS(X)
#undef X
	NR_DROP_REASONS,
};

enum punt_reason {
#define X(name, fallback, help) PUNT_##name,
	PUNT_REASONS(X)
#undef X
	NR_PUNT_REASONS,
};

/* A port's counters, in this order: rx = pass + tx + redirect + every punt + every drop, in packets and in bytes. */
enum counter {
	COUNTER_RX,
	COUNTER_PASS,
	COUNTER_TX,
	COUNTER_REDIRECT,
	COUNTER_PUNT,
	COUNTER_DROP = COUNTER_PUNT + NR_PUNT_REASONS,
	NR_COUNTERS = COUNTER_DROP + NR_DROP_REASONS,
};

struct pkt_count {
	__u64 packets;
	__u64 bytes; /* of the frame as it came in */
};

/* ---- addresses --------------------------------------------------------------------------------------------------- */

struct ip_addr {
	__be32 word[4];
};
_Static_assert(sizeof(struct ip_addr) == 16, "ip_addr");

/* ---- ports ------------------------------------------------------------------------------------------------------- */

struct vlan_port_key {
	__u32 ifindex;
	__u32 vlan;
};
_Static_assert(sizeof(struct vlan_port_key) == 8, "vlan_port_key");

/* Of a group: what comes from there may come in by any port. */
#define ORIGINS_ANY (~0ULL)

/* What of a prefix is denied: the value of a table in the layout of the FIB. */
enum denied {
	DENIED_SOURCE = 1,
	DENIED_DESTINATION = 2,
};

/* Which sources a port lets in, by the route back to them (RFC 3704). */
enum source_validation {
	VALIDATE_OFF,
	VALIDATE_LOOSE,
	VALIDATE_STRICT,
	VALIDATE_FEASIBLE,
};

struct port {
	__u16 id;     /* 0: not a port */
	__u16 filter; /* first op, FILTER_NONE where no policy applies */
	__u8 mac[6];
	__u8 validation; /* enum source_validation */
	__u8 vrf;	 /* 0: the default one, else an index of vrfs and 1 more */
};
_Static_assert(sizeof(struct port) == 12, "port");

/* Largest maximum segment size that TCP may be told of by a port, host order; 0 for any. */
struct clamp {
	__u16 mss4;
	__u16 mss6;
};
_Static_assert(sizeof(struct clamp) == 4, "clamp");

/* ---- policy ------------------------------------------------------------------------------------------------------ */

enum filter_field {
	FILTER_SRC4,
	FILTER_SRC6,
	FILTER_DST4,
	FILTER_DST6,
	FILTER_SPORT,
	FILTER_DPORT,
	FILTER_PROTO,
	FILTER_IP_VERSION,
	FILTER_ICMP,
};

/* Where an op leads: an index of a later op, or one of these. */
enum filter_next {
	FILTER_ALLOW = 0xfffe,
	FILTER_DENY = 0xfffd,
};

/*
 * One test. Addresses: value and mask. Ports: first and last in the low halves of value.word[0] and [1], host order.
 * Protocol, version: value.word[0]. ICMP: type << 8 | code in value.word[0], mask in mask.word[0], host order.
 */
struct filter_op {
	struct ip_addr value;
	struct ip_addr mask;
	__u16 field;
	__u16 on_match;
	__u16 on_miss;
	__u16 on_absent;
};
_Static_assert(sizeof(struct filter_op) == 40, "filter_op");

/* ---- tunnels ----------------------------------------------------------------------------------------------------- */

enum tunnel_kind {
	TUNNEL_IPIP = 1,
	TUNNEL_VXLAN = 2,
	TUNNEL_GUE = 3,
	TUNNEL_SOURCE6 = 0x80, /* beside the kind in a key with an IPv6 source: ::/0 must not match IPv4 */
};

/* Kind and VNI are matched whole (32 bits), then the source's prefix. */
struct tunnel_peer_key {
	__u32 prefix_len;
	__u8 kind;
	__u8 vni[3];
	struct ip_addr source;
};
_Static_assert(sizeof(struct tunnel_peer_key) == 24, "tunnel_peer_key");

/* Which inner sources are behind a peer: these of tunnel_sources. */
struct tunnel_peer {
	__u32 own; /* no peer: an address of this node, where no packet comes from */
	__u32 first;
	__u32 sources; /* 0: any but addresses of this node and VIPs */
};
_Static_assert(sizeof(struct tunnel_peer) == 12, "tunnel_peer");

/* Inner sources from `first` to `last`: high and low half of the address as a number. Those of a peer ascend and do not overlap. */
struct source_range {
	__u64 first[2];
	__u64 last[2];
};
_Static_assert(sizeof(struct source_range) == 32, "source_range");

/* ---- load balancing ---------------------------------------------------------------------------------------------- */

/* What a VIP answers to; all 0 for no VIP. */
struct vip {
	struct ip_addr address;
	__be16 port; /* 0: any */
	__u8 proto;  /* 0: any */
	__u8 family; /* 0: IPv4, 1: IPv6, and VIP_PREFIX */
	__u8 prefix_len;
	__u8 pad;
	__u16 number; /* of the prefix; 0 for one address */
	__u32 quic; /* octets of server IDs in connection IDs, 4 bits for each codepoint from the low ones up, 0 for none */
	__u16 affinity; /* how long a client stays with its backend, as `seen` of a flow counts; 0: by flows */
	__u8 pad2[2];
};
_Static_assert(sizeof(struct vip) == 32, "vip");

/*
 * An entry is a value, of as many low bits as the table's values have, below bits of its key's hash; 0 for none. It stands in one of two
 * buckets, one in each half of the table, and no other of these buckets has the same bits. crates/tables/src/dleft.rs has the same.
 */
struct hash_bucket {
	__u64 entry[BUCKET_ENTRIES];
};
_Static_assert(sizeof(struct hash_bucket) == 32, "hash_bucket");

enum vip_family {
	VIP_PREFIX = 0x80, /* not one address: no packet's own family */
};

enum bucket_value {
	BUCKET_VIP_BITS = 24,	 /* of the hash of address, port and protocol */
	BUCKET_SERVER_BITS = 16, /* a backend, of the hash of VIP and server ID */
};

/*
 * By the number of an address or a prefix: its VIPs of any port, 0 for none. VIPs of one port are in the buckets, those of a prefix where
 * its number leads as an address 0.0.x.y would.
 */
struct vip_address {
	__u32 prefix; /* it is one, of several addresses */
	__u32 tcp;
	__u32 udp;
	__u32 sctp;
	__u32 any; /* every protocol */
};
_Static_assert(sizeof(struct vip_address) == 20, "vip_address");

/* A slot: its backend, 0 for none; the backend of flows that began before it changed; whether it has changed. */
enum ring_slot {
	RING_BACKEND_MASK = 0x7fff,
	RING_BEFORE_SHIFT = 16,
	RING_CHANGED_SHIFT = 31,
};

struct ring {
	__u32 slot[RING_SLOTS];
	__u32 changed; /* coarse clock, as `seen` of a flow, when the ring was put in force */
};
_Static_assert(sizeof(struct ring) == (RING_SLOTS + 1) * 4, "ring");

/*
 * What is remembered of a flow whose slot has changed, 0 for nothing: the high half of its hash (32 bits), backend (16), whether it is
 * established, that is, has sent more than what opened it, and a stamp (15): of an established flow when it was last seen, else when
 * it began, which wants a finer clock.
 */
enum flow_entry {
	FLOW_PRINT_SHIFT = 32,
	FLOW_BACKEND_SHIFT = 16,
	FLOW_ESTABLISHED = 0x8000,
	FLOW_STAMP_MASK = 0x7fff,
	FLOW_SEEN_SHIFT = 32,  /* of nanoseconds since boot: 4.3 s */
	FLOW_BEGAN_SHIFT = 22, /* 4.2 ms */
	FLOW_IDLE = 838,       /* of the coarser: after an hour another flow may take an established one's place */
	FLOW_REOPENED =
		1, /* likewise: a SYN of a flow that has been silent for longer, 4 to 9 s, opens another connection */
	FLOW_OF_CLIENT = 0x8000, /* of a print where clients stay: what is remembered is a client, not a flow */
	FLOW_UNSURE = 15, /* likewise: a minute in which a datagram of an unknown flow is of one from before a change */
};

enum outer_kind {
	OUTER_NONE,
	OUTER_IPIP,
	OUTER_VXLAN,
	OUTER_GUE,
};

enum backend_flags {
	BACKEND_OUTER_IPV6 = 1, /* family of the outer header */
	BACKEND_DRAINS = 2,
};

/* One cache line: all that a packet for this backend needs. */
struct backend {
	__u32 vip_id; /* 0: of no VIP, for health checks alone; and outer_kind 0 and group 0: not a backend */
	__u32 group;
	__u8 outer_kind;
	__u8 flags;
	__u16 inner_mtu;
	__u8 vni[3];
	__u8 varied;		    /* low bits of `source` that are the flow's: OUTER_IPIP, below 32, clear there */
	struct ip_addr source;	    /* outer */
	struct ip_addr destination; /* outer; the backend itself for OUTER_NONE */
	__u8 inner_source[6];
	__u8 inner_destination[6];
	/* The group's only next hop and its adjacency, so that a packet need not ask; 0 where the group has several. */
	__u16 next_hop;
	__u16 adjacency;
};
_Static_assert(sizeof(struct backend) == 64, "backend");

/* ---- forwarding -------------------------------------------------------------------------------------------------- */

/*
 * A FIB is an array of words: lines with 2^FIB_ROOT_BITS references by the first bits of the address, the default route's
 * group, and blocks. crates/tables/src/fib has the layout of blocks and how they change while packets look.
 */
enum fib_ref {
	FIB_KIND_SHIFT = 28,
	FIB_KIND_GROUP = 0,
	FIB_KIND_NODE = 1,	   /* 6 bits of the address: 64-bit map of where values begin, values */
	FIB_KIND_BYTES = 2,	   /* the same, values of one byte */
	FIB_KIND_RANGE = 3,	   /* and 1 to 4 more, n: 32 bits of the address against 2^n - 1 bounds, 2^n values */
	FIB_KIND_LOW_HALF = 8,	   /* beside a kind: from here on the second half of an IPv6 address */
	FIB_VALUE_DEEPER = 0x8000, /* of a value: the distance to a reference, else a group */
};

/* Beside the next hop in a group's first bucket: the others hold the same, so no flow needs a hash. */
enum group_flags {
	GROUP_SINGLE = 1 << 30,
};

struct group {
	__u32 bucket[GROUP_BUCKETS];
};
_Static_assert(sizeof(struct group) == 256, "group");

enum next_hop_kind {
	NH_NONE,
	NH_FORWARD,
	NH_GLEAN,
	NH_RECEIVE, /* an address of this node */
	NH_HOST,    /* not forwarded here: the host's stack decides */
	NH_VIP,
	NH_BLACKHOLE,
	NH_PROHIBIT,
	NH_UNREACHABLE,
};

struct next_hop {
	__u32 kind;
	__u32 adjacency;	/* VIP: length of the destination's prefix */
	__u32 ifindex;		/* where the neighbour is resolved */
	struct ip_addr address; /* FORWARD: of the gateway. VIP, and RECEIVE where VIPs have it, too: the destination */
};
_Static_assert(sizeof(struct next_hop) == 28, "next_hop");

enum adjacency_flags {
	ADJ_COMPLETE = 1,
};

/*
 * The Ethernet header without its ethertype, ready to be written: destination, source, and for a VLAN the tag, so
 * rewrite_len is 12 or 16. Incomplete: destination zero.
 */
struct adjacency {
	__u32 ifindex;
	__u16 mtu;
	__u8 flags;
	__u8 rewrite_len;
	__u8 rewrite[16];
};
_Static_assert(sizeof(struct adjacency) == 24, "adjacency");

/* ---- slow path --------------------------------------------------------------------------------------------------- */

enum punt_flags {
	PUNT_DECREMENT_TTL = 1, /* a forwarded packet whose TTL has not been decremented yet */
};

/* XDP metadata in front of a punted frame. 32 bytes is the most that every kernel takes. */
struct punt_meta {
	__u8 reason;
	__u8 flags;
	__u16 l2_len;		/* bytes before the IP header */
	__u32 mtu;		/* PACKET_TOO_BIG: largest packet that fits */
	__u32 port;		/* where it came in */
	__u32 egress_ifindex;	/* NEIGHBOR: interface that the next hop is on */
	struct ip_addr address; /* NEIGHBOR: what to resolve */
};
_Static_assert(sizeof(struct punt_meta) == 32, "punt_meta");

/* Per reason and CPU. */
struct punt_bucket {
	__u64 refilled_ns;
	__u64 tokens;
};
_Static_assert(sizeof(struct punt_bucket) == 16, "punt_bucket");

/* ---- explain ----------------------------------------------------------------------------------------------------- */

enum stage {
	STAGE_PARSE,	 /* id: ethertype, detail: protocol */
	STAGE_PORT,	 /* id: port */
	STAGE_DECAP,	 /* id: tunnel_kind, detail: VNI */
	STAGE_DENYLIST,	 /* id: what is denied (enum denied), 0 nothing */
	STAGE_FILTER,	 /* id: op that decided, detail: filter_next */
	STAGE_VIP,	 /* id: VIP */
	STAGE_FLOW,	 /* id: backend remembered, 0 none; detail: backend where none */
	STAGE_QUIC,	 /* id: backend that the connection ID names */
	STAGE_RING,	 /* id: backend, detail: slot */
	STAGE_BACKEND,	 /* id: backend, detail: outer_kind */
	STAGE_FIB,	 /* id: group, 0 no route */
	STAGE_NEXT_HOP,	 /* id: next hop, detail: kind */
	STAGE_ADJACENCY, /* id: adjacency, detail: egress ifindex */
	STAGE_PUNT,	 /* id: punt_reason */
	STAGE_SOURCE,	 /* id: group that leads back, detail: source_validation */
	STAGE_MSS,	 /* id: what the maximum segment size has become, detail: what it was */
	STAGE_VERDICT,	 /* id: XDP action, detail: drop_reason for XDP_DROP, egress ifindex for XDP_REDIRECT */
	NR_STAGES,
};

struct trace_step {
	__u32 stage;
	__u32 id;
	__u64 detail;
};

struct trace {
	__u32 steps;
	__u32 pad;
	struct trace_step step[TRACE_STEPS];
};
