/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the bench tells a measured program before a run, and what it reads back after it. */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* In a section of its own: a map whose one value is this struct, whatever else an object holds. */
struct control {
	__u32 next;	  /* packets so far: which key or flow comes next */
	__u32 mask;	  /* keys or flows of the case less one, a power of two less one */
	__u32 first;	  /* the case's first entry in the table of keys */
	__u32 expected;	  /* the XDP action of every packet */
	__u64 unexpected; /* packets that ended otherwise */
	__u64 result;	  /* what the last look-up found */
};

struct control control SEC(".data.control");

/*
 * The number of the next packet. An atomic operation is a barrier: without it a short program's look-ups for two packets
 * overlap, and what is measured is half a miss. Between the packets of a driver lie hundreds of instructions.
 */
static __always_inline __u32 next_packet(void)
{
	return __sync_fetch_and_add(&control.next, 1);
}

/* Every packet is checked, not the last one alone: a compare that is never taken costs less than it is worth. */
static __always_inline int account(int action)
{
	if ((__u32)action != control.expected)
		control.unexpected++;
	return action;
}

static __always_inline int found(__u64 value)
{
	control.result = value;
	return XDP_PASS;
}

/* What is left of a figure when nothing is measured: BPF_PROG_TEST_RUN's own loop. */
SEC("xdp")
int bench_empty(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_PASS;
}
