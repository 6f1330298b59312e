/* Measuring the model's passes on this machine: `galley bench`. No scheduler, no sampling parameters: plans go straight
 * to the back end. */
#ifndef GALLEY_BENCH_H
#define GALLEY_BENCH_H

#include "engine.h"

enum bench_work {
    BENCH_PREFILL, /* a prompt, in steps as large as the engine makes them */
    BENCH_DECODE,  /* steps of one token of each of n_seq sequences */
    BENCH_VERIFY,  /* steps of n_row tokens of one sequence with a draw each, as drafted tokens are verified */
};

struct bench_row {
    enum bench_work work;
    int32_t n_seq;          /* sequences in a step */
    int32_t n_row;          /* tokens of each of them; prefill: of the prompt */
    int32_t n_step;         /* in a repetition; prefill: 1 */
    int32_t depth;          /* tokens before the measured ones */
    double tokens_per_s;    /* median of the repetitions: n_seq * n_row a step */
    double step_ms;         /* the same, as a step's time */
    double spread;          /* (largest - smallest) / median */
    double weight_gb_per_s; /* weights read once a step; 0 for prefill */
    double read_gb_per_s;   /* this machine's read bandwidth just before and after, the median; 0 for prefill */
    double bandwidth_share; /* of it; 0 for prefill */
};

enum { BENCH_MAX_ROW = 64, BENCH_MAX_REPEAT = 32 };

struct bench_want { /* lists end with -1 */
    const int32_t *prefill, *depth;
    const int32_t *batch, *verify; /* at each depth: n_seq of a decode row, n_row of a verify row */
    int32_t n_step, n_repeat;
};

struct bench_report {
    char model[128], device[128];
    double read_gb_per_s; /* median over all rows */
    int32_t n_row;
    struct bench_row row[BENCH_MAX_ROW];
};

/* Measures all that is wanted. Rows of one depth take turns, repetition by repetition, so that a noisy machine disturbs
 * all alike. `tell` (may be NULL) is called with each finished row. */
int engine_bench(const struct engine_options *opt, const struct bench_want *want,
                 void (*tell)(const struct bench_row *row), struct bench_report *out, struct err *e);

#endif
