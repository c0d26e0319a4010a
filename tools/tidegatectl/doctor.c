#include "doctor.h"

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/libbpf.h>
#include <linux/capability.h>
#include <linux/if_link.h>

#include "http_client.h"
#include "kern/bpf_dispatch.h"
#include "kern/bpf_error.h"

enum {
	EXIT_USAGE = 2,
};

unsigned doctor_workers(const struct doctor *d)
{
	/* What a gateway chooses: three CPUs of four. */
	return d->gateway.workers ? d->gateway.workers : d->cpus * 3 / 4 ? d->cpus * 3 / 4 : 1;
}

/* ---- facts that have to be tried out ---- */

static int interface_name(unsigned ifindex, char ret[64])
{
	_Static_assert(IF_NAMESIZE <= 64, "a name fits");
	return if_indextoname(ifindex, ret) ? 0 : -errno;
}

static int query_xdp(unsigned ifindex, enum doctor_xdp_mode *ret)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	int r = bpf_xdp_query((int)ifindex, 0, &query);

	if (r)
		return r;
	switch (query.attach_mode) {
	case XDP_ATTACHED_DRV:
		*ret = DOCTOR_XDP_NATIVE;
		break;
	case XDP_ATTACHED_SKB:
		*ret = DOCTOR_XDP_GENERIC;
		break;
	case XDP_ATTACHED_HW:
		*ret = DOCTOR_XDP_OFFLOAD;
		break;
	case XDP_ATTACHED_MULTI:
		*ret = DOCTOR_XDP_SEVERAL;
		break;
	default:
		*ret = DOCTOR_XDP_NONE;
	}
	return 0;
}

static void try_bpf(struct doctor *d)
{
	bool may = d->capabilities >> CAP_SYS_ADMIN & 1 ||
		   (d->capabilities >> CAP_BPF & 1 && d->capabilities >> CAP_NET_ADMIN & 1);

	d->bpf_xdp = d->bpf_steer = -EPERM;
	if (!may)
		return;
	bpf_error_capture();
	d->bpf_xdp = libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_XDP, NULL);
	d->bpf_steer = libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SK_REUSEPORT, NULL);
	d->dispatcher = d->bpf_xdp == 1 && bpf_dispatch_allowed();
}

static unsigned cpus_allowed(void)
{
	cpu_set_t set;
	long n = sched_getaffinity(0, sizeof(set), &set) ? sysconf(_SC_NPROCESSORS_ONLN)
							 : CPU_COUNT(&set);

	return n > 0 ? (unsigned)n : 1;
}

static void own_capabilities(struct doctor *d)
{
	char text[DOCTOR_TEXT_MAX], line[64];

	if (!doctor_read(d, "/proc/self/status", text) &&
		doctor_line(text, "CapEff:", line, sizeof(line)))
		d->capabilities = strtoull(line, NULL, 16);
}

/* ---- the gateway ---- */

/* NULL: it did not answer with an object. */
static json_t *ask(const char *socket, const char *target)
{
	struct http_reply reply;

	if (http_ask(socket, "GET", target, NULL, &reply))
		return NULL;
	json_t *answer = reply.status == 200 ? json_loadb(reply.body, reply.len, 0, NULL) : NULL;
	free(reply.data);
	if (json_is_object(answer))
		return answer;
	json_decref(answer);
	return NULL;
}

static void ask_gateway(struct doctor *d, const char *socket)
{
	json_t *status = ask(socket, "/v1/status"), *gate = status ? ask(socket, "/v1/gate") : NULL;
	json_int_t workers = json_integer_value(json_object_get(status, "workers"));
	const char *version = json_string_value(json_object_get(status, "version"));
	const char *instance = json_string_value(json_object_get(status, "instance"));
	const char *where = json_string_value(json_object_get(gate, "where"));

	d->gateway = (struct doctor_gateway){
		.running = status != NULL,
		.pid = (pid_t)json_integer_value(json_object_get(status, "pid")),
		.workers = workers > 0 && workers < 4096 ? (unsigned)workers : 0,
		.in_kernel = where && !strcmp(where, "kernel"),
	};
	snprintf(d->gateway.version, sizeof(d->gateway.version), "%s", version ? version : "");
	/* By its socket it may be another one than was named. */
	if (instance) {
		snprintf(d->gateway.instance, sizeof(d->gateway.instance), "%s", instance);
		d->instance = d->gateway.instance;
	}
	json_decref(gate);
	json_decref(status);
}

/* ---- the answer ---- */

static void print_people(const struct doctor *d)
{
	if (d->gateway.running)
		printf("Instance %s, for %llu connections on %u worker%s.\n\n", d->instance,
			(unsigned long long)d->connections, doctor_workers(d),
			doctor_workers(d) == 1 ? "" : "s");
	else
		printf("Instance %s is not running or cannot be reached: this is about the "
		       "machine, "
		       "for %llu connections on %u worker%s.\n\n",
			d->instance, (unsigned long long)d->connections, doctor_workers(d),
			doctor_workers(d) == 1 ? "" : "s");
	doctor_print(&d->report, stdout);
}

static int print_json(const struct doctor *d)
{
	json_t *o = doctor_json(&d->report);
	int r = -1;

	if (o && !json_object_set_new(o, "instance", json_string(d->instance)) &&
		!json_object_set_new(o, "running", json_boolean(d->gateway.running)) &&
		!json_object_set_new(o, "workers", json_integer(doctor_workers(d))) &&
		!json_object_set_new(o, "connections", json_integer((json_int_t)d->connections)))
		r = json_dumpf(o, stdout, JSON_INDENT(1));
	putchar('\n');
	json_decref(o);
	return r;
}

int doctor_run(const struct doctor_args *a)
{
	struct doctor d = {
		.root = "",
		.instance = a->instance,
		.connections = DOCTOR_CONNECTIONS_DEFAULT,
		.cpus = cpus_allowed(),
		.interface_name = interface_name,
		.xdp_mode = query_xdp,
	};
	int64_t n;

	if (a->connections) {
		if (doctor_numbers(a->connections, &n, 1) || n < 1 || n > DOCTOR_CONNECTIONS_MAX) {
			fprintf(stderr,
				"tidegatectl: --connections must be a number from 1 to %d\n",
				DOCTOR_CONNECTIONS_MAX);
			return EXIT_USAGE;
		}
		d.connections = (uint64_t)n;
	}
	probe_collect(&d.probe);
	own_capabilities(&d);
	try_bpf(&d);
	ask_gateway(&d, a->socket);
	doctor_process(&d);
	doctor_kernel(&d);
	doctor_limits(&d);
	doctor_sysctls(&d);
	doctor_interfaces(&d);

	bool printed = true;
	if (a->json)
		printed = print_json(&d) == 0;
	else
		print_people(&d);
	bool problem = doctor_worst(&d.report) == DOCTOR_PROBLEM;
	doctor_report_fini(&d.report);
	if (fflush(stdout) || ferror(stdout) || !printed) {
		perror("tidegatectl: cannot write");
		return EXIT_FAILURE;
	}
	return problem ? EXIT_FAILURE : EXIT_SUCCESS;
}
