/* One block on one OS thread: which warp goes on next, barriers, and what is reported when nothing can go on. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simt.h"

__thread struct simt_thread *simt_self;

void simt_fault(const struct simt_thread *t, const char *fmt, ...)
{
    char what[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    const struct simt_block *b = t->block;
    fprintf(stderr, "simt: %s, block (%u, %u, %u), thread %u: %s\n", b->kernel, b->id.x, b->id.y, b->id.z, t->index,
            what);
    abort();
}

uint64_t simt_random(uint64_t *state, uint64_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
    return (*state >> 33) % n;
}

static void shuffle(uint64_t *rng, unsigned *v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        v[i] = i;
    for (unsigned i = n; i > 1; i--) {
        unsigned j = (unsigned)simt_random(rng, i), t = v[i - 1];
        v[i - 1] = v[j];
        v[j] = t;
    }
}

/* ---- From inside a kernel ---- */

void simt_yield(enum simt_state state, const char *op, struct simt_site at)
{
    struct simt_thread *t = simt_self;
    t->state = state;
    t->op = op;
    t->at = at;
    simt_fiber_switch(&t->fiber, &t->block->host, state == SIMT_EXITED);
}

void simt_block_sync(struct simt_site at)
{
    simt_yield(SIMT_AT_BARRIER, "block sync", at);
}

void *simt_smem(void)
{
    return simt_self->block->smem;
}

static void thread_main(void)
{
    struct simt_thread *t = simt_self;
    t->block->body(t->block->arg);
    simt_copy_check_end(t);
    simt_yield(SIMT_EXITED, "end", t->at);
}

/* ---- The schedule ---- */

static void thread_resume(struct simt_thread *t)
{
    simt_self = t;
    simt_fiber_switch(&t->block->host, &t->fiber, false);
    simt_self = NULL;
}

static bool warp_is_ready(const struct simt_warp *w)
{
    for (int i = 0; i < SIMT_WARP; i++)
        if (w->lane[i].state == SIMT_READY)
            return true;
    return false;
}

/* Runs a warp, its lanes in a new order each time, until all of it waits at a barrier or has ended. */
static void warp_run(struct simt_block *b, struct simt_warp *w)
{
    while (warp_is_ready(w)) {
        unsigned pick = (unsigned)simt_random(&b->rng, SIMT_WARP * SIMT_WARP), step = pick / SIMT_WARP * 2 + 1;
        for (unsigned i = 0; i < SIMT_WARP; i++) {
            struct simt_thread *t = &w->lane[(pick + i * step) % SIMT_WARP]; /* an odd step visits every lane */
            if (t->state == SIMT_READY)
                thread_resume(t);
        }
        simt_warp_release(w);
    }
}

static bool same_site(struct simt_site a, struct simt_site b)
{
    return a.line == b.line && !strcmp(a.file, b.file);
}

/* No thread can run: all have ended (returns false), or all stand at one barrier, which opens. */
static bool barrier_release(struct simt_block *b)
{
    struct simt_thread *first = &b->thread[0];
    for (unsigned i = 1; i < b->n_thread; i++) {
        struct simt_thread *t = &b->thread[i];
        if (t->state != first->state) {
            struct simt_thread *waits = t->state == SIMT_AT_BARRIER ? t : first, *gone = waits == t ? first : t;
            simt_fault(waits, "deadlock: it waits at %s:%d, thread %u has ended", waits->at.file, waits->at.line,
                       gone->index);
        }
        if (t->state == SIMT_AT_BARRIER && !same_site(t->at, first->at))
            simt_fault(t, "divergent barrier: it waits at %s:%d, thread 0 at %s:%d", t->at.file, t->at.line,
                       first->at.file, first->at.line);
    }
    if (first->state == SIMT_EXITED)
        return false;
    b->epoch++;
    for (unsigned i = 0; i < b->n_thread; i++)
        b->thread[i].state = SIMT_READY;
    return true;
}

static void block_begin(struct simt_block *b)
{
    memset(b->smem, 0xff, b->smem_bytes); /* NaN in bf16, f16, f32 and fp8 */
    b->epoch++;
    for (unsigned i = 0; i < b->n_warp; i++) {
        b->warp[i].lane = &b->thread[i * SIMT_WARP];
        b->warp[i].epoch = 0;
    }
    for (unsigned i = 0; i < b->n_thread; i++) {
        struct simt_thread *t = &b->thread[i];
        t->tid = (struct simt_dim){i % b->dim.x, i / b->dim.x % b->dim.y, i / b->dim.x / b->dim.y};
        t->index = i;
        t->lane = i % SIMT_WARP;
        t->block = b;
        t->warp = &b->warp[i / SIMT_WARP];
        t->state = SIMT_READY;
        t->at = (struct simt_site){"start", 0};
        t->n_meet = 0;
        t->n_copy = t->n_group = 0;
        if (!t->fiber.stack)
            simt_fiber_create(&t->fiber);
        simt_fiber_start(&t->fiber, thread_main);
    }
}

void simt_block_run(struct simt_block *b)
{
    block_begin(b);
    do {
        unsigned order[SIMT_MAX_THREAD / SIMT_WARP];
        shuffle(&b->rng, order, b->n_warp);
        for (unsigned i = 0; i < b->n_warp; i++)
            warp_run(b, &b->warp[order[i]]);
    } while (barrier_release(b));
}
