/* Kernels over the rows of a step: embedding, norms, gated linear units, hidden states to the bank. The residual stream
 * x is f32 [n_row][n_embd]; what goes into a weight product is bf16; what comes out of one is f32. Every row is
 * computed alone and in one order, so it does not depend on the batch. Pointers are to device memory; a call queues its
 * work on `stream` and returns, errors are the device's sticky ones. n_embd and n_ff are multiples of 4. */
#ifndef GALLEY_CUDA_ROWS_H
#define GALLEY_CUDA_ROWS_H

#include "dtype.h"
#include "plan.h"

struct CUstream_st; /* what cudaStream_t and CUstream point to */
struct bf16;
struct f16;

#ifdef __cplusplus
extern "C" {
#endif

struct embed_args {
    const void *table;       /* [n_vocab][n_embd] embeddings of tokens vocab0 .. vocab0 + n_vocab - 1: a rank's share */
    int32_t type;            /* DT_F32, DT_F16 or DT_BF16 */
    int32_t vocab0, n_vocab; /* other tokens count as 0, so that the ranks' x add up */
    float scale;             /* of what comes from the table, not from the bank */
    const float *bank;       /* [n_bank][n_embd]; NULL: another rank adds it */
    const int32_t *tok;      /* [n_row] as step_plan.tok */
    const struct mix *mix;
    const struct mix_part *part;
    float *x; /* [n_row][n_embd] written */
    int32_t n_row, n_embd;
};
void rows_embed(const struct embed_args *a, struct CUstream_st *stream);

/* RMS norm: out = x / sqrt(mean(x^2) + eps) * weight. */
struct norm_args {
    float *x;            /* [..][n] */
    const float *delta;  /* [n_row][n] x += delta first, and stays so; NULL: nothing. Not together with `row` */
    const int32_t *row;  /* [n_row] the rows of x to take; NULL: 0 .. n_row - 1 */
    const float *weight; /* NULL: out = x */
    float eps;
    struct bf16 *out;      /* [n_row][n], or NULL and */
    float *out_f32;        /* row i at out_f32 + out_at[i] */
    const int32_t *out_at; /* [n_row] in elements */
    int32_t n_row, n;
};
void rows_norm(const struct norm_args *a, struct CUstream_st *stream);

/* What a half of a layer adds to the residual stream: x += scale * y, or of y's RMS norm. */
struct add_args {
    float *x;            /* [n_row][n] */
    const float *y;      /* [n_row][n] */
    const float *weight; /* of the norm; NULL: none */
    float eps, scale;
    int32_t n_row, n;
};
void rows_add(const struct add_args *a, struct CUstream_st *stream);

/* x = cap * tanh(scale * x / cap), or scale * x with cap 0; [n], a multiple of 4 or not. */
void rows_cap(float *x, int64_t n, float scale, float cap, struct CUstream_st *stream);

/* plane[slot[i]] = norm(x[i]) at unit length: what READ_CONTRAST compares. */
struct plane_args {
    const float *x;      /* [n_row][n] */
    const float *weight; /* of the final norm */
    float eps;
    const int32_t *slot; /* [n_row] pool slots; -1: there is no such row */
    struct f16 *plane;   /* [n_slot][n] */
    int32_t n_row, n;
};
void rows_plane(const struct plane_args *a, struct CUstream_st *stream);

/* out = act(gate) * up, all [n_row][n]; rows are `stride` elements apart in gate and up, and out_stride in out, both
 * multiples of 4. */
struct glu_args {
    const float *gate, *up;
    struct bf16 *out;
    int32_t n_row, n, stride, out_stride;
    int32_t gelu; /* act is GELU (tanh); else SiLU */
};
void rows_glu(const struct glu_args *a, struct CUstream_st *stream);

/* bank[to[i]] = x[from[i]]: hidden states kept for READ_HIDDEN with a bank slot. */
void rows_save(const float *x, float *bank, const int32_t *from, const int32_t *to, int32_t n_row, int32_t n_embd,
               struct CUstream_st *stream);

/* x = part[0] + part[1] + .., in this order; each [n], one after the other; n a multiple of 4. */
void rows_sum(float *x, const float *part, int32_t n_part, int64_t n, struct CUstream_st *stream);

/* Threads of a block that owns a row of n elements: whole warps, four elements a thread, at most 512. */
int32_t rows_block_threads(int32_t n);

#ifdef __cplusplus
}
#endif
#endif
