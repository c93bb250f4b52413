#include "config/override.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { MATCH_MAX = 256 };

/* --- the defaults that may be overridden --------------------------------------------- */

/* "queues.defaults." of "queues.overrides". */
static void
put_prefix(struct buf *to, const struct config_option *o)
{
	buf_put(to, o->path, strcspn(o->path, "."));
	buf_puts(to, ".defaults.");
	buf_putc(to, '\0');
}

static bool
is_queues(const struct config_option *o)
{
	return o->offset == offsetof(struct config, queues.overrides);
}

/* The option of the same name in the defaults; NULL when there is none. */
static const struct config_option *
find_default(const struct config_option *o, const char *key)
{
	const struct config_option *found;
	struct buf path = { 0 };

	put_prefix(&path, o);
	path.len--;
	buf_puts(&path, key);
	buf_putc(&path, '\0');
	found = strchr(key, '.') ? NULL : option_find(path.data);
	buf_done(&path);
	return found;
}

/* The first of them, and how many there are: they stand together. */
static const struct config_option *
first_default(const struct config_option *o, unsigned *n)
{
	const struct config_option *first = NULL;
	struct buf prefix = { 0 };

	*n = 0;
	put_prefix(&prefix, o);
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		if (strncmp(config_options[i].path, prefix.data, prefix.len - 1) != 0)
			continue;
		first = first ? first : &config_options[i];
		++*n;
	}
	buf_done(&prefix);
	return first;
}

/* Where the value of an option of the defaults is in an entry. */
static void *
member_of(const struct config_option *o, const struct config_override *entry,
	  const struct config_option *option)
{
	size_t base = is_queues(o) ? offsetof(struct config, queues.defaults)
				   : offsetof(struct config, breakers.defaults);

	return (char *)entry + offsetof(struct config_override, queue) + option->offset - base;
}

static struct config_overrides *
list_of(const struct config *cfg, const struct config_option *o)
{
	return (struct config_overrides *)((char *)cfg + o->offset);
}

/* --- reading -------------------------------------------------------------------------- */

struct reading {
	const struct config_option *o;
	override_error_fn *on_error;
	void *arg;
	unsigned i; /* the entry */
	bool has_failed;
};

/* `key` "" is about the whole entry. */
static void
complain(struct reading *r, struct yaml_at at, const char *key, const char *text)
{
	char path[128], quoted[80];

	snprintf(path, sizeof(path), "%s[%u]%s%s", r->o->path, r->i, *key ? "." : "",
		 *key ? log_quote(quoted, sizeof(quoted), str_of(key)) : "");
	r->on_error(r->arg, at, path, text);
	r->has_failed = true;
}

static void
read_match(struct reading *r, struct config_override *entry, const struct yaml_node *node)
{
	const char *match = node->kind == YAML_TEXT ? node->text : "";

	if (node->kind != YAML_TEXT)
		complain(r, node->at, "match", "must be text");
	else if (!*match || strlen(match) > MATCH_MAX)
		complain(r, node->at, "match", "must have from 1 to 256 bytes");
	else if (str_has_control(str_of(match)))
		complain(r, node->at, "match", "holds control characters");
	else if (node->is_plain && yaml_is_not_text(match))
		complain(r, node->at, "match", "is no text to YAML; put it in quotes");
	else if (is_queues(r->o) && !strpbrk(match, ":*"))
		complain(r, node->at, "match",
			 "matches no queue: write TYPE:INSTANCE, as in "
			 "\"planner:*\"");
	else {
		free(entry->match); /* named twice: that is complained of elsewhere */
		entry->match = xstrdup(match);
	}
}

static void
unknown_key(struct reading *r, const struct yaml_node *node)
{
	char near[128], text[160] = "unknown key";
	struct buf prefix = { 0 };

	put_prefix(&prefix, r->o);
	if (option_suggest(prefix.data, node->key, near, sizeof(near)))
		snprintf(text, sizeof(text), "unknown key; did you mean \"%s\"?", near);
	complain(r, node->key_at, node->key, text);
	buf_done(&prefix);
}

static void
read_entry(struct reading *r, struct config_override *entry, const struct yaml_node *map)
{
	unsigned n;
	const struct config_option *first = first_default(r->o, &n);

	for (const struct yaml_node *node = map->first; node; node = node->next) {
		const struct config_option *option = find_default(r->o, node->key);
		struct errmsg why = { 0 };

		if (strcmp(node->key, "match") == 0) {
			read_match(r, entry, node);
		} else if (!option) {
			unknown_key(r, node);
		} else if (option_set_member(member_of(r->o, entry, option), option, node,
					     &why)) {
			complain(r, node->at, node->key, why.text);
		} else {
			entry->set |= (uint64_t)1 << (option - first);
		}
	}
	if (!r->has_failed && !entry->match)
		complain(r, map->at, "", "has no match");
	else if (!r->has_failed && !entry->set)
		complain(r, map->at, "", "sets nothing");
}

bool
overrides_set(struct config *cfg, const struct config_option *o, const struct yaml_node *node,
	      override_error_fn *on_error, void *arg)
{
	struct reading r = { .o = o, .on_error = on_error, .arg = arg };
	struct config_overrides list = { 0 };
	unsigned long max = strtoul(o->max, NULL, 10);
	char text[80];

	if (node->kind != YAML_LIST) {
		on_error(arg, node->at, o->path,
			 node->kind == YAML_NULL
				 ? "has no value; leave the key out for the default"
				 : "must be a list of maps");
		return false;
	}
	for (const struct yaml_node *entry = node->first; entry; entry = entry->next, r.i++) {
		if (r.i == max) {
			snprintf(text, sizeof(text), "has more than %lu entries", max);
			on_error(arg, entry->at, o->path, text);
			r.has_failed = true;
			break;
		}
		list.items = xrealloc(list.items, (r.i + 1) * sizeof(*list.items));
		list.items[list.n++] = (struct config_override){ 0 };
		if (entry->kind == YAML_MAP)
			read_entry(&r, &list.items[r.i], entry);
		else
			complain(&r, entry->at, "", "must be a map of keys");
	}
	if (r.has_failed) {
		overrides_clear(&list);
		return false;
	}
	overrides_clear(list_of(cfg, o));
	*list_of(cfg, o) = list;
	return true;
}

void
overrides_clear(struct config_overrides *list)
{
	for (unsigned i = 0; i < list->n; i++)
		free(list->items[i].match);
	free(list->items);
	*list = (struct config_overrides){ 0 };
}

void
overrides_fill(struct config *cfg, const struct config_option *o)
{
	struct config_overrides *list = list_of(cfg, o);
	unsigned n;
	const struct config_option *first = first_default(o, &n);

	for (unsigned i = 0; i < list->n; i++) {
		for (unsigned k = 0; k < n; k++) {
			const struct config_option *option = &first[k];

			if (!(list->items[i].set & (uint64_t)1 << k))
				memcpy(member_of(o, &list->items[i], option),
				       (const char *)cfg + option->offset, option_size(option));
		}
	}
}

/* --- writing -------------------------------------------------------------------------- */

void
override_put_text(struct buf *to, const struct config *cfg, const struct config_option *o,
		  unsigned i)
{
	const struct config_override *entry = &list_of(cfg, o)->items[i];
	unsigned n;
	const struct config_option *first = first_default(o, &n);

	buf_puts(to, "{match: ");
	yaml_put_text(to, entry->match);
	for (unsigned k = 0; k < n; k++) {
		if (!(entry->set & (uint64_t)1 << k))
			continue;
		buf_printf(to, ", %s: ", strrchr(first[k].path, '.') + 1);
		option_put_member(to, member_of(o, entry, &first[k]), &first[k]);
	}
	buf_putc(to, '}');
}

void
overrides_put_text(struct buf *to, const struct config *cfg, const struct config_option *o)
{
	buf_putc(to, '[');
	for (unsigned i = 0; i < list_of(cfg, o)->n; i++) {
		buf_puts(to, i ? ", " : "");
		override_put_text(to, cfg, o, i);
	}
	buf_putc(to, ']');
}
