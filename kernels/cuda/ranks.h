/* The threads of a back end with several GPUs: one for each rank, which alone calls the runtime for its device. Jobs
 * are given to all ranks at once. A rank that fails, or that does not answer in time, ends what the others wait for. */
#ifndef GALLEY_CUDA_RANKS_H
#define GALLEY_CUDA_RANKS_H

#include <stdbool.h>

#include "cuda.h"

enum { RANKS_MAX = 64 };

struct ranks; /* opaque */

/* A rank's part of a job, on its thread. */
typedef int (*ranks_fn)(struct backend *b, void *arg, struct err *e);

/* b: [n] one a rank; they stay the caller's, and outlive the ranks. */
int ranks_create(struct ranks **out, struct backend *const *b, int32_t n, struct err *e);
/* No job may be under way, unless a rank was given up. NULL is legal. */
void ranks_free(struct ranks *r);

/* Gives a job to all. `together`: its ranks wait for each other, so that one's failure is everyone's. */
void ranks_start(struct ranks *r, bool together, ranks_fn fn, void *arg);
/* Until all are done: 0, or the error that came first. timeout_ms 0: without limit. Else -ERR_DEVICE after it, with the
 * ranks named that had not answered. */
int ranks_finish(struct ranks *r, int32_t timeout_ms, struct err *e);
int ranks_run(struct ranks *r, bool together, int32_t timeout_ms, ranks_fn fn, void *arg, struct err *e);

/* A job of ranks that wait for each other has failed: there is no other such job. */
bool ranks_lost(const struct ranks *r);
/* A rank is stuck in a call: no job of any kind, and what the ranks own is left as it is. */
bool ranks_stuck(const struct ranks *r);

#endif
