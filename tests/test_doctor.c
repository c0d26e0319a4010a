/* tidegatectl doctor: made-up machines, by files below a folder that stands for the root. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../tools/tidegatectl/doctor.h"

static char root[] = "/tmp/tidegate-doctor-XXXXXX";
static struct doctor d;

static void put_bytes(const char *path, const char *data, size_t len)
{
	char full[512];

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *p = strchr(full + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		mkdir(full, 0700);
		*p = '/';
	}
	FILE *f = fopen(full, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	fclose(f);
}

static void put(const char *path, const char *text)
{
	put_bytes(path, text, strlen(text));
}

static void sysctl_is(const char *name, const char *text)
{
	char path[128];

	doctor_sysctl_path(name, path);
	put(path, text);
}

static void clear(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s/*", root);
	assert_int_equal(system(command), 0);
}

static int interface_name(unsigned ifindex, char ret[64])
{
	if (ifindex > 2)
		return -ENXIO;
	strcpy(ret, ifindex == 1 ? "lo" : "eth0");
	return 0;
}

static int xdp_native(unsigned ifindex, enum doctor_xdp_mode *ret)
{
	(void)ifindex;
	*ret = DOCTOR_XDP_NATIVE;
	return 0;
}

static int xdp_generic(unsigned ifindex, enum doctor_xdp_mode *ret)
{
	(void)ifindex;
	*ret = DOCTOR_XDP_GENERIC;
	return 0;
}

static int xdp_none(unsigned ifindex, enum doctor_xdp_mode *ret)
{
	(void)ifindex;
	*ret = DOCTOR_XDP_NONE;
	return 0;
}

static int xdp_unknown(unsigned ifindex, enum doctor_xdp_mode *ret)
{
	(void)ifindex;
	(void)ret;
	return -EPERM;
}

/* A machine on which all is well, with a gateway of two workers. */
static int setup(void **state)
{
	static const char *const sysctls[][2] = {
		{"kernel.io_uring_disabled", "0\n"},
		{"kernel.unprivileged_bpf_disabled", "2\n"},
		{"net.core.bpf_jit_enable", "1\n"},
		{"net.ipv4.tcp_syncookies", "1\n"},
		{"net.ipv4.tcp_timestamps", "1\n"},
		{"net.ipv4.tcp_abort_on_overflow", "0\n"},
		{"net.core.somaxconn", "4096\n"},
		{"net.core.wmem_max", "212992\n"},
		{"net.core.netdev_max_backlog", "1000\n"},
		{"net.netfilter.nf_conntrack_max", "262144\n"},
		{"net.netfilter.nf_conntrack_count", "17\n"},
		{"net.ipv4.tcp_max_syn_backlog", "4096\n"},
		{"net.ipv4.tcp_mem", "287901\t383868\t575802\n"},
		{"net.ipv4.tcp_rmem", "4096\t131072\t6291456\n"},
		{"net.ipv4.tcp_wmem", "4096\t16384\t4194304\n"},
		{"net.ipv4.ip_local_port_range", "32768\t60999\n"},
		{"fs.nr_open", "1048576\n"},
		{"fs.file-max", "9223372036854775807\n"},
		{"fs.file-nr", "1056\t0\t9223372036854775807\n"},
	};

	clear();
	for (unsigned i = 0; i < sizeof(sysctls) / sizeof(sysctls[0]); i++)
		sysctl_is(sysctls[i][0], sysctls[i][1]);
	put("/proc/meminfo", "MemTotal:       24602148 kB\nMemAvailable:   20000000 kB\n");
	put("/proc/net/softnet_stat", "0e39 00000000 0 0\n0da9 00000000 0 0\n");
	put("/proc/net/netstat", "TcpExt: SyncookiesSent ListenOverflows ListenDrops\n"
				 "TcpExt: 5 0 0\nIpExt: InNoRoutes\nIpExt: 1\n");
	put("/proc/77/limits",
		"Limit                     Soft Limit           Hard Limit           Units     \n"
		"Max locked memory         unlimited            unlimited            bytes     \n"
		"Max open files            65536                65536                files     \n");
	put("/proc/77/status", "Name:\ttidegate\nPPid:\t76\nCapEff:\t0000000000000000\n");
	put("/proc/76/status", "Name:\ttidegate\nPPid:\t1\nCapEff:\t000001ffffffffff\n");
	put("/proc/77/cgroup", "1:cpu:/old\n0::/system.slice/tidegate.service\n");
	put("/sys/fs/cgroup/system.slice/tidegate.service/cpu.max", "max 100000\n");
	put("/sys/fs/cgroup/system.slice/cpu.max", "max 100000\n");
	put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n");
	put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n");
	put("/sys/class/net/eth0/ifindex", "2\n");
	put("/sys/class/net/eth0/operstate", "up\n");
	put("/sys/class/net/eth0/device/vendor", "0x8086\n");
	put("/sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n");
	put("/sys/class/net/eth0/queues/rx-1/rps_cpus", "0\n");
	put("/sys/class/net/lo/ifindex", "1\n");
	put("/sys/fs/bpf/tidegate/shop/admit_prog_2", "");
	d = (struct doctor){
		.root = root,
		.instance = "shop",
		.connections = 100000,
		.cpus = 4,
		.gateway = {.running = true, .pid = 77, .workers = 2, .in_kernel = true},
		.probe = {.release = "6.12.3", .kernel_major = 6, .kernel_minor = 12},
		.bpf_xdp = 1,
		.bpf_steer = 1,
		.dispatcher = true,
		.interface_name = interface_name,
		.xdp_mode = xdp_native,
	};
	strcpy(d.gateway.version, TG_VERSION);
	return 0;
}

static int teardown(void **state)
{
	doctor_report_fini(&d.report);
	return 0;
}

static void examine(void)
{
	doctor_report_fini(&d.report);
	doctor_process(&d);
	doctor_kernel(&d);
	doctor_limits(&d);
	doctor_sysctls(&d);
	doctor_interfaces(&d);
}

static const struct doctor_finding *find(const char *name)
{
	for (unsigned i = 0; i < d.report.n; i++)
		if (!strcmp(d.report.finding[i].name, name))
			return &d.report.finding[i];
	return NULL;
}

/* Texts that are NULL are not looked at; of the others, `has` is the whole and the command a part.
 */
static void assert_finding(
	const char *name, enum doctor_severity severity, const char *has, const char *command)
{
	const struct doctor_finding *f;

	examine();
	f = find(name);
	if (!f)
		fail_msg("no finding %s", name);
	if (f->severity != severity)
		fail_msg("%s is %s: %s", name, doctor_severity_name(f->severity), f->has);
	if (has)
		assert_string_equal(f->has, has);
	if (command && (!f->command || !strstr(f->command, command)))
		fail_msg("%s: the command is %s", name, f->command);
	if (severity) {
		assert_non_null(f->has);
		if (!strstr(f->has, "not known") && !strstr(f->has, "not understood"))
			assert_non_null(f->why);
	}
}

/* A sysctl with a value: what becomes of it. */
static void assert_sysctl(
	const char *name, const char *value, enum doctor_severity severity, const char *command)
{
	sysctl_is(name, value);
	assert_finding(name, severity, NULL, command);
}

static void test_all_well(void **state)
{
	examine();
	for (unsigned i = 0; i < d.report.n; i++)
		/* There is no BTF below this root. */
		if (d.report.finding[i].severity &&
			strcmp(d.report.finding[i].name, "BTF of the kernel"))
			fail_msg("%s: %s", d.report.finding[i].name, d.report.finding[i].has);
	assert_true(d.report.n > 35);
	assert_int_equal(doctor_worst(&d.report), DOCTOR_WARNING);
	assert_string_equal(find("tidegate")->has, TG_VERSION ", pid 77");
	assert_string_equal(find("XDP on eth0")->has, "native, in libxdp's dispatcher");
	assert_null(find("network namespace"));
}

static void test_numbers(void **state)
{
	int64_t v[3] = {7, 7, 7};

	assert_int_equal(doctor_numbers("4096", v, 1), 0);
	assert_true(v[0] == 4096);
	assert_int_equal(doctor_numbers(" 1\t-2 \n3\n", v, 3), 0);
	assert_true(v[0] == 1 && v[1] == -2 && v[2] == 3);
	assert_int_equal(doctor_numbers("18446744073709551615", v, 1), 0);
	assert_true(v[0] == INT64_MAX);
	v[0] = 7;
	static const char *const bad[] = {
		"", " ", "-", "x", "1x", "1 2", "0x10", "1.5", "+1", "max", "1,2", "\xff\xfe"};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(doctor_numbers(bad[i], v, 1), -EINVAL);
	assert_int_equal(doctor_numbers("1 2", v, 3), -EINVAL);
	assert_true(v[0] == 7);
}

static void test_files(void **state)
{
	static char big[DOCTOR_TEXT_MAX + 1], text[DOCTOR_TEXT_MAX];
	char value[8];

	put("/x", "a b \n\n");
	assert_int_equal(doctor_read(&d, "/x", text), 0);
	assert_string_equal(text, "a b");
	assert_int_equal(doctor_read(&d, "/none", text), -ENOENT);
	memset(big, 'x', sizeof(big));
	put_bytes("/big", big, sizeof(big));
	assert_int_equal(doctor_read(&d, "/big", text), -EFBIG);
	assert_int_equal(doctor_read(&d, "/proc", text), -EISDIR);
	assert_string_equal(text, "a b");

	assert_true(doctor_line("A: 1\nAB:  2 kB\n", "AB:", value, sizeof(value)));
	assert_string_equal(value, "2 kB");
	assert_true(doctor_line("A:", "A:", value, sizeof(value)));
	assert_string_equal(value, "");
	assert_false(doctor_line("xA: 1\n", "A:", value, sizeof(value)));
	assert_false(doctor_line("A: 12345678\n", "A:", value, sizeof(value)));
}

static void test_sysctl_values(void **state)
{
	static const struct {
		const char *name, *value;
		enum doctor_severity severity;
		const char *command;
	} cases[] = {
		{"net.core.somaxconn", "128", DOCTOR_WARNING, "sysctl -w net.core.somaxconn=4096"},
		{"net.core.somaxconn", "65535", DOCTOR_OK, NULL},
		{"net.core.wmem_max", "32768", DOCTOR_WARNING, "net.core.wmem_max=65536"},
		{"net.netfilter.nf_conntrack_max", "65536", DOCTOR_WARNING, "max=200000"},
		{"net.netfilter.nf_conntrack_count", "240000", DOCTOR_PROBLEM, "max=524288"},
		{"net.ipv4.tcp_syncookies", "0", DOCTOR_WARNING, "net.ipv4.tcp_syncookies=1"},
		{"net.ipv4.tcp_syncookies", "2", DOCTOR_OK, NULL},
		{"net.ipv4.tcp_timestamps", "0", DOCTOR_ADVICE, "net.ipv4.tcp_timestamps=1"},
		{"net.ipv4.tcp_abort_on_overflow", "1", DOCTOR_WARNING, "overflow=0"},
		{"net.core.bpf_jit_enable", "0", DOCTOR_WARNING, "net.core.bpf_jit_enable=1"},
		{"kernel.unprivileged_bpf_disabled", "0", DOCTOR_ADVICE, "disabled=2"},
		{"kernel.unprivileged_bpf_disabled", "1", DOCTOR_OK, NULL},
		{"kernel.io_uring_disabled", "2", DOCTOR_PROBLEM, "io_uring_disabled=0"},
		{"kernel.io_uring_disabled", "1", DOCTOR_PROBLEM, "io_uring_disabled=0"},
		{"net.ipv4.tcp_mem", "10000 20000 200000", DOCTOR_ADVICE,
			"tcp_mem=\"75000 100000 150000\""},
		{"net.ipv4.tcp_mem", "10000 20000 30000", DOCTOR_WARNING, "tcp_mem="},
		{"net.ipv4.tcp_rmem", "65536 131072 6291456", DOCTOR_ADVICE,
			"tcp_rmem=\"4096 131072 6291456\""},
		{"net.ipv4.tcp_wmem", "4096 16384 4194304", DOCTOR_OK, NULL},
		{"net.ipv4.ip_local_port_range", "40000 40999", DOCTOR_ADVICE, "32768 60999"},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		setup(NULL);
		assert_sysctl(cases[i].name, cases[i].value, cases[i].severity, cases[i].command);
		teardown(NULL);
	}
}

/* One that depends on another. */
static void test_sysctl_pairs(void **state)
{
	assert_sysctl("net.ipv4.tcp_max_syn_backlog", "128", DOCTOR_OK, NULL);
	sysctl_is("net.ipv4.tcp_syncookies", "0");
	assert_finding("net.ipv4.tcp_max_syn_backlog", DOCTOR_WARNING, "128", "backlog=4096");
	sysctl_is("kernel.io_uring_group", "980");
	assert_sysctl("kernel.io_uring_disabled", "1", DOCTOR_WARNING, NULL);
	assert_non_null(strstr(find("kernel.io_uring_disabled")->why, "group 980"));
	sysctl_is("kernel.io_uring_group", "nobody");
	assert_finding("kernel.io_uring_disabled", DOCTOR_PROBLEM, "1", NULL);
}

static void test_sysctl_nonsense(void **state)
{
	static const char *const names[] = {"net.core.somaxconn", "net.ipv4.tcp_mem",
		"net.ipv4.tcp_syncookies", "kernel.io_uring_disabled", "net.ipv4.tcp_rmem",
		"net.ipv4.ip_local_port_range", "net.ipv4.tcp_max_syn_backlog"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_sysctl(names[i], "\x1b[2J\xff many", DOCTOR_ADVICE, NULL);
		/* … which must not reach the terminal. */
		assert_string_equal(find(names[i])->has, "not understood: \"?[2J? many\"");
	}
	sysctl_is("fs.file-max", "");
	assert_finding("fs.file-max", DOCTOR_ADVICE, NULL, NULL);
	/* Far out of range, but numbers. */
	static const char *const extremes[] = {"-9223372036854775809 99999999999999999999",
		"9223372036854775807 9223372036854775807", "0 0", "-1 -9223372036854775808"};
	for (unsigned i = 0; i < sizeof(extremes) / sizeof(extremes[0]); i++) {
		char three[128];
		assert_sysctl("net.ipv4.ip_local_port_range", extremes[i], DOCTOR_ADVICE, NULL);
		snprintf(three, sizeof(three), "%s 7", extremes[i]);
		sysctl_is("net.ipv4.tcp_rmem", three);
		sysctl_is("net.ipv4.tcp_mem", three);
		snprintf(three, strcspn(extremes[i], " ") + 1, "%s", extremes[i]);
		sysctl_is("net.netfilter.nf_conntrack_max", three);
		sysctl_is("net.netfilter.nf_conntrack_count", three);
		sysctl_is("fs.file-max", three);
		sysctl_is("fs.nr_open", three);
		sysctl_is("net.core.somaxconn", three);
		examine();
	}
	assert_sysctl("net.ipv4.tcp_timestamps", "99999999999999999999999", DOCTOR_ADVICE, "=1");
	assert_sysctl("net.ipv4.tcp_timestamps", "-1", DOCTOR_ADVICE, "=1");
}

/* Another kernel may lack any of them. */
static void test_empty_machine(void **state)
{
	clear();
	d.gateway = (struct doctor_gateway){0};
	d.probe.nofile_hard = 20000;
	d.probe.memlock_hard = UINT64_MAX;
	examine();
	assert_null(find("net.core.somaxconn"));
	assert_string_equal(
		find("net.netfilter.nf_conntrack_max")->has, "nf_conntrack is not loaded");
	assert_int_equal(find("tidegate")->severity, DOCTOR_ADVICE);
	assert_string_equal(
		find("tidegate")->has, "not running: what only it could say was not looked at");
	assert_int_equal(find("privileges")->severity, DOCTOR_ADVICE);
	assert_true(doctor_worst(&d.report) < DOCTOR_PROBLEM);
}

static void limits_are(const char *memlock, const char *nofile)
{
	char text[512];

	snprintf(text, sizeof(text),
		"Max locked memory         %-20s %-20s bytes     \n"
		"Max open files            %-20s %-20s files     \n",
		memlock, memlock, nofile, nofile);
	put("/proc/77/limits", text);
}

static void test_descriptors(void **state)
{
	limits_are("unlimited", "20000");
	assert_finding("RLIMIT_NOFILE", DOCTOR_OK, "20000: a ring holds 19936 connections", NULL);
	assert_non_null(strstr(find("RLIMIT_NOFILE")->why, "2 workers need 3 rings each"));
	d.connections = 1000000;
	assert_finding("RLIMIT_NOFILE", DOCTOR_ADVICE, NULL, "ulimit -n 500064 ");
	limits_are("unlimited", "1024");
	assert_finding("RLIMIT_NOFILE", DOCTOR_PROBLEM, NULL, "ulimit -n 500064 ");
	d.connections = 10000000;
	assert_finding("RLIMIT_NOFILE", DOCTOR_PROBLEM, NULL, "ulimit -n 1048576 ");
	limits_are("unlimited", "unlimited");
	assert_finding("RLIMIT_NOFILE", DOCTOR_OK, "unlimited", NULL);
	limits_are("unlimited", "1");
	assert_finding("RLIMIT_NOFILE", DOCTOR_PROBLEM, NULL, NULL);
	static const char *const bad[] = {"", "many", "99999999999999999999999", "12k"};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		limits_are("unlimited", bad[i]);
		assert_finding("RLIMIT_NOFILE", DOCTOR_ADVICE, NULL, NULL);
	}
	/* Without a gateway: what its keeper would raise the soft limit to. */
	d.gateway = (struct doctor_gateway){0};
	d.connections = 100000;
	d.probe.nofile_soft = 256;
	d.probe.nofile_hard = 524288;
	assert_finding("RLIMIT_NOFILE", DOCTOR_OK, NULL, NULL);
}

static void test_memory(void **state)
{
	limits_are("65536", "20000"); /* six rings need ten times as much */
	assert_finding("RLIMIT_MEMLOCK", DOCTOR_WARNING, "64 KiB", "ulimit -l unlimited");
	d.gateway.running = false;
	d.gateway.workers = 0;
	d.probe.nofile_hard = 20000;
	d.probe.memlock_hard = 65536;
	d.capabilities = UINT64_C(1) << 14; /* CAP_IPC_LOCK */
	assert_finding("RLIMIT_MEMLOCK", DOCTOR_ADVICE, "64 KiB", NULL);
	put("/proc/meminfo", "MemAvailable:   200000 kB\n");
	assert_finding("memory", DOCTOR_WARNING, "195 MiB available", NULL);
	put("/proc/meminfo", "MemAvailable: lots\n");
	examine();
	assert_null(find("memory"));
}

static void test_files_of_the_machine(void **state)
{
	sysctl_is("fs.file-max", "105000");
	assert_finding("fs.file-max", DOCTOR_WARNING, "105000, 1056 in use", "fs.file-max=110000");
	sysctl_is("fs.file-max", "99999");
	assert_finding("fs.file-max", DOCTOR_PROBLEM, NULL, "fs.file-max=110000");
	sysctl_is("fs.file-max", "18446744073709551615");
	assert_finding("fs.file-max", DOCTOR_OK, NULL, NULL);
	d.connections = 2000000;
	sysctl_is("fs.nr_open", "65536");
	assert_finding("fs.nr_open", DOCTOR_ADVICE, "65536", "fs.nr_open=1048576");
}

static void test_kernel(void **state)
{
	d.probe.error[PROBE_send_msg_ring] = -EINVAL;
	assert_finding(probe_feature_text(PROBE_send_msg_ring), DOCTOR_ADVICE,
		"no (Invalid argument)", NULL);
	d.probe.error[PROBE_min_wait] = -EOPNOTSUPP;
	assert_finding(probe_feature_text(PROBE_min_wait), DOCTOR_PROBLEM, NULL, NULL);
	d.probe.kernel_minor = 11;
	assert_finding("Linux", DOCTOR_PROBLEM, "6.12.3", NULL);
	d.bpf_xdp = 0;
	d.bpf_steer = -EPERM;
	assert_finding("XDP programs", DOCTOR_WARNING, "cannot be loaded", NULL);
	assert_finding("steering programs (sk_reuseport)", DOCTOR_ADVICE,
		"not tried: Operation not permitted", "root");
	assert_null(find("XDP dispatcher (freplace)"));
	d.bpf_xdp = 1;
	d.dispatcher = false;
	assert_finding("XDP dispatcher (freplace)", DOCTOR_ADVICE, NULL, NULL);
	d.gateway.workers = 5;
	assert_finding("CPUs", DOCTOR_WARNING, "4, for 5 workers", "count: 4");
}

static void test_clock(void **state)
{
#define CLOCK "/sys/devices/system/clocksource/clocksource0/"
	put(CLOCK "current_clocksource", "hpet\n");
	put(CLOCK "available_clocksource", "hpet acpi_pm \n");
	assert_finding("clock source", DOCTOR_WARNING, "hpet", "tsc=reliable");
	put(CLOCK "available_clocksource", "tsc hpet acpi_pm \n");
	assert_finding("clock source", DOCTOR_WARNING, "hpet", "echo tsc > ");
	put(CLOCK "current_clocksource", "kvm-clock\n");
	assert_finding("clock source", DOCTOR_OK, "kvm-clock", NULL);
	put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
	assert_finding("CPU frequency governor", DOCTOR_ADVICE, "powersave", "performance");
}

static void test_xdp(void **state)
{
	put("/sys/fs/bpf/tidegate/shop/admit_link_1", "");
	d.xdp_mode = xdp_generic;
	assert_finding("XDP on lo", DOCTOR_OK, "generic, by a plain link", NULL);
	assert_finding("XDP on eth0", DOCTOR_WARNING, "generic, in libxdp's dispatcher",
		"ethtool -L eth0 combined 2");
	d.xdp_mode = xdp_none;
	assert_finding("XDP on eth0", DOCTOR_PROBLEM, NULL, NULL);
	d.xdp_mode = xdp_unknown;
	assert_finding("XDP on eth0", DOCTOR_ADVICE, "not known: Operation not permitted", NULL);
	/* sysfs is of another network namespace, or the interface is gone. */
	d.xdp_mode = xdp_generic;
	put("/sys/class/net/eth0/ifindex", "5\n");
	assert_finding("XDP on eth0", DOCTOR_ADVICE, NULL, NULL);
	put("/sys/fs/bpf/tidegate/shop/admit_link_9", "");
	put("/sys/fs/bpf/tidegate/shop/admit_link_", "");
	put("/sys/fs/bpf/tidegate/shop/admit_link_x", "");
	put("/sys/fs/bpf/tidegate/shop/gate", "");
	assert_finding("XDP on interface 9", DOCTOR_ADVICE, NULL, NULL);
	/* Of another instance: not ours. */
	d.instance = "other";
	assert_finding("XDP of the gateway", DOCTOR_ADVICE, NULL, NULL);
	assert_null(find("XDP on eth0"));
	d.gateway.in_kernel = false;
	examine();
	assert_null(find("XDP of the gateway"));
	d.instance = "shop";
	d.gateway = (struct doctor_gateway){0};
	d.xdp_mode = xdp_native;
	assert_finding("gate without a gateway", DOCTOR_WARNING, "attached to 3 interfaces",
		"tidegatectl --instance shop detach");
}

static void test_queues(void **state)
{
	d.gateway.workers = 3;
	assert_finding(
		"queues of eth0", DOCTOR_ADVICE, "2 for receiving", "combined 3, or echo f >");
	put("/sys/class/net/eth0/queues/rx-1/rps_cpus", "00000000,00000006\n");
	assert_finding("queues of eth0", DOCTOR_OK, "2 for receiving, spread by RPS", NULL);
	put("/sys/class/net/eth0/queues/rx-1/rps_cpus", "00000000,00000000\n");
	d.cpus = 70;
	assert_finding("queues of eth0", DOCTOR_ADVICE, NULL, "echo 3f,ffffffff,ffffffff >");
	put("/sys/class/net/eth0/operstate", "down\n");
	examine();
	assert_null(find("queues of eth0"));
	put("/sys/class/net/eth0/ifindex", "-2\n");
	examine();
	assert_null(find("queues of eth0"));
}

static void test_losses(void **state)
{
	put("/proc/net/softnet_stat", "0e39 00000010 0 0\nrubbish\n0da9 00000001 0 0\n");
	assert_finding("packets dropped before XDP or TCP", DOCTOR_ADVICE, "17 since the boot",
		"net.core.netdev_max_backlog=2000");
	put("/proc/net/netstat", "TcpExt: SyncookiesSent ListenOverflows ListenDrops\n"
				 "TcpExt: 5 1 9\n");
	assert_finding("accept queues that overflowed", DOCTOR_ADVICE,
		"1 time since the boot, of any program", NULL);
	static const char *const bad[] = {"", "TcpExt:", "TcpExt: A ListenOverflows\nTcpExt: 1\n",
		"TcpExt: ListenOverflows\nTcpExt: x\n", "TcpExt: ListenOverflows\nTcpExt: \n"};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		put("/proc/net/netstat", bad[i]);
		examine();
		assert_null(find("accept queues that overflowed"));
	}
}

static void test_process(void **state)
{
	strcpy(d.gateway.version, "9.9");
	assert_finding("tidegate", DOCTOR_ADVICE, "9.9, pid 77", NULL);
	put("/proc/76/status", "PPid:\t1\nCapEff:\t0000000000001000\n"); /* CAP_NET_ADMIN */
	assert_finding("privileges", DOCTOR_ADVICE,
		"the keeper lacks CAP_BPF, CAP_PERFMON, CAP_SYS_RESOURCE, CAP_NET_BIND_SERVICE, "
		"CAP_SETUID",
		NULL);
	put("/proc/76/status", "PPid:\t1\nCapEff:\twhat\n");
	put("/proc/77/status", "PPid:\t76\nCapEff:\t0000000000000400\n");
	assert_finding("capabilities of the gateway", DOCTOR_WARNING, "0x400", NULL);
	assert_null(find("privileges"));
}

static void test_cgroup(void **state)
{
	put("/sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n");
	assert_finding("CPU quota (cgroup)", DOCTOR_WARNING, "150000 100000 us of each period",
		"echo max > /sys/fs/cgroup/system.slice/cpu.max");
	put("/sys/fs/cgroup/system.slice/tidegate.service/memory.max", "1073741824\n");
	assert_finding("memory limit (cgroup)", DOCTOR_OK, "1073741824 bytes", NULL);
	put("/proc/77/cgroup", "1:cpu:/old\n");
	assert_finding("CPU quota (cgroup)", DOCTOR_OK, "none", NULL);
}

static void test_namespace(void **state)
{
	char path[128];

	put("/proc/self/ns/x", "");
	put("/proc/77/ns/x", "");
	snprintf(path, sizeof(path), "%s/proc/self/ns/net", root);
	assert_int_equal(symlink("net:[1]", path), 0);
	snprintf(path, sizeof(path), "%s/proc/77/ns/net", root);
	assert_int_equal(symlink("net:[2]", path), 0);
	assert_finding("network namespace", DOCTOR_WARNING, NULL, "nsenter --net -t 77");
}

static void test_text_and_json(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	sysctl_is("net.core.somaxconn", "128");
	sysctl_is("kernel.io_uring_disabled", "2");
	examine();
	doctor_print(&d.report, out);
	fclose(out);
	assert_ptr_equal(strstr(text, "gateway\n  ok       tidegate "), text);
	assert_non_null(strstr(text, "\n\nsysctls\n  problem  kernel.io_uring_disabled         2; "
				     "should be 0\n           why: the gateway is unprivileged"));
	assert_non_null(strstr(text, "\n           set: sysctl -w net.core.somaxconn=4096\n"));
	assert_non_null(strstr(text, " ok, 0 advice, 2 warnings, 1 problem\n"));
	free(text);

	json_t *o = doctor_json(&d.report), *checks = json_object_get(o, "checks"), *c;
	size_t i, found = 0;
	assert_string_equal(json_string_value(json_object_get(o, "severity")), "problem");
	assert_int_equal(json_array_size(checks), d.report.n);
	json_array_foreach(checks, i, c)
	{
		if (strcmp(json_string_value(json_object_get(c, "name")), "net.core.somaxconn"))
			continue;
		found++;
		assert_string_equal(json_string_value(json_object_get(c, "has")), "128");
		assert_string_equal(
			json_string_value(json_object_get(c, "should")), "at least 4096");
		assert_string_equal(json_string_value(json_object_get(c, "command")),
			"sysctl -w net.core.somaxconn=4096");
	}
	assert_int_equal(found, 1);
	json_decref(o);
}

static int group_setup(void **state)
{
	assert_non_null(mkdtemp(root));
	return 0;
}

static int group_teardown(void **state)
{
	clear();
	return rmdir(root);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_all_well),
		TEST(test_numbers),
		TEST(test_files),
		TEST(test_sysctl_values),
		TEST(test_sysctl_pairs),
		TEST(test_sysctl_nonsense),
		TEST(test_empty_machine),
		TEST(test_descriptors),
		TEST(test_memory),
		TEST(test_files_of_the_machine),
		TEST(test_kernel),
		TEST(test_clock),
		TEST(test_xdp),
		TEST(test_queues),
		TEST(test_losses),
		TEST(test_process),
		TEST(test_cgroup),
		TEST(test_namespace),
		TEST(test_text_and_json),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
