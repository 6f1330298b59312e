/* Partial results of attention over segments, and how they become one. Private to kernels/cpu/simd.
 *
 * They are merged as a binary tree over the segments' absolute numbers: what covers segments 2 k and 2 k + 1 of a level
 * is their merger, or the one of them that there is. So the order of operations is a property of the positions alone,
 * and an aligned run of 2^n segments can be computed apart, by whoever has the time. */
#ifndef GALLEY_CPU_MERGE_H
#define GALLEY_CPU_MERGE_H

#include "functions.h"

struct partial {      /* attend_partial floats as attention sees them; [query]: row by row, each with its n_q heads */
    float *top, *sum; /* [query]: largest score, in powers of 2; sum of 2^(score - top), 0 when it sees no key here */
    float *acc;       /* [query][width]: sum of 2^(score - top) * V */
};

static inline int32_t attend_width(const struct attend_job *j)
{
    return (j->dim + 15) / 16 * 16;
}

static inline struct partial partial_of(const struct attend_job *j, float *p)
{
    size_t n = attend_queries(j->n_q);
    return (struct partial){.top = p, .sum = p + n, .acc = p + 2 * n};
}

/* The roots of the trees so far, as the digits of a binary counter: `run[i]` covers 2^i segments. */
struct pile {
    float *run[32]; /* buffers; those whose bit in `full` is 0 are spare */
    uint32_t full;
};

/* Adds number `at`, larger than all before; leaves a spare buffer in *part. */
void CPU_FN(pile_add)(struct pile *p, const struct attend_job *j, int32_t at, float **part);
/* The whole: one of the pile's buffers. */
float *CPU_FN(pile_total)(struct pile *p, const struct attend_job *j);

/* The job's queries of a partial result; the two may be one. */
void CPU_FN(partial_copy)(const struct attend_job *j, float *to, float *from);

#endif
