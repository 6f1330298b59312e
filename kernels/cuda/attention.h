/* Paged tree attention on the device, in two parts: the host looks at a plan and makes a list of work
 * (attention_work.c), kernels run over the list (attention.cu). The list is the same for every layer that the plan's
 * spans run.
 *
 * A *query* is one head of one row; the queries of the rows of a span that share a KV head lie side by side, so that a
 * key is loaded once for all of them. An *item* is up to 64 queries and a range of keys, run by one block for each KV
 * head.
 *
 * Results do not depend on the batch: keys go in tiles at absolute positions, and tiles belong to *splits*, whose
 * bounds are absolute as well (attn_split_len). Softmax runs within a split; the splits' results are folded in
 * ascending order. Whether the splits are items of their own (then k_attn_fold folds) or one item goes through them is
 * decided by how busy the device is, and gives the same bits. Tree rows: with `deterministic`, each gets items of its
 * own from the split on in which the tree begins, with its ancestors gathered in order of position, and equals bitwise
 * a row decoded alone. Without, the rows share the keys of all and mask; only where a key stands in a tile differs. */
#ifndef GALLEY_CUDA_ATTENTION_H
#define GALLEY_CUDA_ATTENTION_H

#include "kv.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    ATTN_WARP_QUERIES = 16, /* a warp's share of an item: the rows of an mma */
    ATTN_MAX_WARPS = 4,
    ATTN_ITEM_QUERIES = ATTN_WARP_QUERIES * ATTN_MAX_WARPS,
    ATTN_SPLIT_MIN = 256,
    ATTN_KEY_ALIGN = 64, /* items begin at multiples of it: a whole number of tiles */
    ATTN_ROW_PARTS = 3,  /* the most that a row needs when nothing is cut */
};

/* Keys of the split that begins at `at`: 256 up to position 8192, then twice as many in each octave. A long context so
 * has 16 splits more for each time that it doubles: enough for the device, few to fold. */
KV_FN int32_t attn_split_len(int32_t at)
{
    int32_t len = ATTN_SPLIT_MIN;
    while (at >= 32 * len)
        len *= 2;
    return len;
}

struct attn_row {      /* what a row sees, and where its parts are */
    uint64_t vis;      /* tree rows it sees: bit b stands at sequence slot tree0 + b */
    int32_t n_prefix;  /* it sees slots first_pos .. n_prefix - 1, */
    int32_t tree0;     /* of its ancestors the k-th is position tree0 + k, */
    int32_t first_pos; /* and no position before this one */
    int32_t part0;     /* index of its first part in scratch; -1: none */
    int32_t n_part;    /* 1: its one item writes the result */
    int32_t split0;    /* its p-th part comes from the item of split split0 + p; earlier splits fold into part 0 */
};

struct attn_item {
    int32_t row0;       /* plan row of query 0 */
    int32_t q0, n_q;    /* query q is row row0 + q / group, head kv_head * group + q % group */
    int32_t key0, key1; /* sequence slots, key0 a multiple of ATTN_KEY_ALIGN; with `gathered` positions of row row0 + q0
                           / group */
    int32_t split;      /* of key0, counted from position 0 */
    int32_t bt_off;     /* its span's block table */
    int32_t gathered;
};

struct attn_shape {
    int32_t n_head, n_head_kv, head_dim, sliding_window;
};

struct attn_work {          /* owner: the caller, arrays included; made for each step */
    struct attn_row *row;   /* [plan rows] */
    struct attn_item *item; /* [cap_item] first those of at most 16 queries */
    int32_t *fold;          /* [plan rows] rows with several parts */
    int32_t n_item, n_narrow, n_fold, n_part;
    int32_t cap_item, cap_part;
};

/* The least cap_part for plans within `lim`. More parts, up to rows * splits, let attn_work_make cut more. */
int32_t attn_work_min_part(const struct plan_limits *lim);
/* The cap_item that always suffices. */
int32_t attn_work_max_item(const struct plan_limits *lim, const struct attn_shape *shape, int32_t cap_part);
/* Work of the spans that run layer `layer`. `n_block` is how many blocks keep the device busy: where whole items would
 * be fewer, they are cut at splits as far as cap_part allows. */
void attn_work_make(const struct step_plan *p, int32_t layer, const struct attn_shape *shape, int32_t n_block,
                    int deterministic, struct attn_work *w);

size_t attn_scratch_bytes(const struct attn_shape *shape, int32_t n_part);

/* How much of the lists is filled. Kernels read it on the device, so that a launch need not know it. */
struct attn_count {
    int32_t n_narrow, n_item, n_fold;
    int32_t item0; /* where the items begin, counted from attn_args.item */
};

/* Blocks of the launches, for each KV head; 0: there is nothing to launch. A block whose item is done goes on to the
 * one that is a grid further, so the results are the same for any grid of items. */
struct attn_grid {
    int32_t narrow, wide; /* items of one warp; the others */
    int32_t fold;         /* rows: at least n_fold */
};

/* The list on the device, and what it works on. */
struct attn_args {
    const struct attn_count *count;
    const struct attn_row *row;
    const struct attn_item *item;
    const int32_t *fold, *bt; /* bt: the plan's block tables */
    struct attn_grid grid;
    const struct bf16 *q; /* [n_row][n_head][head_dim] */
    struct bf16 *out;     /* [n_row][n_head][head_dim] */
    float *scratch;       /* attn_scratch_bytes */
    int32_t n_part;       /* that scratch has room for */
    struct kv_layer kv;
    int32_t n_head;
    float scale;    /* of q . k */
    float soft_cap; /* of scaled scores; 0: none */
};
/* Returns -ERR_INVALID for a head size that has no kernel: 64, 80, 96, 128 and 256 have one. */
int attn_run(const struct attn_args *a, struct CUstream_st *stream);
/* Shared memory of a block of n_warp warps; 0 for a head size without a kernel. */
size_t attn_smem_bytes(int32_t head_dim, int32_t kv_type, int32_t n_warp);

#ifdef __cplusplus
}
#endif
#endif
