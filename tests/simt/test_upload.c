/* Loading weights by several threads through small buffers: every byte on the device is the same whatever their number
 * and the buffers' size, however late the device fetches them, and nothing is left where loading ends early. No kernel
 * runs here, so that ThreadSanitizer can watch. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/kernels/random_plan.h"
#include "../unit/suite.h"
#include "cuda.h"
#include "fake_comm.h"
#include "fake_runtime.h"
#include "mem.h"
#include "upload.h"

enum { V = 152, N_LAYER = 3, HEAD = 64, MOST_CALLS = 10000, LEAST = 1, LARGE = 1 << 20 };

static struct tiny_model tiny;
static struct cuda_api api; /* the fake's, or with a call of the test's own */

static const struct tiny_features experts = {.n_expert = 5, .n_expert_used = 2, .n_ff_expert = 256, .mixed = 1},
                                  experts_up = {.n_expert = 3, .n_expert_used = 2, .n_ff_expert = 256, .up_f32 = 1};

static const struct shape {
    int type, n_head, n_head_kv, n_embd, n_ff, tied;
    const struct tiny_features *features;
} shapes[] = {
    {DT_BF16, 2, 1, 136, 200, 1, NULL},     {DT_F16, 2, 1, 8, 24, 0, NULL},
    {DT_F32, 2, 1, 136, 200, 0, NULL},      {DT_Q8_0, 2, 2, 96, 160, 1, NULL},
    {DT_Q4_0, 2, 2, 96, 160, 0, NULL},      {DT_MXFP4, 2, 2, 96, 160, 0, NULL},
    {DT_Q4_K, 4, 2, 256, 512, 1, NULL},     {DT_Q5_K, 4, 2, 256, 512, 0, NULL},
    {DT_Q6_K, 4, 2, 256, 256, 1, NULL},     {DT_FP8, 2, 2, 128, 384, 0, NULL},
    {DT_BF16, 2, 1, 256, 256, 0, &experts}, {DT_Q8_0, 2, 1, 256, 256, 1, &experts_up},
};
enum { N_SHAPE = sizeof shapes / sizeof *shapes };

static void begin(const struct shape *s)
{
    struct rnd rnd = rnd_begin("upload", 11);
    fake_runtime_reset();
    fake_comm_reset();
    fake_faults.n_device = 2;
    api = fake_runtime;
    tiny_model_make(&tiny, &rnd, N_LAYER, s->n_head, s->n_head_kv, HEAD, s->n_embd, s->n_ff, V, 0, s->type, 1, s->tied);
    if (s->features)
        tiny_model_extend(&tiny, &rnd, s->features, s->type);
}

static void end(void)
{
    tiny_model_free(&tiny);
    ck_assert_int_eq(fake_runtime_live(), 0);
    ck_assert_int_eq(fake_comm_live(), 0);
}

/* How to load. */
struct way {
    int32_t n_thread, n_rank;
    size_t buffer_bytes;
    load_progress progress;
};

static int load(const struct way *y, struct backend **b, struct bmodel **m, struct err *e)
{
    const struct backend_ops *ops = cuda_backend(&api, &fake_comm, NULL);
    struct backend_options opt = {.limits = test_limits(V), .n_thread = y->n_thread, .tensor_parallel = y->n_rank};
    *m = NULL;
    int rc = ops->open(&opt, b, e);
    if (rc)
        return rc;
    for (int32_t i = 0; i < y->n_rank; i++)
        ((*b)->rank ? (*b)->rank[i] : *b)->upload_bytes = y->buffer_bytes;
    return ops->load(*b, &tiny.d, &tiny.w, y->progress, NULL, m, e);
}

static void unload(struct backend *b, struct bmodel *m)
{
    const struct backend_ops *ops = cuda_backend(&api, &fake_comm, NULL);
    ops->unload(m);
    ops->close(b);
}

struct image { /* owner: the test; device memory as it is after loading, rank after rank */
    char *bytes;
    size_t n;
};

static struct image image_of(const struct way *y)
{
    struct backend *b;
    struct bmodel *m;
    struct err e = {0};
    struct image to = {0};
    ck_assert_msg(!load(y, &b, &m, &e), "%s", e.msg);
    for (int32_t i = 0; i < y->n_rank; i++) {
        const struct bmodel *r = m->rank ? m->rank[i] : m;
        to.bytes = realloc(to.bytes, to.n + r->weight_bytes);
        memcpy(to.bytes + to.n, r->weights, r->weight_bytes);
        to.n += r->weight_bytes;
    }
    unload(b, m);
    return to;
}

static bool is_same(const struct image *a, const struct image *b)
{
    return a->n == b->n && !memcmp(a->bytes, b->bytes, a->n);
}

/* ---- The bytes ---- */

static void check_matrix(const struct tensor *t, const struct gemm_weight *w)
{
    struct gemm_weight own = *w;
    own.data = malloc(gemm_weight_bytes(w));
    ck_assert_int_eq(gemm_pack(&own, 0, 0, t->type, t->data, dtype_row_bytes(t->type, t->n_col), (int32_t)t->n_row), 0);
    ck_assert(!memcmp(own.data, w->data, gemm_weight_bytes(w)));
    free(own.data);
}

/* Against packing in one go, and the table against its values. */
START_TEST(weights_are_what_packing_makes)
{
    struct backend *b;
    struct bmodel *m;
    struct err e = {0};
    begin(&shapes[_i]);
    const struct way y = {.n_thread = 5, .n_rank = 1, .buffer_bytes = LEAST};
    ck_assert_msg(!load(&y, &b, &m, &e), "%s", e.msg);
    const struct model_weights *w = &tiny.w;
    for (int32_t l = 0; l < N_LAYER; l++) {
        check_matrix(&w->layer[l].wq, &m->layer[l].wq);
        check_matrix(&w->layer[l].wo, &m->layer[l].wo);
        if (!w->layer[l].router.data)
            check_matrix(&w->layer[l].down, &m->layer[l].ffn->down);
    }
    check_matrix(w->out.data ? &w->out : &w->tok_embd, &m->out);
    float *want = malloc(sizeof *want * (size_t)tiny.d.n_embd), *got = malloc(sizeof *got * (size_t)tiny.d.n_embd);
    for (int32_t v = 0; v < V; v++) {
        size_t from = dtype_row_bytes(w->tok_embd.type, tiny.d.n_embd),
               to = dtype_row_bytes(m->table_type, tiny.d.n_embd);
        dtype_to_f32(w->tok_embd.type, (const char *)w->tok_embd.data + from * (size_t)v, want, tiny.d.n_embd);
        dtype_to_f32(m->table_type, (const char *)m->table + to * (size_t)v, got, tiny.d.n_embd);
        for (int32_t i = 0; i < tiny.d.n_embd; i++)
            ck_assert(m->table_type == w->tok_embd.type ? got[i] == want[i]
                                                        : got[i] == f16_to_f32(f32_to_f16(want[i])));
    }
    free(want), free(got);
    unload(b, m);
    end();
}
END_TEST

START_TEST(threads_and_buffers_change_nothing)
{
    static const int32_t threads[] = {1, 2, 5};
    static const size_t buffers[] = {LEAST, 5000, LARGE};
    begin(&shapes[_i]);
    const struct way plain = {.n_thread = 1, .n_rank = 1, .buffer_bytes = LARGE};
    struct image want = image_of(&plain);
    for (int late = 0; late < 2; late++) {
        for (int t = 0; t < 3; t++)
            for (int s = 0; s < 3; s++) {
                const struct way y = {.n_thread = threads[t], .n_rank = 1, .buffer_bytes = buffers[s]};
                struct image got = image_of(&y);
                ck_assert_msg(is_same(&got, &want), "%d threads, %zu bytes", threads[t], buffers[s]);
                free(got.bytes);
            }
        fake_runtime_defer();
    }
    ((char *)tiny.w.layer[N_LAYER - 1].wv.data)[3] ^= 1; /* one bit of all weights shows */
    struct image other = image_of(&plain);
    ck_assert(!is_same(&other, &want));
    free(want.bytes), free(other.bytes);
    end();
}
END_TEST

/* Two ranks load at once, each by threads of its own. */
START_TEST(ranks_load_the_same)
{
    static const int32_t threads[] = {1, 2, 5};
    begin(&(struct shape){DT_Q4_K, 8, 4, 512, 1024, 1, NULL});
    const struct way plain = {.n_thread = 2, .n_rank = 2, .buffer_bytes = LARGE};
    struct image want = image_of(&plain);
    fake_runtime_defer();
    for (int t = 0; t < 3; t++) {
        const struct way y = {.n_thread = threads[t], .n_rank = 2, .buffer_bytes = LEAST};
        struct image got = image_of(&y);
        ck_assert(is_same(&got, &want));
        free(got.bytes);
    }
    free(want.bytes);
    end();
}
END_TEST

static int no_wait(struct CUstream_st *s)
{
    (void)s;
    return 0;
}

static void keep(void *p) /* what is never waited for is still to be copied */
{
    (void)p;
}

static void *kept;
static int alloc_kept(void **out, size_t bytes)
{
    int code = fake_runtime.host_alloc(out, bytes);
    kept = *out;
    return code;
}

/* A loader that did not wait for a buffer before it fills it again would be found out by the test above. */
START_TEST(not_waiting_shows)
{
    struct backend *b;
    struct bmodel *m;
    struct err e = {0};
    const struct way y = {.n_thread = 2, .n_rank = 1, .buffer_bytes = 1 << 15};
    begin(&shapes[6]);
    struct image want = image_of(&y);
    fake_runtime_defer();
    api.stream_wait = no_wait;
    api.host_alloc = alloc_kept;
    api.host_free = keep;
    ck_assert_msg(!load(&y, &b, &m, &e), "%s", e.msg);
    fake_runtime.stream_wait(b->stream);
    ck_assert_uint_eq(want.n, m->weight_bytes);
    ck_assert(memcmp(want.bytes, m->weights, want.n));
    fake_runtime.host_free(kept);
    unload(b, m);
    free(want.bytes);
    end();
}
END_TEST

/* ---- Shares ---- */

START_TEST(threads_are_shared_out)
{
    for (int32_t n_rank = 1; n_rank <= 8; n_rank++)
        for (int32_t n = 1; n <= 40; n++) {
            int32_t sum = 0, least = INT32_MAX, most = 0;
            for (int32_t i = 0; i < n_rank; i++) {
                struct backend b = {.opt = {.n_thread = n}, .index = i, .n_rank = n_rank};
                int32_t own = upload_threads(&b);
                sum += own;
                least = own < least ? own : least;
                most = own > most ? own : most;
            }
            ck_assert_int_ge(least, 1);
            ck_assert_int_le(most, least + 1);
            ck_assert_int_eq(sum, n > n_rank ? n : n_rank);
        }
    struct backend b = {.n_rank = 1};
    ck_assert_int_ge(upload_threads(&b), 1);
    ck_assert_int_le(upload_threads(&b), 16);
}
END_TEST

/* ---- Ends ---- */

static size_t stop_at, last_done, last_total;

static int stop(void *arg, size_t done, size_t total)
{
    (void)arg;
    ck_assert_uint_ge(done, last_done);
    ck_assert_uint_le(done, total);
    last_done = done;
    last_total = total;
    return done >= stop_at;
}

/* At every piece, with copies on their way. */
START_TEST(loading_is_stopped)
{
    const struct way y = {.n_thread = 3, .n_rank = 1, .buffer_bytes = 1 << 13, .progress = stop};
    int n_stopped = 0, rc;
    begin(&shapes[0]);
    fake_runtime_defer();
    stop_at = 1;
    do {
        struct backend *b;
        struct bmodel *m;
        struct err e = {0};
        last_done = 0;
        rc = load(&y, &b, &m, &e);
        ck_assert(!rc == (m != NULL));
        n_stopped += rc == -ERR_CANCELED;
        unload(b, m);
        ck_assert_int_eq(fake_runtime_live(), 0);
        stop_at = last_done + 1;
    } while (rc == -ERR_CANCELED);
    ck_assert_int_eq(rc, 0);
    ck_assert_uint_eq(last_done, last_total);
    ck_assert_int_ge(n_stopped, 30);
    end();
}
END_TEST

enum fault { FAIL_DEVICE, LOSE_DEVICE, FAIL_HOST, N_FAULT };
static const struct {
    int rc, least;
    const char *words;
} faults[N_FAULT] = {
    [FAIL_DEVICE] = {ERR_NOMEM, 2, "out of memory"}, /* weights; buffers */
    [LOSE_DEVICE] = {ERR_DEVICE, 60, "the device is lost"},
    [FAIL_HOST] = {ERR_NOMEM, 4, "out of memory"},
};

/* Whatever fails while it loads is said once, in words, and leaves nothing. */
START_TEST(every_failure_of_loading)
{
    const struct way y = {.n_thread = 3, .n_rank = 1, .buffer_bytes = 1 << 13};
    begin(&shapes[0]);
    for (long n = 1;; n++) {
        struct backend *b;
        struct bmodel *m;
        struct err e = {0};
        ck_assert_int_lt(n, MOST_CALLS);
        fake_runtime_reset();
        fake_runtime_defer();
        fake_faults.fail_alloc = _i == FAIL_DEVICE ? n : 0;
        fake_faults.lose_at = _i == LOSE_DEVICE ? n : 0;
        mem_fail_nth(_i == FAIL_HOST ? n : 0);
        int rc = load(&y, &b, &m, &e);
        mem_fail_nth(0);
        unload(b, m);
        ck_assert_int_eq(fake_runtime_live(), 0);
        if (!rc) {
            ck_assert_int_gt(n, faults[_i].least);
            break;
        }
        ck_assert_int_eq(rc, -faults[_i].rc);
        ck_assert_ptr_null(m);
        ck_assert_msg(strstr(e.msg, faults[_i].words) != NULL, "'%s'", e.msg);
    }
    end();
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("upload");
    tcase_add_loop_test(tc, weights_are_what_packing_makes, 0, N_SHAPE);
    tcase_add_loop_test(tc, threads_and_buffers_change_nothing, 0, N_SHAPE);
    tcase_add_test(tc, ranks_load_the_same);
    tcase_add_test(tc, not_waiting_shows);
    tcase_add_test(tc, threads_are_shared_out);
    tcase_add_test(tc, loading_is_stopped);
    tcase_add_loop_test(tc, every_failure_of_loading, 0, N_FAULT);
    return suite_run(tc);
}
