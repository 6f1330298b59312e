/* A wake-up between threads: one sleeper, many wakers. Open to all floors. */
#ifndef GALLEY_WAKE_H
#define GALLEY_WAKE_H

#include <stdint.h>

#include "err.h"

struct wake {
    int fd; /* eventfd */
};

int wake_create(struct wake *w, struct err *e);
void wake_free(struct wake *w);
void wake_post(struct wake *w);
/* Returns after a post (also one that came before the call) or after the time-out. */
void wake_wait(struct wake *w, int timeout_ms);

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t clock_ns(void);

#endif
