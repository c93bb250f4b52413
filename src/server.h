#ifndef COORDD_SERVER_H
#define COORDD_SERVER_H

#include "config/config.h"

/*
 * Build all objects from `cfg`, which was read from `source` and is read from there again by each reload, serve until SIGTERM or SIGINT, free in reverse. Returns the exit code
 * (docs/CONFIG.md): 0 after a clean stop, 69 when an address cannot be bound, 70 on an internal failure, 78 when
 * the configuration, or the Redis it names, cannot be served. Its addresses were judged by config_load().
 */
int server_run(struct config *cfg, struct config_source *source);

#endif
