/*
 * Who waits is served before who comes, and is asked for again after others went first; what many queues
 * answer is told as one. Over a store in memory: its tick hands out what lies in one list, in the order
 * of the receivers, and may say that another broker's receivers were passed over.
 */
#include <check.h>
#include <string.h>

#include "../lib/fake_store.h"
#include "queue/pack.h"
#include "queue/queue.h"

enum { QUEUES = 3, ROOM = 3, HEAD = 27, SWEPT = 23, STATS = 9 * 7 + 1 + 5 + 4, YIELDS = 4 };
#define NOW 1800000000000000ull

static struct fixture {
	struct loop *loop;
	struct fake_store *fake;
	struct queues *queues;
	struct queue *q[QUEUES];
	char item[200]; /* as queue_send() wrote it */
	size_t item_len;
	unsigned ready; /* so many of it are there */
	unsigned ticks; /* with receives in them */
	bool yields;    /* the next of them finds that others were passed over */
	enum err swept[QUEUES];
	unsigned nswept;
} f;

/* The store -------------------------------------------------------------------------------------- */

static struct reply *
run_tick(const struct fake_call *call)
{
	const char *head = call->args[1].p;
	unsigned nsend = (unsigned)unpack_uint(head + 2, 2);
	unsigned nrun = (unsigned)unpack_uint(head + 4, 2), handed = 0;
	bool yields = f.yields && nrun;
	struct reply *items[ROOM] = { 0 };
	char bytes[HEAD + 2 * 8], *to = bytes;

	if (nsend) { /* arguments: seven, the digests, the items */
		struct str item = call->args[7 + nsend];

		ck_assert_uint_le(item.n, sizeof(f.item));
		memcpy(f.item, item.p, item.n);
		f.item_len = item.n;
		f.ready += nsend;
	}
	f.ticks += nrun > 0;
	f.yields = f.yields && !yields;
	ck_assert_uint_le(nrun, 8);
	to = pack_uint(to, 7, NOW);
	to = pack_uint(to, 7, 0);
	to = pack_uint(to, 7, 0);
	to = pack_uint(to, 4, 0);
	to = pack_uint(to, 2, yields ? YIELDS : 0);
	for (unsigned i = 0; i < nrun; i++) {
		unsigned n = 0, wanted = (unsigned)unpack_uint(call->args[6].p + 14 * i + 8, 2);

		for (; !yields && n < wanted && f.ready && handed < ROOM; n++, f.ready--)
			items[handed++] =
				fake_reply_str(f.fake, (struct str){ f.item, f.item_len });
		to = pack_uint(to, 2, n);
	}
	pack_uint(bytes + 21, 4, f.ready);
	return fake_reply_array(f.fake, 1 + handed,
				fake_reply_str(f.fake, (struct str){ bytes, HEAD + 2 * nrun }),
				items[0], items[1], items[2]);
}

static struct reply *
on_call(void *arg, struct fake_store *fake, const struct fake_call *call)
{
	static const char nothing[STATS];
	struct reply *stats = fake_reply_str(fake, (struct str){ nothing, STATS });
	enum err err;

	(void)arg;
	switch (call->script) {
	case SCRIPT_TICK:
	case SCRIPT_TICK_OOM:
		return run_tick(call);
	case SCRIPT_LIST:
		return fake_reply_array(fake, QUEUES, fake_reply_str(fake, STR("default:w:0")),
					fake_reply_str(fake, STR("default:w:1")),
					fake_reply_str(fake, STR("default:w:2")));
	case SCRIPT_STATS:
		return fake_reply_array(fake, QUEUES, stats, stats, stats);
	case SCRIPT_SWEEP:
		ck_assert_uint_lt(f.nswept, QUEUES);
		err = f.swept[f.nswept++];
		return err ? fake_reply_err(fake, err)
			   : fake_reply_array(
				     fake, 1,
				     fake_reply_str(fake, (struct str){ nothing, SWEPT }));
	default:
		return fake_reply_array(fake, 0);
	}
}

static void
on_wake(void *arg, uint64_t due_us)
{
	(void)arg;
	(void)due_us;
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
	static const char *const names[QUEUES] = { "0", "1", "2" };

	memset(&f, 0, sizeof(f)); /* CK_FORK=no */
	f.loop = loop_new();
	f.fake = fake_store_new(f.loop);
	fake_store_on_call(f.fake, on_call, NULL);
	f.queues = queues_new(f.loop, fake_store_store(f.fake), "coordd", "b-0123456789abcdef",
			      &policy, 1 << 20, &ops, NULL);
	for (unsigned i = 0; i < QUEUES; i++) {
		struct agent_id w = { STR("w"), str_of(names[i]) };

		f.q[i] = queues_get(f.queues, STR("default"), &w);
		queue_pin(f.q[i]);
	}
}

static void
tear_down(void)
{
	queues_end_waits(f.queues, ERR_UNSENT);
	for (unsigned i = 0; i < QUEUES; i++)
		queue_unpin(f.q[i]);
	fake_store_free(f.fake);
	queues_free(f.queues);
	loop_free(f.loop);
}

static void
run_idle(void)
{
	for (unsigned i = 0; i < 10; i++)
		loop_turn(f.loop, false);
}

/* Turn as time passes until so many calls asked for somebody, for 3 s at most. */
static void
run_until(unsigned ticks)
{
	uint64_t end = loop_clock_us() + 3000000;

	while (f.ticks < ticks && loop_clock_us() < end)
		loop_turn(f.loop, false);
	ck_assert_uint_ge(f.ticks, ticks);
	run_idle();
}

/* What callbacks said ----------------------------------------------------------------------------- */

struct got {
	unsigned fired;
	enum err err;
	uint64_t number;
};

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

	(void)res;
	g->fired++;
	g->err = err;
	g->number = n;
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
send_one(struct got *g)
{
	struct agent_id s = { STR("s"), STR("1") };
	struct message m = {
		.id = STR("m"), .priority = 5, .payload = STR("\x80"), .map = STR("\x80")
	};

	queue_send(f.q[0], &s, &m, 0, false, 0, on_sent, g);
}

static void
ask(struct queue *q, uint64_t wait_us, struct got *g)
{
	*g = (struct got){ 0 };
	queue_receive(q, 5000000, NULL, 1, wait_us, on_received, NULL, g);
}

static void
park(struct queue *q, struct got *g)
{
	ask(q, 60000000, g);
	run_idle();
	ck_assert_uint_eq(g->fired, 0);
}

/* ------------------------------------------------------------------------------------------------- */

START_TEST(who_waits_is_served_before_who_comes_with_the_message)
{
	static struct got sent, waits, comes;

	park(f.q[0], &waits);
	ask(f.q[0], 0, &comes);
	send_one(&sent); /* all of one turn is one call */
	run_idle();
	ck_assert_uint_eq(waits.number, 1);
	ck_assert_uint_eq(comes.fired, 1);
	ck_assert_uint_eq(comes.number, 0);
}
END_TEST

START_TEST(who_waits_is_served_before_who_comes_as_something_falls_due)
{
	static struct got sent, first, second, comes;

	send_one(&sent); /* how an item looks */
	run_idle();
	f.ready = 0;
	park(f.q[0], &first);
	park(f.q[0], &second);
	f.ready = 2; /* the script finds them due in the very call that somebody comes with */
	ask(f.q[0], 0, &comes);
	run_idle();
	ck_assert_uint_eq(first.number, 1);
	ck_assert_uint_eq(second.number, 1);
	ck_assert_uint_eq(comes.fired, 1);
	ck_assert_uint_eq(comes.number, 0);
}
END_TEST

START_TEST(after_others_went_first_it_asks_again_by_itself)
{
	static struct got sent, waits;
	uint64_t begun = loop_clock_us();

	send_one(&sent);
	run_idle();
	f.yields = true;
	ask(f.q[0], 60000000, &waits);
	run_until(2);
	ck_assert_uint_ge(loop_clock_us() - begun, 10000); /* the others' time */
	ck_assert_uint_eq(waits.number, 1);
}
END_TEST

START_TEST(while_others_go_first_who_comes_waits_behind_who_does)
{
	static struct got sent, first, second;

	f.yields = true;
	ask(f.q[0], 60000000, &first);
	run_idle();
	ask(f.q[0], 60000000, &second);
	run_idle();
	send_one(&sent);
	run_idle();
	run_until(2);
	ck_assert_uint_eq(sent.fired, 1);
	ck_assert_uint_eq(first.number, 1);
	ck_assert_uint_eq(second.fired, 0);
}
END_TEST

/* One timer serves all queues: the second one's time ends a little after it. */
START_TEST(two_queues_where_others_go_first_both_ask_again)
{
	static struct got waits[2];

	for (unsigned i = 0; i < 2; i++) {
		uint64_t until = loop_clock_us() + 6000;

		f.yields = true;
		ask(f.q[i], 60000000, &waits[i]);
		while (loop_clock_us() < until)
			loop_turn(f.loop, false);
	}
	run_until(4);
}
END_TEST

/* What may have been done in one queue makes the whole unknown, wherever that queue stands. */
START_TEST(a_recovery_that_failed_in_part_says_the_worst_of_it)
{
	static const struct {
		enum err swept[QUEUES], whole;
	} cases[] = {
		{ { OK, OK, OK }, OK },
		{ { ERR_UNKNOWN, OK, OK }, ERR_UNKNOWN },
		{ { OK, OK, ERR_UNKNOWN }, ERR_UNKNOWN },
		{ { ERR_UNKNOWN, ERR_UNSENT, OK }, ERR_UNKNOWN },
		{ { ERR_UNSENT, ERR_UNKNOWN, OK }, ERR_UNKNOWN },
		{ { ERR_UNKNOWN, ERR_UNSENT, ERR_REFUSED }, ERR_UNKNOWN },
		{ { OK, ERR_UNSENT, OK }, ERR_UNSENT },
		{ { ERR_REFUSED, OK, OK }, ERR_REFUSED },
	};
	struct got got = { 0 };

	memcpy(f.swept, cases[_i].swept, sizeof(f.swept));
	queues_recover(f.queues, STR("default"), on_count, &got);
	ck_assert_uint_eq(got.fired, 0);
	run_idle();
	ck_assert_uint_eq(got.fired, 1);
	ck_assert_uint_eq(f.nswept, QUEUES);
	ck_assert_int_eq(got.err, cases[_i].whole);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("waiting");
	TCase *tc = tcase_create("waiting");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 30);
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, who_waits_is_served_before_who_comes_with_the_message);
	tcase_add_test(tc, who_waits_is_served_before_who_comes_as_something_falls_due);
	tcase_add_test(tc, after_others_went_first_it_asks_again_by_itself);
	tcase_add_test(tc, while_others_go_first_who_comes_waits_behind_who_does);
	tcase_add_test(tc, two_queues_where_others_go_first_both_ask_again);
	tcase_add_loop_test(tc, a_recovery_that_failed_in_part_says_the_worst_of_it, 0, 8);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
