/* The one kind of product that the back end may leave to a library, as a table like struct comm_api: cuBLASLt is looked
 * up at run time (blas_cublaslt.c), and tests have loops in its place (tests/simt/fake_blas.c). Calls return 0 or the
 * library's own code, and belong to the device and thread that opened the library. */
#ifndef GALLEY_CUDA_BLAS_H
#define GALLEY_CUDA_BLAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct CUstream_st;
struct bf16;
struct blas;      /* the library, opened for a device; opaque */
struct blas_plan; /* how it computes products of one shape; opaque */

/* out[n_row][out_stride] (+)= x[n_row][n_in] w[n_out][n_in]^T: x and w in bf16, sums and out in f32. */
struct blas_shape {
    int32_t n_out, n_in, n_row; /* n_out, n_row: of the product that the plan is to be best at */
    int32_t out_stride;
    bool add; /* else what was there is overwritten */
};

struct blas_operands { /* device memory, aligned to BLAS_ALIGN bytes; w to 256 */
    const struct bf16 *w, *x;
    float *out;
    void *workspace; /* workspace_bytes */
    int32_t n_out, n_row;
};

enum { BLAS_ALIGN = 16 };

struct blas_api { /* owner: the library, static */
    const char *name;
    /* What is unpacked for it at a time: enough to keep it busy, little enough to come from the device's cache. */
    size_t piece_bytes;
    size_t workspace_bytes; /* that plans are made for */
    /* Tests: it is used where it works, whatever a clock says; and a clock of their own, in seconds, or NULL. */
    bool always;
    double (*clock)(void);
    /* -ERR_NOTFOUND and words that name the library, where there is none. */
    int (*find)(struct err *e);
    int (*open)(struct blas **out);
    void (*close)(struct blas *b); /* NULL is legal, here and below */
    int (*plan)(struct blas *b, const struct blas_shape *s, struct blas_plan **out);
    void (*forget)(struct blas_plan *p);
    /* Queued. */
    int (*run)(struct blas *b, struct blas_plan *p, const struct blas_operands *o, struct CUstream_st *s);
    const char *(*error_text)(int code);
};

/* NVIDIA's, libcublasLt.so.13 or .12. */
const struct blas_api *blas_cublaslt(void);

#endif
