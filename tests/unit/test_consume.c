/*
 * Consumers over a store in memory that holds one queue: its tick settles, takes in and hands out in the order of
 * sending, its check knows what is reserved.
 */
#include <check.h>
#include <stdlib.h>
#include <unistd.h>

#include "../lib/fake_store.h"
#include "base/mem.h"
#include "queue/pack.h"
#include "queue/queue.h"

enum { ROOM = 64, HANDED = 16, TICK_FIRST = 7, RUN_BYTES = 14, HEAD = 27 };
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
	unsigned nready, nreserved;
	unsigned ticks, checks, checked; /* calls, and fields in the last check */
	uint64_t fence;
} f;

/* The store -------------------------------------------------------------------------------------- */

static void
take(struct kept *from, unsigned *n, unsigned at)
{
	buf_done(&from[at].item);
	memmove(&from[at], &from[at + 1], (--*n - at) * sizeof(from[0]));
}

static int
find_reserved(struct str field)
{
	for (unsigned i = 0; i < f.nreserved; i++)
		if (!memcmp(f.reserved[i].field, field.p, TOKEN_FIELD_LEN))
			return (int)i;
	return -1;
}

static void
put_ready(unsigned at, struct str item)
{
	memmove(&f.ready[at + 1], &f.ready[at], (f.nready++ - at) * sizeof(f.ready[0]));
	f.ready[at].item = (struct buf){ 0 };
	buf_put(&f.ready[at].item, item.p, item.n);
}

static char
settle(char kind, struct str field)
{
	int at = find_reserved(field);

	if (at < 0)
		return '0';
	if (kind == 'R')
		put_ready(0, buf_str(&f.reserved[at].item));
	take(f.reserved, &f.nreserved, (unsigned)at);
	return '1';
}

static struct reply *
hand_out(unsigned i, const char *random)
{
	struct kept *k = &f.reserved[f.nreserved];
	char *to = k->field;

	k->item = (struct buf){ 0 };
	buf_put(&k->item, f.ready[0].item.data, f.ready[0].item.len);
	take(f.ready, &f.nready, 0);
	to = pack_uint(to, 1, (f.fence + i + 1) & 255);
	to = pack_uint(to, 4, k->item.len);
	memcpy(to, random + i * TOKEN_RANDOM_LEN, TOKEN_RANDOM_LEN);
	f.nreserved++;
	return fake_reply_str(f.fake, buf_str(&k->item));
}

static struct reply *
run_tick(const struct fake_call *call)
{
	const char *head = call->args[1].p;
	unsigned nsettle = (unsigned)unpack_uint(head, 2),
		 nsend = (unsigned)unpack_uint(head + 2, 2);
	unsigned nrun = (unsigned)unpack_uint(head + 4, 2), handed = 0, at = TICK_FIRST;
	struct reply *items[HANDED + 1] = { NULL }, *first;
	struct buf settled = { 0 };
	char out[HEAD + 2 * HANDED] = "";

	f.ticks++;
	for (unsigned i = 0; i < nsettle;) {
		char kind = call->args[at].p[0];
		unsigned n = (uint8_t)call->args[at++].p[1] + 1u;

		for (unsigned j = 0; j < n; j++, i++)
			buf_putc(&settled, settle(kind, call->args[at++]));
		at += kind != 'A';
	}
	for (unsigned i = 0; i < nsend; i++)
		put_ready(f.nready, call->args[at + nsend + i]); /* behind the digests */
	pack_uint(out, 7, NOW);
	pack_uint(out + 7, 7, f.fence);
	ck_assert_uint_le(nrun, HANDED);
	for (unsigned i = 0; i < nrun; i++) {
		unsigned wanted = (unsigned)unpack_uint(call->args[6].p + RUN_BYTES * i + 8, 2);
		unsigned n = 0;

		for (; n < wanted && f.nready && handed < HANDED; n++, handed++)
			items[handed] = hand_out(handed, call->args[5].p);
		pack_uint(out + HEAD + 2 * i, 2, n);
	}
	pack_uint(out + 21, 4, f.nready);
	pack_uint(out + 25, 2, 8); /* what is settled stands behind the items */
	f.fence += handed;
	items[handed] = fake_reply_str(f.fake, buf_str(&settled));
	first = fake_reply_str(f.fake, (struct str){ out, HEAD + 2 * nrun });
	first = fake_reply_array(f.fake, 2 + handed, first, items[0], items[1], items[2],
				 items[3], items[4], items[5], items[6], items[7], items[8],
				 items[9], items[10], items[11], items[12], items[13],
				 items[14], items[15], items[16]);
	buf_done(&settled);
	return first;
}

static struct reply *
run_check(const struct fake_call *call)
{
	struct buf there = { 0 };
	struct reply *reply;

	f.checks++;
	ck_assert_uint_eq(call->nkeys, 1);
	for (unsigned i = 1; i < call->n; i += 2) {
		struct str fields = call->args[i + 1];

		ck_assert_uint_eq(fields.n % TOKEN_FIELD_LEN, 0);
		for (size_t at = 0; at < fields.n; at += TOKEN_FIELD_LEN) {
			struct str field = { fields.p + at, TOKEN_FIELD_LEN };

			buf_putc(&there, find_reserved(field) < 0 ? '0' : '1');
		}
	}
	f.checked = (unsigned)there.len;
	reply = fake_reply_str(f.fake, buf_str(&there));
	buf_done(&there);
	return reply;
}

static struct reply *
on_call(void *arg, struct fake_store *fake, const struct fake_call *call)
{
	(void)arg;
	if (call->script == SCRIPT_TICK || call->script == SCRIPT_TICK_OOM)
		return run_tick(call);
	ck_assert_int_eq(call->script, SCRIPT_HELD);
	ck_assert_ptr_eq(fake, f.fake);
	return run_check(call);
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
						    .dedup_window_us = 60000000 };
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
	while (f.nready)
		take(f.ready, &f.nready, 0);
	while (f.nreserved)
		take(f.reserved, &f.nreserved, 0);
	queue_unpin(f.q);
	fake_store_free(f.fake);
	queues_free(f.queues);
	loop_free(f.loop);
}

static void
run_idle(void)
{
	for (unsigned i = 0; i < 50; i++)
		loop_turn(f.loop, false);
}

/* A consumer and what it holds -------------------------------------------------------------------- */

struct kept_here {
	struct held held;
	struct token token;
	bool is_free;
};

struct consumer {
	struct consume *consume;
	struct kept_here holds[ROOM];
	unsigned nholds; /* ever */
	unsigned holding, most, gone, ended, batches;
	bool is_blocked, hands_back;
	char ids[ROOM + 1]; /* of one letter each */
};

static void
on_messages(void *arg, const struct reservation *res, unsigned n)
{
	struct settle_how release = { .kind = SETTLE_RELEASE };
	struct consumer *c = arg;

	c->batches++;
	ck_assert_uint_gt(n, 0);
	for (unsigned i = 0; i < n && !c->hands_back; i++) {
		struct kept_here *k = &c->holds[c->nholds];

		c->ids[c->nholds++] = res[i].item.message_id.p[0];
		k->token = res[i].token;
		k->is_free = false;
		consume_hold(c->consume, &k->held, &k->token);
		c->holding++;
	}
	while (c->hands_back && n--)
		queue_settle(f.q, &res[n].token, &release, NULL, NULL);
	if (c->holding > c->most)
		c->most = c->holding;
}

static void
let_go(struct consumer *c, struct kept_here *k)
{
	ck_assert_ptr_eq(k->held.consume, c->consume);
	consume_let_go(&k->held);
	k->is_free = true;
	c->holding--;
}

static void
on_gone(void *arg, struct held *held)
{
	struct consumer *c = arg;

	c->gone++;
	let_go(c, (struct kept_here *)held); /* its first member */
}

static bool
is_blocked(void *arg)
{
	const struct consumer *c = arg;

	return c->is_blocked;
}

static void
on_ended(void *arg)
{
	struct consumer *c = arg;

	c->ended++;
}

static const struct consume_ops consume_ops = { on_messages, on_gone, is_blocked, on_ended };

static void
begin(struct consumer *c, unsigned prefetch)
{
	*c = (struct consumer){ 0 };
	c->consume = queue_consume(f.q, 60000000, NULL, prefetch, &consume_ops, c);
	ck_assert_uint_eq(c->nholds, 0); /* never before the call returns */
}

/* Release what it holds, and end it. */
static void
end(struct consumer *c)
{
	for (unsigned i = 0; i < c->nholds; i++)
		if (!c->holds[i].is_free)
			let_go(c, &c->holds[i]);
	if (!consume_end(c->consume))
		return;
	run_idle();
	ck_assert_uint_eq(c->ended, 1);
}

static struct consumer *acker;

static void
on_ack(void *arg, enum err err, bool done, uint64_t deadline_us)
{
	(void)deadline_us;
	ck_assert_int_eq(err, OK);
	ck_assert(done);
	let_go(acker, arg);
}

static void
ack(struct consumer *c, unsigned which)
{
	struct settle_how how = { .kind = SETTLE_ACK };

	acker = c;
	queue_settle(f.q, &c->holds[which].token, &how, on_ack, &c->holds[which]);
}

static void
on_sent(void *arg, enum err err, enum sent sent)
{
	unsigned *stored = arg;

	*stored += !err && sent == SENT_STORED;
}

/* Messages whose ids are the letters of `ids`. */
static void
send_each(const char *ids)
{
	struct agent_id s = { STR("s"), STR("1") };
	static unsigned stored;

	for (; *ids; ids++) {
		struct message m = { .id = { ids, 1 },
				     .priority = 5,
				     .payload = STR("\x80"),
				     .map = STR("\x80") };

		queue_send(f.q, &s, &m, 0, false, 0, on_sent, &stored);
	}
	run_idle();
}

/* ------------------------------------------------------------------------------------------------- */

START_TEST(never_more_than_the_prefetch_is_held)
{
	struct consumer c;

	begin(&c, 3);
	send_each("abcdef");
	ck_assert_str_eq(c.ids, "abc");
	ack(&c, 1);
	run_idle();
	ck_assert_str_eq(c.ids, "abcd"); /* its place was free at once */
	ack(&c, 0);
	ack(&c, 2);
	run_idle();
	ck_assert_str_eq(c.ids, "abcdef");
	ck_assert_uint_eq(c.most, 3);
	ck_assert_uint_eq(f.nreserved, 3);
	end(&c);
}
END_TEST

START_TEST(what_one_turn_frees_is_asked_for_in_one_call)
{
	struct consumer c;
	unsigned before;

	begin(&c, 8);
	send_each("abcdefghijklmnop");
	ck_assert_uint_eq(c.batches, 1);
	before = f.ticks;
	for (unsigned i = 0; i < 8; i++)
		ack(&c, i);
	run_idle();
	ck_assert_str_eq(c.ids, "abcdefghijklmnop");
	ck_assert_uint_eq(c.batches, 2);
	ck_assert_uint_eq(f.ticks - before, 2); /* the acks, then the messages */
	end(&c);
}
END_TEST

START_TEST(places_that_become_free_while_it_waits_are_asked_for)
{
	struct consumer c;

	begin(&c, 4);
	send_each("abc"); /* it waits for one more */
	for (unsigned i = 0; i < 3; i++)
		ack(&c, i);
	run_idle();
	ck_assert_uint_eq(queue_consumers(f.q), 1);
	send_each("defg");
	ck_assert_uint_eq(c.batches, 2);
	ck_assert_str_eq(c.ids, "abcdefg");
	end(&c);
}
END_TEST

START_TEST(what_was_settled_elsewhere_frees_its_place_within_a_second)
{
	struct consumer c;
	uint64_t begun;

	begin(&c, 3);
	send_each("abcde");
	take(f.reserved, &f.nreserved, 1);
	begun = loop_clock_us();
	while (c.nholds < 4)
		loop_turn(f.loop, true);
	ck_assert_uint_lt(loop_clock_us() - begun, 1000000);
	ck_assert_uint_eq(c.gone, 1);
	ck_assert(c.holds[1].is_free);
	ck_assert_uint_eq(f.checked, 3); /* all in one call */
	ck_assert_str_eq(c.ids, "abcd");
	end(&c);
}
END_TEST

START_TEST(what_is_fresh_is_not_checked)
{
	struct consumer c;
	unsigned turns = 0;

	begin(&c, 2);
	send_each("a");     /* stays */
	while (turns < 3) { /* the other place changes hands all the time */
		send_each("b");
		ck_assert_uint_eq(c.holding, 2);
		turns += f.checks;
		f.checks = 0;
		loop_turn(f.loop, false);
		ck_assert_uint_le(f.checked, 1);
		ack(&c, --c.nholds);
		run_idle();
		usleep(10000);
	}
	c.nholds = 1;
	end(&c);
}
END_TEST

START_TEST(a_blocked_one_asks_for_nothing)
{
	struct consumer c;

	begin(&c, 2);
	c.is_blocked = true;
	send_each("ab");
	ck_assert_uint_eq(c.nholds, 0);
	c.is_blocked = false;
	consume_look(c.consume);
	run_idle();
	ck_assert_str_eq(c.ids, "ab");
	end(&c);
}
END_TEST

START_TEST(a_burst_is_shared)
{
	struct consumer a, b;

	begin(&a, 32);
	run_idle();
	begin(&b, 32);
	run_idle();
	ck_assert_uint_eq(queue_consumers(f.q), 2);
	send_each("abcdefghijklmnop");
	ck_assert_uint_eq(a.holding, 8);
	ck_assert_uint_eq(b.holding, 8);
	end(&a);
	end(&b);
}
END_TEST

static void
on_received(void *arg, enum err err, const struct reservation *res, unsigned n)
{
	unsigned *got = arg;

	(void)res;
	ck_assert_int_eq(err, OK);
	*got += n;
}

START_TEST(receives_have_their_turn_beside_it)
{
	struct consumer c;
	unsigned got = 0;

	begin(&c, 32);
	run_idle();
	queue_receive(f.q, 5000000, NULL, 1, 60000000, on_received, NULL, &got);
	run_idle();
	send_each("a");
	ck_assert_uint_eq(c.holding, 1); /* it came first */
	send_each("b");
	ck_assert_uint_eq(got, 1);
	send_each("c");
	ck_assert_uint_eq(c.holding, 2);
	end(&c);
}
END_TEST

START_TEST(one_that_ends_while_it_waits_leaves_nothing)
{
	struct consumer c;

	begin(&c, 2);
	run_idle();
	ck_assert(!consume_end(c.consume));
	ck_assert_uint_eq(queue_consumers(f.q), 0);
	send_each("a");
	ck_assert_uint_eq(f.nready, 1);
	ck_assert_uint_eq(c.ended, 0);
}
END_TEST

START_TEST(what_was_on_its_way_when_it_ended_is_handed_back)
{
	struct consumer c;

	send_each("ab");
	fake_store_hold(f.fake, true);
	begin(&c, 2);
	loop_turn(f.loop, false);
	c.hands_back = true;
	ck_assert(consume_end(c.consume)); /* its call is in flight */
	ck_assert_uint_eq(c.ended, 0);
	fake_store_hold(f.fake, false);
	run_idle();
	ck_assert_uint_eq(c.batches, 1);
	ck_assert_uint_eq(c.ended, 1);
	ck_assert_uint_eq(f.nreserved, 0);
	begin(&c, 2);
	run_idle();
	ck_assert_str_eq(c.ids, "ab");
	end(&c);
}
END_TEST

START_TEST(one_that_ends_before_anything_was_asked_waits_for_nothing)
{
	struct consumer c;

	begin(&c, 2);
	ck_assert(!consume_end(c.consume));
	begin(&c, 2);
	fake_store_hold(f.fake, true);
	loop_turn(f.loop, false);
	ck_assert(consume_end(c.consume)); /* asked, and nothing is there: it does not park */
	fake_store_hold(f.fake, false);
	run_idle();
	ck_assert_uint_eq(c.ended, 1);
	ck_assert_uint_eq(c.batches, 0);
	ck_assert_uint_eq(queue_consumers(f.q), 0);
}
END_TEST

START_TEST(when_the_broker_stops_it_asks_no_more)
{
	struct consumer c;

	begin(&c, 2);
	send_each("a");
	queues_end_waits(f.queues, ERR_SHUTTING_DOWN);
	run_idle();
	ack(&c, 0);
	send_each("b");
	ck_assert_uint_eq(c.nholds, 1);
	ck_assert_uint_eq(f.nready, 1);
	end(&c);
}
END_TEST

/* Whichever of its calls fails, and how: it goes on by itself, and ends. */
START_TEST(whichever_call_fails_it_goes_on)
{
	static const enum err errs[] = { ERR_UNSENT, ERR_UNKNOWN, ERR_REFUSED, ERR_INTERNAL };

	for (unsigned nth = 1; nth < 20; nth++) {
		struct consumer c;
		bool has_failed;

		send_each("abcdef");
		fake_store_reset(f.fake);
		fake_store_fail_at(f.fake, nth, errs[_i]);
		begin(&c, 2);
		while (c.gone < 2) { /* both are settled elsewhere, and it finds out */
			loop_turn(f.loop, true);
			while (c.holding == 2 && f.nreserved)
				take(f.reserved, &f.nreserved, 0);
		}
		while (c.holding < 2)
			loop_turn(f.loop, true);
		has_failed = fake_store_has_failed(f.fake);
		end(&c);
		ck_assert_uint_eq(c.most, 2);
		while (f.nready)
			take(f.ready, &f.nready, 0);
		while (f.nreserved)
			take(f.reserved, &f.nreserved, 0);
		if (!has_failed)
			return;
	}
	ck_abort_msg("it never ran clean");
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("consume");
	TCase *tc = tcase_create("consume");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, never_more_than_the_prefetch_is_held);
	tcase_add_test(tc, what_one_turn_frees_is_asked_for_in_one_call);
	tcase_add_test(tc, places_that_become_free_while_it_waits_are_asked_for);
	tcase_add_test(tc, what_was_settled_elsewhere_frees_its_place_within_a_second);
	tcase_add_test(tc, what_is_fresh_is_not_checked);
	tcase_add_test(tc, a_blocked_one_asks_for_nothing);
	tcase_add_test(tc, a_burst_is_shared);
	tcase_add_test(tc, receives_have_their_turn_beside_it);
	tcase_add_test(tc, one_that_ends_while_it_waits_leaves_nothing);
	tcase_add_test(tc, what_was_on_its_way_when_it_ended_is_handed_back);
	tcase_add_test(tc, one_that_ends_before_anything_was_asked_waits_for_nothing);
	tcase_add_test(tc, when_the_broker_stops_it_asks_no_more);
	tcase_add_loop_test(tc, whichever_call_fails_it_goes_on, 0, 4);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
