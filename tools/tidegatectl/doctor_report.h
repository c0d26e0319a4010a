/* What the doctor found: findings in groups, for people and as JSON. */
#ifndef TIDEGATECTL_DOCTOR_REPORT_H
#define TIDEGATECTL_DOCTOR_REPORT_H

#include <jansson.h>
#include <stdio.h>

/* In rising order. A problem: a gateway does not start, or cannot do what is asked of it. */
enum doctor_severity {
	DOCTOR_OK,
	DOCTOR_ADVICE,
	DOCTOR_WARNING,
	DOCTOR_PROBLEM,
	DOCTOR_SEVERITIES,
};

/* Texts but group are from malloc; should, why and command may be NULL. */
struct doctor_finding {
	enum doctor_severity severity;
	const char *group;
	char *name;
	char *has;     /* the value it has */
	char *should;  /* the value it should have */
	char *why;     /* what depends on it */
	char *command; /* what sets it */
};

struct doctor_report {
	struct doctor_finding *finding;
	unsigned n;
};

/* Adds a finding; those of one group are added one after the other. It is good until the next one
 * is added. */
struct doctor_finding *doctor_add(struct doctor_report *r, enum doctor_severity severity,
	const char *group, const char *name);

/* Sets a text of a finding: doctor_set(&f->has, "%d", 3). */
__attribute__((format(printf, 2, 3))) void doctor_set(char **text, const char *fmt, ...);

enum doctor_severity doctor_worst(const struct doctor_report *r);
const char *doctor_severity_name(enum doctor_severity s);

/* A line for what is well; value, reason and command for the rest; counts last. */
void doctor_print(const struct doctor_report *r, FILE *out);

/* {"severity", "counts": {ok, advice, warning, problem}, "checks": [{group, name, severity, has,
 * should, why, command}]}, null where there is nothing. NULL without memory. */
json_t *doctor_json(const struct doctor_report *r);

void doctor_report_fini(struct doctor_report *r);

#endif
