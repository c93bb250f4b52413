#ifndef COORDD_VERSION_H
#define COORDD_VERSION_H

#include <stdbool.h>

/* Print what `coordd --version` prints; `is_verbose`: and the libraries' versions, the compiler and its flags, and which
 * shared libraries were loaded. */
void version_print(bool is_verbose);

#endif
