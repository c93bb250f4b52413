#ifndef COORDD_CONFIG_YAML_H
#define COORDD_CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/str.h"

/*
 * A strict reader of a small YAML: one document of maps, lists and scalars in valid UTF-8.
 * Refused with the place where they stand: repeated keys, aliases, anchors, tags, keys that are
 * no plain text, a second document, tabs, NUL, a byte order mark, and what is larger than the
 * limits below (libyaml itself needs quadratic time for nesting, keeps the last of repeated
 * keys, and takes UTF-16).
 */
#define YAML_MAX_BYTES  1048576
#define YAML_MAX_DEPTH  8
#define YAML_MAX_EVENTS 10000

/* Line and column of a character, from 1; a line of 0 is no place. */
struct yaml_at {
	unsigned line, column;
};

enum yaml_kind { YAML_TEXT, YAML_NULL, YAML_LIST, YAML_MAP };

struct yaml_node {
	enum yaml_kind kind;
	bool is_plain; /* YAML_TEXT: not in quotes */
	char *key;     /* in a map; NULL elsewhere */
	char *text;    /* YAML_TEXT; holds no NUL */
	struct yaml_at at, key_at;
	struct yaml_node *parent;
	struct yaml_node *first, *last; /* what a list or map holds, in the order of the file */
	struct yaml_node *next;
};

/* `text` tells what is wrong; called once for each error. */
typedef void yaml_error_fn(void *arg, struct yaml_at at, const char *text);

/*
 * Read a document. The result is its root, to be freed with yaml_tree_free(); of an empty one a
 * YAML_NULL. NULL after an error, except a repeated key: that is told, stands in the tree as
 * often as in the file, and reading goes on.
 */
struct yaml_node *yaml_read(struct str input, yaml_error_fn *on_error, void *arg);
void yaml_tree_free(struct yaml_node *root);

/* Whether other readers of YAML take this plain scalar for something else than text: 0660,
 * 1:30, yes, null. */
bool yaml_is_not_text(const char *plain);

/* Append text as a value that every reader of YAML takes for text: in quotes where that is needed. */
void yaml_put_text(struct buf *to, const char *text);

/* Write `s` for an error to `out` (`n` bytes, at least 12): always in quotes, else as
 * log_quote(). Returns `out`. */
char *yaml_quote(char *out, size_t n, struct str s);

#endif
