/*
 * service: what a service manager is told.
 *
 *	service_note()	another phase: told at once
 *	on_second()	other text; what could not be said; that a stop takes longer
 *	on_watchdog()	alive, if it is so
 *
 * Nothing here waits. What the receiver has no room for is said again a second later; of several phases only the
 * last one then, which is all that matters.
 */
#include "service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/notify.h"

enum {
	SECOND_US = 1000000,
	TRY_AGAIN_US = 100000, /* while we are not alive */
	EXTEND_US =
		30000000, /* more than what comes after the last second of the loop: the end of an embedded Redis */
	TEXT_MAX = 256,
};

struct service {
	struct loop *loop;
	const struct service_ops *ops;
	void *arg;
	struct notify notify;
	enum service_phase phase, told;
	char text[TEXT_MAX]; /* told */
	bool is_stalled;
	struct timer second, watchdog;
};

/* Lines of the message are the receiver's commands: none comes from text that others chose. */
static void
describe(struct service *s, char *out, size_t size)
{
	s->ops->describe(s->arg, out, size);
	for (char *p = out; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
}

/* What comes before the text. */
static void
put_phase(struct service *s, char *out, size_t size)
{
	switch (s->phase) {
	case SERVICE_RUNNING:
		snprintf(out, size, "READY=1\n");
		break;
	case SERVICE_RELOADING:
		snprintf(out, size, "RELOADING=1\nMONOTONIC_USEC=%llu\n",
			 (unsigned long long)loop_clock_us());
		break;
	case SERVICE_STOPPING:
		snprintf(out, size, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%d\n", (int)EXTEND_US);
		break;
	case SERVICE_STARTING:
		break;
	}
}

static void
tell(struct service *s)
{
	char message[2 * TEXT_MAX] = "", text[TEXT_MAX] = "";
	size_t n;

	describe(s, text, sizeof(text));
	if (s->phase != s->told || s->phase == SERVICE_STOPPING)
		put_phase(s, message, sizeof(message));
	n = strlen(message);
	if (strcmp(text, s->text) != 0)
		n += (size_t)snprintf(message + n, sizeof(message) - n, "STATUS=%s", text);
	if (!n || !notify_send(&s->notify, message))
		return;
	s->told = s->phase;
	memcpy(s->text, text, sizeof(text));
}

static void
on_second(void *arg)
{
	struct service *s = arg;

	tell(s);
	timer_set(&s->second, SECOND_US);
}

static void
on_watchdog(void *arg)
{
	struct service *s = arg;
	uint64_t half_us = s->notify.watchdog_us / 2 + 1; /* never at once, however small */

	if (s->ops->is_alive(s->arg)) {
		s->is_stalled = false;
		notify_send(&s->notify, "WATCHDOG=1");
		timer_set(&s->watchdog, half_us);
		return;
	}
	if (!s->is_stalled)
		log_event(LOG_SERVER_STALLED,
			  log_text("reason", "what looks after Redis no longer runs"));
	s->is_stalled = true;
	timer_set(&s->watchdog, half_us < TRY_AGAIN_US ? half_us : TRY_AGAIN_US);
}

void
service_note(struct service *s, enum service_phase phase)
{
	bool is_other;

	/* A start that a reload falls into is still a start. */
	if (phase == SERVICE_RELOADING && s->told == SERVICE_STARTING)
		return;
	is_other = phase != s->phase;
	s->phase = phase;
	if (is_other && service_is_watched(s))
		tell(s);
}

bool
service_is_watched(const struct service *s)
{
	return s->notify.fd >= 0;
}

struct service *
service_new(struct loop *loop, const struct service_ops *ops, void *arg)
{
	struct service *s = xcalloc(1, sizeof(*s));

	s->loop = loop;
	s->ops = ops;
	s->arg = arg;
	notify_open(&s->notify);
	timer_init(&s->second, loop, on_second, s);
	timer_init(&s->watchdog, loop, on_watchdog, s);
	if (service_is_watched(s))
		timer_set(&s->second, 0);
	if (s->notify.watchdog_us)
		timer_set(&s->watchdog, 0);
	return s;
}

void
service_free(struct service *s)
{
	if (!s)
		return;
	timer_done(&s->second);
	timer_done(&s->watchdog);
	notify_close(&s->notify);
	free(s);
}
