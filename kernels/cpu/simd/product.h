/* What the two kinds of product share: one function for each format and row count, so that sums stay in registers. The
 * including file defines ROWS(F, R). Private to kernels/cpu/simd. */
#ifndef GALLEY_CPU_PRODUCT_H
#define GALLEY_CPU_PRODUCT_H

#include "functions.h"
#include "vec.h"
#include "weight.h"

#if VEC_TILE == 16
#define EACH(F, X)                                                                                                     \
    X(F, 1)                                                                                                            \
    X(F, 2)                                                                                                            \
    X(F, 3)                                                                                                            \
    X(F, 4) X(F, 5) X(F, 6) X(F, 7) X(F, 8) X(F, 9) X(F, 10) X(F, 11) X(F, 12) X(F, 13) X(F, 14) X(F, 15) X(F, 16)
#else
#define EACH(F, X) X(F, 1) X(F, 2) X(F, 3) X(F, 4)
#endif

#define ENTRY(F, R) [R] = F##_##R,
#define PRODUCT(F, name)                                                                                               \
    EACH(F, ROWS)                                                                                                      \
    void CPU_FN(name)(const struct panel_job *j)                                                                       \
    {                                                                                                                  \
        static const panel_fn rows[VEC_TILE + 1] = {EACH(F, ENTRY)};                                                   \
        rows[j->n_row](j);                                                                                             \
    }

#endif
