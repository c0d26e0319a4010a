#include "human.h"

#include <inttypes.h>
#include <stdio.h>

const char *human_duration_ms(char out[HUMAN_TEXT_MAX], uint64_t ms)
{
	uint64_t s = ms / 1000;

	if (s < 60)
		return human_delay_us(out, ms * 1000);
	if (s < 3600)
		snprintf(out, HUMAN_TEXT_MAX, "%" PRIu64 "m%02us", s / 60, (unsigned)(s % 60));
	else if (s < 86400)
		snprintf(out, HUMAN_TEXT_MAX, "%" PRIu64 "h%02um", s / 3600,
			(unsigned)(s / 60 % 60));
	else
		snprintf(out, HUMAN_TEXT_MAX, "%" PRIu64 "d%02uh", s / 86400,
			(unsigned)(s / 3600 % 24));
	return out;
}

const char *human_bytes(char out[HUMAN_TEXT_MAX], uint64_t n)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
	double v = (double)n / 1024;
	unsigned unit = 0;

	if (n < 1024) {
		snprintf(out, HUMAN_TEXT_MAX, "%" PRIu64 "B", n);
		return out;
	}
	while (v >= 1023.5 && unit < 3) {
		v /= 1024;
		unit++;
	}
	snprintf(out, HUMAN_TEXT_MAX, v < 9.95 ? "%.1f%s" : "%.0f%s", v, units[unit]);
	return out;
}
