/* coordctl status and ping. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "ctl/ctl.h"

#define RED    "\033[31m"
#define YELLOW "\033[33m"
#define GREEN  "\033[32m"

/* --- status ------------------------------------------------------------------ */

static void
paint(struct buf *b, const struct ctl *ctl, const char *color, const char *text)
{
	buf_printf(b, "%s%s%s", ctl->has_color ? color : "", text,
		   ctl->has_color ? "\033[0m" : "");
}

/* "known 12   ready 1,204 ...": the members of `path` that are there. */
static void
counts(struct buf *b, const json_t *s, const char *path, const char *const *keys,
       const char *const *words, size_t n)
{
	const char *sep = "";

	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_at(*path ? json_at(s, path) : s, keys[i]);

		if (!v)
			continue;
		buf_puts(b, sep);
		buf_printf(b, "%s ", words[i]);
		text_number(b, (int64_t)json_number_value(v));
		sep = "   ";
	}
	buf_putc(b, '\n');
}

static void
redis_line(struct buf *b, const struct ctl *ctl, const json_t *redis)
{
	struct str problem = json_str_at(redis, "problem");
	struct str version = json_str_at(redis, "version");
	const json_t *aof = json_at(redis, "aof");
	bool is_up = json_bool_at(redis, "up");

	buf_puts(b, "redis    ");
	paint(b, ctl, is_up ? GREEN : RED, is_up ? "up" : "DOWN");
	if (version.n) {
		buf_puts(b, "   ");
		text_escape(b, version);
	}
	if (json_at(redis, "round_trip_ms"))
		buf_printf(b, "   round trip %.2f ms", json_number_at(redis, "round_trip_ms"));
	if (json_is_true(aof)) {
		buf_puts(b, "   aof on, fsync ");
		text_escape(b, json_str_at(redis, "appendfsync"));
	} else if (aof) {
		buf_puts(b, "   ");
		paint(b, ctl, YELLOW, "aof OFF");
	}
	if (json_str_at(redis, "policy").n) {
		buf_puts(b, "   ");
		text_escape(b, json_str_at(redis, "policy"));
	}
	buf_putc(b, '\n');
	if (problem.n) {
		paint(b, ctl, RED, "PROBLEM");
		buf_puts(b, "  redis: ");
		text_escape(b, problem);
		buf_putc(b, '\n');
	}
}

/* "ready ok   redis ok 0.21 ms   dlq WARN 17": as many in a line as fit. */
static void
checks_line(struct buf *b, const struct ctl *ctl, const json_t *checks)
{
	size_t width = 0, i;
	json_t *check;

	json_array_foreach(checks, i, check)
	{
		struct str name = json_str_at(check, "name"),
			   status = json_str_at(check, "status");
		const json_t *value = json_at(check, "value");
		bool is_ok = str_eq(status, STR("ok"));
		struct buf number = { 0 };

		if (json_is_real(value))
			buf_printf(&number, " %.2f", json_number_value(value));
		else if (json_is_integer(value) && !(is_ok && json_integer_value(value) < 2))
			buf_printf(&number, " %lld", (long long)json_integer_value(value));
		if (number.len && json_str_at(check, "unit").n)
			buf_printf(&number, " %s", json_string_value(json_at(check, "unit")));
		if (i && width + name.n + number.len + 8 > 96) {
			buf_puts(b, "\n         ");
			width = 0;
		} else if (i) {
			buf_puts(b, "   ");
		}
		width += name.n + number.len + 8;
		text_escape(b, name);
		buf_putc(b, ' ');
		paint(b, ctl,
		      is_ok                         ? GREEN
		      : str_eq(status, STR("warn")) ? YELLOW
						    : RED,
		      is_ok                         ? "ok"
		      : str_eq(status, STR("warn")) ? "WARN"
						    : "FAIL");
		text_escape(b, buf_str(&number));
		buf_done(&number);
	}
	buf_putc(b, '\n');
}

/* One line for each check that is not fine. */
static void
problems(struct buf *b, const struct ctl *ctl, const json_t *checks)
{
	json_t *check;
	size_t i;

	json_array_foreach(checks, i, check)
	{
		struct str status = json_str_at(check, "status"),
			   worst = json_str_at(check, "worst");
		bool is_warning = str_eq(status, STR("warn"));

		if (str_eq(status, STR("ok")))
			continue;
		paint(b, ctl, is_warning ? YELLOW : RED, is_warning ? "WARNING" : "FAILED ");
		buf_puts(b, "  ");
		text_escape(b, json_str_at(check, "name"));
		buf_puts(b, ": ");
		text_escape(b, json_str_at(check, "message"));
		if (worst.n) {
			buf_puts(b, " (");
			text_escape(b, worst);
			buf_putc(b, ')');
		}
		buf_putc(b, '\n');
	}
}

/* What the table of the worst queues does not tell. */
static void
other_queues(struct buf *b, const json_t *s)
{
	size_t shown = json_array_size(json_at(s, "worst"));
	int64_t known = (int64_t)json_number_at(s, "queues.known"),
		counted = (int64_t)json_number_at(s, "queues.counted"),
		more = known - (int64_t)shown;

	if (more > 0) {
		text_number(b, more);
		buf_printf(b, " %squeue%s%s.\n", shown ? "more " : "", PLURAL(more),
			   counted == known && shown < 10 ? ", all empty" : "");
	}
	if (counted < known) {
		buf_puts(b, "Numbers are of the first ");
		text_number(b, counted);
		buf_puts(b, " of ");
		text_number(b, known);
		buf_puts(b, " queues.\n");
	}
}

static void
head_line(struct buf *b, const struct ctl *ctl, const json_t *s)
{
	bool is_ready = json_bool_at(s, "ready");

	buf_puts(b, "coordd   ");
	text_escape(b, json_str_at(s, "version"));
	if (json_str_at(s, "name").n) {
		buf_puts(b, "   ");
		text_escape(b, json_str_at(s, "name"));
	}
	buf_puts(b, "   up ");
	text_age(b, json_number_at(s, "uptime_s"));
	buf_printf(b, "   pid %.0f   ", json_number_at(s, "pid"));
	if (json_bool_at(s, "draining"))
		paint(b, ctl, YELLOW, "DRAINING");
	else
		paint(b, ctl, is_ready ? GREEN : RED, is_ready ? "ready" : "NOT READY");
	buf_puts(b, "   instance ");
	text_escape(b, json_str_at(s, "instance_id"));
	buf_putc(b, '\n');
}

static void
clients_line(struct buf *b, const json_t *s)
{
	int64_t tcp = (int64_t)json_number_at(s, "clients.tcp"),
		local = (int64_t)json_number_at(s, "clients.unix");

	buf_puts(b, "clients  ");
	text_number(b, tcp + local);
	buf_puts(b, " (");
	text_number(b, tcp);
	buf_puts(b, " tcp, ");
	text_number(b, local);
	buf_puts(b, " unix)   waiting receivers ");
	text_number(b, (int64_t)json_number_at(s, "parked"));
	buf_puts(b, "   in flight ");
	text_number(b, (int64_t)json_number_at(s, "in_flight"));
	buf_putc(b, '\n');
}

static void
status_screen(const struct ctl *ctl, const json_t *s)
{
	static const char *const queues[] = { "known", "paused" };
	static const char *const messages[] = { "ready", "delayed", "reserved", "dead" };
	static const char *const agents[] = { "known", "alive", "late" };
	static const char *const breakers[] = { "known", "open", "half_open" };
	static const char *const breakers_words[] = { "known", "open", "half-open" };
	const json_t *worst = json_at(s, "worst");
	struct buf out = { 0 };

	head_line(&out, ctl, s);
	if (json_at(s, "checks")) {
		buf_puts(&out, "checks   ");
		checks_line(&out, ctl, json_at(s, "checks"));
	}
	if (json_at(s, "redis"))
		redis_line(&out, ctl, json_at(s, "redis"));
	clients_line(&out, s);
	if (json_at(s, "queues")) {
		buf_puts(&out, "queues   ");
		counts(&out, s, "queues", queues, queues, COUNT_OF(queues));
		buf_puts(&out, "messages ");
		counts(&out, s, "messages", messages, messages, COUNT_OF(messages));
	}
	if (json_at(s, "agents")) {
		buf_puts(&out, "agents   ");
		counts(&out, s, "agents", agents, agents, COUNT_OF(agents));
	}
	if (json_at(s, "breakers")) {
		buf_puts(&out, "breakers ");
		counts(&out, s, "breakers", breakers, breakers_words, COUNT_OF(breakers));
	}
	fwrite(out.data, 1, out.len, stdout);
	buf_clear(&out);
	if (json_array_size(worst))
		out_queues(ctl, worst);
	other_queues(&out, s);
	problems(&out, ctl, json_at(s, "checks"));
	fwrite(out.data, 1, out.len, stdout);
	buf_done(&out);
}

int
ctl_status(struct ctl *ctl, char **args, int n)
{
	json_t *s;
	int status = EX_OK;

	(void)args;
	(void)n;
	if (ctl->output == OUT_CSV || ctl->output == OUT_NAMES)
		return ctl_fail(EX_USAGE, "status is shown as table, json or jsonl");
	s = ctl_call(ctl, "status", ctl_params(NULL), 0);
	if (!s)
		return ctl->status;
	if (!json_is_object(s))
		status = ctl_unexpected("status");
	else if (ctl->output == OUT_TABLE)
		status_screen(ctl, s);
	else
		out_object(ctl, s, NULL, 0);
	json_decref(s);
	return status;
}

/* --- ping -------------------------------------------------------------------- */

static double
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void
pause_for(double seconds)
{
	struct timespec ts = { .tv_sec = (time_t)seconds };

	ts.tv_nsec = (long)((seconds - (double)ts.tv_sec) * 1e9);
	nanosleep(&ts, NULL);
}

static int
compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Milliseconds with three digits, not the seventeen of a double. */
static double
rounded(double ms)
{
	return (double)(int64_t)(ms * 1e3 + 0.5) / 1e3;
}

/* Time one call; its answer is the caller's, NULL as of ctl_call(). */
static json_t *
timed(struct ctl *ctl, const char *method, struct coord_params *take_params, double *ms)
{
	double began = now_ms();
	json_t *answer = ctl_call(ctl, method, take_params, 0);

	*ms = now_ms() - began;
	return answer;
}

/* One round trip to the broker, and one through it to Redis unless `redis_ms` is NULL. EX_OK or an exit code (said already). */
static int
ping_once(struct ctl *ctl, double *ms, double *redis_ms)
{
	json_t *pong = timed(ctl, "ping", ctl_params(NULL), ms), *queues = NULL;
	struct coord_params *p;
	int status = ctl->status;

	if (pong && !str_eq(json_str_at(pong, ""), STR("pong")))
		status = ctl_unexpected("ping");
	json_decref(pong);
	if (!status && redis_ms) { /* the least that needs Redis to be answered */
		p = ctl_params(NULL);
		coord_param_int(p, "limit", 1);
		queues = timed(ctl, "list_queues", p, redis_ms);
		status = queues && !json_is_object(queues) ? ctl_unexpected("list_queues")
							   : ctl->status;
		json_decref(queues);
	}
	if (!status && ctl->output == OUT_TABLE && !GIVEN(ctl, quiet)) {
		printf("pong from %s: %.2f ms", ctl->server, *ms);
		if (redis_ms)
			printf(", through to Redis %.2f ms", *redis_ms);
		putchar('\n');
		fflush(stdout);
	}
	return status;
}

/* {count, min_ms, avg_ms, p99_ms}; sorts `times`. */
static json_t *
summary_of(double *times, uint64_t count)
{
	double total = 0;

	for (uint64_t i = 0; i < count; i++)
		total += times[i];
	qsort(times, count, sizeof(*times), compare);
	return json_pack("{s:I, s:f, s:f, s:f}", "count", (json_int_t)count, "min_ms",
			 rounded(times[0]), "avg_ms", rounded(total / (double)count), "p99_ms",
			 rounded(times[(count * 99 + 99) / 100 - 1]));
}

static void
put_summary(struct buf *b, const json_t *times)
{
	buf_printf(b, "min %.2f ms, average %.2f ms, p99 %.2f ms",
		   json_number_at(times, "min_ms"), json_number_at(times, "avg_ms"),
		   json_number_at(times, "p99_ms"));
}

/* `redis_times` NULL: it was not asked. */
static void
ping_summary(const struct ctl *ctl, double *times, double *redis_times, uint64_t count)
{
	json_t *summary = summary_of(times, count), *redis = NULL;
	struct buf text = { 0 };

	json_object_set_new(summary, "server", json_string(ctl->server));
	put_summary(&text, summary);
	if (redis_times) {
		redis = summary_of(redis_times, count);
		buf_puts(&text, "; through to Redis ");
		put_summary(&text, redis);
		json_object_set_new(summary, "redis", redis);
	}
	if (ctl->output != OUT_TABLE || count > 1)
		out_done(ctl, summary, "%llu pings: %.*s", (unsigned long long)count,
			 (int)text.len, text.data);
	buf_done(&text);
	json_decref(summary);
}

int
ctl_ping(struct ctl *ctl, char **args, int n)
{
	uint64_t count = GIVEN(ctl, count) ? ctl->opt[OPT_count].count : 1;
	double interval = GIVEN(ctl, interval) ? ctl->opt[OPT_interval].seconds : 1;
	bool is_to_redis = GIVEN(ctl, redis);
	double *times, *redis_times;
	int status;

	(void)args;
	(void)n;
	if (count > 1000000)
		return ctl_fail(EX_USAGE, "--count is at most 1000000");
	if (is_to_redis && *TEXT(ctl, redis))
		return ctl_fail(EX_USAGE,
				"it is the broker's Redis: --redis takes no URL here");
	times = xcalloc(count, sizeof(*times));
	redis_times = is_to_redis ? xcalloc(count, sizeof(*times)) : NULL;
	status = ctl_connect(ctl); /* before the first is timed */
	for (uint64_t i = 0; i < count && !status; i++) {
		if (i)
			pause_for(interval);
		status = ping_once(ctl, &times[i], is_to_redis ? &redis_times[i] : NULL);
	}
	if (!status)
		ping_summary(ctl, times, redis_times, count);
	free(times);
	free(redis_times);
	return status;
}
