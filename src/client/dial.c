/*
 * A socket that is connected to a broker, without waiting.
 *
 *	dial_new()	a Unix path or a numeric address is known at once, a name is looked up
 *	on_found()	libevent's resolver has an answer
 *	on_next()	tries one address; the next one when it fails, or after a quarter of a
 *			second beside it, since one that does not answer must not hold up the others
 *	done()		the first that is connected wins
 *
 * Addresses of both families take turns, beginning with the family that the resolver prefers.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>

#include "client/own.h"

enum { ADDRESSES = 8, STAGGER_MS = 250 };

struct attempt {
	struct dial *dial;
	int fd; /* -1: none */
	struct event *writable;
};

/* A question to the resolver. It outlives the dial when that is given up: cancelling is answered,
 * too. */
struct lookup {
	struct dial *dial; /* NULL: nobody wants the answer */
	struct evdns_base *dns;
	struct evdns_getaddrinfo_request *request;
	struct event *end;
};

struct dial {
	struct event_base *base;
	const struct broker *address;
	dial_fn *fn;
	void *arg;
	struct event *next, *late;
	struct lookup *lookup;
	const char *problem; /* of the lookup */
	int error;           /* errno of the latest attempt that failed */
	struct sockaddr_storage addrs[ADDRESSES];
	socklen_t lens[ADDRESSES];
	unsigned n, started;
	struct attempt attempts[ADDRESSES];
};

static void
attempt_close(struct attempt *t)
{
	if (t->writable)
		event_free(t->writable);
	if (t->fd >= 0)
		close(t->fd);
	t->writable = NULL;
	t->fd = -1;
}

/* --- looking up -------------------------------------------------------------------- */

static void
lookup_on_end(evutil_socket_t fd, short what, void *arg)
{
	struct lookup *k = arg;

	(void)fd;
	(void)what;
	evdns_base_free(k->dns, 0);
	event_free(k->end);
	free(k);
}

static bool
add_address(struct dial *d, const struct sockaddr *addr, socklen_t len)
{
	if (d->n == ADDRESSES || len > sizeof(d->addrs[0]))
		return false;
	memcpy(&d->addrs[d->n], addr, len);
	d->lens[d->n++] = len;
	return true;
}

/* The next result of a family; `*at` goes behind it. */
static const struct evutil_addrinfo *
next_of(const struct evutil_addrinfo **at, int family, bool is_same)
{
	const struct evutil_addrinfo *a = *at;

	while (a && (a->ai_family == family) != is_same)
		a = a->ai_next;
	*at = a ? a->ai_next : NULL;
	return a;
}

static void
take_addresses(struct dial *d, const struct evutil_addrinfo *list)
{
	const struct evutil_addrinfo *first = list, *second = list, *a, *b;

	do {
		a = next_of(&first, list->ai_family, true);
		b = next_of(&second, list->ai_family, false);
		if (a)
			add_address(d, a->ai_addr, (socklen_t)a->ai_addrlen);
		if (b)
			add_address(d, b->ai_addr, (socklen_t)b->ai_addrlen);
	} while (a || b);
}

/* Runs from the loop, or already from evdns_getaddrinfo(). */
static void
on_found(int result, struct evutil_addrinfo *list, void *arg)
{
	struct lookup *k = arg;
	struct dial *d = k->dial;

	k->request = NULL;
	if (d) {
		d->lookup = NULL;
		if (!result && list)
			take_addresses(d, list);
		if (!d->n)
			d->problem = result ? evutil_gai_strerror(result) : "it has no address";
		event_active(d->next, 0, 0);
	}
	if (list)
		evutil_freeaddrinfo(list);
	/* Not here: the resolver is on the stack. */
	event_active(k->end, 0, 0);
}

static bool
lookup_start(struct dial *d)
{
	struct evutil_addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct lookup *k = calloc(1, sizeof(*k));
	struct evdns_getaddrinfo_request *request;

	if (!k)
		return false;
	k->end = event_new(d->base, -1, 0, lookup_on_end, k);
	k->dns = k->end ? evdns_base_new(d->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE) : NULL;
	if (!k->dns) {
		if (k->end)
			event_free(k->end);
		free(k);
		return false;
	}
	/* Anew for each attempt, so that a change of the files is seen. Without one the resolver
	 * has its defaults. */
	evdns_base_resolv_conf_parse(k->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf");
	k->dial = d;
	d->lookup = k;
	request = evdns_getaddrinfo(k->dns, d->address->host, d->address->port, &hints,
				    on_found, k);
	if (d->lookup)
		k->request = request;
	return true;
}

/* --- connecting --------------------------------------------------------------------- */

static void
done(struct dial *d, int fd, const struct coord_error *err)
{
	dial_fn *fn = d->fn;
	void *arg = d->arg;

	dial_free(d);
	fn(arg, fd, err);
}

static void
fail(struct dial *d, enum coord_status status, const char *why)
{
	struct coord_error err;

	client_fail(&err, status, "unavailable", "cannot connect to %s: %s", d->address->url,
		    why);
	err.retryable = true;
	snprintf(err.applied, sizeof(err.applied), "no");
	done(d, -1, &err);
}

/* The attempt is connected: hand its socket out. */
static void
win(struct attempt *t)
{
	int fd = t->fd, one = 1;
	struct dial *d = t->dial;

	t->fd = -1;
	if (!d->address->is_unix) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	}
	done(d, fd, NULL);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct attempt *t = arg;
	struct dial *d = t->dial;
	socklen_t n = sizeof(int);
	int error = 0;

	(void)what;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		error = errno;
	if (!error) {
		win(t);
		return;
	}
	d->error = error;
	attempt_close(t);
	event_active(d->next, 0, 0);
}

static bool
is_trying(const struct dial *d)
{
	for (unsigned i = 0; i < d->started; i++)
		if (d->attempts[i].fd >= 0)
			return true;
	return false;
}

static void
on_next(evutil_socket_t fd, short what, void *arg)
{
	struct dial *d = arg;

	(void)fd;
	(void)what;
	while (d->started < d->n) {
		unsigned i = d->started++;
		struct attempt *t = &d->attempts[i];

		t->fd = socket(d->addrs[i].ss_family,
			       SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (t->fd < 0) {
			d->error = errno;
			continue;
		}
		/* A Unix socket says EAGAIN when its queue of connections is full. */
		if (!connect(t->fd, (struct sockaddr *)&d->addrs[i], d->lens[i])) {
			win(t);
			return;
		}
		if (errno == EINPROGRESS || errno == EINTR) {
			t->writable = event_new(d->base, t->fd, EV_WRITE, on_writable, t);
			if (t->writable && !event_add(t->writable, NULL)) {
				if (d->started < d->n)
					timer_start(d->next, STAGGER_MS);
				return;
			}
			errno = ENOMEM;
		}
		d->error = errno;
		attempt_close(t);
	}
	if (!is_trying(d))
		fail(d, COORD_CONNECT, d->problem ? d->problem : strerror(d->error));
}

static void
on_late(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	fail(arg, COORD_TIMEOUT, "it does not answer in time");
}

/* Addresses that need no question. */
static void
take_literal(struct dial *d)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	const struct broker *a = d->address;
	uint16_t port = htons((uint16_t)atoi(a->port));

	if (a->is_unix) {
		memcpy(un.sun_path, a->host, strlen(a->host)); /* shorter, see broker.c */
		add_address(d, (struct sockaddr *)&un, sizeof(un));
	} else if (inet_pton(AF_INET, a->host, &in.sin_addr) == 1) {
		in.sin_port = port;
		add_address(d, (struct sockaddr *)&in, sizeof(in));
	} else if (inet_pton(AF_INET6, a->host, &in6.sin6_addr) == 1) {
		in6.sin6_port = port;
		add_address(d, (struct sockaddr *)&in6, sizeof(in6));
	}
}

struct dial *
dial_new(struct event_base *base, const struct broker *a, int64_t timeout_ms, dial_fn *fn,
	 void *arg)
{
	struct dial *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->base = base;
	d->address = a;
	d->fn = fn;
	d->arg = arg;
	for (unsigned i = 0; i < ADDRESSES; i++)
		d->attempts[i] = (struct attempt){ .dial = d, .fd = -1 };
	d->next = event_new(base, -1, 0, on_next, d);
	d->late = event_new(base, -1, 0, on_late, d);
	if (!d->next || !d->late) {
		dial_free(d);
		return NULL;
	}
	timer_start(d->late, timeout_ms);
	take_literal(d);
	if (d->n) {
		event_active(d->next, 0, 0);
	} else if (!lookup_start(d)) {
		dial_free(d);
		return NULL;
	}
	return d;
}

void
dial_free(struct dial *d)
{
	if (!d)
		return;
	if (d->lookup) {
		d->lookup->dial = NULL;
		evdns_getaddrinfo_cancel(d->lookup->request);
	}
	for (unsigned i = 0; i < ADDRESSES; i++)
		attempt_close(&d->attempts[i]);
	if (d->next)
		event_free(d->next);
	if (d->late)
		event_free(d->late);
	free(d);
}
