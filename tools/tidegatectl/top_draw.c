#define NCURSES_WIDECHAR 1

#include "top_draw.h"

#include <curses.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "top_model.h"

enum {
	PAIR_GOOD = 1,
	PAIR_WARN,
	PAIR_BAD,
	PAIR_BAR,
	ESCAPE_WAIT_MS = 50, /* for the rest of a key's sequence */
};

static struct look {
	attr_t attr;
	short pair;
} looks[TOP_STYLES];

static bool utf8;

static void choose_looks(void)
{
	const char *no_colour = getenv("NO_COLOR");

	looks[TOP_BOLD].attr = A_BOLD;
	looks[TOP_DIM].attr = A_DIM;
	looks[TOP_BAR].attr = A_UNDERLINE;
	looks[TOP_CHOSEN].attr = A_REVERSE;
	looks[TOP_WARN].attr = A_BOLD;
	looks[TOP_BAD].attr = A_BOLD | A_REVERSE;
	if (!has_colors() || (no_colour && *no_colour))
		return;
	start_color();
	use_default_colors();
	init_pair(PAIR_GOOD, COLOR_GREEN, -1);
	init_pair(PAIR_WARN, COLOR_YELLOW, -1);
	init_pair(PAIR_BAD, COLOR_RED, -1);
	init_pair(PAIR_BAR, COLOR_CYAN, -1);
	looks[TOP_GOOD].pair = PAIR_GOOD;
	looks[TOP_WARN].pair = PAIR_WARN;
	looks[TOP_BAD] = (struct look){A_BOLD, PAIR_BAD};
	looks[TOP_BAR].pair = PAIR_BAR;
}

bool top_draw_begin(void)
{
	const char *term = getenv("TERM");

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || !term || !*term ||
		!strcmp(term, "dumb"))
		return false;
	setlocale(LC_CTYPE, "");
	utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
	if (!newterm(NULL, stdout, stdin))
		return false;
	/* Without it a screen cannot be painted, only written line by line. */
	if (!tigetstr("cup") || tigetstr("cup") == (char *)-1) {
		endwin();
		return false;
	}
	cbreak();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	set_escdelay(ESCAPE_WAIT_MS);
	curs_set(0);
	choose_looks();
	return true;
}

void top_draw_end(void)
{
	endwin();
}

bool top_draw_screen(struct top_screen *ret)
{
	int rows, cols;

	getmaxyx(stdscr, rows, cols);
	return top_screen_init(ret, (unsigned)rows, (unsigned)cols, utf8);
}

void top_draw(const struct top_screen *s)
{
	for (unsigned row = 0; row < s->rows; row++) {
		for (unsigned col = 0; col < s->cols; col++) {
			const struct top_cell *c = &s->cell[row * s->cols + col];
			const struct look *l = &looks[c->style];
			wchar_t text[2] = {(wchar_t)c->c, L'\0'};
			cchar_t out;

			setcchar(&out, text, l->attr, l->pair, NULL);
			mvadd_wch((int)row, (int)col, &out);
		}
	}
	refresh();
}

uint32_t top_draw_key(void)
{
	static const struct {
		int curses;
		uint32_t key;
	} keys[] = {{KEY_UP, TOP_KEY_UP}, {KEY_DOWN, TOP_KEY_DOWN}, {KEY_PPAGE, TOP_KEY_PAGE_UP},
		{KEY_NPAGE, TOP_KEY_PAGE_DOWN}, {KEY_HOME, TOP_KEY_HOME}, {KEY_END, TOP_KEY_END},
		{'\t', TOP_KEY_TAB}, {KEY_BTAB, TOP_KEY_BACK_TAB}, {'\r', TOP_KEY_ENTER},
		{'\n', TOP_KEY_ENTER}, {KEY_ENTER, TOP_KEY_ENTER}, {27, TOP_KEY_ESCAPE},
		{KEY_BACKSPACE, TOP_KEY_BACKSPACE}, {127, TOP_KEY_BACKSPACE},
		{'\b', TOP_KEY_BACKSPACE}};

	for (;;) {
		int c = getch();
		if (c == ERR)
			return 0;
		for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
			if (keys[i].curses == c)
				return keys[i].key;
		if (c == 'L' - '@' || c == KEY_RESIZE)
			clearok(stdscr, TRUE); /* whatever has become of the terminal */
		else if (c > 0 && c < 0x80)
			return (uint32_t)c;
	}
}
