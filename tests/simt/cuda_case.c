#include "cuda_case.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fake_runtime.h"
#include "mem.h"

enum { N_READ = 128 };

const struct tiny_features
    case_mixtral = {.flags = MODEL_EXPERT_SUM_1, .n_expert = 5, .n_expert_used = 2, .n_ff_expert = 64, .decided = 1},
    case_qwen = {.flags = MODEL_GELU,
                 .post_norms = 1,
                 .residual_scale = 0.6f,
                 .n_expert = 7,
                 .n_expert_used = 3,
                 .n_ff_expert = 96,
                 .up_f32 = 1,
                 .decided = 1},
    case_mixed =
        {.flags = MODEL_EXPERT_SUM_1, .n_expert = 6, .n_expert_used = 3, .n_ff_expert = 128, .mixed = 1, .decided = 1},
    case_mixed_up = {.n_expert = 7, .n_expert_used = 3, .n_ff_expert = 128, .up_f32 = 1, .mixed = 1, .decided = 1};

void pair_open(struct pair *g, const struct case_config *c, struct rnd *rnd, const struct backend_ops *got,
               struct backend_options got_opt, const struct backend_ops *want)
{
    struct kv_config kv = {.block_len = CASE_BLOCK,
                           .n_block = CASE_BLOCKS,
                           .k_type = c->kv_type,
                           .v_type = c->kv_type,
                           .hidden_plane = 1,
                           .n_bank = 8};
    tiny_model_make(&g->tiny, rnd, CASE_LAYERS, c->n_head, c->n_head_kv, c->head_dim, c->n_embd, c->n_ff, CASE_VOCAB,
                    c->flags, c->type, c->biases, c->tied);
    g->tiny.d.sliding_window = c->window;
    if (c->features)
        tiny_model_extend(&g->tiny, rnd, c->features, c->type);
    rig_open_with(&g->got, got, &g->tiny, &kv, got_opt);
    rig_open(&g->want, want, &g->tiny, &kv, 0);
}

void pair_close(struct pair *g)
{
    rig_close(&g->got);
    rig_close(&g->want);
    tiny_model_free(&g->tiny);
    ck_assert_int_eq(fake_runtime_live(), 0);
}

/* ---- Plans ---- */

enum { LAW_WHOLE, LAW_CUT }; /* LAW_CUT: top_p cuts the tail off */

void case_seqs(struct case_seq *seq)
{
    for (int i = 0; i < CASE_SEQS; i++) {
        seq[i].ctx_len = 0;
        seq[i].law = i == 1 ? LAW_CUT : LAW_WHOLE;
        for (int b = 0; b < CASE_SEQ_BLOCKS; b++)
            seq[i].bt[b] = (i * CASE_SEQ_BLOCKS + b) * 37 % (CASE_BLOCKS - 1);
    }
}

static void plan_begin(struct rig *g)
{
    plan_reset(&g->plan);
    struct law l = neutral_law();
    l.temperature = 8; /* random models are sure of themselves */
    l.repetition = 1.2f;
    plan_law(&g->plan, &l, (struct law_tok[]){{5, 1, 0, 0.5f}, {9, 0, 2, -1}}, 2, (int32_t[]){11, 40}, 2);
    l.top_p = 0.95f;
    plan_law(&g->plan, &l, (struct law_tok[]){{5, 1, 0, 0.5f}, {9, 0, 2, -1}}, 2, (int32_t[]){11, 40}, 2);
}

static int32_t random_token(struct rig *g, struct rnd *r)
{
    if (rnd_int(r, 0, 9))
        return rnd_int(r, 0, CASE_VOCAB - 1);
    return MIX_ROW(plan_mix(
        &g->plan, (struct mix_part[]){{rnd_int(r, 0, 70), 0.7f}, {rnd_int(r, 71, CASE_VOCAB - 1), 0.3f}}, 2, 0));
}

static void read_row(struct rig *g, int32_t row)
{
    struct step_plan *p = &g->plan;
    rig_read_logits(g, row, N_READ);
    plan_readout(p, &(struct readout){.kind = READ_HIDDEN, .row = row, .n = g->env.n_embd, .bank = -1}, NULL);
    plan_readout(p, &(struct readout){.kind = READ_CONTRAST, .row = row, .bank = -1}, NULL);
    plan_readout(p, &(struct readout){.kind = READ_SAMPLE, .row = row, .n = 1, .bank = -1}, NULL);
    plan_readout(p, &(struct readout){.kind = READ_TOPK, .raw = 1, .row = row, .n = 7, .bank = -1}, NULL);
    plan_readout(p, &(struct readout){.kind = READ_PROBE, .raw = row % 2, .row = row, .n = 3, .bank = -1},
                 (int32_t[]){3, 77, CASE_VOCAB - 1});
}

static void mask_row(struct rig *g, int32_t row)
{
    uint32_t mask[(CASE_VOCAB + 31) / 32];
    memset(mask, 0x5b, sizeof mask);
    g->plan.row_mask[row] = plan_mask(&g->plan, mask);
}

static struct span span_of(const struct rig *g, const struct case_seq *q, int n_chain)
{
    return (struct span){
        .ctx_len = q->ctx_len, .n_chain = n_chain, .group = -1, .law = q->law, .layer1 = (int16_t)g->env.n_layer};
}

static void add_chain(struct rig *g, struct rnd *r, struct case_seq *q, int n, int attn)
{
    struct span s = span_of(g, q, n);
    s.attn = (uint8_t)attn;
    plan_span(&g->plan, &s);
    for (int i = 0; i < n; i++) {
        int row = plan_row(&g->plan, random_token(g, r), q->ctx_len + i, (int16_t)(i - 1), 0);
        if (n < 9 || i == n - 1)
            read_row(g, row);
        if (row % 5 == 0)
            mask_row(g, row);
    }
    plan_blocks(&g->plan, q->bt, CASE_SEQ_BLOCKS);
    q->ctx_len += n;
}

void case_tree_make(struct case_tree *t, struct rnd *r, int n)
{
    for (int i = 0; i < n; i++) {
        int up = t->parent[i] = rnd_int(r, i > 6 ? i - 6 : -1, i - 1);
        t->tok[i] = rnd_int(r, 0, CASE_VOCAB - 1);
        t->depth[i] = up < 0 ? 0 : t->depth[up] + 1;
        t->vis[i] = (up < 0 ? 0 : t->vis[up]) | (uint64_t)1 << i;
    }
}

/* Rows of a tree from bit `held` on; the earlier ones are held. Hangs from a chain of n_chain rows. */
static void add_tree(struct rig *g, struct rnd *r, struct case_seq *q, const struct case_tree *t, int n_chain, int held,
                     int n)
{
    struct span s = span_of(g, q, n_chain);
    s.n_held = held;
    plan_span(&g->plan, &s);
    for (int i = 0; i < held; i++)
        plan_held(&g->plan, t->tok[i], t->parent[i] < 0 ? PARENT_CTX : HELD_PARENT(t->parent[i]));
    for (int i = 0; i < n_chain; i++)
        plan_row(&g->plan, random_token(g, r), q->ctx_len + i, (int16_t)(i - 1), 0);
    for (int i = held; i < n; i++) {
        int up = t->parent[i];
        int16_t parent = up < 0 ? (int16_t)(n_chain - 1) : up < held ? HELD_PARENT(up) : (int16_t)(n_chain + up - held);
        int row = plan_row(&g->plan, t->tok[i], q->ctx_len + n_chain + t->depth[i], parent, t->vis[i]);
        if (i % 3 == 0)
            read_row(g, row);
    }
    plan_blocks(&g->plan, q->bt, CASE_SEQ_BLOCKS);
}

/* ---- Comparing ---- */

/* Where a law cuts the tail off, a token at the edge may fall on either side, and what is left is divided by another
 * sum: only draws are compared then. */
static bool is_cut(const struct step_plan *p, const struct readout *r)
{
    const struct span *s = p->span;
    while (r->row >= s->row0 + s->n_row)
        s++;
    return !r->raw && r->kind != READ_HIDDEN && r->kind != READ_CONTRAST && p->n.n_law && s->law == LAW_CUT;
}

static void compare_readout(const struct pair *g, const struct readout *r, struct worst *w)
{
    const float *a = g->got.out.f + r->f0, *b = g->want.out.f + r->f0;
    int32_t n_f, n_i;
    readout_size(r, &n_f, &n_i);
    if (r->kind == READ_SAMPLE) {
        bool same = g->got.out.i[r->i0] == g->want.out.i[r->i0];
        w->n_draw++;
        w->n_same += same;
        n_f = same ? n_f : 0;
    }
    if (is_cut(&g->got.plan, r))
        n_f = 0;
    if (r->kind == READ_PROBE)
        n_f = r->n + 1; /* the rest is of draws */
    for (int j = 0; j < n_f; j++) {
        if (isinf(a[j]) && isinf(b[j]))
            continue;
        ck_assert_msg(isfinite(a[j]), "readout of kind %d: %g, not %g", r->kind, a[j], b[j]);
        w->by_kind[r->kind] = fmax(w->by_kind[r->kind], fabs((double)a[j] - b[j]));
        w->top[r->kind] = fmax(w->top[r->kind], fabs(b[j]));
    }
}

void pair_step(struct pair *g, struct worst *w)
{
    unsigned long before = mem_thread_count();
    long before_device = fake_runtime_allocs();
    rig_step(&g->got);
    ck_assert_uint_eq(mem_thread_count(), before);
    ck_assert_int_eq(fake_runtime_allocs(), before_device);
    rig_step(&g->want);
    for (int i = 0; i < g->got.plan.n.n_readout; i++)
        compare_readout(g, &g->got.plan.readout[i], w);
}

void check_worst(const struct worst *w, const struct case_config *c)
{
    static const char *const names[] = {"sample", "topk", "logprob", "probe", "contrast", "hidden"};
    double tolerance = c->tolerance;
    printf("%d heads, %d of KV, of %d:", c->n_head, c->n_head_kv, c->head_dim);
    for (int k = 0; k <= READ_HIDDEN; k++)
        printf(" %s %.2e", names[k], w->top[k] > 0 ? w->by_kind[k] / w->top[k] : 0);
    printf("; %d of %d draws the same\n", w->n_same, w->n_draw);
    for (int k = 0; k <= READ_HIDDEN; k++) {
        double top = k == READ_SAMPLE ? w->top[READ_LOGPROB] : k == READ_HIDDEN ? 2 * w->top[k] : w->top[k];
        ck_assert_msg(w->by_kind[k] <= tolerance * top, "%s", names[k]);
    }
    ck_assert_int_ge(w->n_same * 10, w->n_draw * 8);
}

/* What else cuts a tail off, in turns. */
static void cut_otherwise(struct law *l, int step)
{
    if (step == 0)
        return;
    l->top_p = 1;
    l->top_k = step == 1 ? 20 : 0;
    l->min_p = step == 2 ? 0.1f : 0;
    l->typical_p = step == 3 ? 0.8f : 1;
    l->top_h = step == 4 ? 0.6f : 0;
}

void case_step(struct rig *g, struct rnd *r, struct case_seq *seq, const struct case_tree *t, int step)
{
    plan_begin(g);
    cut_otherwise(&g->plan.law[LAW_CUT], step);
    if (step == 2) { /* a context's first block moves elsewhere */
        plan_kvop(&g->plan, seq[2].bt[0] * CASE_BLOCK, (CASE_BLOCKS - 1) * CASE_BLOCK, CASE_BLOCK);
        seq[2].bt[0] = CASE_BLOCKS - 1;
    }
    for (int i = 0; i < CASE_SEQS; i++) {
        if (step == 0)
            add_chain(g, r, &seq[i], 7 + 17 * i, ATTN_CAUSAL);
        else if (i == 0 && step < 3) /* a tree; then it is held, and grows */
            add_tree(g, r, &seq[i], t, 0, step == 1 ? 0 : 20, step == 1 ? 20 : 31);
        else if (i == step % CASE_SEQS)
            add_tree(g, r, &seq[i], t, 2, 0, 17);
        else
            add_chain(g, r, &seq[i], rnd_int(r, 1, 5), i == 1 ? ATTN_FULL : ATTN_CAUSAL);
    }
}

/* ---- Layer ranges ---- */

/* n rows of layers layer0 .. layer1 - 1. They begin from the bank where layer0 > 0; with bank0 >= 0 they go there. */
static void add_layers(struct rig *g, struct rnd *r, struct case_seq *q, int n, int layer0, int layer1, int bank0)
{
    struct span s = span_of(g, q, n);
    s.layer0 = (int16_t)layer0;
    s.layer1 = (int16_t)layer1;
    plan_span(&g->plan, &s);
    for (int i = 0; i < n; i++) {
        int32_t tok =
            layer0 ? MIX_ROW(plan_mix(&g->plan, &(struct mix_part){i, 1}, 1, 1)) : rnd_int(r, 0, CASE_VOCAB - 1);
        int row = plan_row(&g->plan, tok, q->ctx_len + i, (int16_t)(i - 1), 0);
        if (bank0 >= 0)
            plan_readout(&g->plan,
                         &(struct readout){.kind = READ_HIDDEN, .row = row, .n = g->env.n_embd, .bank = bank0 + i},
                         NULL);
        read_row(g, row);
    }
    plan_blocks(&g->plan, q->bt, CASE_SEQ_BLOCKS);
}

void case_layers(struct rig *g, struct rnd *r, struct case_seq *seq, int step)
{
    plan_begin(g);
    add_chain(g, r, &seq[0], 3, ATTN_CAUSAL);
    if (step == 0) {
        add_layers(g, r, &seq[1], 4, 0, 1, 0);
        add_chain(g, r, &seq[2], 20, ATTN_CAUSAL);
    } else {
        add_layers(g, r, &seq[1], 4, step, step + 1 == CASE_LAYERS ? CASE_LAYERS : step + 1,
                   step + 1 == CASE_LAYERS ? -1 : 0);
        add_layers(g, r, &seq[2], 2, 0, step, -1);
    }
}
