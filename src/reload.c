/*
 * reload: read the configuration again.
 *
 *	server_reload()		read and check all, then swap the whole, or nothing
 *	reject()		it stays as it was
 *	server_reload_diff()	what would be swapped
 */
#include "reload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "settings.h"

enum { KEYS_SHOWN = 400 };

uint64_t
reload_time_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void
warn(const struct config_errors *why)
{
	for (unsigned i = 0; i < why->n_warnings; i++)
		log_event(LOG_CONFIG_WARNING, log_text("text", why->warnings[i]));
}

static enum err
reject(struct server *srv, const char *by, const struct config_errors *why)
{
	const struct config_error *e = &why->list[0];

	process_stats.config_reloads[STAT_RELOAD_REJECTED]++;
	process_stats.config_reload_good[0] = 0;
	free(srv->reloads.problem);
	srv->reloads.problem = xstrdup(e->text);
	log_event(LOG_CONFIG_REJECTED, log_text("file", e->file), log_uint("line", e->line),
		  log_uint("column", e->column), log_text("key", e->key ? e->key : ""),
		  log_text("error", e->message), log_uint("errors", why->n),
		  log_text("kept", "previous"), log_text("by", by));
	return ERR_BAD_REQUEST;
}

/* Whoever asked is told of a value, and the log of its key. */
struct changes {
	config_change_cb *cb;
	void *arg;
	struct buf keys;
};

static void
on_change(void *arg, const struct config_value *from, const struct config_value *to)
{
	struct changes *changes = arg;

	if (changes->cb)
		changes->cb(changes->arg, from, to);
	if (changes->keys.len > KEYS_SHOWN)
		return;
	if (changes->keys.len)
		buf_puts(&changes->keys, ", ");
	buf_puts(&changes->keys,
		 changes->keys.len + strlen(to->path) > KEYS_SHOWN ? "..." : to->path);
}

/* The log's own options. Only a file that cannot be opened can fail, so this comes before all else. */
static enum err
reopen_log(const struct config *from, const struct config *to, struct config_errors *why)
{
	struct log_config log = settings_log(to);
	char text[160];

	if (!strcmp(from->log.file, to->log.file) && from->log.format == to->log.format &&
	    from->log.rate_limit == to->log.rate_limit)
		return OK;
	log.level = log_get_level(); /* it may be set for a while; loglevel.c knows */
	if (log_start(&log))
		return OK;
	snprintf(text, sizeof(text), "cannot open: %s", strerror(errno));
	return config_complain(to, "log.file", text, why);
}

static void
put_in_force(struct server *srv, struct config *next, const char *by,
	     const struct config_errors *why, struct changes *changes)
{
	unsigned n = config_diff(srv->cfg, next, on_change, changes);
	struct config before = *srv->cfg;

	*srv->cfg = *next;
	*next = before;
	settings_apply(srv);
	srv->reloads.ok_us = reload_time_us();
	process_stats.config_reloads[STAT_RELOAD_OK]++;
	process_stats.config_reload_good[0] = 1;
	process_stats.config_reload_at[0] = srv->reloads.ok_us;
	free(srv->reloads.problem);
	srv->reloads.problem = NULL;
	log_event(LOG_CONFIG_RELOADED, log_uint("changed", n),
		  log_str("keys", buf_str(&changes->keys)), log_text("by", by));
	warn(why);
}

enum err
server_reload(struct server *srv, const char *by, struct config_errors *why,
	      config_change_cb *cb, void *arg)
{
	struct changes changes = { .cb = cb, .arg = arg };
	struct config next = { 0 };
	enum err err;

	srv->is_reloading = srv->is_announced;
	server_note_state(srv);
	err = config_load(&next, srv->source, why);
	if (!err)
		err = config_check_reload(srv->cfg, &next, why);
	if (!err)
		err = reopen_log(srv->cfg, &next, why);
	if (err)
		err = reject(srv, by, why);
	else
		put_in_force(srv, &next, by, why, &changes);
	config_done(&next); /* what was in force, if it is no longer */
	buf_done(&changes.keys);
	srv->is_reloading = false;
	server_note_state(srv);
	return err;
}

enum err
server_reload_diff(struct server *srv, struct config_errors *why, config_change_cb *cb,
		   void *arg)
{
	struct config next = { 0 };
	enum err err = config_load(&next, srv->source, why);

	if (!err)
		config_diff(srv->cfg, &next, cb, arg);
	config_done(&next);
	return err;
}
