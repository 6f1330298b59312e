/* gemm_skinny.cu and gemm_wide.cu against sums in double precision over the packed weights' own values; and bitwise
 * against each other. */
#include <string.h>

#include "gemm_case.h"
#include "simt.h"
#include "values.h"
#include "../unit/suite.h"

enum { GAP = 3 }; /* elements between the rows of a result, which must stay as they were */

struct product { /* owner: the test */
    struct gemm_source w;
    struct gemm_args args;
    uint16_t *x; /* [n_row][n_in + 8] */
    float *bias;
    double *want, *slack; /* [n_matrix][n_row][n_out]: the sums, and the sums of sizes */
};

static void product_reference(struct product *p, int32_t n_row)
{
    const struct gemm_weight *w = &p->w.weight;
    size_t n = (size_t)w->n_matrix * (size_t)n_row * (size_t)w->n_out;
    float *row = malloc((size_t)w->n_in * sizeof *row);
    p->want = calloc(n, sizeof *p->want);
    p->slack = calloc(n, sizeof *p->slack);
    for (int32_t m = 0; m < w->n_matrix; m++)
        for (int32_t o = 0; o < w->n_out; o++) {
            gemm_case_unpack(w, m, o, row);
            for (int32_t r = 0; r < n_row; r++) {
                size_t at = (size_t)((m * n_row + r) * w->n_out + o);
                for (int32_t k = 0; k < w->n_in; k++) {
                    double y = (double)row[k] * bf16_to_f32(p->x[r * p->args.x_stride + k]);
                    p->want[at] += y;
                    p->slack[at] += fabs(y);
                }
            }
        }
    free(row);
}

static void product_open(struct product *p, enum gemm_format f, int32_t n_matrix, int32_t n_out, int32_t n_in,
                         int32_t n_row, uint64_t seed)
{
    gemm_case_open(&p->w, f, n_matrix, n_out, n_in, seed);
    p->x = values_bf16(seed + 7, (size_t)n_row * (size_t)(n_in + 8), 1);
    p->bias = values_f32(seed + 8, (size_t)n_out, 1);
    p->args = (struct gemm_args){.weight = p->w.weight,
                                 .x = (const struct bf16 *)p->x,
                                 .n_row = n_row,
                                 .x_stride = n_in + 8,
                                 .out_stride = n_out + GAP};
    product_reference(p, n_row);
}

static void product_close(struct product *p)
{
    gemm_case_close(&p->w);
    free(p->x), free(p->bias), free(p->want), free(p->slack);
}

static float *blank(const struct product *p)
{
    return values_f32(77, (size_t)p->args.n_row * (size_t)p->args.out_stride, 1);
}

/* Sums in f32 of exact products: the error grows with the sizes of the terms, and the K formats' terms before their
 * minima are taken off are larger than the weights. */
static double tolerance(const struct product *p, size_t at)
{
    return 2e-6 * p->slack[at] + 2e-5;
}

static void check_store(const struct product *p, const float *out, const float *before)
{
    int32_t n_out = p->w.weight.n_out, stride = p->args.out_stride;
    for (int32_t r = 0; r < p->args.n_row; r++)
        for (int32_t o = 0; o < stride; o++) {
            size_t at = (size_t)(r * stride + o), w = (size_t)(r * n_out + o);
            if (o >= n_out) {
                ck_assert(out[at] == before[at]);
                continue;
            }
            double want = p->want[w] + (p->args.bias ? p->bias[o] : 0);
            want += p->args.epilogue == GEMM_ADD ? before[at] : 0;
            CK_CLOSE(out[at], want, tolerance(p, w), "format %d, %d x %d, row %d of %d, output %d", p->w.weight.format,
                     n_out, p->w.weight.n_in, r, p->args.n_row, o);
        }
}

static void run_and_check(struct product *p, void (*run)(const struct gemm_args *, struct CUstream_st *))
{
    float *out = blank(p), *before = blank(p);
    p->args.out = out;
    run(&p->args, NULL);
    check_store(p, out, before);
    free(out), free(before);
}

/* ---- Formats and shapes ---- */

static int32_t columns_of(enum gemm_format f, int n_block)
{
    int len = dtype_info(gemm_case_type(f))->block_len;
    return len == 1 ? n_block * 32 + 8 : len * n_block;
}

START_TEST(test_skinny_formats)
{
    static const int32_t rows[] = {1, 2, 7, 8, 9, 16};
    for (int f = 0; f < GEMM_N_FORMAT; f++)
        for (int i = 0; i < 6; i++) {
            struct product p;
            if (f == GEMM_F32)
                continue;
            simt_seed((uint64_t)(f * 10 + i));
            product_open(&p, (enum gemm_format)f, 1, i % 2 ? 37 : 16, columns_of((enum gemm_format)f, i + 1), rows[i],
                         (uint64_t)i);
            run_and_check(&p, gemm_skinny);
            product_close(&p);
        }
}
END_TEST

START_TEST(test_wide_formats)
{
    static const int32_t rows[] = {17, 33, 65};
    for (int f = 0; f < GEMM_N_FORMAT; f++)
        for (int i = 0; i < 3; i++) {
            struct product p;
            simt_seed((uint64_t)(f * 10 + i));
            product_open(&p, (enum gemm_format)f, 1, 40, columns_of((enum gemm_format)f, 2 * i + 1), rows[i],
                         (uint64_t)i);
            run_and_check(&p, gemm_wide);
            product_close(&p);
        }
}
END_TEST

/* Several tiles both ways, and a ring that goes round: more slabs in a slice than stages. */
START_TEST(test_many_tiles)
{
    static const enum gemm_format formats[] = {GEMM_BF16, GEMM_Q4_K};
    for (int i = 0; i < 2; i++) {
        struct product p;
        simt_seed((uint64_t)i);
        product_open(&p, formats[i], 1, 150, 512, 150, 5);
        run_and_check(&p, gemm_launch);
        product_close(&p);
        product_open(&p, formats[i], 1, 21, 64 * 8 * 9, 3, 6);
        run_and_check(&p, gemm_launch);
        product_close(&p);
    }
}
END_TEST

/* ---- Epilogues ---- */

static void check_glu(const struct product *p, const uint16_t *out, const uint16_t *before)
{
    int32_t n_out = p->w.weight.n_out, stride = p->args.out_stride;
    for (int32_t r = 0; r < p->args.n_row; r++)
        for (int32_t o = 0; o < stride; o++) {
            size_t at = (size_t)(r * stride + o), w = (size_t)(r * n_out + o);
            if (o >= n_out) {
                ck_assert(out[at] == before[at]);
                continue;
            }
            double gate = p->want[w], up = p->want[w + (size_t)(p->args.n_row * n_out)];
            double want = (p->args.gelu ? gelu_of(gate) : gate / (1 + exp(-gate))) * up;
            CK_CLOSE(bf16_to_f32(out[at]), want, fabs(want) * 0x1.1p-8 + 1e-4, "row %d of %d, output %d", r,
                     p->args.n_row, o);
        }
}

static void run_glu(int32_t n_row, int gelu, float *scratch)
{
    struct product p;
    product_open(&p, GEMM_Q8_0, 2, 37, 96, n_row, 3);
    size_t n = (size_t)n_row * (size_t)p.args.out_stride;
    uint16_t *out = values_bf16(78, n, 1), *before = values_bf16(78, n, 1);
    p.args.epilogue = GEMM_GLU;
    p.args.gelu = gelu;
    p.args.out_bf16 = (struct bf16 *)out;
    p.args.scratch = scratch;
    p.args.n_block = 64;
    gemm_launch(&p.args, NULL);
    check_glu(&p, out, before);
    free(out), free(before);
    product_close(&p);
}

START_TEST(test_epilogues)
{
    static const int32_t rows[] = {5, 20};
    float *scratch = values_f32(1, 8 * 20 * 6 * 16, 1);
    for (int i = 0; i < 2; i++) {
        struct product p;
        simt_seed((uint64_t)i);
        for (int gelu = 0; gelu < 2; gelu++) {
            run_glu(rows[i], gelu, NULL);
            run_glu(rows[i], gelu, scratch);
        }
        product_open(&p, GEMM_BF16, 1, 35, 72, rows[i], 4);
        p.args.bias = p.bias;
        run_and_check(&p, gemm_launch);
        p.args.epilogue = GEMM_ADD;
        run_and_check(&p, gemm_launch);
        p.args.scratch = scratch;
        p.args.n_block = 64;
        run_and_check(&p, gemm_launch);
        product_close(&p);
    }
    free(scratch);
}
END_TEST

/* ---- Unpacking ---- */

static void check_unpacked(const struct gemm_source *s, int32_t matrix, int32_t out0, int32_t n_out)
{
    int32_t n_in = s->weight.n_in;
    size_t n = (size_t)(n_out + 1) * (size_t)n_in;
    uint16_t *out = aligned_alloc(16, n * sizeof *out), *before = values_bf16(5, n, 1);
    float *want = malloc((size_t)n_in * sizeof *want);
    memcpy(out, before, n * sizeof *out);
    gemm_unpack(
        &(struct unpack_args){
            .weight = s->weight, .matrix = matrix, .out0 = out0, .n_out = n_out, .out = (struct bf16 *)out},
        NULL);
    for (int32_t o = 0; o < n_out; o++) {
        gemm_case_unpack(&s->weight, matrix, out0 + o, want);
        for (int32_t k = 0; k < n_in; k++)
            CK_CLOSE(bf16_to_f32(out[o * n_in + k]), want[k], fabsf(want[k]) * 0x1.02p-8 + 1e-6,
                     "format %d, matrix %d, output %d + %d, column %d of %d", s->weight.format, matrix, out0, o, k,
                     n_in);
    }
    ck_assert_msg(!memcmp(out + n_out * n_in, before + n_out * n_in, (size_t)n_in * sizeof *out),
                  "format %d: written beyond output %d", s->weight.format, n_out);
    free(out), free(before), free(want);
}

START_TEST(test_unpack)
{
    for (int f = 0; f < GEMM_N_FORMAT; f++)
        for (int i = 0; i < 3 && gemm_can_unpack((enum gemm_format)f); i++) {
            struct gemm_source s;
            simt_seed((uint64_t)(f * 10 + i));
            gemm_case_open(&s, (enum gemm_format)f, 1 + i % 2, 150 + 3 * i, columns_of((enum gemm_format)f, 2 * i + 1),
                           (uint64_t)i);
            check_unpacked(&s, 0, 0, s.weight.n_out);
            check_unpacked(&s, i % 2, 16, 37);
            check_unpacked(&s, i % 2, 144, s.weight.n_out - 144);
            gemm_case_close(&s);
        }
}
END_TEST

/* ---- Bitwise ---- */

/* The first rows of a product alone, by one of the kernels, have the bits that they have among all. */
static void same_rows(const struct product *p, const float *all, int32_t n_row,
                      void (*run)(const struct gemm_args *, struct CUstream_st *), float *scratch)
{
    struct gemm_args a = p->args;
    float *out = blank(p);
    a.n_row = n_row;
    a.out = out;
    a.scratch = scratch;
    a.n_block = 64;
    run(&a, NULL);
    for (int32_t r = 0; r < n_row; r++)
        ck_assert_msg(!memcmp(out + r * a.out_stride, all + r * a.out_stride, (size_t)a.weight.n_out * sizeof *out),
                      "format %d: row %d of %d differs from its like of %d", a.weight.format, r, n_row, p->args.n_row);
    free(out);
}

START_TEST(test_rows_do_not_depend_on_company)
{
    enum { N_ROW = 100, N_OUT = 37 };
    static const int32_t skinny[] = {1, 8, 16}, wide[] = {3, 64};
    float *scratch = values_f32(1, 8 * N_ROW * 3 * 16, 1);
    for (int f = 0; f < GEMM_N_FORMAT; f++) {
        struct product p;
        simt_seed((uint64_t)f);
        product_open(&p, (enum gemm_format)f, 1, N_OUT, f == GEMM_F32 ? 256 : 768, N_ROW, 11);
        float *all = blank(&p), *before = blank(&p);
        p.args.out = all;
        gemm_launch(&p.args, NULL);
        check_store(&p, all, before);
        for (int i = 0; i < 3 && f != GEMM_F32; i++)
            same_rows(&p, all, skinny[i], gemm_skinny, NULL);
        for (int i = 0; i < 2; i++)
            same_rows(&p, all, wide[i], gemm_wide, i ? scratch : NULL);
        free(all), free(before);
        product_close(&p);
    }
    free(scratch);
}
END_TEST

/* Where a block stands in its grid does not matter either. */
START_TEST(test_schedules)
{
    struct product p;
    product_open(&p, GEMM_Q6_K, 1, 37, 512, 12, 12);
    float *first = blank(&p);
    p.args.out = first;
    gemm_launch(&p.args, NULL);
    for (uint64_t seed = 1; seed <= 5; seed++) {
        simt_seed(seed);
        same_rows(&p, first, 12, gemm_skinny, NULL);
        same_rows(&p, first, 12, gemm_wide, NULL);
    }
    free(first);
    product_close(&p);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("gemm");
    tcase_add_test(tc, test_skinny_formats);
    tcase_add_test(tc, test_wide_formats);
    tcase_add_test(tc, test_many_tiles);
    tcase_add_test(tc, test_epilogues);
    tcase_add_test(tc, test_unpack);
    tcase_add_test(tc, test_rows_do_not_depend_on_company);
    tcase_add_test(tc, test_schedules);
    return suite_run(tc);
}
