/*
 * link: the command connection to Redis.
 *
 *	link_connect()		a fresh context				LINK_DOWN -> LINK_CONNECTING
 *	on_connected()		who are you, what time is it?		-> LINK_CHECKING
 *	on_checked()		acceptable: layout version, scripts
 *	on_loaded()		the last script is there		-> LINK_READY
 *	link_down()		lost, overdue or refused: all that was sent is unknown	-> LINK_DOWN
 *
 *	store_run()		a call waits for the end of the turn
 *	link_flush()		what waits is sent, with one write
 *	on_reply()		Redis answers in order: the oldest call that flies is told
 *
 * A call that Redis did not know the script of did nothing: nothing more is sent until all answers are
 * in and the scripts are loaded again, then those calls go first, in their order. So a call keeps its
 * bytes until it is answered.
 *
 * hiredis 0.14 has no deadlines and reads 16 KiB a time; both are done here. A context is never freed inside its own callbacks:
 * link_doom() does it once the loop is out of them.
 */
#include "store/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <hiredis/async.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/backoff.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/replies.h"
#include "store/script.h"

enum {
	MAX_TRIES = 2,	    /* of a call whose script was not there */
	MAX_READS = 64,	    /* of 16 KiB, in one turn */
	CLOCK_SAMPLES = 4,  /* windows of the clock's estimate */
	CLOCK_WINDOW_US = 1000000,
	LAYOUT_VERSION = 1,
};

struct call {
	TAILQ_ENTRY(call) link;
	struct store *store;
	enum script script;
	unsigned tries;
	uint64_t sent_us;
	store_cb *cb;
	void *arg;
	struct buf cmd;
};
TAILQ_HEAD(calls, call);

enum link_state { LINK_DOWN, LINK_CONNECTING, LINK_CHECKING, LINK_READY, LINK_STATES };
static const uint8_t link_moves[LINK_STATES] = {
	[LINK_DOWN] = 1 << LINK_CONNECTING,
	[LINK_CONNECTING] = 1 << LINK_CHECKING | 1 << LINK_DOWN,
	[LINK_CHECKING] = 1 << LINK_READY | 1 << LINK_DOWN,
	[LINK_READY] = 1 << LINK_DOWN,
};

struct address {
	bool is_unix;
	char host[256]; /* or the path */
	int port;
	int db;
	char user[256], password[512];
};

struct store {
	struct loop *loop;
	const struct link_ops *ops;
	void *arg;
	struct address address;
	char *prefix;
	uint64_t connect_timeout_us, command_timeout_us;
	unsigned pending_limit;
	bool require_noeviction;
	struct backoff backoff;

	enum link_state state;
	redisAsyncContext *ac; /* NULL while there is none */
	struct event *read_ev, *write_ev;
	struct timer reconnect, deadline;
	struct defer doom, unsent_defer;
	char doom_why[sizeof(((struct store_info *)0)->problem)];
	bool is_refused; /* what dooms it is what Redis is, not that it is away */
	unsigned loading; /* scripts under way */
	bool is_reloading;
	const char *layout_problem;

	struct calls waiting, flying, again, unsent;
	unsigned pending;
	struct store_info info;

	/* Redis's clock less ours: the largest of each of the last windows. */
	struct {
		int64_t offset;
		uint64_t since_us;
	} clock[CLOCK_SAMPLES];
	unsigned clock_at;
};

/* URL -------------------------------------------------------------------------------------------- */

static bool
copy(char *to, size_t size, const char *from, size_t n)
{
	if (n >= size)
		return false;
	memcpy(to, from, n);
	to[n] = 0;
	return true;
}

static bool
read_number(const char *text, int min, int max, int *out)
{
	char *end;
	long v = strtol(text, &end, 10);

	if (!*text || *end || v < min || v > max)
		return false;
	*out = (int)v;
	return true;
}

static bool
read_unix(struct address *a, const char *path)
{
	const char *query = strchr(path, '?');
	size_t n = query ? (size_t)(query - path) : strlen(path);

	a->is_unix = true;
	if (path[0] != '/' || n > sizeof(((struct sockaddr_un *)0)->sun_path) - 1 ||
	    !copy(a->host, sizeof(a->host), path, n))
		return false;
	return !query || (!strncmp(query, "?db=", 4) && read_number(query + 4, 0, 65535, &a->db));
}

static bool
read_tcp(struct address *a, const char *text)
{
	const char *at = strrchr(text, '@'), *host, *end, *colon;

	if (at) {
		colon = memchr(text, ':', (size_t)(at - text));
		if (!colon || !copy(a->user, sizeof(a->user), text, (size_t)(colon - text)) ||
		    !copy(a->password, sizeof(a->password), colon + 1, (size_t)(at - colon - 1)))
			return false;
		text = at + 1;
	}
	if (*text == '[') {
		host = text + 1;
		end = strchr(host, ']');
		colon = end ? end + 1 : NULL;
	} else {
		host = text;
		end = host + strcspn(host, ":/");
		colon = end;
	}
	if (!end || end == host || !copy(a->host, sizeof(a->host), host, (size_t)(end - host)))
		return false;
	a->port = 6379;
	if (*colon == ':') {
		char port[8];
		size_t n = strcspn(colon + 1, "/");

		if (!copy(port, sizeof(port), colon + 1, n) || !read_number(port, 1, 65535, &a->port))
			return false;
		colon += 1 + n;
	}
	if (*colon == '/')
		return !colon[1] || read_number(colon + 1, 0, 65535, &a->db);
	return !*colon;
}

static bool
read_url(struct address *a, const char *url, struct errmsg *why)
{
	*a = (struct address){ 0 };
	if (!strncmp(url, "unix://", 7) ? read_unix(a, url + 7)
					: !strncmp(url, "redis://", 8) && read_tcp(a, url + 8))
		return true;
	errmsg_set(why, ERR_BAD_REQUEST,
		   "redis.url is neither redis://[user:password@]host[:port][/db] nor unix:///path[?db=n]");
	return false;
}

bool
link_check_url(const char *url, struct errmsg *why)
{
	struct address a;

	return read_url(&a, url, why);
}

/* A name becomes a number once, before the loop turns: it may block then. */
static void
resolve(struct address *a)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL;
	char port[8];

	snprintf(port, sizeof(port), "%d", a->port);
	if (a->is_unix || getaddrinfo(a->host, port, &hints, &found))
		return;
	getnameinfo(found->ai_addr, found->ai_addrlen, a->host, sizeof(a->host), NULL, 0,
		    NI_NUMERICHOST);
	freeaddrinfo(found);
}

/* State ------------------------------------------------------------------------------------------ */

static void
link_move(struct store *s, enum link_state to)
{
	if (!(link_moves[s->state] & 1 << to))
		abort();
	s->state = to;
	s->info.ready = to == LINK_READY;
}

static void
tell(struct call *call, enum err err, const struct reply *reply)
{
	call->store->pending--;
	if (err)
		call->store->info.errors++;
	call->cb(call->arg, err, reply);
	buf_done(&call->cmd);
	free(call);
}

static void
tell_all(struct calls *calls, enum err err)
{
	struct call *call;

	while ((call = TAILQ_FIRST(calls))) {
		TAILQ_REMOVE(calls, call, link);
		tell(call, err, NULL);
	}
}

static void
tell_unsent(void *arg)
{
	struct store *s = arg;

	tell_all(&s->unsent, ERR_UNSENT);
}

static void link_connect(void *arg);

/* The context is already detached or about to be: whatever it still calls back finds nobody. */
static void
link_drop_context(struct store *s)
{
	redisAsyncContext *ac = s->ac;

	s->ac = NULL;
	if (!ac)
		return;
	event_del(s->read_ev);
	event_del(s->write_ev);
	ac->data = NULL;
	ac->ev.data = NULL;
	ac->ev.addRead = ac->ev.delRead = ac->ev.addWrite = ac->ev.delWrite = ac->ev.cleanup = NULL;
	redisAsyncFree(ac); /* pending callbacks get NULL; theirs is a `data` of NULL */
}

static void
link_down(struct store *s, const char *why, bool is_refused)
{
	bool was_ready = s->state == LINK_READY;
	struct calls flying, held;
	uint64_t pause;
	char text[200];

	if (s->state == LINK_DOWN)
		return;
	link_move(s, LINK_DOWN);
	pause = backoff_next(&s->backoff);
	snprintf(s->info.problem, sizeof(s->info.problem), "%s", why);
	timer_clear(&s->deadline);
	defer_cancel(s->loop, &s->doom);
	TAILQ_INIT(&flying);
	TAILQ_INIT(&held);
	TAILQ_CONCAT(&flying, &s->flying, link);
	TAILQ_CONCAT(&held, &s->again, link);
	TAILQ_CONCAT(&held, &s->waiting, link);
	s->is_reloading = false;
	link_drop_context(s);
	timer_set(&s->reconnect, pause);
	log_event(is_refused ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING,
		  is_refused ? "redis.refused" : "redis.down", "error=%s retry_in=%llums pending=%u",
		  log_quote(text, sizeof(text), str_of(why)), (unsigned long long)(pause / 1000),
		  s->pending);
	tell_all(&flying, ERR_UNKNOWN);
	tell_all(&held, ERR_UNSENT);
	if (was_ready)
		s->ops->on_down(s->arg, why);
	if (is_refused)
		s->ops->on_refused(s->arg, why);
}

static void
on_doom(void *arg)
{
	struct store *s = arg;

	link_down(s, s->doom_why, s->is_refused);
}

/* Give this connection up, once we are out of its callbacks. */
static void
link_doom(struct store *s, bool is_refused, const char *why)
{
	if (s->doom.is_queued)
		return;
	snprintf(s->doom_why, sizeof(s->doom_why), "%s", why);
	s->is_refused = is_refused;
	loop_defer(s->loop, &s->doom, on_doom, s);
}

/* Adapter ---------------------------------------------------------------------------------------- */

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct store *s = arg;
	redisAsyncContext *ac = s->ac;
	int left = 0;

	(void)what;
	for (unsigned i = 0; i < MAX_READS && s->ac == ac && ac; i++) {
		char byte;

		redisAsyncHandleRead(ac);
		/* hiredis reads 16 KiB: is there more? */
		if (s->ac != ac)
			return;
		left = (int)recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
		if (left <= 0)
			return;
	}
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct store *s = arg;

	(void)fd;
	(void)what;
	if (s->ac)
		redisAsyncHandleWrite(s->ac);
}

static void
add_read(void *arg)
{
	(void)arg; /* it is persistent */
}

/* hiredis wants to write: at the end of the turn, and again only when the socket was full. */
static void
add_write(void *arg)
{
	struct store *s = arg;

	if (s->state == LINK_CONNECTING || s->state == LINK_CHECKING)
		event_add(s->write_ev, NULL);
}

static void
del_write(void *arg)
{
	struct store *s = arg;

	event_del(s->write_ev);
}

static void
clean_up(void *arg)
{
	struct store *s = arg;

	event_del(s->read_ev);
	event_del(s->write_ev);
}

/* Clock ------------------------------------------------------------------------------------------ */

void
store_saw_time(struct store *s, uint64_t redis_us)
{
	uint64_t now = loop_clock_us();
	int64_t offset = (int64_t)redis_us - (int64_t)now;

	/* An answer that was delayed makes it look smaller: the largest of a window is the truth, and windows
	 * end, so that a jump of Redis's clock is followed within seconds. */
	if (!s->clock[s->clock_at].since_us ||
	    now - s->clock[s->clock_at].since_us > CLOCK_WINDOW_US) {
		s->clock_at = (s->clock_at + 1) % CLOCK_SAMPLES;
		s->clock[s->clock_at].since_us = now;
		s->clock[s->clock_at].offset = offset;
	} else if (offset > s->clock[s->clock_at].offset) {
		s->clock[s->clock_at].offset = offset;
	}
}

uint64_t
store_now_us(struct store *s)
{
	const unsigned before = (s->clock_at + CLOCK_SAMPLES - 1) % CLOCK_SAMPLES;
	int64_t offset = s->clock[s->clock_at].offset;

	if (!s->clock[s->clock_at].since_us)
		return 0;
	/* Two windows, so that a young one with a single late answer does not make us lag. */
	if (s->clock[before].since_us && s->clock[before].offset > offset &&
	    s->clock[before].offset - offset < CLOCK_WINDOW_US)
		offset = s->clock[before].offset;
	return (uint64_t)((int64_t)loop_now_us(s->loop) + offset);
}

/* Handshake -------------------------------------------------------------------------------------- */

/* The rest of the line behind `name:` in INFO's text. */
static void
info_line(char *out, size_t size, struct str info, const char *name)
{
	const char *at = info.p ? strstr(info.p, name) : NULL;
	size_t n;

	*out = 0;
	while (at && at != info.p && at[-1] != '\n')
		at = strstr(at + 1, name);
	if (!at || at[strlen(name)] != ':')
		return;
	at += strlen(name) + 1;
	n = strcspn(at, "\r\n");
	copy(out, size, at, n < size ? n : size - 1);
}

static void
on_auth(redisAsyncContext *ac, void *r, void *arg)
{
	const struct reply *reply = r;
	struct store *s = ac->data;

	(void)arg;
	if (s && reply && reply->type == REPLY_ERROR)
		link_doom(s, false, reply->str.p);
}

static void
on_time(redisAsyncContext *ac, void *r, void *arg)
{
	struct store *s = ac->data;

	(void)arg;
	if (s && r)
		store_saw_time(s, (uint64_t)reply_int(reply_at(r, 0), 0) * 1000000 +
					  (uint64_t)reply_int(reply_at(r, 1), 0));
}

static void
on_appendfsync(redisAsyncContext *ac, void *r, void *arg)
{
	struct store *s = ac->data;
	struct str value = reply_str(reply_at(r, 1));

	(void)arg;
	if (s)
		copy(s->info.appendfsync, sizeof(s->info.appendfsync), value.n ? value.p : "",
		     value.n);
}

static void
on_layout(redisAsyncContext *ac, void *r, void *arg)
{
	struct store *s = ac->data;
	int64_t version = reply_int(r, -1);

	(void)arg;
	if (!s || !r || ((const struct reply *)r)->type == REPLY_ERROR)
		return; /* what comes next says the same */
	if (version > LAYOUT_VERSION)
		link_doom(s, true, "Redis holds a newer layout than this coordd knows; upgrade it");
	else if (version < 1)
		link_doom(s, true, "what Redis holds under our version key is no layout version");
}

static void link_flush(void *arg);

static void
on_loaded(redisAsyncContext *ac, void *r, void *arg)
{
	const struct reply *reply = r;
	struct store *s = ac->data;

	(void)arg;
	if (!s || !reply)
		return;
	if (reply->type == REPLY_ERROR) {
		link_doom(s, false, reply->str.p);
		return;
	}
	if (--s->loading)
		return;
	if (s->is_reloading) {
		s->is_reloading = false;
		TAILQ_CONCAT(&s->again, &s->waiting, link);
		TAILQ_CONCAT(&s->waiting, &s->again, link);
		return;
	}
	if (s->doom.is_queued)
		return;
	link_move(s, LINK_READY);
	s->info.reconnects++;
	timer_clear(&s->deadline);
	backoff_reset(&s->backoff);
	s->info.problem[0] = 0;
	log_event(LOG_LEVEL_INFO, "redis.ready", "version=%s aof=%s appendfsync=%s policy=%s",
		  s->info.version, s->info.aof ? "yes" : "no",
		  *s->info.appendfsync ? s->info.appendfsync : "unknown", s->info.policy);
	s->ops->on_ready(s->arg);
}

static void
load_scripts(struct store *s)
{
	s->loading = SCRIPT_COUNT;
	if (s->is_reloading)
		timer_set(&s->deadline, s->command_timeout_us);
	for (unsigned i = 0; i < SCRIPT_COUNT; i++)
		redisAsyncCommand(s->ac, on_loaded, NULL, "SCRIPT LOAD %b", script_text(i),
				  script_len(i));
}

/* Why this Redis will not do, or NULL. */
static const char *
unacceptable(const struct store *s, struct str info)
{
	static char text[160];
	char value[64];

	info_line(value, sizeof(value), info, "cluster_enabled");
	if (!strcmp(value, "1"))
		return "this Redis is a cluster node; coordd needs a single Redis";
	if (atoi(s->info.version) < 7)
		return "this Redis is older than 7.0";
	info_line(value, sizeof(value), info, "maxmemory");
	if (s->require_noeviction && strcmp(value, "0") && strcmp(s->info.policy, "noeviction")) {
		snprintf(text, sizeof(text),
			 "this Redis evicts keys (maxmemory-policy %s), so messages would vanish; "
			 "set it to noeviction",
			 s->info.policy);
		return text;
	}
	return NULL;
}

static void
on_checked(redisAsyncContext *ac, void *r, void *arg)
{
	const struct reply *reply = r;
	struct store *s = ac->data;
	struct str info = reply_str(r);
	const char *problem;
	char value[64];

	(void)arg;
	if (!s || !reply || s->doom.is_queued)
		return;
	if (reply->type == REPLY_ERROR || !info.n) {
		link_doom(s, false, reply->type == REPLY_ERROR ? reply->str.p : "this is not Redis");
		return;
	}
	info_line(s->info.version, sizeof(s->info.version), info, "redis_version");
	info_line(s->info.policy, sizeof(s->info.policy), info, "maxmemory_policy");
	info_line(value, sizeof(value), info, "aof_enabled");
	s->info.aof = !strcmp(value, "1");
	info_line(value, sizeof(value), info, "loading");
	if (!strcmp(value, "1")) {
		link_doom(s, false, "LOADING Redis is loading the dataset in memory");
		return;
	}
	info_line(value, sizeof(value), info, "role");
	if (strcmp(value, "master")) {
		link_doom(s, false, "READONLY this Redis is a replica");
		return;
	}
	problem = unacceptable(s, info);
	if (problem) {
		link_doom(s, true, problem);
		return;
	}
	redisAsyncCommand(s->ac, NULL, NULL, "SET %s:version %d NX", s->prefix, LAYOUT_VERSION);
	redisAsyncCommand(s->ac, on_layout, NULL, "GET %s:version", s->prefix);
	load_scripts(s);
}

static void
on_connected(const redisAsyncContext *ac, int status)
{
	struct store *s = ac->data;
	int on = 1;

	if (!s)
		return;
	if (status != REDIS_OK) {
		char why[160];

		snprintf(why, sizeof(why), "%s", ac->errstr);
		s->ac = NULL; /* hiredis frees it */
		clean_up(s);
		link_down(s, why, false);
		return;
	}
	setsockopt(ac->c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* fails on a Unix socket: fine */
	link_move(s, LINK_CHECKING);
	if (*s->address.password && *s->address.user)
		redisAsyncCommand(s->ac, on_auth, NULL, "AUTH %s %s", s->address.user,
				  s->address.password);
	else if (*s->address.password)
		redisAsyncCommand(s->ac, on_auth, NULL, "AUTH %s", s->address.password);
	if (s->address.db)
		redisAsyncCommand(s->ac, on_auth, NULL, "SELECT %d", s->address.db);
	redisAsyncCommand(s->ac, on_appendfsync, NULL, "CONFIG GET appendfsync");
	redisAsyncCommand(s->ac, on_time, NULL, "TIME");
	redisAsyncCommand(s->ac, on_checked, NULL, "INFO");
}

static void
on_disconnected(const redisAsyncContext *ac, int status)
{
	struct store *s = ac->data;
	char why[160];

	(void)status;
	if (!s)
		return;
	snprintf(why, sizeof(why), "%s", *ac->errstr ? ac->errstr : "connection closed");
	s->ac = NULL; /* hiredis frees it */
	clean_up(s);
	link_down(s, why, false);
}

static void
link_connect(void *arg)
{
	struct store *s = arg;
	redisAsyncContext *ac = s->address.is_unix
					? redisAsyncConnectUnix(s->address.host)
					: redisAsyncConnect(s->address.host, s->address.port);

	link_move(s, LINK_CONNECTING);
	if (!ac || ac->err) {
		char why[160];

		snprintf(why, sizeof(why), "%s", ac ? ac->errstr : "out of memory");
		if (ac)
			redisAsyncFree(ac);
		link_down(s, why, false);
		return;
	}
	s->ac = ac;
	ac->data = s;
	ac->c.reader->fn = &reply_functions;
	ac->c.reader->maxbuf = 0;
	ac->ev.data = s;
	ac->ev.addRead = add_read;
	ac->ev.delRead = add_read;
	ac->ev.addWrite = add_write;
	ac->ev.delWrite = del_write;
	ac->ev.cleanup = clean_up;
	event_assign(s->read_ev, loop_base(s->loop), ac->c.fd, EV_READ | EV_PERSIST, on_readable, s);
	event_assign(s->write_ev, loop_base(s->loop), ac->c.fd, EV_WRITE | EV_PERSIST, on_writable, s);
	event_add(s->read_ev, NULL);
	redisAsyncSetDisconnectCallback(ac, on_disconnected);
	redisAsyncSetConnectCallback(ac, on_connected);
	event_add(s->write_ev, NULL);
	timer_set(&s->deadline, s->connect_timeout_us);
}

/* Calls ------------------------------------------------------------------------------------------ */

static void
set_deadline(struct store *s)
{
	const struct call *oldest = TAILQ_FIRST(&s->flying);
	uint64_t now = loop_now_us(s->loop);
	uint64_t due = oldest ? oldest->sent_us + s->command_timeout_us : 0;

	if (oldest)
		timer_set(&s->deadline, due > now ? due - now : 0);
}

/* One timer: of the connect while there is no link, of the oldest call otherwise. */
static void
on_deadline(void *arg)
{
	struct store *s = arg;
	const struct call *oldest = TAILQ_FIRST(&s->flying);

	if (s->state != LINK_READY) {
		link_down(s, "no connection in time", false);
		return;
	}
	if (!oldest && !s->is_reloading)
		return;
	if (!oldest || loop_now_us(s->loop) - oldest->sent_us >= s->command_timeout_us)
		link_down(s, "no answer in time", false);
	else
		set_deadline(s);
}

static bool
has(struct str text, const char *word)
{
	return text.p && strstr(text.p, word);
}

/* The classes of Redis's errors; docs/REDIS.md, "Errors". `*lost`: this connection is of no use now. */
static enum err
classify(struct str text, bool *lost)
{
	static const char *const refused[] = { "OOM ", "MISCONF ", "NOREPLICAS " };
	static const char *const away[] = { "LOADING ", "READONLY ", "MASTERDOWN ", "NOAUTH ",
					    "WRONGPASS ", "NOPERM ", "max number of clients" };
	static const char *const busy[] = { "NOSCRIPT ", "BUSY ", "Script killed by user" };

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (has(text, refused[i]))
			return ERR_REFUSED;
	for (size_t i = 0; i < sizeof(away) / sizeof(away[0]); i++)
		if (has(text, away[i])) {
			*lost = true;
			return ERR_UNSENT;
		}
	for (size_t i = 0; i < sizeof(busy) / sizeof(busy[0]); i++)
		if (has(text, busy[i]))
			return ERR_UNSENT;
	return ERR_INTERNAL;
}

static void
on_answer(struct store *s, struct call *call, const struct reply *reply)
{
	enum err err = OK;
	bool lost = false;

	if (reply->type == REPLY_ERROR) {
		if (!strncmp(reply->str.p, "NOSCRIPT", 8) && ++call->tries <= MAX_TRIES) {
			s->is_reloading = true;
			TAILQ_INSERT_TAIL(&s->again, call, link);
			return;
		}
		err = classify(reply->str, &lost);
		if (lost)
			link_doom(s, false, reply->str.p);
	}
	tell(call, err, err && err != ERR_INTERNAL ? NULL : reply);
}

static void
on_reply(redisAsyncContext *ac, void *r, void *arg)
{
	struct call *call = arg;
	struct store *s = ac->data;

	if (!s)
		return; /* the link is down: the call was told then */
	if (!r) {
		/* hiredis lost the connection and says so to each call first; link_down() tells them. */
		return;
	}
	TAILQ_REMOVE(&s->flying, call, link);
	s->info.round_trip_ms = (double)(loop_now_us(s->loop) - call->sent_us) / 1e3;
	on_answer(s, call, r);
	if (s->is_reloading && TAILQ_EMPTY(&s->flying) && s->ac && !s->loading)
		load_scripts(s);
}

/* The end of a turn: what was asked goes out. */
static void
link_flush(void *arg)
{
	struct store *s = arg;
	bool was_idle = TAILQ_EMPTY(&s->flying);
	struct call *call;

	if (s->state != LINK_READY || !s->ac)
		return;
	while (!s->is_reloading && (call = TAILQ_FIRST(&s->waiting))) {
		TAILQ_REMOVE(&s->waiting, call, link);
		TAILQ_INSERT_TAIL(&s->flying, call, link);
		call->sent_us = loop_now_us(s->loop);
		if (redisAsyncFormattedCommand(s->ac, on_reply, call, call->cmd.data,
					       call->cmd.len) != REDIS_OK) {
			link_down(s, "the connection is closing", false);
			return;
		}
	}
	if (was_idle)
		set_deadline(s);
	if (s->ac->c.obuf && *s->ac->c.obuf) {
		redisAsyncContext *ac = s->ac;

		redisAsyncHandleWrite(ac);
		if (s->ac == ac && ac->c.obuf && *ac->c.obuf)
			event_add(s->write_ev, NULL); /* the socket is full */
	}
}

void
store_run(struct store *s, enum script script, unsigned nkeys, struct args *args, store_cb *cb,
	  void *arg)
{
	struct call *call = xcalloc(1, sizeof(*call));
	char keys[16];

	*call = (struct call){ .store = s, .script = script, .cb = cb, .arg = arg };
	s->pending++;
	s->info.calls++;
	if (s->state != LINK_READY || s->pending > s->pending_limit || s->doom.is_queued) {
		args->n = 0;
		buf_clear(&args->buf);
		TAILQ_INSERT_TAIL(&s->unsent, call, link);
		loop_defer(s->loop, &s->unsent_defer, tell_unsent, s);
		return;
	}
	snprintf(keys, sizeof(keys), "%u", nkeys);
	buf_printf(&call->cmd, "*%u\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$%zu\r\n%s\r\n", args->n + 3,
		   script_sha(script), strlen(keys), keys);
	buf_put(&call->cmd, args->buf.data, args->buf.len);
	args->n = 0;
	buf_clear(&args->buf);
	TAILQ_INSERT_TAIL(&s->waiting, call, link);
}

bool
store_is_ready(const struct store *s)
{
	return s->state == LINK_READY;
}

void
store_info(const struct store *s, struct store_info *out)
{
	*out = s->info;
	out->pending = s->pending;
	if (out->reconnects)
		out->reconnects--; /* the first connection was none */
}

const char *
store_durability(const struct store_info *info, char *message, size_t size)
{
	const char *text = "every acknowledged write is on disk";
	const char *status = "ok";

	if (!*info->version) {
		text = "Redis was not reached yet";
		status = "warn";
	} else if (!info->aof) {
		text = "Redis keeps no append-only file: what is acknowledged is lost when it stops; set appendonly yes";
		status = "warn";
	} else if (!strcmp(info->appendfsync, "everysec")) {
		text = "appendfsync everysec: a crash of Redis can lose the last seconds; always loses nothing";
	} else if (strcmp(info->appendfsync, "always")) {
		text = "how often Redis syncs its append-only file is unknown, or never: set appendfsync always";
		status = "warn";
	}
	snprintf(message, size, "%s", text);
	return status;
}

/* ------------------------------------------------------------------------------------------------ */

struct store *
link_new(struct loop *loop, const struct link_config *cfg, const struct link_ops *ops, void *arg)
{
	struct store *s = xcalloc(1, sizeof(*s));

	s->loop = loop;
	s->ops = ops;
	s->arg = arg;
	s->prefix = xstrdup(cfg->key_prefix);
	s->connect_timeout_us = cfg->connect_timeout_us;
	s->command_timeout_us = cfg->command_timeout_us;
	s->pending_limit = cfg->pending_limit;
	s->require_noeviction = cfg->require_noeviction;
	s->backoff = (struct backoff){ .min_us = cfg->reconnect_min_us,
				       .max_us = cfg->reconnect_max_us };
	read_url(&s->address, cfg->url, NULL);
	if (cfg->username && *cfg->username)
		copy(s->address.user, sizeof(s->address.user), cfg->username, strlen(cfg->username));
	if (cfg->password && *cfg->password)
		copy(s->address.password, sizeof(s->address.password), cfg->password,
		     strlen(cfg->password));
	resolve(&s->address);
	snprintf(s->info.problem, sizeof(s->info.problem), "not connected yet");
	TAILQ_INIT(&s->waiting);
	TAILQ_INIT(&s->flying);
	TAILQ_INIT(&s->again);
	TAILQ_INIT(&s->unsent);
	s->read_ev = event_new(loop_base(loop), -1, 0, on_readable, s);
	s->write_ev = event_new(loop_base(loop), -1, 0, on_writable, s);
	timer_init(&s->reconnect, loop, link_connect, s);
	timer_init(&s->deadline, loop, on_deadline, s);
	timer_set(&s->reconnect, 0);
	loop_at_turn_end(loop, TURN_STORE, link_flush, s);
	return s;
}

void
link_free(struct store *s)
{
	if (!s)
		return;
	loop_at_turn_end(s->loop, TURN_STORE, NULL, NULL);
	link_drop_context(s);
	tell_all(&s->flying, ERR_UNKNOWN);
	tell_all(&s->again, ERR_UNSENT);
	tell_all(&s->waiting, ERR_UNSENT);
	/* What these tell may ask again; it is told at once that it cannot. */
	s->state = LINK_DOWN;
	while (!TAILQ_EMPTY(&s->unsent))
		tell_all(&s->unsent, ERR_UNSENT);
	defer_cancel(s->loop, &s->unsent_defer);
	defer_cancel(s->loop, &s->doom);
	timer_done(&s->reconnect);
	timer_done(&s->deadline);
	event_free(s->read_ev);
	event_free(s->write_ev);
	explicit_bzero(&s->address, sizeof(s->address));
	free(s->prefix);
	free(s);
}
