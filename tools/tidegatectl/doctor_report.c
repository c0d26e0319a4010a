#include "doctor_report.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *const severity_names[DOCTOR_SEVERITIES] = {"ok", "advice", "warning", "problem"};

static void *must(void *p)
{
	if (!p) {
		fputs("tidegatectl: out of memory\n", stderr);
		exit(1);
	}
	return p;
}

/* What a file or an interface's name may hold is for neither a terminal nor JSON. */
static char *plain(char *text)
{
	for (char *p = text; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			*p = '?';
	return text;
}

struct doctor_finding *doctor_add(
	struct doctor_report *r, enum doctor_severity severity, const char *group, const char *name)
{
	r->finding = must(realloc(r->finding, (r->n + 1) * sizeof(*r->finding)));
	struct doctor_finding *f = &r->finding[r->n++];

	*f = (struct doctor_finding){
		.severity = severity, .group = group, .name = plain(must(strdup(name)))};
	return f;
}

void doctor_set(char **text, const char *fmt, ...)
{
	char *set = NULL;
	va_list args;

	va_start(args, fmt);
	int n = vasprintf(&set, fmt, args);
	va_end(args);
	free(*text);
	*text = plain(must(n < 0 ? NULL : set));
}

enum doctor_severity doctor_worst(const struct doctor_report *r)
{
	enum doctor_severity worst = DOCTOR_OK;

	for (unsigned i = 0; i < r->n; i++)
		if (r->finding[i].severity > worst)
			worst = r->finding[i].severity;
	return worst;
}

const char *doctor_severity_name(enum doctor_severity s)
{
	return severity_names[s];
}

static void count(const struct doctor_report *r, unsigned ret[DOCTOR_SEVERITIES])
{
	memset(ret, 0, DOCTOR_SEVERITIES * sizeof(*ret));
	for (unsigned i = 0; i < r->n; i++)
		ret[r->finding[i].severity]++;
}

static void print_finding(const struct doctor_finding *f, int width, FILE *out)
{
	fprintf(out, "  %-8s %-*s %s", severity_names[f->severity], width, f->name,
		f->has ? f->has : "");
	if (f->severity == DOCTOR_OK) {
		fputc('\n', out);
		return;
	}
	fprintf(out, f->should ? "; should be %s\n" : "\n", f->should);
	if (f->why)
		fprintf(out, "           why: %s\n", f->why);
	if (f->command)
		fprintf(out, "           set: %s\n", f->command);
}

static int name_width(const struct doctor_report *r, const char *group)
{
	size_t width = 0;

	for (unsigned i = 0; i < r->n; i++)
		if (!strcmp(r->finding[i].group, group) && strlen(r->finding[i].name) > width)
			width = strlen(r->finding[i].name);
	return (int)width;
}

void doctor_print(const struct doctor_report *r, FILE *out)
{
	unsigned counts[DOCTOR_SEVERITIES];

	for (unsigned i = 0; i < r->n; i++) {
		if (i == 0 || strcmp(r->finding[i].group, r->finding[i - 1].group))
			fprintf(out, "%s%s\n", i ? "\n" : "", r->finding[i].group);
		print_finding(&r->finding[i], name_width(r, r->finding[i].group), out);
	}
	count(r, counts);
	fprintf(out, "\n%u ok, %u advice, %u warning%s, %u problem%s\n", counts[DOCTOR_OK],
		counts[DOCTOR_ADVICE], counts[DOCTOR_WARNING],
		counts[DOCTOR_WARNING] == 1 ? "" : "s", counts[DOCTOR_PROBLEM],
		counts[DOCTOR_PROBLEM] == 1 ? "" : "s");
}

json_t *doctor_json(const struct doctor_report *r)
{
	unsigned counts[DOCTOR_SEVERITIES];
	json_t *checks = json_array();

	for (unsigned i = 0; i < r->n; i++) {
		const struct doctor_finding *f = &r->finding[i];

		json_array_append_new(checks,
			json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:s?, s:s?}", "group", f->group,
				"name", f->name, "severity", severity_names[f->severity], "has",
				f->has, "should", f->should, "why", f->why, "command", f->command));
	}
	count(r, counts);
	return json_pack("{s:s, s:{s:i, s:i, s:i, s:i}, s:o}", "severity",
		severity_names[doctor_worst(r)], "counts", "ok", counts[DOCTOR_OK], "advice",
		counts[DOCTOR_ADVICE], "warning", counts[DOCTOR_WARNING], "problem",
		counts[DOCTOR_PROBLEM], "checks", checks);
}

void doctor_report_fini(struct doctor_report *r)
{
	for (unsigned i = 0; i < r->n; i++) {
		struct doctor_finding *f = &r->finding[i];

		free(f->name);
		free(f->has);
		free(f->should);
		free(f->why);
		free(f->command);
	}
	free(r->finding);
	*r = (struct doctor_report){0};
}
