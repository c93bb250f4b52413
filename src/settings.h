#ifndef COORDD_SETTINGS_H
#define COORDD_SETTINGS_H

#include "own.h"

/*
 * The configuration as each object takes it: at the start when it is made, and after a reload. What is new in the
 * configuration and in an object comes in here, once. Texts in the results belong to the configuration.
 */
struct conn_limits settings_conns(const struct config *cfg);
struct queue_policy settings_queues(const struct config *cfg);
struct registry_config settings_registry(const struct config *cfg);
struct breaker_config settings_breakers(const struct config *cfg);
struct api_config settings_api(const struct config *cfg);
struct admin_config settings_admin(const struct config *cfg);
struct metrics_config settings_metrics(const struct config *cfg);
struct log_config settings_log(const struct config *cfg);
/* What holds for queues and breakers where nobody has set anything, with the overrides, goes to them. */
void settings_policies(struct server *srv);
/* Of srv->cfg, and of the embedded Redis where there is one. */
struct link_config settings_link(const struct server *srv);

/* As many descriptors as we may have, and a word in the log when they are too few. */
void settings_descriptors(const struct config *cfg);

/* srv->cfg has changed: every object gets what is its own. Cannot fail. The log is the caller's. */
void settings_apply(struct server *srv);

#endif
