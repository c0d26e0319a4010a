/* The admin surface's answers for whoever watches: live snapshots and the pages. In MHD's threads.
 */
#ifndef TIDEGATE_OPS_ADMIN_VIEWS_H
#define TIDEGATE_OPS_ADMIN_VIEWS_H

#include "ops/admin_api.h"

ADMIN_ANSWER(admin_live_show);
ADMIN_ANSWER(admin_events_show);
ADMIN_ANSWER(admin_dashboard_show);
ADMIN_ANSWER(admin_page_show);
ADMIN_ANSWER(admin_chat_show);
ADMIN_ANSWER(admin_hub_show);

#endif
