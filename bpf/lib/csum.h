/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Internet checksums (RFC 1071, RFC 1624), inline: a helper call costs ten times the sum. */
#pragma once

#include "packet.h"

ALWAYS_INLINE __u16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Sum of `words` 16-bit words; `words` is a constant. */
ALWAYS_INLINE __u32 csum_words(const __u16 *p, int words)
{
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < words; i++)
		sum += p[i];
	return sum;
}

/* Of a sum of 32-bit words the sum of their halves, which is the same to csum_fold(). */
ALWAYS_INLINE __u32 csum_halves(__u64 sum)
{
	return (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
}

/* RFC 1624 eqn. 3: a 16-bit word of the header changes from `from` to `to`. */
ALWAYS_INLINE __u16 csum_replace(__u16 csum, __u16 from, __u16 to)
{
	return csum_fold((__u32)(__u16)~csum + (__u16)~from + to);
}
