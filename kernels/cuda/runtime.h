/* The few calls of the CUDA runtime that the back end makes, as a table: so that it names no CUDA function, starts on a
 * machine without a driver, and is tested on a runtime made of malloc and memcpy (tests/simt/fake_runtime.c). Calls
 * return 0 or the runtime's own code. They apply to the device chosen last with use_device, by the calling thread. */
#ifndef GALLEY_CUDA_RUNTIME_H
#define GALLEY_CUDA_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend.h"

struct CUstream_st;    /* what cudaStream_t and CUstream point to */
struct CUgraphExec_st; /* what cudaGraphExec_t points to */

/* Of cudaError_t, what is told apart here. */
enum {
    CUDA_NO_MEMORY = 2,   /* cudaErrorMemoryAllocation */
    CUDA_OLD_DRIVER = 35, /* cudaErrorInsufficientDriver: also where there is none */
    CUDA_BUSY = 46,       /* cudaErrorDevicesUnavailable: another process has it to itself */
    CUDA_NO_DEVICE = 100, /* cudaErrorNoDevice */
    CUDA_NO_CODE = 209    /* cudaErrorNoKernelImageForDevice */
};

struct cuda_device {
    char name[64];
    int32_t n_sm, major, minor; /* multiprocessors; compute capability */
    size_t total_bytes;
    bool prohibited; /* its compute mode lets no process use it */
};

struct cuda_api {                                       /* owner: the runtime, static */
    int (*versions)(int32_t *driver, int32_t *runtime); /* 13000: CUDA 13.0; driver 0: there is none */
    int (*device_count)(int32_t *n);
    int (*device_info)(int32_t device, struct cuda_device *out);
    int (*use_device)(int32_t device);
    int (*free_bytes)(size_t *out);
    int (*alloc)(void **out, size_t bytes);      /* device memory, aligned to 256 bytes */
    void (*free)(void *p);                       /* NULL is legal, here and below */
    int (*host_alloc)(void **out, size_t bytes); /* pinned, so that copies run beside the host */
    void (*host_free)(void *p);
    int (*stream_create)(struct CUstream_st **out);
    void (*stream_destroy)(struct CUstream_st *s);
    int (*stream_wait)(struct CUstream_st *s); /* until all that was queued is done; errors of kernels show here */
    int (*copy)(void *dst, const void *src, size_t bytes, struct CUstream_st *s); /* queued; either side, any memory */
    /* Queued: n rows of `width` bytes, so far apart; device memory. */
    int (*copy_rows)(void *dst, size_t dst_stride, const void *src, size_t src_stride, size_t width, size_t n,
                     struct CUstream_st *s);
    int (*zero)(void *dst, size_t bytes, struct CUstream_st *s); /* queued; device memory */
    /* What the calling thread queues on `s` from here on is recorded and not run: kernels with their arguments by
     * value, copies, zeros. Waiting for the stream and allocating are errors meanwhile, and spoil the recording.
     * Kernels must have been loaded before (a runtime that loads them lazily would allocate). Other threads are not
     * affected. */
    int (*graph_begin)(struct CUstream_st *s);
    /* Ends the recording, in any case; *out is ready to be launched, or NULL with an error. */
    int (*graph_end)(struct CUstream_st *s, struct CUgraphExec_st **out);
    int (*graph_launch)(struct CUgraphExec_st *g, struct CUstream_st *s); /* queues all of it, in order */
    void (*graph_destroy)(struct CUgraphExec_st *g);                      /* none of its launches may be in flight */
    int (*last_error)(void);                                              /* of launches since it was last asked */
    const char *(*error_text)(int code);
};

struct comm_api;
struct blas_api;

/* The back end "cuda" over a runtime, what its devices exchange data by, and a library for large products or NULL, which
 * stay borrowed. One of each a process: the last call's. */
const struct backend_ops *cuda_backend(const struct cuda_api *api, const struct comm_api *comm,
                                       const struct blas_api *blas);
/* The same over NVIDIA's runtime (runtime_cudart.c), NCCL and cuBLASLt, in builds that have the first. */
const struct backend_ops *backend_cuda(void);

#endif
