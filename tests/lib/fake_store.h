#ifndef COORDD_TESTS_FAKE_STORE_H
#define COORDD_TESTS_FAKE_STORE_H

#include "store/store.h"

/*
 * A store in memory, for tests of what stands above src/store: it keeps the contract of
 * store.h, and what a script does the test's handler does. Callbacks run on the next turn of
 * the loop, in the order of the calls.
 */
struct fake_store;

struct fake_store *fake_store_new(struct loop *loop);
/* Calls that were not answered yet are answered ERR_UNKNOWN, as link_free() does. */
void fake_store_free(struct fake_store *f);
/* What store_run() and the others take. */
struct store *fake_store_store(struct fake_store *f);

struct fake_call {
	enum script script;
	unsigned nkeys, n;      /* `args` are n, the first `nkeys` of them keys */
	const struct str *args; /* die with the handler */
};
/* Do what the script does and return what it answers, made by one of the following. */
typedef struct reply *
fake_handler(void *arg, struct fake_store *f, const struct fake_call *call);
/* Without one every call answers nil. */
void fake_store_on_call(struct fake_store *f, fake_handler *fn, void *arg);

/* These live until the call's callback returned. An array takes `count` struct reply pointers.
 */
struct reply *fake_reply_nil(struct fake_store *f);
struct reply *fake_reply_int(struct fake_store *f, int64_t v);
struct reply *fake_reply_str(struct fake_store *f, struct str s); /* a copy */
struct reply *fake_reply_array(struct fake_store *f, unsigned count, ...);
/* The call fails so, whatever the store was told before. */
struct reply *fake_reply_err(struct fake_store *f, enum err err);

/*
 * Fail the nth call from now (1 is the next). The handler does not see a call that is refused
 * or never sent; after ERR_UNKNOWN it did its work and nobody learns of it; with ERR_INTERNAL
 * there is an error text.
 */
void fake_store_fail_at(struct fake_store *f, unsigned nth, enum err err);
/* Whether the call that was to fail was made. */
bool fake_store_has_failed(const struct fake_store *f);
/* Calls made since the last reset. */
unsigned fake_store_calls(const struct fake_store *f);
/* Forget counts and what was to fail. */
void fake_store_reset(struct fake_store *f);

/* While false, calls are answered ERR_UNSENT. True at first. */
void fake_store_set_ready(struct fake_store *f, bool is_ready);
/* While true, no call is handled or answered. */
void fake_store_hold(struct fake_store *f, bool is_held);
/* Redis's clock: it stands at 1,800,000,000 s until it is moved. */
void fake_store_set_time(struct fake_store *f, uint64_t redis_us);

#endif
