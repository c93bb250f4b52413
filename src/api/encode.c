#include "api/encode.h"

#include <stdio.h>
#include <time.h>

#include "proto/mp.h"

void
encode_time(struct buf *b, uint64_t us)
{
	/* Many in one turn are of the same few seconds: now, and when timeouts end. */
	static struct {
		time_t second;
		char text[40];
	} known[8];
	time_t s = (time_t)(us / 1000000);
	unsigned fraction = (unsigned)(us % 1000000);
	char *text = known[s & 7].text;

	if (s != known[s & 7].second || !*text) {
		struct tm tm;

		gmtime_r(&s, &tm);
		strftime(text, sizeof(known[0].text), "%Y-%m-%dT%H:%M:%S.000000Z", &tm);
		known[s & 7].second = s;
	}
	for (unsigned i = 25; i > 19; i--, fraction /= 10)
		text[i] = (char)('0' + fraction % 10);
	mp_put_str(b, str_of(text));
}

void
encode_agent(struct buf *b, struct agent_id id)
{
	mp_put_map(b, 2);
	mp_put_lit(b, "type");
	mp_put_str(b, id.type);
	mp_put_lit(b, "instance");
	mp_put_str(b, id.instance);
}

void
encode_result(struct buf *b, struct str message_id, struct agent_id recipient, enum sent sent)
{
	mp_put_map(b, sent == SENT_DUPLICATE ? 5 : 4);
	mp_put_lit(b, "message_id");
	mp_put_str(b, message_id);
	mp_put_lit(b, "recipient");
	encode_agent(b, recipient);
	mp_put_lit(b, "delivered");
	mp_put_bool(b, sent != SENT_FULL);
	mp_put_lit(b, "error");
	if (sent == SENT_FULL)
		mp_put_lit(b, "queue full");
	else
		mp_put_nil(b);
	if (sent == SENT_DUPLICATE) {
		mp_put_lit(b, "duplicate");
		mp_put_bool(b, true);
	}
}

static void
encode_message(struct buf *b, const struct item *item, struct agent_id recipient)
{
	mp_put_map(b, 7 + item->extra_count);
	mp_put_lit(b, "message_id");
	mp_put_str(b, item->message_id);
	mp_put_lit(b, "sender");
	encode_agent(b, item->sender);
	mp_put_lit(b, "recipient");
	encode_agent(b, recipient);
	mp_put_lit(b, "message_type");
	mp_put_str(b, message_type_names[item->type]);
	mp_put_lit(b, "payload");
	mp_put_raw(b, item->payload);
	mp_put_lit(b, "priority");
	mp_put_uint(b, item->priority);
	mp_put_lit(b, "timestamp");
	if (item->timestamp.n)
		mp_put_str(b, item->timestamp);
	else
		encode_time(b, item->enqueued_us);
	mp_put_raw(b, item->extra);
}

void
encode_queue_message(struct buf *b, const struct item *item, struct agent_id recipient)
{
	mp_put_map(b, 5);
	mp_put_lit(b, "message");
	encode_message(b, item, recipient);
	mp_put_lit(b, "priority");
	mp_put_uint(b, item->priority);
	mp_put_lit(b, "enqueued_at");
	encode_time(b, item->enqueued_us);
	mp_put_lit(b, "delivery_attempts");
	mp_put_uint(b, item->attempts);
	mp_put_lit(b, "last_error");
	if (item->has_error)
		mp_put_str(b, item->last_error);
	else
		mp_put_nil(b);
}

void
encode_received(struct buf *b, const struct reservation *res, struct agent_id recipient)
{
	char token[TOKEN_TEXT_LEN];

	token_write(token, &res->token);
	mp_put_map(b, 4);
	mp_put_lit(b, "token");
	mp_put_str(b, (struct str){ token, sizeof(token) });
	mp_put_lit(b, "queue_message");
	encode_queue_message(b, &res->item, recipient);
	mp_put_lit(b, "visibility_deadline");
	encode_time(b, res->deadline_us);
	mp_put_lit(b, "fence");
	mp_put_uint(b, res->token.fence);
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
