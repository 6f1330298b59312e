/* Weights and products: a packed row is what the file says, and a product is, bit for bit, the chain that product_int.c
 * and product_float.c promise, on every instruction set and for every row count. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "product.h"
#include "random_plan.h"
#include "weight.h"
#include "../suite.h"

static const int types[N_PACK] = {DT_F32,  DT_F16,  DT_BF16, DT_FP8,  DT_Q8_0,
                                  DT_Q4_0, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_MXFP4};
static struct rnd rnd;

struct matrix {
    struct tensor t;
    struct weight w;
    void *file, *packed;
};

static void put_f16(uint8_t *at, float v)
{
    uint16_t h = f32_to_f16(v);
    memcpy(at, &h, 2);
}

/* Random bytes, so that every code occurs, with scales of a sane size. */
static void random_blocks(int type, uint8_t *p, size_t bytes)
{
    const struct dtype_info *info = dtype_info(type);
    for (size_t i = 0; i < bytes; i++)
        p[i] = (uint8_t)rnd_u64(&rnd);
    for (size_t i = 0; i < bytes; i += (size_t)info->block_bytes, p += info->block_bytes) {
        float scale = 0.01f * rnd_normal(&rnd);
        if (type == DT_F32 || type == DT_FP8)
            memcpy(p, &scale, 4);
        else if (type == DT_F16)
            put_f16(p, scale);
        else if (type == DT_BF16)
            memcpy(p, &(uint16_t){f32_to_bf16(scale)}, 2);
        else if (type == DT_Q6_K)
            put_f16(p + 208, scale);
        else if (type == DT_MXFP4)
            p[0] = (uint8_t)rnd_int(&rnd, 112, 122);
        else
            put_f16(p, scale);
        if (type == DT_Q4_K || type == DT_Q5_K)
            put_f16(p + 2, 0.01f * rnd_normal(&rnd));
        for (int k = 4; type == DT_FP8 && k < info->block_bytes; k++)
            p[k] = (p[k] & 0x7f) == 0x7f ? 0 : p[k]; /* NaN: loading refuses it */
    }
}

static void matrix_make(struct matrix *m, int type, int n_out, int n_in)
{
    struct err e = {0};
    size_t row = dtype_row_bytes(type, n_in);
    m->file = malloc(row * (size_t)n_out);
    random_blocks(type, m->file, row * (size_t)n_out);
    m->t = (struct tensor){.data = m->file, .type = type, .n_row = n_out, .n_col = n_in};
    ck_assert_msg(!weight_plan(&m->t, &m->w, &e), "%s", e.msg);
    m->packed = aligned_alloc(64, (weight_bytes(&m->w) + 63) / 64 * 64);
    memset(m->packed, 0, weight_bytes(&m->w));
    m->w.data = m->packed;
    weight_pack(&m->w, &m->t, 0, m->w.n_panel);
}

static void matrix_free(struct matrix *m)
{
    free(m->file);
    free(m->packed);
}

static int width_of(int type, int i)
{
    static const int narrow[] = {32, 96, 288, 544}, wide[] = {256, 512, 768, 1280}, any[] = {1, 15, 50, 272};
    int block = dtype_info(type)->block_len;
    return block == 1 ? any[i] : block == 32 ? narrow[i] : wide[i];
}

START_TEST(a_packed_row_is_what_the_file_says)
{
    rnd = rnd_begin("a_packed_row_is_what_the_file_says", 1);
    for (int i = 0; i < 4; i++) {
        struct matrix m;
        int n_in = width_of(types[_i], i), n_out = 16 * i + 5;
        matrix_make(&m, types[_i], n_out, n_in);
        float got[1280], want[1280];
        for (int r = 0; r < n_out; r++) {
            dtype_to_f32(types[_i], (char *)m.file + dtype_row_bytes(types[_i], n_in) * (size_t)r, want, n_in);
            weight_row(&m.w, r, got);
            for (int c = 0; c < n_in; c++)
                ck_assert_msg(got[c] == want[c], "row %d column %d: %g, not %g", r, c, got[c], want[c]);
        }
        matrix_free(&m);
    }
}
END_TEST

/* ---- The scalar restatement ---- */

static float head_f16(const uint8_t *head, int i)
{
    uint16_t h;
    memcpy(&h, head + 2 * i, 2);
    return f16_to_f32(h);
}

/* Code i of column c: byte i % 4 of its lane, vector i / 4; see weight.h. */
static int code(enum pack pack, const uint8_t *block, int c, int i)
{
    static const int fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    const uint8_t *lane = block + 4 * c + i % 4;
    int v = i / 4;
    if (pack == PACK_Q8_0)
        return lane[64 * v];
    int nibble = v < 4 ? lane[64 * v] & 15 : lane[64 * (v - 4)] >> 4;
    switch (pack) {
    case PACK_Q5_K:
        return nibble + 16 * (lane[256] >> v & 1);
    case PACK_Q6_K:
        return nibble + 16 * (v < 4 ? lane[256] >> 2 * v & 3 : lane[320] >> 2 * (v - 4) & 3);
    case PACK_MXFP4:
        return fp4[nibble];
    default:
        return nibble;
    }
}

static int32_t block_dot(enum pack pack, const uint8_t *block, int c, const int8_t *q, int from, int to, int offset)
{
    int32_t sum = 0;
    for (int i = from; i < to; i++)
        sum += (code(pack, block, c, i) - offset) * q[i];
    return sum;
}

static float chain_int(const struct weight *w, int col, const union act_line *a)
{
    const uint8_t *head = w->data + (size_t)(col / PANEL) * w->panel_bytes;
    int c = col % PANEL;
    float out = 0;
    for (int b = 0; b < w->n_line; b++, a++) {
        int in_group = b % GROUP, left = w->n_line - b;
        const uint8_t *block = head + pack_head_bytes(w->pack) + (size_t)in_group * pack_block_bytes(w->pack);
        if (w->pack == PACK_Q8_0 || w->pack == PACK_Q4_0) {
            int32_t dot = block_dot(w->pack, block, c, a->q, 0, 32, w->pack == PACK_Q8_0 ? 128 : 8);
            out = fmaf((float)dot, head_f16(head, PANEL * in_group + c) * a->scale, out);
        } else if (w->pack == PACK_MXFP4) {
            float scale = ldexpf(1, head[PANEL * in_group + c] - 128);
            out = fmaf((float)block_dot(w->pack, block, c, a->q, 0, 32, 0), scale * a->scale, out);
        } else if (w->pack == PACK_Q6_K) {
            for (int half = 0; half < 2; half++) {
                float scale = head_f16(head + 256, c) * (float)(int8_t)head[32 * in_group + 16 * half + c];
                int32_t dot = block_dot(w->pack, block, c, a->q, 16 * half, 16 * half + 16, 32);
                out = fmaf((float)dot, scale * a->scale, out);
            }
        } else {
            float scale = head_f16(head + 256, c) * (float)head[PANEL * in_group + c];
            float min = head_f16(head + 288, c) * (float)head[128 + PANEL * in_group + c];
            out = fmaf((float)block_dot(w->pack, block, c, a->q, 0, 32, 0), scale * a->scale, out);
            out = fmaf(min, a->neg_sum, out);
        }
        if (in_group == GROUP - 1 && left > 1)
            head += pack_head_bytes(w->pack) + GROUP * pack_block_bytes(w->pack);
    }
    return out;
}

/* The chain of a block goes by 1 / 256 of its codes, which the panel's scale makes up for. */
static float chain_fp8(const struct weight *w, int col, const union act_line *a)
{
    const uint8_t *panel = w->data + (size_t)(col / PANEL) * w->panel_bytes;
    float out = 0;
    for (int b = 0; b < w->n_in / FP8_BLOCK; b++, panel += FP8_BLOCK_BYTES) {
        float sum = 0, scale;
        memcpy(&scale, panel + sizeof scale * (size_t)(col % PANEL), sizeof scale);
        for (int k = 0; k < FP8_BLOCK; k++, a += k % F_LINE == 0)
            sum = fmaf(e4m3_to_f32(panel[FP8_SCALES + k * PANEL + col % PANEL]) / 256, a->f[k % F_LINE], sum);
        out = fmaf(scale, sum, out);
    }
    return out;
}

/* What is below the normal numbers counts as 0 to a matrix unit. */
static float normal(float x)
{
    return fabsf(x) < FLT_MIN ? copysignf(0, x) : x;
}

/* The chain of upper or of lower parts, which `at` is the first line of: product_amx.c. */
static float chain_part(const float *row, int n, const union act_line *at)
{
    float out = 0;
    for (int k0 = 0; k0 < n; k0 += 32, at += 2) {
        float sum[2] = {0};
        for (int i = 0; i < 32 && k0 + i < n; i++) {
            uint16_t part;
            memcpy(&part, at->bytes + 2 * i, sizeof part);
            sum[i % 2] = normal(fmaf(normal(bf16_to_f32(part)), normal(row[k0 + i]), sum[i % 2]));
        }
        out = normal(out + normal(sum[0] + sum[1]));
    }
    return out;
}

static float chain_bf16(const struct weight *w, int col, const union act_line *a)
{
    float row[1280];
    weight_row(w, col, row);
    return chain_part(row, w->n_in, a) + chain_part(row, w->n_in, a + 1);
}

static float chain_float(const struct weight *w, int col, const union act_line *a)
{
    float row[1280], out = 0;
    if (w->pack == PACK_FP8)
        return chain_fp8(w, col, a);
    weight_row(w, col, row);
    for (int k = 0; k < w->n_in; k++)
        out = fmaf(row[k], a[k / F_LINE].f[k % F_LINE], out);
    return out;
}

/* Rows of activations, extremes included, and what each output must be. */
enum { N_ROW = MAX_TILE, N_OUT = 75 };
static union act_line lines[N_ROW][1280 / F_LINE];
static float want[N_ROW][N_OUT];

static void make_rows(const struct cpu_isa *isa, const struct weight *w)
{
    enum act_kind kind = act_kind_of(isa, w->pack);
    float x[1280];
    for (int r = 0; r < N_ROW; r++) {
        for (int k = 0; k < w->n_in; k++)
            x[k] = r == 0 ? (k % 2 ? 3.0f : -3.0f) : r == 1 ? 2.0f : rnd_normal(&rnd);
        memset(lines[r], 0, sizeof lines[r]);
        isa->lines[kind](x, w->n_in, lines[r], 1);
        for (int c = 0; c < w->n_out; c++)
            want[r][c] = kind == ACT_INT    ? chain_int(w, c, lines[r])
                         : kind == ACT_BF16 ? chain_bf16(w, c, lines[r])
                                            : chain_float(w, c, lines[r]);
    }
}

static void check_rows(const struct cpu_isa *isa, const struct weight *w, int first, int n_row)
{
    static union act_line tile[N_ROW * 1280 / F_LINE];
    static float y[N_ROW][(N_OUT + PANEL - 1) / PANEL * PANEL];
    int n_line = act_lines(act_kind_of(isa, w->pack), w->n_in);
    for (int line = 0; line < n_line; line++)
        for (int r = 0; r < n_row; r++)
            tile[line * n_row + r] = lines[(first + r) % N_ROW][line];
    isa->product[w->pack](&(struct panel_job){.w = w->data,
                                              .panel_bytes = w->panel_bytes,
                                              .n_panel = w->n_panel,
                                              .a = tile,
                                              .n_line = n_line,
                                              .n_row = n_row,
                                              .y = y[0],
                                              .stride = sizeof y[0] / sizeof y[0][0]});
    for (int r = 0; r < n_row; r++)
        for (int c = 0; c < w->n_out; c++)
            ck_assert_msg(!memcmp(&y[r][c], &want[(first + r) % N_ROW][c], 4),
                          "%s type %d: row %d of %d, column %d: %a, not %a", isa->name, w->pack, r, n_row, c, y[r][c],
                          want[(first + r) % N_ROW][c]);
}

enum { N_ISA = 5 };

static int with_each_isa(const struct cpu_isa *isa[N_ISA])
{
    static const char *const names[] = {"portable", "avx2", "avx512", "avx512vnni", "amx"};
    int n = 0;
    for (int i = 0; i < N_ISA; i++) {
        setenv("GALLEY_CPU_ISA", names[i], 1);
        if (!cpu_isa_choose(&isa[n], NULL))
            n++;
        else
            printf("%s: this processor does not have it, skipped\n", names[i]);
    }
    unsetenv("GALLEY_CPU_ISA");
    return n;
}

START_TEST(a_product_is_its_scalar_restatement)
{
    rnd = rnd_begin("a_product_is_its_scalar_restatement", 2);
    const struct cpu_isa *isa[N_ISA];
    int n_isa = with_each_isa(isa);
    for (int width = 0; width < 4; width++) {
        struct matrix m;
        matrix_make(&m, types[_i], N_OUT, width_of(types[_i], width));
        for (int i = 0; i < n_isa; i++) {
            make_rows(isa[i], &m.w);
            for (int n_row = 1; n_row <= isa[i]->tile; n_row++)
                check_rows(isa[i], &m.w, n_row * 5, n_row);
        }
        matrix_free(&m);
    }
}
END_TEST

/* ---- Quantised activations ---- */

START_TEST(activations_have_one_scale_for_each_32)
{
    rnd = rnd_begin("activations_have_one_scale_for_each_32", 3);
    const struct cpu_isa *isa[N_ISA];
    union act_line got[N_ISA][4];
    float x[128];
    int n_isa = with_each_isa(isa);
    for (int round = 0; round < 200; round++) {
        for (int k = 0; k < 128; k++)
            x[k] = (k < 32 ? 1e4f : k < 64 ? 1e-4f : k < 96 ? 1 : 0) * rnd_normal(&rnd);
        for (int i = 0; i < n_isa; i++) {
            memset(got[i], 0, sizeof got[i]);
            isa[i]->lines[ACT_INT](x, 128, got[i], 1);
            ck_assert_mem_eq(got[i], got[0], sizeof got[0]);
        }
        for (int k = 0; k < 128; k++) {
            const union act_line *l = &got[0][k / 32];
            ck_assert(fabsf(x[k] - l->scale * l->q[k % 32]) <= l->scale * 0.5001f);
        }
        for (int b = 0; b < 4; b++) {
            int32_t lo = 0, hi = 0;
            for (int i = 0; i < 16; i++)
                lo += got[0][b].q[i], hi += got[0][b].q[16 + i];
            ck_assert_int_eq(got[0][b].off32a, -32 * lo);
            ck_assert_int_eq(got[0][b].off32b, -32 * hi);
            ck_assert_int_eq(got[0][b].off128, -128 * (lo + hi));
            ck_assert_int_eq(got[0][b].off8, -8 * (lo + hi));
        }
    }
    static const float broken[] = {NAN, INFINITY, -INFINITY};
    for (int j = 0; j < 3; j++) { /* a row that is not finite stays so */
        x[40] = broken[j];
        for (int i = 0; i < n_isa; i++) {
            isa[i]->lines[ACT_INT](x, 128, got[i], 1);
            ck_assert(isnan(got[i][1].scale) && !isnan(got[i][0].scale));
        }
    }
}
END_TEST

START_TEST(an_unknown_instruction_set_is_refused)
{
    struct err e = {0};
    const struct cpu_isa *isa;
    setenv("GALLEY_CPU_ISA", "mmx", 1);
    ck_assert_int_eq(cpu_isa_choose(&isa, &e), -ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "mmx"));
}
END_TEST

START_TEST(silu_is_near_its_definition)
{
    const struct cpu_isa *isa[N_ISA];
    int n_isa = with_each_isa(isa);
    for (int i = 0; i < n_isa; i++)
        for (float x = -110; x < 110; x += 0.37f) {
            float in[16], gate[16], up[16];
            for (int k = 0; k < 16; k++)
                in[k] = gate[k] = x + 0.01f * (float)k, up[k] = 1.5f;
            isa[i]->silu_mul(gate, up, 16);
            for (int k = 0; k < 16; k++) {
                double v = in[k], exact = v / (1 + exp(-v)) * 1.5;
                ck_assert_msg(fabs(gate[k] - exact) <= 4e-7 * fabs(exact) + 1e-35, "%g: %g, not %g", v, gate[k], exact);
            }
        }
}
END_TEST

static void expect_float(double x, double got, double exact, double relative, double absolute)
{
    ck_assert_msg(fabs(got - exact) <= relative * fabs(exact) + absolute, "%g: %g, not %g", x, got, exact);
}

START_TEST(gelu_and_soft_caps_are_near_their_definitions)
{
    const struct cpu_isa *isa[N_ISA];
    int n_isa = with_each_isa(isa);
    for (int i = 0; i < n_isa; i++)
        for (float x = -40; x < 40; x = fabsf(x) < 0.5f ? x + 0.0017f : x + 0.37f) {
            float in[16], gate[16], up[16], capped[19], tiny = x * 1e-6f;
            for (int k = 0; k < 16; k++)
                in[k] = gate[k] = capped[k] = x + 0.001f * (float)k, up[k] = 1.5f;
            capped[16] = capped[17] = capped[18] = tiny; /* a tail, where 1 + tanh would lose everything */
            isa[i]->gelu_mul(gate, up, 16);
            isa[i]->soft_cap(capped, 19, 0.5f, 3);
            for (int k = 0; k < 16; k++) {
                double v = in[k], t = tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v));
                expect_float(v, gate[k], 0.5 * v * (1 + t) * 1.5, 4e-7, 2e-7 * fabs(v));
                expect_float(v, capped[k], 3 * tanh(v * 0.5 / 3), 5e-7, 0);
            }
            expect_float(tiny, capped[18], 3 * tanh((double)tiny * 0.5 / 3), 5e-7, 0);
        }
    float broken[] = {NAN, 1, -INFINITY, INFINITY};
    isa[0]->soft_cap(broken, 4, 1, 2);
    ck_assert(fabsf(broken[2] + 2) < 1e-5f && fabsf(broken[3] - 2) < 1e-5f);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("product");
    tcase_add_loop_test(tc, a_packed_row_is_what_the_file_says, 0, N_PACK);
    tcase_add_loop_test(tc, a_product_is_its_scalar_restatement, 0, N_PACK);
    tcase_add_test(tc, activations_have_one_scale_for_each_32);
    tcase_add_test(tc, an_unknown_instruction_set_is_refused);
    tcase_add_test(tc, silu_is_near_its_definition);
    tcase_add_test(tc, gelu_and_soft_caps_are_near_their_definitions);
    return suite_run(tc);
}
