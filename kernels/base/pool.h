/* A pool of workers for short parallel regions: open to all floors. The caller is worker 0, so a pool of one has no
 * thread at all. Waiting workers spin for some microseconds, then sleep, so that a pool between two regions, or beside
 * a busy neighbour, costs nothing. One region at a time for each pool; pools are independent of each other. */
#ifndef GALLEY_POOL_H
#define GALLEY_POOL_H

#include <stddef.h>

#include "err.h"

struct pool; /* opaque */

typedef void (*pool_fn)(void *arg, int worker); /* worker: 0 .. pool_size - 1 */

/* n_worker >= 1, the caller included. */
int pool_create(struct pool **out, int n_worker, struct err *e);
void pool_free(struct pool *p); /* NULL is legal */
int pool_size(const struct pool *p);
/* Runs fn once on every worker and returns when all have. What the caller wrote before is seen by the workers, and what
 * they wrote is seen by the caller afterwards. */
void pool_run(struct pool *p, pool_fn fn, void *arg);
/* Keeps a worker to the processors of a mask as sched_setaffinity takes it; copied. Worker 0, the caller, is kept to
 * them while a region runs and has its own mask back afterwards. Not while a region runs. */
int pool_bind(struct pool *p, int worker, const void *mask, size_t mask_bytes, struct err *e);
/* Inside a region: returns when every worker has called it; the same visibility as above. */
void pool_barrier(struct pool *p);

#endif
