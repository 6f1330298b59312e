/* Products of many rows with quantised weights by the tiles of AMX, which multiply 16 rows by 16 columns at once. Sums
 * of a block are integers, the same whoever makes them, and the f32 chains over them are product_int.c's: so are the
 * bits.
 *
 * A block's codes, [k / 4][16 columns][4 k], are a tile as the unit wants it once they are signed bytes; so are the
 * codes of 16 lines of activations, 64 bytes apart. What it sums reaches vector registers through memory. The group of
 * blocks under one head is unpacked once for all rows of the call. Few rows are left to product_int.c: they wait for
 * memory, and an unpacked group is one more copy.
 *
 * While tiles are in use, Sapphire Rapids does multiplications of 512 bits at half its rate, additions at the full one:
 * so integers become floats by additions here. */
#include <immintrin.h>

#include "blocks.h"
#include "product.h"

enum { TILE_ROWS = 16, LEAST_ROWS = 12, MOST_PANELS = 1 };

/* What a format's chains take from a block: a sum, or a sum and a product with minima, or a sum of each half. */
enum kind { PLAIN, MINIMA, HALVES };

VEC enum kind kind_of(const enum pack F)
{
    return F == PACK_Q6_K ? HALVES : F == PACK_Q4_K || F == PACK_Q5_K ? MINIMA : PLAIN;
}

struct group { /* unpacked; chains take steps, one for each block or half of it, whose codes follow one another */
    vcodes code[GROUP * 8];
    vf scale[2 * GROUP], min[GROUP];
};

/* ---- Tiles ---- */

/* Registers: sums 0 and 1 of activations 2, 16 rows; sums 3 and 4 of activations 5, the rows that are left over;
 * weights 6 and 7. Two of each, because sums are stored while the next ones are made. They stay as they are while a
 * thread goes on with the same shapes. */
static void configure(int n_rest, bool halves)
{
    static _Thread_local int now = -1;
    struct {
        uint8_t palette, start_row, zero[14];
        uint16_t row_bytes[16];
        uint8_t n_row[16];
    } shape = {.palette = 1};
    if (now == 2 * n_rest + halves)
        return;
    now = 2 * n_rest + halves;
    for (int i = 0; i < 8; i++) {
        bool rest = n_rest && i >= 3 && i <= 5, codes = i == 2 || i == 5;
        shape.n_row[i] = (uint8_t)(i >= 6 ? halves ? 4 : 8 : rest ? n_rest : TILE_ROWS);
        shape.row_bytes[i] = codes ? halves ? 16 : 32 : 64;
    }
    _tile_loadconfig(&shape);
}

/* A tile's number is part of the instruction. */
#define MULTIPLY(SUM, ROWS, CODES, a, w)                                                                               \
    do {                                                                                                               \
        _tile_loadd(ROWS, a, sizeof(union act_line));                                                                  \
        _tile_loadd(CODES, w, sizeof(vcodes));                                                                         \
        _tile_zero(SUM);                                                                                               \
        _tile_dpbssd(SUM, ROWS, CODES);                                                                                \
    } while (0)

/* Starts a step's sums, in the first or the second of the registers. */
VEC void step_begin(const int R, const int turn, const int8_t *a, const vcodes *w)
{
    if (R == TILE_ROWS && !turn)
        MULTIPLY(0, 2, 6, a, w);
    else if (R == TILE_ROWS)
        MULTIPLY(1, 2, 7, a, w);
    else if (!turn)
        MULTIPLY(3, 5, 6, a, w);
    else
        MULTIPLY(4, 5, 7, a, w);
}

VEC void step_end(const int R, const int turn, vi *sum)
{
    if (R == TILE_ROWS && !turn)
        _tile_stored(0, sum, sizeof *sum);
    else if (R == TILE_ROWS)
        _tile_stored(1, sum, sizeof *sum);
    else if (!turn)
        _tile_stored(3, sum, sizeof *sum);
    else
        _tile_stored(4, sum, sizeof *sum);
}

/* ---- Chains ---- */

/* The bits of 1.5 * 2^23 are those of all floats within 2^22 of it but for their last 23, which count from it in ones.
 */
VEC vf small_to_f(vi a)
{
    return vf_sub(_mm512_castsi512_ps(_mm512_add_epi32(a, vi_set1(0x4b400000))), vf_set1(0x1.8p23f));
}

struct rows { /* R of the call's, from the group's first line on */
    const union act_line *a;
    size_t next; /* lines to the next block's */
    float *y;
    size_t stride;
    bool begin; /* chains, instead of going on with those at y */
};

VEC const union act_line *line_of(const enum kind K, const struct rows *rows, int step)
{
    return rows->a + (size_t)(K == HALVES ? step / 2 : step) * rows->next;
}

VEC void begin(const enum kind K, const int R, const int turn, const struct group *g, const struct rows *rows, int step)
{
    const int per_step = K == HALVES ? 4 : 8, second = K == HALVES && step % 2;
    step_begin(R, turn, line_of(K, rows, step)->q + (second ? Q_LINE / 2 : 0), g->code + per_step * step);
}

/* A step's sums join the chains. */
VEC void settle(const enum kind K, const int R, const struct group *g, const struct rows *rows, int step, const vi *sum,
                vf *out)
{
    const union act_line *a = line_of(K, rows, step);
    VEC_UNROLL(16)
    for (int r = 0; r < R; r++)
        out[r] = vf_fma(small_to_f(sum[r]), vf_mul(g->scale[step], vf_set1(a[r].scale)), out[r]);
    if (K == MINIMA) {
        VEC_UNROLL(16)
        for (int r = 0; r < R; r++)
            out[r] = vf_fma(g->min[step], vf_set1(a[r].neg_sum), out[r]);
    }
}

/* At any time one step is multiplied, the one before it stored, and the one before that settled. */
VEC void group_rows(const enum kind K, const int R, const struct group *g, int n_step, const struct rows *rows)
{
    vf out[TILE_ROWS];
    vi sum[2][TILE_ROWS];
    VEC_UNROLL(16)
    for (int r = 0; r < R; r++)
        out[r] = rows->begin ? vf_zero() : vf_load(rows->y + (size_t)r * rows->stride);
    begin(K, R, 0, g, rows, 0);
    VEC_UNROLL(1)
    for (int i = 0; i < n_step; i += 2) {
        if (i + 1 < n_step)
            begin(K, R, 1, g, rows, i + 1);
        step_end(R, 0, sum[0]);
        if (i)
            settle(K, R, g, rows, i - 1, sum[1], out);
        if (i + 2 < n_step)
            begin(K, R, 0, g, rows, i + 2);
        if (i + 1 < n_step)
            step_end(R, 1, sum[1]);
        settle(K, R, g, rows, i, sum[0], out);
    }
    if (n_step % 2 == 0)
        settle(K, R, g, rows, n_step - 1, sum[1], out);
    VEC_UNROLL(16)
    for (int r = 0; r < R; r++)
        vf_store(rows->y + (size_t)r * rows->stride, out[r]);
}

#define GROUP_ROWS(K, R)                                                                                               \
    static void K##_##R(const struct group *g, int n_step, const struct rows *rows)                                    \
    {                                                                                                                  \
        group_rows(K, R, g, n_step, rows);                                                                             \
    }
EACH(PLAIN, GROUP_ROWS)
EACH(MINIMA, GROUP_ROWS)
EACH(HALVES, GROUP_ROWS)

typedef void (*group_fn)(const struct group *g, int n_step, const struct rows *rows);
static const group_fn group_fns[][TILE_ROWS + 1] = {{EACH(PLAIN, ENTRY)}, {EACH(MINIMA, ENTRY)}, {EACH(HALVES, ENTRY)}};

/* ---- Panels ---- */

VEC vcodes as_signed(const enum pack F, vcodes code)
{
    if (F == PACK_Q8_0)
        return _mm512_xor_si512(code, _mm512_set1_epi8(-128));
    if (F == PACK_Q4_0 || F == PACK_MXFP4 || F == PACK_Q6_K)
        return _mm512_sub_epi8(code, _mm512_set1_epi8(F == PACK_Q4_0 ? 8 : F == PACK_MXFP4 ? 12 : 32));
    return code;
}

/* Returns where the next group is. */
VEC const uint8_t *unpack(const enum pack F, const uint8_t *head, int n_block, struct group *g)
{
    const uint8_t *at = head + pack_head_bytes(F);
    VEC_UNROLL(1)
    for (int b = 0; b < n_block; b++, at += pack_block_bytes(F)) {
        struct block w;
        load_block(F, 1, head, at, b, &w);
        VEC_UNROLL(8)
        for (int i = 0; i < 8; i++)
            g->code[8 * b + i] = as_signed(F, w.code[i]);
        if (kind_of(F) == HALVES) {
            g->scale[2 * b] = w.scale[0];
            g->scale[2 * b + 1] = w.scale[1];
        } else {
            g->scale[b] = w.scale[0];
        }
        if (kind_of(F) == MINIMA)
            g->min[b] = w.min;
    }
    __asm__ volatile("" ::: "memory"); /* gcc 12 does not know that a tile is loaded from memory */
    return at;
}

/* n panels side by side: a group's lines come from memory once for all of them. */
VEC void panels(const enum pack F, const struct panel_job *j, int first, int n)
{
    struct group g[MOST_PANELS];
    const uint8_t *at[MOST_PANELS];
    for (int p = 0; p < n; p++)
        at[p] = j->w + (size_t)(first + p) * j->panel_bytes;
    for (int32_t line = 0; line < j->n_line; line += GROUP) {
        int n_block = j->n_line - line < GROUP ? j->n_line - line : GROUP;
        for (int p = 0; p < n; p++)
            at[p] = unpack(F, at[p], n_block, &g[p]);
        for (int32_t r = 0; r < j->n_row; r += TILE_ROWS) {
            group_fn go = group_fns[kind_of(F)][j->n_row - r < TILE_ROWS ? j->n_row - r : TILE_ROWS];
            for (int p = 0; p < n; p++)
                go(&g[p], kind_of(F) == HALVES ? 2 * n_block : n_block,
                   &(struct rows){.a = j->a + (size_t)line * (size_t)j->n_row + r,
                                  .next = (size_t)j->n_row,
                                  .y = j->y + (size_t)r * j->stride + PANEL * (first + p),
                                  .stride = j->stride,
                                  .begin = line == 0});
        }
    }
}

#define TILES(F, name)                                                                                                 \
    void CPU_FN(tiles_##name)(const struct panel_job *j)                                                               \
    {                                                                                                                  \
        if (j->n_row < LEAST_ROWS) {                                                                                   \
            CPU_FN(product_##name)(j);                                                                                 \
            return;                                                                                                    \
        }                                                                                                              \
        configure(j->n_row % TILE_ROWS, kind_of(F) == HALVES);                                                         \
        for (int p = 0; p < j->n_panel; p += MOST_PANELS)                                                              \
            panels(F, j, p, j->n_panel - p < MOST_PANELS ? j->n_panel - p : MOST_PANELS);                              \
    }

TILES(PACK_Q8_0, q8_0)
TILES(PACK_Q4_0, q4_0)
TILES(PACK_Q4_K, q4_k)
TILES(PACK_Q5_K, q5_k)
TILES(PACK_Q6_K, q6_k)
TILES(PACK_MXFP4, mxfp4)
