#include "ops/json_put.h"

#include <stdlib.h>
#include <string.h>

json_t *json_text(const char *s)
{
	json_t *j = json_string(s);
	if (j)
		return j;
	char *ascii = strdup(s);
	if (!ascii)
		return NULL;
	for (char *p = ascii; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	j = json_string(ascii);
	free(ascii);
	return j;
}

void json_put(json_t **to, const char *key, json_t *value)
{
	if (!*to) {
		json_decref(value);
		return;
	}
	/* Both take the value, and refuse NULL. */
	if (key ? json_object_set_new(*to, key, value) : json_array_append_new(*to, value)) {
		json_decref(*to);
		*to = NULL;
	}
}

void json_put_number(json_t **to, const char *key, uint64_t v)
{
	json_put(to, key, json_integer((json_int_t)v));
}

void json_put_real(json_t **to, const char *key, double v)
{
	json_put(to, key, json_real(v));
}

void json_put_text(json_t **to, const char *key, const char *s)
{
	json_put(to, key, json_text(s));
}
