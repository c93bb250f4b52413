/*
 * http: evhttp and its fences.
 *
 *	on_connection()		evhttp asks for a buffer of a new connection
 *	admit_all()		it has one: it is counted, and refused when it is one too many of its kind
 *	on_input()		the first bytes of a request: its deadline begins
 *	on_request()		it is complete; what is wrong with it is said here, the rest is the callback's
 *	http_reply()		the answer, which must be taken in time
 *	on_answered()		idle, or the next one
 *	http_on_sweep()		whoever is past a deadline is shut down; what evhttp let go is forgotten
 *
 * evhttp's own timeout begins anew with every byte, so that whoever sends one a second stays for ever; it has no limit of
 * connections, and reads on while it answers. It does not say when it closes a connection on which no request was
 * read. So each connection's bufferevent is ours as well: a reference of ours keeps its descriptor, and a walk over all
 * of them, a few times a second and with each new one, finds those that evhttp has let go of by their missing callbacks. A
 * connection is ended by shutting its socket down, which evhttp takes for the client's leaving.
 */
#include "admin/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin/problem.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/listener.h"

enum {
	BACKLOG = 64,
	SWEEP_IDLE_US = 1000000, /* without connections */
	SWEEP_MAX_US = 250000,
	SWEEP_MIN_US = 10000,
	INPUT_SPARE = 4096,         /* beside a whole header and body */
	STREAM_INPUT = 4096,        /* nobody says anything while it is streamed to */
	STREAM_BEHIND = 64 * 1024,  /* unsent: nothing is added */
	STREAM_LIMIT = 1024 * 1024, /* unsent: it is dropped */
	NEVER_S = 24 * 60 * 60,     /* evhttp's timeout, which ours come before */
	PEER_TEXT = 80,
};

enum phase { PHASE_READING, PHASE_ASKED, PHASE_ANSWERING, PHASE_IDLE, PHASE_STREAM };

/* They are counted apart: whoever fills the port over TCP leaves the operator the Unix socket. */
enum kind { KIND_TCP, KIND_UNIX, KINDS, KIND_NEW = KINDS, KIND_REFUSED };

struct http_stream {
	struct http_request *req;
	void (*on_end)(void *arg);
	void *arg;
};

struct http_request {
	struct http_conn *conn;
	struct evhttp_request *ev;
	struct http_stream stream; /* on_end is NULL while it is none */
	struct str path, query;
	unsigned tag;
	char peer[PEER_TEXT];
};

struct http_conn {
	TAILQ_ENTRY(http_conn) link;
	struct http *http;
	struct bufferevent *bev;  /* a reference */
	struct http_request *req; /* in the phases ASKED and STREAM */
	enum phase phase;
	uint64_t
		since_us; /* in this phase; of a stream: that nothing left, or nothing was to leave */
	size_t unsent; /* of a stream, then */
	enum kind kind;
};

struct http {
	struct loop *loop;
	struct http_config config;
	http_cb *cb;
	http_count_cb *count;
	void *arg;
	struct listeners *listeners;
	struct evhttp *ev;
	TAILQ_HEAD(, http_conn) conns;
	unsigned connections[KINDS], streams;
	struct timer sweep;
	struct defer admit;
	unsigned n;
	struct evconnlistener *accepting[];
};

/* Connections ------------------------------------------------------------------------------------ */

static void
conn_enter(struct http_conn *c, enum phase phase)
{
	c->phase = phase;
	c->since_us = loop_now_us(c->http->loop);
}

static void
conn_shut(struct http_conn *c)
{
	evutil_socket_t fd = bufferevent_getfd(c->bev);

	if (fd >= 0)
		shutdown(fd, SHUT_RDWR);
}

/* Whether evhttp has let it go: while it has it, it hears of errors. */
static bool
conn_is_gone(const struct http_conn *c)
{
	bufferevent_event_cb on_event = NULL;

	bufferevent_getcb(c->bev, NULL, NULL, &on_event, NULL);
	return !on_event;
}

static void
on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
	struct http_conn *c = arg;

	(void)input;
	if (info->n_added && c->phase == PHASE_IDLE)
		conn_enter(c, PHASE_READING);
}

static void
conn_free(struct http_conn *c)
{
	struct http *h = c->http;

	TAILQ_REMOVE(&h->conns, c, link);
	if (c->kind < KINDS)
		h->connections[c->kind]--;
	evbuffer_remove_cb(bufferevent_get_input(c->bev), on_input, c);
	bufferevent_decref(c->bev); /* its descriptor is closed with it */
	free(c);
}

static void
conns_forget(struct http *h)
{
	struct http_conn *c, *next;

	for (c = TAILQ_FIRST(&h->conns); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (conn_is_gone(c))
			conn_free(c);
	}
}

static uint64_t
conn_limit(const struct http_conn *c)
{
	const struct http_config *config = &c->http->config;

	switch (c->phase) {
	case PHASE_READING:
		return config->header_timeout_us;
	case PHASE_ASKED:
		return 0; /* whoever was asked has a deadline of its own */
	default:
		return config->idle_timeout_us;
	}
}

/* A stream is late when something is unsent, and nothing of it left for so long. */
static void
stream_look(struct http_conn *c, uint64_t now)
{
	size_t unsent = evbuffer_get_length(bufferevent_get_output(c->bev));

	if (!unsent || unsent < c->unsent)
		c->since_us = now;
	c->unsent = unsent;
}

static void
http_on_sweep(void *arg)
{
	struct http *h = arg;
	uint64_t now = loop_now_us(h->loop), step = h->config.header_timeout_us / 4;
	struct http_conn *c;

	conns_forget(h);
	TAILQ_FOREACH (c, &h->conns, link) {
		uint64_t limit = conn_limit(c);

		if (c->phase == PHASE_STREAM)
			stream_look(c, now);
		if (limit && now - c->since_us >= limit)
			conn_shut(c);
	}
	for (unsigned i = 0; i < h->n; i++)
		evconnlistener_enable(h->accepting[i]); /* one that rests */
	timer_set(&h->sweep, TAILQ_EMPTY(&h->conns) ? SWEEP_IDLE_US
			     : step > SWEEP_MAX_US  ? SWEEP_MAX_US
			     : step < SWEEP_MIN_US  ? SWEEP_MIN_US
						    : step);
}

/* One too many is told so, and what it has said already is read, for a close over unread bytes would be a reset. */
static void
conn_refuse(struct http_conn *c, evutil_socket_t fd)
{
	static const char text[] = "HTTP/1.1 503 Service Unavailable\r\n"
				   "Content-Type: application/problem+json\r\n"
				   "Retry-After: 1\r\n"
				   "Cache-Control: no-store\r\n"
				   "Connection: close\r\n"
				   "Content-Length: %zu\r\n\r\n%s";
	static const char body[] =
		"{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,"
		"\"code\":\"overloaded\",\"detail\":\"there are as many connections as may "
		"be\"}";
	char answer[512], input[4096];
	int n = snprintf(answer, sizeof(answer), text, sizeof(body) - 1, body);

	c->kind = KIND_REFUSED;
	if (send(fd, answer, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		shutdown(fd, SHUT_WR);
	while (recv(fd, input, sizeof(input), MSG_DONTWAIT) == (ssize_t)sizeof(input))
		;
	shutdown(fd, SHUT_RDWR);
}

static bool
is_unix(evutil_socket_t fd)
{
	int domain = 0;
	socklen_t n = sizeof(domain);

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) && domain == AF_UNIX;
}

static void
admit_all(void *arg)
{
	struct http *h = arg;
	struct http_conn *c;

	TAILQ_FOREACH (c, &h->conns, link) {
		evutil_socket_t fd = bufferevent_getfd(c->bev);
		enum kind kind = is_unix(fd) ? KIND_UNIX : KIND_TCP;

		if (c->kind != KIND_NEW || fd < 0 || conn_is_gone(c))
			continue;
		if (h->connections[kind] >= h->config.max_connections) {
			conn_refuse(c, fd);
		} else {
			c->kind = kind;
			h->connections[kind]++;
		}
	}
}

static struct bufferevent *
on_connection(struct event_base *base, void *arg)
{
	struct http *h = arg;
	struct http_conn *c;
	struct bufferevent *bev;

	conns_forget(h);
	bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	if (!bev)
		abort();
	c = xcalloc(1, sizeof(*c));
	c->http = h;
	c->bev = bev;
	bufferevent_incref(bev);
	bufferevent_setwatermark(bev, EV_READ, 0,
				 h->config.max_header + h->config.max_body + INPUT_SPARE);
	evbuffer_add_cb(bufferevent_get_input(bev), on_input, c);
	conn_enter(c, PHASE_READING);
	TAILQ_INSERT_TAIL(&h->conns, c, link);
	c->kind = KIND_NEW;
	loop_defer(h->loop, &h->admit, admit_all, h); /* its descriptor is not known yet */
	timer_at_most(&h->sweep, SWEEP_MIN_US);
	return bev;
}

static struct http_conn *
conn_of(struct http *h, struct evhttp_request *ev)
{
	struct bufferevent *bev =
		evhttp_connection_get_bufferevent(evhttp_request_get_connection(ev));
	struct http_conn *c;

	TAILQ_FOREACH (c, &h->conns, link) {
		if (c->bev == bev)
			break;
	}
	return c;
}

/* Accepting -------------------------------------------------------------------------------------- */

/* Nothing can be accepted for want of descriptors: it rests until the next sweep. (evhttp has made `arg` its own.) */
static void
on_accept_error(struct evconnlistener *l, void *arg)
{
	(void)arg;
	log_event(LOG_ADMIN_ACCEPT_FAILED, log_text("error", strerror(errno)));
	evconnlistener_disable(l);
}

/* Requests --------------------------------------------------------------------------------------- */

static void
read_peer(struct http_request *req, evutil_socket_t fd)
{
	struct ucred cred = { 0, 0, 0 };
	socklen_t len = sizeof(cred);
	uid_t uid;
	char *host;
	ev_uint16_t port;

	if (http_peer_uid(req, &uid)) {
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
		snprintf(req->peer, sizeof(req->peer), "unix:pid=%d,uid=%u", (int)cred.pid,
			 (unsigned)uid);
		return;
	}
	evhttp_connection_get_peer(evhttp_request_get_connection(req->ev), &host, &port);
	snprintf(req->peer, sizeof(req->peer), strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
		 port);
}

static const char *
only_header(const struct http_request *req, const char *name, unsigned *n)
{
	struct evkeyval *header;
	const char *value = NULL;

	*n = 0;
	for (header = TAILQ_FIRST(evhttp_request_get_input_headers(req->ev)); header;
	     header = TAILQ_NEXT(header, next)) {
		if (strcasecmp(header->key, name) == 0) {
			value = header->value;
			++*n;
		}
	}
	return value;
}

/* "localhost:7421", "[::1]:7421", "::1": the host alone. */
static struct str
host_of(const char *value)
{
	struct str s = str_of(value);
	const char *end;

	if (*value == '[' && (end = strchr(value, ']')))
		return end[1] && end[1] != ':'
			       ? STR("")
			       : (struct str){ value + 1, (size_t)(end - value - 1) };
	end = strrchr(value, ':');
	if (end && strchr(value, ':') == end)
		s.n = (size_t)(end - value);
	return s;
}

static bool
host_is_allowed(const struct http *h, struct str host)
{
	for (unsigned i = 0; i < h->config.n_allow_hosts; i++) {
		struct str allowed = host_of(h->config.allow_hosts[i]);

		if (allowed.n && allowed.n == host.n &&
		    strncasecmp(allowed.p, host.p, host.n) == 0)
			return true;
	}
	return false;
}

/* Whether all of the body that was announced was read: evhttp reads none of some methods, and none in a
 * coding that it does not know, and takes what follows for the next request. */
static bool
body_is_whole(const struct http_request *req, const char *length, const char *encoding)
{
	const char *end = "";
	unsigned long long n = 0;

	if (encoding)
		return evhttp_request_get_command(req->ev) &
			       (EVHTTP_REQ_POST | EVHTTP_REQ_PUT | EVHTTP_REQ_PATCH |
				EVHTTP_REQ_DELETE) &&
		       strcasecmp(encoding, "chunked") == 0;
	if (length)
		n = strtoull(length, (char **)&end, 10);
	return !*end && n == evbuffer_get_length(evhttp_request_get_input_buffer(req->ev));
}

/*
 * What evhttp lets pass and we do not. A page of a foreign site reaches a port on this machine with a name of its own that it
 * had point here: it is known by its Host. One that says where it comes from is known by that.
 */
static bool
check_request(struct http_request *req)
{
	struct http *h = req->conn->http;
	unsigned hosts, lengths, encodings, origins;
	const char *host = only_header(req, "Host", &hosts),
		   *origin = only_header(req, "Origin", &origins),
		   *length = only_header(req, "Content-Length", &lengths),
		   *encoding = only_header(req, "Transfer-Encoding", &encodings);
	struct evkeyval *header;
	uid_t uid;

	for (header = TAILQ_FIRST(evhttp_request_get_input_headers(req->ev)); header;
	     header = TAILQ_NEXT(header, next)) {
		if (!*header->key || strpbrk(header->key, " \t")) {
			problem_say(req, 400, "bad_request", "a header's name holds a blank");
			return false;
		}
	}
	if (hosts != 1 || !*host)
		problem_say(req, 400, "bad_request", "there must be one Host header");
	else if (lengths + encodings > 1)
		problem_say(req, 400, "bad_request",
			    "there is more than one length of the body");
	else if (!body_is_whole(req, length, encoding))
		problem_say(req, 400, "bad_request",
			    "a body has a length or is chunked, and not every method has one");
	else if (!req->path.n || req->path.p[0] != '/')
		problem_say(req, 400, "bad_request", "the target must be a path");
	else if (!http_peer_uid(req, &uid) && !host_is_allowed(h, host_of(host)))
		problem_say(req, 421, "forbidden", "Host is none of admin.allow_hosts");
	else if (origins &&
		 (origins > 1 ||
		  (strncmp(origin, "http://", 7) && strncmp(origin, "https://", 8)) ||
		  strcasecmp(strchr(origin, '/') + 2, host)))
		problem_say(req, 403, "forbidden", "Origin is another site");
	else
		return true;
	return false;
}

static void
split_target(struct http_request *req)
{
	const char *uri = evhttp_request_get_uri(req->ev), *mark;

	if (!uri)
		return;
	mark = strchr(uri, '?');
	req->path = (struct str){ uri, mark ? (size_t)(mark - uri) : strlen(uri) };
	if (mark)
		req->query = str_of(mark + 1);
}

static void
on_request(struct evhttp_request *ev, void *arg)
{
	struct http *h = arg;
	struct http_conn *c = conn_of(h, ev);
	struct http_request *req;

	if (!c || c->req)
		abort(); /* evhttp has one at a time, on connections that it asked us for */
	req = xcalloc(1, sizeof(*req));
	req->conn = c;
	req->ev = ev;
	req->tag = HTTP_UNTAGGED;
	c->req = req;
	conn_enter(c, PHASE_ASKED);
	read_peer(req, bufferevent_getfd(c->bev));
	split_target(req);
	if (check_request(req))
		h->cb(h->arg, req);
}

const char *
http_method(const struct http_request *req)
{
	static const struct {
		enum evhttp_cmd_type type;
		const char *name;
	} methods[] = { { EVHTTP_REQ_GET, "GET" },       { EVHTTP_REQ_POST, "POST" },
			{ EVHTTP_REQ_HEAD, "HEAD" },     { EVHTTP_REQ_PUT, "PUT" },
			{ EVHTTP_REQ_DELETE, "DELETE" }, { EVHTTP_REQ_OPTIONS, "OPTIONS" },
			{ EVHTTP_REQ_TRACE, "TRACE" },   { EVHTTP_REQ_CONNECT, "CONNECT" },
			{ EVHTTP_REQ_PATCH, "PATCH" } };

	for (unsigned i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (methods[i].type == evhttp_request_get_command(req->ev))
			return methods[i].name;
	return "";
}

struct str
http_path(const struct http_request *req)
{
	return req->path;
}

struct str
http_query(const struct http_request *req)
{
	return req->query;
}

struct str
http_body(struct http_request *req)
{
	struct evbuffer *body = evhttp_request_get_input_buffer(req->ev);
	size_t n = evbuffer_get_length(body);

	return (struct str){ n ? (const char *)evbuffer_pullup(body, -1) : "", n };
}

const char *
http_header(const struct http_request *req, const char *name)
{
	return evhttp_find_header(evhttp_request_get_input_headers(req->ev), name);
}

bool
http_peer_uid(const struct http_request *req, uid_t *uid)
{
	evutil_socket_t fd = bufferevent_getfd(req->conn->bev);
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (!is_unix(fd) || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return false;
	*uid = cred.uid;
	return true;
}

const char *
http_peer(const struct http_request *req)
{
	return req->peer;
}

void
http_set_tag(struct http_request *req, unsigned tag)
{
	req->tag = tag;
}

/* Answers ---------------------------------------------------------------------------------------- */

static void
free_text(const void *data, size_t n, void *arg)
{
	(void)n;
	(void)arg;
	free((void *)(uintptr_t)data);
}

/* Move what `b` holds into a buffer of libevent's. */
static void
take_bytes(struct evbuffer *to, struct buf *b)
{
	if (b->len)
		evbuffer_add_reference(to, b->data, b->len, free_text, NULL);
	else
		free(b->data);
	*b = (struct buf){ 0 };
}

static void
on_answered(struct evhttp_request *ev, void *arg)
{
	struct http_conn *c = arg;
	bool has_more = evbuffer_get_length(bufferevent_get_input(c->bev)) > 0;

	(void)ev;
	conn_enter(c, has_more ? PHASE_READING : PHASE_IDLE);
}

static void
put_headers(struct http_request *req, const char *type)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req->ev);

	evhttp_add_header(headers, "Content-Type", type);
	evhttp_add_header(headers, "Cache-Control", "no-store");
	evhttp_add_header(headers, "Content-Security-Policy",
			  "default-src 'none'; frame-ancestors 'none'");
	evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
	evhttp_add_header(headers, "Referrer-Policy", "no-referrer");
	evhttp_add_header(headers, "Cross-Origin-Resource-Policy", "same-origin");
}

/* The request leaves our hands: evhttp frees it when its answer has left, or now, if its connection is gone. */
static struct evhttp_request *
request_free(struct http_request *req)
{
	struct evhttp_request *ev = req->ev;

	req->conn->req = NULL;
	free(req);
	return ev;
}

void
http_reply(struct http_request *req, int status, const char *type, const char *allow,
	   struct buf *body)
{
	struct http_conn *c = req->conn;
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req->ev);
	struct evbuffer *out = evbuffer_new();
	struct evhttp_request *ev;
	char length[24];

	if (!out)
		abort();
	c->http->count(c->http->arg, req->tag, status);
	put_headers(req, type);
	if (allow)
		evhttp_add_header(headers, "Allow", allow);
	if (status == 400 || status == 421 || status == 403)
		evhttp_add_header(headers, "Connection", "close");
	if (status != 204) {
		snprintf(length, sizeof(length), "%zu",
			 body->len); /* evhttp leaves it out where there is no body */
		evhttp_add_header(headers, "Content-Length", length);
	}
	if (strcmp(http_method(req), "HEAD") == 0)
		buf_done(body); /* evhttp would send it */
	take_bytes(out, body);
	ev = request_free(req);
	evhttp_request_set_on_complete_cb(ev, on_answered, c);
	conn_enter(c, PHASE_ANSWERING);
	evhttp_send_reply(ev, status, problem_title(status), out);
	evbuffer_free(out);
}

/* Streams ---------------------------------------------------------------------------------------- */

/* The connection of a stream is going: evhttp frees it next, and the request where that is still on it. */
static void
on_stream_closed(struct evhttp_connection *evcon, void *arg)
{
	struct http_conn *c = arg;
	struct http_request *req = c->req;
	struct http_stream stream = req->stream;
	struct evhttp_request *ev = request_free(req);

	(void)evcon;
	c->http->streams--;
	conn_enter(c, PHASE_ANSWERING);
	if (!evhttp_request_get_connection(ev))
		evhttp_send_reply_end(ev); /* only frees it */
	stream.on_end(stream.arg);
}

struct http_stream *
http_stream_begin(struct http_request *req, void (*on_end)(void *arg), void *arg)
{
	struct http_conn *c = req->conn;
	struct http *h = c->http;

	if (h->streams >= h->config.max_streams)
		return NULL;
	h->streams++;
	req->stream = (struct http_stream){ req, on_end, arg };
	h->count(h->arg, req->tag, 200);
	put_headers(req, "text/event-stream");
	evhttp_connection_set_closecb(evhttp_request_get_connection(req->ev), on_stream_closed,
				      c);
	bufferevent_setwatermark(c->bev, EV_READ, 0, STREAM_INPUT);
	conn_enter(c, PHASE_STREAM);
	c->unsent = 0;
	evhttp_send_reply_start(req->ev, 200, "OK");
	return &req->stream;
}

static size_t
stream_unsent(const struct http_stream *stream)
{
	return evbuffer_get_length(bufferevent_get_output(stream->req->conn->bev));
}

void
http_stream_put(struct http_stream *stream, struct buf *bytes)
{
	struct evbuffer *chunk = evbuffer_new();

	if (!chunk)
		abort();
	take_bytes(chunk, bytes);
	evhttp_send_reply_chunk(stream->req->ev, chunk);
	evbuffer_free(chunk);
	if (stream_unsent(stream) > STREAM_LIMIT)
		conn_shut(stream->req->conn);
}

bool
http_stream_is_behind(const struct http_stream *stream)
{
	return stream_unsent(stream) > STREAM_BEHIND;
}

/* All of it -------------------------------------------------------------------------------------- */

static void
http_apply(struct http *h)
{
	evhttp_set_max_headers_size(h->ev, (ev_ssize_t)h->config.max_header);
	evhttp_set_max_body_size(h->ev, (ev_ssize_t)h->config.max_body);
}

void
http_set_config(struct http *h, const struct http_config *config)
{
	h->config = *config;
	http_apply(h);
	timer_at_most(&h->sweep, SWEEP_MIN_US);
}

struct http *
http_new(struct loop *loop, const struct http_config *config, const char *const *urls,
	 unsigned n, unsigned unix_mode, http_cb *cb, http_count_cb *count, void *arg,
	 struct errmsg *why)
{
	struct listeners *listeners = listeners_bind(loop, urls, n, unix_mode, BACKLOG, why);
	struct http *h;

	if (!listeners)
		return NULL;
	if (!listeners_are_local(listeners)) {
		errmsg_set(why, ERR_BAD_REQUEST,
			   "%.200s: a socket that was passed is open to other machines; only "
			   "loopback "
			   "addresses and Unix sockets are served",
			   listeners_text(listeners));
		listeners_free(listeners);
		return NULL;
	}
	n = listeners_count(listeners);
	h = xcalloc(1, sizeof(*h) + n * sizeof(void *));
	h->loop = loop;
	h->config = *config;
	h->cb = cb;
	h->count = count;
	h->arg = arg;
	h->listeners = listeners;
	TAILQ_INIT(&h->conns);
	timer_init(&h->sweep, loop, http_on_sweep, h);
	h->ev = evhttp_new(loop_base(loop));
	if (!h->ev)
		abort();
	evhttp_set_allowed_methods(h->ev, 0xffff); /* which of them a path has is ours to say */
	evhttp_set_timeout(h->ev, NEVER_S);
	evhttp_set_default_content_type(h->ev, NULL);
	evhttp_set_bevcb(h->ev, on_connection, h);
	evhttp_set_gencb(h->ev, on_request, h);
	http_apply(h);
	for (unsigned i = 0; i < n; i++) {
		struct evconnlistener *l =
			evconnlistener_new(loop_base(loop), NULL, h, LEV_OPT_CLOSE_ON_EXEC, 0,
					   listeners_fd(listeners, i));

		if (!l || !evhttp_bind_listener(h->ev, l))
			abort();
		evconnlistener_set_error_cb(l, on_accept_error);
		h->accepting[h->n++] = l;
	}
	timer_set(&h->sweep, SWEEP_IDLE_US);
	return h;
}

void
http_free(struct http *h)
{
	struct http_conn *c;

	if (!h)
		return;
	TAILQ_FOREACH (c, &h->conns, link) {
		if (c->phase == PHASE_STREAM)
			evhttp_connection_set_closecb(evhttp_request_get_connection(c->req->ev),
						      NULL, NULL);
		free(c->req);
		c->req = NULL;
	}
	evhttp_free(h->ev); /* its listeners, connections and requests, too */
	while ((c = TAILQ_FIRST(&h->conns)))
		conn_free(c);
	defer_cancel(h->loop, &h->admit);
	timer_done(&h->sweep);
	listeners_free(h->listeners);
	free(h);
}

const char *
http_text(const struct http *h)
{
	return listeners_text(h->listeners);
}

unsigned
http_streams(const struct http *h)
{
	return h->streams;
}
