/* Small things that agents, consumers and jobs share. */
#include "client/work.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/frame.h"
#include "proto/mp.h"

/* --- time ---------------------------------------------------------------------------- */

int64_t
work_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

void
alarm_init(struct alarm *t, struct event_base *base, event_callback_fn fn, void *arg)
{
	event_assign(&t->event, base, -1, 0, fn, arg);
	t->is_on = true;
}

void
alarm_done(struct alarm *t)
{
	if (t->is_on)
		event_del(&t->event);
	t->is_on = false;
}

void
alarm_soon(struct alarm *t)
{
	if (t->is_on)
		event_active(&t->event, EV_TIMEOUT, 0);
}

void
alarm_at(struct alarm *t, int64_t at_ms)
{
	int64_t left = at_ms - work_now();
	struct timeval tv;

	if (!t->is_on)
		return;
	if (at_ms == NO_TIME) {
		event_del(&t->event);
		return;
	}
	left = left > 0 ? left : 0;
	tv.tv_sec = left / 1000;
	tv.tv_usec = left % 1000 * 1000;
	if (event_add(&t->event, &tv))
		alarm_soon(t);
}

/* --- pairs --------------------------------------------------------------------------- */

enum coord_status
pairs_copy(struct pairs *to, const struct coord_params *from)
{
	static const struct frame_limits limits = { COORD_MAX_FRAME, COORD_MAX_ELEMENTS };
	enum coord_status status;
	uint32_t count;
	const char *p;
	size_t n, pos = 0;

	*to = (struct pairs){ 0 };
	status = params_raw(from, &p, &n, &count);
	if (status)
		return status;
	for (uint32_t i = 0; i < 2 * count; i++) {
		struct frame_scan scan = { 0 };

		if (frame_scan(&scan, (const uint8_t *)p + pos, n - pos, &limits) != FRAME_OK ||
		    (i % 2 == 0 && mp_type(&(struct mp){ (const uint8_t *)p + pos,
							 (const uint8_t *)p + n }) != MP_STR))
			return COORD_USAGE;
		pos += scan.pos;
	}
	if (pos != n)
		return COORD_USAGE;
	to->data = malloc(n ? n : 1);
	if (!to->data)
		return COORD_MEMORY;
	if (n)
		memcpy(to->data, p, n);
	to->n = n;
	return COORD_OK;
}

void
pairs_done(struct pairs *p)
{
	free(p->data);
	*p = (struct pairs){ 0 };
}

struct str
pairs_get(const struct pairs *p, const char *key)
{
	struct mp m = mp_of((struct str){ p->data, p->n });
	struct str name, value;

	while (mp_read_str(&m, &name)) {
		value = mp_skip(&m);
		if (str_eq(name, str_of(key)))
			return value;
	}
	return (struct str){ NULL, 0 };
}

static bool
is_among(struct str name, const char *const *names)
{
	while (*names && !str_eq(name, str_of(*names)))
		names++;
	return *names != NULL;
}

void
pairs_put(struct coord_params *to, const struct pairs *p, const char *const *but)
{
	struct mp m = mp_of((struct str){ p->data, p->n });
	struct str name, value;
	char key[64];

	while (mp_read_str(&m, &name)) {
		value = mp_skip(&m);
		if (is_among(name, but))
			continue;
		/* A longer one is none that a broker knows; shortened it still is not. */
		if (name.n >= sizeof(key))
			name.n = sizeof(key) - 1;
		memcpy(key, name.p, name.n);
		key[name.n] = '\0';
		coord_pack_raw(coord_param(to, key), value.p, value.n);
	}
}

/* --- values -------------------------------------------------------------------------- */

bool
work_is_value(const void *bytes, size_t n, bool is_map)
{
	static const struct frame_limits limits = { COORD_MAX_FRAME, COORD_MAX_ELEMENTS };
	struct frame_scan scan = { 0 };
	struct mp m = mp_of((struct str){ bytes, n });

	return bytes && frame_scan(&scan, bytes, n, &limits) == FRAME_OK && scan.pos == n &&
	       (!is_map || mp_type(&m) == MP_MAP);
}

bool
work_is_text(const msgpack_object *o, const char *text)
{
	return o && o->type == MSGPACK_OBJECT_STR && o->via.str.size == strlen(text) &&
	       !memcmp(o->via.str.ptr, text, o->via.str.size);
}

bool
work_is_true(const msgpack_object *o)
{
	return o && o->type == MSGPACK_OBJECT_BOOLEAN && o->via.boolean;
}

double
work_number(const msgpack_object *o, double otherwise)
{
	if (o && (o->type == MSGPACK_OBJECT_FLOAT64 || o->type == MSGPACK_OBJECT_FLOAT32))
		return o->via.f64;
	return o && o->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? (double)o->via.u64 : otherwise;
}

int64_t
work_int(const msgpack_object *o, int64_t otherwise)
{
	if (!o || o->type != MSGPACK_OBJECT_POSITIVE_INTEGER || o->via.u64 > INT64_MAX)
		return otherwise;
	return (int64_t)o->via.u64;
}

void
work_ignore(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	(void)arg;
	(void)result;
	(void)err;
}
