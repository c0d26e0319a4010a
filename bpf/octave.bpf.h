/* Octaves: log2 in whole steps. */
#ifndef TIDEGATE_BPF_OCTAVE_H
#define TIDEGATE_BPF_OCTAVE_H

#include "kernel.bpf.h"

/* 0 for 0, else 1 + the number of the highest bit set. A global function: the verifier looks at its
 * branches once, and not once for each way that leads here. */
__noinline int octave(__u64 v)
{
	int n = 0;

#pragma unroll
	for (int step = 32; step; step /= 2) {
		if (v >> step) {
			v >>= step;
			n += step;
		}
	}
	return v ? n + 1 : 0;
}

#endif
