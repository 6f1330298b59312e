/* The paged KV cache on the device, and the kernels that fill and move it. In each layer K and V are planes
 * [n_block][n_head_kv][block_len][head_dim]: a head's keys of one block lie together, which is what attention reads.
 * fp8 has beside them f32 scales [n_block][n_head_kv][block_len], one for each token and head, so that no scale spans
 * tokens: element = scale * e4m3. See rows.h for what holds of all calls. */
#ifndef GALLEY_CUDA_KV_H
#define GALLEY_CUDA_KV_H

#include "plan.h"

#ifndef KV_FN /* device code includes this header with a meaning of its own */
#define KV_FN static inline
#endif

struct CUstream_st; /* what cudaStream_t and CUstream point to */
struct bf16;

#ifdef __cplusplus
extern "C" {
#endif

enum kv_type { KV_BF16, KV_FP8 };
enum { KV_MAX_HEAD_DIM = 256, KV_MAX_PLANE = 5, KV_SQUARES = 4 /* as rows_sum wants it */ };

struct kv_layer { /* one layer's planes; owner: the model's pool */
    void *k, *v;
    float *k_scale, *v_scale;                 /* KV_FP8 only */
    int32_t type;                             /* enum kv_type */
    int32_t n_head_kv, head_dim, block_shift; /* block_len = 1 << block_shift */
};

/* The row [head_dim] (and the scale) of a pool slot and head. */
KV_FN int64_t kv_row(const struct kv_layer *c, int32_t slot, int32_t head)
{
    int32_t block = slot >> c->block_shift, at = slot & ((1 << c->block_shift) - 1);
    return ((((int64_t)block * c->n_head_kv + head) << c->block_shift) + at);
}

/* cos and sin of every row's angles, once a step: table[row][i] = {cos, sin}(pos * inv_freq[i]) * mscale. */
struct rope_args {
    const int32_t *pos;    /* [n_row] */
    const float *inv_freq; /* [n_pair] rope_dim / 2 of them */
    float mscale;
    float *table; /* [n_row][n_pair][2] */
    int32_t n_row, n_pair;
};
void kv_rope_table(const struct rope_args *a, struct CUstream_st *stream);

/* The sum of (q + bias)^2 over all heads of a row, and of k's: what norms of all heads together go by (OLMo 2). Devices
 * that share the heads add theirs up before kv_heads. */
struct squares_args {
    const float *q, *k;   /* rows of n_q and n_k elements, `stride` apart */
    const float *bq, *bk; /* [n_q], [n_k] biases; NULL: none */
    float *out;           /* [n_row][KV_SQUARES] q's, k's, then zeros */
    int32_t n_row, n_q, n_k, stride;
};
void kv_squares(const struct squares_args *a, struct CUstream_st *stream);

/* What stands between the q, k, v products and attention: bias, norm of q and k heads, rotation; q to bf16, k and v to
 * the cache. */
struct heads_args {
    const float *q, *k, *v;       /* rows of n_head, n_head_kv, n_head_kv heads, `stride` elements apart */
    const float *bq, *bk, *bv;    /* biases; NULL: none */
    const float *q_norm, *k_norm; /* [head_dim] weights, with `squares` [n_head][head_dim] and so on; NULL: no norm */
    const float *squares;         /* [n_row][KV_SQUARES] heads are normed together; NULL: each alone */
    int32_t n_q_all, n_k_all;     /* elements that the squares are of */
    float eps;
    const float *rope;   /* of kv_rope_table */
    int32_t rope_dim;    /* leading elements that rotate */
    int32_t neox;        /* 1: pairs (i, i + rope_dim / 2), 0: (2 i, 2 i + 1) */
    const int32_t *slot; /* [n_row] pool slots that the rows write; -1: there is no such row */
    struct bf16 *q_out;  /* [n_row][n_head][head_dim] */
    struct kv_layer cache;
    int32_t n_row, n_head, stride;
};
void kv_heads(const struct heads_args *a, struct CUstream_st *stream);

/* ---- Moves of slots ---- */

struct kv_plane { /* anything that has a row for each slot: K, V, their scales, hidden states (one layer, one head) */
    void *base;
    int32_t n_layer, n_head, row_bytes; /* row_bytes: a multiple of 4 */
    int64_t layer_bytes;                /* from a layer to the next */
};

struct move_args {
    struct kv_plane plane[KV_MAX_PLANE];
    int32_t n_plane, block_shift;
    const int32_t *src, *dst; /* [n_move] pool slots */
    int32_t n_move;
    void *staging; /* kv_staging_bytes */
};
/* All sources are read before any destination is written. */
void kv_move(const struct move_args *a, struct CUstream_st *stream);
/* On the host (kv_work.c): the pool slot that each row of a plan writes, and its moves slot by slot; src and dst have
 * room for block_len a kvop. Returns how many. */
void kv_row_slots(const struct step_plan *p, int32_t block_len, int32_t *slot);
int32_t kv_moves(const struct step_plan *p, int32_t *src, int32_t *dst);
size_t kv_staging_bytes(const struct kv_plane *plane, int32_t n_plane, int32_t n_move);

#ifdef __cplusplus
}
#endif
#endif
