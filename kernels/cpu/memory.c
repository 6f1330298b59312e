/* What a pool takes: KV planes, touched only as slots are written, and the scratch of a step. */
#include <stdio.h>
#include <string.h>

#include "cpu.h"
#include "mem.h"

/* Hands out a region piece by piece; with no base it only adds up. */
struct carver {
    char *base;
    size_t at;
};

static void *carve(struct carver *c, size_t bytes)
{
    void *p = c->base ? c->base + c->at : NULL;
    c->at += (bytes + 63) / 64 * 64;
    return p;
}

static size_t panels(int32_t n)
{
    return (size_t)((n + PANEL - 1) / PANEL * PANEL);
}

static void plane_shape(struct kv_plane *p, const struct model_desc *d, const struct kv_config *kv, int32_t type,
                        int is_k)
{
    int32_t group = kv->block_len < KEY_LANES ? kv->block_len : KEY_LANES;
    p->type = type;
    p->lanes = is_k || type == DT_Q8_0 ? group : 1;
    p->step = is_k ? group : 1;
    p->row = dtype_row_bytes(type, d->head_dim);
    p->block = p->row * (size_t)kv->block_len;
    p->head = p->block * (size_t)kv->n_block;
    p->layer = p->head * (size_t)d->n_head_kv;
}

static void carve_cache(struct bmodel *m, struct carver *c)
{
    size_t n_slot = (size_t)m->kv.n_block * (size_t)m->kv.block_len, n_embd = (size_t)m->d.n_embd;
    plane_shape(&m->k, &m->d, &m->kv, m->kv.k_type, 1);
    plane_shape(&m->v, &m->d, &m->kv, m->kv.v_type, 0);
    m->k.data = carve(c, m->k.layer * (size_t)m->d.n_layer);
    m->v.data = carve(c, m->v.layer * (size_t)m->d.n_layer);
    m->plane = m->kv.hidden_plane ? carve(c, sizeof *m->plane * n_slot * n_embd) : NULL;
    m->bank = carve(c, sizeof *m->bank * (size_t)m->kv.n_bank * n_embd);
}

/* The most lines that a row of activations has in each kind. */
struct widest {
    int32_t n[N_ACT];
};

static void widen(const struct bmodel *m, struct widest *most, const struct weight *w)
{
    enum act_kind kind = act_kind_of(m->b->isa, w->pack);
    int32_t n = act_lines(kind, w->n_in);
    most->n[kind] = n > most->n[kind] ? n : most->n[kind];
}

static struct widest widest_rows(const struct bmodel *m)
{
    struct widest most = {0};
    widen(m, &most, &m->out);
    for (int32_t l = 0; l < m->d.n_layer; l++) {
        const struct layer *y = &m->layer[l];
        const struct weight *all[] = {&y->wq, &y->wk, &y->wv, &y->wo, &y->gate, &y->up, &y->down, &y->router};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            widen(m, &most, all[i]);
    }
    return most;
}

static struct widest widest_experts(const struct bmodel *m)
{
    struct widest most = {0};
    for (int32_t l = 0; l < m->d.n_layer; l++)
        for (int32_t i = 0; m->layer[l].expert && i < m->d.n_expert; i++) {
            widen(m, &most, &m->layer[l].expert[i].gate);
            widen(m, &most, &m->layer[l].expert[i].up);
            widen(m, &most, &m->layer[l].expert[i].down);
        }
    return most;
}

static void carve_acts(struct carver *c, struct acts *a, struct widest most, size_t n_row)
{
    for (enum act_kind kind = 0; kind < N_ACT; kind++)
        a->kind[kind].line = carve(c, sizeof(union act_line) * (size_t)most.n[kind] * n_row);
}

static size_t n_place(const struct bmodel *m)
{
    return (size_t)m->limits.n_row * (size_t)m->d.n_expert_used;
}

static void carve_routes(struct bmodel *m, struct carver *c, struct routes *r)
{
    size_t n = n_place(m), n_expert = (size_t)m->d.n_expert;
    r->place = carve(c, sizeof *r->place * n);
    r->share = carve(c, sizeof *r->share * n);
    r->row = carve(c, sizeof *r->row * n);
    r->first = carve(c, sizeof *r->first * (n_expert + 1));
    r->used = carve(c, sizeof *r->used * n_expert);
}

static void carve_experts(struct bmodel *m, struct carver *c)
{
    size_t n = n_place(m), f = sizeof(float);
    m->n_expert = panels(m->d.n_expert);
    m->n_ff_expert = panels(m->d.n_ff_expert);
    m->route = carve(c, n ? f * (size_t)m->limits.n_row * m->n_expert : 0);
    m->h_expert = carve(c, f * n * m->n_ff_expert);
    m->count = carve(c, sizeof *m->count * n);
    carve_acts(c, &m->expert_acts, widest_experts(m), n);
}

static size_t staging_bytes(const struct bmodel *m)
{
    size_t heads = (size_t)m->d.n_head_kv, widest = heads * (m->k.row > m->v.row ? m->k.row : m->v.row);
    size_t plane = m->kv.hidden_plane ? sizeof *m->plane * (size_t)m->d.n_embd : 0;
    return (size_t)m->limits.n_kvop * (size_t)m->kv.block_len * (widest > plane ? widest : plane);
}

/* No position is beyond a plan's block tables. Not the pool's: what scratch takes must not depend on the pool, which is
 * sized by what is left. */
static int32_t last_segment(const struct bmodel *m)
{
    return (int32_t)((int64_t)m->limits.n_bt * m->kv.block_len / SEGMENT);
}

static void carve_worker(struct bmodel *m, struct carver *c, struct worker *w)
{
    size_t f = sizeof(float);
    int32_t n_q = m->d.n_head / m->d.n_head_kv;
    w->row = carve(c, sizeof *w->row * (size_t)(m->limits.n_row > HEAD_ROWS ? m->limits.n_row : HEAD_ROWS));
    carve_acts(c, &w->own, widest_rows(m), OWN_ROWS);
    carve_routes(m, c, &w->routes);
    w->product_buf = carve(c, f * PRODUCT_BUF);
    w->attend = carve(c, f * attend_scratch(n_q, m->d.head_dim, last_segment(m)));
    w->partial = carve(c, f * attend_partial(n_q, m->d.head_dim));
    w->tmp = carve(c, f * (size_t)m->d.n_embd);
    w->staging = carve(c, staging_bytes(m));
}

static void carve_scratch(struct bmodel *m, struct carver *c)
{
    const struct model_desc *d = &m->d;
    size_t n_row = (size_t)m->limits.n_row, f = sizeof(float);
    size_t n_head_row = n_row < HEAD_ROWS ? n_row : HEAD_ROWS;
    m->n_q = panels(d->n_head * d->head_dim);
    m->n_kv = panels(d->n_head_kv * d->head_dim);
    m->n_ff = panels(d->n_ff);
    m->n_embd = panels(d->n_embd);
    m->n_vocab = panels(d->n_vocab);
    m->x = carve(c, f * n_row * (size_t)d->n_embd);
    m->q = carve(c, f * n_row * m->n_q);
    m->k_new = carve(c, f * n_row * m->n_kv);
    m->v_new = carve(c, f * n_row * m->n_kv);
    m->h = carve(c, f * n_row * m->n_ff);
    m->rope = carve(c, f * n_row * (size_t)(m->n_kind * (d->rope_dim / 2 * 2)));
    m->y = carve(c, m->keeps_y ? f * (n_place(m) > n_row ? n_place(m) : n_row) * m->n_embd : 0);
    carve_experts(m, c);
    m->logits = carve(c, f * n_head_row * m->n_vocab);
    for (int kind = 0; kind < m->n_kind; kind++) {
        struct attend_plan *a = &m->attend[kind];
        a->chunk = carve(c, sizeof *a->chunk * n_row);
        a->n_done = carve(c, sizeof *a->n_done * (size_t)cpu_n_partial(m));
    }
    m->run = carve(c, f * (size_t)cpu_n_partial(m) * attend_partial(d->n_head / d->n_head_kv, d->head_dim));
    m->head_row = carve(c, sizeof *m->head_row * n_row);
    m->first_read = carve(c, sizeof *m->first_read * n_row);
    m->next_read = carve(c, sizeof *m->next_read * (size_t)m->limits.n_readout);
    m->ticket = carve(c, sizeof *m->ticket * cpu_n_ticket(m));
    carve_acts(c, &m->shared, widest_rows(m), n_row);
    int n_worker = pool_size(m->b->pool);
    struct worker none, *all = carve(c, sizeof *all * (size_t)n_worker);
    m->worker = all;
    for (int i = 0; i < n_worker; i++) {
        struct worker *w = all ? &all[i] : &none;
        w->m = m;
        w->id = i;
        w->node = placement_node(&m->b->place, i);
        carve_worker(m, c, w);
    }
}

/* Cache and scratch bytes of a configuration, found by carving nothing. */
static void measure(const struct bmodel *m, const struct kv_config *kv, size_t *cache, size_t *scratch)
{
    struct bmodel copy = *m;
    struct carver c = {0}, s = {0};
    copy.kv = *kv;
    carve_cache(&copy, &c);
    carve_scratch(&copy, &s);
    *cache = c.at;
    *scratch = s.at;
}

/* readout_ws_create's share of a worker. */
static size_t readout_bytes(const struct bmodel *m)
{
    return (size_t)m->d.n_vocab * 21 * (size_t)pool_size(m->b->pool);
}

size_t cpu_kv_bytes(const struct bmodel *m, const struct kv_config *kv)
{
    size_t cache, scratch;
    measure(m, kv, &cache, &scratch);
    return cache + scratch + readout_bytes(m);
}

static int usable(const struct bmodel *m, int32_t type)
{
    return (type == DT_F32 || type == DT_F16 || type == DT_BF16 || type == DT_Q8_0) &&
           dtype_row_bytes(type, m->d.head_dim);
}

int cpu_kv_create(struct bmodel *m, const struct kv_config *kv, struct err *e)
{
    if (!usable(m, kv->k_type) || !usable(m, kv->v_type))
        return err_set(e, ERR_INVALID, "KV type %d/%d does not fit heads of %d", kv->k_type, kv->v_type, m->d.head_dim);
    size_t cache, scratch;
    measure(m, kv, &cache, &scratch);
    m->kv = *kv;
    int rc = region_create(&m->cache, cache, e);
    if (!rc)
        rc = region_create(&m->scratch, scratch, e);
    if (rc)
        return rc;
    struct carver c = {.base = m->cache.base}, s = {.base = m->scratch.base};
    carve_cache(m, &c);
    carve_scratch(m, &s);
    for (size_t i = 0; i < n_place(m); i++)
        m->count[i] = (int32_t)i;
    for (int i = 0; !rc && i < pool_size(m->b->pool); i++)
        rc = readout_ws_create(&m->worker[i].readout, m->d.n_vocab, m->limits.n_row + PLAN_MAX_TREE, e);
    return rc;
}

void cpu_kv_free(struct bmodel *m)
{
    for (int i = 0; m->worker && i < pool_size(m->b->pool); i++)
        readout_ws_free(&m->worker[i].readout);
    region_free(&m->cache);
    region_free(&m->scratch);
}

void cpu_stats(const struct bmodel *m, struct backend_stats *s)
{
    *s = (struct backend_stats){
        .weight_bytes = m->weights.bytes, .n_thread = pool_size(m->b->pool), .weights_cached = m->from_cache};
    if (m->worker) {
        measure(m, &m->kv, &s->kv_bytes, &s->scratch_bytes);
        s->scratch_bytes += readout_bytes(m);
    }
    int n = snprintf(s->device, sizeof s->device, "cpu %s, %d thread%s", m->b->isa->name, s->n_thread,
                     s->n_thread == 1 ? "" : "s");
    if (m->b->place.n_node > 1)
        n += snprintf(s->device + n, sizeof s->device - (size_t)n, " on %d nodes", m->b->place.n_node);
    if (m->b->opt.pin == PIN_CORE)
        snprintf(s->device + n, sizeof s->device - (size_t)n, ", each on its core");
}
