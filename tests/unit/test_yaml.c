#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/buf.h"
#include "base/mem.h"
#include "config/yaml.h"

/* What was told: "LINE:COLUMN: text" for each error. */
static char told[2048];

static void
on_error(void *arg, struct yaml_at at, const char *text)
{
	size_t n = strlen(told);

	(void)arg;
	snprintf(told + n, sizeof(told) - n, "%u:%u: %s\n", at.line, at.column, text);
}

static struct yaml_node *
read_bytes(const char *p, size_t n)
{
	told[0] = 0;
	return yaml_read((struct str){ p, n }, on_error, NULL);
}

static struct yaml_node *
read_text(const char *text)
{
	return read_bytes(text, strlen(text));
}

/* It is refused, and the first error begins so. */
static void
refused(const char *text, const char *begin)
{
	ck_assert_msg(read_text(text) == NULL, "%s", text);
	ck_assert_msg(strncmp(told, begin, strlen(begin)) == 0, "%s: %s", text, told);
}

static void
put_node(struct buf *b, const struct yaml_node *n)
{
	if (n->key)
		buf_printf(b, "%s@%u:%u=", n->key, n->key_at.line, n->key_at.column);
	if (n->kind == YAML_TEXT)
		buf_printf(b, "%s%s%s", n->is_plain ? "" : "'", n->text,
			   n->is_plain ? "" : "'");
	else if (n->kind == YAML_NULL)
		buf_puts(b, "null");
	else
		buf_putc(b, n->kind == YAML_MAP ? '{' : '[');
	for (const struct yaml_node *c = n->first; c; c = c->next) {
		ck_assert_ptr_eq(c->parent, n);
		put_node(b, c);
		if (c->next)
			buf_putc(b, ' ');
	}
	if (n->kind == YAML_MAP || n->kind == YAML_LIST)
		buf_putc(b, n->kind == YAML_MAP ? '}' : ']');
	buf_printf(b, "@%u:%u", n->at.line, n->at.column);
}

static void
reads_as(const char *text, const char *tree)
{
	struct yaml_node *root = read_text(text);
	struct buf b = { 0 };

	ck_assert_msg(root != NULL, "%s: %s", text, told);
	ck_assert_str_eq(told, "");
	put_node(&b, root);
	buf_putc(&b, '\0');
	ck_assert_str_eq(b.data, tree);
	buf_done(&b);
	yaml_tree_free(root);
}

START_TEST(maps_lists_and_scalars_keep_their_places)
{
	reads_as("a: 1\nb:\n  - x\n  - \"y z\"\n  - [p, ~]\nc: {d: 'e', f: }\n",
		 "{a@1:1=1@1:4 b@2:1=[x@3:5 'y z'@4:5 [p@5:6 null@5:9]@5:5]@3:3 "
		 "c@6:1={d@6:5='e'@6:8 f@6:13=null@6:16}@6:4}@1:1");
	reads_as("\xc3\xa9: \xe2\x82\xac # comment\n", "{\xc3\xa9@1:1=\xe2\x82\xac@1:4}@1:1");
}
END_TEST

START_TEST(an_empty_document_is_null)
{
	static const char *const empty[] = { "",      "\n",         "# only a comment\n",
					     "---\n", "---\n...\n", "~\n" };

	for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++) {
		struct yaml_node *root = read_text(empty[i]);

		ck_assert_msg(root && root->kind == YAML_NULL, "%s: %s", empty[i], told);
		yaml_tree_free(root);
	}
}
END_TEST

START_TEST(line_ends_of_other_systems_are_taken)
{
	reads_as("a: 1\r\nb: x\r\n", "{a@1:1=1@1:4 b@2:1=x@2:4}@1:1");
}
END_TEST

START_TEST(what_a_configuration_needs_not_is_refused_with_its_place)
{
	refused("a: &x 1\n", "1:4: an anchor");
	refused("a: &x {b: 1}\n", "1:4: an anchor");
	refused("a: &x [b]\n", "1:4: an anchor");
	refused("a: *x\n", "1:4: an alias");
	refused("a: 1\n<<: *b\n", "2:5: an alias");
	refused("a: !!str 1\n", "1:4: a tag");
	refused("a: !!python/object:os.system []\n", "1:4: a tag");
	refused("a: !x {b: 1}\n", "1:4: a tag");
	refused("a: 1\n---\nb: 1\n", "2:1: a second document");
	refused("a: 1\n...\n---\n", "3:1: a second document");
	refused("[a]: 1\n", "1:1: a key must be a word");
	refused("? {a: 1}\n: 2\n", "1:3: a key must be a word");
	refused("a: \"x\\0y\"\n", "1:4: a NUL");
	refused("a: [1\n", "");
	refused("a: 1\n b: 2\n", "2:");
	refused("a: 'x\n", "");
	refused("a: b: c\n", "1:");
	refused("}\n", "1:1: no valid YAML");
	refused("%FOO bar baz\n@\n", "");
}
END_TEST

START_TEST(bytes_that_are_no_text_are_refused_with_their_place)
{
	refused("\xef\xbb\xbf"
		"a: 1\n",
		"1:1: begins with a byte order mark");
	refused("a: 1\nb:\t2\n", "2:3: a tab");
	refused("a:\n\tb: 2\n", "2:1: a tab");
	refused("a: \xc3\xa9\n\xc3\xa9: \xff\n", "2:4: not UTF-8");
	refused("a: \xc0\x80\n", "1:4: not UTF-8");
	refused("a: \xed\xa0\x80\n", "1:4: not UTF-8");
	refused("a: \xe2\x82", "1:4: not UTF-8");
	refused("a: \x01\n", "1:4: no valid YAML");
	ck_assert_ptr_null(read_bytes("a: 1\0\n", 6));
	ck_assert_str_eq(told, "1:5: a NUL byte\n");
	ck_assert_ptr_null(read_bytes("\xff\xfe"
				      "a\0:\0",
				      6));
	ck_assert_str_eq(told, "1:1: not UTF-8\n");
	ck_assert_ptr_null(read_bytes("a\0:\0 \0001\0", 8));
	ck_assert_str_eq(told, "1:2: a NUL byte\n");
}
END_TEST

START_TEST(repeated_keys_are_told_and_reading_goes_on)
{
	struct yaml_node *root = read_text("r:\n  url: 1\n  x: 2\n  url: 3\ns: 1\nr: "
					   "{}\n\"r\": 4\n\"a\\nb\": 1\n\"a\\nb\": 1\n");

	ck_assert_ptr_nonnull(root);
	yaml_tree_free(root);
	ck_assert_str_eq(told, "4:3: duplicate key \"r.url\" (first on line 2)\n"
			       "6:1: duplicate key \"r\" (first on line 1)\n"
			       "7:1: duplicate key \"r\" (first on line 1)\n"
			       "9:1: duplicate key \"a\\x0ab\" (first on line 8)\n");
}
END_TEST

START_TEST(size_depth_and_number_are_limited)
{
	struct buf b = { 0 };
	struct yaml_node *root;

	while (b.len < YAML_MAX_BYTES)
		buf_putc(&b, b.len % 64 == 63 ? '\n' : '#');
	root = read_bytes(b.data, b.len);
	ck_assert_msg(root != NULL, "%s", told);
	yaml_tree_free(root);
	buf_putc(&b, '\n');
	ck_assert_ptr_null(read_bytes(b.data, b.len));
	ck_assert_str_eq(told, "0:0: larger than 1 MiB\n");

	reads_as("[[[[[[[[]]]]]]]]", "[[[[[[[[]@1:8]@1:7]@1:6]@1:5]@1:4]@1:3]@1:2]@1:1");
	refused("[[[[[[[[[]]]]]]]]]", "1:9: nested deeper than 8");

	buf_clear(&b);
	for (int i = 0; i < 9990; i++)
		buf_puts(&b, "- 1\n");
	root = read_bytes(b.data, b.len);
	ck_assert_msg(root != NULL, "%s", told);
	yaml_tree_free(root);
	for (int i = 0; i < 20; i++)
		buf_puts(&b, "- 1\n");
	ck_assert_ptr_null(read_bytes(b.data, b.len));
	ck_assert_ptr_nonnull(strstr(told, "more than 10000 parts"));
	buf_done(&b);
}
END_TEST

START_TEST(no_input_of_the_largest_size_takes_long)
{
	static const char *const units[] = { "[",       "{",     "[\n",   "- ",      "? ",
					     "a: ",     "{a: ",  "[a, ",  "'",       "\"",
					     "a\n",     "!a ",   "&a ",   "\"\\x\"", "- - ",
					     "a: {}\n", "? [",   "|\n",   "# \n",    "%a\n",
					     "---\n",   "...\n", "[? a, " };
	struct buf b = { 0 };

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		clock_t began = clock();

		buf_clear(&b);
		while (b.len + strlen(units[i]) <= YAML_MAX_BYTES)
			buf_puts(&b, units[i]);
		yaml_tree_free(read_bytes(b.data, b.len));
		ck_assert_msg(clock() - began < 2 * CLOCKS_PER_SEC, "%s", units[i]);
	}
	buf_done(&b);
}
END_TEST

START_TEST(every_cut_and_every_changed_byte_of_a_file_is_survived)
{
	static const char file[] =
		"---\nversion: 1 # x\nserver:\n  listen:\n    - tcp://127.0.0.1:1\n"
		"  unix_mode: \"0660\"\nredis: {url: 'a''b', \"x\\u00e9\": [1, 2]}\n";
	static const char changes[] = "\0\n\t\"'{}[]:,-?&*!|>%@`#~x \xff";
	char *copy = xmemdup(file, sizeof(file) - 1);

	for (size_t n = 0; n < sizeof(file); n++) {
		char *cut =
			xmemdup(file, n); /* of its own, so that reading past the end shows */

		yaml_tree_free(read_bytes(cut, n));
		free(cut);
	}
	for (size_t i = 0; i < sizeof(file) - 1; i++) {
		for (size_t k = 0; k < sizeof(changes) - 1; k++) {
			copy[i] = changes[k];
			yaml_tree_free(read_bytes(copy, sizeof(file) - 1));
		}
		copy[i] = file[i];
	}
	yaml_tree_free(read_bytes(copy, sizeof(file) - 1));
	ck_assert_str_eq(told, "");
	free(copy);
}
END_TEST

START_TEST(scalars_that_others_read_differently_are_known)
{
	static const char *const other[] = {
		"",      "~",        "null", "yes",   "No",     "on",        "OFF",   "true",
		"False", "y",        "0",    "0660",  "08",     "-1",        "+5",    "1_000",
		"1.5",   "1.",       ".5",   "1e3",   "1.5E-3", "0x10",      "0b101", "0o17",
		"1:30",  "12:30:45", ".inf", "-.Inf", ".nan",   "2026-01-05"
	};
	static const char *const text[] = { "a",
					    "info",
					    "1a",
					    "127.0.0.1",
					    "5s",
					    "1MiB",
					    "tcp://127.0.0.1:1",
					    "redis",
					    "nullable",
					    "yesterday",
					    "0x",
					    "-",
					    "e3",
					    "/1",
					    "1:90:" };

	for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++)
		ck_assert_msg(yaml_is_not_text(other[i]), "%s", other[i]);
	for (size_t i = 0; i < sizeof(text) / sizeof(text[0]); i++)
		ck_assert_msg(!yaml_is_not_text(text[i]), "%s", text[i]);
}
END_TEST

START_TEST(values_in_errors_stand_in_quotes)
{
	char out[32];

	ck_assert_str_eq(yaml_quote(out, sizeof(out), STR("1MB")), "\"1MB\"");
	ck_assert_str_eq(yaml_quote(out, sizeof(out), STR("")), "\"\"");
	ck_assert_str_eq(yaml_quote(out, sizeof(out), STR("a b\n")), "\"a b\\x0a\"");
	for (size_t n = 0; n < 64; n++) {
		char text[64];

		memset(text, 'x', sizeof(text));
		yaml_quote(out, sizeof(out), (struct str){ text, n });
		ck_assert_uint_lt(strlen(out), sizeof(out));
		ck_assert(out[0] == '"' && out[strlen(out) - 1] == '"');
		ck_assert(n < 20 || n > 30 || strlen(out) >= 20);
	}
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("yaml");
	TCase *tc = tcase_create("yaml");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, maps_lists_and_scalars_keep_their_places);
	tcase_add_test(tc, an_empty_document_is_null);
	tcase_add_test(tc, line_ends_of_other_systems_are_taken);
	tcase_add_test(tc, what_a_configuration_needs_not_is_refused_with_its_place);
	tcase_add_test(tc, bytes_that_are_no_text_are_refused_with_their_place);
	tcase_add_test(tc, repeated_keys_are_told_and_reading_goes_on);
	tcase_add_test(tc, size_depth_and_number_are_limited);
	tcase_add_test(tc, no_input_of_the_largest_size_takes_long);
	tcase_add_test(tc, every_cut_and_every_changed_byte_of_a_file_is_survived);
	tcase_add_test(tc, scalars_that_others_read_differently_are_known);
	tcase_add_test(tc, values_in_errors_stand_in_quotes);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
