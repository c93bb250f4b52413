/* How far a benchmark is, on standard error. */
#include <stdio.h>

#include "ctl/bench.h"

void
bench_bar_end(struct bench_shown *shown)
{
	if (shown->has_bar)
		fputc('\n', stderr);
	shown->has_bar = false;
}

void
bench_progress(struct bench_shown *shown, enum bench_progress form, const struct bench_done *d)
{
	unsigned tenths = (unsigned)(d->part * 10), filled = (unsigned)(d->part * 28);
	struct buf b = { 0 };

	if (form == PROGRESS_NONE)
		return;
	if (form == PROGRESS_BAR ? !d->is_end && d->seconds < shown->seconds + 0.1
				 : tenths <= shown->tenths)
		return;
	shown->seconds = d->seconds;
	shown->tenths = tenths;
	if (form == PROGRESS_JSON) {
		buf_printf(&b,
			   "{\"workload\": \"%s\", \"part\": %.3f, \"acked\": %llu, "
			   "\"seconds\": %.3f}\n",
			   d->name, d->part, (unsigned long long)d->acked, d->seconds);
	} else if (form == PROGRESS_BAR) {
		buf_printf(&b, "\r%-8s [", d->name);
		for (unsigned i = 0; i < 28; i++)
			buf_putc(&b, i < filled ? '#' : '-');
		buf_printf(&b, "] %3.0f%%  %.*s  %u:%02u\033[K%s", d->part * 100,
			   (int)d->text.n, d->text.p, (unsigned)d->seconds / 60,
			   (unsigned)d->seconds % 60, d->is_end ? "\n" : "");
		shown->has_bar = !d->is_end;
	} else {
		buf_printf(&b, "%-8s %3u%%  %.*s  %.1f s\n", d->name, tenths * 10,
			   (int)d->text.n, d->text.p, d->seconds);
	}
	fwrite(b.data, 1, b.len, stderr);
	buf_done(&b);
}
