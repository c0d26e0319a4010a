#include "table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *p)
{
	if (!p) {
		fputs("tidegatectl: out of memory\n", stderr);
		exit(1);
	}
	return p;
}

void text_clean(char *s)
{
	for (unsigned char *p = (unsigned char *)s; *p; p++) {
		/* C1 in UTF-8 is c2 80 to c2 9f. */
		if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
			p[0] = p[1] = '?';
		else if (*p < 0x20 || *p == 0x7f)
			*p = '?';
	}
}

static void push(struct table *t, char *text)
{
	/* Grown by doubling: whenever the count is a power of two the room is used up. */
	if ((t->n_cells & (t->n_cells - 1)) == 0)
		t->cell = must(
			realloc(t->cell, (t->n_cells ? t->n_cells * 2 : 1) * sizeof(*t->cell)));
	t->cell[t->n_cells++] = text;
}

void table_init(struct table *t, const char *headings)
{
	*t = (struct table){0};
	char *copy = must(strdup(headings)), *next = copy;
	for (char *h = strtok_r(copy, " ", &next); h; h = strtok_r(NULL, " ", &next)) {
		assert(t->n_columns < TABLE_COLUMNS_MAX);
		push(t, must(strdup(h)));
		t->n_columns++;
	}
	free(copy);
}

void table_fini(struct table *t)
{
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cell[i]);
	free(t->cell);
}

void table_add(struct table *t, const char *text)
{
	char *copy = must(strdup(*text ? text : "-"));

	text_clean(copy);
	push(t, copy);
}

void table_addf(struct table *t, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	table_add(t, text);
}

/* Characters, not bytes: continuation bytes of UTF-8 take no place. */
static int width(const char *s)
{
	int n = 0;

	for (; *s; s++)
		n += (*s & 0xc0) != 0x80;
	return n;
}

static void print_row(const struct table *t, FILE *f, size_t first, const int *widths)
{
	for (unsigned c = 0; c < t->n_columns; c++) {
		const char *text = t->cell[first + c];
		int right = t->cell[c][0] == '>';
		if (first == 0 && right)
			text++; /* the mark in the heading */
		int pad = widths[c] - width(text);
		if (right)
			fprintf(f, "%*s", pad, "");
		fputs(text, f);
		if (c + 1 == t->n_columns)
			fputc('\n', f);
		else
			fprintf(f, "%*s", (right ? 0 : pad) + 2, "");
	}
}

void table_print(const struct table *t, FILE *f)
{
	int widths[TABLE_COLUMNS_MAX] = {0};

	assert(t->n_columns && t->n_cells % t->n_columns == 0);
	for (size_t i = 0; i < t->n_cells; i++) {
		int w = width(t->cell[i]) - (i < t->n_columns && t->cell[i][0] == '>');
		if (w > widths[i % t->n_columns])
			widths[i % t->n_columns] = w;
	}
	for (size_t i = 0; i < t->n_cells; i += t->n_columns)
		print_row(t, f, i, widths);
}
