#ifndef COORDD_BASE_UNIT_H
#define COORDD_BASE_UNIT_H

/*
 * What stands between us and a Redis on another machine when systemd/coordd.service runs us, as
 * the log and `coordctl doctor` tell it; docs/OPERATIONS.md, "A Redis on another machine", has
 * the same in full. `systemctl show -p IPAddressDeny -p IPAddressAllow coordd` shows it.
 */
#define UNIT_REDIS_WHY \
	"the unit's IPAddressDeny=any drops packets to other machines without a word"
#define UNIT_REDIS_FIX                                                                   \
	"systemctl edit coordd, add [Service] and IPAddressAllow= with Redis's address " \
	"(and the resolver's, where redis.url has a name), then systemctl restart coordd"

#endif
