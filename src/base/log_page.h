#ifndef COORDD_BASE_LOG_PAGE_H
#define COORDD_BASE_LOG_PAGE_H

#include "base/log.h"

/*
 * The last words: QUIT and ABRT (a watchdog's, or abort() after a defect) end the process, and a handler may hardly do
 * anything. So the lines that describe what we are doing are made now and then, while all is well, and the handler
 * writes them to the log: an event server.died, then these. Where the log goes to the journal, they go to standard error.
 */
enum { LOG_PAGE_MAX = 8192, LOG_PAGE_LINES = 16 };

/* From now on, QUIT and ABRT write the page, and then do what they do by default. */
void log_page_catch(void);
/* A new page, log_page_add() its lines (one that is too much is left out), and put it in the place of the old one. */
void log_page_begin(void);
#define log_page_add(kind, ...) \
	log_page_write((kind), (const struct log_field[]){ LOG_END, ##__VA_ARGS__, LOG_END })
void log_page_write(enum log_kind kind, const struct log_field *fields);
void log_page_end(void);

#endif
