/*
 * coordctl bench: one workload.
 *
 *	bench_run()		connections, queues; in the end everything is taken back
 *	turn()			the loop: sockets, what may be sent, what time it is
 *	phase_step()		FILL, RUN, DRAIN, OVER; what stalls is lost
 *
 * Clients work by themselves once they have begun (bench_work.c): what they were answered makes
 * them go on. The loop only lets those send that had to wait, for the time or for acks.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/id.h"
#include "base/mem.h"
#include "ctl/bench_work.h"

#define SECOND UINT64_C(1000000000)

static volatile sig_atomic_t is_interrupted;

static void
on_signal(int number)
{
	(void)number;
	is_interrupted = 1;
}

uint64_t
bench_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

/* --- progress ---------------------------------------------------------------- */

/* The part of the work that is done, 0 to 1. */
static double
part_done(const struct run *run, uint64_t now)
{
	const struct bench_plan *plan = run->plan;
	const struct ledger_counts *n = ledger_counts(run->ledger);
	double done = 0, part;

	if (plan->count && plan->mode == BENCH_SEND)
		done = (double)n->answered / (double)plan->count;
	else if (plan->count && plan->mode == BENCH_BACKLOG)
		done = (double)(n->answered + n->acked) / (double)plan->count / 2;
	else if (plan->count)
		done = (double)n->acked / (double)plan->count;
	if (plan->duration_ns) {
		part = (double)(now - run->begun_ns) / (double)plan->duration_ns;
		done = part > done ? part : done;
	}
	return done < 1 ? done : 1;
}

/* What is shown as done: 1,204/200,000. */
static void
put_done(struct buf *b, const struct run *run)
{
	const struct ledger_counts *n = ledger_counts(run->ledger);
	uint64_t done = run->plan->mode == BENCH_SEND ? n->answered : n->acked;

	if (run->plan->mode == BENCH_BACKLOG && run->phase == FILL) {
		buf_puts(b, "sent ");
		done = n->answered;
	}
	text_number(b, (int64_t)done);
	if (run->plan->count) {
		buf_putc(b, '/');
		text_number(b, (int64_t)run->plan->count);
	}
}

static void
progress_show(struct run *run, uint64_t now, bool is_end)
{
	struct bench_done done = {
		.name = run->plan->name ? run->plan->name : "bench",
		.part = is_end && !work_is_stopped(run) ? 1 : part_done(run, now),
		.seconds = (double)(now - run->begun_ns) / 1e9,
		.acked = ledger_counts(run->ledger)->acked,
		.is_end = is_end,
	};
	struct buf text = { 0 };

	if (is_end && run->status)
		return;
	put_done(&text, run);
	done.text = buf_str(&text);
	bench_progress(&run->shown, run->plan->progress, &done);
	buf_done(&text);
}

/* --- the loop ---------------------------------------------------------------- */

static void
worker_flush(struct worker *w)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = w };
	bool wants;

	if (w->n_tokens)
		work_ack_tokens(w, bench_now_ns());
	if (!coord_wants_write(w->conn) && !w->wants_write)
		return;
	coord_on_writable(w->conn);
	wants = coord_wants_write(w->conn);
	if (wants == w->wants_write)
		return;
	w->wants_write = wants;
	event.events |= wants ? EPOLLOUT : 0;
	epoll_ctl(w->run->epoll, EPOLL_CTL_MOD, coord_fd(w->conn), &event);
}

/* Let sends leave that may by now; one op of each worker at a time, so that all have a turn. */
static void
pump(struct run *run)
{
	unsigned n = run->plan->clients, in_vain = 0;
	uint64_t now = bench_now_ns();

	while (in_vain < n) {
		struct worker *w = &run->workers[run->plan->idle + run->next_ready];
		struct op *op = work_op_get(&w->ready);
		bool has_left = op && work_send(run, op, now);

		if (op && !has_left)
			work_op_put(&w->ready, op);
		in_vain = has_left ? 0 : in_vain + 1;
		run->next_ready = (run->next_ready + 1) % n;
	}
}

/* Wake up when the next message is due. */
static void
timer_set(const struct run *run)
{
	uint64_t due = work_due_ns(run, 0);
	struct itimerspec when = { .it_value = { .tv_sec = (time_t)(due / SECOND),
						 .tv_nsec = (long)(due % SECOND) } };

	if (due > bench_now_ns()) /* else it waits for something other than time */
		timerfd_settime(run->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void
start_takers(struct run *run)
{
	const struct bench_plan *plan = run->plan;
	uint64_t now = bench_now_ns();

	for (unsigned i = 0; i < plan->consumers; i++) {
		struct worker *w = &run->workers[plan->idle + plan->clients + i];

		if (plan->prefetch) {
			work_consume(w, now);
			continue;
		}
		for (unsigned k = 0; k < plan->pipeline; k++)
			work_take(run, work_op(w, OP_TAKE), now);
	}
	for (unsigned i = 0; i < BENCH_STEPS; i++) {
		if (i != STEP_SEND)
			run->result->steps[i].begun_ns = now;
	}
}

/* Where the work stands; what was lost is found by nothing coming for long. */
static void
phase_step(struct run *run, uint64_t now)
{
	const struct ledger_counts *n = ledger_counts(run->ledger);
	bool is_sent = work_is_all_sent(run, work_due_ns(run, now)) && n->answered == n->issued;

	if (n->answered == n->issued &&
	    (run->phase == FILL || run->plan->mode == BENCH_SEND || n->acked >= n->accepted))
		run->progress_ns = now; /* nothing is under way that could stall */
	if (run->phase == FILL && is_sent) {
		run->phase = DRAIN;
		start_takers(run);
	} else if (run->phase == RUN && is_sent) {
		run->phase = DRAIN;
	}
	if (run->phase == DRAIN && (run->plan->mode == BENCH_SEND || n->acked >= n->accepted))
		run->phase = OVER;
	if (run->phase == OVER || now < run->progress_ns + run->stall_ns)
		return;
	if (run->n_under_way && !run->status) {
		bench_bar_end(&run->shown);
		run->status =
			ctl_fail(EX_TEMPFAIL, "the broker has answered nothing for %.1f s",
				 (double)run->stall_ns / 1e9);
	}
	run->phase = OVER;
}

/* One turn of the loop: what may be sent leaves, then what has come is looked at. */
static void
turn(struct run *run, int timeout_ms)
{
	struct epoll_event events[256];
	int n;

	pump(run);
	for (unsigned i = run->plan->idle; i < run->n_workers; i++)
		worker_flush(&run->workers[i]);
	if (run->plan->rate)
		timer_set(run);

	n = epoll_wait(run->epoll, events, 256, timeout_ms);
	for (int i = 0; i < n; i++) {
		struct worker *w = events[i].data.ptr;
		uint64_t fired;

		if (!w) {
			(void)!read(run->timer, &fired, sizeof(fired));
			continue;
		}
		if (events[i].events & ~(unsigned)EPOLLOUT && coord_on_readable(w->conn))
			work_fail(run, coord_ended(w->conn));
		worker_flush(w);
	}
}

/* After ^C: let what is under way come to its end, so that no message stays reserved. */
static void
wind_down(struct run *run)
{
	uint64_t limit = bench_now_ns() + 2 * SECOND, quiet_ns = SECOND / 10;

	run->is_stopping = true;
	run->progress_ns = bench_now_ns();
	while (!run->status && bench_now_ns() < limit &&
	       (run->n_under_way || bench_now_ns() < run->progress_ns + quiet_ns))
		turn(run, 20);
}

static void
loop(struct run *run)
{
	const struct bench_plan *plan = run->plan;
	uint64_t now = bench_now_ns();

	run->begun_ns = run->progress_ns = now;
	for (unsigned i = 0; i < BENCH_STEPS; i++)
		run->result->steps[i].begun_ns = now;
	run->phase = plan->mode == BENCH_BACKLOG ? FILL : RUN;
	if (plan->mode == BENCH_PAIRS)
		start_takers(run);
	for (unsigned i = 0; i < plan->clients; i++) {
		struct worker *w = &run->workers[plan->idle + i];

		for (unsigned k = 0; k < plan->pipeline; k++) {
			struct op *op = work_op(w, OP_SEND);

			if (plan->mode == BENCH_CIRCLE)
				op->queue = (op->queue + k) % plan->queues;
			work_op_put(&w->ready, op);
		}
	}
	while (run->phase != OVER && !run->status && !is_interrupted) {
		turn(run, 50);
		now = bench_now_ns();
		phase_step(run, now);
		progress_show(run, now, false);
	}
	run->result->took_ns = now - run->begun_ns;
	if (is_interrupted && !run->status)
		wind_down(run);
	progress_show(run, now, true);
}

/* --- before and after -------------------------------------------------------- */

/* A connection that has said hello; it becomes the worker's. */
static int
worker_connect(struct run *run, struct worker *w, unsigned number)
{
	struct coord *mine = run->ctl->conn;
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = w };
	int status;

	run->ctl->conn = NULL;
	status = ctl_connect(run->ctl);
	w->conn = run->ctl->conn;
	run->ctl->conn = mine;
	w->run = run;
	w->number = number;
	w->queue = number % run->plan->queues;
	if (status)
		return status;
	epoll_ctl(run->epoll, EPOLL_CTL_ADD, coord_fd(w->conn), &event);
	return EX_OK;
}

static int
connect_all(struct run *run)
{
	const struct bench_plan *plan = run->plan;
	struct epoll_event event = { .events = EPOLLIN };
	struct rlimit files;
	int status = EX_OK;

	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	run->epoll = epoll_create1(EPOLL_CLOEXEC);
	run->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (run->epoll < 0 || run->timer < 0)
		return ctl_fail(EX_OSERR, "cannot wait for events: %s", strerror(errno));
	epoll_ctl(run->epoll, EPOLL_CTL_ADD, run->timer, &event);
	run->workers = xcalloc(run->n_workers, sizeof(*run->workers));
	while (run->n_connected < run->n_workers && !status && !is_interrupted) {
		unsigned i = run->n_connected, of_clients = i - plan->idle;
		unsigned number = i < plan->idle               ? i
				  : of_clients < plan->clients ? of_clients
							       : of_clients - plan->clients;

		status = worker_connect(run, &run->workers[i], number);
		run->n_connected++;
	}
	return status;
}

static void
disconnect_all(struct run *run)
{
	for (unsigned i = 0; i < run->n_connected; i++) {
		struct worker *w = &run->workers[i];

		coord_free(w->conn);
		for (struct op *op = w->made, *next; op; op = next) {
			next = op->made;
			free(op);
		}
		free(w->tokens);
	}
	free(run->workers);
	if (run->epoll >= 0)
		close(run->epoll);
	if (run->timer >= 0)
		close(run->timer);
}

/* The priorities in their turn, evenly mixed. */
static void
pattern_make(struct run *run)
{
	const unsigned *weights = run->plan->weights;
	int credit[LEDGER_PRIORITIES] = { 0 };

	for (unsigned p = 0; p < LEDGER_PRIORITIES; p++)
		run->pattern_n += weights[p];
	run->pattern = xcalloc(run->pattern_n, 1);
	for (unsigned i = 0; i < run->pattern_n; i++) {
		unsigned best = 0;

		for (unsigned p = 0; p < LEDGER_PRIORITIES; p++) {
			credit[p] += (int)weights[p];
			best = credit[p] > credit[best] ? p : best;
		}
		credit[best] -= (int)run->pattern_n;
		run->pattern[i] = (uint8_t)best;
	}
}

static void
run_init(struct run *run)
{
	const struct bench_plan *plan = run->plan;
	msgpack_sbuffer sender;
	msgpack_packer pk;
	uint32_t random;

	id_random(&random, sizeof(random));
	bench_digits(run->id, random, 16, 8);
	run->n_workers = plan->idle + plan->clients + plan->consumers;
	run->queues = bench_queues_new(plan->queues, run->id);
	run->ledger = ledger_new(plan->clients, plan->queues);
	run->params = ctl_params(NULL);
	bench_item_make(&run->item, plan->size, run->id);
	pattern_make(run);

	msgpack_sbuffer_init(&sender);
	msgpack_packer_init(&pk, &sender, msgpack_sbuffer_write);
	coord_pack_agent(&pk, BENCH_TYPE, "driver");
	assert(sender.size <= sizeof(run->sender));
	memcpy(run->sender, sender.data, sender.size);
	run->sender_n = sender.size;
	msgpack_sbuffer_destroy(&sender);
}

/* What the counts say once nothing comes any more. */
static void
result_close(struct run *run)
{
	struct bench_result *r = run->result;

	ledger_close(run->ledger);
	r->counts = *ledger_counts(run->ledger);
	if (run->plan->mode != BENCH_SEND)
		return;
	/* Nothing was taken: the queues themselves tell. */
	r->counts.lost = r->counts.accepted > r->left ? r->counts.accepted - r->left : 0;
	r->counts.duplicated = r->left > r->counts.accepted ? r->left - r->counts.accepted : 0;
	r->left = run->n_stuck;
}

int
bench_run(struct ctl *ctl, struct bench_plan *plan, struct bench_result *result)
{
	/* The second ^C ends the program where it stands. */
	struct sigaction on_int = { .sa_handler = on_signal, .sa_flags = SA_RESETHAND };
	struct run run = {
		.ctl = ctl, .plan = plan, .result = result, .epoll = -1, .timer = -1
	};
	int status;

	memset(result, 0, sizeof(*result));
	run.stall_ns =
		(uint64_t)((GIVEN(ctl, timeout) ? ctl->opt[OPT_timeout].seconds : 5) * 1e9);
	run_init(&run);
	status = ctl->conn ? EX_OK : ctl_connect(ctl);
	if (!status) {
		sigaction(SIGINT, &on_int, NULL);
		sigaction(SIGTERM, &on_int, NULL);
		status = bench_queues_limit(ctl, plan, run.queues);
		if (!status)
			status = connect_all(&run);
		if (!status && !is_interrupted) {
			loop(&run);
			status = run.status;
		}
		disconnect_all(&run);
		if (is_interrupted)
			ctl_fail(EXIT_INTERRUPTED, "stopped after %llu messages",
				 (unsigned long long)ledger_counts(run.ledger)->acked);
		run.status =
			bench_queues_clean(ctl, plan, run.queues, &result->left, &run.n_stuck);
		if (!status)
			status = run.status;
		if (is_interrupted)
			status = EXIT_INTERRUPTED;
	}
	result_close(&run);

	coord_params_free(run.params);
	bench_item_done(&run.item);
	ledger_free(run.ledger);
	free(run.pattern);
	free(run.queues);
	return status;
}
