#include "ops/probe.h"

#include <errno.h>
#include <inttypes.h>
#include <liburing.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "kern/bpf_dispatch.h"
#include "kern/bpf_error.h"

enum {
	PROBE_ENTRIES = 8, /* of rings, file table and buffer ring alike: the smallest that work */
	PROBE_WAIT_S = 1,  /* what answers at all answers at once */
	/* Not in liburing 2.9's header. */
	REGISTER_SEND_MSG_RING = 31,
};

static const struct {
	const char *text;
	bool needed;
} features[PROBE_FEATURE_COUNT] = {
#define X(name, is_needed, what) [PROBE_##name] = {.text = what, .needed = is_needed},
	PROBE_FEATURES(X)
#undef X
};

/* Submits what was prepared and takes one completion: its result, or -errno. */
static int complete(struct io_uring *u, uint32_t *ret_flags)
{
	struct __kernel_timespec wait = {.tv_sec = PROBE_WAIT_S};
	struct io_uring_cqe *cqe;
	int r = io_uring_submit_and_wait_timeout(u, &cqe, 1, &wait, NULL);

	if (r < 0)
		return r;
	r = cqe->res;
	*ret_flags = cqe->flags;
	io_uring_cqe_seen(u, cqe);
	return r;
}

static int probe_operations(struct io_uring *u, int *ret_msg_ring)
{
	static const int needed[] = {IORING_OP_ACCEPT, IORING_OP_POLL_ADD, IORING_OP_RECV,
		IORING_OP_SEND, IORING_OP_SENDMSG, IORING_OP_ASYNC_CANCEL, IORING_OP_SHUTDOWN,
		IORING_OP_CLOSE, IORING_OP_URING_CMD};
	struct io_uring_probe *p = io_uring_get_probe_ring(u);
	int r = 0;

	if (!p)
		return -EOPNOTSUPP;
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		if (!io_uring_opcode_supported(p, needed[i]))
			r = -EOPNOTSUPP;
	}
	*ret_msg_ring = io_uring_opcode_supported(p, IORING_OP_MSG_RING) ? 0 : -EOPNOTSUPP;
	io_uring_free_probe(p);
	return r;
}

/* One real connection, over a Unix socket with a name of the kernel's choice. */
static int probe_multishot_accept(struct io_uring *u)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(sa_family_t);
	uint32_t flags = 0;
	int r, client = -1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&addr, len) || listen(fd, 1))
		goto err_errno;
	len = sizeof(addr);
	if (getsockname(fd, (struct sockaddr *)&addr, &len))
		goto err_errno;
	client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client < 0 || connect(client, (struct sockaddr *)&addr, len))
		goto err_errno;

	io_uring_prep_multishot_accept_direct(io_uring_get_sqe(u), fd, NULL, NULL, 0);
	r = complete(u, &flags);
	if (r >= 0)
		r = flags & IORING_CQE_F_MORE ? 0 : -EOPNOTSUPP;
	goto out;

err_errno:
	r = -errno;
out:
	if (client >= 0)
		close(client);
	close(fd);
	return r;
}

static int probe_buffer_ring(struct io_uring *u)
{
	int r = 0;
	struct io_uring_buf_ring *b = io_uring_setup_buf_ring(u, PROBE_ENTRIES, 0, 0, &r);

	if (!b)
		return r;
	return io_uring_free_buf_ring(u, b, PROBE_ENTRIES, 0);
}

static int probe_socket_command(struct io_uring *u)
{
	int value = 0, r;
	uint32_t flags;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	io_uring_prep_cmd_sock(io_uring_get_sqe(u), SOCKET_URING_OP_GETSOCKOPT, fd, SOL_SOCKET,
		SO_TYPE, &value, sizeof(value));
	r = complete(u, &flags);
	close(fd);
	if (r < 0)
		return r;
	return value == SOCK_STREAM ? 0 : -EOPNOTSUPP;
}

static int probe_send_msg_ring(struct io_uring *u)
{
	struct io_uring_sqe sqe;
	uint32_t flags;

	memset(&sqe, 0, sizeof(sqe));
	io_uring_prep_msg_ring(&sqe, u->ring_fd, 0, 0, 0);
	int r = io_uring_register((unsigned)-1, REGISTER_SEND_MSG_RING, &sqe, 1);
	if (r < 0)
		return r;
	r = complete(u, &flags);
	return r < 0 ? r : 0;
}

static void probe_rings(struct probe_facts *f)
{
	struct io_uring u;
	struct io_uring_params p = {0};

	for (unsigned i = 0; i < PROBE_FEATURE_COUNT; i++)
		f->error[i] = -EOPNOTSUPP;
	f->error[PROBE_io_uring] = io_uring_queue_init(PROBE_ENTRIES, &u, 0);
	if (f->error[PROBE_io_uring])
		return;
	io_uring_queue_exit(&u);

	/* As the workers do; without it the rest is looked at in a plain ring. */
	p.flags =
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
	f->error[PROBE_defer_taskrun] = io_uring_queue_init_params(PROBE_ENTRIES, &u, &p);
	if (f->error[PROBE_defer_taskrun]) {
		p = (struct io_uring_params){0};
		if (io_uring_queue_init_params(PROBE_ENTRIES, &u, &p))
			return;
	}
	f->error[PROBE_min_wait] = p.features & IORING_FEAT_MIN_TIMEOUT ? 0 : -EOPNOTSUPP;
	f->error[PROBE_operations] = probe_operations(&u, &f->error[PROBE_msg_ring]);
	f->error[PROBE_direct_descriptors] = io_uring_register_files_sparse(&u, PROBE_ENTRIES);
	f->error[PROBE_buffer_rings] = probe_buffer_ring(&u);
	f->error[PROBE_socket_commands] = probe_socket_command(&u);
	f->error[PROBE_send_msg_ring] = probe_send_msg_ring(&u);
	f->error[PROBE_multishot_accept] = probe_multishot_accept(&u); /* last: it stays armed */
	io_uring_queue_exit(&u);
}

/* As far as this user may have it: without privilege the answer is no. */
static void probe_gate(struct probe_facts *f)
{
	f->error[PROBE_btf] = access("/sys/kernel/btf/vmlinux", R_OK) ? -errno : 0;
	bpf_error_capture();
	f->error[PROBE_freplace] = bpf_dispatch_allowed() ? 0 : -EPERM;
}

static void probe_limit(int resource, uint64_t *ret_soft, uint64_t *ret_hard)
{
	struct rlimit lim = {0, 0};

	getrlimit(resource, &lim);
	*ret_soft = lim.rlim_cur == RLIM_INFINITY ? UINT64_MAX : lim.rlim_cur;
	*ret_hard = lim.rlim_max == RLIM_INFINITY ? UINT64_MAX : lim.rlim_max;
}

void probe_collect(struct probe_facts *ret)
{
	struct probe_facts f = {.uring_disabled = -1};
	struct utsname uts;

	if (uname(&uts) == 0) {
		snprintf(f.release, sizeof(f.release), "%s", uts.release);
		if (sscanf(f.release, "%u.%u", &f.kernel_major, &f.kernel_minor) != 2)
			f.kernel_major = f.kernel_minor = 0;
	}
	FILE *sysctl = fopen("/proc/sys/kernel/io_uring_disabled", "re");
	if (sysctl) {
		if (fscanf(sysctl, "%d", &f.uring_disabled) != 1)
			f.uring_disabled = -1;
		fclose(sysctl);
	}
	probe_limit(RLIMIT_NOFILE, &f.nofile_soft, &f.nofile_hard);
	probe_limit(RLIMIT_MEMLOCK, &f.memlock_soft, &f.memlock_hard);
	probe_rings(&f);
	probe_gate(&f);
	*ret = f;
}

const char *probe_feature_text(enum probe_feature which)
{
	return features[which].text;
}

bool probe_feature_needed(enum probe_feature which)
{
	return features[which].needed;
}

bool probe_kernel_too_old(const struct probe_facts *f)
{
	if (f->kernel_major != PROBE_KERNEL_MAJOR)
		return f->kernel_major < PROBE_KERNEL_MAJOR;
	return f->kernel_minor < PROBE_KERNEL_MINOR;
}

/* Why io_uring cannot be had, where more than the errno is known. */
static const char *uring_hint(const struct probe_facts *f)
{
	if (f->error[PROBE_io_uring] != -EPERM)
		return "";
	if (f->uring_disabled > 0)
		return ": the sysctl kernel.io_uring_disabled forbids it";
	return ": a seccomp filter or security module forbids it";
}

void probe_feature_why(
	const struct probe_facts *f, enum probe_feature which, char *text, size_t len)
{
	snprintf(text, len, "%s%s", strerror(-f->error[which]),
		which == PROBE_io_uring ? uring_hint(f) : "");
}

__attribute__((format(printf, 4, 5))) static void append(
	char *text, size_t len, size_t *at, const char *fmt, ...)
{
	va_list ap;

	if (*at >= len)
		return;
	va_start(ap, fmt);
	int n = vsnprintf(text + *at, len - *at, fmt, ap);
	va_end(ap);
	if (n > 0)
		*at += (size_t)n;
}

bool probe_missing(const struct probe_facts *f, char *text, size_t len)
{
	bool old = probe_kernel_too_old(f), any = false;
	size_t at = 0;

	for (unsigned i = 0; i < PROBE_FEATURE_COUNT; i++)
		any = any || (features[i].needed && f->error[i]);
	if (!old && !any)
		return false;
	if (old)
		append(text, len, &at, "Linux %s is older than %d.%d", f->release,
			PROBE_KERNEL_MAJOR, PROBE_KERNEL_MINOR);
	if (any)
		append(text, len, &at, "%smissing: ", old ? "; " : "");
	if (f->error[PROBE_io_uring]) {
		char why[PROBE_WHY_MAX];

		probe_feature_why(f, PROBE_io_uring, why, sizeof(why));
		append(text, len, &at, "%s (%s)", features[PROBE_io_uring].text, why);
		return true;
	}
	const char *comma = "";
	for (unsigned i = 0; i < PROBE_FEATURE_COUNT; i++) {
		if (!features[i].needed || !f->error[i])
			continue;
		append(text, len, &at, "%s%s", comma, features[i].text);
		comma = ", ";
	}
	return true;
}

static void print_limit(FILE *out, const char *name, uint64_t soft, uint64_t hard)
{
	char text[2][24];
	uint64_t value[2] = {soft, hard};

	for (unsigned i = 0; i < 2; i++) {
		if (value[i] == UINT64_MAX)
			snprintf(text[i], sizeof(text[i]), "unlimited");
		else
			snprintf(text[i], sizeof(text[i]), "%" PRIu64, value[i]);
	}
	fprintf(out, "%-70s %s, hard limit %s\n", name, text[0], text[1]);
}

void probe_print(const struct probe_facts *f, FILE *out)
{
	fprintf(out, "%-70s %s%s\n", "kernel (6.12 or newer)", f->release,
		probe_kernel_too_old(f) ? ", too old" : "");
	for (unsigned i = 0; i < PROBE_FEATURE_COUNT; i++) {
		char why[PROBE_WHY_MAX];

		if (!f->error[i]) {
			fprintf(out, "%-70s yes\n", features[i].text);
			continue;
		}
		probe_feature_why(f, (enum probe_feature)i, why, sizeof(why));
		fprintf(out, "%-70s no (%s)%s\n", features[i].text, why,
			features[i].needed ? "" : ", not needed");
	}
	print_limit(out, "RLIMIT_NOFILE", f->nofile_soft, f->nofile_hard);
	print_limit(out, "RLIMIT_MEMLOCK, bytes", f->memlock_soft, f->memlock_hard);
}
