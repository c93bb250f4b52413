/* loglevel: the level of the log, as configured or, for a while, as an operator asks. */
#include "loglevel.h"

static void
on_back(void *arg)
{
	struct loglevel *l = arg;

	loglevel_set(l, l->configured, 0, "timer");
}

void
loglevel_init(struct loglevel *l, struct loop *loop, enum log_level configured)
{
	l->level = l->configured = configured;
	timer_init(&l->back, loop, on_back, l);
}

void
loglevel_done(struct loglevel *l)
{
	timer_done(&l->back);
}

void
loglevel_set(struct loglevel *l, enum log_level level, uint64_t for_us, const char *by)
{
	enum log_level before = l->level;

	/* The line is there when one of the two levels shows it. */
	if (level < before)
		log_set_level(level);
	log_event(LOG_LOG_LEVEL, log_text("to", log_level_names[level]),
		  log_text("from", log_level_names[before]), log_ms("for_ms", for_us),
		  log_text("by", by));
	log_set_level(level);
	l->level = level;
	if (for_us)
		timer_set(&l->back, for_us);
	else
		timer_clear(&l->back);
}

void
loglevel_configure(struct loglevel *l, enum log_level configured)
{
	if (l->configured == configured)
		return;
	l->configured = l->level = configured;
	log_set_level(configured);
	timer_clear(&l->back);
}

uint64_t
loglevel_left_us(const struct loglevel *l)
{
	uint64_t now = loop_now_us(l->back.loop);

	return l->back.at_us > now ? l->back.at_us - now : 0;
}
