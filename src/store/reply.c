#include "store/reply.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

#include "store/replies.h"

static const struct reply nothing;

const struct reply *
reply_at(const struct reply *r, uint32_t i)
{
	return r && r->type == REPLY_ARRAY && i < r->count ? &r->elems[i] : &nothing;
}

struct str
reply_str(const struct reply *r)
{
	if (r && (r->type == REPLY_STR || r->type == REPLY_STATUS))
		return r->str;
	return (struct str){ NULL, 0 };
}

int64_t
reply_int(const struct reply *r, int64_t otherwise)
{
	char text[24], *end;
	long long v;

	if (r && r->type == REPLY_INT)
		return r->integer;
	if (!r || r->type != REPLY_STR || !r->str.n || r->str.n >= sizeof(text))
		return otherwise;
	memcpy(text, r->str.p, r->str.n);
	text[r->str.n] = 0;
	if (*text != '-' && (*text < '0' || *text > '9'))
		return otherwise;
	errno = 0;
	v = strtoll(text, &end, 10);
	return end != text + r->str.n || errno ? otherwise : v;
}

/* Building ------------------------------------------------------------------------------------- */

enum { BLOCK = 4096, MAX_ELEMENTS = 1 << 20 };

/* A reply lives in a chain of blocks; the first one begins with the root. */
struct block {
	struct block *next;
	size_t used, size;
	_Alignas(16) char bytes[];
};

/*
 * A reply that nobody asked for hiredis takes for one of its own: an error ends the connection,
 * anything else the process (an assertion). So each reply begins with what hiredis sees as an
 * error.
 */
struct root {
	redisReply unasked;
	struct reply reply;
	struct block *blocks;
};

static char unasked_text[] = "Redis said something that nobody asked for";

const struct reply *
reply_of(const void *object)
{
	return object ? &((const struct root *)object)->reply : NULL;
}

static void *
block_take(struct block **blocks, size_t n)
{
	struct block *b = *blocks;

	n = (n + 15) & ~(size_t)15;
	if (!b || b->size - b->used < n) {
		size_t size = n > BLOCK ? n : BLOCK;

		b = malloc(sizeof(*b) + size);
		if (!b)
			return NULL;
		b->next = *blocks;
		b->used = 0;
		b->size = size;
		*blocks = b;
	}
	b->used += n;
	return b->bytes + b->used - n;
}

static void
reply_free(void *object)
{
	struct block *b = object ? ((struct root *)object)->blocks : NULL;

	while (b) {
		struct block *next = b->next;

		free(b);
		b = next;
	}
}

static struct root *
root_new(void)
{
	struct block *first = NULL;
	struct root *root = block_take(&first, sizeof(*root));

	if (!root)
		return NULL;
	memset(root, 0, sizeof(*root));
	root->unasked.type = REDIS_REPLY_ERROR;
	root->unasked.str = unasked_text;
	root->unasked.len = sizeof(unasked_text) - 1;
	root->blocks = first;
	return root;
}

/*
 * Put `value`, with `n` bytes of memory behind it, where the task's reply goes: to its place in
 * the array that it is part of, or into a new root. Returns what hiredis keeps for the task:
 * the root, or the place. `*memory` are the bytes.
 */
static void *
put(const redisReadTask *task, struct reply value, size_t n, void **memory)
{
	const redisReadTask *top = task;
	struct root *root;
	const struct reply *array;
	struct reply *place;

	while (top->parent)
		top = top->parent;
	root = top == task ? root_new() : top->obj;
	if (!root)
		return NULL;
	*memory = n ? block_take(&root->blocks, n) : NULL;
	if (n && !*memory) {
		if (top == task)
			reply_free(root);
		return NULL;
	}
	if (top == task) {
		root->reply = value;
		return root;
	}
	array = task->parent == top ? &root->reply : task->parent->obj;
	place = (struct reply *)(uintptr_t)&array->elems[task->idx];
	*place = value;
	return place;
}

static struct reply *
reply_at_task(const redisReadTask *task, void *object)
{
	return task->parent ? object : &((struct root *)object)->reply;
}

static void *
create_string(const redisReadTask *task, char *p, size_t n)
{
	struct reply value = { .type = REPLY_STR };
	void *copy, *object;

	if (task->type == REDIS_REPLY_ERROR)
		value.type = REPLY_ERROR;
	else if (task->type == REDIS_REPLY_STATUS)
		value.type = REPLY_STATUS;
	object = put(task, value, n + 1, &copy);
	if (!object)
		return NULL;
	memcpy(copy, p, n);
	((char *)copy)[n] = 0;
	reply_at_task(task, object)->str = (struct str){ copy, n };
	return object;
}

static void *
create_array(const redisReadTask *task, int n)
{
	struct reply value = { .type = REPLY_ARRAY, .count = (uint32_t)n };
	void *elems, *object;

	if (n > MAX_ELEMENTS)
		return NULL; /* not ours; hiredis would ask for memory without end */
	object = put(task, value, (size_t)n * sizeof(value), &elems);
	if (!object || !n)
		return object;
	memset(elems, 0, (size_t)n * sizeof(value));
	reply_at_task(task, object)->elems = elems;
	return object;
}

static void *
create_integer(const redisReadTask *task, long long v)
{
	void *none;

	return put(task, (struct reply){ .type = REPLY_INT, .integer = v }, 0, &none);
}

static void *
create_nil(const redisReadTask *task)
{
	void *none;

	return put(task, (struct reply){ .type = REPLY_NIL }, 0, &none);
}

struct redisReplyObjectFunctions reply_functions = {
	create_string, create_array, create_integer, create_nil, reply_free,
};
