/* adopt: a set of marks. They are digests, so their first bytes are their hash. */
#include <stdlib.h>

#include "base/mem.h"
#include "ctl/adopt.h"

static bool
is_free(const struct mark *slot)
{
	static const struct mark none;

	return !memcmp(slot, &none, sizeof(none));
}

/* Where the mark is, or would be. */
static struct mark *
slot_of(const struct mark_set *set, const struct mark *mark)
{
	size_t i = str_word((const char *)mark->bytes) & (set->size - 1);

	while (!is_free(&set->slots[i]) && memcmp(&set->slots[i], mark, sizeof(*mark)) != 0)
		i = (i + 1) & (set->size - 1);
	return &set->slots[i];
}

static void
grow(struct mark_set *set)
{
	struct mark_set old = *set;

	set->size = old.size ? 2 * old.size : 64;
	set->slots = xcalloc(set->size, sizeof(*set->slots));
	for (size_t i = 0; i < old.size; i++) {
		if (!is_free(&old.slots[i]))
			*slot_of(set, &old.slots[i]) = old.slots[i];
	}
	free(old.slots);
}

bool
mark_set_has(const struct mark_set *set, const struct mark *mark)
{
	return set->n && !is_free(slot_of(set, mark));
}

bool
mark_set_add(struct mark_set *set, const struct mark *mark)
{
	struct mark *slot;

	if (set->n >= set->size / 4 * 3)
		grow(set);
	slot = slot_of(set, mark);
	if (!is_free(slot))
		return false;
	*slot = *mark;
	set->n++;
	return true;
}

void
mark_set_done(struct mark_set *set)
{
	free(set->slots);
	*set = (struct mark_set){ 0 };
}
