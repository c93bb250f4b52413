#ifndef COORDD_OPERATE_OWN_H
#define COORDD_OPERATE_OWN_H

#include "operate/operate.h"

/* Inside src/operate only. */
struct operate {
	struct store *store;
	char *prefix;
};

#endif
