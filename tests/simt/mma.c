/* The matrix units by the fragment tables of the PTX ISA (9.7.14, "Matrix fragments for mma.m16n8k16", "mma.m16n8k32",
 * "ldmatrix"). One lane does the work of the warp when all have met. With g = lane / 4 and t = lane % 4, and e elements
 * in a register (2 of 16 bits, 4 of 8):
 *
 *   A: register r holds row g + 8 (r & 1), columns e t + 4 e (r >> 1) ..
 *   B: register r holds column g, rows e t + 4 e r ..
 *   D: register r holds row g + 8 (r >> 1), column 2 t + (r & 1)
 */
#include <string.h>

#include "dtype.h"
#include "simt.h"

struct mma_lane { /* the layout of a slot */
    uint32_t a[4], b[2];
    union {
        float f[4];
        int32_t i[4];
    } d;
};

_Static_assert(sizeof(struct mma_lane) <= SIMT_SLOT_BYTES, "a slot holds an mma's fragments");

static float bf16_at(const void *reg, int i)
{
    uint16_t h[2];
    memcpy(h, reg, sizeof h);
    return bf16_to_f32(h[i]);
}

static float f16_at(const void *reg, int i)
{
    uint16_t h[2];
    memcpy(h, reg, sizeof h);
    return f16_to_f32(h[i]);
}

static float fp8_at(const void *reg, int i) /* e4m3, spelled out */
{
    unsigned u = ((const unsigned char *)reg)[i], exponent = u >> 3 & 15, mantissa = u & 7;
    if ((u & 0x7f) == 0x7f)
        return __builtin_nanf("");
    float size = exponent ? (8 + (float)mantissa) * (float)(1 << exponent) * 0x1p-10f : (float)mantissa * 0x1p-9f;
    return u & 0x80 ? -size : size;
}

static float s8_at(const void *reg, int i)
{
    return ((const signed char *)reg)[i];
}

enum { MAX_K = 32 };

/* Inlined into each of the four below, where `e` and `at` are constants: most of a test's time is spent here. */
#define INLINE static inline __attribute__((always_inline))

/* The warp's A as it is, and B[k][column], `e` elements a register. */
INLINE void gather(const struct simt_slot *slot, int e, float (*at)(const void *reg, int i), float a[16][MAX_K],
                   float b[MAX_K][8])
{
    for (int lane = 0; lane < SIMT_WARP; lane++) {
        const struct mma_lane *m = (const void *)slot[lane].b;
        int g = lane / 4, t = lane % 4;
        for (int r = 0; r < 4; r++)
            for (int i = 0; i < e; i++)
                a[g + 8 * (r & 1)][e * t + 4 * e * (r >> 1) + i] = at(&m->a[r], i);
        for (int r = 0; r < 2; r++)
            for (int i = 0; i < e; i++)
                b[e * t + 4 * e * r + i][g] = at(&m->b[r], i);
    }
}

INLINE void multiply(struct simt_slot *slot, int e, float (*at)(const void *reg, int i), bool is_int)
{
    float a[16][MAX_K], b[MAX_K][8], d[16][8] = {{0}};
    gather(slot, e, at, a, b);
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 8 * e; k++) /* exact for s8: 32 products of at most 2^14 */
            for (int column = 0; column < 8; column++)
                d[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < SIMT_WARP; lane++) {
        struct mma_lane *m = (void *)slot[lane].b;
        for (int r = 0; r < 4; r++) {
            float sum = d[lane / 4 + 8 * (r >> 1)][lane % 4 * 2 + (r & 1)];
            if (is_int)
                m->d.i[r] += (int32_t)sum;
            else
                m->d.f[r] += sum;
        }
    }
}

void simt_mma_bf16(struct simt_slot *slot)
{
    multiply(slot, 2, bf16_at, false);
}

void simt_mma_f16(struct simt_slot *slot)
{
    multiply(slot, 2, f16_at, false);
}

void simt_mma_fp8(struct simt_slot *slot)
{
    multiply(slot, 4, fp8_at, false);
}

void simt_mma_s8(struct simt_slot *slot)
{
    multiply(slot, 4, s8_at, true);
}

/* ---- ldmatrix: lane 8 i + r gives the address of row r of matrix i; lane l gets elements 2 (l % 4), + 1 of row l / 4
 * of each matrix, or, transposed, of column l / 4. ---- */

struct ldmatrix_lane {
    const uint16_t *row;
    uint32_t d[4];
};

static void load_matrices(struct simt_slot *slot, bool trans)
{
    uint16_t m[4][8][8];
    for (int lane = 0; lane < SIMT_WARP; lane++) {
        const struct ldmatrix_lane *in = (const void *)slot[lane].b;
        memcpy(m[lane / 8][lane % 8], in->row, sizeof m[0][0]);
    }
    for (int lane = 0; lane < SIMT_WARP; lane++) {
        struct ldmatrix_lane *out = (void *)slot[lane].b;
        int a = lane / 4, b = lane % 4 * 2;
        for (int i = 0; i < 4; i++)
            out->d[i] = trans ? (uint32_t)m[i][b][a] | (uint32_t)m[i][b + 1][a] << 16
                              : (uint32_t)m[i][a][b] | (uint32_t)m[i][a][b + 1] << 16;
    }
}

void simt_ldmatrix(struct simt_slot *slot)
{
    load_matrices(slot, false);
}

void simt_ldmatrix_trans(struct simt_slot *slot)
{
    load_matrices(slot, true);
}
