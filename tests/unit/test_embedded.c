/* A private redis-server, and the link to it. */
#include <check.h>
#include <ftw.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "store/embedded.h"
#include "store/link.h"

enum { MS = 1000 };

static char dir[64], data[80], binary[] = "/usr/bin/redis-server";
static struct loop *loop;
static struct timer tick;
static struct embedded *embedded;
static struct embedded_config cfg;
static struct store *store;
static unsigned n_ready, n_down;

static void
on_tick(void *arg)
{
	(void)arg;
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
	(void)arg;
	n_ready++;
}

static void
on_down(void *arg, const char *why)
{
	(void)arg;
	(void)why;
	n_down++;
}

static const struct link_ops ops = { on_ready, on_down, on_down };

static void
setup(void)
{
	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_LEVEL_ERROR);
	n_ready = n_down = 0;
	snprintf(dir, sizeof(dir), "/tmp/coordd-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(data, sizeof(data), "%s/da\"ta", dir);
	loop = loop_new();
	timer_init(&tick, loop, on_tick, NULL);
	cfg = (struct embedded_config){
		.binary = binary, .directory = data, .socket = "", .appendfsync = "always"
	};
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void
stop(void)
{
	link_free(store);
	store = NULL;
	embedded_free(embedded);
	embedded = NULL;
}

static void
teardown(void)
{
	stop();
	timer_done(&tick);
	loop_free(loop);
	ck_assert_int_eq(nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static void
start(void)
{
	struct errmsg why;
	struct link_config link = { .key_prefix = "t",
				    .username = "",
				    .password = "",
				    .connect_timeout_us = 2000 * MS,
				    .command_timeout_us = 5000 * MS,
				    .reconnect_min_us = 5 * MS,
				    .reconnect_max_us = 50 * MS,
				    .pending_limit = 100,
				    .require_noeviction = true };

	embedded = embedded_new(loop, &cfg, &why);
	ck_assert_msg(embedded != NULL, "%s", why.text);
	link.url = embedded_url(embedded);
	n_ready = 0;
	store = link_new(loop, &link, &ops, NULL);
	TURN_UNTIL(n_ready == 1);
}

/* The answer as text; "" without one. */
static const char *
ask(const char *command)
{
	static char text[4096];
	redisContext *c = redisConnectUnix(embedded_url(embedded) + strlen("unix://"));
	redisReply *reply = c && !c->err ? redisCommand(c, command) : NULL;

	*text = 0;
	if (reply && reply->type == REDIS_REPLY_INTEGER)
		snprintf(text, sizeof(text), "%lld", reply->integer);
	else if (reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2)
		snprintf(text, sizeof(text), "%s", reply->element[1]->str);
	else if (reply && reply->str)
		snprintf(text, sizeof(text), "%s", reply->str);
	freeReplyObject(reply);
	if (c)
		redisFree(c);
	return text;
}

static pid_t
child(void)
{
	const char *at = strstr(ask("INFO server"), "process_id:");

	ck_assert_ptr_nonnull(at);
	return (pid_t)atol(at + strlen("process_id:"));
}

START_TEST(it_serves_on_its_socket_alone_and_keeps_everything)
{
	struct store_info info;
	struct stat st;
	char message[160];

	start();
	store_info(store, &info);
	ck_assert_str_eq(store_durability(&info, message, sizeof(message)), "ok");
	ck_assert_str_eq(info.policy, "noeviction");
	ck_assert_str_eq(ask("CONFIG GET port"), "0");
	ck_assert_str_eq(ask("CONFIG GET save"), "");
	ck_assert_str_eq(ask("CONFIG GET dir"), data);
	ck_assert_int_eq(stat(data, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0700);
	ck_assert_int_eq(stat(embedded_url(embedded) + strlen("unix://"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 0077, 0);
}
END_TEST

START_TEST(what_it_was_told_is_there_after_a_stop)
{
	start();
	ck_assert_str_eq(ask("SET key value"), "OK");
	stop();
	start();
	ck_assert_str_eq(ask("GET key"), "value");
}
END_TEST

START_TEST(its_settings_are_those_it_was_given)
{
	char path[100];

	snprintf(path, sizeof(path), "%s/other.sock", dir);
	cfg.socket = path;
	cfg.appendfsync = "everysec";
	cfg.maxmemory = 64 << 20;
	start();
	ck_assert_str_eq(embedded_url(embedded) + strlen("unix://"), path);
	ck_assert_str_eq(ask("CONFIG GET appendfsync"), "everysec");
	ck_assert_str_eq(ask("CONFIG GET maxmemory"), "67108864");
}
END_TEST

START_TEST(when_it_dies_it_is_started_again)
{
	pid_t first, second;

	start();
	ck_assert_str_eq(ask("SET key value"), "OK");
	first = child();
	kill(first, SIGKILL);
	TURN_UNTIL(n_ready == 2);
	second = child();
	ck_assert_int_ne(first, second);
	ck_assert_str_eq(ask("GET key"), "value");
	kill(second, SIGKILL);
	TURN_UNTIL(n_ready == 3);
}
END_TEST

START_TEST(the_end_of_another_child_is_not_touched)
{
	pid_t other;
	int status;

	start();
	other = fork();
	if (other == 0)
		_exit(7);
	for (unsigned i = 0; i < 20; i++) {
		timer_at_most(&tick, 5 * MS);
		loop_turn(loop, true);
	}
	ck_assert_int_eq(waitpid(other, &status, 0), other);
	ck_assert_int_eq(WEXITSTATUS(status), 7);
	ck_assert_str_eq(ask("PING"), "PONG");
}
END_TEST

START_TEST(a_second_one_in_the_same_directory_is_refused)
{
	struct errmsg why;

	start();
	ck_assert_ptr_null(embedded_new(loop, &cfg, &why));
	ck_assert_ptr_nonnull(strstr(why.text, "another coordd"));
	ck_assert_str_eq(ask("PING"), "PONG");
	stop();
	start();
}
END_TEST

START_TEST(what_cannot_be_started_is_told)
{
	struct errmsg why;
	char path[200];

	cfg.binary = "/nonexistent/redis-server";
	ck_assert_ptr_null(embedded_new(loop, &cfg, &why));
	ck_assert_ptr_nonnull(strstr(why.text, "redis.embedded.binary"));
	cfg.binary = binary;
	cfg.directory = "/proc/nowhere";
	ck_assert_ptr_null(embedded_new(loop, &cfg, &why));
	ck_assert_ptr_nonnull(strstr(why.text, "redis.embedded.directory"));
	cfg.directory = binary; /* a file */
	ck_assert_ptr_null(embedded_new(loop, &cfg, &why));
	ck_assert_ptr_nonnull(strstr(why.text, "redis.embedded.directory"));
	cfg.directory = data;
	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[108] = 0;
	cfg.socket = path;
	ck_assert_ptr_null(embedded_new(loop, &cfg, &why));
	ck_assert_ptr_nonnull(strstr(why.text, "107 bytes"));
	cfg.socket = "";
	start();
}
END_TEST

START_TEST(a_ctrl_c_at_the_terminal_does_not_reach_it)
{
	pid_t redis;

	start();
	redis = child();
	ck_assert_int_ne(getpgid(redis), getpgid(0));
}
END_TEST

static pid_t other_redis;

/* A coordd in another process, and its redis-server. What dies of it is ours to wait for. */
static pid_t
start_other(void)
{
	int fds[2];
	pid_t coordd, redis;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	ck_assert_int_eq(pipe(fds), 0);
	coordd = fork();
	if (coordd == 0) {
		loop = loop_new();
		timer_init(&tick, loop, on_tick, NULL);
		start();
		redis = child();
		if (write(fds[1], &redis, sizeof(redis)) != sizeof(redis))
			_exit(1);
		for (;;)
			pause();
	}
	ck_assert_int_eq(read(fds[0], &other_redis, sizeof(other_redis)), sizeof(other_redis));
	close(fds[0]);
	close(fds[1]);
	return coordd;
}

static void
kill_other(pid_t coordd)
{
	kill(coordd, SIGKILL);
	ck_assert_int_eq(waitpid(coordd, NULL, 0), coordd);
}

START_TEST(it_dies_with_us)
{
	pid_t coordd = start_other();
	int status;

	kill_other(coordd);
	ck_assert_int_eq(waitpid(other_redis, &status, 0), other_redis);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0); /* in order: synced */
	start();
}
END_TEST

START_TEST(one_that_still_stops_is_waited_for)
{
	pid_t coordd = start_other();
	struct errmsg why;
	int status;

	ck_assert_int_eq(kill(other_redis, SIGSTOP), 0); /* it is slow to stop */
	kill_other(coordd);
	embedded = embedded_new(loop, &cfg, &why);
	ck_assert_msg(embedded != NULL, "%s", why.text);
	for (unsigned i = 0; i < 20; i++) {
		timer_at_most(&tick, 5 * MS);
		loop_turn(loop, true);
	}
	ck_assert_int_eq(waitpid(-1, &status, WNOHANG), 0); /* none was started and failed */
	embedded_free(embedded);
	kill(other_redis, SIGCONT);
	start();
	ck_assert_int_eq(waitpid(other_redis, &status, WNOHANG), other_redis);
	ck_assert_int_ne(child(), other_redis);
	ck_assert_str_eq(ask("PING"), "PONG");
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("embedded");
	TCase *tc = tcase_create("embedded");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 30);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, it_serves_on_its_socket_alone_and_keeps_everything);
	tcase_add_test(tc, what_it_was_told_is_there_after_a_stop);
	tcase_add_test(tc, its_settings_are_those_it_was_given);
	tcase_add_test(tc, when_it_dies_it_is_started_again);
	tcase_add_test(tc, the_end_of_another_child_is_not_touched);
	tcase_add_test(tc, a_second_one_in_the_same_directory_is_refused);
	tcase_add_test(tc, what_cannot_be_started_is_told);
	tcase_add_test(tc, a_ctrl_c_at_the_terminal_does_not_reach_it);
	tcase_add_test(tc, it_dies_with_us);
	tcase_add_test(tc, one_that_still_stops_is_waited_for);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
