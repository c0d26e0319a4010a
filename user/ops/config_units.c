#include "ops/config_units.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct suffix {
	const char *text;
	uint64_t factor;
};

/* Largest first: config_unit_format() takes the first that divides. */
static const struct suffix durations_us[] = {
	{"h", 3600000000}, {"m", 60000000}, {"s", 1000000}, {"ms", 1000}, {"us", 1}, {NULL, 0}};
static const struct suffix sizes[] = {
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}, {NULL, 0}};
static const struct suffix numbers[] = {{"", 1}, {NULL, 0}};

static const struct suffix *suffixes_of(enum config_unit unit)
{
	switch (unit) {
	case CONFIG_UNIT_MS:
	case CONFIG_UNIT_US:
		return durations_us;
	case CONFIG_UNIT_BYTES:
		return sizes;
	case CONFIG_UNIT_NUMBER:
		break;
	}
	return numbers;
}

static const char *why_not(enum config_unit unit)
{
	switch (unit) {
	case CONFIG_UNIT_MS:
	case CONFIG_UNIT_US:
		return "is not a duration; write it like 200us, 1500ms, 30s, 5m or 1h";
	case CONFIG_UNIT_BYTES:
		return "is not a size; write it like 4096, 64KiB, 16MiB or 1GiB";
	case CONFIG_UNIT_NUMBER:
		break;
	}
	return "is not a whole number";
}

/* How many digits the text begins with, and their value; -ERANGE when it passes 64 bits. */
static int read_digits(const char *text, uint64_t *value)
{
	int n = 0;

	*value = 0;
	for (; text[n] >= '0' && text[n] <= '9'; n++)
		if (__builtin_mul_overflow(*value, 10, value) ||
			__builtin_add_overflow(*value, (uint64_t)(text[n] - '0'), value))
			return -ERANGE;
	return n;
}

static int scale(enum config_unit unit, const char *suffix, uint64_t *value, const char **ret_why)
{
	const struct suffix *s = suffixes_of(unit);

	while (s->text && strcmp(s->text, suffix) != 0)
		s++;
	if (!s->text) {
		*ret_why = *suffix ? why_not(unit)
				   : "has no unit; write it like 200us, 1500ms, 30s, 5m or 1h";
		return -EINVAL;
	}
	if (__builtin_mul_overflow(*value, s->factor, value)) {
		*ret_why = "is too large";
		return -EINVAL;
	}
	return 0;
}

int config_unit_parse(enum config_unit unit, const char *text, uint64_t *ret, const char **ret_why)
{
	uint64_t value;
	int digits = read_digits(text, &value);

	if (digits <= 0) {
		*ret_why = digits < 0 ? "is too large" : why_not(unit);
		return -EINVAL;
	}
	if (value == 0 && text[digits] == '\0') { /* the one duration that needs no unit */
		*ret = 0;
		return 0;
	}

	int err = scale(unit, text + digits, &value, ret_why);
	if (err)
		return err;
	if (unit == CONFIG_UNIT_MS) {
		if (value % 1000 != 0) {
			*ret_why = "is not a whole number of milliseconds";
			return -EINVAL;
		}
		value /= 1000;
	}
	*ret = value;
	return 0;
}

void config_unit_format(enum config_unit unit, uint64_t value, char out[CONFIG_UNIT_TEXT_MAX])
{
	const struct suffix *s = suffixes_of(unit);
	uint64_t smallest = value;

	if (value == 0) {
		snprintf(out, CONFIG_UNIT_TEXT_MAX, "0");
		return;
	}
	if (unit == CONFIG_UNIT_MS && __builtin_mul_overflow(value, 1000, &smallest)) {
		snprintf(out, CONFIG_UNIT_TEXT_MAX, "%" PRIu64 "ms", value);
		return;
	}
	while (smallest % s->factor != 0)
		s++;
	snprintf(out, CONFIG_UNIT_TEXT_MAX, "%" PRIu64 "%s", smallest / s->factor, s->text);
}
