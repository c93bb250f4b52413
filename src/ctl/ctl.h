#ifndef COORDD_CTL_CTL_H
#define COORDD_CTL_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sysexits.h>

#include "client/coord.h"
#include "config/config.h"
#include "ctl/json.h"
#include "ctl/text.h"

/* coordctl, the operator's tool: what its verbs share. */

enum option_id {
#define OPTION(id, letter, name, argument, kind, help) OPT_##id,
#include "ctl/options.def"
#undef OPTION
	OPTION_COUNT
};
#define O(id) (1ull << OPT_##id)
#define GLOBAL_OPTIONS \
	(O(help) | (O(help) - 1)) /* of all verbs; they come first in the table */

/* What was given on the command line; `text` is NULL for what was not. */
struct given {
	const char *text;
	uint64_t count; /* COUNT */
	double seconds; /* SECONDS */
};

/* Exit codes beside those of <sysexits.h>. */
enum { EXIT_REFUSED = 1, EXIT_UNCONFIRMED = 2, EXIT_NOT_FOUND = 3 };

enum output { OUT_TABLE, OUT_JSON, OUT_JSONL, OUT_CSV, OUT_NAMES, OUTPUTS };

struct ctl {
	struct given opt[OPTION_COUNT];
	enum output output;
	bool has_color;
	const char *server; /* URL */
	struct coord *conn;
	int status;     /* what ctl_call() failed with, an exit code */
	bool is_silent; /* what goes wrong with a call is not said, only kept: */
	struct coord_error why;
};

#define GIVEN(ctl, id) ((ctl)->opt[OPT_##id].text != NULL)
#define TEXT(ctl, id)  ((ctl)->opt[OPT_##id].text)

/* A verb does its work on `args` (`n` of them, in the range of its row) and returns an exit
 * code. */
typedef int verb_fn(struct ctl *ctl, char **args, int n);
#define VERB(group, name, function, args, least, most, options, help) verb_fn function;
#include "ctl/verbs.def"
#undef VERB

/* What the help of `check` has to add (check.c). */
void check_help(void);

/* --- main.c: errors, questions ----------------------------------------------- */

/* Say on stderr what went wrong, safe for a terminal; returns `status`. */
int ctl_fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Ask on the terminal, unless --yes. EX_OK, or EXIT_UNCONFIRMED (said already). */
int
ctl_confirm(const struct ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Read a queue's or agent's name. EX_OK, or EX_USAGE (said already). */
int ctl_name(struct name *name, const char *text);

/* --- call.c: the broker ------------------------------------------------------ */

/*
 * Connect and say hello. ctl_call() does so when it must, so that nobody waits for a broker to
 * be told of a typing error. EX_OK or an exit code (said already).
 */
int ctl_connect(struct ctl *ctl);

/* Say why a request or the connection failed; the exit code for it. */
int ctl_refused(const struct coord_error *err);

/* New parameters for ctl_call(), with `agent` in them unless that is NULL. */
struct coord_params *ctl_params(const struct name *agent);

/*
 * Call a method that may take `wait_s` longer than others; frees `take_params`. The result is
 * the caller's; NULL on failure, which is said already, with the exit code in ctl->status.
 */
json_t *
ctl_call(struct ctl *ctl, const char *method, struct coord_params *take_params, double wait_s);

/*
 * Collect the rows of a method that answers {<key>: [...], after}, page by page, --limit at
 * most. `agent` and `type` may be NULL. As ctl_call().
 */
json_t *ctl_pages(struct ctl *ctl, const char *method, const char *key,
		  const struct name *agent, const char *type);

/*
 * Collect the rows of a method that answers an array, page by page, `most` at most; a page begins after what stands under `key`
 * in the last row. `type` may be NULL. `choose` (NULL: all are taken) says what becomes of each row. As ctl_call().
 */
enum choice { ROW_TAKEN, ROW_LEFT_OUT, ROW_LAST }; /* the last: neither it nor any more */
typedef enum choice choose_fn(const json_t *row, const void *arg);
json_t *ctl_list(struct ctl *ctl, const char *method, const char *key, const char *type,
		 uint64_t most, choose_fn *choose, const void *arg);
/* What --limit says. */
uint64_t ctl_limit(const struct ctl *ctl);

/* The broker answered something that its version should not: says so; an exit code. */
int ctl_unexpected(const char *method);

/* --- config.c ------------------------------------------------------------------ */

/* What the broker thinks of addresses in a configuration. */
extern const struct config_checks ctl_config_checks;

/* --- table.c: results -------------------------------------------------------- */

/*
 * A column of a table, and the line of that name where one object is shown. `show` appends what
 * a person or (`is_plain`) a CSV reader sees; NULL shows strings and numbers as they are.
 * `value` is what `path` leads to (json_at()), the whole row for "", and never NULL.
 */
struct column {
	const char *title;
	const char *path;
	void (*show)(struct buf *b, const json_t *value, bool is_plain);
	bool is_number; /* right-aligned */
};

void show_agent(struct buf *b, const json_t *value, bool is_plain); /* type:instance */
void show_time(struct buf *b, const json_t *value, bool is_plain);
void show_age(struct buf *b, const json_t *value, bool is_plain); /* seconds */
void show_json(struct buf *b, const json_t *value, bool is_plain);
void show_short_json(struct buf *b, const json_t *value, bool is_plain);
void show_priority(struct buf *b, const json_t *value, bool is_plain);

/* Print a list, and one object, in the format of --output. The first column is the row's name.
 */
void
out_rows(const struct ctl *ctl, const json_t *rows, const struct column *columns, size_t n);
void
out_object(const struct ctl *ctl, const json_t *object, const struct column *columns, size_t n);

/* Print a list of QueueStats (queue.c). */
void out_queues(const struct ctl *ctl, const json_t *rows);

/* The same where the broker decides which members there are. */
void out_members(const struct ctl *ctl, const json_t *object);

/* What a verb did: a sentence for a person, unless --quiet, or `object` for all other formats.
 */
void out_done(const struct ctl *ctl, const json_t *object, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define PLURAL(n)       ((n) == 1 ? "" : "s")
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#endif
