/* The cuda back end on the fake runtime: whole plans against ref. */
#include <check.h>
#include <string.h>

#include "cuda_case.h"
#include "fake_runtime.h"
#include "../unit/suite.h"

extern const struct backend_ops backend_ref;

static const struct tiny_features all_experts = {.n_expert = 3, .n_expert_used = 3, .n_ff_expert = 40};

/* `tolerance`: largest difference of a log-probability from ref's, as a share of the largest one. Activations, q, k, v
 * and attention's results are rounded to bf16 (8 bits of mantissa) a dozen times a layer, which random models of three
 * layers and no redundancy amplify; the worst of thousands of elements stays below 2 %. With a cache in fp8 (3 bits of
 * mantissa, beside ref's Q8_0) below 10 %. */
static const struct case_config configs[] = {
    {4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, 0, 0, 1, 2e-2},
    {3, 1, 80, 104, 136, 9, DT_BF16, DT_F32, MODEL_NEOX_ROPE | MODEL_QK_NORM, 1, 0, 2e-2},
    {2, 2, 64, 256, 1100 / 8 * 8, 0, DT_BF16, DT_F16, MODEL_NEOX_ROPE, 1, 0, 2e-2}, /* weights come in pieces */
    {4, 1, 64, 128, 192, 0, DT_Q8_0, DT_BF16, 0, 0, 1, 1e-1},
    {4, 2, 64, 128, 192, 20, DT_BF16, DT_Q8_0, MODEL_NEOX_ROPE, 1, 1, 2e-2},
    {2, 1, 128, 256, 256, 0, DT_BF16, DT_Q4_K, MODEL_QK_NORM, 0, 1, 2e-2},
    {4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, MODEL_NEOX_ROPE | MODEL_QK_NORM, 0, 1, 2e-2, &tiny_gemma},
    {4, 2, 64, 128, 192, 30, DT_BF16, DT_F32, MODEL_NEOX_ROPE, 1, 0, 2e-2, &tiny_olmo},
    {4, 1, 64, 128, 192, 0, DT_BF16, DT_Q8_0, 0, 0, 1, 2e-2, &tiny_granite},
    {4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, MODEL_NEOX_ROPE, 0, 1, 2e-2, &case_mixtral},
    {4, 1, 64, 128, 192, 0, DT_BF16, DT_Q8_0, MODEL_QK_NORM, 0, 0, 2e-2, &case_qwen},
    {4, 2, 64, 128, 192, 0, DT_BF16, DT_F32, MODEL_NEOX_ROPE, 0, 0, 2e-2, &all_experts},
    {4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, MODEL_NEOX_ROPE, 0, 1, 2e-2, &case_mixed},
    {4, 1, 64, 128, 192, 0, DT_BF16, DT_Q4_0, 0, 0, 0, 2e-2, &case_mixed_up},
    {4, 2, 64, 128, 256, 0, DT_BF16, DT_FP8, MODEL_NEOX_ROPE, 1, 0, 2e-2},
};
enum { N_CONFIG = sizeof configs / sizeof *configs };

static struct rnd rnd;

static void open_both(struct pair *g, int i)
{
    fake_runtime_reset();
    pair_open(g, &configs[i], &rnd, cuda_backend(&fake_runtime, NULL, NULL), (struct backend_options){0}, &backend_ref);
}

/* ---- Against ref ---- */

START_TEST(one_chain_is_near_ref)
{
    rnd = rnd_begin("one_chain_is_near_ref", (uint64_t)_i + 1);
    struct pair g;
    struct worst w = {0};
    open_both(&g, _i);
    struct rig *const both[] = {&g.got, &g.want};
    for (int i = 0; i < 2; i++) {
        plan_reset(&both[i]->plan);
        rig_chain(both[i], 0, 0, (int32_t[]){3, 7, 150, 4, 9}, 5, (int32_t[]){6, 2}, 2);
        rig_read_logits(both[i], 4, 128);
    }
    pair_step(&g, &w);
    check_worst(&w, &configs[_i]);
    pair_close(&g);
}
END_TEST

START_TEST(random_steps_are_near_ref)
{
    rnd = rnd_begin("random_steps_are_near_ref", (uint64_t)_i + 1);
    struct pair p;
    struct worst w = {0};
    struct case_seq own[CASE_SEQS];
    struct case_tree t;
    open_both(&p, _i);
    case_seqs(own);
    case_tree_make(&t, &rnd, 31);
    for (int step = 0; step < CASE_STEPS; step++) {
        ON_BOTH(&p, rnd, own, case_step(g, r, seq, &t, step));
        pair_step(&p, &w);
    }
    check_worst(&w, &configs[_i]);
    pair_close(&p);
}
END_TEST

START_TEST(layer_ranges_are_near_ref)
{
    rnd = rnd_begin("layer_ranges_are_near_ref", (uint64_t)_i + 1);
    struct pair p;
    struct worst w = {0};
    struct case_seq own[CASE_SEQS];
    open_both(&p, _i);
    case_seqs(own);
    for (int step = 0; step < CASE_LAYERS; step++) {
        ON_BOTH(&p, rnd, own, case_layers(g, r, seq, step));
        pair_step(&p, &w);
    }
    check_worst(&w, &configs[_i]);
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
