/* The list of connections as a streamed response: one connection becomes text at a time, so a list
 * of 100,000 costs its copies and not their JSON as well. */
#ifndef TIDEGATE_OPS_ADMIN_CONNS_H
#define TIDEGATE_OPS_ADMIN_CONNS_H

#include <microhttpd.h>
#include <stddef.h>

#include "net/conn_info.h"

/* {"matched": N, "conns": [...]}. Takes conns (from malloc) in every case; NULL without memory. */
struct MHD_Response *admin_conns_response(struct conn_info *conns, size_t n, size_t matched);

#endif
