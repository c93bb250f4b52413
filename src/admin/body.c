/* Bodies: a JSON object, whose members are parameters of the method. */
#include "admin/own.h"

#include <jansson.h>

#include "proto/mp.h"

enum { MAX_DEPTH = 8 }; /* no parameter is deeper, and a frame may be a few levels more */

static enum err
put_json(struct buf *b, const json_t *v, unsigned depth, struct errmsg *why)
{
	enum err err = OK;
	const char *key;
	json_t *inner;
	size_t i;

	if (depth > MAX_DEPTH)
		return errmsg_set(why, ERR_BAD_REQUEST, "the body is nested deeper than %d",
				  MAX_DEPTH);
	switch (json_typeof(v)) {
	case JSON_NULL:
		mp_put_nil(b);
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		mp_put_bool(b, json_is_true(v));
		break;
	case JSON_INTEGER:
		mp_put_int(b, json_integer_value(v));
		break;
	case JSON_REAL:
		mp_put_double(b, json_real_value(v));
		break;
	case JSON_STRING:
		mp_put_str(b, (struct str){ json_string_value(v), json_string_length(v) });
		break;
	case JSON_ARRAY:
		mp_put_array(b, (uint32_t)json_array_size(v));
		json_array_foreach(v, i, inner)
		{
			err = err ? err : put_json(b, inner, depth + 1, why);
		}
		break;
	case JSON_OBJECT:
		if (depth)
			mp_put_map(b, (uint32_t)json_object_size(v));
		json_object_foreach((json_t *)v, key, inner)
		{
			mp_put_str(b, str_of(key));
			err = err ? err : put_json(b, inner, depth + 1, why);
		}
		break;
	}
	return err;
}

enum err
body_read(struct http_request *req, struct buf *pairs, uint32_t *n, struct errmsg *why)
{
	struct str body = http_body(req);
	json_error_t at;
	json_t *tree;
	enum err err;

	if (!body.n)
		return OK;
	tree = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, &at);
	if (!tree)
		return errmsg_set(why, ERR_BAD_REQUEST, "body:%d:%d: %s", at.line, at.column,
				  at.text);
	if (json_is_object(tree)) {
		err = put_json(pairs, tree, 0, why);
		*n += (uint32_t)json_object_size(tree);
	} else {
		err = errmsg_set(why, ERR_BAD_REQUEST, "the body must be a JSON object");
	}
	json_decref(tree);
	return err;
}
