#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "registry/own.h"
#include "store/keys.h"

struct agent_counts *
agent_counts(struct str name)
{
	const char *end = memrchr(name.p, ':', name.n);

	return stat_find_agents((struct str){ name.p, end ? (size_t)(end - name.p) : name.n });
}

void
args_key(struct args *args, const struct registry *registry, const char *name)
{
	struct buf key = { 0 };

	buf_printf(&key, "%s:%s", registry->prefix, name);
	args_str(args, buf_str(&key));
	buf_done(&key);
}

void
args_uint_if(struct args *args, bool is_given, uint64_t v)
{
	if (is_given)
		args_uint(args, v);
	else
		args_str(args, STR(""));
}

void
args_agent(struct args *args, const struct registry *registry, struct str ns,
	   const struct agent_id *agent)
{
	char name[KEY_NAME_MAX];
	struct str whole = { name, key_name(name, ns, agent->type, agent->instance) };
	struct buf b = { 0 };

	buf_printf(&b, "%s:a:", registry->prefix);
	buf_put(&b, whole.p, whole.n);
	args_str(args, buf_str(&b));
	args_str(args, str_of(registry->prefix));
	buf_clear(&b);
	key_put_part(&b, ns);
	args_str(args, buf_str(&b));
	args_str(args, whole);
	buf_done(&b);
}

struct registry *
registry_new(struct loop *loop, struct store *store, const struct registry_config *config,
	     const struct registry_ops *ops, void *arg)
{
	struct registry *r = xcalloc(1, sizeof(*r));

	r->loop = loop;
	r->store = store;
	r->prefix = xstrdup(config->key_prefix);
	registry_set_config(r, config);
	r->ops = ops;
	r->arg = arg;
	heartbeats_init(r);
	return r;
}

void
registry_set_config(struct registry *r, const struct registry_config *config)
{
	r->ttl_us = config->ttl_us;
	r->forget_after_us = config->forget_after_us;
	r->late_after_us = config->late_after_us;
	r->max_agents = config->max_agents;
	r->max_frame = config->max_frame;
}

void
registry_free(struct registry *r)
{
	if (!r)
		return;
	heartbeats_done(r);
	free(r->prefix);
	free(r);
}
