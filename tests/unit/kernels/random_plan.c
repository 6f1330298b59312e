#include "random_plan.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "rng.h"

uint64_t rnd_u64(struct rnd *r)
{
    return rng_mix(r->state++);
}

int32_t rnd_int(struct rnd *r, int32_t lo, int32_t hi)
{
    return lo + (int32_t)(rnd_u64(r) % (uint64_t)(hi - lo + 1));
}

float rnd_normal(struct rnd *r)
{
    double u = ((double)(rnd_u64(r) >> 11) + 0.5) * 0x1p-53, v = (double)(rnd_u64(r) >> 11) * 0x1p-53;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

struct rnd rnd_begin(const char *what, uint64_t fallback)
{
    const char *env = getenv("GALLEY_SEED");
    struct rnd r = {.state = env ? strtoull(env, NULL, 0) : fallback};
    printf("%s: GALLEY_SEED=%llu\n", what, (unsigned long long)r.state);
    r.state = rng_mix(r.state);
    return r;
}

static char *place(char **at, struct tensor *t, struct rnd *r, int type, int64_t n_row, int64_t n_col, float mean,
                   float sd)
{
    *t = (struct tensor){.data = *at, .type = type, .n_row = n_row, .n_col = n_col};
    size_t row_bytes = dtype_row_bytes(type, n_col);
    float *tmp = malloc(sizeof *tmp * (size_t)n_col);
    for (int64_t i = 0; i < n_row; i++) {
        for (int64_t c = 0; c < n_col; c++)
            tmp[c] = mean + sd * rnd_normal(r);
        dtype_from_f32(type, tmp, *at + row_bytes * (size_t)i, n_col);
    }
    free(tmp);
    *at += (row_bytes * (size_t)n_row + 63) & ~(size_t)63;
    return *at;
}

void tiny_model_make(struct tiny_model *t, struct rnd *r, int32_t n_layer, int32_t n_head, int32_t n_head_kv,
                     int32_t head_dim, int32_t n_embd, int32_t n_ff, int32_t n_vocab, uint32_t flags, int type,
                     int biases, int tied)
{
    int32_t n_q = n_head * head_dim, n_kv = n_head_kv * head_dim;
    *t = (struct tiny_model){0};
    t->d = (struct model_desc){.n_vocab = n_vocab,
                               .n_embd = n_embd,
                               .n_layer = n_layer,
                               .n_head = n_head,
                               .n_head_kv = n_head_kv,
                               .head_dim = head_dim,
                               .n_ff = n_ff,
                               .n_ctx_train = 4096,
                               .rope_dim = head_dim,
                               .flags = flags,
                               .rms_eps = 1e-5f,
                               .attn_scale = 1 / sqrtf((float)head_dim),
                               .rope_mscale = 1,
                               .embd_scale = 1,
                               .residual_scale = 1,
                               .logit_scale = 1};
    for (int32_t i = 0; i < head_dim / 2; i++)
        t->d.rope_inv_freq[i] = powf(10000, -2.0f * (float)i / (float)head_dim);
    size_t elems =
        (size_t)n_layer * ((size_t)n_embd * (size_t)(2 * n_q + 2 * n_kv + 3 * n_ff + 2) + (size_t)(n_q + 4 * n_kv)) +
        (size_t)n_embd * (size_t)(2 * n_vocab + 1);
    t->mem = malloc(elems * 4 + (size_t)(n_layer * 14 + 3) * 64 + 64);
    char *at = (char *)(((size_t)t->mem + 63) & ~(size_t)63);
    t->w.layer = calloc((size_t)n_layer, sizeof *t->w.layer);
    float in = 1 / sqrtf((float)n_embd);
    place(&at, &t->w.tok_embd, r, type, n_vocab, n_embd, 0, 1);
    place(&at, &t->w.out_norm, r, DT_F32, 1, n_embd, 1, 0.1f);
    if (!tied)
        place(&at, &t->w.out, r, type, n_vocab, n_embd, 0, in);
    for (int32_t l = 0; l < n_layer; l++) {
        struct layer_weights *w = &t->w.layer[l];
        place(&at, &w->attn_norm, r, DT_F32, 1, n_embd, 1, 0.1f);
        place(&at, &w->ffn_norm, r, DT_F32, 1, n_embd, 1, 0.1f);
        place(&at, &w->wq, r, type, n_q, n_embd, 0, 2 * in);
        place(&at, &w->wk, r, type, n_kv, n_embd, 0, 2 * in);
        place(&at, &w->wv, r, type, n_kv, n_embd, 0, in);
        if (biases) {
            place(&at, &w->bq, r, DT_F32, 1, n_q, 0, 0.5f);
            place(&at, &w->bk, r, DT_F32, 1, n_kv, 0, 0.5f);
            place(&at, &w->bv, r, DT_F32, 1, n_kv, 0, 0.5f);
        }
        if (flags & MODEL_QK_NORM) {
            place(&at, &w->q_norm, r, DT_F32, 1, head_dim, 1, 0.1f);
            place(&at, &w->k_norm, r, DT_F32, 1, head_dim, 1, 0.1f);
        }
        place(&at, &w->wo, r, type, n_embd, n_q, 0, 1 / sqrtf((float)n_q));
        place(&at, &w->gate, r, type, n_ff, n_embd, 0, in);
        place(&at, &w->up, r, type, n_ff, n_embd, 0, in);
        place(&at, &w->down, r, type, n_embd, n_ff, 0, 1 / sqrtf((float)n_ff));
    }
}

const struct tiny_features tiny_gemma = {.flags = MODEL_GELU,
                                         .window_1 = 6,
                                         .post_norms = 1,
                                         .attn_softcap = 1.5f,
                                         .logit_softcap = 3,
                                         .embd_scale = 8},
                           tiny_olmo = {.flags = MODEL_QK_NORM_ALL, .post_norms = 1, .no_pre_norms = 1},
                           tiny_granite = {.unrotated = 1,
                                           .embd_scale = 3,
                                           .residual_scale = 0.4f,
                                           .logit_scale = 0.5f},
                           tiny_mixtral = {
                               .flags = MODEL_EXPERT_SUM_1, .n_expert = 5, .n_expert_used = 2, .n_ff_expert = 64};

static void extend_desc(struct model_desc *d, const struct tiny_features *f)
{
    d->flags |= f->flags;
    d->attn_softcap = f->attn_softcap;
    d->logit_softcap = f->logit_softcap;
    d->embd_scale = f->embd_scale > 0 ? f->embd_scale : 1;
    d->residual_scale = f->residual_scale > 0 ? f->residual_scale : 1;
    d->logit_scale = f->logit_scale > 0 ? f->logit_scale : 1;
    d->n_expert = f->n_expert;
    d->n_expert_used = f->n_expert_used;
    d->n_ff_expert = f->n_ff_expert;
    d->rope_mscale_1 = 1;
    d->sliding_window_1 = f->window_1;
    for (int32_t l = 0; l < d->n_layer; l++)
        d->layer_kind[l] = (f->window_1 || f->unrotated) && l % 3 == 1;
    for (int32_t i = 0; i < d->rope_dim / 2; i++)
        d->rope_inv_freq_1[i] = f->unrotated ? 0 : powf(100, -2.0f * (float)i / (float)d->rope_dim);
}

static void place_experts(struct tiny_model *t, char **at, struct rnd *r, int32_t l, int type,
                          const struct tiny_features *f)
{
    const struct model_desc *d = &t->d;
    struct layer_weights *w = &t->w.layer[l];
    float in = 1 / sqrtf((float)d->n_embd), mid = 1 / sqrtf((float)d->n_ff_expert);
    w->expert = t->expert + (size_t)l * (size_t)d->n_expert;
    w->gate = w->up = w->down = (struct tensor){0};
    place(at, &w->router, r, DT_F32, d->n_expert, d->n_embd, 0, (f->decided ? 0.1f : 2) * in);
    for (int32_t x = 0; x < d->n_expert; x++) {
        int gate = f->mixed && x % 2 ? DT_Q8_0 : type, up = f->up_f32 && !(f->mixed && x % 3) ? DT_F32 : gate,
            down = f->mixed && x % 4 == 1 ? DT_F16 : type;
        place(at, &w->expert[x].gate, r, gate, d->n_ff_expert, d->n_embd, 0, in);
        place(at, &w->expert[x].up, r, up, d->n_ff_expert, d->n_embd, 0, in);
        place(at, &w->expert[x].down, r, down, d->n_embd, d->n_ff_expert, 0, mid);
    }
}

/* Every token has the experts in an order of its own, which stands out of the first channels of its embedding, one for
 * each expert; routers read it there. */
static void decide_routes(struct tiny_model *t, struct rnd *r)
{
    enum { STEP = 8 }; /* what layers add is about 1 */
    const struct model_desc *d = &t->d;
    int32_t n = d->n_expert;
    float *row = malloc((size_t)d->n_embd * sizeof *row);
    size_t row_bytes = dtype_row_bytes(t->w.tok_embd.type, d->n_embd);
    for (int32_t v = 0; v < d->n_vocab; v++) {
        char *at = (char *)(size_t)t->w.tok_embd.data + row_bytes * (size_t)v;
        dtype_to_f32(t->w.tok_embd.type, at, row, d->n_embd);
        for (int32_t x = 0, other; x < n; x++) { /* a shuffle of -n + 1, -n + 3 .. n - 1 */
            other = rnd_int(r, 0, x);
            row[x] = row[other];
            row[other] = STEP / 2 * (float)(2 * x - n + 1);
        }
        dtype_from_f32(t->w.tok_embd.type, row, at, d->n_embd);
    }
    for (int32_t l = 0; l < d->n_layer; l++)
        for (int32_t x = 0; t->w.layer[l].router.data && x < n; x++)
            ((float *)(size_t)t->w.layer[l].router.data)[x * d->n_embd + x] = 0.3f;
    free(row);
}

void tiny_model_extend(struct tiny_model *t, struct rnd *r, const struct tiny_features *f, int type)
{
    struct model_desc *d = &t->d;
    extend_desc(d, f);
    int32_t n_q = d->n_head * d->head_dim, n_kv = d->n_head_kv * d->head_dim;
    size_t of_experts = (size_t)d->n_expert * (size_t)d->n_embd * (size_t)(3 * d->n_ff_expert + 1);
    size_t elems = (size_t)d->n_layer * (of_experts + (size_t)((d->n_ff + 2) * d->n_embd + n_q + n_kv));
    t->more = malloc(elems * 4 + (size_t)d->n_layer * (size_t)(3 * d->n_expert + 6) * 64 + 64);
    t->expert = calloc((size_t)d->n_layer * (size_t)d->n_expert + 1, sizeof *t->expert);
    char *at = (char *)(((size_t)t->more + 63) & ~(size_t)63);
    for (int32_t l = 0; l < d->n_layer; l++) {
        struct layer_weights *w = &t->w.layer[l];
        if (f->no_pre_norms)
            w->attn_norm = w->ffn_norm = (struct tensor){0};
        if (f->post_norms) {
            place(&at, &w->post_attn_norm, r, DT_F32, 1, d->n_embd, 1, 0.1f);
            place(&at, &w->post_ffn_norm, r, DT_F32, 1, d->n_embd, 1, 0.1f);
        }
        if (f->flags & MODEL_QK_NORM_ALL) {
            place(&at, &w->q_norm, r, DT_F32, 1, n_q, 1, 0.1f);
            place(&at, &w->k_norm, r, DT_F32, 1, n_kv, 1, 0.1f);
        }
        if (f->n_expert && l < d->n_layer - 1)
            place_experts(t, &at, r, l, type, f);
        else if (f->up_f32)
            place(&at, &w->up, r, DT_F32, d->n_ff, d->n_embd, 0, 1 / sqrtf((float)d->n_embd));
    }
    if (f->decided)
        decide_routes(t, r);
}

void tiny_model_free(struct tiny_model *t)
{
    free(t->mem);
    free(t->more);
    free(t->expert);
    free(t->w.layer);
}

struct plan_limits test_limits(int32_t n_vocab)
{
    return (struct plan_limits){.n_span = 64,
                                .n_row = 1100,
                                .n_held = 256,
                                .n_mix = 64,
                                .n_part = 256,
                                .n_kvop = 256,
                                .n_law = 64,
                                .n_law_tok = 1024,
                                .n_ban = 256,
                                .n_mask = 16,
                                .n_readout = 1200,
                                .n_list = 200000,
                                .n_bt = 8192,
                                .n_out_f = 200000,
                                .n_out_i = 200000,
                                .n_vocab = n_vocab};
}

struct law neutral_law(void)
{
    return (struct law){.temperature = 1, .top_p = 1, .typical_p = 1, .top_h_n = 100, .repetition = 1, .noise_key = 1};
}

void rig_open_with(struct rig *g, const struct backend_ops *ops, const struct tiny_model *t, const struct kv_config *kv,
                   struct backend_options opt)
{
    struct err e = {0};
    *g = (struct rig){.ops = ops, .limits = test_limits(t->d.n_vocab)};
    opt.limits = g->limits;
    ck_assert_msg(!ops->open(&opt, &g->b, &e), "%s", e.msg);
    ck_assert_msg(!ops->load(g->b, &t->d, &t->w, NULL, NULL, &g->m, &e), "%s", e.msg);
    ck_assert_msg(!ops->kv_create(g->m, kv, &e), "%s", e.msg);
    ck_assert_msg(!plan_create(&g->plan, &g->limits, &e), "%s", e.msg);
    g->env = (struct plan_env){.n_vocab = t->d.n_vocab,
                               .n_layer = t->d.n_layer,
                               .n_embd = t->d.n_embd,
                               .n_block = kv->n_block,
                               .block_len = kv->block_len,
                               .n_bank = kv->n_bank,
                               .hidden_plane = kv->hidden_plane};
    g->out.f = calloc((size_t)g->limits.n_out_f, sizeof(float));
    g->out.i = calloc((size_t)g->limits.n_out_i, sizeof(int32_t));
}

void rig_open(struct rig *g, const struct backend_ops *ops, const struct tiny_model *t, const struct kv_config *kv,
              int n_thread)
{
    rig_open_with(g, ops, t, kv, (struct backend_options){.n_thread = n_thread});
}

void rig_close(struct rig *g)
{
    g->ops->unload(g->m);
    g->ops->close(g->b);
    plan_free(&g->plan);
    free(g->out.f);
    free(g->out.i);
}

void rig_step(struct rig *g)
{
    struct err e = {0};
    ck_assert_msg(!plan_check(&g->plan, &g->env, &e), "%s", e.msg);
    ck_assert_msg(!g->ops->submit(g->m, &g->plan, &e), "%s", e.msg);
    ck_assert_msg(!g->ops->wait(g->m, &g->out, &e), "%s", e.msg);
}

int rig_chain(struct rig *g, int32_t seq, int32_t ctx_len, const int32_t *tok, int32_t n, const int32_t *bt,
              int32_t n_bt)
{
    struct span s = {.seq = seq,
                     .ctx_len = ctx_len,
                     .n_chain = n,
                     .n_counted = n,
                     .group = -1,
                     .law = g->plan.n.n_law ? g->plan.n.n_law - 1 : -1,
                     .layer1 = (int16_t)g->env.n_layer};
    int at = plan_span(&g->plan, &s);
    ck_assert_int_ge(at, 0);
    for (int32_t i = 0; i < n; i++)
        ck_assert_int_ge(plan_row(&g->plan, tok[i], ctx_len + i, (int16_t)(i - 1), 0), 0);
    ck_assert_int_ge(plan_blocks(&g->plan, bt, n_bt), 0);
    return at;
}

int rig_read_logits(struct rig *g, int32_t row, int32_t n)
{
    int32_t list[PLAN_MAX_LIST];
    for (int32_t i = 0; i < n; i++)
        list[i] = i;
    int at =
        plan_readout(&g->plan, &(struct readout){.kind = READ_LOGPROB, .raw = 1, .row = row, .n = n, .bank = -1}, list);
    ck_assert_int_ge(at, 0);
    return g->plan.readout[at].f0;
}
