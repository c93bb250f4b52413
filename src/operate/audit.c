/* What operators did: a stream of Redis with a fixed number of entries, whose ids are times. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "operate/own.h"

/* As the entries' fields are called in Redis. */
static const struct str names[AUDIT_FIELDS] = {
	[AUDIT_METHOD] = { "method", 6 }, [AUDIT_TARGET] = { "target", 6 },
	[AUDIT_RESULT] = { "result", 6 }, [AUDIT_NAMESPACE] = { "namespace", 9 },
	[AUDIT_PEER] = { "peer", 4 },     [AUDIT_CLIENT] = { "client", 6 },
	[AUDIT_UID] = { "uid", 3 },       [AUDIT_BROKER] = { "broker", 6 },
};

static void
args_key(struct args *args, const struct operate *o)
{
	struct buf key = { 0 };

	buf_printf(&key, "%s:audit", o->prefix);
	args_str(args, buf_str(&key));
	buf_done(&key);
}

static void
kept(void *arg, enum err err, const struct reply *reply)
{
	(void)arg;
	(void)reply;
	if (err)
		log_event(LOG_AUDIT_LOST, log_text("error", err_text(err)));
}

void
operate_audit(struct operate *o, const struct str values[AUDIT_FIELDS], unsigned keep)
{
	struct args args = { 0 };

	args_key(&args, o);
	args_uint(&args, keep);
	for (unsigned i = 0; i < AUDIT_FIELDS; i++) {
		if (!values[i].n)
			continue;
		args_str(&args, names[i]);
		args_str(&args, values[i]);
	}
	store_run(o->store, SCRIPT_AUDIT, 1, &args, kept, o);
	args_done(&args);
}

/* List ------------------------------------------------------------------------------------------ */

struct listing {
	audit_cb *cb;
	void *arg;
};

/* "1795626314329-0": milliseconds since 1970, and a number among those of one. */
static uint64_t
time_of(struct str id)
{
	uint64_t ms = 0;

	for (size_t i = 0; i < id.n && id.p[i] >= '0' && id.p[i] <= '9'; i++)
		ms = 10 * ms + (uint64_t)(id.p[i] - '0');
	return 1000 * ms;
}

bool
audit_id_is_valid(struct str id)
{
	size_t digits[2] = { 0, 0 }, part = 0;

	for (size_t i = 0; i < id.n; i++) {
		if (id.p[i] == '-' && !part)
			part = 1;
		else if (id.p[i] >= '0' && id.p[i] <= '9')
			digits[part]++;
		else
			return false;
	}
	return part && digits[0] && digits[0] <= 15 && digits[1] && digits[1] <= 15;
}

static void
list_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct listing *l = arg;
	unsigned n = err ? 0 : reply->count / (1 + AUDIT_FIELDS);
	struct audit_entry *entries = xcalloc(n ? n : 1, sizeof(*entries));

	for (unsigned i = 0; i < n; i++) {
		unsigned at = i * (1 + AUDIT_FIELDS);

		entries[i].id = reply_str(reply_at(reply, at));
		entries[i].at_us = time_of(entries[i].id);
		entries[i].uid = reply_int(reply_at(reply, at + 1 + AUDIT_UID), -1);
		for (unsigned f = 0; f < AUDIT_FIELDS; f++)
			entries[i].values[f] = reply_str(reply_at(reply, at + 1 + f));
	}
	l->cb(l->arg, err, entries, n);
	free(entries);
	free(l);
}

void
operate_audit_list(struct operate *o, struct str before, unsigned limit, audit_cb *cb,
		   void *arg)
{
	struct listing *l = xcalloc(1, sizeof(*l));
	struct args args = { 0 };

	l->cb = cb;
	l->arg = arg;
	args_key(&args, o);
	args_str(&args, before);
	args_uint(&args, limit);
	for (unsigned i = 0; i < AUDIT_FIELDS; i++)
		args_str(&args, names[i]);
	store_run(o->store, SCRIPT_AUDIT_LIST, 1, &args, list_on_reply, l);
	args_done(&args);
}
