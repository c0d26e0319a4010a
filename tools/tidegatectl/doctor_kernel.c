#include "doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/btf.h>

#define GROUP "kernel"

static void check_version(struct doctor *d)
{
	struct doctor_finding *f = doctor_add(&d->report,
		probe_kernel_too_old(&d->probe) ? DOCTOR_PROBLEM : DOCTOR_OK, GROUP, "Linux");

	doctor_set(&f->has, "%s", d->probe.release);
	doctor_set(&f->should, "%d.%d or newer", PROBE_KERNEL_MAJOR, PROBE_KERNEL_MINOR);
	doctor_set(&f->why, "tidegate relies on what older ones lack");
}

static void check_feature(struct doctor *d, enum probe_feature which)
{
	char why[PROBE_WHY_MAX];
	struct doctor_finding *f = doctor_add(&d->report,
		!d->probe.error[which]        ? DOCTOR_OK
		: probe_feature_needed(which) ? DOCTOR_PROBLEM
					      : DOCTOR_ADVICE,
		GROUP, probe_feature_text(which));

	if (!d->probe.error[which]) {
		doctor_set(&f->has, "yes");
	} else {
		probe_feature_why(&d->probe, which, why, sizeof(why));
		doctor_set(&f->has, "no (%s)", why);
	}
	doctor_set(&f->should, "yes");
	doctor_set(&f->why, "%s",
		probe_feature_needed(which) ? "no worker runs without it"
					    : "not needed; a newer kernel has it");
}

/* ---- BPF ---- */

static const char gate_why[] = "without it the gate is not in the kernel: newcomers are refused "
			       "only after the worker has accepted them";

static void check_program(struct doctor *d, const char *name, int loads)
{
	struct doctor_finding *f =
		doctor_add(&d->report, loads == 1 ? DOCTOR_OK : DOCTOR_WARNING, GROUP, name);

	if (loads < 0)
		doctor_set(&f->has, "not tried: %s", strerror(-loads));
	else
		doctor_set(&f->has, "%s be loaded", loads ? "can" : "cannot");
	doctor_set(&f->should, "can be loaded");
	doctor_set(&f->why, "%s", gate_why);
	if (loads < 0) {
		f->severity = DOCTOR_ADVICE;
		doctor_set(&f->command, "run it as root");
	}
}

/* Other XDP programs on the same interface are a matter of taste; where there are none a plain link
 * does as well. */
static void check_dispatcher(struct doctor *d)
{
	struct doctor_finding *f;

	if (d->bpf_xdp != 1)
		return;
	f = doctor_add(&d->report, d->dispatcher ? DOCTOR_OK : DOCTOR_ADVICE, GROUP,
		"XDP dispatcher (freplace)");
	doctor_set(&f->has, "%s", d->dispatcher ? "yes" : "no: a plain link is used");
	doctor_set(&f->should, "yes");
	doctor_set(&f->why, "without it no other XDP program can share an interface with the gate");
}

struct tracepoint {
	const char *name, *why;
	enum doctor_severity severity;
};

static void check_tracepoint(struct doctor *d, const struct btf *btf, const struct tracepoint *t)
{
	char type[64], name[64];

	snprintf(type, sizeof(type), "btf_trace_%s", t->name);
	snprintf(name, sizeof(name), "tracepoint %s", t->name);
	bool has = btf__find_by_name_kind(btf, type, BTF_KIND_TYPEDEF) > 0;
	struct doctor_finding *f =
		doctor_add(&d->report, has ? DOCTOR_OK : t->severity, GROUP, name);
	doctor_set(&f->has, "%s", has ? "yes" : "no");
	doctor_set(&f->should, "yes");
	doctor_set(&f->why, "%s", t->why);
}

static void check_btf(struct doctor *d)
{
	static const char path[] = "/sys/kernel/btf/vmlinux";
	static const struct tracepoint tracepoints[] = {
		{"inet_sock_set_state", gate_why, DOCTOR_WARNING},
		{"sk_data_ready", "wake delays cannot be measured (6.3)", DOCTOR_ADVICE},
		{"sock_recv_length", "wake delays cannot be measured (6.3)", DOCTOR_ADVICE},
		{"sched_switch", "waits for a CPU cannot be measured", DOCTOR_ADVICE},
	};
	char full[512];

	snprintf(full, sizeof(full), "%s%s", d->root, path);
	struct btf *btf = btf__parse(full, NULL);
	int err = errno;
	struct doctor_finding *f = doctor_add(
		&d->report, btf ? DOCTOR_OK : DOCTOR_WARNING, GROUP, "BTF of the kernel");
	if (btf)
		doctor_set(&f->has, "yes");
	else
		doctor_set(&f->has, "%s cannot be read: %s", path, strerror(err));
	doctor_set(&f->should, "yes (CONFIG_DEBUG_INFO_BTF)");
	doctor_set(&f->why, "%s", gate_why);
	for (unsigned i = 0; btf && i < sizeof(tracepoints) / sizeof(tracepoints[0]); i++)
		check_tracepoint(d, btf, &tracepoints[i]);
	btf__free(btf);
}

/* ---- clock and CPU ---- */

/* These are read without a system call. */
static bool fast_clock(const char *name)
{
	static const char *const fast[] = {
		"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"};

	for (unsigned i = 0; i < sizeof(fast) / sizeof(fast[0]); i++)
		if (!strcmp(name, fast[i]))
			return true;
	return false;
}

static void check_clock(struct doctor *d)
{
#define CLOCK "/sys/devices/system/clocksource/clocksource0/"
	char now[DOCTOR_TEXT_MAX], all[DOCTOR_TEXT_MAX];

	if (doctor_read(d, CLOCK "current_clocksource", now))
		return;
	struct doctor_finding *f = doctor_add(
		&d->report, fast_clock(now) ? DOCTOR_OK : DOCTOR_WARNING, GROUP, "clock source");
	doctor_set(&f->has, "%.64s", now);
	doctor_set(&f->should, "tsc");
	doctor_set(&f->why,
		"workers read the clock every turn, and the programs in the kernel every "
		"event; another source takes a system call or slow hardware each time");
	if (!f->severity)
		return;
	if (!doctor_read(d, CLOCK "available_clocksource", all) && strstr(all, "tsc"))
		doctor_set(&f->command, "echo tsc > " CLOCK "current_clocksource");
	else
		doctor_set(&f->command, "boot with tsc=reliable if the machine's TSC is");
#undef CLOCK
}

static void check_frequency(struct doctor *d)
{
#define FREQ "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
	char text[DOCTOR_TEXT_MAX];

	if (doctor_read(d, FREQ, text))
		return;
	bool good = !strcmp(text, "performance");
	struct doctor_finding *f = doctor_add(
		&d->report, good ? DOCTOR_OK : DOCTOR_ADVICE, GROUP, "CPU frequency governor");
	doctor_set(&f->has, "%.32s", text);
	doctor_set(&f->should, "performance");
	doctor_set(&f->why, "a CPU that has to speed up first adds to the delay of a burst");
	if (!good)
		doctor_set(&f->command, "cpupower frequency-set -g performance");
#undef FREQ
}

static void check_cpus(struct doctor *d)
{
	unsigned workers = doctor_workers(d);
	struct doctor_finding *f = doctor_add(
		&d->report, workers <= d->cpus ? DOCTOR_OK : DOCTOR_WARNING, GROUP, "CPUs");

	doctor_set(&f->has, "%u, for %u worker%s", d->cpus, workers, workers == 1 ? "" : "s");
	doctor_set(&f->should, "one for each worker");
	doctor_set(&f->why, "workers that share a CPU wait for each other");
	if (f->severity)
		doctor_set(&f->command, "workers: {count: %u} in the configuration", d->cpus);
}

void doctor_kernel(struct doctor *d)
{
	check_version(d);
	for (unsigned i = 0; i < PROBE_FEATURE_COUNT; i++)
		check_feature(d, (enum probe_feature)i);
	check_btf(d);
	check_program(d, "XDP programs", d->bpf_xdp);
	check_program(d, "steering programs (sk_reuseport)", d->bpf_steer);
	check_dispatcher(d);
	check_clock(d);
	check_frequency(d);
	check_cpus(d);
}
