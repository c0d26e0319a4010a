/* The dashboard, the page at /: user/ops/dashboard/ and uPlot in one file, made at build time. */
#ifndef TIDEGATE_OPS_ADMIN_DASHBOARD_H
#define TIDEGATE_OPS_ADMIN_DASHBOARD_H

#include <stddef.h>

/* The page, static. */
const char *admin_dashboard_page(size_t *ret_len);

#endif
