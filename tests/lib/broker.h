#ifndef COORDD_TESTS_BROKER_H
#define COORDD_TESTS_BROKER_H

#include <sys/types.h>

#include "lib/redis.h"

/*
 * A coordd of a test ($COORDD, or the release build), on a Unix socket in the directory of its Redis.
 * It dies with the test, however that ends.
 */
struct broker {
	char socket[112], url[128], log[112], redis[128];
	pid_t pid; /* 0 while none runs */
};

/* Nothing runs yet. `name` is of its files. */
void broker_init(struct broker *b, const struct redis *r, const char *name);
/* Returns when it answers. `setting` is one of --set, or NULL. */
void broker_start(struct broker *b, const char *setting);
/* SIGKILL, or SIGTERM, and wait until it is gone. */
void broker_kill(struct broker *b);
void broker_stop(struct broker *b);
/* SIGSTOP and wait until it stands, SIGCONT. */
void broker_pause(struct broker *b);
void broker_resume(struct broker *b);

#endif
