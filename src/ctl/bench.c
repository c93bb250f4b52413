/* coordctl bench: what is to be run, and the report. The work itself: bench_run.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "ctl/bench.h"

static const char *const modes[] = { "send-recv-ack", "pairs", "backlog", "send" };

static const char *const steps[BENCH_STEPS] = { "send", "deliver", "ack", "lifecycle" };

/* What performance comparisons of brokers call W1 to W5. */
static const struct bench_plan presets[] = {
	{ .name = "W1", .mode = BENCH_CIRCLE, .clients = 1, .count = 10000 },
	{ .name = "W2", .mode = BENCH_PAIRS, .clients = 16, .count = 100000 },
	{ .name = "W3",
	  .mode = BENCH_PAIRS,
	  .clients = 16,
	  .pipeline = 4,
	  .batch = 64,
	  .count = 500000 },
	{ .name = "W4",
	  .mode = BENCH_BACKLOG,
	  .clients = 16,
	  .pipeline = 2,
	  .batch = 64,
	  .count = 1000000 },
	{ .name = "W5", .mode = BENCH_PAIRS, .clients = 16, .idle = 1000, .count = 100000 },
};

/* --- what is wanted ---------------------------------------------------------- */

/* The preset whose name the first `n` bytes of `text` are; NULL: there is none. */
static const struct bench_plan *
preset_find(const char *text, size_t n)
{
	for (size_t i = 0; i < COUNT_OF(presets); i++) {
		if (strlen(presets[i].name) == n && !strncasecmp(presets[i].name, text, n))
			return &presets[i];
	}
	return NULL;
}

/* Take a number where it was given. EX_OK or EX_USAGE (said already). */
static int
number_take(unsigned *to, const struct ctl *ctl, enum option_id id, const char *name,
	    unsigned most)
{
	if (!ctl->opt[id].text)
		return EX_OK;
	if (ctl->opt[id].count > most)
		return ctl_fail(EX_USAGE, "--%s is at most %u", name, most);
	*to = (unsigned)ctl->opt[id].count;
	return EX_OK;
}

/* HIGH:NORMAL:LOW. */
static int
weights_take(unsigned weights[LEDGER_PRIORITIES], const char *text)
{
	unsigned high, normal, low;
	int n = 0;

	if (sscanf(text, "%3u:%3u:%3u%n", &high, &normal, &low, &n) != 3 || text[n] ||
	    high > 100 || normal > 100 || low > 100 || high + normal + low == 0)
		return ctl_fail(
			EX_USAGE,
			"--priorities is HIGH:NORMAL:LOW, shares of 0 to 100, as 1:8:1");
	weights[0] = low;
	weights[1] = normal;
	weights[2] = high;
	return EX_OK;
}

static int
mode_take(struct bench_plan *plan, const char *text)
{
	if (!strcmp(text, "consume")) {
		plan->mode = BENCH_PAIRS;
		plan->prefetch = 64;
		return EX_OK;
	}
	for (size_t i = 0; i < COUNT_OF(modes); i++) {
		if (!strcmp(modes[i], text)) {
			plan->mode = (enum bench_mode)i;
			return EX_OK;
		}
	}
	return ctl_fail(EX_USAGE,
			"--mode is one of send-recv-ack, pairs, consume, backlog, send");
}

static int
progress_take(struct bench_plan *plan, const struct ctl *ctl)
{
	const char *text = TEXT(ctl, progress);

	plan->progress = isatty(STDERR_FILENO) ? PROGRESS_BAR : PROGRESS_LINES;
	if (text && !strcmp(text, "json"))
		plan->progress = PROGRESS_JSON;
	else if (text && !strcmp(text, "lines"))
		plan->progress = PROGRESS_LINES;
	else if (text && !strcmp(text, "none"))
		plan->progress = PROGRESS_NONE;
	else if (text && strcmp(text, "bar"))
		return ctl_fail(EX_USAGE, "--progress is one of bar, lines, json, none");
	else if (text)
		plan->progress = PROGRESS_BAR;
	if (GIVEN(ctl, quiet))
		plan->progress = PROGRESS_NONE;
	return EX_OK;
}

/* Whether the parts of a plan go together. EX_OK or EX_USAGE (said already). */
static int
plan_check(const struct bench_plan *plan)
{
	bool is_kept = plan->mode == BENCH_BACKLOG || plan->mode == BENCH_SEND;

	if (is_kept && !plan->count)
		return ctl_fail(EX_USAGE, "--mode %s needs a --count: its messages are kept",
				modes[plan->mode]);
	if (plan->prefetch && !plan->consumers)
		return ctl_fail(EX_USAGE, "--prefetch is for consumers: --mode consume or "
					  "backlog");
	if (plan->consumers && (plan->queues > plan->clients || plan->queues > plan->consumers))
		return ctl_fail(EX_USAGE,
				"--mode %s needs a producer and a consumer for each queue: "
				"at least -c %u",
				modes[plan->mode], plan->queues);
	if ((uint64_t)plan->clients * plan->queues > 10000000)
		return ctl_fail(EX_USAGE, "--clients times --queues is at most 10,000,000");
	if (plan->size > (256u << 10) || plan->size < 48)
		return ctl_fail(EX_USAGE, "--size is 48 to 262144 bytes");
	return EX_OK;
}

/* A preset, or the defaults, and what was given. EX_OK or EX_USAGE (said already). */
static int
plan_make(struct bench_plan *plan, const struct bench_plan *preset, const struct ctl *ctl)
{
	const struct bench_plan plain = { .mode = BENCH_CIRCLE,
					  .clients = 16,
					  .count = 100000 };
	const struct {
		unsigned *to;
		enum option_id id;
		const char *name;
		unsigned most;
	} numbers[] = {
		{ &plan->clients, OPT_clients, "clients", 10000 },
		{ &plan->consumers, OPT_consumers, "consumers", 10000 },
		{ &plan->idle, OPT_idle, "idle", 100000 },
		{ &plan->queues, OPT_queues, "queues", 100000 },
		{ &plan->pipeline, OPT_pipeline, "pipeline", 1000 },
		{ &plan->batch, OPT_batch, "batch", 1000 },
		{ &plan->prefetch, OPT_prefetch, "prefetch", 1000 },
		{ &plan->size, OPT_size, "size", UINT32_MAX },
	};
	int status = EX_OK;

	*plan = preset ? *preset : plain;
	plan->queues = 1;
	plan->pipeline = plan->pipeline ? plan->pipeline : 1;
	plan->batch = plan->batch ? plan->batch : 1;
	plan->size = 256;
	plan->weights[1] = 1;
	if (!preset)
		weights_take(plan->weights, "1:8:1");
	if (GIVEN(ctl, mode))
		status = mode_take(plan, TEXT(ctl, mode));
	for (size_t i = 0; i < COUNT_OF(numbers) && !status; i++)
		status = number_take(numbers[i].to, ctl, numbers[i].id, numbers[i].name,
				     numbers[i].most);
	if (!status && GIVEN(ctl, priorities))
		status = weights_take(plan->weights, TEXT(ctl, priorities));
	if (!status)
		status = progress_take(plan, ctl);
	if (status)
		return status;
	if (GIVEN(ctl, duration)) {
		plan->duration_ns = (uint64_t)(ctl->opt[OPT_duration].seconds * 1e9);
		plan->count = 0;
	}
	if (GIVEN(ctl, count))
		plan->count = ctl->opt[OPT_count].count;
	if (GIVEN(ctl, rate))
		plan->rate = ctl->opt[OPT_rate].count;
	if (plan->mode == BENCH_PAIRS || plan->mode == BENCH_BACKLOG)
		plan->consumers = plan->consumers ? plan->consumers : plan->clients;
	else if (plan->consumers)
		return ctl_fail(EX_USAGE,
				"--consumers is for --mode pairs, consume or backlog");
	return plan_check(plan);
}

/* --- the report -------------------------------------------------------------- */

static const char *
mode_name(const struct bench_plan *plan)
{
	return plan->mode == BENCH_PAIRS && plan->prefetch ? "consume" : modes[plan->mode];
}

static bool
is_ok(const struct bench_result *r)
{
	const struct ledger_counts *n = &r->counts;

	return n->accepted == n->issued && !n->lost && !n->duplicated && !n->out_of_order &&
	       !n->unknown && !n->unacked && !r->left;
}

static double
ops(const struct bench_result *r, unsigned step)
{
	uint64_t ns = r->steps[step].ended_ns - r->steps[step].begun_ns;

	return r->steps[step].ns.count && ns
		       ? (double)r->steps[step].ns.count * 1e9 / (double)ns
		       : 0;
}

static void
put_ms(struct buf *b, uint64_t ns)
{
	double ms = (double)ns / 1e6;

	buf_printf(b, "%*.*f ms", 8, ms < 1 ? 3 : ms < 10 ? 2 : ms < 100 ? 1 : 0, ms);
}

static void
put_count(struct buf *b, const char *what, uint64_t n)
{
	buf_printf(b, "  %s ", what);
	text_number(b, (int64_t)n);
}

/* What only matters when it is there. */
static void
put_if_any(struct buf *b, const char *what, uint64_t n)
{
	if (n)
		put_count(b, what, n);
}

static void
put_plan(struct buf *b, const struct bench_plan *plan)
{
	if (plan->name)
		buf_printf(b, "%s   ", plan->name);
	buf_printf(b, "mode %s", mode_name(plan));
	if (plan->consumers)
		buf_printf(b, "   %u producers   %u consumers", plan->clients, plan->consumers);
	else
		buf_printf(b, "   %u client%s", plan->clients, PLURAL(plan->clients));
	if (plan->idle)
		buf_printf(b, "   %u idle", plan->idle);
	if (plan->queues > 1)
		buf_printf(b, "   %u queues", plan->queues);
	if (plan->pipeline > 1)
		buf_printf(b, "   pipeline %u", plan->pipeline);
	if (plan->batch > 1)
		buf_printf(b, "   batch %u", plan->batch);
	if (plan->prefetch)
		buf_printf(b, "   prefetch %u", plan->prefetch);
	if (plan->rate) {
		buf_puts(b, "   rate ");
		text_number(b, (int64_t)plan->rate);
		buf_puts(b, "/s");
	}
	buf_printf(b, "   payload %u B   priorities %u:%u:%u\n", plan->size, plan->weights[2],
		   plan->weights[1], plan->weights[0]);
}

static void
put_verified(struct buf *b, const struct bench_plan *plan, const struct bench_result *r)
{
	const struct ledger_counts *n = &r->counts;

	buf_puts(b, "verified:");
	put_count(b, "sent", n->accepted);
	if (plan->mode != BENCH_SEND)
		put_count(b, "delivered", n->delivered);
	put_count(b, "lost", n->lost);
	put_count(b, "duplicated", n->duplicated);
	if (plan->mode != BENCH_SEND)
		put_count(b, "out of order", n->out_of_order);
	put_if_any(b, "refused", n->refused);
	put_if_any(b, "unanswered", n->issued - n->answered);
	put_if_any(b, "redelivered", n->redelivered);
	put_if_any(b, "not acked", n->unacked);
	put_if_any(b, "unknown", n->unknown);
	put_if_any(b, "left behind", r->left);
	buf_putc(b, '\n');
}

static const double quantiles[] = { 0.5, 0.95, 0.99, 0.999 };

static void
table_show(const struct ctl *ctl, const struct bench_plan *plan, const struct bench_result *r)
{
	struct buf b = { 0 }, rate = { 0 };

	if (!GIVEN(ctl, no_header)) {
		put_plan(&b, plan);
		buf_printf(&b, "%-10s%12s%11s%11s%11s%11s%11s%11s\n", "", "ops/s", "min", "p50",
			   "p95", "p99", "p99.9", "max");
	}
	for (unsigned i = 0; i < BENCH_STEPS; i++) {
		const struct hist *h = &r->steps[i].ns;

		if (!h->count)
			continue;
		text_number(&rate, (int64_t)(ops(r, i) + 0.5));
		buf_printf(&b, "%-10s%12.*s", steps[i], (int)rate.len, rate.data);
		buf_clear(&rate);
		put_ms(&b, h->min);
		for (size_t k = 0; k < COUNT_OF(quantiles); k++)
			put_ms(&b, hist_quantile(h, quantiles[k]));
		put_ms(&b, h->max);
		buf_putc(&b, '\n');
	}
	put_verified(&b, plan, r);
	fwrite(b.data, 1, b.len, stdout);
	fflush(stdout);
	buf_done(&rate);
	buf_done(&b);
}

static double
rounded(double v)
{
	return (double)(int64_t)(v * 1e4 + 0.5) / 1e4;
}

static json_t *
ms(uint64_t ns)
{
	return json_real(rounded((double)ns / 1e6));
}

/* An integer, or null for 0: not asked for. */
static json_t *
if_any(uint64_t n)
{
	return n ? json_integer((json_int_t)n) : json_null();
}

static json_t *
step_json(const struct bench_result *r, unsigned step)
{
	const struct hist *h = &r->steps[step].ns;

	if (!h->count)
		return json_null();
	return json_pack("{s:I, s:f, s:o, s:o, s:o, s:o, s:o, s:o}", "count",
			 (json_int_t)h->count, "ops_per_s", rounded(ops(r, step)), "min_ms",
			 ms(h->min), "p50_ms", ms(hist_quantile(h, 0.5)), "p95_ms",
			 ms(hist_quantile(h, 0.95)), "p99_ms", ms(hist_quantile(h, 0.99)),
			 "p999_ms", ms(hist_quantile(h, 0.999)), "max_ms", ms(h->max));
}

static json_t *
result_json(const struct bench_plan *plan, const struct bench_result *r)
{
	const struct ledger_counts *n = &r->counts;
	const struct {
		const char *name;
		uint64_t n;
	} counts[] = {
		{ "sent", n->accepted },
		{ "delivered", n->delivered },
		{ "acked", n->acked },
		{ "lost", n->lost },
		{ "duplicated", n->duplicated },
		{ "out_of_order", n->out_of_order },
		{ "refused", n->refused },
		{ "unanswered", n->issued - n->answered },
		{ "redelivered", n->redelivered },
		{ "not_acked", n->unacked },
		{ "unknown", n->unknown },
		{ "left_behind", r->left },
	};
	char priorities[16];
	json_t *v, *verified = json_pack("{s:b}", "ok", is_ok(r));

	snprintf(priorities, sizeof(priorities), "%u:%u:%u", plan->weights[2], plan->weights[1],
		 plan->weights[0]);
	v = json_pack("{s:s?, s:s, s:i, s:o, s:i, s:i, s:i, s:i, s:o, s:o, s:i, s:s, s:f}",
		      "workload", plan->name, "mode", mode_name(plan), "clients",
		      (int)plan->clients, "consumers", if_any(plan->consumers), "idle",
		      (int)plan->idle, "queues", (int)plan->queues, "pipeline",
		      (int)plan->pipeline, "batch", (int)plan->batch, "prefetch",
		      if_any(plan->prefetch), "rate", if_any(plan->rate), "payload",
		      (int)plan->size, "priorities", priorities, "seconds",
		      rounded((double)r->took_ns / 1e9));
	if (!v || !verified)
		abort();
	for (unsigned i = 0; i < BENCH_STEPS; i++)
		json_object_set_new(v, steps[i], step_json(r, i));
	for (size_t i = 0; i < COUNT_OF(counts); i++)
		json_object_set_new(verified, counts[i].name,
				    json_integer((json_int_t)counts[i].n));
	json_object_set_new(v, "verified", verified);
	return v;
}

/* A row of CSV for each step, with what it belongs to beside it. */
static void
rows_add(json_t *rows, const json_t *result)
{
	for (unsigned i = 0; i < BENCH_STEPS; i++) {
		const json_t *step = json_at(result, steps[i]);
		json_t *row;

		if (!step)
			continue;
		row = json_copy((json_t *)result);
		json_object_set_new(row, "step", json_string(steps[i]));
		json_object_set(row, "of", (json_t *)step);
		json_array_append_new(rows, row);
	}
}

static void
results_show(const struct ctl *ctl, const json_t *results)
{
	static const struct column columns[] = {
		{ "workload", "workload", NULL, false },
		{ "mode", "mode", NULL, false },
		{ "clients", "clients", NULL, true },
		{ "consumers", "consumers", NULL, true },
		{ "idle", "idle", NULL, true },
		{ "queues", "queues", NULL, true },
		{ "pipeline", "pipeline", NULL, true },
		{ "batch", "batch", NULL, true },
		{ "prefetch", "prefetch", NULL, true },
		{ "rate", "rate", NULL, true },
		{ "payload", "payload", NULL, true },
		{ "priorities", "priorities", NULL, false },
		{ "step", "step", NULL, false },
		{ "ops per s", "of.ops_per_s", NULL, true },
		{ "min ms", "of.min_ms", NULL, true },
		{ "p50 ms", "of.p50_ms", NULL, true },
		{ "p95 ms", "of.p95_ms", NULL, true },
		{ "p99 ms", "of.p99_ms", NULL, true },
		{ "p999 ms", "of.p999_ms", NULL, true },
		{ "max ms", "of.max_ms", NULL, true },
		{ "lost", "verified.lost", NULL, true },
		{ "duplicated", "verified.duplicated", NULL, true },
		{ "out of order", "verified.out_of_order", NULL, true },
		{ "ok", "verified.ok", NULL, false },
	};
	json_t *rows;
	const json_t *each;
	size_t i;

	if (ctl->output != OUT_CSV) {
		out_rows(ctl, results, NULL, 0);
		return;
	}
	rows = json_array();
	json_array_foreach((json_t *)results, i, each)
	{
		rows_add(rows, each);
	}
	out_rows(ctl, rows, columns, COUNT_OF(columns));
	json_decref(rows);
}

/* --- the verb ---------------------------------------------------------------- */

/* Run one workload, and show it or keep it in `results`. */
static int
workload_run(struct ctl *ctl, struct bench_plan *plan, json_t *results)
{
	struct bench_result *r = xcalloc(1, sizeof(*r));
	int status = bench_run(ctl, plan, r);

	if (!status) {
		if (ctl->output == OUT_TABLE)
			table_show(ctl, plan, r);
		else
			json_array_append_new(results, result_json(plan, r));
		status = is_ok(r) ? EX_OK : EXIT_REFUSED;
	}
	free(r);
	return status;
}

/* Run the workloads of a list "W1,W3", or "all". */
static int
list_run(struct ctl *ctl, const char *list, json_t *results, bool is_trial)
{
	int status = EX_OK;

	if (!strcasecmp(list, "all"))
		list = "W1,W2,W3,W4,W5";
	do {
		size_t n = strcspn(list, ",");
		const struct bench_plan *preset = preset_find(list, n);
		struct bench_plan plan;
		int now;

		if (!preset)
			return ctl_fail(EX_USAGE, "--workload is W1 to W5, some with commas "
						  "between, or all");
		now = plan_make(&plan, preset, ctl);
		if (!now && !is_trial)
			now = workload_run(ctl, &plan, results);
		status = now ? now : status;
		list += n + (list[n] == ',');
	} while (*list && (!status || status == EXIT_REFUSED));
	return status;
}

int
ctl_bench(struct ctl *ctl, char **args, int n)
{
	const char *list = TEXT(ctl, workload);
	struct bench_plan plan;
	json_t *results;
	int status;

	(void)args;
	(void)n;
	if (GIVEN(ctl, csv))
		ctl->output = OUT_CSV;
	if (ctl->output == OUT_NAMES)
		return ctl_fail(EX_USAGE, "bench is shown as table, json, jsonl or csv");
	/* All of it is looked at before anything is begun. */
	status = list ? list_run(ctl, list, NULL, true) : plan_make(&plan, NULL, ctl);
	if (status)
		return status;
	results = json_array();
	status = list ? list_run(ctl, list, results, false) : workload_run(ctl, &plan, results);
	if (ctl->output != OUT_TABLE && json_array_size(results))
		results_show(ctl, results);
	json_decref(results);
	return status;
}

void
bench_help(void)
{
	puts("\nModes: send-recv-ack (each client does all three in turn), pairs (as many\n"
	     "producers and consumers), consume (the same, consumers are pushed to),\n"
	     "backlog (all is sent, then taken), send (nothing is taken).\n"
	     "Workloads: W1 one client, W2 16 pairs, W3 batches of 64 with 4 in flight,\n"
	     "W4 a backlog of 1,000,000, W5 as W2 beside 1000 idle connections; other\n"
	     "options change them. Without, 16 clients send, receive and ack 100,000.");
}
