/* The program on real interfaces: a veth pair between two network namespaces, and lo. Native and
 * generic, drop and reset, IPv4 and IPv6, seen by a client that connects; links that outlive the
 * process's hold on them and are taken over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "bpf_fixture.h"
#include "kern/bpf_dispatch.h"
#include "netns.h"

static struct netns ns;
static bool permitted;
static char dir[128];
static unsigned tgs, tgc; /* interface indices */
static int peer_link;     /* a program on the client's end, without which native XDP_TX on the
			     server's goes nowhere */

#define NEEDED()                                                                                   \
	do {                                                                                       \
		if (!permitted)                                                                    \
			skip();                                                                    \
	} while (0)

/* ---- two hosts ---- */

static int pass_everything(void)
{
	const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = XDP_PASS},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts);

	return bpf_prog_load(BPF_PROG_TYPE_XDP, "pass", "GPL", insns, 2, &opts);
}

static int setup(void **state)
{
	permitted = !geteuid() && !netns_init(&ns);
	if (!permitted)
		return 0;
	snprintf(dir, sizeof(dir), "%s/instance", ns.bpffs);
	tgs = if_nametoindex("tgs");
	int prog = pass_everything();
	assert_true(prog >= 0);
	assert_int_equal(setns(ns.client, CLONE_NEWNET), 0);
	tgc = if_nametoindex("tgc");
	peer_link = bpf_link_create(prog, (int)tgc, BPF_XDP, NULL);
	assert_int_equal(setns(ns.server, CLONE_NEWNET), 0);
	assert_true(peer_link >= 0);
	close(prog);
	return 0;
}

static int teardown(void **state)
{
	if (peer_link > 0)
		close(peer_link);
	netns_fini(&ns);
	return 0;
}

static socklen_t address(const char *text, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof(*v4);
	}
	assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	return sizeof(*v6);
}

static int listening(const char *at)
{
	struct sockaddr_storage a;
	socklen_t len = address(at, 8080, &a);
	int one = 1, fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

/* From the client's namespace, begun but not waited for. */
static int connecting(const char *to, bool from_client)
{
	struct sockaddr_storage a;
	socklen_t len = address(to, 8080, &a);

	if (from_client)
		assert_int_equal(setns(ns.client, CLONE_NEWNET), 0);
	int fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (from_client)
		assert_int_equal(setns(ns.server, CLONE_NEWNET), 0);
	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&a, len))
		assert_true(errno == EINPROGRESS || errno == ECONNREFUSED);
	return fd;
}

/* 0, or the errno that the connection attempt ended with. */
static int outcome(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int error = 0;
	socklen_t len = sizeof(error);

	assert_int_equal(poll(&p, 1, 30000), 1);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
	close(fd);
	return error;
}

/* ---- the gate between them ---- */

static struct bpf_maps *maps;
static struct bpf_admit *admit;

static struct tg_verdict_count count(enum tg_verdict v)
{
	struct tg_verdict_count all[TG_VERDICT_COUNT];

	assert_int_equal(bpf_verdicts_read(bpf_maps_fd(maps, BPF_MAP_verdicts), all), 0);
	return all[v];
}

/* A dropped SYN: counted, and its socket still waits. */
static void expect_dropped(int fd, enum tg_verdict v, uint64_t before)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	for (unsigned i = 0; count(v).packets == before; i++) {
		assert_true(i < 3000);
		usleep(10000);
	}
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	assert_int_equal(info.tcpi_state, TCP_SYN_SENT);
	close(fd);
}

static void write_settings(uint32_t flags)
{
	struct tg_settings s;

	bpf_settings_init(&s);
	s.flags = flags;
	assert_int_equal(bpf_settings_write(bpf_maps_fd(maps, BPF_MAP_settings), &s), 0);
}

static void start(bool pin, const struct bpf_maps_opts *o)
{
	static const struct bpf_endpoint any = {.port = 8080, .port_last = 8080};
	struct bpf_maps_opts opts = *o;

	opts.dir = pin ? dir : NULL;
	assert_int_equal(bpf_maps_open(&opts, &maps), 0);
	write_settings(0);
	assert_int_equal(bpf_ports_write(maps, &any, 1), 0);
	assert_int_equal(bpf_admit_load(maps, false, &admit), 0);
}

static void stop(void)
{
	bpf_admit_close(admit);
	bpf_maps_close(maps);
	admit = NULL;
	maps = NULL;
}

static const struct bpf_maps_opts small = {.sources = 1024, .penalties = 1024, .list = 64};

static void deny(const char *prefix, bool yes)
{
	struct tg_list_entry entry = {.origin = TG_ORIGIN_OPERATOR};
	struct tg_lpm_key key;
	int fd = bpf_maps_fd(maps, BPF_MAP_deny);

	assert_int_equal(bpf_prefix_parse(prefix, &key), 0);
	assert_int_equal(yes ? bpf_list_add(fd, &key, &entry) : bpf_list_del(fd, &key), 0);
}

static void refused_and_admitted(const char *server, const char *client, bool from_client)
{
	uint64_t before = count(TG_DROP_DENYLIST).packets, resets = count(TG_RESET_SENT).packets;

	assert_int_equal(outcome(connecting(server, from_client)), 0);
	deny(client, true);
	expect_dropped(connecting(server, from_client), TG_DROP_DENYLIST, before);
	write_settings(TG_SET_RESET);
	assert_int_equal(outcome(connecting(server, from_client)), ECONNREFUSED);
	assert_true(count(TG_RESET_SENT).packets > resets);
	write_settings(TG_SET_RESET | TG_SET_OBSERVE);
	assert_int_equal(outcome(connecting(server, from_client)), 0);
	write_settings(0);
	deny(client, false);
	assert_int_equal(outcome(connecting(server, from_client)), 0);
	assert_true(count(TG_ADMIT_OPEN).packets >= 2);
}

static void on_veth(enum bpf_admit_mode mode, bool native)
{
	struct bpf_admit_attached got;
	int v4 = listening(NETNS_SERVER4), v6 = listening(NETNS_SERVER6);

	start(false, &small);
	assert_int_equal(bpf_admit_attach(admit, tgs, mode, &got), 0);
	assert_int_equal(got.native, native);
	assert_false(got.adopted);
	refused_and_admitted(NETNS_SERVER4, NETNS_CLIENT4, true);
	refused_and_admitted(NETNS_SERVER6, "fd99::/64", true);
	assert_int_equal(bpf_admit_detach(admit, tgs), 0);
	assert_int_equal(bpf_admit_detach(admit, tgs), -ENOENT);
	stop();
	close(v4);
	close(v6);
}

static void test_native(void **state)
{
	NEEDED();
	on_veth(BPF_ADMIT_ANY, true);
	on_veth(BPF_ADMIT_NATIVE, true);
}

static void test_generic(void **state)
{
	NEEDED();
	on_veth(BPF_ADMIT_GENERIC, false);
}

static void test_loopback(void **state)
{
	struct bpf_admit_attached got;

	NEEDED();
	int v4 = listening("127.0.0.1"), v6 = listening("::1");
	start(false, &small);
	assert_int_equal(bpf_admit_attach(admit, 1, BPF_ADMIT_NATIVE, &got), -EOPNOTSUPP);
	assert_int_equal(bpf_admit_attach(admit, 1, BPF_ADMIT_ANY, &got), 0);
	assert_false(got.native);
	refused_and_admitted("127.0.0.1", "127.0.0.0/8", false);
	refused_and_admitted("::1", "::1", false);
	stop();
	close(v4);
	close(v6);
}

static uint32_t attached_prog(unsigned ifindex)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);

	assert_int_equal(bpf_xdp_query((int)ifindex, 0, &query), 0);
	return query.prog_id;
}

static void test_errors(void **state)
{
	struct bpf_admit_attached got;

	NEEDED();
	start(false, &small);
	bpf_admit_avoid_dispatcher(admit);
	assert_int_equal(bpf_admit_attach(admit, 9999, BPF_ADMIT_ANY, &got), -ENODEV);
	struct bpf_admit *first = admit;
	assert_int_equal(bpf_admit_attach(first, tgs, BPF_ADMIT_ANY, &got), 0);
	assert_false(got.dispatcher);
	assert_int_equal(bpf_admit_load(maps, false, &admit), 0);
	bpf_admit_avoid_dispatcher(admit);
	assert_int_equal(bpf_admit_attach(admit, tgs, BPF_ADMIT_ANY, &got), -EBUSY);
	assert_int_equal(bpf_admit_attach(admit, tgs, BPF_ADMIT_GENERIC, &got), -EBUSY);
	bpf_admit_close(admit);
	admit = first;
	/* Nothing is pinned, so nothing stays. */
	stop();
	assert_int_equal(attached_prog(tgs), 0);
}

/* Two gates on one interface: each decides, and each goes without the other. */
static void test_dispatcher_lets_others_be(void **state)
{
	struct bpf_admit_attached got;
	struct bpf_admit *first, *second;

	NEEDED();
	if (!bpf_dispatch_allowed())
		skip();
	int v4 = listening(NETNS_SERVER4);
	start(false, &small);
	assert_int_equal(bpf_admit_attach(admit, tgs, BPF_ADMIT_ANY, &got), 0);
	assert_true(got.dispatcher && got.native && !got.adopted);
	first = admit;
	assert_int_equal(bpf_admit_load(maps, false, &second), 0);
	assert_int_equal(bpf_admit_attach(second, tgs, BPF_ADMIT_ANY, &got), 0);
	assert_true(got.dispatcher && !got.adopted);
	uint64_t before = count(TG_ADMIT_OPEN).packets;
	assert_int_equal(outcome(connecting(NETNS_SERVER4, true)), 0);
	assert_true(count(TG_ADMIT_OPEN).packets >= before + 2);
	bpf_admit_close(second);
	assert_true(attached_prog(tgs) > 0);
	refused_and_admitted(NETNS_SERVER4, NETNS_CLIENT4, true);
	admit = first;
	stop();
	assert_int_equal(attached_prog(tgs), 0);
	close(v4);
}

/* The process dies; the gate holds; the next start takes it over, with other sizes, too. */
static void test_links_outlive_and_are_taken_over(void **state)
{
	struct bpf_maps_opts large = {.sources = 4096, .penalties = 1024, .list = 128};
	struct bpf_admit_attached got;

	NEEDED();
	int v4 = listening(NETNS_SERVER4);
	start(true, &small);
	assert_int_equal(bpf_admit_attach(admit, tgs, BPF_ADMIT_ANY, &got), 0);
	assert_int_equal(bpf_admit_attach(admit, 1, BPF_ADMIT_ANY, &got), 0);
	deny(NETNS_CLIENT4, true);
	assert_int_equal(bpf_maps_commit(maps), 0);
	stop();
	uint32_t prog = attached_prog(tgs);
	assert_true(prog > 0);

	for (unsigned i = 0; i < 4; i++) {
		start(true, i % 4 < 2 ? &small : &large);
		/* The old program is in force until this very call. */
		assert_int_equal(attached_prog(tgs), prog);
		assert_int_equal(bpf_admit_attach(admit, tgs, BPF_ADMIT_ANY, &got), 0);
		assert_true(got.adopted && got.native);
		assert_int_not_equal(attached_prog(tgs), prog);
		prog = attached_prog(tgs);
		uint64_t before = count(TG_DROP_DENYLIST).packets;
		expect_dropped(connecting(NETNS_SERVER4, true), TG_DROP_DENYLIST, before);
		/* lo was configured once, and is not any more. */
		int rc = bpf_admit_detach_others(admit);
		if (rc)
			print_error("%s: %s\n", strerror(-rc), bpf_error_text());
		assert_int_equal(rc, 0);
		assert_int_equal(bpf_maps_commit(maps), 0);
		assert_int_equal(attached_prog(1), 0);
		stop();
		assert_int_equal(attached_prog(tgs), prog);
	}
	/* Without a daemon. */
	assert_int_equal(bpf_admit_end(dir), 0);
	assert_int_equal(attached_prog(tgs), 0);
	assert_int_equal(bpf_maps_remove(dir), 0);
	assert_int_equal(bpf_admit_end(dir), 0);
	assert_int_equal(outcome(connecting(NETNS_SERVER4, true)), 0);
	close(v4);
}

static void test_an_interface_that_came_back(void **state)
{
	struct bpf_admit_attached got;

	NEEDED();
	assert_int_equal(netns_run("ip link add tgx type veth peer name tgy"), 0);
	unsigned ifindex = if_nametoindex("tgx");
	start(true, &small);
	assert_int_equal(bpf_admit_attach(admit, ifindex, BPF_ADMIT_ANY, &got), 0);
	assert_int_equal(bpf_maps_commit(maps), 0);
	stop();
	assert_int_equal(
		netns_run("ip link del tgx && ip link add tgx index %u type veth peer name tgy",
			ifindex),
		0);
	start(true, &small);
	assert_int_equal(bpf_admit_attach(admit, ifindex, BPF_ADMIT_ANY, &got), 0);
	assert_false(got.adopted);
	assert_true(attached_prog(ifindex) > 0);
	assert_int_equal(bpf_admit_detach(admit, ifindex), 0);
	assert_int_equal(attached_prog(ifindex), 0);
	stop();
	assert_int_equal(bpf_maps_remove(dir), 0);
	assert_int_equal(netns_run("ip link del tgx"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_native),
		cmocka_unit_test(test_generic),
		cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_dispatcher_lets_others_be),
		cmocka_unit_test(test_links_outlive_and_are_taken_over),
		cmocka_unit_test(test_an_interface_that_came_back),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
