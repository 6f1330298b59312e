/* What this machine does at most: bytes read from memory and 8-bit products, a second, on several threads at once. For
 * benches: on a shared machine a figure means little without the roof that was measured beside it. Open to all floors.
 */
#ifndef GALLEY_ROOF_H
#define GALLEY_ROOF_H

#include "err.h"

struct roof; /* owner: whoever created it; threads and a buffer several times larger than the last cache */

struct roof_rate { /* of passes of one or two milliseconds */
    double best, median;
};

/* n_thread 0: one for each core. -ERR_NOMEM. */
int roof_create(struct roof **out, int n_thread, struct err *e);
void roof_free(struct roof *r); /* NULL is legal */
/* GB/s, passes for `seconds` and at least three; they go round the buffer, so that none reads what is still cached. */
struct roof_rate roof_read(struct roof *r, double seconds);
/* 10^9 operations a second, a multiplication and an addition being two, on operands in registers: by vpdpbusd on 512
 * bits, by AVX2's vpmaddubsw and vpmaddwd where there is none; 0 on other machines. */
struct roof_rate roof_int8(struct roof *r, double seconds);
const char *roof_int8_name(void); /* "avx512-vnni", "avx2" or "none" */

#endif
