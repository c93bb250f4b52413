#include "proto/frame.h"

#include "proto/head.h"

/*
 * What the first byte alone tells of a value: its bytes, and how many values follow in it. Nearly all
 * values are of these; `bytes` is 0 for those whose length is written out.
 */
#define EACH4(base, bytes, step, items, more)                              \
	[base] = { bytes, items }, { (bytes) + (step), (items) + (more) }, \
	{ (bytes) + 2 * (step), (items) + 2 * (more) },                    \
	{                                                                  \
		(bytes) + 3 * (step), (items) + 3 * (more)                 \
	}
#define EACH16(base, bytes, step, items, more)                                             \
	EACH4(base, bytes, step, items, more),                                             \
		EACH4((base) + 4, (bytes) + 4 * (step), step, (items) + 4 * (more), more), \
		EACH4((base) + 8, (bytes) + 8 * (step), step, (items) + 8 * (more), more), \
		EACH4((base) + 12, (bytes) + 12 * (step), step, (items) + 12 * (more), more)
static const struct {
	uint8_t bytes, items;
} firsts[256] = {
	[0x00 ... 0x7f] = { 1, 0 },
	EACH16(0x80, 1, 0, 0, 2), /* maps */
	EACH16(0x90, 1, 0, 0, 1), /* arrays */
	EACH16(0xa0, 1, 1, 0, 0), /* strings */
	EACH16(0xb0, 17, 1, 0, 0),
	[0xc0] = { 1, 0 },
	[0xc2] = { 1, 0 },
	{ 1, 0 },
	[0xca] = { 5, 0 }, /* float, double, unsigned, signed */
	{ 9, 0 },
	{ 2, 0 },
	{ 3, 0 },
	{ 5, 0 },
	{ 9, 0 },
	{ 2, 0 },
	{ 3, 0 },
	{ 5, 0 },
	{ 9, 0 },
	[0xe0 ... 0xff] = { 1, 0 },
};

/*
 * The whole value at once, if it is there and of the usual kind: containers without a count of their
 * own, and so few that they cannot be nested too deep. Returns its length, or 0: then it takes the
 * careful scan, which says why.
 */
static size_t
scan_usual(const uint8_t *p, size_t n, const struct frame_limits *limits)
{
	const size_t end = n < limits->max_bytes ? n : limits->max_bytes;
	size_t pos = 0, elements = 0, containers = 0;

	for (size_t seen = 0; seen <= elements; seen++) {
		uint8_t c;

		if (pos >= end)
			return 0;
		c = p[pos];
		if (firsts[c].bytes) {
			pos += firsts[c].bytes;
			if (firsts[c].items) {
				elements += firsts[c].items;
				containers++;
			}
		} else if (c == 0xd9 && end - pos >= 2) { /* a string of up to 255 bytes */
			pos += 2u + p[pos + 1];
		} else {
			return 0;
		}
	}
	return pos <= end && containers < FRAME_MAX_DEPTH && elements <= limits->max_elements
		       ? pos
		       : 0;
}

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

	if (!pos && (scan->pos = scan_usual(p, n, limits)))
		return FRAME_OK;
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
