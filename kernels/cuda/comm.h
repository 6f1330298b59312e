/* The few calls by which the GPUs of a model exchange data, as a table like struct cuda_api: NCCL's library is looked
 * up at run time (comm_nccl.c), and tests have a communicator of threads and barriers (tests/simt/fake_comm.c). Calls
 * return 0 or the library's own code. What is queued on a stream may be recorded in a graph. */
#ifndef GALLEY_CUDA_COMM_H
#define GALLEY_CUDA_COMM_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct CUstream_st;
struct comm; /* one rank's end; opaque */

struct comm_id { /* what the ranks of one communicator agree on */
    char bytes[128];
};

struct comm_piece { /* to or from one rank; n 0: nothing */
    float *data;    /* device memory */
    size_t n;
};

struct comm_api {       /* owner: the library, static */
    int32_t timeout_ms; /* a step, or joining, that takes longer has lost a rank */
    /* -ERR_NOTFOUND and words that name the library, where there is none. */
    int (*find)(struct err *e);
    int (*make_id)(struct comm_id *out);
    /* By every rank's thread, on its device; returns when all have joined. */
    int (*join)(struct comm **out, const struct comm_id *id, int32_t n_rank, int32_t rank);
    void (*leave)(struct comm *c); /* NULL is legal; c was aborted, or nothing of it is in flight */
    /* By any thread: whatever waits for other ranks gives up, now and from now on. */
    void (*abort)(struct comm *c);
    /* 0 while all is well; looked at when a stream has been waited for. */
    int (*state)(struct comm *c);
    /* Queued: x = the sum of all ranks' x, [n] floats of device memory; every rank has the same bits after it. */
    int (*sum)(struct comm *c, float *x, size_t n, struct CUstream_st *s);
    /* Queued: send[q] goes to rank q's recv[own rank], of as many floats; [n_rank] each, own ones included. */
    int (*exchange)(struct comm *c, const struct comm_piece *send, const struct comm_piece *recv,
                    struct CUstream_st *s);
    const char *(*error_text)(int code);
};

/* NVIDIA's, libnccl.so.2. */
const struct comm_api *comm_nccl(void);

#endif
