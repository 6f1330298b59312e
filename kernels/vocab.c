#include "vocab.h"

#include <math.h>
#include <string.h>

enum { LANES = 16 };

float vocab_max(const float *x, int32_t n)
{
    float lane[LANES], top = -INFINITY;
    for (int k = 0; k < LANES; k++)
        lane[k] = -INFINITY;
    int32_t t = 0;
    for (; t + LANES <= n; t += LANES)
        for (int k = 0; k < LANES; k++)
            lane[k] = x[t + k] > lane[k] ? x[t + k] : lane[k];
    for (int k = 0; k < LANES; k++)
        top = lane[k] > top ? lane[k] : top;
    for (; t < n; t++)
        top = x[t] > top ? x[t] : top;
    return top;
}

int32_t vocab_argmax(const float *x, int32_t n)
{
    float top = vocab_max(x, n);
    for (int32_t t = 0; t < n && top > -INFINITY; t++)
        if (x[t] == top)
            return t;
    return -1;
}

int32_t vocab_count_above(const float *x, int32_t n, float floor)
{
    int32_t count = 0;
    for (int32_t t = 0; t < n; t++)
        count += x[t] > floor;
    return count;
}

void vocab_scale(float *x, int32_t n, double by)
{
    for (int32_t t = 0; t < n; t++)
        x[t] = (float)(x[t] * by);
}

/* ---- Sums and exponentials: 16 elements at a time, in f32 vectors, their sums in f64 ---- */

typedef float vec __attribute__((vector_size(16)));
typedef int32_t ivec __attribute__((vector_size(16)));
typedef double dvec __attribute__((vector_size(32)));

struct four {
    vec v[4];
};

/* Past the end: `fill`. */
static inline struct four load(const float *x, int32_t n, float fill)
{
    struct four f;
    if (n >= LANES) {
        memcpy(&f, x, sizeof f);
        return f;
    }
    float padded[LANES];
    for (int k = 0; k < LANES; k++)
        padded[k] = k < n ? x[k] : fill;
    memcpy(&f, padded, sizeof f);
    return f;
}

static inline void add(dvec *sum, const struct four *f)
{
    *sum += __builtin_convertvector((f->v[0] + f->v[1]) + (f->v[2] + f->v[3]), dvec);
}

static double total(dvec sum)
{
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static inline vec at_least(vec x, ivec above)
{
    const vec least = {VOCAB_EXP_LEAST, VOCAB_EXP_LEAST, VOCAB_EXP_LEAST, VOCAB_EXP_LEAST};
    return (vec)(((ivec)x & above) | ((ivec)least & ~above));
}

/* e^x = 2^n e^r with |r| at most ln 2 / 2, and e^r by its series up to r^7, the rest of which is 5e-9. n comes from
 * adding 1.5 * 2^23, which leaves it in the lowest bits of the sum. */
static inline vec exp_of(vec x, ivec above)
{
    const float log2_e = 1.44269504f, ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f, round = 12582912.0f;
    vec shifted = x * log2_e + round, n = shifted - round, r = x - n * ln2_hi - n * ln2_lo;
    vec y = r * (1 / 5040.0f) + 1 / 720.0f;
    y = y * r + 1 / 120.0f;
    y = y * r + 1 / 24.0f;
    y = y * r + 1 / 6.0f;
    y = y * r + 0.5f;
    y = y * r + 1;
    y = y * r + 1;
    return y * (vec)((((ivec)shifted - 0x4b400000 + 127) << 23) & above);
}

double vocab_sum(const float *x, int32_t n)
{
    dvec sum = {0};
    for (int32_t t = 0; t < n; t += LANES) {
        struct four f = load(x + t, n - t, 0);
        add(&sum, &f);
    }
    return total(sum);
}

double vocab_exp(const float *x, float *out, int32_t n)
{
    dvec sum = {0};
    for (int32_t t = 0; t < n; t += LANES) {
        struct four f = load(x + t, n - t, -INFINITY);
        for (int k = 0; k < 4; k++) {
            ivec above = f.v[k] > VOCAB_EXP_LEAST;
            f.v[k] = exp_of(at_least(f.v[k], above), above);
        }
        add(&sum, &f);
        memcpy(out + t, &f, n - t < LANES ? sizeof *out * (size_t)(n - t) : sizeof f);
    }
    return total(sum);
}

struct vocab_moments vocab_moments(const float *x, float top, int32_t n)
{
    dvec sum = {0}, dot = {0};
    for (int32_t t = 0; t < n; t += LANES) {
        struct four f = load(x + t, n - t, -INFINITY), weighted;
        for (int k = 0; k < 4; k++) {
            vec below = f.v[k] - top;
            ivec above = below > VOCAB_EXP_LEAST;
            below = at_least(below, above);
            f.v[k] = exp_of(below, above);
            weighted.v[k] = f.v[k] * below;
        }
        add(&sum, &f);
        add(&dot, &weighted);
    }
    return (struct vocab_moments){.sum = total(sum), .dot = total(dot)};
}

/* ---- Tiles ---- */

void vocab_tiles(const float *x, int32_t n, float *tile_max)
{
    for (int32_t at = 0; at < n; at += VOCAB_TILE)
        *tile_max++ = vocab_max(x + at, n - at < VOCAB_TILE ? n - at : VOCAB_TILE);
}

int32_t vocab_above(const float *x, const float *tile_max, int32_t n, float floor, int32_t *out)
{
    int32_t count = 0;
    for (int32_t at = 0; at < n; at += VOCAB_TILE) {
        if (!(tile_max[at / VOCAB_TILE] > floor))
            continue;
        int32_t end = at + VOCAB_TILE < n ? at + VOCAB_TILE : n;
        for (int32_t t = at; t < end; t++) { /* without a branch: count is never above t */
            out[count] = t;
            count += x[t] > floor;
        }
    }
    return count;
}
