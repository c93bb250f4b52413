#ifndef COORDD_SERVICE_H
#define COORDD_SERVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/loop.h"

/*
 * What a service manager is told of us: ready, reloading, stopping, a line of text for people, and
 * that we are alive (docs/OPERATIONS.md, "Under systemd"). Without one nothing happens.
 */
struct service;

enum service_phase { SERVICE_STARTING, SERVICE_RUNNING, SERVICE_RELOADING, SERVICE_STOPPING };

struct service_ops {
	/* The line for people: "ready, 44 clients, redis up". */
	void (*describe)(void *arg, char *out, size_t size);
	/* Whether what must come again and again does come. While it does not, the watchdog hears nothing. */
	bool (*is_alive)(void *arg);
};

/* Looks into the environment, and takes out of it what was meant for us. */
struct service *service_new(struct loop *loop, const struct service_ops *ops, void *arg);
void service_free(struct service *service);
/* Whether a service manager listens. */
bool service_is_watched(const struct service *service);
/* The phase, or what describe() says, has changed. The phase is told at once, text of the same phase
 * within a second. */
void service_note(struct service *service, enum service_phase phase);

#endif
