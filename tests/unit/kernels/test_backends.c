/* What every back end that claims exactness must show, on random models: the same bits alone, chunked, in a batch, in a
 * tree, after moves and forks. `fake` is held to the same, so that engine tests may trust it. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"
#include "random_plan.h"
#include "../suite.h"

extern const struct backend_ops backend_cpu, backend_ref;

static const struct tiny_features many_experts = {
    .window_1 = 4, .post_norms = 1, .residual_scale = 0.7f, .n_expert = 9, .n_expert_used = 3, .n_ff_expert = 256};

struct config {
    const struct backend_ops *ops;
    int n_head, n_head_kv, head_dim, n_embd, n_ff, window, kv_type, type;
    uint32_t flags;
    int biases, tied;
    const struct tiny_features *features;
};

static const struct config configs[] = {
    {&backend_ref, 2, 1, 32, 64, 96, 0, DT_F32, DT_F32, 0, 0, 1},
    {&backend_ref, 2, 2, 32, 64, 96, 5, DT_F16, DT_Q8_0, MODEL_NEOX_ROPE | MODEL_QK_NORM, 0, 0},
    {&backend_ref, 4, 2, 32, 64, 96, 0, DT_Q8_0, DT_BF16, MODEL_NEOX_ROPE, 1, 1},
    {&backend_ref, 2, 1, 32, 64, 96, 0, DT_BF16, DT_F32, 0, 0, 0},
    {&backend_ref, 4, 2, 32, 64, 96, 0, DT_F32, DT_F32, MODEL_NEOX_ROPE | MODEL_QK_NORM, 0, 1, &tiny_gemma},
    {&backend_ref, 2, 1, 32, 64, 96, 0, DT_F16, DT_Q8_0, MODEL_NEOX_ROPE, 0, 0, &tiny_olmo},
    {&backend_ref, 2, 1, 32, 64, 96, 0, DT_F32, DT_F32, 0, 0, 1, &tiny_mixtral},
    {&backend_fake, 1, 1, 32, 64, 96, 0, DT_F32, DT_F32, 0, 0, 1},
    /* cpu: every weight type, every KV type, odd head sizes and widths, one and several heads a group */
    {&backend_cpu, 2, 1, 32, 64, 96, 0, DT_F32, DT_F32, 0, 0, 1},
    {&backend_cpu, 2, 2, 32, 64, 96, 5, DT_F16, DT_Q8_0, MODEL_NEOX_ROPE | MODEL_QK_NORM, 0, 0},
    {&backend_cpu, 4, 2, 32, 64, 96, 0, DT_Q8_0, DT_BF16, MODEL_NEOX_ROPE, 1, 1},
    {&backend_cpu, 2, 1, 32, 64, 96, 0, DT_BF16, DT_F16, 0, 0, 0},
    {&backend_cpu, 5, 1, 64, 96, 160, 7, DT_F16, DT_Q4_0, 0, 1, 1},
    {&backend_cpu, 3, 3, 20, 52, 70, 0, DT_F16, DT_BF16, MODEL_NEOX_ROPE, 1, 0},
    {&backend_cpu, 6, 2, 128, 256, 512, 0, DT_BF16, DT_Q4_K, MODEL_NEOX_ROPE | MODEL_QK_NORM, 0, 1},
    {&backend_cpu, 4, 1, 64, 256, 256, 0, DT_Q8_0, DT_Q5_K, 0, 1, 0},
    {&backend_cpu, 8, 4, 32, 256, 256, 9, DT_F32, DT_Q6_K, MODEL_NEOX_ROPE, 0, 1},
    /* families */
    {&backend_cpu, 4, 2, 32, 64, 96, 0, DT_F32, DT_F32, MODEL_NEOX_ROPE | MODEL_QK_NORM, 0, 1, &tiny_gemma},
    {&backend_cpu, 5, 1, 64, 96, 160, 17, DT_F16, DT_Q4_0, MODEL_NEOX_ROPE, 0, 1, &tiny_gemma},
    {&backend_cpu, 3, 3, 20, 52, 70, 0, DT_F16, DT_BF16, MODEL_NEOX_ROPE, 1, 0, &tiny_olmo},
    {&backend_cpu, 4, 2, 32, 128, 96, 0, DT_Q8_0, DT_Q8_0, 0, 0, 1, &tiny_granite},
    {&backend_cpu, 2, 1, 32, 64, 96, 0, DT_F32, DT_F32, 0, 0, 1, &tiny_mixtral},
    {&backend_cpu, 4, 2, 32, 64, 96, 5, DT_F16, DT_Q8_0, MODEL_NEOX_ROPE, 0, 1, &tiny_mixtral},
    {&backend_cpu, 4, 1, 64, 256, 256, 0, DT_F16, DT_Q4_K, MODEL_NEOX_ROPE | MODEL_QK_NORM, 0, 1, &many_experts},
    {&backend_cpu, 4, 2, 64, 128, 256, 0, DT_F16, DT_FP8, MODEL_NEOX_ROPE, 0, 0},
};
enum { N_CONFIG = sizeof configs / sizeof *configs, V = 40, BLOCK = 4, N_BLOCK = 256, N_READ = 40 };

static struct tiny_model tiny;
static struct rig rig;
static struct rnd rnd;

static void open_config(int i, const char *what, int hidden_plane)
{
    const struct config *c = &configs[i];
    rnd = rnd_begin(what, (uint64_t)i + 1);
    tiny_model_make(&tiny, &rnd, 3, c->n_head, c->n_head_kv, c->head_dim, c->n_embd, c->n_ff, V, c->flags, c->type,
                    c->biases, c->tied);
    tiny.d.sliding_window = c->window;
    if (c->features)
        tiny_model_extend(&tiny, &rnd, c->features, c->type);
    struct kv_config kv = {.block_len = BLOCK,
                           .n_block = N_BLOCK,
                           .k_type = c->kv_type,
                           .v_type = c->kv_type,
                           .hidden_plane = hidden_plane,
                           .n_bank = 4};
    rig_open(&rig, c->ops, &tiny, &kv, 1);
}

static void close_config(void)
{
    rig_close(&rig);
    tiny_model_free(&tiny);
}

static void random_tokens(int32_t *tok, int n)
{
    for (int i = 0; i < n; i++)
        tok[i] = rnd_int(&rnd, 0, V - 1);
}

static void blocks_from(int32_t *bt, int first, int n)
{
    for (int i = 0; i < n; i++)
        bt[i] = first + i;
}

/* Logits of every position of tok[0..n), computed alone in one plan on blocks from `first`. */
static void logits_alone(const int32_t *tok, int n, int first, float *out)
{
    int32_t bt[64];
    blocks_from(bt, first, (n + BLOCK - 1) / BLOCK);
    plan_reset(&rig.plan);
    rig_chain(&rig, 0, 0, tok, n, bt, (n + BLOCK - 1) / BLOCK);
    for (int i = 0; i < n; i++)
        rig_read_logits(&rig, i, N_READ);
    rig_step(&rig);
    memcpy(out, rig.out.f, sizeof *out * (size_t)(n * N_READ));
}

START_TEST(chunked_equals_whole)
{
    open_config(_i, "chunked_equals_whole", 0);
    for (int round = 0; round < 6; round++) {
        int32_t tok[40], bt[10];
        static float whole[40 * N_READ];
        int n = rnd_int(&rnd, 2, 40), done = 0;
        random_tokens(tok, n);
        logits_alone(tok, n, 0, whole);
        blocks_from(bt, 100, 10);
        while (done < n) {
            int take = rnd_int(&rnd, 1, n - done);
            plan_reset(&rig.plan);
            rig_chain(&rig, 0, done, tok + done, take, bt, 10);
            for (int i = 0; i < take; i++)
                rig_read_logits(&rig, i, N_READ);
            rig_step(&rig);
            ck_assert_mem_eq(rig.out.f, whole + done * N_READ, sizeof(float) * (size_t)(take * N_READ));
            done += take;
        }
    }
    close_config();
}
END_TEST

START_TEST(a_batch_changes_nothing)
{
    open_config(_i, "a_batch_changes_nothing", 0);
    enum { N_SEQ = 7, LEN = 12 };
    static float alone[N_SEQ][LEN * N_READ];
    int32_t tok[N_SEQ][LEN], bt[N_SEQ][3], n[N_SEQ], f0[N_SEQ];
    for (int s = 0; s < N_SEQ; s++) {
        n[s] = rnd_int(&rnd, 1, LEN);
        random_tokens(tok[s], n[s]);
        logits_alone(tok[s], n[s], 0, alone[s]);
        blocks_from(bt[s], 20 + 3 * s, 3);
    }
    plan_reset(&rig.plan);
    for (int s = 0; s < N_SEQ; s++) {
        int row0 = rig.plan.n.n_row;
        rig_chain(&rig, s, 0, tok[s], n[s], bt[s], 3);
        for (int i = 0; i < n[s]; i++) {
            int f = rig_read_logits(&rig, row0 + i, N_READ);
            if (i == 0)
                f0[s] = f;
        }
    }
    rig_step(&rig);
    for (int s = 0; s < N_SEQ; s++)
        ck_assert_mem_eq(rig.out.f + f0[s], alone[s], sizeof(float) * (size_t)(n[s] * N_READ));
    close_config();
}
END_TEST

/* A random tree below a chain, built in waves on held rows, equals each of its paths decoded alone. */
START_TEST(a_tree_equals_each_path_alone)
{
    open_config(_i, "a_tree_equals_each_path_alone", 0);
    enum { CTX = 9, MAX = 24 };
    for (int round = 0; round < 6; round++) {
        int32_t ctx[CTX], tok[MAX], bt[16];
        int parent[MAX], depth[MAX], n = rnd_int(&rnd, 3, MAX), done = 0;
        static float got[MAX][N_READ];
        random_tokens(ctx, CTX);
        random_tokens(tok, n);
        for (int i = 0; i < n; i++) {
            parent[i] = rnd_int(&rnd, -1, i - 1);
            depth[i] = parent[i] < 0 ? 0 : depth[parent[i]] + 1;
        }
        blocks_from(bt, 60, 16);
        plan_reset(&rig.plan);
        rig_chain(&rig, 0, 0, ctx, CTX, bt, 16);
        rig_step(&rig);
        while (done < n) { /* a wave: rows done..done+take-1; earlier ones are held */
            int take = rnd_int(&rnd, 1, n - done);
            plan_reset(&rig.plan);
            plan_span(&rig.plan,
                      &(struct span){.ctx_len = CTX, .group = -1, .law = -1, .layer1 = (int16_t)rig.env.n_layer});
            uint64_t vis[MAX];
            for (int i = 0; i < done + take; i++)
                vis[i] = (parent[i] < 0 ? 0 : vis[parent[i]]) | (uint64_t)1 << i;
            for (int i = 0; i < done; i++)
                plan_held(&rig.plan, tok[i], parent[i] < 0 ? PARENT_CTX : HELD_PARENT(parent[i]));
            for (int i = done; i < done + take; i++)
                plan_row(&rig.plan, tok[i], CTX + depth[i],
                         parent[i] < 0      ? PARENT_CTX
                         : parent[i] < done ? HELD_PARENT(parent[i])
                                            : (int16_t)(parent[i] - done),
                         vis[i]);
            plan_blocks(&rig.plan, bt, 16);
            for (int i = 0; i < take; i++)
                rig_read_logits(&rig, i, N_READ);
            rig_step(&rig);
            for (int i = 0; i < take; i++)
                memcpy(got[done + i], rig.out.f + i * N_READ, sizeof got[0]);
            done += take;
        }
        for (int i = 0; i < n; i++) {
            int32_t path[CTX + MAX];
            static float alone[(CTX + MAX) * N_READ];
            memcpy(path, ctx, sizeof ctx);
            for (int a = i; a >= 0; a = parent[a])
                path[CTX + depth[a]] = tok[a];
            int len = CTX + depth[i] + 1;
            logits_alone(path, len, 0, alone);
            ck_assert_msg(!memcmp(got[i], alone + (len - 1) * N_READ, sizeof got[i]), "row %d of a tree of %d", i, n);
        }
    }
    close_config();
}
END_TEST

/* Accepting a path by moves, then decoding on, equals never having drafted. */
START_TEST(committed_path_continues_as_if_decoded)
{
    open_config(_i, "committed_path_continues_as_if_decoded", 0);
    int32_t ctx[6], bt[8], side[2], next = rnd_int(&rnd, 0, V - 1);
    random_tokens(ctx, 6);
    random_tokens(side, 2);
    blocks_from(bt, 30, 8);
    plan_reset(&rig.plan);
    rig_chain(&rig, 0, 0, ctx, 4, bt, 8); /* context of 4; then a tree: side0, side1, and the path ctx[4] -> ctx[5] */
    rig_step(&rig);
    plan_reset(&rig.plan);
    plan_span(&rig.plan, &(struct span){.ctx_len = 4, .group = -1, .law = -1, .layer1 = (int16_t)rig.env.n_layer});
    plan_row(&rig.plan, side[0], 4, PARENT_CTX, 1);
    plan_row(&rig.plan, side[1], 4, PARENT_CTX, 2);
    plan_row(&rig.plan, ctx[4], 4, PARENT_CTX, 4);
    plan_row(&rig.plan, ctx[5], 5, 2, 4 | 8);
    plan_blocks(&rig.plan, bt, 8);
    rig_step(&rig);
    plan_reset(&rig.plan);
    plan_kvop(&rig.plan, 31 * BLOCK + 2, 31 * BLOCK + 0, 2); /* slots 6, 7 -> 4, 5: source and destination touch */
    rig_chain(&rig, 0, 6, &next, 1, bt, 8);
    rig_read_logits(&rig, 0, N_READ);
    rig_step(&rig);
    float got[N_READ], alone[7 * N_READ];
    memcpy(got, rig.out.f, sizeof got);
    int32_t whole[7];
    memcpy(whole, ctx, sizeof ctx);
    whole[6] = next;
    logits_alone(whole, 7, 0, alone);
    ck_assert_mem_eq(got, alone + 6 * N_READ, sizeof got);
    close_config();
}
END_TEST

START_TEST(moves_read_before_they_write)
{
    open_config(_i, "moves_read_before_they_write", 0);
    int32_t a[4], b[4], bt_a[] = {50, 52}, bt_b[] = {51, 53}, next = 3;
    float alone_a[5 * N_READ], alone_b[5 * N_READ];
    random_tokens(a, 4);
    random_tokens(b, 4);
    int32_t with_a[5], with_b[5];
    memcpy(with_a, a, sizeof a), memcpy(with_b, b, sizeof b);
    with_a[4] = with_b[4] = next;
    logits_alone(with_a, 5, 0, alone_a);
    logits_alone(with_b, 5, 0, alone_b);
    plan_reset(&rig.plan);
    rig_chain(&rig, 0, 0, a, 4, bt_a, 2);
    rig_chain(&rig, 1, 0, b, 4, bt_b, 2);
    rig_step(&rig);
    plan_reset(&rig.plan);
    plan_kvop(&rig.plan, 50 * BLOCK, 51 * BLOCK, BLOCK); /* swap the two contexts in one plan */
    plan_kvop(&rig.plan, 51 * BLOCK, 50 * BLOCK, BLOCK);
    rig_chain(&rig, 0, 4, &next, 1, bt_a, 2);
    rig_chain(&rig, 1, 4, &next, 1, bt_b, 2);
    rig_read_logits(&rig, 0, N_READ);
    rig_read_logits(&rig, 1, N_READ);
    rig_step(&rig);
    ck_assert_mem_eq(rig.out.f, alone_b + 4 * N_READ, sizeof(float) * N_READ);
    ck_assert_mem_eq(rig.out.f + N_READ, alone_a + 4 * N_READ, sizeof(float) * N_READ);
    close_config();
}
END_TEST

START_TEST(a_mixture_of_one_token_is_that_token)
{
    open_config(_i, "a_mixture_of_one_token_is_that_token", 0);
    int32_t tok[3], bt[] = {40};
    float alone[3 * N_READ];
    random_tokens(tok, 3);
    logits_alone(tok, 3, 0, alone);
    plan_reset(&rig.plan);
    int32_t mixed[3] = {tok[0], MIX_ROW(plan_mix(&rig.plan, &(struct mix_part){tok[1], 1}, 1, 0)), tok[2]};
    rig_chain(&rig, 0, 0, mixed, 3, bt, 1);
    rig_read_logits(&rig, 2, N_READ);
    rig_step(&rig);
    ck_assert_mem_eq(rig.out.f, alone + 2 * N_READ, sizeof(float) * N_READ);
    /* and another mixture is not */
    plan_reset(&rig.plan);
    mixed[1] = MIX_ROW(plan_mix(&rig.plan, (struct mix_part[]){{tok[1], 0.5f}, {(tok[1] + 1) % V, 0.5f}}, 2, 0));
    rig_chain(&rig, 0, 0, mixed, 3, bt, 1);
    rig_read_logits(&rig, 2, N_READ);
    rig_step(&rig);
    ck_assert_mem_ne(rig.out.f, alone + 2 * N_READ, sizeof(float) * N_READ);
    close_config();
}
END_TEST

START_TEST(an_early_exit_resumes_from_the_bank)
{
    if (configs[_i].ops == &backend_fake)
        return; /* hashes have no layers to resume */
    open_config(_i, "an_early_exit_resumes_from_the_bank", 0);
    int32_t tok[5], bt[] = {40, 41};
    float alone[5 * N_READ];
    random_tokens(tok, 5);
    logits_alone(tok, 5, 0, alone);
    plan_reset(&rig.plan); /* layers 0..1 of all five rows; their states go to the bank one by one */
    int s = rig_chain(&rig, 0, 0, tok, 4, bt, 2);
    rig_step(&rig);
    plan_reset(&rig.plan);
    s = rig_chain(&rig, 0, 4, tok + 4, 1, bt, 2);
    rig.plan.span[s].layer1 = 2;
    plan_readout(&rig.plan, &(struct readout){.kind = READ_HIDDEN, .row = 0, .n = rig.env.n_embd, .bank = 3}, NULL);
    rig_step(&rig);
    plan_reset(&rig.plan);
    int32_t row = MIX_ROW(plan_mix(&rig.plan, &(struct mix_part){3, 1}, 1, 1));
    s = rig_chain(&rig, 0, 4, &row, 1, bt, 2);
    rig.plan.span[s].layer0 = 2;
    rig_read_logits(&rig, 0, N_READ);
    rig_step(&rig);
    ck_assert_mem_eq(rig.out.f, alone + 4 * N_READ, sizeof(float) * N_READ);
    close_config();
}
END_TEST

START_TEST(contrast_is_the_largest_cosine)
{
    if (configs[_i].ops == &backend_fake)
        return;
    open_config(_i, "contrast_is_the_largest_cosine", 1);
    int32_t tok[6], bt[] = {40, 41};
    random_tokens(tok, 6);
    plan_reset(&rig.plan);
    rig_chain(&rig, 0, 0, tok, 6, bt, 2);
    int f[6], n = rig.env.n_embd;
    for (int i = 0; i < 6; i++)
        f[i] = rig.plan
                   .readout[plan_readout(&rig.plan,
                                         &(struct readout){.kind = READ_HIDDEN, .row = i, .n = n, .bank = -1}, NULL)]
                   .f0;
    int c = plan_readout(&rig.plan, &(struct readout){.kind = READ_CONTRAST, .row = 5, .bank = -1}, NULL);
    rig_step(&rig);
    double best = -1;
    for (int i = 0; i < 5; i++) {
        double ab = 0, aa = 0, bb = 0;
        for (int j = 0; j < n; j++) {
            double a = rig.out.f[f[5] + j], b = rig.out.f[f[i] + j];
            ab += a * b, aa += a * a, bb += b * b;
        }
        best = fmax(best, ab / sqrt(aa * bb));
    }
    ck_assert(fabs(best - rig.out.f[rig.plan.readout[c].f0]) < 3e-4); /* states are kept in f16 */
    close_config();
}
END_TEST

/* Negative control: the comparisons above can fail. */
START_TEST(another_context_gives_other_logits)
{
    open_config(_i, "another_context_gives_other_logits", 0);
    int32_t tok[5];
    float a[5 * N_READ], b[5 * N_READ];
    random_tokens(tok, 5);
    logits_alone(tok, 5, 0, a);
    tok[3] = (tok[3] + 1) % V;
    logits_alone(tok, 5, 0, b);
    ck_assert_mem_eq(a, b, sizeof(float) * 3 * N_READ);
    ck_assert_mem_ne(a + 4 * N_READ, b + 4 * N_READ, sizeof(float) * N_READ);
    close_config();
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("backends");
    tcase_add_loop_test(tc, chunked_equals_whole, 0, N_CONFIG);
    tcase_add_loop_test(tc, a_batch_changes_nothing, 0, N_CONFIG);
    tcase_add_loop_test(tc, a_tree_equals_each_path_alone, 0, N_CONFIG);
    tcase_add_loop_test(tc, committed_path_continues_as_if_decoded, 0, N_CONFIG);
    tcase_add_loop_test(tc, moves_read_before_they_write, 0, N_CONFIG);
    tcase_add_loop_test(tc, a_mixture_of_one_token_is_that_token, 0, N_CONFIG);
    tcase_add_loop_test(tc, an_early_exit_resumes_from_the_bank, 0, N_CONFIG);
    tcase_add_loop_test(tc, contrast_is_the_largest_cosine, 0, N_CONFIG);
    tcase_add_loop_test(tc, another_context_gives_other_logits, 0, N_CONFIG);
    return suite_run(tc);
}
