#include "ops/config_parse.h"

#include <errno.h>
#include <stdlib.h>

#include "ops/config_build.h"
#include "ops/config_errors.h"
#include "ops/config_index.h"
#include "ops/config_raw.h"

/* 0 with *ret, -EINVAL with errors added, -ENOMEM. */
static int make(const char *path, const struct config_raw *raw, const struct config_index *ix,
	struct config_errors *errors, struct config **ret)
{
	struct config_build b = {.index = ix, .errors = errors};
	struct config *c = calloc(1, sizeof(*c));
	int err = 0;

	if (!c)
		return -ENOMEM;
	c->path = config_build_copy(&b, path);
	config_build(&b, raw, c);
	if (!b.out_of_memory)
		config_check(&b, c);

	if (b.out_of_memory || errors->out_of_memory)
		err = -ENOMEM;
	else if (errors->n)
		err = -EINVAL;
	if (err)
		config_free(c);
	else
		*ret = c;
	return err;
}

int config_parse(
	const char *path, const void *data, size_t len, struct config **ret, char **ret_errors)
{
	struct config_errors errors;
	struct config_index ix;
	struct config_raw *raw = NULL;

	config_errors_init(&errors);
	int err = config_index_build(&ix, data, len, &errors);
	if (!err)
		err = config_raw_load(data, len, &ix, &errors, &raw);
	if (!err)
		err = make(path, raw, &ix, &errors, ret);

	if (err == -EINVAL) {
		char *text = config_errors_render(&errors, path ? path : CONFIG_DEMO_NAME);
		if (text)
			*ret_errors = text;
		else
			err = -ENOMEM;
	}
	config_raw_free(raw);
	config_index_fini(&ix);
	config_errors_fini(&errors);
	return err;
}
