#include "proto/frame.h"

#include "proto/head.h"

/*
 * A value that is not wholly there is not stepped over, so `pos` always stands on a head, and
 * looking at that head again is all that a resumed scan repeats.
 */
enum frame_status
frame_scan(struct frame_scan *scan, const uint8_t *p, size_t n,
	   const struct frame_limits *limits)
{
	const size_t max = limits->max_bytes;
	size_t pos =
		scan->pos; /* in a register: the bytes at `p` could be `scan` to the compiler */
	unsigned depth = scan->depth;
	enum frame_status status;

	for (;;) {
		struct head h;
		bool is_whole;

		status = FRAME_TOO_LARGE;
		if (pos >= max)
			break;
		status = FRAME_MORE;
		if (pos >= n)
			break;
		is_whole = head_read(&h, p + pos, n - pos);
		status = FRAME_INVALID;
		if (h.type == MP_NONE)
			break;
		status = FRAME_TOO_LARGE;
		if (h.bytes > max - pos)
			break;
		status = FRAME_MORE;
		if (!is_whole)
			break;

		if (h.type == MP_ARRAY || h.type == MP_MAP) {
			uint64_t items = head_items(&h);

			status = FRAME_TOO_DEEP;
			if (depth == FRAME_MAX_DEPTH)
				break;
			/* Each value inside takes a byte at least. */
			status = FRAME_TOO_LARGE;
			if (items > max - pos - h.bytes || items > UINT32_MAX ||
			    scan->elements + items > limits->max_elements)
				break;
			scan->elements += (size_t)items;
			pos += h.bytes;
			if (items) {
				scan->left[depth++] = (uint32_t)items;
				continue;
			}
		} else {
			size_t whole = (size_t)h.bytes + head_body(&h);

			status = FRAME_TOO_LARGE;
			if (whole > max - pos)
				break;
			status = FRAME_MORE;
			if (whole > n - pos)
				break;
			pos += whole;
		}

		/* One value is complete, and with it each container whose last it was. */
		while (depth && --scan->left[depth - 1] == 0)
			depth--;
		status = FRAME_OK;
		if (!depth)
			break;
	}
	scan->pos = pos;
	scan->depth = depth;
	return status;
}
