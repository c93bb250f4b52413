/* The object itself, and which namespaces there are. */
#include <stdlib.h>

#include "base/mem.h"
#include "operate/own.h"
#include "store/keys.h"

enum { NAMESPACES_STEP = 100, NAMESPACE_WORDS = 4 };

struct operate *
operate_new(struct store *store, const char *key_prefix)
{
	struct operate *o = xcalloc(1, sizeof(*o));

	o->store = store;
	o->prefix = xstrdup(key_prefix);
	return o;
}

void
operate_free(struct operate *o)
{
	if (!o)
		return;
	free(o->prefix);
	free(o);
}

/*
 *	operate_namespaces()	ask for a hundred <-.
 *	namespaces_on_reply()	enough, or the next --'
 */
struct listing {
	struct operate *operate;
	struct buf after; /* encoded */
	struct buf names; /* decoded, one after the other */
	size_t *ends;     /* where each ends in `names` */
	struct namespace_info *infos;
	unsigned n, limit;
	bool is_one;
	namespaces_cb *cb;
	void *arg;
};

static void
namespaces_finish(struct listing *l, enum err err)
{
	size_t from = 0;

	for (unsigned i = 0; i < l->n; i++) {
		l->infos[i].name = (struct str){ l->names.data + from, l->ends[i] - from };
		from = l->ends[i];
	}
	l->cb(l->arg, err, l->infos, err ? 0 : l->n);
	buf_done(&l->after);
	buf_done(&l->names);
	free(l->ends);
	free(l->infos);
	free(l);
}

static void namespaces_step(struct listing *l);

static void
namespaces_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct listing *l = arg;
	unsigned found = err ? 0 : reply->count / NAMESPACE_WORDS;

	for (unsigned i = 0; i < found && l->n < l->limit; i++) {
		struct namespace_info *info = &l->infos[l->n];
		struct str name = reply_str(reply_at(reply, NAMESPACE_WORDS * i));

		info->queues = (uint64_t)reply_int(reply_at(reply, NAMESPACE_WORDS * i + 1), 0);
		info->agents = (uint64_t)reply_int(reply_at(reply, NAMESPACE_WORDS * i + 2), 0);
		info->breakers =
			(uint64_t)reply_int(reply_at(reply, NAMESPACE_WORDS * i + 3), 0);
		buf_clear(&l->after);
		buf_put(&l->after, name.p, name.n);
		if (!key_part_decode(&l->names, name))
			err = ERR_INTERNAL; /* no name of ours */
		l->ends[l->n++] = l->names.len;
	}
	if (err || found < NAMESPACES_STEP || l->n == l->limit)
		namespaces_finish(l, err);
	else
		namespaces_step(l);
}

static void
namespaces_step(struct listing *l)
{
	unsigned left = l->is_one ? 0 : l->limit - l->n;
	struct args args = { 0 };

	args_str(&args, str_of(l->operate->prefix));
	args_str(&args, buf_str(&l->after));
	args_uint(&args, left < NAMESPACES_STEP ? left : NAMESPACES_STEP);
	store_run(l->operate->store, SCRIPT_NAMESPACES, 0, &args, namespaces_on_reply, l);
	args_done(&args);
}

static void
namespaces_begin(struct operate *o, struct str name, unsigned limit, bool is_one,
		 namespaces_cb *cb, void *arg)
{
	struct listing *l = xcalloc(1, sizeof(*l));

	l->operate = o;
	l->limit = limit;
	l->is_one = is_one;
	l->infos = xcalloc(limit, sizeof(*l->infos));
	l->ends = xcalloc(limit, sizeof(*l->ends));
	l->cb = cb;
	l->arg = arg;
	key_put_part(&l->after, name);
	namespaces_step(l);
}

void
operate_namespaces(struct operate *o, struct str after, unsigned limit, namespaces_cb *cb,
		   void *arg)
{
	namespaces_begin(o, after, limit, false, cb, arg);
}

void
operate_namespace(struct operate *o, struct str ns, namespaces_cb *cb, void *arg)
{
	namespaces_begin(o, ns, 1, true, cb, arg);
}
