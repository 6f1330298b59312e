/* A launch: the grid's blocks in random order over OS threads, each with shared memory of its own. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "simt.h"

enum { MAX_WORKER = 8, SMEM_LIMIT_BYTES = 227 * 1024 };

struct launch { /* owner: simt_launch */
    const char *kernel;
    struct simt_dim grid, block;
    size_t smem_bytes, n_block, next; /* next: of order, taken atomically */
    uint64_t seed, first, step;       /* the i-th block to run is first + i * step, modulo n_block */
    void (*body)(void *arg);
    void *arg;
};

struct worker { /* owner: this file; its stacks live on from launch to launch */
    struct simt_block block;
    struct launch *launch;
    pthread_t thread;
};

static struct worker workers[MAX_WORKER];
static uint64_t launch_seed = 1;
static int n_thread;
static bool (*taken)(const struct simt_call *c, void *stream);

void simt_seed(uint64_t seed)
{
    launch_seed = seed;
}

void simt_set_threads(int n)
{
    n_thread = n;
}

void simt_on_launch(bool (*take)(const struct simt_call *c, void *stream))
{
    taken = take;
}

static size_t greatest_divisor(size_t a, size_t b)
{
    return b ? greatest_divisor(b, a % b) : a;
}

static void choose_order(struct launch *l)
{
    uint64_t rng = l->seed;
    l->first = simt_random(&rng, l->n_block);
    do
        l->step = 1 + simt_random(&rng, l->n_block);
    while (greatest_divisor(l->step, l->n_block) != 1);
}

static void block_run(struct launch *l, struct simt_block *b, size_t i)
{
    size_t at = (l->first + i * l->step) % l->n_block;
    b->id = (struct simt_dim){(unsigned)(at % l->grid.x), (unsigned)(at / l->grid.x % l->grid.y),
                              (unsigned)(at / l->grid.x / l->grid.y)};
    b->rng = (l->seed + at) * 0x9E3779B97F4A7C15u;
    simt_block_run(b);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct launch *l = w->launch;
    struct simt_block *b = &w->block;
    b->kernel = l->kernel;
    b->dim = l->block;
    b->grid = l->grid;
    b->n_thread = l->block.x * l->block.y * l->block.z;
    b->n_warp = b->n_thread / SIMT_WARP;
    b->body = l->body;
    b->arg = l->arg;
    b->smem_bytes = l->smem_bytes;
    b->smem = aligned_alloc(128, (l->smem_bytes + 128) / 128 * 128);
    b->shadow = simt_race_enabled() ? simt_race_shadow(l->smem_bytes) : NULL;
    if (!b->thread) {
        b->thread = calloc(SIMT_MAX_THREAD, sizeof *b->thread);
        b->warp = calloc(SIMT_MAX_THREAD / SIMT_WARP, sizeof *b->warp);
    }
    if (!b->smem || !b->thread || !b->warp)
        abort();
    for (size_t i; (i = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED)) < l->n_block;)
        block_run(l, b, i);
    free(b->smem);
    free(b->shadow);
    return NULL;
}

static void refuse(const char *kernel, const char *why)
{
    fprintf(stderr, "simt: %s: %s\n", kernel, why);
    abort();
}

static void check_shape(const struct simt_call *c)
{
    unsigned n_thread_block = c->block.x * c->block.y * c->block.z;
    if (!c->grid.x || !c->grid.y || !c->grid.z || c->grid.y > 65535 || c->grid.z > 65535)
        refuse(c->kernel, "an empty grid, or one too large");
    if (!n_thread_block || n_thread_block > SIMT_MAX_THREAD || n_thread_block % SIMT_WARP)
        refuse(c->kernel, "a block is whole warps, at most 1024 threads");
    if (c->smem_bytes > SMEM_LIMIT_BYTES)
        refuse(c->kernel, "more shared memory than any device has");
}

void simt_launch(const struct simt_call *c, void *stream)
{
    check_shape(c);
    if (!taken || !taken(c, stream))
        simt_run(c);
}

/* One launch at a time, whoever calls: its blocks have all processors. */
void simt_run(const struct simt_call *c)
{
    static pthread_mutex_t running = PTHREAD_MUTEX_INITIALIZER;
    struct launch l = {.kernel = c->kernel,
                       .grid = c->grid,
                       .block = c->block,
                       .smem_bytes = c->smem_bytes,
                       .n_block = (size_t)c->grid.x * c->grid.y * c->grid.z,
                       .seed = launch_seed,
                       .body = c->body,
                       .arg = c->arg};
    choose_order(&l);

    long n_cpu = n_thread ? n_thread : sysconf(_SC_NPROCESSORS_ONLN);
    size_t n_worker = n_cpu < 1 ? 1 : n_cpu > MAX_WORKER ? MAX_WORKER : (size_t)n_cpu;
    if (n_worker > l.n_block)
        n_worker = l.n_block;
    pthread_mutex_lock(&running);
    for (size_t i = 0; i < n_worker; i++)
        workers[i].launch = &l;
    for (size_t i = 1; i < n_worker; i++)
        if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]))
            abort();
    worker_main(&workers[0]);
    for (size_t i = 1; i < n_worker; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_mutex_unlock(&running);
}
