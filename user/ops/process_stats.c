#include "ops/process_stats.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	STAT_STARTTIME_FIELD = 22
}; /* proc(5), /proc/pid/stat: ticks after boot */

static int64_t clock_ms(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static ssize_t read_text(int fd, char *buf, size_t cap)
{
	ssize_t n = pread(fd, buf, cap - 1, 0);

	if (n >= 0)
		buf[n] = '\0';
	return n;
}

/* Milliseconds after boot at which this process started, or -1. */
static int64_t start_after_boot_ms(void)
{
	char text[1024];
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = read_text(fd, text, sizeof(text));
	close(fd);
	if (n <= 0)
		return -1;

	/* Field 2 is the command's name in parentheses and may hold spaces and parentheses: count
	 * from the last. */
	const char *p = strrchr(text, ')');
	for (int field = 2; p && field < STAT_STARTTIME_FIELD; field++)
		p = strchr(p + 1, ' ');
	uint64_t ticks;
	if (!p || sscanf(p, " %" SCNu64, &ticks) != 1)
		return -1;
	return (int64_t)(ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK));
}

void process_stats_init(struct process_stats_reader *r)
{
	r->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	r->fd_dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	int64_t start = start_after_boot_ms();
	r->start_unix_ms = start < 0
				   ? PROCESS_STATS_UNKNOWN
				   : clock_ms(CLOCK_REALTIME) - (clock_ms(CLOCK_BOOTTIME) - start);
}

void process_stats_fini(struct process_stats_reader *r)
{
	if (r->statm_fd >= 0)
		close(r->statm_fd);
	if (r->fd_dir >= 0)
		close(r->fd_dir);
	r->statm_fd = r->fd_dir = -1;
}

static int64_t resident_bytes(int statm_fd)
{
	char text[256];
	uint64_t total, resident;

	if (statm_fd < 0 || read_text(statm_fd, text, sizeof(text)) <= 0 ||
		sscanf(text, "%" SCNu64 " %" SCNu64, &total, &resident) != 2)
		return PROCESS_STATS_UNKNOWN;
	return (int64_t)(resident * (uint64_t)sysconf(_SC_PAGESIZE));
}

/* Since Linux 6.2 the size of /proc/pid/fd is the number of open descriptors. */
static int64_t open_fds(int fd_dir)
{
	struct stat st;

	if (fd_dir < 0 || fstat(fd_dir, &st) < 0 || st.st_size <= 0)
		return PROCESS_STATS_UNKNOWN;
	return st.st_size;
}

void process_stats_read(const struct process_stats_reader *r, struct process_stats *ret)
{
	struct timespec cpu = {0};

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	ret->cpu_ns = (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec;
	ret->resident_bytes = resident_bytes(r->statm_fd);
	ret->open_fds = open_fds(r->fd_dir);
	ret->start_unix_ms = r->start_unix_ms;
}
