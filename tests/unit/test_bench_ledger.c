#include <check.h>
#include <stdlib.h>

/* coordctl is not in the library: the file itself is what is tested. */
#include "ctl/bench_ledger.c" /* NOLINT(bugprone-suspicious-include) */

/* A broker that does what the tests say: it hands out with the next fence unless told. */
static struct ledger *l;
static uint64_t fence, now;

enum { LOW, NORMAL, HIGH };
#define MS UINT64_C(1000000)

static void
setup(void)
{
	l = ledger_new(2, 2);
	fence = 1000;
	now = 5000 * MS;
}

static void
teardown(void)
{
	ledger_free(l);
}

/* Sent by producer 0 to queue 0, and accepted 2 ms later. */
static uint64_t
accepted(unsigned priority)
{
	uint64_t number = ledger_send(l, 0, 0, priority, now);

	now += 2 * MS;
	ledger_answer(l, number, true, now);
	now += 2 * MS;
	return number;
}

static uint64_t
delivered_with(uint64_t number, uint64_t with_fence, unsigned failures)
{
	struct delivery d = {
		.number = number, .fence = with_fence, .failures = failures, .asked_ns = now
	};

	return ledger_deliver(l, &d);
}

static uint64_t
delivered(uint64_t number)
{
	return delivered_with(number, ++fence, 0);
}

static const struct ledger_counts *
counts(void)
{
	ledger_close(l);
	return ledger_counts(l);
}

START_TEST(a_run_without_fault_counts_none)
{
	for (int i = 0; i < 20000; i++) {
		uint64_t began = now, n = accepted((unsigned)i % 3);

		ck_assert_uint_eq(delivered(n), began);
		ck_assert_uint_eq(ledger_ack(l, n, true), began);
	}
	ck_assert_uint_eq(counts()->issued, 20000);
	ck_assert_uint_eq(counts()->accepted, 20000);
	ck_assert_uint_eq(counts()->delivered, 20000);
	ck_assert_uint_eq(counts()->acked, 20000);
	ck_assert_uint_eq(counts()->lost, 0);
	ck_assert_uint_eq(counts()->duplicated, 0);
	ck_assert_uint_eq(counts()->out_of_order, 0);
	ck_assert_uint_eq(counts()->unknown, 0);
	ck_assert_uint_eq(counts()->unacked, 0);
}
END_TEST

START_TEST(memory_is_given_back_as_messages_are_over)
{
	for (int i = 0; i < 10 * CHUNK; i++)
		ledger_ack(l, (delivered(i ? accepted(NORMAL) : accepted(HIGH)), (uint64_t)i),
			   true);
	for (int i = 0; i < 10; i++)
		ck_assert_ptr_null(l->chunks[i]);
	ck_assert_uint_eq(counts()->acked, 10 * CHUNK);
}
END_TEST

START_TEST(what_never_came_is_lost)
{
	uint64_t a = accepted(NORMAL), b = accepted(NORMAL);

	accepted(NORMAL);
	delivered(a);
	ck_assert_uint_eq(counts()->lost, 2);
	delivered(b);
	ck_assert_uint_eq(counts()->lost, 1);
	ck_assert_uint_eq(ledger_send(l, 0, 0, NORMAL, now), 3); /* not answered: not lost */
	ck_assert_uint_eq(counts()->lost, 1);
}
END_TEST

START_TEST(a_second_delivery_is_a_duplicate_unless_the_first_failed)
{
	uint64_t n = accepted(NORMAL), i;

	delivered(n);
	delivered(n);
	ck_assert_uint_eq(counts()->duplicated, 1);
	delivered_with(n, ++fence, 1);
	ck_assert_uint_eq(counts()->duplicated, 1);
	ck_assert_uint_eq(counts()->redelivered, 1);
	delivered_with(n, ++fence, 1);
	ck_assert_uint_eq(counts()->duplicated, 2);
	ledger_ack(l, n, true);
	delivered_with(n, ++fence, 2); /* nothing may come after an ack */
	ck_assert_uint_eq(counts()->duplicated, 3);
	ck_assert_uint_eq(counts()->delivered, 1);

	for (i = 0; i < CHUNK; i++) /* also long after */
		ledger_ack(l, (delivered(accepted(NORMAL)), i + 1), true);
	ck_assert_ptr_null(l->chunks[0]);
	ck_assert_uint_eq(delivered(n), 0);
	ck_assert_uint_eq(counts()->duplicated, 4);
	ck_assert_uint_eq(counts()->out_of_order, 0);
}
END_TEST

START_TEST(what_was_refused_or_never_sent_must_not_come)
{
	uint64_t refused = ledger_send(l, 0, 0, NORMAL, now), other = accepted(NORMAL), early;
	struct delivery d = { .number = other, .fence = ++fence, .asked_ns = now };

	ledger_answer(l, refused, false, now);
	ck_assert_uint_eq(delivered(refused), 0);
	ck_assert_uint_eq(delivered(4711), 0);
	ck_assert_uint_eq(counts()->unknown, 2);
	d.queue = 1;
	ck_assert_uint_eq(ledger_deliver(l, &d), 0);
	d.queue = 0;
	d.producer = 1;
	ck_assert_uint_eq(ledger_deliver(l, &d), 0);
	ck_assert_uint_eq(counts()->unknown, 4);
	early = ledger_send(l, 0, 0, NORMAL, now);
	ck_assert_uint_ne(delivered(early), 0);
	ledger_answer(l, early, false, now);
	ck_assert_uint_eq(counts()->unknown, 5);
	ck_assert_uint_eq(counts()->refused, 2);
	ck_assert_uint_eq(counts()->lost, 1);
}
END_TEST

START_TEST(an_ack_that_was_too_late_is_counted)
{
	uint64_t n = accepted(NORMAL);

	delivered(n);
	ck_assert_uint_eq(ledger_ack(l, n, false), 0);
	ck_assert_uint_ne(ledger_ack(l, n, true), 0);
	ck_assert_uint_eq(ledger_ack(l, n, true), 0);
	ck_assert_uint_eq(counts()->acked, 1);
	ck_assert_uint_eq(counts()->unacked, 2);
}
END_TEST

START_TEST(one_producer_is_judged_by_fence_not_by_when_it_was_read)
{
	uint64_t a = accepted(NORMAL), b = accepted(NORMAL), c = accepted(NORMAL);

	delivered_with(c, 30, 0); /* read first, handed out last */
	delivered_with(a, 10, 0);
	delivered_with(b, 20, 0);
	ck_assert_uint_eq(counts()->out_of_order, 0);

	a = accepted(NORMAL);
	b = accepted(NORMAL);
	delivered_with(a, 50, 0);
	delivered_with(b, 40, 0);
	ck_assert_uint_eq(counts()->out_of_order, 1);
}
END_TEST

START_TEST(sends_that_wait_for_their_answers_are_in_order_too)
{
	uint64_t a = ledger_send(l, 0, 0, NORMAL, now), b = ledger_send(l, 0, 0, NORMAL, now);

	delivered_with(b, 10, 0);
	delivered_with(a, 20, 0);
	ck_assert_uint_eq(counts()->out_of_order, 1);
}
END_TEST

START_TEST(producers_queues_and_what_failed_are_not_compared)
{
	uint64_t a = accepted(NORMAL), b = accepted(NORMAL), c, d;
	struct delivery other = { .fence = 5, .asked_ns = now };

	delivered_with(b, 20, 0);
	delivered_with(a, 30, 1); /* it failed and came back */
	c = ledger_send(l, 1, 0, NORMAL, now);
	d = ledger_send(l, 0, 1, NORMAL, now);
	other.number = c;
	other.producer = 1;
	ledger_deliver(l, &other);
	other.number = d;
	other.producer = 0;
	other.queue = 1;
	ledger_deliver(l, &other);
	ck_assert_uint_eq(counts()->delivered, 4);
	ck_assert_uint_eq(counts()->out_of_order, 0);
}
END_TEST

START_TEST(a_refused_message_holds_up_no_judgement)
{
	uint64_t a = ledger_send(l, 0, 0, NORMAL, now), b = accepted(NORMAL),
		 c = accepted(NORMAL);

	delivered_with(b, 30, 0);
	delivered_with(c, 20, 0);
	ck_assert_uint_eq(counts()->out_of_order, 0); /* `a` may still come */
	ledger_answer(l, a, false, now);
	ck_assert_uint_eq(counts()->out_of_order, 1);
}
END_TEST

/* Whichever of the two is read first. */
START_TEST(a_lower_priority_before_what_waited_is_out_of_order)
{
	uint64_t high = accepted(HIGH), low = accepted(LOW);

	if (_i) {
		delivered_with(low, 10, 0);
		delivered_with(high, 20, 0);
	} else {
		delivered_with(high, 20, 0);
		delivered_with(low, 10, 0);
	}
	ck_assert_uint_eq(counts()->out_of_order, 1);
}
END_TEST

START_TEST(a_backlog_in_the_order_of_sending_is_out_of_order)
{
	enum { N = 999 };

	for (int i = 0; i < N; i++)
		accepted((unsigned)i % 3);
	for (uint64_t i = 0; i < N; i++) {
		delivered(i);
		now += MS / 10;
	}
	ck_assert_uint_ge(counts()->out_of_order, N / 3);
}
END_TEST

START_TEST(a_backlog_by_priority_is_in_order)
{
	enum { N = 999 };

	for (int i = 0; i < N; i++)
		accepted((unsigned)i % 3);
	for (uint64_t p = 0; p < 3; p++) {
		for (uint64_t i = 2 - p; i < N; i += 3) {
			delivered(i);
			now += MS / 10;
		}
	}
	ck_assert_uint_eq(counts()->out_of_order, 0);
	ck_assert_uint_eq(counts()->delivered, N);
}
END_TEST

START_TEST(a_lower_priority_that_may_have_been_first_is_not_blamed)
{
	uint64_t low = ledger_send(l, 0, 0, LOW, now), high;
	struct delivery d = { .number = low, .fence = 10, .asked_ns = now };

	now += 10 * MS;
	high = accepted(HIGH);
	ledger_deliver(l, &d); /* asked for before `high` was there */
	delivered_with(high, 20, 0);
	ck_assert_uint_eq(counts()->out_of_order, 0);

	low = accepted(LOW);
	high = ledger_send(l, 0, 0, HIGH, now); /* its answer was not read yet */
	now += 10 * MS;
	delivered_with(high, 40, 0);
	delivered_with(low, 30, 0);
	ck_assert_uint_eq(counts()->out_of_order, 0);
}
END_TEST

START_TEST(what_is_long_past_is_forgotten_and_blames_nobody)
{
	uint64_t high = accepted(HIGH), low;

	delivered_with(high, 20, 0);
	now += 100000 * MS;
	low = accepted(LOW);
	delivered_with(low, 30, 0);
	ck_assert_uint_eq(counts()->out_of_order, 0);
	high = accepted(HIGH);
	now += 100000 * MS; /* it has waited all that time: */
	low = accepted(LOW);
	delivered_with(low, 40, 0);
	delivered_with(high, 50, 0);
	ck_assert_uint_eq(counts()->out_of_order, 1);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("bench_ledger");
	TCase *tc = tcase_create("core");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_run_without_fault_counts_none);
	tcase_add_test(tc, memory_is_given_back_as_messages_are_over);
	tcase_add_test(tc, what_never_came_is_lost);
	tcase_add_test(tc, a_second_delivery_is_a_duplicate_unless_the_first_failed);
	tcase_add_test(tc, what_was_refused_or_never_sent_must_not_come);
	tcase_add_test(tc, an_ack_that_was_too_late_is_counted);
	tcase_add_test(tc, one_producer_is_judged_by_fence_not_by_when_it_was_read);
	tcase_add_test(tc, sends_that_wait_for_their_answers_are_in_order_too);
	tcase_add_test(tc, producers_queues_and_what_failed_are_not_compared);
	tcase_add_test(tc, a_refused_message_holds_up_no_judgement);
	tcase_add_loop_test(tc, a_lower_priority_before_what_waited_is_out_of_order, 0, 2);
	tcase_add_test(tc, a_backlog_in_the_order_of_sending_is_out_of_order);
	tcase_add_test(tc, a_backlog_by_priority_is_in_order);
	tcase_add_test(tc, a_lower_priority_that_may_have_been_first_is_not_blamed);
	tcase_add_test(tc, what_is_long_past_is_forgotten_and_blames_nobody);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
