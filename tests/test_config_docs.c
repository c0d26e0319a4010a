/* docs/configuration.md, the annotated example, the demo and the schema name the same keys; the
 * reference has the same types, defaults and ranges as the code. Run from the top of the source
 * tree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/config_parse.h"
#include "ops/config_raw.h"

#define REFERENCE "docs/configuration.md"
#define EXAMPLE   "docs/tidegate.example.yaml"

enum {
	KEYS_MAX = 256
};

struct key {
	char path[128];
	const cyaml_schema_value_t *schema;
	const cyaml_schema_field_t *field;
	bool in_reference, in_example;
};

static struct key keys[KEYS_MAX];
static unsigned n_keys;

/* Every key that holds a value or a list of them, as "routes[].heartbeat.interval". */
static void collect(const cyaml_schema_field_t *fields, const char *prefix)
{
	for (const cyaml_schema_field_t *f = fields; f->key; f++) {
		const cyaml_schema_value_t *v = &f->value;
		char path[128];
		if (v->type == CYAML_MAPPING) {
			snprintf(path, sizeof(path), "%s%s.", prefix, f->key);
			collect(v->mapping.fields, path);
		} else if (v->type == CYAML_SEQUENCE && v->sequence.entry->type == CYAML_MAPPING) {
			snprintf(path, sizeof(path), "%s%s[].", prefix, f->key);
			collect(v->sequence.entry->mapping.fields, path);
		} else {
			struct key *k = &keys[n_keys++];
			assert_true(n_keys < KEYS_MAX);
			snprintf(k->path, sizeof(k->path), "%s%s", prefix, f->key);
			k->schema = v;
			k->field = f;
		}
	}
}

static struct key *key_find(const char *path)
{
	for (unsigned i = 0; i < n_keys; i++)
		if (strcmp(keys[i].path, path) == 0)
			return &keys[i];
	return NULL;
}

static const struct config_rule *rule_find(const char *path)
{
	for (unsigned s = 0; s < CONFIG_RULE_SETS; s++)
		for (unsigned i = 0; i < config_rules[s].n; i++) {
			const struct config_rules *set = &config_rules[s];
			char whole[128];
			snprintf(whole, sizeof(whole), "%s%s%s", set->where, *set->where ? "." : "",
				set->rule[i].key);
			if (strcmp(whole, path) == 0)
				return &set->rule[i];
		}
	return NULL;
}

static int setup(void **state)
{
	collect(config_schema.mapping.fields, "");
	return 0;
}

/* Every rule belongs to a key, and its default is within its own range. */
static void test_rules(void **state)
{
	unsigned numbers = 0;

	for (unsigned i = 0; i < n_keys; i++)
		numbers += rule_find(keys[i].path) != NULL;
	for (unsigned s = 0; s < CONFIG_RULE_SETS; s++) {
		for (unsigned i = 0; i < config_rules[s].n; i++) {
			const struct config_rule *r = &config_rules[s].rule[i];
			uint64_t def;
			const char *why;
			assert_int_equal(config_unit_parse(r->unit, r->def, &def, &why), 0);
			assert_true((def >= r->least && def <= r->most) ||
				    (def == 0 && (r->flags & CONFIG_RULE_ZERO)));
			assert_true(r->bytes == 8 || (r->bytes == 4 && r->most <= UINT32_MAX));
		}
		numbers -= config_rules[s].n;
	}
	assert_int_equal(numbers, 0);
}

/* Cuts the next cell off a table row, in place; NULL when there is none. */
static char *cell(char **row)
{
	char *at = *row, *bar = strchr(at, '|'), *end;

	if (!bar)
		return NULL;
	*row = bar + 1;
	at += strspn(at, " ");
	for (end = bar; end > at && end[-1] == ' '; end--)
		;
	*end = '\0';
	return at;
}

static void expect_cell(const char *path, const char *what, const char *got, const char *want)
{
	if (strcmp(got, want) != 0)
		fail_msg("%s: %s is %s in " REFERENCE ", %s in the code", path, what, got, want);
}

static const char *type_name(const struct key *k, const struct config_rule *rule)
{
	static const char *const of_unit[] = {
		[CONFIG_UNIT_NUMBER] = "number",
		[CONFIG_UNIT_MS] = "duration",
		[CONFIG_UNIT_US] = "duration",
		[CONFIG_UNIT_BYTES] = "size",
	};

	if (rule)
		return of_unit[rule->unit];
	return k->schema->type == CYAML_ENUM       ? "choice"
	       : k->schema->type == CYAML_SEQUENCE ? "list"
						   : "text";
}

static void check_choices(const struct key *k, const char *range)
{
	char want[256] = "";
	size_t used = 0;

	for (uint32_t i = 0; i < k->schema->enumeration.count; i++)
		used += (size_t)snprintf(want + used, sizeof(want) - used, "%s`%s`", i ? ", " : "",
			k->schema->enumeration.strings[i].str);
	expect_cell(k->path, "the choice", range, want);
}

static void check_row(char *row)
{
	char *path = cell(&row), *type = cell(&row), *def = cell(&row), *range = cell(&row);
	char want[CONFIG_RANGE_TEXT_MAX + 2], text[CONFIG_RANGE_TEXT_MAX];

	assert_non_null(range);
	path[strlen(path) - 1] = '\0'; /* the closing back-quote */
	struct key *k = key_find(path + 1);
	if (!k)
		fail_msg(REFERENCE ": there is no key %s", path + 1);
	if (k->in_reference)
		fail_msg(REFERENCE ": %s stands there twice", k->path);
	k->in_reference = true;

	const struct config_rule *rule = rule_find(k->path);
	expect_cell(k->path, "the type", type, type_name(k, rule));
	if (rule) {
		snprintf(want, sizeof(want), "`%s`", rule->def);
		expect_cell(k->path, "the default", def, want);
		config_rule_range(rule, text);
		snprintf(want, sizeof(want), "`%s`", text);
		expect_cell(k->path, "the range", range, want);
	}
	if (k->schema->type == CYAML_ENUM)
		check_choices(k, range);
	bool required = !(k->schema->flags & CYAML_FLAG_OPTIONAL);
	if (required != (strncmp(def, "required", strlen("required")) == 0))
		fail_msg("%s: required in one of " REFERENCE " and the code only", k->path);
}

static void test_reference(void **state)
{
	FILE *f = fopen(REFERENCE, "r");
	char line[2048];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, "| `", 3) == 0)
			check_row(line + 1);
	fclose(f);
	for (unsigned i = 0; i < n_keys; i++)
		if (!keys[i].in_reference)
			fail_msg("%s is not in " REFERENCE, keys[i].path);
}

/* "routes[3].origins[0]" -> "routes[].origins" */
static void normalise(char *path)
{
	char *out = path;

	for (char *p = path; *p; p++) {
		if (*p >= '0' && *p <= '9' && out > path && out[-1] == '[')
			continue;
		*out++ = *p;
	}
	*out = '\0';
	if (out - path > 2 && strcmp(out - 2, "[]") == 0)
		out[-2] = '\0';
}

static void index_file(const char *path, struct config_index *ix)
{
	struct config_errors errors;
	char *text = calloc(1, 1 << 16);
	FILE *f = fopen(path, "r");

	assert_non_null(text);
	assert_non_null(f);
	size_t len = fread(text, 1, 1 << 16, f);
	fclose(f);
	assert_true(len < 1 << 16);
	config_errors_init(&errors);
	assert_int_equal(config_index_build(ix, text, len, &errors), 0);
	config_errors_fini(&errors);
	free(text);
}

static void test_example_keys(void **state)
{
	struct config_index ix;

	index_file(EXAMPLE, &ix);
	for (unsigned i = 1; i < ix.n; i++) {
		char path[CONFIG_PATH_MAX];
		config_index_path(&ix, &ix.node[i], path);
		normalise(path);
		struct key *k = key_find(path);
		if (k)
			k->in_example = true;
	}
	config_index_fini(&ix);
	for (unsigned i = 0; i < n_keys; i++)
		if (!keys[i].in_example)
			fail_msg("%s is not in " EXAMPLE, keys[i].path);
}

/* Loads without an error; what has a default is shown with it. */
static void test_example_loads(void **state)
{
	struct config *c = NULL;
	char *errors = NULL;
	const struct config_rules *rules = config_rules;

	if (config_load(EXAMPLE, &c, &errors) != 0)
		fail_msg("%s", errors);
	const void *where[CONFIG_RULE_SETS] = {[CONFIG_RULES_TOP] = c,
		[CONFIG_RULES_LISTENER] = &c->listeners[0],
		[CONFIG_RULES_ROUTE] = &c->routes[1],
		[CONFIG_RULES_UPSTREAM] = &c->upstreams[0],
		[CONFIG_RULES_WEIGHT] = &c->admission.weights[0]};
	for (unsigned s = 0; s < CONFIG_RULE_SETS; s++)
		for (unsigned i = 0; i < rules[s].n; i++) {
			const struct config_rule *r = &rules[s].rule[i];
			uint64_t def, value = 0;
			uint32_t narrow;
			const char *why, *at = (const char *)where[s] + r->offset;
			assert_int_equal(config_unit_parse(r->unit, r->def, &def, &why), 0);
			if (r->bytes == sizeof(narrow)) {
				memcpy(&narrow, at, sizeof(narrow));
				value = narrow;
			} else
				memcpy(&value, at, sizeof(value));
			if (value != def)
				fail_msg("%s is not the default in " EXAMPLE, r->key);
		}
	config_free(c);
}

static void test_demo_loads(void **state)
{
	const char *yaml = config_demo_yaml();
	struct config *c = NULL;
	char *errors = NULL;

	if (config_parse("demo", yaml, strlen(yaml), &c, &errors) != 0)
		fail_msg("%s", errors);
	config_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_reference),
		cmocka_unit_test(test_example_keys),
		cmocka_unit_test(test_example_loads),
		cmocka_unit_test(test_demo_loads),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
