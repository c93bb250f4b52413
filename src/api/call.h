#ifndef COORDD_API_CALL_H
#define COORDD_API_CALL_H

#include <sys/types.h>

#include "api/api.h"

/*
 * A request from inside the process: the same roles, rules, fields and answers as of one that comes over a connection.
 */
struct api_call;

/* `code` is n 0 and `result` one MessagePack value; or it was refused, with a code of the protocol and a sentence. All of it is
 * borrowed for the call. */
typedef void api_call_cb(void *arg, struct str code, struct str message, struct str result);

/* Who asks, and for what. */
struct api_call_how {
	bool as_operator;     /* or as a viewer, who changes nothing */
	const char *peer;     /* of whom it is done, for the audit */
	uid_t uid;            /* the same; (uid_t)-1 when nobody knows */
	struct str namespace; /* unchecked; n 0: the default one */
	struct str method;    /* likewise */
};

/*
 * Call a method with `params`, one map, as MessagePack; all of it is borrowed for the call. `cb` runs once, never before
 * this returns, within the deadlines of the store.
 */
struct api_call *api_call(struct api *api, const struct api_call_how *how, struct str params,
			  api_call_cb *cb, void *arg);
/* `cb` does not run any more; what was asked for may be done all the same. */
void api_call_cancel(struct api_call *call);

#endif
