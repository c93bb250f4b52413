/*
 * The functions of store.h are weak here: this file is part of every unit test, and in those
 * that want the real link its functions win.
 */
#include "lib/fake_store.h"

#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define WEAK __attribute__((weak))

struct chunk {
	struct chunk *next;
	_Alignas(16) char bytes[];
};

struct waiting {
	TAILQ_ENTRY(waiting) link;
	enum script script;
	unsigned nkeys, n;
	enum err err; /* how it is to fail */
	struct buf wire;
	store_cb *cb;
	void *arg;
};

struct store {
	struct loop *loop;
	fake_handler *fn;
	void *arg;
	TAILQ_HEAD(, waiting) calls;
	struct defer answer;
	struct chunk *chunks; /* of the replies of the call at hand */
	enum err err;         /* of the call at hand */
	unsigned ncalls, npending;
	unsigned fail_at; /* counted down; 0 none */
	enum err fail_with;
	bool has_failed, is_ready, is_held;
	uint64_t redis_us;
};

struct fake_store {
	struct store store;
};

/* Replies -------------------------------------------------------------------------------------- */

static void *
take(struct fake_store *f, size_t n)
{
	struct chunk *c = xcalloc(1, sizeof(*c) + n);

	c->next = f->store.chunks;
	f->store.chunks = c;
	return c->bytes;
}

static struct reply *
reply_new(struct fake_store *f, struct reply value)
{
	struct reply *r = take(f, sizeof(*r));

	*r = value;
	return r;
}

struct reply *
fake_reply_nil(struct fake_store *f)
{
	return reply_new(f, (struct reply){ .type = REPLY_NIL });
}

struct reply *
fake_reply_int(struct fake_store *f, int64_t v)
{
	return reply_new(f, (struct reply){ .type = REPLY_INT, .integer = v });
}

struct reply *
fake_reply_str(struct fake_store *f, struct str s)
{
	char *copy = take(f, s.n + 1);

	if (s.n)
		memcpy(copy, s.p, s.n);
	return reply_new(f, (struct reply){ .type = REPLY_STR, .str = { copy, s.n } });
}

struct reply *
fake_reply_array(struct fake_store *f, unsigned count, ...)
{
	struct reply *elems = take(f, count * sizeof(*elems));
	va_list ap;

	va_start(ap, count);
	for (unsigned i = 0; i < count; i++)
		elems[i] = *va_arg(ap, const struct reply *);
	va_end(ap);
	return reply_new(f,
			 (struct reply){ .type = REPLY_ARRAY, .count = count, .elems = elems });
}

struct reply *
fake_reply_err(struct fake_store *f, enum err err)
{
	f->store.err = err;
	return fake_reply_nil(f);
}

/* Calls ---------------------------------------------------------------------------------------- */

/* Take "$LENGTH\r\nBYTES\r\n" apart. */
static struct str *
parse(const struct waiting *w)
{
	struct str *args = xcalloc(w->n + 1, sizeof(*args));
	const char *p = w->wire.data, *end = p + w->wire.len;

	for (unsigned i = 0; i < w->n; i++) {
		char *number_end;

		ck_assert(p < end && *p == '$');
		args[i].n = strtoul(p + 1, &number_end, 10);
		args[i].p = number_end + 2;
		p = args[i].p + args[i].n + 2;
		ck_assert(p <= end && !memcmp(number_end, "\r\n", 2) &&
			  !memcmp(p - 2, "\r\n", 2));
	}
	ck_assert(p == end);
	return args;
}

static void
answer_one(struct store *s, struct waiting *w)
{
	static const struct reply error = { .type = REPLY_ERROR,
					    .str = { "ERR user_script:1: made to fail", 31 } };
	const struct reply *reply = NULL;

	s->err = w->err;
	if (!s->err || s->err == ERR_UNKNOWN) {
		struct str *args = parse(w);
		struct fake_call call = { w->script, w->nkeys, w->n, args };
		struct fake_store *f = (struct fake_store *)s;

		reply = s->fn ? s->fn(s->arg, f, &call) : fake_reply_nil(f);
		free(args);
	}
	s->npending--;
	if (s->err == ERR_INTERNAL)
		reply = &error;
	w->cb(w->arg, s->err, s->err && s->err != ERR_INTERNAL ? NULL : reply);
	while (s->chunks) {
		struct chunk *next = s->chunks->next;

		free(s->chunks);
		s->chunks = next;
	}
	buf_done(&w->wire);
	free(w);
}

static void
answer_all(void *arg)
{
	struct store *s = arg;
	/* What a callback calls is answered on the next turn. */
	unsigned n = s->npending;

	while (n-- && !s->is_held && !TAILQ_EMPTY(&s->calls)) {
		struct waiting *w = TAILQ_FIRST(&s->calls);

		TAILQ_REMOVE(&s->calls, w, link);
		answer_one(s, w);
	}
	if (!s->is_held && !TAILQ_EMPTY(&s->calls))
		loop_defer(s->loop, &s->answer, answer_all, s);
}

WEAK void
store_run(struct store *s, enum script script, unsigned nkeys, struct args *args, store_cb *cb,
	  void *arg)
{
	struct waiting *w = xcalloc(1, sizeof(*w));

	ck_assert_uint_lt(script, SCRIPT_COUNT);
	ck_assert_uint_le(nkeys, args->n);
	*w = (struct waiting){
		.script = script, .nkeys = nkeys, .n = args->n, .cb = cb, .arg = arg
	};
	buf_put(&w->wire, args->buf.data, args->buf.len);
	args->n = 0;
	buf_clear(&args->buf);
	s->ncalls++;
	s->npending++;
	if (!s->is_ready)
		w->err = ERR_UNSENT;
	if (s->fail_at && --s->fail_at == 0) {
		w->err = s->fail_with;
		s->has_failed = true;
	}
	TAILQ_INSERT_TAIL(&s->calls, w, link);
	if (!s->is_held)
		loop_defer(s->loop, &s->answer, answer_all, s);
}

WEAK bool
store_is_ready(const struct store *s)
{
	return s->is_ready;
}

WEAK void
store_info(const struct store *s, struct store_info *out)
{
	*out = (struct store_info){ .ready = s->is_ready,
				    .version = "7.0.15",
				    .aof = true,
				    .appendfsync = "always",
				    .policy = "noeviction",
				    .pending = s->npending,
				    .calls = s->ncalls };
	if (!s->is_ready)
		snprintf(out->problem, sizeof(out->problem), "made unready by a test");
}

WEAK uint64_t
store_now_us(struct store *s)
{
	return s->redis_us;
}

WEAK void
store_saw_time(struct store *s, uint64_t redis_us)
{
	(void)s; /* the clock is the test's */
	(void)redis_us;
}

/* What tests ask of it ------------------------------------------------------------------------- */

struct fake_store *
fake_store_new(struct loop *loop)
{
	struct fake_store *f = xcalloc(1, sizeof(*f));

	f->store.loop = loop;
	f->store.is_ready = true;
	f->store.redis_us = 1800000000ull * 1000000;
	TAILQ_INIT(&f->store.calls);
	return f;
}

void
fake_store_free(struct fake_store *f)
{
	if (!f)
		return;
	f->store.is_ready = false;
	while (!TAILQ_EMPTY(&f->store.calls)) {
		struct waiting *w = TAILQ_FIRST(&f->store.calls);

		TAILQ_REMOVE(&f->store.calls, w, link);
		f->store.npending--;
		w->cb(w->arg, w->err ? w->err : ERR_UNKNOWN, NULL);
		buf_done(&w->wire);
		free(w);
	}
	defer_cancel(f->store.loop, &f->store.answer);
	free(f);
}

struct store *
fake_store_store(struct fake_store *f)
{
	return &f->store;
}

void
fake_store_on_call(struct fake_store *f, fake_handler *fn, void *arg)
{
	f->store.fn = fn;
	f->store.arg = arg;
}

void
fake_store_fail_at(struct fake_store *f, unsigned nth, enum err err)
{
	f->store.fail_at = nth;
	f->store.fail_with = err;
	f->store.has_failed = false;
}

bool
fake_store_has_failed(const struct fake_store *f)
{
	return f->store.has_failed;
}

unsigned
fake_store_calls(const struct fake_store *f)
{
	return f->store.ncalls;
}

void
fake_store_reset(struct fake_store *f)
{
	f->store.ncalls = 0;
	f->store.fail_at = 0;
	f->store.has_failed = false;
}

void
fake_store_set_ready(struct fake_store *f, bool is_ready)
{
	f->store.is_ready = is_ready;
}

void
fake_store_hold(struct fake_store *f, bool is_held)
{
	f->store.is_held = is_held;
	if (!is_held && !TAILQ_EMPTY(&f->store.calls))
		loop_defer(f->store.loop, &f->store.answer, answer_all, &f->store);
}

void
fake_store_set_time(struct fake_store *f, uint64_t redis_us)
{
	f->store.redis_us = redis_us;
}
