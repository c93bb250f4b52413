/*
 * The operations of src/queue over a store in memory that holds one queue. Its tick does what the
 * script does, as far as these tests ask: order within one priority, no delays, no deadlines.
 */
#include <check.h>
#include <stdlib.h>

#include "../lib/fake_store.h"
#include "../lib/pack.h"
#include "base/mem.h"
#include "queue/pack.h"
#include "queue/queue.h"

enum { ROOM = 2048, TICK_FIRST = 7, STATS_BYTES = 9 * 7 + 1 + 5 + 4 };
#define NOW 1800000000000000ull

struct kept {
	struct buf item;
	char field[TOKEN_FIELD_LEN]; /* of a reserved one */
};

static struct fixture {
	struct loop *loop;
	struct fake_store *fake;
	struct queues *queues;
	struct queue *q;
	struct kept ready[ROOM], reserved[ROOM];
	unsigned nready, nreserved, ticks;
	uint64_t fence;
} f;

/* The store -------------------------------------------------------------------------------------- */

static void
insert_ready(unsigned at, struct str item)
{
	memmove(&f.ready[at + 1], &f.ready[at], (f.nready - at) * sizeof(f.ready[0]));
	f.ready[at].item = (struct buf){ 0 };
	buf_put(&f.ready[at].item, item.p, item.n);
	f.nready++;
}

static char
settle(char kind, struct str field)
{
	for (unsigned i = 0; i < f.nreserved; i++) {
		struct kept *k = &f.reserved[i];

		if (memcmp(k->field, field.p, TOKEN_FIELD_LEN) != 0)
			continue;
		if (kind == 'X')
			return '1';
		if (kind != 'A')
			insert_ready(kind == 'N' ? f.nready : 0, buf_str(&k->item));
		buf_done(&k->item);
		*k = f.reserved[--f.nreserved];
		return '1';
	}
	return '0';
}

static struct reply *
reserve(unsigned i, const char *random)
{
	struct kept k = f.ready[0];
	char *to = k.field;

	memmove(&f.ready[0], &f.ready[1], --f.nready * sizeof(f.ready[0]));
	to = pack_uint(to, 1, (f.fence + i + 1) & 255);
	to = pack_uint(to, 4, k.item.len);
	memcpy(to, random + i * TOKEN_RANDOM_LEN, TOKEN_RANDOM_LEN);
	f.reserved[f.nreserved++] = k;
	return fake_reply_str(f.fake, buf_str(&k.item));
}

static struct reply *
run_tick(const struct fake_call *call)
{
	const char *head = call->args[1].p;
	unsigned nsettle = (unsigned)unpack_uint(head, 2),
		 nsend = (unsigned)unpack_uint(head + 2, 2);
	unsigned nrun = (unsigned)unpack_uint(head + 4, 2), handed = 0, at = TICK_FIRST;
	struct buf settled = { 0 }, deadlines = { 0 }, first = { 0 };
	struct reply *items[ROOM + 2] = { 0 }, *reply;
	char bytes[64], *to = bytes;

	f.ticks++;
	for (unsigned i = 0; i < nsettle;) {
		char kind = call->args[at].p[0];
		unsigned n = (uint8_t)call->args[at].p[1] + 1u;

		at++;
		for (unsigned j = 0; j < n; j++, i++) {
			char done = settle(kind, call->args[at++]);

			buf_putc(&settled, done);
			if (kind == 'X') {
				pack_uint(buf_reserve(&deadlines, 7), 7,
					  done == '1' ? NOW + 1000000 : 0);
				deadlines.len += 7;
			}
		}
		at += kind != 'A';
	}
	for (unsigned i = 0; i < nsend; i++)
		insert_ready(f.nready, call->args[at + nsend + i]); /* behind the digests */
	to = pack_uint(to, 7, NOW);
	to = pack_uint(to, 7, f.fence);
	to = pack_uint(to, 7, NOW + 1000000);
	to = pack_uint(to, 4, 0);
	pack_uint(to, 2, 8 + 32); /* what is settled, and deadlines, stand behind the items */
	buf_put(&first, bytes, 27);
	for (unsigned i = 0; i < nrun; i++) {
		unsigned wanted = (unsigned)unpack_uint(call->args[6].p + 14 * i + 8, 2), n = 0;

		for (; n < wanted && f.nready; n++, handed++)
			items[handed] = reserve(handed, call->args[5].p);
		pack_uint(buf_reserve(&first, 2), 2, n);
		first.len += 2;
	}
	pack_uint(first.data + 21, 4, f.nready);
	f.fence += handed;
	ck_assert_uint_le(handed, 3); /* as many as the next line has room for */
	items[handed] = fake_reply_str(f.fake, buf_str(&settled));
	items[handed + 1] = fake_reply_str(f.fake, buf_str(&deadlines));
	reply = fake_reply_array(f.fake, 3 + handed, fake_reply_str(f.fake, buf_str(&first)),
				 items[0], items[1], items[2], items[3], items[4]);
	buf_done(&settled);
	buf_done(&deadlines);
	buf_done(&first);
	return reply;
}

static struct reply *
on_call(void *arg, struct fake_store *fake, const struct fake_call *call)
{
	static const char nothing[128];

	(void)arg;
	switch (call->script) {
	case SCRIPT_TICK:
	case SCRIPT_TICK_OOM:
		return run_tick(call);
	case SCRIPT_STATS:
		return fake_reply_array(
			fake, 1, fake_reply_str(fake, (struct str){ nothing, STATS_BYTES }));
	case SCRIPT_SWEEP:
		return fake_reply_array(fake, 1,
					fake_reply_str(fake, (struct str){ nothing, 23 }));
	case SCRIPT_LIST:
		return fake_reply_array(fake, 1,
					fake_reply_str(fake, STR("default:w:default")));
	case SCRIPT_DLQ_REDRIVE:
	case SCRIPT_DLQ_PURGE:
		return fake_reply_array(fake, 3, fake_reply_int(fake, 2),
					fake_reply_str(fake, STR("9")),
					fake_reply_int(fake, fake_store_calls(fake) < 2));
	case SCRIPT_CONFIGURE:
		return fake_reply_array(fake, 2, fake_reply_str(fake, STR("7;;;;;;")),
					fake_reply_str(fake, STR("")));
	case SCRIPT_PURGE:
		return fake_reply_int(fake, 0);
	default:
		return fake_reply_array(fake, 0);
	}
}

static void
on_wake(void *arg, uint64_t due_us)
{
	(void)arg;
	ck_assert_uint_eq(due_us, NOW + 1000000);
}

static void
set_up(void)
{
	static const struct queues_ops ops = { on_wake };
	static const struct queue_policy policy = { .queue_size = 10000,
						    .retry_attempts = 3,
						    .backoff_factor = 2,
						    .dedup_window_us = 60000000,
						    .forget_after_us = 3600000000 };
	struct agent_id w = { STR("w"), STR("default") };

	f.loop = loop_new();
	f.fake = fake_store_new(f.loop);
	fake_store_on_call(f.fake, on_call, NULL);
	f.queues = queues_new(f.loop, fake_store_store(f.fake), "coordd", "b-0123456789abcdef",
			      &policy, 1 << 20, &ops, NULL);
	f.q = queues_get(f.queues, STR("default"), &w);
	queue_pin(f.q);
}

static void
tear_down(void)
{
	for (unsigned i = 0; i < f.nready; i++)
		buf_done(&f.ready[i].item);
	for (unsigned i = 0; i < f.nreserved; i++)
		buf_done(&f.reserved[i].item);
	queue_unpin(f.q);
	fake_store_free(f.fake);
	queues_free(f.queues);
	loop_free(f.loop);
}

static void
run_idle(void)
{
	for (unsigned i = 0; i < 30; i++)
		loop_turn(f.loop, false);
}

/* What callbacks said ----------------------------------------------------------------------------- */

static struct got {
	unsigned fired;
	enum err err;
	bool done;
	uint64_t number;
	struct token token;
	char id[8];
} got;

static void
on_sent(void *arg, enum err err, enum sent sent)
{
	struct got *g = arg;

	g->fired++;
	g->err = err;
	g->number = sent;
}

static void
on_received(void *arg, enum err err, const struct reservation *res, unsigned n)
{
	struct got *g = arg;

	g->fired++;
	g->err = err;
	g->number = n;
	if (n) {
		g->token = res[0].token;
		memcpy(g->id, res[0].item.message_id.p, res[0].item.message_id.n);
	}
}

static void
on_settled(void *arg, enum err err, bool done, uint64_t deadline_us)
{
	struct got *g = arg;

	g->fired++;
	g->err = err;
	g->done = done;
	g->number = deadline_us;
}

static void
on_count(void *arg, enum err err, uint64_t count)
{
	struct got *g = arg;

	g->fired++;
	g->err = err;
	g->number = count;
}

static void
on_stats(void *arg, enum err err, const struct queue_stats *stats)
{
	struct got *g = arg;

	g->fired++;
	g->err = err;
	ck_assert_int_eq(stats != NULL, !err);
}

static void
on_list(void *arg, enum err err, const struct str *names, const struct queue_stats *stats,
	unsigned n)
{
	struct got *g = arg;

	(void)names;
	(void)stats;
	g->fired++;
	g->err = err;
	g->number = n;
}

static void
on_policy(void *arg, enum err err, const struct queue_policy *policy)
{
	struct got *g = arg;

	g->fired++;
	g->err = err;
	g->number = err ? 0 : policy->queue_size;
}

static void
on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct got *g = arg;

	(void)reply;
	g->fired++;
	g->err = err;
}

static void
send_one(struct got *g, const char *id)
{
	struct agent_id s = { STR("s"), STR("1") };
	struct message m = {
		.id = str_of(id), .priority = 5, .payload = STR("\x80"), .map = STR("\x80")
	};

	queue_send(f.q, &s, &m, 0, false, 0, on_sent, g);
}

/* One message, reserved: its token. */
static struct token
reserved_one(void)
{
	struct got sent = { 0 }, received = { 0 };

	send_one(&sent, "m");
	queue_receive(f.q, 5000000, NULL, 1, 0, on_received, NULL, &received);
	run_idle();
	ck_assert_uint_eq(sent.fired, 1);
	ck_assert_uint_eq(received.number, 1);
	return received.token;
}

/* ------------------------------------------------------------------------------------------------- */

START_TEST(what_is_sent_is_received_and_acked)
{
	struct token token = reserved_one();
	struct settle_how how = { .kind = SETTLE_ACK };

	queue_settle(f.q, &token, &how, on_settled, &got);
	run_idle();
	ck_assert(got.done);
	ck_assert_uint_eq(f.nready + f.nreserved, 0);
	queue_settle(f.q, &token, &how, on_settled, &got);
	run_idle();
	ck_assert_uint_eq(got.fired, 2);
	ck_assert(!got.done);
}
END_TEST

START_TEST(what_one_turn_asks_leaves_as_one_call)
{
	struct got sent[100] = { 0 };
	struct token token = reserved_one();
	struct settle_how how = { .kind = SETTLE_ACK };

	f.ticks = 0;
	for (unsigned i = 0; i < 100; i++)
		send_one(&sent[i], "m");
	queue_settle(f.q, &token, &how, on_settled, &got);
	queue_receive(f.q, 5000000, NULL, 1, 0, on_received, NULL, &got);
	run_idle();
	ck_assert_uint_eq(f.ticks, 1);
	ck_assert_uint_eq(got.fired, 2);
	for (unsigned i = 0; i < 100; i++)
		ck_assert_uint_eq(sent[i].fired, 1);
}
END_TEST

START_TEST(more_than_one_call_holds_waits_for_the_next)
{
	static struct got sent[1500];

	memset(sent, 0, sizeof(sent));
	for (unsigned i = 0; i < 1500; i++)
		send_one(&sent[i], "m");
	run_idle();
	ck_assert_uint_eq(f.ticks, 3);
	ck_assert_uint_eq(f.nready, 1500);
	for (unsigned i = 0; i < 1500; i++)
		ck_assert_uint_eq(sent[i].fired, 1);
}
END_TEST

START_TEST(one_call_is_in_flight_and_the_next_one_grows)
{
	struct got sent[10] = { 0 };

	fake_store_hold(f.fake, true);
	for (unsigned i = 0; i < 10; i++) {
		send_one(&sent[i], "m");
		loop_turn(f.loop, false);
	}
	ck_assert_uint_eq(fake_store_calls(f.fake), 1);
	fake_store_hold(f.fake, false);
	run_idle();
	ck_assert_uint_eq(f.ticks, 2);
	ck_assert_uint_eq(f.nready, 10);
}
END_TEST

START_TEST(parked_receivers_are_served_in_the_order_they_asked)
{
	struct got who[3] = { 0 }, sent[3] = { 0 };

	for (unsigned i = 0; i < 3; i++) {
		queue_receive(f.q, 5000000, NULL, 1, 60000000, on_received, NULL, &who[i]);
		run_idle();
	}
	ck_assert_uint_eq(queue_consumers(f.q), 3);
	queues_look_all(f.queues); /* looking in vain changes nothing */
	run_idle();
	for (unsigned i = 0; i < 3; i++) {
		send_one(&sent[i], i == 0 ? "a" : i == 1 ? "b" : "c");
		run_idle();
		ck_assert_uint_eq(queue_consumers(f.q), 2 - i);
	}
	ck_assert_str_eq(who[0].id, "a");
	ck_assert_str_eq(who[1].id, "b");
	ck_assert_str_eq(who[2].id, "c");
}
END_TEST

START_TEST(a_wait_that_ends_answers_nothing)
{
	queue_receive(f.q, 5000000, NULL, 1, 300000, on_received, NULL, &got);
	run_idle();
	ck_assert_uint_eq(got.fired, 0);
	while (!got.fired)
		loop_turn(f.loop, true);
	ck_assert_int_eq(got.err, OK);
	ck_assert_uint_eq(got.number, 0);
	ck_assert_uint_eq(queue_consumers(f.q), 0);
}
END_TEST

START_TEST(what_a_lost_client_reserved_is_released)
{
	struct got sent = { 0 };
	struct receive *r;

	send_one(&sent, "m");
	run_idle();
	fake_store_hold(f.fake, true);
	r = queue_receive(f.q, 5000000, NULL, 1, 0, on_received, NULL, &got);
	loop_turn(f.loop, false);
	receive_cancel(r); /* its call is in flight */
	fake_store_hold(f.fake, false);
	run_idle();
	ck_assert_uint_eq(got.fired, 0);
	ck_assert_uint_eq(f.nreserved, 0);
	ck_assert_uint_eq(f.nready, 1);
}
END_TEST

START_TEST(a_lost_client_that_waits_takes_nothing)
{
	struct got sent = { 0 };
	struct receive *r =
		queue_receive(f.q, 5000000, NULL, 1, 60000000, on_received, NULL, &got);

	run_idle();
	receive_cancel(r);
	send_one(&sent, "m");
	run_idle();
	ck_assert_uint_eq(got.fired, 0);
	ck_assert_uint_eq(f.nready, 1);
}
END_TEST

START_TEST(a_ring_that_comes_too_early_is_not_lost)
{
	struct got sent = { 0 };

	fake_store_hold(f.fake, true);
	queue_receive(f.q, 5000000, NULL, 1, 60000000, on_received, NULL, &got);
	loop_turn(f.loop, false);
	queues_look(f.queues, queue_name(f.q)); /* its first call has not come back */
	fake_store_hold(f.fake, false);
	run_idle();
	ck_assert_uint_eq(queue_consumers(f.q), 1);
	ck_assert_uint_eq(f.ticks, 2);
	send_one(&sent, "m");
	run_idle();
	ck_assert_uint_eq(got.number, 1);
}
END_TEST

START_TEST(when_sends_are_refused_what_travels_with_them_goes_again)
{
	struct got sent = { 0 }, received = { 0 };
	struct token token = reserved_one();
	struct settle_how how = { .kind = SETTLE_ACK };

	send_one(&sent, "x");
	run_idle();
	fake_store_reset(f.fake);
	fake_store_fail_at(f.fake, 1, ERR_REFUSED);
	sent.fired = 0;
	send_one(&sent, "y");
	queue_settle(f.q, &token, &how, on_settled, &got);
	queue_receive(f.q, 5000000, NULL, 1, 0, on_received, NULL, &received);
	run_idle();
	ck_assert_int_eq(sent.err, ERR_REFUSED);
	ck_assert_uint_eq(sent.fired, 1);
	ck_assert(got.done);
	ck_assert_uint_eq(got.fired, 1);
	ck_assert_str_eq(received.id, "x");
	/* For a while they travel apart. */
	fake_store_reset(f.fake);
	how.kind = SETTLE_RELEASE;
	send_one(&sent, "z");
	queue_settle(f.q, &received.token, &how, on_settled, &got);
	run_idle();
	ck_assert_uint_eq(fake_store_calls(f.fake), 2);
}
END_TEST

START_TEST(who_waits_when_the_broker_stops_is_told)
{
	struct got late = { 0 };

	queue_receive(f.q, 5000000, NULL, 1, 60000000, on_received, NULL, &got);
	run_idle();
	queues_end_waits(f.queues, ERR_SHUTTING_DOWN);
	ck_assert_int_eq(got.err, ERR_SHUTTING_DOWN);
	queue_receive(f.q, 5000000, NULL, 1, 60000000, on_received, NULL, &late);
	run_idle();
	ck_assert_int_eq(late.err, ERR_SHUTTING_DOWN);
	ck_assert_uint_eq(got.fired + late.fired, 2);
}
END_TEST

/* Every operation, started. Each ends with one callback, whatever call of its fails, and how. */
static void
start_operation(unsigned which)
{
	struct params values = { .have = F(queue_size), .queue_size = 7 };
	struct settle_how how = { .kind = (enum settle)which };
	struct list none = { 0 };
	struct token token = { .width = 14 };

	if (f.nreserved) {
		token.fence = f.fence;
		token.size = (uint32_t)f.reserved[0].item.len;
		memcpy(token.random, f.reserved[0].field + 5, TOKEN_RANDOM_LEN);
	}
	switch (which) {
	case SETTLE_ACK:
	case SETTLE_NACK:
	case SETTLE_RELEASE:
	case SETTLE_EXTEND:
	case SETTLE_FAIL:
		queue_settle(f.q, &token, &how, on_settled, &got);
		break;
	case 5:
		send_one(&got, "m");
		break;
	case 6:
		queue_receive(f.q, 5000000, NULL, 1, 0, on_received, NULL, &got);
		break;
	case 7:
		queue_stats(f.q, on_stats, &got);
		break;
	case 8:
		queue_peek(f.q, 10, on_reply, &got);
		break;
	case 9:
		queue_purge(f.q, on_count, &got);
		break;
	case 10:
		queue_dlq_list(f.q, 0, 10, on_reply, &got);
		break;
	case 11:
		queue_dlq_move(f.q, true, none, none, 0, on_count, &got);
		break;
	case 12:
		queue_recover(f.q, on_count, &got);
		break;
	case 13:
		queues_recover(f.queues, STR("default"), on_count, &got);
		break;
	case 14:
		queues_list(f.queues, STR("default"), STR(""), STR(""), 10, on_list, &got);
		break;
	case 15:
		queues_configure(f.queues, STR("default"), NULL, &values, on_policy, &got);
		break;
	default:
		ck_abort();
	}
}

START_TEST(whichever_call_fails_each_operation_ends_once)
{
	static const enum err errs[] = { ERR_UNSENT, ERR_UNKNOWN, ERR_REFUSED, ERR_INTERNAL };
	enum err err = errs[_i / 16];
	unsigned which = (unsigned)_i % 16;

	for (unsigned nth = 1; nth < 10; nth++) {
		bool has_failed;

		reserved_one();
		fake_store_reset(f.fake);
		fake_store_fail_at(f.fake, nth, err);
		got.fired = 0;
		start_operation(which);
		ck_assert_uint_eq(got.fired, 0); /* never before the call returns */
		run_idle();
		ck_assert_uint_eq(got.fired, 1); /* and never twice */
		has_failed = fake_store_has_failed(f.fake);
		ck_assert_msg(has_failed == (got.err != OK), "%d: call %u: %s", _i, nth,
			      err_name(got.err));
		if (!has_failed)
			return;
		ck_assert_int_eq(got.err, err);
	}
	ck_abort_msg("it never ran clean");
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("queue");
	TCase *tc = tcase_create("queue");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, what_is_sent_is_received_and_acked);
	tcase_add_test(tc, what_one_turn_asks_leaves_as_one_call);
	tcase_add_test(tc, more_than_one_call_holds_waits_for_the_next);
	tcase_add_test(tc, one_call_is_in_flight_and_the_next_one_grows);
	tcase_add_test(tc, parked_receivers_are_served_in_the_order_they_asked);
	tcase_add_test(tc, a_wait_that_ends_answers_nothing);
	tcase_add_test(tc, what_a_lost_client_reserved_is_released);
	tcase_add_test(tc, a_lost_client_that_waits_takes_nothing);
	tcase_add_test(tc, a_ring_that_comes_too_early_is_not_lost);
	tcase_add_test(tc, when_sends_are_refused_what_travels_with_them_goes_again);
	tcase_add_test(tc, who_waits_when_the_broker_stops_is_told);
	tcase_add_loop_test(tc, whichever_call_fails_each_operation_ends_once, 0, 4 * 16);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
