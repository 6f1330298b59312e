/* The cuda back end where a machine or a device is not as it should be: what is said, that nothing leaks, and that what
 * broke stays broken. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/kernels/random_plan.h"
#include "../unit/suite.h"
#include "fake_runtime.h"
#include "mem.h"

enum { V = 152, BLOCK = 16, N_BLOCK = 8, N_LAYER = 2, MOST_CALLS = 10000 };

static const struct backend_ops *ops;
static struct tiny_model tiny;
static const struct kv_config pool = {
    .block_len = BLOCK, .n_block = N_BLOCK, .k_type = DT_BF16, .v_type = DT_BF16, .hidden_plane = 1};

static void healthy(void)
{
    struct rnd rnd = rnd_begin("cuda_faults", 7);
    fake_runtime_reset();
    ops = cuda_backend(&fake_runtime, NULL, NULL);
    tiny_model_make(&tiny, &rnd, N_LAYER, 2, 1, 64, 128, 192, V, 0, DT_BF16, 1, 1);
}

static void finished(void)
{
    tiny_model_free(&tiny);
    ck_assert_int_eq(fake_runtime_live(), 0);
}

static void says(const struct err *e, const char *words)
{
    ck_assert_msg(strstr(e->msg, words) != NULL, "'%s' does not say '%s'", e->msg, words);
}

static int open_backend(struct backend **b, struct err *e)
{
    struct backend_options opt = {.limits = test_limits(V)};
    return ops->open(&opt, b, e);
}

/* ---- Machines that cannot run it ---- */

static const struct {
    struct fake_faults is;
    const char *words;
    bool only_opening; /* seen by none but the one who tries to open it */
} machines[] = {
    {{.driver_version = 0, .n_device = 1, .major = 8}, "no NVIDIA driver is installed", false},
    {{.driver_version = 12040, .n_device = 1, .major = 8}, "for CUDA 12.4, this binary needs 13.0", false},
    {{.driver_version = 13000, .n_device = 0, .major = 8}, "shows no device", false},
    {{.driver_version = 13000, .n_device = 1, .major = 7}, "capability 7.0; 8.0 is the least", false},
    {{.driver_version = 13000, .n_device = 1, .major = 8, .prohibited = true}, "prohibits", false},
    {{.driver_version = 13000, .n_device = 1, .major = 8, .busy = true}, "busy", true},
};

START_TEST(unusable_machine_is_named)
{
    struct backend *b = NULL;
    struct err e = {0};
    healthy();
    ck_assert_int_eq(ops->usable(&e), 0);
    fake_faults = machines[_i].is;
    ck_assert_int_eq(ops->usable(&e) == 0, machines[_i].only_opening);
    if (!machines[_i].only_opening)
        says(&e, machines[_i].words);
    e = (struct err){0};
    ck_assert_int_ne(open_backend(&b, &e), 0);
    ck_assert_ptr_null(b);
    says(&e, machines[_i].words);
    finished();
}
END_TEST

static int load(struct backend *b, struct bmodel **m, struct err *e)
{
    return ops->load(b, &tiny.d, &tiny.w, NULL, NULL, m, e);
}

/* ---- Models that it cannot run ---- */

static const struct tiny_features odd_experts = {.n_expert = 4, .n_expert_used = 2, .n_ff_expert = 60},
                                  experts = {.n_expert = 4, .n_expert_used = 2, .n_ff_expert = 64};

START_TEST(experts_that_it_cannot_run)
{
    struct backend *b;
    struct bmodel *m;
    struct err e = {0};
    struct rnd rnd = rnd_begin("experts_that_it_cannot_run", 1);
    healthy();
    tiny_model_extend(&tiny, &rnd, &odd_experts, DT_BF16);
    ck_assert(!open_backend(&b, &e));
    ck_assert_int_eq(load(b, &m, &e), -ERR_INVALID);
    ck_assert_ptr_null(m);
    says(&e, "a multiple of 8, not 60");
    ops->close(b);
    finished();
}
END_TEST

/* ---- Memory ---- */

/* A step that goes through all experts needs nothing that was not planned: what a pool takes grows by it, and what
 * weights take by the experts themselves. */
START_TEST(experts_are_planned)
{
    struct backend *b;
    struct bmodel *m[2];
    struct backend_stats s[2];
    struct err e = {0};
    struct rnd rnd = rnd_begin("experts_are_planned", 1);
    healthy();
    ck_assert(!open_backend(&b, &e));
    ck_assert(!load(b, &m[0], &e));
    tiny_model_extend(&tiny, &rnd, &experts, DT_BF16); /* of layer 0 alone */
    ck_assert(!load(b, &m[1], &e));
    for (int i = 0; i < 2; i++) {
        ck_assert(!ops->kv_create(m[i], &pool, &e));
        ops->stats(m[i], &s[i]);
        ops->unload(m[i]);
    }
    size_t place = 2 * (size_t)test_limits(V).n_row, router = 16 * 128 * 4;
    ck_assert_uint_eq(s[1].weight_bytes - s[0].weight_bytes, (size_t)(4 * 64 - 192) * 128 * 3 * 2 + router);
    ck_assert_uint_ge(s[1].scratch_bytes - s[0].scratch_bytes, place * 128 * 4 + place * 4 * 4 + place / 2 * 4 * 4);
    ops->close(b);
    finished();
}
END_TEST

START_TEST(weights_that_do_not_fit)
{
    struct backend *b;
    struct bmodel *m;
    struct err e = {0};
    healthy();
    ck_assert(!open_backend(&b, &e));
    fake_faults.total_bytes = 100 << 10;
    ck_assert_int_eq(load(b, &m, &e), -ERR_NOMEM);
    ck_assert_ptr_null(m);
    says(&e, "weights need");
    ops->close(b);
    finished();
}
END_TEST

START_TEST(cache_that_does_not_fit)
{
    struct backend *b;
    struct bmodel *m;
    struct err e = {0};
    struct kv_config kv = pool;
    healthy();
    ck_assert(!open_backend(&b, &e));
    ck_assert(!load(b, &m, &e));
    size_t available = ops->kv_available(m);
    kv.n_block = 1;
    size_t one = ops->kv_bytes(m, &kv);
    kv.n_block = 2;
    size_t block = ops->kv_bytes(m, &kv) - one;
    kv.n_block = 1 + (int32_t)((available - one) / block); /* as many as fit */
    ck_assert_uint_le(ops->kv_bytes(m, &kv), available);
    kv.n_block++;
    ck_assert_int_eq(ops->kv_create(m, &kv, &e), -ERR_NOMEM);
    says(&e, "blocks would fit");
    ck_assert_int_eq(atoi(strstr(e.msg, "free: ") + strlen("free: ")), kv.n_block - 1);
    kv.n_block--;
    ck_assert(!ops->kv_create(m, &kv, &e));
    ck_assert_uint_lt(ops->kv_available(m), block);
    ops->unload(m);
    ops->close(b);
    finished();
}
END_TEST

/* Opens, loads, makes the pool and runs one step. */
static int whole_life(struct err *e)
{
    struct backend *b = NULL;
    struct bmodel *m = NULL;
    struct step_plan plan = {0};
    float f[64];
    int32_t i[64];
    struct step_result out = {.f = f, .i = i};
    struct rig g = {.ops = ops};
    struct plan_limits limits = test_limits(V);
    int rc = open_backend(&b, e);
    if (!rc)
        rc = load(b, &m, e);
    if (!rc)
        rc = ops->kv_create(m, &pool, e);
    if (!rc)
        rc = plan_create(&plan, &limits, e);
    if (!rc) {
        plan_reset(&plan);
        g.plan = plan;
        g.env.n_layer = N_LAYER;
        rig_chain(&g, 0, 0, (int32_t[]){3, 7, 11}, 3, (int32_t[]){2}, 1);
        rig_read_logits(&g, 2, 16);
        rc = ops->submit(m, &g.plan, e);
        if (!rc)
            rc = ops->wait(m, &out, e);
        if (rc) { /* broken for good */
            struct err again = {0};
            fake_faults.lose_at = 0;
            ck_assert_int_eq(ops->submit(m, &g.plan, &again), -ERR_DEVICE);
            says(&again, "lost");
        }
    }
    plan_free(&plan);
    ops->unload(m);
    ops->close(b);
    return rc;
}

/* Counts n up from 1 until nothing fails any more. */
static int every_failure(long *fault, int code, const char *words)
{
    for (int n = 1; n < MOST_CALLS; n++) {
        struct err e = {0};
        fake_runtime_reset();
        *fault = n;
        int rc = whole_life(&e);
        ck_assert_int_eq(fake_runtime_live(), 0);
        if (!rc)
            return n - 1;
        ck_assert_int_eq(rc, -code);
        says(&e, words);
    }
    ck_abort_msg("it fails for ever");
}

START_TEST(every_device_allocation_fails_once)
{
    healthy();
    ck_assert_int_ge(every_failure(&fake_faults.fail_alloc, ERR_NOMEM, "out of memory"), 5);
    finished();
}
END_TEST

START_TEST(device_lost_at_every_call)
{
    healthy();
    ck_assert_int_ge(every_failure(&fake_faults.lose_at, ERR_DEVICE, "the device is lost"), 20);
    finished();
}
END_TEST

START_TEST(every_host_allocation_fails_once)
{
    int n_failed = 0;
    healthy();
    for (long n = 1; n < MOST_CALLS; n++) {
        struct err e = {0};
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
    ck_assert_int_ge(n_failed, 4);
    finished();
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("cuda_faults");
    tcase_add_loop_test(tc, unusable_machine_is_named, 0, sizeof machines / sizeof *machines);
    tcase_add_test(tc, experts_that_it_cannot_run);
    tcase_add_test(tc, experts_are_planned);
    tcase_add_test(tc, weights_that_do_not_fit);
    tcase_add_test(tc, cache_that_does_not_fit);
    tcase_add_test(tc, every_device_allocation_fails_once);
    tcase_add_test(tc, device_lost_at_every_call);
    tcase_add_test(tc, every_host_allocation_fails_once);
    return suite_run(tc);
}
