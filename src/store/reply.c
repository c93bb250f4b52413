#include "store/reply.h"

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
	v = strtoll(text, &end, 10);
	return *end ? otherwise : v;
}

/* Building --------------------------------------------------------------------------------------- */

enum { BLOCK = 4096 };

/* A reply lives in a chain of blocks; the first one begins with the root. */
struct block {
	struct block *next;
	size_t used, size;
	_Alignas(16) char bytes[];
};

struct root {
	struct reply reply; /* first, so that both have one address */
	struct block *blocks;
};

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

static struct root *
root_of(const redisReadTask *task)
{
	while (task->parent)
		task = task->parent;
	return task->obj;
}

/* Where the reply of a task goes: its slot in the parent's array, or a new root. */
static struct reply *
place(const redisReadTask *task, struct block ***blocks)
{
	if (task->parent) {
		const struct reply *parent = task->parent->obj;

		*blocks = &root_of(task->parent)->blocks;
		return (struct reply *)(uintptr_t)&parent->elems[task->idx];
	} else {
		struct block *first = NULL;
		struct root *root = block_take(&first, sizeof(*root));

		if (!root)
			return NULL;
		memset(root, 0, sizeof(*root));
		root->blocks = first;
		*blocks = &root->blocks;
		return &root->reply;
	}
}

static void
reply_free(void *reply)
{
	struct block *b = reply ? ((struct root *)reply)->blocks : NULL;

	while (b) {
		struct block *next = b->next;

		free(b);
		b = next;
	}
}

static void *
create_string(const redisReadTask *task, char *p, size_t n)
{
	struct block **blocks;
	struct reply *r = place(task, &blocks);
	char *copy = r ? block_take(blocks, n + 1) : NULL;

	if (!copy) {
		if (r && !task->parent)
			reply_free(r);
		return NULL;
	}
	memcpy(copy, p, n);
	copy[n] = 0;
	r->type = task->type == REDIS_REPLY_ERROR    ? REPLY_ERROR
		  : task->type == REDIS_REPLY_STATUS ? REPLY_STATUS
						     : REPLY_STR;
	r->str = (struct str){ copy, n };
	return r;
}

static void *
create_array(const redisReadTask *task, int n)
{
	struct block **blocks;
	struct reply *r = place(task, &blocks);
	struct reply *elems = r ? block_take(blocks, (size_t)n * sizeof(*elems)) : NULL;

	if (!elems) {
		if (r && !task->parent)
			reply_free(r);
		return NULL;
	}
	memset(elems, 0, (size_t)n * sizeof(*elems));
	r->type = REPLY_ARRAY;
	r->count = (uint32_t)n;
	r->elems = elems;
	return r;
}

static void *
create_integer(const redisReadTask *task, long long v)
{
	struct block **blocks;
	struct reply *r = place(task, &blocks);

	if (r) {
		r->type = REPLY_INT;
		r->integer = v;
	}
	return r;
}

static void *
create_nil(const redisReadTask *task)
{
	struct block **blocks;

	return place(task, &blocks);
}

struct redisReplyObjectFunctions reply_functions = {
	create_string, create_array, create_integer, create_nil, reply_free,
};
