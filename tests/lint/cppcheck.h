/* For cppcheck alone, which does not read system headers: uthash's loop, as far as it needs to know. */
#define HASH_ITER(hh, head, el, tmp) \
	for ((el) = (head), (tmp) = (head) ? (head)->hh.next : NULL; el; (el) = (tmp))
