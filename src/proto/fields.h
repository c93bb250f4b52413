#ifndef COORDD_PROTO_FIELDS_H
#define COORDD_PROTO_FIELDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "base/str.h"
#include "proto/mp.h"
#include "proto/rpc.h"

/*
 * Typed, checked views of a request's params. Everything borrows the frame: it lives as long as
 * the frame does. Nothing is defaulted here, see `have`.
 */

/* docs/PROTOCOL.md, AgentId. An absent, nil or empty instance reads as "default". */
struct agent_id {
	struct str type, instance;
};

enum message_type { MESSAGE_REQUEST, MESSAGE_RESPONSE, MESSAGE_EVENT, MESSAGE_TYPES };
extern const struct str message_type_names[MESSAGE_TYPES];
enum event_class { EVENT_AGENT, EVENT_BREAKER, EVENT_QUEUE, EVENT_CLASSES };
extern const struct str event_class_names[EVENT_CLASSES];
enum failure { FAILURE_TRANSIENT, FAILURE_PERMANENT, FAILURE_TIMEOUT };
enum lease { LEASE_TIMEOUT, LEASE_CONNECTION, LEASE_HEARTBEAT };
enum outcome { OUTCOME_SUCCESS, OUTCOME_FAILURE };

/* docs/PROTOCOL.md, section 6: the settings of a circuit breaker. */
enum breaker_setting {
	BREAKER_FAILURE_THRESHOLD,
	BREAKER_TIMEOUT,          /* microseconds */
	BREAKER_RECOVERY_TIMEOUT, /* microseconds */
	BREAKER_HALF_OPEN_CALLS,
	BREAKER_SUCCESS_THRESHOLD,
	BREAKER_SETTINGS
};
extern const struct str breaker_setting_names[BREAKER_SETTINGS];
struct breaker_config {
	unsigned have; /* 1 << BREAKER_TIMEOUT, ... of each that was given */
	uint64_t values[BREAKER_SETTINGS];
};

/* docs/PROTOCOL.md, AgentMessage. */
struct message {
	struct str id; /* 1..128 bytes of UTF-8 */
	enum message_type type;
	uint8_t priority;     /* 1, 5 or 9 */
	struct str payload;   /* raw map, as sent; the one byte 0x80 when absent or nil */
	struct str timestamp; /* as sent; n is 0 when absent or nil */
	struct str map;       /* the whole message, raw */
	uint32_t extra;       /* how many of its keys are none of AgentMessage's */
};

/* Whether `key` is one of AgentMessage's own: the others are carried untouched. */
bool message_knows_key(struct str key);

/* An element of `messages`. */
struct send_item {
	struct agent_id recipient;
	struct message message;
	uint64_t delay, ttl; /* microseconds; 0 when absent */
	bool has_ttl;
};

/* A list that was checked whole. */
struct list {
	struct str
		raw; /* the elements, without the array's header; read them with list_next_*() */
	uint32_t n;
	const struct send_item *sends; /* of `messages`, until the next params are read */
};

enum field {
#define FIELD(name, kind, min, max)            FIELD_##name,
#define FIELD_AS(member, name, kind, min, max) FIELD_##member,
#include "proto/fields.def"
#undef FIELD
#undef FIELD_AS
	FIELD_COUNT
};
#define F(name) (1ull << FIELD_##name)

struct params {
	uint64_t have; /* F(name) of each field that was given and is not nil */
	uint64_t nil;  /* F(name) of each field that was given as nil */
	struct agent_id agent, sender, recipient, holder, after_agent;
	struct message message;
	struct list messages, recipients, tokens, ids, message_ids;
	struct str token, namespace, client, type, after, error, consumer_id, subscription_id,
		watch_id, name, permit, capability;
	struct str status, state, capabilities, metadata; /* raw, as sent */
	unsigned message_types; /* 1 << MESSAGE_REQUEST, ... of each that is named */
	unsigned events;        /* 1 << EVENT_AGENT, ... */
	enum rpc_errors errors;
	enum failure failure;
	enum lease lease;
	enum outcome outcome;
	enum log_level level;
	struct breaker_config config;
	uint64_t visibility_timeout, wait, delay, ttl, backoff_base, backoff_max,
		for_time; /* microseconds */
	uint64_t max, prefetch, limit, queue_size, retry_attempts, resume, incarnation, id,
		after_id;
	bool alive, dry_run;
	double backoff_factor, backoff_jitter;
};

struct field_rules {
	bool any_content;   /* limits.portable_payloads is off */
	uint32_t max_batch; /* elements of any list; more is ERR_TOO_LARGE */
};

/*
 * Check `raw` (one map, or empty) and fill `params`: every key must be in `required | optional`
 * and of its type and range; every `required` one must be there and not nil; none may come
 * twice. On error `params` is undefined and `why` names the field, down to the element
 * (`messages[3].message.priority`).
 *
 *	OK, ERR_BAD_REQUEST, ERR_TOO_LARGE (a list over max_batch)
 */
enum err params_read(struct params *params, struct str raw, uint64_t required,
		     uint64_t optional, const struct field_rules *rules, struct errmsg *why);

/*
 * Take the next element from a checked list, so none of these can fail; the caller counts.
 */
void list_next_agent(struct list *list, struct agent_id *out);
struct str list_next_text(struct list *list);

#endif
