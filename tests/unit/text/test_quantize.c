/* engine/model/quantize.c: the types chosen, the values kept, what is refused. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dtype.h"
#include "model/gguf.h"
#include "model/gguf_write.h"
#include "quantize.h"
#include "rng.h"
#include "../suite.h"

static char in_path[256], out_path[256], again_path[256];

static void setup(void)
{
    const char *dir = getenv("TMPDIR");
    if (!dir)
        dir = "/tmp";
    snprintf(in_path, sizeof in_path, "%s/galley-test-quantize-%d-in", dir, (int)getpid());
    snprintf(out_path, sizeof out_path, "%s/galley-test-quantize-%d-out", dir, (int)getpid());
    snprintf(again_path, sizeof again_path, "%s/galley-test-quantize-%d-again", dir, (int)getpid());
}

static void teardown(void)
{
    unlink(in_path);
    unlink(out_path);
    unlink(again_path);
}

struct spec {
    const char *name;
    int n_dim;
    int64_t d0, d1;
};

/* Two layers; rows of every kind of length. */
static const struct spec specs[] = {
    {"token_embd.weight", 2, 256, 300},       {"blk.0.attn_norm.weight", 1, 256, 1},
    {"blk.0.attn_q.weight", 2, 256, 256},     {"blk.0.attn_q.bias", 1, 256, 1},
    {"blk.0.attn_v.weight", 2, 256, 64},      {"blk.0.ffn_down.weight", 2, 96, 256},
    {"blk.0.ffn_gate_inp.weight", 2, 256, 4}, {"blk.1.ffn_up.weight", 2, 20, 64},
    {"blk.1.attn_v.weight", 2, 512, 3},
};
enum { N_SPEC = sizeof specs / sizeof *specs };

static float value(int tensor, int64_t i)
{
    uint32_t r[4], ctr[4] = {(uint32_t)i, (uint32_t)tensor, 0, 0};
    rng_philox(11, ctr, r);
    return (rng_unit(r[0]) + rng_unit(r[1]) - 1.0f) * 0.1f;
}

/* poison replaces one element of one tensor. */
static void write_model(int poison_tensor, float poison)
{
    struct gguf_writer *w;
    struct err e;
    ck_assert_int_eq(gguf_writer_open(&w, in_path, 0, &e), 0);
    gguf_put_str(w, "general.architecture", "test");
    gguf_put_u32(w, "general.file_type", 0);
    gguf_put_strs(w, "list", (struct slice[]){{"a", 1}, {"b", 1}}, 2);
    for (int t = 0; t < N_SPEC; t++)
        ck_assert_int_eq(gguf_put_tensor(w, (struct slice){specs[t].name, strlen(specs[t].name)}, specs[t].n_dim,
                                         (int64_t[]){specs[t].d0, specs[t].d1}, DT_F32, &e),
                         0);
    ck_assert_int_eq(gguf_write_head(w, &e), 0);
    for (int t = 0; t < N_SPEC; t++) {
        int64_t n = specs[t].d0 * specs[t].d1;
        float *x = malloc((size_t)n * 4);
        for (int64_t i = 0; i < n; i++)
            x[i] = value(t, i);
        if (t == poison_tensor)
            x[n - 1] = poison;
        ck_assert_int_eq(gguf_write_data(w, x, (size_t)n * 4, &e), 0);
        free(x);
    }
    ck_assert_int_eq(gguf_writer_finish(w, &e), 0);
    gguf_writer_close(w);
}

static double tensor_error(const struct gguf_tensor *t, int spec)
{
    int64_t n = t->dim[0] * t->n_row;
    float *y = malloc((size_t)n * 4);
    dtype_to_f32(t->type, t->data, y, n);
    double err = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double x = value(spec, i);
        err += (x - y[i]) * (x - y[i]);
        sum += x * x;
    }
    free(y);
    return sqrt(err / sum);
}

static void check_types(const char *type_name, const int want[N_SPEC], uint32_t file_type, double bound)
{
    struct gguf *g;
    struct err e;
    uint32_t ft;
    ck_assert_msg(model_quantize(in_path, out_path, type_name, &e) == 0, "%s", e.msg);
    ck_assert_int_eq(gguf_open(&g, out_path, &e), 0);
    ck_assert_int_eq(gguf_get_u32(g, "general.file_type", &ft, &e), 0);
    ck_assert_uint_eq(ft, file_type);
    struct slice s[2];
    ck_assert_int_eq(gguf_get_strs(g, "list", s, 2, &e), 0);
    ck_assert(slice_eq(s[1], "b"));
    ck_assert_int_eq(g->n_tensor, N_SPEC);
    for (int t = 0; t < N_SPEC; t++) {
        const struct gguf_tensor *out = gguf_tensor_find(g, specs[t].name);
        ck_assert_ptr_nonnull(out);
        ck_assert_msg(out->type == want[t], "%s in %s: type %d", specs[t].name, type_name, out->type);
        ck_assert(out->n_dim == specs[t].n_dim && out->dim[0] == specs[t].d0 && out->dim[1] == specs[t].d1);
        ck_assert_double_le(tensor_error(out, t), bound);
    }
    gguf_close(g);
}

START_TEST(test_types)
{
    write_model(-1, 0);
    check_types("f32", (int[]){0, 0, 0, 0, 0, 0, 0, 0, 0}, 0, 0);
    check_types("F16", (int[]){1, 0, 1, 0, 1, 1, 0, 1, 1}, 1, 1e-3);
    check_types("BF16", (int[]){30, 0, 30, 0, 30, 30, 0, 30, 30}, 32, 1e-2);
    check_types("Q8_0", (int[]){8, 0, 8, 0, 8, 8, 0, 1, 8}, 7, 0.01);
    check_types("Q4_0", (int[]){2, 0, 2, 0, 2, 2, 0, 1, 2}, 2, 0.1);
    check_types("Q4_K", (int[]){12, 0, 12, 0, 12, 8, 0, 1, 12}, 14, 0.08);
    check_types("Q6_K", (int[]){14, 0, 14, 0, 14, 8, 0, 1, 14}, 18, 0.02);
    /* tied: the embedding is the output. Of two layers the last is in the last eighth. */
    check_types("Q4_K_M", (int[]){14, 0, 12, 0, 12, 8, 0, 1, 14}, 15, 0.08);
    check_types("q5_k_m", (int[]){14, 0, 13, 0, 13, 8, 0, 1, 14}, 17, 0.05);
}
END_TEST

START_TEST(test_same_type_copies_the_bytes)
{
    struct err e;
    write_model(-1, 0);
    ck_assert_int_eq(model_quantize(in_path, out_path, "Q4_K_M", &e), 0);
    ck_assert_int_eq(model_quantize(out_path, again_path, "Q4_K_M", &e), 0);
    struct gguf *a, *b;
    ck_assert_int_eq(gguf_open(&a, out_path, &e), 0);
    ck_assert_int_eq(gguf_open(&b, again_path, &e), 0);
    ck_assert_uint_eq(a->size_bytes, b->size_bytes);
    ck_assert_mem_eq(a->base, b->base, a->size_bytes);
    gguf_close(a);
    gguf_close(b);
}
END_TEST

START_TEST(test_refusals)
{
    struct err e;
    write_model(4, NAN);
    ck_assert_int_eq(model_quantize(in_path, out_path, "Q4_K", &e), -ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.msg, "blk.0.attn_v.weight"));
    ck_assert_int_eq(access(out_path, F_OK), -1);
    write_model(1, INFINITY);
    ck_assert_int_eq(model_quantize(in_path, out_path, "F32", &e), -ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.msg, "blk.0.attn_norm.weight"));
    write_model(7, 1e6f);
    ck_assert_int_eq(model_quantize(in_path, out_path, "F16", &e), -ERR_INVALID);
    ck_assert_int_eq(model_quantize(in_path, out_path, "Q9_X", &e), -ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "Q4_K_M"));
    ck_assert_int_eq(model_quantize("/nonexistent", out_path, "Q4_K", &e), -ERR_NOTFOUND);
    ck_assert_int_eq(access(out_path, F_OK), -1);
    write_model(-1, 0);
    ck_assert_int_eq(model_quantize(in_path, out_path, "Q4_K", &e), 0);
    ck_assert_int_eq(model_quantize(out_path, again_path, "Q8_0", &e), -ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "already Q4_K"));
    ck_assert_int_eq(model_quantize(out_path, again_path, "F16", &e), 0);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("quantize");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_types);
    tcase_add_test(tc, test_same_type_copies_the_bytes);
    tcase_add_test(tc, test_refusals);
    return suite_run(tc);
}
