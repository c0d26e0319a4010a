#include "kern/bpf_copy.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "kern/bpf_lists.h"
#include "tidegate/abi.h"

struct copy {
	int from, to;
	struct bpf_map_info src, dst;
	size_t key_bytes, value_bytes; /* a value's, of all CPUs */
	void *key, *next, *value;
};

static bool per_cpu(const struct bpf_map_info *info)
{
	return info->type == BPF_MAP_TYPE_PERCPU_ARRAY || info->type == BPF_MAP_TYPE_PERCPU_HASH ||
	       info->type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

static size_t value_bytes(const struct bpf_map_info *info)
{
	size_t one = (info->value_size + 7) / 8 * 8;

	return per_cpu(info) ? one * (size_t)libbpf_num_possible_cpus() : one;
}

/* Can values go over? Keys can be read in any case, to count what is lost. */
static int copy_init(struct copy *c, int from, int to, bool *ret_alike)
{
	uint32_t len = sizeof(c->src);

	memset(c, 0, sizeof(*c));
	c->from = from;
	c->to = to;
	if (bpf_obj_get_info_by_fd(from, &c->src, &len))
		return -errno;
	len = sizeof(c->dst);
	if (bpf_obj_get_info_by_fd(to, &c->dst, &len))
		return -errno;
	c->key_bytes = c->src.key_size;
	size_t a = value_bytes(&c->src), b = value_bytes(&c->dst);
	c->value_bytes = a > b ? a : b;
	c->key = malloc(c->key_bytes);
	c->next = malloc(c->key_bytes);
	c->value = malloc(c->value_bytes);
	/* Values of several CPUs do not stretch. */
	*ret_alike = c->src.type == c->dst.type && c->src.key_size == c->dst.key_size &&
		     (!per_cpu(&c->src) || c->src.value_size == c->dst.value_size);
	return c->key && c->next && c->value ? 0 : -ENOMEM;
}

static void copy_fini(struct copy *c)
{
	free(c->key);
	free(c->next);
	free(c->value);
}

static bool copy_one(struct copy *c)
{
	memset(c->value, 0, c->value_bytes);
	/* Gone meanwhile is not lost. */
	if (bpf_map_lookup_elem(c->from, c->key, c->value))
		return true;
	if (!per_cpu(&c->src) && c->src.value_size > c->dst.value_size)
		memset((char *)c->value + c->dst.value_size, 0, c->value_bytes - c->dst.value_size);
	return !bpf_map_update_elem(c->to, c->key, c->value, BPF_ANY);
}

uint64_t bpf_copy_entries(int from, int to)
{
	struct copy c;
	uint64_t lost = 0, seen = 0;
	bool alike = false;
	void *at = NULL;

	if (from < 0)
		return 0;
	int rc = copy_init(&c, from, to, &alike);
	/* Bounded, for the keys of a map that changes all the while may lead round in circles. */
	while (!rc && seen < 2ull * c.src.max_entries && !bpf_map_get_next_key(from, at, c.next)) {
		memcpy(c.key, c.next, c.key_bytes);
		at = c.key;
		if (!alike || !copy_one(&c))
			lost++;
		seen++;
	}
	copy_fini(&c);
	return lost;
}

static void raise_filter(int filter, uint32_t entries, const struct tg_prefix *key, uint64_t until)
{
	uint32_t i = tg_filter_index(bpf_prefix_bits(key), key->len, entries);
	struct tg_penalty_filter f;

	if (!bpf_map_lookup_elem(filter, &i, &f) && f.until_ns < until) {
		f.until_ns = until;
		bpf_map_update_elem(filter, &i, &f, BPF_ANY);
	}
}

void bpf_penalty_index(int penalty, int filter, int pace)
{
	struct bpf_map_info info = {0};
	struct tg_prefix key, next;
	struct tg_penalty box;
	struct tg_pace p;
	uint32_t zero = 0, len = sizeof(info);
	void *at = NULL;

	if (bpf_map_lookup_elem(pace, &zero, &p) || bpf_obj_get_info_by_fd(filter, &info, &len))
		return;
	while (!bpf_map_get_next_key(penalty, at, &next)) {
		key = next;
		at = &key;
		if (bpf_map_lookup_elem(penalty, &key, &box))
			continue;
		raise_filter(filter, info.max_entries, &key, box.until_ns);
		if (p.penalty_until_ns < box.until_ns)
			p.penalty_until_ns = box.until_ns;
	}
	bpf_map_update_elem(pace, &zero, &p, BPF_ANY);
}
