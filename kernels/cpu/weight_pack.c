/* From the file's layout to panels, 256 elements at a time: what each of a panel's 16 columns stores of them goes to a
 * row of a small buffer, and then words of all columns are dealt out in turn. So the panel is written once, from front
 * to back, and by vectors of the least that every x86-64 has: reading the file should be what takes the time. */
#include <string.h>

#include "dtype_codec.h"
#include "weight.h"

/* Block layouts of the file: ggml's documented formats, see dtype.h. */
enum {
    Q8_0_BYTES = 34,
    Q4_0_BYTES = 18,
    Q4_K_BYTES = 144,
    Q5_K_BYTES = 176,
    Q6_K_BYTES = 210,
    MX_BYTES = 17,
    STRIP = 256, /* elements */
    BLOCK = 32,
    NIBBLES = BLOCK / 2
};

struct strip { /* of a panel's columns; what the tensor lacks is zero */
    _Alignas(16) uint8_t row[PANEL][STRIP * 4];
};

/* ---- Dealing out ---- */

typedef uint32_t words __attribute__((vector_size(16)));
typedef uint16_t halves __attribute__((vector_size(16)));
typedef uint8_t bytes __attribute__((vector_size(16)));

/* Words `at` .. `at` + 3 of four columns; then one word of all four in each vector. */
static inline void words_of(const struct strip *s, int column, int at, words v[4])
{
    for (int i = 0; i < 4; i++)
        memcpy(&v[i], s->row[column + i] + 4 * at, sizeof v[i]);
    words a = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5), b = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5);
    words c = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7), d = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
    v[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
    v[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    v[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
    v[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

/* out[word][column] of n words from `at` on. */
static void deal_words(const struct strip *s, int at, int n, uint8_t *out)
{
    for (int i = 0; i < n; i += 4)
        for (int c = 0; c < PANEL; c += 4) {
            words v[4];
            words_of(s, c, at + i, v);
            for (int k = 0; k < 4 && i + k < n; k++)
                memcpy(out + 64 * (i + k) + 4 * c, &v[k], sizeof v[k]);
        }
}

static inline void part_halves(words a, words b, halves part[2])
{
    part[0] = __builtin_shufflevector((halves)a, (halves)b, 0, 2, 4, 6, 8, 10, 12, 14);
    part[1] = __builtin_shufflevector((halves)a, (halves)b, 1, 3, 5, 7, 9, 11, 13, 15);
}

/* out[half][column]; n words, two halves each. */
static void deal_halves(const struct strip *s, int n, uint8_t *out)
{
    for (int i = 0; i < n; i += 4)
        for (int c = 0; c < PANEL; c += 8) {
            words a[4], b[4];
            words_of(s, c, i, a);
            words_of(s, c + 4, i, b);
            for (int k = 0; k < 4 && i + k < n; k++) {
                halves part[2];
                part_halves(a[k], b[k], part);
                memcpy(out + 64 * (i + k) + 2 * c, &part[0], sizeof part[0]);
                memcpy(out + 64 * (i + k) + 32 + 2 * c, &part[1], sizeof part[1]);
            }
        }
}

/* out[byte][column]; n words, four bytes each, n a multiple of 4. */
static void deal_bytes(const struct strip *s, int n, uint8_t *out)
{
    for (int i = 0; i < n; i += 4) {
        words v[4][4];
        for (int q = 0; q < 4; q++)
            words_of(s, 4 * q, i, v[q]);
        for (int k = 0; k < 4; k++) {
            halves low[2], high[2];
            part_halves(v[0][k], v[1][k], low);
            part_halves(v[2][k], v[3][k], high);
            for (int j = 0; j < 4; j++) {
                bytes a = (bytes)low[j / 2], b = (bytes)high[j / 2];
                bytes one =
                    j % 2 ? __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
                          : __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                memcpy(out + 16 * (4 * (i + k) + j), &one, sizeof one);
            }
        }
    }
}

/* ---- What a column stores: its part of the head, and the bytes of each block's codes ---- */

static void put_u16(uint8_t *array, int i, const uint8_t *two)
{
    memcpy(array + 2 * i, two, 2);
}

static void store_q8_0(const uint8_t *p, int n_block, uint8_t *head, int c, uint8_t *row)
{
    for (int b = 0; b < n_block; b++, p += Q8_0_BYTES, row += BLOCK) {
        put_u16(head, PANEL * b + c, p);
        for (int i = 0; i < BLOCK; i++)
            row[i] = p[2 + i] ^ 128;
    }
}

static void store_q4_0(const uint8_t *p, int n_block, uint8_t *head, int c, uint8_t *row)
{
    for (int b = 0; b < n_block; b++, p += Q4_0_BYTES, row += NIBBLES) {
        put_u16(head, PANEL * b + c, p);
        memcpy(row, p + 2, NIBBLES);
    }
}

static void store_mxfp4(const uint8_t *p, int n_block, uint8_t *head, int c, uint8_t *row)
{
    for (int b = 0; b < n_block; b++, p += MX_BYTES, row += NIBBLES) {
        head[PANEL * b + c] = p[0];
        memcpy(row, p + 1, NIBBLES);
    }
}

/* d, dmin and the eight 6-bit scales and minima that Q4_K and Q5_K begin with. */
static void store_k_head(const uint8_t *p, uint8_t *head, int c)
{
    uint8_t *scale = head + c, *min = head + 128 + c;
    const uint8_t *s = p + 4;
    for (int i = 0; i < 4; i++) {
        scale[PANEL * i] = s[i] & 63;
        min[PANEL * i] = s[i + 4] & 63;
        scale[PANEL * (i + 4)] = (uint8_t)((s[i + 8] & 15) | (s[i] >> 6) << 4);
        min[PANEL * (i + 4)] = (uint8_t)(s[i + 8] >> 4 | (s[i + 4] >> 6) << 4);
    }
    put_u16(head + 256, c, p);
    put_u16(head + 288, c, p + 2);
}

/* Two blocks whose codes share the bytes at p, the first the low halves; in a panel the two halves of one block do. */
static void store_nibbles(const uint8_t *p, uint8_t *first, uint8_t *second)
{
    for (int i = 0; i < NIBBLES; i++) {
        first[i] = (uint8_t)((p[i] & 15) | p[16 + i] << 4);
        second[i] = (uint8_t)(p[i] >> 4 | (p[16 + i] & 0xf0));
    }
}

static void store_q4_k(const uint8_t *p, uint8_t *head, int c, uint8_t *row)
{
    store_k_head(p, head, c);
    for (int b = 0; b < GROUP; b += 2)
        store_nibbles(p + 16 + 16 * b, row + NIBBLES * b, row + NIBBLES * (b + 1));
}

/* Bit b of byte i of p is the fifth of code i of block b. */
static void store_q5_k(const uint8_t *p, uint8_t *head, int c, uint8_t *row)
{
    enum { STORED = NIBBLES + 4 };
    store_k_head(p, head, c);
    for (int b = 0; b < GROUP; b += 2)
        store_nibbles(p + 48 + 16 * b, row + STORED * b, row + STORED * (b + 1));
    for (int b = 0; b < GROUP; b++) {
        uint32_t bits = 0;
        for (int v = 0; v < 8; v++) {
            uint32_t four;
            memcpy(&four, p + 16 + 4 * v, sizeof four);
            bits |= (four >> b & 0x01010101) << v;
        }
        memcpy(row + STORED * b + NIBBLES, &bits, sizeof bits);
    }
}

/* Half of a super-block: of its four blocks, q has the low four bits and h the high two. */
static void store_q6_half(const uint8_t *q, const uint8_t *h, uint8_t *row)
{
    enum { STORED = NIBBLES + 8 };
    store_nibbles(q, row, row + 2 * STORED);
    store_nibbles(q + 32, row + STORED, row + 3 * STORED);
    for (int b = 0; b < 4; b++)
        for (int part = 0; part < 2; part++) {
            uint32_t bits = 0;
            for (int v = 0; v < 4; v++) {
                uint32_t four;
                memcpy(&four, h + 16 * part + 4 * v, sizeof four);
                bits |= (four >> 2 * b & 0x03030303) << 2 * v;
            }
            memcpy(row + STORED * b + NIBBLES + 4 * part, &bits, sizeof bits);
        }
}

static void store_q6_k(const uint8_t *p, uint8_t *head, int c, uint8_t *row)
{
    store_q6_half(p, p + 128, row);
    store_q6_half(p + 64, p + 160, row + 4 * (NIBBLES + 8));
    for (int i = 0; i < 2 * GROUP; i++)
        head[PANEL * i + c] = p[192 + i];
    put_u16(head + 256, c, p + 208);
}

static void store_column(enum pack pack, const uint8_t *src, int32_t group, int n_block, uint8_t *head, int c,
                         uint8_t *row)
{
    size_t g = (size_t)group;
    if (pack == PACK_Q8_0)
        store_q8_0(src + g * GROUP * Q8_0_BYTES, n_block, head, c, row);
    else if (pack == PACK_Q4_0)
        store_q4_0(src + g * GROUP * Q4_0_BYTES, n_block, head, c, row);
    else if (pack == PACK_MXFP4)
        store_mxfp4(src + g * GROUP * MX_BYTES, n_block, head, c, row);
    else if (pack == PACK_Q4_K)
        store_q4_k(src + g * Q4_K_BYTES, head, c, row);
    else if (pack == PACK_Q5_K)
        store_q5_k(src + g * Q5_K_BYTES, head, c, row);
    else
        store_q6_k(src + g * Q6_K_BYTES, head, c, row);
}

/* ---- Panels ---- */

struct source { /* n rows of the file that a panel's first columns are */
    const uint8_t *data;
    size_t row_bytes;
    int n;
};

static void pack_int(const struct weight *w, const struct source *from, struct strip *s, uint8_t *panel)
{
    const int n_word = pack_vectors(w->pack);
    for (int32_t g = 0, left = w->n_line; left > 0; g++, left -= GROUP) {
        int n_block = left < GROUP ? left : GROUP;
        uint8_t *head = panel;
        for (int c = 0; c < from->n; c++)
            store_column(w->pack, from->data + from->row_bytes * (size_t)c, g, n_block, head, c, s->row[c]);
        panel += pack_head_bytes(w->pack);
        deal_words(s, 0, n_word * n_block, panel);
        panel += pack_block_bytes(w->pack) * (size_t)n_block;
    }
}

static void pack_float(const struct weight *w, const struct source *from, struct strip *s, uint8_t *panel)
{
    const int size = w->pack == PACK_F32 ? 4 : 2;
    for (int32_t k = 0; k < w->n_in; k += STRIP, panel += (size_t)(STRIP * PANEL * size)) {
        int n = w->n_in - k < STRIP ? w->n_in - k : STRIP, n_word = (n * size + 3) / 4;
        for (int c = 0; c < from->n; c++) {
            memset(s->row[c] + 4 * (n_word - 1), 0, 4); /* whose second half may not be in the file */
            memcpy(s->row[c], from->data + from->row_bytes * (size_t)c + (size_t)(k * size), (size_t)(n * size));
        }
        if (w->pack == PACK_F16)
            deal_halves(s, n_word, panel);
        else
            deal_words(s, 0, n_word, panel);
    }
}

static void pack_fp8(const struct weight *w, const struct source *from, struct strip *s, uint8_t *panel)
{
    for (int32_t b = 0; b < w->n_in / FP8_BLOCK; b++, panel += FP8_BLOCK_BYTES) {
        for (int c = 0; c < from->n; c++) {
            const uint8_t *p = from->data + from->row_bytes * (size_t)c + (size_t)b * FP8_BYTES;
            float scale;
            memcpy(&scale, p, sizeof scale);
            scale *= 256;
            memcpy(panel + sizeof scale * (size_t)c, &scale, sizeof scale);
            memcpy(s->row[c], p + sizeof scale, FP8_BLOCK);
        }
        deal_bytes(s, FP8_BLOCK / 4, panel + FP8_SCALES);
    }
}

void weight_pack(const struct weight *w, const struct tensor *t, int32_t p0, int32_t p1)
{
    struct strip s = {0};
    for (int32_t p = p0; p < p1; p++) {
        struct source from = {.row_bytes = dtype_row_bytes(t->type, t->n_col)};
        from.data = (const uint8_t *)t->data + from.row_bytes * (size_t)p * PANEL;
        from.n = w->n_out - p * PANEL < PANEL ? w->n_out - p * PANEL : PANEL;
        for (int c = from.n; c < PANEL; c++)
            memset(s.row[c], 0, sizeof s.row[c]);
        uint8_t *panel = w->data + (size_t)p * w->panel_bytes;
        if (pack_is_int(w->pack))
            pack_int(w, &from, &s, panel);
        else if (w->pack == PACK_FP8)
            pack_fp8(w, &from, &s, panel);
        else
            pack_float(w, &from, &s, panel);
    }
}
