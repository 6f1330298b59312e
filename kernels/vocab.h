/* Passes over one row of logits, scores or probabilities. Sums and maxima go by a fixed number of lanes, so that
 * compilers use vectors and the result never depends on which. Private to kernels/. */
#ifndef GALLEY_VOCAB_H
#define GALLEY_VOCAB_H

#include <stdint.h>

enum { VOCAB_TILE = 64 };
#define VOCAB_EXP_LEAST -87.0f /* e^x counts as 0 from here down: below, it is no normal number */

float vocab_max(const float *x, int32_t n);      /* NaN ignored; -inf when there is nothing else */
int32_t vocab_argmax(const float *x, int32_t n); /* the lowest index of the largest, -1 when none is above -inf */
int32_t vocab_count_above(const float *x, int32_t n, float floor);
double vocab_sum(const float *x, int32_t n);
void vocab_scale(float *x, int32_t n, double by);

/* out = e^x to 2e-7 of it, x at most 80; 0 from VOCAB_EXP_LEAST down and for NaN. Returns the sum. */
double vocab_exp(const float *x, float *out, int32_t n);

struct vocab_moments {
    double sum, dot; /* of e^(x - top), and of (x - top) e^(x - top); NaN and -inf count as 0 */
};
struct vocab_moments vocab_moments(const float *x, float top, int32_t n);

/* tile_max[t] = the largest of tile t's VOCAB_TILE elements, the last tile being shorter: what vocab_above skips by. */
void vocab_tiles(const float *x, int32_t n, float *tile_max);
/* Lists the indices of elements above `floor`, ascending; out has room for n. */
int32_t vocab_above(const float *x, const float *tile_max, int32_t n, float floor, int32_t *out);

#endif
