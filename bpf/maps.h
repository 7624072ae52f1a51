/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every map, in the order in which a packet meets them. Sizes are limits; flows is resized by configuration. Pinned by
 * name under the ABI version, except punt_buckets and trace, which mean nothing to another process.
 *
 * Simple for now, behind the same look-up functions: tunnel_peers (a kernel LPM trie, ~1,000 ns for a random hit in 100k
 * prefixes), filter (a list walked in order).
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

struct port_counters {
	struct pkt_count counter[NR_COUNTERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, IFINDEX_MAX);
	__type(key, __u32); /* ifindex */
	__type(value, struct port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, VLAN_PORTS_MAX);
	__type(key, struct vlan_port_key);
	__type(value, struct port);
} vlan_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32); /* port */
	__type(value, struct port_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, TUNNEL_PEERS_MAX);
	__type(key, struct tunnel_peer_key);
	__type(value, struct tunnel_peer);
} tunnel_peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TUNNEL_SOURCES_MAX);
	__type(key, __u32);
	__type(value, struct source_range);
} tunnel_sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TUNNEL_PEERS_MAX);
	__type(key, __u32); /* VNI that some Tunnel has */
	__type(value, __u32);
} vnis SEC(".maps");

/* What is denied, by prefix, in the layout of the FIB: enum denied where a FIB has a group. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, DENIED_WORDS_MIN * sizeof(__u32));
} denied4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, DENIED_WORDS_MIN * sizeof(__u32));
} denied6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FILTER_OPS_MAX);
	__type(key, __u32);
	__type(value, struct filter_op);
} filter SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32); /* port that packets come in by */
	__type(value, struct clamp);
} clamps_in SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32); /* ifindex of the device that they leave by, a VLAN's own */
	__type(value, struct clamp);
} clamps_out SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 << VIP_BUCKET_BITS);
	__type(key, __u32);
	__type(value, struct hash_bucket);
} vip_buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, VIPS_MAX);
	__type(key, __u32); /* VIP */
	__type(value, struct vip);
} vips SEC(".maps");

/* Asked where no bucket has a VIP for the packet. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, VIPS_MAX);
	__type(key, __u32); /* number of the address */
	__type(value, struct vip_address);
} vip_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 << QUIC_BUCKET_BITS);
	__type(key, __u32);
	__type(value, struct hash_bucket);
} quic_servers SEC(".maps");

/* One value of as many lines as the knob says, in the memory of the process, too. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, FLOW_LINES_MIN *FLOW_WAYS * sizeof(__u64));
} flows SEC(".maps");

/* One value, so that slots lie side by side: entries of an array are 8 bytes apart at least. */
struct ring_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct ring));
};

/* By VIP. A ring is replaced whole, never edited while packets look. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, VIPS_MAX);
	__type(key, __u32);
	__array(values, struct ring_map);
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BACKENDS_MAX);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BACKENDS_MAX);
	__type(key, __u32);
	__type(value, struct pkt_count);
} backend_counters SEC(".maps");

/*
 * One value of as many words as the knob says, written by the process through mmap. So it begins with a page, here as there:
 * a line of 16 words is a cache line.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, FIB4_WORDS_MIN * sizeof(__u32));
} fib4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, FIB6_WORDS_MIN * sizeof(__u32));
} fib6 SEC(".maps");

/* By VRF, the default one aside. Of a size like the above, and of as many entries as there are VRFs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, VRF_WORDS_MIN * sizeof(__u32));
} vrfs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, GROUPS_MAX);
	__type(key, __u32);
	__type(value, struct group);
} groups SEC(".maps");

/* By group: a bit for each port that packets from there may come in by, as that port asks for it; bit 0: there is a way back. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, GROUPS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} origins SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NEXT_HOPS_MAX);
	__type(key, __u32);
	__type(value, struct next_hop);
} next_hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NEXT_HOPS_MAX);
	__type(key, __u32);
	__type(value, struct pkt_count);
} next_hop_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ADJACENCIES_MAX);
	__type(key, __u32);
	__type(value, struct adjacency);
} adjacencies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NR_PUNT_REASONS);
	__type(key, __u32); /* punt_reason */
	__type(value, struct punt_bucket);
} punt_buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, (PORTS_MAX * QUEUES_PER_PORT));
	__type(key, __u32); /* port * QUEUES_PER_PORT + queue */
	__type(value, __u32);
} xsks SEC(".maps");

#if EXPLAIN
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace);
} trace SEC(".maps");
#endif
