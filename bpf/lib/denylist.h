/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What comes from denied prefixes, or goes to some, is dropped, ahead of everything that a policy says. */
#pragma once

#include "fib.h"
#include "verdict.h"

/* What is denied of an IPv6 address. Global: the verifier walks it once, whatever it is asked of. */
__noinline __u32 denied6_of(const struct ip_addr *address)
{
	__u32 zero = 0, denied;
	const __u32 *word = bpf_map_lookup_elem(&denied6, &zero);

	if (!word || !address)
		return 0;
	denied = fib_find(word, config.denied6_words, FIB6_ROOTS_A_LINE, high_half(address), low_half(address),
			  FIB6_BLOCKS);
	return denied ? denied : word[FIB6_DEFAULT_WORD];
}

/* What is denied of an address. */
ALWAYS_INLINE __u32 denied_of(const struct ip_addr *address, int is_ipv6)
{
	__u32 zero = 0, denied;
	const __u32 *word;

	if (is_ipv6)
		return denied6_of(address);
	word = bpf_map_lookup_elem(&denied4, &zero);
	if (!word)
		return 0;
	denied = fib_find(word, config.denied4_words, FIB6_ROOTS_A_LINE, (__u64)bpf_ntohl(address->word[3]) << 32, 0,
			  FIB4_BLOCKS);
	return denied ? denied : word[FIB6_DEFAULT_WORD];
}

ALWAYS_INLINE int denylist(struct packet *pkt)
{
	__u32 denied = 0;

	if (config.denied_sources)
		denied = denied_of(&pkt->src, pkt->is_ipv6) & DENIED_SOURCE;
	if (config.denied_destinations && !denied)
		denied = denied_of(&pkt->dst, pkt->is_ipv6) & DENIED_DESTINATION;
	if (config.denied_sources || config.denied_destinations)
		trace_step(STAGE_DENYLIST, denied, 0);
	return denied ? drop(pkt, DROP_DENYLIST) : CONTINUE;
}
