#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/listener.h"

static struct loop *loop;
static struct timer tick;
static struct conns *conns;
static unsigned opened, closed;
static char peer[128];
static char dir[64];

static void *
on_open(void *arg, struct conn *conn)
{
	(void)arg;
	opened++;
	snprintf(peer, sizeof(peer), "%s", conn_peer(conn));
	return conn;
}

static bool
on_frame(void *user, const uint8_t *frame, size_t n)
{
	(void)user;
	(void)frame;
	return n > 0;
}

static void
on_bad_frame(void *user, enum frame_status status)
{
	(void)user;
	(void)status;
}

static void
on_close(void *user, enum conn_end why)
{
	(void)user;
	(void)why;
	closed++;
}

static void
on_tick(void *arg)
{
	(void)arg;
}

static void
setup(void)
{
	static const struct conn_ops ops = { on_open, on_frame, on_bad_frame, on_close, NULL };
	static const struct conn_limits limits = { .frame = { 1000, 1000 },
						   .output_high_water = 1000,
						   .output_limit = 2000,
						   .max_connections = 1000 };

	loop = loop_new();
	timer_init(&tick, loop, on_tick, NULL);
	conns = conns_new(loop, &limits, &ops, NULL);
	snprintf(dir, sizeof(dir), "/tmp/coordd-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void
teardown(void)
{
	conns_free(conns);
	timer_done(&tick);
	loop_free(loop);
	ck_assert_int_eq(rmdir(dir), 0); /* empty: no socket file was left */
}

#define TURN_UNTIL(condition)                                                          \
	do {                                                                           \
		uint64_t end_us = loop_clock_us() + 5000000;                           \
		while (!(condition)) {                                                 \
			ck_assert_msg(loop_clock_us() < end_us, "never: " #condition); \
			timer_at_most(&tick, 2000);                                    \
			loop_turn(loop, true);                                         \
		}                                                                      \
	} while (0)

static struct listeners *
listen_on(const char *url, struct errmsg *why)
{
	return listeners_new(loop, conns, &url, 1, 0660, 64, why);
}

static int
unix_connect(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	close(fd);
	return -1;
}

START_TEST(tcp_v4_and_v6_and_unix_at_once)
{
	char path[100], url[120], own[64], expected[80];
	const char *urls[] = { "tcp://127.0.0.1:0", "tcp://[::1]:0", url };
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6,
				   .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	socklen_t len = sizeof(a), len6 = sizeof(a6);
	unsigned port, port6;
	struct listeners *l;
	struct errmsg why;
	struct stat st;
	int fd, fd6, fdu;

	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(url, sizeof(url), "unix://%s", path);
	l = listeners_new(loop, conns, urls, 3, 0660, 64, &why);
	ck_assert_msg(l != NULL, "%s", why.text);
	ck_assert_int_eq(sscanf(listeners_text(l),
				"tcp://127.0.0.1:%u tcp://[::1]:%u unix://%63s", &port, &port6,
				own),
			 3);
	ck_assert_str_eq(own, path);
	ck_assert_uint_gt(port, 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0660);

	a.sin_port = htons((uint16_t)port);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	TURN_UNTIL(opened == 1);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	snprintf(expected, sizeof(expected), "127.0.0.1:%u", ntohs(a.sin_port));
	ck_assert_str_eq(peer, expected);

	a6.sin6_port = htons((uint16_t)port6);
	fd6 = socket(AF_INET6, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fd6, (struct sockaddr *)&a6, sizeof(a6)), 0);
	TURN_UNTIL(opened == 2);
	ck_assert_int_eq(getsockname(fd6, (struct sockaddr *)&a6, &len6), 0);
	snprintf(expected, sizeof(expected), "[::1]:%u", ntohs(a6.sin6_port));
	ck_assert_str_eq(peer, expected);

	fdu = unix_connect(path);
	ck_assert_int_ge(fdu, 0);
	TURN_UNTIL(opened == 3);
	snprintf(expected, sizeof(expected), "unix:pid=%d,uid=%u", (int)getpid(),
		 (unsigned)getuid());
	ck_assert_str_eq(peer, expected);

	listeners_free(l);
	ck_assert_int_ne(access(path, F_OK), 0);
	ck_assert_uint_eq(conns_count(conns), 3); /* those it accepted stay */
	close(fd);
	close(fd6);
	close(fdu);
	TURN_UNTIL(closed == 3);
}
END_TEST

START_TEST(a_stale_socket_file_is_replaced_and_a_live_one_is_not)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct listeners *l, *second;
	struct errmsg why = { 0 };
	char url[128];
	int fd;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/s", dir);
	snprintf(url, sizeof(url), "unix://%s", a.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd); /* its owner died */
	l = listen_on(url, &why);
	ck_assert_msg(l != NULL, "%s", why.text);

	second = listen_on(url, &why);
	ck_assert_ptr_null(second);
	ck_assert_ptr_nonnull(strstr(why.text, url));
	ck_assert_ptr_nonnull(strstr(why.text, "another process listens there"));
	fd = unix_connect(a.sun_path); /* the first was not harmed */
	ck_assert_int_ge(fd, 0);
	close(fd);
	TURN_UNTIL(closed == 2); /* this one, and the second listener's look whether we live */

	/* The file of a successor is not ours to remove. */
	ck_assert_int_eq(unlink(a.sun_path), 0);
	second = listen_on(url, &why);
	ck_assert_msg(second != NULL, "%s", why.text);
	listeners_free(l);
	ck_assert_int_eq(access(a.sun_path, F_OK), 0);
	listeners_free(second);
	ck_assert_int_ne(access(a.sun_path, F_OK), 0);
}
END_TEST

START_TEST(a_file_that_is_no_socket_is_left_alone)
{
	struct errmsg why = { 0 };
	char path[80], url[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(url, sizeof(url), "unix://%s", path);
	f = fopen(path, "w");
	fclose(f);
	ck_assert_ptr_null(listen_on(url, &why));
	ck_assert_ptr_nonnull(strstr(why.text, "no socket"));
	ck_assert_int_eq(unlink(path), 0);
}
END_TEST

START_TEST(it_listens_on_all_addresses_or_on_none)
{
	char path[80], url[128], taken[64];
	struct errmsg why = { 0 };
	const char *urls[] = { url, taken };
	struct listeners *first;

	first = listen_on("tcp://127.0.0.1:0", &why);
	ck_assert_ptr_nonnull(first);
	snprintf(taken, sizeof(taken), "%s", listeners_text(first));
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(url, sizeof(url), "unix://%s", path);
	ck_assert_ptr_null(listeners_new(loop, conns, urls, 2, 0600, 64, &why));
	ck_assert_ptr_nonnull(strstr(why.text, taken));
	ck_assert_int_ne(access(path, F_OK), 0);
	listeners_free(first);
}
END_TEST

START_TEST(without_descriptors_it_rests_and_comes_back)
{
	struct rlimit before, low;
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct listeners *l;
	struct errmsg why;
	unsigned port, turns = 0;
	uint64_t later;
	int fd, probe;

	l = listen_on("tcp://127.0.0.1:0", &why);
	ck_assert_ptr_nonnull(l);
	ck_assert_int_eq(sscanf(listeners_text(l), "tcp://127.0.0.1:%u", &port), 1);
	a.sin_port = htons((uint16_t)port);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);

	probe = dup(0);
	close(probe);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	low = before;
	low.rlim_cur = (rlim_t)probe; /* what is open stays so, nothing more is to be had */
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
	later = loop_clock_us() + 100000;
	for (; loop_clock_us() < later; turns++) {
		timer_at_most(&tick, 20000);
		loop_turn(loop, true);
	}
	ck_assert_uint_eq(opened, 0);
	ck_assert_uint_lt(turns, 50); /* it did not spin */
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	TURN_UNTIL(opened == 1);
	close(fd);
	TURN_UNTIL(closed == 1);
	listeners_free(l);
}
END_TEST

START_TEST(addresses_are_checked)
{
	static const char *const good[] = { "tcp://127.0.0.1:7420", "tcp://0.0.0.0:0",
					    "tcp://[::1]:65535", "tcp://[2001:db8::7]:1",
					    "unix:///run/coordd.sock" };
	static const char *const wrong[] = {
		"",
		"127.0.0.1:7420",
		"http://127.0.0.1:7420",
		"tcp://",
		"tcp://127.0.0.1",
		"tcp://127.0.0.1:",
		"tcp://127.0.0.1:65536",
		"tcp://127.0.0.1:-1",
		"tcp://127.0.0.1:7420x",
		"tcp://127.0.0.1:000080",
		"tcp://localhost:7420",
		"tcp://127.1:7420",
		"tcp://::1:7420",
		"tcp://[::1:7420",
		"tcp://[]:7420",
		"tcp://[:7420",
		"tcp://:7420",
		"tcp://[127.0.0.1]:7420",
		"tcp://1111111111111111111111111111111111111111111111111111:1",
		"unix://",
		"unix:///",
		"unix://relative"
	};
	char url[7 + 108 + 1] = "unix://";
	struct errmsg why;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert_msg(listener_check(good[i], &why), "%s", why.text);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		why.text[0] = '\0';
		ck_assert_msg(!listener_check(wrong[i], &why), "%s", wrong[i]);
		ck_assert_uint_gt(strlen(why.text), strlen(wrong[i]));
		ck_assert(!listener_is_local(wrong[i]));
	}
	memset(url + 7, '/', 107);
	url[10] = 'a';
	ck_assert(listener_check(url, &why));
	url[7 + 107] = 'a';
	ck_assert(!listener_check(url, &why));
	ck_assert_ptr_nonnull(strstr(why.text, "107"));
}
END_TEST

START_TEST(loopback_and_unix_are_local)
{
	ck_assert(listener_is_local("tcp://127.0.0.1:1"));
	ck_assert(listener_is_local("tcp://127.255.3.4:1"));
	ck_assert(listener_is_local("tcp://[::1]:1"));
	ck_assert(listener_is_local("unix:///a"));
	ck_assert(!listener_is_local("tcp://0.0.0.0:1"));
	ck_assert(!listener_is_local("tcp://128.0.0.1:1"));
	ck_assert(!listener_is_local("tcp://[::]:1"));
	ck_assert(!listener_is_local("tcp://[::2]:1"));
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("listener");
	TCase *tc = tcase_create("listener"), *no_fds = tcase_create("descriptors");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 20);
	tcase_add_test(tc, tcp_v4_and_v6_and_unix_at_once);
	tcase_add_test(tc, a_stale_socket_file_is_replaced_and_a_live_one_is_not);
	tcase_add_test(tc, a_file_that_is_no_socket_is_left_alone);
	tcase_add_test(tc, it_listens_on_all_addresses_or_on_none);
	tcase_add_test(tc, addresses_are_checked);
	tcase_add_test(tc, loopback_and_unix_are_local);
	suite_add_tcase(suite, tc);
	/* valgrind accepts and closes what the limit forbids, so nothing is left to come back to */
	tcase_set_tags(no_fds, "not_valgrind");
	tcase_add_checked_fixture(no_fds, setup, teardown);
	tcase_set_timeout(no_fds, 20);
	tcase_add_test(no_fds, without_descriptors_it_rests_and_comes_back);
	suite_add_tcase(suite, no_fds);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
