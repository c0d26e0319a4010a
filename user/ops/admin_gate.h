/* The admin surface's answers about the gate and its lists. In MHD's threads. */
#ifndef TIDEGATE_OPS_ADMIN_GATE_H
#define TIDEGATE_OPS_ADMIN_GATE_H

#include "ops/admin_api.h"

ADMIN_ANSWER(admin_gate_show);
ADMIN_ANSWER(admin_gate_set);
ADMIN_ANSWER(admin_allow_show);
ADMIN_ANSWER(admin_allow_add);
ADMIN_ANSWER(admin_allow_del);
ADMIN_ANSWER(admin_deny_show);
ADMIN_ANSWER(admin_deny_add);
ADMIN_ANSWER(admin_deny_del);

ADMIN_ANSWER(admin_sources_show);
ADMIN_ANSWER(admin_why_show);
ADMIN_ANSWER(admin_sample_show);
ADMIN_ANSWER(admin_sample_set);

/* The gate as JSON: a new reference, or NULL without memory. */
json_t *admin_json_gate(const struct gate_info *g);

#endif
