#ifndef COORDD_API_CALL_H
#define COORDD_API_CALL_H

#include "api/api.h"

/*
 * A request from inside the process: the same roles, rules, fields and answers as of one that comes over a connection.
 */
struct api_call;

/* `code` is n 0 and `result` one MessagePack value; or it was refused, with a code of the protocol and a sentence. All of it is
 * borrowed for the call. */
typedef void api_call_cb(void *arg, struct str code, struct str message, struct str result);

/*
 * Call `method` in namespace `ns` (both unchecked; n 0: the default one) with `params`, one map, as MessagePack. As a viewer,
 * who changes nothing, or as an operator. `cb` runs once, never before this returns, within the deadlines of the store.
 */
struct api_call *api_call(struct api *api, bool as_operator, struct str ns, struct str method,
			  struct str params, api_call_cb *cb, void *arg);
/* `cb` does not run any more; what was asked for may be done all the same. */
void api_call_cancel(struct api_call *call);

#endif
