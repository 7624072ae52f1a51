/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Load balancing: VIP -> Maglev ring -> backend -> out. A packet for a VIP needs no route of its own, only the backend's. Of slots that
 * have changed, the flow table tells which flows began before and after; of all others the ring is the answer for every packet.
 */
#pragma once

#include "adjacency.h"
#include "fib.h"
#include "mss.h"
#include "quic.h"

/* How long clients of a VIP stay, 0 where each flow goes by itself. */
ALWAYS_INLINE __u16 affinity_of(__u32 vip)
{
	const struct vip *row = bpf_map_lookup_elem(&vips, &vip);

	return row ? row->affinity : 0;
}

/* The backend with this id if it serves this VIP, else NULL. */
ALWAYS_INLINE const struct backend *backend_of(__u32 id, __u32 vip)
{
	const struct backend *b = bpf_map_lookup_elem(&backends, &id);

	return b && b->group && b->vip_id == vip ? b : NULL;
}

/* Where this flow and some others are remembered. */
ALWAYS_INLINE __u64 *flow_line(__u64 hash)
{
	__u32 zero = 0, line = (__u32)hash & (config.flow_lines - 1);
	__u64 *table = bpf_map_lookup_elem(&flows, &zero);

	return table ? table + line * FLOW_WAYS : NULL;
}

/*
 * The entry that a new flow takes: a free one, else one of an established flow that has long been silent, else the oldest of a
 * flow that has sent nothing but what opened it. Negative where all are of flows that live: a flood never takes their places.
 * `began` becomes the flow's stamp: the clock, or one more than the line's newest where a flood is faster than the clock.
 */
ALWAYS_INLINE int entry_for_new(const __u64 *line, __u32 seen, __u32 *began)
{
	const __u32 present = (FLOW_STAMP_MASK + 1) / 2;
	__u32 best = FLOW_STAMP_MASK + 1, newest = present - 1;
	int place = -1;

#pragma unroll
	for (int i = 0; i < FLOW_WAYS; i++) {
		__u64 entry = line[i];
		__u32 rank;

		if (!entry) {
			rank = 0;
		} else if (entry & FLOW_ESTABLISHED) {
			rank = ((seen - (__u32)entry) & FLOW_STAMP_MASK) > FLOW_IDLE ? 0 : FLOW_STAMP_MASK + 1;
		} else {
			/* The past below `present`, what is ahead of the clock from there on. */
			rank = ((__u32)entry - *began + present) & FLOW_STAMP_MASK;
			newest = rank > newest ? rank : newest;
		}
		if (rank < best) {
			best = rank;
			place = i;
		}
	}
	*began += newest + 1 - present;
	return place;
}

/* How long, in units of FLOW_SEEN_SHIFT, nothing has come of a flow. */
ALWAYS_INLINE __u32 silent_for(__u64 entry, __u32 seen, __u32 began)
{
	if (entry & FLOW_ESTABLISHED)
		return (seen - (__u32)entry) & FLOW_STAMP_MASK;
	return ((began - (__u32)entry) & FLOW_STAMP_MASK) >> (FLOW_SEEN_SHIFT - FLOW_BEGAN_SHIFT);
}

/* The half hash that begins an entry: the flow's own, or where clients stay one of the client's slot, so that it tells that. */
ALWAYS_INLINE __u64 print_of(const struct packet *pkt, __u64 hash, __u32 of_client)
{
	__u64 print = hash >> 32;

	if (config.affinity && pkt->affinity)
		/* A slot has 65,535 half hashes at least, and these begin at 65,535 times its number and 1. */
		print = hash_to_slot(pkt->client) * 65535ULL + 1 + of_client + (print & 0x3fff);
	return print << FLOW_PRINT_SHIFT;
}

/* The entry of this print in a line, negative where there is none. */
ALWAYS_INLINE int entry_of(const __u64 *line, __u64 print)
{
	int place = -1;

#pragma unroll
	for (int i = 0; i < FLOW_WAYS; i++)
		if (line[i] >> FLOW_PRINT_SHIFT == print >> FLOW_PRINT_SHIFT)
			place = i;
	/* Keeps the mask of who uses it, which the compiler knows to do nothing and verifiers of older kernels do not. */
	asm volatile("" : "+r"(place));
	return place;
}

/* A flow of the client lives at this backend: so does the client, unless it has gone to another. Global: the verifier walks it once. */
__noinline int client_lives(struct packet *pkt, __u32 id)
{
	__u64 ns = bpf_ktime_get_coarse_ns(), print;
	__u32 seen = ns >> FLOW_SEEN_SHIFT, began = ns >> FLOW_BEGAN_SHIFT;
	__u64 *line;
	int place;

	if (!pkt)
		return 0;
	line = flow_line(pkt->client);
	if (!line)
		return 0;
	print = print_of(pkt, pkt->client, FLOW_OF_CLIENT);
	place = entry_of(line, print);
	if (place >= 0 && (line[place & (FLOW_WAYS - 1)] >> FLOW_BACKEND_SHIFT & 0xffff) != id)
		return 0;
	if (place < 0)
		place = entry_for_new(line, seen, &began);
	if (place >= 0)
		line[place & (FLOW_WAYS - 1)] =
			print | (__u64)id << FLOW_BACKEND_SHIFT | FLOW_ESTABLISHED | (seen & FLOW_STAMP_MASK);
	return 0;
}

/* The backend if it serves this VIP and does not drain, else NULL. */
ALWAYS_INLINE const struct backend *staying_at(__u32 id, __u32 vip)
{
	const struct backend *b = backend_of(id, vip);

	return b && !(b->flags & BACKEND_DRAINS) ? b : NULL;
}

/*
 * Where what begins goes in a changed slot of a VIP whose clients stay: to the backend of the client, while that serves, does not drain and
 * was not left for longer than the time-out; else, as long as the slot's change is not older, to that before it; else to the slot's.
 * Global, too.
 */
__noinline __u32 of_client(struct packet *pkt, __u32 slot, __u32 vip, __u32 changed)
{
	__u64 ns = bpf_ktime_get_coarse_ns(), entry = 0, print;
	__u32 seen = ns >> FLOW_SEEN_SHIFT, began = ns >> FLOW_BEGAN_SHIFT, established = 0;
	__u32 id = slot & RING_BACKEND_MASK, before = slot >> RING_BEFORE_SHIFT & RING_BACKEND_MASK;
	__u64 *line;
	int place;

	if (!pkt)
		return id;
	line = flow_line(pkt->client);
	if (!line)
		return id;
	print = print_of(pkt, pkt->client, FLOW_OF_CLIENT);
	place = entry_of(line, print);
	if (place >= 0) {
		entry = line[place & (FLOW_WAYS - 1)];
		established = entry & FLOW_ESTABLISHED;
	}
	if (entry && silent_for(entry, seen, began) <= pkt->affinity &&
	    staying_at(entry >> FLOW_BACKEND_SHIFT & 0xffff, vip))
		id = entry >> FLOW_BACKEND_SHIFT & 0xffff;
	else if (seen - changed < pkt->affinity && staying_at(before, vip))
		id = before;
	if (EXPLAIN || pkt->has_icmp || is_trailing(pkt))
		return id;
	if (place < 0)
		place = entry_for_new(line, seen, &began);
	if (place >= 0)
		line[place & (FLOW_WAYS - 1)] =
			print | (__u64)id << FLOW_BACKEND_SHIFT |
			(established ? FLOW_ESTABLISHED | (seen & FLOW_STAMP_MASK) : began & FLOW_STAMP_MASK);
	return id;
}

/*
 * The backend of a flow whose slot has changed: the one remembered, else for what opens a connection the slot's, and for what goes
 * on the one before. Remembered from then on. A function of its own: few slots have changed. Global, too.
 */
__noinline __u32 remembered(struct packet *pkt, __u64 hash, __u32 slot, __u32 vip, __u32 changed)
{
	__u64 ns = bpf_ktime_get_coarse_ns(), print;
	__u32 seen = ns >> FLOW_SEEN_SHIFT, began = ns >> FLOW_BEGAN_SHIFT;
	__u32 id = slot & RING_BACKEND_MASK, before = slot >> RING_BEFORE_SHIFT & RING_BACKEND_MASK;
	__u64 *line = flow_line(hash);
	int place, stays;

	if (!line || !pkt)
		return id;
	stays = config.affinity && pkt->affinity;
	print = print_of(pkt, hash, 0);
	place = entry_of(line, print);
	if (place >= 0) {
		__u64 entry = line[place & (FLOW_WAYS - 1)];
		__u32 known = entry >> FLOW_BACKEND_SHIFT & 0xffff;
		__u64 now = print | (__u64)known << FLOW_BACKEND_SHIFT | FLOW_ESTABLISHED | (seen & FLOW_STAMP_MASK);

		/* Ports that are used again begin anew: else a backend that drains would never be rid of who does so. */
		int again = pkt->opens && known != id && silent_for(entry, seen, began) > FLOW_REOPENED;

		if (!again && backend_of(known, vip)) {
			if (!EXPLAIN && !pkt->has_icmp && !pkt->opens && now != entry) {
				line[place & (FLOW_WAYS - 1)] = now;
				if (stays)
					client_lives(pkt, known);
			}
			trace_step(STAGE_FLOW, known, 0);
			return known;
		}
	}
	/* Whether a datagram begins a flow cannot be seen in it. */
	if (!pkt->opens && (pkt->proto == PROTO_TCP || seen - changed < FLOW_UNSURE) && backend_of(before, vip))
		id = before;
	else if (stays)
		id = of_client(pkt, slot, vip, changed);
	trace_step(STAGE_FLOW, 0, id);
	if (place < 0)
		place = entry_for_new(line, seen, &began);
	if (!EXPLAIN && !pkt->has_icmp && place >= 0)
		line[place & (FLOW_WAYS - 1)] = print | (__u64)id << FLOW_BACKEND_SHIFT | (began & FLOW_STAMP_MASK);
	return id;
}

/* The first segment of a connection: SYN, neither ACK nor RST (RFC 9293 §3.1). */
ALWAYS_INLINE int opens_connection(struct xdp_md *ctx, const struct packet *pkt)
{
	const __u8 *flags;

	/* What an error is about has begun, and a later fragment does not show it. */
	if (pkt->proto != PROTO_TCP || !pkt->has_ports || pkt->l4 + 14 > pkt->l3 + pkt->len)
		return 0;
	flags = bytes_at(ctx, pkt->l4 + 13, 1);
	return flags && (*flags & 0x16) == 0x02;
}

/* The flow's backend; `id` tells which. NULL where none is usable. */
ALWAYS_INLINE const struct backend *choose_backend(struct xdp_md *ctx, struct packet *pkt, __u32 vip, __u64 hash,
						   __u32 *id)
{
	__u32 zero = 0, at, slot;
	void *map = bpf_map_lookup_elem(&rings, &vip);
	const struct ring *ring = map ? bpf_map_lookup_elem(map, &zero) : NULL;

	at = hash_to_slot(hash);
	if (config.affinity && (pkt->affinity = affinity_of(vip))) {
		pkt->client = client_hash(pkt);
		at = hash_to_slot(pkt->client);
	}

	/* Always below: the compiler knows, verifiers of older kernels do not. */
	asm volatile("" : "+r"(at));
	if (!ring || at >= RING_SLOTS)
		return NULL;
	slot = ring->slot[at];
	*id = slot & RING_BACKEND_MASK;
	trace_step(STAGE_RING, *id, at);
	if (slot >> RING_CHANGED_SHIFT) {
		pkt->opens = opens_connection(ctx, pkt);
		*id = remembered(pkt, hash, slot, vip, ring->changed);
	}
	return backend_of(*id, vip);
}

/* The backend that the packet's connection ID names and that still serves, drains included; NULL for none. */
ALWAYS_INLINE const struct backend *named_by_quic(struct xdp_md *ctx, const struct packet *pkt, __u32 vip, __u32 *id)
{
	__u32 found = quic_server(ctx, pkt, vip);
	const struct backend *b = found ? backend_of(found, vip) : NULL;

	if (!b)
		return NULL;
	*id = found;
	trace_step(STAGE_QUIC, found, 0);
	return b;
}

/* The backend of a packet for this VIP; `id` tells which. NULL where none is usable. */
ALWAYS_INLINE const struct backend *backend_for(struct xdp_md *ctx, struct packet *pkt, __u32 vip, __u64 hash,
						__u32 *id)
{
	const struct backend *b = NULL;

	if (config.quic && pkt->proto == PROTO_UDP)
		b = named_by_quic(ctx, pkt, vip, id);
	return b ? b : choose_backend(ctx, pkt, vip, hash, id);
}

ALWAYS_INLINE void count_backend(const struct packet *pkt, __u32 id)
{
	struct pkt_count *c;

	if (EXPLAIN)
		return;
	c = bpf_map_lookup_elem(&backend_counters, &id);
	if (c)
		add(c, pkt);
}

/* The adjacency of the packet's next hop towards a backend, NULL where the tables are at odds. */
ALWAYS_INLINE const struct adjacency *way_to_backend(struct xdp_md *ctx, struct packet *pkt, const struct backend *b,
						     __u64 hash)
{
	const struct next_hop *nh;

	if (b->next_hop) {
		pkt->next_hop = b->next_hop;
		trace_step(STAGE_NEXT_HOP, b->next_hop, NH_FORWARD);
		return adjacency_of(b->adjacency);
	}
	nh = next_hop_of(ctx, pkt, b->group, hash);
	return nh && nh->kind == NH_FORWARD ? adjacency_of(nh->adjacency) : NULL;
}

/* Unresolved. Invalidates: packet pointers. */
ALWAYS_INLINE int resolve_next_hop(struct xdp_md *ctx, struct packet *pkt, enum punt_reason reason)
{
	__u32 id = pkt->next_hop;
	const struct next_hop *nh = bpf_map_lookup_elem(&next_hops, &id);

	return nh ? punt_neighbor(ctx, pkt, reason, nh->ifindex, &nh->address) : drop(pkt, DROP_INTERNAL);
}

/* Invalidates: packet pointers. */
ALWAYS_INLINE int to_backend(struct xdp_md *ctx, struct packet *pkt, const struct backend *b, __u32 id, __u64 hash)
{
	const struct adjacency *adj;
	int action;

	trace_step(STAGE_BACKEND, id, b->outer_kind);
	if (!pkt->plain && source_link_local(pkt))
		return drop(pkt, DROP_SRC_INVALID);
	if (pkt->ttl <= 1)
		return punt_plain(ctx, pkt, PUNT_TTL_EXCEEDED);
	if (pkt->len > b->inner_mtu)
		return too_big(ctx, pkt, b->inner_mtu);
	adj = way_to_backend(ctx, pkt, b, hash);
	if (!adj)
		return drop(pkt, DROP_INTERNAL);
	limit_mss(ctx, pkt);
	if (b->outer_kind == OUTER_NONE && !(adj->flags & ADJ_COMPLETE))
		return resolve_next_hop(ctx, pkt, PUNT_NEIGHBOR);
	if (pkt->plain && adj->flags & ADJ_COMPLETE && adj->rewrite_len == 12 && b->outer_kind == OUTER_IPIP) {
		count_backend(pkt, id);
		return b->flags & BACKEND_OUTER_IPV6 ? send_plain_in_ip6(ctx, pkt, b, adj, hash)
						     : send_plain_in_ip4(ctx, pkt, b, adj, hash);
	}

	action = decrement_ttl(ctx, pkt);
	if (action != CONTINUE)
		return action;
	if (b->outer_kind == OUTER_NONE)
		action = rewrite_link(ctx, pkt, adj, 0, pkt->ethertype);
	else
		action = encap(ctx, pkt, b, adj, hash);
	if (action != CONTINUE)
		return action;
	count_backend(pkt, id);
	if (!(adj->flags & ADJ_COMPLETE))
		return resolve_next_hop(ctx, pkt, PUNT_NEIGHBOR_ENCAP);
	return send(ctx, pkt, adj->ifindex);
}

/* The hash says which VIP it can be; whether it is. */
ALWAYS_INLINE int is_for(const struct packet *pkt, const struct vip *vip)
{
	const __be32 *a = vip->address.word, *b = pkt->dst.word;

	if (vip->port != pkt->ports >> 16 || vip->proto != pkt->proto || vip->family != pkt->is_ipv6 || a[3] != b[3])
		return 0;
	return !pkt->is_ipv6 || (a[0] == b[0] && a[1] == b[1] && a[2] == b[2]);
}

/*
 * The VIP of the packet's destination, port and protocol; 0 for none. Nothing on the way waits for the comparisons, which a processor
 * foresees: neither their order nor the memory that they need is on the way to the backend.
 */
ALWAYS_INLINE __u32 vip_of(const struct packet *pkt)
{
	__u64 h = hash_words(0, bpf_ntohl(pkt->dst.word[3]), pkt->ports >> 16 << 16 | pkt->proto);
	const struct vip *row;
	__u32 vip;

	if (pkt->is_ipv6) {
		h = hash_words(h, pkt->dst.word[0], pkt->dst.word[1]);
		h = hash_words(h, pkt->dst.word[2], pkt->dst.word[3]);
	}
	vip = value_by_hash(&vip_buckets, h, VIP_BUCKET_BITS, BUCKET_VIP_BITS);
	if (!vip)
		return 0;
	row = bpf_map_lookup_elem(&vips, &vip);
	return row && is_for(pkt, row) ? vip : 0;
}

/* The VIP of the packet's port and protocol at all addresses of the prefix with this number, 0 for none. */
ALWAYS_INLINE __u32 vip_of_prefix(const struct packet *pkt, __u32 number)
{
	__u64 h = hash_words(0, number, pkt->ports >> 16 << 16 | pkt->proto);
	__u32 vip = value_by_hash(&vip_buckets, h, VIP_BUCKET_BITS, BUCKET_VIP_BITS);
	const struct vip *row;

	if (!vip)
		return 0;
	row = bpf_map_lookup_elem(&vips, &vip);
	return row && row->number == number && row->port == pkt->ports >> 16 && row->proto == pkt->proto ? vip : 0;
}

/*
 * The VIP of what vip_of() has none for, at the address or prefix with this number; 0 for none: of the port at all addresses of the
 * prefix, else of any port, else of any protocol. Nobody's are ICMP, and fragments that do not show what the first of their packet shows.
 */
ALWAYS_INLINE __u32 vip_of_any(const struct packet *pkt, __u32 number)
{
	const struct vip_address *a = bpf_map_lookup_elem(&vip_addresses, &number);
	__u32 vip = 0;

	if (!a)
		return 0;
	if (!has_ports(pkt->proto)) {
		if (pkt->is_ipv6 ? pkt->proto == PROTO_ICMPV6 || is_extension(pkt->proto) : pkt->proto == PROTO_ICMP)
			return 0;
		return a->any;
	}
	if (a->prefix && !is_trailing(pkt))
		vip = vip_of_prefix(pkt, number);
	if (!vip)
		vip = pkt->proto == PROTO_TCP ? a->tcp : pkt->proto == PROTO_UDP ? a->udp : a->sctp;
	if (!vip)
		vip = a->any;
	/* Where clients stay, all of a client's packets go the same way. */
	return is_trailing(pkt) && !(config.affinity && affinity_of(vip)) ? 0 : vip;
}

/* Those of the default VRF: CONTINUE where the packet is for no VIP. Invalidates: packet pointers. */
ALWAYS_INLINE int load_balance(struct xdp_md *ctx, struct packet *pkt)
{
	const struct backend *b;
	__u32 vip, id = 0;
	__u64 hash;

	if (!pkt->has_ports || vrf_of(pkt))
		return CONTINUE;
	vip = vip_of(pkt);
	if (!vip)
		return CONTINUE;
	trace_step(STAGE_VIP, vip, 0);
	hash = flow_hash(pkt);
	b = backend_for(ctx, pkt, vip, hash, &id);
	if (!b)
		return drop(pkt, DROP_VIP_NO_BACKEND);
	return to_backend(ctx, pkt, b, id, hash);
}
