/*
 * src/events over a stream in memory that does what the script does: what each watch is told, and in which place
 * it is told that something is missing.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "../lib/fake_store.h"
#include "events/events.h"

enum { ROOM = 2000, FIELDS = 7, ALL = 7, QUEUE_ONLY = 1 << EVENT_QUEUE };

static struct fixture {
	struct loop *loop;
	struct fake_store *fake;
	struct events *events;
	/* The stream of the namespace "n%:": events first..last, of which those below `kept` are trimmed. */
	char since[24];
	unsigned last, kept;
	const char *kinds[ROOM + 1];
	unsigned bad_head; /* so many answers are none of the script's */
	struct reply answer[2 + FIELDS * 256];
	char texts[256][24];
	unsigned reads; /* calls that asked for events */
} f;

static struct reply
text(const char *z)
{
	return (struct reply){ .type = REPLY_STR, .str = str_of(z) };
}

static struct reply *
on_call(void *arg, struct fake_store *fake, const struct fake_call *call)
{
	static struct reply whole;
	static char last[24];
	unsigned after, most, n = 2;

	(void)arg;
	if (call->script == SCRIPT_SUBSCRIBE)
		return fake_reply_str(fake, STR("0123456789abcdef01234567"));
	if (call->script == SCRIPT_UNSUBSCRIBE)
		return fake_reply_int(fake, 1);
	if (call->script == SCRIPT_LIST)
		return fake_reply_array(fake, 2, fake_reply_str(fake, STR("n%25%3A:a:1")),
					fake_reply_str(fake, STR("n%25%3A:b%3A:2")));
	if (call->script == SCRIPT_LIVE && !call->args[3].n) {
		ck_assert(str_eq(call->args[2], STR("n%25%3A:w:")));
		return fake_reply_array(fake, 2, fake_reply_str(fake, STR("n%25%3A:w:b")),
					fake_reply_str(fake, STR("n%25%3A:w:a")));
	}
	if (call->script == SCRIPT_LIVE) {
		ck_assert(str_eq(call->args[3], STR("n%25%3A:w:b")));
		return fake_reply_array(fake, 2, fake_reply_str(fake, STR("")),
					fake_reply_str(fake, STR("n%25%3A:w:z")));
	}
	ck_assert_int_eq(call->script, SCRIPT_EVENTS);
	ck_assert(str_eq(call->args[1], STR("n%25%3A")));
	if (f.bad_head && f.bad_head--)
		return fake_reply_str(fake, STR("?"));
	after = str_eq(call->args[3], str_of(f.since)) ? (unsigned)atoi(call->args[2].p) : 0;
	most = (unsigned)atoi(call->args[4].p);
	f.reads += most > 0;
	snprintf(last, sizeof(last), "%u", f.last);
	f.answer[0] = text(f.since);
	f.answer[1] = text(last);
	for (unsigned id = after + 1; id <= f.last && (n - 2) / FIELDS < most; id++) {
		char *text_of_id = f.texts[(n - 2) / FIELDS];

		if (id < f.kept)
			continue;
		snprintf(text_of_id, sizeof(f.texts[0]), "%u", id);
		f.answer[n++] = text(text_of_id);
		f.answer[n++] = text(f.kinds[id]);
		f.answer[n++] = text("n%25%3A:t%25:i");
		f.answer[n++] = text("the name");
		f.answer[n++] = text("\xff"); /* what is no text is not passed on */
		f.answer[n++] = text("m");
		f.answer[n++] = text("1800000000000001");
	}
	whole = (struct reply){ .type = REPLY_ARRAY, .count = n, .elems = f.answer };
	return &whole;
}

static void
set_up(void)
{
	f.loop = loop_new();
	f.fake = fake_store_new(f.loop);
	fake_store_on_call(f.fake, on_call, NULL);
	f.events = events_new(f.loop, fake_store_store(f.fake), "coordd");
}

static void
tear_down(void)
{
	fake_store_free(f.fake);
	events_free(f.events);
	loop_free(f.loop);
}

static void
run_idle(void)
{
	for (unsigned i = 0; i < 30; i++)
		loop_turn(f.loop, false);
}

static void
happen(const char *kind, unsigned n)
{
	if (!f.last && !*f.since)
		strcpy(f.since, "1");
	while (n--)
		f.kinds[++f.last] = kind;
}

static void
ring(void)
{
	events_ring(f.events, STR("n%25%3A"));
	run_idle();
}

/* A watch and what it was told, as "begun", "queue_paused", "lost 3", "lost ?". */
struct told {
	struct watch *watch;
	bool is_blocked;
	unsigned n;
	char words[ROOM][32];
	enum err err;
};

static void
tell(struct told *t, const char *word)
{
	ck_assert_uint_lt(t->n, ROOM);
	snprintf(t->words[t->n++], sizeof(t->words[0]), "%s", word);
}

static void
on_begun(void *arg, enum err err)
{
	struct told *t = arg;

	t->err = err;
	tell(t, "begun");
}

static void
on_event(void *arg, const struct watch_event *e)
{
	char kind[32];

	snprintf(kind, sizeof(kind), "%.*s", (int)e->kind.n, e->kind.p);
	tell(arg, kind);
	ck_assert(e->has_agent && str_eq(e->agent.type, STR("t%")) &&
		  str_eq(e->agent.instance, STR("i")));
	ck_assert(str_eq(e->name, STR("the name")) && str_eq(e->message_id, STR("m")));
	ck_assert_uint_eq(e->reason.n, 0);
	ck_assert_uint_eq(e->at_us, 1800000000000001);
}

static void
on_lost(void *arg, uint64_t count)
{
	char word[32];

	snprintf(word, sizeof(word), "lost %llu", (unsigned long long)count);
	tell(arg, count ? word : "lost ?");
}

static bool
is_blocked(void *arg)
{
	const struct told *t = arg;

	return t->is_blocked;
}

static const struct watch_ops ops = { on_begun, on_event, on_lost, is_blocked };

static struct told *
watch(unsigned classes)
{
	struct told *t = calloc(1, sizeof(*t));

	t->watch = events_watch(f.events, STR("n%:"), classes, &ops, t);
	ck_assert_uint_eq(t->n, 0); /* never before the call returns */
	return t;
}

static void
end(struct told *t)
{
	watch_end(t->watch);
	free(t);
}

/* Exactly these, since it began or since the last time. */
static void
expect(struct told *t, const char *words)
{
	struct buf all = { 0 };

	for (unsigned i = 0; i < t->n; i++)
		buf_printf(&all, "%s%s", i ? ", " : "", t->words[i]);
	buf_putc(&all, '\0');
	ck_assert_str_eq(all.data, words);
	buf_done(&all);
	t->n = 0;
}

static struct told *
begun(unsigned classes)
{
	struct told *t = watch(classes);

	run_idle();
	ck_assert_int_eq(t->err, OK);
	expect(t, "begun");
	return t;
}

/* -------------------------------------------------------------------------------------------------- */

START_TEST(each_is_told_what_happens_once_and_in_order)
{
	struct told *a = begun(ALL), *b = begun(ALL);

	happen("agent_expired", 1);
	happen("queue_paused", 2);
	ring();
	ring();
	events_look_all(f.events);
	run_idle();
	expect(a, "agent_expired, queue_paused, queue_paused");
	expect(b, "agent_expired, queue_paused, queue_paused");
	end(a);
	end(b);
}
END_TEST

START_TEST(what_happened_before_it_began_is_not_told)
{
	struct told *early, *late;

	happen("queue_paused", 3);
	early = begun(ALL);
	happen("queue_resumed", 2);
	late = watch(ALL); /* the reader has not seen these two */
	run_idle();
	ring();
	expect(early, "queue_resumed, queue_resumed");
	expect(late, "begun");
	end(early);
	end(late);
}
END_TEST

START_TEST(only_its_classes_are_told)
{
	struct told *agents = begun(1 << EVENT_AGENT), *breakers = begun(1 << EVENT_BREAKER),
		    *queues = begun(QUEUE_ONLY);

	happen("agent_expired", 1);
	happen("breaker_opened", 1);
	happen("message_dead", 1);
	happen("agent", 1); /* none of an agent: there is no such kind */
	ring();
	expect(agents, "agent_expired");
	expect(breakers, "breaker_opened");
	expect(queues, "message_dead, agent");
	end(agents);
	end(breakers);
	end(queues);
}
END_TEST

START_TEST(many_are_read_in_steps)
{
	struct told *t = begun(ALL);

	happen("queue_paused", 1000);
	ring();
	ck_assert_uint_eq(t->n, 1000);
	ck_assert_uint_eq(f.reads, 4);
	end(t);
}
END_TEST

START_TEST(a_blocked_one_is_told_how_many_of_its_it_missed_and_holds_nobody_up)
{
	struct told *slow = begun(QUEUE_ONLY), *fast = begun(ALL);

	happen("queue_paused", 1);
	ring();
	slow->is_blocked = true;
	happen("message_dead", 3);
	happen("agent_expired", 5);
	ring();
	expect(slow, "queue_paused");
	watch_look(slow->watch); /* still blocked */
	expect(slow, "");
	ck_assert_uint_eq(fast->n, 9);
	slow->is_blocked = false;
	watch_look(slow->watch);
	watch_look(slow->watch);
	expect(slow, "lost 3");
	happen("queue_resumed", 1);
	ring();
	expect(slow, "queue_resumed");
	end(slow);
	end(fast);
}
END_TEST

START_TEST(without_being_looked_at_it_is_told_before_the_next_one)
{
	struct told *t = begun(ALL);

	t->is_blocked = true;
	happen("message_dead", 2);
	ring();
	t->is_blocked = false;
	happen("queue_paused", 1);
	ring();
	expect(t, "lost 2, queue_paused");
	end(t);
}
END_TEST

START_TEST(what_was_trimmed_is_lost_in_its_place)
{
	struct told *all = begun(ALL), *some = begun(QUEUE_ONLY);

	happen("queue_paused", 1);
	ring();
	happen("queue_paused", 5);
	f.kept = 5;
	ring();
	expect(all, "queue_paused, lost 3, queue_paused, queue_paused");
	expect(some, "queue_paused, lost ?, queue_paused, queue_paused"); /* of which class? */
	end(all);
	end(some);
}
END_TEST

START_TEST(a_stream_that_is_gone_is_lost)
{
	struct told *t = begun(ALL);

	happen("queue_paused", 4);
	f.kept = 5;
	ring();
	expect(t, "lost 4");
	happen("queue_paused", 1);
	ring();
	expect(t, "queue_paused");
	end(t);
}
END_TEST

START_TEST(what_was_trimmed_before_it_began_is_not_its_loss)
{
	struct told *early = begun(ALL), *late;

	happen("queue_paused", 4);
	f.kept = 5;
	late = watch(ALL);
	run_idle();
	happen("queue_resumed", 1);
	ring();
	expect(early, "lost 4, queue_resumed");
	expect(late, "begun, queue_resumed");
	end(early);
	end(late);
}
END_TEST

START_TEST(a_count_that_began_anew_is_an_unknown_loss_and_all_after_it_is_told)
{
	struct told *t;

	happen("queue_paused", 3);
	t = begun(ALL);
	f.last = 0;
	strcpy(f.since, "2");
	happen("queue_resumed", 5); /* more than before */
	ring();
	expect(t, "lost ?, queue_resumed, queue_resumed, queue_resumed, queue_resumed, "
		  "queue_resumed");
	f.last = 0;
	f.since[0] = '\0';
	ring();
	expect(t, "lost ?");
	happen("queue_paused", 1);
	ring();
	expect(t, "queue_paused");
	end(t);
}
END_TEST

START_TEST(a_count_that_fell_back_is_an_unknown_loss)
{
	struct told *t;

	happen("queue_paused", 3);
	t = begun(ALL);
	f.last = 1; /* Redis lost its last second */
	ring();
	expect(t, "lost ?");
	happen("queue_resumed", 1);
	ring();
	expect(t, "queue_resumed");
	end(t);
}
END_TEST

START_TEST(one_that_begins_as_the_count_begins_anew_hears_of_its_own_only)
{
	struct told *early, *late;

	happen("queue_paused", 3);
	early = begun(ALL);
	f.last = 0;
	strcpy(f.since, "2");
	happen("queue_resumed", 2);
	late = watch(ALL);
	run_idle();
	happen("message_dead", 1);
	ring();
	expect(early, "lost ?, queue_resumed, queue_resumed, message_dead");
	expect(late, "begun, message_dead");
	end(early);
	end(late);
}
END_TEST

START_TEST(a_blocked_one_does_not_count_what_it_cannot_know)
{
	struct told *t = begun(ALL);

	t->is_blocked = true;
	happen("queue_paused", 2);
	ring();
	strcpy(f.since, "2");
	ring();
	happen("queue_paused", 1);
	ring();
	t->is_blocked = false;
	watch_look(t->watch);
	expect(t, "lost ?");
	end(t);
}
END_TEST

START_TEST(a_ring_while_it_reads_makes_it_read_again)
{
	struct told *t = begun(ALL);

	fake_store_hold(f.fake, true);
	events_ring(f.events, STR("n%25%3A"));
	loop_turn(f.loop, false);
	events_ring(f.events, STR("n%25%3A"));
	events_ring(f.events, STR("n%25%3A"));
	fake_store_hold(f.fake, false);
	run_idle();
	ck_assert_uint_eq(f.reads, 2);
	events_ring(f.events, STR("elsewhere"));
	run_idle();
	ck_assert_uint_eq(f.reads, 2);
	end(t);
	ring(); /* nobody watches */
	ck_assert_uint_eq(f.reads, 2);
}
END_TEST

START_TEST(it_may_end_at_any_moment)
{
	for (unsigned turns = 0; turns < 6; turns++) {
		struct told *stays = begun(ALL), *goes;

		happen("queue_paused", 1);
		events_ring(f.events, STR("n%25%3A"));
		goes = watch(ALL);
		for (unsigned i = 0; i < turns; i++)
			loop_turn(f.loop, false);
		end(goes);
		run_idle();
		expect(stays, "queue_paused");
		end(stays);
		run_idle();
	}
}
END_TEST

START_TEST(whichever_call_fails_what_happened_is_told_once)
{
	static const enum err errs[] = { ERR_UNSENT, ERR_UNKNOWN, ERR_REFUSED, ERR_INTERNAL };

	for (unsigned nth = 1; nth < 10; nth++) {
		struct told *t;
		bool has_failed;

		fake_store_reset(f.fake);
		fake_store_fail_at(f.fake, nth, errs[_i]);
		t = watch(ALL);
		run_idle();
		ck_assert_int_eq(t->err, nth == 1 ? errs[_i] : OK);
		expect(t, "begun");
		if (t->err) {
			free(t); /* the watch is gone */
			continue;
		}
		happen("queue_paused", 300); /* two calls */
		ring();
		events_look_all(f.events); /* as each second */
		run_idle();
		ck_assert_uint_eq(t->n, 300);
		has_failed = fake_store_has_failed(f.fake);
		end(t);
		if (!has_failed)
			return;
	}
	ck_abort_msg("it never ran clean");
}
END_TEST

START_TEST(an_answer_that_is_none_changes_nothing)
{
	struct told *t = watch(ALL);

	f.bad_head = 1;
	run_idle();
	ck_assert_int_eq(t->err, ERR_INTERNAL);
	free(t);
	t = begun(ALL);
	happen("queue_paused", 1);
	f.bad_head = 1;
	ring();
	expect(t, "");
	ring();
	expect(t, "queue_paused");
	end(t);
}
END_TEST

START_TEST(without_redis_nothing_is_asked_and_a_second_later_it_is)
{
	struct told *t = begun(ALL);

	happen("queue_paused", 1);
	fake_store_set_ready(f.fake, false);
	fake_store_reset(f.fake);
	events_look_all(f.events);
	run_idle();
	ck_assert_uint_eq(fake_store_calls(f.fake), 0);
	fake_store_set_ready(f.fake, true);
	while (!t->n)
		loop_turn(f.loop, true); /* by its own timer */
	expect(t, "queue_paused");
	end(t);
}
END_TEST

/* Recipients --------------------------------------------------------------------------------------- */

static struct got {
	unsigned fired, n;
	enum err err;
	char names[256];
} got;

static void
on_agents(void *arg, enum err err, const struct agent_id *agents, unsigned n)
{
	(void)arg;
	got.fired++;
	got.err = err;
	got.n = n;
	for (unsigned i = 0; i < n; i++)
		snprintf(got.names + strlen(got.names), 64, "%.*s/%.*s ", (int)agents[i].type.n,
			 agents[i].type.p, (int)agents[i].instance.n, agents[i].instance.p);
}

static void
on_subscribed(void *arg, enum err err, struct str id)
{
	(void)arg;
	got.fired++;
	got.err = err;
	if (!err)
		ck_assert_uint_eq(id.n, SUBSCRIPTION_ID_LEN);
}

static void
on_unsubscribed(void *arg, enum err err, bool done)
{
	(void)arg;
	got.fired++;
	got.err = err;
	ck_assert(done == !err);
}

static const char *
start_operation(unsigned which)
{
	struct agent_id agent = { STR("a"), STR("1") };

	switch (which) {
	case 0:
		events_subscribe(f.events, STR("n%:"), &agent, 1 << MESSAGE_EVENT,
				 on_subscribed, NULL);
		return "";
	case 1:
		events_unsubscribe(f.events, STR("n%:"), &agent, STR("x"), on_unsubscribed,
				   NULL);
		return "";
	case 2:
		events_subscribers(f.events, STR("n%:"), MESSAGE_EVENT, 10, on_agents, NULL);
		return "a/1 b:/2 ";
	default:
		events_live(f.events, STR("n%:"), STR("w"), 10, on_agents, NULL);
		return "w/a w/z ";
	}
}

START_TEST(whichever_call_fails_each_operation_ends_once)
{
	static const enum err errs[] = { ERR_UNSENT, ERR_UNKNOWN, ERR_REFUSED, ERR_INTERNAL };

	for (unsigned nth = 1; nth < 5; nth++) {
		const char *names;

		fake_store_reset(f.fake);
		fake_store_fail_at(f.fake, nth, errs[_i / 4]);
		memset(&got, 0, sizeof(got));
		names = start_operation((unsigned)_i % 4);
		ck_assert_uint_eq(got.fired, 0);
		run_idle();
		ck_assert_uint_eq(got.fired, 1);
		if (!fake_store_has_failed(f.fake)) {
			ck_assert_int_eq(got.err, OK);
			ck_assert_str_eq(got.names, names);
			return;
		}
		ck_assert_int_eq(got.err, errs[_i / 4]);
		ck_assert_uint_eq(got.n, 0);
	}
	ck_abort_msg("it never ran clean");
}
END_TEST

START_TEST(enough_of_the_living_are_not_searched_for_more)
{
	memset(&got, 0, sizeof(got));
	events_live(f.events, STR("n%:"), STR("w"), 1, on_agents, NULL);
	run_idle();
	ck_assert_str_eq(got.names, "w/a ");
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("events");
	TCase *tc = tcase_create("events");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, each_is_told_what_happens_once_and_in_order);
	tcase_add_test(tc, what_happened_before_it_began_is_not_told);
	tcase_add_test(tc, only_its_classes_are_told);
	tcase_add_test(tc, many_are_read_in_steps);
	tcase_add_test(tc, a_blocked_one_is_told_how_many_of_its_it_missed_and_holds_nobody_up);
	tcase_add_test(tc, without_being_looked_at_it_is_told_before_the_next_one);
	tcase_add_test(tc, what_was_trimmed_is_lost_in_its_place);
	tcase_add_test(tc, a_stream_that_is_gone_is_lost);
	tcase_add_test(tc, what_was_trimmed_before_it_began_is_not_its_loss);
	tcase_add_test(tc, a_count_that_began_anew_is_an_unknown_loss_and_all_after_it_is_told);
	tcase_add_test(tc, a_count_that_fell_back_is_an_unknown_loss);
	tcase_add_test(tc, one_that_begins_as_the_count_begins_anew_hears_of_its_own_only);
	tcase_add_test(tc, a_blocked_one_does_not_count_what_it_cannot_know);
	tcase_add_test(tc, a_ring_while_it_reads_makes_it_read_again);
	tcase_add_test(tc, it_may_end_at_any_moment);
	tcase_add_loop_test(tc, whichever_call_fails_what_happened_is_told_once, 0, 4);
	tcase_add_test(tc, an_answer_that_is_none_changes_nothing);
	tcase_add_test(tc, without_redis_nothing_is_asked_and_a_second_later_it_is);
	tcase_add_loop_test(tc, whichever_call_fails_each_operation_ends_once, 0, 4 * 4);
	tcase_add_test(tc, enough_of_the_living_are_not_searched_for_more);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
