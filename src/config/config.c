#include "config/config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "config/option.h"
#include "config/yaml.h"

/*
 * config_load(): the defaults, then each file, then each flag are written over one another into
 * `next`, which takes the place of what was in force only when nothing was wrong. All errors
 * are collected, so that one run tells all.
 */
struct loader {
	struct config next;
	struct config_errors *why;
	const struct config_checks *checks;
	const char *file;    /* read now, as errors name it */
	bool is_open_to_all; /* everybody may read it */
	struct origin {
		const char *file; /* NULL: the default */
		struct yaml_at at;
	} origins[OPTION_COUNT];
};

enum { PASSWORD_MAX = 512 };

/* --- errors -------------------------------------------------------------------- */

static char *
line_of(const char *file, struct yaml_at at, const char *text)
{
	struct buf line = { 0 };

	if (at.line)
		buf_printf(&line, "%s:%u:%u: %s", file, at.line, at.column, text);
	else
		buf_printf(&line, "%s: %s", file, text);
	buf_putc(&line, '\0');
	return line.data;
}

static void
complain(struct loader *l, const char *file, struct yaml_at at, const char *text)
{
	struct config_errors *why = l->why;

	if (why->n < CONFIG_ERRORS_KEPT)
		why->list[why->n] = line_of(file, at, text);
	if (!why->n++)
		why->where = xstrdup(file);
	else if (strcmp(why->where, file) != 0)
		why->is_mixed = true;
}

static void
warn(struct loader *l, struct yaml_at at, const char *text)
{
	struct config_errors *why = l->why;

	if (why->n_warnings < CONFIG_ERRORS_KEPT)
		why->warnings[why->n_warnings++] = line_of(l->file, at, text);
}

static void
on_yaml_error(void *arg, struct yaml_at at, const char *text)
{
	struct loader *l = arg;

	complain(l, l->file, at, text);
}

/* "PATH: TEXT". */
static void
complain_option(struct loader *l, const char *file, struct yaml_at at, const char *path,
		const char *text)
{
	struct buf line = { 0 };

	buf_printf(&line, "%s: %s", path, text);
	buf_putc(&line, '\0');
	complain(l, file, at, line.data);
	buf_done(&line);
}

void
config_errors_print(const struct config_errors *why, FILE *out)
{
	for (unsigned i = 0; i < why->n_warnings; i++)
		fprintf(out, "%s\n", why->warnings[i]);
	for (unsigned i = 0; i < why->n && i < CONFIG_ERRORS_KEPT; i++)
		fprintf(out, "%s\n", why->list[i]);
	if (why->n)
		fprintf(out, "%s%s%u error%s\n", why->is_mixed ? "" : why->where,
			why->is_mixed ? "" : ": ", why->n, why->n == 1 ? "" : "s");
}

void
config_errors_done(struct config_errors *why)
{
	for (unsigned i = 0; i < CONFIG_ERRORS_KEPT; i++) {
		free(why->list[i]);
		free(why->warnings[i]);
	}
	free(why->where);
	*why = (struct config_errors){ 0 };
}

/* --- values -------------------------------------------------------------------- */

/* What the layers above think of an address that was just set. */
static enum err
check_addresses(const struct loader *l, const struct config_option *o, struct errmsg *why)
{
	const struct config_checks *checks = l->checks;
	const struct config_list *listen = &l->next.server.listen;

	if (!checks)
		return OK;
	if (checks->listen && o->offset == offsetof(struct config, server.listen)) {
		for (unsigned i = 0; i < listen->n; i++) {
			if (!checks->listen(listen->items[i], why))
				return ERR_BAD_REQUEST;
		}
	}
	if (checks->redis && o->offset == offsetof(struct config, redis.url) &&
	    !checks->redis(l->next.redis.url, why))
		return ERR_BAD_REQUEST;
	return OK;
}

/* Whether the option holds a password now. */
static bool
holds_secret(const struct config *cfg, const struct config_option *o)
{
	if (o->kind == OPTION_SECRET)
		return **(char *const *)((const char *)cfg + o->offset) != 0;
	return o->offset == offsetof(struct config, redis.url) && strchr(cfg->redis.url, '@');
}

/* The value of an option was set, or not: `err` and `why` of that. */
static void
option_was_set(struct loader *l, const struct config_option *o, struct yaml_at at, enum err err,
	       struct errmsg *why)
{
	if (!err)
		err = check_addresses(l, o, why);
	if (err) {
		complain_option(l, l->file, at, o->path, why->text);
		return;
	}
	l->origins[o - config_options] = (struct origin){ l->file, at };
	if (l->is_open_to_all && holds_secret(&l->next, o)) {
		char text[160];

		snprintf(text, sizeof(text),
			 "warning: %s: everybody on this machine can read this password",
			 o->path);
		warn(l, at, text);
	}
}

static void
unknown_key(struct loader *l, struct yaml_at at, const char *prefix, const char *key)
{
	struct buf path = { 0 };
	char quoted[160], near[128], text[400];

	buf_printf(&path, "%s%s", prefix, key);
	yaml_quote(quoted, sizeof(quoted), buf_str(&path));
	if (strchr(key, '.'))
		snprintf(text, sizeof(text), "unknown key %s; write it below its section",
			 quoted);
	else if (option_suggest(prefix, key, near, sizeof(near)))
		snprintf(text, sizeof(text), "unknown key %s; did you mean \"%s\"?", quoted,
			 near);
	else
		snprintf(text, sizeof(text), "unknown key %s", quoted);
	complain(l, l->file, at, text);
	buf_done(&path);
}

/* --- files --------------------------------------------------------------------- */

/* The values of a map; `prefix` is "" or the path of the map and a dot. */
static void
apply_map(struct loader *l, const struct yaml_node *map, const char *prefix)
{
	for (const struct yaml_node *n = map->first; n; n = n->next) {
		const struct config_option *o;
		struct buf path = { 0 };
		struct errmsg why = { 0 };

		buf_printf(&path, "%s%s", prefix, n->key);
		buf_putc(&path, '\0');
		o = option_find(path.data);
		if (strchr(n->key, '.')) {
			unknown_key(l, n->key_at, prefix, n->key);
		} else if (o) {
			option_was_set(l, o, n->at, option_set_node(&l->next, o, n, &why),
				       &why);
		} else if (!option_is_section(path.data)) {
			unknown_key(l, n->key_at, prefix, n->key);
		} else if (n->kind == YAML_MAP) {
			path.data[path.len - 1] = '.';
			buf_putc(&path, '\0');
			apply_map(l, n, path.data);
		} else if (n->kind == YAML_NULL) {
			complain_option(l, l->file, n->key_at, path.data,
					"nothing stands below it; leave it out");
		} else {
			complain_option(l, l->file, n->at, path.data, "must be a map of keys");
		}
		buf_done(&path);
	}
}

/*
 * Open a regular file to read. Its status goes to `st`. -1 and `why` when it cannot be; waits
 * for nobody, as the open of a FIFO would.
 */
static int
open_regular(const char *path, struct stat *st, struct errmsg *why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0 || fstat(fd, st) < 0) {
		errmsg_set(why, ERR_BAD_REQUEST, "cannot open: %s", strerror(errno));
	} else if (!S_ISREG(st->st_mode)) {
		errmsg_set(why, ERR_BAD_REQUEST, "not a regular file");
	} else {
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Append what comes from `fd`, at most one byte more than `max`. */
static enum err
read_all(int fd, size_t max, struct buf *to, struct errmsg *why)
{
	for (;;) {
		ssize_t n = read(fd, buf_reserve(to, 4096), 4096);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errmsg_set(why, ERR_BAD_REQUEST, "cannot read: %s",
					  strerror(errno));
		to->len += (size_t)n;
		if (n == 0 || to->len > max)
			return OK;
	}
}

static enum err
read_file(const char *path, struct buf *to, bool *is_open_to_all, struct errmsg *why)
{
	struct stat st;
	enum err err;
	int fd;

	*is_open_to_all = false;
	if (strcmp(path, "-") == 0)
		return read_all(STDIN_FILENO, YAML_MAX_BYTES, to, why);
	fd = open_regular(path, &st, why);
	if (fd < 0)
		return why->err;
	*is_open_to_all = (st.st_mode & S_IROTH) != 0;
	err = read_all(fd, YAML_MAX_BYTES, to, why);
	close(fd);
	return err;
}

static void
load_file(struct loader *l, const char *path)
{
	struct yaml_node *root = NULL;
	struct errmsg why = { 0 };
	struct buf bytes = { 0 };

	l->file = strcmp(path, "-") == 0 ? "<stdin>" : path;
	if (read_file(path, &bytes, &l->is_open_to_all, &why))
		complain(l, l->file, (struct yaml_at){ 0 }, why.text);
	else
		root = yaml_read(buf_str(&bytes), on_yaml_error, l);
	if (root && root->kind == YAML_MAP)
		apply_map(l, root, "");
	else if (root && root->kind != YAML_NULL)
		complain(l, l->file, root->at, "must be a map of keys");
	yaml_tree_free(root);
	buf_done(&bytes);
}

/* --- flags --------------------------------------------------------------------- */

static void
apply_set(struct loader *l, const struct config_set *set)
{
	const struct config_option *o = option_find(set->path);
	struct yaml_at nowhere = { 0 };
	struct errmsg why = { 0 };

	l->file = CONFIG_FLAGS;
	l->is_open_to_all = true; /* ps shows it */
	if (o) {
		option_was_set(l, o, nowhere, option_set_text(&l->next, o, set->value, &why),
			       &why);
	} else {
		const char *dot = strrchr(set->path, '.');
		struct buf prefix = { 0 };

		if (dot)
			buf_put(&prefix, set->path, (size_t)(dot + 1 - set->path));
		buf_putc(&prefix, '\0');
		unknown_key(l, nowhere, prefix.data, dot ? dot + 1 : set->path);
		buf_done(&prefix);
	}
}

/* --- what must fit together ---------------------------------------------------- */

static const struct origin *
origin_of(const struct loader *l, const char *path)
{
	const struct config_option *o = option_find(path);

	assert(o);
	return &l->origins[o - config_options];
}

/* Complain where the first of the two was set, or else the second. */
static void
complain_pair(struct loader *l, const char *path, const char *other, const char *text)
{
	const struct origin *origin = origin_of(l, path);

	if (!origin->file)
		origin = origin_of(l, other);
	complain_option(l, origin->file ? origin->file : "defaults", origin->at, path, text);
}

static void
check_orders(struct loader *l)
{
	const struct config *c = &l->next;
	const struct {
		const char *path, *other;
		uint64_t value, least;
	} orders[] = {
		{ "queues.defaults.backoff_max", "queues.defaults.backoff_base",
		  c->queues.defaults.backoff_max_us, c->queues.defaults.backoff_base_us },
		{ "limits.output_limit", "limits.output_high_water", c->limits.output_limit,
		  c->limits.output_high_water },
		{ "limits.output_limit", "limits.max_frame", c->limits.output_limit,
		  c->limits.max_frame },
		{ "redis.reconnect_max", "redis.reconnect_min", c->redis.reconnect_max_us,
		  c->redis.reconnect_min_us },
	};

	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		char text[128];

		if (orders[i].value >= orders[i].least)
			continue;
		snprintf(text, sizeof(text), "must not be below %s", orders[i].other);
		complain_pair(l, orders[i].path, orders[i].other, text);
	}
}

/* The first line of a file that nobody else may read. */
static enum err
read_password(const char *path, char **password, struct errmsg *why)
{
	struct buf bytes = { 0 };
	struct stat st;
	enum err err;
	int fd = open_regular(path, &st, why);
	size_t n;

	if (fd < 0)
		return why->err;
	err = read_all(fd, PASSWORD_MAX + 2, &bytes, why);
	close(fd);
	buf_putc(&bytes, '\0');
	n = strcspn(bytes.data, "\r\n"); /* or before a NUL, which is in no password */
	if (!err && (st.st_mode & (S_IRWXG | S_IRWXO)))
		err = errmsg_set(why, ERR_BAD_REQUEST,
				 "others may use this file; make its mode 0600");
	else if (!err && (n == 0 || n > PASSWORD_MAX || (!bytes.data[n] && n + 1 < bytes.len)))
		err = errmsg_set(why, ERR_BAD_REQUEST,
				 "its first line must hold 1 to %d bytes of text",
				 (int)PASSWORD_MAX);
	else if (!err)
		*password = xmemdup(bytes.data, n);
	explicit_bzero(bytes.data, bytes.len);
	buf_done(&bytes);
	return err;
}

static void
check_password(struct loader *l)
{
	const struct origin *origin = origin_of(l, "redis.password_file");
	struct config *c = &l->next;
	struct errmsg why = { 0 };
	char *password = NULL;

	if (!*c->redis.password_file)
		return;
	if (*c->redis.password) {
		complain_pair(l, "redis.password_file", "redis.password",
			      "redis.password is set as well; only one may be");
	} else if (read_password(c->redis.password_file, &password, &why)) {
		complain_option(l, origin->file, origin->at, "redis.password_file", why.text);
	} else {
		free(c->redis.password);
		c->redis.password = password;
	}
}

/* --- the whole ----------------------------------------------------------------- */

void
config_done(struct config *cfg)
{
	for (unsigned i = 0; i < OPTION_COUNT; i++)
		option_clear(cfg, &config_options[i]);
	*cfg = (struct config){ 0 };
}

static void
set_defaults(struct config *cfg)
{
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		const struct config_option *o = &config_options[i];
		enum err err = option_set_text(cfg, o, o->otherwise, NULL);

		assert(!err);
		(void)err;
	}
}

enum err
config_load(struct config *cfg, const char *const *files, unsigned n_files,
	    const struct config_set *sets, unsigned n_sets, const struct config_checks *checks,
	    struct config_errors *why)
{
	struct loader l = { .why = why, .checks = checks };
	struct config old;

	set_defaults(&l.next);
	for (unsigned i = 0; i < n_files; i++)
		load_file(&l, files[i]);
	for (unsigned i = 0; i < n_sets; i++)
		apply_set(&l, &sets[i]);
	if (!why->n) { /* else some values are not what was asked for */
		check_orders(&l);
		check_password(&l);
	}
	if (!why->n) {
		old = *cfg;
		*cfg = l.next;
		l.next = old;
	}
	config_done(&l.next);
	return why->n ? ERR_BAD_REQUEST : OK;
}

/* --- the file of defaults ------------------------------------------------------ */

enum { COMMENT_COLUMN = 40, LAST_COLUMN = 80 };

static void
print_sections(FILE *out, const char *path, const char *before)
{
	size_t same = 0;
	unsigned depth = 0;
	const char *dot;

	for (size_t i = 0; path[i] && path[i] == before[i]; i++) {
		if (path[i] == '.') {
			same = i + 1;
			depth++;
		}
	}
	if (!depth && *before)
		fputc('\n', out);
	while ((dot = strchr(path + same, '.'))) {
		fprintf(out, "%*s%.*s:\n", (int)depth * 2, "", (int)(dot - path - (int)same),
			path + same);
		same = (size_t)(dot + 1 - path);
		depth++;
	}
}

static void
print_option(FILE *out, const struct config_option *o)
{
	bool is_quoted = o->kind == OPTION_MODE || !*o->otherwise;
	const char *name = strrchr(o->path, '.'), *quote = is_quoted ? "\"" : "",
		   *line = o->help;
	char comment[160], key[160];
	int indent = 0, n;

	for (const char *p = o->path; *p; p++)
		indent += *p == '.' ? 2 : 0;
	name = name ? name + 1 : o->path;
	n = o->kind == OPTION_LIST ? snprintf(key, sizeof(key), "%*s%s:", indent, "", name)
				   : snprintf(key, sizeof(key), "%*s%s: %s%s%s", indent, "",
					      name, quote, o->otherwise, quote);
	snprintf(comment, sizeof(comment), "# [%c]%s%.*s", o->is_reloadable ? 'R' : 'S',
		 *line ? " " : "", (int)strcspn(line, "\n"), line);
	line += strcspn(line, "\n");
	if (!*line && (n + 2 > COMMENT_COLUMN ? n + 2 : COMMENT_COLUMN) + strlen(comment) <=
			      LAST_COLUMN) {
		fprintf(out, "%-*s%s%s\n", COMMENT_COLUMN, key,
			n + 2 > COMMENT_COLUMN ? "  " : "", comment);
	} else {
		fprintf(out, "%*s%s\n", indent, "", comment);
		while (*line) {
			size_t len = strcspn(++line, "\n");

			fprintf(out, "%*s# %.*s\n", indent, "", (int)len, line);
			line += len;
		}
		fprintf(out, "%s\n", key);
	}
	if (o->kind == OPTION_LIST)
		fprintf(out, "%*s- %s\n", indent + 2, "", o->otherwise);
}

void
config_print_defaults(FILE *out)
{
	const char *before = "";

	fputs("---\n"
	      "# coordd.yaml: every key with its built-in default. An empty file is valid.\n"
	      "# Durations: ms s m h d. Sizes: B KiB MiB GiB. Unknown or repeated keys,\n"
	      "# wrong types, aliases and tags are errors (exit 78), never warnings.\n"
	      "# [R] = may change while coordd runs; [S] = needs a restart. For now coordd\n"
	      "# reads its configuration at start only.\n",
	      out);
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		print_sections(out, config_options[i].path, before);
		print_option(out, &config_options[i]);
		before = config_options[i].path;
	}
}
