/* What part of a model a rank has, where several GPUs share it: heads and feed-forward columns, every
 * expert's as well, are dealt out, and so is the vocabulary; the residual stream and norms are everyone's. Weights that
 * make heads are cut by rows, those that take heads back to the stream by columns, so that a layer needs two sums over
 * the ranks, and a small third where all heads are normed together. */
#ifndef GALLEY_CUDA_SHARD_H
#define GALLEY_CUDA_SHARD_H

#include "backend.h"

struct shard {
    int32_t rank, n_rank;
    int32_t n_head, n_head_kv; /* of all ranks together */
    int32_t q0, kv0;           /* its first head and its first KV head, which several ranks may have */
    bool counts_kv;            /* no earlier rank has its KV heads */
    int32_t ff0, ff_expert0;   /* its first column, and of each expert */
    int32_t vocab0, n_vocab;   /* tokens of the embedding table and of the head; all but the last end at a panel */
};

/* `own`: d with the rank's n_head, n_head_kv, n_ff and n_ff_expert. -ERR_INVALID: the model cannot be cut into n_rank,
 * and why. */
int shard_make(const struct model_desc *d, int32_t rank, int32_t n_rank, struct shard *out, struct model_desc *own,
               struct err *e);
/* Where its share of the tokens begins; of rank n_rank: their number. */
int32_t shard_vocab_begin(int32_t n_vocab, int32_t rank, int32_t n_rank);

struct view {         /* rows of a tensor, or columns of it: of type, [n_row][n_col], row_bytes apart */
    const char *data; /* NULL: the model has no such tensor */
    int32_t type;
    int64_t n_row, n_col;
    size_t row_bytes;
};

struct view view_all(const struct tensor *t);
struct view view_rows(const struct tensor *t, int64_t row0, int64_t n);
/* col0 at the beginning of a block of the type, or data is NULL. */
struct view view_cols(const struct tensor *t, int64_t col0, int64_t n);
static inline const char *view_row(const struct view *v, int64_t row)
{
    return v->data + v->row_bytes * (size_t)row;
}

/* Whether columns col0 .. col0 + n - 1 of a tensor are whole blocks of its type. */
int shard_check_cols(const struct tensor *t, const char *name, int64_t col0, int64_t n, const struct shard *s,
                     struct err *e);

#endif
