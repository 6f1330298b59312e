/* For attention.cu: the keys and values of an item in shared memory, a tile at a time, whatever type the cache has.
 * Private. */
#ifndef GALLEY_CUDA_ATTENTION_TILES_CUH
#define GALLEY_CUDA_ATTENTION_TILES_CUH

#include "dev.cuh"

#define KV_FN DEV
#include "attention.h"

/* ---- Shared memory ---- */

template <int DIM> struct attn_dims {
    enum {
        TILE = DIM > 128 ? 32 : 64, /* keys; two stages of K and V fit what every device has */
        STRIDE = DIM + 8,           /* elements from a row to the next: eight rows begin in different banks */
        CHUNKS = DIM / 8,           /* of 16 bytes in a row of bf16 */
    };
};

template <int DIM, int TYPE> struct attn_smem;

template <int DIM> struct attn_smem<DIM, KV_BF16> {
    typedef attn_dims<DIM> d;
    struct bf16 k[2][d::TILE][d::STRIDE], v[2][d::TILE][d::STRIDE];
    struct bf16 q[ATTN_ITEM_QUERIES][d::STRIDE]; /* last: a block has 16 rows for each of its warps */
};

template <int DIM> struct attn_smem<DIM, KV_FP8> {
    typedef attn_dims<DIM> d;
    struct fp8 k8[2][d::TILE][DIM], v8[2][d::TILE][DIM]; /* as they come in */
    float k_scale[2][d::TILE], v_scale[2][d::TILE];
    struct bf16 k[1][d::TILE][d::STRIDE], v[1][d::TILE][d::STRIDE]; /* without their scales, exact */
    struct bf16 q[ATTN_ITEM_QUERIES][d::STRIDE];
};

/* ---- Tiles ---- */

struct key_source { /* where an item's keys are */
    const int32_t *bt;
    int32_t shift, key1;
    int32_t tree0; /* gathered: keys from here on are `vis`'s; else beyond all */
    uint64_t vis;
};

DEV int32_t key_slot(const struct key_source *src, int32_t key)
{
    if (key >= src->tree0) {
        uint64_t bits = src->vis;
        for (int32_t k = key - src->tree0; k > 0; k--)
            bits &= bits - 1;
        key = src->tree0 + dev_lowest_bit(bits);
    }
    return (src->bt[key >> src->shift] << src->shift) + (key & ((1 << src->shift) - 1));
}

/* Rows of `row_bytes` of two planes into shared rows `stride` bytes apart. Keys past the end come as zeros: their
 * weight is 0, and 0 times what lies there must be 0. */
DEV void rows_request(const struct key_source *src, const struct kv_layer *kv, int head, int32_t key0, int n_key,
                      char *k, char *v, int row_bytes, int stride)
{
    int chunks = row_bytes / 16;
    for (int i = threadIdx.x; i < n_key * chunks; i += blockDim.x) {
        int32_t key = key0 + i / chunks;
        bool there = key < src->key1;
        int64_t at = there ? kv_row(kv, key_slot(src, key), head) * row_bytes + i % chunks * 16 : 0;
        int to = i / chunks * stride + i % chunks * 16;
        dev_copy16(k + to, (const char *)kv->k + at, there);
        dev_copy16(v + to, (const char *)kv->v + at, there);
    }
}

template <int DIM>
DEV void tile_request(struct attn_smem<DIM, KV_BF16> *s, const struct key_source *src, const struct kv_layer *kv,
                      int head, int32_t key0, int stage)
{
    typedef attn_dims<DIM> d;
    rows_request(src, kv, head, key0, d::TILE, (char *)s->k[stage], (char *)s->v[stage], DIM * 2, d::STRIDE * 2);
}

template <int DIM>
DEV void tile_request(struct attn_smem<DIM, KV_FP8> *s, const struct key_source *src, const struct kv_layer *kv,
                      int head, int32_t key0, int stage)
{
    typedef attn_dims<DIM> d;
    rows_request(src, kv, head, key0, d::TILE, (char *)s->k8[stage], (char *)s->v8[stage], DIM, DIM);
    for (int i = threadIdx.x; i < d::TILE; i += blockDim.x) {
        bool there = key0 + i < src->key1;
        int64_t at = there ? kv_row(kv, key_slot(src, key0 + i), head) : 0;
        s->k_scale[stage][i] = there ? kv->k_scale[at] : 0;
        s->v_scale[stage][i] = there ? kv->v_scale[at] : 0;
    }
}

/* After the copies have arrived, before a barrier: makes the stage's tile what the products read. */
template <int DIM> DEV int tile_open(struct attn_smem<DIM, KV_BF16> *s, int stage)
{
    return stage;
}

DEV void widen16(struct bf16 *to, const struct fp8 *from)
{
    struct vec16 in = *(const struct vec16 *)from, out[2];
    UNROLL
    for (int i = 0; i < 4; i++) {
        out[i / 2].w[i % 2 * 2] = dev_widen_fp8(in.w[i]);
        out[i / 2].w[i % 2 * 2 + 1] = dev_widen_fp8(in.w[i] >> 16);
    }
    ((struct vec16 *)to)[0] = out[0];
    ((struct vec16 *)to)[1] = out[1];
}

template <int DIM> DEV int tile_open(struct attn_smem<DIM, KV_FP8> *s, int stage)
{
    typedef attn_dims<DIM> d;
    dev_block_sync();
    for (int i = threadIdx.x; i < d::TILE * DIM / 16; i += blockDim.x) {
        int key = i / (DIM / 16), at = i % (DIM / 16) * 16;
        widen16(&s->k[0][key][at], &s->k8[stage][key][at]);
        widen16(&s->v[0][key][at], &s->v8[stage][key][at]);
    }
    return 0;
}

template <int DIM> DEV float k_scale_of(const struct attn_smem<DIM, KV_BF16> *s, int stage, int i)
{
    return 1;
}

template <int DIM> DEV float v_scale_of(const struct attn_smem<DIM, KV_BF16> *s, int stage, int i)
{
    return 1;
}

template <int DIM> DEV float k_scale_of(const struct attn_smem<DIM, KV_FP8> *s, int stage, int i)
{
    return s->k_scale[stage][i];
}

template <int DIM> DEV float v_scale_of(const struct attn_smem<DIM, KV_FP8> *s, int stage, int i)
{
    return s->v_scale[stage][i];
}

#endif
