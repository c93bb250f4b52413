/*
 * tick: group commit of one queue (see tick.h).
 *
 *	tick_open()		an operation finds the call that it will travel in
 *	queues_on_turn_end()	the turn is over
 *	tick_run()		choose who is served, write the call         -> store
 *	tick_on_reply()		tell each operation, in order                <- store
 *
 * What does not fit one call waits in the next; a reply makes room for it.
 */
#include "queue/tick.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "queue/pack.h"

/* Bytes of a ReceivedMessage around what its item holds, generously; the recipient's name comes on top. */
enum { RECEIVED_OVERHEAD = 420, APART_US = 1000000 };
/* Of what tick.lua is told, and what it answers; see there. */
enum {
	HEADER_BYTES = 2 + 2 + 2 + 1 + 7 + 7 + 7 + 4 + QUEUES_BROKER_LEN + 7 + 2 + 4,
	RUN_BYTES = 7 + 1 + 2 + 4,
	HOLDER_BYTES = 7 + 2, /* and its name */
	LEASE_BYTES = 7 + 7,
	LEASED_RUN = 128,       /* in the width of a run */
	LEASED_RUNS = 1u << 15, /* in the number of runs */
	ANSWER_BYTES = 7 + 7 + 7 + 4 + 2,
	GROUP = 256, /* acks that share the name of their bucket, at most */
};
enum {
	NOTED_US =
		500000, /* how often Redis is told that somebody waits here; it remembers for 3 s */
	OTHERS_US = 200000, /* how often we ask for others who wait */
	YIELD_US = 20000,   /* their time to come */
	PROMOTED = 200,     /* delayed messages that one call may make ready */
	/* What `lead` said is good for so long after it was asked: an outage, which takes a second, cannot be found earlier, as
	 * the script looks itself when a call was on its way for half a second. */
	EPOCH_FRESH_US = 450000,
};

static struct tick *
tick_new(struct queue *q)
{
	struct tick *t = xcalloc(1, sizeof(*t));

	t->queue = q;
	TAILQ_INIT(&t->receives);
	TAILQ_INSERT_TAIL(&q->ticks, t, link);
	return t;
}

/* In front of everything else that waits for its turn. */
static struct tick *
tick_in_front(struct queue *q)
{
	struct tick *t = tick_new(q);

	TAILQ_REMOVE(&q->ticks, t, link);
	TAILQ_INSERT_HEAD(&q->ticks, t, link);
	return t;
}

static void
drop_runs(struct tick *t)
{
	for (unsigned i = 0; i < t->nruns; i++)
		holder_unref(t->runs[i].holder);
	free(t->runs);
	t->runs = NULL;
	t->nruns = 0;
}

static void
tick_free(struct tick *t)
{
	args_done(&t->settle_args);
	args_done(&t->digest_args);
	args_done(&t->item_args);
	args_done(&t->delay_args);
	free(t->sends);
	free(t->settles);
	drop_runs(t);
	free(t->random);
	free(t);
}

static bool
is_apart(struct queues *queues)
{
	return queues->apart_until_us && loop_now_us(queues->loop) < queues->apart_until_us;
}

struct tick *
tick_open(struct queue *q, bool is_send, size_t bytes, unsigned wanted)
{
	struct tick *t = TAILQ_LAST(&q->ticks, ticks);
	size_t used;

	queue_mark_dirty(q);
	if (!t)
		return tick_new(q);
	used = t->settle_args.buf.len + t->digest_args.buf.len + t->item_args.buf.len;
	if (t->nsends >= TICK_MAX_OPS || t->nsettles >= TICK_MAX_OPS ||
	    (used && used + bytes > TICK_MAX_BYTES) ||
	    (t->wanted && t->wanted + wanted > TICK_MAX_HANDED))
		return tick_new(q);
	if (is_apart(q->queues) && (is_send ? t->nsettles || t->wanted : t->nsends))
		return tick_new(q);
	return t;
}

/* Receivers ------------------------------------------------------------------------------------ */

static void
unpark(struct receive *r)
{
	struct queue *q = r->queue;

	TAILQ_REMOVE(&q->parked, r, link);
	q->queues->nparked--;
	if (--q->nparked == 0)
		TAILQ_REMOVE(&q->queues->with_parked, q, parked_link);
}

static bool
is_yielding(const struct queue *q)
{
	return q->yields_until_us && loop_now_us(q->queues->loop) < q->yields_until_us;
}

/* While others go first, who can wait does. */
static void
park_newcomers(struct tick *t)
{
	uint64_t now = loop_now_us(t->queue->queues->loop);
	struct receive *r, *next;

	for (r = TAILQ_FIRST(&t->receives); r; r = next) {
		next = TAILQ_NEXT(r, link);
		if (r->until_us <= now || r->is_cancelled)
			continue;
		TAILQ_REMOVE(&t->receives, r, link);
		t->wanted -= r->max;
		receive_park(r);
	}
}

/* Those who wait longest go before those who ask now, as many as may find something. Where not all of that fits one
 * call, nobody gets nothing for it: who asks for many asks for fewer, and the last newcomers ask in the next call. */
static void
take_parked(struct tick *t)
{
	struct queue *q = t->queue;
	/* With a newcomer, also those for whom something becomes due in this very call. */
	unsigned may =
		q->look ? TICK_MAX_HANDED
			: t->nsends + t->returns + (t->wanted ? t->wanted + PROMOTED : 0);
	unsigned room = TICK_MAX_HANDED -
			(t->wanted < TICK_MAX_HANDED / 2 ? t->wanted : TICK_MAX_HANDED / 2);
	struct tick *later = NULL;
	struct receives first;
	struct receive *r, *next;

	if (is_yielding(q)) {
		park_newcomers(t);
		may = 0;
	} else {
		q->look = false;
	}
	TAILQ_INIT(&first);
	for (unsigned used = 0; may && used < room && (r = TAILQ_FIRST(&q->parked));) {
		r->ask = r->max < may ? r->max : may;
		r->ask = r->ask < room - used ? r->ask : room - used;
		may -= r->ask;
		used += r->ask;
		unpark(r);
		TAILQ_INSERT_TAIL(&first, r, link);
	}
	room = TICK_MAX_HANDED;
	TAILQ_FOREACH (r, &first, link) {
		room -= r->ask;
	}
	for (r = TAILQ_FIRST(&t->receives); r; r = next) {
		next = TAILQ_NEXT(r, link);
		if (room) {
			r->ask = r->max < room ? r->max : room;
			room -= r->ask;
			continue;
		}
		if (!later)
			later = tick_in_front(q);
		TAILQ_REMOVE(&t->receives, r, link);
		TAILQ_INSERT_TAIL(&later->receives, r, link);
		later->wanted += r->max;
	}
	t->wanted = TICK_MAX_HANDED - room;
	TAILQ_CONCAT(&first, &t->receives, link);
	TAILQ_CONCAT(&t->receives, &first, link);
}

static void
make_runs(struct tick *t)
{
	struct tick_run *last = NULL;
	struct receive *r;
	unsigned n = 0;

	TAILQ_FOREACH (r, &t->receives, link)
		n++;
	t->runs = xcalloc(n, sizeof(*t->runs));
	TAILQ_FOREACH (r, &t->receives, link) {
		r->state = RECEIVE_ASKED;
		if (last && last->receivers == last->wanted && r->ask == 1 &&
		    last->visibility_us == r->visibility_us &&
		    holder_is_same(last->holder, r->holder)) {
			last->receivers++;
			last->wanted++;
			continue;
		}
		last = &t->runs[t->nruns++];
		*last = (struct tick_run){ r->visibility_us, r->width, 1, r->ask,
					   holder_ref(r->holder) };
		t->has_holders = t->has_holders || r->holder;
	}
}

static void
put_runs(const struct tick *t, struct args *args)
{
	const struct queues *queues = t->queue->queues;
	size_t bytes = t->nruns * RUN_BYTES;
	char *to;

	for (unsigned i = 0; t->has_holders && i < t->nruns; i++)
		bytes += t->runs[i].holder ? HOLDER_BYTES + t->runs[i].holder->name_len : 0;
	to = args_reserve(args, bytes);
	for (unsigned i = 0; i < t->nruns; i++) {
		const struct tick_run *run = &t->runs[i];
		const struct holder *h = run->holder;

		to = pack_uint(to, 7, run->visibility_us);
		to = pack_uint(to, 1, run->width | (h ? LEASED_RUN : 0));
		to = pack_uint(to, 2, run->wanted);
		to = pack_uint(to, 4, run->wanted > run->receivers ? queues->max_frame : 0);
		if (h) {
			to = pack_uint(to, 7, h->incarnation);
			to = pack_uint(to, 2, h->name_len);
			memcpy(to, h->name, h->name_len);
			to += h->name_len;
		}
	}
}

static void
put_settle_head(struct args *args, char kind, unsigned n, const struct token *token)
{
	char head[2 + TOKEN_BUCKET_MAX] = { token->lease ? (char)(kind | 32) : kind,
					    (char)(n - 1) };

	args_str(args, (struct str){ head, 2 + token_bucket(head + 2, token) });
}

static bool
is_same_bucket(const struct token *a, const struct token *b)
{
	return a->ends == b->ends && a->fence / 256 == b->fence / 256 && a->width == b->width &&
	       a->epoch == b->epoch && a->lease == b->lease;
}

/* In the order of arrival; acks of one bucket that follow each other share its name. */
static void
put_settles(const struct tick *t, struct args *args)
{
	static const char kinds[] = {
		[SETTLE_ACK] = 'A',    [SETTLE_NACK] = 'N', [SETTLE_RELEASE] = 'R',
		[SETTLE_EXTEND] = 'X', [SETTLE_FAIL] = 'F',
	};
	unsigned n;

	for (unsigned i = 0; i < t->nsettles; i += n) {
		const struct tick_settle *s = &t->settles[i];

		for (n = 1; s->kind == SETTLE_ACK && i + n < t->nsettles && n < GROUP &&
			    s[n].kind == SETTLE_ACK && is_same_bucket(&s->token, &s[n].token);)
			n++;
		put_settle_head(args, kinds[s->kind], n, &s->token);
		for (unsigned j = 0; j < n; j++)
			token_field(args_reserve(args, TOKEN_FIELD_LEN), &s[j].token);
		if (s->kind != SETTLE_ACK) {
			buf_put(&args->buf, t->settle_args.buf.data + s->from, s->len);
			args->n++;
		}
	}
}

/* What Redis should know, or tell, of those who wait here and elsewhere; as flags of the header. */
static unsigned
about_waiting(const struct tick *t, uint64_t *age_us, unsigned *count)
{
	struct queue *q = t->queue;
	uint64_t now = loop_now_us(q->queues->loop), oldest = now;
	unsigned flags = 0;
	struct receive *r;

	*count = q->nparked;
	TAILQ_FOREACH (r, &t->receives, link) {
		bool waits = r->until_us > now;

		*count += waits;
		if (waits && r->since_us < oldest)
			oldest = r->since_us;
	}
	*age_us = now - oldest;
	if (*count && now >= q->noted_until_us) {
		flags |= 8;
		q->noted_until_us = now + NOTED_US;
	}
	if (!TAILQ_EMPTY(&t->receives) && now >= q->others_at_us) {
		flags |= 16;
		q->others_at_us = now + OTHERS_US;
	}
	return flags;
}

/* The call --------------------------------------------------------------------------------------- */

static void tick_on_reply(void *arg, enum err err, const struct reply *reply);

static void
tick_run(struct tick *t)
{
	struct queue *q = t->queue;
	struct queues *queues = q->queues;
	struct args args = { 0 };
	bool one_priority = t->nsends && !(t->priorities & (t->priorities - 1)) &&
			    !t->has_delays && !t->has_ttl0;
	unsigned flags, waiting;
	uint64_t age_us;
	bool is_fresh;
	char *to;

	TAILQ_REMOVE(&q->ticks, t, link);
	if (!(t->nsends && is_apart(queues)))
		take_parked(t);
	if (!TAILQ_EMPTY(&t->receives))
		make_runs(t);
	if (t->wanted) {
		t->random = xcalloc(t->wanted, TOKEN_RANDOM_LEN);
		id_random(t->random, (size_t)t->wanted * TOKEN_RANDOM_LEN);
	}

	args_str(&args, (struct str){ q->base, q->base_len });
	flags = about_waiting(t, &age_us, &waiting);
	flags |= (t->has_delays ? 1 : 0) | (one_priority ? 2 : 0) | (t->has_others ? 4 : 0) |
		 (t->has_ttl ? 64 : 0);
	if (queues->has_settings && (t->nsends || t->has_others))
		flags |= 32;
	is_fresh = loop_now_us(queues->loop) - queues->epoch_at_us < EPOCH_FRESH_US;
	if (!t->nsends && !t->nruns && !t->has_others && !flags && is_fresh)
		flags = 128;
	t->epoch = queues->epoch;
	to = args_reserve(&args, HEADER_BYTES);
	to = pack_uint(to, 2, t->nsettles);
	to = pack_uint(to, 2, t->nsends);
	to = pack_uint(to, 2, t->nruns | (t->has_holders ? LEASED_RUNS : 0));
	to = pack_uint(to, 1, flags);
	to = pack_uint(to, 7, is_fresh ? store_now_us(queues->store) : 0);
	to = pack_uint(to, 7, t->acked_bytes);
	to = pack_uint(to, 7, t->sent_bytes);
	to = pack_uint(to, 4, t->epoch);
	memcpy(to, queues->broker, QUEUES_BROKER_LEN);
	to = pack_uint(to + QUEUES_BROKER_LEN, 7, age_us);
	to = pack_uint(to, 2, waiting < 65535 ? waiting : 65535);
	pack_uint(to, 4, RECEIVED_OVERHEAD + q->type_len + q->instance_len);
	args_str(&args, str_of(queues->prefix));
	args_str(&args, (struct str){ q->base + q->name_off, q->ns_len });
	args_policy(&args, q);
	args_str(&args,
		 (struct str){ (char *)t->random, (size_t)t->wanted * TOKEN_RANDOM_LEN });
	put_runs(t, &args);
	put_settles(t, &args);
	args_join(&args, &t->digest_args);
	args_copy(&args, &t->item_args); /* what is handed on at once is answered from here */
	if (t->has_delays)
		args_join(&args, &t->delay_args);
	q->in_flight++;
	store_run(queues->store, t->nsends ? SCRIPT_TICK : SCRIPT_TICK_OOM, 1, &args,
		  tick_on_reply, t);
	args_done(&args);
}

void
queue_flush(struct queue *q)
{
	struct tick *t;

	while ((t = TAILQ_FIRST(&q->ticks)))
		tick_run(t);
}

void
queues_flush_all(struct queues *queues)
{
	struct queue *q, *next;

	HASH_ITER (hh, queues->by_name, q, next)
		queue_flush(q);
}

void
queues_on_turn_end(void *arg)
{
	struct queues *queues = arg;
	struct queue *q;

	while ((q = TAILQ_FIRST(&queues->dirty))) {
		TAILQ_REMOVE(&queues->dirty, q, dirty_link);
		q->is_dirty = false;
		if (q->look && q->nparked && TAILQ_EMPTY(&q->ticks) && !is_yielding(q))
			tick_new(q);
		while (q->in_flight < TICK_IN_FLIGHT && !TAILQ_EMPTY(&q->ticks))
			tick_run(TAILQ_FIRST(&q->ticks));
		queue_settle_down(q);
	}
}

/* The answer ------------------------------------------------------------------------------------- */

/* The strings at the end of the answer, which are there only where they say something. */
struct outcomes {
	struct str settles, sends, deadlines, epoch, leases, buried;
};

static struct outcomes
read_outcomes(const struct reply *reply, unsigned flags)
{
	struct outcomes o = { 0 };
	unsigned n = (unsigned)__builtin_popcount(flags >> 3);
	uint32_t at = reply && reply->count > n ? reply->count - n : 0;

	if (flags & 8)
		o.settles = reply_str(reply_at(reply, at++));
	if (flags & 16)
		o.sends = reply_str(reply_at(reply, at++));
	if (flags & 32)
		o.deadlines = reply_str(reply_at(reply, at++));
	if (flags & 64)
		o.epoch = reply_str(reply_at(reply, at++));
	if (flags & 128)
		o.leases = reply_str(reply_at(reply, at++));
	if (flags & 256)
		o.buried = reply_str(reply_at(reply, at));
	return o;
}

static bool
flag(struct str flags, unsigned i, char yes)
{
	return i < flags.n && flags.p[i] == yes;
}

/*
 * How long it was out: the token says when it would end, and `q` for how long it was given. What other brokers handed out is taken for the
 * same.
 */
static void
count_process(struct queue *q, const struct token *token, uint64_t now_us)
{
	uint64_t left_us = token->deadline_us > now_us ? token->deadline_us - now_us : 0;

	if (token->width == token_width(q->visibility_us) && left_us <= q->visibility_us &&
	    now_us >= q->mixed_until_us)
		stat_hist_add(q->counts->process, stat_bounds[STAT_SLOW],
			      q->visibility_us - left_us);
}

static void
count_settle(struct queue *q, const struct tick_settle *s, uint64_t now_us)
{
	struct queue_counts *counts = q->counts;

	switch (s->kind) {
	case SETTLE_ACK:
		counts->acked[0]++;
		break;
	case SETTLE_NACK:
		counts->nacked[s->permanent ? STAT_PERMANENT : STAT_TRANSIENT]++;
		break;
	case SETTLE_FAIL:
		counts->nacked[STAT_CONNECTION]++;
		return;
	case SETTLE_RELEASE:
		counts->released[0]++;
		return;
	case SETTLE_EXTEND:
		return;
	}
	count_process(q, &s->token, now_us);
}

/* Failed deliveries that did not end as dead letters. */
static void
count_retries(struct queue_counts *counts, uint64_t failed, const uint64_t buried[3])
{
	uint64_t ended = buried[STAT_DEAD_PERMANENT] + buried[STAT_DEAD_ATTEMPTS];

	counts->retried[0] += failed > ended ? failed - ended : 0;
}

static void
tell_settles(struct tick *t, enum err err, const struct outcomes *o)
{
	/* After an error the store may be gone, see queues_free(). */
	uint64_t now_us = err ? 0 : store_now_us(t->queue->queues->store), failed = 0;
	uint64_t buried[3] = { 0 };
	size_t at = 0;

	for (unsigned i = 0; i < t->nsettles; i++) {
		struct tick_settle *s = &t->settles[i];
		uint64_t deadline = 0;

		if (s->kind == SETTLE_EXTEND && at + 7 <= o->deadlines.n) {
			deadline = unpack_uint(o->deadlines.p + at, 7);
			at += 7;
		}
		if (!err && !flag(o->settles, i, '0')) {
			count_settle(t->queue, s, now_us);
			failed += s->kind == SETTLE_NACK || s->kind == SETTLE_FAIL;
		}
		if (s->cb)
			s->cb(s->arg, err, !err && !flag(o->settles, i, '0'), deadline);
	}
	queue_count_buried(t->queue, o->buried, buried);
	count_retries(t->queue->counts, failed, buried);
}

static void
tell_sends(struct tick *t, enum err err, const struct outcomes *o)
{
	struct queue_counts *counts = t->queue->counts;

	for (unsigned i = 0; i < t->nsends; i++) {
		const struct tick_send *s = &t->sends[i];
		enum sent sent = flag(o->sends, i, '1')   ? SENT_FULL
				 : flag(o->sends, i, '2') ? SENT_DUPLICATE
							  : SENT_STORED;

		if (!err && sent == SENT_STORED) {
			counts->sent[s->priority]++;
			stat_hist_add(process_stats.message_size, stat_bounds[STAT_SIZE],
				      s->len);
		} else if (!err) {
			(sent == SENT_FULL ? counts->rejected : counts->deduplicated)[0]++;
		}
		s->cb(s->arg, err, sent);
	}
}

struct handed {
	uint64_t now_us, fence;
	const struct reply *reply;
	uint32_t next;  /* index of the next item in the reply */
	uint64_t lease; /* of the run, 0 none */
};

/* An item of the answer; one that this call sent is named by its place. */
static struct str
handed_item(const struct tick *t, const struct reply *r)
{
	int64_t i = r->type == REPLY_INT ? r->integer : -1;

	if (i < 0 || i >= t->nsends)
		return reply_str(r);
	return (struct str){ t->item_args.buf.data + t->sends[i].end - t->sends[i].len,
			     t->sends[i].len };
}

static void
count_delivery(struct queue *q, const struct item *item, uint64_t visibility_us,
	       uint64_t now_us)
{
	q->counts->delivered[0]++;
	if (!item->attempts)
		stat_hist_add(q->counts->wait, stat_bounds[STAT_SLOW],
			      now_us > item->enqueued_us ? now_us - item->enqueued_us : 0);
	if (visibility_us != q->visibility_us) {
		if (q->visibility_us)
			q->mixed_until_us =
				now_us + (visibility_us > q->visibility_us ? visibility_us
									   : q->visibility_us);
		q->visibility_us = visibility_us;
	}
}

static void
read_reservation(struct reservation *res, const struct tick *t, const struct tick_run *run,
		 struct handed *h)
{
	struct str raw = handed_item(t, reply_at(h->reply, h->next));
	unsigned i = h->next++ - 1;
	uint64_t unit = 1ull << run->width;

	res->deadline_us = h->now_us + run->visibility_us;
	res->token = (struct token){ .fence = h->fence + i + 1,
				     .epoch = t->epoch,
				     .width = run->width,
				     .ends = (res->deadline_us + unit - 1) / unit,
				     .deadline_us = res->deadline_us,
				     .size = (uint32_t)raw.n,
				     .lease = h->lease };
	memcpy(res->token.random, t->random + (size_t)i * TOKEN_RANDOM_LEN, TOKEN_RANDOM_LEN);
	if (!item_read(&res->item, raw)) {
		struct settle_how how = { .kind = SETTLE_NACK,
					  .permanent = true,
					  .has_error = true,
					  .error = STR("unreadable record") };

		log_event(LOG_QUEUE_CORRUPT, log_uint("fence", res->token.fence),
			  log_uint("bytes", raw.n));
		queue_settle(t->queue, &res->token, &how, NULL, NULL);
		res->token.fence = 0;
		return;
	}
	count_delivery(t->queue, &res->item, run->visibility_us, h->now_us);
}

/* Up to `n` reservations of one run for one receiver; what cannot be read is left out. */
static unsigned
read_reservations(struct reservation *res, unsigned n, const struct tick *t,
		  const struct tick_run *run, struct handed *h)
{
	unsigned have = 0;

	for (unsigned i = 0; i < n; i++) {
		read_reservation(&res[have], t, run, h);
		if (res[have].token.fence)
			have++;
	}
	return have;
}

/* What the script said of the holder of the next leased run. ERR_NOT_FOUND: it is not there, or not alive, or another. */
static enum err
read_lease(uint64_t *incarnation, uint64_t *lease, struct str *leases)
{
	if (leases->n < LEASE_BYTES)
		return ERR_INTERNAL;
	*incarnation = unpack_uint(leases->p, 7);
	*lease = unpack_uint(leases->p + 7, 7);
	leases->p += LEASE_BYTES;
	leases->n -= LEASE_BYTES;
	return *incarnation ? OK : ERR_NOT_FOUND;
}

static void
tell_receives(struct tick *t, enum err err, const struct reply *reply, struct str head,
	      struct str leases, bool ask_again)
{
	static struct reservation res[TICK_MAX_HANDED];
	struct handed h = { .reply = reply, .next = 1 };
	struct receives old, new;
	struct receive *r;

	if (!err) {
		h.now_us = unpack_uint(head.p, 7);
		h.fence = unpack_uint(head.p + 7, 7);
	}
	TAILQ_INIT(&old);
	TAILQ_INIT(&new);
	for (unsigned i = 0; i < t->nruns; i++) {
		const struct tick_run *run = &t->runs[i];
		unsigned got =
			err ? 0 : (unsigned)unpack_uint(head.p + ANSWER_BYTES + 2 * i, 2);
		uint64_t incarnation = 0;
		enum err err_of_run = err;

		h.lease = 0;
		if (!err && run->holder)
			err_of_run = read_lease(&incarnation, &h.lease, &leases);
		for (unsigned j = 0; j < run->receivers; j++) {
			unsigned mine = run->receivers > 1 ? (j < got ? 1 : 0) : got;
			bool was_parked;

			r = TAILQ_FIRST(&t->receives);
			TAILQ_REMOVE(&t->receives, r, link);
			mine = read_reservations(res, mine, t, run, &h);
			was_parked = r->was_asked;
			/* The reply was full: it has not been asked yet, so it asks again, whatever its wait. */
			if (incarnation)
				r->holder->incarnation = incarnation;
			if (!err_of_run && !mine && ask_again && !r->is_cancelled) {
				TAILQ_INSERT_TAIL(&old, r, link);
				continue;
			}
			r->was_asked = true;
			if (!receive_on_items(r, err_of_run, res, mine)) {
				if (was_parked)
					TAILQ_INSERT_HEAD(&old, r, link);
				else
					TAILQ_INSERT_TAIL(&new, r, link);
			}
		}
	}
	if (ask_again) {
		struct tick *again = NULL;

		while ((r = TAILQ_FIRST(&old))) {
			TAILQ_REMOVE(&old, r, link);
			if (!again)
				again = tick_in_front(t->queue);
			TAILQ_INSERT_TAIL(&again->receives, r, link);
			again->wanted += r->max;
		}
	}
	/* `old` holds the last one first: each goes to the head, so the first one ends there. */
	while ((r = TAILQ_FIRST(&old))) {
		TAILQ_REMOVE(&old, r, link);
		receive_park(r);
	}
	while ((r = TAILQ_FIRST(&new))) {
		TAILQ_REMOVE(&new, r, link);
		receive_park(r);
	}
}

/* Redis has no room for what was sent. Settling and receiving make room: they go again, alone. */
static void
again_without_sends(struct tick *t)
{
	struct tick *again = tick_in_front(t->queue);

	again->settle_args = t->settle_args;
	t->settle_args = (struct args){ 0 };
	again->settles = t->settles;
	again->nsettles = t->nsettles;
	again->max_settles = t->max_settles;
	again->acked_bytes = t->acked_bytes;
	again->returns = t->returns;
	again->has_others = t->has_others;
	again->wanted = t->wanted; /* its runs are made anew */
	TAILQ_CONCAT(&again->receives, &t->receives, link);
	t->settles = NULL;
	t->nsettles = 0;
	drop_runs(t);
}

static void
tick_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct tick *t = arg;
	struct queue *q = t->queue;
	struct queues *queues = q->queues;
	struct str head = reply_str(reply_at(reply, 0));
	struct outcomes outcomes = { 0 };
	uint64_t wake, left = 0;
	unsigned flags = 0;

	if (!err && head.n != ANSWER_BYTES + 2 * (size_t)t->nruns)
		err = ERR_INTERNAL;
	if (err == ERR_REFUSED && t->nsends) {
		queues->apart_until_us = loop_now_us(queues->loop) + APART_US;
		if (t->nsettles || t->nruns)
			again_without_sends(t);
	}
	if (err == ERR_INTERNAL)
		log_event(LOG_QUEUE_TICK_FAILED,
			  log_str("error", reply ? reply->str : STR("malformed reply")));
	q->pins++; /* callbacks may end all that keeps it */
	if (!err) {
		wake = unpack_uint(head.p + 14, 7);
		left = unpack_uint(head.p + 21, 4);
		flags = (unsigned)unpack_uint(head.p + 25, 2);
		outcomes = read_outcomes(reply, flags);
		if (outcomes.epoch.n == 4)
			t->epoch = (uint32_t)unpack_uint(outcomes.epoch.p, 4);
		if (unpack_uint(head.p, 7))
			store_saw_time(queues->store, unpack_uint(head.p, 7));
		if (flags & 4) {
			q->yields_until_us = loop_now_us(queues->loop) + YIELD_US;
			timer_at_most(&queues->yielded, YIELD_US);
		}
		if (wake)
			queues->ops->on_wake(queues->arg, wake);
	}
	tell_settles(t, err, &outcomes);
	tell_sends(t, err, &outcomes);
	tell_receives(t, err, reply, head, outcomes.leases, flags & 1);
	q->pins--;
	q->in_flight--;
	if (left)
		q->noted_until_us =
			0; /* the script may have struck our note with the others' */
	if (left && q->nparked && !(flags & 2))
		q->look = true;
	tick_free(t);
	queue_mark_dirty(q);
}

void
queue_give_up(struct queue *q)
{
	struct tick *t;

	while ((t = TAILQ_FIRST(&q->ticks))) {
		TAILQ_REMOVE(&q->ticks, t, link);
		take_parked(t);
		if (!TAILQ_EMPTY(&t->receives))
			make_runs(t);
		q->in_flight++;
		tick_on_reply(t, ERR_UNSENT, NULL);
	}
}
