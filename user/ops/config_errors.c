#include "ops/config_errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void config_errors_init(struct config_errors *e)
{
	memset(e, 0, sizeof(*e));
}

void config_errors_fini(struct config_errors *e)
{
	for (unsigned i = 0; i < e->n; i++)
		free(e->item[i].text);
	e->n = 0;
}

void config_errors_add(
	struct config_errors *e, unsigned line, const char *key, const char *fmt, ...)
{
	char text[CONFIG_ERROR_TEXT_MAX];

	if (e->n == CONFIG_ERRORS_MAX) {
		e->held_back++;
		return;
	}

	int used = snprintf(text, sizeof(text), "%s: ", key);
	if (used >= 0 && (size_t)used < sizeof(text)) {
		va_list args;
		va_start(args, fmt);
		(void)vsnprintf(text + used, sizeof(text) - (size_t)used, fmt, args);
		va_end(args);
	}
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';

	struct config_error *item = &e->item[e->n];
	item->line = line;
	item->text = strdup(text);
	if (!item->text) {
		e->out_of_memory = true;
		return;
	}
	e->n++;
}

/* Insertion sort: stable, and there are at most CONFIG_ERRORS_MAX. */
static void errors_sort(struct config_errors *e)
{
	for (unsigned i = 1; i < e->n; i++) {
		struct config_error one = e->item[i];
		unsigned at = i;
		for (; at > 0 && e->item[at - 1].line > one.line; at--)
			e->item[at] = e->item[at - 1];
		e->item[at] = one;
	}
}

char *config_errors_render(struct config_errors *e, const char *file)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out;

	if (e->out_of_memory)
		return NULL;
	out = open_memstream(&text, &len);
	if (!out)
		return NULL;

	errors_sort(e);
	for (unsigned i = 0; i < e->n; i++)
		fprintf(out, "%s:%u: %s\n", file, e->item[i].line, e->item[i].text);
	if (e->held_back)
		fprintf(out, "%s: and %u more errors\n", file, e->held_back);

	bool failed = ferror(out);
	if (fclose(out) != 0 || failed) {
		free(text);
		return NULL;
	}
	return text;
}
