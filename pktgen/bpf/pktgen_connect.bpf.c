// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Takes packets to the client prefix of `pktgen connect` out of an interface's traffic: those of its protocol and ICMP go to
 * the AF_XDP socket of their queue, so that the kernel never answers for addresses that it does not have. Everything else
 * passes, ARP and neighbour discovery for the interface's own addresses among it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define QUEUES_MAX 256
#define PROTO_ICMP 1
#define PROTO_ICMPV6 58

/* Words as they lie in a packet; IPv4 has the first of each. */
const volatile __u32 net[4] = { 0 };
const volatile __u32 mask[4] = { 0 };
const volatile __u8 v6 = 0;
const volatile __u8 protocol = 0;

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

static __always_inline int to_client_v4(const __u8 *ip, const void *end)
{
	if ((const void *)(ip + 20) > end)
		return 0;
	if (ip[9] != protocol && ip[9] != PROTO_ICMP)
		return 0;
	return (*(const __u32 *)(ip + 16) & mask[0]) == net[0];
}

static __always_inline int to_client_v6(const __u8 *ip, const void *end)
{
	const __u32 *dst = (const void *)(ip + 24);

	if ((const void *)(ip + 40) > end)
		return 0;
	if (ip[6] != protocol && ip[6] != PROTO_ICMPV6)
		return 0;
	return (dst[0] & mask[0]) == net[0] && (dst[1] & mask[1]) == net[1] && (dst[2] & mask[2]) == net[2] &&
	       (dst[3] & mask[3]) == net[3];
}

SEC("xdp.frags")
int pktgen_connect(struct xdp_md *ctx)
{
	const void *end = (const void *)(long)ctx->data_end;
	const struct ethhdr *eth = (const void *)(long)ctx->data;
	const __u8 *ip = (const void *)(eth + 1);
	int ours;

	if ((const void *)ip > end)
		return XDP_PASS;
	if (v6)
		ours = eth->h_proto == bpf_htons(ETH_P_IPV6) && to_client_v6(ip, end);
	else
		ours = eth->h_proto == bpf_htons(ETH_P_IP) && to_client_v4(ip, end);
	if (!ours)
		return XDP_PASS;
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
