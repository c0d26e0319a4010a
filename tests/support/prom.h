/* A strict reader of the Prometheus text format 0.0.4: stricter than scrapers are, so that what
 * passes here passes there. Every family has one HELP, then one TYPE, then its samples, together;
 * no series twice; counters end in _total; histograms have rising bounds, counts that do not fall,
 * +Inf equal to _count, and a _sum. */
#ifndef TIDEGATE_TESTS_PROM_H
#define TIDEGATE_TESTS_PROM_H

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	PROM_LABELS_MAX = 8,
};

struct prom_label {
	char name[64], value[512];
};

struct prom_sample {
	char name[128];
	struct prom_label label[PROM_LABELS_MAX];
	unsigned n_labels;
	double value;
	unsigned family;
	unsigned long hash; /* of the name and the labels, for finding doubles */
};

struct prom_family {
	char name[128], type[16], help[512];
};

struct prom {
	struct prom_family *family;
	unsigned n_families;
	struct prom_sample *sample;
	unsigned n_samples;
	char error[768]; /* "" or what is wrong where */
};

static inline bool prom_fail(struct prom *p, unsigned line, const char *what)
{
	snprintf(p->error, sizeof(p->error), "line %u: %s", line, what);
	return false;
}

/* [a-zA-Z_:][a-zA-Z0-9_:]*, labels without the colon; cut into out. What follows, or NULL. */
static inline const char *prom_name(const char *s, bool colon, char *out, size_t cap)
{
	size_t n = 0;

	while (isalpha((unsigned char)s[n]) || s[n] == '_' || (colon && s[n] == ':') ||
		(n && isdigit((unsigned char)s[n])))
		n++;
	if (!n || n >= cap)
		return NULL;
	memcpy(out, s, n);
	out[n] = '\0';
	return s + n;
}

static inline const char *prom_label_value(const char *s, char *out, size_t cap)
{
	size_t n = 0;

	for (; *s != '"'; s++) {
		char c = *s;
		if (!c || c == '\n' || n + 1 >= cap)
			return NULL;
		if (c == '\\') {
			c = *++s;
			if (c == 'n')
				c = '\n';
			else if (c != '\\' && c != '"')
				return NULL;
		}
		out[n++] = c;
	}
	out[n] = '\0';
	return s + 1;
}

static inline const char *prom_labels(const char *s, struct prom_sample *m)
{
	for (;;) {
		if (m->n_labels == PROM_LABELS_MAX)
			return NULL;
		struct prom_label *l = &m->label[m->n_labels++];
		s = prom_name(s, false, l->name, sizeof(l->name));
		if (!s || s[0] != '=' || s[1] != '"')
			return NULL;
		s = prom_label_value(s + 2, l->value, sizeof(l->value));
		if (!s)
			return NULL;
		for (unsigned i = 0; i + 1 < m->n_labels; i++)
			if (!strcmp(m->label[i].name, l->name))
				return NULL;
		if (*s == '}')
			return s + 1;
		if (*s++ != ',')
			return NULL;
	}
}

static inline const char *prom_label(const struct prom_sample *m, const char *name)
{
	for (unsigned i = 0; i < m->n_labels; i++)
		if (!strcmp(m->label[i].name, name))
			return m->label[i].value;
	return NULL;
}

/* The sample of a name whose labels include the n_pairs given (name, value, name, value...), or
 * NULL. */
static inline const struct prom_sample *prom_find(
	const struct prom *p, const char *name, unsigned n_pairs, const char *const *pairs)
{
	for (unsigned i = 0; i < p->n_samples; i++) {
		const struct prom_sample *m = &p->sample[i];
		bool fits = !strcmp(m->name, name);
		for (unsigned k = 0; fits && k < n_pairs; k++) {
			const char *v = prom_label(m, pairs[2 * k]);
			fits = v && !strcmp(v, pairs[2 * k + 1]);
		}
		if (fits)
			return m;
	}
	return NULL;
}

static inline bool prom_ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n > m && !strcmp(s + n - m, end);
}

static inline bool prom_comment(struct prom *p, unsigned line, const char *s)
{
	bool help = !strncmp(s, "# HELP ", 7);
	char name[128];

	if (!help && strncmp(s, "# TYPE ", 7))
		return prom_fail(p, line, "neither HELP nor TYPE");
	const char *rest = prom_name(s + 7, true, name, sizeof(name));
	if (!rest || *rest++ != ' ' || !*rest)
		return prom_fail(p, line, "malformed comment");
	if (help) {
		for (unsigned i = 0; i < p->n_families; i++)
			if (!strcmp(p->family[i].name, name))
				return prom_fail(p, line, "second HELP");
		if (p->n_families && !p->family[p->n_families - 1].type[0])
			return prom_fail(p, line, "the last family has no TYPE");
		p->family = realloc(p->family, (p->n_families + 1) * sizeof(*p->family));
		struct prom_family *f = &p->family[p->n_families++];
		memset(f, 0, sizeof(*f));
		strcpy(f->name, name);
		snprintf(f->help, sizeof(f->help), "%s", rest);
		return true;
	}
	struct prom_family *f = p->n_families ? &p->family[p->n_families - 1] : NULL;
	if (!f || strcmp(f->name, name) || f->type[0])
		return prom_fail(p, line, "TYPE without a HELP right before it");
	if (strcmp(rest, "counter") && strcmp(rest, "gauge") && strcmp(rest, "histogram"))
		return prom_fail(p, line, "unknown type");
	if (!strcmp(rest, "counter") != prom_ends_with(name, "_total"))
		return prom_fail(p, line, "_total and counter do not go together");
	strcpy(f->type, rest);
	return true;
}

static inline bool prom_belongs(const struct prom_family *f, const char *name)
{
	size_t n = strlen(f->name);

	if (strcmp(f->type, "histogram"))
		return !strcmp(f->name, name);
	return !strncmp(f->name, name, n) &&
	       (!strcmp(name + n, "_bucket") || !strcmp(name + n, "_sum") ||
		       !strcmp(name + n, "_count"));
}

/* The same for labels in any order. */
static inline unsigned long prom_hash(const struct prom_sample *m)
{
	unsigned long sum = 0;

	for (unsigned i = 0; i <= m->n_labels; i++) {
		unsigned long h = 5381;
		for (const char *s = i ? m->label[i - 1].value : m->name; *s; s++)
			h = h * 33 + (unsigned char)*s;
		sum += h;
	}
	return sum;
}

static inline bool prom_same_series(const struct prom_sample *a, const struct prom_sample *b)
{
	if (a->hash != b->hash || strcmp(a->name, b->name) || a->n_labels != b->n_labels)
		return false;
	for (unsigned i = 0; i < a->n_labels; i++) {
		const char *v = prom_label(b, a->label[i].name);
		if (!v || strcmp(v, a->label[i].value))
			return false;
	}
	return true;
}

static inline bool prom_line(struct prom *p, unsigned line, const char *s)
{
	if (p->n_samples % 256 == 0)
		p->sample = realloc(p->sample, (p->n_samples + 256) * sizeof(*p->sample));
	struct prom_sample *m = &p->sample[p->n_samples];
	memset(m, 0, sizeof(*m));
	s = prom_name(s, true, m->name, sizeof(m->name));
	if (s && *s == '{')
		s = prom_labels(s + 1, m);
	if (!s || *s++ != ' ')
		return prom_fail(p, line, "malformed series");
	char *end;
	m->value = strtod(s, &end);
	if (end == s || *end || isspace((unsigned char)*s))
		return prom_fail(p, line, "malformed value");
	if (!p->n_families || !p->family[p->n_families - 1].type[0] ||
		!prom_belongs(&p->family[p->n_families - 1], m->name))
		return prom_fail(p, line, "sample outside its family");
	m->family = p->n_families - 1;
	m->hash = prom_hash(m);
	for (unsigned i = 0; i < p->n_samples; i++)
		if (prom_same_series(&p->sample[i], m))
			return prom_fail(p, line, "series given twice");
	p->n_samples++;
	return true;
}

/* One histogram: the samples of a family with one worker's label. Buckets come first, rising. */
static inline bool prom_histogram(struct prom *p, unsigned family, const char *worker)
{
	double last_le = -INFINITY, last = 0, inf = -1, count = -2;
	bool sum = false;

	for (unsigned i = 0; i < p->n_samples; i++) {
		const struct prom_sample *m = &p->sample[i];
		const char *w = prom_label(m, "worker");
		if (m->family != family || !w || strcmp(w, worker))
			continue;
		if (prom_ends_with(m->name, "_count"))
			count = m->value;
		if (prom_ends_with(m->name, "_sum"))
			sum = true;
		if (!prom_ends_with(m->name, "_bucket"))
			continue;
		const char *le = prom_label(m, "le");
		double bound = le ? strtod(le, NULL) : NAN;
		if (!(bound > last_le) || m->value < last)
			return prom_fail(p, 0, "buckets that do not rise");
		last_le = bound;
		last = m->value;
		if (!strcmp(le, "+Inf"))
			inf = m->value;
	}
	if (!sum || inf != count)
		return prom_fail(p, 0, "histogram without sum, or +Inf differs from count");
	return true;
}

static inline bool prom_check_histograms(struct prom *p)
{
	for (unsigned i = 0; i < p->n_samples; i++) {
		const struct prom_sample *m = &p->sample[i];
		const char *le = prom_label(m, "le");
		if (strcmp(p->family[m->family].type, "histogram") || (le && strcmp(le, "+Inf")))
			continue; /* the last bucket, the sum and the count stand for the whole */
		const char *worker = prom_label(m, "worker");
		if (!worker || !prom_histogram(p, m->family, worker))
			return prom_fail(p, 0, m->name);
	}
	return true;
}

/* False with p->error set. prom_free in either case. */
static inline bool prom_parse(struct prom *p, const char *text)
{
	memset(p, 0, sizeof(*p));
	for (unsigned line = 1; *text; line++) {
		const char *end = strchr(text, '\n');
		if (!end)
			return prom_fail(p, line, "no newline at the end");
		char *s = strndup(text, (size_t)(end - text));
		bool ok = *s == '#' ? prom_comment(p, line, s) : prom_line(p, line, s);
		free(s);
		if (!ok)
			return false;
		text = end + 1;
	}
	return prom_check_histograms(p);
}

static inline void prom_free(struct prom *p)
{
	free(p->family);
	free(p->sample);
}

#endif
