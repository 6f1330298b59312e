#include "dev.cuh"

#define KV_FN DEV
#include "kv.h"

/* ---- Rotation angles ---- */

KERNEL __launch_bounds__(128) k_rope_table(struct rope_args a)
{
    int32_t row = blockIdx.x;
    for (int i = threadIdx.x; i < a.n_pair; i += blockDim.x) {
        float angle = (float)a.pos[row] * a.inv_freq[i], *out = a.table + ((int64_t)row * a.n_pair + i) * 2;
        out[0] = cosf(angle) * a.mscale;
        out[1] = sinf(angle) * a.mscale;
    }
}

/* ---- All heads of a row: a block for q, a block for k ---- */

enum { SQUARES_THREADS = 256 };

struct squares_smem {
    float scratch[DEV_WARP];
};

KERNEL __launch_bounds__(SQUARES_THREADS) k_squares(struct squares_args a)
{
    SMEM_DYN(squares_smem, s);
    int row = blockIdx.x, of = blockIdx.y, n = of ? a.n_k : a.n_q;
    const float *x = (of ? a.k : a.q) + (int64_t)row * a.stride, *bias = of ? a.bk : a.bq;
    float *out = a.out + (int64_t)row * KV_SQUARES, sum = 0;
    for (int i = threadIdx.x; i < n; i += SQUARES_THREADS) {
        float v = x[i] + (bias ? bias[i] : 0);
        sum += v * v;
    }
    sum = dev_block_sum(sum, s->scratch);
    if (threadIdx.x == 0) {
        out[of] = sum;
        out[2 + of] = 0;
    }
}

/* ---- Heads: one warp a head of a row ---- */

enum { HEAD_WARPS = 4 };

struct heads_smem {
    float x[HEAD_WARPS][KV_MAX_HEAD_DIM];
};

/* What a head is normed by. */
struct head_norm {
    const float *weight; /* [head_dim]; NULL: it is not normed */
    const float *sum;    /* of the squares of n_all elements; NULL: the head's own */
    int n_all;
    float eps;
};

/* x = in (+ bias), normed if there is a weight. Each lane sees what it wrote itself; others after a warp sync. */
DEV void head_load(float *x, const float *in, const float *bias, struct head_norm norm, int dim, int lane)
{
    float sum = 0;
    for (int i = lane; i < dim; i += DEV_WARP) {
        x[i] = in[i] + (bias ? bias[i] : 0);
        sum += x[i] * x[i];
    }
    sum = dev_warp_sum(sum);
    float scale = dev_rsqrt((norm.sum ? *norm.sum / norm.n_all : sum / dim) + norm.eps);
    if (norm.weight)
        for (int i = lane; i < dim; i += DEV_WARP)
            x[i] = x[i] * scale * norm.weight[i];
    dev_warp_sync();
}

DEV void head_rotate(float *x, const float *rope, int rope_dim, bool neox, int lane)
{
    int half = rope_dim / 2;
    for (int i = lane; i < half; i += DEV_WARP) {
        float *a = neox ? &x[i] : &x[2 * i], *b = neox ? &x[i + half] : &x[2 * i + 1];
        float c = rope[2 * i], s = rope[2 * i + 1], p = *a, q = *b;
        *a = p * c - q * s;
        *b = p * s + q * c;
    }
    dev_warp_sync();
}

DEV void head_store_bf16(const float *x, struct bf16 *out, int dim, int lane)
{
    for (int i = lane * 2; i < dim; i += DEV_WARP * 2)
        *(uint32_t *)(out + i) = dev_pack_bf16(x[i], x[i + 1]);
}

DEV void head_store_fp8(const float *x, struct fp8 *out, float *scale, int dim, int lane)
{
    float top = 0;
    for (int i = lane; i < dim; i += DEV_WARP)
        top = fmaxf(top, fabsf(x[i]));
    top = dev_warp_max(top);
    float down = top > 0 ? DEV_FP8_MAX / top : 0;
    for (int i = lane * 4; i < dim; i += DEV_WARP * 4) {
        uint32_t w = 0;
        UNROLL
        for (int k = 0; k < 4; k++)
            w |= (uint32_t)dev_to_fp8(x[i + k] * down).u << 8 * k;
        *(uint32_t *)(out + i) = w;
    }
    if (lane == 0)
        *scale = top / DEV_FP8_MAX;
}

DEV void head_store(const float *x, const struct kv_layer *c, void *plane, float *scale, int64_t at, int lane)
{
    if (c->type == KV_FP8)
        head_store_fp8(x, (struct fp8 *)plane + at * c->head_dim, scale + at, c->head_dim, lane);
    else
        head_store_bf16(x, (struct bf16 *)plane + at * c->head_dim, c->head_dim, lane);
}

/* Of q's heads (of 0) or k's (of 1). */
DEV struct head_norm norm_of(const struct heads_args *a, int of, int row, int head)
{
    const float *weight = of ? a->k_norm : a->q_norm;
    if (!a->squares)
        return {weight, nullptr, 0, a->eps};
    return {weight + head * a->cache.head_dim, a->squares + (int64_t)row * KV_SQUARES + of,
            of ? a->n_k_all : a->n_q_all, a->eps};
}

KERNEL __launch_bounds__(HEAD_WARPS *DEV_WARP) k_heads(struct heads_args a)
{
    SMEM_DYN(heads_smem, s);
    int lane = threadIdx.x % DEV_WARP, warp = threadIdx.x / DEV_WARP, row = blockIdx.x;
    int dim = a.cache.head_dim, n_kv = a.cache.n_head_kv, head = blockIdx.y * HEAD_WARPS + warp;
    if (head >= a.n_head + 2 * n_kv || a.slot[row] < 0)
        return;
    float *x = s->x[warp];
    const float *rope = a.rope + (int64_t)row * a.rope_dim;
    int64_t in = (int64_t)row * a.stride;
    if (head < a.n_head) {
        head_load(x, a.q + in + head * dim, a.bq ? a.bq + head * dim : nullptr, norm_of(&a, 0, row, head), dim, lane);
        head_rotate(x, rope, a.rope_dim, a.neox, lane);
        head_store_bf16(x, a.q_out + ((int64_t)row * a.n_head + head) * dim, dim, lane);
        return;
    }
    head -= a.n_head;
    if (head < n_kv) {
        head_load(x, a.k + in + head * dim, a.bk ? a.bk + head * dim : nullptr, norm_of(&a, 1, row, head), dim, lane);
        head_rotate(x, rope, a.rope_dim, a.neox, lane);
        head_store(x, &a.cache, a.cache.k, a.cache.k_scale, kv_row(&a.cache, a.slot[row], head), lane);
        return;
    }
    head -= n_kv;
    head_load(x, a.v + in + head * dim, a.bv ? a.bv + head * dim : nullptr, head_norm(), dim, lane);
    head_store(x, &a.cache, a.cache.v, a.cache.v_scale, kv_row(&a.cache, a.slot[row], head), lane);
}

/* ---- Moves: one block a slot, layer and plane ---- */

/* The words of a slot in one plane and layer, head after head, in the cache and in staging
 * [plane][layer][move][head][row]. */
struct moved {
    uint32_t *pool;
    int64_t head_words; /* from a head to the next, in the pool */
    uint32_t *staged;
    int32_t row_words, n_word;
};

DEV struct moved moved_at(const struct move_args *a, const int32_t *slots)
{
    int32_t move = blockIdx.x, layer = blockIdx.y, slot = slots[move];
    const struct kv_plane *p = &a->plane[blockIdx.z];
    int64_t row = p->row_bytes / 4, block = slot >> a->block_shift, at = slot & ((1 << a->block_shift) - 1);
    int64_t staged = 0;
    for (unsigned i = 0; i < blockIdx.z; i++)
        staged += (int64_t)a->plane[i].n_layer * a->n_move * a->plane[i].n_head * (a->plane[i].row_bytes / 4);
    staged += ((int64_t)layer * a->n_move + move) * p->n_head * row;
    uint32_t *pool = (uint32_t *)p->base + p->layer_bytes / 4 * layer;
    return {pool + ((block * p->n_head) << a->block_shift) * row + at * row, row << a->block_shift,
            (uint32_t *)a->staging + staged, (int32_t)row, (int32_t)row * p->n_head};
}

template <bool TO_STAGING> KERNEL __launch_bounds__(128) k_move(struct move_args a)
{
    if ((int32_t)blockIdx.y >= a.plane[blockIdx.z].n_layer)
        return;
    struct moved m = moved_at(&a, TO_STAGING ? a.src : a.dst);
    for (int32_t i = threadIdx.x; i < m.n_word; i += blockDim.x) {
        uint32_t *pool = m.pool + i / m.row_words * m.head_words + i % m.row_words;
        if (TO_STAGING)
            m.staged[i] = *pool;
        else
            *pool = m.staged[i];
    }
}

/* ---- Launches ---- */

void kv_rope_table(const struct rope_args *a, struct CUstream_st *stream)
{
    LAUNCH(k_rope_table, a->n_row, a->n_pair > 32 ? 64 : 32, 0, stream, *a);
}

void kv_squares(const struct squares_args *a, struct CUstream_st *stream)
{
    LAUNCH(k_squares, dim3(a->n_row, 2), SQUARES_THREADS, sizeof(struct squares_smem), stream, *a);
}

void kv_heads(const struct heads_args *a, struct CUstream_st *stream)
{
    int32_t n_head = a->n_head + 2 * a->cache.n_head_kv;
    LAUNCH(k_heads, dim3(a->n_row, (n_head + HEAD_WARPS - 1) / HEAD_WARPS), HEAD_WARPS * DEV_WARP,
           sizeof(struct heads_smem), stream, *a);
}

size_t kv_staging_bytes(const struct kv_plane *plane, int32_t n_plane, int32_t n_move)
{
    size_t bytes = 0;
    for (int32_t i = 0; i < n_plane; i++)
        bytes += (size_t)plane[i].n_layer * (size_t)plane[i].n_head * (size_t)plane[i].row_bytes;
    return bytes * (size_t)n_move;
}

void kv_move(const struct move_args *a, struct CUstream_st *stream)
{
    int32_t n_layer = 0;
    for (int32_t i = 0; i < a->n_plane; i++)
        n_layer = a->plane[i].n_layer > n_layer ? a->plane[i].n_layer : n_layer;
    if (!a->n_move)
        return;
    dim3 grid(a->n_move, n_layer, a->n_plane);
    LAUNCH(k_move<true>, grid, 128, 0, stream, *a);
    LAUNCH(k_move<false>, grid, 128, 0, stream, *a);
}
