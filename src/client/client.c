/* A client that connects by itself. */
#include "client/client_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

enum coord_status
client_fail(struct coord_error *err, enum coord_status status, const char *code,
	    const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return status;
	*err = (struct coord_error){ .status = status };
	snprintf(err->code, sizeof(err->code), "%s", code);
	va_start(ap, fmt);
	vsnprintf(err->message, sizeof(err->message), fmt, ap);
	va_end(ap);
	return status;
}

int64_t
client_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

#pragma GCC diagnostic ignored "-Wunused-parameter"

struct coord_client *
coord_client_new(struct event_base *base, const char *urls, struct coord_error *err)
{
	client_fail(err, COORD_MEMORY, "", "not there yet");
	return NULL;
}
void
coord_client_free(struct coord_client *c)
{
}
enum coord_status
coord_client_set(struct coord_client *c, enum coord_option option, const char *text)
{
	return COORD_USAGE;
}
enum coord_status
coord_client_set_int(struct coord_client *c, enum coord_option option, int64_t value)
{
	return COORD_USAGE;
}
void
coord_client_on_state(struct coord_client *c, coord_state_fn *fn, void *arg)
{
}
const char *
coord_client_url(const struct coord_client *c)
{
	return NULL;
}
enum coord_status
coord_client_call(struct coord_client *c, const char *method, const struct coord_params *params,
		  int timeout_ms, coord_answer_fn *fn, void *arg)
{
	return COORD_USAGE;
}
enum coord_status
coord_client_notify(struct coord_client *c, const char *method,
		    const struct coord_params *params)
{
	return COORD_USAGE;
}
size_t
coord_client_pending(const struct coord_client *c)
{
	return 0;
}
struct coord_watch *
coord_client_watch(struct coord_client *c, const char *classes, coord_event_fn *fn, void *arg,
		   struct coord_error *err)
{
	return NULL;
}
void
coord_watch_end(struct coord_watch *watch)
{
}
enum coord_status
coord_client_ask(struct coord_client *c, const char *method, const struct coord_params *params,
		 int timeout_ms, struct coord_reply **reply, struct coord_error *err)
{
	return COORD_USAGE;
}
enum coord_status
coord_client_run(struct coord_client *c, int timeout_ms)
{
	return COORD_USAGE;
}
void
coord_client_break(struct coord_client *c)
{
}
void
client_hook_add(struct coord_client *c, struct client_hook *hook)
{
}
void
client_hook_remove(struct coord_client *c, struct client_hook *hook)
{
}
uint64_t
client_generation(const struct coord_client *c)
{
	return 0;
}
void
client_settled(struct coord_client *c)
{
}
enum coord_status
client_call_here(struct coord_client *c, const char *method, const struct coord_params *params,
		 int timeout_ms, coord_answer_fn *fn, void *arg)
{
	return COORD_AGAIN;
}
enum coord_status
client_call_on(struct coord_client *c, uint64_t generation, const char *method,
	       const struct coord_params *params, int timeout_ms, coord_answer_fn *fn,
	       void *arg)
{
	return COORD_AGAIN;
}
enum coord_status
client_sink_add(struct coord_client *c, struct client_sink *sink, uint64_t generation,
		const msgpack_object *id)
{
	return COORD_CLOSED;
}
void
client_sink_remove(struct coord_client *c, struct client_sink *sink)
{
}
void
client_leave(struct coord_client *c, uint64_t generation)
{
}
struct event_base *
client_base(const struct coord_client *c)
{
	return NULL;
}
void
client_random(void *p, size_t n)
{
}
