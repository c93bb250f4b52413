#ifndef COORDD_CTL_BENCH_H
#define COORDD_CTL_BENCH_H

#include "base/hist.h"
#include "ctl/bench_ledger.h"
#include "ctl/ctl.h"

/*
 * coordctl bench.
 *
 *	bench.c			reads what is wanted, shows what came of it
 *	bench_run.c		connections, and who sends, takes and acks when
 *	bench_ledger.c		what is known of each message, and what that proves
 *	bench_item.c		messages as bytes
 *	bench_queues.c		what the queues may hold; nothing is left of them
 *	bench_progress.c	how far it is
 */

enum bench_mode {
	BENCH_CIRCLE,  /* each client sends, receives and acks in turn */
	BENCH_PAIRS,   /* producers send while consumers receive and ack */
	BENCH_BACKLOG, /* first all is sent, then received and acked */
	BENCH_SEND     /* all is sent, and purged in the end */
};

enum bench_progress { PROGRESS_NONE, PROGRESS_BAR, PROGRESS_LINES, PROGRESS_JSON };

struct bench_plan {
	const char *name; /* "W1" .. "W5", or NULL */
	enum bench_mode mode;
	unsigned clients;   /* of BENCH_CIRCLE; else producers */
	unsigned consumers; /* 0 where there are none */
	unsigned idle;      /* connections that do nothing */
	unsigned queues, pipeline, batch;
	unsigned prefetch;                   /* consumers `consume`; 0: they receive */
	unsigned size;                       /* of a payload, in bytes */
	unsigned weights[LEDGER_PRIORITIES]; /* low, normal, high */
	uint64_t count, rate;                /* 0: no limit */
	uint64_t duration_ns;                /* 0: no limit */
	enum bench_progress progress;
};

enum bench_step { STEP_SEND, STEP_DELIVER, STEP_ACK, STEP_LIFECYCLE, BENCH_STEPS };

struct bench_result {
	struct ledger_counts counts;
	uint64_t left;    /* in the queues after all was settled: should be 0 */
	uint64_t took_ns; /* from the first send to the last answer */
	struct {
		struct hist ns;
		uint64_t begun_ns, ended_ns;
	} steps[BENCH_STEPS];
};

/*
 * Run one workload in queues of its own, which are empty and without settings afterwards.
 * EX_OK when it ran to its end, whatever the counts say; else an exit code (said already), and
 * 130 after ^C.
 */
int bench_run(struct ctl *ctl, struct bench_plan *plan, struct bench_result *result);

#define EXIT_INTERRUPTED 130

uint64_t bench_now_ns(void); /* CLOCK_MONOTONIC */

/* --- bench_queues.c ---------------------------------------------------------- */

struct bench_queue {
	struct name name;
	uint64_t held, limit; /* messages sent and neither refused nor acked */
	bool is_configured;   /* its capacity is ours to take back */
};

/* Queues of the run `id`; to be freed with free(). */
struct bench_queue *bench_queues_new(unsigned n, const char id[9]);

/*
 * Set how much each queue may hold: a backlog whole, if need be by configuring its capacity
 * (where that is forbidden, `plan` gets fewer messages); else enough for what is under way, so
 * that none is ever full. EX_OK or an exit code (said already).
 */
int bench_queues_limit(struct ctl *ctl, struct bench_plan *plan, struct bench_queue *queues);

/*
 * Empty all queues and take their settings back. `found` counts what was in them, `stuck` what
 * is still there since somebody holds it. EX_OK or an exit code (said already).
 */
int bench_queues_clean(struct ctl *ctl, const struct bench_plan *plan,
		       struct bench_queue *queues, uint64_t *found, uint64_t *stuck);

/* --- bench_progress.c -------------------------------------------------------- */

/* What was shown last; all zero at first. */
struct bench_shown {
	double seconds;
	unsigned tenths;
	bool has_bar; /* the cursor stands behind one */
};

struct bench_done {
	const char *name; /* of the workload */
	double part;      /* 0 to 1 */
	double seconds;   /* since it began */
	uint64_t acked;
	struct str text; /* "1,204/200,000" */
	bool is_end;
};

/* Show it if it is time: a bar ten times a second, the other forms for each tenth. */
void bench_progress(struct bench_shown *shown, enum bench_progress form,
		    const struct bench_done *done);
/* End the line of a bar, so that what is said next has one of its own. */
void bench_bar_end(struct bench_shown *shown);

/* The part of the help that no table holds. */
void bench_help(void);

#endif
