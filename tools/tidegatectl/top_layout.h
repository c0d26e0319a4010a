/* Puts the model of `tidegatectl top` onto a screen of any size; 80x24 shows all of it. Pure. */
#ifndef TIDEGATECTL_TOP_LAYOUT_H
#define TIDEGATECTL_TOP_LAYOUT_H

#include "top_model.h"
#include "top_screen.h"

/* The screen is blank before. */
void top_layout(const struct top_model *m, struct top_screen *s);

/* Of a delay against the gate's target: 0 for no delay, 1 below a 32nd of the target, then a step
 * for each doubling: 7 from the target on, 8 from twice the target. */
unsigned top_level(uint64_t delay_ns, uint64_t target_ns);

/* One interval like the scheduler line, from a snapshot. At most SCHEDLINE_MAX bytes with its NUL.
 */
void top_line(const json_t *snapshot, char *ret);

#endif
