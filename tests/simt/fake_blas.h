/* A library for products made of loops, which takes every product it is offered. It fails as it is told to. */
#ifndef GALLEY_FAKE_BLAS_H
#define GALLEY_FAKE_BLAS_H

#include <stdbool.h>

#include "blas.h"

extern const struct blas_api fake_blas;

struct fake_blas_faults {
    bool missing;   /* there is no library */
    bool closed;    /* it cannot be opened */
    int32_t serves; /* it has plans for products of so many outputs alone; 0: for all */
    long fail_at;   /* its n-th product from now on cannot be queued; 0: none */
    bool slow;      /* by the clock of fake_blas_timed */
};
extern struct fake_blas_faults fake_blas_faults;

void fake_blas_reset(void); /* all has been closed and forgotten */
long fake_blas_live(void);  /* libraries open and plans not forgotten */
long fake_blas_runs(void);  /* products since the reset */
/* The same table, used where a clock says so: own kernels take a second, its products 0.1 s less, or 9 s more if slow.
 */
const struct blas_api *fake_blas_timed(void);

#endif
