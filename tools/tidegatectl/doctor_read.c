#include "doctor.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int doctor_read(const struct doctor *d, const char *path, char ret[DOCTOR_TEXT_MAX])
{
	char full[PATH_MAX];
	size_t len = 0;
	ssize_t n;

	if (snprintf(full, sizeof(full), "%s%s", d->root, path) >= (int)sizeof(full))
		return -ENAMETOOLONG;
	char *text = malloc(DOCTOR_TEXT_MAX);
	int fd = text ? open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	if (fd < 0) {
		free(text);
		return -errno;
	}
	while ((n = read(fd, text + len, DOCTOR_TEXT_MAX - len)) > 0)
		len += (size_t)n;
	int r = n < 0 ? -errno : len == DOCTOR_TEXT_MAX ? -EFBIG : 0;
	close(fd);
	if (!r) {
		while (len && isspace((unsigned char)text[len - 1]))
			len--;
		memcpy(ret, text, len);
		ret[len] = '\0';
	}
	free(text);
	return r;
}

int doctor_numbers(const char *text, int64_t *ret, unsigned n)
{
	int64_t v[4] = {0};
	char *end;

	if (n > 4)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		text += strspn(text, " \t\n");
		if (!isdigit((unsigned char)text[*text == '-']))
			return -EINVAL;
		v[i] = strtoll(text, &end, 10); /* saturates */
		if (*end && !isspace((unsigned char)*end))
			return -EINVAL;
		text = end;
	}
	if (text[strspn(text, " \t\n")])
		return -EINVAL;
	memcpy(ret, v, n * sizeof(*v));
	return 0;
}

int doctor_read_numbers(const struct doctor *d, const char *path, int64_t *ret, unsigned n)
{
	char text[DOCTOR_TEXT_MAX];
	int r = doctor_read(d, path, text);

	return r ? r : doctor_numbers(text, ret, n);
}

int64_t doctor_double(int64_t v)
{
	return v > INT64_MAX / 2 ? INT64_MAX : v * 2;
}

void doctor_sysctl_path(const char *name, char path[128])
{
	snprintf(path, 128, "/proc/sys/%s", name);
	for (char *p = path; *p; p++)
		if (*p == '.')
			*p = '/';
}

bool doctor_line(const char *text, const char *key, char *ret, size_t len)
{
	size_t n = strlen(key);

	for (const char *p = text; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (strncmp(p, key, n))
			continue;
		p += n;
		p += strspn(p, " \t");
		size_t value = strcspn(p, "\n");
		if (value >= len)
			return false;
		memcpy(ret, p, value);
		ret[value] = '\0';
		return true;
	}
	return false;
}
