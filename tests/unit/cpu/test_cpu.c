/* The cpu back end against ref, and against itself: other instruction sets, worker counts, row counts and batches must
 * give the same bits. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "random_plan.h"
#include "../suite.h"

extern const struct backend_ops backend_cpu, backend_ref;

enum { V = 150, BLOCK = 16, N_BLOCK = 160, N_READ = 128, N_SEQ = 4, SEQ_BLOCKS = 8 };

static const struct tiny_features several = {
    .window_1 = 4, .post_norms = 1, .residual_scale = 0.7f, .n_expert = 20, .n_expert_used = 4, .n_ff_expert = 256};

/* `tolerance`: largest difference of a log-probability from ref's, as a share of the largest one. Float weights differ
 * by rounding only. Quantised ones are multiplied with activations rounded to 8 bits, an error of about half a percent
 * (root mean square) a product, which random models of three layers and no redundancy amplify; their worst of thousands
 * of elements stays below 5 % (hidden states: 10 %) of the largest. */
static const struct config {
    int n_head, n_head_kv, head_dim, n_embd, n_ff, window, k_type, v_type, type;
    uint32_t flags;
    int biases, tied;
    double tolerance;
    const struct tiny_features *features;
} configs[] = {
    {4, 2, 32, 128, 192, 0, DT_F32, DT_F32, DT_F32, 0, 0, 1, 1e-4},
    {6, 2, 20, 52, 70, 9, DT_F32, DT_F32, DT_F32, MODEL_NEOX_ROPE | MODEL_QK_NORM, 1, 0, 1e-4},
    {2, 2, 96, 100, 60, 0, DT_F32, DT_F32, DT_F16, MODEL_NEOX_ROPE, 0, 1, 1e-4},
    {4, 1, 64, 64, 96, 0, DT_F32, DT_F32, DT_BF16, MODEL_QK_NORM, 0, 0, 1e-4},
    {4, 2, 32, 128, 192, 0, DT_F16, DT_BF16, DT_F32, 0, 0, 1, 2e-2}, /* a K or V may round the other way */
    {4, 2, 32, 128, 192, 0, DT_Q8_0, DT_F16, DT_F32, MODEL_NEOX_ROPE, 0, 1, 2e-2},
    {4, 2, 32, 128, 192, 20, DT_F16, DT_F16, DT_Q8_0, MODEL_NEOX_ROPE, 1, 1, 5e-2},
    {4, 2, 32, 160, 352, 0, DT_F16, DT_F16, DT_Q4_0, 0, 0, 0, 5e-2},
    {4, 2, 64, 256, 512, 0, DT_F16, DT_F16, DT_Q4_K, MODEL_NEOX_ROPE | MODEL_QK_NORM, 0, 1, 5e-2},
    {4, 1, 64, 256, 256, 0, DT_BF16, DT_Q8_0, DT_Q5_K, 0, 1, 1, 5e-2},
    {4, 2, 64, 256, 512, 0, DT_F16, DT_F16, DT_Q6_K, 0, 0, 0, 5e-2},
    {4, 2, 32, 160, 352, 0, DT_F16, DT_F16, DT_MXFP4, 0, 0, 1, 5e-2},
    {4, 2, 32, 128, 192, 0, DT_F32, DT_F32, DT_F32, MODEL_NEOX_ROPE | MODEL_QK_NORM, 0, 1, 1e-4, &tiny_gemma},
    {6, 2, 20, 52, 70, 30, DT_F32, DT_F32, DT_F16, MODEL_NEOX_ROPE, 1, 0, 1e-4, &tiny_gemma},
    {4, 1, 64, 64, 96, 0, DT_F32, DT_F32, DT_BF16, MODEL_NEOX_ROPE, 0, 0, 1e-4, &tiny_olmo},
    {4, 2, 32, 128, 192, 0, DT_F32, DT_F32, DT_F32, 0, 0, 1, 1e-4, &tiny_granite},
    {4, 2, 32, 128, 192, 0, DT_F32, DT_F32, DT_F32, 0, 0, 1, 1e-4, &tiny_mixtral},
    {4, 2, 32, 64, 96, 9, DT_F32, DT_F32, DT_F16, MODEL_NEOX_ROPE, 0, 1, 1e-4, &several},
    {4, 2, 32, 128, 256, 0, DT_F32, DT_F32, DT_FP8, MODEL_NEOX_ROPE, 1, 1, 1e-4},
};
enum { N_CONFIG = sizeof configs / sizeof *configs };

static const char *const isas[] = {"portable", "avx2", "avx512", "avx512vnni", "amx"};
enum { N_ISA = 5 };

static struct tiny_model tiny;
static struct rnd rnd;

static void model_make(int i)
{
    const struct config *c = &configs[i];
    tiny_model_make(&tiny, &rnd, 3, c->n_head, c->n_head_kv, c->head_dim, c->n_embd, c->n_ff, V, c->flags, c->type,
                    c->biases, c->tied);
    tiny.d.sliding_window = c->window;
    if (c->features)
        tiny_model_extend(&tiny, &rnd, c->features, c->type);
}

/* 0: this machine lacks the instruction set. */
static int rig_make(struct rig *g, const struct backend_ops *ops, int i, const char *isa, int n_thread)
{
    struct backend *probe;
    setenv("GALLEY_CPU_ISA", isa ? isa : "", 1);
    if (ops == &backend_cpu && ops->open(&(struct backend_options){.n_thread = 1}, &probe, NULL)) {
        printf("%s: this processor does not have it, skipped\n", isa ? isa : "");
        return 0;
    }
    if (ops == &backend_cpu)
        ops->close(probe);
    struct kv_config kv = {.block_len = BLOCK,
                           .n_block = N_BLOCK,
                           .k_type = configs[i].k_type,
                           .v_type = configs[i].v_type,
                           .hidden_plane = 1,
                           .n_bank = 4};
    rig_open(g, ops, &tiny, &kv, n_thread);
    return 1;
}

/* ---- Random steps: each builds the same plan on any rig when `r` is the same ---- */

struct seq {
    int32_t bt[SEQ_BLOCKS], ctx_len;
};

static void read_row(struct rig *g, int32_t row)
{
    rig_read_logits(g, row, N_READ);
    plan_readout(&g->plan, &(struct readout){.kind = READ_HIDDEN, .row = row, .n = g->env.n_embd, .bank = -1}, NULL);
    plan_readout(&g->plan, &(struct readout){.kind = READ_CONTRAST, .row = row, .bank = -1}, NULL);
    plan_readout(&g->plan, &(struct readout){.kind = READ_SAMPLE, .row = row, .n = 1, .bank = -1}, NULL);
    plan_readout(&g->plan, &(struct readout){.kind = READ_TOPK, .row = row, .n = 7, .bank = -1}, NULL);
    plan_readout(&g->plan, &(struct readout){.kind = READ_PROBE, .raw = row % 2, .row = row, .n = 3, .bank = -1},
                 (int32_t[]){3, 77, V - 1});
}

static void plan_begin(struct rig *g)
{
    plan_reset(&g->plan);
    struct law l = neutral_law();
    l.temperature = 0.8f;
    l.top_p = 0.95f;
    plan_law(&g->plan, &l, NULL, 0, NULL, 0);
}

static int32_t random_token(struct rig *g, struct rnd *r)
{
    if (rnd_int(r, 0, 9))
        return rnd_int(r, 0, V - 1);
    return MIX_ROW(
        plan_mix(&g->plan, (struct mix_part[]){{rnd_int(r, 0, 70), 0.7f}, {rnd_int(r, 71, V - 1), 0.3f}}, 2, 0));
}

static void random_chain(struct rig *g, struct rnd *r, struct seq *q, int n, int full)
{
    struct span s = {.ctx_len = q->ctx_len,
                     .n_chain = n,
                     .group = -1,
                     .layer1 = (int16_t)g->env.n_layer,
                     .attn = full ? ATTN_FULL : ATTN_CAUSAL};
    plan_span(&g->plan, &s);
    for (int i = 0; i < n; i++) {
        int row = plan_row(&g->plan, random_token(g, r), q->ctx_len + i, (int16_t)(i - 1), 0);
        if (n < 20 || rnd_int(r, 0, 9) == 0)
            read_row(g, row);
    }
    plan_blocks(&g->plan, q->bt, SEQ_BLOCKS);
    q->ctx_len += n;
}

/* A chain row and a tree of n below it; nothing is committed. */
static void random_tree(struct rig *g, struct rnd *r, struct seq *q, int n)
{
    uint64_t vis[PLAN_MAX_TREE];
    int depth[PLAN_MAX_TREE];
    plan_span(&g->plan,
              &(struct span){.ctx_len = q->ctx_len, .n_chain = 1, .group = -1, .layer1 = (int16_t)g->env.n_layer});
    plan_row(&g->plan, random_token(g, r), q->ctx_len, PARENT_CTX, 0);
    for (int i = 0; i < n; i++) {
        int up = rnd_int(r, -1, i - 1);
        depth[i] = up < 0 ? 1 : depth[up] + 1;
        vis[i] = (up < 0 ? 0 : vis[up]) | (uint64_t)1 << i;
        int row = plan_row(&g->plan, random_token(g, r), q->ctx_len + depth[i], (int16_t)(up + 1), vis[i]);
        read_row(g, row);
    }
    plan_blocks(&g->plan, q->bt, SEQ_BLOCKS);
}

static void random_step(struct rig *g, struct rnd *r, struct seq *seq, int step)
{
    plan_begin(g);
    if (step == 2) { /* the last context's first block moves elsewhere */
        plan_kvop(&g->plan, seq[3].bt[0] * BLOCK, (N_BLOCK - 1) * BLOCK, BLOCK);
        seq[3].bt[0] = N_BLOCK - 1;
    }
    for (int i = 0; i < N_SEQ; i++) {
        struct seq *q = &seq[i];
        if (step == 0)
            random_chain(g, r, q, rnd_int(r, 1, 50), 0);
        else if (i == step % N_SEQ)
            random_tree(g, r, q, rnd_int(r, 1, 40));
        else
            random_chain(g, r, q, rnd_int(r, 1, 5), rnd_int(r, 0, 2) == 0);
    }
    rig_step(g);
}

static void sequences(struct seq *seq)
{
    for (int i = 0; i < N_SEQ; i++) {
        seq[i].ctx_len = 0;
        for (int b = 0; b < SEQ_BLOCKS; b++)
            seq[i].bt[b] = (i * SEQ_BLOCKS + b) * 37 % (N_BLOCK - 1);
    }
}

static int n_step(void)
{
    return suite_all_or(5, 3);
}

/* ---- Against ref ---- */

static double worst_of(const struct rig *a, const struct rig *b, int kind)
{
    double worst = 0, top = 0;
    for (int i = 0; i < a->plan.n.n_readout; i++) {
        const struct readout *r = &a->plan.readout[i];
        int32_t n_f, n_i;
        readout_size(r, &n_f, &n_i);
        for (int j = r->f0; r->kind == kind && j < r->f0 + n_f; j++) {
            worst = fmax(worst, fabs((double)a->out.f[j] - b->out.f[j]));
            top = fmax(top, fabs(b->out.f[j]));
        }
    }
    return worst / top;
}

START_TEST(cpu_is_near_ref)
{
    int i = _i / suite_all_or(N_ISA, 1); /* sanitizers watch the first alone */
    const char *isa = isas[_i % suite_all_or(N_ISA, 1)];
    rnd = rnd_begin("cpu_is_near_ref", (uint64_t)i + 1);
    model_make(i);
    struct rig ref, cpu;
    if (rig_make(&cpu, &backend_cpu, i, isa, 2)) {
        rig_make(&ref, &backend_ref, i, NULL, 1);
        struct seq a[N_SEQ], b[N_SEQ];
        double logits = 0, hidden = 0, contrast = 0;
        sequences(a), sequences(b);
        for (int step = 0; step < n_step(); step++) {
            struct rnd same = rnd;
            random_step(&ref, &rnd, a, step);
            random_step(&cpu, &same, b, step);
            logits = fmax(logits, worst_of(&cpu, &ref, READ_LOGPROB));
            hidden = fmax(hidden, worst_of(&cpu, &ref, READ_HIDDEN));
            contrast = fmax(contrast, worst_of(&cpu, &ref, READ_CONTRAST));
        }
        printf("config %d %s: logits %.2e, hidden %.2e, contrast %.2e\n", i, isa, logits, hidden, contrast);
        ck_assert_double_lt(logits, configs[i].tolerance);
        ck_assert_double_lt(hidden, 2 * configs[i].tolerance);
        ck_assert_double_lt(contrast, configs[i].tolerance);
        rig_close(&ref);
        rig_close(&cpu);
    }
    tiny_model_free(&tiny);
}
END_TEST

/* ---- Against itself ---- */

START_TEST(instruction_sets_and_workers_give_the_same_bits)
{
    rnd = rnd_begin("instruction_sets_and_workers_give_the_same_bits", (uint64_t)_i + 1);
    model_make(_i);
    struct rig base;
    rig_make(&base, &backend_cpu, _i, "portable", 1);
    static const struct {
        const char *isa;
        int n_thread;
    } others[] = {{"avx2", 2},       {"avx512", 2}, {"avx512vnni", 1}, {"avx512vnni", 2},
                  {"avx512vnni", 3}, {"amx", 1},    {"amx", 2},        {"portable", 3}};
    struct rnd start = rnd;
    for (size_t o = 0; o < sizeof others / sizeof *others; o++) {
        struct rig other;
        struct seq a[N_SEQ], b[N_SEQ];
        if (configs[_i].type == DT_BF16 && !strcmp(others[o].isa, "amx"))
            continue; /* its own sums: product_amx.c */
        if (!rig_make(&other, &backend_cpu, _i, others[o].isa, others[o].n_thread))
            continue;
        sequences(a), sequences(b);
        rnd = start;
        for (int step = 0; step < n_step(); step++) {
            struct rnd same = rnd;
            random_step(&base, &rnd, a, step);
            random_step(&other, &same, b, step);
            for (int f = 0; f < base.plan.n.n_out_f; f++)
                ck_assert_msg(!memcmp(&base.out.f[f], &other.out.f[f], sizeof(float)),
                              "%s with %d workers: step %d, result %d: %a, not %a", others[o].isa, others[o].n_thread,
                              step, f, other.out.f[f], base.out.f[f]);
            ck_assert_mem_eq(base.out.i, other.out.i, sizeof(int32_t) * (size_t)base.plan.n.n_out_i);
        }
        rig_close(&other);
    }
    rig_close(&base);
    tiny_model_free(&tiny);
}
END_TEST

/* A prompt of 520 tokens in steps of n rows: the same logits at every position, whatever n. */
START_TEST(row_counts_give_the_same_bits)
{
    enum { LEN = 520, EVERY = 40 };
    static const int counts[] = {512, 1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 511, 513};
    int i = (int[]){0, 3, 6, 8, 10, 12, 17}[_i];
    rnd = rnd_begin("row_counts_give_the_same_bits", (uint64_t)i + 1);
    model_make(i);
    struct rig g;
    rig_make(&g, &backend_cpu, i, NULL, 2);
    int32_t tok[LEN], bt[LEN / BLOCK + 1];
    static float first[LEN / EVERY][N_READ];
    for (int t = 0; t < LEN; t++)
        tok[t] = rnd_int(&rnd, 0, V - 1);
    for (int b = 0; b <= LEN / BLOCK; b++)
        bt[b] = N_BLOCK - 1 - b;
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (int done = 0; done < LEN; done += counts[c]) {
            int n = LEN - done < counts[c] ? LEN - done : counts[c], f[LEN / EVERY] = {0};
            plan_reset(&g.plan);
            rig_chain(&g, 0, done, tok + done, n, bt, LEN / BLOCK + 1);
            for (int t = 0; t < LEN / EVERY; t++)
                if (t * EVERY >= done && t * EVERY < done + n)
                    f[t] = 1 + rig_read_logits(&g, t * EVERY - done, N_READ);
            rig_step(&g);
            for (int t = 0; t < LEN / EVERY; t++)
                if (f[t] && c == 0)
                    memcpy(first[t], g.out.f + f[t] - 1, sizeof first[t]);
                else if (f[t])
                    ck_assert_msg(!memcmp(first[t], g.out.f + f[t] - 1, sizeof first[t]), "position %d in steps of %d",
                                  t * EVERY, counts[c]);
        }
    rig_close(&g);
    tiny_model_free(&tiny);
}
END_TEST

/* Many decoding requests at once, each with its own context, equal each alone. */
START_TEST(a_large_batch_gives_the_same_bits)
{
    enum { N = 33, LEN = 20 };
    int i = (int[]){0, 6, 7, 13, 16, 17}[_i];
    rnd = rnd_begin("a_large_batch_gives_the_same_bits", (uint64_t)i + 1);
    model_make(i);
    struct rig g;
    rig_make(&g, &backend_cpu, i, NULL, 3);
    int32_t tok[N][LEN];
    int len[N], f[N];
    static float alone[N][N_READ];
    for (int s = 0; s < N; s++) {
        int32_t bt[] = {2 * s, 2 * s + 1};
        len[s] = rnd_int(&rnd, 2, LEN);
        for (int t = 0; t < len[s]; t++)
            tok[s][t] = rnd_int(&rnd, 0, V - 1);
        plan_reset(&g.plan);
        rig_chain(&g, s, 0, tok[s], len[s], bt, 2);
        int at = rig_read_logits(&g, len[s] - 1, N_READ);
        rig_step(&g);
        memcpy(alone[s], g.out.f + at, sizeof alone[s]);
    }
    plan_reset(&g.plan); /* the contexts stand; the last tokens are decoded again, together */
    for (int s = 0; s < N; s++) {
        int32_t bt[] = {2 * s, 2 * s + 1};
        rig_chain(&g, s, len[s] - 1, tok[s] + len[s] - 1, 1, bt, 2);
        f[s] = rig_read_logits(&g, s, N_READ);
    }
    rig_step(&g);
    for (int s = 0; s < N; s++)
        ck_assert_mem_eq(alone[s], g.out.f + f[s], sizeof alone[s]);
    rig_close(&g);
    tiny_model_free(&tiny);
}
END_TEST

/* ---- The contract's edges ---- */

static int stop_at_half(void *arg, size_t done, size_t total)
{
    size_t *calls = arg;
    ck_assert_uint_le(done, total);
    ++*calls;
    return done * 2 > total;
}

START_TEST(loading_reports_and_can_be_stopped)
{
    rnd = rnd_begin("loading_reports_and_can_be_stopped", 1);
    model_make(6);
    struct err e = {0};
    struct backend *b;
    struct bmodel *m;
    size_t calls = 0;
    struct backend_options opt = {.n_thread = 2, .limits = test_limits(V)};
    ck_assert_int_eq(backend_cpu.open(&opt, &b, &e), 0);
    ck_assert_int_eq(backend_cpu.load(b, &tiny.d, &tiny.w, stop_at_half, &calls, &m, &e), -ERR_CANCELED);
    ck_assert_ptr_null(m);
    ck_assert_uint_gt(calls, 3);
    ck_assert_int_eq(backend_cpu.load(b, &tiny.d, &tiny.w, NULL, NULL, &m, &e), 0);
    struct kv_config kv = {.block_len = 16, .n_block = 8, .k_type = DT_Q4_0, .v_type = DT_F16};
    ck_assert_int_eq(backend_cpu.kv_create(m, &kv, &e), -ERR_INVALID);
    kv.k_type = DT_F16;
    ck_assert_int_eq(backend_cpu.kv_create(m, &kv, &e), 0);
    struct backend_stats s;
    backend_cpu.stats(m, &s);
    ck_assert_int_eq(s.n_thread, 2);
    ck_assert_uint_eq(s.kv_bytes + s.scratch_bytes, backend_cpu.kv_bytes(m, &kv));
    ck_assert_ptr_nonnull(strstr(s.device, "cpu "));
    ck_assert_ptr_nonnull(strstr(s.device, ", 2 threads"));
    backend_cpu.unload(m);
    backend_cpu.unload(NULL);
    backend_cpu.close(b);
    backend_cpu.close(NULL);
    tiny_model_free(&tiny);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("cpu");
    tcase_add_loop_test(tc, cpu_is_near_ref, 0, N_CONFIG * suite_all_or(N_ISA, 1));
    tcase_add_loop_test(tc, instruction_sets_and_workers_give_the_same_bits, 0, N_CONFIG);
    tcase_add_loop_test(tc, row_counts_give_the_same_bits, 0, 7);
    tcase_add_loop_test(tc, a_large_batch_gives_the_same_bits, 0, 6);
    tcase_add_test(tc, loading_reports_and_can_be_stopped);
    return suite_run(tc);
}
