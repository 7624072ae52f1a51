// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the kernel's own tables and helpers cost: one program each, around it nothing but the choice of the next key.
 * A program without a primitive, bench_key4 or bench_key6, is what gets subtracted.
 */
#include "control.h"
#include "keys.h"
#include "lookup.h"
#include "helper.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
