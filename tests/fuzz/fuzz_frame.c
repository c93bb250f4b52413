/*
 * Arbitrary bytes through all that reads a peer's bytes: the scanner, the envelope, the params.
 * What must hold besides "no crash": a scan resumed at every byte ends like the one in a single
 * piece, a checked list can be read back, and what an error says is text a client's decoder can
 * take.
 */
#include <assert.h>
#include <stdlib.h>

#include "proto/fields.h"
#include "proto/frame.h"
#include "proto/rpc.h"

static void
read_lists(struct params *p)
{
	struct agent_id agent;

	if (p->have & F(messages)) {
		for (uint32_t i = 0; i < p->messages.n; i++) {
			const struct send_item *item = &p->messages.sends[i];

			assert(item->message.id.n && item->recipient.type.n &&
			       item->message.map.n);
		}
	}
	if (p->have & F(recipients)) {
		for (uint32_t i = 0; i < p->recipients.n; i++) {
			list_next_agent(&p->recipients, &agent);
			assert(agent.type.n && agent.instance.n);
		}
		assert(!p->recipients.raw.n);
	}
	if (p->have & F(tokens)) {
		for (uint32_t i = 0; i < p->tokens.n; i++)
			assert(str_is_utf8(list_next_text(&p->tokens)));
		assert(!p->tokens.raw.n);
	}
}

static void
check_text(const struct errmsg *why)
{
	assert(why->err && why->text[0]);
	assert(str_is_utf8(str_of(why->text)) && !str_has_control(str_of(why->text)));
}

static void
read_frame(const uint8_t *frame, size_t n)
{
	const uint64_t all = (1ull << FIELD_COUNT) - 1;
	struct field_rules rules = { .any_content = n & 1, .max_batch = 100 };
	struct params params;
	struct errmsg why;
	struct rpc rpc;

	if (!rpc_read(&rpc, frame, n, &why)) {
		check_text(&why);
		return;
	}
	if (rpc.type == RPC_RESPONSE)
		return;
	if (rpc.bad.err) {
		check_text(&rpc.bad);
		return;
	}
	if (params_read(&params, rpc.params, F(agent), all & ~F(agent), &rules, &why))
		check_text(&why);
	if (params_read(&params, rpc.params, 0, all, &rules, &why))
		check_text(&why);
	else
		read_lists(&params);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct frame_limits limits = { .max_bytes = 4096, .max_elements = 1024 };
	struct frame_scan whole = { 0 }, resumed = { 0 };
	enum frame_status status = frame_scan(&whole, data, size, &limits), again = FRAME_MORE;
	struct mp m = { data, data + size };

	for (size_t have = 0; have <= size && again == FRAME_MORE; have++)
		again = frame_scan(&resumed, data, have, &limits);
	assert(again == status);
	if (status == FRAME_OK) {
		uint8_t *frame = malloc(whole.pos);

		/* Alone in its memory, so that a read past its end is seen. */
		assert(resumed.pos == whole.pos && whole.pos <= limits.max_bytes);
		memcpy(frame, data, whole.pos);
		read_frame(frame, whole.pos);
		free(frame);
		assert(mp_skip(&m).n == whole.pos);
	} else {
		/* Never proven, so nothing that is read means anything; but it ends where it
		 * ends. */
		read_frame(data, size);
		mp_skip(&m);
	}
	return 0;
}
