/* The terminal of `tidegatectl top`, by ncurses. One at a time. */
#ifndef TIDEGATECTL_TOP_DRAW_H
#define TIDEGATECTL_TOP_DRAW_H

#include "top_screen.h"

/* False: stdin or stdout is no terminal, or one that cannot be drawn on (TERM). Colours unless the
 * terminal has none or NO_COLOR is set. */
bool top_draw_begin(void);
void top_draw_end(void);
/* A blank screen of the terminal's size. False without memory. */
bool top_draw_screen(struct top_screen *ret);
void top_draw(const struct top_screen *s);
/* The next key that is waiting (a character or an enum top_key), or 0. */
uint32_t top_draw_key(void);

#endif
