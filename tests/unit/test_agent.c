#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <event2/event.h>

#include "client/coord.h"
#include "lib/broker.h"

/*
 * Agents, consumers, jobs and requests of the client against real brokers, which are killed, stopped and drained.
 * `admin` is a plain connection beside them, by which the test sends and looks.
 */
enum { SOON_MS = 30000 };

static struct redis redis;
static struct broker one, two;
static struct event_base *base;
static struct coord_client *client;
static struct coord *admin;
static struct coord_consumer *loose; /* of no agent, which would free it */

/* --- what is seen ------------------------------------------------------------------- */

static struct coord_job *jobs[64]; /* that were handed over and are not ended */
static unsigned n_jobs, n_running, most_running, n_lost, n_settled, n_refused, n_failed;
static unsigned n_registered, n_superseded, n_errors, n_stopped, n_answers;
static char last_code[32], last_text[256];
static int64_t last_incarnation;

static void
setup(void)
{
	redis_init(&redis);
	redis_start(&redis, "");
	broker_init(&one, &redis, "one");
	broker_init(&two, &redis, "two");
	broker_start(&one, NULL);
	admin = coord_connect(one.url, 5000, NULL);
	base = event_base_new();
	ck_assert_ptr_nonnull(admin);
	ck_assert_ptr_nonnull(base);
}

static void
teardown(void)
{
	coord_client_free(client);
	coord_consumer_free(loose);
	coord_free(admin);
	event_base_free(base);
	broker_kill(&one);
	broker_kill(&two);
	redis_done(&redis);
	libevent_global_shutdown();
}

static void
connect_to(const char *urls)
{
	client = coord_client_new(base, urls, NULL);
	ck_assert_ptr_nonnull(client);
	coord_client_set_int(client, COORD_IDLE_TIMEOUT, 1000);
	coord_client_set_int(client, COORD_BACKOFF_MAX, 200);
}

static void
connect_to_both(void)
{
	char urls[300];

	broker_start(&two, NULL);
	snprintf(urls, sizeof(urls), "%s,%s", one.url, two.url);
	connect_to(urls);
}

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

/* Move the loop a little. */
static void
turn(void)
{
	const struct timeval tick = { .tv_usec = 5000 };

	event_base_loopexit(base, &tick);
	event_base_dispatch(base);
}

static void
turn_for(int ms)
{
	for (int64_t end = now_ms() + ms; now_ms() < end;)
		turn();
}

#define WAIT_UNTIL(condition)                                                      \
	do {                                                                       \
		int64_t end_ = now_ms() + SOON_MS;                                 \
		while (!(condition)) {                                             \
			ck_assert_msg(now_ms() < end_, "never came: " #condition); \
			turn();                                                    \
		}                                                                  \
	} while (0)

/* --- beside the library -------------------------------------------------------------- */

static struct coord_params *
params(void)
{
	struct coord_params *p = coord_params_new();

	ck_assert_ptr_nonnull(p);
	return p;
}

/* Ask by the plain connection; frees `p`. */
static struct coord_reply *
ask(const char *method, struct coord_params *p)
{
	struct coord_reply *reply = NULL;
	struct coord_error err;

	ck_assert_msg(!coord_call(admin, method, p, SOON_MS, &reply, &err), "%s: %s", method,
		      err.message);
	coord_params_free(p);
	return reply;
}

static void
put(const char *queue, const char *instance, const char *id, const char *sender)
{
	struct coord_params *p = params();
	msgpack_packer *pk;

	coord_param_agent(p, "sender", sender, NULL);
	coord_param_agent(p, "recipient", queue, instance);
	pk = coord_param(p, "message");
	msgpack_pack_map(pk, 3);
	coord_pack_str(pk, "message_id");
	coord_pack_str(pk, id);
	coord_pack_str(pk, "message_type");
	coord_pack_str(pk, "request");
	coord_pack_str(pk, "payload");
	msgpack_pack_map(pk, 1);
	coord_pack_str(pk, "text");
	coord_pack_str(pk, id);
	coord_reply_free(ask("send", p));
}

static void
put_many(const char *queue, int n)
{
	char id[16];

	for (int i = 0; i < n; i++) {
		snprintf(id, sizeof(id), "m%d", i);
		put(queue, NULL, id, "sender");
	}
}

/* A number of queue_stats. */
static unsigned
stat_of(const char *queue, const char *name)
{
	struct coord_params *p = params();
	struct coord_reply *reply;
	unsigned n;

	coord_param_agent(p, "agent", queue, NULL);
	reply = ask("queue_stats", p);
	n = (unsigned)coord_get(coord_reply_result(reply), name)->via.u64;
	coord_reply_free(reply);
	return n;
}

/* The incarnation in force; -1: not registered, 0: not alive. */
static int64_t
incarnation_of(const char *type)
{
	struct coord_params *p = params();
	const msgpack_object *info;
	struct coord_reply *reply;
	int64_t n = -1;

	coord_param_agent(p, "agent", type, NULL);
	reply = ask("get_agent", p);
	info = coord_reply_result(reply);
	if (info->type == MSGPACK_OBJECT_MAP)
		n = coord_get(info, "alive")->via.boolean
			    ? coord_get(info, "incarnation")->via.i64
			    : 0;
	coord_reply_free(reply);
	return n;
}

static void
call_of_agent(const char *method, const char *type)
{
	struct coord_params *p = params();

	coord_param_agent(p, "agent", type, NULL);
	coord_reply_free(ask(method, p));
}

/* --- what the library calls ------------------------------------------------------------- */

static void
on_change(void *arg, enum coord_agent_event event, const msgpack_object *result,
	  const struct coord_error *err)
{
	(void)arg;
	if (event == COORD_AGENT_REGISTERED) {
		n_registered++;
		last_incarnation = coord_get(result, "incarnation")->via.i64;
	} else if (event == COORD_AGENT_SUPERSEDED) {
		n_superseded++;
	} else {
		n_errors++;
		snprintf(last_code, sizeof(last_code), "%s", err->code);
	}
}

static void
on_settled(void *arg, bool is_settled, const struct coord_error *why)
{
	(void)arg;
	if (why)
		snprintf(last_code, sizeof(last_code), "%s", why->code);
	n_failed += why != NULL;
	n_settled += is_settled;
	n_refused += !why && !is_settled;
}

static void
on_stopped(void *arg, const struct coord_error *why)
{
	(void)arg;
	n_stopped++;
	snprintf(last_code, sizeof(last_code), "%s", why ? why->code : "");
}

static void
on_lost(void *arg, struct coord_job *job)
{
	(void)arg;
	ck_assert(coord_job_is_lost(job));
	n_lost++;
}

static void
keep(void *arg, struct coord_job *job)
{
	(void)arg;
	coord_job_on_lost(job, on_lost, NULL);
	jobs[n_jobs++ % 64] = job;
	n_running++;
	if (n_running > most_running)
		most_running = n_running;
}

/* End the `i`th job that came. */
static void
ack(unsigned i)
{
	ck_assert_int_eq(coord_job_ack(jobs[i], on_settled, NULL), COORD_OK);
	jobs[i] = NULL;
	n_running--;
}

static void
ack_at_once(void *arg, struct coord_job *job)
{
	(void)arg;
	n_jobs++;
	ck_assert_int_eq(coord_job_ack(job, on_settled, NULL), COORD_OK);
}

static struct coord_agent *
agent_with_ttl(const char *type, double ttl)
{
	struct coord_params *p = params();
	struct coord_agent *agent;

	coord_param_double(p, "ttl", ttl);
	agent = coord_agent_new(client, type, NULL, p, NULL);
	coord_params_free(p);
	ck_assert_ptr_nonnull(agent);
	coord_agent_on_change(agent, on_change, NULL);
	return agent;
}

static struct coord_params *
lease(const char *name, double visibility)
{
	struct coord_params *p = params();

	coord_param_str(p, "lease", name);
	coord_param_double(p, "visibility_timeout", visibility);
	return p;
}

/* Consume the queue "jobs"; frees `p`. */
static struct coord_consumer *
consume(struct coord_agent *agent, unsigned concurrency, struct coord_params *p,
	coord_handler_fn *fn)
{
	struct coord_error err;
	struct coord_consumer *consumer =
		agent ? coord_agent_consume(agent, "jobs", NULL, concurrency, p, fn, NULL, &err)
		      : coord_client_consume(client, "jobs", NULL, concurrency, p, fn, NULL,
					     &err);

	ck_assert_msg(consumer, "%s", consumer ? "" : err.message);
	coord_params_free(p);
	if (!agent)
		loose = consumer;
	return consumer;
}

/* --- agents ------------------------------------------------------------------------------- */

START_TEST(an_agent_registers_and_beats)
{
	struct coord_agent *agent;

	connect_to(one.url);
	agent = agent_with_ttl("worker", 0.5);
	WAIT_UNTIL(n_registered);
	ck_assert_int_eq(incarnation_of("worker"), last_incarnation);
	ck_assert_int_eq(coord_agent_incarnation(agent), last_incarnation);
	for (int i = 0; i < 8; i++) {
		turn_for(200);
		ck_assert_int_eq(incarnation_of("worker"), last_incarnation);
	}
	ck_assert_uint_eq(n_registered, 1);
	coord_agent_free(agent);
	WAIT_UNTIL(incarnation_of("worker") == 0);
}
END_TEST

START_TEST(what_is_said_of_an_agent_arrives_and_its_state_comes_back)
{
	struct coord_agent *agent;
	struct coord_params *p = params();
	struct coord_reply *reply;
	bool is_there;

	connect_to(one.url);
	agent = agent_with_ttl("worker", 30);
	WAIT_UNTIL(n_registered);
	ck_assert_int_eq(coord_agent_set_status(agent,
						"\xa4"
						"busy",
						5),
			 COORD_OK);
	ck_assert_int_eq(coord_agent_set_state(agent, "\x07", 1), COORD_OK);
	ck_assert_int_eq(coord_agent_set_state(agent, "\x93", 1), COORD_USAGE);
	coord_param_agent(p, "agent", "worker", NULL);
	do {
		turn();
		ck_assert_int_eq(coord_call(admin, "get_agent", p, SOON_MS, &reply, NULL),
				 COORD_OK);
		is_there = coord_get(coord_reply_result(reply), "status") != NULL;
		coord_reply_free(reply);
	} while (!is_there);
	/* Forgotten by the broker, it is registered with what was said last. */
	call_of_agent("deregister", "worker");
	ck_assert_int_eq(coord_agent_set_status(agent, "\x01", 1), COORD_OK);
	WAIT_UNTIL(n_registered == 2);
	reply = ask("register", p);
	ck_assert_int_eq(coord_get(coord_reply_result(reply), "state")->via.i64, 7);
	coord_reply_free(reply);
	coord_agent_free(agent);
}
END_TEST

START_TEST(an_agent_whose_registration_is_refused_tells_it_once)
{
	struct coord_agent *agent;

	connect_to(one.url);
	agent = agent_with_ttl("worker", -1);
	WAIT_UNTIL(n_errors);
	ck_assert_str_eq(last_code, "bad_request");
	turn_for(500);
	ck_assert_uint_eq(n_errors, 1);
	ck_assert_ptr_null(coord_agent_consume(agent, NULL, NULL, 1, NULL, keep, NULL, NULL));
	coord_agent_free(agent);
}
END_TEST

START_TEST(a_name_that_another_took_is_not_fought_for)
{
	struct coord_agent *agent;
	struct coord_params *p = params();
	int64_t theirs;

	connect_to(one.url);
	put_many("jobs", 3);
	agent = agent_with_ttl("worker", 0.6);
	consume(agent, 2, NULL, keep);
	WAIT_UNTIL(n_jobs == 2);
	coord_param_agent(p, "agent", "worker", NULL);
	coord_reply_free(ask("register", p));
	theirs = incarnation_of("worker");
	WAIT_UNTIL(n_superseded && n_lost == 2);
	ck_assert_int_ne(theirs, last_incarnation);
	ack(0);
	ack(1);
	WAIT_UNTIL(n_refused == 2);
	turn_for(1000);
	ck_assert_uint_eq(n_superseded, 1);
	ck_assert_uint_eq(n_registered, 1);
	ck_assert_uint_eq(n_jobs, 2);
	ck_assert_int_eq(incarnation_of("worker"), theirs);
	coord_agent_free(agent);
}
END_TEST

START_TEST(an_agent_that_was_forgotten_registers_anew_and_works_on)
{
	struct coord_agent *agent;
	int64_t first;

	connect_to(one.url);
	put_many("jobs", 1);
	agent = agent_with_ttl("worker", 0.6);
	consume(agent, 1, NULL, keep);
	WAIT_UNTIL(n_jobs == 1);
	first = last_incarnation;
	call_of_agent("deregister", "worker");
	WAIT_UNTIL(n_registered == 2 && n_lost == 1);
	ck_assert_int_gt(last_incarnation, first);
	turn_for(300);
	ck_assert_uint_eq(n_jobs, 1); /* there is no second place */
	ack(0);
	WAIT_UNTIL(n_refused == 1 && n_jobs == 2);
	ack(1);
	WAIT_UNTIL(n_settled == 1);
	coord_agent_free(agent);
}
END_TEST

/* --- jobs ----------------------------------------------------------------------------------- */

START_TEST(never_more_jobs_than_places)
{
	struct coord_agent *agent;

	connect_to(one.url);
	put_many("jobs", 20);
	agent = agent_with_ttl("worker", 30);
	consume(agent, 3, NULL, keep);
	for (unsigned i = 0; i < 20; i++) {
		WAIT_UNTIL(n_jobs > i);
		ck_assert_uint_le(stat_of("jobs", "reserved"), 3);
		ack(i);
	}
	WAIT_UNTIL(n_settled == 20);
	ck_assert_uint_le(most_running, 3);
	ck_assert_uint_eq(stat_of("jobs", "size"), 0);
	coord_agent_free(agent);
}
END_TEST

START_TEST(a_job_is_what_was_sent)
{
	const msgpack_object *text;

	connect_to(one.url);
	put("jobs", NULL, "m0", "sender");
	consume(NULL, 1, NULL, keep);
	WAIT_UNTIL(n_jobs == 1);
	text = coord_get(coord_job_payload(jobs[0]), "text");
	ck_assert_mem_eq(text->via.str.ptr, "m0", 2);
	ck_assert_uint_eq(coord_job_attempts(jobs[0]), 0);
	ck_assert_int_gt(coord_job_fence(jobs[0]), 0);
	ck_assert_int_gt((int)strlen(coord_job_token(jobs[0])), 0);
	ck_assert_ptr_nonnull(coord_get(coord_job_delivery(jobs[0]), "visibility_deadline"));
	ack(0);
	WAIT_UNTIL(n_settled == 1);
}
END_TEST

START_TEST(a_job_is_given_back_or_fails_as_it_was_ended)
{
	connect_to(one.url);
	put("jobs", NULL, "m0", "sender");
	consume(NULL, 1, NULL, keep);
	WAIT_UNTIL(n_jobs == 1);
	ck_assert_int_eq(coord_job_nack(jobs[0], "sometimes", NULL, -1, NULL, NULL),
			 COORD_USAGE);
	ck_assert_int_eq(coord_job_nack(jobs[0], NULL, "no luck", 0, on_settled, NULL),
			 COORD_OK);
	WAIT_UNTIL(n_jobs == 2);
	ck_assert_uint_eq(coord_job_attempts(jobs[1]), 1);
	ck_assert_int_eq(coord_job_release(jobs[1], 0, on_settled, NULL), COORD_OK);
	WAIT_UNTIL(n_jobs == 3);
	ck_assert_uint_eq(coord_job_attempts(jobs[2]), 1);
	ck_assert_int_eq(coord_job_nack(jobs[2], "permanent", "never", -1, on_settled, NULL),
			 COORD_OK);
	WAIT_UNTIL(n_settled == 3);
	ck_assert_uint_eq(stat_of("jobs", "dead"), 1);
}
END_TEST

START_TEST(a_lease_with_a_deadline_is_extended_while_its_job_lives)
{
	connect_to(one.url);
	put("jobs", NULL, "m0", "sender");
	consume(NULL, 1, lease("timeout", 0.6), keep);
	WAIT_UNTIL(n_jobs == 1);
	turn_for(2500);
	ck_assert(!coord_job_is_lost(jobs[0]));
	ck_assert_uint_eq(n_jobs, 1);
	ack(0);
	WAIT_UNTIL(n_settled == 1);
}
END_TEST

START_TEST(a_job_whose_token_died_is_lost_when_that_is_noticed)
{
	struct coord_params *p = params();

	connect_to(one.url);
	put("jobs", NULL, "m0", "sender");
	consume(NULL, 1, lease("timeout", 1), keep);
	WAIT_UNTIL(n_jobs == 1);
	coord_param_agent(p, "agent", "jobs", NULL);
	coord_param_str(p, "token", coord_job_token(jobs[0]));
	coord_reply_free(ask("ack", p));
	WAIT_UNTIL(n_lost == 1);
	ack(0);
	WAIT_UNTIL(n_refused == 1);
}
END_TEST

START_TEST(a_job_whose_deadline_passes_without_a_broker_is_lost)
{
	connect_to(one.url);
	put("jobs", NULL, "m0", "sender");
	consume(NULL, 1, lease("timeout", 1), keep);
	WAIT_UNTIL(n_jobs == 1);
	broker_kill(&one);
	WAIT_UNTIL(n_lost == 1);
	ack(0);
	broker_start(&one, NULL);
	WAIT_UNTIL(n_settled + n_refused == 1); /* the grace of the broker decides */
}
END_TEST

START_TEST(the_end_of_a_connection_is_the_end_of_its_leases)
{
	connect_to(one.url);
	put_many("jobs", 2);
	consume(NULL, 1, NULL, keep);
	WAIT_UNTIL(n_jobs == 1);
	broker_kill(&one);
	WAIT_UNTIL(n_lost == 1);
	broker_start(&one, NULL);
	turn_for(500);
	ck_assert_uint_eq(n_jobs, 1); /* its place is taken as long as it runs */
	ack(0);
	WAIT_UNTIL(n_refused == 1 && n_jobs == 2);
	ack(1);
	WAIT_UNTIL(n_settled == 1);
	ck_assert_uint_eq(most_running, 1);
}
END_TEST

START_TEST(a_killed_broker_costs_no_incarnation_and_no_job)
{
	struct coord_agent *agent;

	connect_to(one.url);
	put_many("jobs", 6);
	agent = agent_with_ttl("worker", 30);
	consume(agent, 3, NULL, keep);
	WAIT_UNTIL(n_jobs == 3);
	broker_kill(&one);
	turn_for(300);
	ack(0); /* is told to the next one */
	turn_for(100);
	broker_start(&one, NULL);
	coord_free(admin);
	admin = coord_connect(one.url, 5000, NULL);
	WAIT_UNTIL(n_settled == 1 && n_jobs == 4);
	turn_for(300);
	ck_assert_uint_eq(n_jobs, 4);
	ack(1);
	ack(2);
	ack(3);
	WAIT_UNTIL(n_settled == 4 && n_jobs == 6);
	ack(4);
	ack(5);
	WAIT_UNTIL(n_settled == 6);
	ck_assert_uint_eq(most_running, 3);
	ck_assert_uint_eq(n_lost, 0);
	ck_assert_uint_eq(n_registered, 1);
	ck_assert_int_eq(incarnation_of("worker"), last_incarnation);
	coord_agent_free(agent);
}
END_TEST

START_TEST(a_broker_that_hangs_is_left_for_another)
{
	struct coord_agent *agent;

	connect_to_both();
	put_many("jobs", 2);
	agent = agent_with_ttl("worker", 4);
	consume(agent, 1, NULL, keep);
	WAIT_UNTIL(n_jobs == 1);
	coord_free(admin);
	admin = coord_connect(two.url, 5000, NULL);
	broker_pause(&one);
	WAIT_UNTIL(coord_client_url(client) && !strcmp(coord_client_url(client), two.url));
	ack(0);
	WAIT_UNTIL(n_settled == 1 && n_jobs == 2);
	ack(1);
	WAIT_UNTIL(n_settled == 2);
	ck_assert_uint_eq(n_lost, 0);
	ck_assert_uint_eq(n_registered, 1);
	ck_assert_int_eq(incarnation_of("worker"), last_incarnation);
	broker_resume(&one);
	coord_agent_free(agent);
}
END_TEST

START_TEST(a_broker_that_drains_is_left_when_its_jobs_are_done)
{
	connect_to_both();
	put_many("jobs", 3);
	consume(NULL, 2, lease("connection", 60), keep);
	WAIT_UNTIL(n_jobs == 2);
	kill(one.pid, SIGUSR2);
	WAIT_UNTIL(coord_client_url(client) && !strcmp(coord_client_url(client), two.url));
	turn_for(300);
	ck_assert_uint_eq(n_lost, 0);
	ck_assert_uint_eq(n_jobs, 2);
	ack(0);
	WAIT_UNTIL(n_settled == 1 && n_jobs == 3); /* which comes from the other one */
	ack(1);
	ack(2);
	WAIT_UNTIL(n_settled == 3);
	ck_assert_uint_eq(most_running, 2);
	ck_assert_uint_eq(n_lost, 0);
}
END_TEST

START_TEST(a_consumer_that_the_broker_will_not_have_tells_it)
{
	struct coord_params *p = params();
	struct coord_consumer *consumer;

	connect_to(one.url);
	coord_param_int(p, "colour", 7);
	consumer = coord_client_consume(client, "jobs", NULL, 1, p, keep, NULL, NULL);
	coord_params_clear(p);
	coord_param_str(p, "lease", "forever");
	ck_assert_ptr_null(coord_client_consume(client, "jobs", NULL, 1, p, keep, NULL, NULL));
	coord_params_free(p);
	coord_consumer_on_failed(consumer, on_stopped, NULL);
	WAIT_UNTIL(n_stopped);
	ck_assert_str_eq(last_code, "bad_request");
	coord_consumer_free(consumer);
}
END_TEST

/* --- stopping --------------------------------------------------------------------------------- */

START_TEST(a_stop_waits_for_what_runs_and_takes_nothing_new)
{
	struct coord_agent *agent;

	connect_to(one.url);
	put_many("jobs", 5);
	agent = agent_with_ttl("worker", 30);
	consume(agent, 2, NULL, keep);
	WAIT_UNTIL(n_jobs == 2);
	coord_agent_stop(agent, -1, on_stopped, NULL);
	turn_for(200);
	ack(0);
	turn_for(1500);
	ck_assert_uint_eq(n_stopped, 0);
	ck_assert_int_eq(incarnation_of("worker"), last_incarnation);
	ack(1);
	WAIT_UNTIL(n_stopped == 1);
	ck_assert_str_eq(last_code, "");
	ck_assert_uint_eq(n_settled, 2);
	ck_assert_uint_eq(n_jobs, 2);
	ck_assert_int_eq(incarnation_of("worker"), -1);
	ck_assert_uint_eq(stat_of("jobs", "reserved"), 0);
	ck_assert_uint_eq(stat_of("jobs", "size"), 3);
	coord_agent_free(agent);
}
END_TEST

START_TEST(what_still_runs_when_the_time_to_stop_is_over_is_handed_back)
{
	struct coord_agent *agent;

	connect_to(one.url);
	put_many("jobs", 2);
	agent = agent_with_ttl("worker", 30);
	consume(agent, 2, lease("timeout", 60), keep);
	WAIT_UNTIL(n_jobs == 2);
	coord_agent_stop(agent, 200, on_stopped, NULL);
	WAIT_UNTIL(n_stopped == 1 && n_lost == 2);
	ck_assert_uint_eq(stat_of("jobs", "reserved"), 0);
	ck_assert_uint_eq(stat_of("jobs", "size"), 2);
	ck_assert_int_eq(incarnation_of("worker"), -1);
	coord_agent_free(agent);
	ack(0);
	ack(1);
	WAIT_UNTIL(n_refused == 2);
}
END_TEST

START_TEST(a_stop_without_a_broker_ends_too)
{
	struct coord_agent *agent;

	connect_to("unix:///nonexistent/coordd.sock");
	agent = agent_with_ttl("worker", 30);
	consume(agent, 2, NULL, keep);
	turn_for(50);
	coord_agent_stop(agent, 100, on_stopped, NULL);
	WAIT_UNTIL(n_stopped == 1);
	coord_agent_free(agent);
}
END_TEST

START_TEST(one_consumer_stops_by_itself)
{
	struct coord_consumer *consumer;

	connect_to(one.url);
	put_many("jobs", 3);
	consumer = consume(NULL, 1, NULL, keep);
	WAIT_UNTIL(n_jobs == 1);
	coord_consumer_stop(consumer, -1, on_stopped, NULL);
	ack(0);
	WAIT_UNTIL(n_stopped == 1 && n_settled == 1);
	ck_assert_uint_eq(n_jobs, 1);
	ck_assert_uint_eq(stat_of("jobs", "reserved"), 0);
}
END_TEST

/* --- requests ----------------------------------------------------------------------------------- */

static void
on_answer(void *arg, const msgpack_object *answer, const struct coord_error *err)
{
	const msgpack_object *text = coord_get(coord_get(answer, "payload"), "text");

	(void)arg;
	n_answers++;
	last_text[0] = '\0';
	snprintf(last_code, sizeof(last_code), "%s", err ? err->code : "");
	if (text)
		snprintf(last_text, sizeof(last_text), "%.*s", (int)text->via.str.size,
			 text->via.str.ptr);
}

/* {"text": "aye"} */
static const char aye[] = "\x81\xa4text\xa3"
			  "aye";

static void
say_aye(void *arg, struct coord_job *job)
{
	(void)arg;
	n_jobs++;
	ck_assert_int_eq(coord_job_reply(job, aye, sizeof(aye) - 1, on_settled, NULL),
			 COORD_OK);
}

START_TEST(a_request_gets_its_answer)
{
	struct coord_agent *agent, *oracle;

	connect_to(one.url);
	agent = agent_with_ttl("asker", 30);
	oracle = agent_with_ttl("oracle", 30);
	coord_agent_consume(oracle, NULL, NULL, 4, NULL, say_aye, NULL, NULL);
	for (unsigned i = 1; i <= 40; i++)
		ck_assert_int_eq(coord_agent_request(agent, "oracle", NULL, "\x80", 1, 20000,
						     on_answer, NULL),
				 COORD_OK);
	WAIT_UNTIL(n_answers == 40);
	ck_assert_str_eq(last_code, "");
	ck_assert_str_eq(last_text, "aye");
	WAIT_UNTIL(n_settled == 40);
	ck_assert_uint_eq(n_jobs, 40);
	coord_agent_free(agent);
	coord_agent_free(oracle);
}
END_TEST

/* Ask the oracle about it, and answer what that says. */
static void
on_second_answer(void *arg, const msgpack_object *answer, const struct coord_error *err)
{
	ck_assert_ptr_null(err);
	ck_assert_ptr_nonnull(answer);
	coord_job_reply(arg, aye, sizeof(aye) - 1, on_settled, NULL);
}

static void
ask_on(void *arg, struct coord_job *job)
{
	ck_assert_int_eq(coord_agent_request(arg, "oracle", NULL, "\x80", 1, 20000,
					     on_second_answer, job),
			 COORD_OK);
}

START_TEST(who_works_on_its_own_queue_can_ask_meanwhile)
{
	struct coord_agent *agent, *oracle;

	connect_to(one.url);
	agent = agent_with_ttl("asker", 30);
	oracle = agent_with_ttl("oracle", 30);
	coord_agent_consume(agent, NULL, NULL, 1, NULL, ask_on, agent, NULL);
	coord_agent_consume(oracle, NULL, NULL, 1, NULL, say_aye, NULL, NULL);
	for (int i = 0; i < 3; i++)
		coord_agent_request(oracle, "asker", NULL, "\x80", 1, 20000, on_answer, NULL);
	WAIT_UNTIL(n_answers == 3 && n_settled == 6);
	ck_assert_str_eq(last_text, "aye");
	coord_agent_free(agent);
	coord_agent_free(oracle);
}
END_TEST

START_TEST(a_request_that_nobody_answers_ends_with_its_time)
{
	struct coord_agent *agent;

	connect_to(one.url);
	agent = agent_with_ttl("asker", 30);
	ck_assert_int_eq(
		coord_agent_request(agent, "oracle", NULL, "\x07", 1, 300, on_answer, NULL),
		COORD_USAGE);
	ck_assert_int_eq(
		coord_agent_request(agent, "oracle", NULL, "\x80", 1, 300, on_answer, NULL),
		COORD_OK);
	WAIT_UNTIL(n_answers == 1);
	ck_assert_str_eq(last_code, "timeout");
	/* And what has no place in a queue at once. */
	coord_agent_free(agent);
}
END_TEST

START_TEST(requests_survive_a_killed_broker)
{
	struct coord_agent *agent, *oracle;

	connect_to(one.url);
	agent = agent_with_ttl("asker", 30);
	WAIT_UNTIL(n_registered == 1);
	coord_agent_request(agent, "oracle", NULL, "\x80", 1, 25000, on_answer, NULL);
	turn_for(200);
	broker_kill(&one);
	turn_for(200);
	broker_start(&one, NULL);
	oracle = agent_with_ttl("oracle", 30);
	coord_agent_consume(oracle, NULL, NULL, 1, NULL, say_aye, NULL, NULL);
	WAIT_UNTIL(n_answers == 1);
	ck_assert_str_eq(last_text, "aye");
	coord_agent_free(agent);
	coord_agent_free(oracle);
}
END_TEST

/* --- freeing --------------------------------------------------------------------------------------- */

static struct coord_agent *victim;
static struct coord_consumer *victim_consumer;

static void
free_all(void *arg, struct coord_job *job)
{
	const char *what = arg;

	n_jobs++;
	if (strchr(what, 'c'))
		coord_consumer_free(victim_consumer);
	if (strchr(what, 'j'))
		coord_job_ack(job, on_settled, NULL);
	if (strchr(what, 'a'))
		coord_agent_free(victim);
	if (strchr(what, 'C')) {
		coord_client_free(client);
		client = NULL;
	}
	if (strchr(what, 'A'))
		coord_agent_free(victim);
	if (strchr(what, 'J'))
		coord_job_ack(job, on_settled, NULL);
}

static const char *const orders[] = { "aJ",  "caJ",  "ja",  "CAJ", "CJA",
				      "jCA", "cCAJ", "aCJ", "aJC" };

START_TEST(a_handler_may_free_whatever_it_likes)
{
	connect_to(one.url);
	put_many("jobs", 3);
	victim = agent_with_ttl("worker", 30);
	victim_consumer = coord_agent_consume(victim, "jobs", NULL, 3, NULL, free_all,
					      (void *)(uintptr_t)orders[_i], NULL);
	WAIT_UNTIL(n_jobs == 1);
	turn_for(200);
	ck_assert_uint_eq(n_jobs, 1);
}
END_TEST

static void
free_on_answer(void *arg, const msgpack_object *answer, const struct coord_error *err)
{
	(void)arg;
	ck_assert_ptr_null(err);
	coord_client_free(client);
	client = NULL;
	coord_agent_free(victim);
	on_answer(NULL, answer, err);
}

START_TEST(an_answer_outlives_the_client_that_its_function_frees)
{
	struct coord_agent *oracle;

	connect_to(one.url);
	victim = agent_with_ttl("asker", 30);
	oracle = agent_with_ttl("oracle", 30);
	coord_agent_consume(oracle, NULL, NULL, 1, NULL, say_aye, NULL, NULL);
	coord_agent_request(victim, "oracle", NULL, "\x80", 1, 20000, free_on_answer, NULL);
	coord_agent_request(victim, "oracle", NULL, "\x80", 1, 20000, free_on_answer, NULL);
	WAIT_UNTIL(n_answers == 1);
	ck_assert_str_eq(last_text, "aye");
	coord_agent_free(oracle);
}
END_TEST

START_TEST(jobs_outlive_agent_and_client)
{
	struct coord_agent *agent;

	connect_to(one.url);
	put_many("jobs", 2);
	agent = agent_with_ttl("worker", 30);
	consume(agent, 2, NULL, keep);
	WAIT_UNTIL(n_jobs == 2);
	coord_agent_free(agent);
	ck_assert(coord_job_is_lost(jobs[0]));
	ck_assert_int_eq(coord_job_ack(jobs[0], on_settled, NULL), COORD_OK);
	WAIT_UNTIL(n_refused == 1);
	coord_client_free(client);
	client = NULL;
	ck_assert_int_eq(coord_job_nack(jobs[1], NULL, "x", -1, on_settled, NULL), COORD_OK);
	turn_for(50);
	ck_assert_uint_eq(n_refused, 1);
}
END_TEST

START_TEST(everything_is_freed_while_it_is_under_way)
{
	struct coord_agent *agent;

	connect_to(one.url);
	put_many("jobs", 8);
	agent = agent_with_ttl("worker", 30);
	consume(agent, 4, NULL, ack_at_once);
	for (int i = 0; i < _i; i++) {
		const struct timeval tick = { .tv_usec = 500 };

		event_base_loopexit(base, &tick);
		event_base_dispatch(base);
	}
	coord_agent_request(agent, "jobs", NULL, "\x80", 1, 100, on_answer, NULL);
	if (_i % 2)
		coord_agent_stop(agent, 10, on_stopped, NULL);
	if (_i % 3 == 0)
		turn();
	coord_client_free(client);
	client = NULL;
	coord_agent_free(agent);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("agent");
	TCase *tc = tcase_create("agent");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, an_agent_registers_and_beats);
	tcase_add_test(tc, what_is_said_of_an_agent_arrives_and_its_state_comes_back);
	tcase_add_test(tc, an_agent_whose_registration_is_refused_tells_it_once);
	tcase_add_test(tc, a_name_that_another_took_is_not_fought_for);
	tcase_add_test(tc, an_agent_that_was_forgotten_registers_anew_and_works_on);
	tcase_add_test(tc, never_more_jobs_than_places);
	tcase_add_test(tc, a_job_is_what_was_sent);
	tcase_add_test(tc, a_job_is_given_back_or_fails_as_it_was_ended);
	tcase_add_test(tc, a_lease_with_a_deadline_is_extended_while_its_job_lives);
	tcase_add_test(tc, a_job_whose_token_died_is_lost_when_that_is_noticed);
	tcase_add_test(tc, a_job_whose_deadline_passes_without_a_broker_is_lost);
	tcase_add_test(tc, the_end_of_a_connection_is_the_end_of_its_leases);
	tcase_add_test(tc, a_killed_broker_costs_no_incarnation_and_no_job);
	tcase_add_test(tc, a_broker_that_hangs_is_left_for_another);
	tcase_add_test(tc, a_broker_that_drains_is_left_when_its_jobs_are_done);
	tcase_add_test(tc, a_consumer_that_the_broker_will_not_have_tells_it);
	tcase_add_test(tc, a_stop_waits_for_what_runs_and_takes_nothing_new);
	tcase_add_test(tc, what_still_runs_when_the_time_to_stop_is_over_is_handed_back);
	tcase_add_test(tc, a_stop_without_a_broker_ends_too);
	tcase_add_test(tc, one_consumer_stops_by_itself);
	tcase_add_test(tc, a_request_gets_its_answer);
	tcase_add_test(tc, who_works_on_its_own_queue_can_ask_meanwhile);
	tcase_add_test(tc, a_request_that_nobody_answers_ends_with_its_time);
	tcase_add_test(tc, requests_survive_a_killed_broker);
	tcase_add_loop_test(tc, a_handler_may_free_whatever_it_likes, 0,
			    sizeof(orders) / sizeof(*orders));
	tcase_add_test(tc, an_answer_outlives_the_client_that_its_function_frees);
	tcase_add_test(tc, jobs_outlive_agent_and_client);
	tcase_add_loop_test(tc, everything_is_freed_while_it_is_under_way, 0, 12);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
