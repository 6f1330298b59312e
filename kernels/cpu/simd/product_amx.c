/* Products with bf16 weights by the tiles of AMX, which multiply 16 rows by 16 columns over 32 k at once. A panel is
 * made of such tiles as it is, [k / 2][16 columns][2]. Activations are split in two of bf16, which together have 16
 * bits of an f32's 24: the upper one is what bf16 can say of it, cut off, the lower what it can say of the rest,
 * rounded.
 *
 * What an output element is, whatever the row count: two chains over ascending k, of the upper parts and of the lower
 * ones, added at the end. A chain takes 32 k at a time: the instruction's own sum of them (TDPBF16PS: one of even k and
 * one of odd k, each fused, ascending, added; nothing below the normal numbers), added to what was there. */
#include <immintrin.h>

#include "functions.h"
#include "weight.h"

enum { TILE_K = 32, TILE_BYTES = 1024, TILE_ROWS = 16, AHEAD = 8 };

/* ---- Activations ---- */

VEC __m512i upper_bits(__m512 x)
{
    __m512i u = _mm512_castps_si512(x);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); /* whose bits may all be lower ones */
    return _mm512_and_si512(_mm512_mask_or_epi32(u, nan, u, vi_set1(0x400000)), vi_set1((int32_t)0xffff0000));
}

/* Sixteen elements to one half of the two lines that 32 have: the upper parts in the first, the lower in the second. */
VEC void split(__m512 x, union act_line *line, size_t stride, int half)
{
    __m512i upper = upper_bits(x);
    __m512 rest = _mm512_sub_ps(x, _mm512_castsi512_ps(upper));
    __mmask16 finite = _mm512_cmp_ps_mask(rest, rest, _CMP_ORD_Q); /* else x is none */
    vf_store_bf16(line[stride].bytes + 32 * half, _mm512_maskz_mov_ps(finite, rest));
    _mm256_store_si256((__m256i *)(line->bytes + 32 * half), _mm512_cvtepi32_epi16(_mm512_srli_epi32(upper, 16)));
}

void CPU_FN(lines_bf16)(const float *x, int32_t n, union act_line *line, size_t stride)
{
    for (int32_t k = 0; k < n; k += TILE_K, line += 2 * stride)
        for (int half = 0; half < 2; half++) {
            int32_t left = n - k - 16 * half;
            split(left >= 16 ? vf_load(x + k + 16 * half)
                  : left > 0 ? vf_load_n(x + k + 16 * half, left)
                             : vf_zero(),
                  line, stride, half);
        }
}

/* ---- Tiles ---- */

/* Registers 0 to 3 are sums: of upper and lower parts with one panel, then with the next; 4 and 5 upper and lower
 * parts; 6 and 7 weights. They stay as they are while a thread goes on with as many rows. */
static void configure(int n_row)
{
    static _Thread_local int now;
    struct {
        uint8_t palette, start_row, zero[14];
        uint16_t row_bytes[16];
        uint8_t n_row[16];
    } shape = {.palette = 1};
    if (now == n_row)
        return;
    now = n_row;
    for (int i = 0; i < 8; i++) {
        shape.n_row[i] = (uint8_t)(i < 6 ? n_row : TILE_ROWS);
        shape.row_bytes[i] = 64;
    }
    _tile_loadconfig(&shape);
}

/* The tile that begins at p; of the last one the panel may have half. */
VEC const uint8_t *whole_tile(const uint8_t *p, bool half, uint8_t padded[TILE_BYTES])
{
    if (!half)
        return p;
    memset(padded + TILE_BYTES / 2, 0, TILE_BYTES / 2);
    memcpy(padded, p, TILE_BYTES / 2);
    __asm__ volatile("" ::: "memory"); /* gcc 12 does not know that a tile is loaded from memory */
    return padded;
}

VEC void prefetch(const uint8_t *tile)
{
    VEC_UNROLL(16)
    for (int i = 0; i < TILE_BYTES; i += 64)
        __builtin_prefetch(tile + AHEAD * TILE_BYTES + i, 0, 2);
}

VEC void add_parts(const float upper[][PANEL], const float lower[][PANEL], const struct panel_job *j, int panel)
{
    for (int r = 0; r < j->n_row; r++)
        vf_store(j->y + (size_t)r * j->stride + PANEL * panel, vf_add(vf_load(upper[r]), vf_load(lower[r])));
}

/* One panel or two side by side: a tile of activations serves both, and there are sums enough to hide an
 * instruction's latency. */
VEC void panels(const struct panel_job *j, int first, const bool two)
{
    _Alignas(64) uint8_t padded[2][TILE_BYTES];
    _Alignas(64) float sum[4][TILE_ROWS][PANEL];
    const uint8_t *w = j->w + (size_t)first * j->panel_bytes, *w2 = two ? w + j->panel_bytes : w;
    const union act_line *a = j->a;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    VEC_UNROLL(1)
    for (size_t at = 0; at < j->panel_bytes; at += TILE_BYTES, a += 2 * j->n_row) {
        bool half = j->panel_bytes - at < TILE_BYTES;
        prefetch(w + at);
        _tile_loadd(4, a, sizeof *a);
        _tile_loadd(6, whole_tile(w + at, half, padded[0]), 64);
        _tile_loadd(5, a + j->n_row, sizeof *a);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
        if (two) {
            prefetch(w2 + at);
            _tile_loadd(7, whole_tile(w2 + at, half, padded[1]), 64);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sum[0], 64);
    _tile_stored(1, sum[1], 64);
    add_parts(sum[0], sum[1], j, first);
    if (two) {
        _tile_stored(2, sum[2], 64);
        _tile_stored(3, sum[3], 64);
        add_parts(sum[2], sum[3], j, first + 1);
    }
}

void CPU_FN(product_bf16_tiles)(const struct panel_job *j)
{
    configure(j->n_row);
    for (int p = 0; p < j->n_panel; p += 2)
        if (p + 1 < j->n_panel)
            panels(j, p, true);
        else
            panels(j, p, false);
}
