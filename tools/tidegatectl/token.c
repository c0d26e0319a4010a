#include "token.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "app/auth_keys.h"
#include "ops/config_units.h"
#include "proto/token.h"

enum {
	EXIT_USAGE = 2,
};

/* What is wrong with the file, or NULL with *ret. */
static const char *read_secret(
	const char *path, char data[AUTH_FILE_MAX + 1], struct auth_file *ret)
{
	FILE *f = fopen(path, "rb");
	const char *why = NULL;
	size_t len;

	if (!f)
		return strerror(errno);
	len = fread(data, 1, AUTH_FILE_MAX + 1, f);
	if (ferror(f))
		why = strerror(errno);
	fclose(f);
	*ret = (struct auth_file){data, len};
	return why ? why : auth_secret_check(ret);
}

int token_print(const char *secret_file, const char *subject, const char *expires, bool json)
{
	static char data[AUTH_FILE_MAX + 1];
	char token[TOKEN_MAX + 1];
	struct token_secret secret;
	struct auth_file file;
	uint64_t ms, expires_s;
	const char *why;

	if (config_unit_parse(CONFIG_UNIT_MS, expires, &ms, &why)) {
		fprintf(stderr, "tidegatectl: --expires: \"%s\" %s\n", expires, why);
		return EXIT_USAGE;
	}
	why = read_secret(secret_file, data, &file);
	if (why) {
		fprintf(stderr, "tidegatectl: %s: %s\n", secret_file, why);
		return EXIT_FAILURE;
	}
	secret = (struct token_secret){file.data, auth_secret_len(&file)};
	expires_s = (uint64_t)time(NULL) + (ms + 999) / 1000;
	if (!token_write(token, subject, strlen(subject), expires_s, &secret)) {
		fprintf(stderr,
			"tidegatectl: --subject takes 1 to %d bytes of UTF-8 without control "
			"characters\n",
			TOKEN_SUBJECT_MAX);
		return EXIT_USAGE;
	}
	if (json)
		printf("{\"token\": \"%s\", \"expires\": %" PRIu64 "}\n", token, expires_s);
	else
		puts(token);
	if (fflush(stdout) != 0) {
		perror("tidegatectl: cannot write");
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
