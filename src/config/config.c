#include "config/config.h"

#include <assert.h>
#include <ctype.h>
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
#include "config/override.h"
#include "config/yaml.h"

/*
 * config_load(): the defaults, then each file, then the environment, then each flag are written
 * over one another into `next`, which takes the place of what was in force only when nothing was
 * wrong. All errors are collected, so that one run tells all.
 */
struct loader {
	struct config next;
	struct config_source *source;
	struct config_errors *why;
	enum origin_kind kind; /* of what is read now */
	const char *file;      /* as errors name it: the file, the variable, CONFIG_FLAGS */
	bool is_open_to_all;   /* everybody may read it */
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

/* `key` may be NULL. */
static void
complain(struct loader *l, const char *file, struct yaml_at at, const char *key,
	 const char *text)
{
	struct config_errors *why = l->why;

	if (why->n < CONFIG_ERRORS_KEPT) {
		struct config_error *e = &why->list[why->n];

		*e = (struct config_error){ .text = line_of(file, at, text),
					    .file = xstrdup(file),
					    .key = key ? xstrdup(key) : NULL,
					    .line = at.line,
					    .column = at.column };
		e->message = e->text + strlen(e->text) - strlen(text);
	}
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

	complain(l, l->file, at, NULL, text);
}

/* "PATH: TEXT". */
static void
complain_option(struct loader *l, const char *file, struct yaml_at at, const char *path,
		const char *text)
{
	struct buf line = { 0 };

	buf_printf(&line, "%s: %s", path, text);
	buf_putc(&line, '\0');
	complain(l, file, at, path, line.data);
	buf_done(&line);
}

void
config_errors_print(const struct config_errors *why, FILE *out)
{
	for (unsigned i = 0; i < why->n_warnings; i++)
		fprintf(out, "%s\n", why->warnings[i]);
	for (unsigned i = 0; i < why->n && i < CONFIG_ERRORS_KEPT; i++)
		fprintf(out, "%s\n", why->list[i].text);
	if (why->n)
		fprintf(out, "%s%s%u error%s\n", why->is_mixed ? "" : why->where,
			why->is_mixed ? "" : ": ", why->n, why->n == 1 ? "" : "s");
}

void
config_errors_done(struct config_errors *why)
{
	for (unsigned i = 0; i < CONFIG_ERRORS_KEPT; i++) {
		free(why->list[i].text);
		free(why->list[i].file);
		free(why->list[i].key);
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
	const struct config_checks *checks = l->source->checks;
	bool is_admin = o->offset == offsetof(struct config, admin.listen);
	const struct config_list *listen =
		is_admin ? &l->next.admin.listen : &l->next.server.listen;

	if (!checks)
		return OK;
	if (checks->listen &&
	    (is_admin || o->offset == offsetof(struct config, server.listen))) {
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

/* The option has this value from here. */
static void
note_origin(struct loader *l, const struct config_option *o, struct yaml_at at)
{
	struct config_origin *origin = &l->next.origins[o - config_options];

	free(origin->name);
	*origin = (struct config_origin){ l->kind, xstrdup(l->file), at };
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
	note_origin(l, o, at);
	if (l->is_open_to_all && option_holds_secret(&l->next, o)) {
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
	buf_putc(&path, '\0');
	complain(l, l->file, at, path.data, text);
	buf_done(&path);
}

static void
on_override_error(void *arg, struct yaml_at at, const char *path, const char *text)
{
	struct loader *l = arg;

	if (l->kind != ORIGIN_FILE)
		at = (struct yaml_at){ 0 };
	complain_option(l, l->file, at, path, text);
}

static void
set_node(struct loader *l, const struct config_option *o, const struct yaml_node *node)
{
	struct errmsg why = { 0 };
	enum err err = OK;

	if (o->kind != OPTION_OVERRIDES)
		err = option_set_node(&l->next, o, node, &why);
	else if (!overrides_set(&l->next, o, node, on_override_error, l))
		return;
	option_was_set(l, o, node->at, err, &why);
}

/* Of the text of a variable or flag, which is one line. */
struct line {
	struct loader *loader;
	const char *path;
};

static void
on_line_error(void *arg, struct yaml_at at, const char *text)
{
	struct line *line = arg;
	struct buf told = { 0 };

	buf_printf(&told, "column %u: %s", at.column, text);
	buf_putc(&told, '\0');
	complain_option(line->loader, line->loader->file, (struct yaml_at){ 0 }, line->path,
			told.data);
	buf_done(&told);
}

/* The text of a variable or flag, `l->file`. */
static void
set_text(struct loader *l, const struct config_option *o, const char *text)
{
	struct yaml_at nowhere = { 0 };
	struct errmsg why = { 0 };
	struct yaml_node *node;
	enum err err;

	if (o->kind != OPTION_OVERRIDES) {
		err = option_set_text(&l->next, o, text, &why);
		option_was_set(l, o, nowhere, err, &why);
		return;
	}
	node = yaml_read(str_of(text), on_line_error, &(struct line){ l, o->path });
	if (node && overrides_set(&l->next, o, node, on_override_error, l))
		note_origin(l, o, nowhere);
	yaml_tree_free(node);
}

/* --- files --------------------------------------------------------------------- */

/* The values of a map; `prefix` is "" or the path of the map and a dot. */
static void
apply_map(struct loader *l, const struct yaml_node *map, const char *prefix)
{
	for (const struct yaml_node *n = map->first; n; n = n->next) {
		const struct config_option *o;
		struct buf path = { 0 };

		buf_printf(&path, "%s%s", prefix, n->key);
		buf_putc(&path, '\0');
		o = option_find(path.data);
		if (strchr(n->key, '.')) {
			unknown_key(l, n->key_at, prefix, n->key);
		} else if (o) {
			set_node(l, o, n);
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

/* Standard input, or what it held when it was read before. */
static enum err
read_input(struct config_source *source, struct buf *to, struct errmsg *why)
{
	enum err err;

	if (source->input) {
		buf_puts(to, source->input);
		return OK;
	}
	err = read_all(STDIN_FILENO, YAML_MAX_BYTES, to, why);
	if (!err)
		source->input = xmemdup(to->data, to->len);
	return err;
}

void
config_source_done(struct config_source *source)
{
	if (source->input)
		explicit_bzero(source->input, strlen(source->input));
	free(source->input);
	source->input = NULL;
}

static enum err
read_file(const char *path, struct buf *to, bool *is_open_to_all, struct errmsg *why)
{
	struct stat st;
	enum err err;
	int fd;

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

	bool is_input = strcmp(path, "-") == 0;

	l->kind = ORIGIN_FILE;
	l->file = is_input ? "<stdin>" : path;
	l->is_open_to_all = false;
	if (is_input ? read_input(l->source, &bytes, &why)
		     : read_file(path, &bytes, &l->is_open_to_all, &why))
		complain(l, l->file, (struct yaml_at){ 0 }, NULL, why.text);
	else
		root = yaml_read(buf_str(&bytes), on_yaml_error, l);
	if (root && root->kind == YAML_MAP)
		apply_map(l, root, "");
	else if (root && root->kind != YAML_NULL)
		complain(l, l->file, root->at, NULL, "must be a map of keys");
	yaml_tree_free(root);
	buf_done(&bytes);
}

/* --- the environment and flags ------------------------------------------------- */

/* What some of COORDD_* is for, besides keys: of the service's unit, and what Kubernetes sets in
 * every container where a service is called coordd. No section has one of these names. */
static bool
is_foreign(const char *name)
{
	static const char *const names[] = { "OPTS=", "CONFIG=", "SERVICE_", "PORT=", "PORT_" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strncmp(name, names[i], strlen(names[i])) == 0)
			return true;
	}
	return false;
}

/* COORDD_LOG__LEVEL is log.level. Other than capitals stand for nothing. */
static void
put_path_of_variable(struct buf *path, const char *name)
{
	for (const char *p = name; *p; p++) {
		if (p[0] == '_' && p[1] == '_') {
			buf_putc(path, '.');
			p++;
		} else {
			buf_putc(path, isupper((unsigned char)*p)   ? (char)tolower(*p)
				       : islower((unsigned char)*p) ? '?'
								    : *p);
		}
	}
	buf_putc(path, '\0');
}

static void
unknown_variable(struct loader *l, const char *path)
{
	const struct config_option *near = option_nearest(path);
	struct buf text = { 0 };

	buf_puts(&text, "no key is called so");
	if (near) {
		buf_puts(&text, "; did you mean " CONFIG_ENVIRONMENT);
		for (const char *p = near->path; *p; p++) {
			if (*p == '.')
				buf_puts(&text, "__");
			else
				buf_putc(&text, (char)toupper(*p));
		}
		buf_putc(&text, '?');
	}
	buf_putc(&text, '\0');
	complain(l, l->file, (struct yaml_at){ 0 }, NULL, text.data);
	buf_done(&text);
}

static void
apply_variable(struct loader *l, const char *variable)
{
	size_t skip = strlen(CONFIG_ENVIRONMENT), n = strcspn(variable, "=");
	const struct config_option *o;
	struct buf path = { 0 };
	char *name, quoted[160];

	if (strncmp(variable, CONFIG_ENVIRONMENT, skip) != 0 || is_foreign(variable + skip) ||
	    !variable[n])
		return;
	name = xmemdup(variable, n);
	put_path_of_variable(&path, name + skip);
	l->kind = ORIGIN_ENVIRONMENT;
	l->file = log_quote(quoted, sizeof(quoted), str_of(name));
	l->is_open_to_all = false;
	o = option_find(path.data);
	if (o)
		set_text(l, o, variable + n + 1);
	else
		unknown_variable(l, path.data);
	buf_done(&path);
	free(name);
}

static void
apply_set(struct loader *l, const struct config_set *set)
{
	const struct config_option *o = option_find(set->path);

	l->kind = ORIGIN_FLAG;
	l->file = CONFIG_FLAGS;
	l->is_open_to_all = true; /* ps shows it */
	if (o) {
		set_text(l, o, set->value);
	} else {
		const char *dot = strrchr(set->path, '.');
		struct buf prefix = { 0 };

		if (dot)
			buf_put(&prefix, set->path, (size_t)(dot + 1 - set->path));
		buf_putc(&prefix, '\0');
		unknown_key(l, (struct yaml_at){ 0 }, prefix.data, dot ? dot + 1 : set->path);
		buf_done(&prefix);
	}
}

/* --- what must fit together ---------------------------------------------------- */

static const struct config_origin *
origin_of(const struct loader *l, const char *path)
{
	const struct config_option *o = option_find(path);

	assert(o);
	return &l->next.origins[o - config_options];
}

/* Complain where the first of the two was set, or else the second. */
static void
complain_pair(struct loader *l, const char *path, const char *other, const char *text)
{
	const struct config_origin *origin = origin_of(l, path);

	if (!origin->name)
		origin = origin_of(l, other);
	complain_option(l, origin->name ? origin->name : "defaults", origin->at, path, text);
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
		{ "queues.defaults.max_visibility_timeout",
		  "queues.defaults.visibility_timeout",
		  c->queues.defaults.max_visibility_timeout_us,
		  c->queues.defaults.visibility_timeout_us },
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

/* The same for each entry of the overrides, whose other values are the defaults. */
static void
check_overrides(struct loader *l)
{
	const struct config_overrides *list = &l->next.queues.overrides;
	const struct config_origin *origin = origin_of(l, "queues.overrides");

	for (unsigned i = 0; i < list->n; i++) {
		const struct config_queue *q = &list->items[i].queue;
		const char *text = NULL;
		char path[32];

		if (q->backoff_max_us < q->backoff_base_us)
			text = "backoff_max must not be below backoff_base";
		else if (q->max_visibility_timeout_us < q->visibility_timeout_us)
			text = "max_visibility_timeout must not be below visibility_timeout";
		snprintf(path, sizeof(path), "queues.overrides[%u]", i);
		if (text)
			complain_option(l, origin->name, origin->at, path, text);
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
		err = errmsg_set(why, ERR_FORBIDDEN,
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
	const struct config_origin *origin = origin_of(l, "redis.password_file");
	struct config *c = &l->next;
	struct errmsg why = { 0 };
	char *password = NULL;

	if (!*c->redis.password_file)
		return;
	if (*c->redis.password) {
		complain_pair(l, "redis.password_file", "redis.password",
			      "redis.password is set as well; only one may be");
	} else if (read_password(c->redis.password_file, &password, &why)) {
		complain_option(l, origin->name, origin->at, "redis.password_file", why.text);
		l->why->is_about_rights = why.err == ERR_FORBIDDEN;
	} else {
		free(c->redis.password);
		c->redis.password = password;
	}
}

/* --- the whole ----------------------------------------------------------------- */

void
config_done(struct config *cfg)
{
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		option_clear(cfg, &config_options[i]);
		if (cfg->origins)
			free(cfg->origins[i].name);
	}
	free(cfg->origins);
	*cfg = (struct config){ 0 };
}

static void
set_defaults(struct config *cfg)
{
	cfg->origins = xcalloc(OPTION_COUNT, sizeof(*cfg->origins));
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		const struct config_option *o = &config_options[i];
		enum err err = o->kind == OPTION_OVERRIDES
				       ? OK /* there are none */
				       : option_set_text(cfg, o, o->otherwise, NULL);

		assert(!err);
		(void)err;
	}
}

enum err
config_load(struct config *cfg, struct config_source *source, struct config_errors *why)
{
	struct loader l = { .why = why, .source = source };
	struct config old;

	set_defaults(&l.next);
	for (unsigned i = 0; i < source->n_files; i++)
		load_file(&l, source->files[i]);
	for (const char *const *v = source->environment; v && *v; v++)
		apply_variable(&l, *v);
	for (unsigned i = 0; i < source->n_sets; i++)
		apply_set(&l, &source->sets[i]);
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		if (config_options[i].kind == OPTION_OVERRIDES)
			overrides_fill(&l.next, &config_options[i]);
	}
	if (!why->n) { /* else some values are not what was asked for */
		check_orders(&l);
		check_overrides(&l);
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

enum err
config_complain(const struct config *cfg, const char *path, const char *text,
		struct config_errors *why)
{
	const struct config_option *o = option_find(path);
	const struct config_origin *origin = &cfg->origins[o - config_options];
	struct loader l = { .why = why };

	complain_option(&l, origin->name ? origin->name : "defaults", origin->at, path, text);
	return ERR_BAD_REQUEST;
}

enum err
config_check_reload(const struct config *from, const struct config *to,
		    struct config_errors *why)
{
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		const struct config_option *o = &config_options[i];
		struct buf text = { 0 };

		if (o->is_reloadable || option_is_same(from, to, o))
			continue;
		buf_puts(&text, "a change needs a restart; now it is ");
		option_put_text(&text, from, o);
		buf_putc(&text, '\0');
		config_complain(to, o->path, text.data, why);
		buf_done(&text);
	}
	return why->n ? ERR_BAD_REQUEST : OK;
}
