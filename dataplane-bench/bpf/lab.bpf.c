// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Both ends of a trial that are not under test: the sink, which counts and drops what comes out of a device; and two devices
 * to hold others against: a redirect from one port to the other, and a router on the kernel's tables. The sink is what rates are taken from: it sees
 * every frame that the driver delivers, whatever user space would have missed.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "router.h"

enum {
	SAMPLES = 1024,	    /* frames kept of a run, the first ones */
	SAMPLE_BYTES = 128, /* of each, from its start */
	IP4_DESTINATION = ETH_HLEN + 16,
	IP6_DESTINATION = ETH_HLEN + 24,
	/* Latencies in ns, in buckets of a width that is 1/128 of their start: bits, and buckets up to 2^32. */
	BUCKET_BITS = 7,
	BUCKETS = (32 - BUCKET_BITS + 1) << BUCKET_BITS,
	/* From the end of an IP packet back to the send time in pktgen's stamp. */
	STAMP_TIME = 6,
};

struct count {
	__u64 packets; /* to the networks of benchmarks */
	__u64 bytes;
	__u64 others; /* anything else, which goes on to the kernel */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

struct sample {
	__u32 len;
	__u8 bytes[SAMPLE_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SAMPLES);
	__type(key, __u32);
	__type(value, struct sample);
} samples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} latencies SEC(".maps");

/* Frames to keep, and kept so far; whether latencies are taken. */
struct sampling {
	__u32 wanted;
	__u32 kept;
	__u32 timed;
} sampling;

/* Where `lab_redirect` sends, and how the frame is addressed there. */
const volatile __u32 egress_ifindex = 0;
const volatile __u8 egress_destination[ETH_ALEN];
const volatile __u8 egress_source[ETH_ALEN];

/* 198.18.0.0/15 (RFC 2544 appendix C.2.2) and 2001:2::/48 (RFC 5180 section 8). */
static __always_inline int is_benchmark(void *data, void *end)
{
	struct ethhdr *eth = data;
	__be32 *word;

	if (data + ETH_HLEN > end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		word = data + IP4_DESTINATION;
		return (void *)(word + 1) <= end && (*word & bpf_htonl(0xfffe0000)) == bpf_htonl(0xc6120000);
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		word = data + IP6_DESTINATION;
		return (void *)(word + 2) <= end && word[0] == bpf_htonl(0x20010002) &&
		       !(word[1] & bpf_htonl(0xffff0000));
	}
	return 0;
}

static __always_inline void keep(struct xdp_md *ctx)
{
	__u32 bytes = ctx->data_end - ctx->data, at = __sync_fetch_and_add(&sampling.kept, 1);
	struct sample *sample = bpf_map_lookup_elem(&samples, &at);

	if (!sample)
		return;
	sample->len = bytes;
	if (bytes > SAMPLE_BYTES)
		bytes = SAMPLE_BYTES;
	/* is_benchmark has seen more than a link header; the verifier has forgotten it. */
	if (bytes >= ETH_HLEN)
		bpf_xdp_load_bytes(ctx, 0, sample->bytes, bytes);
}

static __always_inline __u32 bucket_of(__u32 ns)
{
	__u32 exponent = 0, rest = ns;

#pragma unroll
	for (__u32 step = 16; step; step /= 2) {
		if (rest >> step) {
			rest >>= step;
			exponent += step;
		}
	}
	if (exponent < BUCKET_BITS)
		return ns;
	exponent -= BUCKET_BITS;
	/* The leading bit of what is left counts one exponent more. */
	return (exponent << BUCKET_BITS) + (ns >> exponent);
}

/* The time since the stamp of pktgen's, which is the low half of the same clock. */
static __always_inline void take_latency(struct xdp_md *ctx, void *data, void *end, __u32 now)
{
	struct ethhdr *eth = data;
	__u32 length, bucket;
	__be32 sent;
	__u64 *count;
	__be16 *word;

	if (data + IP4_DESTINATION + 4 > end)
		return;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		word = data + ETH_HLEN + 2;
		length = ETH_HLEN + bpf_ntohs(*word);
	} else {
		word = data + ETH_HLEN + 4;
		length = ETH_HLEN + 40 + bpf_ntohs(*word);
	}
	if (bpf_xdp_load_bytes(ctx, length - STAMP_TIME, &sent, sizeof(sent)))
		return;
	bucket = bucket_of(now - bpf_ntohl(sent));
	count = bpf_map_lookup_elem(&latencies, &bucket);
	if (count)
		*count += 1;
}

SEC("xdp")
int lab_sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct count *count;
	__u32 zero = 0;

	count = bpf_map_lookup_elem(&counts, &zero);
	if (!count)
		return XDP_ABORTED;
	if (!is_benchmark(data, end)) {
		count->others++;
		return XDP_PASS;
	}
	count->packets++;
	count->bytes += end - data;
	if (sampling.timed)
		take_latency(ctx, data, end, (__u32)bpf_ktime_get_ns());
	if (sampling.kept < sampling.wanted)
		keep(ctx);
	return XDP_DROP;
}

SEC("xdp")
int lab_redirect(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if (!is_benchmark(data, end))
		return XDP_PASS;
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) {
		eth->h_dest[i] = egress_destination[i];
		eth->h_source[i] = egress_source[i];
	}
	return bpf_redirect(egress_ifindex, 0);
}

SEC("xdp")
int lab_router(struct xdp_md *ctx)
{
	return route_packet(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
