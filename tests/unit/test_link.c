/*
 * The link over a real redis-server. `configure` stands for a script that writes (and that
 * Redis refuses when it is out of memory), `list` for one that may run then.
 */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "lib/redis.h"
#include "store/link.h"
#include "store/script.h"

enum { MS = 1000, MAX_CALLS = 4000 };

static struct loop *loop;
static struct timer tick;
static struct redis redis;
static struct store *store;
static struct link_config cfg;
static struct store_info info;

static unsigned n_ready, n_down, n_refused;
static char refused_why[256], down_why[256];
static void (*when_ready)(void);

/* Each call of a test, and what came of it. */
static struct answer {
	unsigned n; /* which call */
	enum err err;
	char text[128]; /* the first string of the reply */
} answers[MAX_CALLS];
static unsigned n_answers, n_calls;

/* Whatever happens to Redis in any of the tests, a timer looks after the link. */
static void
on_tick(void *arg)
{
	(void)arg;
	ck_assert(!store || link_is_alive(store));
}

#define TURN_UNTIL(condition)                                                          \
	do {                                                                           \
		uint64_t end_us = loop_clock_us() + 15000000;                          \
		while (!(condition)) {                                                 \
			ck_assert_msg(loop_clock_us() < end_us, "never: " #condition); \
			timer_at_most(&tick, 2 * MS);                                  \
			loop_turn(loop, true);                                         \
		}                                                                      \
	} while (0)

static void
on_ready(void *arg)
{
	ck_assert_ptr_eq(arg, &cfg);
	ck_assert(store_is_ready(store));
	n_ready++;
	if (when_ready)
		when_ready();
}

static void
on_down(void *arg, const char *why)
{
	ck_assert_ptr_eq(arg, &cfg);
	ck_assert(!store_is_ready(store));
	snprintf(down_why, sizeof(down_why), "%s", why);
	n_down++;
}

static void
on_refused(void *arg, const char *why)
{
	ck_assert_ptr_eq(arg, &cfg);
	snprintf(refused_why, sizeof(refused_why), "%s", why);
	n_refused++;
}

static const struct link_ops ops = { on_ready, on_down, on_refused };

static void
setup(void)
{
	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_LEVEL_ERROR);
	n_ready = n_down = n_refused = n_answers = n_calls = 0;
	refused_why[0] = down_why[0] = 0;
	when_ready = NULL;
	loop = loop_new();
	timer_init(&tick, loop, on_tick, NULL);
	redis_init(&redis);
	cfg = (struct link_config){ .url = redis.url,
				    .username = "",
				    .password = "",
				    .key_prefix = "t",
				    .connect_timeout_us = 2000 * MS,
				    .command_timeout_us = 5000 * MS,
				    .reconnect_min_us = 5 * MS,
				    .reconnect_max_us = 50 * MS,
				    .pending_limit = MAX_CALLS,
				    .require_noeviction = true };
}

static void
teardown(void)
{
	link_free(store);
	store = NULL;
	redis_done(&redis);
	timer_done(&tick);
	loop_free(loop);
}

static void
open_link(void)
{
	store = link_new(loop, &cfg, &ops, &cfg);
}

static void
open_ready(const char *conf)
{
	redis_start(&redis, conf);
	open_link();
	TURN_UNTIL(n_ready == 1);
}

static const char *
problem(void)
{
	store_info(store, &info);
	return info.problem;
}

static void
on_answer(void *arg, enum err err, const struct reply *reply)
{
	struct answer *a = &answers[n_answers++];
	struct str text = { "", 0 };

	*a = (struct answer){ .n = (unsigned)(uintptr_t)arg, .err = err };
	if (err && err != ERR_INTERNAL)
		ck_assert_ptr_null(reply);
	else if (err)
		ck_assert_int_eq(reply->type, REPLY_ERROR);
	else
		ck_assert_int_eq(reply->type, REPLY_ARRAY);
	if (reply)
		text = reply->type == REPLY_ERROR ? reply->str : reply_str(reply_at(reply, 0));
	snprintf(a->text, sizeof(a->text), "%.*s", (int)text.n, text.p ? text.p : "");
}

static void
call(enum script script, unsigned nkeys, struct args *args)
{
	unsigned before = n_answers;

	store_run(store, script, nkeys, args, on_answer, (void *)(uintptr_t)n_calls++);
	ck_assert_uint_eq(n_answers, before); /* never before store_run() returns */
	ck_assert_uint_eq(args->n, 0);
	ck_assert_uint_eq(args->buf.len, 0);
	args_done(args);
}

/* Set the size of the queues of namespace n; the answer is that size and ";;;;;;". */
static void
call_configure(uint64_t size)
{
	struct args args = { 0 };

	args_str(&args, STR("t:settings"));
	args_str(&args, STR("n"));
	args_str(&args, STR(""));
	args_uint(&args, size);
	for (unsigned i = 0; i < 5; i++)
		args_str(&args, STR(""));
	args_str(&args, STR("t:bell"));
	call(SCRIPT_CONFIGURE, 1, &args);
}

static void
call_list(void)
{
	struct args args = { 0 };

	args_str(&args, STR("t:queues"));
	args_str(&args, STR(""));
	args_str(&args, STR(""));
	args_uint(&args, 1000);
	call(SCRIPT_LIST, 1, &args);
}

static void
call_large(size_t size)
{
	struct args args = { 0 };

	args_str(&args, STR("t:queues"));
	args_str(&args, STR("zzz"));
	memset(args_reserve(&args, size), 'y', size);
	args_uint(&args, 1);
	call(SCRIPT_LIST, 1, &args);
}

static void
finish(void)
{
	TURN_UNTIL(n_answers == n_calls);
}

/* All calls so far were answered so, in their order. */
static void
check_all(enum err err)
{
	ck_assert_uint_eq(n_answers, n_calls);
	for (unsigned i = 0; i < n_calls; i++) {
		ck_assert_uint_eq(answers[i].n, i);
		ck_assert_msg(answers[i].err == err, "call %u: %s, not %s", i,
			      err_name(answers[i].err), err_name(err));
	}
	store_info(store, &info);
	ck_assert_uint_eq(info.pending, 0);
}

/* All calls succeeded, in their order, and each set its own number. */
static void
check_configured(void)
{
	char expected[64];

	check_all(OK);
	for (unsigned i = 0; i < n_calls; i++) {
		snprintf(expected, sizeof(expected), "%u;;;;;;", i);
		ck_assert_str_eq(answers[i].text, expected);
	}
}

/* Connecting ----------------------------------------------------------------------------------- */

START_TEST(urls_are_checked)
{
	static const char *const good[] = {
		"redis://127.0.0.1:6379/0",
		"redis://127.0.0.1",
		"redis://127.0.0.1/",
		"redis://u:p@h:1/2",
		"redis://:p%40:s@h",
		"redis://[::1]:6379/15",
		"redis://[::1]",
		"unix:///run/redis.sock",
		"unix:///r?db=3",
	};
	static const char *const bad[] = {
		"",
		"redis:",
		"redis://",
		"redis://:6379",
		"redis://h:0",
		"redis://h:65536",
		"redis://h:1x",
		"redis://h:",
		"redis://h/x",
		"redis://h/-1",
		"redis://h/ 1",
		"redis://p@h",
		"redis://[::1",
		"redis://[::1]x",
		"unix://",
		"unix://run/r",
		"unix:///r?db=",
		"unix:///r?x=1",
		"http://127.0.0.1",
		"tcp://127.0.0.1:1",
	};
	struct errmsg why;
	char path[8 + 108];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert_msg(link_check_url(good[i], &why), "%s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_msg(!link_check_url(bad[i], &why), "%s", bad[i]);
		ck_assert_ptr_nonnull(strstr(why.text, "redis://"));
	}
	/* A path may have 107 bytes. */
	snprintf(path, sizeof(path), "unix:///%0106d", 0);
	ck_assert(link_check_url(path, &why));
	snprintf(path, sizeof(path), "unix:///%0107d", 0);
	ck_assert(!link_check_url(path, &why));
}
END_TEST

START_TEST(it_connects_and_knows_what_it_found)
{
	struct timespec ts;
	uint64_t redis_us;

	redis_start(&redis, "appendonly yes\nappendfsync always\n");
	open_link();
	ck_assert(!store_is_ready(store));
	ck_assert_uint_eq(store_now_us(store), 0);
	ck_assert_uint_gt(strlen(problem()), 0);
	TURN_UNTIL(n_ready == 1);
	ck_assert_str_eq(problem(), "");
	ck_assert(info.ready && info.aof);
	ck_assert_str_eq(info.appendfsync, "always");
	ck_assert_str_eq(info.policy, "noeviction");
	ck_assert_int_ge(atoi(info.version), 7);
	ck_assert_uint_eq(info.reconnects, 0);
	ck_assert_str_eq(redis_do(&redis, "GET t:version"), "2");
	for (unsigned i = 0; i < SCRIPT_COUNT; i++)
		ck_assert_str_eq(redis_do(&redis, "SCRIPT EXISTS %s", script_sha(i)), "1");
	clock_gettime(CLOCK_REALTIME, &ts);
	redis_us = (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
	ck_assert_uint_lt(redis_us - store_now_us(store), 500 * MS);
	call_list();
	finish();
	check_all(OK);
	store_info(store, &info);
	ck_assert_uint_eq(info.calls, 1);
	ck_assert_uint_eq(info.errors, 0);
	ck_assert(info.round_trip_ms >= 0 && info.round_trip_ms < 5000);
}
END_TEST

START_TEST(calls_made_when_it_becomes_ready_go_out)
{
	redis_start(&redis, "");
	when_ready = call_list;
	open_link();
	TURN_UNTIL(n_answers == 1);
	check_all(OK);
}
END_TEST

START_TEST(it_waits_for_a_redis_that_is_not_there_yet)
{
	open_link();
	TURN_UNTIL(strstr(problem(), "No such file"));
	ck_assert_uint_eq(n_ready + n_down + n_refused, 0);
	call_list();
	finish();
	check_all(ERR_UNSENT);
	redis_start(&redis, "");
	TURN_UNTIL(n_ready == 1);
}
END_TEST

START_TEST(over_tcp_with_a_password_and_a_database)
{
	char url[128];

	redis_start(&redis, "requirepass p@ss:w\n");
	snprintf(url, sizeof(url), "redis://:p%%40ss:w@127.0.0.1:%d/3", redis.port);
	cfg.url = url;
	open_link();
	TURN_UNTIL(n_ready == 1);
	call_list();
	finish();
	check_all(OK);
	link_free(store);
	snprintf(url, sizeof(url), "unix://%s?db=3", redis.socket);
	cfg.password = "p@ss:w";
	redis_kill(&redis); /* which forgot all */
	redis_start(&redis, "requirepass p@ss:w\n");
	open_link();
	TURN_UNTIL(n_ready == 2);
	link_free(store);
	store = NULL;
	redis_kill(&redis);
	redis_start(&redis, "");
}
END_TEST

START_TEST(a_name_of_a_host_is_looked_up)
{
	char url[64];

	redis_start(&redis, "");
	snprintf(url, sizeof(url), "redis://localhost:%d", redis.port);
	cfg.url = url;
	open_link();
	TURN_UNTIL(n_ready == 1);
}
END_TEST

START_TEST(the_database_is_the_one_of_the_url)
{
	char url[128];

	redis_start(&redis, "");
	snprintf(url, sizeof(url), "unix://%s?db=5", redis.socket);
	cfg.url = url;
	open_link();
	TURN_UNTIL(n_ready == 1);
	ck_assert_str_eq(redis_do(&redis, "EXISTS t:version"), "0");
	ck_assert_ptr_nonnull(strstr(redis_do(&redis, "INFO keyspace"), "db5:keys=1"));
}
END_TEST

START_TEST(a_user_of_the_acl_needs_only_what_the_manual_says)
{
	redis_start(&redis, "");
	redis_do(&redis, "ACL SETUSER u on >secret ~t:* +evalsha +eval +script|load +time "
			 "+info +config|get "
			 "+select +set +get +ping +hget +hset +hdel +zrangebylex");
	cfg.username = "u";
	cfg.password = "secret";
	open_link();
	TURN_UNTIL(n_ready == 1);
	call_configure(0);
	call_list();
	finish();
	redis_do(&redis, "SCRIPT FLUSH");
	call_configure(1);
	finish();
	check_all(OK);
}
END_TEST

START_TEST(without_config_how_it_syncs_is_unknown)
{
	redis_start(&redis, "appendonly yes\nrename-command CONFIG \"\"\n");
	open_link();
	TURN_UNTIL(n_ready == 1);
	store_info(store, &info);
	ck_assert(info.aof);
	ck_assert_str_eq(info.appendfsync, "");
	ck_assert_str_eq(info.policy, "noeviction");
}
END_TEST

START_TEST(a_wrong_password_is_told_and_not_hammered)
{
	redis_start(&redis, "");
	redis_do(&redis, "ACL SETUSER u on >right ~* +@all");
	cfg.username = "u";
	cfg.password = "wrong";
	open_link();
	TURN_UNTIL(strstr(problem(), "WRONGPASS"));
	for (unsigned i = 0; i < 20; i++) { /* four times reconnect_max */
		timer_at_most(&tick, 10 * MS);
		loop_turn(loop, true);
	}
	ck_assert_ptr_nonnull(
		strstr(redis_do(&redis, "INFO commandstats"), "cmdstat_auth:calls=1,"));
	ck_assert_uint_eq(n_ready + n_refused, 0);
	link_free(store);
	cfg.password = "right";
	open_link();
	TURN_UNTIL(n_ready == 1);
}
END_TEST

/* Refused -------------------------------------------------------------------------------------- */

START_TEST(a_redis_that_evicts_is_refused_until_it_does_not)
{
	redis_start(&redis, "maxmemory 100mb\nmaxmemory-policy allkeys-lru\n");
	open_link();
	TURN_UNTIL(n_refused > 0);
	ck_assert_ptr_nonnull(strstr(refused_why, "allkeys-lru"));
	ck_assert_str_eq(problem(), refused_why);
	ck_assert_uint_eq(n_ready, 0);
	ck_assert_str_eq(redis_do(&redis, "DBSIZE"), "0");
	redis_do(&redis, "CONFIG SET maxmemory-policy noeviction");
	TURN_UNTIL(n_ready == 1);
}
END_TEST

START_TEST(a_policy_without_a_limit_evicts_nothing)
{
	open_ready("maxmemory-policy allkeys-lru\n");
	store_info(store, &info);
	ck_assert_str_eq(info.policy, "allkeys-lru");
}
END_TEST

START_TEST(eviction_may_be_wanted)
{
	cfg.require_noeviction = false;
	open_ready("maxmemory 100mb\nmaxmemory-policy allkeys-lru\n");
}
END_TEST

START_TEST(another_layout_is_refused_and_left_alone)
{
	redis_start(&redis, "");
	redis_do(&redis, "SET t:version 3");
	open_link();
	TURN_UNTIL(n_refused > 0);
	ck_assert_ptr_nonnull(strstr(refused_why, "newer layout version"));
	ck_assert_str_eq(redis_do(&redis, "GET t:version"), "3");
	redis_do(&redis, "SET t:version 1");
	n_refused = 0;
	TURN_UNTIL(n_refused > 0);
	ck_assert_ptr_nonnull(strstr(refused_why, "older layout version"));
	redis_do(&redis, "SET t:version 2");
	TURN_UNTIL(n_ready == 1);
}
END_TEST

START_TEST(nonsense_under_the_version_key_is_refused)
{
	redis_start(&redis, "");
	redis_do(&redis, "SET t:version x");
	open_link();
	TURN_UNTIL(n_refused > 0);
	redis_do(&redis, "DEL t:version");
	redis_do(&redis, "LPUSH t:version 1");
	n_refused = 0;
	TURN_UNTIL(n_refused > 0 || n_ready > 0);
	ck_assert_uint_eq(n_ready, 0);
	ck_assert_ptr_nonnull(strstr(refused_why, "no layout version"));
}
END_TEST

START_TEST(a_cluster_node_is_refused)
{
	char conf[80];

	/* Its second port would be 10000 more than the first, which there may not be. */
	snprintf(conf, sizeof(conf), "port 0\ncluster-port %d\ncluster-enabled yes\n",
		 redis.port);
	redis_start(&redis, conf);
	open_link();
	TURN_UNTIL(n_refused > 0);
	ck_assert_ptr_nonnull(strstr(refused_why, "cluster"));
}
END_TEST

START_TEST(a_replica_is_waited_for)
{
	redis_start(&redis, "replicaof 127.0.0.1 1\n");
	open_link();
	TURN_UNTIL(strstr(problem(), "READONLY"));
	ck_assert_uint_eq(n_ready + n_refused, 0);
	redis_do(&redis, "REPLICAOF NO ONE");
	TURN_UNTIL(n_ready == 1);
}
END_TEST

START_TEST(a_redis_that_loads_is_waited_for)
{
	redis_start(&redis, "");
	redis_do(&redis, "DEBUG POPULATE 20000 key 10");
	redis_do(&redis, "SAVE");
	redis_kill(&redis);
	/* half a millisecond a key */
	redis_launch(&redis,
		     "key-load-delay 500\nloading-process-events-interval-bytes 1024\n");
	open_link();
	TURN_UNTIL(strstr(problem(), "LOADING"));
	call_list();
	finish();
	check_all(ERR_UNSENT);
	redis_do(&redis, "CONFIG SET key-load-delay 0");
	TURN_UNTIL(n_ready == 1);
	ck_assert_uint_eq(n_refused, 0);
}
END_TEST

/* Not Redis at all: whatever comes first ends the connection, and not us. */
static int rogue_fd = -1;

static void
rogue_listen(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	rogue_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", redis.socket);
	ck_assert_int_eq(bind(rogue_fd, (struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(listen(rogue_fd, 8), 0);
}

static int
rogue_accept(void)
{
	struct timeval limit = { .tv_sec = 10 };
	int fd;

	setsockopt(rogue_fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	for (unsigned i = 0; i < 20; i++) {
		timer_at_most(&tick, 5 * MS);
		loop_turn(loop, true);
	}
	fd = accept(rogue_fd, NULL, NULL);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static void
rogue_say(const char *text)
{
	int fd;

	rogue_listen();
	open_link();
	fd = rogue_accept();
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	TURN_UNTIL(!strstr(problem(), "not connected"));
	close(fd);
	for (unsigned i = 0; i < 20; i++) {
		timer_at_most(&tick, 5 * MS);
		loop_turn(loop, true);
	}
	ck_assert_uint_eq(n_ready, 0);
	close(rogue_fd);
}

START_TEST(what_speaks_another_protocol_is_no_redis)
{
	rogue_say("HTTP/1.1 400 Bad Request\r\n\r\n");
	ck_assert_uint_gt(strlen(problem()), 0);
}
END_TEST

START_TEST(answers_that_nobody_asked_for_end_the_connection)
{
	rogue_say("+1\r\n+2\r\n+3\r\n+4\r\n+5\r\n+6\r\n*1\r\n:1\r\n$2\r\nab\r\n+9\r\n");
	ck_assert_uint_gt(strlen(problem()), 0);
}
END_TEST

START_TEST(too_many_clients_is_told_as_such)
{
	rogue_say("-ERR max number of clients reached\r\n");
	ck_assert_ptr_nonnull(strstr(problem(), "max number of clients"));
}
END_TEST

START_TEST(what_does_not_answer_the_handshake_is_given_up)
{
	redis_start(&redis, "");
	redis_pause(&redis);
	cfg.command_timeout_us = 100 * MS;
	open_link();
	TURN_UNTIL(strstr(problem(), "no answer in time"));
	redis_resume(&redis);
	TURN_UNTIL(n_ready == 1);
}
END_TEST

/* Calls ---------------------------------------------------------------------------------------- */

START_TEST(calls_are_answered_in_their_order)
{
	open_ready("");
	for (unsigned i = 0; i < 2000; i++) {
		call_configure(i);
		if (i % 37 == 0)
			loop_turn(loop, false);
	}
	finish();
	check_configured();
}
END_TEST

START_TEST(a_large_reply_comes_in_whole)
{
	char name[1001];

	open_ready("");
	memset(name, 'x', sizeof(name));
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, 5, "%04u", i);
		name[4] = 'x';
		redis_do(&redis, "ZADD t:queues 0 %b", name, sizeof(name) - 1);
	}
	call_list();
	call_configure(1);
	finish();
	check_all(OK);
	ck_assert_int_eq(strncmp(answers[0].text, "0000xxx", 7), 0);
	ck_assert_str_eq(answers[1].text, "1;;;;;;");
}
END_TEST

START_TEST(large_calls_go_out_in_parts)
{
	open_ready("");
	for (unsigned i = 0; i < 5; i++)
		call_large(3000000);
	call_list();
	finish();
	check_all(OK);
}
END_TEST

START_TEST(more_than_the_limit_is_not_sent)
{
	cfg.pending_limit = 3;
	open_ready("");
	for (unsigned i = 0; i < 5; i++)
		call_configure(i);
	finish();
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(answers[i].err, answers[i].n < 3 ? OK : ERR_UNSENT);
	ck_assert_str_eq(redis_do(&redis, "HGET t:settings n"), "2;;;;;;");
	call_configure(7);
	finish();
	ck_assert_int_eq(answers[5].err, OK);
}
END_TEST

static unsigned again_left;

static void
on_unsent_again(void *arg, enum err err, const struct reply *reply)
{
	struct args args = { 0 };

	(void)arg;
	(void)reply;
	ck_assert_int_eq(err, ERR_UNSENT);
	if (again_left--)
		store_run(store, SCRIPT_LIST, 0, &args, on_unsent_again, NULL);
}

START_TEST(asking_again_in_the_callback_does_not_hang)
{
	struct args args = { 0 };

	again_left = 1000;
	open_link();
	store_run(store, SCRIPT_LIST, 0, &args, on_unsent_again, NULL);
	TURN_UNTIL(again_left == (unsigned)-1);
}
END_TEST

/* Trouble -------------------------------------------------------------------------------------- */

START_TEST(what_flies_when_redis_dies_is_unknown)
{
	open_ready("");
	redis_pause(&redis);
	for (unsigned i = 0; i < 10; i++)
		call_configure(i);
	loop_turn(loop, false);
	redis_kill(&redis);
	finish();
	check_all(ERR_UNKNOWN);
	TURN_UNTIL(n_down == 1);
	call_list();
	finish();
	ck_assert_int_eq(answers[10].err, ERR_UNSENT);
	redis_start(&redis, "");
	TURN_UNTIL(n_ready == 2);
	store_info(store, &info);
	ck_assert_uint_eq(info.reconnects, 1);
	ck_assert_uint_eq(info.errors, 11);
	call_list();
	finish();
	ck_assert_int_eq(answers[11].err, OK);
}
END_TEST

START_TEST(what_was_not_written_when_redis_dies_is_unsent)
{
	open_ready("");
	redis_pause(&redis);
	for (unsigned i = 0; i < 20; i++)
		call_large(300000); /* more than a socket takes */
	for (unsigned i = 0; i < 10; i++)
		loop_turn(loop, false);
	redis_kill(&redis);
	finish();
	ck_assert_int_eq(answers[0].err, ERR_UNKNOWN);
	ck_assert_int_eq(answers[19].err, ERR_UNSENT);
	for (unsigned i = 1; i < 20; i++) {
		ck_assert_uint_eq(answers[i].n, i);
		ck_assert(answers[i].err == answers[i - 1].err || answers[i].err == ERR_UNSENT);
	}
}
END_TEST

START_TEST(a_late_answer_condemns_the_link)
{
	cfg.command_timeout_us = 300 * MS;
	open_ready("");
	call_list();
	finish();
	redis_pause(&redis);
	call_configure(5);
	finish();
	ck_assert_int_eq(answers[1].err, ERR_UNKNOWN);
	ck_assert_uint_eq(n_down, 1);
	ck_assert_ptr_nonnull(strstr(down_why, "no answer in time"));
	redis_resume(&redis);
	TURN_UNTIL(n_ready == 2);
	call_list();
	finish();
	ck_assert_uint_eq(n_answers, 3); /* and the late answer found nobody */
	ck_assert_int_eq(answers[2].err, OK);
}
END_TEST

START_TEST(the_deadline_is_each_calls_own)
{
	uint64_t began;

	cfg.command_timeout_us = 300 * MS;
	open_ready("");
	began = loop_clock_us();
	while (loop_clock_us() - began < 700 * MS) {
		call_list(); /* there is always one in flight, and none is late */
		finish();
	}
	ck_assert_uint_eq(n_down, 0);
	check_all(OK);
}
END_TEST

START_TEST(flushed_scripts_come_back_and_calls_keep_their_order)
{
	open_ready("");
	redis_do(&redis, "SCRIPT FLUSH");
	for (unsigned i = 0; i < 500; i++) {
		call_configure(i);
		if (i % 50 == 0)
			loop_turn(loop, false);
	}
	finish();
	check_configured();
	ck_assert_uint_eq(n_down, 0);
	ck_assert_str_eq(redis_do(&redis, "HGET t:settings n"), "499;;;;;;");
}
END_TEST

START_TEST(flushed_while_calls_fly_they_still_keep_their_order)
{
	open_ready("");
	while (n_calls < 3000) {
		for (unsigned i = 0; i < 100; i++) {
			if (i % 25 == 0)
				loop_turn(loop, false);
			if (i == 60)
				redis_do(&redis, "SCRIPT FLUSH");
			call_configure(n_calls);
		}
		finish();
	}
	check_configured();
	ck_assert_uint_eq(n_down, 0);
}
END_TEST

START_TEST(who_flushes_all_the_time_starves_nobody)
{
	open_ready("");
	while (n_calls < 500) {
		for (unsigned i = 0; i < 20; i++)
			call_configure(n_calls);
		loop_turn(loop, false);
		redis_do(&redis, "SCRIPT FLUSH");
	}
	finish();
	check_configured();
	ck_assert_uint_eq(n_down, 0);
}
END_TEST

START_TEST(a_script_that_may_not_be_loaded_again_is_unsent)
{
	redis_start(&redis, "");
	redis_do(&redis, "ACL SETUSER u on >p ~* +@all");
	cfg.username = "u";
	cfg.password = "p";
	open_link();
	TURN_UNTIL(n_ready == 1);
	redis_do(&redis, "ACL SETUSER u -script");
	redis_do(&redis, "SCRIPT FLUSH");
	call_configure(1);
	call_configure(2);
	finish();
	check_all(ERR_UNSENT);
	TURN_UNTIL(n_down == 1);
	ck_assert_ptr_nonnull(strstr(problem(), "NOPERM"));
}
END_TEST

START_TEST(out_of_memory_only_what_frees_runs)
{
	open_ready("");
	redis_do(&redis, "CONFIG SET maxmemory 1");
	call_configure(1);
	call_list();
	call_configure(2);
	finish();
	ck_assert_int_eq(answers[0].err, ERR_REFUSED);
	ck_assert_int_eq(answers[1].err, OK);
	ck_assert_int_eq(answers[2].err, ERR_REFUSED);
	ck_assert_str_eq(redis_do(&redis, "EXISTS t:settings"), "0");
	redis_do(&redis, "CONFIG SET maxmemory 0");
	call_configure(3);
	finish();
	ck_assert_int_eq(answers[3].err, OK);
	ck_assert_uint_eq(n_down, 0);
}
END_TEST

START_TEST(out_of_memory_it_still_connects_where_it_was_before)
{
	open_ready("");
	redis_do(&redis, "CONFIG SET maxmemory 1");
	redis_do(&redis, "CLIENT KILL TYPE normal");
	TURN_UNTIL(n_ready == 2);
	call_list();
	finish();
	check_all(OK);
}
END_TEST

START_TEST(a_new_redis_without_memory_is_waited_for)
{
	redis_start(&redis, "maxmemory 1\n");
	open_link();
	TURN_UNTIL(strstr(problem(), "OOM"));
	ck_assert_uint_eq(n_refused, 0);
	redis_do(&redis, "CONFIG SET maxmemory 0");
	TURN_UNTIL(n_ready == 1);
}
END_TEST

START_TEST(too_few_replicas_is_refused)
{
	open_ready("");
	redis_do(&redis, "CONFIG SET min-replicas-to-write 1");
	call_configure(1);
	finish();
	check_all(ERR_REFUSED);
	ck_assert_uint_eq(n_down, 0);
}
END_TEST

START_TEST(a_redis_that_cannot_save_is_refused)
{
	open_ready("save 3600 1\nenable-protected-configs yes\n");
	redis_do(&redis, "CONFIG SET dbfilename missing");
	redis_do(&redis, "CONFIG SET dir /proc");
	redis_do(&redis, "SET x y");
	redis_do(&redis, "BGSAVE");
	TURN_UNTIL(strstr(redis_do(&redis, "INFO persistence"), "rdb_last_bgsave_status:err"));
	call_configure(1);
	finish();
	check_all(ERR_REFUSED);
	ck_assert_uint_eq(n_down, 0);
}
END_TEST

START_TEST(a_master_that_is_demoted_is_left)
{
	open_ready("");
	redis_do(&redis, "REPLICAOF 127.0.0.1 1");
	for (unsigned i = 0; i < 100; i++)
		call_configure(i);
	finish();
	check_all(ERR_UNSENT); /* all of them were told no: none is unknown */
	TURN_UNTIL(n_down == 1);
	ck_assert_ptr_nonnull(strstr(down_why, "READONLY"));
	redis_do(&redis, "REPLICAOF NO ONE");
	TURN_UNTIL(n_ready == 2);
}
END_TEST

START_TEST(while_someones_script_runs_nothing_is_sent)
{
	char command[256];
	FILE *other;

	open_ready("busy-reply-threshold 20\n");
	snprintf(command, sizeof(command),
		 "exec redis-cli -s %s eval 'while true do end' 0 >/dev/null 2>&1",
		 redis.socket);
	other = popen(command, "w"); // NOLINT(cert-env33-c): the test's own words
	ck_assert_ptr_nonnull(other);
	TURN_UNTIL(strstr(redis_do(&redis, "GET x"), "BUSY"));
	call_configure(1);
	finish();
	check_all(ERR_UNSENT);
	ck_assert_uint_eq(n_down, 0);
	redis_do(&redis, "SCRIPT KILL");
	pclose(other);
	call_configure(2);
	finish();
	ck_assert_int_eq(answers[1].err, OK);
}
END_TEST

START_TEST(a_foreign_type_under_our_key_is_internal)
{
	open_ready("");
	redis_do(&redis, "SET t:settings x");
	call_configure(1);
	finish();
	check_all(ERR_INTERNAL);
	ck_assert_ptr_nonnull(strstr(answers[0].text, "WRONGTYPE"));
	ck_assert_uint_eq(n_down, 0);
}
END_TEST

START_TEST(credentials_that_are_taken_away_are_asked_for_again)
{
	redis_start(&redis, "");
	redis_do(&redis, "ACL SETUSER u on >p ~* +@all");
	cfg.username = "u";
	cfg.password = "p";
	open_link();
	TURN_UNTIL(n_ready == 1);
	redis_do(&redis, "ACL DELUSER u"); /* which cuts its connections */
	TURN_UNTIL(n_down == 1 && strstr(problem(), "WRONGPASS"));
	redis_do(&redis, "ACL SETUSER u on >p ~* +@all");
	TURN_UNTIL(n_ready == 2); /* after five seconds */
}
END_TEST

START_TEST(freeing_tells_every_call)
{
	open_ready("");
	redis_pause(&redis);
	call_configure(0);
	loop_turn(loop, false);
	call_configure(1);
	link_free(store);
	store = NULL;
	ck_assert_uint_eq(n_answers, 2);
	ck_assert_int_eq(answers[0].err, ERR_UNKNOWN);
	ck_assert_int_eq(answers[1].err, ERR_UNSENT);
	ck_assert_uint_eq(n_down, 0);
	loop_turn(loop, false);
	ck_assert_uint_eq(n_answers, 2);
}
END_TEST

START_TEST(it_may_be_freed_at_any_time)
{
	redis_start(&redis, "");
	for (unsigned turns = 0; turns < 12; turns++) {
		open_link();
		for (unsigned i = 0; i < turns; i++) {
			timer_at_most(&tick, 1 * MS);
			loop_turn(loop, true);
		}
		link_free(store);
	}
	open_link();
	n_ready = 0;
	TURN_UNTIL(n_ready == 1);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("link");
	TCase *tc = tcase_create("link");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 30);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, urls_are_checked);
	tcase_add_test(tc, it_connects_and_knows_what_it_found);
	tcase_add_test(tc, calls_made_when_it_becomes_ready_go_out);
	tcase_add_test(tc, it_waits_for_a_redis_that_is_not_there_yet);
	tcase_add_test(tc, over_tcp_with_a_password_and_a_database);
	tcase_add_test(tc, a_name_of_a_host_is_looked_up);
	tcase_add_test(tc, the_database_is_the_one_of_the_url);
	tcase_add_test(tc, a_user_of_the_acl_needs_only_what_the_manual_says);
	tcase_add_test(tc, without_config_how_it_syncs_is_unknown);
	tcase_add_test(tc, a_wrong_password_is_told_and_not_hammered);
	tcase_add_test(tc, a_redis_that_evicts_is_refused_until_it_does_not);
	tcase_add_test(tc, a_policy_without_a_limit_evicts_nothing);
	tcase_add_test(tc, eviction_may_be_wanted);
	tcase_add_test(tc, another_layout_is_refused_and_left_alone);
	tcase_add_test(tc, nonsense_under_the_version_key_is_refused);
	tcase_add_test(tc, a_cluster_node_is_refused);
	tcase_add_test(tc, a_replica_is_waited_for);
	tcase_add_test(tc, a_redis_that_loads_is_waited_for);
	tcase_add_test(tc, what_speaks_another_protocol_is_no_redis);
	tcase_add_test(tc, answers_that_nobody_asked_for_end_the_connection);
	tcase_add_test(tc, too_many_clients_is_told_as_such);
	tcase_add_test(tc, what_does_not_answer_the_handshake_is_given_up);
	tcase_add_test(tc, calls_are_answered_in_their_order);
	tcase_add_test(tc, a_large_reply_comes_in_whole);
	tcase_add_test(tc, large_calls_go_out_in_parts);
	tcase_add_test(tc, more_than_the_limit_is_not_sent);
	tcase_add_test(tc, asking_again_in_the_callback_does_not_hang);
	tcase_add_test(tc, what_flies_when_redis_dies_is_unknown);
	tcase_add_test(tc, what_was_not_written_when_redis_dies_is_unsent);
	tcase_add_test(tc, a_late_answer_condemns_the_link);
	tcase_add_test(tc, the_deadline_is_each_calls_own);
	tcase_add_test(tc, flushed_scripts_come_back_and_calls_keep_their_order);
	tcase_add_test(tc, flushed_while_calls_fly_they_still_keep_their_order);
	tcase_add_test(tc, who_flushes_all_the_time_starves_nobody);
	tcase_add_test(tc, a_script_that_may_not_be_loaded_again_is_unsent);
	tcase_add_test(tc, out_of_memory_only_what_frees_runs);
	tcase_add_test(tc, out_of_memory_it_still_connects_where_it_was_before);
	tcase_add_test(tc, a_new_redis_without_memory_is_waited_for);
	tcase_add_test(tc, too_few_replicas_is_refused);
	tcase_add_test(tc, a_redis_that_cannot_save_is_refused);
	tcase_add_test(tc, a_master_that_is_demoted_is_left);
	tcase_add_test(tc, while_someones_script_runs_nothing_is_sent);
	tcase_add_test(tc, a_foreign_type_under_our_key_is_internal);
	tcase_add_test(tc, credentials_that_are_taken_away_are_asked_for_again);
	tcase_add_test(tc, freeing_tells_every_call);
	tcase_add_test(tc, it_may_be_freed_at_any_time);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
