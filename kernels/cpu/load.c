/* Weights from the file's layout to the panels of weight.h, each tensor repacked once by all workers. */
#include <string.h>

#include "cpu.h"
#include "mem.h"

struct loader {
    struct bmodel *m;
    load_progress progress;
    void *arg;
    size_t done, total; /* bytes of the file */
    size_t at;          /* in the arena: 0 .. while planning, then again while filling */
    struct err *e;
};

/* Pairs each tensor of a model with where it goes: a matrix or a vector. */
struct slot {
    const struct tensor *from;
    struct weight *matrix;
    float **vector;
};

enum { N_LAYER_SLOT = 14, N_MODEL_SLOT = 3, SLICE_BYTES = 32 << 20 };

static void layer_slots(const struct layer_weights *w, struct layer *l, struct slot out[N_LAYER_SLOT])
{
    const struct slot all[N_LAYER_SLOT] = {
        {&w->attn_norm, NULL, &l->attn_norm},
        {&w->ffn_norm, NULL, &l->ffn_norm},
        {&w->bq, NULL, &l->bq},
        {&w->bk, NULL, &l->bk},
        {&w->bv, NULL, &l->bv},
        {&w->q_norm, NULL, &l->q_norm},
        {&w->k_norm, NULL, &l->k_norm},
        {&w->wq, &l->wq, NULL},
        {&w->wk, &l->wk, NULL},
        {&w->wv, &l->wv, NULL},
        {&w->wo, &l->wo, NULL},
        {&w->gate, &l->gate, NULL},
        {&w->up, &l->up, NULL},
        {&w->down, &l->down, NULL},
    };
    memcpy(out, all, sizeof all);
}

static void model_slots(const struct model_weights *w, struct bmodel *m, struct slot out[N_MODEL_SLOT])
{
    out[0] = (struct slot){&w->tok_embd, &m->tok_embd, NULL};
    out[1] = (struct slot){&w->out_norm, NULL, &m->out_norm};
    out[2] = (struct slot){&w->out, &m->out, NULL};
}

static size_t align64(size_t n)
{
    return (n + 63) / 64 * 64;
}

static int plan_slot(struct loader *ld, const struct slot *s)
{
    if (!s->from->data)
        return 0;
    ld->total += dtype_row_bytes(s->from->type, s->from->n_col) * (size_t)s->from->n_row;
    if (s->vector) {
        if (s->from->n_row != 1 || !dtype_row_bytes(s->from->type, s->from->n_col))
            return err_set(ld->e, ERR_INVALID, "a vector of type %d cannot be used", s->from->type);
        ld->at += align64((size_t)s->from->n_col * sizeof(float));
        return 0;
    }
    int rc = weight_plan(s->from, s->matrix, ld->e);
    ld->at += align64(weight_bytes(s->matrix));
    return rc;
}

struct pack_job {
    const struct weight *w;
    const struct tensor *t;
    int32_t p0, p1, n_worker;
};

static void pack_share(void *arg, int worker)
{
    const struct pack_job *j = arg;
    int32_t n = j->p1 - j->p0;
    weight_pack(j->w, j->t, j->p0 + n * worker / j->n_worker, j->p0 + n * (worker + 1) / j->n_worker);
}

static int report(struct loader *ld, size_t bytes)
{
    ld->done += bytes;
    if (ld->progress && ld->progress(ld->arg, ld->done, ld->total))
        return err_set(ld->e, ERR_CANCELED, "loading was stopped");
    return 0;
}

static int fill_matrix(struct loader *ld, const struct slot *s)
{
    struct weight *w = s->matrix;
    struct pool *pool = ld->m->b->pool;
    w->data = (uint8_t *)ld->m->weights.base + ld->at;
    ld->at += align64(weight_bytes(w));
    size_t row_bytes = dtype_row_bytes(s->from->type, s->from->n_col);
    int32_t step = (int32_t)(SLICE_BYTES / w->panel_bytes) + pool_size(pool);
    for (int32_t p = 0; p < w->n_panel; p += step) {
        struct pack_job j = {w, s->from, p, p + step < w->n_panel ? p + step : w->n_panel, pool_size(pool)};
        pool_run(pool, pack_share, &j);
        int32_t end = j.p1 * PANEL < w->n_out ? j.p1 * PANEL : w->n_out;
        int rc = report(ld, row_bytes * (size_t)(end - p * PANEL));
        if (rc)
            return rc;
    }
    return 0;
}

static int fill_slot(struct loader *ld, const struct slot *s)
{
    if (!s->from->data)
        return 0;
    if (s->matrix)
        return fill_matrix(ld, s);
    *s->vector = (float *)(void *)(ld->m->weights.base + ld->at);
    ld->at += align64((size_t)s->from->n_col * sizeof(float));
    dtype_to_f32(s->from->type, s->from->data, *s->vector, s->from->n_col);
    return report(ld, dtype_row_bytes(s->from->type, s->from->n_col));
}

static int each_slot(struct loader *ld, const struct model_weights *w, int (*fn)(struct loader *, const struct slot *))
{
    struct slot slot[N_LAYER_SLOT];
    int rc = 0;
    ld->at = 0;
    model_slots(w, ld->m, slot);
    for (int i = 0; !rc && i < N_MODEL_SLOT; i++)
        rc = fn(ld, &slot[i]);
    for (int32_t l = 0; l < ld->m->d.n_layer; l++) {
        layer_slots(&w->layer[l], &ld->m->layer[l], slot);
        for (int i = 0; !rc && i < N_LAYER_SLOT; i++)
            rc = fn(ld, &slot[i]);
    }
    return rc;
}

int cpu_load(struct backend *b, const struct model_desc *d, const struct model_weights *w, load_progress progress,
             void *arg, struct bmodel **out, struct err *e)
{
    *out = NULL;
    struct bmodel *m = mem_calloc(1, sizeof *m);
    if (m)
        m->layer = mem_calloc((size_t)d->n_layer, sizeof *m->layer);
    if (!m || !m->layer) {
        mem_free(m);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    m->b = b;
    m->d = *d;
    m->limits = b->opt.limits;
    m->limits.n_vocab = d->n_vocab;
    struct loader ld = {.m = m, .progress = progress, .arg = arg, .e = e};
    int rc = each_slot(&ld, w, plan_slot);
    if (!rc)
        rc = region_create(&m->weights, ld.at, e);
    if (!rc)
        rc = each_slot(&ld, w, fill_slot);
    if (rc) {
        cpu_unload(m);
        return rc;
    }
    if (!m->out.data)
        m->out = m->tok_embd;
    *out = m;
    return 0;
}

void cpu_unload(struct bmodel *m)
{
    if (!m)
        return;
    cpu_kv_free(m);
    region_free(&m->weights);
    mem_free(m->layer);
    mem_free(m);
}
