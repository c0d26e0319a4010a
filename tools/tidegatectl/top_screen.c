#include "top_screen.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

enum {
	BAR_LEVELS = 8,
};

bool top_screen_init(struct top_screen *s, unsigned rows, unsigned cols, bool utf8)
{
	rows = rows > TOP_ROWS_MAX ? TOP_ROWS_MAX : rows;
	cols = cols > TOP_COLS_MAX ? TOP_COLS_MAX : cols;
	struct top_cell *cell = malloc((size_t)(rows * cols + 1) * sizeof(*cell));

	if (!cell)
		return false;
	for (unsigned i = 0; i < rows * cols; i++)
		cell[i] = (struct top_cell){' ', TOP_NORMAL};
	*s = (struct top_screen){.rows = rows, .cols = cols, .utf8 = utf8, .cell = cell};
	return true;
}

void top_screen_fini(struct top_screen *s)
{
	free(s->cell);
	*s = (struct top_screen){0};
}

/* The next character of valid or broken UTF-8; what is broken is U+FFFD, byte by byte. */
static uint32_t next(const char **text)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *p = (const unsigned char *)*text;
	unsigned n = *p < 0x80 ? 1 : *p >> 5 == 6 ? 2 : *p >> 4 == 14 ? 3 : *p >> 3 == 30 ? 4 : 0;
	uint32_t c = n < 2 ? *p : *p & (0x7fu >> n);

	for (unsigned i = 1; i < n; i++) {
		if (p[i] >> 6 != 2) {
			n = 0;
			break;
		}
		c = c << 6 | (p[i] & 0x3f);
	}
	if (!n || c < least[n]) {
		*text += 1;
		return 0xfffd;
	}
	*text += n;
	return c;
}

unsigned top_put(
	struct top_screen *s, unsigned row, unsigned col, enum top_style style, const char *text)
{
	while (*text) {
		uint32_t c = next(&text);

		if (c < 0x20 || c == 0x7f || (c > 0x7f && (!s->utf8 || wcwidth((wchar_t)c) != 1)))
			c = '?';
		if (row < s->rows && col < s->cols)
			s->cell[row * s->cols + col] = (struct top_cell){c, (uint8_t)style};
		col++;
	}
	return col;
}

unsigned top_putf(struct top_screen *s, unsigned row, unsigned col, enum top_style style,
	const char *fmt, ...)
{
	char text[TOP_COLS_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return top_put(s, row, col, style, text);
}

void top_paint(struct top_screen *s, unsigned row, enum top_style style)
{
	for (unsigned c = 0; row < s->rows && c < s->cols; c++)
		s->cell[row * s->cols + c].style = (uint8_t)style;
}

static char *encode(char *out, uint32_t c)
{
	if (c < 0x80) {
		*out++ = (char)c;
		return out;
	}
	if (c < 0x800) {
		*out++ = (char)(0xc0 | c >> 6);
	} else {
		if (c < 0x10000) {
			*out++ = (char)(0xe0 | c >> 12);
		} else {
			*out++ = (char)(0xf0 | c >> 18);
			*out++ = (char)(0x80 | (c >> 12 & 0x3f));
		}
		*out++ = (char)(0x80 | (c >> 6 & 0x3f));
	}
	*out++ = (char)(0x80 | (c & 0x3f));
	return out;
}

char *top_row_text(const struct top_screen *s, unsigned row)
{
	char *text = malloc((size_t)s->cols * 4 + 1), *end = text;

	for (unsigned c = 0; text && c < s->cols; c++)
		end = encode(end, s->cell[row * s->cols + c].c);
	while (end > text && end[-1] == ' ')
		end--;
	if (text)
		*end = '\0';
	return text;
}

const char *top_bar(const struct top_screen *s, unsigned level)
{
	static const char *const fine[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	static const char *const coarse[] = {" ", ".", ":", "-", "=", "+", "*", "%", "#"};

	level = level > BAR_LEVELS ? BAR_LEVELS : level;
	return s->utf8 ? fine[level] : coarse[level];
}
