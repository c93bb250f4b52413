/*
 * metrics: the numbers of base/stats.h as text for Prometheus.
 *
 *	metrics_write()		fill in the gauges of this moment, then row by row of stats.def
 *	write_row()		# HELP, # TYPE, and its series: of the process, or of each slot
 *	write_cells()		one for each combination of values of its labels
 *
 * A histogram in which nothing is, and a cell of a table that is 0, are left out, so that the page is as large as what
 * happens here.
 */
#include "admin/metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "admin/sample.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "net/conn.h"
#include "store/keys.h"

struct metrics {
	struct loop *loop;
	struct store *store;
	struct queues *queues;
	struct api *api;
	bool (*is_serving)(void *arg);
	void *arg;
	struct sample *sample;
	uint64_t started_at_us; /* since 1970 */
};

/* Labels ------------------------------------------------------------------------------------------- */

static const char *const methods[] = {
#define METHOD(name, role, flags, required, optional, help) #name,
#include "api/methods.def"
#undef METHOD
	"_unknown",
};
static const char *const scripts[] = {
#define SCRIPT(name, file, oom) file,
#include "store/scripts.def"
#undef SCRIPT
};
static const char *const codes[] = {
	"ok",
#define ERR(name, code, retryable, applied, text) code,
#include "base/err.def"
#undef ERR
};
/* How a call of Redis ends, see store_run(). */
static const char *const results[ERR_COUNT] = {
	[OK] = "ok",
	[ERR_UNSENT] = "unsent",
	[ERR_UNKNOWN] = "unknown",
	[ERR_REFUSED] = "refused",
	[ERR_INTERNAL] = "failed",
};
static const char *const versions[] = { COORDD_VERSION };
static const char *const reloaded[] = { "ok", "rejected" };
static const char *const listeners[] = { "tcp", "unix" };
static const char *const rejected[] = { "limit", "address_limit" };
static const char *const bad_frames[] = { "too_large", "too_deep", "malformed" };
static const char *const priorities[] = { "high", "normal", "low" };
static const char *const refused[] = { "queue_full" };
static const char *const failures[] = { "transient", "permanent", "connection" };
static const char *const dead_reasons[] = { "permanent", "attempts", "expired" };
static const char *const purged[] = { "purge", "dlq_purge" };
static const char *const message_states[] = { "ready", "delayed", "reserved", "dead" };
static const char *const agent_states[] = { "alive", "dead" };
static const char *const breaker_states[] = { "closed", "open", "half_open" };
static const char *const breaker_results[] = { "success", "failure", "rejected" };
static const char *const http_codes[] = { "200", "202", "204", "304", "400", "401",  "403",
					  "404", "405", "409", "413", "414", "421",  "422",
					  "429", "431", "500", "501", "503", "other" };
static const char *const paths[] = {
#define ROUTE(verb, path, handler, method, access, queries, shape, key, help) path,
#include "admin/routes.def"
#undef ROUTE
	"_none",
};
enum { PATHS = sizeof(paths) / sizeof(paths[0]) };
_Static_assert((int)PATHS <= STAT_ROUTES, "");
enum { HTTP_CODES = sizeof(http_codes) / sizeof(http_codes[0]) };
_Static_assert((int)HTTP_CODES <= STAT_HTTP_CODES, "");

/* Values that stand twice are one series. */
static const struct label {
	const char *name;
	unsigned n;
	const char *const *values;
} labels[STAT_LABELS] = {
#define LABEL(label, name, values) \
	[STAT_##label] = { name, sizeof(values) / sizeof((values)[0]), values }
	LABEL(VERSION, "version", versions),
	LABEL(RELOADED, "result", reloaded),
	LABEL(LISTENER, "listener", listeners),
	LABEL(CONN_END, "reason", conn_end_names),
	LABEL(REJECTED, "reason", rejected),
	LABEL(BAD_FRAME, "reason", bad_frames),
	LABEL(METHOD, "method", methods),
	LABEL(CODE, "code", codes),
	LABEL(PRIORITY, "priority", priorities),
	LABEL(SEND_REFUSED, "reason", refused),
	LABEL(FAILURE, "failure", failures),
	LABEL(DEAD_REASON, "reason", dead_reasons),
	LABEL(PURGED, "by", purged),
	LABEL(MESSAGE_STATE, "state", message_states),
	LABEL(AGENT_STATE, "state", agent_states),
	LABEL(BREAKER_STATE, "state", breaker_states),
	LABEL(BREAKER_RESULT, "result", breaker_results),
	LABEL(SCRIPT, "command", scripts),
	LABEL(RESULT, "result", results),
	LABEL(ROUTE, "route", paths),
	LABEL(HTTP_CODE, "code", http_codes),
	LABEL(LOG_LEVEL, "level", log_level_names),
#undef LABEL
};

/* The names that a slot has of its own, beside the namespace. */
static const char *const slot_labels[STAT_SCOPES] = {
	[STAT_QUEUE] = "queue",
	[STAT_AGENT] = "type",
	[STAT_BREAKER] = "breaker",
};

void
metrics_count_request(unsigned route, unsigned code)
{
	unsigned i = 0;

	while (i + 1 < HTTP_CODES && (unsigned)atoi(http_codes[i]) != code)
		i++;
	if (route >= PATHS)
		route = PATHS - 1;
	process_stats.admin_requests[route][i]++;
}

/* Text --------------------------------------------------------------------------------------------- */

static void
put_escaped(struct buf *b, struct str s)
{
	bool is_utf8 = str_is_utf8(s);

	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '\\' || c == '"')
			buf_putc(b, '\\');
		if (c == '\n')
			buf_puts(b, "\\n");
		else
			buf_putc(b, is_utf8 || (uint8_t)c < 0x80
					    ? c
					    : '?'); /* not from a client of ours */
	}
}

static void
put_label(struct buf *b, const char *name, struct str value)
{
	if (b->len)
		buf_putc(b, ',');
	buf_puts(b, name);
	buf_puts(b, "=\"");
	put_escaped(b, value);
	buf_putc(b, '"');
}

static void
put_uint(struct buf *b, uint64_t v)
{
	b->len = (size_t)(str_put_uint(buf_reserve(b, STR_UINT_MAX), v) - b->data);
}

/* Microseconds as seconds. */
static void
put_seconds(struct buf *b, uint64_t us)
{
	uint64_t part = us % 1000000;

	put_uint(b, us / 1000000);
	if (!part)
		return;
	buf_putc(b, '.');
	for (uint64_t unit = 100000; part; unit /= 10) {
		buf_putc(b, (char)('0' + part / unit));
		part %= unit;
	}
}

static bool
ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

static bool
is_seconds(const struct stat_row *row)
{
	return ends_with(row->family, "seconds") || ends_with(row->family, "seconds_total");
}

static void
put_value(struct buf *b, bool seconds, uint64_t v)
{
	if (seconds)
		put_seconds(b, v);
	else
		put_uint(b, v);
}

static void
put_series(struct buf *b, const struct stat_row *row, const char *suffix, struct str in_braces,
	   uint64_t v, bool seconds)
{
	buf_puts(b, row->family);
	buf_puts(b, suffix);
	if (in_braces.n) {
		buf_putc(b, '{');
		buf_put(b, in_braces.p, in_braces.n);
		buf_putc(b, '}');
	}
	buf_putc(b, ' ');
	put_value(b, seconds, v);
	buf_putc(b, '\n');
}

/* Series ------------------------------------------------------------------------------------------- */

static bool
is_histogram(const struct stat_row *row)
{
	return row->kind >= STAT_FAST;
}

/* `in_braces` has the labels, and is as it was afterwards. */
static void
write_histogram(struct buf *b, const struct stat_row *row, const struct stat_hist *h,
		struct buf *in_braces)
{
	const uint64_t *bounds = stat_bounds[row->kind];
	bool seconds = is_seconds(row);
	size_t had = in_braces->len;
	uint64_t count = 0, all = 0;

	for (unsigned i = 0; i <= STAT_BOUNDS; i++)
		all += h->buckets[i];
	if (!all)
		return;
	for (unsigned i = 0; i < STAT_BOUNDS && bounds[i] != UINT64_MAX; i++) {
		if (had)
			buf_putc(in_braces, ',');
		buf_puts(in_braces, "le=\"");
		put_value(in_braces, seconds, bounds[i]);
		buf_putc(in_braces, '"');
		count += h->buckets[i];
		put_series(b, row, "_bucket", buf_str(in_braces), count, false);
		in_braces->len = had;
	}
	if (had)
		buf_putc(in_braces, ',');
	buf_puts(in_braces, "le=\"+Inf\"");
	put_series(b, row, "_bucket", buf_str(in_braces), all, false);
	in_braces->len = had;
	put_series(b, row, "_sum", buf_str(in_braces), h->sum, seconds);
	put_series(b, row, "_count", buf_str(in_braces), all, false);
}

/* What stands under the i-th value, and all that have the same text; 0 for those but the first. */
static bool
is_repeated(const struct label *label, unsigned i)
{
	for (unsigned j = 0; j < i; j++)
		if (label->values[i] && label->values[j] &&
		    strcmp(label->values[i], label->values[j]) == 0)
			return true;
	return !label->values[i];
}

static bool
is_same(const struct label *label, unsigned i, unsigned j)
{
	return i == j || (label->values[j] && strcmp(label->values[i], label->values[j]) == 0);
}

static uint64_t
sum_cells(const struct stat_row *row, const uint64_t *cells, unsigned i, unsigned j)
{
	const struct label *a = &labels[row->label], *b = &labels[row->label2];
	uint64_t sum = 0;

	for (unsigned x = i; x < a->n; x++)
		for (unsigned y = j; is_same(a, i, x) && y < b->n; y++)
			if (is_same(b, j, y))
				sum += cells[x * row->stride / sizeof(*cells) + y];
	return sum;
}

/* A family with two labels: what is 0 is left out. */
static void
write_table(struct buf *b, const struct stat_row *row, const uint64_t *cells, struct buf *text)
{
	const struct label *first = &labels[row->label], *second = &labels[row->label2];
	size_t had = text->len;

	for (unsigned i = 0; i < first->n; i++) {
		for (unsigned j = 0; j < second->n; j++) {
			uint64_t v;

			if (is_repeated(first, i) || is_repeated(second, j))
				continue;
			v = sum_cells(row, cells, i, j);
			if (!v)
				continue;
			put_label(text, first->name, str_of(first->values[i]));
			put_label(text, second->name, str_of(second->values[j]));
			put_series(b, row, "", buf_str(text), v, is_seconds(row));
			text->len = had;
		}
	}
}

/* `base` is what the row's offset counts from; `text` the labels that all have. */
static void
write_cells(struct buf *b, const struct stat_row *row, const void *base, struct buf *text)
{
	const uint64_t *cells =
		(const uint64_t *)(const void *)((const char *)base + row->offset);
	const struct label *label = &labels[row->label];
	size_t had = text->len;

	if (row->label2) {
		write_table(b, row, cells, text);
		return;
	}
	for (unsigned i = 0; i < (row->label ? label->n : 1); i++) {
		if (row->label)
			put_label(text, label->name, str_of(label->values[i]));
		if (is_histogram(row))
			write_histogram(b, row,
					(const struct stat_hist *)(const void *)cells + i,
					text);
		else
			put_series(b, row, "", buf_str(text), cells[i], is_seconds(row));
		text->len = had;
	}
}

/* Slots -------------------------------------------------------------------------------------------- */

static void
put_part(struct buf *b, const char *label, struct str part)
{
	struct buf decoded = { 0 };

	put_label(b, label, key_part_decode(&decoded, part) ? buf_str(&decoded) : part);
	buf_done(&decoded);
}

/* What follows the namespace in a slot's name. */
static struct str
rest_of(const struct stat_slot *slot)
{
	const char *colon = slot->name ? memchr(slot->name, ':', slot->name_len) : NULL;
	size_t n = colon ? (size_t)(colon + 1 - slot->name) : 0;

	return colon ? (struct str){ colon + 1, slot->name_len - n } : STR("_other");
}

/* NS:REST. A queue's REST is type:instance, and stays encoded. */
static void
put_slot_labels(struct buf *text, enum stat_scope scope, const struct stat_slot *slot)
{
	const char *colon = slot->name ? memchr(slot->name, ':', slot->name_len) : NULL;
	struct str ns = STR("_other"), rest = rest_of(slot);

	if (colon)
		ns = (struct str){ slot->name, (size_t)(colon - slot->name) };
	put_part(text, "namespace", ns);
	if (scope == STAT_QUEUE)
		put_label(text, slot_labels[scope], rest);
	else
		put_part(text, slot_labels[scope], rest);
}

static bool
is_sampled(const struct stat_row *row)
{
	return row->kind == STAT_SAMPLED || row->kind == STAT_SAMPLED_COUNTER;
}

/* What is told: of slots what the last sample told of, and of queues those that were asked for. */
struct telling {
	uint64_t sample;
	struct str queues; /* a pattern; n 0: all */
};

static bool
is_told(const struct telling *t, const struct stat_row *row, const struct stat_slot *slot)
{
	return (!is_sampled(row) || slot->seen == t->sample) &&
	       (row->scope != STAT_QUEUE || !t->queues.n || str_glob(t->queues, rest_of(slot)));
}

static void
write_slots(struct buf *b, const struct stat_row *row, const struct telling *t)
{
	const struct stat_set *set = &stat_sets[row->scope];
	const struct stat_slot *slot;
	struct buf text = { 0 };

	for (slot = set->by_name; slot; slot = slot->hh.next) {
		if (!is_told(t, row, slot))
			continue;
		put_slot_labels(&text, row->scope, slot);
		write_cells(b, row, slot, &text);
		buf_clear(&text);
	}
	if (set->others && is_told(t, row, set->others)) {
		put_slot_labels(&text, row->scope, set->others);
		write_cells(b, row, set->others, &text);
	}
	buf_done(&text);
}

static void
write_row(struct buf *b, const struct stat_row *row, const struct telling *t)
{
	static const char *const types[STAT_KINDS] = {
		[STAT_COUNTER] = "counter",         [STAT_GAUGE] = "gauge",
		[STAT_SAMPLED_COUNTER] = "counter", [STAT_SAMPLED] = "gauge",
		[STAT_FAST] = "histogram",          [STAT_SLOW] = "histogram",
		[STAT_SIZE] = "histogram",
	};
	struct buf text = { 0 };
	size_t head = b->len, end;

	if (is_sampled(row) && !t->sample)
		return;

	buf_puts(b, "# HELP ");
	buf_puts(b, row->family);
	buf_putc(b, ' ');
	buf_puts(b, row->help);
	if (is_sampled(row))
		buf_puts(b, " (from Redis: the same at each broker)");
	buf_puts(b, "\n# TYPE ");
	buf_puts(b, row->family);
	buf_putc(b, ' ');
	buf_puts(b, types[row->kind]);
	buf_putc(b, '\n');
	end = b->len;
	if (row->scope == STAT_PROCESS)
		write_cells(b, row, &process_stats, &text);
	else
		write_slots(b, row, t);
	if (b->len == end)
		b->len = head; /* nothing of it */
	buf_done(&text);
}

/* Gauges of this moment ------------------------------------------------------------------------------ */

static uint64_t
count_fds(void)
{
	struct stat st;
	uint64_t n = 0;
	DIR *dir;

	/* Since Linux 6.2 the size tells; counting ten thousand of them would take milliseconds. */
	if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
		return (uint64_t)st.st_size;
	dir = opendir("/proc/self/fd");
	if (!dir)
		return 0;
	/* cppcheck-suppress readdirCalled ; no other thread has it */
	for (const struct dirent *e; (e = readdir(dir));)
		n += e->d_name[0] != '.';
	closedir(dir);
	return n ? n - 1 : 0; /* ours */
}

static void
note_memory(void)
{
	unsigned long long pages = 0, resident = 0;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	FILE *f = fopen("/proc/self/statm", "re");

	if (!f)
		return;
	if (fscanf(f, "%llu %llu", &pages, &resident) == 2) {
		process_stats.virtual_bytes[0] = pages * page;
		process_stats.resident_bytes[0] = resident * page;
	}
	fclose(f);
}

static uint64_t
us_of(struct timeval t)
{
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec;
}

static void
note_process(const struct metrics *m)
{
	struct rusage usage;
	struct rlimit limit;

	if (getrusage(RUSAGE_SELF, &usage) == 0)
		process_stats.cpu[0] = us_of(usage.ru_utime) + us_of(usage.ru_stime);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		process_stats.max_fds[0] = limit.rlim_cur;
	process_stats.open_fds[0] = count_fds();
	process_stats.started_at[0] = m->started_at_us;
	note_memory();
}

static void
note_gauges(const struct metrics *m)
{
	bool is_up = store_is_ready(m->store);
	struct store_info info;

	store_info(m->store, &info);
	process_stats.build[0] = 1;
	process_stats.redis_up[0] = is_up;
	process_stats.redis_pending[0] = info.pending;
	process_stats.redis_reconnects[0] = info.reconnects;
	process_stats.ready[0] = is_up && m->is_serving(m->arg);
	process_stats.requests_in_flight[0] = api_in_flight(m->api) - api_parked(m->api);
	process_stats.receivers_waiting[0] = api_parked(m->api);
	note_process(m);
}

void
metrics_write(struct metrics *m, struct str queues, struct buf *out)
{
	struct telling t = { .queues = queues };

	sample_want(m->sample);
	t.sample = sample_number(m->sample);
	note_gauges(m);
	for (const struct stat_row *row = stat_rows; row < stat_rows + STAT_ROWS; row++)
		write_row(out, row, &t);
}

/* Life --------------------------------------------------------------------------------------------- */

void
metrics_set_config(struct metrics *m, bool per_queue, unsigned max_names)
{
	stat_limit(STAT_QUEUE, per_queue ? max_names : 0);
	queues_count_anew(m->queues);
	stat_limit(STAT_AGENT, max_names);
	stat_limit(STAT_BREAKER, max_names);
}

struct metrics *
metrics_new(struct loop *loop, struct store *store, struct queues *queues, struct api *api,
	    const struct metrics_config *config, bool (*is_serving)(void *arg), void *arg)
{
	struct metrics *m = xcalloc(1, sizeof(*m));
	struct timeval now;

	m->loop = loop;
	m->store = store;
	m->queues = queues;
	m->api = api;
	m->is_serving = is_serving;
	m->arg = arg;
	m->sample = sample_new(loop, store, queues, config->key_prefix);
	gettimeofday(&now, NULL);
	m->started_at_us = us_of(now);
	process_stats.config_reload_good[0] = 1;
	process_stats.config_reload_at[0] = m->started_at_us;
	metrics_set_config(m, config->per_queue, config->max_names);
	return m;
}

void
metrics_free(struct metrics *m)
{
	if (!m)
		return;
	sample_free(m->sample);
	free(m);
}
