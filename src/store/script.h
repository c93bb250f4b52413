#ifndef COORDD_STORE_SCRIPT_H
#define COORDD_STORE_SCRIPT_H

#include "store/store.h"

/* The scripts as they go to Redis: the text of src/store/lua, includes resolved, behind its `#!lua` line. */
const char *script_text(enum script script);
size_t script_len(enum script script);
const char *script_sha(enum script script);  /* 40 characters of hex */
const char *script_name(enum script script); /* "tick" */

#endif
