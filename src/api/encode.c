#include "api/encode.h"

#include <stdio.h>
#include <time.h>

#include "proto/mp.h"

/*
 * What every answer holds is written where there is room for all of it, with one check for the whole
 * answer: write_*() take where to write, and return where they end.
 */
enum {
	TIME_MAX = 1 + 27, /* "YYYY-MM-DDThh:mm:ss.ffffffZ" */
	AGENT_ROOM = 64,   /* of an AgentId without its names */
	RECEIVED_ROOM =
		640 /* of a ReceivedMessage without what its sender chose the length of */
};

static char *
write_pair(char *to, unsigned two_digits)
{
	memcpy(to, str_pairs + 2 * two_digits, 2);
	return to + 2;
}

static char *
write_new_time(char *to, uint64_t us)
{
	/* Times are of today and, around midnight, of a day beside it. */
	static struct {
		time_t day;
		char text[32]; /* "YYYY-MM-DDT" */
	} known[2];
	time_t s = (time_t)(us / 1000000), day = s / 86400;
	unsigned of_day = (unsigned)(s % 86400), fraction = (unsigned)(us % 1000000);
	char *text = known[day & 1].text;

	if (known[day & 1].day != day || !*text) {
		struct tm tm;

		gmtime_r(&s, &tm);
		strftime(text, sizeof(known[0].text), "%Y-%m-%dT", &tm);
		known[day & 1].day = day;
	}
	*to++ = (char)(0xa0 | (TIME_MAX - 1));
	memcpy(to, text, 11);
	to = write_pair(to + 11, of_day / 3600);
	*to++ = ':';
	to = write_pair(to, of_day / 60 % 60);
	*to++ = ':';
	to = write_pair(to, of_day % 60);
	*to++ = '.';
	to = write_pair(to, fraction / 10000);
	to = write_pair(to, fraction / 100 % 100);
	to = write_pair(to, fraction % 100);
	*to++ = 'Z';
	return to;
}

/* Many are the same: all that one turn took in, or handed out, carry one time. */
struct last_time {
	uint64_t us;
	char text[TIME_MAX];
};

static char *
write_time(char *to, uint64_t us, struct last_time *last)
{
	if (us != last->us || !*last->text) {
		write_new_time(last->text, us);
		last->us = us;
	}
	memcpy(to, last->text, TIME_MAX);
	return to + TIME_MAX;
}

static struct last_time last_enqueued, last_deadline;

static char *
write_agent(char *to, struct agent_id id)
{
	to = mp_write_map(to, 2);
	to = mp_write_lit(to, "type");
	to = mp_write_str(to, id.type);
	to = mp_write_lit(to, "instance");
	return mp_write_str(to, id.instance);
}

static size_t
agent_room(struct agent_id id)
{
	return AGENT_ROOM + id.type.n + id.instance.n;
}

void
put_count(struct buf *b, const char *key, uint64_t n)
{
	mp_put_str(b, str_of(key));
	mp_put_uint(b, n);
}

void
put_bool(struct buf *b, const char *key, bool yes)
{
	mp_put_str(b, str_of(key));
	mp_put_bool(b, yes);
}

void
put_seconds(struct buf *b, const char *key, uint64_t us)
{
	mp_put_str(b, str_of(key));
	mp_put_double(b, (double)us / 1e6);
}

void
put_text(struct buf *b, const char *key, struct str text)
{
	mp_put_str(b, str_of(key));
	mp_put_str(b, text);
}

void
put_text_or_nil(struct buf *b, const char *key, struct str text)
{
	mp_put_str(b, str_of(key));
	if (text.n)
		mp_put_str(b, text);
	else
		mp_put_nil(b);
}

void
encode_time(struct buf *b, uint64_t us)
{
	b->len = (size_t)(write_new_time(buf_reserve(b, TIME_MAX), us) - b->data);
}

void
encode_agent(struct buf *b, struct agent_id id)
{
	b->len = (size_t)(write_agent(buf_reserve(b, agent_room(id)), id) - b->data);
}

void
encode_result(struct buf *b, struct str message_id, struct agent_id recipient, enum sent sent)
{
	char *to = buf_reserve(b, 128 + message_id.n + agent_room(recipient));

	to = mp_write_map(to, sent == SENT_DUPLICATE ? 5 : 4);
	to = mp_write_lit(to, "message_id");
	to = mp_write_str(to, message_id);
	to = mp_write_lit(to, "recipient");
	to = write_agent(to, recipient);
	to = mp_write_lit(to, "delivered");
	to = mp_write_bool(to, sent != SENT_FULL);
	to = mp_write_lit(to, "error");
	if (sent == SENT_FULL)
		to = mp_write_lit(to, "queue full");
	else
		to = mp_write_nil(to);
	if (sent == SENT_DUPLICATE) {
		to = mp_write_lit(to, "duplicate");
		to = mp_write_bool(to, true);
	}
	b->len = (size_t)(to - b->data);
}

static char *
write_message(char *to, const struct item *item, struct agent_id recipient)
{
	char uuid[UUID_TEXT_LEN];

	to = mp_write_map(to, 7 + item->extra_count);
	to = mp_write_lit(to, "message_id");
	to = mp_write_str(to, item_message_id(item, uuid));
	to = mp_write_lit(to, "sender");
	to = write_agent(to, item->sender);
	to = mp_write_lit(to, "recipient");
	to = write_agent(to, recipient);
	to = mp_write_lit(to, "message_type");
	to = mp_write_str(to, message_type_names[item->type]);
	to = mp_write_lit(to, "payload");
	to = mp_write_raw(to, item->payload);
	to = mp_write_lit(to, "priority");
	to = mp_write_uint(to, item->priority);
	to = mp_write_lit(to, "timestamp");
	to = item->timestamp.n ? mp_write_str(to, item->timestamp)
			       : write_time(to, item->enqueued_us, &last_enqueued);
	return mp_write_raw(to, item->extra);
}

static char *
write_queue_message(char *to, const struct item *item, struct agent_id recipient)
{
	to = mp_write_map(to, 5);
	to = mp_write_lit(to, "message");
	to = write_message(to, item, recipient);
	to = mp_write_lit(to, "priority");
	to = mp_write_uint(to, item->priority);
	to = mp_write_lit(to, "enqueued_at");
	to = write_time(to, item->enqueued_us, &last_enqueued);
	to = mp_write_lit(to, "delivery_attempts");
	to = mp_write_uint(to, item->attempts);
	to = mp_write_lit(to, "last_error");
	return item->has_error ? mp_write_str(to, item->last_error) : mp_write_nil(to);
}

size_t
encode_room(const struct item *item, struct agent_id recipient)
{
	return RECEIVED_ROOM + agent_room(item->sender) + agent_room(recipient) +
	       item->message_id.n + item->payload.n + item->timestamp.n + item->extra.n +
	       item->last_error.n;
}

void
encode_queue_message(struct buf *b, const struct item *item, struct agent_id recipient)
{
	char *to = buf_reserve(b, encode_room(item, recipient));

	b->len = (size_t)(write_queue_message(to, item, recipient) - b->data);
}

void
encode_received(struct buf *b, const struct reservation *res, struct agent_id recipient)
{
	char *to = buf_reserve(b, encode_room(&res->item, recipient)), token[TOKEN_TEXT_MAX];

	to = mp_write_map(to, 4);
	to = mp_write_lit(to, "token");
	to = mp_write_str(to, token_write(token, &res->token));
	to = mp_write_lit(to, "queue_message");
	to = write_queue_message(to, &res->item, recipient);
	to = mp_write_lit(to, "visibility_deadline");
	to = res->token.lease ? mp_write_nil(to)
			      : write_time(to, res->deadline_us, &last_deadline);
	to = mp_write_lit(to, "fence");
	to = mp_write_uint(to, res->token.fence);
	b->len = (size_t)(to - b->data);
}

void
encode_stats(struct buf *b, const struct queue_stats *stats, struct agent_id agent,
	     unsigned consumers)
{
	static const char *const priorities[3] = { "9", "5", "1" };

	mp_put_map(b, 11);
	mp_put_lit(b, "agent_id");
	encode_agent(b, agent);
	mp_put_lit(b, "ready");
	mp_put_map(b, 3);
	for (unsigned i = 0; i < 3; i++) {
		mp_put_str(b, str_of(priorities[i]));
		mp_put_uint(b, stats->ready[i]);
	}
	mp_put_lit(b, "delayed");
	mp_put_uint(b, stats->delayed);
	mp_put_lit(b, "reserved");
	mp_put_uint(b, stats->reserved);
	mp_put_lit(b, "dead");
	mp_put_uint(b, stats->dead);
	mp_put_lit(b, "size");
	mp_put_uint(b, stats->ready[0] + stats->ready[1] + stats->ready[2] + stats->delayed +
			       stats->reserved);
	mp_put_lit(b, "capacity");
	mp_put_uint(b, stats->capacity);
	mp_put_lit(b, "bytes");
	mp_put_uint(b, stats->bytes);
	mp_put_lit(b, "oldest_age");
	if (stats->oldest_us)
		mp_put_double(b, stats->now_us > stats->oldest_us
					 ? (double)(stats->now_us - stats->oldest_us) / 1e6
					 : 0);
	else
		mp_put_nil(b);
	mp_put_lit(b, "consumers");
	mp_put_uint(b, consumers + stats->elsewhere);
	mp_put_lit(b, "paused");
	mp_put_bool(b, stats->paused);
}

void
encode_policy(struct buf *b, const struct queue_policy *policy)
{
	mp_put_map(b, 6);
	mp_put_lit(b, "queue_size");
	mp_put_uint(b, policy->queue_size);
	mp_put_lit(b, "retry_attempts");
	mp_put_uint(b, policy->retry_attempts);
	mp_put_lit(b, "backoff_base");
	mp_put_double(b, (double)policy->backoff_base_us / 1e6);
	mp_put_lit(b, "backoff_factor");
	mp_put_double(b, policy->backoff_factor);
	mp_put_lit(b, "backoff_max");
	mp_put_double(b, (double)policy->backoff_max_us / 1e6);
	mp_put_lit(b, "backoff_jitter");
	mp_put_double(b, policy->backoff_jitter);
}

const struct str breaker_state_names[] = {
	[BREAKER_CLOSED] = { "closed", 6 },
	[BREAKER_OPEN] = { "open", 4 },
	[BREAKER_HALF_OPEN] = { "half_open", 9 },
};

static void
put_time(struct buf *b, const char *key, uint64_t us)
{
	mp_put_str(b, str_of(key));
	if (us)
		encode_time(b, us);
	else
		mp_put_nil(b);
}

void
encode_breaker(struct buf *b, struct str name, const struct breaker_info *info)
{
	mp_put_map(b, 14);
	mp_put_lit(b, "name");
	mp_put_str(b, name);
	mp_put_lit(b, "state");
	mp_put_str(b, breaker_state_names[info->state]);
	put_count(b, "failure_count", info->failures);
	put_count(b, "half_open_calls", info->out);
	put_count(b, "half_open_successes", info->successes);
	put_count(b, "total_calls", info->total);
	put_count(b, "successful_calls", info->succeeded);
	put_count(b, "failed_calls", info->failed);
	put_count(b, "rejected_calls", info->rejected);
	put_count(b, "state_changes", info->changes);
	put_time(b, "last_failure_time", info->failed_us);
	put_time(b, "last_success_time", info->succeeded_us);
	put_time(b, "state_changed_at", info->changed_us);
	mp_put_lit(b, "config");
	mp_put_map(b, BREAKER_SETTINGS);
	for (unsigned i = 0; i < BREAKER_SETTINGS; i++) {
		uint64_t value = info->config.values[i];

		mp_put_str(b, breaker_setting_names[i]);
		if (i == BREAKER_TIMEOUT || i == BREAKER_RECOVERY_TIMEOUT)
			mp_put_double(b, (double)value / 1e6);
		else
			mp_put_uint(b, value);
	}
}

/* A value as it was sent, or what stands for none. */
static void
put_value(struct buf *b, const char *key, struct str value, struct str none)
{
	mp_put_str(b, str_of(key));
	mp_put_raw(b, value.n ? value : none);
}

void
encode_agent_info(struct buf *b, const struct agent_info *info)
{
	uint64_t age_us = info->now_us > info->beat_us ? info->now_us - info->beat_us : 0;

	mp_put_map(b, 10);
	mp_put_lit(b, "name");
	mp_put_str(b, info->name);
	mp_put_lit(b, "agent_id");
	encode_agent(b, info->agent);
	mp_put_lit(b, "incarnation");
	mp_put_uint(b, info->incarnation);
	put_value(b, "status", info->status, STR("\xc0"));
	mp_put_lit(b, "alive");
	mp_put_bool(b, info->is_alive);
	mp_put_lit(b, "last_heartbeat");
	encode_time(b, info->beat_us);
	mp_put_lit(b, "heartbeat_age");
	mp_put_double(b, (double)age_us / 1e6);
	mp_put_lit(b, "ttl");
	mp_put_double(b, (double)info->ttl_us / 1e6);
	put_value(b, "capabilities", info->capabilities, STR("\x90"));
	put_value(b, "metadata", info->metadata, STR("\x80"));
}

static bool
is_of_message(const struct watch_event *e)
{
	return str_eq(e->kind, STR("message_dead")) ||
	       str_eq(e->kind, STR("dead_letter_dropped"));
}

static bool
event_has_reason(const struct watch_event *e)
{
	return e->class == EVENT_BREAKER || is_of_message(e);
}

uint32_t
encode_event_pairs(const struct watch_event *e)
{
	return 2 + (uint32_t)e->has_agent + (e->class != EVENT_QUEUE) + event_has_reason(e) +
	       is_of_message(e);
}

void
encode_event(struct buf *b, const struct watch_event *e)
{
	mp_put_lit(b, "event");
	mp_put_str(b, e->kind);
	mp_put_lit(b, "at");
	encode_time(b, e->at_us);
	if (e->has_agent) {
		mp_put_lit(b, "agent_id");
		encode_agent(b, e->agent);
	}
	if (e->class != EVENT_QUEUE)
		put_text_or_nil(b, "name", e->name);
	if (is_of_message(e))
		put_text_or_nil(b, "message_id", e->message_id);
	if (event_has_reason(e))
		put_text_or_nil(b, "reason", e->reason);
}
