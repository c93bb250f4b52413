#ifndef COORDD_STORE_EMBEDDED_H
#define COORDD_STORE_EMBEDDED_H

#include "base/err.h"
#include "base/loop.h"

/*
 * A private redis-server as a child: on a Unix socket only, append-only, noeviction. Watched (restarted
 * with backoff when it dies) and stopped with coordd; it dies with coordd too (PR_SET_PDEATHSIG).
 * Its configuration goes in on stdin, so nothing shows in `ps`.
 */
struct embedded_config {
	const char *binary; /* redis-server */
	const char *
		directory; /* created 0700 when missing; a lock file keeps a second coordd out */
	const char *socket;      /* "" means DIRECTORY/redis.sock; at most 107 bytes */
	const char *appendfsync; /* always, everysec, no */
	uint64_t maxmemory;      /* bytes, 0 none */
};
struct embedded;

/* Start it; does not wait until it answers. NULL and `why` when the directory, lock or binary fail. */
struct embedded *
embedded_new(struct loop *loop, const struct embedded_config *cfg, struct errmsg *why);
/* Its URL for link_config; lives as long as `embedded`. */
const char *embedded_url(const struct embedded *embedded);
/* SIGTERM, wait until it is gone (its last write is synced), at most 10 s, then SIGKILL. Blocks: for the exit. */
void embedded_free(struct embedded *embedded);

#endif
