#ifndef COORDD_BASE_LOG_SINK_H
#define COORDD_BASE_LOG_SINK_H

#include <stdbool.h>
#include <stddef.h>

/* Where lines go: standard error, a file, or the journal. Nothing here waits. Private to the log. */

/* "" is standard error. False and errno when it cannot be opened; then nothing has changed. */
bool sink_open(const char *path);
bool sink_is_terminal(void);
/* Write a line, which ends in a newline, with one system call. False and errno when it was not taken (EAGAIN: its reader
 * is too slow). Safe in a signal handler. */
bool sink_write(const char *line, size_t n);

/* Whether standard error leads to the journal, as JOURNAL_STREAM has it. */
bool sink_is_journal(void);
void sink_set_journal(const char *path);
/* Hand a datagram to the journal; errno as above, and what else says that nobody listens there. */
bool sink_send_journal(const char *datagram, size_t n);

#endif
