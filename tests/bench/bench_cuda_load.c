/* What loading a model costs the host of the cuda back end: repacking weights into staging, on the fake runtime with
 * copies left out, as a device would fetch them beside it. Beside each figure stands what copying the same bytes to the
 * same staging costs on as many threads, in turns with it: a shared machine is not the same from one second to the
 * next. Bytes are the file's, and they are in memory.
 *
 *     bench_cuda_load SHAPE TYPE [runs]      llama-1b Q4_K (random_model.c has the shapes), on 1 and on 2 threads
 *     bench_cuda_load pack [runs]            packing alone, of every format */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../simt/fake_runtime.h"
#include "gemm.h"
#include "pool.h"
#include "random_model.h"

enum { MAX_RUN = 99, STAGING_BYTES = 32 << 20 };

static const int threads[] = {1, 2};
enum { N_THREADS = sizeof threads / sizeof *threads };

/* ---- Timing ---- */

struct seconds {
    double wall, cpu; /* cpu: of all threads, whatever else the machine does */
};

static double clock_s(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct seconds now(void)
{
    return (struct seconds){clock_s(CLOCK_MONOTONIC), clock_s(CLOCK_PROCESS_CPUTIME_ID)};
}

static struct seconds since(struct seconds start)
{
    struct seconds end = now();
    return (struct seconds){end.wall - start.wall, end.cpu - start.cpu};
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *t, int n)
{
    qsort(t, (size_t)n, sizeof *t, by_size);
    return t[n / 2];
}

static struct seconds medians(const struct seconds *t, int n)
{
    double wall[MAX_RUN], cpu[MAX_RUN];
    for (int i = 0; i < n; i++) {
        wall[i] = t[i].wall;
        cpu[i] = t[i].cpu;
    }
    return (struct seconds){median(wall, n), median(cpu, n)};
}

/* ---- A model ---- */

struct copying {
    const char *from;
    char *to; /* [STAGING_BYTES] */
    size_t bytes, share;
};

static void copy_share(void *arg, int worker)
{
    const struct copying *c = arg;
    size_t at = c->share * (size_t)worker, left = c->bytes > at ? c->bytes - at : 0;
    memcpy(c->to + at, c->from + at, left < c->share ? left : c->share);
}

static struct seconds copy_all(const char *from, size_t bytes, char *staging, int n_thread)
{
    struct pool *pool;
    struct err e = {0};
    bench_check(pool_create(&pool, n_thread, &e), &e);
    struct seconds start = now();
    for (size_t at = 0; at < bytes; at += STAGING_BYTES) {
        struct copying c = {.from = from + at, .to = staging};
        c.bytes = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        c.share = (c.bytes + (size_t)n_thread - 1) / (size_t)n_thread;
        pool_run(pool, copy_share, &c);
    }
    struct seconds s = since(start);
    pool_free(pool);
    return s;
}

static struct seconds load_all(const struct model_shape *s, const struct random_weights *r, int n_thread)
{
    const struct backend_ops *ops = cuda_backend(&fake_runtime, NULL, NULL);
    struct backend_options opt = {.n_thread = n_thread, .limits = {.n_row = 16, .n_vocab = s->n_vocab}};
    struct model_desc d;
    struct backend *b;
    struct bmodel *m;
    struct err e = {0};
    model_shape_describe(s, &d);
    bench_check(ops->open(&opt, &b, &e), &e);
    struct seconds start = now();
    bench_check(ops->load(b, &d, &r->w, NULL, NULL, &m, &e), &e);
    struct seconds t = since(start);
    ops->unload(m);
    ops->close(b);
    return t;
}

static void bench_load(const struct model_shape *s, const char *type, int n)
{
    static struct seconds load[N_THREADS][MAX_RUN], copy[N_THREADS][MAX_RUN];
    struct random_weights r;
    char *staging = malloc(STAGING_BYTES);
    random_weights_make(&r, s, dtype_by_name(type), true);
    memset(staging, 0, STAGING_BYTES);
    fake_runtime_reset();
    fake_runtime_skip();
    fake_faults.total_bytes = (size_t)1 << 46;
    for (int run = 0; run < n; run++)
        for (int i = 0; i < N_THREADS; i++) {
            copy[i][run] = copy_all(r.matrices, r.bytes, staging, threads[i]);
            load[i][run] = load_all(s, &r, threads[i]);
        }
    double gb = (double)r.bytes * 1e-9;
    printf("GB/s of the file, by the clock and by processor seconds; memcpy beside it\n");
    for (int i = 0; i < N_THREADS; i++) {
        struct seconds l = medians(load[i], n), c = medians(copy[i], n);
        printf("%s %s, %.2f GB, %d threads: load %.3f s: %.2f, %.2f; memcpy %.2f, %.2f\n", s->name, type, gb,
               threads[i], l.wall, gb / l.wall, gb / l.cpu, gb / c.wall, gb / c.cpu);
    }
    random_weights_free(&r);
    free(staging);
}

/* ---- Packing ---- */

enum { N_OUT = 8192, N_IN = 2048 };

static struct seconds pack_one(struct gemm_weight *w, int type, const void *rows)
{
    size_t row_bytes = dtype_row_bytes(type, N_IN);
    struct seconds start = now();
    if (gemm_pack(w, 0, 0, type, rows, row_bytes, N_OUT))
        abort();
    return since(start);
}

static void bench_pack(int type, int n)
{
    struct seconds pack[MAX_RUN], copy[MAX_RUN];
    struct model_shape s = {.n_embd = N_IN, .n_vocab = N_OUT};
    struct random_weights r;
    struct gemm_weight w;
    random_weights_make(&r, &s, type, false);
    if (gemm_plan((enum gemm_format)gemm_format_of(type), 1, N_OUT, N_IN, &w))
        abort();
    w.data = calloc(1, gemm_weight_bytes(&w));
    char *staging = malloc(STAGING_BYTES);
    for (int run = 0; run < n; run++) {
        pack[run] = pack_one(&w, type, r.matrices);
        copy[run] = copy_all(r.matrices, r.bytes, staging, 1);
    }
    double gb = (double)r.bytes * 1e-9;
    printf("%-6s %6.2f GB/s   memcpy %6.2f GB/s\n", dtype_info(type)->name, gb / medians(pack, n).cpu,
           gb / medians(copy, n).cpu);
    free(staging);
    free(w.data);
    random_weights_free(&r);
}

int main(int argc, char **argv)
{
    bool packs = argc > 1 && !strcmp(argv[1], "pack");
    const struct model_shape *s = argc > 2 ? model_shape_find(argv[1]) : NULL;
    int at = packs ? 2 : 3, n = argc > at ? atoi(argv[at]) : 7;
    if ((!packs && (!s || dtype_by_name(argv[2]) < 0)) || n < 1 || n > MAX_RUN) {
        fprintf(stderr, "usage: bench_cuda_load SHAPE TYPE [runs] | pack [runs]\n");
        return 2;
    }
    for (int type = 0; packs && type <= DT_FP8; type++)
        if (gemm_format_of(type) >= 0)
            bench_pack(type, n);
    if (!packs)
        bench_load(s, argv[2], n);
    return 0;
}
