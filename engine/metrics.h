/* Counters and histograms, written by the engine thread and read by any. Private to engine/. */
#ifndef GALLEY_METRICS_H
#define GALLEY_METRICS_H

#include <pthread.h>

#include "engine.h"

/* The values live in one struct that a reader copies under a sequence lock: the writer never waits. */
struct metrics {                     /* owner: the engine thread */
    struct engine_metrics now;       /* the writer's own */
    struct engine_metrics published; /* readers' copy */
    _Atomic uint32_t version;        /* odd while `published` changes */
    _Atomic uint64_t n_rejected;     /* from the loops */
};

void metrics_init(struct metrics *m);
void metrics_publish(struct metrics *m); /* once a step */
void metrics_read(const struct metrics *m, struct engine_metrics *out);
void hist_add(struct histogram *h, double value);

#endif
