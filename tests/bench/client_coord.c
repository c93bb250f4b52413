/*
 * client_coord: how many messages a program gets through libcoord.
 *
 *	client_coord URL lifecycle|send async|blocking WINDOW SECONDS
 *
 * WINDOW chains run side by side over one connection. A link of a chain is a message sent, received and acked, one
 * after the other, or only sent. With a window of 1 that is a closed loop. One line of JSON tells
 * what was done; tests/bench/clients runs this and reads that.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "client/coord.h"

#define QUEUE       "bench-queue"
#define BODY_BYTES  256
#define TOKEN_BYTES 128

static struct {
	struct coord_client *client;
	struct coord_params *params; /* of the request that is being made */
	bool only_sends;
	double ends;
	unsigned n_chains;     /* that still run */
	unsigned long started; /* in the ids, since those of another run are remembered */
	unsigned long serial, messages;
} run;

static void
die(const char *what, const struct coord_error *err)
{
	fprintf(stderr, "client_coord: %s: %s\n", what, err ? err->message : "not as expected");
	exit(1);
}

static double
seconds_of(const struct timeval *tv)
{
	return (double)tv->tv_sec + (double)tv->tv_usec / 1e6;
}

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double
cpu(void)
{
	struct rusage use;

	getrusage(RUSAGE_SELF, &use);
	return seconds_of(&use.ru_utime) + seconds_of(&use.ru_stime);
}

/* --- the requests ------------------------------------------------------------ */

static const struct coord_params *
make_send(void)
{
	static char body[BODY_BYTES];
	msgpack_packer *pk;
	char id[40];

	coord_params_clear(run.params);
	coord_param_agent(run.params, "sender", "bench", NULL);
	coord_param_agent(run.params, "recipient", QUEUE, NULL);
	pk = coord_param(run.params, "message");
	msgpack_pack_map(pk, 3);
	coord_pack_str(pk, "message_id");
	snprintf(id, sizeof(id), "%lx-%lu", run.started, ++run.serial);
	coord_pack_str(pk, id);
	coord_pack_str(pk, "message_type");
	coord_pack_str(pk, "request");
	coord_pack_str(pk, "payload");
	msgpack_pack_map(pk, 1);
	coord_pack_str(pk, "body");
	msgpack_pack_bin(pk, sizeof(body));
	msgpack_pack_bin_body(pk, body, sizeof(body));
	return run.params;
}

static const struct coord_params *
make_receive(void)
{
	coord_params_clear(run.params);
	coord_param_agent(run.params, "agent", QUEUE, NULL);
	coord_param_int(run.params, "visibility_timeout", 60);
	return run.params;
}

static const struct coord_params *
make_ack(const msgpack_object *received)
{
	const msgpack_object *token = coord_get(received, "token");
	msgpack_packer *pk;

	if (!token)
		die("receive", NULL);
	coord_params_clear(run.params);
	coord_param_agent(run.params, "agent", QUEUE, NULL);
	pk = coord_param(run.params, "token");
	msgpack_pack_str(pk, token->via.str.size);
	msgpack_pack_str_body(pk, token->via.str.ptr, token->via.str.size);
	return run.params;
}

static const struct coord_params *
make_agent(void)
{
	coord_params_clear(run.params);
	coord_param_agent(run.params, "agent", QUEUE, NULL);
	return run.params;
}

static void
must_be_true(const msgpack_object *value, const char *what)
{
	if (!value || value->type != MSGPACK_OBJECT_BOOLEAN || !value->via.boolean)
		die(what, NULL);
}

/* --- chains of callbacks ----------------------------------------------------- */

static coord_answer_fn on_sent, on_received, on_acked;

static void
ask(const char *method, const struct coord_params *params, coord_answer_fn *fn)
{
	if (coord_client_call(run.client, method, params, -1, fn, NULL))
		die(method, NULL);
}

static void
link_ended(void)
{
	run.messages++;
	if (now() < run.ends)
		ask("send", make_send(), on_sent);
	else if (--run.n_chains == 0)
		coord_client_break(run.client);
}

static void
on_sent(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	(void)arg;
	if (err)
		die("send", err);
	must_be_true(coord_get(result, "delivered"), "send");
	if (run.only_sends)
		link_ended();
	else
		ask("receive", make_receive(), on_received);
}

static void
on_received(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	(void)arg;
	if (err)
		die("receive", err);
	ask("ack", make_ack(result), on_acked);
}

static void
on_acked(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	(void)arg;
	if (err)
		die("ack", err);
	must_be_true(result, "ack");
	link_ended();
}

static void
run_async(unsigned window)
{
	for (run.n_chains = window; window; window--)
		ask("send", make_send(), on_sent);
	coord_client_run(run.client, -1);
}

/* --- what waits -------------------------------------------------------------- */

static struct coord_reply *
wait_for(const char *method, const struct coord_params *params)
{
	struct coord_reply *reply;
	struct coord_error err;

	if (coord_client_ask(run.client, method, params, -1, &reply, &err))
		die(method, &err);
	return reply;
}

static void
run_blocking(void)
{
	struct coord_reply *reply;

	do {
		reply = wait_for("send", make_send());
		must_be_true(coord_get(coord_reply_result(reply), "delivered"), "send");
		coord_reply_free(reply);
		if (!run.only_sends) {
			reply = wait_for("receive", make_receive());
			make_ack(coord_reply_result(reply));
			coord_reply_free(reply);
			reply = wait_for("ack", run.params);
			must_be_true(coord_reply_result(reply), "ack");
			coord_reply_free(reply);
		}
		run.messages++;
	} while (now() < run.ends);
}

/* --- */

/* A queue that takes all that is sent. */
static void
prepare(void)
{
	make_agent();
	coord_param_int(run.params, "queue_size", 1000000000);
	coord_reply_free(wait_for("configure", run.params));
}

/* How many messages are left in the queue; then none. */
static unsigned long
clean_up(void)
{
	struct coord_reply *reply = wait_for("queue_stats", make_agent());
	unsigned long size = coord_get(coord_reply_result(reply), "size")->via.u64;

	coord_reply_free(reply);
	coord_reply_free(wait_for("purge", make_agent()));
	return size;
}

int
main(int argc, char **argv)
{
	struct coord_error err;
	double began, cpu_began, seconds, cpu_used;

	if (argc != 6) {
		fprintf(stderr,
			"client_coord URL lifecycle|send async|blocking WINDOW SECONDS\n");
		return 64;
	}
	run.only_sends = !strcmp(argv[2], "send");
	run.started = ((unsigned long)time(NULL) << 22) + (unsigned long)getpid();
	run.params = coord_params_new();
	run.client = coord_client_new(NULL, argv[1], &err);
	if (!run.client)
		die(argv[1], &err);
	prepare();

	began = now();
	cpu_began = cpu();
	run.ends = began + strtod(argv[5], NULL);
	if (!strcmp(argv[3], "async"))
		run_async((unsigned)strtoul(argv[4], NULL, 10));
	else
		run_blocking();
	seconds = now() - began;
	cpu_used = cpu() - cpu_began;

	printf("{\"messages\": %lu, \"seconds\": %.6f, \"cpu\": %.6f, \"left\": %lu}\n",
	       run.messages, seconds, cpu_used, clean_up());
	coord_client_free(run.client);
	coord_params_free(run.params);
	return 0;
}
