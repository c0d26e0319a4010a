#include "ops/config_index.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* Stands for the key of errors that concern the file as YAML rather than one key. */
#define WHOLE_FILE "yaml"

struct builder {
	struct config_index *ix;
	struct config_errors *errors;
	uint32_t open[CONFIG_INDEX_DEPTH_MAX]; /* collections whose end has not come yet */
	unsigned depth;
	char *key; /* of the mapping entry whose value comes next */
	unsigned key_line;
	bool document; /* the first one has begun */
};

static unsigned line_of(const yaml_event_t *ev)
{
	return (unsigned)ev->start_mark.line + 1;
}

static const char *text_of(const yaml_event_t *ev)
{
	return (const char *)ev->data.scalar.value;
}

static bool has_nul(const yaml_event_t *ev)
{
	return strlen(text_of(ev)) != ev->data.scalar.length;
}

const char *config_index_format(char out[CONFIG_PATH_MAX], const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(out, CONFIG_PATH_MAX, fmt, args);
	va_end(args);
	return out;
}

void config_index_path(
	const struct config_index *ix, const struct config_node *node, char out[CONFIG_PATH_MAX])
{
	const struct config_node *way[CONFIG_INDEX_DEPTH_MAX + 1];
	unsigned depth = 0;
	size_t used = 0;

	out[0] = '\0';
	for (; node != ix->node && depth < CONFIG_INDEX_DEPTH_MAX + 1;
		node = &ix->node[node->parent])
		way[depth++] = node;
	while (depth-- > 0 && used < CONFIG_PATH_MAX) {
		char *at = out + used;
		size_t room = CONFIG_PATH_MAX - used;
		const struct config_node *n = way[depth];
		int len = n->key ? snprintf(at, room, "%s%s", used ? "." : "", n->key)
				 : snprintf(at, room, "[%u]", n->item);
		used += (size_t)(len < 0 ? 0 : len);
	}
}

/* The path of what an event is about: the value that is read next. */
static void path_here(const struct builder *b, const char *key, char out[CONFIG_PATH_MAX])
{
	const struct config_node *parent = b->depth ? &b->ix->node[b->open[b->depth - 1]] : NULL;
	size_t used;

	out[0] = '\0';
	if (!parent) {
		snprintf(out, CONFIG_PATH_MAX, "%s", WHOLE_FILE);
		return;
	}
	config_index_path(b->ix, parent, out);
	used = strlen(out);
	if (key)
		snprintf(out + used, CONFIG_PATH_MAX - used, "%s%s", used ? "." : "", key);
	else
		snprintf(out + used, CONFIG_PATH_MAX - used, "[%u]", parent->children);
}

/* A new node under the collection that is open. */
static int node_add(struct builder *b, enum config_node_kind kind, unsigned line)
{
	struct config_index *ix = b->ix;

	if (ix->n == CONFIG_INDEX_NODES_MAX) {
		config_errors_add(b->errors, line, WHOLE_FILE, "more than %d values",
			(int)CONFIG_INDEX_NODES_MAX);
		return -EINVAL;
	}
	if (ix->n == ix->room) {
		unsigned room = ix->room ? ix->room * 2 : 64;
		struct config_node *grown = realloc(ix->node, room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		ix->node = grown;
		ix->room = room;
	}

	uint32_t at = ix->n++;
	struct config_node *node = &ix->node[at];
	*node = (struct config_node){
		.key = b->key, .line = b->key ? b->key_line : line, .kind = kind};
	b->key = NULL;
	if (b->depth == 0)
		return 0;

	node->parent = b->open[b->depth - 1];
	struct config_node *parent = &ix->node[node->parent];
	node->item = parent->children++;
	if (parent->last)
		ix->node[parent->last].next = at;
	else
		parent->first = at;
	parent->last = at;
	return 0;
}

const struct config_node *config_index_child(
	const struct config_index *ix, const struct config_node *parent, const char *key)
{
	for (uint32_t i = parent->first; i; i = ix->node[i].next)
		if (ix->node[i].key && strcmp(ix->node[i].key, key) == 0)
			return &ix->node[i];
	return NULL;
}

static int index_key(struct builder *b, const yaml_event_t *ev)
{
	const struct config_node *parent = &b->ix->node[b->open[b->depth - 1]];
	char path[CONFIG_PATH_MAX];

	if (ev->type != YAML_SCALAR_EVENT || has_nul(ev)) {
		config_index_path(b->ix, parent, path);
		config_errors_add(b->errors, line_of(ev), *path ? path : WHOLE_FILE,
			"a key must be plain text");
		return -EINVAL;
	}

	const struct config_node *twin = config_index_child(b->ix, parent, text_of(ev));
	path_here(b, text_of(ev), path);
	if (twin)
		config_errors_add(
			b->errors, line_of(ev), path, "given twice, first on line %u", twin->line);
	if (parent->children == CONFIG_INDEX_KEYS_MAX) {
		config_errors_add(b->errors, line_of(ev), path, "more than %d keys in one mapping",
			(int)CONFIG_INDEX_KEYS_MAX);
		return -EINVAL;
	}

	b->key = strdup(text_of(ev));
	b->key_line = line_of(ev);
	return b->key ? 0 : -ENOMEM;
}

/* YAML's ways to write nothing. */
static bool is_null(const yaml_event_t *ev)
{
	static const char *const words[] = {"", "~", "null", "Null", "NULL"};

	if (ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return false;
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strcmp(text_of(ev), words[i]) == 0)
			return true;
	return false;
}

static void check_scalar(struct builder *b, const yaml_event_t *ev, const char *path)
{
	if (has_nul(ev))
		config_errors_add(b->errors, line_of(ev), path, "has a NUL character");
	else if (is_null(ev))
		config_errors_add(b->errors, line_of(ev), path, "has no value");
}

static int index_value(struct builder *b, const yaml_event_t *ev, enum config_node_kind kind,
	const yaml_char_t *tag)
{
	char path[CONFIG_PATH_MAX];
	unsigned line = b->key ? b->key_line : line_of(ev);

	path_here(b, b->key, path);
	if (b->depth == 0 && kind != CONFIG_NODE_MAPPING) {
		config_errors_add(
			b->errors, line, path, "the file must be a mapping (lines of key: value)");
		return -EINVAL;
	}
	if (tag) /* `!include x` would otherwise read as the plain text "x" */
		config_errors_add(b->errors, line, path, "has a tag (%s), which is not supported",
			(const char *)tag);
	if (kind == CONFIG_NODE_SCALAR)
		check_scalar(b, ev, path);
	else if (b->depth == CONFIG_INDEX_DEPTH_MAX) {
		config_errors_add(b->errors, line, path, "is nested too deeply");
		return -EINVAL;
	}

	int err = node_add(b, kind, line);
	if (!err && kind != CONFIG_NODE_SCALAR)
		b->open[b->depth++] = b->ix->n - 1;
	return err;
}

static bool key_is_due(const struct builder *b)
{
	return b->depth && !b->key &&
	       b->ix->node[b->open[b->depth - 1]].kind == CONFIG_NODE_MAPPING;
}

static int index_alias(struct builder *b, const yaml_event_t *ev)
{
	char path[CONFIG_PATH_MAX];

	path_here(b, b->key ? b->key : key_is_due(b) ? "*" : NULL, path);
	config_errors_add(
		b->errors, line_of(ev), path, "anchors and aliases (&, *) are not supported");
	return -EINVAL;
}

static int index_event(struct builder *b, const yaml_event_t *ev)
{
	switch (ev->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (b->document) {
			config_errors_add(b->errors, line_of(ev), WHOLE_FILE,
				"a second document begins here; only one is read");
			return -EINVAL;
		}
		b->document = true;
		return 0;
	case YAML_MAPPING_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
		b->depth--;
		return 0;
	case YAML_ALIAS_EVENT:
		return index_alias(b, ev);
	case YAML_SCALAR_EVENT:
		return key_is_due(b) ? index_key(b, ev)
				     : index_value(b, ev, CONFIG_NODE_SCALAR, ev->data.scalar.tag);
	case YAML_MAPPING_START_EVENT:
		return key_is_due(b) ? index_key(b, ev)
				     : index_value(b, ev, CONFIG_NODE_MAPPING,
					       ev->data.mapping_start.tag);
	case YAML_SEQUENCE_START_EVENT:
		return key_is_due(b)
			       ? index_key(b, ev)
			       : index_value(b, ev, CONFIG_NODE_LIST, ev->data.sequence_start.tag);
	default:
		return 0;
	}
}

static int syntax_error(
	const yaml_parser_t *p, const char *data, size_t len, struct config_errors *errors)
{
	unsigned line = (unsigned)p->problem_mark.line + 1;

	if (p->error == YAML_MEMORY_ERROR)
		return -ENOMEM;
	if (p->error == YAML_READER_ERROR) { /* bad UTF-8: only the offset is told */
		line = 1;
		for (size_t i = 0; i < len && i < p->problem_offset; i++)
			line += data[i] == '\n';
	}
	if (p->context)
		config_errors_add(errors, line, WHOLE_FILE, "%s (%s that begins on line %zu)",
			p->problem, p->context, p->context_mark.line + 1);
	else
		config_errors_add(
			errors, line, WHOLE_FILE, "%s", p->problem ? p->problem : "is not YAML");
	return -EINVAL;
}

static int index_stream(struct builder *b, yaml_parser_t *parser, const char *data, size_t len)
{
	yaml_event_t ev;
	bool end = false;
	int err = 0;

	while (!err && !end) {
		if (!yaml_parser_parse(parser, &ev))
			return syntax_error(parser, data, len, b->errors);
		end = ev.type == YAML_STREAM_END_EVENT;
		err = index_event(b, &ev);
		yaml_event_delete(&ev);
	}
	return err;
}

int config_index_build(
	struct config_index *ix, const void *data, size_t len, struct config_errors *errors)
{
	struct builder b = {.ix = ix, .errors = errors};
	yaml_parser_t parser;

	*ix = (struct config_index){0};
	if (!yaml_parser_initialize(&parser))
		return -ENOMEM;
	yaml_parser_set_input_string(&parser, data, len);
	int err = index_stream(&b, &parser, data, len);
	yaml_parser_delete(&parser);
	free(b.key);

	if (!err && ix->n == 0)
		config_errors_add(errors, 1, WHOLE_FILE, "the file is empty");
	if (!err && (errors->n || errors->out_of_memory))
		err = -EINVAL;
	return err;
}

void config_index_fini(struct config_index *ix)
{
	for (unsigned i = 0; i < ix->n; i++)
		free(ix->node[i].key);
	free(ix->node);
	*ix = (struct config_index){0};
}

static const struct config_node *item_of(
	const struct config_index *ix, const struct config_node *list, unsigned long item)
{
	uint32_t i = list->first;

	while (i && item-- > 0)
		i = ix->node[i].next;
	return i ? &ix->node[i] : NULL;
}

const struct config_node *config_index_find(const struct config_index *ix, const char *path)
{
	const struct config_node *node = ix->node;
	char key[CONFIG_PATH_MAX];

	while (*path) {
		const struct config_node *below;
		if (*path == '[') {
			char *end;
			below = item_of(ix, node, strtoul(path + 1, &end, 10));
			path = *end == ']' ? end + 1 : "";
		} else {
			if (*path == '.')
				path++;
			size_t len = strcspn(path, ".[");
			snprintf(key, sizeof(key), "%.*s", (int)len, path);
			below = config_index_child(ix, node, key);
			path += len;
		}
		if (!below)
			break;
		node = below;
	}
	return node;
}
