#include "roof.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mem.h"
#include "pool.h"
#include "wake.h"

enum {
    MIB = 1 << 20,
    LEAST_BUF = 256 * MIB,
    MOST_BUF = 1024 * MIB,
    LINE = 64,
    PASS_BYTES = 32 * MIB, /* of one thread */
    AHEAD = 4096,          /* bytes that are prefetched before they are read, in each of two streams */
    PASS_DOTS = 1 << 16,   /* turns of an int8 loop in a pass */
    DOTS = 12,             /* independent sums in a turn: more than a dot's latency times its throughput */
    MAX_PASS = 1024,
};

struct roof {
    struct pool *pool;
    char *buf;          /* [n_thread][share_bytes] */
    size_t share_bytes; /* what one thread reads of, whole passes */
    size_t at;          /* where in each share the next pass begins */
    uint64_t sink;      /* so that no loop is left out */
};

/* ---- Reading ---- */

typedef uint64_t line __attribute__((vector_size(LINE)));

/* Two streams, and prefetches into the second cache: what reads most on the machines that were tried, where one stream
 * or prefetches into the first cache lose a tenth and non-temporal ones half. */
static inline __attribute__((always_inline)) uint64_t read_lines(const line *p, size_t n)
{
    const line *q = p + n / 2;
    line a = {0}, b = {0};
    for (size_t i = 0; i < n / 2; i++) {
        __builtin_prefetch((const char *)(p + i) + AHEAD, 0, 2);
        __builtin_prefetch((const char *)(q + i) + AHEAD, 0, 2);
        a += p[i];
        b += q[i];
    }
    a += b;
    return a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static uint64_t read_avx512(const line *p, size_t n)
{
    return read_lines(p, n);
}

__attribute__((target("avx2"))) static uint64_t read_avx2(const line *p, size_t n)
{
    return read_lines(p, n);
}
#endif

static uint64_t read_all(const line *p, size_t n)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return read_avx512(p, n);
    if (__builtin_cpu_supports("avx2"))
        return read_avx2(p, n);
#endif
    return read_lines(p, n);
}

static void read_pass(void *arg, int worker)
{
    struct roof *r = arg;
    const char *p = r->buf + r->share_bytes * (size_t)worker + r->at;
    uint64_t sum = read_all((const line *)p, PASS_BYTES / LINE);
    __atomic_fetch_add(&r->sink, sum, __ATOMIC_RELAXED);
}

/* ---- 8-bit products ---- */

#if defined(__x86_64__)
typedef int32_t zmm __attribute__((vector_size(64)));
typedef int32_t ymm __attribute__((vector_size(32)));

/* In assembler: a compiler would see that the products are all the same. */
__attribute__((target("avx512f,avx512vnni"))) static void dots_vnni(void)
{
    zmm sum[DOTS] = {0}, a = {0}, b = {0};
    for (int i = 0; i < PASS_DOTS; i++)
#pragma GCC unroll 12
        for (int k = 0; k < DOTS; k++)
            __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum[k]) : "v"(a), "v"(b));
}

__attribute__((target("avx2"))) static void dots_avx2(void)
{
    ymm sum[DOTS] = {0}, a = {0}, b = {0}, ones = {0}, part;
    for (int i = 0; i < PASS_DOTS; i++)
#pragma GCC unroll 12
        for (int k = 0; k < DOTS; k++)
            __asm__ volatile("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
                             : "+x"(sum[k]), "=&x"(part)
                             : "x"(a), "x"(b), "x"(ones));
}
#endif

static const struct dots {
    const char *name;
    void (*pass)(void);
    double ops; /* of a turn of the inner loop */
} no_dots = {"none", NULL, 0};

static const struct dots *find_dots(void)
{
#if defined(__x86_64__)
    static const struct dots vnni = {"avx512-vnni", dots_vnni, 2 * 64}, avx2 = {"avx2", dots_avx2, 2 * 32};
    if (__builtin_cpu_supports("avx512vnni"))
        return &vnni;
    if (__builtin_cpu_supports("avx2"))
        return &avx2;
#endif
    return &no_dots;
}

static void dots_pass(void *arg, int worker)
{
    find_dots()->pass();
}

const char *roof_int8_name(void)
{
    return find_dots()->name;
}

/* ---- Passes ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double pass_rate(struct roof *r, pool_fn pass, double work)
{
    int64_t start = clock_ns();
    pool_run(r->pool, pass, r);
    r->at = (r->at + PASS_BYTES) % r->share_bytes;
    return work / (double)(clock_ns() - start);
}

static struct roof_rate measure(struct roof *r, pool_fn pass, double work, double seconds)
{
    double rate[MAX_PASS];
    int n = 0;
    int64_t end = clock_ns() + (int64_t)(seconds * 1e9);
    pass_rate(r, pass, work); /* wakes threads and clocks */
    while (n < 3 || (n < MAX_PASS && clock_ns() < end))
        rate[n++] = pass_rate(r, pass, work);
    qsort(rate, (size_t)n, sizeof *rate, compare);
    return (struct roof_rate){.best = rate[n - 1], .median = rate[n / 2]};
}

struct roof_rate roof_read(struct roof *r, double seconds)
{
    return measure(r, read_pass, (double)PASS_BYTES * pool_size(r->pool), seconds);
}

struct roof_rate roof_int8(struct roof *r, double seconds)
{
    const struct dots *d = find_dots();
    if (!d->pass)
        return (struct roof_rate){0};
    return measure(r, dots_pass, d->ops * DOTS * PASS_DOTS * pool_size(r->pool), seconds);
}

/* ---- Making one ---- */

static void touch_share(void *arg, int worker)
{
    struct roof *r = arg;
    memset(r->buf + r->share_bytes * (size_t)worker, 1, r->share_bytes); /* where this thread runs: its memory node */
}

/* Four times the last cache, as far as it is known, in whole passes of every thread. */
static size_t share_size(int n_thread)
{
    long cache = -1;
#if defined(_SC_LEVEL3_CACHE_SIZE)
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    size_t all = cache > 0 ? 4 * (size_t)cache : LEAST_BUF;
    all = all < LEAST_BUF ? LEAST_BUF : all > MOST_BUF ? MOST_BUF : all;
    return (all / (size_t)n_thread + PASS_BYTES - 1) / PASS_BYTES * PASS_BYTES;
}

int roof_create(struct roof **out, int n_thread, struct err *e)
{
    struct roof *r = mem_calloc(1, sizeof *r);
    if (!r)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = pool_create(&r->pool, n_thread > 0 ? n_thread : (int)sysconf(_SC_NPROCESSORS_ONLN), e);
    if (rc)
        goto out;
    r->share_bytes = share_size(pool_size(r->pool));
    size_t size = r->share_bytes * (size_t)pool_size(r->pool);
    r->buf = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (r->buf == MAP_FAILED) {
        r->buf = NULL;
        rc = err_set(e, ERR_NOMEM, "out of memory");
        goto out;
    }
    madvise(r->buf, size, MADV_HUGEPAGE); /* as weights are: page walks are not what is measured */
    pool_run(r->pool, touch_share, r);
    *out = r;
out:
    if (rc)
        roof_free(r);
    return rc;
}

void roof_free(struct roof *r)
{
    if (!r)
        return;
    if (r->buf)
        munmap(r->buf, r->share_bytes * (size_t)pool_size(r->pool));
    pool_free(r->pool);
    mem_free(r);
}
