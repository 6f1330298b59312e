/* The pass: which kernels run, over what, in which order. Everything is queued on one stream.
 *
 * Where spans run different layers, the kernels of a layer run over each unbroken range of rows that takes part; the
 * attention lists are made anew at each layer where the set of spans changes. */
#include "cuda.h"
#include "ranks.h"

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

static void product(const struct pass *s, const struct gemm_weight *w, const struct bf16 *x, int32_t n_row, float *out,
                    int32_t out_stride, enum gemm_epilogue epilogue)
{
    struct gemm_args a = {.weight = *w,
                          .x = x,
                          .n_row = n_row,
                          .x_stride = w->n_in,
                          .epilogue = epilogue,
                          .out = out,
                          .out_stride = out_stride,
                          .n_block = s->m->b->n_block,
                          .scratch = s->pool->gemm};
    gemm_launch(&a, s->stream);
}

static void gate_up_product(const struct pass *s, const struct gemm_weight *w, const struct bf16 *x, int32_t n_row,
                            struct bf16 *out)
{
    struct gemm_args a = {.weight = *w,
                          .x = x,
                          .n_row = n_row,
                          .x_stride = w->n_in,
                          .epilogue = GEMM_SWIGLU,
                          .out_bf16 = out,
                          .out_stride = w->n_out,
                          .n_block = s->m->b->n_block,
                          .scratch = s->pool->gemm};
    gemm_launch(&a, s->stream);
}

static void norm(const struct pass *s, struct rows r, const float *weight)
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

/* ---- Several ranks ---- */

static void keep_code(const struct pass *s, int code)
{
    if (!s->m->comm_code)
        s->m->comm_code = code;
}

/* n floats of the residual stream = the sum of what all ranks have of them. */
static void sum_ranks(const struct pass *s, float *x, int64_t n)
{
    const struct backend *b = s->m->b;
    int32_t n_rank = b->n_rank;
    if (n_rank == 1)
        return;
    if (!s->pool->gathered) {
        keep_code(s, b->comm_api->sum(b->comm, x, (size_t)n, s->stream));
        return;
    }
    struct comm_piece send[RANKS_MAX], recv[RANKS_MAX];
    for (int32_t q = 0; q < n_rank; q++) {
        send[q] = (struct comm_piece){x, (size_t)n};
        recv[q] = (struct comm_piece){s->pool->gathered + q * n, (size_t)n};
    }
    keep_code(s, b->comm_api->exchange(b->comm, send, recv, s->stream));
    rows_sum(x, s->pool->gathered, n_rank, n, s->stream);
}

/* The product that takes a rank's heads or columns back to the stream, which one rank has beside it. */
static void product_to_stream(const struct pass *s, const struct gemm_weight *w, const struct bf16 *in, struct rows r)
{
    int32_t n = s->m->d.n_embd;
    float *x = s->pool->x + (int64_t)r.row0 * n;
    product(s, w, in, r.n, x, n, s->m->shard.rank == 0 ? GEMM_ADD : GEMM_STORE);
    sum_ranks(s, x, (int64_t)r.n * n);
}

/* From every rank's part of the vocabulary of all rows, to all of the vocabulary of each rank's own rows. */
static int exchange_logits(const struct pass *s, int32_t n_logit, struct err *e)
{
    const struct backend *b = s->m->b;
    const struct cuda_pool *pool = s->pool;
    int32_t n_rank = b->n_rank, rank = s->m->shard.rank, n_vocab = s->m->d.n_vocab;
    int32_t n_own = readout_own_begin(n_logit, rank + 1, n_rank) - readout_own_begin(n_logit, rank, n_rank);
    struct comm_piece send[RANKS_MAX], recv[RANKS_MAX];
    int32_t begin[RANKS_MAX + 1];
    for (int32_t q = 0; q <= n_rank; q++)
        begin[q] = shard_vocab_begin(n_vocab, q, n_rank);
    for (int32_t q = 0; q < n_rank; q++) {
        int32_t row0 = readout_own_begin(n_logit, q, n_rank), row1 = readout_own_begin(n_logit, q + 1, n_rank);
        size_t n_slice = (size_t)s->m->shard.n_vocab;
        send[q] = (struct comm_piece){pool->slice + (size_t)row0 * n_slice, (size_t)(row1 - row0) * n_slice};
        recv[q] = (struct comm_piece){pool->score + (size_t)n_own * (size_t)begin[q],
                                      (size_t)n_own * (size_t)(begin[q + 1] - begin[q])};
    }
    keep_code(s, b->comm_api->exchange(b->comm, send, recv, s->stream));
    int code = 0;
    for (int32_t q = 0; !code && n_own && q < n_rank; q++) {
        size_t width = (size_t)(begin[q + 1] - begin[q]) * sizeof(float);
        code = b->api->copy_rows(pool->logits + begin[q], (size_t)n_vocab * sizeof(float), recv[q].data, width, width,
                                 (size_t)n_own, s->stream);
    }
    return cuda_check(b, code, "putting logits together", e);
}

int cuda_forward_meet(struct bmodel *m, struct err *e)
{
    const struct backend *b = m->b;
    const struct cuda_pool *pool = &m->pool;
    struct comm_piece send[RANKS_MAX], recv[RANKS_MAX];
    for (int32_t q = 0; q < b->n_rank; q++) {
        send[q] = (struct comm_piece){pool->x, 1};
        recv[q] = (struct comm_piece){pool->logits + q, 1};
    }
    int rc = cuda_check(b, b->api->zero(pool->x, sizeof(float), b->stream), "meeting the other ranks", e);
    if (!rc)
        rc = cuda_comm_check(b, b->comm_api->sum(b->comm, pool->x, 1, b->stream), "meeting the other ranks", e);
    if (!rc)
        rc = cuda_comm_check(b, b->comm_api->exchange(b->comm, send, recv, b->stream), "meeting the other ranks", e);
    if (!rc)
        rc = cuda_check(b, b->api->stream_wait(b->stream), "meeting the other ranks", e);
    return rc ? rc : cuda_comm_check(b, b->comm_api->state(b->comm), "meeting the other ranks", e);
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

static void embed(const struct pass *s)
{
    const struct bmodel *m = s->m;
    const struct cuda_lists *l = &m->lists;
    struct embed_args a = {.table = m->table,
                           .type = m->table_type,
                           .vocab0 = m->shard.vocab0,
                           .n_vocab = m->shard.n_vocab,
                           .bank = m->shard.rank == 0 ? s->pool->bank : NULL,
                           .tok = ON_DEVICE(s, l->tok),
                           .mix = ON_DEVICE(s, l->mix),
                           .part = (const struct mix_part *)(const void *)s->pool->upload,
                           .x = s->pool->x,
                           .n_row = s->p->n.n_row,
                           .n_embd = m->d.n_embd};
    struct rope_args rope = {.pos = ON_DEVICE(s, l->pos),
                             .inv_freq = m->inv_freq,
                             .mscale = m->d.rope_mscale,
                             .table = s->pool->rope,
                             .n_row = s->p->n.n_row,
                             .n_pair = m->d.rope_dim / 2};
    rows_embed(&a, s->stream);
    sum_ranks(s, a.x, (int64_t)a.n_row * a.n_embd);
    kv_rope_table(&rope, s->stream);
}

/* ---- A layer ---- */

/* q, k and v of the rows: k and v to the cache. */
static void layer_heads(const struct pass *s, struct rows r, int32_t layer)
{
    const struct model_desc *d = &s->m->d;
    const struct cuda_layer *w = &s->m->layer[layer];
    const struct cuda_pool *pool = s->pool;
    const struct bf16 *h = pool->h + (int64_t)r.row0 * d->n_embd;
    float *q = pool->qkv + (int64_t)r.row0 * s->heads, *k = q + s->n_q, *v = k + s->n_kv;
    norm(s, r, w->attn_norm);
    product(s, &w->wq, h, r.n, q, s->heads, GEMM_STORE);
    product(s, &w->wk, h, r.n, k, s->heads, GEMM_STORE);
    product(s, &w->wv, h, r.n, v, s->heads, GEMM_STORE);
    struct heads_args a = {.q = q,
                           .k = k,
                           .v = v,
                           .bq = w->bq,
                           .bk = w->bk,
                           .bv = w->bv,
                           .q_norm = w->q_norm,
                           .k_norm = w->k_norm,
                           .eps = d->rms_eps,
                           .rope = pool->rope + (int64_t)r.row0 * d->rope_dim,
                           .rope_dim = d->rope_dim,
                           .neox = !!(d->flags & MODEL_NEOX_ROPE),
                           .slot = ON_DEVICE(s, s->m->lists.slot) + r.row0,
                           .q_out = pool->q + (int64_t)r.row0 * s->n_q,
                           .cache = cuda_kv_layer(pool, layer),
                           .n_row = r.n,
                           .n_head = d->n_head,
                           .stride = s->heads};
    kv_heads(&a, s->stream);
}

/* Of all rows that run the layer: the items name them. */
static int layer_attention(const struct pass *s, int32_t layer, struct err *e)
{
    const struct attn_work *w = &s->m->lists.attn;
    struct attn_args a = {.count = ON_DEVICE(s, s->m->lists.count),
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
                          .scale = s->m->d.attn_scale};
    if (s->grid)
        a.grid = *s->grid;
    int rc = attn_run(&a, s->stream);
    return rc ? err_set(e, -rc, "cuda has no attention for heads of %d", s->m->d.head_dim) : 0;
}

/* The projection of attention's result, and the feed-forward network. */
static void layer_rest(const struct pass *s, struct rows r, int32_t layer)
{
    const struct model_desc *d = &s->m->d;
    const struct cuda_layer *w = &s->m->layer[layer];
    const struct cuda_pool *pool = s->pool;
    const struct bf16 *h = pool->h + (int64_t)r.row0 * d->n_embd;
    struct bf16 *ff = pool->ff + (int64_t)r.row0 * d->n_ff;
    product_to_stream(s, &w->wo, pool->o + (int64_t)r.row0 * s->n_q, r);
    norm(s, r, w->ffn_norm);
    if (w->gate_up.data) {
        gate_up_product(s, &w->gate_up, h, r.n, ff);
    } else {
        int32_t stride = 2 * d->n_ff;
        float *gate = pool->gate_up + (int64_t)r.row0 * stride, *up = gate + d->n_ff;
        product(s, &w->gate, h, r.n, gate, stride, GEMM_STORE);
        product(s, &w->up, h, r.n, up, stride, GEMM_STORE);
        rows_swiglu(
            &(struct swiglu_args){.gate = gate, .up = up, .out = ff, .n_row = r.n, .n = d->n_ff, .stride = stride},
            s->stream);
    }
    product_to_stream(s, &w->down, ff, r);
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
    const struct bmodel *m = s->m;
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
    product(s, &m->out, s->pool->h, w->n_logit, m->b->n_rank == 1 ? s->pool->logits : s->pool->slice, m->shard.n_vocab,
            GEMM_STORE);
    int rc = m->b->n_rank > 1 ? exchange_logits(s, w->n_logit, e) : 0;
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
                              .row = ON_DEVICE(s, s->m->lists.attn.row),
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
    return rc ? rc : cuda_check(m->b, m->b->api->last_error(), "queueing a step", e);
}
