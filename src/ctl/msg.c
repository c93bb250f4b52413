/* coordctl msg: send, receive and settle by hand. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/id.h"
#include "ctl/ctl.h"

/* One of a few words; the index, or -1 (said already). */
static int
word(const char *option, const char *text, const char *const *words, int n)
{
	for (int i = 0; i < n; i++) {
		if (!strcmp(text, words[i]))
			return i;
	}
	ctl_fail(EX_USAGE, "--%s: there is no \"%s\"", option, text);
	return -1;
}

static void
param_seconds(struct coord_params *p, const char *key, const struct given *o)
{
	if (o->text)
		coord_param_double(p, key, o->seconds);
}

/* --- send -------------------------------------------------------------------- */

/* Read PAYLOAD. NULL and `*status` when it is no JSON object (said already). */
static json_t *
payload_read(const char *arg, int *status)
{
	const size_t flags = JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES;
	const char *name = "the payload";
	json_error_t why;
	json_t *v = NULL;

	if (!strcmp(arg, "-")) {
		name = "standard input";
		v = json_loadf(stdin, flags, &why);
	} else if (arg[0] == '@') {
		FILE *f = fopen(arg + 1, "re");

		name = arg + 1;
		if (!f) {
			*status = ctl_fail(EX_DATAERR, "%s: %s", name, strerror(errno));
			return NULL;
		}
		v = json_loadf(f, flags, &why);
		fclose(f);
	} else {
		v = json_loads(arg, flags, &why);
	}
	if (!v)
		*status = ctl_fail(EX_DATAERR, "%s: line %d, column %d: %s", name, why.line,
				   why.column, why.text);
	else if (!json_is_object(v))
		*status = ctl_fail(EX_DATAERR, "%s: a payload is a JSON object", name);
	else
		return v;
	json_decref(v);
	return NULL;
}

/* The options that go into the message itself. EX_OK or EX_USAGE. */
static int
message_pack(const struct ctl *ctl, struct coord_params *p, const json_t *payload)
{
	static const char *const types[] = { "request", "response", "event" };
	static const char *const priorities[] = { "high", "normal", "low", "9", "5", "1" };
	static const int values[] = { 9, 5, 1, 9, 5, 1 };
	int type = 0, priority = 1;
	uint64_t random[2];
	msgpack_packer *pk;
	char id[33];

	if (GIVEN(ctl, type))
		type = word("type", TEXT(ctl, type), types, COUNT_OF(types));
	if (GIVEN(ctl, priority))
		priority =
			word("priority", TEXT(ctl, priority), priorities, COUNT_OF(priorities));
	if (type < 0 || priority < 0)
		return EX_USAGE;
	id_random(random, sizeof(random));
	snprintf(id, sizeof(id), "%016llx%016llx", (unsigned long long)random[0],
		 (unsigned long long)random[1]);

	pk = coord_param(p, "message");
	msgpack_pack_map(pk, GIVEN(ctl, traceparent) ? 5 : 4);
	coord_pack_str(pk, "message_id");
	coord_pack_str(pk, GIVEN(ctl, id) ? TEXT(ctl, id) : id);
	coord_pack_str(pk, "message_type");
	coord_pack_str(pk, types[type]);
	coord_pack_str(pk, "priority");
	msgpack_pack_int(pk, values[priority]);
	coord_pack_str(pk, "payload");
	json_pack_into(pk, payload);
	if (GIVEN(ctl, traceparent)) {
		coord_pack_str(pk, "traceparent");
		coord_pack_str(pk, TEXT(ctl, traceparent));
	}
	return EX_OK;
}

int
msg_send(struct ctl *ctl, char **args, int n)
{
	struct name to, from;
	struct coord_params *p = NULL;
	json_t *payload = NULL, *result = NULL;
	struct str id;
	int status = ctl_name(&to, args[0]);

	(void)n;
	if (!status)
		status = ctl_name(&from, GIVEN(ctl, sender) ? TEXT(ctl, sender) : "coordctl");
	if (!status)
		payload = payload_read(args[1], &status);
	if (!status) {
		p = ctl_params(NULL);
		coord_param_agent(p, "sender", from.type, from.instance);
		coord_param_agent(p, "recipient", to.type, to.instance);
		param_seconds(p, "delay", &ctl->opt[OPT_delay]);
		param_seconds(p, "ttl", &ctl->opt[OPT_ttl]);
		status = message_pack(ctl, p, payload);
	}
	json_decref(payload);
	if (status) {
		coord_params_free(p);
		return status;
	}

	result = ctl_call(ctl, "send", p, 0);
	if (!result)
		return ctl->status;
	id = json_str_at(result, "message_id");
	if (!json_bool_at(result, "delivered"))
		status = ctl_fail(EXIT_REFUSED, "%s: %s", args[0],
				  json_at(result, "error") ? json_str_at(result, "error").p
							   : "not delivered");
	else
		out_done(ctl, result, "%s %.*s to %s",
			 json_bool_at(result, "duplicate") ? "already sent" : "sent", (int)id.n,
			 id.p, args[0]);
	json_decref(result);
	return status;
}

/* --- receive and peek -------------------------------------------------------- */

#define IN_MESSAGE "queue_message.message."

static const struct column received[] = {
	{ "token", "token", NULL, false },
	{ "id", IN_MESSAGE "message_id", NULL, false },
	{ "type", IN_MESSAGE "message_type", NULL, false },
	{ "priority", "queue_message.priority", show_priority, false },
	{ "from", IN_MESSAGE "sender", show_agent, false },
	{ "enqueued", "queue_message.enqueued_at", show_time, false },
	{ "failed", "queue_message.delivery_attempts", NULL, false },
	{ "last error", "queue_message.last_error", NULL, false },
	{ "deadline", "visibility_deadline", show_time, false },
	{ "fence", "fence", show_json, false },
	{ "payload", IN_MESSAGE "payload", show_json, false },
};

static void
received_print(const struct ctl *ctl, const json_t *list)
{
	json_t *row;
	size_t i;

	/* Without --max one message is one object, and none is null. */
	if (ctl->output == OUT_JSON && !GIVEN(ctl, max)) {
		row = json_array_get(list, 0);
		out_object(ctl, row ? row : json_null(), received, COUNT_OF(received));
		return;
	}
	if (ctl->output != OUT_TABLE) {
		out_rows(ctl, list, received, COUNT_OF(received));
		return;
	}
	json_array_foreach(list, i, row)
	{
		if (i)
			putchar('\n');
		out_object(ctl, row, received, COUNT_OF(received));
	}
}

/* Settle what was received and printed. */
static int
received_ack(struct ctl *ctl, const struct name *queue, const json_t *list)
{
	struct coord_params *p;
	msgpack_packer *pk;
	json_t *row, *done;
	int status = EX_OK;
	size_t i;

	/* What nobody could see is not done: it comes back when its time is up. */
	if (fflush(stdout) || ferror(stdout))
		return ctl_fail(EX_IOERR, "not acknowledged: cannot write the output");
	p = ctl_params(queue);
	pk = coord_param(p, "tokens");
	msgpack_pack_array(pk, json_array_size(list));
	json_array_foreach(list, i, row)
	{
		json_pack_into(pk, json_object_get(row, "token"));
	}
	done = ctl_call(ctl, "ack_batch", p, 0);
	if (!done)
		return ctl->status;
	if (json_array_size(done) != json_array_size(list))
		status = ctl_unexpected("ack_batch");
	json_array_foreach(done, i, row)
	{
		if (!json_is_true(row))
			status = ctl_fail(
				EXIT_REFUSED,
				"message %zu was taken back before it was acknowledged", i + 1);
	}
	json_decref(done);
	return status;
}

int
msg_recv(struct ctl *ctl, char **args, int n)
{
	static const char *const leases[] = { "timeout", "connection", "heartbeat" };
	struct name queue, holder;
	struct coord_params *p;
	json_t *list, *row;
	int status = ctl_name(&queue, args[0]);
	size_t i;

	(void)n;
	if (!status && GIVEN(ctl, lease) && word("lease", TEXT(ctl, lease), leases, 3) < 0)
		status = EX_USAGE;
	if (!status && GIVEN(ctl, holder))
		status = ctl_name(&holder, TEXT(ctl, holder));
	if (!status && ctl->opt[OPT_wait].seconds < 0)
		status = ctl_fail(EX_USAGE, "--wait needs a time here, such as 10s");
	if (status)
		return status;

	p = ctl_params(&queue);
	coord_param_int(p, "max", GIVEN(ctl, max) ? (int64_t)ctl->opt[OPT_max].count : 1);
	param_seconds(p, "wait", &ctl->opt[OPT_wait]);
	param_seconds(p, "visibility_timeout", &ctl->opt[OPT_visibility]);
	if (GIVEN(ctl, lease))
		coord_param_str(p, "lease", TEXT(ctl, lease));
	if (GIVEN(ctl, holder))
		coord_param_agent(p, "holder", holder.type, holder.instance);
	list = ctl_call(ctl, "receive_batch", p, ctl->opt[OPT_wait].seconds);
	if (!list)
		return ctl->status;

	if (!json_is_array(list))
		status = ctl_unexpected("receive_batch");
	json_array_foreach(list, i, row)
	{
		if (!json_str_at(row, "token").n)
			status = ctl_unexpected("receive_batch");
	}
	if (!status && (json_array_size(list) || ctl->output == OUT_JSON))
		received_print(ctl, list);
	if (!status && !json_array_size(list)) {
		status = EXIT_NOT_FOUND;
		if (!GIVEN(ctl, quiet))
			ctl_fail(status, "nothing is due in %s", args[0]);
	}
	if (!status && GIVEN(ctl, ack))
		status = received_ack(ctl, &queue, list);
	json_decref(list);
	return status;
}

int
msg_peek(struct ctl *ctl, char **args, int n)
{
	static const struct column columns[] = {
		{ "ID", "message.message_id", NULL, false },
		{ "TYPE", "message.message_type", NULL, false },
		{ "PRIORITY", "priority", show_priority, false },
		{ "FROM", "message.sender", show_agent, false },
		{ "ENQUEUED", "enqueued_at", show_time, false },
		{ "FAILED", "delivery_attempts", NULL, true },
		{ "PAYLOAD", "message.payload", show_short_json, false },
	};
	struct name queue;
	struct coord_params *p;
	int status = ctl_name(&queue, args[0]);
	json_t *list;

	(void)n;
	if (status)
		return status;
	p = ctl_params(&queue);
	if (GIVEN(ctl, limit))
		coord_param_int(p, "limit", (int64_t)ctl->opt[OPT_limit].count);
	list = ctl_call(ctl, "peek", p, 0);
	if (!list)
		return ctl->status;
	if (json_is_array(list))
		out_rows(ctl, list, columns, COUNT_OF(columns));
	else
		status = ctl_unexpected("peek");
	json_decref(list);
	return status;
}

/* --- settle ------------------------------------------------------------------ */

/* Call a method about one token, which answers true or a deadline when the token was live. */
static int
settle(struct ctl *ctl, const char *method, struct coord_params *take_params, const char *token,
       const char *did)
{
	json_t *result = ctl_call(ctl, method, take_params, 0), *done;
	int status = EX_OK;

	if (!result)
		return ctl->status;
	if (!json_is_true(result) && !json_is_string(result)) {
		status = ctl_fail(EXIT_REFUSED,
				  "%s is not live: settled, taken back, or never was", token);
	} else {
		done = json_is_true(result) ? json_pack("{s:s, s:b}", "token", token, did, 1)
					    : json_pack("{s:s, s:O}", "token", token,
							"visibility_deadline", result);
		out_done(ctl, done, "%s%s%s", did, json_is_true(result) ? "" : " until ",
			 json_is_true(result) ? "" : json_string_value(result));
		json_decref(done);
	}
	json_decref(result);
	return status;
}

int
msg_ack(struct ctl *ctl, char **args, int n)
{
	struct name queue;
	int status = ctl_name(&queue, args[0]);

	/* One call for each: it is for hands, and so each token has its own answer. */
	for (int i = 1; i < n && status != EX_USAGE; i++) {
		struct coord_params *p = ctl_params(&queue);
		int one;

		coord_param_str(p, "token", args[i]);
		one = settle(ctl, "ack", p, args[i], "acknowledged");
		if (one)
			status = one;
		if (one > EXIT_NOT_FOUND)
			break; /* the connection, not the token */
	}
	return status;
}

int
msg_nack(struct ctl *ctl, char **args, int n)
{
	static const char *const failures[] = { "transient", "permanent", "timeout" };
	struct name queue;
	struct coord_params *p;
	int status = ctl_name(&queue, args[0]);

	(void)n;
	if (!status && GIVEN(ctl, failure) &&
	    word("failure", TEXT(ctl, failure), failures, 3) < 0)
		status = EX_USAGE;
	if (status)
		return status;
	p = ctl_params(&queue);
	coord_param_str(p, "token", args[1]);
	if (GIVEN(ctl, failure))
		coord_param_str(p, "failure", TEXT(ctl, failure));
	if (GIVEN(ctl, error))
		coord_param_str(p, "error", TEXT(ctl, error));
	param_seconds(p, "delay", &ctl->opt[OPT_delay]);
	return settle(ctl, "nack", p, args[1], "nacked");
}

int
msg_release(struct ctl *ctl, char **args, int n)
{
	struct name queue;
	struct coord_params *p;
	int status = ctl_name(&queue, args[0]);

	(void)n;
	if (status)
		return status;
	p = ctl_params(&queue);
	coord_param_str(p, "token", args[1]);
	param_seconds(p, "delay", &ctl->opt[OPT_delay]);
	return settle(ctl, "release", p, args[1], "released");
}

int
msg_extend(struct ctl *ctl, char **args, int n)
{
	struct name queue;
	struct coord_params *p;
	int status = ctl_name(&queue, args[0]);

	(void)n;
	if (!status && !GIVEN(ctl, visibility))
		status = ctl_fail(EX_USAGE, "msg extend needs --visibility TIME");
	if (status)
		return status;
	p = ctl_params(&queue);
	coord_param_str(p, "token", args[1]);
	param_seconds(p, "visibility_timeout", &ctl->opt[OPT_visibility]);
	return settle(ctl, "extend", p, args[1], "reserved");
}
