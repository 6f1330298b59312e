#include "ref.h"

#include <math.h>
#include <string.h>

#include "mem.h"
#include "visible.h"

struct backend {
    struct backend_options opt;
};

static int ref_open(const struct backend_options *opt, struct backend **out, struct err *e)
{
    *out = NULL;
    if (opt->tensor_parallel > 1)
        return err_set(e, ERR_INVALID, "--tensor-parallel %d: the ref back end is one device", opt->tensor_parallel);
    *out = mem_calloc(1, sizeof **out);
    if (!*out)
        return err_set(e, ERR_NOMEM, "out of memory");
    (*out)->opt = *opt;
    return 0;
}

static void ref_close(struct backend *b)
{
    mem_free(b);
}

/* ---- Weights ---- */

struct loader {
    struct bmodel *m;
    load_progress progress;
    void *arg;
    size_t done, total;
    struct err *e;
};

static int load_tensor(struct loader *ld, const struct tensor *t, float **out)
{
    if (!t->data)
        return 0;
    size_t n = (size_t)t->n_row * (size_t)t->n_col;
    *out = mem_alloc(n * sizeof **out);
    if (!*out)
        return err_set(ld->e, ERR_NOMEM, "out of memory: %zu bytes of weights", n * sizeof **out);
    size_t row_bytes = dtype_row_bytes(t->type, t->n_col);
    for (int64_t r = 0; r < t->n_row; r++)
        dtype_to_f32(t->type, (const char *)t->data + row_bytes * (size_t)r, *out + (size_t)(r * t->n_col), t->n_col);
    ld->m->weight_bytes += n * sizeof **out;
    ld->done += row_bytes * (size_t)t->n_row;
    if (ld->progress && ld->progress(ld->arg, ld->done, ld->total))
        return err_set(ld->e, ERR_CANCELED, "loading was stopped");
    return 0;
}

static size_t tensor_bytes(const struct tensor *t)
{
    return t->data ? dtype_row_bytes(t->type, t->n_col) * (size_t)t->n_row : 0;
}

static int count_tensor(struct loader *ld, const struct tensor *t, float **out)
{
    ld->total += tensor_bytes(t);
    return 0;
}

/* One tensor and where ref keeps it. */
typedef int (*visit)(struct loader *ld, const struct tensor *t, float **out);

static int visit_layer(struct loader *ld, const struct layer_weights *w, struct ref_layer *l, visit fn)
{
    const struct {
        const struct tensor *from;
        float **to;
    } all[] = {
        {&w->attn_norm, &l->attn_norm},
        {&w->post_attn_norm, &l->post_attn_norm},
        {&w->ffn_norm, &l->ffn_norm},
        {&w->post_ffn_norm, &l->post_ffn_norm},
        {&w->wq, &l->wq},
        {&w->wk, &l->wk},
        {&w->wv, &l->wv},
        {&w->bq, &l->bq},
        {&w->bk, &l->bk},
        {&w->bv, &l->bv},
        {&w->q_norm, &l->q_norm},
        {&w->k_norm, &l->k_norm},
        {&w->wo, &l->wo},
        {&w->gate, &l->ffn.gate},
        {&w->up, &l->ffn.up},
        {&w->down, &l->ffn.down},
        {&w->router, &l->router},
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof all / sizeof *all; i++)
        rc = fn(ld, all[i].from, all[i].to);
    for (int32_t i = 0; !rc && l->expert && i < ld->m->d.n_expert; i++) {
        static const struct expert_weights none;
        const struct expert_weights *e = w->expert ? &w->expert[i] : &none;
        rc = fn(ld, &e->gate, &l->expert[i].gate);
        if (!rc)
            rc = fn(ld, &e->up, &l->expert[i].up);
        if (!rc)
            rc = fn(ld, &e->down, &l->expert[i].down);
    }
    return rc;
}

static int visit_all(struct loader *ld, const struct model_weights *w, visit fn)
{
    struct bmodel *m = ld->m;
    int rc = fn(ld, &w->tok_embd, &m->tok_embd);
    if (!rc)
        rc = fn(ld, &w->out_norm, &m->out_norm);
    if (!rc)
        rc = fn(ld, &w->out, &m->out);
    for (int32_t l = 0; !rc && l < m->d.n_layer; l++)
        rc = visit_layer(ld, &w->layer[l], &m->layer[l], fn);
    return rc;
}

static int load_all(struct loader *ld, const struct model_weights *w)
{
    struct bmodel *m = ld->m;
    for (int32_t l = 0; l < m->d.n_layer; l++) {
        if (!w->layer[l].router.data)
            continue;
        m->layer[l].expert = mem_calloc((size_t)m->d.n_expert, sizeof *m->layer[l].expert);
        if (!m->layer[l].expert)
            return err_set(ld->e, ERR_NOMEM, "out of memory");
    }
    visit_all(ld, w, count_tensor);
    int rc = visit_all(ld, w, load_tensor);
    if (!m->out)
        m->out = m->tok_embd;
    return rc;
}

static void ref_unload(struct bmodel *m);

static int ref_load(struct backend *b, const struct model_desc *d, const struct model_weights *w,
                    load_progress progress, void *arg, struct bmodel **out, struct err *e)
{
    struct bmodel *m = mem_calloc(1, sizeof *m);
    if (m)
        m->layer = mem_calloc((size_t)d->n_layer, sizeof *m->layer);
    if (!m || !m->layer) {
        mem_free(m);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    m->d = *d;
    m->limits = b->opt.limits;
    m->limits.n_vocab = d->n_vocab;
    struct loader ld = {.m = m, .progress = progress, .arg = arg, .e = e};
    int rc = load_all(&ld, w);
    if (rc) {
        ref_unload(m);
        m = NULL;
    }
    *out = m;
    return rc;
}

static int free_tensor(struct loader *ld, const struct tensor *t, float **out)
{
    mem_free(*out);
    return 0;
}

static void ref_unload(struct bmodel *m)
{
    if (!m)
        return;
    struct loader ld = {.m = m};
    if (m->out == m->tok_embd)
        m->out = NULL;
    static const struct layer_weights none;
    mem_free(m->tok_embd);
    mem_free(m->out_norm);
    mem_free(m->out);
    for (int32_t l = 0; l < m->d.n_layer; l++) {
        visit_layer(&ld, &none, &m->layer[l], free_tensor);
        mem_free(m->layer[l].expert);
    }
    mem_free(m->layer);
    mem_free(m->k);
    mem_free(m->v);
    mem_free(m->plane);
    mem_free(m->bank);
    mem_free(m->staging);
    mem_free(m->x);
    mem_free(m->tmp);
    mem_free(m->score);
    mem_free(m->logits);
    readout_ws_free(&m->readout);
    mem_free(m);
}

/* ---- Memory for a pool ---- */

struct pool_size {
    size_t n_slot, k_row, v_row, k, v, plane, bank, staging, x, tmp, score, logits;
};

static struct pool_size pool_size(const struct bmodel *m, const struct kv_config *kv)
{
    const struct model_desc *d = &m->d;
    size_t f = sizeof(float), n_q = (size_t)(d->n_head * d->head_dim), n_kv = (size_t)(d->n_head_kv * d->head_dim);
    struct pool_size s = {.n_slot = (size_t)kv->n_block * (size_t)kv->block_len};
    s.k_row = dtype_row_bytes(kv->k_type, (int64_t)n_kv);
    s.v_row = dtype_row_bytes(kv->v_type, (int64_t)n_kv);
    s.k = s.n_slot * s.k_row * (size_t)d->n_layer;
    s.v = s.n_slot * s.v_row * (size_t)d->n_layer;
    size_t plane_row = kv->hidden_plane ? sizeof *m->plane * (size_t)d->n_embd : 0,
           widest = s.k_row > s.v_row ? s.k_row : s.v_row;
    s.plane = s.n_slot * plane_row;
    s.bank = (size_t)kv->n_bank * (size_t)d->n_embd * f;
    s.staging = (size_t)m->limits.n_kvop * (size_t)kv->block_len * (widest > plane_row ? widest : plane_row);
    s.x = (size_t)m->limits.n_row * (size_t)d->n_embd * f;
    s.tmp =
        f * (3 * (size_t)d->n_embd + 2 * n_q + 3 * n_kv + 2 * (size_t)(d->n_ff + d->n_ff_expert) + (size_t)d->n_expert);
    s.score = s.n_slot * f;
    s.logits = (size_t)d->n_vocab * f;
    return s;
}

static size_t ref_kv_bytes(const struct bmodel *m, const struct kv_config *kv)
{
    struct pool_size s = pool_size(m, kv);
    return s.k + s.v + s.plane + s.bank + s.staging + s.x + s.tmp + s.score + s.logits;
}

static int ref_kv_create(struct bmodel *m, const struct kv_config *kv, struct err *e)
{
    struct pool_size s = pool_size(m, kv);
    if (!s.k_row || !s.v_row)
        return err_set(e, ERR_INVALID, "KV type %d/%d does not fit heads of %d", kv->k_type, kv->v_type, m->d.head_dim);
    m->kv = *kv;
    m->k_row = s.k_row;
    m->v_row = s.v_row;
    m->k = mem_calloc(1, s.k);
    m->v = mem_calloc(1, s.v);
    m->plane = s.plane ? mem_calloc(1, s.plane) : NULL;
    m->bank = mem_calloc(1, s.bank);
    m->staging = mem_alloc(s.staging);
    m->x = mem_alloc(s.x);
    m->tmp = mem_alloc(s.tmp);
    m->score = mem_alloc(s.score);
    m->logits = mem_alloc(s.logits);
    if (!m->k || !m->v || (s.plane && !m->plane) || !m->bank || !m->staging || !m->x || !m->tmp || !m->score ||
        !m->logits)
        return err_set(e, ERR_NOMEM, "out of memory: %zu bytes of KV cache", ref_kv_bytes(m, kv));
    return readout_ws_create(&m->readout, m->d.n_vocab, m->limits.n_row + PLAN_MAX_TREE, e);
}

/* ---- Steps ---- */

static int ref_submit(struct bmodel *m, const struct step_plan *p, struct err *e)
{
    BUG_ON(m->plan);
    m->plan = p;
    return 0;
}

static float contrast(struct bmodel *m, const struct step_plan *p, const struct span *s, int32_t row)
{
    size_t n = (size_t)m->d.n_embd;
    float *own = m->tmp, *other = own + n;
    dtype_to_f32(DT_F16, m->plane + n * (size_t)span_slot(p, s, m->kv.block_len, row_slot(s, row)), own, m->d.n_embd);
    struct visible vis;
    visible_of(p, s, row, 0, &vis);
    double best = -1;
    for (int32_t j = 0; j < vis.n_prefix + vis.n_tail; j++) {
        if (visible_slot(&vis, j) == row_slot(s, row))
            continue;
        dtype_to_f32(DT_F16, m->plane + n * (size_t)span_slot(p, s, m->kv.block_len, visible_slot(&vis, j)), other,
                     m->d.n_embd);
        double dot = 0;
        for (size_t i = 0; i < n; i++)
            dot += (double)own[i] * other[i];
        best = fmax(best, dot);
    }
    return (float)best;
}

/* Every row's normalised final hidden state goes to the plane before any readout compares them. */
static void fill_plane(struct bmodel *m, const struct step_plan *p)
{
    int32_t n = m->d.n_embd;
    for (int32_t r = 0; r < p->n.n_row; r++) {
        const struct span *s = plan_span_of(p, r);
        float *out = m->tmp;
        ref_rms_norm(m->x + (size_t)r * (size_t)n, m->out_norm, out, n, m->d.rms_eps);
        double sum = 0;
        for (int32_t i = 0; i < n; i++)
            sum += (double)out[i] * out[i];
        for (int32_t i = 0; i < n; i++)
            out[i] = (float)(out[i] / sqrt(sum));
        dtype_from_f32(DT_F16, out, m->plane + (size_t)n * (size_t)span_slot(p, s, m->kv.block_len, row_slot(s, r)), n);
    }
}

static int ref_wait(struct bmodel *m, struct step_result *out, struct err *e)
{
    const struct step_plan *p = m->plan;
    BUG_ON(!p);
    m->plan = NULL;
    ref_forward(m, p);
    if (m->plane)
        fill_plane(m, p);
    readout_begin(&m->readout);
    int32_t logits_row = -1;
    for (int32_t i = 0; i < p->n.n_readout; i++) {
        const struct readout *r = &p->readout[i];
        const struct span *s = plan_span_of(p, r->row);
        const float *x = m->x + (size_t)r->row * (size_t)m->d.n_embd;
        if (r->kind == READ_CONTRAST) {
            out->f[r->f0] = contrast(m, p, s, r->row);
        } else if (r->kind == READ_HIDDEN && r->bank >= 0) {
            memcpy(m->bank + (size_t)r->bank * (size_t)m->d.n_embd, x, sizeof *x * (size_t)m->d.n_embd);
        } else if (r->kind == READ_HIDDEN) {
            ref_rms_norm(x, m->out_norm, out->f + r->f0, m->d.n_embd, m->d.rms_eps);
        } else {
            if (logits_row != r->row) {
                ref_rms_norm(x, m->out_norm, m->tmp, m->d.n_embd, m->d.rms_eps);
                ref_matvec(m->out, NULL, m->tmp, m->logits, m->d.n_vocab, m->d.n_embd);
                for (int32_t t = 0; t < m->d.n_vocab; t++)
                    m->logits[t] = ref_soft_cap(m->logits[t] * m->d.logit_scale, m->d.logit_softcap);
                logits_row = r->row;
            }
            readout_logits(p, s, r, m->logits, &m->readout, out);
        }
    }
    return 0;
}

static void ref_stats(const struct bmodel *m, struct backend_stats *s)
{
    size_t kv = 0, all = 0;
    if (m->k) {
        struct pool_size size = pool_size(m, &m->kv);
        kv = size.k + size.v + size.plane;
        all = ref_kv_bytes(m, &m->kv);
    }
    *s = (struct backend_stats){.weight_bytes = m->weight_bytes,
                                .kv_bytes = kv,
                                .scratch_bytes = all - kv,
                                .n_thread = 1,
                                .device = "ref: scalar f32 oracle, 1 thread"};
}

const struct backend_ops backend_ref = {
    .name = "ref",
    .open = ref_open,
    .load = ref_load,
    .kv_bytes = ref_kv_bytes,
    .kv_create = ref_kv_create,
    .submit = ref_submit,
    .wait = ref_wait,
    .stats = ref_stats,
    .unload = ref_unload,
    .close = ref_close,
};
