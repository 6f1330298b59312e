/* The batch-invariant mode (backend_options.deterministic) on the fake runtime: what a row gives has the same bits
 * whether its sequence is alone or among others, its prompt comes whole or in chunks, and whether a token is decoded or
 * is part of a tree, on one device and on four. As the cpu's tests hold of the cpu
 * (tests/unit/kernels/test_backends.c). */
#include <check.h>
#include <stdbool.h>
#include <string.h>

#include "../unit/suite.h"
#include "cuda_case.h"
#include "fake_comm.h"
#include "fake_runtime.h"

enum { V = CASE_VOCAB, N_TOK = 61, N_LATE = 9, N_BRANCH = 4, N_READ = 64, SEQ_BLOCKS = 6, N_BLOCK = 96, OTHERS = 5 };

static const struct tiny_features many_experts = {
    .post_norms = 1, .residual_scale = 0.7f, .n_expert = 21, .n_expert_used = 4, .n_ff_expert = 64, .up_f32 = 1};
static const struct tiny_features mixed_experts = {
    .flags = MODEL_EXPERT_SUM_1, .n_expert = 9, .n_expert_used = 3, .n_ff_expert = 64, .mixed = 1};

/* n_rank 4: sums over ranks have an order of their own then. */
static const struct {
    int n_head, n_head_kv, head_dim, n_embd, n_ff, window, kv_type, type, n_rank;
    uint32_t flags;
    const struct tiny_features *features; /* NULL: none */
} cases[] = {
    {4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, 1, MODEL_NEOX_ROPE},
    {6, 2, 64, 128, 192, 24, DT_BF16, DT_Q8_0, 1, 0},
    {4, 1, 80, 104, 136, 0, DT_Q8_0, DT_F16, 1, MODEL_QK_NORM},
    {4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, 1, MODEL_NEOX_ROPE, &tiny_gemma},
    {4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, 1, MODEL_NEOX_ROPE, &tiny_mixtral},
    {4, 1, 64, 128, 192, 0, DT_BF16, DT_Q8_0, 1, MODEL_QK_NORM, &many_experts},
    {4, 1, 64, 128, 192, 0, DT_BF16, DT_BF16, 1, 0, &mixed_experts},
    {4, 4, 64, 128, 256, 0, DT_BF16, DT_BF16, 4, 0, &tiny_mixtral},
    {4, 2, 64, 128, 256, 0, DT_BF16, DT_BF16, 4, MODEL_NEOX_ROPE, &tiny_olmo},
    {4, 4, 64, 128, 256, 0, DT_BF16, DT_BF16, 4, 0},
};
enum { N_CASE = sizeof cases / sizeof *cases, SEVERAL_GPUS = N_CASE - 1 };

static struct rnd rnd;
static struct tiny_model tiny;
static int32_t text[N_TOK];

/* Log-probabilities of the tokens after each of the last N_LATE tokens. */
struct answer {
    float f[N_LATE][N_READ];
};

/* ---- Building ---- */

/* Blocks of sequence s, in no order. */
static void add_blocks(struct rig *g, int s)
{
    int32_t bt[SEQ_BLOCKS];
    for (int b = 0; b < SEQ_BLOCKS; b++)
        bt[b] = (s * SEQ_BLOCKS + b) * 37 % N_BLOCK;
    ck_assert_int_ge(plan_blocks(&g->plan, bt, SEQ_BLOCKS), 0);
}

/* Somebody else's rows: a prompt, a decoding, a tree. */
static void add_other(struct rig *g, int s)
{
    int n = s % 3 == 0 ? 20 : 1 + s % 5;
    plan_span(&g->plan, &(struct span){.ctx_len = 0, .n_chain = n, .group = -1, .law = -1, .layer1 = CASE_LAYERS});
    for (int i = 0; i < n; i++)
        plan_row(&g->plan, rnd_int(&rnd, 0, V - 1), i, (int16_t)(i - 1), 0);
    if (s % 2)
        plan_row(&g->plan, rnd_int(&rnd, 0, V - 1), n, (int16_t)(n - 1), 1);
    rig_read_logits(g, g->plan.n.n_row - 1, 3);
    add_blocks(g, s);
}

/* Tokens from .. to - 1 of the text, as a chain of sequence 0. */
static void add_text(struct rig *g, int from, int to, int32_t *f0)
{
    plan_span(&g->plan,
              &(struct span){.ctx_len = from, .n_chain = to - from, .group = -1, .law = -1, .layer1 = CASE_LAYERS});
    for (int i = from; i < to; i++) {
        int row = plan_row(&g->plan, text[i], i, (int16_t)(i - from - 1), 0);
        f0[i] = i >= N_TOK - N_LATE ? rig_read_logits(g, row, N_READ) : -1;
    }
    add_blocks(g, 0);
}

/* Runs the plan, and takes what it says of the text. */
static void run(struct rig *g, const int32_t *f0, int from, int to, struct answer *out)
{
    rig_step(g);
    for (int i = from; i < to; i++)
        if (i >= N_TOK - N_LATE)
            memcpy(out->f[i - (N_TOK - N_LATE)], g->out.f + f0[i], sizeof out->f[0]);
}

/* The text's first tokens, then the others in chunks of 1 to `most`, with `n_other` other sequences in every step. */
static void read_text(struct rig *g, int first, int most, int n_other, struct answer *out)
{
    int32_t f0[N_TOK];
    for (int at = 0, to; at < N_TOK; at = to) {
        to = at ? at + rnd_int(&rnd, 1, most) : first;
        to = to > N_TOK ? N_TOK : to;
        plan_reset(&g->plan);
        int before = n_other ? rnd_int(&rnd, 0, n_other) : 0;
        for (int s = 1; s <= before; s++)
            add_other(g, s);
        add_text(g, at, to, f0);
        for (int s = before + 1; s <= n_other; s++)
            add_other(g, s);
        run(g, f0, at, to, out);
    }
}

/* The last N_LATE tokens as a path of a tree with other branches between, the rest as context. */
static void read_tree(struct rig *g, struct answer *out)
{
    struct answer ignored;
    int32_t f0[N_TOK], ctx = N_TOK - N_LATE;
    uint64_t path = 0;
    plan_reset(&g->plan);
    add_text(g, 0, ctx, f0);
    run(g, f0, 0, ctx, &ignored);
    plan_reset(&g->plan);
    for (int s = 1; s <= 3; s++)
        add_other(g, s);
    plan_span(&g->plan, &(struct span){.ctx_len = ctx, .group = -1, .law = -1, .layer1 = CASE_LAYERS});
    int16_t parent = PARENT_CTX;
    for (int i = ctx, bit = 0; i < N_TOK; i++) {
        for (int b = 0; b < (i - ctx < 10 ? rnd_int(&rnd, 0, N_BRANCH) : 0); b++, bit++)
            plan_row(&g->plan, rnd_int(&rnd, 0, V - 1), i, parent, path | (uint64_t)1 << bit);
        path |= (uint64_t)1 << bit;
        f0[i] = rig_read_logits(g, plan_row(&g->plan, text[i], i, parent, path), N_READ);
        parent = (int16_t)bit++;
    }
    add_blocks(g, 0);
    run(g, f0, ctx, N_TOK, out);
}

/* ---- The property ---- */

static bool same(const struct answer *a, const struct answer *b)
{
    return !memcmp(a, b, sizeof *a);
}

static void begin(struct rig *g, int i, bool deterministic, struct answer *alone)
{
    fake_runtime_reset();
    fake_comm_reset();
    fake_faults.n_device = 4;
    tiny_model_make(&tiny, &rnd, CASE_LAYERS, cases[i].n_head, cases[i].n_head_kv, cases[i].head_dim, cases[i].n_embd,
                    cases[i].n_ff, V, cases[i].flags, cases[i].type, 0, 0);
    tiny.d.sliding_window = cases[i].window;
    if (cases[i].features)
        tiny_model_extend(&tiny, &rnd, cases[i].features, cases[i].type);
    for (int t = 0; t < N_TOK; t++)
        text[t] = rnd_int(&rnd, 0, V - 1);
    struct kv_config kv = {
        .block_len = CASE_BLOCK, .n_block = N_BLOCK, .k_type = cases[i].kv_type, .v_type = cases[i].kv_type};
    rig_open_with(g, cuda_backend(&fake_runtime, &fake_comm, NULL), &tiny, &kv,
                  (struct backend_options){.tensor_parallel = cases[i].n_rank, .deterministic = deterministic});
    read_text(g, N_TOK, 1, 0, alone);
}

static void end(struct rig *g)
{
    rig_close(g);
    tiny_model_free(&tiny);
    ck_assert_int_eq(fake_runtime_live(), 0);
}

START_TEST(a_row_has_the_same_bits_in_any_batch)
{
    rnd = rnd_begin("a_row_has_the_same_bits_in_any_batch", (uint64_t)_i + 1);
    struct rig g;
    struct answer alone, other;
    begin(&g, _i, true, &alone);
    read_text(&g, N_TOK - N_LATE - 3, 1, 0, &other);
    ck_assert_msg(same(&alone, &other), "token by token");
    read_text(&g, 17, 30, 0, &other);
    ck_assert_msg(same(&alone, &other), "in chunks");
    read_text(&g, 5, 30, OTHERS, &other);
    ck_assert_msg(same(&alone, &other), "in chunks, among others");
    read_tree(&g, &other);
    ck_assert_msg(same(&alone, &other), "in a tree");
    end(&g);
}
END_TEST

/* What the mode is for, or the test above could not fail: a tree's rows on one device, any batch on several. */
START_TEST(without_the_mode_it_has_not)
{
    rnd = rnd_begin("without_the_mode_it_has_not", 1);
    struct rig g;
    struct answer alone, other;
    begin(&g, 0, false, &alone);
    read_tree(&g, &other);
    ck_assert(!same(&alone, &other));
    end(&g);
    begin(&g, SEVERAL_GPUS, false, &alone);
    read_text(&g, 5, 30, 0, &other);
    ck_assert(!same(&alone, &other));
    end(&g);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("batch");
    tcase_add_loop_test(tc, a_row_has_the_same_bits_in_any_batch, 0, N_CASE);
    tcase_add_test(tc, without_the_mode_it_has_not);
    return suite_run(tc);
}
