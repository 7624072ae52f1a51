// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Sends the frames that user space has written to the slots, one a run: BPF_PROG_TEST_RUN in live-frame mode gives this
 * program a page of its pool, the program copies the next slot over it, waits until the frame is due, stamps it, and
 * redirects it to the interface. Pages come back as the receiver left them, so the whole frame is copied every time.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define WORD 8
#define INLINE_MAX 128
/* A pause of the clock must not keep a core for ever; a call of the clock takes at least some 10 ns. */
#define SPINS_MAX (1 << 20)

/* Set before load. Bytes of a slot behind its head, a multiple of WORD; number of slots; where to send. */
const volatile __u32 room = 64;
const volatile __u32 slot_count = 1;
const volatile __u32 ifindex = 0;
/* Tell user space when frames left, and write that time into them. */
const volatile __u8 timed = 0;

struct slot {
	/* In: when the frame is to leave, CLOCK_MONOTONIC; 0: at once. Out, where `timed`: when it left. */
	__u64 due_ns;
	__u16 len;
	/* Offset of a 32-bit send time; 0: none. */
	__u16 time_at;
	/* Offset of the checksum that covers it; 0: none. */
	__u16 csum_at;
	__u16 pad;
	__u8 bytes[];
};

_Static_assert(sizeof(struct slot) == 16, "src/backend/live.rs writes it");

/* Sizes are set before load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct slot) + 64);
} slots SEC(".maps");

/* Next slot to send; user space resets it before a call and reads from it how many frames the call took. */
__u32 next;

struct wait {
	__u64 due_ns;
	__u64 now_ns;
};

static long not_yet(__u32 turn, struct wait *wait)
{
	wait->now_ns = bpf_ktime_get_ns();
	return wait->now_ns >= wait->due_ns;
}

static __always_inline __u64 wait_until(__u64 due_ns)
{
	struct wait wait = { .due_ns = due_ns };

	wait.now_ns = bpf_ktime_get_ns();
	if (wait.now_ns < due_ns)
		bpf_loop(SPINS_MAX, not_yet, &wait, 0);
	return wait.now_ns;
}

/* RFC 1624 (eqn. 3) for 32 bits at an even or odd offset; a UDP checksum is never 0 (RFC 768). */
static __always_inline void stamp(struct slot *slot, __u32 time)
{
	__u32 time_at = slot->time_at, csum_at = slot->csum_at, sum, old, change;
	__be16 *csum;
	__u8 *place;

	if (!time_at || time_at > room - sizeof(time))
		return;
	place = slot->bytes + time_at;
	old = *(__u32 *)place;
	time = bpf_htonl(time);
	*(__u32 *)place = time;
	if (!csum_at || csum_at > room - sizeof(*csum))
		return;
	csum = (__be16 *)(slot->bytes + csum_at);
	change = (~old & 0xffff) + (~old >> 16) + (time & 0xffff) + (time >> 16);
	change = (change & 0xffff) + (change >> 16);
	change = (change & 0xffff) + (change >> 16);
	if (time_at & 1)
		change = ((change & 0xff) << 8) | (change >> 8);
	sum = (__u16) ~*csum + change;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*csum = (__u16)~sum ? ~sum : 0xffff;
}

/* Whole words, then the last word once more over what is left; 0 if the frame is not as long as it should be. */
static __always_inline int copy_words(void *data, void *end, struct slot *slot, __u32 len)
{
	__u32 last;

#pragma unroll
	for (__u32 at = 0; at < INLINE_MAX; at += WORD) {
		if (at + WORD > room || data + at + WORD > end)
			break;
		*(__u64 *)(data + at) = *(__u64 *)(slot->bytes + at);
	}
	last = len - WORD;
	if (last > room - WORD || last > INLINE_MAX - WORD)
		return 0;
	if (data + last + WORD > end)
		return 0;
	*(__u64 *)(data + last) = *(__u64 *)(slot->bytes + last);
	return 1;
}

SEC("xdp")
int pktgen_live(struct xdp_md *ctx)
{
	void *data, *end;
	struct slot *slot;
	__u32 index = next, len;

	if (index >= slot_count)
		return XDP_DROP;
	slot = bpf_map_lookup_elem(&slots, &index);
	if (!slot)
		return XDP_DROP;
	next = index + 1;
	len = slot->len;
	if (len < 14 || len > room)
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (end - data != len) {
		if (bpf_xdp_adjust_tail(ctx, (int)len - (int)(end - data)))
			return XDP_DROP;
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
	}
	if (slot->due_ns)
		slot->due_ns = wait_until(slot->due_ns);
	else if (timed)
		slot->due_ns = bpf_ktime_get_ns();
	if (timed)
		stamp(slot, (__u32)slot->due_ns);
	if (len <= INLINE_MAX) {
		if (!copy_words(data, end, slot, len))
			return XDP_DROP;
	} else if (bpf_xdp_store_bytes(ctx, 0, slot->bytes, len)) {
		return XDP_DROP;
	}
	return bpf_redirect(ifindex, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
