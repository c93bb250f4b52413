/*
 * audit: what operators did is kept, with who did it, when, and how it ended.
 *
 *	audit_begin()		dispatch is about to call the handler of such a method
 *	audit_output()		its answer is about to be written
 *	audit_done()		it is written: the result is read from there, and all of it kept
 *	audit_failed()		it was refused: only kept where something may have been changed
 *
 * What is not changed is not kept: an answer of false or 0, and what was refused. Neither are payloads, tokens and settings: only
 * what it was done to. The action never waits for that, and does not fail with it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/session.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/keys.h"

struct audit {
	struct api *api;
	char *values[AUDIT_FIELDS]; /* AUDIT_RESULT is found last */
	uint64_t from;              /* where the answer begins in the connection's output */
};

/* What it is done to, by the fields that say so. */
static char *
target_of(const struct params *p)
{
	struct buf b = { 0 };
	char *target;

	if (p->have & F(agent)) {
		key_put_part(&b, p->agent.type);
		buf_putc(&b, ':');
		key_put_part(&b, p->agent.instance);
	} else if (p->have & F(name)) {
		buf_put(&b, p->name.p, p->name.n);
	} else if (p->have & F(id)) {
		buf_printf(&b, "%" PRIu64, p->id);
	} else if (p->have & F(level)) {
		buf_puts(&b, log_level_names[p->level]);
	}
	target = xmemdup(b.len ? b.data : "", b.len);
	buf_done(&b);
	return target;
}

void
audit_begin(struct session *s, enum method method, const struct params *p)
{
	struct audit *a = xcalloc(1, sizeof(*a));
	char uid_text[16] = "";
	uid_t uid;
	pid_t pid;

	if (conn_credentials(s->conn, &pid, &uid))
		snprintf(uid_text, sizeof(uid_text), "%u", (unsigned)uid);
	a->api = s->api;
	a->from = conn_put_total(s->conn);
	a->values[AUDIT_METHOD] = xstrdup(method_names[method]);
	a->values[AUDIT_TARGET] = target_of(p);
	a->values[AUDIT_NAMESPACE] = xstrdup(s->namespace);
	a->values[AUDIT_PEER] = xstrdup(conn_peer(s->conn));
	a->values[AUDIT_CLIENT] = xstrdup(s->client);
	a->values[AUDIT_UID] = xstrdup(uid_text);
	a->values[AUDIT_BROKER] = xstrdup(s->api->instance_id);
	s->auditing = a;
}

struct buf *
audit_output(struct audit *a, struct session *s, uint32_t msgid)
{
	struct buf *b = s->conn ? conn_output(s->conn) : &s->api->unheard;

	if (!s->conn)
		buf_clear(b);
	a->from = s->conn ? conn_put_total(s->conn) : 0;
	rpc_put_result(b, msgid);
	return b;
}

static void
audit_free(struct audit *a)
{
	for (unsigned i = 0; i < AUDIT_FIELDS; i++)
		free(a->values[i]);
	free(a);
}

static void
audit_keep(struct audit *a, const char *result)
{
	const struct api_config *config = &a->api->config;
	struct str values[AUDIT_FIELDS];

	a->values[AUDIT_RESULT] = xstrdup(result);
	log_event(LOG_OPERATOR_ACTION, log_text("method", a->values[AUDIT_METHOD]),
		  log_text("target", a->values[AUDIT_TARGET]), log_text("result", result),
		  log_text("namespace", a->values[AUDIT_NAMESPACE]),
		  log_text("peer", a->values[AUDIT_PEER]),
		  log_text("client", a->values[AUDIT_CLIENT]));
	for (unsigned i = 0; i < AUDIT_FIELDS; i++)
		values[i] = str_of(a->values[i]);
	if (config->audit)
		operate_audit(a->api->operate, values, config->audit_keep);
	audit_free(a);
}

/* The result in an answer, as one word; false when nothing was changed. */
static bool
result_read(struct str answer, char *word, size_t size)
{
	struct mp m = mp_of(answer);
	uint32_t parts;
	uint64_t n;
	bool yes;

	snprintf(word, size, "ok");
	if (!mp_read_array(&m, &parts) || parts != 4)
		return true; /* too long: part of it has left already */
	for (unsigned i = 0; i < 3; i++)
		mp_skip(&m);
	if (mp_read_bool(&m, &yes)) {
		snprintf(word, size, "true");
		return yes;
	}
	if (mp_read_uint(&m, &n)) {
		snprintf(word, size, "%" PRIu64, n);
		return n;
	}
	return true;
}

void
audit_done(struct audit *a, struct session *s)
{
	const struct buf *b = s->conn ? conn_output(s->conn) : &s->api->unheard;
	char word[24];
	uint64_t n;

	if (!a)
		return;
	n = (s->conn ? conn_put_total(s->conn) : b->len) - a->from;
	if (n > b->len)
		n = 0;
	if (result_read((struct str){ b->data + (b->len - n), n }, word, sizeof(word)))
		audit_keep(a, word);
	else
		audit_free(a);
}

void
audit_failed(struct audit *a, enum err err)
{
	if (!a)
		return;
	if (err == ERR_UNKNOWN || err == ERR_INTERNAL)
		audit_keep(a, err == ERR_UNKNOWN ? "unknown" : "internal");
	else
		audit_free(a);
}

void
audit_nothing(struct session *s)
{
	if (s->auditing)
		audit_free(s->auditing);
	s->auditing = NULL;
}

void
audit_if_answered(struct session *s, enum err err)
{
	struct audit *a = s->auditing;

	s->auditing = NULL;
	if (err)
		audit_failed(a, err);
	else
		audit_done(a, s);
}
