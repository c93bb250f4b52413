/*
 * inspect: look at queues without touching them, purge one, and keep settings. Each looks after all
 * that was asked of the queue before it (queue_script, queues_flush_all).
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "queue/pack.h"
#include "queue/tick.h"
#include "store/keys.h"

enum { STATS_BYTES = 9 * 7 + 1 + 5 + 4, LIST_STEP = 100, PEEKED_OVERHEAD = 320 };

static void
args_limits(struct args *args, const struct queue *q)
{
	args_uint(args, q->queues->max_frame - 64);
	args_uint(args, PEEKED_OVERHEAD + q->type_len + q->instance_len);
}

void
queue_peek(struct queue *q, unsigned limit, store_cb *cb, void *arg)
{
	struct args more = { 0 };
	char text[16];

	snprintf(text, sizeof(text), "%u", limit);
	args_limits(&more, q);
	queue_script(q, SCRIPT_PEEK, str_of(text), &more, cb, arg);
	args_done(&more);
}

struct purging {
	struct queue *queue; /* pinned */
	count_cb *cb;
	void *arg;
};

static void
purge_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct purging *op = arg;
	uint64_t n = err ? 0 : (uint64_t)reply_int(reply, 0);

	op->queue->counts->purged[0] += n;
	op->cb(op->arg, err, n);
	queue_unpin(op->queue);
	free(op);
}

void
queue_purge(struct queue *q, count_cb *cb, void *arg)
{
	struct purging *op = xcalloc(1, sizeof(*op));

	*op = (struct purging){ q, cb, arg };
	queue_pin(q);
	queue_script(q, SCRIPT_PURGE, STR(""), NULL, purge_on_reply, op);
}

void
queue_pause(struct queue *q, bool pause, store_cb *cb, void *arg)
{
	struct args more = { 0 };

	args_uint(&more, queue_policy(q)->forget_after_us);
	queue_script(q, SCRIPT_PAUSE, pause ? STR("1") : STR("0"), &more, cb, arg);
	args_done(&more);
}

void
queue_dlq_list(struct queue *q, uint64_t after, unsigned limit, store_cb *cb, void *arg)
{
	struct args args = { 0 };

	queue_flush(q);
	args_str(&args, (struct str){ q->base, q->base_len });
	args_uint(&args, after);
	args_uint(&args, limit);
	args_limits(&args, q);
	store_run(q->queues->store, SCRIPT_DLQ_LIST, 1, &args, cb, arg);
	args_done(&args);
}

/* Stats ------------------------------------------------------------------------------------------ */

static bool
stats_read(struct queue_stats *stats, struct str s)
{
	const char *p = s.p;

	if (s.n != STATS_BYTES)
		return false;
	for (unsigned i = 0; i < 3; i++, p += 7)
		stats->ready[i] = unpack_uint(p, 7);
	stats->delayed = unpack_uint(p, 7);
	stats->reserved = unpack_uint(p + 7, 7);
	stats->dead = unpack_uint(p + 14, 7);
	stats->bytes = unpack_uint(p + 21, 7);
	stats->oldest_us = unpack_uint(p + 28, 7);
	stats->now_us = unpack_uint(p + 35, 7);
	stats->paused = p[42];
	stats->capacity = unpack_uint(p + 43, 5);
	stats->elsewhere = (unsigned)unpack_uint(p + 48, 4);
	return true;
}

static void
stats_head(struct args *args, const struct queues *queues, struct str ns)
{
	args_str(args, str_of(queues->prefix));
	args_str(args, ns);
	args_str(args, (struct str){ queues->broker, QUEUES_BROKER_LEN });
}

static void
stats_of(struct args *args, const struct queues *queues, struct str name)
{
	args_str(args, name);
	args_uint(args, policy_of(queues, name)->values.queue_size);
}

struct stats {
	stats_cb *cb;
	void *arg;
};

static void
stats_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct stats *op = arg;
	struct queue_stats stats;

	if (!err && !stats_read(&stats, reply_str(reply_at(reply, 0))))
		err = ERR_INTERNAL;
	op->cb(op->arg, err, err ? NULL : &stats);
	free(op);
}

void
queue_stats(struct queue *q, stats_cb *cb, void *arg)
{
	struct stats *op = xcalloc(1, sizeof(*op));
	struct args args = { 0 };

	op->cb = cb;
	op->arg = arg;
	queue_flush(q);
	stats_head(&args, q->queues, (struct str){ q->base + q->name_off, q->ns_len });
	stats_of(&args, q->queues, queue_name(q));
	store_run(q->queues->store, SCRIPT_STATS, 0, &args, stats_on_reply, op);
	args_done(&args);
}

/* List ------------------------------------------------------------------------------------------- */

/*
 *	queues_list()		names first <-.
 *	list_on_names()		then their numbers
 *	list_on_stats()		enough, or the next hundred --'
 */
struct listing {
	struct queues *queues;
	char *ns;          /* encoded */
	struct buf prefix; /* all names begin with it */
	struct buf bytes;  /* of the names */
	size_t *ends;      /* where each ends in `bytes` */
	struct queue_stats *stats;
	unsigned n, limit, step;
	struct buf after;
	list_cb *cb;
	void *arg;
};

static struct str
listing_name(const struct listing *l, unsigned i)
{
	size_t from = i ? l->ends[i - 1] : 0;

	return (struct str){ l->bytes.data + from, l->ends[i] - from };
}

static void
listing_finish(struct listing *l, enum err err)
{
	struct str *names = xcalloc(l->n, sizeof(*names));

	for (unsigned i = 0; i < l->n; i++)
		names[i] = listing_name(l, i);
	l->cb(l->arg, err, names, l->stats, l->n);
	free(names);
	free(l->ns);
	free(l->ends);
	free(l->stats);
	buf_done(&l->prefix);
	buf_done(&l->bytes);
	buf_done(&l->after);
	free(l);
}

static void list_step(struct listing *l);

static void
list_on_stats(void *arg, enum err err, const struct reply *reply)
{
	struct listing *l = arg;

	for (unsigned i = 0; !err && i < l->step; i++)
		if (!stats_read(&l->stats[l->n + i], reply_str(reply_at(reply, i))))
			err = ERR_INTERNAL;
	if (!err)
		l->n += l->step;
	if (err || l->n >= l->limit || l->step < LIST_STEP)
		listing_finish(l, err);
	else
		list_step(l);
}

static void
list_on_names(void *arg, enum err err, const struct reply *reply)
{
	struct listing *l = arg;
	struct args args = { 0 };

	l->step = err ? 0 : reply->count;
	if (!l->step) {
		listing_finish(l, err);
		return;
	}
	stats_head(&args, l->queues, str_of(l->ns));
	for (unsigned i = 0; i < l->step; i++) {
		struct str name = reply_str(reply_at(reply, i));

		stats_of(&args, l->queues, name);
		buf_put(&l->bytes, name.p, name.n);
		l->ends[l->n + i] = l->bytes.len;
	}
	store_run(l->queues->store, SCRIPT_STATS, 0, &args, list_on_stats, l);
	args_done(&args);
}

static void
list_step(struct listing *l)
{
	unsigned left = l->limit - l->n;
	struct args args = { 0 };
	struct str after = l->n ? listing_name(l, l->n - 1) : buf_str(&l->after);
	struct buf key = { 0 };

	buf_printf(&key, "%s:queues", l->queues->prefix);
	args_str(&args, buf_str(&key));
	args_str(&args, buf_str(&l->prefix));
	args_str(&args, after);
	args_uint(&args, left < LIST_STEP ? left : LIST_STEP);
	store_run(l->queues->store, SCRIPT_LIST, 1, &args, list_on_names, l);
	args_done(&args);
	buf_done(&key);
}

void
queues_list(struct queues *queues, struct str ns, struct str type, struct str after,
	    unsigned limit, list_cb *cb, void *arg)
{
	struct listing *l = xcalloc(1, sizeof(*l));
	struct buf part = { 0 };

	l->queues = queues;
	l->limit = limit;
	l->ends = xcalloc(limit, sizeof(*l->ends));
	l->stats = xcalloc(limit, sizeof(*l->stats));
	l->cb = cb;
	l->arg = arg;
	key_put_part(&part, ns);
	l->ns = xmemdup(part.data, part.len);
	buf_done(&part);
	buf_printf(&l->prefix, "%s:", l->ns);
	if (after.n) {
		buf_put(&l->after, l->prefix.data, l->prefix.len);
		buf_put(&l->after, after.p, after.n);
	}
	if (type.n) {
		key_put_part(&l->prefix, type);
		buf_putc(&l->prefix, ':');
	}
	queues_flush_all(queues);
	list_step(l);
}

void
queues_sample(struct queues *queues, struct str after, list_cb *cb, void *arg)
{
	struct listing *l = xcalloc(1, sizeof(*l));

	l->queues = queues;
	l->limit = LIST_STEP;
	l->ends = xcalloc(LIST_STEP, sizeof(*l->ends));
	l->stats = xcalloc(LIST_STEP, sizeof(*l->stats));
	l->cb = cb;
	l->arg = arg;
	l->ns = xstrdup("");
	buf_put(&l->after, after.p, after.n);
	list_step(l);
}

/* Settings --------------------------------------------------------------------------------------- */

struct configuring {
	struct queue_policy policy; /* where nothing is set */
	configure_cb *cb;
	void *arg;
};

/* Lay the values of `text` (six words, each ended by ';') over `p`. */
static void
policy_overlay(struct queue_policy *p, struct str text)
{
	const char *at = text.p, *end = text.p + text.n;

	for (unsigned i = 0; at < end; i++) {
		char word[64] = "";
		size_t n = 0;

		for (; at < end && *at != ';'; at++)
			if (n + 1 < sizeof(word))
				word[n++] = *at;
		at++;
		if (!n)
			continue;
		switch (i) {
		case 0:
			p->queue_size = strtoull(word, NULL, 10);
			break;
		case 1:
			p->retry_attempts = strtoull(word, NULL, 10);
			break;
		case 2:
			p->backoff_base_us = strtoull(word, NULL, 10);
			break;
		case 3:
			p->backoff_factor = strtod(word, NULL);
			break;
		case 4:
			p->backoff_max_us = strtoull(word, NULL, 10);
			break;
		case 5:
			p->backoff_jitter = strtod(word, NULL);
			break;
		default:
			break;
		}
	}
}

static void
configure_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct configuring *op = arg;

	if (!err) {
		policy_overlay(&op->policy, reply_str(reply_at(reply, 0)));
		policy_overlay(&op->policy, reply_str(reply_at(reply, 1)));
	}
	op->cb(op->arg, err, err ? NULL : &op->policy);
	free(op);
}

static void put_setting(struct args *args, const struct params *v, uint64_t field,
			const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void
put_setting(struct args *args, const struct params *v, uint64_t field, const char *fmt, ...)
{
	char text[64];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	args_str(args, v->have & field ? str_of(text) : v->nil & field ? STR("-") : STR(""));
}

void
queues_configure(struct queues *queues, struct str ns, struct queue *q, const struct params *v,
		 configure_cb *cb, void *arg)
{
	struct configuring *op = xcalloc(1, sizeof(*op));
	struct args args = { 0 };
	struct buf b = { 0 };

	*op = (struct configuring){ q ? q->policy->values
				      : queues->policies[queues->noverrides].values,
				    cb, arg };
	queues_note_settings(queues);
	queues_flush_all(queues);
	buf_printf(&b, "%s:settings", queues->prefix);
	args_str(&args, buf_str(&b));
	buf_clear(&b);
	key_put_part(&b, ns);
	args_str(&args, buf_str(&b));
	args_str(&args, q ? queue_name(q) : STR(""));
	put_setting(&args, v, F(queue_size), "%llu", (unsigned long long)v->queue_size);
	put_setting(&args, v, F(retry_attempts), "%llu", (unsigned long long)v->retry_attempts);
	put_setting(&args, v, F(backoff_base), "%llu", (unsigned long long)v->backoff_base);
	put_setting(&args, v, F(backoff_factor), "%.17g", v->backoff_factor);
	put_setting(&args, v, F(backoff_max), "%llu", (unsigned long long)v->backoff_max);
	put_setting(&args, v, F(backoff_jitter), "%.17g", v->backoff_jitter);
	buf_clear(&b);
	buf_printf(&b, "%s:bell", queues->prefix);
	args_str(&args, buf_str(&b));
	store_run(queues->store, SCRIPT_CONFIGURE, 1, &args, configure_on_reply, op);
	args_done(&args);
	buf_done(&b);
}
