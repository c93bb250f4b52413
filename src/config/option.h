#ifndef COORDD_CONFIG_OPTION_H
#define COORDD_CONFIG_OPTION_H

#include "base/buf.h"
#include "config/config.h"
#include "config/yaml.h"

/* The rows of options.def and their values one by one; private to config/. */
enum option_kind {
	OPTION_BOOL,
	OPTION_INT,
	OPTION_SIZE,
	OPTION_DURATION,
	OPTION_FLOAT,
	OPTION_MODE,
	OPTION_TEXT,
	OPTION_SECRET,
	OPTION_URL,
	OPTION_WORD,
	OPTION_CHOICE,
	OPTION_LIST,
	OPTION_OVERRIDES /* override.h */
};

struct config_option {
	const char *path;
	size_t offset; /* of its member in struct config */
	enum option_kind kind;
	const char *otherwise, *min, *max; /* as options.def says */
	bool is_reloadable;
	const char *help;
};

enum {
	OPTION_COUNT = 0
#define OPTION(path, member, kind, otherwise, min, max, reload, help) +1
#include "config/options.def"
#undef OPTION
};

extern const struct config_option config_options[OPTION_COUNT];

/* Where the value of an option came from. */
enum origin_kind { ORIGIN_DEFAULT, ORIGIN_FILE, ORIGIN_ENVIRONMENT, ORIGIN_FLAG };
struct config_origin {
	enum origin_kind kind;
	char *name; /* the file, the variable, CONFIG_FLAGS; NULL of a default */
	struct yaml_at at;
};

/* The row of a path; NULL when there is none. */
const struct config_option *option_find(const char *path);

/* Whether options stand below "PATH." */
bool option_is_section(const char *path);

/*
 * What may have been meant by `key` below `prefix` ("", "redis.") where there is no such key:
 * the name of a neighbour, or the whole path of an option elsewhere. False when nothing comes
 * near.
 */
bool option_suggest(const char *prefix, const char *key, char *out, size_t n);

/* The option whose whole path is nearly `path`, with "_" where a dot belongs or the like; NULL when
 * none is. */
const struct config_option *option_nearest(const char *path);

/* Put a value from a file into `cfg`; what it held is freed. On error only `why` is changed. */
enum err option_set_node(struct config *cfg, const struct config_option *o,
			 const struct yaml_node *node, struct errmsg *why);
/* The same where the value is not in a config: `member` is of the type of the option. */
enum err option_set_member(void *member, const struct config_option *o,
			   const struct yaml_node *node, struct errmsg *why);
void option_put_member(struct buf *to, const void *member, const struct config_option *o);
/* Bytes of a value that is a number or a flag. */
size_t option_size(const struct config_option *o);
/* The same as option_set_node() for text without YAML's types: a flag, a default. */
enum err option_set_text(struct config *cfg, const struct config_option *o, const char *text,
			 struct errmsg *why);
/* Free what the option holds; it is all zero afterwards. */
void option_clear(struct config *cfg, const struct config_option *o);

/* Append the value as option_set_text() takes it; "***" stands for a password. */
void option_put_text(struct buf *to, const struct config *cfg, const struct config_option *o);
bool
option_is_same(const struct config *a, const struct config *b, const struct config_option *o);
/* Whether the value holds a password. */
bool option_holds_secret(const struct config *cfg, const struct config_option *o);

#endif
