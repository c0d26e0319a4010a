#include "ops/admin_dashboard.h"

#include "ops/admin_page.h"

ADMIN_PAGE(dashboard_page, "build/dashboard.html");

const char *admin_dashboard_page(size_t *ret_len)
{
	*ret_len = (size_t)(dashboard_page_end - dashboard_page);
	return dashboard_page;
}
