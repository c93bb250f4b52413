#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <msgpack.h>

/* Which allocation of the client fails, counted from 1; 0: none. */
static int fail_at, allocations;

static bool
is_failing(void)
{
	return ++allocations == fail_at;
}

#define malloc(n)     (is_failing() ? NULL : malloc(n))
#define calloc(n, m)  (is_failing() ? NULL : calloc(n, m))
#define realloc(p, n) (is_failing() ? NULL : realloc(p, n))
#include "client/core.c" /* NOLINT(bugprone-suspicious-include) */
#undef malloc
#undef calloc
#undef realloc

/* Connect, ask, be answered; the outcome, COORD_OK when no allocation failed. */
static enum coord_status
session(void)
{
	enum coord_status status = COORD_MEMORY;
	struct coord_params *p = coord_params_new();
	struct coord_reply *reply;
	struct coord_error err = { 0 };
	struct coord *c;
	int fds[2];
	uint32_t id;

	if (!p)
		return COORD_MEMORY;
	coord_param_agent(p, "agent", "planner", "w1");
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	c = coord_attach(fds[0]);
	if (c) {
		status = coord_send(c, "peek", p, &id);
		if (!status) {
			ck_assert_int_eq(coord_on_writable(c), COORD_OK);
			ck_assert_int_eq(send(fds[1], "\x94\x01\x01\xc0\x91\xa1x", 7, 0), 7);
			status = coord_on_readable(c);
			ck_assert_int_eq(coord_take(c, id, &reply, &err), status);
			ck_assert_int_eq(err.status, status);
			if (!status)
				coord_reply_free(reply);
		}
	} else {
		close(fds[0]);
	}
	coord_params_free(p);
	coord_free(c);
	close(fds[1]);
	return status;
}

START_TEST(whichever_allocation_fails_the_caller_is_told)
{
	enum coord_status status;

	do {
		fail_at++;
		allocations = 0;
		status = session();
		if (allocations >= fail_at)
			ck_assert_int_eq(status, COORD_MEMORY);
	} while (allocations >= fail_at);
	ck_assert_int_eq(status, COORD_OK);
	ck_assert_int_gt(fail_at, 5); /* it did fail along the way */
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("client_memory");
	TCase *tc = tcase_create("core");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, whichever_allocation_fails_the_caller_is_told);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
