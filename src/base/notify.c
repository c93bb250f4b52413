#include "base/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"

/* False when it is no address of a Unix socket. */
static bool
read_address(struct notify *n, const char *z)
{
	size_t len = strlen(z);

	/* An abstract name is not terminated, a path is. */
	if ((z[0] != '/' && z[0] != '@') || len < 2 || len >= sizeof(n->to.sun_path))
		return false;
	n->to.sun_family = AF_UNIX;
	memcpy(n->to.sun_path, z, len + 1);
	if (z[0] == '@')
		n->to.sun_path[0] = '\0';
	else
		len++;
	n->to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	return true;
}

/* What the environment says of the watchdog; 0 when nothing, or when it is about another process. */
static uint64_t
read_watchdog(const char *usec, const char *pid)
{
	uint64_t us, whose = (uint64_t)getpid();

	if (!usec || !str_read_uint(usec, &us) || (pid && !str_read_uint(pid, &whose)))
		return 0;
	return whose == (uint64_t)getpid() ? us : 0;
}

void
notify_open(struct notify *n)
{
	const char *socket_name = getenv("NOTIFY_SOCKET");

	*n = (struct notify){ .fd = -1 };
	if (socket_name && read_address(n, socket_name)) {
		n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		n->watchdog_us = read_watchdog(getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID"));
	}
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
}

void
notify_close(struct notify *n)
{
	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
}

bool
notify_send(const struct notify *n, const char *text)
{
	ssize_t sent;

	if (n->fd < 0)
		return true;
	do
		sent = sendto(n->fd, text, strlen(text), MSG_NOSIGNAL,
			      (const struct sockaddr *)&n->to, n->to_len);
	while (sent < 0 && errno == EINTR);
	return sent >= 0;
}
