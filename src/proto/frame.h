#ifndef COORDD_PROTO_FRAME_H
#define COORDD_PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>

/*
 * Where one MessagePack value ends (docs/PROTOCOL.md, section 1). A frame is proven complete and
 * bounded before anything looks into it or allocates for it. The scan can be resumed, so a peer
 * that sends a byte at a time costs no more than one that sends the frame at once.
 */
#define FRAME_MAX_DEPTH 32

struct frame_limits {
	size_t max_bytes;    /* of one whole value */
	size_t max_elements; /* array elements and map keys and values, all levels together */
};

enum frame_status {
	FRAME_OK,       /* complete: its length is in `pos` */
	FRAME_MORE,     /* right so far, more bytes are needed */
	FRAME_INVALID,  /* 0xc1: no MessagePack */
	FRAME_TOO_DEEP, /* nested deeper than FRAME_MAX_DEPTH */
	FRAME_TOO_LARGE /* longer, or announces more, than the limits allow */
};

/* A scan under way; all zero before the first byte. */
struct frame_scan {
	size_t pos;                     /* bytes proven so far, from the start of the value */
	size_t elements;                /* announced so far */
	unsigned depth;                 /* open containers */
	uint32_t left[FRAME_MAX_DEPTH]; /* values still to come in each open container */
};

/* As all zero, without the cost of the whole: `left` matters below `depth` only. */
static inline void
frame_scan_begin(struct frame_scan *scan)
{
	scan->pos = scan->elements = 0;
	scan->depth = 0;
}

/*
 * Go on with `scan` over the value's first `n` bytes at `p` (the same bytes as before and what
 * came since). A container or string that announces more than the limits leave is refused on
 * its header. After FRAME_OK the value is p[0 .. scan->pos).
 */
enum frame_status frame_scan(struct frame_scan *scan, const uint8_t *p, size_t n,
			     const struct frame_limits *limits);

#endif
