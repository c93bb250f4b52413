#include "config/option.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "config/override.h"

/* Each member is of the type that option_set_*() writes for its kind. */
#define TYPE_BOOL      bool
#define TYPE_INT       unsigned
#define TYPE_SIZE      uint64_t
#define TYPE_DURATION  uint64_t
#define TYPE_FLOAT     double
#define TYPE_MODE      unsigned
#define TYPE_TEXT      char *
#define TYPE_SECRET    char *
#define TYPE_URL       char *
#define TYPE_WORD      char *
#define TYPE_CHOICE    unsigned
#define TYPE_LIST      struct config_list
#define TYPE_OVERRIDES struct config_overrides
#define OPTION(path, member, kind, otherwise, min, max, reload, help)                        \
	_Static_assert(_Generic(((struct config *)0)->member, TYPE_##kind : 1, default : 0), \
		       path);
#include "config/options.def"
#undef OPTION

#define RELOADABLE true
#define RESTART    false
const struct config_option config_options[OPTION_COUNT] = {
#define OPTION(path, member, kind, otherwise, min, max, reload, help)                        \
	{ path, offsetof(struct config, member), OPTION_##kind, otherwise, min, max, reload, \
	  help },
#include "config/options.def"
#undef OPTION
};

/* --- names --------------------------------------------------------------------- */

/* Bytes of the type of each kind. */
static const size_t sizes[] = {
	[OPTION_BOOL] = sizeof(TYPE_BOOL),     [OPTION_INT] = sizeof(TYPE_INT),
	[OPTION_SIZE] = sizeof(TYPE_SIZE),     [OPTION_DURATION] = sizeof(TYPE_DURATION),
	[OPTION_FLOAT] = sizeof(TYPE_FLOAT),   [OPTION_MODE] = sizeof(TYPE_MODE),
	[OPTION_CHOICE] = sizeof(TYPE_CHOICE), [OPTION_OVERRIDES] = 0,
};

size_t
option_size(const struct config_option *o)
{
	assert(sizes[o->kind]);
	return sizes[o->kind];
}

const struct config_option *
option_find(const char *path)
{
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		if (strcmp(config_options[i].path, path) == 0)
			return &config_options[i];
	}
	return NULL;
}

bool
option_is_section(const char *path)
{
	size_t n = strlen(path);

	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		if (strncmp(config_options[i].path, path, n) == 0 &&
		    config_options[i].path[n] == '.')
			return true;
	}
	return false;
}

static size_t
least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* How many insertions, deletions, changes and swaps of neighbours make `b` of `a`; neither is
 * long. */
static size_t
distance(const char *a, size_t an, const char *b, size_t bn)
{
	enum { LONGEST = 64 };
	size_t rows[3][LONGEST + 1], *before = rows[0], *last = rows[1], *row = rows[2], *spare;

	if (an > LONGEST || bn > LONGEST)
		return LONGEST;
	memset(before, 0, sizeof(rows[0]));
	for (size_t k = 0; k <= bn; k++)
		last[k] = k;
	for (size_t i = 1; i <= an; i++) {
		row[0] = i;
		for (size_t k = 1; k <= bn; k++) {
			row[k] = least(least(last[k], row[k - 1]) + 1,
				       last[k - 1] + (a[i - 1] != b[k - 1]));
			if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1])
				row[k] = least(row[k], before[k - 2] + 1);
		}
		spare = before;
		before = last;
		last = row;
		row = spare;
	}
	return last[bn];
}

bool
option_suggest(const char *prefix, const char *key, char *out, size_t n)
{
	size_t prefix_n = strlen(prefix), key_n = strlen(key);
	size_t best = key_n / 3 > 1 ? key_n / 3 + 1 : 2; /* not as far as this */
	struct str found = { NULL, 0 };

	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		const char *name = config_options[i].path + prefix_n;
		size_t name_n, d;

		if (strncmp(config_options[i].path, prefix, prefix_n) != 0)
			continue;
		name_n = strcspn(name, ".");
		d = distance(key, key_n, name, name_n);
		if (d < best) {
			best = d;
			found = (struct str){ name, name_n };
		}
	}
	for (unsigned i = 0; i < OPTION_COUNT && !found.n; i++) {
		const char *dot = strrchr(config_options[i].path, '.');

		if (dot && strcmp(dot + 1, key) == 0)
			found = str_of(config_options[i].path);
	}
	if (!found.n || found.n >= n)
		return false;
	memcpy(out, found.p, found.n);
	out[found.n] = 0;
	return true;
}

const struct config_option *
option_nearest(const char *path)
{
	const struct config_option *found = NULL;
	size_t best = 4; /* not as far as this */

	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		const char *other = config_options[i].path;
		size_t d = distance(path, strlen(path), other, strlen(other));

		if (d < best) {
			best = d;
			found = &config_options[i];
		}
	}
	return found;
}

/* --- numbers ------------------------------------------------------------------- */

struct unit {
	const char *name;
	uint64_t factor;
};
static const struct unit units_none[] = { { "", 1 }, { NULL, 0 } };
static const struct unit units_size[] = {
	{ "B", 1 }, { "KiB", 1 << 10 }, { "MiB", 1 << 20 }, { "GiB", 1 << 30 }, { NULL, 0 }
};
static const struct unit units_time[] = { { "ms", 1000 },       { "s", 1000000 },
					  { "m", 60000000 },    { "h", 3600000000 },
					  { "d", 86400000000 }, { NULL, 0 } };

enum reading { READ, READ_NOT, READ_OUT_OF_RANGE };

/* A whole number in decimal, without a zero before it, and one of the units. */
static enum reading
read_whole(const char *text, const struct unit *units, uint64_t *out)
{
	const char *p = text + (*text == '-');
	bool is_out = *text == '-';
	uint64_t v = 0;

	if (!isdigit((unsigned char)*p) || (*p == '0' && isdigit((unsigned char)p[1])))
		return READ_NOT;
	for (; isdigit((unsigned char)*p); p++) {
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, *p - '0', &v))
			is_out = true;
	}
	while (units->name && strcmp(units->name, p) != 0)
		units++;
	if (!units->name)
		return READ_NOT;
	if (is_out || __builtin_mul_overflow(v, units->factor, &v))
		return READ_OUT_OF_RANGE;
	*out = v;
	return READ;
}

static const struct unit *
units_of(enum option_kind kind)
{
	return kind == OPTION_SIZE       ? units_size
	       : kind == OPTION_DURATION ? units_time
					 : units_none;
}

/* Decimal, without an exponent. */
static enum reading
read_float(const char *text, double *out)
{
	const char *p = text + (*text == '-');
	size_t whole = strspn(p, "0123456789"), part;

	if (!whole || (p[0] == '0' && whole > 1))
		return READ_NOT;
	if (p[whole]) {
		part = p[whole] == '.' ? strspn(p + whole + 1, "0123456789") : 0;
		if (!part || p[whole + 1 + part])
			return READ_NOT;
	}
	if (*text == '-')
		return READ_OUT_OF_RANGE;
	*out = strtod(text, NULL);
	return READ;
}

static enum err
out_of_range(const struct config_option *o, const char *shown, struct errmsg *why)
{
	if (strcmp(o->min, o->max) == 0)
		return errmsg_set(why, ERR_BAD_REQUEST, "%s is not supported; it must be %s",
				  shown, o->min);
	return errmsg_set(why, ERR_BAD_REQUEST, "%s is out of range; it must be from %s to %s",
			  shown, o->min, o->max);
}

/* --- scalars ------------------------------------------------------------------- */

/* How the text of a value was written decides which types it may have. */
enum writing { PLAIN, QUOTED, UNTYPED };

static const char *
kind_text(enum option_kind kind)
{
	switch (kind) {
	case OPTION_BOOL:
		return "true or false";
	case OPTION_INT:
		return "a whole number in decimal";
	case OPTION_SIZE:
		return "a size; use B, KiB, MiB or GiB";
	case OPTION_DURATION:
		return "a duration; use ms, s, m, h or d";
	case OPTION_FLOAT:
		return "a decimal number";
	case OPTION_MODE:
		return "a file mode such as \"0660\"";
	case OPTION_LIST:
		return "a list";
	default:
		return "text";
	}
}

/* What `text` means to those who write yes for true. */
static const char *
bool_hint(const char *text)
{
	static const char *const yes[] = { "yes", "on", "y", "true" }, *const no[] = {
		"no", "off", "n", "false"
	};

	for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
		if (strcasecmp(text, yes[i]) == 0)
			return "; write true";
		if (strcasecmp(text, no[i]) == 0)
			return "; write false";
	}
	return "";
}

static enum err
set_bool(bool *to, const char *text, const char *shown, struct errmsg *why)
{
	bool is_true = strcmp(text, "true") == 0;

	if (!is_true && strcmp(text, "false") != 0)
		return errmsg_set(why, ERR_BAD_REQUEST, "%s is not true or false%s", shown,
				  bool_hint(text));
	*to = is_true;
	return OK;
}

static enum err
set_whole(void *to, const struct config_option *o, const char *text, const char *shown,
	  struct errmsg *why)
{
	const struct unit *units = units_of(o->kind);
	uint64_t v, min, max;
	enum reading reading = read_whole(text, units, &v);

	if (reading == READ_NOT)
		return errmsg_set(why, ERR_BAD_REQUEST, "%s is not %s", shown,
				  kind_text(o->kind));
	if (read_whole(o->min, units, &min) != READ || read_whole(o->max, units, &max) != READ)
		abort(); /* the table is ours */
	if (reading == READ_OUT_OF_RANGE || v < min || v > max)
		return out_of_range(o, shown, why);
	if (o->kind == OPTION_INT)
		*(unsigned *)to = (unsigned)v;
	else
		*(uint64_t *)to = v;
	return OK;
}

static enum err
set_float(double *to, const struct config_option *o, const char *text, const char *shown,
	  struct errmsg *why)
{
	double v;
	enum reading reading = read_float(text, &v);

	if (reading == READ_NOT)
		return errmsg_set(why, ERR_BAD_REQUEST, "%s is not %s", shown,
				  kind_text(o->kind));
	if (reading == READ_OUT_OF_RANGE || v < strtod(o->min, NULL) ||
	    v > strtod(o->max, NULL))
		return out_of_range(o, shown, why);
	*to = v;
	return OK;
}

static enum err
set_mode(unsigned *to, const char *text, const char *shown, struct errmsg *why)
{
	size_t n = strlen(text);

	if (n < 3 || n > 4 || strspn(text, "01234567") != n || (n == 4 && text[0] != '0'))
		return errmsg_set(why, ERR_BAD_REQUEST, "%s is not %s", shown,
				  kind_text(OPTION_MODE));
	*to = (unsigned)strtoul(text, NULL, 8);
	return OK;
}

static enum err
check_text(const struct config_option *o, const char *text, struct errmsg *why)
{
	bool is_entry = o->kind == OPTION_LIST; /* whose min and max count entries */
	uint64_t n = strlen(text), min = 1, max = 512;

	if (!is_entry && (read_whole(o->min, units_none, &min) != READ ||
			  read_whole(o->max, units_none, &max) != READ))
		abort(); /* the table is ours */
	if (n < min)
		return errmsg_set(why, ERR_BAD_REQUEST, "must not be empty");
	if (n > max)
		return errmsg_set(why, ERR_BAD_REQUEST, "is longer than %llu bytes",
				  (unsigned long long)max);
	if (!str_is_utf8(str_of(text)) || str_has_control(str_of(text)))
		return errmsg_set(why, ERR_BAD_REQUEST, "holds control characters");
	return OK;
}

/* The number of `text` among the choices "a|b|c"; -1 when it is none. */
static int
choice_of(const char *choices, const char *text)
{
	size_t n = strlen(text);

	for (int i = 0;; i++) {
		size_t choice_n = strcspn(choices, "|");

		if (choice_n == n && memcmp(choices, text, n) == 0)
			return i;
		if (!choices[choice_n])
			return -1;
		choices += choice_n + 1;
	}
}

static enum err
check_choice(const struct config_option *o, const char *text, const char *shown,
	     struct errmsg *why)
{
	if (choice_of(o->min, text) < 0)
		return errmsg_set(why, ERR_BAD_REQUEST, "%s is none of %s", shown, o->min);
	return OK;
}

/* Text that others would read as a number, or a number that is text. */
static enum err
check_writing(const struct config_option *o, const char *text, enum writing writing,
	      const char *shown, struct errmsg *why)
{
	bool is_number =
		o->kind == OPTION_BOOL || o->kind == OPTION_INT || o->kind == OPTION_FLOAT;
	bool is_text = o->kind == OPTION_MODE || o->kind == OPTION_TEXT ||
		       o->kind == OPTION_SECRET || o->kind == OPTION_URL ||
		       o->kind == OPTION_LIST;

	if (is_number && writing == QUOTED)
		return errmsg_set(why, ERR_BAD_REQUEST, "must be %s, without quotes",
				  kind_text(o->kind));
	if (is_text && writing == PLAIN && yaml_is_not_text(text))
		return errmsg_set(why, ERR_BAD_REQUEST,
				  "%s is no text to YAML; put it in quotes", shown);
	return OK;
}

static void
replace(char **to, const char *text)
{
	free(*to);
	*to = xstrdup(text);
}

static enum err
set_scalar(void *to, const struct config_option *o, const char *text, enum writing writing,
	   struct errmsg *why)
{
	char shown[96] = "the value";
	enum err err;

	if (o->kind != OPTION_SECRET)
		yaml_quote(shown, sizeof(shown), str_of(text));
	err = check_writing(o, text, writing, shown, why);
	if (err)
		return err;
	switch (o->kind) {
	case OPTION_BOOL:
		return set_bool(to, text, shown, why);
	case OPTION_INT:
	case OPTION_SIZE:
	case OPTION_DURATION:
		return set_whole(to, o, text, shown, why);
	case OPTION_FLOAT:
		return set_float(to, o, text, shown, why);
	case OPTION_MODE:
		return set_mode(to, text, shown, why);
	case OPTION_TEXT:
	case OPTION_SECRET:
	case OPTION_URL:
		err = check_text(o, text, why);
		if (!err)
			replace(to, text);
		return err;
	case OPTION_WORD:
		err = check_choice(o, text, shown, why);
		if (!err)
			replace(to, text);
		return err;
	case OPTION_CHOICE:
		err = check_choice(o, text, shown, why);
		if (!err)
			*(unsigned *)to = (unsigned)choice_of(o->min, text);
		return err;
	case OPTION_LIST:
	case OPTION_OVERRIDES:
		break;
	}
	return errmsg_set(why, ERR_BAD_REQUEST, "must be a list");
}

/* --- lists --------------------------------------------------------------------- */

static void
list_done(struct config_list *list)
{
	for (unsigned i = 0; i < list->n; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct config_list){ 0 };
}

static enum err
list_add(struct config_list *list, const struct config_option *o, const char *text,
	 enum writing writing, struct errmsg *why)
{
	char shown[96];
	enum err err = check_writing(o, text, writing,
				     yaml_quote(shown, sizeof(shown), str_of(text)), why);

	if (!err)
		err = check_text(o, text, why);
	if (err)
		return err;
	list->items = xrealloc(list->items, (list->n + 1) * sizeof(*list->items));
	list->items[list->n++] = xstrdup(text);
	return OK;
}

/* Put the list in force when it has as many entries as it may; it is empty afterwards in any
 * case. */
static enum err
list_take(struct config_list *to, const struct config_option *o, struct config_list *list,
	  enum err err, struct errmsg *why)
{
	struct config_list old = *to;

	if (!err &&
	    (list->n < strtoul(o->min, NULL, 10) || list->n > strtoul(o->max, NULL, 10)))
		err = errmsg_set(why, ERR_BAD_REQUEST,
				 "has %u entries; it must have from %s to %s", list->n, o->min,
				 o->max);
	if (!err) {
		*to = *list;
		*list = old;
	}
	list_done(list);
	return err;
}

static enum err
set_list(struct config_list *to, const struct config_option *o, const struct yaml_node *node,
	 struct errmsg *why)
{
	struct config_list list = { 0 };
	enum err err = OK;

	for (const struct yaml_node *entry = node->first; entry && !err; entry = entry->next) {
		if (entry->kind == YAML_TEXT)
			err = list_add(&list, o, entry->text, entry->is_plain ? PLAIN : QUOTED,
				       why);
		else
			err = errmsg_set(why, ERR_BAD_REQUEST, "entry %u is not text",
					 list.n + 1);
	}
	return list_take(to, o, &list, err, why);
}

static enum err
set_list_text(struct config_list *to, const struct config_option *o, const char *text,
	      struct errmsg *why)
{
	struct config_list list = { 0 };
	char *copy = xstrdup(text), *rest = copy, *entry;
	enum err err = OK;

	while (!err && (entry = strsep(&rest, ",")))
		err = list_add(&list, o, entry, UNTYPED, why);
	free(copy);
	return list_take(to, o, &list, err, why);
}

/* --- options ------------------------------------------------------------------- */

enum err
option_set_member(void *member, const struct config_option *o, const struct yaml_node *node,
		  struct errmsg *why)
{
	if (node->kind == YAML_NULL)
		return errmsg_set(why, ERR_BAD_REQUEST,
				  "has no value; leave the key out for the default");
	if (node->kind == YAML_LIST && o->kind == OPTION_LIST)
		return set_list(member, o, node, why);
	if (node->kind != YAML_TEXT)
		return errmsg_set(why, ERR_BAD_REQUEST, "a %s is not %s",
				  node->kind == YAML_LIST ? "list" : "map", kind_text(o->kind));
	return set_scalar(member, o, node->text, node->is_plain ? PLAIN : QUOTED, why);
}

enum err
option_set_node(struct config *cfg, const struct config_option *o, const struct yaml_node *node,
		struct errmsg *why)
{
	return option_set_member((char *)cfg + o->offset, o, node, why);
}

enum err
option_set_text(struct config *cfg, const struct config_option *o, const char *text,
		struct errmsg *why)
{
	void *member = (char *)cfg + o->offset;

	if (o->kind == OPTION_LIST)
		return set_list_text(member, o, text, why);
	return set_scalar(member, o, text, UNTYPED, why);
}

void
option_clear(struct config *cfg, const struct config_option *o)
{
	void *member = (char *)cfg + o->offset;
	char **text = member;

	switch (o->kind) {
	case OPTION_SECRET:
	case OPTION_URL:
		if (*text)
			explicit_bzero(*text, strlen(*text));
		/* fall through */
	case OPTION_TEXT:
	case OPTION_WORD:
		free(*text);
		*text = NULL;
		break;
	case OPTION_LIST:
		list_done(member);
		break;
	case OPTION_OVERRIDES:
		overrides_clear(member);
		break;
	default:
		break;
	}
}

/* --- text ---------------------------------------------------------------------- */

/* The default as the table writes it, all else in the largest unit of which it is a whole number. */
static void
put_whole(struct buf *to, const struct config_option *o, uint64_t v)
{
	const struct unit *units = units_of(o->kind), *best = units;
	uint64_t otherwise;

	if (read_whole(o->otherwise, units, &otherwise) == READ && otherwise == v) {
		buf_puts(to, o->otherwise);
		return;
	}
	for (const struct unit *u = units; u->name; u++) {
		if (v && v % u->factor == 0)
			best = u;
	}
	buf_printf(to, "%llu%s", (unsigned long long)(v / best->factor), best->name);
}

/* As short as reads back the same, with one place at least. */
static void
put_float(struct buf *to, double v)
{
	char text[400];
	int places = 1;

	do {
		snprintf(text, sizeof(text), "%.*f", places, v);
	} while (strtod(text, NULL) != v && places++ < 40);
	buf_puts(to, text);
}

/* The colon before the password of a URL, and in `end` the sign behind it; NULL without one. */
static const char *
find_password(const char *url, const char **end)
{
	const char *start = strstr(url, "://");

	start = start ? start + 3 : url;
	*end = strrchr(start, '@');
	return *end ? memchr(start, ':', (size_t)(*end - start)) : NULL;
}

/* "redis://user:***@host" */
static void
put_url(struct buf *to, const char *url)
{
	const char *end, *colon = find_password(url, &end);

	if (colon) {
		buf_put(to, url, (size_t)(colon + 1 - url));
		buf_puts(to, "***");
		url = end;
	}
	buf_puts(to, url);
}

void
option_put_member(struct buf *to, const void *member, const struct config_option *o)
{
	const struct config_list *list = member;
	const char *text = o->min;

	switch (o->kind) {
	case OPTION_BOOL:
		buf_puts(to, *(const bool *)member ? "true" : "false");
		break;
	case OPTION_INT:
		put_whole(to, o, *(const unsigned *)member);
		break;
	case OPTION_SIZE:
	case OPTION_DURATION:
		put_whole(to, o, *(const uint64_t *)member);
		break;
	case OPTION_FLOAT:
		put_float(to, *(const double *)member);
		break;
	case OPTION_MODE:
		buf_printf(to, "%04o", *(const unsigned *)member);
		break;
	case OPTION_SECRET:
		buf_puts(to, **(char *const *)member ? "***" : "");
		break;
	case OPTION_URL:
		put_url(to, *(char *const *)member);
		break;
	case OPTION_TEXT:
	case OPTION_WORD:
		buf_puts(to, *(char *const *)member);
		break;
	case OPTION_CHOICE:
		for (unsigned n = *(const unsigned *)member; n; n--)
			text += strcspn(text, "|") + 1;
		buf_put(to, text, strcspn(text, "|"));
		break;
	case OPTION_LIST:
		for (unsigned i = 0; i < list->n; i++) {
			buf_puts(to, i ? "," : "");
			buf_puts(to, list->items[i]);
		}
		break;
	case OPTION_OVERRIDES:
		break;
	}
}

void
option_put_text(struct buf *to, const struct config *cfg, const struct config_option *o)
{
	if (o->kind == OPTION_OVERRIDES)
		overrides_put_text(to, cfg, o);
	else
		option_put_member(to, (const char *)cfg + o->offset, o);
}

bool
option_holds_secret(const struct config *cfg, const struct config_option *o)
{
	char *const *text = (char *const *)((const char *)cfg + o->offset);
	const char *end;

	if (o->kind == OPTION_URL)
		return find_password(*text, &end) != NULL;
	return o->kind == OPTION_SECRET && **text;
}

static bool
is_same_text(const struct config *a, const struct config *b, const struct config_option *o)
{
	struct buf x = { 0 }, y = { 0 };
	bool is_same;

	option_put_text(&x, a, o);
	option_put_text(&y, b, o);
	is_same = str_eq(buf_str(&x), buf_str(&y));
	buf_done(&x);
	buf_done(&y);
	return is_same;
}

static bool
is_same_list(const struct config_list *a, const struct config_list *b)
{
	if (a->n != b->n)
		return false;
	for (unsigned i = 0; i < a->n; i++) {
		if (strcmp(a->items[i], b->items[i]) != 0)
			return false;
	}
	return true;
}

bool
option_is_same(const struct config *a, const struct config *b, const struct config_option *o)
{
	const void *x = (const char *)a + o->offset, *y = (const char *)b + o->offset;

	switch (o->kind) {
	case OPTION_BOOL:
		return *(const bool *)x == *(const bool *)y;
	case OPTION_INT:
	case OPTION_MODE:
	case OPTION_CHOICE:
		return *(const unsigned *)x == *(const unsigned *)y;
	case OPTION_SIZE:
	case OPTION_DURATION:
		return *(const uint64_t *)x == *(const uint64_t *)y;
	case OPTION_FLOAT:
		return *(const double *)x == *(const double *)y;
	case OPTION_TEXT:
	case OPTION_SECRET:
	case OPTION_URL:
	case OPTION_WORD:
		return strcmp(*(char *const *)x, *(char *const *)y) == 0;
	case OPTION_LIST:
		return is_same_list(x, y);
	case OPTION_OVERRIDES:
		return is_same_text(a, b, o);
	}
	return false;
}
