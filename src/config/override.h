#ifndef COORDD_CONFIG_OVERRIDE_H
#define COORDD_CONFIG_OVERRIDE_H

#include "config/option.h"

/*
 * queues.overrides and breakers.overrides: lists of maps with a `match` and keys of the section's
 * defaults. Private to config/; `o` is the option of the list, of kind OVERRIDES.
 */

/* Called for each error, with the path of what is wrong: "queues.overrides[0].queue_size". */
typedef void
override_error_fn(void *arg, struct yaml_at at, const char *path, const char *text);

/* Put a list from a file into `cfg`; what it held is freed. False, and `cfg` untouched, after errors. */
bool overrides_set(struct config *cfg, const struct config_option *o,
		   const struct yaml_node *node, override_error_fn *on_error, void *arg);
void overrides_clear(struct config_overrides *list);

/* What an entry does not set is as in the defaults. */
void overrides_fill(struct config *cfg, const struct config_option *o);

/* Append the i-th entry, or all: "[{match: \"a:*\", queue_size: 5}]". */
void override_put_text(struct buf *to, const struct config *cfg, const struct config_option *o,
		       unsigned i);
void
overrides_put_text(struct buf *to, const struct config *cfg, const struct config_option *o);

#endif
