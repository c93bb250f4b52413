#ifndef COORDD_NET_PASSED_H
#define COORDD_NET_PASSED_H

#include <stdbool.h>

/*
 * Sockets that a service manager opened for us: socket activation, sd_listen_fds(3). They are of
 * the process, like its environment, and so is this list of them. Each has a name, `rpc` or what
 * FileDescriptorName= says; whoever serves that name takes it and owns the descriptor.
 */
#define PASSED_MAX 32

/* Take LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES out of the environment and note the descriptors;
 * from now on no child inherits them. To be called before anything is opened. False when what
 * was passed cannot be: more than PASSED_MAX, or a descriptor that is not open. */
bool passed_init(void);
/* How many of this name are left. */
unsigned passed_count(const char *name);
/* The next of this name, which is the caller's from now on; -1 when none is left. */
int passed_take(const char *name);
/* Close those that nobody took, each with a warning: their clients would wait for ever. */
void passed_close_rest(void);

#endif
