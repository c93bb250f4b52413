/* What waits: poll(2) around the core of core.c. */
#include "client/coord.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static enum coord_status __attribute__((format(printf, 3, 4)))
fail(struct coord_error *err, enum coord_status status, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return status;
	*err = (struct coord_error){ .status = status };
	err->retryable = status == COORD_CONNECT || status == COORD_TIMEOUT;
	va_start(ap, fmt);
	vsnprintf(err->message, sizeof(err->message), fmt, ap);
	va_end(ap);
	return status;
}

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

/* When a wait of `timeout_ms` from now ends; negative: never. */
static int64_t
deadline_of(int timeout_ms)
{
	return timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
}

/* poll() one socket until the deadline: the events, 0 when time is up. */
static short
wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - now_ms();

		if (deadline >= 0 && left < 0)
			left = 0;
		if (poll(&p, 1, (int)left) >= 0)
			return p.revents;
		if (errno != EINTR)
			return POLLERR; /* the read that follows says what is wrong */
	}
}

/* --- connecting -------------------------------------------------------------- */

/* Connect to one address: the socket, or -1 and errno. */
static int
connect_one(int family, const struct sockaddr *addr, socklen_t len, int64_t deadline)
{
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t errlen = sizeof(int);
	int err = 0;

	if (fd < 0)
		return -1;
	/* A Unix socket says EAGAIN when its queue of connections is full. */
	if (connect(fd, addr, len) < 0 && errno != EINPROGRESS && errno != EINTR)
		err = errno;
	else if (!wait_for(fd, POLLOUT, deadline))
		err = ETIMEDOUT;
	else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &errlen) < 0)
		err = errno;
	if (!err)
		return fd;
	close(fd);
	errno = err;
	return -1;
}

static int
connect_unix(const char *path, int64_t deadline, struct coord_error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	if (path[0] != '/' || strlen(path) >= sizeof(addr.sun_path)) {
		fail(err, COORD_USAGE,
		     "the path of a unix:// URL is absolute and shorter than %zu bytes",
		     sizeof(addr.sun_path));
		return -1;
	}
	memcpy(addr.sun_path, path, strlen(path));
	fd = connect_one(AF_UNIX, (struct sockaddr *)&addr, sizeof(addr), deadline);
	if (fd < 0)
		fail(err, errno == ETIMEDOUT ? COORD_TIMEOUT : COORD_CONNECT,
		     "cannot connect to %s: %s", path, strerror(errno));
	return fd;
}

/* Split HOST[:PORT], [V6][:PORT]; false when it is neither. */
static bool
split_host(const char *text, char host[256], const char **port)
{
	bool is_v6 = text[0] == '[';
	const char *from = text + is_v6, *to = strpbrk(from, is_v6 ? "]/" : ":/");
	size_t n = to ? (size_t)(to - from) : strlen(from);

	if (!n || n > 255 || (is_v6 && (!to || *to != ']')))
		return false;
	memcpy(host, from, n);
	host[n] = '\0';
	from += n + is_v6;
	if (*from == '\0') {
		*port = COORD_PORT;
		return true;
	}
	*port = from + 1;
	return *from == ':' && **port && strspn(*port, "0123456789") == strlen(*port);
}

static int
connect_tcp(const char *text, int64_t deadline, struct coord_error *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *a;
	const char *port;
	char host[256];
	int fd = -1, one = 1, rc;

	if (!split_host(text, host, &port)) {
		fail(err, COORD_USAGE, "tcp://%s is not of the form tcp://HOST[:PORT]", text);
		return -1;
	}
	rc = getaddrinfo(host, port, &hints, &list);
	if (rc) {
		fail(err, rc == EAI_MEMORY ? COORD_MEMORY : COORD_CONNECT, "%s port %s: %s",
		     host, port, rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
		return -1;
	}
	for (a = list; a && fd < 0; a = a->ai_next)
		fd = connect_one(a->ai_family, a->ai_addr, a->ai_addrlen, deadline);
	if (fd < 0)
		fail(err, errno == ETIMEDOUT ? COORD_TIMEOUT : COORD_CONNECT,
		     "cannot connect to %s port %s: %s", host, port, strerror(errno));
	else
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	freeaddrinfo(list);
	return fd;
}

struct coord *
coord_connect(const char *url, int timeout_ms, struct coord_error *err)
{
	int64_t deadline = deadline_of(timeout_ms);
	struct coord *c;
	int fd = -1;

	if (!strncmp(url, "unix://", 7))
		fd = connect_unix(url + 7, deadline, err);
	else if (!strncmp(url, "tcp://", 6))
		fd = connect_tcp(url + 6, deadline, err);
	else
		fail(err, COORD_USAGE, "a URL begins with tcp:// or unix://");
	if (fd < 0)
		return NULL;

	c = coord_attach(fd);
	if (!c) {
		close(fd);
		fail(err, COORD_MEMORY, "no memory");
	}
	return c;
}

/* --- calling ----------------------------------------------------------------- */

enum coord_status
coord_recv(struct coord *c, uint32_t id, int timeout_ms, struct coord_reply **reply,
	   struct coord_error *err)
{
	int64_t deadline = deadline_of(timeout_ms);
	enum coord_status status;
	short events;

	/* The time is looked at in every round: a peer may send without end what answers
	 * nothing. */
	do {
		coord_on_writable(c);
		status = coord_take(c, id, reply, err);
		if (status != COORD_AGAIN)
			return status;
		events = wait_for(coord_fd(c), coord_wants_write(c) ? POLLIN | POLLOUT : POLLIN,
				  deadline);
		if (events & ~POLLOUT && coord_on_readable(c) == COORD_USAGE) {
			coord_forget(c, id);
			return fail(err, COORD_USAGE,
				    "what an answer or a notice calls must not wait for "
				    "another");
		}
	} while (events && (deadline < 0 || now_ms() <= deadline));

	status = coord_take(c, id, reply, err);
	if (status != COORD_AGAIN)
		return status;
	coord_forget(c, id);
	fail(err, COORD_TIMEOUT, "no answer within %d ms; the request may have been applied",
	     timeout_ms);
	if (err) /* its bytes may still leave */
		snprintf(err->applied, sizeof(err->applied), "unknown");
	return COORD_TIMEOUT;
}

enum coord_status
coord_call(struct coord *c, const char *method, const struct coord_params *params,
	   int timeout_ms, struct coord_reply **reply, struct coord_error *err)
{
	uint32_t id;
	enum coord_status status = coord_send(c, method, params, &id);

	if (!status)
		return coord_recv(c, id, timeout_ms, reply, err);
	return fail(err, status,
		    status == COORD_MEMORY  ? "no memory for the request"
		    : status == COORD_USAGE ? "a request needs a method"
					    : "the connection is at its end");
}
