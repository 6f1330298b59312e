/* Several GPUs on the fake runtime, with the fake communicator: a model cut in two and in four gives what it gives
 * whole, for plans and readouts of every kind. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/suite.h"
#include "cuda_case.h"
#include "fake_comm.h"
#include "fake_runtime.h"

/* Ranks add up in another order than one device, which a rounding to bf16 then may show: a quarter of what one device
 * is allowed beside ref (test_cuda.c), and with a cache in fp8 a fifth. */
static const struct {
    struct case_config is;
    int n_rank;
    bool deterministic;
} cases[] = {
    {{4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, 0, 0, 1, 5e-3}, 2, false},
    {{4, 4, 80, 104, 160, 9, DT_BF16, DT_F32, MODEL_NEOX_ROPE | MODEL_QK_NORM, 1, 0, 5e-3}, 4, false},
    {{4, 2, 64, 128, 256, 20, DT_BF16, DT_Q8_0, MODEL_NEOX_ROPE, 1, 1, 5e-3}, 4, true}, /* KV heads are shared */
    {{8, 2, 64, 256, 512, 0, DT_BF16, DT_Q4_K, 0, 0, 0, 5e-3}, 2, true},                /* whole blocks of 256 */
    {{4, 2, 64, 128, 192, 0, DT_Q8_0, DT_BF16, 0, 0, 1, 2e-2}, 2, false},
    {{4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, MODEL_NEOX_ROPE, 0, 1, 5e-3, &tiny_gemma}, 2, false},
    {{4, 2, 64, 128, 192, 0, DT_BF16, DT_F32, 0, 0, 1, 5e-3, &tiny_granite}, 4, true},
    {{4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, MODEL_NEOX_ROPE, 0, 1, 5e-3, &case_mixtral}, 2, false},
    {{4, 4, 64, 128, 256, 0, DT_BF16, DT_F16, MODEL_QK_NORM, 0, 0, 5e-3, &case_qwen}, 4, true},
    {{4, 4, 64, 128, 256, 0, DT_BF16, DT_BF16, 0, 0, 0, 5e-3, &case_mixtral}, 4, false},
    {{4, 4, 64, 128, 256, 0, DT_BF16, DT_BF16, 0, 0, 0, 5e-3, &case_mixed}, 2, false},
    {{4, 4, 64, 128, 256, 0, DT_BF16, DT_BF16, MODEL_NEOX_ROPE, 1, 0, 5e-3, &tiny_olmo}, 2, false},
    {{4, 4, 64, 128, 256, 30, DT_BF16, DT_F32, MODEL_NEOX_ROPE, 0, 1, 5e-3, &tiny_olmo}, 4, false},
    {{4, 2, 64, 128, 256, 0, DT_BF16, DT_BF16, MODEL_NEOX_ROPE, 1, 0, 5e-3, &tiny_olmo}, 4, true}, /* shared heads */
    {{4, 4, 64, 128, 256, 0, DT_BF16, DT_F16, 0, 0, 0, 5e-3, &case_mixed_up}, 4, true},
    {{8, 4, 64, 128, 512, 0, DT_BF16, DT_FP8, MODEL_NEOX_ROPE, 0, 0, 5e-3}, 4, true}, /* whole blocks of 128 */
};
enum { N_CASE = sizeof cases / sizeof *cases };

static struct rnd rnd;

static void open_both(struct pair *g, int i)
{
    fake_runtime_reset();
    fake_comm_reset();
    fake_faults.n_device = 4;
    pair_open(g, &cases[i].is, &rnd, cuda_backend(&fake_runtime, &fake_comm, NULL),
              (struct backend_options){.tensor_parallel = cases[i].n_rank, .deterministic = cases[i].deterministic},
              cuda_backend(&fake_runtime, &fake_comm, NULL));
}

static void close_both(struct pair *g)
{
    pair_close(g);
    ck_assert_int_eq(fake_comm_live(), 0);
}

START_TEST(random_steps_are_near_one_device)
{
    rnd = rnd_begin("random_steps_are_near_one_device", (uint64_t)_i + 1);
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
    check_worst(&w, &cases[_i].is);
    close_both(&p);
}
END_TEST

START_TEST(layer_ranges_are_near_one_device)
{
    rnd = rnd_begin("layer_ranges_are_near_one_device", 1);
    struct pair p;
    struct worst w = {0};
    struct case_seq own[CASE_SEQS];
    open_both(&p, 0);
    case_seqs(own);
    for (int step = 0; step < CASE_LAYERS; step++) {
        ON_BOTH(&p, rnd, own, case_layers(g, r, seq, step));
        pair_step(&p, &w);
    }
    check_worst(&w, &cases[0].is);
    close_both(&p);
}
END_TEST

/* What each needs is alike, and two figures that the engine plans by hold of every device. */
START_TEST(memory_is_planned_for_the_fullest_device)
{
    rnd = rnd_begin("memory_is_planned_for_the_fullest_device", 1);
    struct pair p;
    struct backend_stats ranks, one;
    struct kv_config kv = {.block_len = CASE_BLOCK, .n_block = CASE_BLOCKS, .k_type = DT_BF16, .v_type = DT_BF16};
    open_both(&p, 0);
    p.got.ops->stats(p.got.m, &ranks);
    p.want.ops->stats(p.want.m, &one);
    ck_assert_int_eq(ranks.n_thread, 2);
    ck_assert_uint_gt(ranks.weight_bytes, one.weight_bytes); /* norms are everyone's */
    ck_assert_uint_lt(ranks.weight_bytes, one.weight_bytes + one.weight_bytes / 8);
    ck_assert_uint_lt(p.got.ops->kv_bytes(p.got.m, &kv), p.want.ops->kv_bytes(p.want.m, &kv));
    ck_assert_uint_eq(p.got.ops->kv_available(p.got.m), p.want.ops->kv_available(p.want.m)); /* device 0 has both */
    close_both(&p);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("ranks");
    tcase_add_loop_test(tc, random_steps_are_near_one_device, 0, N_CASE);
    tcase_add_test(tc, layer_ranges_are_near_one_device);
    tcase_add_test(tc, memory_is_planned_for_the_fullest_device);
    return suite_run(tc);
}
