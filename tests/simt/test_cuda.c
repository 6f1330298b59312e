/* The cuda back end on the fake runtime: whole plans against ref, and what happens when the device fails. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fake_runtime.h"
#include "mem.h"
#include "../unit/kernels/random_plan.h"
#include "../unit/suite.h"

extern const struct backend_ops backend_ref;

enum { V = 152, BLOCK = 16, N_BLOCK = 40, N_READ = 128, N_SEQ = 3, SEQ_BLOCKS = 8, N_LAYER = 3 };

/* `tolerance`: largest difference of a log-probability from ref's, as a share of the largest one. Activations, q, k, v
 * and attention's results are rounded to bf16 (8 bits of mantissa) a dozen times a layer, which random models of three
 * layers and no redundancy amplify; the worst of thousands of elements stays below 2 %. With a cache in fp8 (3 bits of
 * mantissa, beside ref's Q8_0) below 10 %. */
static const struct config {
    int n_head, n_head_kv, head_dim, n_embd, n_ff, window, kv_type, type;
    uint32_t flags;
    int biases, tied;
    double tolerance;
} configs[] = {
    {4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, 0, 0, 1, 2e-2},
    {3, 1, 80, 104, 136, 9, DT_BF16, DT_F32, MODEL_NEOX_ROPE | MODEL_QK_NORM, 1, 0, 2e-2},
    {2, 2, 64, 256, 1100 / 8 * 8, 0, DT_BF16, DT_F16, MODEL_NEOX_ROPE, 1, 0, 2e-2}, /* weights come in pieces */
    {4, 1, 64, 128, 192, 0, DT_Q8_0, DT_BF16, 0, 0, 1, 1e-1},
    {4, 2, 64, 128, 192, 20, DT_BF16, DT_Q8_0, MODEL_NEOX_ROPE, 1, 1, 2e-2},
    {2, 1, 128, 256, 256, 0, DT_BF16, DT_Q4_K, MODEL_QK_NORM, 0, 1, 2e-2},
};
enum { N_CONFIG = sizeof configs / sizeof *configs };

static struct tiny_model tiny;
static struct rnd rnd;

static void model_make(int i)
{
    const struct config *c = &configs[i];
    tiny_model_make(&tiny, &rnd, N_LAYER, c->n_head, c->n_head_kv, c->head_dim, c->n_embd, c->n_ff, V, c->flags,
                    c->type, c->biases, c->tied);
    tiny.d.sliding_window = c->window;
}

static struct kv_config pool_of(int i)
{
    return (struct kv_config){.block_len = BLOCK,
                              .n_block = N_BLOCK,
                              .k_type = configs[i].kv_type,
                              .v_type = configs[i].kv_type,
                              .hidden_plane = 1,
                              .n_bank = 8};
}

/* The same plans on both: each builder below adds to two rigs what is drawn once. */
struct pair {
    struct rig cuda, ref;
};

static void pair_open(struct pair *g, int i)
{
    struct kv_config kv = pool_of(i);
    fake_runtime_reset();
    model_make(i);
    rig_open(&g->cuda, cuda_backend(&fake_runtime), &tiny, &kv, 0);
    rig_open(&g->ref, &backend_ref, &tiny, &kv, 0);
}

static void pair_close(struct pair *g)
{
    rig_close(&g->cuda);
    rig_close(&g->ref);
    tiny_model_free(&tiny);
    ck_assert_int_eq(fake_runtime_live(), 0);
}

/* ---- Plans ---- */

enum { LAW_WHOLE, LAW_CUT }; /* LAW_CUT: top_p cuts the tail off */

struct seq {
    int32_t bt[SEQ_BLOCKS], ctx_len, law;
};

static void sequences(struct seq *seq)
{
    for (int i = 0; i < N_SEQ; i++) {
        seq[i].ctx_len = 0;
        seq[i].law = i == 1 ? LAW_CUT : LAW_WHOLE;
        for (int b = 0; b < SEQ_BLOCKS; b++)
            seq[i].bt[b] = (i * SEQ_BLOCKS + b) * 37 % (N_BLOCK - 1);
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
        return rnd_int(r, 0, V - 1);
    return MIX_ROW(
        plan_mix(&g->plan, (struct mix_part[]){{rnd_int(r, 0, 70), 0.7f}, {rnd_int(r, 71, V - 1), 0.3f}}, 2, 0));
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
                 (int32_t[]){3, 77, V - 1});
}

static void mask_row(struct rig *g, int32_t row)
{
    uint32_t mask[(V + 31) / 32];
    memset(mask, 0x5b, sizeof mask);
    g->plan.row_mask[row] = plan_mask(&g->plan, mask);
}

static struct span span_of(const struct rig *g, const struct seq *q, int n_chain)
{
    return (struct span){
        .ctx_len = q->ctx_len, .n_chain = n_chain, .group = -1, .law = q->law, .layer1 = (int16_t)g->env.n_layer};
}

static void add_chain(struct rig *g, struct rnd *r, struct seq *q, int n, int attn)
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
    plan_blocks(&g->plan, q->bt, SEQ_BLOCKS);
    q->ctx_len += n;
}

struct tree {
    int32_t tok[PLAN_MAX_TREE];
    int parent[PLAN_MAX_TREE], depth[PLAN_MAX_TREE]; /* tree bits; parent -1: what the tree hangs from */
    uint64_t vis[PLAN_MAX_TREE];
};

static void tree_make(struct tree *t, struct rnd *r, int n)
{
    for (int i = 0; i < n; i++) {
        int up = t->parent[i] = rnd_int(r, i > 6 ? i - 6 : -1, i - 1);
        t->tok[i] = rnd_int(r, 0, V - 1);
        t->depth[i] = up < 0 ? 0 : t->depth[up] + 1;
        t->vis[i] = (up < 0 ? 0 : t->vis[up]) | (uint64_t)1 << i;
    }
}

/* Rows of a tree from bit `held` on; the earlier ones are held. Hangs from a chain of n_chain rows. */
static void add_tree(struct rig *g, struct rnd *r, struct seq *q, const struct tree *t, int n_chain, int held, int n)
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
        int16_t parent = up < 0      ? (int16_t)(n_chain - 1)
                         : up < held ? HELD_PARENT(up)
                                     : (int16_t)(n_chain + up - held);
        int row = plan_row(&g->plan, t->tok[i], q->ctx_len + n_chain + t->depth[i], parent, t->vis[i]);
        if (i % 3 == 0)
            read_row(g, row);
    }
    plan_blocks(&g->plan, q->bt, SEQ_BLOCKS);
}

/* ---- Comparing ---- */

struct worst {
    double by_kind[READ_HIDDEN + 1], top[READ_HIDDEN + 1];
    int n_draw, n_same;
};

/* Where a law cuts the tail off, a token at the edge may fall on either side, and what is left is divided by another sum:
 * only draws are compared then. */
static bool is_cut(const struct step_plan *p, const struct readout *r)
{
    const struct span *s = p->span;
    while (r->row >= s->row0 + s->n_row)
        s++;
    return !r->raw && r->kind != READ_HIDDEN && r->kind != READ_CONTRAST && p->n.n_law && s->law == LAW_CUT;
}

static void compare_readout(const struct pair *g, const struct readout *r, struct worst *w)
{
    const float *a = g->cuda.out.f + r->f0, *b = g->ref.out.f + r->f0;
    int32_t n_f, n_i;
    readout_size(r, &n_f, &n_i);
    if (r->kind == READ_SAMPLE) {
        bool same = g->cuda.out.i[r->i0] == g->ref.out.i[r->i0];
        w->n_draw++;
        w->n_same += same;
        n_f = same ? n_f : 0;
    }
    if (is_cut(&g->cuda.plan, r))
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

static void pair_step(struct pair *g, struct worst *w)
{
    unsigned long before = mem_thread_count();
    long before_device = fake_runtime_allocs();
    rig_step(&g->cuda);
    ck_assert_uint_eq(mem_thread_count(), before);
    ck_assert_int_eq(fake_runtime_allocs(), before_device);
    rig_step(&g->ref);
    for (int i = 0; i < g->cuda.plan.n.n_readout; i++)
        compare_readout(g, &g->cuda.plan.readout[i], w);
}

static void check_worst(const struct worst *w, int config)
{
    static const char *const names[] = {"sample", "topk", "logprob", "probe", "contrast", "hidden"};
    double tolerance = configs[config].tolerance;
    printf("config %d:", config);
    for (int k = 0; k <= READ_HIDDEN; k++)
        printf(" %s %.2e", names[k], w->top[k] > 0 ? w->by_kind[k] / w->top[k] : 0);
    printf("; %d of %d draws the same\n", w->n_same, w->n_draw);
    for (int k = 0; k <= READ_HIDDEN; k++) {
        double top = k == READ_SAMPLE ? w->top[READ_LOGPROB] : k == READ_HIDDEN ? 2 * w->top[k] : w->top[k];
        ck_assert_msg(w->by_kind[k] <= tolerance * top, "%s", names[k]);
    }
    ck_assert_int_ge(w->n_same * 10, w->n_draw * 8);
}

/* Builds the same step on both rigs: `BODY` sees g, r and seq. */
#define ON_BOTH(pair, seqs, BODY)                                                                                      \
    do {                                                                                                               \
        struct seq both_seq[N_SEQ];                                                                                    \
        struct rnd both_rnd = rnd, *r = &rnd;                                                                          \
        memcpy(both_seq, seqs, sizeof both_seq);                                                                       \
        struct rig *g = &(pair)->cuda;                                                                                 \
        struct seq *seq = seqs;                                                                                        \
        BODY;                                                                                                          \
        g = &(pair)->ref;                                                                                              \
        r = &both_rnd;                                                                                                 \
        seq = both_seq;                                                                                                \
        BODY;                                                                                                          \
    } while (0)

/* ---- Against ref ---- */

START_TEST(one_chain_is_near_ref)
{
    rnd = rnd_begin("one_chain_is_near_ref", (uint64_t)_i + 1);
    struct pair g;
    struct worst w = {0};
    pair_open(&g, _i);
    struct rig *const both[] = {&g.cuda, &g.ref};
    for (int i = 0; i < 2; i++) {
        plan_reset(&both[i]->plan);
        rig_chain(both[i], 0, 0, (int32_t[]){3, 7, 150, 4, 9}, 5, (int32_t[]){6, 2}, 2);
        rig_read_logits(both[i], 4, N_READ);
    }
    pair_step(&g, &w);
    check_worst(&w, _i);
    pair_close(&g);
}
END_TEST

static void build_step(struct rig *g, struct rnd *r, struct seq *seq, const struct tree *t, int step)
{
    plan_begin(g);
    if (step == 2) { /* a context's first block moves elsewhere */
        plan_kvop(&g->plan, seq[2].bt[0] * BLOCK, (N_BLOCK - 1) * BLOCK, BLOCK);
        seq[2].bt[0] = N_BLOCK - 1;
    }
    for (int i = 0; i < N_SEQ; i++) {
        if (step == 0)
            add_chain(g, r, &seq[i], 7 + 17 * i, ATTN_CAUSAL);
        else if (i == 0 && step < 3) /* a tree; then it is held, and grows */
            add_tree(g, r, &seq[i], t, 0, step == 1 ? 0 : 20, step == 1 ? 20 : 31);
        else if (i == step % N_SEQ)
            add_tree(g, r, &seq[i], t, 2, 0, 17);
        else
            add_chain(g, r, &seq[i], rnd_int(r, 1, 5), i == 1 ? ATTN_FULL : ATTN_CAUSAL);
    }
}

START_TEST(random_steps_are_near_ref)
{
    rnd = rnd_begin("random_steps_are_near_ref", (uint64_t)_i + 1);
    struct pair p;
    struct worst w = {0};
    struct seq own[N_SEQ];
    struct tree t;
    pair_open(&p, _i);
    sequences(own);
    tree_make(&t, &rnd, 31);
    for (int step = 0; step < 5; step++) {
        ON_BOTH(&p, own, build_step(g, r, seq, &t, step));
        pair_step(&p, &w);
    }
    check_worst(&w, _i);
    pair_close(&p);
}
END_TEST

/* ---- Layer ranges ---- */

/* n rows of layers layer0 .. layer1 - 1. They begin from the bank where layer0 > 0; with bank0 >= 0 they go there. */
static void add_layers(struct rig *g, struct rnd *r, struct seq *q, int n, int layer0, int layer1, int bank0)
{
    struct span s = span_of(g, q, n);
    s.layer0 = (int16_t)layer0;
    s.layer1 = (int16_t)layer1;
    plan_span(&g->plan, &s);
    for (int i = 0; i < n; i++) {
        int32_t tok = layer0 ? MIX_ROW(plan_mix(&g->plan, &(struct mix_part){i, 1}, 1, 1)) : rnd_int(r, 0, V - 1);
        int row = plan_row(&g->plan, tok, q->ctx_len + i, (int16_t)(i - 1), 0);
        if (bank0 >= 0)
            plan_readout(&g->plan,
                         &(struct readout){.kind = READ_HIDDEN, .row = row, .n = g->env.n_embd, .bank = bank0 + i},
                         NULL);
        read_row(g, row);
    }
    plan_blocks(&g->plan, q->bt, SEQ_BLOCKS);
}

static void build_layers(struct rig *g, struct rnd *r, struct seq *seq, int step)
{
    plan_begin(g);
    add_chain(g, r, &seq[0], 3, ATTN_CAUSAL);
    if (step == 0) {
        add_layers(g, r, &seq[1], 4, 0, 1, 0);
        add_chain(g, r, &seq[2], 20, ATTN_CAUSAL);
    } else {
        add_layers(g, r, &seq[1], 4, step, step + 1 == N_LAYER ? N_LAYER : step + 1, step + 1 == N_LAYER ? -1 : 0);
        add_layers(g, r, &seq[2], 2, 0, step, -1);
    }
}

START_TEST(layer_ranges_are_near_ref)
{
    rnd = rnd_begin("layer_ranges_are_near_ref", (uint64_t)_i + 1);
    struct pair p;
    struct worst w = {0};
    struct seq own[N_SEQ];
    pair_open(&p, _i);
    sequences(own);
    for (int step = 0; step < N_LAYER; step++) {
        ON_BOTH(&p, own, build_layers(g, r, seq, step));
        pair_step(&p, &w);
    }
    check_worst(&w, _i);
    pair_close(&p);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("cuda");
    tcase_add_loop_test(tc, one_chain_is_near_ref, 0, N_CONFIG);
    tcase_add_loop_test(tc, random_steps_are_near_ref, 0, N_CONFIG);
    tcase_add_loop_test(tc, layer_ranges_are_near_ref, 0, N_CONFIG);
    return suite_run(tc);
}
