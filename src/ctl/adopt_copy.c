/*
 * adopt: from the old queues into the new ones, each message once.
 *
 *	copy_page()	reads the messages of a page, leaves out what was seen, asks the journal what became of each
 *	decide()	new; done before; interrupted a moment ago: the broker knows a repeat; interrupted long ago: uncertain
 *	send_all()	marks them as being sent, sends them in runs of one sender, settles the marks
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "ctl/adopt.h"
#include "proto/mp.h"

enum {
	BATCH_MOST = 500,
	FRAME_SLACK = 1024,
	MAX_DELAY_S = 31536000,
	LOOK_PAGE = 200,
	LOOK_READY = 1000
};

/* A message of a page, on its way. */
struct pending {
	struct old_message m;
	int64_t due_us;   /* 0: now */
	int64_t since_us; /* when it was sent first, at the earliest */
	bool is_dead;
	bool is_done, is_refused, is_unknown; /* what came of sending it */
};

/* --- what the broker must be like ------------------------------------------------ */

static bool
size_of(struct str text, uint64_t *bytes)
{
	static const struct {
		const char *unit;
		uint64_t bytes;
	} units[] = { { "B", 1 }, { "KiB", 1 << 10 }, { "MiB", 1 << 20 }, { "GiB", 1 << 30 } };
	char *unit;
	double n = strtod(text.p, &unit);

	for (size_t i = 0; i < COUNT_OF(units); i++) {
		if (!strcmp(unit, units[i].unit)) {
			*bytes = (uint64_t)(n * (double)units[i].bytes);
			return n > 0;
		}
	}
	return false;
}

/* The shortest dedup_window that is in force anywhere, and the key that says so. */
static void
shortest_window(const json_t *values, double *seconds, const char **key)
{
	const char word[] = "dedup_window: ";
	json_t *row;
	size_t i;

	json_array_foreach(values, i, row)
	{
		const char *name = json_str_at(row, "key").p,
			   *text = json_str_at(row, "value").p;
		bool is_default = !strcmp(name, "queues.defaults.dedup_window");

		if (!is_default && strncmp(name, "queues.overrides", 16))
			continue;
		while (is_default || (text = strstr(text, word))) {
			char one[32];
			double s;

			text += is_default ? 0 : strlen(word);
			snprintf(one, sizeof(one), "%.*s", (int)strcspn(text, ",}] "), text);
			if (text_duration(one, &s) && s < *seconds) {
				*seconds = s;
				*key = name;
			}
			if (is_default)
				break;
		}
	}
}

int
adopt_ask_broker(struct adopt *a)
{
	json_t *config = ctl_call(a->ctl, "config_get", ctl_params(NULL), 0), *values, *row;
	double seconds = INFINITY;
	const char *key = "";
	int status = EX_OK;
	size_t i;

	if (!config)
		return a->ctl->status;
	values = json_object_get(config, "values");
	shortest_window(values, &seconds, &key);
	json_array_foreach(values, i, row)
	{
		if (str_eq(json_str_at(row, "key"), STR("limits.max_frame")))
			size_of(json_str_at(row, "value"), &a->max_frame);
	}
	if (isinf(seconds) || a->max_frame <= 2 * FRAME_SLACK)
		status = ctl_unexpected("config_get");
	else if (seconds <= 0)
		status = ctl_fail(EX_CONFIG,
				  "%s is 0: the broker would not know a message that is sent "
				  "again after an "
				  "interruption, and store it twice. Set it to 1d for the "
				  "move, and reload",
				  key);
	else if (seconds < 600 && !a->is_dry && !GIVEN(a->ctl, quiet))
		ctl_fail(EX_OK,
			 "%s is only %.0f s: after an interruption run this again within that "
			 "time. 1d is better "
			 "for the move",
			 key, seconds);
	a->window_us = isinf(seconds) ? 0 : (uint64_t)(seconds * 1e6);
	json_decref(config);
	return status;
}

/* A part of the window is left for the way to the broker. */
static int64_t
margin_us(const struct adopt *a)
{
	uint64_t tenth = a->window_us / 10;

	return (int64_t)(tenth < 30000000 ? tenth : 30000000);
}

/* --- looking for copies in the new queue ----------------------------------------- */

/* Note the marks of the copies among messages that the broker lists. */
static void
note_found(struct adopt *a, const json_t *rows, const char *path)
{
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		struct str hex = json_str_at(row, path);
		struct mark mark;

		if (hex.n != 2 * sizeof(mark.bytes))
			continue;
		for (size_t k = 0; k < sizeof(mark.bytes); k++) {
			char byte[3] = { hex.p[2 * k], hex.p[2 * k + 1], '\0' };

			mark.bytes[k] = (uint8_t)strtoul(byte, NULL, 16);
		}
		mark_set_add(&a->found, &mark);
	}
}

static bool
look_at_dead(struct adopt *a, const struct name *queue)
{
	json_t *page = NULL, *dead;
	struct buf after = { 0 };

	do {
		struct coord_params *p = ctl_params(queue);

		coord_param_int(p, "limit", LOOK_PAGE);
		if (after.len)
			coord_param_str(p, "after", after.data);
		json_decref(page);
		page = ctl_call(a->ctl, "dlq_list", p, 0);
		dead = json_object_get(page, "dead");
		note_found(a, dead, "queue_message.message.adopted.mark");
		buf_clear(&after);
		buf_put(&after, json_str_at(page, "after").p, json_str_at(page, "after").n);
		if (after.len)
			buf_putc(&after, '\0');
	} while (page && after.len && json_array_size(dead));
	buf_done(&after);
	json_decref(page);
	return !a->ctl->status;
}

/* What of the queue the broker shows: the first messages that are due, and all dead letters. */
static bool
look(struct adopt *a, const struct agent_id *agent)
{
	struct buf text = { 0 };
	struct coord_params *p;
	struct name queue;
	json_t *due;

	text_name(&text, agent->type, agent->instance);
	buf_putc(&text, '\0');
	if (json_object_get(a->looked, text.data)) {
		buf_done(&text);
		return true;
	}
	json_object_set_new(a->looked, text.data, json_true());
	buf_done(&text);
	snprintf(queue.type, sizeof(queue.type), "%.*s", (int)agent->type.n, agent->type.p);
	snprintf(queue.instance, sizeof(queue.instance), "%.*s", (int)agent->instance.n,
		 agent->instance.p);
	p = ctl_params(&queue);
	coord_param_int(p, "limit", LOOK_READY);
	due = ctl_call(a->ctl, "peek", p, 0);
	note_found(a, due, "message.adopted.mark");
	json_decref(due);
	return !a->ctl->status && look_at_dead(a, &queue);
}

/* --- sending --------------------------------------------------------------------- */

/* Elements of the batch, as far as it is of one sender and fits a frame. */
static size_t
run_length(const struct adopt *a, struct pending *const *list, size_t n)
{
	size_t bytes = FRAME_SLACK, i;

	for (i = 0; i < n && i < BATCH_MOST; i++) {
		const struct old_message *m = &list[i]->m;

		bytes += m->message.n + m->recipient.type.n + m->recipient.instance.n + 64;
		if (i &&
		    (bytes > a->max_frame || !str_eq(m->sender.type, list[0]->m.sender.type) ||
		     !str_eq(m->sender.instance, list[0]->m.sender.instance)))
			break;
	}
	return i;
}

static void
pack_agent(msgpack_packer *pk, const struct agent_id *agent)
{
	struct buf b = { 0 };

	mp_put_map(&b, 2);
	mp_put_lit(&b, "type");
	mp_put_str(&b, agent->type);
	mp_put_lit(&b, "instance");
	mp_put_str(&b, agent->instance);
	coord_pack_raw(pk, b.data, b.len);
	buf_done(&b);
}

/* The answers to a run; NULL on failure, which a->ctl->why tells. */
static json_t *
send_batch(struct adopt *a, struct pending *const *run, size_t n, int64_t now_us)
{
	struct coord_params *p = ctl_params(NULL);
	msgpack_packer *pk = coord_param(p, "sender");
	json_t *results;

	pack_agent(pk, &run[0]->m.sender);
	pk = coord_param(p, "messages");
	msgpack_pack_array(pk, n);
	for (size_t i = 0; i < n; i++) {
		double delay =
			run[i]->due_us > now_us ? (double)(run[i]->due_us - now_us) / 1e6 : 0;
		bool has_delay = delay > 0 && !run[i]->is_dead;

		msgpack_pack_map(pk, 2 + has_delay + run[i]->is_dead);
		coord_pack_str(pk, "recipient");
		pack_agent(pk, &run[i]->m.recipient);
		coord_pack_str(pk, "message");
		coord_pack_raw(pk, run[i]->m.message.p, run[i]->m.message.n);
		if (has_delay) {
			coord_pack_str(pk, "delay");
			msgpack_pack_double(pk, delay < MAX_DELAY_S ? delay : MAX_DELAY_S);
		}
		if (run[i]->is_dead) {
			coord_pack_str(pk, "ttl");
			msgpack_pack_int(pk, 0);
		}
	}
	a->ctl->is_silent = true;
	results = ctl_call(a->ctl, "send_batch", p, 0);
	a->ctl->is_silent = false;
	if (results && json_array_size(results) != n) {
		json_decref(results);
		a->ctl->why =
			(struct coord_error){ .status = COORD_PROTOCOL,
					      .message = "send_batch was answered with another "
							 "number of results" };
		return NULL;
	}
	return results;
}

static bool
is_refusal(const struct adopt *a)
{
	return a->ctl->why.status == COORD_REFUSED &&
	       (!strcmp(a->ctl->why.code, "bad_request") ||
		!strcmp(a->ctl->why.code, "too_large"));
}

/* Whether the broker has certainly stored nothing. */
static bool
is_unapplied(const struct adopt *a)
{
	const struct coord_error *why = &a->ctl->why;

	return why->status == COORD_CONNECT ||
	       (why->status == COORD_REFUSED && strcmp(why->applied, "unknown") != 0 &&
		strcmp(why->code, "internal") != 0);
}

/* Whether all of a run may still be sent: what was sent before must be known as a repeat when it arrives. */
static bool
is_in_time(struct adopt *a, struct pending *const *run, size_t n, int64_t now_us)
{
	for (size_t i = 0; i < n; i++) {
		if (now_us - run[i]->since_us < (int64_t)a->window_us - margin_us(a) / 2)
			continue;
		a->status = ctl_fail(EX_TEMPFAIL, "this was stopped for longer than the broker "
						  "knows a repeat; run it again");
		return false;
	}
	return true;
}

/* Send a run; what the broker says of each is noted there. False: it was not answered. */
static bool
send_run(struct adopt *a, struct old_queue *q, enum part part, struct pending *const *run,
	 size_t n, int64_t now_us)
{
	json_t *results, *result;
	struct buf key = { 0 };
	size_t i;

	results = send_batch(a, run, n, now_us);
	adopt_key(a, &key, q, part);
	if (!results && is_refusal(a) && n == 1) {
		run[0]->is_refused = true;
		q->damaged++;
		adopt_problem(a, PROBLEM_DAMAGED, buf_str(&key), run[0]->m.id, "%s: %s",
			      a->ctl->why.code, a->ctl->why.message);
	} else if (!results && is_refusal(a)) {
		/* One of them has what the broker takes from nobody: each alone. */
		for (i = 0; i < n && send_run(a, q, part, run + i, 1, now_us) && !q->is_stopped;
		     i++)
			;
	}
	buf_done(&key);
	if (!results)
		return is_refusal(a);
	json_array_foreach(results, i, result)
	{
		run[i]->is_done = json_bool_at(result, "delivered");
		run[i]->is_refused = !run[i]->is_done;
		q->copied += run[i]->is_done;
		q->left += run[i]->is_refused;
		q->is_stopped = q->is_stopped || run[i]->is_refused;
	}
	json_decref(results);
	return true;
}

/* Settle the marks of those that are done, or certainly not. */
static bool
settle(struct adopt *a, struct old_queue *q, struct pending *const *list, size_t n,
       bool is_done)
{
	const struct mark **marks = xcalloc(n + 1, sizeof(struct mark *));
	size_t count = 0;
	bool is_good;

	for (size_t i = 0; i < n; i++) {
		if (is_done ? list[i]->is_done : list[i]->is_refused)
			marks[count++] = &list[i]->m.mark;
	}
	is_good = journal_settle(a, q, marks, count, is_done);
	free(marks);
	return is_good;
}

static bool
send_all(struct adopt *a, struct old_queue *q, enum part part, struct pending *const *list,
	 size_t n, int64_t now_us)
{
	const struct mark **marks = xcalloc(n + 1, sizeof(struct mark *));
	double began_s = adopt_now_s();
	size_t from = 0, len;
	bool is_good;

	for (size_t i = 0; i < n; i++)
		marks[i] = &list[i]->m.mark;
	is_good = journal_sending(a, q, marks, n, now_us);
	free(marks);
	if (!is_good)
		return false;
	for (; from < n && !q->is_stopped; from += len) {
		int64_t now = now_us + (int64_t)((adopt_now_s() - began_s) * 1e6);

		len = run_length(a, list + from, n - from);
		if (!is_in_time(a, list + from, len, now) || !adopt_keep_lock(a))
			break;
		if (send_run(a, q, part, list + from, len, now))
			continue;
		for (size_t i = from; i < from + len; i++)
			list[i]->is_unknown = !is_unapplied(a) && !list[i]->is_done;
		a->status = ctl_refused(&a->ctl->why);
		break;
	}
	/* The rest has not left. */
	for (size_t i = 0; i < n; i++) {
		if (list[i]->is_done || list[i]->is_unknown)
			continue;
		q->left += !list[i]->is_refused;
		list[i]->is_refused = true;
	}
	is_good = settle(a, q, list, n, true) && settle(a, q, list, n, false);
	return is_good && !a->status;
}

/* --- deciding -------------------------------------------------------------------- */

/* One that was being sent so long ago that the broker may have forgotten it. Whether it is to be sent. */
static bool
is_uncertain_sent(struct adopt *a, struct old_queue *q, enum part part, struct pending *p,
		  bool *is_known)
{
	const char *how = GIVEN(a->ctl, uncertain) ? TEXT(a->ctl, uncertain) : "";
	const struct mark *mark = &p->m.mark;
	struct buf key = { 0 };

	if (!a->is_dry && !look(a, &p->m.recipient)) {
		a->status = a->ctl->status;
		return false;
	}
	*is_known = mark_set_has(&a->found, mark) || !strcmp(how, "skip");
	if (*is_known)
		return false;
	if (!strcmp(how, "send"))
		return a->is_dry || journal_settle(a, q, &mark, 1, false);
	q->uncertain++;
	a->outcome = EXIT_REFUSED;
	adopt_key(a, &key, q, part);
	adopt_problem(a, PROBLEM_UNCERTAIN, buf_str(&key), p->m.id,
		      "was being sent when a run was interrupted, longer ago than the broker "
		      "remembers, and is not seen "
		      "in its queue: consumed, or never sent? --uncertain send or skip");
	buf_done(&key);
	return false;
}

/* What of the page is to be sent; the rest is counted. Their number. */
static size_t
decide(struct adopt *a, struct old_queue *q, enum part part, struct pending *page, size_t n,
       int64_t now_us, struct pending **out)
{
	struct journal_entry *entries = xcalloc(n + 1, sizeof(*entries));
	const struct mark **marks = xcalloc(n + 1, sizeof(struct mark *));
	size_t count = 0;
	bool is_good;

	for (size_t i = 0; i < n; i++)
		marks[i] = &page[i].m.mark;
	is_good = journal_read(a, q, marks, n, entries);
	for (size_t i = 0; i < n && is_good; i++) {
		bool is_old =
			entries[i].state == JOURNAL_SENDING &&
			now_us - entries[i].since_us >= (int64_t)a->window_us - margin_us(a);
		bool is_known = entries[i].state == JOURNAL_DONE, is_sent = !is_known;

		page[i].since_us =
			entries[i].state == JOURNAL_SENDING ? entries[i].since_us : now_us;
		if (is_old && (!a->is_dry || a->window_us)) {
			is_sent = is_uncertain_sent(a, q, part, &page[i], &is_known);
			page[i].since_us = now_us;
			page[i].is_done = is_known;
			is_good = !a->status;
		}
		q->before += is_known;
		if (is_sent && (a->is_dry || q->is_stopped))
			q->left++;
		else if (is_sent)
			out[count++] = &page[i];
	}
	if (is_good && !a->is_dry) {
		struct pending **known = xcalloc(n + 1, sizeof(struct pending *));

		for (size_t i = 0; i < n; i++)
			known[i] = &page[i];
		is_good = settle(a, q, known, n, true); /* those that were found after all */
		free(known);
	}
	for (size_t i = 0; i < n; i++)
		page[i].is_done = false;
	free(entries);
	free(marks);
	return is_good ? count : 0;
}

/* --- a page ---------------------------------------------------------------------- */

static void
count_found(struct adopt *a, struct old_queue *q, enum part part, const struct old_entry *e,
	    int64_t now_us, struct str key)
{
	if (part == PART_DEAD) {
		q->dead++;
	} else if (part == PART_RESERVED) {
		q->reserved++;
		if (e->at_us > now_us)
			adopt_problem(a, PROBLEM_NOTE, key, e->token,
				      "reserved for another %.0f s: is the old worker stopped? "
				      "It is copied as due then",
				      (double)(e->at_us - now_us) / 1e6);
	} else if (e->at_us > now_us) {
		q->delayed++;
		if (e->at_us - now_us > (int64_t)MAX_DELAY_S * 1000000)
			adopt_problem(a, PROBLEM_NOTE, key, e->member,
				      "due in more than 365 days: copied as due then");
	} else {
		q->ready++;
	}
}

/* An entry of the audit list is an orphan when nothing else knows its message, nor the journal. */
static bool
tell_orphans(struct adopt *a, struct old_queue *q, struct pending *page,
	     struct old_entry *entries, const size_t *which, size_t n, struct str key)
{
	struct journal_entry *states = xcalloc(n + 1, sizeof(*states));
	const struct mark **marks = xcalloc(n + 1, sizeof(struct mark *));
	bool is_good;

	for (size_t i = 0; i < n; i++)
		marks[i] = &page[i].m.mark;
	is_good = journal_read(a, q, marks, n, states);
	for (size_t i = 0; i < n && is_good; i++) {
		if (states[i].state != JOURNAL_NONE)
			continue;
		q->orphans++;
		adopt_problem(
			a, PROBLEM_ORPHAN, key, entries[which[i]].member,
			"only in the audit list: done long ago, or lost when a worker died");
	}
	free(states);
	free(marks);
	return is_good;
}

/* The audit list may have it again. */
static void
tell_damaged(struct adopt *a, struct old_queue *q, enum part part, struct str member,
	     struct str key, const char *why)
{
	struct mark mark;

	adopt_digest(member, &mark);
	if (part != PART_AUDIT) {
		q->damaged++;
		mark_set_add(&q->seen, &mark);
		adopt_problem(a, PROBLEM_DAMAGED, key, member, "%s", why);
	} else if (!mark_set_has(&q->seen, &mark)) {
		q->orphans++;
		adopt_problem(a, PROBLEM_ORPHAN, key, member,
			      "only in the audit list, and damaged: %s", why);
	}
}

static int64_t
copy_page(struct adopt *a, struct old_queue *q, enum part part, struct old_entry *entries,
	  size_t n, int64_t now_us)
{
	struct pending *page = xcalloc(n + 1, sizeof(*page)),
		       **out = xcalloc(n + 1, sizeof(struct pending *));
	size_t *which = xcalloc(n + 1, sizeof(*which)), count = 0, to_send;
	struct buf key = { 0 };
	char why[400];
	bool is_good = adopt_keep_lock(a);

	adopt_key(a, &key, q, part);
	for (size_t i = 0; i < n && is_good; i++) {
		struct pending *p = &page[count];

		if (str_eq(entries[i].member, STR(ADOPT_REMOVED)))
			continue;
		if (!adopt_message(a, q, part, entries[i].member, &p->m, why, sizeof(why))) {
			tell_damaged(a, q, part, entries[i].member, buf_str(&key), why);
			continue;
		}
		if (part == PART_AUDIT) {
			if (!mark_set_has(&q->seen, &p->m.mark))
				which[count++] = i;
			continue;
		}
		if (p->m.message.n + 2 * FRAME_SLACK > a->max_frame) {
			q->damaged++;
			adopt_problem(a, PROBLEM_DAMAGED, buf_str(&key), entries[i].member,
				      "is larger than limits.max_frame");
			continue;
		}
		if (!mark_set_add(&q->seen, &p->m.mark)) {
			q->twice++;
			adopt_problem(
				a, PROBLEM_NOTE, buf_str(&key), entries[i].member,
				"the same message is in this queue already: one copy is made");
			continue;
		}
		count_found(a, q, part, &entries[i], now_us, buf_str(&key));
		if (*p->m.note)
			adopt_problem(a, PROBLEM_NOTE, buf_str(&key), entries[i].member, "%s",
				      p->m.note);
		p->due_us = entries[i].at_us;
		p->is_dead = part == PART_DEAD;
		count++;
	}
	if (is_good && part == PART_AUDIT) {
		is_good = tell_orphans(a, q, page, entries, which, count, buf_str(&key));
	} else if (is_good) {
		to_send = decide(a, q, part, page, count, now_us, out);
		is_good =
			!a->status && (!to_send || send_all(a, q, part, out, to_send, now_us));
	}
	for (size_t i = 0; i <= n; i++)
		buf_done(&page[i].m.bytes);
	free(page);
	free(out);
	free(which);
	buf_done(&key);
	return is_good && !a->status ? 0 : -1;
}

bool
adopt_copy(struct adopt *a, struct old_queue *q)
{
	bool is_good = true;

	a->is_telling = true;
	for (enum part part = 0; part < PARTS && is_good; part++)
		is_good = adopt_walk(a, q, part, copy_page);
	a->is_telling = false;
	mark_set_done(&q->seen);
	if (q->is_stopped) {
		a->outcome = EXIT_REFUSED;
		ctl_fail(EX_OK,
			 "%s is full: %.0f messages are left; let workers catch up, or "
			 "coordctl queue set "
			 "%s queue_size=N, and run this again",
			 q->rest, (double)q->left, q->rest);
	}
	return is_good;
}
