#ifndef COORDD_STORE_BELL_H
#define COORDD_STORE_BELL_H

#include "store/link.h"

/*
 * The subscribed connection: what scripts PUBLISH for this broker (docs/REDIS.md, "Bells"). A ring may be lost while
 * it is away, so whoever waits looks again by himself now and then; it only makes that rarely necessary.
 */
struct bell;

struct bell_ops {
	/* The name of a queue with something for this broker, borrowed; empty: a setting was made. */
	void (*on_ring)(void *arg, struct str name);
	/* Something happened in a namespace (encoded, borrowed). */
	void (*on_event)(void *arg, struct str ns);
	/* It is heard (again): what rang before was missed. */
	void (*on_open)(void *arg);
};

/* Silent until bell_follow(). `own` names this broker: `PREFIX:bell:OWN` is heard, and `PREFIX:bell`; `cfg` as for link_new(). */
struct bell *bell_new(struct loop *loop, const struct link_config *cfg, const char *own,
		      const struct bell_ops *ops, void *arg);
/* The link is ready (again), at `host`: connect there on the next turn, also where an old connection seems to live, and keep at it. */
void bell_follow(struct bell *bell, const char *host);
/* As link_set_config(); a new name and password serve for the next connection. */
void bell_set_config(struct bell *bell, const struct link_config *cfg);
void bell_free(struct bell *bell);

#endif
