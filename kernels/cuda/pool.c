/* The memory plan: KV cache, hidden plane, bank and all scratch are laid out in one device allocation, from the limits
 * of the largest plan. What cannot fit is refused with what would. */
#include <string.h>

#include "cuda.h"
#include "mem.h"

enum { ALIGN = 256, CUT_PARTS = 8 };

void *cuda_arena_take(struct cuda_arena *a, size_t n, size_t size_bytes)
{
    char *p = a->base ? a->base + a->at : NULL;
    a->at += (n * size_bytes + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

/* fp8 stands for Q8_0: both keep a scale beside 8 bits. One type serves K and V, the finer where they differ. */
static int kv_type_of(const struct kv_config *kv)
{
    const int32_t type[2] = {kv->k_type, kv->v_type};
    int n_8bit = 0;
    for (int i = 0; i < 2; i++) {
        if (type[i] == DT_Q8_0)
            n_8bit++;
        else if (type[i] != DT_F32 && type[i] != DT_F16 && type[i] != DT_BF16)
            return -1;
    }
    return n_8bit == 2 ? KV_FP8 : KV_BF16;
}

struct attn_shape cuda_attn_shape(const struct bmodel *m, int kind)
{
    return (struct attn_shape){.n_head = m->d.n_head,
                               .n_head_kv = m->d.n_head_kv,
                               .head_dim = m->d.head_dim,
                               .sliding_window = model_window(&m->d, kind)};
}

struct kv_layer cuda_kv_layer(const struct cuda_pool *p, int32_t layer)
{
    struct kv_layer l = p->layer0;
    l.k = (char *)l.k + p->k_layer_bytes * (size_t)layer;
    l.v = (char *)l.v + p->k_layer_bytes * (size_t)layer;
    if (l.type == KV_FP8) {
        l.k_scale = (float *)(void *)((char *)l.k_scale + p->scale_layer_bytes * (size_t)layer);
        l.v_scale = (float *)(void *)((char *)l.v_scale + p->scale_layer_bytes * (size_t)layer);
    }
    return l;
}

static void lay_cache(const struct bmodel *m, const struct kv_config *kv, struct cuda_arena *a, struct cuda_pool *p)
{
    const struct model_desc *d = &m->d;
    size_t n_layer = (size_t)d->n_layer, n_slot = (size_t)kv->n_block * (size_t)kv->block_len;
    size_t n_row = n_slot * (size_t)d->n_head_kv, element = p->layer0.type == KV_FP8 ? 1 : sizeof(struct bf16);
    p->k_layer_bytes = n_row * (size_t)d->head_dim * element;
    p->scale_layer_bytes = p->layer0.type == KV_FP8 ? n_row * sizeof(float) : 0;
    p->layer0.k = cuda_arena_take(a, n_layer, p->k_layer_bytes);
    p->layer0.v = cuda_arena_take(a, n_layer, p->k_layer_bytes);
    p->layer0.k_scale = cuda_arena_take(a, n_layer, p->scale_layer_bytes);
    p->layer0.v_scale = cuda_arena_take(a, n_layer, p->scale_layer_bytes);
    p->plane = cuda_arena_take(a, kv->hidden_plane ? n_slot * (size_t)d->n_embd : 0, sizeof *p->plane);
    if (!kv->hidden_plane)
        p->plane = NULL;
    p->bank = cuda_arena_take(a, (size_t)kv->n_bank * (size_t)d->n_embd, sizeof *p->bank);
    p->kv_bytes = a->at;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The scratch that serves every product of the model; those of experts have no use for it. */
static size_t gemm_scratch(const struct bmodel *m, int32_t n_logit)
{
    int32_t n_row = m->limits.n_row, n_block = m->b->n_block;
    size_t bytes = gemm_scratch_bytes(&m->out, n_logit, n_block);
    for (const struct cuda_layer *l = m->layer; l < m->layer + m->d.n_layer; l++) {
        const struct cuda_ffn *f = l->ffn;
        const struct gemm_weight *all[] = {&l->router, &l->wq,      &l->wk,   &l->wv, &l->wo,
                                           &f->down,   &f->gate_up, &f->gate, &f->up};
        size_t n = l->router.data ? 5 : sizeof all / sizeof *all;
        for (size_t i = 0; i < n; i++)
            if (all[i]->data)
                bytes = most(bytes, gemm_scratch_bytes(all[i], n_row, n_block));
    }
    return bytes;
}

/* Products add to the residual stream themselves, unless what they bring is normed or scaled first. */
static bool adds_apart(const struct bmodel *m)
{
    bool apart = m->d.residual_scale != 1;
    for (int32_t l = 0; l < m->d.n_layer; l++)
        apart |= m->layer[l].post_attn_norm || m->layer[l].post_ffn_norm;
    return apart;
}

static bool has_mixed_ffn(const struct bmodel *m)
{
    for (int32_t l = 0; l < m->d.n_layer; l++)
        if (m->layer[l].ffn->gate.data)
            return true;
    return false;
}

static void lay_routes(const struct model_desc *d, size_t n_row, struct cuda_arena *a, struct cuda_pool *p)
{
    struct expert_routes *r = &p->routes;
    size_t n_place = n_row * (size_t)d->n_expert_used;
    if (!d->n_expert)
        return;
    *r = (struct expert_routes){.n_expert = d->n_expert, .n_used = d->n_expert_used};
    r->logit = cuda_arena_take(a, n_row * (size_t)d->n_expert, sizeof *r->logit);
    r->expert = cuda_arena_take(a, n_place, sizeof *r->expert);
    r->share = cuda_arena_take(a, n_place, sizeof *r->share);
    r->place = cuda_arena_take(a, n_place, sizeof *r->place);
    r->first = cuda_arena_take(a, (size_t)d->n_expert + 1, sizeof *r->first);
    r->row = cuda_arena_take(a, n_place, sizeof *r->row);
    p->expert_y = cuda_arena_take(a, n_place * (size_t)d->n_embd, sizeof *p->expert_y);
}

/* A library adds ranks up in an order that depends on how much there is to add. Of two, every order is the same. */
static bool sums_in_order(const struct backend *b)
{
    return b->opt.deterministic && b->n_rank > 2;
}

static void lay_rows(const struct bmodel *m, struct cuda_arena *a, struct cuda_pool *p)
{
    const struct model_desc *d = &m->d;
    size_t n = (size_t)m->limits.n_row, n_q = (size_t)(d->n_head * d->head_dim),
           n_kv = (size_t)(d->n_head_kv * d->head_dim);
    p->x = cuda_arena_take(a, n * (size_t)d->n_embd, sizeof *p->x);
    if (adds_apart(m))
        p->y = cuda_arena_take(a, n * (size_t)d->n_embd, sizeof *p->y);
    p->h = cuda_arena_take(a, n * (size_t)d->n_embd, sizeof *p->h);
    p->qkv = cuda_arena_take(a, n * (n_q + 2 * n_kv), sizeof *p->qkv);
    p->squares = cuda_arena_take(a, d->flags & MODEL_QK_NORM_ALL ? n * KV_SQUARES : 0, sizeof *p->squares);
    p->q = cuda_arena_take(a, n * n_q, sizeof *p->q);
    p->o = cuda_arena_take(a, n * n_q, sizeof *p->o);
    size_t n_ff = n * most((size_t)d->n_ff, (size_t)d->n_expert_used * (size_t)d->n_ff_expert);
    p->ff = cuda_arena_take(a, n_ff, sizeof *p->ff);
    p->gate_up = cuda_arena_take(a, has_mixed_ffn(m) ? 2 * n_ff : 0, sizeof *p->gate_up);
    lay_routes(d, n, a, p);
    p->rope = cuda_arena_take(a, (size_t)m->n_kind * n * (size_t)d->rope_dim, sizeof *p->rope);
    if (sums_in_order(m->b))
        p->gathered = cuda_arena_take(a, (size_t)m->b->n_rank * n * (size_t)d->n_embd, sizeof *p->gathered);
}

static void lay_readouts(const struct bmodel *m, struct cuda_arena *a, struct cuda_pool *p, int32_t n_logit)
{
    const struct plan_limits *n = &m->limits;
    int32_t n_rank = m->b->n_rank, n_own = (n_logit + n_rank - 1) / n_rank; /* rows of logits are dealt out */
    size_t n_score = (size_t)n_own * (size_t)m->d.n_vocab;
    p->slice = n_rank > 1 ? cuda_arena_take(a, (size_t)n_logit * (size_t)m->shard.n_vocab, sizeof *p->slice) : NULL;
    p->logits = cuda_arena_take(a, n_score, sizeof *p->logits);
    p->score = cuda_arena_take(a, n_score, sizeof *p->score);
    p->law = cuda_arena_take(a, (size_t)n_logit, sizeof *p->law);
    p->raw = cuda_arena_take(a, (size_t)n_logit, sizeof *p->raw);
    p->contrast =
        cuda_arena_take(a, p->kv.hidden_plane ? (size_t)n->n_readout * CONTRAST_PARTS : 0, sizeof *p->contrast);
    p->result = cuda_arena_take(a, (size_t)n->n_out_f + (size_t)n->n_out_i, sizeof *p->result);
}

static size_t moves_bytes(const struct bmodel *m, const struct kv_config *kv, const struct cuda_pool *p)
{
    int32_t n_move = m->limits.n_kvop * kv->block_len;
    size_t n_head = (size_t)(m->d.n_layer * m->d.n_head_kv), row = (size_t)m->d.head_dim;
    size_t slot = n_head * 2 * (p->layer0.type == KV_FP8 ? row + sizeof(float) : row * sizeof(struct bf16));
    if (kv->hidden_plane)
        slot += (size_t)m->d.n_embd * sizeof(struct f16);
    return slot * (size_t)n_move;
}

size_t cuda_pool_layout(const struct bmodel *m, const struct kv_config *kv, char *base, struct cuda_pool *p)
{
    const struct plan_limits *n = &m->limits;
    struct cuda_arena a = {.base = base};
    struct attn_shape shape = cuda_attn_shape(m, 0);
    struct cuda_lists lists;
    int32_t n_logit = n->n_row < n->n_readout ? n->n_row : n->n_readout;
    int type = kv_type_of(kv);
    if (type < 0 || kv->block_len <= 0 || kv->block_len & (kv->block_len - 1))
        return 0;
    *p = (struct cuda_pool){.kv = *kv};
    p->layer0 = (struct kv_layer){.type = type,
                                  .n_head_kv = m->d.n_head_kv,
                                  .head_dim = m->d.head_dim,
                                  .block_shift = __builtin_ctz((unsigned)kv->block_len)};
    p->cap_part = attn_work_min_part(n) + CUT_PARTS * m->b->n_block;
    p->cap_item = m->n_kind * attn_work_max_item(n, &shape, p->cap_part);
    struct plan_limits staged = *n;
    staged.n_mix = n->n_mix > n->n_row ? n->n_mix : n->n_row; /* graphs have one for each row */
    p->upload_bytes = cuda_lists_layout(&staged, kv->block_len, p->cap_item, NULL, &lists);
    lay_cache(m, kv, &a, p);
    lay_rows(m, &a, p);
    lay_readouts(m, &a, p, n_logit);
    p->attn = cuda_arena_take(&a, 1, attn_scratch_bytes(&shape, p->cap_part));
    size_t gemm = gemm_scratch(m, n_logit);
    p->gemm = cuda_arena_take(&a, 1, gemm);
    if (!gemm)
        p->gemm = NULL;
    cuda_blas_layout(m, &a, p);
    p->moves = cuda_arena_take(&a, 1, moves_bytes(m, kv, p));
    p->upload = cuda_arena_take(&a, 1, p->upload_bytes);
    p->scratch_bytes = a.at - p->kv_bytes;
    return a.at;
}

size_t cuda_kv_bytes(const struct bmodel *m, const struct kv_config *kv)
{
    struct cuda_pool p;
    return cuda_pool_layout(m, kv, NULL, &p);
}

/* Says what would fit: memory grows by the same for each block. */
static int refuse(const struct bmodel *m, const struct kv_config *kv, size_t bytes, size_t left, struct err *e)
{
    struct kv_config none = *kv;
    none.n_block = 0;
    size_t fixed = cuda_kv_bytes(m, &none), block = (bytes - fixed) / (size_t)kv->n_block;
    if (left <= fixed || !block)
        return err_set(e, ERR_NOMEM,
                       "scratch for plans of %d rows needs %zu MiB of device memory, of which %zu MiB "
                       "are free: smaller plans would fit",
                       m->limits.n_row, fixed >> 20, left >> 20);
    return err_set(e, ERR_NOMEM,
                   "a KV cache of %d blocks needs %zu MiB of device memory, of which %zu MiB are free: "
                   "%zu blocks would fit",
                   kv->n_block, bytes >> 20, left >> 20, (left - fixed) / block);
}

static int pool_alloc(struct bmodel *m, size_t bytes, struct err *e)
{
    struct backend *b = m->b;
    struct cuda_pool *p = &m->pool;
    size_t n_result = (size_t)m->limits.n_out_f + (size_t)m->limits.n_out_i;
    void *upload = NULL;
    int rc = cuda_check(b, b->api->alloc(&p->memory, bytes), "allocating the KV cache", e);
    if (!rc)
        rc = cuda_check(b, b->api->host_alloc(&upload, p->upload_bytes), "allocating pinned memory", e);
    p->host_upload = upload;
    if (!rc)
        rc =
            cuda_check(b, b->api->host_alloc(&p->host_result, n_result * sizeof(float)), "allocating pinned memory", e);
    p->map = rc ? NULL : mem_alloc(2 * (size_t)m->limits.n_row * sizeof *p->map);
    if (!rc && !p->map)
        rc = err_set(e, ERR_NOMEM, "out of memory");
    return rc;
}

/* Attention multiplies what it masks with zero, so the cache must hold finite values from the start. */
static int pool_clear(struct bmodel *m, struct err *e)
{
    struct backend *b = m->b;
    int code = b->api->zero(m->pool.memory, m->pool.kv_bytes, b->stream);
    if (!code)
        code = b->api->stream_wait(b->stream);
    return cuda_check(b, code, "clearing the KV cache", e);
}

int cuda_kv_create(struct bmodel *m, const struct kv_config *kv, struct err *e)
{
    struct cuda_pool laid;
    size_t left = 0, bytes = cuda_pool_layout(m, kv, NULL, &laid);
    if (!bytes)
        return err_set(e, ERR_INVALID, "cuda has no KV cache of types %d and %d in blocks of %d", kv->k_type,
                       kv->v_type, kv->block_len);
    int rc = cuda_enter(m->b, e);
    if (!rc)
        rc = cuda_check(m->b, m->b->api->free_bytes(&left), "asking for free memory", e);
    if (!rc && bytes > left)
        rc = refuse(m, kv, bytes, left, e);
    m->pool = laid;
    if (!rc)
        rc = pool_alloc(m, bytes, e);
    if (!rc) {
        struct cuda_pool owned = m->pool;
        cuda_pool_layout(m, kv, owned.memory, &m->pool);
        m->pool.memory = owned.memory;
        m->pool.host_upload = owned.host_upload;
        m->pool.host_result = owned.host_result;
        m->pool.map = owned.map;
        rc = pool_clear(m, e);
    }
    if (rc)
        cuda_pool_free(m);
    return rc;
}

void cuda_pool_free(struct bmodel *m)
{
    const struct cuda_api *api = m->b->api;
    cuda_graphs_free(m);
    cuda_blas_forget(m);
    api->free(m->pool.memory);
    api->host_free(m->pool.host_upload);
    api->host_free(m->pool.host_result);
    mem_free(m->pool.map);
    m->pool = (struct cuda_pool){0};
}
