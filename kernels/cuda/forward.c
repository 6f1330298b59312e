/* The pass: which kernels run, over what, in which order. Everything is queued on one stream.
 *
 * Where spans run different layers, the kernels of a layer run over each unbroken range of rows that takes part; the
 * attention lists are made anew at each layer where the set of spans changes. */
#include "forward.h"

/* The next range of rows whose spans all run `layer`; *span goes on from where it was left. */
static bool next_rows(const struct step_plan *p, int32_t layer, int32_t *span, struct rows *out)
{
    *out = (struct rows){0};
    for (; *span < p->n.n_span; ++*span) {
        const struct span *s = &p->span[*span];
        bool runs = s->layer0 <= layer && layer < s->layer1 && s->n_row;
        if (runs && !out->n)
            out->row0 = s->row0;
        if (runs)
            out->n += s->n_row;
        else if (out->n && s->n_row)
            break;
    }
    return out->n > 0;
}

static bool spans_change_at(const struct step_plan *p, int32_t layer)
{
    for (int32_t i = 0; i < p->n.n_span; i++)
        if (layer > 0 && (p->span[i].layer0 == layer || p->span[i].layer1 == layer))
            return true;
    return false;
}

/* ---- Products ---- */

struct gemm_args pass_args(const struct pass *s, const struct gemm_weight *w, const struct bf16 *x, int32_t n_row,
                           float *out, int32_t out_stride)
{
    return (struct gemm_args){.weight = *w,
                              .x = x,
                              .n_row = n_row,
                              .x_stride = w->n_in,
                              .out = out,
                              .out_stride = out_stride,
                              .n_block = s->m->b->n_block,
                              .scratch = s->pool->gemm};
}

void pass_product(const struct pass *s, const struct gemm_weight *w, const struct bf16 *x, int32_t n_row, float *out,
                  int32_t out_stride, enum gemm_epilogue epilogue)
{
    struct gemm_args a = pass_args(s, w, x, n_row, out, out_stride);
    a.epilogue = epilogue;
    pass_launch(s, &a);
}

void pass_launch(const struct pass *s, const struct gemm_args *a)
{
    if (!cuda_blas_product(s->m, a))
        gemm_launch(a, s->stream);
}

void pass_norm(const struct pass *s, struct rows r, const float *weight)
{
    int32_t n = s->m->d.n_embd;
    struct norm_args a = {.x = s->pool->x + (int64_t)r.row0 * n,
                          .weight = weight,
                          .eps = s->m->d.rms_eps,
                          .out = s->pool->h + (int64_t)r.row0 * n,
                          .n_row = r.n,
                          .n = n};
    rows_norm(&a, s->stream);
}

/* ---- To the residual stream ---- */

float *pass_brought(const struct pass *s, struct rows r, bool *add)
{
    const struct cuda_pool *pool = s->pool;
    *add = !pool->y && s->m->shard.rank == 0;
    return (pool->y ? pool->y : pool->x) + (int64_t)r.row0 * s->m->d.n_embd;
}

void pass_to_stream(const struct pass *s, struct rows r, const float *post_norm)
{
    bool add;
    int32_t n = s->m->d.n_embd;
    float *y = pass_brought(s, r, &add);
    cuda_sum_ranks(s->m, y, (int64_t)r.n * n);
    struct add_args a = {.x = s->pool->x + (int64_t)r.row0 * n,
                         .y = y,
                         .weight = post_norm,
                         .eps = s->m->d.rms_eps,
                         .scale = s->m->d.residual_scale,
                         .n_row = r.n,
                         .n = n};
    if (s->pool->y)
        rows_add(&a, s->stream);
}

void pass_product_to_stream(const struct pass *s, struct rows r, const struct gemm_weight *w, const struct bf16 *in,
                            const float *post_norm)
{
    bool add;
    float *out = pass_brought(s, r, &add);
    pass_product(s, w, in, r.n, out, s->m->d.n_embd, add ? GEMM_ADD : GEMM_STORE);
    pass_to_stream(s, r, post_norm);
}

/* ---- Before the layers ---- */

static void move_slots(const struct pass *s)
{
    const struct cuda_pool *pool = s->pool;
    const struct model_desc *d = &s->m->d;
    const struct cuda_lists *l = &s->m->lists;
    const struct kv_layer *c = &pool->layer0;
    struct move_args a = {.block_shift = c->block_shift,
                          .src = ON_DEVICE(s, l->move_src),
                          .dst = ON_DEVICE(s, l->move_dst),
                          .n_move = l->n_move,
                          .staging = pool->moves};
    int32_t row_bytes = d->head_dim * (c->type == KV_FP8 ? 1 : (int32_t)sizeof(struct bf16));
    struct kv_plane keys = {c->k, d->n_layer, d->n_head_kv, row_bytes, (int64_t)pool->k_layer_bytes};
    struct kv_plane scales = {c->k_scale, d->n_layer, d->n_head_kv, sizeof(float), (int64_t)pool->scale_layer_bytes};
    a.plane[a.n_plane++] = keys;
    keys.base = c->v;
    a.plane[a.n_plane++] = keys;
    if (c->type == KV_FP8) {
        a.plane[a.n_plane++] = scales;
        scales.base = c->v_scale;
        a.plane[a.n_plane++] = scales;
    }
    if (pool->plane)
        a.plane[a.n_plane++] = (struct kv_plane){pool->plane, 1, 1, d->n_embd * (int32_t)sizeof(struct f16), 0};
    if (l->n_move)
        kv_move(&a, s->stream);
}

static float *rope_table(const struct pass *s, int kind)
{
    return s->pool->rope + (int64_t)kind * s->m->limits.n_row * s->m->d.rope_dim;
}

static void embed(const struct pass *s)
{
    const struct bmodel *m = s->m;
    const struct cuda_lists *l = &m->lists;
    struct embed_args a = {.table = m->table,
                           .type = m->table_type,
                           .vocab0 = m->shard.vocab0,
                           .n_vocab = m->shard.n_vocab,
                           .scale = m->d.embd_scale,
                           .bank = m->shard.rank == 0 ? s->pool->bank : NULL,
                           .tok = ON_DEVICE(s, l->tok),
                           .mix = ON_DEVICE(s, l->mix),
                           .part = (const struct mix_part *)(const void *)s->pool->upload,
                           .x = s->pool->x,
                           .n_row = s->p->n.n_row,
                           .n_embd = m->d.n_embd};
    rows_embed(&a, s->stream);
    cuda_sum_ranks(s->m, a.x, (int64_t)a.n_row * a.n_embd);
    for (int kind = 0; kind < m->n_kind; kind++) {
        struct rope_args rope = {.pos = ON_DEVICE(s, l->pos),
                                 .inv_freq = m->inv_freq[kind],
                                 .mscale = model_mscale(&m->d, kind),
                                 .table = rope_table(s, kind),
                                 .n_row = s->p->n.n_row,
                                 .n_pair = m->d.rope_dim / 2};
        kv_rope_table(&rope, s->stream);
    }
}

/* ---- A layer ---- */

/* Where all heads are normed together: what by, of all ranks. One that several ranks have counts once. */
static const float *head_squares(const struct pass *s, struct rows r, const struct heads_args *h)
{
    struct squares_args a = {.q = h->q,
                             .k = h->k,
                             .bq = h->bq,
                             .bk = h->bk,
                             .out = s->pool->squares,
                             .n_row = r.n,
                             .n_q = s->n_q,
                             .n_k = s->m->shard.counts_kv ? s->n_kv : 0,
                             .stride = s->heads};
    kv_squares(&a, s->stream);
    cuda_sum_ranks(s->m, a.out, (int64_t)r.n * KV_SQUARES);
    return a.out;
}

/* q, k and v of the rows: k and v to the cache. */
static void layer_heads(const struct pass *s, struct rows r, int32_t layer)
{
    const struct model_desc *d = &s->m->d;
    const struct cuda_layer *w = &s->m->layer[layer];
    const struct cuda_pool *pool = s->pool;
    const struct bf16 *h = pool->h + (int64_t)r.row0 * d->n_embd;
    float *q = pool->qkv + (int64_t)r.row0 * s->heads, *k = q + s->n_q, *v = k + s->n_kv;
    pass_norm(s, r, w->attn_norm);
    pass_product(s, &w->wq, h, r.n, q, s->heads, GEMM_STORE);
    pass_product(s, &w->wk, h, r.n, k, s->heads, GEMM_STORE);
    pass_product(s, &w->wv, h, r.n, v, s->heads, GEMM_STORE);
    struct heads_args a = {.q = q,
                           .k = k,
                           .v = v,
                           .bq = w->bq,
                           .bk = w->bk,
                           .bv = w->bv,
                           .q_norm = w->q_norm,
                           .k_norm = w->k_norm,
                           .n_q_all = s->m->shard.n_head * d->head_dim,
                           .n_k_all = s->m->shard.n_head_kv * d->head_dim,
                           .eps = d->rms_eps,
                           .rope = rope_table(s, d->layer_kind[layer]) + (int64_t)r.row0 * d->rope_dim,
                           .rope_dim = d->rope_dim,
                           .neox = !!(d->flags & MODEL_NEOX_ROPE),
                           .slot = ON_DEVICE(s, s->m->lists.slot) + r.row0,
                           .q_out = pool->q + (int64_t)r.row0 * s->n_q,
                           .cache = cuda_kv_layer(pool, layer),
                           .n_row = r.n,
                           .n_head = d->n_head,
                           .stride = s->heads};
    if (d->flags & MODEL_QK_NORM_ALL)
        a.squares = head_squares(s, r, &a);
    kv_heads(&a, s->stream);
}

/* Of all rows that run the layer: the items name them. */
static int layer_attention(const struct pass *s, int32_t layer, struct err *e)
{
    int kind = s->m->d.layer_kind[layer];
    const struct attn_work *w = &s->m->lists.attn[kind];
    struct attn_args a = {.count = (const struct attn_count *)ON_DEVICE(s, s->m->lists.count) + kind,
                          .row = ON_DEVICE(s, w->row),
                          .item = (const struct attn_item *)(const void *)s->pool->upload,
                          .fold = ON_DEVICE(s, w->fold),
                          .bt = ON_DEVICE(s, s->m->lists.bt),
                          .grid = {w->n_narrow, w->n_item - w->n_narrow, w->n_fold},
                          .q = s->pool->q,
                          .out = s->pool->o,
                          .scratch = s->pool->attn,
                          .n_part = s->pool->cap_part,
                          .kv = cuda_kv_layer(s->pool, layer),
                          .n_head = s->m->d.n_head,
                          .scale = s->m->d.attn_scale,
                          .soft_cap = s->m->d.attn_softcap};
    if (s->grid)
        a.grid = *s->grid;
    int rc = attn_run(&a, s->stream);
    return rc ? err_set(e, -rc, "cuda has no attention for heads of %d", s->m->d.head_dim) : 0;
}

/* The projection of attention's result, and the feed-forward network. */
static void layer_rest(const struct pass *s, struct rows r, int32_t layer)
{
    const struct cuda_layer *w = &s->m->layer[layer];
    pass_product_to_stream(s, r, &w->wo, s->pool->o + (int64_t)r.row0 * s->n_q, w->post_attn_norm);
    pass_feed_forward(s, r, w);
}

static int layer_run(const struct pass *s, int32_t layer, struct err *e)
{
    struct rows r;
    if (spans_change_at(s->p, layer)) {
        int rc = cuda_step_attention(s->m, s->p, layer, e);
        if (rc)
            return rc;
    }
    for (int32_t span = 0; next_rows(s->p, layer, &span, &r);)
        layer_heads(s, r, layer);
    int rc = layer_attention(s, layer, e);
    for (int32_t span = 0; !rc && next_rows(s->p, layer, &span, &r);)
        layer_rest(s, r, layer);
    return rc;
}

/* ---- Readouts ---- */

static void fill_plane(const struct pass *s)
{
    struct plane_args a = {.x = s->pool->x,
                           .weight = s->m->out_norm,
                           .eps = s->m->d.rms_eps,
                           .slot = ON_DEVICE(s, s->m->lists.slot),
                           .plane = s->pool->plane,
                           .n_row = s->p->n.n_row,
                           .n = s->m->d.n_embd};
    rows_plane(&a, s->stream);
}

static int read_logits(const struct pass *s, struct err *e)
{
    struct bmodel *m = s->m;
    const struct cuda_lists *l = &m->lists;
    const struct readout_work *w = &l->read;
    struct norm_args rows = {.x = s->pool->x,
                             .row = ON_DEVICE(s, w->logit_row),
                             .weight = m->out_norm,
                             .eps = m->d.rms_eps,
                             .out = s->pool->h,
                             .n_row = w->n_logit,
                             .n = m->d.n_embd};
    struct readout_args a = {.raw_logit = ON_DEVICE(s, w->raw_logit),
                             .law_row = ON_DEVICE(s, w->law_row),
                             .job = ON_DEVICE(s, w->job),
                             .n_raw = w->n_raw,
                             .n_law_row = w->n_law_row,
                             .n_job = w->n_job,
                             .n_vocab = m->d.n_vocab,
                             .tok = ON_DEVICE(s, l->tok),
                             .ban = ON_DEVICE(s, l->ban),
                             .list = ON_DEVICE(s, l->list),
                             .held = ON_DEVICE(s, l->held),
                             .law = ON_DEVICE(s, l->law),
                             .law_tok = ON_DEVICE(s, l->law_tok),
                             .mask = ON_DEVICE(s, l->mask),
                             .logits = s->pool->logits,
                             .score = s->pool->score,
                             .state = s->pool->law,
                             .raw = s->pool->raw,
                             .f = s->pool->result,
                             .i = (int32_t *)(void *)(s->pool->result + s->p->n.n_out_f)};
    rows_norm(&rows, s->stream);
    float *out = m->b->n_rank == 1 ? s->pool->logits : s->pool->slice;
    pass_product(s, &m->out, s->pool->h, w->n_logit, out, m->shard.n_vocab, GEMM_STORE);
    if (m->d.logit_scale != 1 || m->d.logit_softcap > 0)
        rows_cap(out, (int64_t)w->n_logit * m->shard.n_vocab, m->d.logit_scale, m->d.logit_softcap, s->stream);
    int rc = m->b->n_rank > 1 ? cuda_exchange_logits(m, w->n_logit, e) : 0;
    if (w->n_raw)
        readouts_raw(&a, s->stream);
    if (w->n_law_row)
        readouts_law(&a, s->stream);
    readouts_read(&a, s->stream);
    return rc;
}

static void read_hidden(const struct pass *s)
{
    const struct bmodel *m = s->m;
    const struct readout_work *w = &m->lists.read;
    struct norm_args rows = {.x = s->pool->x,
                             .row = ON_DEVICE(s, w->hidden_row),
                             .weight = m->out_norm,
                             .eps = m->d.rms_eps,
                             .out_f32 = s->pool->result,
                             .out_at = ON_DEVICE(s, w->hidden_at),
                             .n_row = w->n_hidden,
                             .n = m->d.n_embd};
    if (w->n_hidden)
        rows_norm(&rows, s->stream);
    if (w->n_save)
        rows_save(s->pool->x, s->pool->bank, ON_DEVICE(s, w->save_row), ON_DEVICE(s, w->save_to), w->n_save,
                  m->d.n_embd, s->stream);
}

static void read_contrast(const struct pass *s)
{
    const struct readout_work *w = &s->m->lists.read;
    struct contrast_args a = {.job = ON_DEVICE(s, w->contrast),
                              .row = ON_DEVICE(s, s->m->lists.attn[0].row),
                              .bt = ON_DEVICE(s, s->m->lists.bt),
                              .plane = s->pool->plane,
                              .part = s->pool->contrast,
                              .f = s->pool->result,
                              .n_job = w->n_contrast,
                              .n = s->m->d.n_embd,
                              .block_shift = s->pool->layer0.block_shift};
    readouts_contrast(&a, s->stream);
}

/* ---- All of it ---- */

static struct pass pass_of(struct bmodel *m, const struct step_plan *p)
{
    int32_t n_q = m->d.n_head * m->d.head_dim, n_kv = m->d.n_head_kv * m->d.head_dim;
    return (struct pass){
        .m = m, .p = p, .pool = &m->pool, .stream = m->b->stream, .n_q = n_q, .n_kv = n_kv, .heads = n_q + 2 * n_kv};
}

int cuda_forward_rows(struct bmodel *m, const struct step_plan *p, const struct attn_grid *grid, struct err *e)
{
    struct pass s = pass_of(m, p);
    int rc = 0;
    s.grid = grid;
    if (p->n.n_row)
        embed(&s);
    for (int32_t l = 0; !rc && l < m->d.n_layer; l++)
        rc = layer_run(&s, l, e);
    if (!rc && p->n.n_row && m->pool.plane)
        fill_plane(&s);
    return rc ? rc : cuda_comm_check(m->b, m->comm_code, "queueing an exchange", e);
}

int cuda_forward(struct bmodel *m, const struct step_plan *p, struct CUgraphExec_st *graph, struct err *e)
{
    struct pass s = pass_of(m, p);
    move_slots(&s);
    int rc = graph ? cuda_check(m->b, m->b->api->graph_launch(graph, s.stream), "launching a graph", e)
                   : cuda_forward_rows(m, p, NULL, e);
    if (!rc && m->lists.read.n_logit)
        rc = read_logits(&s, e);
    if (rc)
        return rc;
    read_hidden(&s);
    if (m->lists.read.n_contrast)
        read_contrast(&s);
    rc = cuda_comm_check(m->b, m->comm_code, "queueing an exchange", e);
    if (!rc)
        rc = cuda_blas_check(m, e);
    return rc ? rc : cuda_check(m->b, m->b->api->last_error(), "queueing a step", e);
}
