/*
 * list: who is registered. The script looks at so many agents in one call; it is called until there are enough.
 *
 *	registry_list(), _get(), _count()
 *	list_ask()		some of them, after the last one      <-.
 *	list_on_reply()		keep what was told; enough, or more --'
 *	list_finish()		the only exit
 */
#include <stdlib.h>

#include "base/mem.h"
#include "registry/own.h"
#include "store/keys.h"

enum { LOOK_AT = 1000, COLUMNS = 9, HEAD = 5, TEXTS = 6 };

struct row {
	struct agent_info info; /* without its texts */
	size_t ends
		[TEXTS]; /* of type, instance, name, status, capabilities, metadata, in listing.texts */
};

struct listing {
	struct registry *registry;
	struct buf prefix; /* of NAMEs */
	struct buf
		from; /* as ZRANGEBYLEX wants it: "[NAME", or "(NAME" to begin after that one */
	struct buf capability; /* as the script wants it */
	const char *alive;
	bool is_exact; /* only whose NAME is the prefix: one look is enough */
	unsigned limit, n;
	struct row *rows;
	struct buf texts;
	uint64_t known, alive_ones, late;
	agent_infos_cb *on_infos;
	agent_count_cb *on_count;
	void *arg;
};

static void
list_finish(struct listing *l, enum err err)
{
	struct agent_info *infos = NULL;
	size_t from = 0;

	if (l->on_count)
		l->on_count(l->arg, err, l->known, l->alive_ones, l->late);
	if (l->on_infos && !err && l->n)
		infos = xcalloc(l->n, sizeof(*infos));
	for (unsigned i = 0; infos && i < l->n; i++) {
		struct str texts[TEXTS];

		for (unsigned t = 0; t < TEXTS; t++) {
			size_t end = l->rows[i].ends[t];

			texts[t] = (struct str){ l->texts.data + from, end - from };
			from = end;
		}
		infos[i] = l->rows[i].info;
		infos[i].agent = (struct agent_id){ texts[0], texts[1] };
		infos[i].name = texts[2];
		infos[i].status = texts[3];
		infos[i].capabilities = texts[4];
		infos[i].metadata = texts[5];
	}
	if (l->on_infos)
		l->on_infos(l->arg, err, infos, infos ? l->n : 0);
	free(infos);
	free(l->rows);
	buf_done(&l->prefix);
	buf_done(&l->from);
	buf_done(&l->capability);
	buf_done(&l->texts);
	free(l);
}

static void
list_add(struct listing *l, const struct reply *reply, uint32_t i, uint64_t now_us)
{
	struct str name = reply_str(reply_at(reply, i)), parts[3];
	struct row row = { 0 };
	struct buf decoded = { 0 };

	if ((l->is_exact && !str_eq(name, buf_str(&l->prefix))) ||
	    !key_name_split(name, &decoded, parts)) {
		buf_done(&decoded);
		return;
	}
	row.info.incarnation = (uint64_t)reply_int(reply_at(reply, i + 1), 0);
	row.info.beat_us = (uint64_t)reply_int(reply_at(reply, i + 2), 0);
	row.info.ttl_us = (uint64_t)reply_int(reply_at(reply, i + 3), 0);
	row.info.is_alive = reply_int(reply_at(reply, i + 4), 0) == 1;
	row.info.now_us = now_us;
	for (unsigned t = 0; t < TEXTS; t++) {
		struct str s = t < 2 ? parts[1 + t] : reply_str(reply_at(reply, i + 3 + t));

		buf_put(&l->texts, s.p, s.n);
		row.ends[t] = l->texts.len;
	}
	buf_done(&decoded);
	l->rows = xrealloc(l->rows, (l->n + 1) * sizeof(*l->rows));
	l->rows[l->n++] = row;
}

static void
begin(struct listing *l, char bound, struct str name)
{
	buf_clear(&l->from);
	buf_putc(&l->from, bound);
	buf_put(&l->from, name.p, name.n);
}

static void list_ask(struct listing *l);

static void
list_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct listing *l = arg;
	struct str after = reply_str(reply_at(reply, 0));
	uint64_t now_us = (uint64_t)reply_int(reply_at(reply, 3), 0);
	bool is_full;

	if (!err && (reply->type != REPLY_ARRAY || reply->count < HEAD))
		err = ERR_INTERNAL;
	if (err) {
		list_finish(l, err);
		return;
	}
	l->known += (uint64_t)reply_int(reply_at(reply, 1), 0);
	l->alive_ones += (uint64_t)reply_int(reply_at(reply, 2), 0);
	l->late += (uint64_t)reply_int(reply_at(reply, 4), 0);
	for (uint32_t i = HEAD; i + COLUMNS <= reply->count; i += COLUMNS)
		list_add(l, reply, i, now_us);
	begin(l, '(', after);
	if (l->on_count)
		is_full = l->known >= REGISTRY_COUNTED;
	else
		is_full = l->is_exact || l->n >= l->limit ||
			  l->texts.len >= l->registry->max_frame;
	if (is_full || !after.n)
		list_finish(l, OK);
	else
		list_ask(l);
}

static void
list_ask(struct listing *l)
{
	const struct registry *r = l->registry;
	struct args args = { 0 };

	args_key(&args, r, "agents");
	args_str(&args, str_of(r->prefix));
	args_str(&args, buf_str(&l->prefix));
	args_str(&args, buf_str(&l->from));
	args_uint(&args, l->is_exact ? 1 : LOOK_AT);
	args_uint(&args, l->limit - l->n);
	args_uint(&args, r->max_frame - l->texts.len);
	args_str(&args, str_of(l->alive));
	args_str(&args, buf_str(&l->capability));
	args_uint(&args, r->late_after_us);
	store_run(r->store, SCRIPT_AGENTS, 1, &args, list_on_reply, l);
	args_done(&args);
}

static struct listing *
listing_new(struct registry *r, struct str ns, unsigned limit, void *arg)
{
	struct listing *l = xcalloc(1, sizeof(*l));

	registry_flush(r);
	l->registry = r;
	l->alive = "";
	l->limit = limit;
	l->arg = arg;
	key_put_part(&l->prefix, ns);
	buf_putc(&l->prefix, ':');
	return l;
}

/* In the order of their bytes. */
static bool
is_after(struct str a, struct str b)
{
	int order = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return order ? order > 0 : a.n > b.n;
}

void
registry_list(struct registry *r, struct str ns, const struct agent_filter *filter,
	      unsigned limit, agent_infos_cb *cb, void *arg)
{
	struct listing *l = listing_new(r, ns, limit, arg);
	char name[KEY_NAME_MAX];

	l->on_infos = cb;
	if (filter->type.n) {
		key_put_part(&l->prefix, filter->type);
		buf_putc(&l->prefix, ':');
	}
	if (filter->has_alive)
		l->alive = filter->is_alive ? "1" : "0";
	if (filter->has_capability) {
		buf_putc(&l->capability, ':');
		key_put_part(&l->capability, filter->capability);
		buf_putc(&l->capability, ':');
	}
	begin(l, '[', buf_str(&l->prefix));
	if (filter->after) {
		struct str after = { name, key_name(name, ns, filter->after->type,
						    filter->after->instance) };

		if (is_after(after, buf_str(&l->prefix)))
			begin(l, '(', after);
	}
	list_ask(l);
}

void
registry_get(struct registry *r, struct str ns, const struct agent_id *agent,
	     agent_infos_cb *cb, void *arg)
{
	struct listing *l = listing_new(r, ns, 1, arg);

	l->on_infos = cb;
	l->is_exact = true;
	key_put_part(&l->prefix, agent->type);
	buf_putc(&l->prefix, ':');
	key_put_part(&l->prefix, agent->instance);
	begin(l, '[', buf_str(&l->prefix));
	list_ask(l);
}

void
registry_count(struct registry *r, struct str ns, agent_count_cb *cb, void *arg)
{
	struct listing *l = listing_new(r, ns, 0, arg);

	l->on_count = cb;
	begin(l, '[', buf_str(&l->prefix));
	list_ask(l);
}
