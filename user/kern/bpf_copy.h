/* Moving a map's entries into another one: what a start does that cannot adopt the maps it found.
 */
#ifndef TIDEGATE_KERN_BPF_COPY_H
#define TIDEGATE_KERN_BPF_COPY_H

#include <stdint.h>

/* Copies all entries. Keys must be alike; of a value as many bytes as both have, the rest is zero.
 * The entries that found no room, or all of them when the keys differ. Nothing to do for a
 * descriptor < 0. */
uint64_t bpf_copy_entries(int from, int to);

/* Makes penalty_filter and pace.penalty_until_ns cover all that is in `penalty`. */
void bpf_penalty_index(int penalty, int filter, int pace);

#endif
