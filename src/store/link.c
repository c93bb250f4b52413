/*
 * link: the command connection to Redis.
 *
 *	link_connect()		where is it?				LINK_CONNECTING
 *	link_open()		a fresh context
 *	on_connected()		who am I, what time is it, who are you?	LINK_CHECKING
 *	on_info()		acceptable: layout version, scripts
 *	on_loaded()		the last script is there		LINK_READY
 *	link_down()		lost, overdue or refused: what was sent is unknown, LINK_DOWN
 *
 *	store_run()		a call waits for the end of the turn
 *	link_flush()		what waits is sent, with one write
 *	on_reply()		Redis answers in order: the oldest call that flies is told
 *
 * A call whose script Redis did not know did nothing. Then nothing more is sent until all
 * answers are in and the scripts are loaded again, and those calls go first, in their order,
 * with their script's text. So a call keeps its bytes until it is answered.
 *
 * hiredis 0.14 has no deadlines and reads 16 KiB at a time; both are done here. A context is
 * never freed inside its own callbacks: on_doom() does it when the loop is out of them.
 */
#include "store/link.h"

#include <fcntl.h>
#include <hiredis/async.h>
#include <hiredis/sds.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/backoff.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "store/address.h"
#include "store/clock.h"
#include "store/lookup.h"
#include "store/refusal.h"
#include "store/replies.h"
#include "store/script.h"

enum {
	MAX_READS = 64,          /* of 16 KiB, in one turn */
	MAX_WRITE = 256 * 1024,  /* hiredis moves what a full socket leaves of a write */
	AUTH_PAUSE_US = 5000000, /* who asks again too soon locks the account */
	LAYOUT_VERSION = 2,
};

_Static_assert((int)SCRIPT_COUNT <= STAT_SCRIPTS, "");

struct call {
	TAILQ_ENTRY(call) link;
	enum script script;
	bool has_text; /* it brings its script along */
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

struct store {
	struct loop *loop;
	const struct link_ops *ops;
	void *arg;
	struct address address;
	struct lookup *lookup; /* NULL: `address` is numeric */
	unsigned
		tries; /* in vain, since it was last ready: each takes another of its addresses */
	char at[LOOKUP_ADDRESS_MAX]; /* the one that was tried last */
	char *prefix;
	uint64_t connect_timeout_us, command_timeout_us;
	uint64_t heard_us; /* when Redis last sent anything */
	unsigned pending_limit;
	bool require_noeviction;
	struct backoff backoff;

	enum link_state state;
	redisAsyncContext *ac; /* NULL while there is none */
	struct event read_ev, write_ev;
	struct timer reconnect, deadline;
	bool is_flushing;
	unsigned loading;  /* scripts under way */
	bool is_reloading; /* some call's script was not there */

	bool is_leaving; /* for the reason below: nothing more is sent, and what flies is waited
			    for */
	bool is_refused; /* what Redis is, and not that it is away */
	char leave_why[sizeof(((struct store_info *)0)->problem)];
	struct defer doom;

	/* In this order they were made: flying, again, waiting. Unsent ones are told on the
	 * next turn. */
	struct calls flying, again, waiting, unsent;
	struct defer tell_unsent;
	unsigned pending;

	struct clock clock;
	struct store_info info;
};

static void
link_move(struct store *s, enum link_state to)
{
	if (!(link_moves[s->state] & 1 << to))
		abort();
	s->state = to;
}

/* Telling -------------------------------------------------------------------------------------- */

static void
tell(struct store *s, struct call *call, enum err err, const struct reply *reply)
{
	s->pending--;
	process_stats.redis_commands[call->script][err]++;
	if (err)
		s->info.errors++;
	call->cb(call->arg, err, reply);
	buf_done(&call->cmd);
	free(call);
}

/* Only those that are there now: what the told ones ask is told another time. */
static void
tell_all(struct store *s, struct calls *calls, enum err err)
{
	struct calls now = TAILQ_HEAD_INITIALIZER(now);
	struct call *call;

	TAILQ_CONCAT(&now, calls, link);
	while ((call = TAILQ_FIRST(&now))) {
		TAILQ_REMOVE(&now, call, link);
		tell(s, call, err, NULL);
	}
}

static void
on_tell_unsent(void *arg)
{
	struct store *s = arg;

	tell_all(s, &s->unsent, ERR_UNSENT);
}

/* Down
 * -------------------------------------------------------------------------------------------
 */

/* What it still calls back finds nobody. Not to be called in one of its callbacks. */
static void
drop_context(struct store *s)
{
	redisAsyncContext *ac = s->ac;

	if (!ac)
		return;
	s->ac = NULL;
	event_del(&s->read_ev);
	event_del(&s->write_ev);
	ac->data = NULL;
	memset(&ac->ev, 0, sizeof(ac->ev));
	redisAsyncFree(ac);
}

static bool
is_about_credentials(const struct store *s, struct str why)
{
	return refusal_has(why, "WRONGPASS") || refusal_has(why, "NOPERM") ||
	       (s->state != LINK_READY && refusal_has(why, "NOAUTH"));
}

static void
link_down(struct store *s, const char *why)
{
	struct calls flying = TAILQ_HEAD_INITIALIZER(flying),
		     unsent = TAILQ_HEAD_INITIALIZER(unsent);
	const bool was_ready = s->state == LINK_READY,
		   is_refused = s->is_leaving && s->is_refused;
	uint64_t pause = backoff_next(&s->backoff);
	char text[sizeof(s->info.problem)];

	/* An error that Redis told says more than that it hung up afterwards. */
	snprintf(text, sizeof(text), "%s", s->is_leaving ? s->leave_why : why);
	if (is_about_credentials(s, str_of(text)) && pause < AUTH_PAUSE_US)
		pause = AUTH_PAUSE_US;
	link_move(s, LINK_DOWN);
	snprintf(s->info.problem, sizeof(s->info.problem), "%s", text);
	s->is_leaving = s->is_refused = s->is_reloading = false;
	s->loading = 0;
	defer_cancel(s->loop, &s->doom);
	timer_clear(&s->deadline);
	lookup_forget(s->lookup);
	drop_context(s);
	s->tries += !was_ready;
	timer_set(&s->reconnect, pause);
	log_event(is_refused  ? LOG_REDIS_REFUSED
		  : was_ready ? LOG_REDIS_DOWN
			      : LOG_REDIS_UNREACHABLE,
		  log_text("error", text), log_ms("retry_in_ms", pause / 1000 * 1000),
		  log_uint("pending", s->pending));

	TAILQ_CONCAT(&flying, &s->flying, link);
	TAILQ_CONCAT(&unsent, &s->again, link);
	TAILQ_CONCAT(&unsent, &s->waiting, link);
	tell_all(s, &flying, ERR_UNKNOWN);
	tell_all(s, &unsent, ERR_UNSENT);
	if (was_ready)
		s->ops->on_down(s->arg, text);
	if (is_refused)
		s->ops->on_refused(s->arg, text);
}

static void
on_doom(void *arg)
{
	struct store *s = arg;

	link_down(s, s->leave_why);
}

/* Send nothing more, collect the answers that are under way, then give this connection up. */
static void
link_leave(struct store *s, const char *why)
{
	if (!s->is_leaving)
		snprintf(s->leave_why, sizeof(s->leave_why), "%s", why);
	s->is_leaving = true;
	if (TAILQ_EMPTY(&s->flying))
		loop_defer(s->loop, &s->doom, on_doom, s);
}

/* Adapter -------------------------------------------------------------------------------------- */

static bool
has_output(const struct store *s)
{
	return s->ac && sdslen(s->ac->c.obuf) > 0;
}

/* hiredis reads 16 KiB. When it ends within a reply there is more, as a rule. */
static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct store *s = arg;
	redisAsyncContext *ac = s->ac;

	(void)fd;
	(void)what;
	s->heard_us = loop_now_us(s->loop);
	for (unsigned i = 0; i < MAX_READS; i++) {
		const redisReader *r = ac->c.reader;
		size_t had = r->len - r->pos;
		int depth = r->ridx;

		redisAsyncHandleRead(ac);
		if (s->ac != ac)
			return; /* it is gone, and the reader with it */
		r = ac->c.reader;
		if ((r->len == r->pos && r->ridx <= 0) ||
		    (r->len - r->pos == had && r->ridx == depth))
			return; /* it ended with a reply, or nothing was there */
	}
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct store *s = arg;

	(void)fd;
	(void)what;
	redisAsyncHandleWrite(s->ac);
}

static void
on_want_read(void *arg)
{
	(void)arg; /* always */
}

static void
on_want_write(void *arg)
{
	struct store *s = arg;

	if (!s->is_flushing)
		event_add(&s->write_ev, NULL);
}

static void
on_no_write(void *arg)
{
	struct store *s = arg;

	event_del(&s->write_ev);
}

static void
on_cleanup(void *arg)
{
	struct store *s = arg;

	event_del(&s->read_ev);
	event_del(&s->write_ev);
}

/* hiredis is about to free this context by itself. */
static void
lost(struct store *s, const redisAsyncContext *ac)
{
	char why[sizeof(ac->c.errstr)];

	snprintf(why, sizeof(why), "%s",
		 *ac->c.errstr ? ac->c.errstr : "the connection was closed");
	on_cleanup(s);
	s->ac = NULL;
	link_down(s, why);
}

/* Handshake ------------------------------------------------------------------------------------ */

/* `value` gets what stands behind `name:` in INFO's text, "" when there is no such line. */
static void
info_line(char *value, size_t size, struct str info, const char *name)
{
	size_t n = strlen(name);
	const char *p = info.p;

	*value = 0;
	for (; p && *p; p = strchr(p, '\n'), p += p != NULL) {
		if (!strncmp(p, name, n) && p[n] == ':') {
			snprintf(value, size, "%.*s", (int)strcspn(p + n + 1, "\r\n"),
				 p + n + 1);
			return;
		}
	}
}

/* The answer of a command of the handshake; NULL when it comes to nothing, which is seen to. */
static const struct reply *
checked(redisAsyncContext *ac, void *r)
{
	struct store *s = ac->data;
	const struct reply *reply = reply_of(r);

	if (!s || !reply || s->is_leaving)
		return NULL;
	if (reply->type != REPLY_ERROR)
		return reply;
	link_leave(s, reply->str.p);
	return NULL;
}

static void
on_ok(redisAsyncContext *ac, void *r, void *arg)
{
	(void)arg;
	checked(ac, r);
}

static void
on_time(redisAsyncContext *ac, void *r, void *arg)
{
	const struct reply *reply = checked(ac, r);

	(void)arg;
	if (reply)
		store_saw_time(ac->data, (uint64_t)reply_int(reply_at(reply, 0), 0) * 1000000 +
						 (uint64_t)reply_int(reply_at(reply, 1), 0));
}

/* It may be forbidden, or renamed: then this is not known. */
static void
on_appendfsync(redisAsyncContext *ac, void *r, void *arg)
{
	struct store *s = ac->data;
	struct str value = reply_str(reply_at(reply_of(r), 1));

	(void)arg;
	if (s)
		snprintf(s->info.appendfsync, sizeof(s->info.appendfsync), "%.*s", (int)value.n,
			 value.p ? value.p : "");
}

/* Out of memory it says no even where the key is there: only its absence matters. */
static void
on_version_set(redisAsyncContext *ac, void *r, void *arg)
{
	struct store *s = ac->data;
	const struct reply *reply = reply_of(r);

	(void)arg;
	if (s && reply && reply->type == REPLY_ERROR)
		snprintf(s->info.problem, sizeof(s->info.problem), "%s", reply->str.p);
}

static void
on_version(redisAsyncContext *ac, void *r, void *arg)
{
	struct store *s = ac->data;
	const struct reply *reply = reply_of(r);
	int64_t version = reply_int(reply, 0);

	(void)arg;
	if (!s || !reply || s->is_leaving || version == LAYOUT_VERSION)
		return;
	if (reply->type == REPLY_NIL) {
		link_leave(s, s->info.problem);
		return;
	}
	s->is_refused = reply->type != REPLY_ERROR || refusal_has(reply->str, "WRONGTYPE");
	link_leave(s, !s->is_refused ? reply->str.p
		      : version > LAYOUT_VERSION
			      ? "Redis holds a newer layout version than this coordd knows; "
				"upgrade coordd"
		      : version > 0
			      ? "Redis holds an older layout version, which this coordd does "
				"not read; drain it with that coordd, or set another "
				"redis.key_prefix"
			      : "what Redis holds under our version key is no layout version");
}

static void
link_ready(struct store *s)
{
	link_move(s, LINK_READY);
	timer_clear(&s->deadline);
	backoff_reset(&s->backoff);
	s->tries = 0;
	s->info.problem[0] = 0;
	s->info.reconnects++;
	log_event(
		LOG_REDIS_READY, log_text("version", s->info.version),
		log_flag("aof", s->info.aof),
		log_text("appendfsync", *s->info.appendfsync ? s->info.appendfsync : "unknown"),
		log_text("policy", s->info.policy), log_text("address", link_address(s)));
	s->ops->on_ready(s->arg);
}

static void
on_loaded(redisAsyncContext *ac, void *r, void *arg)
{
	struct store *s = ac->data;

	(void)arg;
	if (!checked(ac, r) || --s->loading)
		return;
	if (s->state == LINK_CHECKING) {
		link_ready(s);
		return;
	}
	s->is_reloading = false;
	timer_clear(&s->deadline);
	TAILQ_CONCAT(&s->again, &s->waiting, link);
	TAILQ_CONCAT(&s->waiting, &s->again, link);
}

static void
load_scripts(struct store *s)
{
	s->loading = SCRIPT_COUNT;
	timer_set(&s->deadline, s->command_timeout_us);
	for (unsigned i = 0; i < SCRIPT_COUNT; i++)
		redisAsyncCommand(s->ac, on_loaded, NULL, "SCRIPT LOAD %b", script_text(i),
				  script_len(i));
}

/* Whether we can work with this Redis at all; else says why not. */
static bool
is_acceptable(struct store *s, struct str info)
{
	char cluster[8], maxmemory[32], role[16], loading[8], why[sizeof(s->leave_why)];

	info_line(cluster, sizeof(cluster), info, "cluster_enabled");
	info_line(maxmemory, sizeof(maxmemory), info, "maxmemory");
	info_line(role, sizeof(role), info, "role");
	info_line(loading, sizeof(loading), info, "loading");
	s->is_refused = true;
	if (atoi(s->info.version) < 7) {
		snprintf(why, sizeof(why),
			 "this Redis is version %s; coordd needs 7.0 or newer",
			 *s->info.version ? s->info.version : "?");
	} else if (!strcmp(cluster, "1")) {
		snprintf(why, sizeof(why),
			 "this Redis is a cluster node; coordd needs a single Redis");
	} else if (s->require_noeviction && strcmp(maxmemory, "0") &&
		   strcmp(s->info.policy, "noeviction")) {
		snprintf(why, sizeof(why),
			 "this Redis evicts keys (maxmemory-policy %s), so messages would "
			 "vanish; "
			 "set it to noeviction",
			 s->info.policy);
	} else {
		s->is_refused = false;
		if (!strcmp(loading, "1"))
			snprintf(why, sizeof(why), "LOADING Redis is loading its data");
		else if (strcmp(role, "master"))
			snprintf(why, sizeof(why), "READONLY this Redis is a replica");
		else
			return true;
	}
	link_leave(s, why);
	return false;
}

static void
on_info(redisAsyncContext *ac, void *r, void *arg)
{
	const struct reply *reply = checked(ac, r);
	struct store *s = ac->data;
	struct str info = reply_str(reply);
	char aof[8];

	(void)arg;
	if (!reply)
		return;
	info_line(s->info.version, sizeof(s->info.version), info, "redis_version");
	info_line(s->info.policy, sizeof(s->info.policy), info, "maxmemory_policy");
	info_line(aof, sizeof(aof), info, "aof_enabled");
	s->info.aof = !strcmp(aof, "1");
	if (!s->info.aof)
		s->info.appendfsync[0] = 0;
	if (!is_acceptable(s, info))
		return;
	redisAsyncCommand(ac, on_version_set, NULL, "SET %s:version %d NX", s->prefix,
			  LAYOUT_VERSION);
	redisAsyncCommand(ac, on_version, NULL, "GET %s:version", s->prefix);
	load_scripts(s);
}

/* Say who we are, unless that is nobody. */
static void
log_in(struct store *s, redisCallbackFn *cb)
{
	const struct address *a = &s->address;

	if (*a->password && *a->user)
		redisAsyncCommand(s->ac, cb, NULL, "AUTH %s %s", a->user, a->password);
	else if (*a->password)
		redisAsyncCommand(s->ac, cb, NULL, "AUTH %s", a->password);
}

static void
on_connected(const redisAsyncContext *connected, int status)
{
	struct store *s = connected->data;
	const struct address *a;

	if (!s)
		return;
	if (status != REDIS_OK) {
		lost(s, connected);
		return;
	}
	a = &s->address;
	link_move(s, LINK_CHECKING);
	timer_set(&s->deadline, s->command_timeout_us);
	log_in(s, on_ok);
	if (a->db)
		redisAsyncCommand(s->ac, on_ok, NULL, "SELECT %d", a->db);
	redisAsyncCommand(s->ac, on_time, NULL, "TIME");
	redisAsyncCommand(s->ac, on_appendfsync, NULL, "CONFIG GET appendfsync");
	redisAsyncCommand(s->ac, on_info, NULL, "INFO");
}

static void
on_disconnected(const redisAsyncContext *ac, int status)
{
	(void)status;
	if (ac->data)
		lost(ac->data, ac);
}

static void
link_open(struct store *s, const char *host)
{
	struct event_base *base = loop_base(s->loop);
	redisAsyncContext *ac;
	char why[128];

	ac = s->address.is_unix ? redisAsyncConnectUnix(host)
				: redisAsyncConnect(host, s->address.port);
	if (!ac || ac->err) {
		snprintf(why, sizeof(why), "%s", ac ? ac->errstr : "out of memory");
		if (ac)
			redisAsyncFree(ac);
		link_down(s, why);
		return;
	}
	s->ac = ac;
	ac->data = ac->ev.data = s;
	ac->c.reader->fn = &reply_functions;
	ac->c.reader->maxbuf = 0; /* keep it when it is empty */
	ac->ev.addRead = ac->ev.delRead = on_want_read;
	ac->ev.addWrite = on_want_write;
	ac->ev.delWrite = on_no_write;
	ac->ev.cleanup = on_cleanup;
	fcntl(ac->c.fd, F_SETFD, FD_CLOEXEC);
	event_assign(&s->read_ev, base, ac->c.fd, EV_READ | EV_PERSIST, on_readable, s);
	event_assign(&s->write_ev, base, ac->c.fd, EV_WRITE | EV_PERSIST, on_writable, s);
	event_add(&s->read_ev, NULL);
	redisAsyncSetDisconnectCallback(ac, on_disconnected);
	redisAsyncSetConnectCallback(ac, on_connected);
}

static void
on_looked_up(void *arg, const struct lookup_found *found, const char *why)
{
	struct store *s = arg;
	char text[sizeof(s->info.problem)];

	if (found) {
		snprintf(s->at, sizeof(s->at), "%s", found->address[s->tries % found->n]);
		link_open(s, s->at);
		return;
	}
	snprintf(text, sizeof(text), "no address of %.80s: %s", s->address.host, why);
	link_down(s, text);
}

/* A name is looked up each time: it may have become another machine's. */
static void
link_connect(void *arg)
{
	struct store *s = arg;

	link_move(s, LINK_CONNECTING);
	timer_set(&s->deadline, s->connect_timeout_us);
	if (s->lookup)
		lookup_ask(s->lookup);
	else
		link_open(s, s->address.host);
}

/* Calls ---------------------------------------------------------------------------------------- */

/* When the oldest call is overdue. Its time begins when Redis is done with those before it, and
 * a long answer takes the time that it takes: only silence counts. */
static uint64_t
overdue_us(const struct store *s)
{
	const struct call *oldest = TAILQ_FIRST(&s->flying);
	uint64_t since = oldest->sent_us > s->heard_us ? oldest->sent_us : s->heard_us;

	return since + s->command_timeout_us;
}

/* One timer: for the connection until it is ready, then for the oldest call, or for the
 * scripts. */
static void
set_deadline(struct store *s)
{
	uint64_t now = loop_now_us(s->loop), due;

	if (TAILQ_EMPTY(&s->flying))
		return;
	due = overdue_us(s);
	timer_set(&s->deadline, due > now ? due - now : 0);
}

static void
on_deadline(void *arg)
{
	struct store *s = arg;
	char text[sizeof(s->info.problem)];

	if (s->state == LINK_CONNECTING && !s->ac) {
		snprintf(text, sizeof(text), "no address of %.80s in time", s->address.host);
		link_down(s, text);
	} else if (s->state == LINK_CONNECTING) {
		link_down(s, "no connection in time");
	} else if (s->state == LINK_CHECKING || s->loading ||
		   (!TAILQ_EMPTY(&s->flying) && loop_now_us(s->loop) >= overdue_us(s))) {
		link_down(s, "no answer in time");
	} else {
		set_deadline(s);
	}
}

/* EVALSHA becomes EVAL: however often somebody flushes the scripts, it finds its own. */
static void
call_bring_text(struct call *call)
{
	const char *sha = memmem(call->cmd.data, call->cmd.len, "$7\r\nEVALSHA\r\n", 13);
	size_t head = (size_t)(sha - call->cmd.data), skip = head + 13 + 5 + 40 + 2;
	struct buf cmd = { 0 };

	buf_put(&cmd, call->cmd.data, head);
	buf_printf(&cmd, "$4\r\nEVAL\r\n$%zu\r\n", script_len(call->script));
	buf_put(&cmd, script_text(call->script), script_len(call->script));
	buf_puts(&cmd, "\r\n");
	buf_put(&cmd, call->cmd.data + skip, call->cmd.len - skip);
	buf_done(&call->cmd);
	call->cmd = cmd;
	call->has_text = true;
}

static void
on_answer(struct store *s, struct call *call, const struct reply *reply)
{
	enum err err = OK;
	bool is_lost = false;

	if (reply->type == REPLY_ERROR) {
		if (refusal_has(reply->str, "NOSCRIPT") && !call->has_text) {
			s->is_reloading = true;
			call_bring_text(call);
			TAILQ_INSERT_TAIL(&s->again, call, link);
			return;
		}
		err = refusal_of(reply->str, &is_lost);
		if (is_lost)
			link_leave(s, reply->str.p);
	}
	tell(s, call, err, err && err != ERR_INTERNAL ? NULL : reply);
}

static void
on_reply(redisAsyncContext *ac, void *r, void *arg)
{
	struct call *call = arg;
	struct store *s = ac->data;
	const struct reply *reply = reply_of(r);
	uint64_t took_us;

	if (!s || !reply)
		return; /* the connection ends: link_down() told the call, or will */
	TAILQ_REMOVE(&s->flying, call, link);
	took_us = loop_now_us(s->loop) - call->sent_us;
	stat_hist_add(process_stats.redis_duration, stat_bounds[STAT_FAST], took_us);
	s->info.round_trip_ms = (double)took_us / 1e3;
	on_answer(s, call, reply);
	if (!TAILQ_EMPTY(&s->flying))
		return;
	if (s->is_leaving)
		link_leave(s, s->leave_why);
	else if (s->is_reloading && !s->loading)
		load_scripts(s);
}

static bool
may_send(const struct store *s)
{
	return s->state == LINK_READY && !s->is_reloading && !s->is_leaving && !has_output(s);
}

/* The end of a turn: what was asked goes out. While the socket is full, what waits was surely
 * not sent. */
static void
link_flush(void *arg)
{
	struct store *s = arg;
	struct call *call;

	while (may_send(s) && !TAILQ_EMPTY(&s->waiting)) {
		bool was_idle = TAILQ_EMPTY(&s->flying);

		s->is_flushing = true;
		for (size_t n = 0; n < MAX_WRITE && (call = TAILQ_FIRST(&s->waiting));
		     n += call->cmd.len) {
			TAILQ_REMOVE(&s->waiting, call, link);
			TAILQ_INSERT_TAIL(&s->flying, call, link);
			call->sent_us = loop_now_us(s->loop);
			redisAsyncFormattedCommand(s->ac, on_reply, call, call->cmd.data,
						   call->cmd.len);
		}
		if (was_idle)
			set_deadline(s);
		redisAsyncHandleWrite(s->ac);
		s->is_flushing = false;
		if (has_output(s))
			event_add(&s->write_ev, NULL);
	}
}

void
store_run(struct store *s, enum script script, unsigned nkeys, struct args *args, store_cb *cb,
	  void *arg)
{
	struct call *call = xcalloc(1, sizeof(*call));
	char keys[16];

	*call = (struct call){ .script = script, .cb = cb, .arg = arg };
	s->pending++;
	s->info.calls++;
	if (s->state != LINK_READY || s->is_leaving || s->pending > s->pending_limit) {
		TAILQ_INSERT_TAIL(&s->unsent, call, link);
		loop_defer(s->loop, &s->tell_unsent, on_tell_unsent, s);
	} else {
		int n = snprintf(keys, sizeof(keys), "%u", nkeys);

		buf_reserve(&call->cmd, args->buf.len + 100);
		buf_printf(&call->cmd, "*%u\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$%d\r\n%s\r\n",
			   args->n + 3, script_sha(script), n, keys);
		buf_put(&call->cmd, args->buf.data, args->buf.len);
		TAILQ_INSERT_TAIL(&s->waiting, call, link);
	}
	args->n = 0;
	buf_clear(&args->buf);
}

/* What it is ----------------------------------------------------------------------------------- */

bool
store_is_ready(const struct store *s)
{
	return s->state == LINK_READY && !s->is_leaving;
}

void
store_info(const struct store *s, struct store_info *out)
{
	*out = s->info;
	out->ready = store_is_ready(s);
	out->pending = s->pending;
	if (out->reconnects)
		out->reconnects--; /* the first connection was none */
}

void
store_saw_time(struct store *s, uint64_t redis_us)
{
	clock_saw(&s->clock, loop_clock_us(), redis_us);
}

uint64_t
store_now_us(struct store *s)
{
	return clock_at(&s->clock, loop_now_us(s->loop));
}

bool
link_check_url(const char *url, struct errmsg *why)
{
	struct address a;

	if (!address_read(&a, url, why))
		return false;
	address_done(&a);
	return true;
}

static void
on_new_password(redisAsyncContext *ac, void *r, void *arg)
{
	const struct reply *reply = reply_of(r);

	(void)arg;
	if (ac->data && reply && reply->type == REPLY_ERROR)
		log_event(LOG_REDIS_PASSWORD_REFUSED, log_text("error", reply->str.p));
}

static void
on_info_again(redisAsyncContext *ac, void *r, void *arg)
{
	struct store *s = ac->data;
	const struct reply *reply = checked(ac, r);

	(void)arg;
	if (!reply)
		return;
	info_line(s->info.policy, sizeof(s->info.policy), reply_str(reply), "maxmemory_policy");
	is_acceptable(s, reply_str(reply));
}

void
link_set_config(struct store *s, const struct link_config *cfg)
{
	bool is_other = address_log_in(&s->address, cfg->url, cfg->username, cfg->password),
	     is_stricter = cfg->require_noeviction && !s->require_noeviction;

	s->connect_timeout_us = cfg->connect_timeout_us;
	s->command_timeout_us = cfg->command_timeout_us;
	s->pending_limit = cfg->pending_limit;
	s->require_noeviction = cfg->require_noeviction;
	s->backoff.min_us = cfg->reconnect_min_us;
	s->backoff.max_us = cfg->reconnect_max_us;
	if (s->state == LINK_DOWN)
		timer_at_most(&s->reconnect, backoff_next(&s->backoff));
	if (s->state != LINK_READY || s->is_leaving)
		return;
	if (!TAILQ_EMPTY(&s->flying) && !s->loading)
		set_deadline(s);
	if (is_other && *s->address.password)
		log_in(s, on_new_password);
	if (is_stricter)
		redisAsyncCommand(s->ac, on_info_again, NULL, "INFO");
}

struct store *
link_new(struct loop *loop, const struct link_config *cfg, const struct link_ops *ops,
	 void *arg)
{
	struct store *s = xcalloc(1, sizeof(*s));

	s->loop = loop;
	s->ops = ops;
	s->arg = arg;
	if (!address_read(&s->address, cfg->url, NULL))
		abort(); /* the caller was to check it */
	if (!s->address.is_numeric)
		s->lookup = lookup_new(loop, s->address.host, on_looked_up, s);
	address_log_in(&s->address, cfg->url, cfg->username, cfg->password);
	s->prefix = xstrdup(cfg->key_prefix);
	s->connect_timeout_us = cfg->connect_timeout_us;
	s->command_timeout_us = cfg->command_timeout_us;
	s->pending_limit = cfg->pending_limit;
	s->require_noeviction = cfg->require_noeviction;
	s->backoff = (struct backoff){ .min_us = cfg->reconnect_min_us,
				       .max_us = cfg->reconnect_max_us };
	snprintf(s->info.problem, sizeof(s->info.problem), "not connected yet");
	TAILQ_INIT(&s->flying);
	TAILQ_INIT(&s->again);
	TAILQ_INIT(&s->waiting);
	TAILQ_INIT(&s->unsent);
	timer_init(&s->reconnect, loop, link_connect, s);
	timer_init(&s->deadline, loop, on_deadline, s);
	timer_set(&s->reconnect, 0);
	loop_at_turn_end(loop, TURN_STORE, link_flush, s);
	return s;
}

const char *
link_address(const struct store *s)
{
	return s->lookup ? s->at : s->address.host;
}

bool
link_is_local(const struct store *s)
{
	return address_is_local(&s->address);
}

bool
link_is_alive(const struct store *s)
{
	if (s->state == LINK_DOWN)
		return s->reconnect.at_us || s->doom.is_queued;
	return s->deadline.at_us || (s->state == LINK_READY && TAILQ_EMPTY(&s->flying));
}

void
link_free(struct store *s)
{
	if (!s)
		return;
	loop_at_turn_end(s->loop, TURN_STORE, NULL, NULL);
	s->state = LINK_DOWN; /* what those below ask again is not sent either */
	drop_context(s);
	tell_all(s, &s->flying, ERR_UNKNOWN);
	tell_all(s, &s->again, ERR_UNSENT);
	tell_all(s, &s->waiting, ERR_UNSENT);
	while (!TAILQ_EMPTY(&s->unsent))
		tell_all(s, &s->unsent, ERR_UNSENT);
	defer_cancel(s->loop, &s->tell_unsent);
	defer_cancel(s->loop, &s->doom);
	timer_done(&s->reconnect);
	timer_done(&s->deadline);
	lookup_free(s->lookup);
	address_done(&s->address);
	free(s->prefix);
	free(s);
}
