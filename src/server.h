#ifndef COORDD_SERVER_H
#define COORDD_SERVER_H

#include "config/config.h"

/*
 * Build all objects from `cfg`, serve until SIGTERM or SIGINT, free in reverse. Returns the exit code
 * (docs/CONFIG.md): 0 after a clean stop, 69 when an address cannot be bound, 70 on an internal failure, 78 when
 * the configuration, or the Redis it names, cannot be served. Its addresses were judged by config_load().
 */
int server_run(const struct config *cfg);

#endif
