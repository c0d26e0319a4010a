/* Every UTF-8 validator of this CPU against the reference, whole and in two calls, for the text as
 * it is and for the text behind a run of ASCII that puts it somewhere into a vector block. The
 * first two bytes choose cut and run. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support/utf8_ref.h"
#include "proto/utf8.h"

enum {
	CHOICES = 2,
	RUN_MAX = 64
};

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static enum utf8_ref feed(uint8_t *state, const uint8_t *data, size_t len)
{
	if (!utf8_feed(state, data, len))
		return UTF8_REF_BAD;
	return *state == UTF8_ACCEPT ? UTF8_REF_WHOLE : UTF8_REF_CUT;
}

static void expect(const char *what, enum utf8_ref got, enum utf8_ref want)
{
	if (got == want)
		return;
	fprintf(stderr, "%s, %s: %d instead of %d\n", utf8_impl(), what, got, want);
	abort();
}

static void check(const uint8_t *text, size_t len, size_t cut)
{
	static const char *const impls[] = {"portable", "sse2", "avx2"};
	enum utf8_ref want = utf8_ref(text, len);
	enum utf8_ref want_first = utf8_ref(text, cut);

	for (size_t i = 0; i < sizeof(impls) / sizeof(impls[0]); i++) {
		uint8_t state = UTF8_ACCEPT;

		if (!utf8_impl_force(impls[i]))
			continue;
		expect("whole", feed(&state, text, len), want);
		state = UTF8_ACCEPT;
		expect("first part", feed(&state, text, cut), want_first);
		if (want_first != UTF8_REF_BAD)
			expect("second part", feed(&state, text + cut, len - cut), want);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	size_t run;
	size_t len;
	uint8_t *text;

	if (size < CHOICES)
		return 0;
	run = input[0] % RUN_MAX;
	len = size - CHOICES;

	/* A heap block of exactly this size: the sanitizer sees a read beyond either end. */
	text = malloc(run + len + 1);
	if (!text)
		abort();
	memset(text, 'a', run);
	memcpy(text + run, input + CHOICES, len);
	text = realloc(text, run + len ? run + len : 1);
	if (!text)
		abort();
	check(text, run + len, (size_t)input[1] * 7 % (run + len + 1));
	free(text);
	return 0;
}
