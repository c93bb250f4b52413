#ifndef COORDD_TESTS_REDIS_H
#define COORDD_TESTS_REDIS_H

#include <sys/types.h>

/*
 * A redis-server of a test, in a fresh directory, on a Unix socket there and on a TCP port of
 * 127.0.0.1. It dies with the test, however that ends.
 */
struct redis {
	char dir[64], socket[96], url[112];
	int port;
	pid_t pid; /* 0 while none runs */
};

/* Make the directory and choose the port; nothing runs yet. */
void redis_init(struct redis *r);
/* Stop what runs and remove the directory. */
void redis_done(struct redis *r);

/* Start it with more lines of configuration ("" none). What an earlier one saved is there.
 * Returns when it answers. */
void redis_start(struct redis *r, const char *conf);
/* The same, but does not wait until it answers. */
void redis_launch(struct redis *r, const char *conf);
/* SIGKILL, and wait until it is gone. */
void redis_kill(struct redis *r);
/* SIGSTOP and wait until it stands, SIGCONT. */
void redis_pause(struct redis *r);
void redis_resume(struct redis *r);

/*
 * Give it a command (in hiredis's notation) on a connection of its own, and return what it
 * answers as text: elements of arrays separated by blanks, integers in decimal, "(nil)"; errors
 * with their "-". Valid until the next call.
 */
const char *redis_do(struct redis *r, const char *fmt, ...);

#endif
