/*
 * The driver of libcoord for the contract suite: it does what lines of JSON on its standard input say, and tells what comes
 * of it by lines on its standard output. contract.py says which lines there are. Only the public header is used.
 *
 *	on_input()	a line is there; the table of commands says who does it
 *	answer...()	each line is answered once
 *	on_...()	what the library tells becomes a line
 */
#include "client/coord.h"

#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <jansson.h>
#include <msgpack.h>

/* Whatever the test has given a name. It belongs to a connection and ends with it. */
enum kind { WATCH, AGENT, CONSUMER };

struct thing {
	TAILQ_ENTRY(thing) entry;
	enum kind kind;
	char name[32];
	struct connection *connection;
	struct thing *agent; /* of a consumer */
	union {
		struct coord_watch *watch;
		struct coord_agent *agent;
		struct coord_consumer *consumer;
	} as;
	json_t *plan; /* of a consumer: what its handler does */
};

/* A line whose answer comes later. */
struct call {
	TAILQ_ENTRY(call) entry;
	struct connection *connection;
	struct thing *agent; /* that is stopped */
	json_int_t id;
};

struct job {
	TAILQ_ENTRY(job) entry;
	struct thing *consumer;
	struct connection *connection;
	struct coord_job *handle;
	struct event *timer; /* until its plan is due */
	json_t *plan;
	long number;
	char of[32]; /* the consumer's name, which may be gone before */
};

struct connection {
	TAILQ_ENTRY(connection) entry;
	char name[32];
	struct coord_client *client;
	TAILQ_HEAD(, call) calls;
	TAILQ_HEAD(, thing) things;
	TAILQ_HEAD(, job) jobs;
};

static TAILQ_HEAD(, connection) connections = TAILQ_HEAD_INITIALIZER(connections);
static struct event_base *base;
static long jobs_so_far;

static void *
must(void *p)
{
	if (!p)
		errx(1, "no memory, or a line that lacks something");
	return p;
}

/* --- lines out ----------------------------------------------------------------- */

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void
say(json_t *line)
{
	json_object_set_new(line, "at", json_real(now()));
	if (json_dumpf(line, stdout, JSON_COMPACT) || putchar('\n') == EOF || fflush(stdout))
		errx(1, "nobody reads");
	json_decref(line);
}

static json_t *
hex_of_bytes(const void *bytes, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *from = bytes;
	char *text = must(malloc(2 * n + 1));
	json_t *value;

	for (size_t i = 0; i < n; i++) {
		text[2 * i] = digits[from[i] >> 4];
		text[2 * i + 1] = digits[from[i] & 15];
	}
	value = must(json_stringn(text, 2 * n));
	free(text);
	return value;
}

static json_t *
hex_of(const msgpack_object *object)
{
	msgpack_sbuffer bytes;
	msgpack_packer pk;
	json_t *value;

	if (!object)
		return json_null();
	msgpack_sbuffer_init(&bytes);
	msgpack_packer_init(&pk, &bytes, msgpack_sbuffer_write);
	msgpack_pack_object(&pk, *object);
	value = hex_of_bytes(bytes.data, bytes.size);
	msgpack_sbuffer_destroy(&bytes);
	return value;
}

/* A misuse has no code of the protocol. */
static json_t *
error_of(const struct coord_error *err)
{
	const char *code = !err->code[0] && err->status == COORD_USAGE ? "usage" : err->code;

	return must(json_pack("{s:s, s:s, s:b, s:s*}", "code", code, "message", err->message,
			      "retryable", err->retryable, "applied",
			      err->applied[0] ? err->applied : NULL));
}

static void
answer(json_int_t id, const msgpack_object *value, const struct coord_error *err)
{
	json_t *line = must(json_pack("{s:I}", "id", id));
	json_t *error;

	if (err) {
		error = error_of(err);
		if (!json_object_get(error, "applied"))
			json_object_set_new(error, "applied", json_null());
		json_object_set_new(line, "error", error);
	} else {
		json_object_set_new(line, "value", hex_of(value));
	}
	say(line);
}

/* A function of the library that took what it was given, or not. */
static void
answer_status(json_int_t id, enum coord_status status)
{
	struct coord_error err = { .status = status };

	if (!status) {
		answer(id, NULL, NULL);
		return;
	}
	snprintf(err.code, sizeof(err.code), "%s", status == COORD_USAGE ? "usage" : "");
	snprintf(err.message, sizeof(err.message), "status %d", status);
	answer(id, NULL, &err);
}

static json_t *
event_line(const char *event, const char *of)
{
	return must(json_pack("{s:s, s:s}", "event", event, "of", of));
}

static void
say_of_job(const char *event, const struct job *j)
{
	json_t *line = event_line(event, j->of);

	json_object_set_new(line, "job", json_integer(j->number));
	say(line);
}

/* --- what lines in hold ---------------------------------------------------------- */

static const char *
text_of(const json_t *line, const char *key)
{
	return json_string_value(json_object_get(line, key));
}

/* In milliseconds; `otherwise` when it is not there. */
static int
ms_of(const json_t *line, const char *key, int otherwise)
{
	const json_t *value = json_object_get(line, key);

	return value ? (int)(json_number_value(value) * 1000 + 0.5) : otherwise;
}

static unsigned
nibble(char digit)
{
	return (unsigned)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

/* The caller frees the bytes. */
static unsigned char *
bytes_of(const json_t *digits, size_t *n)
{
	const char *text = must((char *)json_string_value(digits));
	unsigned char *bytes;

	*n = json_string_length(digits) / 2;
	bytes = must(malloc(*n + 1));
	for (size_t i = 0; i < *n; i++)
		bytes[i] = (unsigned char)(nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]));
	return bytes;
}

static struct coord_params *
params_of(json_t *line)
{
	struct coord_params *params = must(coord_params_new());
	unsigned char *bytes;
	const char *key;
	json_t *value;
	size_t n;

	json_object_foreach(json_object_get(line, "params"), key, value)
	{
		bytes = bytes_of(value, &n);
		coord_pack_raw(coord_param(params, key), bytes, n);
		free(bytes);
	}
	return params;
}

static struct connection *
connection_of(const json_t *line)
{
	const char *name = must((char *)text_of(line, "on"));
	struct connection *c;

	TAILQ_FOREACH (c, &connections, entry)
		if (!strcmp(c->name, name))
			return c;
	errx(1, "there is no connection %s", name);
}

static struct thing *
thing_of(const json_t *line)
{
	const char *name = must((char *)text_of(line, "of"));
	struct connection *c;
	struct thing *t;

	TAILQ_FOREACH (c, &connections, entry)
		TAILQ_FOREACH (t, &c->things, entry)
			if (!strcmp(t->name, name))
				return t;
	errx(1, "there is no %s", name);
}

/* --- names and what waits --------------------------------------------------------- */

static struct thing *
thing_new(struct connection *c, enum kind kind, const json_t *line)
{
	struct thing *t = must(calloc(1, sizeof(*t)));

	t->kind = kind;
	t->connection = c;
	snprintf(t->name, sizeof(t->name), "%s", text_of(line, "as"));
	TAILQ_INSERT_TAIL(&c->things, t, entry);
	return t;
}

static void
thing_free(struct thing *t)
{
	struct job *j;

	TAILQ_FOREACH (j, &t->connection->jobs, entry)
		if (j->consumer == t)
			j->consumer = NULL;
	TAILQ_REMOVE(&t->connection->things, t, entry);
	json_decref(t->plan);
	free(t);
}

/* An agent's consumers are freed with it, by the library too. */
static void
agent_free(struct thing *agent)
{
	struct thing *t, *next;

	coord_agent_free(agent->as.agent);
	for (t = TAILQ_FIRST(&agent->connection->things); t; t = next) {
		next = TAILQ_NEXT(t, entry);
		if (t->agent == agent)
			thing_free(t);
	}
	thing_free(agent);
}

static struct call *
call_new(struct connection *c, json_int_t id)
{
	struct call *call = must(calloc(1, sizeof(*call)));

	call->connection = c;
	call->id = id;
	TAILQ_INSERT_TAIL(&c->calls, call, entry);
	return call;
}

static void
call_free(struct call *call)
{
	TAILQ_REMOVE(&call->connection->calls, call, entry);
	free(call);
}

static void
on_answer(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct call *call = arg;

	answer(call->id, result, err);
	call_free(call);
}

/* --- connections ------------------------------------------------------------------- */

static void
on_state(void *arg, const char *url, const struct coord_error *why)
{
	const struct connection *c = arg;
	json_t *line = event_line("state", c->name);

	json_object_set_new(line, "url", url ? json_string(url) : json_null());
	json_object_set_new(line, "why", why ? json_string(why->message) : json_null());
	say(line);
}

static enum coord_status
set_options(struct coord_client *client, const json_t *options)
{
	static const struct {
		const char *name;
		enum coord_option option;
		bool is_text;
	} table[] = {
		{ "name", COORD_CLIENT_NAME, true },
		{ "token", COORD_TOKEN, true },
		{ "namespace", COORD_NAMESPACE, true },
		{ "connect_timeout", COORD_CONNECT_TIMEOUT, false },
		{ "idle_timeout", COORD_IDLE_TIMEOUT, false },
		{ "backoff_min", COORD_BACKOFF_MIN, false },
		{ "backoff_max", COORD_BACKOFF_MAX, false },
	};
	enum coord_status status = COORD_OK;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]) && !status; i++) {
		if (!json_object_get(options, table[i].name))
			continue;
		if (table[i].is_text)
			status = coord_client_set(client, table[i].option,
						  text_of(options, table[i].name));
		else
			status = coord_client_set_int(client, table[i].option,
						      ms_of(options, table[i].name, 0));
	}
	return status;
}

static void
do_connect(json_int_t id, json_t *line)
{
	struct coord_error err;
	struct coord_client *client = coord_client_new(base, text_of(line, "urls"), &err);
	struct connection *c;
	enum coord_status status;

	if (!client) {
		answer(id, NULL, &err);
		return;
	}
	status = set_options(client, json_object_get(line, "options"));
	if (status) {
		coord_client_free(client);
		answer_status(id, status);
		return;
	}
	c = must(calloc(1, sizeof(*c)));
	c->client = client;
	snprintf(c->name, sizeof(c->name), "%s", text_of(line, "as"));
	TAILQ_INIT(&c->calls);
	TAILQ_INIT(&c->things);
	TAILQ_INIT(&c->jobs);
	TAILQ_INSERT_TAIL(&connections, c, entry);
	coord_client_on_state(client, on_state, c);
	answer(id, NULL, NULL);
}

static void
do_call(json_int_t id, json_t *line)
{
	struct connection *c = connection_of(line);
	struct coord_params *params = params_of(line);
	struct call *call = call_new(c, id);
	enum coord_status status;

	status = coord_client_call(c->client, text_of(line, "method"), params,
				   ms_of(line, "timeout", -1), on_answer, call);
	if (status) {
		answer_status(id, status);
		call_free(call);
	}
	coord_params_free(params);
}

static void
do_notify(json_int_t id, json_t *line)
{
	struct coord_params *params = params_of(line);

	answer_status(id, coord_client_notify(connection_of(line)->client,
					      text_of(line, "method"), params));
	coord_params_free(params);
}

static void job_end(struct job *j);

static void
connection_close(struct connection *c)
{
	struct thing *t, *next;
	struct call *call;
	struct job *j;

	/* Agents first: they end their consumers. */
	for (t = TAILQ_FIRST(&c->things); t; t = next) {
		next = TAILQ_NEXT(t, entry);
		if (t->kind == AGENT) {
			agent_free(t);
			next = TAILQ_FIRST(&c->things);
		}
	}
	while ((t = TAILQ_FIRST(&c->things))) {
		if (t->kind == CONSUMER)
			coord_consumer_free(t->as.consumer);
		thing_free(t); /* a watch is the client's */
	}
	coord_client_free(c->client);
	while ((j = TAILQ_FIRST(&c->jobs))) {
		coord_job_release(j->handle, -1, NULL, NULL);
		job_end(j);
	}
	while ((call = TAILQ_FIRST(&c->calls))) {
		say(must(json_pack("{s:I, s:b}", "id", call->id, "dropped", 1)));
		call_free(call);
	}
	TAILQ_REMOVE(&connections, c, entry);
	free(c);
}

static void
do_close(json_int_t id, json_t *line)
{
	connection_close(connection_of(line));
	answer(id, NULL, NULL);
}

/* --- watches ------------------------------------------------------------------------ */

static void
on_event(void *arg, const msgpack_object *event, const struct coord_error *err)
{
	const struct thing *t = arg;
	json_t *line = event_line(event ? "event" : "refused", t->name);

	if (event)
		json_object_set_new(line, "value", hex_of(event));
	else
		json_object_set_new(line, "error", error_of(err));
	say(line);
}

static void
do_watch(json_int_t id, json_t *line)
{
	struct connection *c = connection_of(line);
	struct thing *t = thing_new(c, WATCH, line);
	json_t *classes = json_object_get(line, "classes");
	struct coord_error err;
	char list[128] = "";
	json_t *name;
	size_t i;

	json_array_foreach(classes, i, name)
	{
		strncat(list, i ? " " : "", sizeof(list) - strlen(list) - 1);
		strncat(list, json_string_value(name), sizeof(list) - strlen(list) - 1);
	}
	t->as.watch = coord_client_watch(c->client, list, on_event, t, &err);
	answer(id, NULL, t->as.watch ? NULL : &err);
}

/* --- agents ------------------------------------------------------------------------- */

static void
on_change(void *arg, enum coord_agent_event event, const msgpack_object *result,
	  const struct coord_error *err)
{
	static const char *const names[] = {
		[COORD_AGENT_REGISTERED] = "registered",
		[COORD_AGENT_SUPERSEDED] = "superseded",
		[COORD_AGENT_ERROR] = "error",
	};
	const struct thing *t = arg;
	json_t *line = event_line("agent", t->name);

	json_object_set_new(line, "what", json_string(names[event]));
	if (err)
		json_object_set_new(line, "error", error_of(err));
	if (event == COORD_AGENT_REGISTERED) {
		json_object_set_new(line, "incarnation",
				    json_integer(coord_agent_incarnation(t->as.agent)));
		json_object_set_new(line, "state", hex_of(coord_get(result, "state")));
	}
	say(line);
}

static void
do_agent(json_int_t id, json_t *line)
{
	struct connection *c = connection_of(line);
	struct coord_params *params = params_of(line);
	struct coord_error err;
	struct coord_agent *agent;
	struct thing *t;

	agent = coord_agent_new(c->client, text_of(line, "type"), text_of(line, "instance"),
				params, &err);
	coord_params_free(params);
	if (!agent) {
		answer(id, NULL, &err);
		return;
	}
	t = thing_new(c, AGENT, line);
	t->as.agent = agent;
	coord_agent_on_change(agent, on_change, t);
	answer(id, NULL, NULL);
}

static void
do_set(json_int_t id, json_t *line)
{
	struct coord_agent *agent = thing_of(line)->as.agent;
	size_t n;
	unsigned char *bytes = bytes_of(json_object_get(line, "value"), &n);

	answer_status(id, strcmp(text_of(line, "do"), "state")
				  ? coord_agent_set_status(agent, bytes, n)
				  : coord_agent_set_state(agent, bytes, n));
	free(bytes);
}

static void
on_stopped(void *arg, const struct coord_error *why)
{
	struct call *call = arg;

	answer(call->id, NULL, why);
	agent_free(call->agent);
	call_free(call);
}

static void
do_stop(json_int_t id, json_t *line)
{
	struct thing *agent = thing_of(line);
	struct call *call = call_new(agent->connection, id);

	call->agent = agent;
	coord_agent_stop(agent->as.agent, ms_of(line, "timeout", -1), on_stopped, call);
}

/* What is answered is a message; the test wants its payload. */
static void
on_reply(void *arg, const msgpack_object *message, const struct coord_error *err)
{
	on_answer(arg, coord_get(message, "payload"), err);
}

static void
do_request(json_int_t id, json_t *line)
{
	struct thing *agent = thing_of(line);
	json_t *to = json_object_get(line, "to");
	struct call *call = call_new(agent->connection, id);
	enum coord_status status;
	size_t n;
	unsigned char *payload = bytes_of(json_object_get(line, "payload"), &n);

	status = coord_agent_request(agent->as.agent, json_string_value(json_array_get(to, 0)),
				     json_string_value(json_array_get(to, 1)), payload, n,
				     ms_of(line, "timeout", -1), on_reply, call);
	if (status) {
		answer_status(id, status);
		call_free(call);
	}
	free(payload);
}

/* --- jobs --------------------------------------------------------------------------- */

/* The library has it no more. */
static void
job_end(struct job *j)
{
	TAILQ_REMOVE(&j->connection->jobs, j, entry);
	event_free(j->timer);
	json_decref(j->plan);
	free(j);
}

static void
on_lost(void *arg, struct coord_job *handle)
{
	struct job *j = arg;

	say_of_job("lost", j);
	coord_job_release(handle, -1, NULL, NULL);
	job_end(j);
}

/* A C program has no exceptions: what it did not expect it tells like every other failure. */
static enum coord_status
settle(struct coord_job *handle, const json_t *plan)
{
	const char *then = must((char *)text_of(plan, "then"));
	const json_t *delay = json_object_get(plan, "delay");
	double seconds = delay ? json_number_value(delay) : -1;
	enum coord_status status = COORD_USAGE;
	unsigned char *payload;
	size_t n;

	if (!strcmp(then, "ack")) {
		status = coord_job_ack(handle, NULL, NULL);
	} else if (!strcmp(then, "nack") || !strcmp(then, "raise")) {
		status = coord_job_nack(handle, text_of(plan, "failure"),
					text_of(plan, "error"), seconds, NULL, NULL);
	} else if (!strcmp(then, "release")) {
		status = coord_job_release(handle, seconds, NULL, NULL);
	} else if (!strcmp(then, "reply")) {
		payload = bytes_of(json_object_get(plan, "payload"), &n);
		status = coord_job_reply(handle, payload, n, NULL, NULL);
		free(payload);
	}
	return status;
}

static void
on_due(evutil_socket_t fd, short what, void *arg)
{
	struct job *j = arg;

	(void)fd, (void)what;
	if (!strcmp(text_of(j->plan, "then"), "hang"))
		return;
	say_of_job("done", j);
	if (settle(j->handle, j->plan))
		errx(1, "job %ld cannot be settled", j->number);
	job_end(j);
}

static void
job_plan(struct job *j, json_t *plan)
{
	double after = json_number_value(json_object_get(plan, "after"));
	struct timeval tv = { .tv_sec = (time_t)after };

	tv.tv_usec = (suseconds_t)((after - (double)tv.tv_sec) * 1e6);
	json_decref(j->plan);
	j->plan = json_incref(plan);
	event_add(j->timer, &tv);
}

static void
on_job(void *arg, struct coord_job *handle)
{
	struct thing *consumer = arg;
	struct job *j = must(calloc(1, sizeof(*j)));
	json_t *line = event_line("job", consumer->name);

	j->consumer = consumer;
	j->connection = consumer->connection;
	j->handle = handle;
	j->number = ++jobs_so_far;
	j->timer = must(evtimer_new(base, on_due, j));
	snprintf(j->of, sizeof(j->of), "%s", consumer->name);
	TAILQ_INSERT_TAIL(&j->connection->jobs, j, entry);
	json_object_set_new(line, "job", json_integer(j->number));
	json_object_set_new(line, "token", json_string(coord_job_token(handle)));
	json_object_set_new(line, "fence", json_integer(coord_job_fence(handle)));
	json_object_set_new(line, "attempts", json_integer(coord_job_attempts(handle)));
	json_object_set_new(line, "message", hex_of(coord_job_message(handle)));
	say(line);
	coord_job_on_lost(handle, on_lost, j);
	job_plan(j, consumer->plan);
}

static void
do_consume(json_int_t id, json_t *line)
{
	struct thing *agent = text_of(line, "of") ? thing_of(line) : NULL;
	struct connection *c = agent ? agent->connection : connection_of(line);
	struct thing *t = thing_new(c, CONSUMER, line);
	json_t *queue = json_object_get(line, "queue");
	const char *type = json_string_value(json_array_get(queue, 0));
	const char *instance = json_string_value(json_array_get(queue, 1));
	unsigned most = (unsigned)json_integer_value(json_object_get(line, "concurrency"));
	struct coord_params *params = params_of(line);
	struct coord_error err;

	t->agent = agent;
	t->plan = json_incref(json_object_get(line, "plan"));
	if (agent)
		t->as.consumer = coord_agent_consume(agent->as.agent, type, instance, most,
						     params, on_job, t, &err);
	else
		t->as.consumer = coord_client_consume(c->client, type, instance, most, params,
						      on_job, t, &err);
	coord_params_free(params);
	if (t->as.consumer) {
		answer(id, NULL, NULL);
	} else {
		answer(id, NULL, &err);
		thing_free(t);
	}
}

/* A job that is over needs no end. */
static void
do_finish(json_int_t id, json_t *line)
{
	long number = (long)json_integer_value(json_object_get(line, "job"));
	struct connection *c;
	struct job *j, *found = NULL;

	TAILQ_FOREACH (c, &connections, entry)
		TAILQ_FOREACH (j, &c->jobs, entry)
			if (j->number == number)
				found = j;
	if (found)
		job_plan(found, json_object_get(line, "plan"));
	answer(id, NULL, NULL);
}

/* --- lines in ----------------------------------------------------------------------- */

static void
do_line(const char *text)
{
	static const struct {
		const char *name;
		void (*fn)(json_int_t id, json_t *line);
	} commands[] = {
		{ "connect", do_connect }, { "call", do_call },       { "notify", do_notify },
		{ "close", do_close },     { "watch", do_watch },     { "agent", do_agent },
		{ "status", do_set },      { "state", do_set },       { "stop", do_stop },
		{ "request", do_request }, { "consume", do_consume }, { "finish", do_finish },
	};
	json_error_t why;
	json_t *line = json_loads(text, 0, &why);
	const char *name = line ? text_of(line, "do") : NULL;
	size_t i;

	if (!name)
		errx(1, "no line of JSON with a command: %s", why.text);
	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!strcmp(commands[i].name, name)) {
			commands[i].fn(json_integer_value(json_object_get(line, "id")), line);
			json_decref(line);
			return;
		}
	}
	errx(1, "there is no command %s", name);
}

static void
on_input(evutil_socket_t fd, short what, void *arg)
{
	struct evbuffer *input = arg;
	int n = evbuffer_read(input, fd, 1 << 20);
	char *text;

	(void)what;
	if (n < 0 && errno != EAGAIN)
		err(1, "standard input");
	while ((text = evbuffer_readln(input, NULL, EVBUFFER_EOL_LF))) {
		do_line(text);
		free(text);
	}
	if (n == 0)
		event_base_loopbreak(base);
}

int
main(void)
{
	struct evbuffer *input = must(evbuffer_new());
	struct event *readable;

	base = must(event_base_new());
	readable = must(event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, input));
	event_add(readable, NULL);
	event_base_dispatch(base);

	while (!TAILQ_EMPTY(&connections))
		connection_close(TAILQ_FIRST(&connections));
	event_free(readable);
	event_base_free(base);
	evbuffer_free(input);
	return 0;
}
