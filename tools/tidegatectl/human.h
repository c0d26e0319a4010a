/* Figures as text for people, beside those of ops/schedline.h. */
#ifndef TIDEGATECTL_HUMAN_H
#define TIDEGATECTL_HUMAN_H

#include <stdint.h>

#include "ops/schedline.h"

enum {
	HUMAN_TEXT_MAX = 32,
};

/* "850us", "3.2s", "2m05s", "3h07m", "12d04h". Returns out. */
const char *human_duration_ms(char out[HUMAN_TEXT_MAX], uint64_t ms);
/* "15B", "1.5KiB", "8.0MiB". Returns out. */
const char *human_bytes(char out[HUMAN_TEXT_MAX], uint64_t n);

#endif
