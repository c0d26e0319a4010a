/* Building JSON without a check at each step. The object or array under construction is *to: the
 * first failure drops it and makes it NULL, the rest become no-ops, so that callers check once.
 * Values are taken, also on failure; key NULL appends to an array. Any thread. */
#ifndef TIDEGATE_OPS_JSON_PUT_H
#define TIDEGATE_OPS_JSON_PUT_H

#include <jansson.h>
#include <stdint.h>

void json_put(json_t **to, const char *key, json_t *value);
void json_put_number(json_t **to, const char *key, uint64_t v);
void json_put_real(json_t **to, const char *key, double v);
/* Text from outside may not be UTF-8, which JSON must be: what is not ASCII becomes '?' then. */
void json_put_text(json_t **to, const char *key, const char *s);

/* A new reference, or NULL without memory; as json_put_text. */
json_t *json_text(const char *s);

#endif
