/* Choosing scales. For a guess of the scale the quants follow by rounding, and for given quants the best scale is
 * least squares; so try a spread of guesses around the one that just covers the range, solve each, keep the
 * best. Errors come from sums, not from a second pass: sum w (x - y)^2 expands into terms already at hand. */
#include <math.h>

#include "dtype_codec.h"

/* Groups smaller than this in magnitude vanish in f16 scales anyway, and 1/x would overflow. */
static const float tiny = 1e-20f;

void quant_weights(const float *x, float *w, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    float rms = sqrtf(sum / (float)n);
    if (!(rms < 1e18f)) { /* the squares overflow: give up weighting rather than meet infinity */
        for (int i = 0; i < n; i++)
            w[i] = 1e-30f;
        return;
    }
    for (int i = 0; i < n; i++)
        w[i] = rms + fabsf(x[i]);
}

float quant_fit_scale(const float *x, const float *w, int n, int levels)
{
    float widest = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(widest))
            widest = x[i];
    if (fabsf(widest) < tiny)
        return 0;
    /* The widest element goes to -levels, the end that reaches one further; guesses let it round off or
     * saturate by up to a level either way, and one pair tries the opposite sign. */
    float best_scale = widest / (float)-levels, best_gain = 0;
    for (int guess = -10; guess <= 11; guess++) {
        float reach = guess == 11 ? (float)levels - 1.0f : -((float)levels + 0.1f * (float)guess);
        float inv = reach / widest, xq = 0, qq = 0;
        for (int i = 0; i < n; i++) {
            float q = (float)round_clamp(x[i] * inv, -levels, levels - 1);
            xq += w[i] * x[i] * q;
            qq += w[i] * q * q;
        }
        /* The error at the best scale xq/qq is sum w x^2 - xq^2/qq. */
        if (qq > 0 && xq * xq > best_gain * qq) {
            best_gain = xq * xq / qq;
            best_scale = xq / qq;
        }
    }
    return best_scale;
}

void quant_fit_affine(const float *x, const float *w, int n, int q_max, float *scale, float *min)
{
    float lo = 0, hi = 0, sw = 0, swx = 0; /* the offset cannot be positive, so zero is always in range */
    if (n > 0)
        hi = x[0];
    for (int i = 0; i < n; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
        sw += w[i];
        swx += w[i] * x[i];
    }
    *scale = 0;
    *min = -lo;
    if (hi - lo < tiny)
        return;
    *scale = (hi - lo) / (float)q_max;
    float best_gain = -INFINITY;
    for (int guess = 0; guess <= 20; guess++) {
        float inv = ((float)q_max - 1.0f + 0.1f * (float)guess) / (hi - lo), sq = 0, sqq = 0, sqx = 0;
        for (int i = 0; i < n; i++) {
            float q = (float)round_clamp((x[i] - lo) * inv, 0, q_max), wq = w[i] * q;
            sq += wq;
            sqq += wq * q;
            sqx += wq * x[i];
        }
        float det = sw * sqq - sq * sq, s, off;
        if (det <= 0)
            continue;
        s = (sw * sqx - sq * swx) / det;
        off = (sqq * swx - sq * sqx) / det;
        if (off > 0) {
            off = 0;
            s = sqx / sqq;
        }
        /* Error = sum w x^2 - gain. */
        float gain = 2 * (s * sqx + off * swx) - (s * s * sqq + 2 * s * off * sq + off * off * sw);
        if (s > 0 && gain > best_gain) {
            best_gain = gain;
            *scale = s;
            *min = -off;
        }
    }
}
