/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Load balancing: VIP -> flow table -> Maglev ring -> backend -> out. The FIB has found the VIP's address, so packets for others pay
 * nothing. The flow table makes a flow stick to its backend while the ring changes; it is never needed for an answer.
 */
#pragma once

#include "adjacency.h"
#include "fib.h"

/* The backend with this id if it serves this VIP, else NULL. */
ALWAYS_INLINE const struct backend *backend_of(__u32 id, __u32 vip)
{
	const struct backend *b = bpf_map_lookup_elem(&backends, &id);

	return b && b->group && b->vip_id == vip ? b : NULL;
}

ALWAYS_INLINE __u32 ring_choice(__u32 vip, __u64 hash)
{
	__u32 slot = hash_to_slot(hash);
	void *ring = bpf_map_lookup_elem(&rings, &vip);
	__u32 *id = ring ? bpf_map_lookup_elem(ring, &slot) : NULL;

	trace_step(STAGE_RING, id ? *id : 0, slot);
	return id ? *id : 0;
}

/* The flow's backend; `id` tells which. NULL where none is usable. */
ALWAYS_INLINE const struct backend *choose_backend(const struct packet *pkt, __u32 vip, __u64 hash, __u32 *id)
{
	struct flow_key key = {
		.source = pkt->src,
		.destination = pkt->dst,
		.source_port = bpf_htons(sport_of(pkt)),
		.destination_port = bpf_htons(dport_of(pkt)),
		.protocol = pkt->proto,
	};
	const struct flow *remembered = bpf_map_lookup_elem(&flows, &key);
	const struct backend *b;

	trace_step(STAGE_FLOW, remembered ? remembered->backend : 0, 0);
	if (remembered) {
		*id = remembered->backend;
		b = backend_of(*id, vip);
		if (b)
			return b;
	}
	*id = ring_choice(vip, hash);
	b = backend_of(*id, vip);
	if (b && !EXPLAIN) {
		struct flow flow = { .backend = *id, .seen_s = bpf_ktime_get_coarse_ns() / 1000000000ULL };

		bpf_map_update_elem(&flows, &key, &flow, BPF_ANY);
	}
	return b;
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

/* Invalidates: packet pointers. */
ALWAYS_INLINE int to_backend(struct xdp_md *ctx, struct packet *pkt, const struct backend *b, __u32 id, __u64 hash)
{
	const struct next_hop *nh;
	const struct adjacency *adj;
	int action;

	trace_step(STAGE_BACKEND, id, b->outer_kind);
	if (source_link_local(pkt))
		return drop(pkt, DROP_SRC_INVALID);
	if (pkt->ttl <= 1)
		return punt_plain(ctx, pkt, PUNT_TTL_EXCEEDED);
	if (pkt->len > b->inner_mtu)
		return too_big(ctx, pkt, b->inner_mtu);
	nh = next_hop_of(ctx, pkt, b->group, hash);
	if (!nh || nh->kind != NH_FORWARD)
		return drop(pkt, DROP_INTERNAL);
	adj = adjacency_of(nh);
	if (!adj)
		return drop(pkt, DROP_INTERNAL);
	if (b->outer_kind == OUTER_NONE && !(adj->flags & ADJ_COMPLETE))
		return punt_neighbor(ctx, pkt, PUNT_NEIGHBOR, nh->ifindex, &nh->address);

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
		return punt_neighbor(ctx, pkt, PUNT_NEIGHBOR_ENCAP, nh->ifindex, &nh->address);
	return send(ctx, pkt, adj->ifindex);
}

/* The VIP of this key, an entry without its VIP; 0 where the bucket does not have it. */
ALWAYS_INLINE __u32 vip_in_bucket(__u32 bucket, __u64 key)
{
	const struct vip_bucket *b = bpf_map_lookup_elem(&vips, &bucket);
	__u32 vip = 0;

	if (!b)
		return 0;
#pragma unroll
	for (int i = 0; i < VIP_BUCKET_ENTRIES; i++) {
		__u64 entry = b->entry[i], other = (entry ^ key) >> VIP_ENTRY_PROTOCOL_SHIFT;

		/* All ones where nothing is other: at most one of them, and no branch for it. */
		vip |= entry & (__u64)((__s64)(other - 1) >> 63);
	}
	return vip & ((1u << VIP_ENTRY_PROTOCOL_SHIFT) - 1);
}

/* The VIP of the packet's port and protocol at its destination, which has this number; 0 for none. */
ALWAYS_INLINE __u32 vip_of(const struct packet *pkt, __u32 address)
{
	__u64 key = (__u64)address << VIP_ENTRY_ADDRESS_SHIFT | (__u64)(pkt->ports >> 16) << VIP_ENTRY_PORT_SHIFT |
		    (__u64)pkt->proto << VIP_ENTRY_PROTOCOL_SHIFT;
	__u64 h = (key >> VIP_ENTRY_PROTOCOL_SHIFT) * 0x9E3779B97F4A7C15ULL;

	return vip_in_bucket(h >> 32 & (VIP_BUCKETS - 1), key) |
	       vip_in_bucket(VIP_BUCKETS + (h >> 48 & (VIP_BUCKETS - 1)), key);
}

/* A packet for an address that VIPs have: CONTINUE where none of them takes it. Invalidates: packet pointers. */
ALWAYS_INLINE int load_balance(struct xdp_md *ctx, struct packet *pkt, __u32 address)
{
	const struct backend *b;
	__u32 vip, id = 0;
	__u64 hash;

	if (!pkt->has_ports)
		return CONTINUE;
	vip = vip_of(pkt, address);
	if (!vip)
		return CONTINUE;
	trace_step(STAGE_VIP, vip, 0);
	hash = flow_hash(pkt);
	b = choose_backend(pkt, vip, hash, &id);
	if (!b)
		return drop(pkt, DROP_VIP_NO_BACKEND);
	return to_backend(ctx, pkt, b, id, hash);
}
