#ifndef COORDD_LOGLEVEL_H
#define COORDD_LOGLEVEL_H

#include "base/log.h"
#include "base/loop.h"

/* The level of the log: the configured one, or another that an operator has set. */
struct loglevel {
	enum log_level level, configured;
	struct timer back; /* to the configured one */
};

void loglevel_init(struct loglevel *l, struct loop *loop, enum log_level configured);
void loglevel_done(struct loglevel *l);
/* For so long, or with 0 until another one is configured. */
void loglevel_set(struct loglevel *l, enum log_level level, uint64_t for_us, const char *by);
/* One that differs from the one before is in force at once. */
void loglevel_configure(struct loglevel *l, enum log_level configured);
/* Until it is as configured again; 0 where that is not known. */
uint64_t loglevel_left_us(const struct loglevel *l);

#endif
