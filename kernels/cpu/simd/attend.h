/* The arithmetic of attention on a tile of 32 positions. Private to kernels/cpu/simd.
 *
 * Lanes are keys in a score and head dimensions in an output: a score is one chain over the dimensions, an output one
 * chain over the keys of its segment, whatever is computed beside them. So any queries may go together, and a tile may
 * be read as it is stored or from a copy in f32, and no bit changes. The scales of Q8_0 multiply sums of 32 codes in a
 * score, and weights in an output: less work than to multiply each code. */
#ifndef GALLEY_CPU_ATTEND_H
#define GALLEY_CPU_ATTEND_H

#include <math.h>

#include "functions.h"
#include "lanes.h"

enum {
    Q8_WIDE = 1000, /* beside enum dtype: Q8_0 with scales and codes in f32 */
    DIMS = 32,      /* dimensions that K handles together: a block of Q8_0 */
};

enum { SCORE_STRIDE = SEGMENT + 16 }; /* from one query's scores to the next: not the same lines of a cache */

struct tile { /* the 32 keys of a tile of K or V, 16 a group, as lanes.h has them or in f32 */
    int32_t type;
    const char *group[2];
    size_t row; /* of V but Q8_0: bytes from one key to the next */
};

/* The 16 keys each that a later tile will read, fetched line by line in the course of the work on this one: requests
 * for many lines at once fill the processor's buffers and stop everything else, and its own prefetching does not see
 * past the arithmetic in between. */
struct ahead {
    const char *at, *end; /* what is left of the first 16 */
    ptrdiff_t other;      /* from there to the other 16 */
};

VEC void fetch_line(struct ahead *a)
{
    if (a->at < a->end) {
        __builtin_prefetch(a->at, 0, 2);
        __builtin_prefetch(a->at + a->other, 0, 2);
        a->at += 64;
    }
}

/* Called so often that all lines are taken if they are as many as those of the tile at hand, whose type is given. */
VEC void fetch(const int type, struct ahead *a)
{
    fetch_line(a);
    if (type == DT_F32)
        fetch_line(a);
}

#define BY_TYPE(fn, type, ...)                                                                                         \
    do {                                                                                                               \
        if ((type) == DT_F32)                                                                                          \
            fn(DT_F32, __VA_ARGS__);                                                                                   \
        else if ((type) == DT_F16)                                                                                     \
            fn(DT_F16, __VA_ARGS__);                                                                                   \
        else if ((type) == DT_BF16)                                                                                    \
            fn(DT_BF16, __VA_ARGS__);                                                                                  \
        else if ((type) == DT_Q8_0)                                                                                    \
            fn(DT_Q8_0, __VA_ARGS__);                                                                                  \
        else                                                                                                           \
            fn(Q8_WIDE, __VA_ARGS__);                                                                                  \
    } while (0)

VEC int has_scales(const int type)
{
    return type == DT_Q8_0 || type == Q8_WIDE;
}

/* ---- Loads ---- */

/* Bytes of one element, of the scales before the elements of DIMS dimensions of a group, and of both. */
VEC size_t element_bytes(const int type)
{
    return type == DT_Q8_0 ? 1 : type == DT_F32 || type == Q8_WIDE ? 4 : 2;
}

VEC size_t scale_bytes(const int type)
{
    return type == DT_Q8_0 ? 2 * KEY_LANES : type == Q8_WIDE ? 4 * KEY_LANES : 0;
}

VEC size_t dims_bytes(const int type)
{
    return scale_bytes(type) + element_bytes(type) * DIMS * KEY_LANES;
}

VEC vf load_scales(const int type, const char *dims)
{
    return type == DT_Q8_0 ? vf_load_f16(dims) : vf_load((const float *)(const void *)dims);
}

/* Sixteen elements from number i on. */
VEC vf load16(const int type, const char *p, int32_t i)
{
    if (type == DT_F16)
        return vf_load_f16(p + 2 * i);
    if (type == DT_BF16)
        return vf_load_bf16(p + 2 * i);
    if (type == DT_Q8_0)
        return vf_load_i8((const int8_t *)p + i);
    return vf_load((const float *)(const void *)p + i);
}

/* The n first of sixteen elements; zeros follow. */
VEC vf load_few(const int type, const char *p, int32_t n)
{
    char part[64] = {0};
    memcpy(part, p, element_bytes(type) * (size_t)n);
    return load16(type, part, 0);
}

/* ---- Copies in f32, where many queries will read them ---- */

static inline int32_t wide_type(int32_t type)
{
    return type == DT_Q8_0 ? Q8_WIDE : DT_F32;
}

/* DIMS dimensions, or the last dim of them, of 16 keys. */
VEC float *widen_dims(const int type, const char *dims, int32_t dim, float *out, struct ahead *ahead)
{
    if (has_scales(type)) {
        vf_store(out, load_scales(type, dims));
        out += KEY_LANES;
    }
    for (int32_t d = 0; d < DIMS && d < dim; d++, out += KEY_LANES) {
        vf_store(out, load16(type, dims + scale_bytes(type), KEY_LANES * d));
        if (d % 2 == 0)
            fetch(type, ahead);
    }
    return out;
}

/* K, or V in Q8_0: the order of the elements within DIMS dimensions does not matter. */
VEC void widen_groups(const int type, const struct tile *k, int32_t dim, float *out, struct ahead *ahead)
{
    for (int half = 0; half < 2; half++)
        for (int32_t b = 0; b < dim; b += DIMS)
            out = widen_dims(type, k->group[half] + dims_bytes(type) * (size_t)(b / DIMS), dim - b, out, ahead);
}

VEC void widen_rows(const int type, const struct tile *v, int32_t dim, int32_t lo, int32_t hi, float *out,
                    struct ahead *ahead)
{
    const size_t size = element_bytes(type);
    for (int32_t key = lo; key < hi; key++) {
        const char *row = v->group[key / 16] + v->row * (size_t)(key % 16);
        float *to = out + (size_t)key * (size_t)((dim + 15) / 16 * 16);
        int32_t d = 0;
        fetch(type, ahead);
        for (; d + 16 <= dim; d += 16)
            vf_store(to + d, load16(type, row, d));
        if (d < dim)
            vf_store(to + d, load_few(type, row + size * (size_t)d, dim - d));
    }
}

/* ---- Scores ---- */

/* Adds n dimensions of q . k to the sums of N queries. */
VEC void add_dims(const int type, const int N, const int n, const char *const g[2], int32_t d, const float *q,
                  size_t q_step, vf s[4][2])
{
    VEC_UNROLL(4)
    for (int i = 0; i < n; i++, q += q_step) {
        vf k0 = vf_keep(load16(type, g[0], KEY_LANES * (d + i)));
        vf k1 = vf_keep(load16(type, g[1], KEY_LANES * (d + i)));
        VEC_UNROLL(4)
        for (int j = 0; j < N; j++) {
            vf qd = vf_set1(q[j]);
            s[j][0] = vf_fma(qd, k0, s[j][0]);
            s[j][1] = vf_fma(qd, k1, s[j][1]);
        }
    }
}

VEC void zero_scores(const int N, vf s[4][2])
{
    VEC_UNROLL(4)
    for (int n = 0; n < N; n++)
        s[n][0] = s[n][1] = vf_zero();
}

/* Of N queries, dimension d of which begins at q[d * q_step], with the tile's keys. */
VEC void scores(const int type, const int N, const struct tile *k, int32_t dim, const float *q, size_t q_step,
                float *score, struct ahead *ahead)
{
    vf s[4][2], t[4][2]; /* t: of one block of codes */
    struct ahead a = *ahead;
    zero_scores(N, s);
    for (int32_t b = 0; b < dim; b += DIMS) {
        const char *dims[2] = {k->group[0] + dims_bytes(type) * (size_t)(b / DIMS),
                               k->group[1] + dims_bytes(type) * (size_t)(b / DIMS)};
        const char *g[2] = {dims[0] + scale_bytes(type), dims[1] + scale_bytes(type)};
        int32_t d = 0, end = dim - b < DIMS ? dim - b : DIMS;
        if (has_scales(type))
            zero_scores(N, t);
        for (; d + 2 <= end; d += 2, q += 2 * q_step) {
            fetch(type, &a);
            add_dims(type, N, 2, g, d, q, q_step, has_scales(type) ? t : s);
        }
        for (; d < end; d++, q += q_step)
            add_dims(type, N, 1, g, d, q, q_step, has_scales(type) ? t : s);
        if (has_scales(type)) {
            vf d0 = load_scales(type, dims[0]), d1 = load_scales(type, dims[1]);
            VEC_UNROLL(4)
            for (int n = 0; n < N; n++) {
                s[n][0] = vf_fma(t[n][0], d0, s[n][0]);
                s[n][1] = vf_fma(t[n][1], d1, s[n][1]);
            }
        }
    }
    VEC_UNROLL(4)
    for (int n = 0; n < N; n++) {
        vf_store(score + n * SCORE_STRIDE, s[n][0]);
        vf_store(score + n * SCORE_STRIDE + 16, s[n][1]);
    }
    *ahead = a;
}

/* Scores lo..hi-1 of a segment, and lanes beside them, to `cap` * tanh(score * scale / cap). */
VEC void cap_scores(float *score, int32_t lo, int32_t hi, float scale, float cap)
{
    vf in = vf_set1(scale / cap), out = vf_set1(cap);
    for (int32_t i = lo / 16 * 16; i < hi; i += 16)
        vf_store(score + i, vf_mul(vf_tanh(vf_mul(vf_load(score + i), in)), out));
}

/* Scores lo..hi-1 of a segment to weights under their maximum, powers of 2 with `scale` to that end. Lanes beside them
 * in the same registers get the smallest weight, which is nothing beside the maximum's 1. */
VEC void weigh(float *score, int32_t lo, int32_t hi, float scale, float *top, float *sum)
{
    int32_t first = lo / 16 * 16, end = (hi + 15) / 16 * 16;
    for (int32_t i = first; i < lo; i++)
        score[i] = -INFINITY;
    for (int32_t i = hi; i < end; i++)
        score[i] = -INFINITY;
    vf most = vf_set1(-INFINITY), total = vf_zero();
    for (int32_t i = first; i < end; i += 16)
        most = vf_max(vf_mul(vf_load(score + i), vf_set1(scale)), most);
    *top = vf_hmax(most);
    for (int32_t i = first; i < end; i += 16) {
        vf p = vf_exp2(vf_fma(vf_load(score + i), vf_set1(scale), vf_set1(-*top)));
        vf_store(score + i, p);
        total = vf_add(total, p);
    }
    *sum = vf_sum(total);
}

/* ---- Values ---- */

/* Where elements 16 c .. of key 0 of a group of V are; those of the next key are value_step further. */
VEC const char *value_at(const int type, const char *group, int32_t c)
{
    if (has_scales(type))
        group += dims_bytes(type) * (size_t)(c / 2) + scale_bytes(type);
    return group + element_bytes(type) * 16 * (size_t)(has_scales(type) ? c % 2 : c);
}

VEC size_t value_step(const int type, const struct tile *v)
{
    return has_scales(type) ? element_bytes(type) * DIMS : v->row;
}

/* Adds keys lo..hi-1 to elements 16 c .. 16 (c + C) - 1 of N queries' sums, `width` apart. Weights begin at `p`; of
 * Q8_0 C is 2 and c even. `last`: elements of an incomplete last 16, or 0. */
VEC void values(const int type, const int N, const int C, const int last, const struct tile *v, int32_t c, int32_t lo,
                int32_t hi, const float *p, float *acc, int32_t width, struct ahead *ahead)
{
    const int stride = has_scales(type) ? KEY_TILE : SCORE_STRIDE;
    const size_t step = value_step(type, v);
    vf a[4][4];
    float scaled[4][KEY_TILE];
    struct ahead f = *ahead;
    acc += 16 * c;
    VEC_UNROLL(4)
    for (int n = 0; n < N; n++) {
        VEC_UNROLL(4)
        for (int i = 0; i < C; i++)
            a[n][i] = vf_load(acc + n * width + 16 * i);
        for (int half = 0; has_scales(type) && half < 2; half++) {
            vf scale = load_scales(type, v->group[half] + dims_bytes(type) * (size_t)(c / 2));
            vf_store(scaled[n] + 16 * half, vf_mul(vf_load(p + n * SCORE_STRIDE + 16 * half), scale));
        }
    }
    p = has_scales(type) ? scaled[0] : p;
    for (int32_t key = lo; key < hi;) {
        const char *row = value_at(type, v->group[key / 16], c) + step * (size_t)(key % 16);
        for (int32_t end = hi < key / 16 * 16 + 16 ? hi : key / 16 * 16 + 16; key < end; key++, row += step) {
            vf weight[4];
            fetch(type, &f);
            VEC_UNROLL(4)
            for (int n = 0; n < N; n++)
                weight[n] = vf_set1(p[n * stride + key]);
            VEC_UNROLL(4)
            for (int i = 0; i < C; i++) {
                vf value = vf_keep(last ? load_few(type, row, last) : load16(type, row, 16 * i));
                VEC_UNROLL(4)
                for (int n = 0; n < N; n++)
                    a[n][i] = vf_fma(weight[n], value, a[n][i]);
            }
        }
    }
    VEC_UNROLL(4)
    for (int n = 0; n < N; n++) {
        VEC_UNROLL(4)
        for (int i = 0; i < C; i++)
            vf_store(acc + n * width + 16 * i, a[n][i]);
    }
    *ahead = f;
}

#endif
