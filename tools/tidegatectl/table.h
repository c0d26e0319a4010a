/* Text in aligned columns, for people. Rows are kept until the table is printed, since widths
 * depend on all of them. */
#ifndef TIDEGATECTL_TABLE_H
#define TIDEGATECTL_TABLE_H

#include <stddef.h>
#include <stdio.h>

enum {
	TABLE_COLUMNS_MAX = 16
};

struct table {
	unsigned n_columns;
	size_t n_cells;
	char **cell; /* row by row, the headings first */
};

/* Headings separated by blanks; one that begins with '>' is of a column that is aligned to the
 * right. */
void table_init(struct table *t, const char *headings);
void table_fini(struct table *t);

/* Adds the next cell; a row ends when all its columns are there. Control characters become '?', so
 * that nothing a service or a client sent can steer the terminal; "" is shown as "-". */
void table_add(struct table *t, const char *text);
__attribute__((format(printf, 2, 3))) void table_addf(struct table *t, const char *fmt, ...);

void table_print(const struct table *t, FILE *f);

/* Replaces control characters (C0, DEL, C1) in UTF-8 text by '?'. */
void text_clean(char *s);

#endif
