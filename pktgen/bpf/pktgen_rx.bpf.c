// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Takes this run's packets out of an interface's traffic: those that carry its magic go to the AF_XDP socket of their
 * queue, everything else passes to the kernel. What pktgen sent may have been encapsulated on the way, so one IP in IP or
 * VXLAN header is looked through. The same search is in src/stamp.rs, which checks what comes out of the sockets.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define QUEUES_MAX 256
#define VXLAN_PORT 4789
#define TCP_SYN 0x02

/* First word of a UDP payload; TCP SYNs have its halves in the window and the top of the acknowledgment number. */
const volatile __be32 magic = 0;

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct cursor {
	void *pos;
	void *end;
	__be16 ethertype;
	__u8 protocol;
};

static __always_inline void *take(struct cursor *c, __u32 bytes)
{
	void *here = c->pos;

	if (here + bytes > c->end)
		return NULL;
	c->pos = here + bytes;
	return here;
}

static __always_inline int link_header(struct cursor *c)
{
	struct ethhdr *eth = take(c, sizeof(*eth));
	__be16 *tag;

	if (!eth)
		return 0;
	c->ethertype = eth->h_proto;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (c->ethertype != bpf_htons(ETH_P_8021Q) && c->ethertype != bpf_htons(ETH_P_8021AD))
			break;
		tag = take(c, 4);
		if (!tag)
			return 0;
		c->ethertype = tag[1];
	}
	return 1;
}

static __always_inline int ip_header(struct cursor *c)
{
	__u8 *ip;
	__u32 options;

	if (c->ethertype == bpf_htons(ETH_P_IP)) {
		ip = take(c, 20);
		if (!ip || (ip[0] & 0xf) < 5)
			return 0;
		options = ((ip[0] & 0xf) - 5) * 4;
		c->protocol = ip[9];
		return !options || take(c, options);
	}
	if (c->ethertype == bpf_htons(ETH_P_IPV6)) {
		ip = take(c, 40);
		if (!ip)
			return 0;
		c->protocol = ip[6];
		return 1;
	}
	return 0;
}

/* Past one outer header, if there is one. */
static __always_inline int decapsulate(struct cursor *c)
{
	__be16 *udp;

	if (c->protocol == 4 || c->protocol == 41) {
		c->ethertype = c->protocol == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
		return ip_header(c);
	}
	if (c->protocol == 17) {
		udp = c->pos;
		if ((void *)(udp + 2) > c->end)
			return 0;
		if (udp[1] == bpf_htons(VXLAN_PORT))
			return take(c, 16) && link_header(c) && ip_header(c);
	}
	return 1;
}

static __always_inline int is_ours(struct cursor *c)
{
	__u32 host = bpf_ntohl(magic);
	__u8 *tcp;
	__u8 *udp;

	if (c->protocol == 17) {
		udp = take(c, 12);
		return udp && *(__be32 *)(udp + 8) == magic;
	}
	if (c->protocol == 6) {
		tcp = take(c, 20);
		return tcp && tcp[13] == TCP_SYN && tcp[8] == (host >> 24) &&
		       *(__be16 *)(tcp + 14) == bpf_htons(host & 0xffff);
	}
	return 0;
}

SEC("xdp")
int pktgen_rx(struct xdp_md *ctx)
{
	struct cursor c = { .pos = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end };

	if (!link_header(&c) || !ip_header(&c) || !decapsulate(&c) || !is_ours(&c))
		return XDP_PASS;
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
