#ifndef COORDD_EVENTS_OWN_H
#define COORDD_EVENTS_OWN_H

#include "events/events.h"

/* Inside src/events only. */
struct events {
	struct loop *loop;
	struct store *store;
	char *prefix;           /* of all keys */
	struct reader *readers; /* by namespace */
	struct timer second;
};

#endif
