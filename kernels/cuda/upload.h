/* Weights on their way to a device: made by several threads in one of two pinned buffers, while the device fetches what
 * stands in the other. A walk over the weights plans them, then the same walk runs them; the buffers are there in
 * between, and no longer. Of several ranks, each has an upload of its own and a fair share of the threads. */
#ifndef GALLEY_CUDA_UPLOAD_H
#define GALLEY_CUDA_UPLOAD_H

#include "backend.h"

/* Of a buffer, unless a unit is larger: 32 MiB of pinned memory a rank, while it loads. Large beside what it costs to
 * wake threads and to queue a copy. */
enum { UPLOAD_BYTES = 16 << 20 };

/* Makes units first .. first + n - 1 at `to`, on any thread. 0 or -ERR_*. */
typedef int (*upload_fn)(const void *arg, int64_t first, int64_t n, char *to);

struct upload_work { /* units that lie one after the other on the device */
    upload_fn make;  /* with arg */
    const void *arg; /* borrowed */
    int64_t n_unit;
    size_t unit_bytes; /* of one, on the device */
    size_t file_bytes; /* of all, as progress counts them */
};

struct upload {              /* owner: cuda_load, which zeroes it and sets the first three */
    const struct backend *b; /* borrowed */
    load_progress progress;  /* or NULL */
    void *arg;
    size_t least_bytes, most_bytes; /* planned: the largest unit, the largest work */
    size_t done, total;             /* of the file */
    size_t buffer_bytes;
    char *buffer;      /* two of them, pinned; owned */
    int at;            /* which is free */
    struct pool *pool; /* owned; the caller is one of them */
};

void upload_plan(struct upload *u, const struct upload_work *w);
/* Once all is planned. upload_close also after a failure. -ERR_NOMEM, -ERR_IO: no thread, -ERR_DEVICE. */
int upload_open(struct upload *u, struct err *e);
/* Makes w's units and queues their copies to device memory at `to`. -ERR_CANCELED: progress says so. */
int upload_run(struct upload *u, const struct upload_work *w, void *to, struct err *e);
/* Until all copies are done. */
int upload_finish(struct upload *u, struct err *e);
/* Waits as well: nothing fetches from what is freed. Legal without upload_open. */
void upload_close(struct upload *u);

/* Threads for this rank, itself included: its share of --threads, or of the cores that this process may use. */
int32_t upload_threads(const struct backend *b);

#endif
