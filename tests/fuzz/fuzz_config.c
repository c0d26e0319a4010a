/* Any bytes as a configuration file: a configuration, or errors that each name the file and a line.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ops/config_parse.h"

#define NAME "fuzz.yaml"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* "fuzz.yaml:LINE: KEY: text\n", or the last line, "fuzz.yaml: and N more errors\n". */
static void check_line(const char *line, size_t len)
{
	const char *p = line + strlen(NAME);

	if (len <= strlen(NAME) || memcmp(line, NAME, strlen(NAME)) != 0 || *p != ':')
		abort();
	if (p[1] == ' ')
		return;
	size_t digits = strspn(p + 1, "0123456789");
	if (digits == 0 || p[1] == '0' || strncmp(p + 1 + digits, ": ", 2) != 0)
		abort();
	for (; p < line + len; p++)
		if ((unsigned char)*p < 0x20)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config *c = NULL;
	char *errors = NULL;
	int err = config_parse(NAME, data, size, &c, &errors);

	if (err == 0 ? !c || errors : c || err != -EINVAL || !errors || !*errors)
		abort();
	for (const char *line = errors, *end; line && *line; line = end + 1) {
		end = strchr(line, '\n');
		if (!end)
			abort();
		check_line(line, (size_t)(end - line));
	}
	config_free(c);
	free(errors);
	return 0;
}
