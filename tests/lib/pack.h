#ifndef COORDD_TESTS_PACK_H
#define COORDD_TESTS_PACK_H

#include "base/buf.h"

/*
 * MessagePack as tests like to read it: {'a': 1, 'b': [1.5, nil, true, -3]}. Strings are in
 * single quotes and know \xNN only; b'..' is bin; <c1 00> are raw bytes in hex. A float has a
 * point; f1.5 is a 32-bit one. nan and inf are there too. Ends the test on anything else.
 */
void pack_text(struct buf *b, const char *text);

/* A fresh buffer of it; the caller calls buf_done(). */
struct buf packed(const char *text);

#endif
