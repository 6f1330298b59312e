/* Measuring the model's passes on this machine: `galley bench`. No scheduler, no sampling parameters: plans go straight
 * to the back end. */
#ifndef GALLEY_BENCH_H
#define GALLEY_BENCH_H

#include "engine.h"

struct bench_row {
    bool prefill;           /* else decode */
    int32_t n_seq;          /* sequences in the step */
    int32_t depth;          /* tokens before the measured ones */
    int32_t n_token;        /* prefill: tokens of the prompt; decode: steps */
    double tokens_per_s;    /* median of the repetitions */
    double spread;          /* (largest - smallest) / median */
    double weight_gb_per_s; /* weights read once a step; 0 for prefill */
    double bandwidth_share; /* of the read bandwidth measured just before and after; 0 for prefill */
};

struct bench_report {
    char model[128], device[128];
    double read_gb_per_s; /* median over all rows */
    int32_t n_row;
    struct bench_row row[64];
};

/* Runs prefill of n_prefill tokens and decoding at each depth and batch size (0 ends the lists), n_repeat times each.
 * `tell` (may be NULL) is called with each finished row. */
int engine_bench(const struct engine_options *opt, int32_t n_prefill, const int32_t *depth, const int32_t *batch,
                 int32_t n_repeat, void (*tell)(const struct bench_row *row), struct bench_report *out, struct err *e);

#endif
