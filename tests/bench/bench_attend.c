/* Times attention alone, through the back end's contract: models whose layers are nearly nothing but attention, over a
 * pool of keys too large for the caches, a step at a context less a step without one.
 *
 *     bench_attend [-d head size] [-t KV type] [-n threads] [-s seconds a figure] [-r rows]
 *
 * Decoding reports the bytes of K and V read a second against the read bandwidth measured between the steps; a prompt's
 * chunk of 512 rows reports the arithmetic of scores and values. One thread is timed by its own processor time, which
 * neighbours on a shared machine disturb least; more threads by the clock. The best of many steps counts, the median
 * stands beside it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "pool.h"
#include "random_model.h"
#include "rng.h"

enum {
    BLOCK = 16,
    N_LAYER = 4,
    N_EMBD = 64,
    N_VOCAB = 64,
    PROMPT = 512,
    DEEPEST = 16384,
    POOL_BYTES = 512 << 20,
    READ_BYTES = 4 << 20, /* at once; the next read is of other memory */
};

static const struct model_shape shapes[] = {
    {"heads of 64", N_LAYER, N_EMBD, N_EMBD, 32, 8, 64, N_VOCAB, 0, false},
    {"heads of 128", N_LAYER, N_EMBD, N_EMBD, 16, 8, 128, N_VOCAB, 0, false},
};

static const int32_t contexts[] = {512, 2048, 8192, 16384};

struct bench {
    const struct backend_ops *ops;
    struct backend *b;
    struct bmodel *m;
    struct model_desc d;
    struct kv_config kv;
    struct step_plan plan;
    struct step_result out;
    struct pool *pool;
    char *memory; /* for the bandwidth */
    size_t read_at;
    int32_t next_block, n_thread;
    double seconds, bandwidth;
};

static double now(const struct bench *t)
{
    struct timespec at;
    clock_gettime(t->n_thread == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

/* ---- A model that is all attention ---- */

static float *random_floats(size_t n)
{
    float *p = malloc(sizeof *p * n);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)((double)(rng_mix(i) >> 11) * 0x1p-53 - 0.5) * 0.5f;
    return p;
}

static struct tensor tensor(const void *data, int64_t n_row, int64_t n_col)
{
    return (struct tensor){.data = data, .type = DT_F32, .n_row = n_row, .n_col = n_col};
}

static void load(struct bench *t, const struct model_shape *s)
{
    model_shape_describe(s, &t->d);
    int32_t n_q = s->n_head * s->head_dim, n_kv = s->n_head_kv * s->head_dim;
    float *w = random_floats((size_t)n_q * N_EMBD);
    struct layer_weights layer = {.attn_norm = tensor(w, 1, N_EMBD),
                                  .ffn_norm = tensor(w, 1, N_EMBD),
                                  .wq = tensor(w, n_q, N_EMBD),
                                  .wk = tensor(w, n_kv, N_EMBD),
                                  .wv = tensor(w, n_kv, N_EMBD),
                                  .wo = tensor(w, N_EMBD, n_q),
                                  .gate = tensor(w, N_EMBD, N_EMBD),
                                  .up = tensor(w, N_EMBD, N_EMBD),
                                  .down = tensor(w, N_EMBD, N_EMBD)};
    struct layer_weights layers[N_LAYER];
    for (int32_t l = 0; l < N_LAYER; l++)
        layers[l] = layer;
    struct model_weights mw = {
        .tok_embd = tensor(w, N_VOCAB, N_EMBD), .out_norm = tensor(w, 1, N_EMBD), .layer = layers};
    struct err e = {0};
    bench_check(t->ops->load(t->b, &t->d, &mw, NULL, NULL, &t->m, &e), &e);
    free(w);
}

/* ---- Steps ---- */

static double step(struct bench *t)
{
    struct err e = {0};
    double start = now(t);
    bench_check(t->ops->submit(t->m, &t->plan, &e), &e);
    bench_check(t->ops->wait(t->m, &t->out, &e), &e);
    return now(t) - start;
}

/* n rows after a context whose blocks are the pool's next, so that no step finds what the one before left in a cache.
 */
static void chain(struct bench *t, int32_t ctx_len, int32_t n)
{
    int32_t n_block = (ctx_len + n + BLOCK - 1) / BLOCK;
    plan_span(
        &t->plan,
        &(struct span){.ctx_len = ctx_len, .n_chain = n, .n_counted = n, .group = -1, .law = -1, .layer1 = N_LAYER});
    for (int32_t i = 0; i < n; i++)
        plan_row(&t->plan, i % N_VOCAB, ctx_len + i, (int16_t)(i - 1), 0);
    for (int32_t b = 0; b < n_block; b++)
        plan_blocks(&t->plan, &(int32_t){(t->next_block + b) % t->kv.n_block}, 1);
    t->next_block = (t->next_block + n_block) % t->kv.n_block;
}

/* Every block becomes a copy of the first, which a prompt has filled. */
static void fill_pool(struct bench *t)
{
    plan_reset(&t->plan);
    t->next_block = 0;
    chain(t, 0, BLOCK);
    step(t);
    for (int32_t b = 1; b < t->kv.n_block; b++) {
        if ((b - 1) % 128 == 0)
            plan_reset(&t->plan);
        plan_kvop(&t->plan, 0, b * BLOCK, BLOCK);
        if (b % 128 == 0 || b == t->kv.n_block - 1)
            step(t);
    }
}

static void open_model(struct bench *t, const struct model_shape *s, int type)
{
    struct err e = {0};
    int32_t n_kv = s->n_head_kv * s->head_dim;
    int32_t n_block = (int32_t)(POOL_BYTES / (dtype_row_bytes(type, n_kv) * 2 * N_LAYER * BLOCK));
    struct plan_limits limits = {
        .n_span = PROMPT, .n_row = PROMPT, .n_kvop = 128, .n_bt = (DEEPEST + PROMPT) / BLOCK + 1, .n_vocab = N_VOCAB};
    bench_check(t->ops->open(&(struct backend_options){.n_thread = t->n_thread, .limits = limits}, &t->b, &e), &e);
    load(t, s);
    t->kv = (struct kv_config){.block_len = BLOCK, .n_block = n_block, .k_type = type, .v_type = type};
    bench_check(t->ops->kv_create(t->m, &t->kv, &e), &e);
    bench_check(plan_create(&t->plan, &limits, &e), &e);
    fill_pool(t);
}

static void close_model(struct bench *t)
{
    t->ops->unload(t->m);
    t->ops->close(t->b);
    plan_free(&t->plan);
}

/* ---- Figures ---- */

typedef uint64_t line __attribute__((vector_size(64)));

#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default"))) /* short loads keep a third of the bandwidth back */
#endif
static void
read_share(void *arg, int worker)
{
    struct bench *t = arg;
    size_t n = READ_BYTES / (size_t)pool_size(t->pool);
    char *p = t->memory + t->read_at + n * (size_t)worker;
    line sum = {0};
    for (size_t i = 0; i < n; i += sizeof sum) {
        __builtin_prefetch(p + i + 8192, 0, 2);
        sum ^= *(line *)(void *)(p + i);
    }
    *(volatile char *)p ^= (char)sum[0];
}

static void measure_bandwidth(struct bench *t)
{
    double start = now(t);
    pool_run(t->pool, read_share, t);
    t->bandwidth = fmax(t->bandwidth, READ_BYTES / (now(t) - start));
    t->read_at = (t->read_at + READ_BYTES) % POOL_BYTES;
}

struct timing {
    double best, median;
};

static struct timing time_steps(struct bench *t, int32_t n_span, int32_t ctx_len, int32_t n_row)
{
    static double took[8192];
    double end = now(t) + t->seconds;
    int n = 0;
    while (n < 5 || (now(t) < end && n < 8192)) {
        plan_reset(&t->plan);
        for (int32_t i = 0; i < n_span; i++)
            chain(t, ctx_len, n_row);
        took[n++] = step(t);
        measure_bandwidth(t);
    }
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && took[j] < took[j - 1]; j--) {
            double swap = took[j];
            took[j] = took[j - 1];
            took[j - 1] = swap;
        }
    return (struct timing){took[0], took[n / 2]};
}

static void decode(struct bench *t, int32_t n_row)
{
    size_t bytes = dtype_row_bytes(t->kv.k_type, t->d.head_dim) * 2 * (size_t)(t->d.n_head_kv * N_LAYER);
    struct timing none = time_steps(t, 1, 0, n_row);
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        t->bandwidth = 0;
        struct timing with = time_steps(t, 1, contexts[i], n_row);
        double took = with.best - none.best, rate = (double)bytes * contexts[i] / took;
        printf("  %2d row%s at %5d: %8.1f us a layer (median %8.1f)  %5.1f GB/s, %3.0f %% of %.1f\n", n_row,
               n_row == 1 ? " " : "s", contexts[i], took / N_LAYER * 1e6, (with.median - none.median) / N_LAYER * 1e6,
               rate * 1e-9, 100 * rate / t->bandwidth, t->bandwidth * 1e-9);
        fflush(stdout);
    }
}

static void prompt(struct bench *t)
{
    struct timing none = time_steps(t, PROMPT, 0, 1);
    for (int i = 0; i < 2; i++) {
        int32_t ctx_len = i ? 8192 : 0;
        struct timing with = time_steps(t, 1, ctx_len, PROMPT);
        double n_key = PROMPT * (ctx_len + (PROMPT + 1) / 2.0), took = with.best - none.best;
        double flop = n_key * 4 * t->d.n_head * t->d.head_dim * N_LAYER;
        printf("  %d rows at %5d: %8.2f ms a layer (median %8.2f)  %6.1f GFLOP/s\n", PROMPT, ctx_len,
               took / N_LAYER * 1e3, (with.median - none.median) / N_LAYER * 1e3, flop / took * 1e-9);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    struct bench t = {.seconds = 1, .n_thread = 1};
    struct err e = {0};
    const char *type_name = NULL;
    int32_t dim = 0, n_row = 0, opt;
    while ((opt = getopt(argc, argv, "d:t:n:s:r:")) != -1) {
        if (opt == 'd')
            dim = atoi(optarg);
        else if (opt == 't')
            type_name = optarg;
        else if (opt == 'n')
            t.n_thread = atoi(optarg);
        else if (opt == 's')
            t.seconds = atof(optarg);
        else if (opt == 'r')
            n_row = atoi(optarg);
        else
            return 1;
    }
    t.ops = backend_find("cpu", &e);
    bench_check(pool_create(&t.pool, t.n_thread, &e), &e);
    t.memory = aligned_alloc(2 << 20, POOL_BYTES);
    madvise(t.memory, POOL_BYTES, MADV_HUGEPAGE);
    memset(t.memory, 1, POOL_BYTES);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int i = 0; i < 2; i++) {
            int type = type_name ? dtype_by_name(type_name) : i ? DT_Q8_0 : DT_F16;
            if ((dim && dim != shapes[s].head_dim) || (type_name && i))
                continue;
            open_model(&t, &shapes[s], type);
            printf("head size %d, %d heads to a KV head, %s, %d thread%s\n", shapes[s].head_dim,
                   shapes[s].n_head / shapes[s].n_head_kv, dtype_info(type)->name, t.n_thread,
                   t.n_thread == 1 ? "" : "s");
            decode(&t, n_row ? n_row : 1);
            if (!n_row) {
                decode(&t, 8);
                prompt(&t);
            }
            close_model(&t);
        }
    pool_free(t.pool);
    free(t.memory);
    return 0;
}
