#include "shard.h"

#include "gemm.h"

enum { WIDTH = 8 }; /* columns that a product takes at a time */

static int refuse(const char *what, int32_t n, int32_t n_rank, struct err *e)
{
    return err_set(e, ERR_INVALID, "--tensor-parallel %d does not divide the model's %d %s", n_rank, n, what);
}

static int check_columns(const char *what, int32_t n, int32_t n_rank, struct err *e)
{
    if (n % n_rank)
        return refuse(what, n, n_rank, e);
    if (n_rank > 1 && n / n_rank % WIDTH)
        return err_set(e, ERR_INVALID, "--tensor-parallel %d leaves each %d %s: not a multiple of %d", n_rank,
                       n / n_rank, what, WIDTH);
    return 0;
}

/* Boundaries of the vocabulary lie between panels. */
int32_t shard_vocab_begin(int32_t n_vocab, int32_t rank, int32_t n_rank)
{
    int64_t n_panel = (n_vocab + GEMM_PANEL - 1) / GEMM_PANEL;
    return rank == n_rank ? n_vocab : (int32_t)(n_panel * rank / n_rank) * GEMM_PANEL;
}

int shard_make(const struct model_desc *d, int32_t rank, int32_t n_rank, struct shard *out, struct model_desc *own,
               struct err *e)
{
    struct shard s = {.rank = rank, .n_rank = n_rank, .n_head = d->n_head, .n_head_kv = d->n_head_kv};
    bool shares_kv = n_rank > d->n_head_kv;
    if (d->n_head % n_rank)
        return refuse("attention heads", d->n_head, n_rank, e);
    if (shares_kv ? n_rank % d->n_head_kv : d->n_head_kv % n_rank)
        return refuse("KV heads", d->n_head_kv, n_rank, e);
    int rc = check_columns("feed-forward columns", d->n_ff, n_rank, e);
    if (!rc && d->n_expert)
        rc = check_columns("columns of an expert", d->n_ff_expert, n_rank, e);
    if (rc)
        return rc;
    if ((d->n_vocab + GEMM_PANEL - 1) / GEMM_PANEL < n_rank)
        return err_set(e, ERR_INVALID, "--tensor-parallel %d: the model's %d tokens are too few to share", n_rank,
                       d->n_vocab);
    *own = *d;
    own->n_head = d->n_head / n_rank;
    own->n_head_kv = shares_kv ? 1 : d->n_head_kv / n_rank;
    own->n_ff = d->n_ff / n_rank;
    own->n_ff_expert = d->n_ff_expert / n_rank;
    s.q0 = rank * own->n_head;
    s.kv0 = (int32_t)((int64_t)rank * d->n_head_kv / n_rank);
    s.counts_kv = !shares_kv || rank % (n_rank / d->n_head_kv) == 0;
    s.ff0 = rank * own->n_ff;
    s.ff_expert0 = rank * own->n_ff_expert;
    s.vocab0 = shard_vocab_begin(d->n_vocab, rank, n_rank);
    s.n_vocab = shard_vocab_begin(d->n_vocab, rank + 1, n_rank) - s.vocab0;
    *out = s;
    return 0;
}

struct view view_rows(const struct tensor *t, int64_t row0, int64_t n)
{
    struct view v = {.type = t->type, .n_row = n, .n_col = t->n_col};
    if (!t->data)
        return v;
    v.row_bytes = dtype_row_bytes(t->type, t->n_col);
    v.data = (const char *)t->data + v.row_bytes * (size_t)row0;
    return v;
}

struct view view_all(const struct tensor *t)
{
    return view_rows(t, 0, t->n_row);
}

struct view view_cols(const struct tensor *t, int64_t col0, int64_t n)
{
    struct view v = view_all(t);
    if (v.data)
        v.data += dtype_row_bytes(t->type, col0);
    v.n_col = n;
    return v;
}

int shard_check_cols(const struct tensor *t, const char *name, int64_t col0, int64_t n, const struct shard *s,
                     struct err *e)
{
    const struct dtype_info *type = dtype_info(t->type);
    if (col0 % type->block_len == 0 && n % type->block_len == 0)
        return 0;
    return err_set(e, ERR_INVALID,
                   "--tensor-parallel %d cuts %s into pieces of %lld columns, and blocks of %s have %d: a smaller "
                   "number, or a model in another format, fits",
                   s->n_rank, name, (long long)n, type->name, type->block_len);
}
