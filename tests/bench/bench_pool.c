/* What a worker pool gets done: regions like those of a step, phases of work that is handed out, with barriers between.
 *
 *     bench_pool [seconds [workers [microseconds of work a phase [phases a region]]]]
 *
 * Prints phases a second. tests/bench/neighbours.py runs it alone and beside others. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "pool.h"
#include "wake.h"

enum {
    MAX_PHASE = 4096,
    PIECES = 8,
    STEPS_PER_US = 600
}; /* the last: the same work every time, about right at 2.5 GHz */

struct regions {
    struct pool *pool;
    int n_phase;
    long piece_steps;
    atomic_int ticket[MAX_PHASE];
};

static void work(long n_step)
{
    volatile unsigned sink;
    unsigned x = 1;
    for (long i = 0; i < n_step; i++)
        x = x * 1664525u + 1013904223u;
    sink = x;
    (void)sink;
}

static void region(void *arg, int worker)
{
    struct regions *r = arg;
    for (int i = 0; i < r->n_phase; i++) {
        while (atomic_fetch_add(&r->ticket[i], 1) < PIECES * pool_size(r->pool))
            work(r->piece_steps);
        pool_barrier(r->pool);
    }
}

static double number(int argc, char **argv, int i, double fallback)
{
    return argc > i ? strtod(argv[i], NULL) : fallback;
}

int main(int argc, char **argv)
{
    static struct regions r;
    struct err e = {0};
    double seconds = number(argc, argv, 1, 2), us = number(argc, argv, 3, 20);
    int n_worker = (int)number(argc, argv, 2, 2);
    r.n_phase = (int)number(argc, argv, 4, 80);
    r.n_phase = r.n_phase < MAX_PHASE ? r.n_phase : MAX_PHASE;
    if (pool_create(&r.pool, n_worker, &e)) {
        fprintf(stderr, "bench_pool: %s\n", e.msg);
        return 1;
    }
    r.piece_steps = (long)(us * STEPS_PER_US / PIECES);
    int64_t from = clock_ns(), end = from + (int64_t)(seconds * 1e9);
    long n = 0;
    for (; clock_ns() < end; n++) {
        for (int i = 0; i < r.n_phase; i++)
            atomic_store(&r.ticket[i], 0);
        pool_run(r.pool, region, &r);
    }
    printf("%.0f phases a second\n", (double)n * r.n_phase / (double)(clock_ns() - from) * 1e9);
    pool_free(r.pool);
    return 0;
}
