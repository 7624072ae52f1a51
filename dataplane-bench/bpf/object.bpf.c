// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The harness around a program of which nothing is known: it is entered by a tail call and does not come back. The same
 * call of a program that returns at once is what gets subtracted.
 */
#include "frame.h"

enum slot {
	SLOT_SUBJECT,
	SLOT_EMPTY,
	NR_SLOTS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, NR_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

/* In the object's BTF, for the process. */
struct slot_type {
	enum slot slot;
	enum moved moved;
};
const struct slot_type slot_type = {};

SEC("xdp")
int bench_object(struct xdp_md *ctx)
{
	if (begin(ctx))
		return account(XDP_ABORTED);
	bpf_tail_call_static(ctx, &slots, SLOT_SUBJECT);
	return account(XDP_ABORTED);
}

SEC("xdp")
int bench_tail(struct xdp_md *ctx)
{
	if (begin(ctx))
		return account(XDP_ABORTED);
	bpf_tail_call_static(ctx, &slots, SLOT_EMPTY);
	return account(XDP_ABORTED);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
