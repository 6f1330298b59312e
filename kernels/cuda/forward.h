/* Within the pass (forward.c, feed_forward.c): what it is made of. Everything is queued on its stream. */
#ifndef GALLEY_CUDA_FORWARD_H
#define GALLEY_CUDA_FORWARD_H

#include "cuda.h"

struct pass { /* owner: cuda_forward */
    struct bmodel *m;
    const struct step_plan *p;
    const struct cuda_pool *pool;
    struct CUstream_st *stream;
    const struct attn_grid *grid; /* of attention; NULL: as many blocks as there are items */
    int32_t n_q, n_kv, heads;     /* widths: q, k or v, and all three */
};

#define ON_DEVICE(pass, list) ((__typeof__(list))cuda_on_device((pass)->m, list))

struct rows { /* row0 .. row0 + n - 1 of the plan */
    int32_t row0, n;
};

/* Of n_row rows of x, w->n_in elements apart: what is to be stored, and how. */
struct gemm_args pass_args(const struct pass *s, const struct gemm_weight *w, const struct bf16 *x, int32_t n_row,
                           float *out, int32_t out_stride);
void pass_product(const struct pass *s, const struct gemm_weight *w, const struct bf16 *x, int32_t n_row, float *out,
                  int32_t out_stride, enum gemm_epilogue epilogue);
/* The same, whatever is to become of it: by a library where one was chosen for it. */
void pass_launch(const struct pass *s, const struct gemm_args *a);
/* The stream's rows to the pool's h, normed; weight NULL: as they are. */
void pass_norm(const struct pass *s, struct rows r, const float *weight);

/* Where a half of a layer leaves what it brings, [r.n][n_embd], of several ranks its own part: added where it says so,
 * else written. It is the stream, which one rank has beside it, or y, where more is done to it than added. */
float *pass_brought(const struct pass *s, struct rows r, bool *add);
/* From there to the stream, with what the other ranks have left. post_norm NULL: none. */
void pass_to_stream(const struct pass *s, struct rows r, const float *post_norm);
/* Both for the product that takes a rank's heads or columns back. */
void pass_product_to_stream(const struct pass *s, struct rows r, const struct gemm_weight *w, const struct bf16 *in,
                            const float *post_norm);

/* A layer's feed-forward network, or its experts (feed_forward.c). */
void pass_feed_forward(const struct pass *s, struct rows r, const struct cuda_layer *w);

#endif
