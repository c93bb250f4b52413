#include "config/yaml.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"

/*
 * One pass over libyaml's events builds a tree. `open` is the list or map that is being filled,
 * `key` the key in it that waits for its value. An error that is not about a single key ends
 * the pass: what follows is guesswork.
 */
struct reader {
	yaml_parser_t parser;
	yaml_error_fn *on_error;
	void *arg;
	struct yaml_node *root, *open;
	char *key;
	struct yaml_at key_at;
	unsigned depth, documents, events;
	bool has_failed;
};

static struct yaml_at
at_mark(yaml_mark_t mark)
{
	return (struct yaml_at){ (unsigned)mark.line + 1, (unsigned)mark.column + 1 };
}

static void
fail(struct reader *r, struct yaml_at at, const char *text)
{
	r->on_error(r->arg, at, text);
	r->has_failed = true;
}

/* --- bytes --------------------------------------------------------------------- */

static struct yaml_at
at_byte(struct str input, size_t offset)
{
	struct yaml_at at = { 1, 1 };

	for (size_t i = 0; i < offset; i++) {
		if (input.p[i] == '\n') {
			at.line++;
			at.column = 1;
		} else if ((input.p[i] & 0xc0) != 0x80) {
			at.column++;
		}
	}
	return at;
}

/* Where the first byte stands that is no UTF-8: a prefix up to there is valid, one more is not.
 */
static size_t
utf8_prefix(struct str input)
{
	size_t i = 0;

	while (i < input.n) {
		size_t len = 1;

		while (len <= 4 && i + len <= input.n &&
		       !str_is_utf8((struct str){ input.p + i, len }))
			len++;
		if (len > 4 || i + len > input.n)
			break;
		i += len;
	}
	return i;
}

static void
check_bytes(struct reader *r, struct str input)
{
	static const struct {
		char byte;
		const char *text;
	} banned[] = { { '\0', "a NUL byte" }, { '\t', "a tab; use blanks" } };
	size_t valid;

	if (input.n > YAML_MAX_BYTES) {
		fail(r, (struct yaml_at){ 0, 0 }, "larger than 1 MiB");
		return;
	}
	if (input.n >= 3 && memcmp(input.p, "\xef\xbb\xbf", 3) == 0) {
		fail(r, (struct yaml_at){ 1, 1 }, "begins with a byte order mark; remove it");
		return;
	}
	valid = utf8_prefix(input);
	if (valid < input.n) {
		fail(r, at_byte(input, valid), "not UTF-8");
		return;
	}
	for (size_t i = 0; i < sizeof(banned) / sizeof(banned[0]); i++) {
		const char *found = input.n ? memchr(input.p, banned[i].byte, input.n) : NULL;

		if (found) {
			fail(r, at_byte(input, (size_t)(found - input.p)), banned[i].text);
			return;
		}
	}
}

/* --- the tree ------------------------------------------------------------------ */

void
yaml_tree_free(struct yaml_node *root)
{
	struct yaml_node *child, *next;

	if (!root)
		return;
	for (child = root->first; child; child = next) { /* no deeper than YAML_MAX_DEPTH */
		next = child->next;
		yaml_tree_free(child);
	}
	free(root->key);
	free(root->text);
	free(root);
}

/* "redis.embedded." for what stands in that map. */
static void
put_prefix(struct buf *b, const struct yaml_node *map)
{
	if (!map)
		return;
	put_prefix(b, map->parent);
	if (map->key) {
		buf_puts(b, map->key);
		buf_putc(b, '.');
	}
}

/* Tell when the key that was just read stands in the open map already. */
static void
check_duplicate(struct reader *r)
{
	const struct yaml_node *n = r->open->first;
	struct buf name = { 0 };
	char text[256], quoted[192];

	while (n && strcmp(n->key, r->key))
		n = n->next;
	if (!n)
		return;
	put_prefix(&name, r->open);
	buf_puts(&name, r->key);
	snprintf(text, sizeof(text), "duplicate key %s (first on line %u)",
		 yaml_quote(quoted, sizeof(quoted), buf_str(&name)), n->key_at.line);
	r->on_error(r->arg, r->key_at, text);
	buf_done(&name);
}

static struct yaml_node *
tree_add(struct reader *r, enum yaml_kind kind, yaml_mark_t mark)
{
	struct yaml_node *node = xcalloc(1, sizeof(*node)), *parent = r->open;

	node->kind = kind;
	node->at = at_mark(mark);
	node->parent = parent;
	if (!parent) {
		r->root = node;
		return node;
	}
	if (parent->kind == YAML_MAP) {
		node->key = r->key;
		node->key_at = r->key_at;
		r->key = NULL;
	}
	if (parent->last)
		parent->last->next = node;
	else
		parent->first = node;
	parent->last = node;
	return node;
}

/* --- events -------------------------------------------------------------------- */

static bool
is_null(const char *plain)
{
	return !*plain || !strcmp(plain, "~") || !strcmp(plain, "null") ||
	       !strcmp(plain, "Null") || !strcmp(plain, "NULL");
}

static void
on_scalar(struct reader *r, const yaml_event_t *event)
{
	const char *text = (const char *)event->data.scalar.value;
	bool is_plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	struct yaml_node *node;

	if (strlen(text) != event->data.scalar.length) {
		fail(r, at_mark(event->start_mark), "a NUL character");
	} else if (r->open && r->open->kind == YAML_MAP && !r->key) {
		r->key = xstrdup(text);
		r->key_at = at_mark(event->start_mark);
		check_duplicate(r);
	} else if (is_plain && is_null(text)) {
		tree_add(r, YAML_NULL, event->start_mark);
	} else {
		node = tree_add(r, YAML_TEXT, event->start_mark);
		node->is_plain = is_plain;
		node->text = xstrdup(text);
	}
}

static void
on_start(struct reader *r, enum yaml_kind kind, const yaml_event_t *event)
{
	if (r->open && r->open->kind == YAML_MAP && !r->key) {
		fail(r, at_mark(event->start_mark), "a key must be a word");
	} else if (++r->depth > YAML_MAX_DEPTH) {
		fail(r, at_mark(event->start_mark), "nested deeper than 8");
	} else {
		r->open = tree_add(r, kind, event->start_mark);
	}
}

static void
on_end(struct reader *r)
{
	r->depth--;
	r->open = r->open->parent;
}

/* What an event may carry that has no place in a configuration. */
static void
check_properties(struct reader *r, const yaml_event_t *event)
{
	const yaml_char_t *anchor = NULL, *tag = NULL;

	if (event->type == YAML_SCALAR_EVENT) {
		anchor = event->data.scalar.anchor;
		tag = event->data.scalar.tag;
	} else if (event->type == YAML_SEQUENCE_START_EVENT) {
		anchor = event->data.sequence_start.anchor;
		tag = event->data.sequence_start.tag;
	} else if (event->type == YAML_MAPPING_START_EVENT) {
		anchor = event->data.mapping_start.anchor;
		tag = event->data.mapping_start.tag;
	}
	if (event->type == YAML_ALIAS_EVENT)
		fail(r, at_mark(event->start_mark),
		     "an alias (*); write the value itself, or put text in quotes");
	else if (event->type == YAML_DOCUMENT_START_EVENT && r->documents++)
		fail(r, at_mark(event->start_mark), "a second document; only one is read");
	else if (anchor)
		fail(r, at_mark(event->start_mark),
		     "an anchor (&); write the value where it is meant");
	else if (tag)
		fail(r, at_mark(event->start_mark), "a tag (!); the type follows from the key");
	else if (++r->events > YAML_MAX_EVENTS)
		fail(r, at_mark(event->start_mark), "more than 10000 parts");
}

static void
on_event(struct reader *r, const yaml_event_t *event)
{
	check_properties(r, event);
	if (r->has_failed)
		return;
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		on_scalar(r, event);
		break;
	case YAML_SEQUENCE_START_EVENT:
		on_start(r, YAML_LIST, event);
		break;
	case YAML_MAPPING_START_EVENT:
		on_start(r, YAML_MAP, event);
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		on_end(r);
		break;
	default:
		break;
	}
}

static void
tell_parser_error(struct reader *r, struct str input)
{
	const yaml_parser_t *p = &r->parser;
	char text[256];

	snprintf(text, sizeof(text), "no valid YAML: %s%s%s", p->context ? p->context : "",
		 p->context ? ": " : "", p->problem ? p->problem : "out of memory");
	if (p->error == YAML_READER_ERROR)
		fail(r,
		     at_byte(input, p->problem_offset < input.n ? p->problem_offset : input.n),
		     text);
	else
		fail(r, at_mark(p->problem_mark), text);
}

static void
read_events(struct reader *r, struct str input)
{
	yaml_event_t event;
	bool at_end = false;

	if (!yaml_parser_initialize(&r->parser)) {
		fail(r, (struct yaml_at){ 0, 0 }, "out of memory");
		return;
	}
	yaml_parser_set_input_string(&r->parser,
				     (const unsigned char *)(input.n ? input.p : ""), input.n);
	yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
	while (!at_end && !r->has_failed) {
		if (!yaml_parser_parse(&r->parser, &event)) {
			tell_parser_error(r, input);
			break;
		}
		on_event(r, &event);
		at_end = event.type == YAML_STREAM_END_EVENT;
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&r->parser);
}

struct yaml_node *
yaml_read(struct str input, yaml_error_fn *on_error, void *arg)
{
	struct reader r = { .on_error = on_error, .arg = arg };

	check_bytes(&r, input);
	if (!r.has_failed)
		read_events(&r, input);
	free(r.key);
	if (r.has_failed) {
		yaml_tree_free(r.root);
		return NULL;
	}
	if (!r.root) {
		r.root = xcalloc(1, sizeof(*r.root));
		r.root->kind = YAML_NULL;
	}
	return r.root;
}

/* --- text ---------------------------------------------------------------------- */

bool
yaml_is_not_text(const char *plain)
{
	/* YAML 1.1, which most readers follow more or less: yaml.org/type. */
	static const char pattern[] =
		"^(~|null|Null|NULL|[yYnN]|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF"
		"|true|True|TRUE|false|False|FALSE"
		"|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])*(\\.[0-9_]*)?([eE][-+]?[0-9]+)?"
		"|[-+]?\\.[0-9_]+([eE][-+]?[0-9]+)?"
		"|[-+]?0[bo][0-7_]+|[-+]?0x[0-9a-fA-F_]+"
		"|[-+]?\\.(inf|Inf|INF)|\\.(nan|NaN|NAN)"
		"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?)?$";
	regex_t regex;
	bool matches;

	if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB))
		abort(); /* the pattern is ours */
	matches = regexec(&regex, plain, 0, NULL, 0) == 0;
	regfree(&regex);
	return matches;
}

void
yaml_put_text(struct buf *to, const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_./:-";

	if (!text[strspn(text, plain)] && *text != '-' && *text != ':' &&
	    text[strlen(text) - (*text != 0)] != ':' && !yaml_is_not_text(text)) {
		buf_puts(to, text);
		return;
	}
	buf_putc(to, '"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			buf_putc(to, '\\');
		buf_putc(to, *text);
	}
	buf_putc(to, '"');
}

char *
yaml_quote(char *out, size_t n, struct str s)
{
	size_t len;

	log_quote(out + 1, n - 2, s);
	len = strlen(out + 1);
	if (out[1] == '"') {
		memmove(out, out + 1, len + 1);
	} else {
		out[0] = out[len + 1] = '"';
		out[len + 2] = '\0';
	}
	return out;
}
