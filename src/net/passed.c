#include "net/passed.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

enum { FIRST_FD = 3 };

/* What systemd calls one that nobody gave a name, and by whom it was opened. */
static const char unnamed[] = "unknown";

static struct passed {
	char *name; /* NULL once it was taken */
	int fd;
} list[PASSED_MAX];
static unsigned n_list;

/* The names stand between colons; what comes after the last of them has none. */
static char *
next_name(const char **names)
{
	size_t n = *names ? strcspn(*names, ":") : 0;
	char *name = n ? xmemdup(*names, n) : xstrdup(unnamed);

	if (*names)
		*names = (*names)[n] ? *names + n + 1 : NULL;
	return name;
}

static bool
read_list(const char *pid, const char *fds, const char *names)
{
	uint64_t whose, n;

	/* Not for us: from a parent that forgot to clear its environment. */
	if (!pid || !fds || !str_read_uint(pid, &whose) || whose != (uint64_t)getpid())
		return true;
	if (!str_read_uint(fds, &n) || n > PASSED_MAX)
		return false;
	for (; n_list < n; n_list++) {
		int fd = FIRST_FD + (int)n_list;

		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			return false;
		list[n_list] = (struct passed){ next_name(&names), fd };
	}
	return true;
}

bool
passed_init(void)
{
	bool ok =
		read_list(getenv("LISTEN_PID"), getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES"));

	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return ok;
}

static bool
is_named(const struct passed *p, const char *name)
{
	return p->name && !strcmp(p->name, name);
}

unsigned
passed_count(const char *name)
{
	unsigned n = 0;

	for (unsigned i = 0; i < n_list; i++)
		n += is_named(&list[i], name);
	return n;
}

int
passed_take(const char *name)
{
	for (unsigned i = 0; i < n_list; i++) {
		if (!is_named(&list[i], name))
			continue;
		free(list[i].name);
		list[i].name = NULL;
		return list[i].fd;
	}
	return -1;
}

void
passed_close_rest(void)
{
	for (unsigned i = 0; i < n_list; i++) {
		if (!list[i].name)
			continue;
		log_event(LOG_LISTENER_UNUSED, log_text("name", list[i].name));
		close(list[i].fd);
		free(list[i].name);
		list[i].name = NULL;
	}
}
