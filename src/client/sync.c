/* What waits: poll(2) around the core of core.c. */

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
#include <unistd.h>

#include "client/own.h"

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

/* When a wait of `timeout_ms` from now ends; negative: never. */
static int64_t
deadline_of(int timeout_ms)
{
	return timeout_ms < 0 ? -1 : client_now() + timeout_ms;
}

/* poll() one socket until the deadline: the events, 0 when time is up. */
static short
wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - client_now();

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
connect_unix(const struct broker *a, int64_t deadline, struct coord_error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	memcpy(addr.sun_path, a->host, strlen(a->host));
	fd = connect_one(AF_UNIX, (struct sockaddr *)&addr, sizeof(addr), deadline);
	if (fd < 0)
		fail(err, errno == ETIMEDOUT ? COORD_TIMEOUT : COORD_CONNECT,
		     "cannot connect to %s: %s", a->host, strerror(errno));
	return fd;
}

static int
connect_tcp(const struct broker *to, int64_t deadline, struct coord_error *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *a;
	int fd = -1, one = 1, rc;

	rc = getaddrinfo(to->host, to->port, &hints, &list);
	if (rc) {
		fail(err, rc == EAI_MEMORY ? COORD_MEMORY : COORD_CONNECT, "%s port %s: %s",
		     to->host, to->port, rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
		return -1;
	}
	for (a = list; a && fd < 0; a = a->ai_next)
		fd = connect_one(a->ai_family, a->ai_addr, a->ai_addrlen, deadline);
	if (fd < 0)
		fail(err, errno == ETIMEDOUT ? COORD_TIMEOUT : COORD_CONNECT,
		     "cannot connect to %s port %s: %s", to->host, to->port, strerror(errno));
	else
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	freeaddrinfo(list);
	return fd;
}

struct coord *
coord_connect(const char *url, int timeout_ms, struct coord_error *err)
{
	int64_t deadline = deadline_of(timeout_ms);
	struct broker a;
	struct coord *c;
	int fd;

	if (broker_read(&a, url, err))
		return NULL;
	fd = a.is_unix ? connect_unix(&a, deadline, err) : connect_tcp(&a, deadline, err);
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
	} while (events && (deadline < 0 || client_now() <= deadline));

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
