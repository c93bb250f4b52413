#include "base/log_page.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "base/log_format.h"
#include "base/log_sink.h"

#define NO_TIME \
	1000000000 /* as wide as a time will be until 2286; the handler puts its own over it */

static const struct {
	int number;
	const char *name;
} causes[] = { { SIGQUIT, "QUIT" }, { SIGABRT, "ABRT" } };
enum { CAUSES = sizeof(causes) / sizeof(causes[0]) };

/* Two of them: one is complete at any moment. */
static struct page {
	char heads[CAUSES][LOG_LINE_MAX]; /* server.died */
	char lines[LOG_PAGE_MAX];
	size_t ends[LOG_PAGE_LINES];
	unsigned n;
} pages[2];
static volatile sig_atomic_t current;

static size_t
render(char *out, enum log_kind kind, const struct log_field *fields)
{
	struct log_entry entry = { .row = &log_rows[kind], .fields = fields };

	gettimeofday(&entry.at, NULL);
	return log_put_line(out, &entry);
}

void
log_page_begin(void)
{
	struct page *page = &pages[!current];

	page->n = 0;
	for (unsigned i = 0; i < CAUSES; i++) {
		const struct log_field fields[] = { log_text("signal", causes[i].name),
						    log_uint("unix_time", NO_TIME), LOG_END };

		page->heads[i][render(page->heads[i], LOG_SERVER_DIED, fields)] = '\0';
	}
}

void
log_page_write(enum log_kind kind, const struct log_field *fields)
{
	struct page *page = &pages[!current];
	size_t at = page->n ? page->ends[page->n - 1] : 0;

	if (page->n < LOG_PAGE_LINES && at + LOG_LINE_MAX <= sizeof(page->lines))
		page->ends[page->n++] = at + render(page->lines + at, kind, fields + 1);
}

void
log_page_end(void)
{
	current = !current;
}

/* What may be called here: signal-safety(7). */
static void
on_signal(int number)
{
	struct page *page = &pages[current];
	size_t at = 0;

	for (unsigned i = 0; i < CAUSES; i++) {
		char *head = page->heads[i], *digits;

		if (causes[i].number != number || !*head)
			continue;
		digits = strstr(head, "1000000000");
		if (digits)
			str_put_uint(digits, (uint64_t)time(NULL));
		sink_write(head, strlen(head));
	}
	for (unsigned i = 0; i < page->n; at = page->ends[i++])
		sink_write(page->lines + at, page->ends[i] - at);
	signal(number, SIG_DFL);
	raise(number); /* when this has returned; abort() does it too */
}

void
log_page_catch(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	for (unsigned i = 0; i < CAUSES; i++)
		sigaction(causes[i].number, &action, NULL);
}
