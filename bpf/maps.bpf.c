// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* No program, only the shared maps: see maps.bpf.h. */
#include "maps.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
