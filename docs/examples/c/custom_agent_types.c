/*
 * Agents of your own types: a line of text passes through three of them and comes back as a story.
 *
 *	cc custom_agent_types.c $(pkg-config --cflags --libs coord) -o custom_agent_types
 *
 * A type is any string. All of it runs on one loop, that of the client; nothing here waits. A program with a libevent loop of its own
 * gives that to coord_client_new().
 */
#include <coord.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READER  "input_processor"
#define BUILDER "world_builder"
#define WRITER  "narrative_generator"

static struct coord_client *client;
static struct coord_agent *reader, *builder, *writer, *player;
static int stopping;

static void
fail(const char *what, const struct coord_error *err)
{
	fprintf(stderr, "%s: %s\n", what, err ? err->message : "no memory");
	exit(1);
}

/* A map of one text, as payloads are here. */
static void
pack_text(msgpack_sbuffer *buffer, const char *key, const char *text)
{
	msgpack_packer pk;

	msgpack_sbuffer_init(buffer);
	msgpack_packer_init(&pk, buffer, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1);
	coord_pack_str(&pk, key);
	coord_pack_str(&pk, text);
}

static void
copy_text(char *to, size_t size, const msgpack_object *payload, const char *key)
{
	const msgpack_object *text = coord_get(payload, key);

	snprintf(to, size, "%.*s", text ? (int)text->via.str.size : 0,
		 text ? text->via.str.ptr : "");
}

static void
request(struct coord_agent *from, const char *type, const char *instance, const char *key,
	const char *text, coord_answer_fn *fn, void *arg)
{
	msgpack_sbuffer payload;

	pack_text(&payload, key, text);
	if (coord_agent_request(from, type, instance, payload.data, payload.size, 10000, fn,
				arg))
		fail(type, NULL);
	msgpack_sbuffer_destroy(&payload);
}

/* What a handler replies goes back to whoever asked, and the message is acknowledged. */
static void
reply(struct coord_job *job, const char *key, const char *text)
{
	msgpack_sbuffer payload;

	pack_text(&payload, key, text);
	if (coord_job_reply(job, payload.data, payload.size, NULL, NULL))
		fail("reply", NULL);
	msgpack_sbuffer_destroy(&payload);
}

/* --- the world builder, and the writer ----------------------------------------- */

static void
build(void *arg, struct coord_job *job)
{
	char place[100], world[200];

	(void)arg;
	copy_text(place, sizeof(place), coord_job_payload(job), "place");
	snprintf(world, sizeof(world), "the %s in the rain", place);
	reply(job, "world", world);
}

static void
write_story(void *arg, struct coord_job *job)
{
	char plot[200], story[300];

	(void)arg;
	copy_text(plot, sizeof(plot), coord_job_payload(job), "plot");
	snprintf(story, sizeof(story), "Once upon a time %s.", plot);
	reply(job, "story", story);
}

/* --- the reader, which asks both, one after the other -------------------------- */

static void
on_story(void *arg, const msgpack_object *answer, const struct coord_error *err)
{
	char story[300];

	if (err) { /* it is tried again: as a delivery that failed */
		coord_job_nack(arg, NULL, err->message, -1, NULL, NULL);
		return;
	}
	copy_text(story, sizeof(story), coord_get(answer, "payload"), "story");
	reply(arg, "story", story);
}

static void
on_world(void *arg, const msgpack_object *answer, const struct coord_error *err)
{
	char text[100], world[200], plot[400];

	if (err) {
		coord_job_nack(arg, NULL, err->message, -1, NULL, NULL);
		return;
	}
	copy_text(text, sizeof(text), coord_job_payload(arg), "text");
	copy_text(world, sizeof(world), coord_get(answer, "payload"), "world");
	snprintf(plot, sizeof(plot), "a %.*s came to %s", (int)strcspn(text, " "), text, world);
	request(reader, WRITER, "w1", "plot", plot, on_story, arg);
}

static void
read_text(void *arg, struct coord_job *job)
{
	char text[100];

	(void)arg;
	copy_text(text, sizeof(text), coord_job_payload(job), "text");
	request(reader, BUILDER, "b1", "place", strrchr(text, ' ') + 1, on_world, job);
}

/* --- the player, who asks for it all ------------------------------------------- */

static void
on_stopped(void *arg, const struct coord_error *why)
{
	(void)why;
	coord_agent_free(arg);
	if (--stopping == 0)
		coord_client_break(client);
}

static void
on_answer(void *arg, const msgpack_object *answer, const struct coord_error *err)
{
	struct coord_agent *all[] = { reader, builder, writer, player };
	char story[300];

	(void)arg;
	if (err)
		fail("no story", err);
	copy_text(story, sizeof(story), coord_get(answer, "payload"), "story");
	puts(story);
	for (stopping = 0; stopping < 4; stopping++)
		coord_agent_stop(all[stopping], 5000, on_stopped, all[stopping]);
}

/* Who of the world builders is there, and what do they know? Then ask for a story. */
static void
on_builders(void *arg, const msgpack_object *agents, const struct coord_error *err)
{
	(void)arg;
	if (err)
		fail("list_registered", err);
	for (uint32_t i = 0; i < agents->via.array.size; i++) {
		const msgpack_object *knows =
			coord_get(&agents->via.array.ptr[i], "capabilities");

		for (uint32_t j = 0; j < knows->via.array.size; j++)
			printf("%s %.*s", j ? " and" : "a world builder knows",
			       (int)knows->via.array.ptr[j].via.str.size,
			       knows->via.array.ptr[j].via.str.ptr);
		puts("");
	}
	request(player, READER, "r1", "text", "wolf seeks castle", on_answer, NULL);
}

static void
on_registered(void *arg, enum coord_agent_event event, const msgpack_object *result,
	      const struct coord_error *err)
{
	struct coord_params *params = coord_params_new();

	(void)arg;
	(void)result;
	if (event == COORD_AGENT_ERROR)
		fail("register", err);
	coord_param_str(params, "type", BUILDER);
	if (event == COORD_AGENT_REGISTERED)
		coord_client_call(client, "list_registered", params, -1, on_builders, NULL);
	coord_params_free(params);
}

static struct coord_agent *
agent_new(const char *type, const char *instance, const struct coord_params *registration,
	  coord_handler_fn *fn)
{
	struct coord_error err;
	struct coord_agent *agent = coord_agent_new(client, type, instance, registration, &err);

	if (!agent || (fn && !coord_agent_consume(agent, NULL, NULL, 1, NULL, fn, NULL, &err)))
		fail(type, &err);
	return agent;
}

int
main(void)
{
	const char *url = getenv("COORDCTL_SERVER");
	struct coord_params *registration;
	struct coord_error err;
	msgpack_packer *pk;

	client = coord_client_new(NULL, url ? url : "tcp://127.0.0.1:7420", &err);
	if (!client)
		fail("coordd", &err);
	coord_client_set(client, COORD_NAMESPACE, "story");

	registration = coord_params_new();
	pk = coord_param(registration, "capabilities");
	msgpack_pack_array(pk, 2);
	coord_pack_str(pk, "forests");
	coord_pack_str(pk, "castles");
	reader = agent_new(READER, "r1", NULL, read_text);
	writer = agent_new(WRITER, "w1", NULL, write_story);
	player = agent_new("player", NULL, NULL, NULL);
	builder = agent_new(BUILDER, "b1", registration, build);
	coord_agent_on_change(builder, on_registered, NULL);
	coord_params_free(registration);
	coord_client_run(client, -1);
	coord_client_free(client);
	return 0;
}
