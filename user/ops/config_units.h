/* Numbers, durations and sizes as they are written in the configuration. Pure; any thread.
 *
 * number    decimal digits: `4096`
 * duration  digits and one of us, ms, s, m, h: `200us`, `1500ms`, `30s`, `5m`, `1h`; a plain `0`
 * size      digits, bytes unless one of KiB, MiB, GiB follows: `4096`, `64KiB`
 */
#ifndef TIDEGATE_OPS_CONFIG_UNITS_H
#define TIDEGATE_OPS_CONFIG_UNITS_H

#include <stdint.h>

/* What a value is counted in once it is read. */
enum config_unit {
	CONFIG_UNIT_NUMBER,
	CONFIG_UNIT_MS,    /* a duration, in milliseconds */
	CONFIG_UNIT_US,    /* a duration, in microseconds */
	CONFIG_UNIT_BYTES, /* a size */
};

enum {
	CONFIG_UNIT_TEXT_MAX =
		32, /* bytes of a formatted value with its NUL: 20 digits and a unit */
};

/* 0 with *ret, or -EINVAL with *ret_why, a static text that begins with a verb ("has no unit;
 * ..."). A duration finer than its unit is -EINVAL too, never rounded. */
int config_unit_parse(enum config_unit unit, const char *text, uint64_t *ret, const char **ret_why);

/* The shortest exact text, "30s" rather than "30000ms"; config_unit_parse() reads it back. */
void config_unit_format(enum config_unit unit, uint64_t value, char out[CONFIG_UNIT_TEXT_MAX]);

#endif
