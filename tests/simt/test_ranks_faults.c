/* Several GPUs where one of them, the link between them or the model is not as it should be: what is said, how soon,
 * that the others do not wait for ever, and that nothing leaks. Kernels are not run here (fake_runtime_skip), so that
 * ThreadSanitizer, which does not know fibers, can watch the threads. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/kernels/random_plan.h"
#include "../unit/suite.h"
#include "fake_comm.h"
#include "fake_runtime.h"
#include "mem.h"
#include "wake.h"

enum { V = 152, BLOCK = 16, N_BLOCK = 8, N_LAYER = 2, N_RANK = 2, MOST_CALLS = 10000, SHORT_MS = 400, GRACE_MS = 5000 };

static const struct backend_ops *ops;
static struct tiny_model tiny;
static const struct kv_config pool = {
    .block_len = BLOCK, .n_block = N_BLOCK, .k_type = DT_BF16, .v_type = DT_BF16, .hidden_plane = 1};

static void reset(void)
{
    fake_runtime_reset();
    fake_runtime_skip();
    fake_comm_reset();
    fake_faults.n_device = 4;
    fake_faults.device = 1;
}

static void healthy(const struct comm_api *comm)
{
    struct rnd rnd = rnd_begin("ranks_faults", 7);
    reset();
    ops = cuda_backend(&fake_runtime, comm, NULL);
    tiny_model_make(&tiny, &rnd, N_LAYER, 4, 2, 64, 128, 192, V, 0, DT_BF16, 1, 1);
}

static void finished(void)
{
    tiny_model_free(&tiny);
    ck_assert_int_eq(fake_runtime_live(), 0);
    ck_assert_int_eq(fake_comm_live(), 0);
}

static void says(const struct err *e, const char *words)
{
    ck_assert_msg(strstr(e->msg, words) != NULL, "'%s' does not say '%s'", e->msg, words);
}

/* One life: opens, loads, makes the pool, runs two steps, the second by a graph that was run before. */
static struct life { /* static: what a stuck rank still has stays reachable */
    struct backend *b;
    struct bmodel *m;
    struct rig g;
    float f[256];
    int32_t i[256];
    load_progress progress;
} life;

static int open_with(int32_t n_rank, struct err *e)
{
    struct backend_options opt = {.limits = test_limits(V), .tensor_parallel = n_rank};
    return ops->open(&opt, &life.b, e);
}

static int load(struct err *e)
{
    return ops->load(life.b, &tiny.d, &tiny.w, life.progress, NULL, &life.m, e);
}

static int run_step(struct err *e)
{
    struct step_result out = {.f = life.f, .i = life.i};
    plan_reset(&life.g.plan);
    life.g.env.n_layer = N_LAYER;
    rig_chain(&life.g, 0, 0, (int32_t[]){3, 7, 11}, 3, (int32_t[]){2}, 1);
    for (int row = 0; row < 3; row++)
        rig_read_logits(&life.g, row, 16);
    int rc = ops->submit(life.m, &life.g.plan, e);
    return rc ? rc : ops->wait(life.m, &out, e);
}

static void end(void)
{
    plan_free(&life.g.plan);
    ops->unload(life.m);
    ops->close(life.b);
    life = (struct life){.progress = life.progress};
}

static int begin(int32_t n_rank, struct err *e)
{
    struct plan_limits limits = test_limits(V);
    int rc = open_with(n_rank, e);
    if (!rc)
        rc = load(e);
    if (!rc)
        rc = ops->kv_create(life.m, &pool, e);
    return rc ? rc : plan_create(&life.g.plan, &limits, e);
}

static int whole_life(struct err *e)
{
    int rc = begin(N_RANK, e);
    for (int step = 0; !rc && step < 2; step++) {
        rc = run_step(e);
        if (rc) { /* broken for good */
            struct err again = {0};
            fake_faults.lose_at = fake_comm_faults.silent_at = fake_comm_faults.fail_at = 0;
            ck_assert_int_eq(ops->submit(life.m, &life.g.plan, &again), -ERR_DEVICE);
            says(&again, "lost");
        }
    }
    end();
    return rc;
}

/* ---- What is refused ---- */

static const struct {
    int32_t n_head, n_head_kv, n_ff, n_vocab, type, n_rank;
    const char *words;
} cuts[] = {
    {4, 2, 192, V, DT_BF16, 3, "--tensor-parallel 3 does not divide the model's 4 attention heads"},
    {12, 4, 192, V, DT_BF16, 3, "--tensor-parallel 3 does not divide the model's 4 KV heads"},
    {12, 3, 192, V, DT_BF16, 4, "--tensor-parallel 4 does not divide the model's 3 KV heads"},
    {4, 2, 200, V, DT_BF16, 3, "--tensor-parallel 3 does not divide"},
    {4, 2, 104, V, DT_BF16, 2, "--tensor-parallel 2 leaves each 52 feed-forward columns"},
    {4, 2, 96, V, DT_Q8_0, 2,
     "--tensor-parallel 2 cuts ffn_down into pieces of 48 columns, and blocks of Q8_0 have 32"},
    {4, 2, 384, V, DT_FP8, 2,
     "--tensor-parallel 2 cuts ffn_down into pieces of 192 columns, and blocks of FP8 have 128"},
    {4, 2, 192, 40, DT_BF16, 4, "--tensor-parallel 4: the model's 40 tokens are too few"},
};

START_TEST(model_that_cannot_be_cut)
{
    struct err e = {0};
    struct rnd rnd = rnd_begin("model_that_cannot_be_cut", 1);
    reset();
    ops = cuda_backend(&fake_runtime, &fake_comm, NULL);
    tiny_model_make(&tiny, &rnd, N_LAYER, cuts[_i].n_head, cuts[_i].n_head_kv, 64, 128, cuts[_i].n_ff, cuts[_i].n_vocab,
                    0, cuts[_i].type, 1, 1);
    ck_assert_msg(!open_with(cuts[_i].n_rank, &e), "%s", e.msg);
    ck_assert_int_eq(load(&e), -ERR_INVALID);
    ck_assert_ptr_null(life.m);
    says(&e, cuts[_i].words);
    end();
    finished();
}
END_TEST

static const struct {
    int n_ff_expert, type, last_type, n_rank; /* last_type: of the last expert's down */
    const char *words;
} expert_cuts[] = {
    {200, DT_BF16, DT_BF16, 3, "--tensor-parallel 3 does not divide the model's 200 columns of an expert"},
    {104, DT_BF16, DT_BF16, 2, "--tensor-parallel 2 leaves each 52 columns of an expert: not a multiple of 8"},
    {96, DT_Q8_0, DT_Q8_0, 2,
     "--tensor-parallel 2 cuts ffn_down_exps into pieces of 48 columns, and blocks of Q8_0 have 32"},
    {96, DT_BF16, DT_Q4_0, 2,
     "--tensor-parallel 2 cuts ffn_down_exps into pieces of 48 columns, and blocks of Q4_0 have 32"},
};

START_TEST(experts_that_cannot_be_cut)
{
    struct err e = {0};
    struct rnd rnd = rnd_begin("experts_that_cannot_be_cut", 1);
    int n_ff_expert = expert_cuts[_i].n_ff_expert, n_rank = expert_cuts[_i].n_rank;
    struct tiny_features f = {.n_expert = 4, .n_expert_used = 2, .n_ff_expert = n_ff_expert};
    reset();
    ops = cuda_backend(&fake_runtime, &fake_comm, NULL);
    tiny_model_make(&tiny, &rnd, N_LAYER, 6, 6, 64, 128, 64 * n_rank, V, 0, expert_cuts[_i].type, 1, 1);
    tiny_model_extend(&tiny, &rnd, &f, expert_cuts[_i].type);
    tiny.w.layer[0].expert[3].down.type = expert_cuts[_i].last_type;
    ck_assert_msg(!open_with(n_rank, &e), "%s", e.msg);
    ck_assert_int_eq(load(&e), -ERR_INVALID);
    ck_assert_ptr_null(life.m);
    says(&e, expert_cuts[_i].words);
    end();
    finished();
}
END_TEST

START_TEST(machine_that_is_not_enough)
{
    struct err e = {0};
    healthy(&fake_comm);
    ck_assert_int_eq(open_with(5, &e), -ERR_INVALID);
    says(&e, "--tensor-parallel 5: the NVIDIA driver shows 4 devices");
    fake_faults.odd = 2;
    fake_faults.odd_minor = 9;
    ck_assert_int_eq(open_with(4, &e), -ERR_INVALID);
    says(&e, "fake device 2 #2 has 8.9");
    ck_assert(!open_with(2, &e)); /* it is not one of them */
    end();
    fake_comm_faults.missing = true;
    ck_assert_int_eq(open_with(2, &e), -ERR_NOTFOUND);
    says(&e, "NCCL");
    ck_assert(!open_with(1, &e)); /* one alone needs none */
    end();
    finished();
}
END_TEST

START_TEST(smallest_device_decides)
{
    struct err e = {0};
    struct kv_config kv = pool;
    healthy(&fake_comm);
    fake_faults.odd = 1;
    fake_faults.odd_bytes = (size_t)96 << 20;
    ck_assert(!open_with(2, &e));
    ck_assert(!load(&e));
    size_t left = ops->kv_available(life.m), one = ops->kv_bytes(life.m, &kv);
    ck_assert_uint_lt(left, fake_faults.odd_bytes);
    kv.n_block = N_BLOCK + (int32_t)((left - one) / (one / N_BLOCK)) + 100000;
    ck_assert_int_eq(ops->kv_create(life.m, &kv, &e), -ERR_NOMEM);
    says(&e, "blocks would fit");
    kv.n_block = N_BLOCK; /* nothing is left of the first try */
    ck_assert_msg(!ops->kv_create(life.m, &kv, &e), "%s", e.msg);
    end();
    finished();
}
END_TEST

static int stop_at_once(void *arg, size_t done, size_t total)
{
    (void)arg;
    return done > total / 2;
}

START_TEST(loading_is_stopped)
{
    struct err e = {0};
    healthy(&fake_comm);
    life.progress = stop_at_once;
    ck_assert(!open_with(2, &e));
    ck_assert_int_eq(load(&e), -ERR_CANCELED);
    life.progress = NULL;
    end();
    finished();
}
END_TEST

/* ---- One rank fails ---- */

/* Counts n up from 1 until a life ends before it comes to the fault. Returns how many lives failed: where a graph
 * cannot be recorded, or the end is near, none does. */
static int every_failure(long *fault, int code, const char *words)
{
    for (int n = 1, n_failed = 0; n < MOST_CALLS; n++) {
        struct err e = {0};
        reset();
        fake_comm_faults.rank = 1;
        *fault = n;
        int64_t t0 = clock_ns();
        int rc = whole_life(&e);
        ck_assert_int_eq(fake_runtime_live(), 0);
        ck_assert_int_eq(fake_comm_live(), 0);
        ck_assert_int_lt((clock_ns() - t0) / 1000000, 60000);
        if (!rc && *fault > 0)
            return n_failed;
        if (!rc)
            continue;
        ck_assert_int_eq(rc, -code);
        says(&e, words);
        n_failed++;
    }
    ck_abort_msg("it fails for ever");
}

START_TEST(every_allocation_of_a_rank_fails_once)
{
    healthy(&fake_comm);
    ck_assert_int_ge(every_failure(&fake_faults.fail_alloc, ERR_NOMEM, "fake device 1 #1"), 5);
    finished();
}
END_TEST

START_TEST(rank_lost_at_every_call)
{
    healthy(&fake_comm);
    ck_assert_int_ge(every_failure(&fake_faults.lose_at, ERR_DEVICE, "the device is lost"), 20);
    finished();
}
END_TEST

START_TEST(every_exchange_cannot_be_queued_once)
{
    healthy(&fake_comm);
    ck_assert_int_ge(every_failure(&fake_comm_faults.fail_at, ERR_DEVICE, "another rank is lost, or the link to it"),
                     3);
    finished();
}
END_TEST

START_TEST(every_host_allocation_fails_once)
{
    int n_failed = 0;
    healthy(&fake_comm);
    for (long n = 1; n < MOST_CALLS; n++) {
        struct err e = {0};
        reset();
        mem_fail_nth(n);
        int rc = whole_life(&e);
        mem_fail_nth(0);
        ck_assert_int_eq(fake_runtime_live(), 0);
        if (!rc)
            break;
        ck_assert_int_eq(rc, -ERR_NOMEM);
        says(&e, "out of memory");
        n_failed++;
    }
    ck_assert_int_ge(n_failed, 8);
    finished();
}
END_TEST

/* ---- One rank is silent ---- */

START_TEST(every_exchange_is_not_answered_once)
{
    healthy(fake_comm_within(SHORT_MS));
    ck_assert_int_ge(every_failure(&fake_comm_faults.silent_at, ERR_DEVICE, "of 2 has not answered for 0.4 s"), 8);
    finished();
}
END_TEST

/* Not even an abort brings it back: what it holds is given up, and nobody waits for it. */
START_TEST(deaf_rank_is_given_up)
{
    struct err e = {0};
    healthy(fake_comm_within(SHORT_MS));
    ck_assert_msg(!begin(N_RANK, &e), "%s", e.msg);
    ck_assert_msg(!run_step(&e), "%s", e.msg);
    int64_t t0 = clock_ns();
    fake_comm_faults = (struct fake_comm_faults){.rank = 1, .silent_at = 3, .deaf = true};
    ck_assert_int_eq(run_step(&e), -ERR_DEVICE);
    says(&e, "has not answered");
    ck_assert_int_eq(ops->submit(life.m, &life.g.plan, &e), -ERR_DEVICE);
    ops->unload(life.m);
    ops->close(life.b);
    ck_assert_int_lt((clock_ns() - t0) / 1000000, 2 * GRACE_MS);
    fake_comm_release();
}
END_TEST

START_TEST(rank_that_never_joins)
{
    struct err e = {0};
    healthy(fake_comm_within(SHORT_MS));
    fake_comm_faults = (struct fake_comm_faults){.rank = 1, .never_joins = true};
    ck_assert_int_eq(open_with(2, &e), -ERR_DEVICE);
    says(&e, "has not answered");
    ck_assert_ptr_null(life.b);
    fake_comm_release();
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("ranks_faults");
    tcase_add_loop_test(tc, model_that_cannot_be_cut, 0, sizeof cuts / sizeof *cuts);
    tcase_add_loop_test(tc, experts_that_cannot_be_cut, 0, sizeof expert_cuts / sizeof *expert_cuts);
    tcase_add_test(tc, machine_that_is_not_enough);
    tcase_add_test(tc, smallest_device_decides);
    tcase_add_test(tc, loading_is_stopped);
    tcase_add_test(tc, every_allocation_of_a_rank_fails_once);
    tcase_add_test(tc, rank_lost_at_every_call);
    tcase_add_test(tc, every_exchange_cannot_be_queued_once);
    tcase_add_test(tc, every_host_allocation_fails_once);
    tcase_add_test(tc, every_exchange_is_not_answered_once);
    tcase_add_test(tc, deaf_rank_is_given_up);
    tcase_add_test(tc, rank_that_never_joins);
    return suite_run(tc);
}
