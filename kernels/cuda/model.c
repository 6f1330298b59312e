/* Weights: a walk over the model's tensors, done twice. The first only counts, then one allocation holds all, and the
 * second has the tensors made and sent there (upload.c). */
#include <string.h>

#include "cuda.h"
#include "mem.h"
#include "upload.h"

struct loader { /* owner: cuda_load */
    struct bmodel *m;
    struct cuda_arena arena; /* on the device; base NULL: this walk counts */
    struct upload upload;
    struct err *e;
};

static int place(struct loader *ld, const struct upload_work *w, void *to)
{
    if (ld->arena.base)
        return upload_run(&ld->upload, w, to, ld->e);
    upload_plan(&ld->upload, w);
    return 0;
}

/* ---- Vectors ---- */

static int make_vector(const void *arg, int64_t first, int64_t n, char *to)
{
    const struct view *t = arg;
    (void)first, (void)n; /* it is one unit */
    dtype_to_f32(t->type, t->data, (float *)(void *)to, t->n_col);
    return 0;
}

static int load_vector(struct loader *ld, struct view t, const float **out)
{
    if (!t.data)
        return 0;
    size_t n = (size_t)t.n_col;
    const struct upload_work w = {.make = make_vector,
                                  .arg = &t,
                                  .n_unit = 1,
                                  .unit_bytes = n * sizeof(float),
                                  .file_bytes = dtype_row_bytes(t.type, t.n_col)};
    float *to = cuda_arena_take(&ld->arena, n, sizeof *to);
    *out = to;
    return place(ld, &w, to);
}

/* ---- The embedding table ---- */

enum { TABLE_COLUMNS = 256 }; /* whole blocks of any type */

struct table {
    struct view from;
    int type;
};

static void make_row(const struct table *t, const char *from, char *to)
{
    float wide[TABLE_COLUMNS];
    for (int64_t at = 0; at < t->from.n_col; at += TABLE_COLUMNS) {
        int64_t n = t->from.n_col - at < TABLE_COLUMNS ? t->from.n_col - at : TABLE_COLUMNS;
        dtype_to_f32(t->from.type, from + dtype_row_bytes(t->from.type, at), wide, n);
        dtype_from_f32(t->type, wide, to + dtype_row_bytes(t->type, at), n);
    }
}

static int make_rows(const void *arg, int64_t first, int64_t n, char *to)
{
    const struct table *t = arg;
    size_t bytes = dtype_row_bytes(t->type, t->from.n_col);
    if (t->type == t->from.type)
        memcpy(to, view_row(&t->from, first), bytes * (size_t)n);
    else
        for (int64_t r = 0; r < n; r++)
            make_row(t, view_row(&t->from, first + r), to + bytes * (size_t)r);
    return 0;
}

/* Lookups are by row, so the table stays in its own type where the kernel reads it. Quantised rows become f16, which
 * has more mantissa than any of them has bits. */
static int load_table(struct loader *ld, struct view from)
{
    bool plain = from.type == DT_F32 || from.type == DT_F16 || from.type == DT_BF16;
    struct table t = {from, plain ? from.type : DT_F16};
    const struct upload_work w = {.make = make_rows,
                                  .arg = &t,
                                  .n_unit = from.n_row,
                                  .unit_bytes = dtype_row_bytes(t.type, from.n_col),
                                  .file_bytes = from.row_bytes * (size_t)from.n_row};
    void *to = cuda_arena_take(&ld->arena, (size_t)from.n_row, w.unit_bytes);
    ld->m->table = to;
    ld->m->table_type = t.type;
    return place(ld, &w, to);
}

/* ---- Matrices ---- */

struct matrices { /* n_matrix of one shape and format */
    const struct gemm_weight *w;
    const struct view *from; /* [n_matrix] */
};

/* A unit is 16 outputs of all of them. Units make a weight of their own: panels of a part are a part of the panels. */
static int make_panels(const void *arg, int64_t first, int64_t n, char *to)
{
    const struct matrices *m = arg;
    struct gemm_weight part = *m->w;
    int64_t row0 = first * GEMM_PANEL, left = m->w->n_out - row0;
    part.n_out = (int32_t)(left < n * GEMM_PANEL ? left : n * GEMM_PANEL);
    part.n_panel = (int32_t)n * part.n_matrix;
    part.data = to;
    int rc = 0;
    for (int32_t i = 0; !rc && i < part.n_matrix; i++)
        rc = gemm_pack(&part, i, 0, m->from[i].type, view_row(&m->from[i], row0), m->from[i].row_bytes, part.n_out);
    return rc;
}

/* Room for n weights of the shape of one: a matrix, or two of one shape and format whose panels alternate. */
static int plan_matrices(struct loader *ld, const char *name, const struct view *t, int32_t n_matrix, int32_t n,
                         struct gemm_weight *w)
{
    int format = gemm_format_of(t[0].type);
    if (format < 0 || gemm_plan((enum gemm_format)format, n_matrix, (int32_t)t[0].n_row, (int32_t)t[0].n_col, w))
        return err_set(ld->e, ERR_INVALID, "cuda has no product for %s: type %d, %lld columns", name, t[0].type,
                       (long long)t[0].n_col);
    w->data = cuda_arena_take(&ld->arena, (size_t)n, gemm_weight_bytes(w));
    return 0;
}

/* The i-th of them. */
static int fill_matrix(struct loader *ld, const struct view *t, const struct gemm_weight *w, int32_t i)
{
    struct matrices m = {w, t};
    const struct upload_work work = {.make = make_panels,
                                     .arg = &m,
                                     .n_unit = w->n_panel / w->n_matrix,
                                     .unit_bytes = (size_t)w->n_matrix * w->panel_bytes,
                                     .file_bytes =
                                         dtype_row_bytes(t[0].type, t[0].n_col) * (size_t)(t[0].n_row * w->n_matrix)};
    return place(ld, &work, w->data ? (char *)w->data + gemm_weight_bytes(w) * (size_t)i : NULL);
}

static int load_matrix(struct loader *ld, const char *name, const struct view *t, int32_t n_matrix,
                       struct gemm_weight *w)
{
    int rc = plan_matrices(ld, name, t, n_matrix, 1, w);
    return rc ? rc : fill_matrix(ld, t, w, 0);
}

static int load_one(struct loader *ld, const char *name, struct view t, struct gemm_weight *w)
{
    return load_matrix(ld, name, &t, 1, w);
}

/* One that takes a rank's columns back to the residual stream. */
static int load_columns(struct loader *ld, const char *name, const struct tensor *t, int64_t col0, int64_t n,
                        struct gemm_weight *w)
{
    int rc = shard_check_cols(t, name, col0, n, &ld->m->shard, ld->e);
    return rc ? rc : load_one(ld, name, view_cols(t, col0, n), w);
}

static int load_ffn(struct loader *ld, const struct layer_weights *w, struct cuda_ffn *f)
{
    int64_t ff0 = ld->m->shard.ff0, n = ld->m->d.n_ff;
    const struct view both[] = {view_rows(&w->gate, ff0, n), view_rows(&w->up, ff0, n)};
    int rc;
    if (w->gate.type == w->up.type)
        rc = load_matrix(ld, "ffn_gate", both, 2, &f->gate_up);
    else {
        rc = load_one(ld, "ffn_gate", both[0], &f->gate);
        if (!rc)
            rc = load_one(ld, "ffn_up", both[1], &f->up);
    }
    return rc ? rc : load_columns(ld, "ffn_down", &w->down, ff0, n, &f->down);
}

/* ---- Experts ---- */

enum expert_part { EXPERT_GATE_UP, EXPERT_GATE, EXPERT_UP, EXPERT_DOWN };

/* A rank's share of a part; returns how many matrices it has. */
static int32_t view_expert(const struct bmodel *m, const struct expert_weights *x, enum expert_part part,
                           struct view t[2])
{
    int64_t ff0 = m->shard.ff_expert0, n = m->d.n_ff_expert;
    t[0] = part == EXPERT_DOWN ? view_cols(&x->down, ff0, n) : view_rows(part == EXPERT_UP ? &x->up : &x->gate, ff0, n);
    t[1] = view_rows(&x->up, ff0, n);
    return part == EXPERT_GATE_UP ? 2 : 1;
}

struct alike { /* experts whose weights have the same formats: a launch goes through all of them */
    int32_t n, number[MODEL_MAX_EXPERT]; /* ascending */
};

static bool are_alike(const struct expert_weights *a, const struct expert_weights *b)
{
    return a->gate.type == b->gate.type && a->up.type == b->up.type && a->down.type == b->down.type;
}

/* Whether no earlier expert is like x. */
static bool is_first_alike(const struct expert_weights *expert, int32_t x)
{
    for (int32_t i = 0; i < x; i++)
        if (are_alike(&expert[i], &expert[x]))
            return false;
    return true;
}

static void find_alike(const struct expert_weights *expert, int32_t n_expert, int32_t first, struct alike *out)
{
    out->n = 0;
    for (int32_t x = first; x < n_expert; x++)
        if (are_alike(&expert[x], &expert[first]))
            out->number[out->n++] = x;
}

/* A part of each of them, one after the other. */
static int load_expert_part(struct loader *ld, const char *name, const struct expert_weights *expert,
                            const struct alike *like, enum expert_part part, struct gemm_weight *w)
{
    struct view t[2];
    int32_t n_matrix = view_expert(ld->m, &expert[like->number[0]], part, t);
    int rc = plan_matrices(ld, name, t, n_matrix, like->n, w);
    for (int32_t i = 0; !rc && i < like->n; i++) {
        view_expert(ld->m, &expert[like->number[i]], part, t);
        rc = fill_matrix(ld, t, w, i);
    }
    return rc;
}

static int make_numbers(const void *arg, int64_t first, int64_t n, char *to)
{
    const struct alike *like = arg;
    memcpy(to, like->number + first, (size_t)n * sizeof *like->number);
    return 0;
}

static int load_numbers(struct loader *ld, const struct alike *like, const int32_t **out)
{
    int32_t *to = cuda_arena_take(&ld->arena, (size_t)like->n, sizeof *to);
    const struct upload_work w = {.make = make_numbers, .arg = like, .n_unit = like->n, .unit_bytes = sizeof *to};
    *out = to;
    return place(ld, &w, to);
}

static int load_alike(struct loader *ld, const struct expert_weights *expert, const struct alike *like, bool paired,
                      struct cuda_ffn *f)
{
    int32_t n_expert = ld->m->d.n_expert;
    f->n_expert = like->n;
    int rc = shard_check_cols(&expert[like->number[0]].down, "ffn_down_exps", ld->m->shard.ff_expert0,
                              ld->m->d.n_ff_expert, &ld->m->shard, ld->e);
    if (!rc && like->n < n_expert)
        rc = load_numbers(ld, like, &f->expert);
    if (!rc && paired)
        rc = load_expert_part(ld, "ffn_gate_exps", expert, like, EXPERT_GATE_UP, &f->gate_up);
    else if (!rc) {
        rc = load_expert_part(ld, "ffn_gate_exps", expert, like, EXPERT_GATE, &f->gate);
        if (!rc)
            rc = load_expert_part(ld, "ffn_up_exps", expert, like, EXPERT_UP, &f->up);
    }
    return rc ? rc : load_expert_part(ld, "ffn_down_exps", expert, like, EXPERT_DOWN, &f->down);
}

static int load_experts(struct loader *ld, const struct layer_weights *w, struct cuda_layer *l)
{
    const struct expert_weights *expert = w->expert;
    int32_t n_expert = ld->m->d.n_expert;
    struct cuda_ffn *f = l->ffn;
    struct alike like;
    bool paired = true;
    for (int32_t x = 0; x < n_expert; x++)
        paired = paired && expert[x].gate.type == expert[x].up.type;
    int rc = load_one(ld, "ffn_gate_inp", view_all(&w->router), &l->router);
    for (int32_t x = 0; !rc && x < n_expert; x++)
        if (is_first_alike(expert, x)) {
            find_alike(expert, n_expert, x, &like);
            rc = load_alike(ld, expert, &like, paired, f++);
        }
    return rc;
}

/* ---- Layers ---- */

static int load_layer(struct loader *ld, const struct layer_weights *w, struct cuda_layer *l)
{
    const struct model_desc *d = &ld->m->d;
    int64_t q0 = (int64_t)ld->m->shard.q0 * d->head_dim, n_q = (int64_t)d->n_head * d->head_dim,
            kv0 = (int64_t)ld->m->shard.kv0 * d->head_dim, n_kv = (int64_t)d->n_head_kv * d->head_dim;
    bool together = d->flags & MODEL_QK_NORM_ALL; /* then heads have norms of their own */
    const struct {
        struct view from;
        const float **to;
    } vector[] = {
        {view_all(&w->attn_norm), &l->attn_norm},
        {view_all(&w->ffn_norm), &l->ffn_norm},
        {view_all(&w->post_attn_norm), &l->post_attn_norm},
        {view_all(&w->post_ffn_norm), &l->post_ffn_norm},
        {view_cols(&w->bq, q0, n_q), &l->bq},
        {view_cols(&w->bk, kv0, n_kv), &l->bk},
        {view_cols(&w->bv, kv0, n_kv), &l->bv},
        {together ? view_cols(&w->q_norm, q0, n_q) : view_all(&w->q_norm), &l->q_norm},
        {together ? view_cols(&w->k_norm, kv0, n_kv) : view_all(&w->k_norm), &l->k_norm},
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof vector / sizeof *vector; i++)
        rc = load_vector(ld, vector[i].from, vector[i].to);
    if (!rc)
        rc = load_one(ld, "attn_q", view_rows(&w->wq, q0, n_q), &l->wq);
    if (!rc)
        rc = load_one(ld, "attn_k", view_rows(&w->wk, kv0, n_kv), &l->wk);
    if (!rc)
        rc = load_one(ld, "attn_v", view_rows(&w->wv, kv0, n_kv), &l->wv);
    if (!rc)
        rc = load_columns(ld, "attn_output", &w->wo, q0, n_q, &l->wo);
    if (rc)
        return rc;
    return w->router.data ? load_experts(ld, w, l) : load_ffn(ld, w, l->ffn);
}

/* ---- The model ---- */

static int walk(struct loader *ld, const struct model_weights *w)
{
    struct bmodel *m = ld->m;
    int32_t vocab0 = m->shard.vocab0, n_vocab = m->shard.n_vocab;
    int rc = 0;
    for (int kind = 0; !rc && kind < m->n_kind; kind++) {
        struct tensor freq = {
            .data = model_inv_freq(&m->d, kind), .type = DT_F32, .n_row = 1, .n_col = m->d.rope_dim / 2};
        rc = load_vector(ld, view_all(&freq), &m->inv_freq[kind]);
    }
    if (!rc)
        rc = load_table(ld, view_rows(&w->tok_embd, vocab0, n_vocab));
    if (!rc)
        rc = load_vector(ld, view_all(&w->out_norm), &m->out_norm);
    if (!rc)
        rc = load_one(ld, "output", view_rows(w->out.data ? &w->out : &w->tok_embd, vocab0, n_vocab), &m->out);
    for (int32_t l = 0; !rc && l < m->d.n_layer; l++)
        rc = load_layer(ld, &w->layer[l], &m->layer[l]);
    return rc;
}

static int check_shape(const struct model_desc *d, struct err *e)
{
    if (!attn_smem_bytes(d->head_dim, KV_BF16, 1))
        return err_set(e, ERR_INVALID, "cuda has no attention for heads of %d: 64, 80, 96, 128 and 256 have one",
                       d->head_dim);
    if (d->n_embd % 8 || d->n_ff % 8 || d->rope_dim % 2)
        return err_set(e, ERR_INVALID, "cuda needs widths that are multiples of 8: n_embd %d, n_ff %d", d->n_embd,
                       d->n_ff);
    if (d->n_expert && d->n_ff_expert % 8)
        return err_set(e, ERR_INVALID, "cuda needs experts whose width is a multiple of 8, not %d", d->n_ff_expert);
    return 0;
}

static int32_t count_kinds(const struct model_desc *d)
{
    for (int32_t l = 0; l < d->n_layer; l++)
        if (d->layer_kind[l])
            return CUDA_KINDS;
    return 1;
}

/* Room for what each layer's feed-forward networks are, as many as there are formats of experts. */
static int networks_alloc(struct bmodel *m, const struct model_weights *w, struct err *e)
{
    for (int32_t i = 0; i < m->d.n_layer; i++) {
        const struct layer_weights *from = &w->layer[i];
        struct cuda_layer *l = &m->layer[i];
        l->n_ffn = !from->router.data;
        for (int32_t x = 0; from->router.data && x < m->d.n_expert; x++)
            l->n_ffn += is_first_alike(from->expert, x);
        l->ffn = mem_calloc((size_t)l->n_ffn, sizeof *l->ffn);
        if (!l->ffn)
            return err_set(e, ERR_NOMEM, "out of memory");
    }
    return 0;
}

/* Room on the device for what the first walk counted. */
static int weights_alloc(struct bmodel *m, size_t bytes, struct err *e)
{
    const struct cuda_api *api = m->b->api;
    size_t left = 0;
    int rc = cuda_check(m->b, api->free_bytes(&left), "asking for free memory", e);
    if (rc)
        return rc;
    if (bytes > left)
        return err_set(e, ERR_NOMEM, "the weights need %zu MiB of device memory, of which %zu MiB are free",
                       bytes >> 20, left >> 20);
    m->weight_bytes = bytes;
    return cuda_check(m->b, api->alloc(&m->weights, bytes), "allocating weights", e);
}

static int load_all(struct loader *ld, const struct model_weights *w)
{
    struct bmodel *m = ld->m;
    int rc = networks_alloc(m, w, ld->e);
    if (!rc)
        rc = walk(ld, w);
    if (!rc)
        rc = weights_alloc(m, ld->arena.at, ld->e);
    if (!rc)
        rc = upload_open(&ld->upload, ld->e);
    if (!rc) {
        ld->arena = (struct cuda_arena){.base = m->weights};
        rc = walk(ld, w);
    }
    if (!rc)
        rc = upload_finish(&ld->upload, ld->e);
    upload_close(&ld->upload);
    return rc;
}

int cuda_load(struct backend *b, const struct model_desc *d, const struct model_weights *w, load_progress progress,
              void *arg, struct bmodel **out, struct err *e)
{
    *out = NULL;
    struct shard shard;
    struct model_desc own;
    int rc = shard_make(d, b->index, b->n_rank, &shard, &own, e);
    if (!rc)
        rc = check_shape(&own, e);
    if (!rc)
        rc = cuda_enter(b, e);
    if (rc)
        return rc;
    struct bmodel *m = mem_calloc(1, sizeof *m);
    if (m)
        m->layer = mem_calloc((size_t)own.n_layer, sizeof *m->layer);
    if (!m || !m->layer) {
        mem_free(m);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    m->b = b;
    m->d = own;
    m->n_kind = count_kinds(d);
    m->shard = shard;
    m->limits = b->opt.limits;
    m->limits.n_vocab = d->n_vocab;
    struct loader ld = {.m = m, .upload = {.b = b, .progress = progress, .arg = arg}, .e = e};
    rc = load_all(&ld, w);
    if (!rc)
        cuda_blas_open(m);
    if (rc) {
        cuda_unload(m);
        m = NULL;
    }
    *out = m;
    return rc;
}

void cuda_unload(struct bmodel *m)
{
    if (!m)
        return;
    cuda_enter(m->b, NULL);
    m->b->api->stream_wait(m->b->stream); /* nothing in flight still reads what is freed; an error changes nothing */
    cuda_pool_free(m);
    cuda_blas_close(m);
    m->b->api->free(m->weights);
    for (int32_t i = 0; i < m->d.n_layer; i++)
        mem_free(m->layer[i].ffn);
    mem_free(m->layer);
    mem_free(m);
}
