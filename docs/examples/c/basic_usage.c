/*
 * One agent sends another a message, which that one receives and acknowledges.
 *
 *	cc basic_usage.c $(pkg-config --cflags --libs coord) -o basic_usage
 */
#include <coord.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct coord_client *client;

/* Ask and wait. The answer is to be freed; an error ends the program. */
static struct coord_reply *
ask(const char *method, struct coord_params *params)
{
	struct coord_reply *reply;
	struct coord_error err;

	if (coord_client_ask(client, method, params, -1, &reply, &err)) {
		fprintf(stderr, "%s: %s\n", method, err.message);
		exit(1);
	}
	coord_params_free(params);
	return reply;
}

static void
send_text(const char *text, int priority)
{
	static int n;
	char id[64];
	struct coord_params *params = coord_params_new();
	struct coord_reply *reply;
	msgpack_packer *pk;

	/* The same id and payload within a minute is the same message, so each gets an id of its own. */
	snprintf(id, sizeof(id), "basic-%ld-%d", (long)getpid(), n++);
	coord_param_agent(params, "sender", "input_processor", "worker-1");
	coord_param_agent(params, "recipient", "world_builder", "worker-2");
	pk = coord_param(params, "message");
	msgpack_pack_map(pk, 4);
	coord_pack_str(pk, "message_id");
	coord_pack_str(pk, id);
	coord_pack_str(pk, "message_type");
	coord_pack_str(pk, "request");
	coord_pack_str(pk, "priority");
	msgpack_pack_int(pk, priority);
	coord_pack_str(pk, "payload");
	msgpack_pack_map(pk, 1);
	coord_pack_str(pk, "text");
	coord_pack_str(pk, text);

	reply = ask("send", params);
	if (coord_get(coord_reply_result(reply), "delivered")->via.boolean)
		printf("sent '%s': delivered\n", text);
	coord_reply_free(reply);
}

/* The next message is ours for 30 s, and nobody else sees it meanwhile; NULL when there is none. */
static struct coord_reply *
receive(void)
{
	struct coord_params *params = coord_params_new();
	struct coord_reply *reply;

	coord_param_agent(params, "agent", "world_builder", "worker-2");
	coord_param_int(params, "visibility_timeout", 30);
	reply = ask("receive", params);
	if (coord_reply_result(reply)->type != MSGPACK_OBJECT_NIL)
		return reply;
	coord_reply_free(reply);
	return NULL;
}

/* Done: without this it would come again. */
static void
ack(const msgpack_object *received)
{
	struct coord_params *params = coord_params_new();
	const msgpack_object *token = coord_get(received, "token");
	struct coord_reply *reply;

	coord_param_agent(params, "agent", "world_builder", "worker-2");
	msgpack_pack_object(coord_param(params, "token"), *token);
	reply = ask("ack", params);
	if (coord_reply_result(reply)->via.boolean)
		puts("acknowledged");
	coord_reply_free(reply);
}

int
main(void)
{
	const char *url = getenv("COORDCTL_SERVER");
	struct coord_error err;
	struct coord_reply *received;

	client = coord_client_new(NULL, url ? url : "tcp://127.0.0.1:7420", &err);
	if (!client) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	coord_client_set(client, COORD_NAMESPACE, "myapp");

	send_text("a forest", 5);
	send_text("a fire!", 9); /* the most urgent comes first */
	while ((received = receive()) != NULL) {
		const msgpack_object *queued =
			coord_get(coord_reply_result(received), "queue_message");
		const msgpack_object *message = coord_get(queued, "message");
		const msgpack_object *text = coord_get(coord_get(message, "payload"), "text");
		const msgpack_object *from = coord_get(coord_get(message, "sender"), "type");

		printf("received '%.*s' from %.*s\n", (int)text->via.str.size,
		       text->via.str.ptr, (int)from->via.str.size, from->via.str.ptr);
		ack(coord_reply_result(received));
		coord_reply_free(received);
	}
	coord_client_free(client);
	return 0;
}
