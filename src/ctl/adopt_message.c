/*
 * adopt: what a member of an old key says. {message, priority, enqueued_at, delivery_attempts, last_error} becomes the AgentMessage that
 * is sent, and the broker's own rules (proto/fields.h) judge it before it leaves: a batch with a bad element would be refused whole.
 *
 * What a queue needs (ids, type, payload, priority) must be right, or the message is damaged. The rest is history: what is wrong there
 * is left out and noted.
 */
#include <openssl/sha.h>
#include <stdio.h>

#include "ctl/adopt.h"
#include "proto/mp.h"

/* Sent with the message under the key "adopted": what the counters of its new queue do not know. */
static const char *const from_names[PARTS] = { "reserved", "sched", "sched",
					       "sched",    "dlq",   "queue" };

struct envelope {
	struct str message, priority, enqueued_at, delivery_attempts,
		last_error; /* raw; n 0: absent or null */
};

/* --- reading ------------------------------------------------------------------- */

static bool
wrong(char *why, size_t size, const char *what)
{
	snprintf(why, size, "%s", what);
	return false;
}

/* The next key of a map and its raw value, of which n is 0 when it is null. */
static struct str
member(struct mp *m, struct str *value)
{
	struct str key = STR("");

	mp_read_str(m, &key);
	if (mp_read_nil(m))
		*value = STR("");
	else
		*value = mp_skip(m);
	return key;
}

static bool
envelope_read(struct envelope *e, struct str raw)
{
	const struct {
		struct str key;
		struct str *value;
	} known[] = {
		{ STR("message"), &e->message },
		{ STR("priority"), &e->priority },
		{ STR("enqueued_at"), &e->enqueued_at },
		{ STR("delivery_attempts"), &e->delivery_attempts },
		{ STR("last_error"), &e->last_error },
	};
	struct mp m = mp_of(raw);
	uint32_t n;

	if (mp_type(&m) != MP_MAP || !mp_read_map(&m, &n))
		return false;
	*e = (struct envelope){ 0 };
	while (n--) {
		struct str value, key = member(&m, &value);

		for (size_t i = 0; i < COUNT_OF(known); i++) {
			if (str_eq(key, known[i].key))
				*known[i].value = value;
		}
	}
	return true;
}

static bool
text_read(struct str raw, struct str *out)
{
	struct mp m = mp_of(raw);

	return raw.n && mp_type(&m) == MP_STR && mp_read_str(&m, out);
}

/* {type, instance}; other keys are of no interest. */
static bool
agent_read(struct str raw, struct agent_id *agent)
{
	struct mp m = mp_of(raw);
	uint32_t n;

	*agent = (struct agent_id){ STR(""), STR("default") };
	if (!raw.n || mp_type(&m) != MP_MAP || !mp_read_map(&m, &n))
		return false;
	while (n--) {
		struct str value, key = member(&m, &value);

		if (str_eq(key, STR("type")) && !text_read(value, &agent->type))
			return false;
		if (str_eq(key, STR("instance")) && value.n &&
		    !text_read(value, &agent->instance))
			return false;
	}
	if (!agent->instance.n)
		agent->instance = STR("default");
	return agent->type.n > 0;
}

/* --- whose queue it is --------------------------------------------------------- */

static bool
is_joined(const struct agent_id *agent, struct str rest)
{
	size_t n = agent->type.n;

	return rest.n == n + 1 + agent->instance.n && !memcmp(rest.p, agent->type.p, n) &&
	       rest.p[n] == ':' &&
	       !memcmp(rest.p + n + 1, agent->instance.p, agent->instance.n);
}

bool
adopt_agent(const struct adopt *a, struct str rest, struct agent_id *agent)
{
	const char *colon = memchr(rest.p, ':', rest.n);
	const json_t *known;

	if (!colon)
		return false;
	if (!memchr(colon + 1, ':', rest.n - (size_t)(colon + 1 - rest.p))) {
		agent->type = (struct str){ rest.p, (size_t)(colon - rest.p) };
		agent->instance = (struct str){ colon + 1, rest.n - agent->type.n - 1 };
		return true;
	}
	known = json_object_get(a->agents, rest.p); /* terminated, as all names of keys here */
	agent->type = json_str_at(known, "type");
	agent->instance = json_str_at(known, "instance");
	return known != NULL;
}

/* The recipient that the message names, where its key does not say it alone. */
static bool
recipient_of(const struct adopt *a, const struct old_queue *q, struct str raw,
	     struct old_message *m, char *why, size_t size)
{
	struct agent_id named;
	bool is_named = agent_read(raw, &named);

	if (raw.n && !is_named)
		return wrong(why, size, "message.recipient is no {type, instance}");
	if (is_named && is_joined(&named, q->name)) {
		m->recipient = named;
		return true;
	}
	if (!adopt_agent(a, q->name, &m->recipient))
		return wrong(
			why, size,
			is_named
				? "message.recipient is another than the key names, which has "
				  "more than one colon: whose it is cannot be told"
				: "message.recipient is missing, and the key has more than one "
				  "colon: whose it is cannot be told");
	if (is_named)
		snprintf(
			m->note, sizeof(m->note),
			"copied to the queue of its key, though message.recipient is %.*s:%.*s",
			(int)named.type.n, named.type.p, (int)named.instance.n,
			named.instance.p);
	return true;
}

/* --- its priority -------------------------------------------------------------- */

static bool
priority_of(enum part part, struct str outer, struct str inner, uint64_t *priority,
	    struct old_message *m, char *why, size_t size)
{
	static const uint64_t of_key[PARTS] = {
		[PART_HIGH] = 9, [PART_NORMAL] = 5, [PART_LOW] = 1
	};
	struct mp p = mp_of(outer.n ? outer : inner);

	*priority =
		part == PART_HIGH || part == PART_NORMAL || part == PART_LOW ? of_key[part] : 5;
	if (!outer.n && !inner.n)
		return true;
	if (!mp_read_uint(&p, priority) || (*priority != 1 && *priority != 5 && *priority != 9))
		return wrong(why, size, "priority must be 1, 5 or 9");
	if (of_key[part] && *priority != of_key[part]) {
		snprintf(m->note, sizeof(m->note),
			 "copied with priority %d, that of its key, though its own is %d",
			 (int)of_key[part], (int)*priority);
		*priority = of_key[part];
	}
	return true;
}

/* --- packing ------------------------------------------------------------------- */

static void
put_agent(struct buf *b, const struct agent_id *agent)
{
	mp_put_map(b, 2);
	mp_put_lit(b, "type");
	mp_put_str(b, agent->type);
	mp_put_lit(b, "instance");
	mp_put_str(b, agent->instance);
}

/* One of what is only history: put when it is of the type that belongs there. */
static void
put_history(struct buf *b, const char *key, struct str raw, enum mp_type type, uint32_t *n,
	    struct old_message *m)
{
	struct mp p = mp_of(raw);
	uint64_t count;

	if (!raw.n)
		return;
	if (type == MP_INT ? !mp_read_uint(&p, &count) : mp_type(&p) != type) {
		snprintf(m->note, sizeof(m->note), "%s is ill-formed and left out", key);
		return;
	}
	mp_put_str(b, str_of(key));
	mp_put_raw(b, raw);
	(*n)++;
}

static void
put_adopted(struct buf *b, const struct envelope *e, enum part part, struct old_message *m)
{
	struct buf members = { 0 };
	char hex[2 * sizeof(m->mark.bytes) + 1];
	uint32_t n = 2;

	for (size_t i = 0; i < sizeof(m->mark.bytes); i++)
		snprintf(hex + 2 * i, 3, "%02x", m->mark.bytes[i]);
	mp_put_lit(&members, "from");
	mp_put_str(&members, str_of(from_names[part]));
	put_history(&members, "enqueued_at", e->enqueued_at, MP_STR, &n, m);
	put_history(&members, "delivery_attempts", e->delivery_attempts, MP_INT, &n, m);
	put_history(&members, "last_error", e->last_error, MP_STR, &n, m);
	mp_put_lit(&members, "mark");
	mp_put_str(&members, str_of(hex));
	mp_put_map(b, n);
	mp_put_raw(b, buf_str(&members));
	buf_done(&members);
}

/* The AgentMessage. Payload and other keys go in as they are. */
static void
put_message(struct buf *b, struct str raw, const struct envelope *e, enum part part,
	    uint64_t priority, bool with_timestamp, struct old_message *m)
{
	struct buf members = { 0 };
	struct mp from = mp_of(raw);
	uint32_t n = 0, out = 2;

	mp_read_map(&from, &n);
	while (n--) {
		struct str value, key = member(&from, &value);

		if (str_eq(key, STR("sender")) || str_eq(key, STR("recipient")) ||
		    str_eq(key, STR("priority")) || str_eq(key, STR("adopted")) ||
		    (str_eq(key, STR("timestamp")) && !with_timestamp))
			continue;
		mp_put_str(&members, key);
		if (value.n)
			mp_put_raw(&members, value);
		else
			mp_put_nil(&members);
		out++;
	}
	mp_put_map(b, out);
	mp_put_raw(b, buf_str(&members));
	mp_put_lit(b, "priority");
	mp_put_uint(b, priority);
	mp_put_lit(b, "adopted");
	put_adopted(b, e, part, m);
	buf_done(&members);
}

void
adopt_digest(struct str s, struct mark *mark)
{
	uint8_t whole[SHA256_DIGEST_LENGTH];

	SHA256((const uint8_t *)s.p, s.n, whole);
	memcpy(mark->bytes, whole, sizeof(mark->bytes));
}

static void
mark_of(struct old_message *m, const struct message *message)
{
	const struct str parts[] = { m->recipient.type, m->recipient.instance,
				     m->sender.type,    m->sender.instance,
				     message->id,       message_type_names[message->type],
				     message->payload };
	struct buf all = { 0 };

	for (size_t i = 0; i < COUNT_OF(parts); i++)
		mp_put_str(&all, parts[i]); /* each says how long it is */
	adopt_digest(buf_str(&all), &m->mark);
	buf_done(&all);
}

/* --- all of it ----------------------------------------------------------------- */

/* Pack what is sent, and have the broker's rules judge it; the message's view is in `out`. */
static bool
pack(struct old_message *m, struct str raw, const struct envelope *e, enum part part,
     uint64_t priority, bool with_timestamp, struct message *out, char *why, size_t size)
{
	const struct field_rules rules = { .max_batch = 1000 };
	static struct params params; /* large */
	struct errmsg said;

	buf_clear(&m->bytes);
	mp_put_map(&m->bytes, 3);
	mp_put_lit(&m->bytes, "sender");
	put_agent(&m->bytes, &m->sender);
	mp_put_lit(&m->bytes, "recipient");
	put_agent(&m->bytes, &m->recipient);
	mp_put_lit(&m->bytes, "message");
	put_message(&m->bytes, raw, e, part, priority, with_timestamp, m);
	if (params_read(&params, buf_str(&m->bytes), F(sender) | F(recipient) | F(message), 0,
			&rules, &said))
		return wrong(why, size, said.text);
	m->sender = params.sender; /* no more in what was read, but in what is sent */
	m->recipient = params.recipient;
	m->id = params.message.id;
	m->message = params.message.map;
	*out = params.message;
	return true;
}

bool
adopt_message(const struct adopt *a, const struct old_queue *q, enum part part, struct str json,
	      struct old_message *m, char *why, size_t size)
{
	struct str sender = STR(""), recipient = STR(""), inner = STR("");
	struct agent_id from, to;
	struct envelope e;
	struct message message;
	struct buf read = { 0 };
	uint64_t priority;
	bool is_good = false, has_timestamp = true;
	struct mp map;
	uint32_t n;

	*m->note = '\0';
	if (!adopt_json(&read, json, why, size))
		goto end;
	if (!envelope_read(&e, buf_str(&read))) {
		wrong(why, size, "is no JSON object");
		goto end;
	}
	map = mp_of(e.message);
	if (!e.message.n || mp_type(&map) != MP_MAP || !mp_read_map(&map, &n)) {
		wrong(why, size, e.message.n ? "message is no object" : "message is missing");
		goto end;
	}
	while (n--) {
		struct str value, key = member(&map, &value);

		if (str_eq(key, STR("sender")))
			sender = value;
		else if (str_eq(key, STR("recipient")))
			recipient = value;
		else if (str_eq(key, STR("priority")))
			inner = value;
	}
	if (!agent_read(sender, &m->sender)) {
		wrong(why, size,
		      sender.n ? "message.sender is no {type, instance}"
			       : "message.sender is missing");
		goto end;
	}
	if (!recipient_of(a, q, recipient, m, why, size) ||
	    !priority_of(part, e.priority, inner, &priority, m, why, size))
		goto end;
	from = m->sender;
	to = m->recipient;
	is_good = pack(m, e.message, &e, part, priority, true, &message, why, size);
	if (!is_good && !strncmp(why, "message.timestamp ", 18)) {
		m->sender = from;
		m->recipient = to;
		has_timestamp = false;
		is_good = pack(m, e.message, &e, part, priority, false, &message, why, size);
		snprintf(m->note, sizeof(m->note), "message.timestamp is no time and left out");
	}
	if (is_good) {
		mark_of(m, &message);
		/* Again, with the mark in it. */
		m->sender = from;
		m->recipient = to;
		is_good = pack(m, e.message, &e, part, priority, has_timestamp, &message, why,
			       size);
	}
end:
	buf_done(&read);
	return is_good;
}
