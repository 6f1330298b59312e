/* GGUF files of the families with something in them that cannot be: one sentence that names the key or the tensor. Each
 * case is a copy of a golden model with a few bytes changed. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "inspect.h"
#include "model/gguf.h"
#include "model/model.h"
#include "quantize.h"
#include "../suite.h"

enum { MAX_FILE = 1 << 20 };

static char path[64], *bytes;
static size_t n_bytes;

static void setup(void)
{
    strcpy(path, "/tmp/galley-family-XXXXXX");
    close(mkstemp(path));
    bytes = malloc(MAX_FILE);
}

static void teardown(void)
{
    unlink(path);
    free(bytes);
}

static void read_model(const char *name)
{
    char golden[512];
    snprintf(golden, sizeof golden, "%s/%s.gguf", MODELS, name);
    FILE *f = fopen(golden, "rb");
    ck_assert_msg(f != NULL, "%s", golden);
    n_bytes = fread(bytes, 1, MAX_FILE, f);
    fclose(f);
}

static void write_model(void)
{
    FILE *f = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(bytes, 1, n_bytes, f), n_bytes);
    fclose(f);
}

/* What follows a text that the file has with its length before it. */
static char *after(const char *text)
{
    char with_length[128];
    uint64_t n = strlen(text);
    memcpy(with_length, &n, 8);
    memcpy(with_length + 8, text, n);
    char *at = memmem(bytes, n_bytes, with_length, n + 8);
    ck_assert_msg(at != NULL, "%s", text);
    return at + 8 + n;
}

static void expect(const char *message)
{
    struct model m;
    struct err e = {0};
    write_model();
    ck_assert_msg(model_open(path, &m, &e) < 0, "not refused, expected: %s", message);
    ck_assert_msg(strstr(e.msg, message) && strstr(e.msg, path), "'%s' is not in: %s", message, e.msg);
}

static void expect_u32(const char *model, const char *key, uint32_t value, const char *message)
{
    read_model(model);
    memcpy(after(key) + 4, &value, 4); /* the type comes first */
    expect(message);
}

static void expect_f32(const char *model, const char *key, float value, const char *message)
{
    uint32_t u;
    memcpy(&u, &value, 4);
    expect_u32(model, key, u, message);
}

/* `from` becomes `to`, of the same length. */
static void expect_name(const char *model, const char *from, const char *to, const char *message)
{
    read_model(model);
    ck_assert_uint_eq(strlen(from), strlen(to));
    memcpy(after(from) - strlen(from), to, strlen(to));
    expect(message);
}

static void expect_shape(const char *model, const char *tensor, const uint64_t *dim, int n, const char *message)
{
    read_model(model);
    memcpy(after(tensor) + 4, dim, 8 * (size_t)n); /* the number of dimensions comes first */
    expect(message);
}

START_TEST(experts_are_checked)
{
    expect_u32("mixtral", "llama.expert_used_count", 6, "llama.expert_used_count: 6 is outside of 1..5");
    expect_u32("mixtral", "llama.expert_used_count", 0, "llama.expert_used_count: 0 is outside of 1..5");
    expect_u32("mixtral", "llama.expert_count", 1 << 20, "llama.expert_count");
    expect_u32("mixtral", "llama.expert_count", 4, "tensor blk.0.ffn_gate_inp.weight: 5 x 32, expected 4 x 32");
    expect_u32("mixtral", "llama.expert_count", 0, "tensor blk.0.ffn_gate_inp.weight: a router");
    expect_u32("qwen3moe", "qwen3moe.expert_feed_forward_length", 17, "tensor blk.0.ffn_gate_exps.weight");
    expect_name("mixtral", "blk.1.ffn_down_exps.weight", "blk.1.ffn_dawn_exps.weight",
                "blk.1.ffn_down_exps.weight is missing");
    expect_name("mixtral", "blk.0.ffn_gate_inp.weight", "blk.0.ffn_gate_imp.weight",
                "blk.0.ffn_gate_inp.weight is missing");
    expect_name("mixtral", "llama.expert_used_count", "llama.expert_used_cuont", "llama.expert_used_count");
    expect_shape("mixtral", "blk.0.ffn_up_exps.weight", (uint64_t[]){32, 5, 48}, 3, "tensor blk.0.ffn_up_exps.weight");
    expect_name("qwen3moe", "blk.1.ffn_gate.weight", "blk.1.ffn_gade.weight", "blk.1.ffn_gate_inp.weight is missing");
}
END_TEST

START_TEST(windows_and_caps_are_checked)
{
    expect_u32("gemma2", "gemma2.attention.sliding_window", 0, "gemma2.attention.sliding_window: 0 is outside of 1..");
    expect_name("gemma3", "gemma3.attention.sliding_window", "gemma3.attention.sliding_windaw",
                "gemma3.attention.sliding_window");
    expect_f32("gemma2", "gemma2.attn_logit_softcapping", -1,
               "gemma2.attn_logit_softcapping: -1 is not a positive number");
    expect_f32("gemma2", "gemma2.final_logit_softcapping", 0, "gemma2.final_logit_softcapping: 0 is not");
    expect_f32("granite", "granite.residual_scale", 0, "granite.residual_scale: 0 is not");
    expect_f32("granite", "granite.attention.scale", -1, "granite.attention.scale: -1 is not");
    expect_f32("granite", "granite.logit_scale", INFINITY, "granite.logit_scale: inf is not");
}
END_TEST

START_TEST(norms_are_checked)
{
    expect_name("gemma2", "blk.0.post_ffw_norm.weight", "blk.0.past_ffw_norm.weight",
                "tensor blk.0.post_ffw_norm.weight is missing");
    expect_name("olmo2", "blk.1.attn_q_norm.weight", "blk.1.attn_p_norm.weight",
                "tensor blk.1.attn_q_norm.weight is missing");
    expect_name("gemma3", "blk.3.attn_k_norm.weight", "blk.3.attn_j_norm.weight",
                "tensor blk.3.attn_k_norm.weight is missing");
}
END_TEST

START_TEST(rotations_are_checked)
{
    expect_name("phi3", "rope_factors_long.weight", "rope_factors_lang.weight",
                "tensor rope_factors_long.weight is missing");
    expect_name("phi3", "rope_factors_short.weight", "rope_factors_shirt.weight",
                "tensor rope_factors_short.weight is missing");
    expect_u32("phi3", "phi3.rope.scaling.original_context_length", 0,
               "phi3.rope.scaling.original_context_length: 0 is outside");
    expect_u32("phi3", "phi3.rope.dimension_count", 4, "rope_factors_short.weight: expected 2 f32 factors");
    expect_f32("phi3", "phi3.rope.scaling.attn_factor", 0, "phi3.rope.scaling.attn_factor: 0 is not");
    expect_f32("yarn", "qwen2.rope.scaling.factor", -4, "qwen2.rope.scaling.factor: -4 is not");
    expect_name("yarn", "yarn", "yurn", "RoPE scaling 'yurn' is not supported");
}
END_TEST

START_TEST(fused_tensors_are_checked)
{
    expect_name("phi3", "blk.0.attn_qkv.weight", "blk.0.attn_qqv.weight", "tensor blk.0.attn_qkv.weight is missing");
    expect_u32("phi3", "phi3.attention.head_count_kv", 4, "tensor blk.0.attn_qkv.weight: 64 x 32, expected 96 x 32");
    expect_u32("phi3", "phi3.feed_forward_length", 96, "tensor blk.0.ffn_up.weight: 96 x 32, expected 192 x 32");
}
END_TEST

/* What a good file of a family becomes. */
START_TEST(descriptions_follow_the_files)
{
    struct model m;
    struct err e;
    char *text;
    size_t n;
    read_model("mixtral");
    write_model();
    ck_assert_msg(!model_open(path, &m, &e), "%s", e.msg);
    ck_assert(m.desc.n_expert == 5 && m.desc.n_expert_used == 2 && m.desc.flags & MODEL_EXPERT_SUM_1);
    uint64_t n_param = 0;
    for (int64_t i = 0; i < m.gguf->n_tensor; i++)
        n_param += (uint64_t)(m.gguf->tensor[i].n_row * m.gguf->tensor[i].dim[0]);
    ck_assert_uint_eq(m.info.n_param, n_param);
    ck_assert_str_eq(m.info.quant, "F32");
    model_close(&m);
    FILE *out = open_memstream(&text, &n);
    ck_assert_msg(!model_inspect(path, &(struct inspect_want){0}, out, &e), "%s", e.msg);
    fclose(out);
    ck_assert_msg(strstr(text, "2 of 5 experts of 48") != NULL, "%s", text);
    free(text);

    read_model("gemma3");
    write_model();
    ck_assert_msg(!model_open(path, &m, &e), "%s", e.msg);
    for (int32_t l = 0; l < m.desc.n_layer; l++)
        ck_assert_int_eq(m.desc.layer_kind[l], l != 5);
    ck_assert(m.desc.sliding_window == 0 && m.desc.sliding_window_1 == 9);
    model_close(&m);

    read_model("phi3-short"); /* contexts up to the original one rotate by other factors than longer ones */
    write_model();
    ck_assert_msg(!model_open(path, &m, &e), "%s", e.msg);
    float slow = m.desc.rope_inv_freq[2];
    model_fit_context(&m, 65);
    ck_assert(m.desc.rope_inv_freq[2] == slow);
    model_fit_context(&m, 64);
    ck_assert(m.desc.rope_inv_freq[2] > 5 * slow);
    model_close(&m);
}
END_TEST

static void expect_near(const struct tensor *a, const struct tensor *b)
{
    float x[64], y[64];
    ck_assert(a->n_row == b->n_row && a->n_col == b->n_col && a->n_col <= 64);
    for (int64_t r = 0; r < a->n_row; r++) {
        size_t row = (size_t)r;
        dtype_to_f32(a->type, (const char *)a->data + dtype_row_bytes(a->type, a->n_col) * row, x, a->n_col);
        dtype_to_f32(b->type, (const char *)b->data + dtype_row_bytes(b->type, b->n_col) * row, y, b->n_col);
        for (int64_t i = 0; i < a->n_col; i++)
            ck_assert_msg(fabsf(x[i] - y[i]) < 0.01f, "row %d: %g, not %g", (int)r, (double)y[i], (double)x[i]);
    }
}

/* `galley quantize` takes the tensors of experts row by row, each expert's at its place. */
START_TEST(experts_are_quantised)
{
    char to[sizeof path + 8], *from = path;
    struct model a, b;
    struct err e;
    snprintf(to, sizeof to, "%s-q8_0", path);
    read_model("qwen3moe");
    write_model();
    ck_assert_msg(!model_quantize(from, to, "Q8_0", &e), "%s", e.msg);
    ck_assert_msg(!model_open(from, &a, &e) && !model_open(to, &b, &e), "%s", e.msg);
    ck_assert_uint_eq(a.info.n_param, b.info.n_param);
    ck_assert_int_eq(b.w.layer[0].router.type, DT_F32);
    for (int32_t x = 0; x < a.desc.n_expert; x++) {
        const struct expert_weights *p = &a.w.layer[2].expert[x], *q = &b.w.layer[2].expert[x];
        ck_assert(q->gate.type == DT_Q8_0 && q->up.type == DT_Q8_0);
        ck_assert_int_eq(q->down.type, DT_F16); /* rows of 16 are no whole blocks */
        expect_near(&p->gate, &q->gate);
        expect_near(&p->up, &q->up);
        expect_near(&p->down, &q->down);
    }
    model_close(&a);
    model_close(&b);
    unlink(to);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("families");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, experts_are_checked);
    tcase_add_test(tc, windows_and_caps_are_checked);
    tcase_add_test(tc, norms_are_checked);
    tcase_add_test(tc, rotations_are_checked);
    tcase_add_test(tc, fused_tensors_are_checked);
    tcase_add_test(tc, descriptions_follow_the_files);
    tcase_add_test(tc, experts_are_quantised);
    return suite_run(tc);
}
