/* verify: loads every program of BPF objects, each alone, and prints what the verifier spent on it.
 *
 * Usage: verify OBJECT...
 * A line a program, tab-separated: verified, object/program, type, instructions processed, states,
 * peak states, and the instructions of the translated program. A program that the kernel refuses is
 * named on stderr, with the end of the verifier's log. Exit status: 0, 1 when one was refused or an
 * object cannot be opened, 2 usage.
 *
 * Objects are loaded as they are, without the loaders of the daemon: maps that those would size or
 * pin get the least size and no pin, which costs the verifier the same.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	/* linux/bpf_verifier.h: 1 traces each branch, 4 prints the statistics only. */
	LOG_BRANCHES = 1,
	LOG_STATS = 4,
	LOG_BYTES = 16 << 20,
	LOG_TAIL_LINES = 25,
	NAME_MAX_BYTES = 256,
};

struct stats {
	unsigned processed, states, peak_states, translated;
};

static char verifier_log[LOG_BYTES];

/* libbpf's own chatter says no more than the verifier's log does, but for what it cannot even
 * relocate. */
static int print_warnings(enum libbpf_print_level level, const char *fmt, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, fmt, args) : 0;
}

static int print_nothing(enum libbpf_print_level level, const char *fmt, va_list args)
{
	return 0;
}

static bool parse_stats(struct stats *ret)
{
	const char *at = strstr(verifier_log, "processed ");
	unsigned per_insn;

	return at &&
	       sscanf(at,
		       "processed %u insns (limit %*u) max_states_per_insn %u total_states %u "
		       "peak_states %u",
		       &ret->processed, &per_insn, &ret->states, &ret->peak_states) == 4;
}

static unsigned translated_insns(int prog_fd)
{
	struct bpf_prog_info info = {0};
	__u32 len = sizeof(info);

	if (bpf_obj_get_info_by_fd(prog_fd, &info, &len))
		return 0;
	return info.xlated_prog_len / 8; /* bytes an instruction */
}

/* Local storage is sized by what it hangs on; the kernel takes no number for it. */
static bool sized_by_user(enum bpf_map_type type)
{
	return type != BPF_MAP_TYPE_SK_STORAGE && type != BPF_MAP_TYPE_TASK_STORAGE &&
	       type != BPF_MAP_TYPE_INODE_STORAGE && type != BPF_MAP_TYPE_CGROUP_STORAGE;
}

static void prepare_maps(struct bpf_object *object)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, object)
	{
		bpf_map__set_pin_path(map, NULL);
		if (bpf_map__max_entries(map) || !sized_by_user(bpf_map__type(map)))
			continue;
		bool ring = bpf_map__type(map) == BPF_MAP_TYPE_RINGBUF;
		bpf_map__set_max_entries(map, ring ? (unsigned)sysconf(_SC_PAGESIZE) : 1);
	}
}

/* Opens the object anew with only that program wanted: what one program needs is not blamed on
 * another. */
static int load_one(const char *path, const char *name, unsigned log_level, struct stats *ret)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct bpf_program *prog, *wanted = NULL;
	int err;

	if (!object)
		return -errno;
	bpf_object__for_each_program(prog, object)
	{
		bool this_one = !strcmp(bpf_program__name(prog), name);
		bpf_program__set_autoload(prog, this_one);
		if (this_one)
			wanted = prog;
	}
	prepare_maps(object);
	memset(verifier_log, 0, 4096);
	bpf_program__set_log_buf(wanted, verifier_log, sizeof(verifier_log));
	bpf_program__set_log_level(wanted, log_level);
	err = bpf_object__load(object);
	if (!err && !parse_stats(ret))
		err = -ENODATA;
	if (!err)
		ret->translated = translated_insns(bpf_program__fd(wanted));
	bpf_object__close(object);
	return err;
}

static void print_log_tail(void)
{
	size_t len = strlen(verifier_log), at = len;

	for (unsigned lines = 0; at > 0 && lines <= LOG_TAIL_LINES; at--)
		lines += verifier_log[at - 1] == '\n';
	fprintf(stderr, "%s\n", verifier_log + at);
}

static bool verify_program(const char *path, const char *base, const char *name, const char *type)
{
	struct stats s = {0};
	int err;

	libbpf_set_print(print_nothing);
	err = load_one(path, name, LOG_STATS, &s);
	if (!err) {
		printf("verified\t%s/%s\t%s\t%u\t%u\t%u\t%u\n", base, name, type, s.processed,
			s.states, s.peak_states, s.translated);
		return true;
	}
	fprintf(stderr, "verify: %s: program %s (%s) is refused: %s\n", base, name, type,
		strerror(-err));
	libbpf_set_print(print_warnings);
	load_one(path, name, LOG_BRANCHES, &s);
	print_log_tail();
	return false;
}

static bool verify_object(const char *path)
{
	const char *slash = strrchr(path, '/');
	char base[NAME_MAX_BYTES];
	struct bpf_program *prog;
	bool ok = true;

	snprintf(base, sizeof(base), "%s", slash ? slash + 1 : path);
	base[strcspn(base, ".")] = '\0';
	libbpf_set_print(print_warnings);
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	if (!object) {
		fprintf(stderr, "verify: %s: %s\n", path, strerror(errno));
		return false;
	}
	bpf_object__for_each_program(prog, object)
	{
		const char *type = libbpf_bpf_prog_type_str(bpf_program__type(prog));
		if (bpf_program__type(prog) == BPF_PROG_TYPE_EXT) {
			printf("%s: %s is loaded only into another program\n", base,
				bpf_program__name(prog));
			continue;
		}
		ok = verify_program(path, base, bpf_program__name(prog), type ? type : "?") && ok;
	}
	bpf_object__close(object);
	return ok;
}

int main(int argc, char **argv)
{
	bool ok = true;

	if (argc < 2) {
		fputs("Usage: verify OBJECT...\n", stderr);
		return 2;
	}
	for (int i = 1; i < argc; i++)
		ok = verify_object(argv[i]) && ok;
	return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
