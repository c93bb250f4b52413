#ifndef COORDD_RELOAD_H
#define COORDD_RELOAD_H

#include <stdint.h>

#include "config/config.h"

struct server;

/* How reading the configuration again went, so far. */
struct reloads {
	uint64_t
		ok_us; /* when the configuration in force was read: seconds since 1970, times a million */
	char *problem; /* of the last one: the first error, or NULL */
};

/* The time of day, for reloads.ok_us. */
uint64_t reload_time_us(void);

/*
 * Read all sources of the configuration again, and put it in force as a whole: every object gets its new values, and no
 * connection, request or receiver notices. `by` is who asks, for the log. `cb` (may be NULL) is told of each value that differs.
 *
 * ERR_BAD_REQUEST and the reasons in `why`: something in it is wrong, or a value that needs a restart has
 * changed. Then all stays as it was, and one line in the log says so. `why` may hold warnings either way.
 */
enum err server_reload(struct server *srv, const char *by, struct config_errors *why,
		       config_change_cb *cb, void *arg);
/* What that would change, those values that need a restart included; nothing is done. */
enum err server_reload_diff(struct server *srv, struct config_errors *why, config_change_cb *cb,
			    void *arg);

#endif
