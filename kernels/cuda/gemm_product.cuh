/* What the weight products share: a warp multiplies two panels of a slab with rows of x, both in shared memory,
 * whatever the format. Codes become bf16 exactly; a group's scale multiplies its sum. gemm.h has the layout. */
#ifndef GALLEY_GEMM_PRODUCT_CUH
#define GALLEY_GEMM_PRODUCT_CUH

#include "dev.cuh"
#define GEMM_FN DEV_CONSTANT
#include "gemm.h"

constexpr int GEMM_X_BYTES = GEMM_SLAB * 2; /* of a row of a stage */

/* ---- Two codes to two bf16 ---- */

constexpr uint32_t BF16_128 = 0x43004300; /* 128 + an integer of 7 bits is its low mantissa */

DEV uint32_t widen_s8(uint32_t two) /* in the low bytes of the halves; the others are nobody's */
{
    return dev_add_bf16((two & 0x007f007f) | BF16_128, (two & 0x00800080) | 0xc300c300); /* minus 128, or 256 */
}

/* e2m1 in the low four bits of the halves, doubled: integers, as small as bf16 can be, then moved up by 2^127. */
DEV uint32_t widen_fp4(uint32_t two)
{
    return dev_scale_bf16((two & 0x00070007) << 6 | (two & 0x00080008) << 12, 0x7f00);
}

/* The even bytes of a word to fp8's place, then widened. */
DEV uint32_t widen_e4m3(uint32_t two)
{
    return dev_widen_fp8((two & 0xff) | (two >> 8 & 0xff00));
}

/* ---- A panel's half of a slab (32 columns) in registers ---- */

template <int F>
constexpr int gemm_parts = F == GEMM_F32   ? 3
                           : F == GEMM_F16 ? 2
                                           : 1; /* bf16 that add up to a weight */
template <int F> constexpr bool gemm_is_float = F == GEMM_F32 || F == GEMM_F16 || F == GEMM_BF16;
template <int F> constexpr bool gemm_has_min = F == GEMM_Q4_K || F == GEMM_Q5_K;

template <int F> struct fragment {
    uint32_t a[2][gemm_parts<F>][4]; /* [step] */
    float scale[2][2], min[2];       /* [row g or g + 8][step] */
};

template <class T> DEV T smem_read(const unsigned char *p)
{
    return *(const T *)p;
}

/* A pair of weights as the sum of `n` pairs of bf16, each the nearest to what is left: exactly, for n large enough. */
template <int N> DEV void split_pair(float lo, float hi, uint32_t part[N][4], int r)
{
    UNROLL
    for (int i = 0; i < N; i++) {
        uint32_t pair = dev_pack_bf16(lo, hi);
        part[i][r] = pair;
        lo -= dev_bits_f32(pair << 16);
        hi -= dev_bits_f32(pair & 0xffff0000);
    }
}

template <int F> DEV void load_floats(struct fragment<F> *f, const unsigned char *codes, int half, int lane)
{
    UNROLL
    for (int s = 0; s < 2; s++) {
        int step = 2 * half + s;
        if (F == GEMM_F32) {
            UNROLL
            for (int j = 0; j < 2; j++) {
                struct vec16 v = smem_read<struct vec16>(codes + ((step * 2 + j) * DEV_WARP + lane) * 16);
                split_pair<gemm_parts<F>>(dev_bits_f32(v.w[0]), dev_bits_f32(v.w[1]), f->a[s], 2 * j);
                split_pair<gemm_parts<F>>(dev_bits_f32(v.w[2]), dev_bits_f32(v.w[3]), f->a[s], 2 * j + 1);
            }
            continue;
        }
        struct vec16 v = smem_read<struct vec16>(codes + (step * DEV_WARP + lane) * 16);
        UNROLL
        for (int r = 0; r < 4; r++) {
            if (F == GEMM_BF16)
                f->a[s][0][r] = v.w[r];
            else
                split_pair<gemm_parts<F>>(dev_f16_value((uint16_t)v.w[r]), dev_f16_value((uint16_t)(v.w[r] >> 16)),
                                          f->a[s], r);
        }
    }
}

template <int F> DEV void load_bytes(struct fragment<F> *f, const unsigned char *codes, int half, int lane)
{
    struct vec16 v = smem_read<struct vec16>(codes + (half * DEV_WARP + lane) * 16);
    UNROLL
    for (int i = 0; i < 4; i++) {
        uint32_t *a = f->a[i / 2][0] + i % 2 * 2;
        a[0] = F == GEMM_FP8 ? widen_e4m3(v.w[i]) : widen_s8(v.w[i]);
        a[1] = F == GEMM_FP8 ? widen_e4m3(v.w[i] >> 8) : widen_s8(v.w[i] >> 8);
    }
}

/* Minus 128 and what the format's codes are off by. */
template <int F>
constexpr uint32_t gemm_offset = F == GEMM_Q6_K   ? 0xc320c320
                                 : F == GEMM_Q4_0 ? 0xc308c308
                                                  : 0xc300c300;

template <int F> DEV void load_nibbles(struct fragment<F> *f, const unsigned char *codes, int half, int lane)
{
    struct vec8 low = smem_read<struct vec8>(codes + lane * 16 + half * 8);
    uint32_t high = 0;
    if (F == GEMM_Q5_K)
        high = smem_read<uint32_t>(codes + 512 + lane * 4) >> (8 * half);
    if (F == GEMM_Q6_K)
        high = smem_read<uint32_t>(codes + 512 + lane * 8 + half * 4);
    UNROLL
    for (int s = 0; s < 2; s++) {
        UNROLL
        for (int r = 0; r < 4; r++) {
            uint32_t two = low.w[s] >> (4 * r) & 0x000f000f;
            if (F == GEMM_Q5_K)
                two |= (high >> (4 * s + r) & 0x00010001) << 4;
            if (F == GEMM_Q6_K)
                two |= (high >> (8 * s + 2 * r) & 0x00030003) << 4;
            f->a[s][0][r] = F == GEMM_MXFP4 ? widen_fp4(two) : dev_add_bf16(two | BF16_128, gemm_offset<F>);
        }
    }
}

DEV float half_word(uint32_t word, int upper)
{
    return dev_f16_value((uint16_t)(word >> 16 * upper));
}

DEV int byte_of(uint32_t word, int i)
{
    return (int)(word >> 8 * i & 0xff);
}

/* f16 d[2 rows][2 halves] */
template <int F> DEV void load_f16_scales(struct fragment<F> *f, const unsigned char *scales, int half, int g)
{
    struct vec8 d = smem_read<struct vec8>(scales + g * 8);
    UNROLL
    for (int i = 0; i < 2; i++)
        f->scale[i][0] = half_word(d.w[i], half);
}

template <int F>
DEV void load_k_scales(struct fragment<F> *f, const unsigned char *scales, const unsigned char *super, int half, int g)
{
    struct vec8 scale_min = smem_read<struct vec8>(scales + g * 8), d = smem_read<struct vec8>(super + g * 8);
    UNROLL
    for (int i = 0; i < 2; i++) {
        f->scale[i][0] = half_word(d.w[i], 0) * (float)byte_of(scale_min.w[0], i * 2 + half);
        f->min[i] = half_word(d.w[i], 1) * (float)byte_of(scale_min.w[1], i * 2 + half);
    }
}

template <int F>
DEV void load_q6k_scales(struct fragment<F> *f, const unsigned char *scales, const unsigned char *super, int half,
                         int g)
{
    struct vec8 scale = smem_read<struct vec8>(scales + g * 8);
    uint32_t d = smem_read<uint32_t>(super + g * 4);
    UNROLL
    for (int i = 0; i < 2; i++) {
        UNROLL
        for (int s = 0; s < 2; s++)
            f->scale[i][s] = half_word(d, i) * (float)(int8_t)byte_of(scale.w[i], 2 * half + s);
    }
}

/* 2^(e - 128), since the codes were doubled; the two least are below the normal numbers. */
DEV float fp4_scale(int e)
{
    return dev_bits_f32(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

template <int F> DEV void load_fragment(struct fragment<F> *f, const unsigned char *panel, int half, int lane)
{
    constexpr int SLAB = gemm_slab_bytes(F);
    const unsigned char *super = panel + SLAB;
    int g = lane / 4;
    if constexpr (gemm_is_float<F>)
        load_floats(f, panel, half, lane);
    else if constexpr (F == GEMM_Q8_0 || F == GEMM_FP8)
        load_bytes(f, panel, half, lane);
    else
        load_nibbles(f, panel, half, lane);
    if constexpr (F == GEMM_Q8_0 || F == GEMM_Q4_0)
        load_f16_scales(f, panel + SLAB - 64, half, g);
    if constexpr (gemm_has_min<F>)
        load_k_scales(f, panel + SLAB - 64, super, half, g);
    if constexpr (F == GEMM_Q6_K)
        load_q6k_scales(f, panel + SLAB - 64, super, half, g);
    if constexpr (F == GEMM_MXFP4) {
        uint32_t e = smem_read<uint32_t>(panel + SLAB - 32 + g * 4);
        f->scale[0][0] = fp4_scale(byte_of(e, half));
        f->scale[1][0] = fp4_scale(byte_of(e, 2 + half));
    }
    if constexpr (F == GEMM_FP8) {
        struct vec8 d = smem_read<struct vec8>(super + g * 8);
        f->scale[0][0] = dev_bits_f32(d.w[0]);
        f->scale[1][0] = dev_bits_f32(d.w[1]);
    }
}

/* ---- Products ---- */

DEV void add_scaled(float acc[4], const float part[4], float scale_g, float scale_g8)
{
    acc[0] = fmaf(scale_g, part[0], acc[0]);
    acc[1] = fmaf(scale_g, part[1], acc[1]);
    acc[2] = fmaf(scale_g8, part[2], acc[2]);
    acc[3] = fmaf(scale_g8, part[3], acc[3]);
}

/* acc += 16 outputs x 8 rows over the fragment's 32 columns; b: x of its steps; sum: of the columns of x, for minima.
 */
template <int F>
DEV void fragment_product(float acc[4], const struct fragment<F> *f, const uint32_t b[4], const float sum[4])
{
    if constexpr (gemm_is_float<F>) {
        UNROLL
        for (int s = 0; s < 2; s++) {
            UNROLL
            for (int i = 0; i < gemm_parts<F>; i++)
                dev_mma_bf16(acc, f->a[s][i], b + 2 * s);
        }
        return;
    }
    float part[4] = {};
    dev_mma_bf16(part, f->a[0][0], b);
    if constexpr (F == GEMM_Q6_K) { /* groups of 16: a scale for each step */
        add_scaled(acc, part, f->scale[0][0], f->scale[1][0]);
        UNROLL
        for (int i = 0; i < 4; i++)
            part[i] = 0;
        dev_mma_bf16(part, f->a[1][0], b + 2);
        add_scaled(acc, part, f->scale[0][1], f->scale[1][1]);
        return;
    }
    dev_mma_bf16(part, f->a[1][0], b + 2);
    add_scaled(acc, part, f->scale[0][0], f->scale[1][0]);
    if constexpr (gemm_has_min<F>)
        add_scaled(acc, sum, -f->min[0], -f->min[1]);
}

/* Every row of the result is the sum of x over 32 columns: the matrix units have time to spare for it. */
DEV void column_sums(float sum[4], const uint32_t b[4])
{
    const uint32_t ones[4] = {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80};
    dev_mma_bf16(sum, ones, b);
    dev_mma_bf16(sum, ones, b + 2);
}

/* acc[panel][n] += the warp's two panels times N * 8 rows, over a slab. */
template <int F, int N>
DEV void slab_product(float acc[2][N][4], const unsigned char *panels, const unsigned char *x, int lane)
{
    constexpr int PANEL_BYTES = gemm_stage_panel_bytes(F);
    NO_UNROLL /* the sums take most registers: one half's fragments at a time */
        for (int half = 0; half < 2; half++)
    {
        struct fragment<F> f[2];
        UNROLL
        for (int p = 0; p < 2; p++)
            load_fragment(&f[p], panels + p * PANEL_BYTES, half, lane);
        UNROLL
        for (int n = 0; n < N; n++) {
            uint32_t b[4];
            float sum[4] = {};
            dev_ldmatrix(b, x + (n * 8 + lane % 8) * GEMM_X_BYTES + ((4 * half + lane / 8) ^ lane % 8) * 16);
            if (gemm_has_min<F>)
                column_sums(sum, b);
            UNROLL
            for (int p = 0; p < 2; p++)
                fragment_product(acc[p][n], &f[p], b, sum);
        }
    }
}

/* ---- Groups ---- */

/* Makes of a group's arguments those of the weight whose tile of `rows` places is the tile-th of all, so that its
 * places are *row0 .. n_row - 1. False: there are not so many tiles. Every warp finds it by itself. */
DEV bool gemm_take_tile(struct gemm_args *a, const struct gemm_group *g, int rows, int tile, int *row0 DEV_AT)
{
    int lane = threadIdx.x % DEV_WARP, before = 0; /* tiles of the weights that have been looked at */
    for (int w0 = 0; w0 < g->n_weight; w0 += DEV_WARP) {
        bool there = w0 + lane < g->n_weight;
        int number = there && g->number ? g->number[w0 + lane] : w0 + lane;
        int begin = there ? g->first[number] : 0, end = there ? g->first[number + 1] : 0;
        int own = (end - begin + rows - 1) / rows, upto = own;
        for (int d = 1; d < DEV_WARP; d <<= 1) {
            int below = dev_shfl_up(upto, d DEV_HERE);
            upto += lane >= d ? below : 0;
        }
        uint32_t beyond = dev_ballot(before + upto > tile DEV_HERE);
        if (beyond) {
            int owner = dev_lowest_bit(beyond);
            int first_tile = before + dev_shfl(upto - own, owner DEV_HERE);
            *row0 = dev_shfl(begin, owner DEV_HERE) + (tile - first_tile) * rows;
            a->n_row = dev_shfl(end, owner DEV_HERE);
            a->weight.data = (unsigned char *)a->weight.data + (int64_t)(w0 + owner) * (int64_t)g->weight_bytes;
            return true;
        }
        before += dev_shfl(upto, DEV_WARP - 1 DEV_HERE);
    }
    return false;
}

/* ---- Filling a stage: panels [slab][super] one after the other, then rows of x ---- */

/* N_THREAD threads, of which this is the i-th, copy a slab of N_PANEL panels; zeros where the weight ends. */
template <int F, int N_PANEL, int N_THREAD>
DEV void stage_panels(unsigned char *stage, const struct gemm_weight *w, int panel0, int slab, int i)
{
    constexpr int SLAB = gemm_slab_bytes(F), PIECES = gemm_stage_panel_bytes(F) / 16, PER_SUPER = gemm_super_slabs(F);
    constexpr int SUPER = gemm_super_bytes(F);
    UNROLL
    for (int j = i; j < N_PANEL * PIECES; j += N_THREAD) {
        int panel = panel0 + j / PIECES, at = j % PIECES * 16;
        const unsigned char *src = (const unsigned char *)w->data + (int64_t)panel * (int64_t)w->panel_bytes;
        if (PER_SUPER && at >= SLAB)
            src += (int64_t)w->n_slab * SLAB + slab / (PER_SUPER ? PER_SUPER : 1) * SUPER + (at - SLAB);
        else
            src += (int64_t)slab * SLAB + at;
        dev_copy16(stage + j * 16, src, panel < w->n_panel);
    }
}

/* `at`: where in x the rows are, or NULL. Piece p of a row lies at p ^ row % 8, so that ldmatrix meets every bank once.
 */
template <int N_ROW, int N_THREAD>
DEV void stage_x(unsigned char *x, const struct gemm_args *a, const int32_t *at, int row0, int slab, int i)
{
    UNROLL
    for (int j = i; j < N_ROW * 8; j += N_THREAD) {
        int r = j / 8, piece = j % 8, k = slab * GEMM_SLAB + piece * 8, row = row0 + r;
        if (at)
            row = row < a->n_row ? at[row] : 0;
        const struct bf16 *src = a->x + (int64_t)row * a->x_stride + k;
        dev_copy16(x + r * GEMM_X_BYTES + (piece ^ r % 8) * 16, src, row0 + r < a->n_row && k < a->weight.n_in);
    }
}

/* ---- What becomes of the sums ---- */

/* Outputs `o` of panels panel and panel + 1 of a row. */
DEV void gemm_finish(const struct gemm_args *a, int panel, int o, int row, float y0, float y1)
{
    if (row >= a->n_row)
        return;
    int64_t at = (int64_t)row * a->out_stride;
    if (a->epilogue == GEMM_GLU) {
        int out = panel / 2 * GEMM_PANEL + o;
        if (out < a->weight.n_out)
            a->out_bf16[at + out] = dev_to_bf16(dev_gate(y0, a->gelu) * y1);
        return;
    }
    UNROLL
    for (int p = 0; p < 2; p++) {
        int out = (panel + p) * GEMM_PANEL + o;
        if (out >= a->weight.n_out)
            continue;
        float y = p ? y1 : y0;
        if (a->bias)
            y += a->bias[out];
        a->out[at + out] = a->epilogue == GEMM_ADD ? a->out[at + out] + y : y;
    }
}

/* The slabs of a slice. */
struct slab_range {
    int begin, end;
};

DEV struct slab_range gemm_slice(const struct gemm_weight *w, int slice)
{
    int len = (w->n_slab + GEMM_SLICES - 1) / GEMM_SLICES, begin = slice * len, end = begin + len;
    return {begin, end < w->n_slab ? end : w->n_slab};
}

/* call(F) is a `case F:` with what is to be done for a format that is known at run time; F32 is the caller's. */
#define GEMM_BY_FORMAT(format, call)                                                                                   \
    switch (format) {                                                                                                  \
        call(GEMM_BF16);                                                                                               \
        call(GEMM_F16);                                                                                                \
        call(GEMM_Q8_0);                                                                                               \
        call(GEMM_Q4_0);                                                                                               \
        call(GEMM_MXFP4);                                                                                              \
        call(GEMM_Q4_K);                                                                                               \
        call(GEMM_Q5_K);                                                                                               \
        call(GEMM_Q6_K);                                                                                               \
        call(GEMM_FP8);                                                                                                \
    default:                                                                                                           \
        break;                                                                                                         \
    }

#endif
