/* A network of two hosts for one test process: this one, `tgs`, and a helper process's, `tgc`,
 * joined by a veth pair, with a BPF file system of its own to pin in. Nothing of it outlives the
 * process. */
#ifndef TIDEGATE_TESTS_NETNS_H
#define TIDEGATE_TESTS_NETNS_H

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NETNS_SERVER4 "10.99.0.1"
#define NETNS_CLIENT4 "10.99.0.2"
#define NETNS_SERVER6 "fd99::1"
#define NETNS_CLIENT6 "fd99::2"

struct netns {
	int server, client; /* namespaces */
	char bpffs[64];
};

static inline int netns_run(const char *format, ...)
{
	char command[512];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

static inline int netns_open_own(void)
{
	return open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
}

/* A namespace that nobody else has; the process is in it afterwards. -1: not permitted. */
static inline int netns_new(void)
{
	return unshare(CLONE_NEWNET) || netns_run("ip link set lo up") ? -1 : netns_open_own();
}

static inline int netns_mount(struct netns *n)
{
	strcpy(n->bpffs, "/tmp/tidegate-bpffs-XXXXXX");
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		!mkdtemp(n->bpffs))
		return -1;
	if (mount("bpf", n->bpffs, "bpf", 0, NULL)) {
		rmdir(n->bpffs);
		return -1;
	}
	return 0;
}

/* 0, or -1 where that is not permitted. The process ends up in the server's namespace. */
static inline int netns_init(struct netns *n)
{
	if (netns_mount(n))
		return -1;
	n->client = netns_new();
	n->server = n->client < 0 ? -1 : netns_new();
	if (n->server < 0)
		return -1;
	/* The other end is moved by descriptor: /proc/PID/fd/N is a path that ip takes. */
	return netns_run("ip link add tgs type veth peer name tgc &&"
			 " ip link set tgc netns /proc/%d/fd/%d &&"
			 " ip addr add " NETNS_SERVER4 "/24 dev tgs &&"
			 " ip addr add " NETNS_SERVER6 "/64 dev tgs nodad && ip link set tgs up",
		       getpid(), n->client) ||
			       setns(n->client, CLONE_NEWNET) ||
			       netns_run("ip addr add " NETNS_CLIENT4 "/24 dev tgc &&"
					 " ip addr add " NETNS_CLIENT6
					 "/64 dev tgc nodad && ip link set tgc up") ||
			       setns(n->server, CLONE_NEWNET)
		       ? -1
		       : 0;
}

static inline void netns_fini(struct netns *n)
{
	if (n->bpffs[0]) {
		umount2(n->bpffs, MNT_DETACH);
		rmdir(n->bpffs);
	}
	if (n->client > 0)
		close(n->client);
	if (n->server > 0)
		close(n->server);
}

#endif
