#include "net/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "net/passed.h"

#define ACCEPT_MAX   64     /* connections per listener and turn */
#define REST_US      250000 /* without descriptors; a pending connection would spin the loop */
#define SAY_AGAIN_US 60000000 /* that there are none */
#define SUN_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)
#define PEER_TEXT    80
#define PASSED       "fd://"
#define NAME_MAX_LEN 255 /* of a descriptor, as systemd has it */

/* What sockets for us are called; the second where nobody gave a name, the third from a unit without one. */
static const char *const our_names[] = { "rpc", "unknown", "coordd.socket" };
#define ADMIN_NAME "admin" /* those that another accepts on */

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

struct listener {
	struct listeners *all;
	int fd;
	struct event *event;
	bool is_unix, is_local;
	char *path; /* of a Unix socket */
	dev_t dev;  /* its file, so that only our own is removed */
	ino_t ino;
};

struct listeners {
	struct loop *loop;
	struct conns *conns;
	struct timer rest;
	uint64_t said_us; /* when we last said that descriptors ran out */
	struct buf text;
	unsigned n;
	struct listener *list;
};

/* --- addresses ------------------------------------------------------------------------------
 */

static bool
cannot(struct errmsg *why, enum err err, const char *url, const char *text)
{
	errmsg_set(why, err, "%.128s: %s", url, text);
	return false;
}

static bool
refuse(struct errmsg *why, const char *url, const char *text)
{
	return cannot(why, ERR_BAD_REQUEST, url, text);
}

static bool
parse_port(const char *z, in_port_t *out)
{
	unsigned port = 0;

	if (!*z || strlen(z) > 5)
		return false;
	for (; *z; z++) {
		if (*z < '0' || *z > '9')
			return false;
		port = port * 10 + (unsigned)(*z - '0');
	}
	*out = htons((uint16_t)port);
	return port <= 65535;
}

static bool
parse_tcp(const char *url, const char *rest, union address *out, struct errmsg *why)
{
	const char *colon = strrchr(rest, ':');
	char host[INET6_ADDRSTRLEN + 2];
	size_t n = colon ? (size_t)(colon - rest) : 0;
	in_port_t port;

	if (!colon || n >= sizeof(host) || !parse_port(colon + 1, &port))
		return refuse(why, url,
			      "an address is tcp://HOST:PORT with a port from 0 to 65535");
	memcpy(host, rest, n);
	host[n] = '\0';
	if (host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		out->in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = port };
		if (inet_pton(AF_INET6, host + 1, &out->in6.sin6_addr) == 1)
			return true;
	} else {
		out->in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = port };
		if (inet_pton(AF_INET, host, &out->in.sin_addr) == 1)
			return true;
	}
	return refuse(why, url, "the host must be a numeric address, as 127.0.0.1 or [::1]");
}

static bool
is_passed(const char *url)
{
	return strncmp(url, PASSED, sizeof(PASSED) - 1) == 0;
}

static bool
is_tcp(const char *url)
{
	return strncmp(url, "tcp://", 6) == 0;
}

static bool
check_name(const char *url, struct errmsg *why)
{
	struct str name = str_of(url + sizeof(PASSED) - 1);

	if (name.n && name.n <= NAME_MAX_LEN && str_is_plain(name) &&
	    !memchr(name.p, ':', name.n))
		return true;
	return refuse(why, url,
		      "the name of a socket is printable ASCII without a colon, as fd://rpc");
}

static bool
parse(const char *url, union address *out, struct errmsg *why)
{
	memset(out, 0, sizeof(*out));
	if (is_tcp(url))
		return parse_tcp(url, url + 6, out, why);
	if (strncmp(url, "unix://", 7) != 0)
		return refuse(why, url, "an address begins with tcp://, unix:// or fd://");
	if (url[7] != '/' || !url[8])
		return refuse(why, url, "the path of a Unix socket must be absolute");
	if (strlen(url + 7) > SUN_PATH_MAX)
		return refuse(why, url, "the path of a Unix socket has at most 107 bytes");
	out->un.sun_family = AF_UNIX;
	memcpy(out->un.sun_path, url + 7, strlen(url + 7));
	return true;
}

static socklen_t
address_len(const union address *a)
{
	return a->sa.sa_family == AF_UNIX    ? sizeof(a->un)
	       : a->sa.sa_family == AF_INET6 ? sizeof(a->in6)
					     : sizeof(a->in);
}

/* "127.0.0.1:7420", "[::1]:7420" */
static void
address_text(char *out, size_t size, const union address *a)
{
	char host[INET6_ADDRSTRLEN];

	if (a->sa.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &a->in6.sin6_addr, host, sizeof(host));
		snprintf(out, size, "[%s]:%u", host, ntohs(a->in6.sin6_port));
	} else {
		inet_ntop(AF_INET, &a->in.sin_addr, host, sizeof(host));
		snprintf(out, size, "%s:%u", host, ntohs(a->in.sin_port));
	}
}

bool
listener_check(const char *url, struct errmsg *why)
{
	union address a;

	return is_passed(url) ? check_name(url, why) : parse(url, &a, why);
}

static bool
is_local(const union address *a)
{
	if (a->sa.sa_family == AF_INET)
		return ntohl(a->in.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	return a->sa.sa_family == AF_UNIX || IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr);
}

bool
listener_is_local(const char *url)
{
	union address a;

	if (is_passed(url))
		return check_name(url, NULL);
	return parse(url, &a, NULL) && is_local(&a);
}

bool
listener_check_served(const char *url, struct errmsg *why)
{
	if (!listener_check(url, why))
		return false;
	if (listener_is_local(url))
		return true;
	errmsg_set(why, ERR_BAD_REQUEST,
		   "%.128s: without authentication only loopback addresses and Unix sockets "
		   "are served",
		   url);
	return false;
}

/* --- accepting ------------------------------------------------------------------------------
 */

static void
listeners_on_rested(void *arg)
{
	struct listeners *all = arg;

	for (unsigned i = 0; i < all->n; i++)
		event_add(all->list[i].event, NULL);
}

/* Nothing can be accepted for a while: all listeners rest, since they share the descriptors. */
static void
listeners_rest(struct listeners *all, int errnum)
{
	uint64_t now = loop_now_us(all->loop);

	for (unsigned i = 0; i < all->n; i++)
		event_del(all->list[i].event);
	timer_set(&all->rest, REST_US);
	if (all->said_us && now - all->said_us < SAY_AGAIN_US)
		return;
	all->said_us = now;
	log_event(LOG_LISTENER_ACCEPT_FAILED, log_uint("connections", conns_count(all->conns)),
		  log_text("error", strerror(errnum)));
}

static void
peer_text(char *out, size_t size, const struct listener *l, int fd, const union address *from)
{
	struct ucred cred = { 0, 0, 0 };
	socklen_t len = sizeof(cred);

	if (!l->is_unix) {
		address_text(out, size, from);
		return;
	}
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	snprintf(out, size, "unix:pid=%d,uid=%u", (int)cred.pid, (unsigned)cred.uid);
}

static void
listener_on_event(evutil_socket_t listening, short what, void *arg)
{
	struct listener *l = arg;

	(void)what;
	for (unsigned i = 0; i < ACCEPT_MAX; i++) {
		union address from = { 0 };
		socklen_t len = sizeof(from);
		char peer[PEER_TEXT];
		int fd = accept4(listening, &from.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			peer_text(peer, sizeof(peer), l, fd, &from);
			conns_accept(l->all->conns, fd, l->is_unix, peer);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
			   errno == ENOMEM || errno == EBADF || errno == EINVAL) {
			listeners_rest(l->all, errno);
			return;
		} else if (errno == EAGAIN) {
			return;
		}
		/* Whatever else is wrong was wrong with the connection that is gone now. */
	}
}

/* --- binding --------------------------------------------------------------------------------
 */

/* Remove the file of a Unix socket that nobody listens on. */
static bool
remove_stale(const union address *a, const char **wrong)
{
	struct stat st;
	int fd, failed;

	if (lstat(a->un.sun_path, &st) || !S_ISSOCK(st.st_mode)) {
		*wrong = "there is a file that is no socket";
		errno = EEXIST;
		return false;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	failed = fd >= 0 && connect(fd, &a->sa, sizeof(a->un)) ? errno : 0;
	if (fd >= 0)
		close(fd);
	if (failed != ECONNREFUSED) {
		*wrong = "another process listens there";
		errno = EADDRINUSE;
		return false;
	}
	return unlink(a->un.sun_path) == 0;
}

static int
bind_unix(int fd, const union address *a, unsigned mode, const char **wrong)
{
	/* The file is born with its mode: there is no moment at which it is wider. */
	mode_t before = umask(~mode & 0777);
	int failed = bind(fd, &a->sa, sizeof(a->un));

	if (failed && errno == EADDRINUSE && remove_stale(a, wrong))
		failed = bind(fd, &a->sa, sizeof(a->un));
	umask(before);
	return failed;
}

/* Its socket listens: tell where, and accept. */
static bool
listener_begin(struct listener *l, const char *url, struct errmsg *why)
{
	struct buf *text = &l->all->text;
	union address a = { 0 };
	socklen_t len = sizeof(a);
	char host[PEER_TEXT];

	if (getsockname(l->fd, &a.sa, &len))
		return refuse(why, url, strerror(errno));
	l->is_unix = a.sa.sa_family == AF_UNIX;
	l->is_local = is_local(&a);
	if (text->len)
		buf_putc(text, ' ');
	if (l->is_unix) {
		/* The kernel does not terminate a path that fills it. */
		buf_printf(text, "unix://%s%.*s", *a.un.sun_path ? "" : "@",
			   (int)SUN_PATH_MAX - !*a.un.sun_path,
			   a.un.sun_path + !*a.un.sun_path);
	} else {
		address_text(host, sizeof(host), &a);
		buf_printf(text, "tcp://%s", host);
	}
	*buf_reserve(text, 1) = '\0';
	if (!l->all->conns)
		return true;
	l->event = event_new(loop_base(l->all->loop), l->fd, EV_READ | EV_PERSIST,
			     listener_on_event, l);
	if (!l->event)
		abort();
	event_add(l->event, NULL);
	return true;
}

static bool
listener_open(struct listener *l, const char *url, unsigned unix_mode, int backlog,
	      struct errmsg *why)
{
	const char *wrong = NULL;
	int on = 1, failed;
	union address a;
	socklen_t len;
	struct stat st;

	if (!parse(url, &a, why))
		return false;
	l->is_unix = a.sa.sa_family == AF_UNIX;
	len = address_len(&a);
	l->fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		return cannot(why, ERR_UNSENT, url, strerror(errno));
	if (l->is_unix) {
		failed = bind_unix(l->fd, &a, unix_mode, &wrong);
	} else {
		setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (a.sa.sa_family == AF_INET6)
			setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
		failed = bind(l->fd, &a.sa, len);
	}
	if (failed)
		return cannot(why,
			      l->is_unix && errno != EADDRINUSE ? ERR_FORBIDDEN : ERR_UNSENT,
			      url, wrong ? wrong : strerror(errno));
	if (l->is_unix) {
		l->path = xstrdup(a.un.sun_path);
		if (stat(l->path, &st) == 0) {
			l->dev = st.st_dev;
			l->ino = st.st_ino;
		}
	}
	if (listen(l->fd, backlog))
		return cannot(why, ERR_UNSENT, url, strerror(errno));
	return listener_begin(l, url, why);
}

static void
listener_close(struct listener *l)
{
	struct stat st;

	if (l->event)
		event_free(l->event);
	if (l->path && lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(l->path);
	free(l->path);
	if (l->fd >= 0)
		close(l->fd);
}

static struct listener *
add(struct listeners *all)
{
	struct listener *l = &all->list[all->n++];

	l->all = all;
	l->fd = -1;
	return l;
}

/* --- what was passed ------------------------------------------------------------------------
 */

static int
socket_option(int fd, int option)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) ? -1 : value;
}

/* All of this name. */
static bool
adopt(struct listeners *all, const char *name, struct errmsg *why)
{
	char url[sizeof(PASSED) + NAME_MAX_LEN];

	snprintf(url, sizeof(url), PASSED "%s", name);
	while (passed_count(name)) {
		struct listener *l = add(all);
		int family;

		l->fd = passed_take(name);
		family = socket_option(l->fd, SO_DOMAIN);
		if (socket_option(l->fd, SO_TYPE) != SOCK_STREAM ||
		    socket_option(l->fd, SO_ACCEPTCONN) != 1 ||
		    (family != AF_INET && family != AF_INET6 && family != AF_UNIX))
			return refuse(why, url,
				      "what was passed is no TCP or Unix socket that listens");
		if (evutil_make_socket_nonblocking(l->fd) || !listener_begin(l, url, why))
			return false;
	}
	return true;
}

/* Whether it stands among the addresses in force. */
static bool
has(const struct listeners *all, const char *url)
{
	size_t n = strlen(url);

	for (const char *p = all->text.data; p; p = strchr(p, ' '), p += p != NULL)
		if (strcspn(p, " ") == n && !memcmp(p, url, n))
			return true;
	return false;
}

static bool
open_all(struct listeners *all, const char *const *urls, unsigned n, unsigned unix_mode,
	 int backlog, struct errmsg *why)
{
	bool has_names = false;
	unsigned n_passed;

	for (unsigned i = 0; i < n; i++)
		has_names |= is_passed(urls[i]);
	if (!all->conns && !has_names && !adopt(all, ADMIN_NAME, why))
		return false;
	for (unsigned i = 0; i < sizeof(our_names) / sizeof(our_names[0]) && !has_names; i++)
		if (all->conns && !adopt(all, our_names[i], why))
			return false;
	n_passed = all->n;
	for (unsigned i = 0; i < n; i++) {
		if (is_passed(urls[i])) {
			const char *name = urls[i] + sizeof(PASSED) - 1;

			if (!passed_count(name))
				return refuse(why, urls[i],
					      "no socket of this name was passed");
			if (!adopt(all, name, why))
				return false;
		} else if (n_passed && (is_tcp(urls[i]) || has(all, urls[i]))) {
			log_event(LOG_LISTENER_REPLACED, log_text("listen", urls[i]));
		} else if (!listener_open(add(all), urls[i], unix_mode, backlog, why)) {
			return false;
		}
	}
	return true;
}

struct listeners *
listeners_new(struct loop *loop, struct conns *conns, const char *const *urls, unsigned n,
	      unsigned unix_mode, int backlog, struct errmsg *why)
{
	struct listeners *all = xcalloc(1, sizeof(*all));

	all->loop = loop;
	all->conns = conns;
	all->list = xcalloc(n + PASSED_MAX, sizeof(*all->list));
	timer_init(&all->rest, loop, listeners_on_rested, all);
	if (!open_all(all, urls, n, unix_mode, backlog, why)) {
		listeners_free(all);
		return NULL;
	}
	return all;
}

struct listeners *
listeners_bind(struct loop *loop, const char *const *urls, unsigned n, unsigned unix_mode,
	       int backlog, struct errmsg *why)
{
	return listeners_new(loop, NULL, urls, n, unix_mode, backlog, why);
}

unsigned
listeners_count(const struct listeners *all)
{
	return all->n;
}

int
listeners_fd(const struct listeners *all, unsigned i)
{
	return all->list[i].fd;
}

void
listeners_free(struct listeners *all)
{
	if (!all)
		return;
	for (unsigned i = 0; i < all->n; i++)
		listener_close(&all->list[i]);
	timer_done(&all->rest);
	buf_done(&all->text);
	free(all->list);
	free(all);
}

const char *
listeners_text(const struct listeners *all)
{
	return all->text.data;
}

bool
listeners_are_local(const struct listeners *all)
{
	for (unsigned i = 0; i < all->n; i++)
		if (!all->list[i].is_local)
			return false;
	return true;
}
