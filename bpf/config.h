/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Knobs, set between open and load. The verifier sees them as constants and removes what is off, lookups included; all
 * on is the form that has to pass the verifier. Read a knob once a stage: each read is a load.
 */
#pragma once

#include "abi.h"

/*
 * Built with it, the program records the decision path and changes nothing outside the packet; never attached. No knob: a knob
 * that is off still costs its load wherever a step might be recorded.
 */
#ifndef EXPLAIN
#define EXPLAIN 0
#endif

/*
 * Built with it, packets take their routes from the VRF of their port. No knob either: whoever has no VRFs, which is nearly everybody,
 * has a program that was built without.
 */
#ifndef VRFS
#define VRFS 0
#endif

struct config {
	__u8 decap_ipip;     /* take in IP in IP from configured peers */
	__u8 decap_vxlan;    /* take in VXLAN from configured peers */
	__u8 denied_sources; /* drop what comes from denied prefixes */
	__u8 filter;	     /* untracked policy */
	__u8 vip;	     /* load balancing */
	__u8 vlan;	     /* VLAN ports and VLAN adjacencies */
	__u8 slow_path;	     /* punt to AF_XDP sockets */
	__u8 source_validation;
	__u16 vxlan_port; /* UDP, host order */
	__u16 gue_port;	  /* likewise */
	__u32 punt_rate;  /* punts a second, reason and CPU; also the burst */
	__u32 fib4_words; /* size of the map */
	__u32 fib6_words;
	__u32 flow_lines;	  /* size of the flow table */
	__u32 vrf_words;	  /* size of a value of the map */
	__u64 hash_seed;	  /* the node's own, for the choice among next hops */
	__u8 decap_gue;		  /* take in GUE from configured peers */
	__u8 quic;		  /* packets go by their QUIC connection ID */
	__u8 max_mss;		  /* lower the maximum segment size of TCP */
	__u8 affinity;		  /* clients stay with their backends */
	__u8 denied_destinations; /* drop what is for denied prefixes */
	__u8 pad[3];
	__u32 denied4_words; /* size of the map */
	__u32 denied6_words;
};

const volatile struct config config = {
	.decap_ipip = 1,
	.decap_vxlan = 1,
	.decap_gue = 1,
	.quic = 1,
	.affinity = 1,
	.denied_sources = 1,
	.denied_destinations = 1,
	.filter = 1,
	.vip = 1,
	.vlan = 1,
	.slow_path = 1,
	.source_validation = 1,
	.max_mss = 1,
	.vxlan_port = 4789,
	.gue_port = 6080,
	.punt_rate = 1000,
	.fib4_words = FIB4_WORDS_MIN,
	.fib6_words = FIB6_WORDS_MIN,
	.denied4_words = DENIED_WORDS_MIN,
	.denied6_words = DENIED_WORDS_MIN,
	.flow_lines = FLOW_LINES_MIN,
	.hash_seed = 1,
	.vrf_words = VRF_WORDS_MIN,
};

/* Names and help of the reasons, for the CLI, the metrics and the documents. */
const char drop_names[NR_DROP_REASONS][24] = {
#define X(name, help) #name,
	DROP_REASONS(X)
#undef X
};

const char drop_help[NR_DROP_REASONS][96] = {
#define X(name, help) help,
	DROP_REASONS(X)
#undef X
};

const char punt_names[NR_PUNT_REASONS][24] = {
#define X(name, fallback, help) #name,
	PUNT_REASONS(X)
#undef X
};

const char punt_help[NR_PUNT_REASONS][96] = {
#define X(name, fallback, help) help,
	PUNT_REASONS(X)
#undef X
};

/* Puts the enums and the layouts that no map holds into the object's BTF, from where Rust takes them. */
struct abi_types {
	enum limits limits;
	enum drop_reason drop_reason;
	enum punt_reason punt_reason;
	enum counter counter;
	enum source_validation source_validation;
	enum denied denied;
	enum filter_field filter_field;
	enum filter_next filter_next;
	enum tunnel_kind tunnel_kind;
	enum bucket_value bucket_value;
	enum vip_family vip_family;
	enum ring_slot ring_slot;
	enum flow_entry flow_entry;
	enum outer_kind outer_kind;
	enum backend_flags backend_flags;
	enum fib_ref fib_ref;
	enum group_flags group_flags;
	enum next_hop_kind next_hop_kind;
	enum adjacency_flags adjacency_flags;
	enum punt_flags punt_flags;
	enum stage stage;
	struct punt_meta punt_meta;
	struct trace trace;
};

const struct abi_types abi_types = {};
