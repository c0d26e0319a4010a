#include "kern/bpf_proven.h"

#include <errno.h>

#include <bpf/bpf.h>

#include "kern/bpf_lists.h"

int bpf_proven_find(int proven_fd, uint64_t seed, const struct tg_prefix *prefix,
	struct bpf_proven_place *ret_place)
{
	uint64_t hash = tg_proven_hash(seed, bpf_prefix_bits(prefix), prefix->len, prefix->family);
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	struct bpf_proven_place *p = ret_place;

	*p = (struct bpf_proven_place){.tag = tg_proven_tag(hash)};
	if (bpf_obj_get_info_by_fd(proven_fd, &info, &len))
		return -errno;
	p->index = (uint32_t)hash & (info.max_entries - 1);
	if (bpf_map_lookup_elem(proven_fd, &p->index, &p->entry))
		return -errno;
	for (uint32_t i = 0; i < TG_PROVEN_WAYS; i++) {
		if (p->entry.share[i].tag == p->tag) {
			p->way = i;
			return 0;
		}
		if (tg_share_gives_way(&p->entry.share[i], &p->entry.share[p->way]))
			p->way = i;
	}
	return -ENOENT;
}

int bpf_proven_put(int proven_fd, uint64_t seed, const struct tg_prefix *prefix, uint32_t weight)
{
	struct bpf_proven_place p;
	int rc = bpf_proven_find(proven_fd, seed, prefix, &p);

	if (rc && rc != -ENOENT)
		return rc;
	if (rc)
		p.entry.share[p.way] = (struct tg_share){.tag = p.tag};
	p.entry.share[p.way].weight = weight;
	return bpf_map_update_elem(proven_fd, &p.index, &p.entry, BPF_ANY) ? -errno : 0;
}

void bpf_proven_index(int sources_fd, int proven_fd, uint64_t seed, const struct tg_settings *tiers)
{
	struct tg_prefix key, next;
	struct tg_source source;
	void *at = NULL;

	while (!bpf_map_get_next_key(sources_fd, at, &next)) {
		key = next;
		at = &key;
		if (key.len == tiers->tier[key.family == 6][0].len &&
			!bpf_map_lookup_elem(sources_fd, &key, &source))
			bpf_proven_put(proven_fd, seed, &key, source.weight);
	}
}
