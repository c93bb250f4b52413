/*
 * src/registry over a store in memory that answers as the scripts do: what travels in which call, and that whatever fails
 * each operation ends once.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "../lib/fake_store.h"
#include "../lib/pack.h"
#include "registry/registry.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

enum { ROOM = 4000 };

static struct fixture {
	struct loop *loop;
	struct fake_store *fake;
	struct registry *registry;
	/* Of each call that was answered: its script, and its arguments joined by '|'. */
	enum script scripts[ROOM];
	struct buf texts[ROOM];
	unsigned calls;
	unsigned total; /* agents that there are: "w:0000", "w:0001", ... */
	unsigned flags; /* what the sweep says, flags times */
	unsigned flag;
	bool is_due, is_bad;
	uint64_t woken_us;
} f;

static struct reply *
text(const char *z)
{
	return fake_reply_str(f.fake, str_of(z));
}

/* Of each heartbeat the ttl, '' of those called "gone". */
static struct reply *
on_beats(const struct fake_call *call)
{
	static struct reply elems[600], whole;
	unsigned n = 0;

	for (unsigned i = 1; i < call->n; i += 4)
		elems[n++] = *text(
			memmem(call->args[i].p, call->args[i].n, "gone", 4) ? "" : "30000000");
	whole = (struct reply){ .type = REPLY_ARRAY, .count = n, .elems = elems };
	return &whole;
}

/* A page of at most 100 agents, each of 9 elements. */
static struct reply *
on_agents(const struct fake_call *call)
{
	static struct reply elems[5 + 9 * 100], whole;
	unsigned first = 0, most = (unsigned)atoi(call->args[5].p), n = 0, looked = 0;
	const char *number = memmem(call->args[3].p, call->args[3].n, ":w:", 3);
	char name[32] = "";

	if (call->args[3].p[0] == '(' && number)
		first = (unsigned)atoi(number + 3) + 1;
	for (unsigned i = first; i < f.total && looked < 100; i++) {
		snprintf(name, sizeof(name), "n%%25:w:%04u", i);
		looked++;
		if (!most)
			continue;
		elems[5 + n++] = *text(name);
		elems[5 + n++] = *text("7");
		elems[5 + n++] = *text("1800000000000000");
		elems[5 + n++] = *text("30000000");
		elems[5 + n++] = *text(i % 2 ? "1" : "0");
		elems[5 + n++] = *text("the name");
		elems[5 + n++] = *text("");
		elems[5 + n++] = *text("\x90");
		elems[5 + n++] = *text("\x80");
		if (n / 9 == most)
			break;
	}
	elems[0] = *text(looked == 100 || (most && n / 9 == most) ? name : "");
	elems[1] = *fake_reply_int(f.fake, looked);
	elems[2] = *fake_reply_int(f.fake, looked / 2);
	elems[3] = *fake_reply_int(f.fake, 1800000001000000);
	elems[4] = *fake_reply_int(f.fake, looked / 10);
	whole = (struct reply){ .type = REPLY_ARRAY, .count = 5 + n, .elems = elems };
	return &whole;
}

static struct reply *
on_call(void *arg, struct fake_store *fake, const struct fake_call *call)
{
	struct buf *b = &f.texts[f.calls];

	(void)arg;
	ck_assert_uint_lt(f.calls, ROOM);
	f.scripts[f.calls++] = call->script;
	for (unsigned i = 0; i < call->n; i++) {
		buf_puts(b, i ? "|" : "");
		buf_put(b, call->args[i].p, call->args[i].n);
	}
	buf_putc(b, 0);
	if (f.is_bad)
		return text("?");
	switch (call->script) {
	case SCRIPT_BEAT:
		return on_beats(call);
	case SCRIPT_REGISTER:
		return fake_reply_array(fake, 6, text("7"), text("\x01"),
					fake_reply_int(fake, 1800000000000001),
					fake_reply_int(fake, f.is_due), text("5000000"),
					text("its name"));
	case SCRIPT_DEREGISTER:
		return fake_reply_array(fake, 3, fake_reply_int(fake, 1),
					fake_reply_int(fake, 1800000000000001),
					fake_reply_int(fake, f.is_due));
	case SCRIPT_AGENTS:
		return on_agents(call);
	default:
		ck_assert_int_eq(call->script, SCRIPT_AGENTS_SWEEP);
		return fake_reply_array(
			fake, 3, fake_reply_int(fake, 1800000000000001),
			fake_reply_int(fake, 1800000005000000),
			fake_reply_int(fake, f.flags && f.flags-- ? f.flag : 0));
	}
}

static void
on_wake(void *arg, uint64_t now_us)
{
	ck_assert_ptr_eq(arg, &f);
	f.woken_us = now_us;
}

static const struct registry_ops ops = { on_wake };

static void
set_up(void)
{
	struct registry_config config = { .key_prefix = "coordd",
					  .max_agents = 100000,
					  .ttl_us = 30000000,
					  .forget_after_us = 9000000,
					  .late_after_us = 15000000,
					  .max_frame = 1 << 20 };

	f.loop = loop_new();
	f.fake = fake_store_new(f.loop);
	fake_store_on_call(f.fake, on_call, NULL);
	f.registry = registry_new(f.loop, fake_store_store(f.fake), &config, &ops, &f);
}

static void
tear_down(void)
{
	fake_store_free(f.fake);
	registry_free(f.registry);
	loop_free(f.loop);
	for (unsigned i = 0; i < f.calls; i++)
		buf_done(&f.texts[i]);
}

static void
run_idle(void)
{
	for (unsigned i = 0; i < 30; i++)
		loop_turn(f.loop, false);
}

/* Until `n` calls were made; or, 50 ms later, not. */
static bool
wait_for_calls(unsigned n)
{
	uint64_t until_us = loop_clock_us() + 50000;

	while (f.calls < n && loop_clock_us() < until_us)
		loop_turn(f.loop, false);
	return f.calls >= n;
}

static struct got {
	unsigned fired, n, missing;
	enum err err;
	uint64_t number; /* the incarnation, the ttl, known, or when to look again */
	bool done;
	char first[32], last[32];
} got;

static void
on_beat(void *arg, enum err err, uint64_t ttl_us)
{
	/* Which of them is told this: they end in the order in which they were asked. */
	if (arg)
		ck_assert_uint_eq(got.fired, (unsigned)(uintptr_t)arg - 1);
	got.fired++;
	got.missing += err == ERR_NOT_FOUND;
	got.err = err;
	got.number = ttl_us;
}

static void
beat(const char *instance, void *arg)
{
	struct heartbeat what = { .agent = { STR("w"), str_of(instance) } };

	registry_heartbeat(f.registry, STR("n%"), &what, on_beat, arg);
}

static void
on_registered(void *arg, enum err err, const struct registered *r)
{
	(void)arg;
	got.fired++;
	got.err = err;
	ck_assert((r == NULL) == (err != OK));
	if (!r)
		return;
	got.number = r->incarnation;
	ck_assert_uint_eq(r->ttl_us, 5000000);
	ck_assert(str_eq(r->name, STR("its name")) && str_eq(r->state, STR("\x01")));
}

static void
on_deregistered(void *arg, enum err err, bool done)
{
	(void)arg;
	got.fired++;
	got.err = err;
	got.done = done;
	ck_assert(done == !err);
}

static void
on_infos(void *arg, enum err err, const struct agent_info *infos, unsigned n)
{
	(void)arg;
	got.fired++;
	got.err = err;
	got.n = n;
	ck_assert((infos == NULL) == (n == 0));
	for (unsigned i = 0; i < n; i++) {
		snprintf(i ? got.last : got.first, 32, "%.*s", (int)infos[i].agent.instance.n,
			 infos[i].agent.instance.p);
		ck_assert(str_eq(infos[i].agent.type, STR("w")));
		ck_assert(str_eq(infos[i].name, STR("the name")));
		ck_assert_uint_eq(infos[i].status.n, 0);
		ck_assert(str_eq(infos[i].capabilities, STR("\x90")));
		ck_assert(str_eq(infos[i].metadata, STR("\x80")));
		ck_assert_uint_eq(infos[i].incarnation, 7);
		ck_assert_uint_eq(infos[i].beat_us, 1800000000000000);
		ck_assert_uint_eq(infos[i].now_us, 1800000001000000);
		ck_assert_uint_eq(infos[i].ttl_us, 30000000);
		ck_assert(infos[i].is_alive == (i % 2 == 1));
	}
}

static void
on_count(void *arg, enum err err, uint64_t known, uint64_t alive, uint64_t late)
{
	(void)arg;
	got.fired++;
	got.err = err;
	got.number = known;
	ck_assert(err || (alive == known / 2 && late == known / 10));
}

static void
on_swept(void *arg, enum err err, uint64_t again_us, bool lead)
{
	(void)arg;
	got.fired++;
	got.err = err;
	got.number = again_us;
	got.done = lead;
}

/* Heartbeats ---------------------------------------------------------------------------------------- */

START_TEST(heartbeats_of_one_turn_are_one_call)
{
	struct heartbeat what = { .agent = { STR("w:"), STR("x") },
				  .has_incarnation = true,
				  .incarnation = 9,
				  .status = STR("\x01"),
				  .state = STR("\x02") };

	beat("a", (void *)1);
	beat("gone", (void *)2);
	registry_heartbeat(f.registry, STR("n%"), &what, on_beat, (void *)3);
	ck_assert_uint_eq(got.fired + fake_store_calls(f.fake), 0);
	run_idle();
	ck_assert_uint_eq(f.calls, 1);
	ck_assert_str_eq(f.texts[0].data,
			 "coordd|n%25:w:a||||n%25:w:gone||||n%25:w%3A:x|9|\x01|\x02");
	ck_assert_uint_eq(got.fired, 3);
	ck_assert_uint_eq(got.missing, 1);
	ck_assert_uint_eq(got.number, 30000000);
}
END_TEST

START_TEST(what_is_too_much_for_one_call_makes_more)
{
	static char large[60000];
	struct heartbeat what = { .agent = { STR("w"), STR("x") },
				  .state = { large, sizeof(large) } };

	for (uintptr_t i = 1; i <= 1300; i++)
		beat("a", (void *)i);
	run_idle();
	ck_assert(wait_for_calls(3));
	ck_assert_uint_eq(f.calls, 3);
	run_idle();
	ck_assert_uint_eq(got.fired, 1300);

	got.fired = 0;
	for (uintptr_t i = 1; i <= 10; i++)
		registry_heartbeat(f.registry, STR("n"), &what, on_beat, (void *)i);
	ck_assert(wait_for_calls(5));
	run_idle();
	ck_assert_uint_eq(f.calls, 5);
	ck_assert_uint_eq(got.fired, 10);
}
END_TEST

START_TEST(a_stream_of_heartbeats_travels_together)
{
	uint64_t begun;

	beat("a", NULL);
	loop_turn(f.loop, false);
	begun = loop_now_us(f.loop);
	for (unsigned i = 0; i < 5; i++) { /* at once, but each in a turn of its own */
		beat("b", NULL);
		loop_turn(f.loop, false);
	}
	if (loop_now_us(f.loop) - begun > 5000)
		return; /* that was not at once: they wait for 10 ms */
	ck_assert_uint_le(fake_store_calls(f.fake), 1);
	ck_assert(wait_for_calls(2));
	run_idle();
	ck_assert_uint_eq(f.calls, 2);
	ck_assert_uint_eq(got.fired, 6);
}
END_TEST

START_TEST(where_waiting_is_in_vain_the_next_ones_leave_at_once)
{
	unsigned at_once = 0;

	for (unsigned i = 1; i <= 17 * 3; i++) {
		unsigned before = f.calls;

		beat("a", NULL);
		loop_turn(f.loop, false);
		loop_turn(f.loop, false);
		at_once += f.calls > before;
		ck_assert(wait_for_calls(i));
		run_idle();
		ck_assert_uint_eq(got.fired, i);
	}
	ck_assert_uint_ge(at_once, 16 * 3 - 16);
	ck_assert_uint_lt(at_once, 17 * 3);
}
END_TEST

START_TEST(whoever_asks_next_sees_them)
{
	static const enum script order[] = { SCRIPT_BEAT,       SCRIPT_REGISTER, SCRIPT_BEAT,
					     SCRIPT_DEREGISTER, SCRIPT_BEAT,     SCRIPT_AGENTS,
					     SCRIPT_BEAT,       SCRIPT_AGENTS,   SCRIPT_BEAT };
	struct registration what = { .agent = { STR("w"), STR("x") } };

	beat("a", NULL);
	registry_register(f.registry, STR("n%"), &what, on_registered, NULL);
	beat("b", NULL);
	registry_deregister(f.registry, STR("n%"), &what.agent, on_deregistered, NULL);
	beat("c", NULL);
	registry_get(f.registry, STR("n%"), &what.agent, on_infos, NULL);
	beat("d", NULL);
	registry_count(f.registry, STR("n%"), on_count, NULL);
	beat("e", NULL);
	registry_flush(f.registry);
	registry_flush(f.registry); /* there is nothing */
	run_idle();
	ck_assert_uint_eq(f.calls, N(order));
	for (unsigned i = 0; i < N(order); i++)
		ck_assert_int_eq(f.scripts[i], order[i]);
	ck_assert_uint_eq(got.fired, 9);
}
END_TEST

START_TEST(those_that_never_left_are_told_so)
{
	beat("a", (void *)1);
	beat("b", (void *)2);
	registry_free(f.registry);
	f.registry = NULL;
	ck_assert_uint_eq(got.fired, 2);
	ck_assert_int_eq(got.err, ERR_UNSENT);
	run_idle();
	ck_assert_uint_eq(f.calls, 0);
}
END_TEST

/* Register ------------------------------------------------------------------------------------------ */

START_TEST(a_registration_says_what_it_says)
{
	struct registration what = { .agent = { STR("w:"), STR("x") } };
	struct buf capabilities = { 0 };

	registry_register(f.registry, STR("n%"), &what, on_registered, NULL);
	pack_text(&capabilities, "['a', 'b:%', 5, ['c'], b'd']");
	what = (struct registration){ .agent = { STR("w"), STR("x") },
				      .has_resume = true,
				      .resume = 6,
				      .has_ttl = true,
				      .ttl_us = 0,
				      .name = STR("me"),
				      .status = STR("\x01"),
				      .capabilities = buf_str(&capabilities),
				      .metadata = STR("\x80"),
				      .state = STR("\x02") };
	registry_register(f.registry, STR("n%"), &what, on_registered, NULL);
	run_idle();
	ck_assert_str_eq(f.texts[0].data,
			 "coordd:a:n%25:w%3A:x|coordd|n%25|n%25:w%3A:x||||||||:|"
			 "30000000|w%3A:x|100000");
	ck_assert_ptr_nonnull(
		strstr(f.texts[1].data, "coordd:a:n%25:w:x|coordd|n%25|n%25:w:x|6|0|me|\x01|"));
	ck_assert_ptr_nonnull(strstr(f.texts[1].data, "|\x80|\x02|:a:b%3A%25:d:|30000000|w:x"));
	ck_assert_uint_eq(got.fired, 2);
	ck_assert_uint_eq(got.number, 7);
	ck_assert_uint_eq(f.woken_us, 0);
	buf_done(&capabilities);
}
END_TEST

START_TEST(capabilities_are_keys_that_are_not_false)
{
	struct registration what = { .agent = { STR("w"), STR("x") } };
	struct buf capabilities = { 0 };

	pack_text(&capabilities,
		  "{'a': true, 'b': false, 'c': nil, 'd': 0, 'e': {'f': 1}, 'g': []}");
	what.capabilities = buf_str(&capabilities);
	registry_register(f.registry, STR("n"), &what, on_registered, NULL);
	run_idle();
	ck_assert_ptr_nonnull(memmem(f.texts[0].data, f.texts[0].len, "|:a:d:e:g:|", 11));
	buf_done(&capabilities);
}
END_TEST

START_TEST(leases_that_ended_wake_the_janitor)
{
	struct registration what = { .agent = { STR("w"), STR("x") } };

	f.is_due = true;
	registry_register(f.registry, STR("n"), &what, on_registered, NULL);
	run_idle();
	ck_assert_uint_eq(f.woken_us, 1800000000000001);
	f.woken_us = 0;
	registry_deregister(f.registry, STR("n"), &what.agent, on_deregistered, NULL);
	run_idle();
	ck_assert_uint_eq(f.woken_us, 1800000000000001);
	ck_assert_str_eq(f.texts[1].data, "coordd:a:n:w:x|coordd|n|n:w:x|9000000");
}
END_TEST

/* List ---------------------------------------------------------------------------------------------- */

START_TEST(a_list_is_asked_for_until_it_is_long_enough)
{
	struct agent_filter filter = { .type = STR("w") };

	f.total = 250;
	registry_list(f.registry, STR("n%"), &filter, 220, on_infos, NULL);
	run_idle();
	ck_assert_uint_eq(got.n, 220);
	ck_assert_str_eq(got.first, "0000");
	ck_assert_str_eq(got.last, "0219");
	ck_assert_uint_eq(f.calls, 3);
	ck_assert_ptr_nonnull(strstr(f.texts[0].data, "|n%25:w:|[n%25:w:|1000|220|"));
	ck_assert_ptr_nonnull(strstr(f.texts[1].data, "|n%25:w:|(n%25:w:0099|1000|120|"));
	ck_assert_ptr_nonnull(strstr(f.texts[2].data, "|n%25:w:|(n%25:w:0199|1000|20|"));

	registry_list(f.registry, STR("n%"), &filter, 1000, on_infos, NULL);
	run_idle();
	ck_assert_uint_eq(got.n, 250);
	f.total = 0;
	registry_list(f.registry, STR("n%"), &filter, 1000, on_infos, NULL);
	run_idle();
	ck_assert_uint_eq(got.n, 0);
	ck_assert_uint_eq(got.fired, 3);
}
END_TEST

START_TEST(what_is_wanted_of_a_list_is_asked_for)
{
	struct agent_id after = { STR("w"), STR(":1") }, before = { STR("a"), STR("x") },
			later = { STR("z"), STR("x") };
	struct agent_filter filter = { .has_alive = true,
				       .has_capability = true,
				       .capability = STR("b:") };

	registry_list(f.registry, STR("n"), &filter, 5, on_infos, NULL);
	filter = (struct agent_filter){ .has_alive = true, .is_alive = true, .after = &after };
	registry_list(f.registry, STR("n"), &filter, 5, on_infos, NULL);
	filter = (struct agent_filter){ .type = STR("w"), .after = &before };
	registry_list(f.registry, STR("n"), &filter, 5, on_infos, NULL);
	filter.after = &later;
	registry_list(f.registry, STR("n"), &filter, 5, on_infos, NULL);
	run_idle();
	ck_assert_str_eq(f.texts[0].data,
			 "coordd:agents|coordd|n:|[n:|1000|5|1048576|0|:b%3A:|15000000");
	ck_assert_str_eq(f.texts[1].data,
			 "coordd:agents|coordd|n:|(n:w:%3A1|1000|5|1048576|1||15000000");
	ck_assert_str_eq(f.texts[2].data,
			 "coordd:agents|coordd|n:w:|[n:w:|1000|5|1048576|||15000000");
	ck_assert_str_eq(f.texts[3].data,
			 "coordd:agents|coordd|n:w:|(n:z:x|1000|5|1048576|||15000000");
}
END_TEST

START_TEST(one_agent_is_that_one_and_none_that_begins_so)
{
	struct agent_id agent = { STR("w"), STR("0000") };

	f.total = 1;
	registry_get(f.registry, STR("n%"), &agent, on_infos, NULL);
	run_idle();
	ck_assert_uint_eq(got.n, 1);
	agent.instance = STR("00");
	registry_get(f.registry, STR("n%"), &agent, on_infos, NULL);
	run_idle();
	ck_assert_uint_eq(got.fired, 2);
	ck_assert_uint_eq(got.n, 0);
}
END_TEST

START_TEST(a_count_goes_so_far)
{
	f.total = 330;
	registry_count(f.registry, STR("n%"), on_count, NULL);
	run_idle();
	ck_assert_uint_eq(got.number, 330);
	ck_assert_uint_eq(f.calls, 4);
	f.total = 30000;
	registry_count(f.registry, STR("n%"), on_count, NULL);
	for (unsigned i = 0; i < 300; i++)
		loop_turn(f.loop, false);
	ck_assert_uint_eq(got.fired, 2);
	ck_assert_uint_eq(got.number, REGISTRY_COUNTED);
}
END_TEST

/* Sweep --------------------------------------------------------------------------------------------- */

START_TEST(a_sweep_goes_on_while_there_is_more)
{
	f.flag = 1;
	f.flags = 3;
	registry_sweep(f.registry, on_swept, NULL);
	run_idle();
	ck_assert_uint_eq(f.calls, 4);
	ck_assert_str_eq(f.texts[0].data, "coordd:beats|coordd|9000000|200");
	ck_assert_uint_eq(got.number, 1800000005000000);
	ck_assert(!got.done && !f.woken_us);

	f.flags = 100; /* too much for one round: it is due again at once */
	registry_sweep(f.registry, on_swept, NULL);
	run_idle();
	ck_assert_uint_eq(f.calls, 12);
	ck_assert_uint_eq(got.number, 1800000000000001);
	ck_assert_uint_eq(got.fired, 2);
}
END_TEST

START_TEST(a_sweep_tells_what_it_found)
{
	f.flag = 2;
	f.flags = 1;
	registry_sweep(f.registry, on_swept, NULL);
	run_idle();
	ck_assert(got.done && !f.woken_us);
	f.flag = 4;
	f.flags = 1;
	registry_sweep(f.registry, on_swept, NULL);
	run_idle();
	ck_assert(!got.done);
	ck_assert_uint_eq(f.woken_us, 1800000000000001);
}
END_TEST

/* Whatever fails ------------------------------------------------------------------------------------ */

static void
start_operation(unsigned which)
{
	struct registration what = { .agent = { STR("w"), STR("0000") } };
	struct agent_filter filter = { .type = STR("w") };

	switch (which) {
	case 0:
		beat("a", NULL);
		break;
	case 1:
		registry_register(f.registry, STR("n%"), &what, on_registered, NULL);
		break;
	case 2:
		registry_deregister(f.registry, STR("n%"), &what.agent, on_deregistered, NULL);
		break;
	case 3:
		registry_list(f.registry, STR("n%"), &filter, 1000, on_infos, NULL);
		break;
	case 4:
		registry_get(f.registry, STR("n%"), &what.agent, on_infos, NULL);
		break;
	case 5:
		registry_count(f.registry, STR("n%"), on_count, NULL);
		break;
	default:
		f.flag = 1;
		f.flags = 2;
		registry_sweep(f.registry, on_swept, NULL);
	}
}

START_TEST(whichever_call_fails_each_operation_ends_once)
{
	static const enum err errs[] = { ERR_UNSENT, ERR_UNKNOWN, ERR_REFUSED, ERR_INTERNAL };

	f.total = 250;
	for (unsigned nth = 1; nth < 9; nth++) {
		fake_store_reset(f.fake);
		fake_store_fail_at(f.fake, nth, errs[_i / 7]);
		memset(&got, 0, sizeof(got));
		start_operation((unsigned)_i % 7);
		ck_assert_uint_eq(got.fired, 0); /* never before the call returns */
		for (unsigned i = 0; i < 100 && !got.fired; i++)
			loop_turn(f.loop, true);
		run_idle();
		ck_assert_uint_eq(got.fired, 1); /* and never twice */
		if (!fake_store_has_failed(f.fake)) {
			ck_assert_int_eq(got.err, OK);
			return;
		}
		ck_assert_int_eq(got.err, errs[_i / 7]);
		ck_assert(!got.n && !got.done);
	}
	ck_abort_msg("it never ran clean");
}
END_TEST

START_TEST(an_answer_that_is_none_is_a_defect)
{
	f.is_bad = true;
	start_operation((unsigned)_i);
	run_idle();
	ck_assert_uint_eq(got.fired, 1);
	ck_assert_int_eq(got.err, ERR_INTERNAL);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("registry");
	TCase *tc = tcase_create("registry");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, heartbeats_of_one_turn_are_one_call);
	tcase_add_test(tc, what_is_too_much_for_one_call_makes_more);
	tcase_add_test(tc, a_stream_of_heartbeats_travels_together);
	tcase_add_test(tc, where_waiting_is_in_vain_the_next_ones_leave_at_once);
	tcase_add_test(tc, whoever_asks_next_sees_them);
	tcase_add_test(tc, those_that_never_left_are_told_so);
	tcase_add_test(tc, a_registration_says_what_it_says);
	tcase_add_test(tc, capabilities_are_keys_that_are_not_false);
	tcase_add_test(tc, leases_that_ended_wake_the_janitor);
	tcase_add_test(tc, a_list_is_asked_for_until_it_is_long_enough);
	tcase_add_test(tc, what_is_wanted_of_a_list_is_asked_for);
	tcase_add_test(tc, one_agent_is_that_one_and_none_that_begins_so);
	tcase_add_test(tc, a_count_goes_so_far);
	tcase_add_test(tc, a_sweep_goes_on_while_there_is_more);
	tcase_add_test(tc, a_sweep_tells_what_it_found);
	tcase_add_loop_test(tc, whichever_call_fails_each_operation_ends_once, 0, 4 * 7);
	tcase_add_loop_test(tc, an_answer_that_is_none_is_a_defect, 0, 7);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
