#include "kern/bpf_error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <bpf/libbpf.h>
#include <xdp/libxdp.h>

static char text[256];

static void keep(const char *format, va_list args)
{
	vsnprintf(text, sizeof(text), format, args);
	char *end = strchr(text, '\n');
	if (end)
		*end = 0;
}

static int from_libbpf(enum libbpf_print_level level, const char *format, va_list args)
{
	if (level == LIBBPF_WARN)
		keep(format, args);
	return 0;
}

static int from_libxdp(enum libxdp_print_level level, const char *format, va_list args)
{
	if (level == LIBXDP_WARN)
		keep(format, args);
	return 0;
}

void bpf_error_capture(void)
{
	libbpf_set_print(from_libbpf);
	libxdp_set_print(from_libxdp);
}

const char *bpf_error_text(void)
{
	return text;
}

void bpf_error_clear(void)
{
	text[0] = 0;
}
