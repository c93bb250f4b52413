/* register and deregister: one call each. */
#include <stdlib.h>

#include "base/mem.h"
#include "proto/mp.h"
#include "registry/own.h"
#include "store/keys.h"

/* What the script told of the queues. */
static void
wake(const struct registry *r, const struct reply *now, const struct reply *is_due)
{
	uint64_t now_us = (uint64_t)reply_int(now, 0);

	store_saw_time(r->store, now_us);
	if (reply_int(is_due, 0) == 1)
		r->ops->on_wake(r->arg, now_us);
}

/* Register ----------------------------------------------------------------------------------------- */

struct registering {
	struct registry *registry;
	register_cb *cb;
	void *arg;
	size_t name_len;
	char name[KEY_NAME_MAX];
};

static void
register_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct registering *op = arg;
	struct registered done = {
		.incarnation = (uint64_t)reply_int(reply_at(reply, 0), 0),
		.state = reply_str(reply_at(reply, 1)),
		.ttl_us = (uint64_t)reply_int(reply_at(reply, 4), 0),
		.name = reply_str(reply_at(reply, 5)),
	};

	if (!err && reply_int(reply_at(reply, 0), 0) < 0)
		err = ERR_OVERLOADED;
	else if (!err && !done.incarnation)
		err = ERR_INTERNAL;
	if (!err) {
		agent_counts((struct str){ op->name, op->name_len })->registered[0]++;
		wake(op->registry, reply_at(reply, 2), reply_at(reply, 3));
	}
	op->cb(op->arg, err, err ? NULL : &done);
	free(op);
}

/*
 * What can be asked for as a capability: strings of a list, keys of a map whose value is neither false nor nil. Each is
 * encoded and stands between colons, so that the script finds it as a piece of text.
 */
static void
put_capability_names(struct buf *b, struct str capabilities)
{
	struct mp m = mp_of(capabilities);
	uint32_t n = 0;
	bool is_map = mp_type(&m) == MP_MAP;

	if (is_map)
		mp_read_map(&m, &n);
	else
		mp_read_array(&m, &n);
	buf_putc(b, ':');
	while (n--) {
		struct mp item = mp_of(mp_skip(&m)), value;
		bool has = true;
		struct str name;

		if (is_map) {
			value = mp_of(mp_skip(&m));
			has = !mp_read_nil(&value) && (!mp_read_bool(&value, &has) || has);
		}
		if (has && mp_read_str(&item, &name)) {
			key_put_part(b, name);
			buf_putc(b, ':');
		}
	}
}

void
registry_register(struct registry *r, struct str ns, const struct registration *what,
		  register_cb *cb, void *arg)
{
	struct registering *op = xcalloc(1, sizeof(*op));
	struct args args = { 0 };
	struct buf b = { 0 };

	op->name_len = key_name(op->name, ns, what->agent.type, what->agent.instance);
	registry_flush(r);
	op->registry = r;
	op->cb = cb;
	op->arg = arg;
	args_agent(&args, r, ns, &what->agent);
	args_uint_if(&args, what->has_resume, what->resume);
	args_uint_if(&args, what->has_ttl, what->ttl_us);
	args_str(&args, what->name);
	args_str(&args, what->status);
	args_str(&args, what->capabilities);
	args_str(&args, what->metadata);
	args_str(&args, what->state);
	put_capability_names(&b, what->capabilities);
	args_str(&args, buf_str(&b));
	args_uint(&args, r->ttl_us);
	buf_clear(&b);
	key_put_part(&b, what->agent.type);
	buf_putc(&b, ':');
	key_put_part(&b, what->agent.instance);
	args_str(&args, buf_str(&b));
	args_uint(&args, r->max_agents);
	store_run(r->store, SCRIPT_REGISTER, 1, &args, register_on_reply, op);
	args_done(&args);
	buf_done(&b);
}

/* Deregister --------------------------------------------------------------------------------------- */

struct deregistering {
	struct registry *registry;
	deregister_cb *cb;
	void *arg;
};

static void
deregister_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct deregistering *op = arg;
	int64_t done = reply_int(reply_at(reply, 0), -1);

	if (!err && done < 0)
		err = ERR_INTERNAL;
	if (!err)
		wake(op->registry, reply_at(reply, 1), reply_at(reply, 2));
	op->cb(op->arg, err, !err && done == 1);
	free(op);
}

void
registry_deregister(struct registry *r, struct str ns, const struct agent_id *agent,
		    deregister_cb *cb, void *arg)
{
	struct deregistering *op = xcalloc(1, sizeof(*op));
	struct args args = { 0 };

	registry_flush(r);
	op->registry = r;
	op->cb = cb;
	op->arg = arg;
	args_agent(&args, r, ns, agent);
	args_uint(&args, r->forget_after_us);
	store_run(r->store, SCRIPT_DEREGISTER, 1, &args, deregister_on_reply, op);
	args_done(&args);
}
