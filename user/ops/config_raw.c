#include "ops/config_raw.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One line of libcyaml's backtrace, which goes from the value outwards. */
struct frame {
	char field[64];   /* "": none, the mapping or the list item itself */
	unsigned entries; /* > 0: a list, so many entries of it were begun */
};

/* What libcyaml says while it loads: its result is only a code. */
struct report {
	char message[CONFIG_ERROR_TEXT_MAX]; /* the first error, without "Load: " */
	struct frame frame[CONFIG_INDEX_DEPTH_MAX * 2];
	unsigned frames;
	bool backtrace;
};

static void report_frame(struct report *r, const char *line)
{
	struct frame f = {.field = ""};

	if (r->frames == sizeof(r->frame) / sizeof(*r->frame))
		return;
	if (sscanf(line, " in mapping field '%63[^']'", f.field) == 1 ||
		sscanf(line, " in sequence entry '%u'", &f.entries) == 1 ||
		strncmp(line, "  in mapping (", strlen("  in mapping (")) == 0)
		r->frame[r->frames++] = f;
}

static void report_line(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
	static const char prefix[] = "Load: ";
	struct report *r = ctx;
	char line[CONFIG_ERROR_TEXT_MAX];

	if (level != CYAML_LOG_ERROR)
		return;
	int len = vsnprintf(line, sizeof(line), fmt, args);
	if (len > 0 && (size_t)len < sizeof(line) && line[len - 1] == '\n')
		line[len - 1] = '\0';

	if (strcmp(line, "Load: Backtrace:") == 0)
		r->backtrace = true;
	else if (r->backtrace)
		report_frame(r, line);
	else if (r->message[0] == '\0')
		snprintf(r->message, sizeof(r->message), "%s",
			line + (strncmp(line, prefix, strlen(prefix)) == 0 ? strlen(prefix) : 0));
}

/* What the error is about: the path that the frames spell, and its schema. */
struct place {
	char path[CONFIG_PATH_MAX];
	const cyaml_schema_value_t *schema;
};

static const cyaml_schema_value_t *field_of(const cyaml_schema_value_t *schema, const char *key)
{
	if (schema->type == CYAML_MAPPING)
		for (const cyaml_schema_field_t *f = schema->mapping.fields; f->key; f++)
			if (strcmp(f->key, key) == 0)
				return &f->value;
	return NULL;
}

/* `skip` innermost frames are left out. False when the frames do not fit the schema. */
static bool place_of(const struct report *r, unsigned skip, struct place *ret)
{
	size_t used = 0;

	ret->path[0] = '\0';
	ret->schema = &config_schema;
	for (unsigned i = r->frames; i > skip && used < sizeof(ret->path); i--) {
		const struct frame *f = &r->frame[i - 1];
		char *at = ret->path + used;
		size_t room = sizeof(ret->path) - used;
		if (f->field[0]) {
			ret->schema = field_of(ret->schema, f->field);
			used += (size_t)snprintf(at, room, "%s%s", used ? "." : "", f->field);
		} else if (f->entries && ret->schema->type == CYAML_SEQUENCE) {
			ret->schema = ret->schema->sequence.entry;
			used += (size_t)snprintf(at, room, "[%u]", f->entries - 1);
		}
		if (!ret->schema)
			return false;
	}
	return true;
}

/* The rest of the message after `prefix`. */
static const char *after(const struct report *r, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(r->message, prefix, len) == 0 ? r->message + len : "";
}

static void unknown_key(
	const struct report *r, const struct config_index *ix, struct config_errors *errors)
{
	const char *key = after(r, "Unexpected key: ");
	char path[CONFIG_PATH_MAX], known[CONFIG_ERROR_TEXT_MAX] = "";
	struct place at;

	if (!place_of(r, 0, &at) || at.schema->type != CYAML_MAPPING)
		return;
	size_t used = 0;
	for (const cyaml_schema_field_t *f = at.schema->mapping.fields; f->key; f++)
		if (used < sizeof(known))
			used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
				used ? ", " : "", f->key);

	const struct config_node *mapping = config_index_find(ix, at.path);
	const struct config_node *node = config_index_child(ix, mapping, key);
	config_index_format(path, "%s%s%s", at.path, at.path[0] ? "." : "", key);
	config_errors_add(errors, node ? node->line : mapping->line, path,
		"unknown key; known here: %s", known);
}

static void missing_key(
	const struct report *r, const struct config_index *ix, struct config_errors *errors)
{
	char path[CONFIG_PATH_MAX];
	struct place at;

	if (!place_of(r, 1, &at))
		return;
	config_index_format(path, "%s%s%s", at.path, at.path[0] ? "." : "",
		after(r, "Missing required mapping field: "));
	config_errors_add(errors, config_index_find(ix, at.path)->line, path, "is missing");
}

static void too_many(
	const struct report *r, const struct config_index *ix, struct config_errors *errors)
{
	struct place at;

	if (place_of(r, 1, &at) && at.schema->type == CYAML_SEQUENCE)
		config_errors_add(errors, config_index_find(ix, at.path)->line, at.path,
			"has more than %u entries", at.schema->sequence.max);
}

static const char *kind_name(bool scalar, bool mapping)
{
	return scalar ? "a single value" : mapping ? "a mapping (key: value)" : "a list";
}

static void wrong_value(
	const struct report *r, const struct config_index *ix, struct config_errors *errors)
{
	struct place at;

	if (!place_of(r, 0, &at))
		return;
	const struct config_node *node = config_index_find(ix, at.path);
	const cyaml_schema_value_t *schema = at.schema;

	if (schema->type == CYAML_ENUM && node->kind == CONFIG_NODE_SCALAR) {
		char choices[CONFIG_ERROR_TEXT_MAX] = "";
		size_t used = 0;
		for (uint32_t i = 0; i < schema->enumeration.count && used < sizeof(choices); i++)
			used += (size_t)snprintf(choices + used, sizeof(choices) - used, "%s%s",
				used ? ", " : "", schema->enumeration.strings[i].str);
		config_errors_add(errors, node->line, at.path, "\"%s\" is not one of: %s",
			after(r, "Invalid ENUM value: "), choices);
		return;
	}
	bool mapping = schema->type == CYAML_MAPPING;
	bool scalar = !mapping && schema->type != CYAML_SEQUENCE;
	config_errors_add(errors, node->line, at.path, "must be %s, not %s",
		kind_name(scalar, mapping),
		kind_name(node->kind == CONFIG_NODE_SCALAR, node->kind == CONFIG_NODE_MAPPING));
}

static void explain(cyaml_err_t result, const struct report *r, const struct config_index *ix,
	struct config_errors *errors)
{
	unsigned before = errors->n;

	switch (result) {
	case CYAML_ERR_INVALID_KEY:
		unknown_key(r, ix, errors);
		break;
	case CYAML_ERR_MAPPING_FIELD_MISSING:
		missing_key(r, ix, errors);
		break;
	case CYAML_ERR_SEQUENCE_ENTRIES_MAX:
		too_many(r, ix, errors);
		break;
	case CYAML_ERR_INVALID_VALUE:
		wrong_value(r, ix, errors);
		break;
	default:
		break;
	}
	/* A libcyaml that words its log otherwise still refuses the file, only less helpfully. */
	if (errors->n == before)
		config_errors_add(errors, 1, "yaml", "%s: %s", cyaml_strerror(result), r->message);
}

static cyaml_config_t loader(struct report *r)
{
	return (cyaml_config_t){
		.log_fn = report_line,
		.log_ctx = r,
		.log_level = CYAML_LOG_ERROR,
		.mem_fn = cyaml_mem,
		.flags = CYAML_CFG_NO_ALIAS,
	};
}

int config_raw_load(const void *data, size_t len, const struct config_index *ix,
	struct config_errors *errors, struct config_raw **ret)
{
	struct report report = {.frames = 0};
	cyaml_config_t cfg = loader(&report);
	cyaml_data_t *raw = NULL;
	cyaml_err_t result = cyaml_load_data(data, len, &cfg, &config_schema, &raw, NULL);

	if (result == CYAML_ERR_OOM)
		return -ENOMEM;
	if (result != CYAML_OK) {
		explain(result, &report, ix, errors);
		return -EINVAL;
	}
	*ret = raw;
	return 0;
}

void config_raw_free(struct config_raw *raw)
{
	struct report report = {.frames = 0};
	cyaml_config_t cfg = loader(&report);

	if (raw)
		(void)cyaml_free(&cfg, &config_schema, raw, 0);
}
