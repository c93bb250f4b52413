#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/notify.h"
#include "service.h"

static struct loop *loop;
static struct service *service;
static struct timer wake;
static int manager = -1;
static char told[8192]; /* message after message, each ended by | */
static char text[300];
static bool alive;

static void
on_wake(void *arg)
{
	(void)arg;
}

static void
describe(void *arg, char *out, size_t size)
{
	(void)arg;
	snprintf(out, size, "%s", text);
}

static bool
is_alive(void *arg)
{
	(void)arg;
	return alive;
}

static const struct service_ops ops = { describe, is_alive };

/* A manager at an abstract address, and a service that it started. */
static void
begin(const char *watchdog_usec)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	char name[40];

	snprintf(name, sizeof(name), "@coordd-test-service-%d", (int)getpid());
	snprintf(to.sun_path, sizeof(to.sun_path), "%s", name);
	to.sun_path[0] = 0;
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	ck_assert_int_eq(
		bind(manager, (struct sockaddr *)&to,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
		0);
	setenv("NOTIFY_SOCKET", name, 1);
	if (watchdog_usec)
		setenv("WATCHDOG_USEC", watchdog_usec, 1);
	service = service_new(loop, &ops, NULL);
}

static void
setup(void)
{
	loop = loop_new();
	timer_init(&wake, loop, on_wake, NULL);
	snprintf(text, sizeof(text), "well");
	alive = true;
}

static void
teardown(void)
{
	service_free(service);
	timer_done(&wake);
	loop_free(loop);
	if (manager >= 0)
		close(manager);
}

/* What came, for so long. */
static const char *
hear(uint64_t for_us)
{
	uint64_t end_us = loop_clock_us() + for_us;
	size_t at = 0;
	ssize_t n;

	told[0] = 0;
	do {
		timer_at_most(&wake, 1000);
		loop_turn(loop, true);
		while ((n = recv(manager, told + at, sizeof(told) - at - 2, 0)) > 0) {
			at += (size_t)n;
			told[at++] = '|';
			told[at] = 0;
		}
	} while (loop_clock_us() < end_us);
	return told;
}

static unsigned
count(const char *in, const char *what)
{
	unsigned n = 0;

	for (; (in = strstr(in, what)); in++)
		n++;
	return n;
}

START_TEST(each_phase_is_told_once)
{
	begin(NULL);
	ck_assert_str_eq(hear(20000), "STATUS=well|");
	service_note(service, SERVICE_RUNNING);
	ck_assert_str_eq(hear(1000), "READY=1\n|");
	service_note(service, SERVICE_RUNNING);
	ck_assert_str_eq(hear(1000), "");
	service_note(service, SERVICE_RELOADING);
	ck_assert_ptr_nonnull(strstr(hear(1000), "RELOADING=1\nMONOTONIC_USEC="));
	service_note(service, SERVICE_RUNNING);
	ck_assert_str_eq(hear(1000), "READY=1\n|");
	service_note(service, SERVICE_STOPPING);
	ck_assert_ptr_nonnull(strstr(hear(1000), "STOPPING=1\nEXTEND_TIMEOUT_USEC="));
}
END_TEST

START_TEST(a_reload_says_when_it_began)
{
	unsigned long long at;
	uint64_t before = loop_clock_us();

	begin(NULL);
	service_note(service, SERVICE_RUNNING);
	hear(1000);
	service_note(service, SERVICE_RELOADING);
	hear(1000);
	ck_assert_int_eq(sscanf(told, "RELOADING=1\nMONOTONIC_USEC=%llu", &at), 1);
	ck_assert(at >= before && at <= loop_clock_us());
}
END_TEST

START_TEST(a_start_is_no_reload)
{
	begin(NULL);
	service_note(service, SERVICE_RELOADING);
	ck_assert_ptr_null(strstr(hear(20000), "RELOADING"));
	service_note(service, SERVICE_STARTING);
	ck_assert_ptr_null(strstr(hear(20000), "READY"));
	service_note(service, SERVICE_RUNNING);
	ck_assert_ptr_nonnull(strstr(hear(20000), "READY=1"));
}
END_TEST

START_TEST(other_text_is_told_within_a_second)
{
	begin(NULL);
	service_note(service, SERVICE_RUNNING);
	hear(20000);
	snprintf(text, sizeof(text), "better");
	ck_assert_str_eq(hear(1500000), "STATUS=better|");
	ck_assert_str_eq(hear(1500000), "");
}
END_TEST

START_TEST(text_that_others_chose_is_no_command)
{
	snprintf(text, sizeof(text), "redis down: \nWATCHDOG=trigger\r\x7f");
	begin(NULL);
	ck_assert_str_eq(hear(20000), "STATUS=redis down: ?WATCHDOG=trigger??|");
}
END_TEST

START_TEST(text_that_is_too_long_is_cut)
{
	memset(text, 'x', sizeof(text) - 1);
	begin(NULL);
	ck_assert_uint_gt(strlen(hear(20000)), 200);
}
END_TEST

START_TEST(the_watchdog_hears_of_it_only_while_it_lives)
{
	begin("50000");
	ck_assert_uint_gt(count(hear(200000), "WATCHDOG=1"), 2);
	alive = false;
	hear(50000);
	ck_assert_uint_eq(count(hear(300000), "WATCHDOG=1"), 0);
	alive = true;
	ck_assert_uint_gt(count(hear(300000), "WATCHDOG=1"), 2);
}
END_TEST

START_TEST(a_watchdog_in_a_great_hurry_does_not_spin)
{
	begin("1");
	hear(100000);
	ck_assert_ptr_nonnull(strstr(told, "WATCHDOG=1"));
}
END_TEST

START_TEST(what_was_for_us_is_for_nobody_else)
{
	begin("50000");
	setenv("WATCHDOG_PID", "1", 1);
	ck_assert_ptr_null(getenv("NOTIFY_SOCKET"));
	ck_assert_ptr_null(getenv("WATCHDOG_USEC"));
}
END_TEST

START_TEST(without_a_manager_nothing_happens)
{
	unsetenv("NOTIFY_SOCKET");
	setenv("WATCHDOG_USEC", "1000", 1);
	service = service_new(loop, &ops, NULL);
	ck_assert(!service_is_watched(service));
	service_note(service, SERVICE_RUNNING);
	service_note(service, SERVICE_STOPPING);
}
END_TEST

START_TEST(a_manager_at_no_address_is_none)
{
	static const char *const names[] = { "", "@", "/", "relative", "vsock:1:2" };
	char long_name[200];

	memset(long_name, 'x', sizeof(long_name));
	long_name[0] = '/';
	long_name[sizeof(long_name) - 1] = 0;
	for (size_t i = 0; i <= sizeof(names) / sizeof(names[0]); i++) {
		struct notify n;

		setenv("NOTIFY_SOCKET",
		       i < sizeof(names) / sizeof(names[0]) ? names[i] : long_name, 1);
		notify_open(&n);
		ck_assert_int_eq(n.fd, -1);
		ck_assert(notify_send(&n, "READY=1"));
	}
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("service");
	TCase *tc = tcase_create("service");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, each_phase_is_told_once);
	tcase_add_test(tc, a_reload_says_when_it_began);
	tcase_add_test(tc, a_start_is_no_reload);
	tcase_add_test(tc, other_text_is_told_within_a_second);
	tcase_add_test(tc, text_that_others_chose_is_no_command);
	tcase_add_test(tc, text_that_is_too_long_is_cut);
	tcase_add_test(tc, the_watchdog_hears_of_it_only_while_it_lives);
	tcase_add_test(tc, a_watchdog_in_a_great_hurry_does_not_spin);
	tcase_add_test(tc, what_was_for_us_is_for_nobody_else);
	tcase_add_test(tc, without_a_manager_nothing_happens);
	tcase_add_test(tc, a_manager_at_no_address_is_none);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
