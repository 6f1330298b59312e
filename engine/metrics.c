#include "metrics.h"

#include <stdatomic.h>
#include <string.h>

/* vLLM's bucket bounds, so that dashboards made for it fit. */
static const double first_token_bound[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,
                                           .75,  1,    2.5, 5,   7.5, 10,  20,  40, 80};
static const double inter_token_bound[] = {.001, .0025, .005, .01, .025, .05, .075, .1, .15,
                                           .2,   .3,    .4,   .5,  .75,  1,   2.5,  5,  10};
static const double request_bound[] = {.05, .1, .3, .5, .8, 1,  1.5, 2,   2.5, 5,  10,
                                       15,  20, 30, 40, 50, 60, 120, 240, 480, 960};
static const double tokens_bound[] = {1,   2,    5,    10,   20,    50,    100,   200,
                                      500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
static const double rows_bound[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

#define HIST(bounds) ((struct histogram){.n_bucket = sizeof bounds / sizeof *bounds, .bound = bounds})

void metrics_init(struct metrics *m)
{
    memset(m, 0, sizeof *m);
    m->now.queue_s = HIST(request_bound);
    m->now.total_s = HIST(request_bound);
    m->now.first_token_s = HIST(first_token_bound);
    m->now.inter_token_s = HIST(inter_token_bound);
    m->now.prompt_tokens = HIST(tokens_bound);
    m->now.output_tokens = HIST(tokens_bound);
    m->now.step_rows = HIST(rows_bound);
    m->published = m->now;
}

void hist_add(struct histogram *h, double value)
{
    int32_t i = 0;
    while (i < h->n_bucket && value > h->bound[i])
        i++;
    h->count[i]++;
    h->sum += value;
}

/* A sequence lock over 64-bit words, each copied atomically: no reader ever sees half a step, and TSan agrees. */
enum { N_WORD = sizeof(struct engine_metrics) / sizeof(uint64_t) };
_Static_assert(sizeof(struct engine_metrics) % sizeof(uint64_t) == 0, "copied word by word");

void metrics_publish(struct metrics *m)
{
    const uint64_t *from = (const uint64_t *)&m->now;
    uint64_t *to = (uint64_t *)&m->published;
    atomic_fetch_add_explicit(&m->version, 1, memory_order_acq_rel);
    for (int i = 0; i < N_WORD; i++)
        __atomic_store_n(&to[i], from[i], __ATOMIC_RELEASE);
    atomic_fetch_add_explicit(&m->version, 1, memory_order_release);
}

void metrics_read(const struct metrics *m, struct engine_metrics *out)
{
    const uint64_t *from = (const uint64_t *)&m->published;
    uint64_t *to = (uint64_t *)out;
    uint32_t before, after;
    do {
        before = atomic_load_explicit(&m->version, memory_order_acquire);
        for (int i = 0; i < N_WORD; i++)
            to[i] = __atomic_load_n(&from[i], __ATOMIC_ACQUIRE);
        after = atomic_load_explicit(&m->version, memory_order_relaxed);
    } while (before != after || before & 1);
    out->n_rejected = atomic_load_explicit(&m->n_rejected, memory_order_relaxed);
}
