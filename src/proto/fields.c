#include "proto/fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

/*
 * One decoder for all parameters, driven by fields.def. A key is looked for among the fields
 * that the method allows, which are a handful. A place is known as a chain of names on the
 * stack and becomes text (`messages[3].message.priority`) only when something is wrong there.
 */
enum kind {
	KIND_AGENT,
	KIND_MESSAGE,
	KIND_SENDS,
	KIND_AGENTS,
	KIND_TEXTS,
	KIND_MESSAGE_TYPES,
	KIND_EVENT_CLASSES,
	KIND_TEXT,
	KIND_NAME,
	KIND_ANY,
	KIND_ANY_LIST,
	KIND_ANY_MAP,
	KIND_BOOL,
	KIND_ERRORS,
	KIND_FAILURE,
	KIND_LEASE,
	KIND_OUTCOME,
	KIND_LEVEL,
	KIND_BREAKER_CONFIG,
	KIND_SECONDS,
	KIND_SECONDS_ABOVE,
	KIND_COUNT,
	KIND_WHOLE,
	KIND_FACTOR
};

static const struct field_info {
	struct str name;
	enum kind kind;
	uint32_t min, max;
	size_t offset; /* in struct params */
} fields[FIELD_COUNT] = {
#define FIELD_AS(member, name, kind, min, max) \
	{ { name, sizeof(name) - 1 }, KIND_##kind, min, max, offsetof(struct params, member) },
#define FIELD(name, kind, min, max) FIELD_AS(name, #name, kind, min, max)
#include "proto/fields.def"
#undef FIELD
#undef FIELD_AS
};

_Static_assert(FIELD_COUNT <= 64, "a set of fields is 64 bits");

const struct str message_type_names[MESSAGE_TYPES] = {
	[MESSAGE_REQUEST] = { "request", 7 },
	[MESSAGE_RESPONSE] = { "response", 8 },
	[MESSAGE_EVENT] = { "event", 5 },
};

const struct str event_class_names[EVENT_CLASSES] = {
	[EVENT_AGENT] = { "agent", 5 },
	[EVENT_BREAKER] = { "breaker", 7 },
	[EVENT_QUEUE] = { "queue", 5 },
};

const struct str breaker_setting_names[BREAKER_SETTINGS] = {
	[BREAKER_FAILURE_THRESHOLD] = { "failure_threshold", 17 },
	[BREAKER_TIMEOUT] = { "timeout_seconds", 15 },
	[BREAKER_RECOVERY_TIMEOUT] = { "recovery_timeout_seconds", 24 },
	[BREAKER_HALF_OPEN_CALLS] = { "half_open_max_calls", 19 },
	[BREAKER_SUCCESS_THRESHOLD] = { "success_threshold", 17 },
};

#define MESSAGE_TYPES_SAY "\"request\", \"response\" or \"event\""

/* How deep a payload, and the value of an unknown key of a message, may be nested. */
#define PAYLOAD_MAX_DEPTH 24

/* A place in the params: a key of `up`, or an element of it when `name` is NULL. */
struct at {
	const struct at *up;
	struct str name;
	unsigned index;
};

/* How to check, and whom to tell. */
struct check {
	const struct field_rules *rules;
	struct errmsg *why;
};

/* --- saying what is wrong ------------------------------------------------------------ */

#define SHOWN_MAX 48 /* bytes of a client's key that an error repeats */

/* A client's bytes as printable UTF-8, at most SHOWN_MAX of them. */
static void
show(char *out, size_t size, struct str s)
{
	size_t n = s.n < SHOWN_MAX ? s.n : SHOWN_MAX, to = 0;

	for (size_t i = 0; i < n && to + 5 < size;) {
		size_t len = 1; /* of the character at `i` */

		while (len < 4 && i + len < s.n && (s.p[i + len] & 0xc0) == 0x80)
			len++;
		if (s.p[i] != '"' && s.p[i] != '\\' && i + len <= n &&
		    str_is_utf8((struct str){ s.p + i, len }) &&
		    !str_has_control((struct str){ s.p + i, len })) {
			memcpy(out + to, s.p + i, len);
			to += len;
			i += len;
		} else {
			to += (size_t)snprintf(out + to, size - to, "\\x%02x",
					       (unsigned char)s.p[i++]);
		}
	}
	snprintf(out + to, size - to, "%s", n < s.n ? "..." : "");
}

static void
path_put(char *out, size_t size, const struct at *at)
{
	char shown[SHOWN_MAX * 4 + 4];
	size_t n;

	out[0] = '\0';
	if (at->up)
		path_put(out, size, at->up);
	n = strlen(out);
	if (!at->name.p) {
		snprintf(out + n, size - n, "[%u]", at->index);
	} else {
		show(shown, sizeof(shown), at->name);
		snprintf(out + n, size - n, "%s%s", n ? "." : "", shown);
	}
}

static enum err refuse(const struct check *, enum err, const struct at *, const char *fmt, ...)
	__attribute__((format(printf, 4, 5), cold));

/* "<place> <text>" */
static enum err
refuse(const struct check *check, enum err err, const struct at *at, const char *fmt, ...)
{
	char path[256], text[160];
	va_list ap;

	path_put(path, sizeof(path), at);
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return errmsg_set(check->why, err, "%s %s", path, text);
}

static __attribute__((cold)) enum err
bad(const struct check *check, const struct at *at, const char *text)
{
	return refuse(check, ERR_BAD_REQUEST, at, "%s", text);
}

/* `at` is NULL for the params themselves. */
static __attribute__((cold)) enum err
unknown_key(const struct check *check, const struct at *at, struct str key)
{
	char shown[SHOWN_MAX * 4 + 4], path[128] = "";

	show(shown, sizeof(shown), key);
	if (at)
		path_put(path, sizeof(path), at);
	return errmsg_set(check->why, ERR_BAD_REQUEST, "unknown field \"%s\"%s%s", shown,
			  at ? " in " : "", path);
}

/* --- single values ------------------------------------------------------------------- */

#define KEY_IS(key, literal) \
	((key).n == sizeof(literal) - 1 && memcmp((key).p, literal, sizeof(literal) - 1) == 0)

/* Valid UTF-8 without control characters. */
static bool
is_name(struct str s)
{
	return str_is_plain(s) || (str_is_utf8(s) && !str_has_control(s));
}

static enum err
name_read(struct mp *m, struct str *out, uint32_t max, const struct at *at,
	  const struct check *check)
{
	if (!mp_read_str(m, out) || out->n < 1 || out->n > max || !is_name(*out))
		return refuse(check, ERR_BAD_REQUEST, at,
			      "must be 1 to %u bytes of UTF-8 without control characters", max);
	return OK;
}

static enum err
text_read(struct mp *m, struct str *out, uint32_t min, uint32_t max, const struct at *at,
	  const struct check *check)
{
	if (!mp_read_str(m, out) || !str_is_utf8(*out))
		return bad(check, at, "must be a string of valid UTF-8");
	if (out->n >= min && out->n <= max)
		return OK;
	if (min)
		return refuse(check, ERR_BAD_REQUEST, at, "must be %u to %u bytes long", min,
			      max);
	return refuse(check, ERR_BAD_REQUEST, at, "must be at most %u bytes long", max);
}

/* One of `n` words; `says` lists them for the error. */
static enum err
word_read(struct mp *m, unsigned *out, const struct str *words, unsigned n, const char *says,
	  const struct at *at, const struct check *check)
{
	struct str s;

	if (mp_read_str(m, &s))
		for (unsigned i = 0; i < n; i++)
			if (str_eq(s, words[i])) {
				*out = i;
				return OK;
			}
	return refuse(check, ERR_BAD_REQUEST, at, "must be %s", says);
}

static enum err
seconds_read(struct mp *m, uint64_t *us, const struct field_info *f, const struct at *at,
	     const struct check *check)
{
	bool is_above = f->kind == KIND_SECONDS_ABOVE;
	struct mp from = *m;
	double v;

	if (mp_read_uint(m, us) && *us >= f->min + is_above && *us <= f->max) {
		*us *= 1000000;
		return OK;
	}
	*m = from;
	/* Not a number fails every comparison, so it is refused here too. */
	if (mp_read_double(m, &v) && (is_above ? v > f->min : v >= f->min) && v <= f->max) {
		*us = (uint64_t)llround(v * 1e6);
		if (is_above && *us == 0)
			*us = 1;
		return OK;
	}
	if (is_above)
		return refuse(check, ERR_BAD_REQUEST, at,
			      "must be above %u and at most %u seconds", f->min, f->max);
	return refuse(check, ERR_BAD_REQUEST, at, "must be between %u and %u seconds", f->min,
		      f->max);
}

/* A non-negative integer; a float that is one will do, some languages have no other. */
static bool
whole_read(struct mp *m, uint64_t *out)
{
	double v;

	if (mp_read_uint(m, out))
		return true;
	if (!mp_read_double(m, &v) || !(v >= 0 && v <= 9007199254740992.0) || v != floor(v))
		return false;
	*out = (uint64_t)v;
	return true;
}

static enum err
count_read(struct mp *m, uint64_t *out, const struct field_info *f, const struct at *at,
	   const struct check *check)
{
	if (!whole_read(m, out) || *out < f->min || *out > f->max)
		return refuse(check, ERR_BAD_REQUEST, at,
			      "must be an integer between %u and %u", f->min, f->max);
	return OK;
}

static enum err
factor_read(struct mp *m, double *out, const struct field_info *f, const struct at *at,
	    const struct check *check)
{
	if (!mp_read_double(m, out) || !(*out >= f->min && *out <= f->max))
		return refuse(check, ERR_BAD_REQUEST, at, "must be a number between %u and %u",
			      f->min, f->max);
	return OK;
}

/* --- AgentId ------------------------------------------------------------------------- */

static __attribute__((noinline)) enum err
agent_read_any(struct mp *m, struct agent_id *out, const struct at *at,
	       const struct check *check)
{
	bool has_type = false, has_instance = false;
	uint32_t n;

	if (!mp_read_map(m, &n))
		return bad(check, at, "must be a map {type, instance}");
	out->type = (struct str){ NULL, 0 };
	out->instance = STR("default");
	while (n--) {
		struct at here = { at, { NULL, 0 }, 0 };
		struct str *to;
		struct mp value;

		if (!mp_read_str(m, &here.name))
			return bad(check, at, "has a key that is no string");
		if (KEY_IS(here.name, "type")) {
			if (has_type)
				return bad(check, &here, "is given twice");
			has_type = true;
			to = &out->type;
		} else if (KEY_IS(here.name, "instance")) {
			if (has_instance)
				return bad(check, &here, "is given twice");
			has_instance = true;
			to = &out->instance;
		} else {
			return unknown_key(check, at, here.name);
		}
		if (mp_read_nil(m))
			continue;
		if (to == &out->instance) {
			struct str s;

			value = *m;
			if (mp_read_str(&value, &s) && !s.n) {
				*m = value;
				continue;
			}
		}
		if (name_read(m, to, 128, &here, check))
			return ERR_BAD_REQUEST;
	}
	if (!out->type.n)
		return bad(check, &(struct at){ at, STR("type"), 0 }, "is missing");
	return OK;
}

/* What nearly all clients send: type and instance, in this order, short and printable. */
static inline bool
agent_read_plain(struct mp *m, struct agent_id *out)
{
	static const char first[] = "\x82\xa4type", then[] = "\xa8instance";
	struct mp at = *m;

	if ((size_t)(at.end - at.p) < sizeof(first) - 1 ||
	    memcmp(at.p, first, sizeof(first) - 1) != 0)
		return false;
	at.p += sizeof(first) - 1;
	if (!mp_read_str(&at, &out->type) || (size_t)(at.end - at.p) < sizeof(then) - 1 ||
	    memcmp(at.p, then, sizeof(then) - 1) != 0)
		return false;
	at.p += sizeof(then) - 1;
	if (!mp_read_str(&at, &out->instance) || out->type.n - 1 >= 128 ||
	    out->instance.n - 1 >= 128 || !str_is_plain(out->type) ||
	    !str_is_plain(out->instance))
		return false;
	*m = at;
	return true;
}

static enum err
agent_read(struct mp *m, struct agent_id *out, const struct at *at, const struct check *check)
{
	return agent_read_plain(m, out) ? OK : agent_read_any(m, out, at, check);
}

/* --- AgentMessage -------------------------------------------------------------------- */

enum message_key {
	KEY_MESSAGE_ID,
	KEY_MESSAGE_TYPE,
	KEY_PAYLOAD,
	KEY_PRIORITY,
	KEY_TIMESTAMP,
	KEY_SENDER,
	KEY_RECIPIENT,
	KEY_OTHER
};

static enum message_key
message_key(struct str key)
{
	switch (key.n) {
	case 6:
		return memcmp(key.p, "sender", 6) == 0 ? KEY_SENDER : KEY_OTHER;
	case 7:
		return memcmp(key.p, "payload", 7) == 0 ? KEY_PAYLOAD : KEY_OTHER;
	case 8:
		return memcmp(key.p, "priority", 8) == 0 ? KEY_PRIORITY : KEY_OTHER;
	case 9:
		return memcmp(key.p, "timestamp", 9) == 0   ? KEY_TIMESTAMP
		       : memcmp(key.p, "recipient", 9) == 0 ? KEY_RECIPIENT
							    : KEY_OTHER;
	case 10:
		return memcmp(key.p, "message_id", 10) == 0 ? KEY_MESSAGE_ID : KEY_OTHER;
	case 12:
		return memcmp(key.p, "message_type", 12) == 0 ? KEY_MESSAGE_TYPE : KEY_OTHER;
	default:
		return KEY_OTHER;
	}
}

bool
message_knows_key(struct str key)
{
	return message_key(key) != KEY_OTHER;
}

/* Two digits at `p` and what they say; at least 100 when they are none. */
static unsigned
two_digits(const char *p)
{
	unsigned tens = (unsigned)(p[0] - '0'), ones = (unsigned)(p[1] - '0');

	return tens > 9 || ones > 9 ? 100 : tens * 10 + ones;
}

/* YYYY-MM-DD */
static bool
is_date(const char *p)
{
	static const uint8_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	unsigned century = two_digits(p), of_century = two_digits(p + 2);
	unsigned month = two_digits(p + 5), day = two_digits(p + 8);
	unsigned year = century * 100 + of_century;

	if (century > 99 || of_century > 99 || !year || month - 1 >= 12 || day < 1 ||
	    p[4] != '-' || p[7] != '-')
		return false;
	if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
		day--;
	return day <= days[month - 1];
}

/* A date, then nothing or [T ]hh:mm[:ss[.f...]][Z|+hh:mm|+hhmm]; a day that exists. */
static bool
is_timestamp(struct str s)
{
	const char *p = s.p, *end = s.p + s.n;

	if (s.n < 10 || !is_date(p))
		return false;
	if (s.n == 10)
		return true;
	if (s.n < 16 || (p[10] != 'T' && p[10] != ' ') || two_digits(p + 11) > 23 ||
	    p[13] != ':' || two_digits(p + 14) > 59)
		return false;
	p += 16;
	if (end - p >= 3 && p[0] == ':') {
		if (two_digits(p + 1) > 60)
			return false;
		p += 3;
		if (end - p >= 2 && p[0] == '.' && p[1] >= '0' && p[1] <= '9')
			for (p++; p < end && *p >= '0' && *p <= '9'; p++)
				;
	}
	if (p == end || (*p == 'Z' && p + 1 == end))
		return true;
	if ((*p != '+' && *p != '-') || end - p < 5 || two_digits(p + 1) > 23)
		return false;
	p += p[3] == ':' ? 4 : 3;
	return end - p == 2 && two_digits(p) <= 59;
}

/* Step over the next value, which every receiver must be able to decode. */
static enum err
opaque_read(struct mp *m, struct str *out, const struct at *at, const struct check *check)
{
	const uint8_t *start = m->p;
	const char *wrong = mp_skip_portable(m, PAYLOAD_MAX_DEPTH, check->rules->any_content);

	*out = (struct str){ (const char *)start, (size_t)(m->p - start) };
	return wrong ? bad(check, at, wrong) : OK;
}

/* The next value raw; of a list or a map where its kind says so. */
static enum err
any_read(struct mp *m, struct str *out, const struct field_info *f, const struct at *at,
	 const struct check *check)
{
	struct mp from = *m;
	uint32_t n;

	if (f->kind == KIND_ANY_LIST && !mp_read_array(&from, &n) && !mp_read_map(&from, &n))
		return bad(check, at, "must be a list or a map");
	if (f->kind == KIND_ANY_MAP && !mp_read_map(&from, &n))
		return bad(check, at, "must be a map");
	if (opaque_read(m, out, at, check))
		return ERR_BAD_REQUEST;
	if (out->n > f->max)
		return refuse(check, ERR_BAD_REQUEST, at,
			      "must be at most %u bytes of MessagePack", f->max);
	return OK;
}

/* One of AgentMessage's own keys, whose value is not nil. */
static enum err
message_value(struct mp *m, struct message *out, enum message_key key, const struct at *at,
	      const struct check *check)
{
	unsigned word = MESSAGE_TYPES;
	uint64_t priority;
	uint32_t n;
	struct mp map;

	switch (key) {
	case KEY_MESSAGE_ID:
		if (!mp_read_str(m, &out->id) || out->id.n < 1 || out->id.n > 128 ||
		    !str_is_utf8(out->id))
			return bad(check, at, "must be 1 to 128 bytes of UTF-8");
		return OK;
	case KEY_MESSAGE_TYPE:
		if (word_read(m, &word, message_type_names, MESSAGE_TYPES, MESSAGE_TYPES_SAY,
			      at, check))
			return ERR_BAD_REQUEST;
		out->type = (enum message_type)word;
		return OK;
	case KEY_PAYLOAD:
		map = *m;
		if (!mp_read_map(&map, &n))
			return bad(check, at, "must be a map");
		return opaque_read(m, &out->payload, at, check);
	case KEY_PRIORITY:
		if (!whole_read(m, &priority) ||
		    (priority != 1 && priority != 5 && priority != 9))
			return bad(check, at, "must be 1, 5 or 9");
		out->priority = (uint8_t)priority;
		return OK;
	case KEY_TIMESTAMP:
		if (!mp_read_str(m, &out->timestamp) || !is_timestamp(out->timestamp))
			return bad(check, at, "must be an ISO 8601 time");
		return OK;
	default: /* sender and recipient: the outer ones count */
		mp_skip(m);
		return OK;
	}
}

/*
 * A key of somebody else's. It is delivered with its value, so what is said of payloads holds
 * for both; that it is a string is AgentMessage's shape, and no setting lifts that.
 */
static enum err
message_other(struct mp *m, bool is_str, const struct at *at, const struct check *check)
{
	struct str value;

	if (!check->rules->any_content) {
		if (!is_str)
			return bad(check, at, "is a key that is no string");
		if (!str_is_utf8(at->name))
			return bad(check, at, "is a key that is no valid UTF-8");
	}
	return opaque_read(m, &value, at, check);
}

static enum err
message_read(struct mp *m, struct message *out, const struct at *at, const struct check *check)
{
	const uint8_t *start = m->p;
	unsigned seen = 0;
	uint32_t n;

	if (!mp_read_map(m, &n))
		return bad(check, at, "must be a map");
	*out = (struct message){ .type = MESSAGE_TYPES, .priority = 5, .payload = STR("\x80") };
	while (n--) {
		struct at here = { at, { NULL, 0 }, 0 };
		struct mp from = *m;
		enum message_key key;
		enum err err;

		if (!mp_read_str(m, &here.name))
			return bad(check, at, "has a key that is no string");
		key = message_key(here.name);
		if (key == KEY_OTHER) {
			out->extra++;
			err = message_other(m, mp_type(&from) == MP_STR, &here, check);
		} else if (seen & 1u << key) {
			err = bad(check, &here, "is given twice");
		} else {
			seen |= 1u << key;
			err = mp_read_nil(m) ? OK : message_value(m, out, key, &here, check);
		}
		if (err)
			return err;
	}
	if (!out->id.n)
		return bad(check, &(struct at){ at, STR("message_id"), 0 }, "is missing");
	if (out->type == MESSAGE_TYPES)
		return bad(check, &(struct at){ at, STR("message_type"), 0 }, "is missing");
	out->map = (struct str){ (const char *)start, (size_t)(m->p - start) };
	return OK;
}

/* --- lists --------------------------------------------------------------------------- */

static enum err
send_item_read(struct mp *m, struct send_item *out, const struct at *at,
	       const struct check *check)
{
	static const struct {
		struct str name;
		uint64_t field;
	} keys[] = {
		{ { "recipient", 9 }, F(recipient) },
		{ { "message", 7 }, F(message) },
		{ { "delay", 5 }, F(delay) },
		{ { "ttl", 3 }, F(ttl) },
	};
	uint64_t seen = 0, have = 0;
	uint32_t n;

	if (!mp_read_map(m, &n))
		return bad(check, at, "must be a map {recipient, message, delay, ttl}");
	out->delay = out->ttl = 0;
	while (n--) {
		struct at here = { at, { NULL, 0 }, 0 };
		uint64_t field = 0;
		enum err err = OK;

		if (!mp_read_str(m, &here.name))
			return bad(check, at, "has a key that is no string");
		for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
			if (str_eq(here.name, keys[i].name))
				field = keys[i].field;
		if (!field)
			return unknown_key(check, at, here.name);
		if (seen & field)
			return bad(check, &here, "is given twice");
		seen |= field;
		if (mp_read_nil(m))
			continue;
		have |= field;
		if (field == F(recipient))
			err = agent_read(m, &out->recipient, &here, check);
		else if (field == F(message))
			err = message_read(m, &out->message, &here, check);
		else if (field == F(delay))
			err = seconds_read(m, &out->delay, &fields[FIELD_delay], &here, check);
		else
			err = seconds_read(m, &out->ttl, &fields[FIELD_ttl], &here, check);
		if (err)
			return err;
	}
	if (!(have & F(recipient)))
		return bad(check, &(struct at){ at, STR("recipient"), 0 }, "is missing");
	if (!(have & F(message)))
		return bad(check, &(struct at){ at, STR("message"), 0 }, "is missing");
	out->has_ttl = have & F(ttl);
	return OK;
}

/* How many elements follow. */
static enum err
list_begin(struct mp *m, uint32_t *n, const struct field_info *f, const struct at *at,
	   const struct check *check)
{
	uint32_t max = f->max < check->rules->max_batch ? f->max : check->rules->max_batch;

	if (!mp_read_array(m, n))
		return bad(check, at, "must be a list");
	if (*n > max)
		return refuse(check, ERR_TOO_LARGE, at, "must have at most %u elements", max);
	if (*n < f->min)
		return bad(check, at, "must have at least one element");
	return OK;
}

/* A list of words as a set of bits. */
static enum err
words_read(struct mp *m, unsigned *out, const struct str *words, unsigned n, const char *says,
	   const struct field_info *f, const struct at *at, const struct check *check)
{
	uint32_t left;
	enum err err = list_begin(m, &left, f, at, check);

	*out = 0;
	for (uint32_t i = 0; !err && i < left; i++) {
		struct at here = { at, { NULL, 0 }, i };
		unsigned word = 0;

		err = word_read(m, &word, words, n, says, &here, check);
		*out |= 1u << word;
	}
	return err;
}

/* What is sent together is taken apart once, which is most of the work that its request makes. */
enum { MAX_SENDS = 1000 };

static enum err
list_read(struct mp *m, struct list *out, const struct field_info *f, const struct at *at,
	  const struct check *check)
{
	static struct send_item sends[MAX_SENDS];
	const uint8_t *start;
	uint32_t n;
	enum err begun = list_begin(m, &n, f, at, check);

	if (begun)
		return begun;
	start = m->p;
	for (uint32_t i = 0; i < n; i++) {
		struct at here = { at, { NULL, 0 }, i };
		struct agent_id agent;
		struct str text;
		enum err err;

		if (f->kind == KIND_SENDS)
			err = send_item_read(m, &sends[i], &here, check);
		else if (f->kind == KIND_AGENTS)
			err = agent_read(m, &agent, &here, check);
		else
			err = text_read(m, &text, 0, UINT32_MAX, &here, check);
		if (err)
			return err;
	}
	out->raw = (struct str){ (const char *)start, (size_t)(m->p - start) };
	out->n = n;
	out->sends = sends;
	return OK;
}

/* What `m` has not taken of the list's elements. */
static void
list_rest(struct list *list, const struct mp *m)
{
	list->raw = (struct str){ (const char *)m->p, (size_t)(m->end - m->p) };
}

void
list_next_agent(struct list *list, struct agent_id *out)
{
	struct mp m = mp_of(list->raw);

	agent_read(&m, out, &(struct at){ 0 }, &(struct check){ 0 });
	list_rest(list, &m);
}

struct str
list_next_text(struct list *list)
{
	struct mp m = mp_of(list->raw);
	struct str s = { NULL, 0 };

	mp_read_str(&m, &s);
	list_rest(list, &m);
	return s;
}

/* --- breakers ------------------------------------------------------------------------ */

static enum err
breaker_config_read(struct mp *m, struct breaker_config *out, const struct at *at,
		    const struct check *check)
{
	static const struct field_info ranges[BREAKER_SETTINGS] = {
		[BREAKER_FAILURE_THRESHOLD] = { .kind = KIND_COUNT, .min = 1, .max = 1000000 },
		[BREAKER_TIMEOUT] = { .kind = KIND_SECONDS_ABOVE, .max = 31536000 },
		[BREAKER_RECOVERY_TIMEOUT] = { .kind = KIND_SECONDS_ABOVE, .max = 31536000 },
		[BREAKER_HALF_OPEN_CALLS] = { .kind = KIND_COUNT, .min = 1, .max = 1000 },
		[BREAKER_SUCCESS_THRESHOLD] = { .kind = KIND_COUNT, .min = 1, .max = 1000 },
	};
	unsigned seen = 0;
	uint32_t n;

	out->have = 0;
	if (!mp_read_map(m, &n))
		return bad(check, at, "must be a map");
	while (n--) {
		struct at here = { at, { NULL, 0 }, 0 };
		unsigned i = 0;
		enum err err;

		if (!mp_read_str(m, &here.name))
			return bad(check, at, "has a key that is no string");
		while (i < BREAKER_SETTINGS && !str_eq(here.name, breaker_setting_names[i]))
			i++;
		if (i == BREAKER_SETTINGS)
			return unknown_key(check, at, here.name);
		if (seen & 1u << i)
			return bad(check, &here, "is given twice");
		seen |= 1u << i;
		if (mp_read_nil(m))
			continue;
		out->have |= 1u << i;
		if (ranges[i].kind == KIND_COUNT)
			err = count_read(m, &out->values[i], &ranges[i], &here, check);
		else
			err = seconds_read(m, &out->values[i], &ranges[i], &here, check);
		if (err)
			return err;
	}
	return OK;
}

/* --- params -------------------------------------------------------------------------- */

static enum err
level_read(struct mp *m, enum log_level *out, const struct at *at, const struct check *check)
{
	struct str levels[LOG_LEVELS];
	unsigned word = 0;
	enum err err;

	for (unsigned i = 0; i < LOG_LEVELS; i++)
		levels[i] = str_of(log_level_names[i]);
	err = word_read(m, &word, levels, LOG_LEVELS,
			"\"debug\", \"info\", \"notice\", \"warning\" or \"error\"", at, check);
	*out = (enum log_level)word;
	return err;
}

static enum err
field_read(struct mp *m, struct params *params, const struct field_info *f,
	   const struct check *check)
{
	static const struct str errors[] = { { "map", 3 }, { "pair", 4 } };
	static const struct str failures[] = { { "transient", 9 },
					       { "permanent", 9 },
					       { "timeout", 7 } };
	static const struct str leases[] = { { "timeout", 7 },
					     { "connection", 10 },
					     { "heartbeat", 9 } };
	static const struct str outcomes[] = { { "success", 7 }, { "failure", 7 } };
	const struct at at = { NULL, f->name, 0 };
	void *out = (char *)params + f->offset;
	unsigned word = 0;
	enum err err;

	switch (f->kind) {
	case KIND_AGENT:
		return agent_read(m, out, &at, check);
	case KIND_MESSAGE:
		return message_read(m, out, &at, check);
	case KIND_SENDS:
	case KIND_AGENTS:
	case KIND_TEXTS:
		return list_read(m, out, f, &at, check);
	case KIND_MESSAGE_TYPES:
		return words_read(m, out, message_type_names, MESSAGE_TYPES, MESSAGE_TYPES_SAY,
				  f, &at, check);
	case KIND_EVENT_CLASSES:
		return words_read(m, out, event_class_names, EVENT_CLASSES,
				  "\"agent\", \"breaker\" or \"queue\"", f, &at, check);
	case KIND_TEXT:
		return text_read(m, out, f->min, f->max, &at, check);
	case KIND_NAME:
		return name_read(m, out, f->max, &at, check);
	case KIND_ANY:
	case KIND_ANY_LIST:
	case KIND_ANY_MAP:
		return any_read(m, out, f, &at, check);
	case KIND_BOOL:
		return mp_read_bool(m, out) ? OK : bad(check, &at, "must be true or false");
	case KIND_ERRORS:
		err = word_read(m, &word, errors, 2, "\"map\" or \"pair\"", &at, check);
		params->errors = (enum rpc_errors)word;
		return err;
	case KIND_FAILURE:
		err = word_read(m, &word, failures, 3,
				"\"transient\", \"permanent\" or \"timeout\"", &at, check);
		params->failure = (enum failure)word;
		return err;
	case KIND_LEASE:
		err = word_read(m, &word, leases, 3,
				"\"timeout\", \"connection\" or \"heartbeat\"", &at, check);
		params->lease = (enum lease)word;
		return err;
	case KIND_OUTCOME:
		err = word_read(m, &word, outcomes, 2, "\"success\" or \"failure\"", &at,
				check);
		params->outcome = (enum outcome)word;
		return err;
	case KIND_LEVEL:
		return level_read(m, &params->level, &at, check);
	case KIND_BREAKER_CONFIG:
		return breaker_config_read(m, out, &at, check);
	case KIND_SECONDS:
	case KIND_SECONDS_ABOVE:
		return seconds_read(m, out, f, &at, check);
	case KIND_COUNT:
		return count_read(m, out, f, &at, check);
	case KIND_WHOLE:
		return whole_read(m, out) ? OK
					  : bad(check, &at, "must be an integer of at least 0");
	case KIND_FACTOR:
		return factor_read(m, out, f, &at, check);
	}
	return ERR_INTERNAL;
}

/* The field of `allowed` that `key` names, or FIELD_COUNT. */
static unsigned
field_find(uint64_t allowed, struct str key)
{
	for (; allowed; allowed &= allowed - 1) {
		unsigned i = (unsigned)__builtin_ctzll(allowed);

		if (str_eq(fields[i].name, key))
			return i;
	}
	return FIELD_COUNT;
}

enum err
params_read(struct params *params, struct str raw, uint64_t required, uint64_t optional,
	    const struct field_rules *rules, struct errmsg *why)
{
	const struct check check = { rules, why };
	uint64_t missing;
	struct mp m = mp_of(raw);
	uint32_t n = 0;

	params->have = params->nil = 0;
	if (raw.n && !mp_read_map(&m, &n))
		return errmsg_set(why, ERR_BAD_REQUEST, "params must be a map");
	while (n--) {
		struct str key;
		unsigned i;
		enum err err;

		if (!mp_read_str(&m, &key))
			return errmsg_set(why, ERR_BAD_REQUEST,
					  "params has a key that is no string");
		i = field_find(required | optional, key);
		if (i == FIELD_COUNT)
			return unknown_key(&check, NULL, key);
		if ((params->have | params->nil) & 1ull << i)
			return errmsg_set(why, ERR_BAD_REQUEST, "%s is given twice",
					  fields[i].name.p);
		if (mp_read_nil(&m)) {
			params->nil |= 1ull << i;
			continue;
		}
		params->have |= 1ull << i;
		err = field_read(&m, params, &fields[i], &check);
		if (err)
			return err;
	}
	missing = required & ~params->have;
	if (missing)
		return errmsg_set(why, ERR_BAD_REQUEST, "%s is missing",
				  fields[__builtin_ctzll(missing)].name.p);
	return OK;
}
