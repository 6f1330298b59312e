/* What a Hugging Face directory that is damaged, hostile or of an unknown kind gets: one sentence that names it. Each
 * case is a copy of a good directory with one thing changed. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "inspect.h"
#include "model/model.h"
#include "../suite.h"

static char dir[64];
static const char *family = "qwen3"; /* whose directory is copied */
static const char *const names[] = {"config.json",
                                    "generation_config.json",
                                    "tokenizer.json",
                                    "tokenizer_config.json",
                                    "chat_template.jinja",
                                    "model.safetensors",
                                    "model.safetensors.index.json"};
enum { N_NAME = sizeof names / sizeof *names, MAX_FILE = 1 << 20 };

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(path_of(name), "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, n, f), n);
    fclose(f);
}

static size_t read_good(const char *name, char *data)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s/%s", MODELS, family, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        return 0;
    size_t n = fread(data, 1, MAX_FILE, f);
    fclose(f);
    return n;
}

static char *buffer;

static void use(const char *name)
{
    family = name;
    for (int i = 0; i < N_NAME; i++) {
        size_t n = read_good(names[i], buffer);
        if (n)
            write_file(names[i], buffer, n);
    }
}

static void setup(void)
{
    buffer = malloc(MAX_FILE);
    strcpy(dir, "/tmp/galley-hf-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    use("qwen3");
}

static void teardown(void)
{
    for (int i = 0; i < N_NAME; i++)
        unlink(path_of(names[i]));
    rmdir(dir);
    free(buffer);
}

static void expect(int code, const char *message)
{
    struct model m;
    struct err e = {0};
    ck_assert_msg(model_open(dir, &m, &e) == -code, "%s: code %d: %s", message, e.code, e.msg);
    ck_assert_msg(strstr(e.msg, message) && strstr(e.msg, dir), "'%s' is not in: %s", message, e.msg);
}

/* One key of config.json becomes a JSON text, and the good file again after it. */
static void expect_config(const char *key, const char *value, const char *message)
{
    size_t n = read_good("config.json", buffer);
    json_t *config = json_loadb(buffer, n, 0, NULL);
    json_object_set_new(config, key, json_loads(value, JSON_DECODE_ANY, NULL));
    json_dump_file(config, path_of("config.json"), 0);
    json_decref(config);
    expect(ERR_FORMAT, message);
    write_file("config.json", buffer, n);
}

/* The weights with their header edited: `from` becomes `to`, of the same length. */
static void expect_header(const char *from, const char *to, const char *message)
{
    size_t n = read_good("model.safetensors", buffer);
    char *at = memmem(buffer, n, from, strlen(from));
    ck_assert_ptr_nonnull(at);
    ck_assert_uint_eq(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    write_file("model.safetensors", buffer, n);
    expect(ERR_FORMAT, message);
}

START_TEST(a_good_directory_opens)
{
    struct model m;
    struct err e;
    ck_assert_msg(!model_open(dir, &m, &e), "%s", e.msg);
    ck_assert_str_eq(m.info.name, dir + strlen("/tmp/"));
    ck_assert_str_eq(m.info.architecture, "qwen3");
    ck_assert(m.info.sampling.has_temperature && m.info.sampling.temperature == 0.6f && m.info.sampling.top_k == 20);
    ck_assert(!m.info.sampling.has_min_p && tok_is_eog(m.tok, 7) && tok_is_eog(m.tok, 256) && !tok_is_eog(m.tok, 8));
    ck_assert_ptr_nonnull(strstr(m.chat_template, "for m in messages"));
    model_close(&m);
}
END_TEST

/* What `galley inspect` says of a directory, and of what is no model. */
START_TEST(inspection_tells_what_there_is)
{
    static const struct inspect_want all = {true, true, true};
    char *text;
    size_t n;
    struct err e;
    FILE *out = open_memstream(&text, &n);
    ck_assert_msg(!model_inspect(dir, &all, out, &e), "%s", e.msg);
    fclose(out);
    static const char *const said[] = {"qwen3, 0.1M parameters, mostly F32",
                                       "4 heads of 32, 2 of keys and values",
                                       "257 tokens",
                                       "top_k 20",
                                       "model.norm.weight",
                                       "for m in messages"};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        ck_assert_msg(strstr(text, said[i]) != NULL, "no '%s' in: %s", said[i], text);
    free(text);
    out = open_memstream(&text, &n);
    ck_assert_int_eq(model_inspect(path_of("tokenizer.json"), &all, out, &e), -ERR_FORMAT);
    fclose(out);
    free(text);
}
END_TEST

START_TEST(configurations_are_checked)
{
    expect_config("model_type", "\"mamba\"", "model_type 'mamba'");
    expect_config("model_type", "null", "model_type is missing");
    expect_config("hidden_size", "null", "hidden_size");
    expect_config("num_hidden_layers", "100000", "num_hidden_layers: 100000");
    expect_config("num_hidden_layers", "1000", "1000 layers");
    expect_config("num_hidden_layers", "3", "model.layers.2.");
    expect_config("num_key_value_heads", "3", "do not fit together");
    expect_config("head_dim", "31", "do not fit together");
    expect_config("intermediate_size", "97", "expected 97");
    expect_config("rms_norm_eps", "-1", "rms_norm_eps");
    expect_config("rope_parameters", "{\"rope_type\": \"dynamic\", \"factor\": 4}", "'dynamic'");
    expect_config("rope_parameters", "{\"rope_type\": \"yarn\", \"factor\": -4}", "factor");
    expect_config("rope_parameters", "{\"rope_type\": \"yarn\", \"original_max_position_embeddings\": 0}", "original");
    expect_config("hidden_act", "\"relu\"", "hidden_act: 'relu'");
    expect_config("rope_parameters", "{\"rope_theta\": -1}", "rope_theta");
    expect_config("rope_parameters", "{\"rope_type\": \"llama3\", \"factor\": 0}", "factor");
    write_file("config.json", "{", 1);
    expect(ERR_FORMAT, "config.json: line 1");
    write_file("config.json", "[]", 2);
    expect(ERR_FORMAT, "not a JSON object");
    unlink(path_of("config.json"));
    expect(ERR_NOTFOUND, "no config.json");
}
END_TEST

START_TEST(families_are_checked)
{
    use("qwen3moe");
    expect_config("num_experts_per_tok", "21", "num_experts_per_tok: 21 is outside of 1..20");
    expect_config("num_experts_per_tok", "0", "num_experts_per_tok: 0 is outside");
    expect_config("num_local_experts", "21", "tensor model.layers.0.mlp.gate.weight: 20 x 32, expected 21 x 32");
    expect_config("moe_intermediate_size", "17", "tensor model.layers.0.mlp.experts.0.gate_proj.weight");
    use("mixtral");
    expect_header("experts.3.w2.weight", "experts.9.w2.weight", "block_sparse_moe.experts.3.w2.weight is missing");
    use("gemma2");
    expect_config("sliding_window", "0", "sliding_window: 0 is outside of 1..");
    expect_config("sliding_window", "null", "sliding_window is missing");
    expect_config("layer_types", "[\"full_attention\"]", "layer_types: 1 elements, expected one for each of 4 layers");
    expect_config("layer_types", "[\"a\", \"b\", \"c\", \"d\"]", "layer_types: 'a'");
    expect_config("query_pre_attn_scalar", "0", "query_pre_attn_scalar is not a positive number");
    expect_config("attn_logit_softcapping", "-2", "attn_logit_softcapping is not a positive number");
    expect_config("hidden_activation", "\"gelu\"", "hidden_activation: 'gelu'");
    expect_header("layers.1.pre_feedforward_layernorm", "layers.1.pro_feedforward_layernorm",
                  "model.layers.1.pre_feedforward_layernorm.weight is missing");
    use("phi3");
    expect_config("rope_parameters", "{\"rope_type\": \"longrope\", \"short_factor\": [1, 1, 1], \"long_factor\": [1]}",
                  "long_factor: 1 factors, expected 3");
    use("smollm3");
    expect_config("no_rope_layers", "[1, 0]", "no_rope_layers: 2 elements");
    use("granite");
    expect_config("logits_scaling", "0", "logits_scaling is not a positive number");
    expect_config("residual_multiplier", "\"x\"", "residual_multiplier is not a positive number");
}
END_TEST

START_TEST(weights_are_checked)
{
    size_t n = read_good("model.safetensors", buffer);
    write_file("model.safetensors", buffer, 5);
    expect(ERR_FORMAT, "truncated");
    write_file("model.safetensors", buffer, 100);
    expect(ERR_FORMAT, "a header of");
    write_file("model.safetensors", buffer, n - 1);
    expect(ERR_FORMAT, "do not exist");
    expect_header("model.norm.weight", "model.norn.weight", "tensor model.norm.weight is missing");
    expect_header("\"F32\"", "\"F64\"", "its shape needs");
    expect_header("[272,64]", "[64,272]", "expected");
    unlink(path_of("model.safetensors"));
    expect(ERR_NOTFOUND, "neither model.safetensors");
}
END_TEST

START_TEST(shards_are_checked)
{
    static const char missing[] = "{\"weight_map\": {\"a\": \"x.safetensors\"}}",
                      outside[] = "{\"weight_map\": {\"a\": \"../x\"}}", none[] = "{}";
    write_file("model.safetensors.index.json", missing, strlen(missing));
    expect(ERR_NOTFOUND, "x.safetensors");
    write_file("model.safetensors.index.json", outside, strlen(outside));
    expect(ERR_FORMAT, "names no file beside it");
    write_file("model.safetensors.index.json", none, strlen(none));
    expect(ERR_FORMAT, "no weight_map");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("hf");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_good_directory_opens);
    tcase_add_test(tc, inspection_tells_what_there_is);
    tcase_add_test(tc, configurations_are_checked);
    tcase_add_test(tc, families_are_checked);
    tcase_add_test(tc, weights_are_checked);
    tcase_add_test(tc, shards_are_checked);
    return suite_run(tc);
}
