#include <check.h>
#include <jansson.h>
#include <stdlib.h>

#include "../lib/pack.h"
#include "admin/own.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

/* --- JSON ---------------------------------------------------------------------- */

static void
check_json(const char *value, const char *json, bool hides_payloads)
{
	struct json_how how = { .hides_payloads = hides_payloads };
	struct buf in = packed(value), out = { 0 };
	struct mp m = mp_of(buf_str(&in));

	json_put(&out, &m, &how);
	ck_assert(m.p == m.end);
	buf_putc(&out, '\0');
	ck_assert_str_eq(out.data, json);
	buf_done(&out);
	buf_done(&in);
}

START_TEST(each_value_has_its_json)
{
	static const char *const pairs[][2] = {
		{ "nil", "null" },
		{ "[true, false, [], {}]", "[true,false,[],{}]" },
		{ "[0, -1, 127, 65536, -32769]", "[0,-1,127,65536,-32769]" },
		{ "[9007199254740992, 9007199254740993]",
		  "[9007199254740992,\"9007199254740993\"]" },
		{ "[-9007199254740992, -9007199254740993]",
		  "[-9007199254740992,\"-9007199254740993\"]" },
		{ "18446744073709551615", "\"18446744073709551615\"" },
		{ "[0.1, 1.5, f0.5, 100.0, nan, inf]", "[0.1,1.5,0.5,100,null,null]" },
		{ "{'a': {'b': [1]}, 'c': nil}", "{\"a\":{\"b\":[1]},\"c\":null}" },
		{ "b'ok'", "\"ok\"" },
		{ "b'\\xff\\xfe'", "{\"base64url\":\"__4\"}" },
		{ "<d6 05 01 02 03 04>", "{\"ext\":5,\"base64url\":\"AQIDBA\"}" },
		{ "<c7 02 ff 01 02>", "{\"ext\":-1,\"base64url\":\"AQI\"}" },
		{ "<c8 00 01 7f 00>", "{\"ext\":127,\"base64url\":\"AA\"}" },
		{ "<c7 00 01>", "{\"ext\":1,\"base64url\":\"\"}" },
		{ "{1: 2, nil: 3, b'k': 4}", "{\"1\":2,\"null\":3,\"\\\"k\\\"\":4}" },
		{ "[{'\\xff': 1, 'a': 2}, 3]",
		  "[{\"{\\\"base64url\\\":\\\"_w\\\"}\":1,\"a\":2},3]" },
		{ "{[4]: 1, {{1: 2}: 3}: 4}", "{\"{\\\"base64url\\\":\\\"kQQ\\\"}\":1,"
					      "\"{\\\"base64url\\\":\\\"gYEBAgM\\\"}\":4}" },
	};

	for (size_t i = 0; i < N(pairs); i++)
		check_json(pairs[i][0], pairs[i][1], false);
}
END_TEST

START_TEST(a_text_can_neither_end_its_quotes_nor_be_html)
{
	check_json("'a\"b\\x5cc'", "\"a\\\"b\\\\c\"", false);
	check_json("'\\x00\\x1b\\x0a\\x7f'", "\"\\u0000\\u001b\\n\\u007f\"", false);
	check_json("'</script>&'", "\"\\u003c/script\\u003e\\u0026\"", false);
	check_json("'\\xc2\\x85\\xe2\\x80\\xa8\\xe2\\x80\\xa9\\xc3\\xa9'",
		   "\"\\u0085\\u2028\\u2029\xc3\xa9\"", false);
}
END_TEST

/* Every string of two bytes comes back from a reader of JSON. */
START_TEST(every_text_is_read_back)
{
	for (unsigned i = 0; i < 65536; i++) {
		char text_of[2] = { (char)(i >> 8), (char)i };
		struct str s = { text_of, 2 };
		struct buf out = { 0 };
		json_t *tree, *value;

		buf_putc(&out, '[');
		json_put_str(&out, s);
		buf_putc(&out, ']');
		tree = json_loadb(out.data, out.len, JSON_ALLOW_NUL, NULL);
		value = json_array_get(tree, 0);
		if (!(str_is_utf8(s) ? json_string_length(value) == 2 &&
					       memcmp(json_string_value(value), text_of, 2) == 0
				     : json_is_object(value)))
			ck_abort_msg("%04x", i);
		json_decref(tree);
		buf_done(&out);
	}
}
END_TEST

START_TEST(payloads_of_messages_are_hidden_and_nothing_else)
{
	const char *value = "{'payload': 1, 'message': {'id': 'x', 'payload': {'a': [1, 2]}, "
			    "'k': {'payload': 2}}}";

	check_json(value,
		   "{\"payload\":1,\"message\":{\"id\":\"x\",\"payload_bytes\":6,\"k\":{"
		   "\"payload\":2}}}",
		   true);
	check_json(value,
		   "{\"payload\":1,\"message\":{\"id\":\"x\",\"payload\":{\"a\":[1,2]},\"k\":{"
		   "\"payload\":2}}}",
		   false);
}
END_TEST

/* --- routes -------------------------------------------------------------------- */

static struct route_match match;
static struct query query;
static struct buf text;
static struct errmsg why;
static char allow[64];

static const struct route *
find(const char *verb, const char *path)
{
	buf_clear(&text);
	buf_reserve(&text, 2 * strlen(path) + 1024);
	return route_find(verb, str_of(path), &match, allow, &text, &why);
}

static enum err
read_query(const char *verb, const char *path, const char *raw)
{
	const struct route *route = find(verb, path);

	ck_assert(route != NULL);
	return query_read(&query, route, str_of(raw), &text, &why);
}

START_TEST(every_route_is_found_by_its_own_path_alone)
{
	for (unsigned i = 0; i < ROUTES; i++) {
		ck_assert_ptr_eq(find(routes[i].verb, routes[i].path), &routes[i]);
		ck_assert(strstr(allow, routes[i].verb) != NULL);
		for (unsigned j = 0; j < i; j++)
			ck_assert(strcmp(routes[i].verb, routes[j].verb) ||
				  strcmp(routes[i].path, routes[j].path));
		/* What it asks of the tables makes sense. */
		ck_assert(routes[i].access != ROUTE_WRITE || strcmp(routes[i].verb, "GET"));
		ck_assert(*routes[i].method || routes[i].shape == SHAPE_OWN);
	}
}
END_TEST

START_TEST(what_a_path_names_is_decoded)
{
	ck_assert(find("HEAD", "/api/v1/agents/a%2Fb/%C3%A9+") != NULL);
	ck_assert_uint_eq(match.have, 1u << PART_type | 1u << PART_instance);
	ck_assert(str_eq(match.parts[PART_type], STR("a/b")));
	ck_assert(str_eq(match.parts[PART_instance], STR("\xc3\xa9+")));
}
END_TEST

START_TEST(a_wrong_path_or_method_is_told_apart)
{
	static const char *const nothing[] = { "",
					       "/x",
					       "//",
					       "/livez/",
					       "/livez//",
					       "/Livez",
					       "/api/v1/queues/",
					       "/api/v1/agents/a",
					       "/livez/.." };
	static const char *const bad[] = { "/api/v1/queues/%",     "/api/v1/queues/%4",
					   "/api/v1/queues/%4g",   "/api/v1/queues/%00",
					   "/api/v1/queues/a%00b", "/api/v1/queues/..",
					   "/api/v1/queues/." };

	for (size_t i = 0; i < N(nothing); i++) {
		ck_assert(find("GET", nothing[i]) == NULL);
		ck_assert_int_eq(why.err, OK);
		ck_assert_str_eq(allow, "");
	}
	for (size_t i = 0; i < N(bad); i++) {
		ck_assert(find("GET", bad[i]) == NULL);
		ck_assert_int_eq(why.err, ERR_BAD_REQUEST);
	}
	ck_assert(find("PUT", "/livez") == NULL);
	ck_assert_str_eq(allow, "GET, HEAD, OPTIONS");
	ck_assert(find("POST", "/api/v1/agents/a/b") == NULL);
	ck_assert_str_eq(allow, "GET, HEAD, DELETE, OPTIONS");
}
END_TEST

START_TEST(a_query_is_read_strictly)
{
	ck_assert_int_eq(
		read_query("GET", "/api/v1/queues", "limit=5&cursor=a%3Ab+c&&namespace=x"), OK);
	ck_assert_uint_eq(query.have, Q(limit) | Q(cursor) | Q(namespace));
	ck_assert(str_eq(query.values[QUERY_cursor], STR("a:b c")));
	ck_assert_int_eq(read_query("GET", "/api/v1/agents", "cursor=a:b"), OK);
	ck_assert_uint_eq(query.have, Q(agent_cursor));
	ck_assert_int_eq(read_query("GET", "/readyz", "verbose"), OK);
	ck_assert_uint_eq(query.have, Q(verbose));
	ck_assert_int_eq(read_query("GET", "/livez", ""), OK);
	ck_assert_int_eq(read_query("GET", "/livez", "limit=5"), ERR_BAD_REQUEST);
	ck_assert(strstr(why.text, "limit") != NULL);
	ck_assert_int_eq(read_query("GET", "/api/v1/queues", "limit=5&limit=5"),
			 ERR_BAD_REQUEST);
	ck_assert(strstr(why.text, "twice") != NULL);
	ck_assert_int_eq(read_query("GET", "/api/v1/queues", "type=%"), ERR_BAD_REQUEST);
	ck_assert_int_eq(read_query("GET", "/api/v1/queues", "type=a%00"), ERR_BAD_REQUEST);
	ck_assert_int_eq(read_query("GET", "/api/v1/queues", "namespace="), ERR_BAD_REQUEST);
}
END_TEST

START_TEST(an_agent_is_read_as_it_is_written_elsewhere)
{
	struct str type, instance;

	buf_clear(&text);
	buf_reserve(&text, 256);
	ck_assert(agent_read(STR("a:b"), &type, &instance, &text));
	ck_assert(str_eq(type, STR("a")) && str_eq(instance, STR("b")));
	ck_assert(agent_read(STR("a%3A%25:b%3a"), &type, &instance, &text));
	ck_assert(str_eq(type, STR("a:%")) && str_eq(instance, STR("b:")));
	ck_assert(agent_read(STR("a"), &type, &instance, &text));
	ck_assert(str_eq(type, STR("a")) && instance.n == 0);
	ck_assert(!agent_read(STR("a:b:c"), &type, &instance, &text));
	ck_assert(!agent_read(STR("a:%2"), &type, &instance, &text));
}
END_TEST

/* --- shapes -------------------------------------------------------------------- */

static void
check_shape(enum route_shape shape, const char *key, const char *result, const char *json)
{
	const struct route route = { .shape = shape, .key = key };
	const struct json_how how = { .hides_payloads = true };
	struct buf in = packed(result), out = { 0 };
	bool is_there = shape_put(&out, &route, buf_str(&in), &how);

	ck_assert_int_eq(is_there, json != NULL);
	if (json) {
		out.data[out.len - 1] = '\0'; /* for the line's end */
		ck_assert_str_eq(out.data, json);
	}
	buf_done(&out);
	buf_done(&in);
}

START_TEST(each_shape_is_made_from_its_result)
{
	check_shape(SHAPE_PLAIN, "", "{'a': 1}", "{\"a\":1}");
	check_shape(SHAPE_PLAIN, "", "nil", NULL);
	check_shape(SHAPE_VALUE, "changed", "false", "{\"changed\":false}");
	check_shape(SHAPE_VALUE, "purged", "0", "{\"purged\":0}");
	check_shape(SHAPE_GONE, "removed", "true", "{\"removed\":true}");
	check_shape(SHAPE_GONE, "removed", "false", NULL);
	check_shape(SHAPE_GONE, "dropped", "0", NULL);
	check_shape(SHAPE_GONE, "dropped", "1", "{\"dropped\":1}");
	check_shape(SHAPE_PAGE, "queues", "{'queues': [1, 2], 'after': 'x'}",
		    "{\"items\":[1,2],\"next\":\"x\"}");
	check_shape(SHAPE_PAGE, "queues", "{'after': nil, 'queues': []}",
		    "{\"items\":[],\"next\":null}");
	check_shape(SHAPE_ITEMS, "", "[1]", "{\"items\":[1],\"next\":null}");
	check_shape(SHAPE_ROWS, "name", "[]", "{\"items\":[],\"next\":null}");
	check_shape(SHAPE_ROWS, "name", "[{'name': 'a'}, {'x': 1, 'name': 'b'}]",
		    "{\"items\":[{\"name\":\"a\"},{\"x\":1,\"name\":\"b\"}],\"next\":\"b\"}");
	check_shape(SHAPE_ROWS, "id", "[{'id': 7}]", "{\"items\":[{\"id\":7}],\"next\":7}");
	check_shape(SHAPE_AGENTS, "", "[{'agent_id': {'type': 'a:', 'instance': 'b%'}}]",
		    "{\"items\":[{\"agent_id\":{\"type\":\"a:\",\"instance\":\"b%\"}}],"
		    "\"next\":\"a%3A:b%25\"}");
}
END_TEST

/* --- problems ------------------------------------------------------------------ */

START_TEST(every_error_has_a_status_of_its_own_kind)
{
	for (int err = 1; err < ERR_COUNT; err++) {
		int status = problem_status(str_of(err_code((enum err)err)));

		ck_assert_msg(*problem_title(status), "%s: %d", err_name((enum err)err),
			      status);
		ck_assert_int_eq(status == 500, err == ERR_INTERNAL);
		ck_assert_msg((status == 503) == err_retryable((enum err)err), "%s",
			      err_name((enum err)err));
	}
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("admin");
	TCase *tc = tcase_create("admin");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, each_value_has_its_json);
	tcase_add_test(tc, a_text_can_neither_end_its_quotes_nor_be_html);
	tcase_add_test(tc, every_text_is_read_back);
	tcase_add_test(tc, payloads_of_messages_are_hidden_and_nothing_else);
	tcase_add_test(tc, every_route_is_found_by_its_own_path_alone);
	tcase_add_test(tc, what_a_path_names_is_decoded);
	tcase_add_test(tc, a_wrong_path_or_method_is_told_apart);
	tcase_add_test(tc, a_query_is_read_strictly);
	tcase_add_test(tc, an_agent_is_read_as_it_is_written_elsewhere);
	tcase_add_test(tc, each_shape_is_made_from_its_result);
	tcase_add_test(tc, every_error_has_a_status_of_its_own_kind);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
