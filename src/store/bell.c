/*
 * bell: the subscribed connection.
 *
 *	bell_follow()		where the link is
 *	bell_connect()		a fresh context  <-.
 *	on_connected()		who am I, subscribe  |
 *	on_message()		it rings             |
 *	bell_lost()		wait, and again    --'
 *
 * It rings rarely, so hiredis's own adapter and reply objects do; link.c has the fast ones.
 */
#include "store/bell.h"

#include <hiredis/async.h>
#include <stdlib.h>
#include <string.h>

#include "base/backoff.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/address.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <hiredis/adapters/libevent.h>
#pragma GCC diagnostic pop

struct bell {
	struct loop *loop;
	struct address address;
	char *host; /* where the link is; NULL: it is nowhere yet */
	char *prefix, *own;
	const struct bell_ops *ops;
	void *arg;
	redisAsyncContext *ac;
	struct backoff backoff;
	struct timer again;
};

static void
bell_lost(struct bell *b, const char *why)
{
	b->ac = NULL; /* hiredis frees it */
	log_event(LOG_REDIS_BELL_LOST, log_text("error", why));
	timer_set(&b->again, backoff_next(&b->backoff));
}

static void
on_message(redisAsyncContext *ac, void *r, void *arg)
{
	struct bell *b = ac->data;
	const redisReply *reply = r;

	(void)arg;
	if (!b || !reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
	    !reply->element[0]->str)
		return;
	if (!strcmp(reply->element[0]->str, "subscribe")) {
		backoff_reset(&b->backoff);
		b->ops->on_open(b->arg);
	} else if (!strcmp(reply->element[0]->str, "message") && reply->element[2]->str) {
		struct str what = { reply->element[2]->str, (size_t)reply->element[2]->len };

		/* The name of a queue has two colons; this is no queue's in a namespace e, then. */
		if (what.n > 2 && !memcmp(what.p, "e:", 2) &&
		    !memchr(what.p + 2, ':', what.n - 2))
			b->ops->on_event(b->arg, (struct str){ what.p + 2, what.n - 2 });
		else
			b->ops->on_ring(b->arg, what);
	}
}

static void
on_connected(const redisAsyncContext *ac, int status)
{
	struct bell *b = ac->data;

	if (!b)
		return;
	if (status != REDIS_OK) {
		bell_lost(b, ac->errstr);
		return;
	}
	if (*b->address.password && *b->address.user)
		redisAsyncCommand(b->ac, NULL, NULL, "AUTH %s %s", b->address.user,
				  b->address.password);
	else if (*b->address.password)
		redisAsyncCommand(b->ac, NULL, NULL, "AUTH %s", b->address.password);
	redisAsyncCommand(b->ac, on_message, NULL, "SUBSCRIBE %s:bell %s:bell:%s", b->prefix,
			  b->prefix, b->own);
}

static void
on_disconnected(const redisAsyncContext *ac, int status)
{
	struct bell *b = ac->data;

	(void)status;
	if (b)
		bell_lost(b, *ac->errstr ? ac->errstr : "connection closed");
}

static void
bell_connect(void *arg)
{
	struct bell *b = arg;

	b->ac = b->address.is_unix ? redisAsyncConnectUnix(b->host)
				   : redisAsyncConnect(b->host, b->address.port);
	if (!b->ac || b->ac->err) {
		if (b->ac)
			redisAsyncFree(b->ac);
		bell_lost(b, "cannot connect");
		return;
	}
	b->ac->data = b;
	redisLibeventAttach(b->ac, loop_base(b->loop));
	redisAsyncSetConnectCallback(b->ac, on_connected);
	redisAsyncSetDisconnectCallback(b->ac, on_disconnected);
}

struct bell *
bell_new(struct loop *loop, const struct link_config *cfg, const char *own,
	 const struct bell_ops *ops, void *arg)
{
	struct bell *b = xcalloc(1, sizeof(*b));

	b->loop = loop;
	b->prefix = xstrdup(cfg->key_prefix);
	b->own = xstrdup(own);
	b->ops = ops;
	b->arg = arg;
	address_read(&b->address, cfg->url, NULL);
	bell_set_config(b, cfg);
	timer_init(&b->again, loop, bell_connect, b);
	return b;
}

static void
drop_context(struct bell *b)
{
	if (b->ac) {
		b->ac->data = NULL;
		redisAsyncFree(b->ac);
	}
	b->ac = NULL;
}

void
bell_follow(struct bell *b, const char *host)
{
	free(b->host);
	b->host = xstrdup(host);
	drop_context(b);
	timer_set(&b->again, 0);
}

void
bell_set_config(struct bell *b, const struct link_config *cfg)
{
	b->backoff.min_us = cfg->reconnect_min_us;
	b->backoff.max_us = cfg->reconnect_max_us;
	address_log_in(&b->address, cfg->url, cfg->username, cfg->password);
}

void
bell_free(struct bell *b)
{
	if (!b)
		return;
	timer_done(&b->again);
	drop_context(b);
	address_done(&b->address);
	free(b->host);
	free(b->prefix);
	free(b->own);
	free(b);
}
