/* list_namespaces, list_connections, close_connection, audit: what is asked of a broker rather than of a queue. */
#include <stdlib.h>

#include "api/encode.h"
#include "api/session.h"
#include "base/mem.h"
#include "proto/mp.h"

enum { LIST_LIMIT = 1000, AUDIT_LIMIT = 50, ANSWER_ROOM = 64 };

/* The rows of an answer: as many as fit max_frame, one at least. */
struct rows {
	size_t room;
	struct buf buf;
	unsigned n;
	size_t begun; /* where the row that is being written begins */
};

static void
rows_init(struct rows *rows, const struct api *api)
{
	*rows = (struct rows){ .room = api->config.max_frame - ANSWER_ROOM };
}

/* A row was appended; false: it does not fit and is gone again. */
static bool
rows_fits(struct rows *rows)
{
	if (rows->n && rows->buf.len > rows->room) {
		rows->buf.len = rows->begun;
		return false;
	}
	rows->begun = rows->buf.len;
	rows->n++;
	return true;
}

static void
rows_answer(struct rows *rows, struct buf *b)
{
	if (b) {
		mp_put_array(b, rows->n);
		mp_put_raw(b, buf_str(&rows->buf));
	}
	buf_done(&rows->buf);
}

/* list_namespaces --------------------------------------------------------------------------------- */

static void
namespaces_done(void *arg, enum err err, const struct namespace_info *infos, unsigned n)
{
	struct request *r = arg;
	struct rows rows;

	if (err) {
		request_fail(r, err);
		return;
	}
	rows_init(&rows, r->session->api);
	for (unsigned i = 0; i < n; i++) {
		mp_put_map(&rows.buf, 4);
		put_text(&rows.buf, "namespace", infos[i].name);
		put_count(&rows.buf, "queues", infos[i].queues);
		put_count(&rows.buf, "agents", infos[i].agents);
		put_count(&rows.buf, "breakers", infos[i].breakers);
		if (!rows_fits(&rows))
			break;
	}
	rows_answer(&rows, request_reply(r));
	request_done(r);
}

enum err
api_list_namespaces(struct session *s, const struct rpc *rpc, struct params *p,
		    struct errmsg *why)
{
	(void)why;
	queues_flush_all(s->api->queues);
	operate_namespaces(s->api->operate, p->have & F(after) ? p->after : STR(""),
			   p->have & F(limit) ? (unsigned)p->limit : LIST_LIMIT,
			   namespaces_done,
			   request_new(s, rpc, METHOD_list_namespaces, STR("")));
	return OK;
}

/* list_connections, close_connection -------------------------------------------------------------- */

static void
put_connection(struct buf *b, const struct session *s, uint64_t now_us)
{
	const struct consumer *c;
	struct conn_info info;
	unsigned consumers = 0;
	pid_t pid = 0;
	uid_t uid = 0;
	bool is_known = conn_credentials(s->conn, &pid, &uid);

	TAILQ_FOREACH (c, &s->consumers, link)
		consumers++;
	conn_info(s->conn, &info);
	mp_put_map(b, 17);
	put_count(b, "id", conn_id(s->conn));
	put_text(b, "peer", str_of(conn_peer(s->conn)));
	put_text(b, "listener", conn_is_unix(s->conn) ? STR("unix") : STR("tcp"));
	mp_put_lit(b, "uid");
	if (is_known)
		mp_put_uint(b, uid);
	else
		mp_put_nil(b);
	put_text_or_nil(b, "client", str_of(s->client));
	put_text(b, "namespace", str_of(s->namespace));
	put_text(b, "role", str_of(role_names[s->role]));
	mp_put_lit(b, "since");
	encode_time(b, now_us - info.age_us);
	put_seconds(b, "idle", info.idle_us);
	put_count(b, "requests", s->asked);
	put_count(b, "in_flight", s->unanswered - s->parked);
	put_count(b, "parked", s->parked);
	put_count(b, "consumers", consumers);
	put_count(b, "watches", s->nwatchers);
	put_count(b, "bytes_in", info.bytes_in);
	put_count(b, "bytes_out", info.bytes_out);
	put_count(b, "buffered", info.buffered);
}

/* Sessions stand in the order of their connections' ids. */
enum err
api_list_connections(struct session *s, const struct rpc *rpc, struct params *p,
		     struct errmsg *why)
{
	uint64_t limit = p->have & F(limit) ? p->limit : LIST_LIMIT,
		 after = p->have & F(after_id) ? p->after_id : 0, now_us = api_time_us(s->api);
	const struct session *each;
	struct rows rows;

	(void)why;
	rows_init(&rows, s->api);
	TAILQ_FOREACH (each, &s->api->sessions, link) {
		if (!each->conn || conn_is_inner(each->conn) || conn_id(each->conn) <= after)
			continue;
		if (rows.n == limit)
			break;
		put_connection(&rows.buf, each, now_us);
		if (!rows_fits(&rows))
			break;
	}
	rows_answer(&rows, session_reply(s, rpc));
	return OK;
}

enum err
api_close_connection(struct session *s, const struct rpc *rpc, struct params *p,
		     struct errmsg *why)
{
	struct session *each, *found = NULL;

	(void)why;
	TAILQ_FOREACH (each, &s->api->sessions, link)
		if (each->conn && !conn_is_inner(each->conn) && conn_id(each->conn) == p->id)
			found = each;
	mp_put_bool(session_reply(s, rpc), found);
	if (found == s)
		conn_finish(s->conn, CONN_END_OPERATOR); /* it still reads this answer */
	else if (found)
		conn_close(found->conn, CONN_END_OPERATOR);
	return OK;
}

/* audit ------------------------------------------------------------------------------------------- */

static void
put_entry(struct buf *b, const struct audit_entry *entry)
{
	mp_put_map(b, 10);
	put_text(b, "id", entry->id);
	mp_put_lit(b, "at");
	encode_time(b, entry->at_us);
	put_text_or_nil(b, "method", entry->values[AUDIT_METHOD]);
	put_text_or_nil(b, "target", entry->values[AUDIT_TARGET]);
	put_text_or_nil(b, "result", entry->values[AUDIT_RESULT]);
	put_text_or_nil(b, "namespace", entry->values[AUDIT_NAMESPACE]);
	put_text_or_nil(b, "peer", entry->values[AUDIT_PEER]);
	put_text_or_nil(b, "client", entry->values[AUDIT_CLIENT]);
	mp_put_lit(b, "uid");
	if (entry->uid >= 0)
		mp_put_uint(b, (uint64_t)entry->uid);
	else
		mp_put_nil(b);
	put_text_or_nil(b, "broker", entry->values[AUDIT_BROKER]);
}

static void
audit_listed(void *arg, enum err err, const struct audit_entry *entries, unsigned n)
{
	struct request *r = arg;
	struct rows rows;

	if (err) {
		request_fail(r, err);
		return;
	}
	rows_init(&rows, r->session->api);
	for (unsigned i = 0; i < n; i++) {
		put_entry(&rows.buf, &entries[i]);
		if (!rows_fits(&rows))
			break;
	}
	rows_answer(&rows, request_reply(r));
	request_done(r);
}

enum err
api_audit(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct str after = p->have & F(after) ? p->after : STR("");

	if (after.n && !audit_id_is_valid(after))
		return errmsg_set(why, ERR_BAD_REQUEST, "after must be an id that audit gave");
	operate_audit_list(s->api->operate, after,
			   p->have & F(limit) ? (unsigned)p->limit : AUDIT_LIMIT, audit_listed,
			   request_new(s, rpc, METHOD_audit, STR("")));
	return OK;
}
