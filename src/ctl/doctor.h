#ifndef COORDD_CTL_DOCTOR_H
#define COORDD_CTL_DOCTOR_H

#include "config/config.h"
#include "ctl/ctl.h"
#include "store/address.h"

/* coordctl doctor: what its parts share. */
struct doctor {
	struct ctl *ctl;
	json_t *rows; /* what was looked at, in order */
	unsigned findings;
	struct config cfg;  /* the defaults where there is no file */
	bool has_file;      /* cfg is from one */
	json_t *status;     /* of the broker; NULL: it does not answer */
	double asked_s;     /* our clock then, seconds since 1970 */
	bool has_redis_url; /* `redis` is where Redis is */
	struct address redis;
};

/* It was looked at and is fine, or needs attention and `fix` says how that is done. */
void doctor_ok(struct doctor *d, const char *area, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void doctor_find(struct doctor *d, const char *area, const char *fix, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Our clock, seconds since 1970. */
double doctor_now_s(void);

/* doctor_redis.c: persistence, eviction and clock of Redis, asked directly or as the broker knows it. */
void doctor_look_at_redis(struct doctor *d);
/* doctor_host.c: what the host gives them. */
void doctor_look_at_sockets(struct doctor *d);
void doctor_look_at_host(struct doctor *d);

#endif
