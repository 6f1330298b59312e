/* FP8 weights: directories with each kind of scale beside the same model in F32, what is refused of them, and matrices
 * that become FP8 at load. The directories are made here, tokenizer and templates taken from a golden one. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"
#include "model/model.h"
#include "random_plan.h"
#include "../suite.h"

enum { N_EMBD = 128, N_FF = 192, N_LAYER = 2, N_EXPERT = 3, N_TABLE = 272, N_TOK = 9, V = 257, MAX_TENSOR = 256 };

enum kind { PER_TENSOR, PER_CHANNEL, PER_BLOCK, N_KIND, PLAIN = N_KIND };
static const char *const families[] = {"llama", "phi3", "mixtral"};
enum { N_FAMILY = sizeof families / sizeof *families };

/* ---- Writing a directory ---- */

struct made { /* a tensor of the file */
    char name[96];
    const char *type;
    int n_dim;
    int64_t dim[2];
    uint8_t *data;
    size_t bytes;
};

static struct made made[MAX_TENSOR];
static int n_made;
static struct rnd rnd;
static char dir[64], twin[64]; /* in FP8, and the same values in F32 */

static struct made *add(const char *name, const char *type, int n_dim, int64_t n_row, int64_t n_col, size_t element)
{
    struct made *t = &made[n_made++];
    ck_assert_int_le(n_made, MAX_TENSOR);
    *t = (struct made){.type = type, .n_dim = n_dim};
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dim[0] = n_dim == 1 ? n_col : n_row;
    t->dim[1] = n_col;
    t->bytes = element * (size_t)(n_row * n_col);
    t->data = calloc(1, t->bytes);
    return t;
}

static void put_scale(struct made *t, int64_t i, float scale)
{
    if (!strcmp(t->type, "F32"))
        memcpy(t->data + 4 * i, &scale, 4);
    else
        memcpy(t->data + 2 * i, &(uint16_t){f32_to_bf16(scale)}, 2);
}

/* A random matrix in the form of the kind; PLAIN is the values that all kinds' codes and scales stand for: those of
 * `of`, from the same random numbers. */
static void add_matrix(const char *name, int64_t n_row, int64_t n_col, enum kind kind, enum kind of)
{
    char scale_name[128];
    bool f32_scale = of == PER_TENSOR;
    int64_t down = of == PER_TENSOR ? 1 : of == PER_CHANNEL ? n_row : (n_row + 127) / 128;
    int64_t across = of == PER_BLOCK ? (n_col + 127) / 128 : 1;
    int64_t rows = of == PER_TENSOR ? n_row : of == PER_CHANNEL ? 1 : 128, cols = of == PER_BLOCK ? 128 : n_col;
    struct made *scale = NULL,
                *t = add(name, kind == PLAIN ? "F32" : "F8_E4M3", 2, n_row, n_col, kind == PLAIN ? 4 : 1);
    snprintf(scale_name, sizeof scale_name, "%s_scale%s", name, of == PER_BLOCK ? "_inv" : "");
    if (kind != PLAIN)
        scale = add(scale_name, f32_scale ? "F32" : "BF16", of == PER_TENSOR ? (int)(n_row % 3 == 0) : 2, down, across,
                    f32_scale ? 4 : 2);
    float *value = malloc(sizeof *value * (size_t)(down * across));
    for (int64_t i = 0; i < down * across; i++) {
        float s = 0.0004f * (1 + (float)rnd_int(&rnd, 0, 1000) / 1000);
        value[i] = f32_scale ? s : bf16_to_f32(f32_to_bf16(s));
        if (scale)
            put_scale(scale, i, s);
    }
    for (int64_t i = 0; i < n_row * n_col; i++) {
        float s = value[i / n_col / rows * across + i % n_col / cols];
        uint8_t code = f32_to_e4m3(150 * rnd_normal(&rnd));
        if (kind == PLAIN)
            memcpy(t->data + 4 * i, &(float){e4m3_to_f32(code) * s}, 4);
        else
            t->data[i] = code;
    }
    free(value);
    if (kind == PER_TENSOR) {
        snprintf(scale_name, sizeof scale_name, "%.*s.input_scale", (int)(strlen(name) - strlen(".weight")), name);
        put_scale(add(scale_name, "F32", 0, 1, 1, 4), 0, 0.5f);
    }
}

static void add_plain(const char *name, int n_dim, int64_t n_row, int64_t n_col, float mean, float sd)
{
    struct made *t = add(name, "F32", n_dim, n_row, n_col, 4);
    for (int64_t i = 0; i < n_row * n_col; i++)
        memcpy(t->data + 4 * i, &(float){mean + sd * rnd_normal(&rnd)}, 4);
}

static void add_layer(const char *family, int l, enum kind kind, enum kind of)
{
    const struct {
        const char *family, *name;
        int n_row, n_col;
    } matrix[] = {
        {"llama mixtral", "self_attn.q_proj", N_EMBD, N_EMBD},
        {"llama mixtral", "self_attn.k_proj", 64, N_EMBD},
        {"llama mixtral", "self_attn.v_proj", 64, N_EMBD},
        {"phi3", "self_attn.qkv_proj", N_EMBD + 128, N_EMBD},
        {"llama phi3 mixtral", "self_attn.o_proj", N_EMBD, N_EMBD},
        {"llama", "mlp.gate_proj", N_FF, N_EMBD},
        {"llama", "mlp.up_proj", N_FF, N_EMBD},
        {"phi3", "mlp.gate_up_proj", 2 * N_FF, N_EMBD},
        {"llama phi3", "mlp.down_proj", N_EMBD, N_FF},
    };
    char name[96];
    for (size_t i = 0; i < sizeof matrix / sizeof *matrix; i++)
        if (strstr(matrix[i].family, family)) {
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, matrix[i].name);
            add_matrix(name, matrix[i].n_row, matrix[i].n_col, kind, of);
        }
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, i ? "post_attention_layernorm" : "input_layernorm");
        add_plain(name, 1, 1, N_EMBD, 1, 0.1f);
    }
    if (strcmp(family, "mixtral"))
        return;
    snprintf(name, sizeof name, "model.layers.%d.block_sparse_moe.gate.weight", l);
    add_plain(name, 2, N_EXPERT, N_EMBD, 0, 0.1f);
    for (int x = 0; x < N_EXPERT; x++)
        for (int w = 1; w <= 3; w++) {
            snprintf(name, sizeof name, "model.layers.%d.block_sparse_moe.experts.%d.w%d.weight", l, x, w);
            add_matrix(name, w == 2 ? N_EMBD : N_FF, w == 2 ? N_FF : N_EMBD, kind, of);
        }
}

static void write_text(const char *to, const char *name, const void *data, size_t n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", to, name);
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void write_config(const char *to, const char *family, const char *quantization)
{
    char text[4096];
    int n =
        snprintf(text, sizeof text,
                 "{\"model_type\": \"%s\", \"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d, "
                 "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"max_position_embeddings\": 512, "
                 "\"num_local_experts\": %d, \"num_experts_per_tok\": 2, \"tie_word_embeddings\": true%s%s}",
                 family, N_EMBD, N_FF, N_LAYER, N_EXPERT, quantization ? ", \"quantization_config\": " : "",
                 quantization ? quantization : "");
    char *moe = strstr(text, "\"num_local"), *end = strstr(text, "\"tie_word");
    if (strcmp(family, "mixtral"))
        memset(moe, ' ', (size_t)(end - moe));
    write_text(to, "config.json", text, (size_t)n);
}

static void write_weights(const char *to)
{
    char path[256], *head;
    size_t n_head, at = 0;
    FILE *h = open_memstream(&head, &n_head);
    for (int i = 0; i < n_made; at += made[i++].bytes) {
        const struct made *t = &made[i];
        fprintf(h, "%s\"%s\": {\"dtype\": \"%s\", \"shape\": [", i ? ", " : "{", t->name, t->type);
        for (int k = 0; k < t->n_dim; k++)
            fprintf(h, "%s%lld", k ? ", " : "", (long long)t->dim[k]);
        fprintf(h, "], \"data_offsets\": [%zu, %zu]}", at, at + t->bytes);
    }
    fprintf(h, "}");
    fclose(h);
    snprintf(path, sizeof path, "%s/model.safetensors", to);
    FILE *f = fopen(path, "wb");
    fwrite(&(uint64_t){n_head}, 8, 1, f);
    fwrite(head, 1, n_head, f);
    for (int i = 0; i < n_made; i++)
        fwrite(made[i].data, 1, made[i].bytes, f);
    fclose(f);
    free(head);
}

static void forget(void)
{
    for (int i = 0; i < n_made; i++)
        free(made[i].data);
    n_made = 0;
}

static const char *const quantization[] = {
    "{\"quant_method\": \"fp8\", \"activation_scheme\": \"static\", \"ignored_layers\": [\"lm_head\"]}",
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"float-quantized\", \"ignore\": [\"lm_head\"], "
    "\"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 8, \"type\": \"float\", "
    "\"strategy\": \"channel\", \"symmetric\": true, \"dynamic\": false}, \"input_activations\": {\"num_bits\": 8, "
    "\"type\": \"float\", \"strategy\": \"token\", \"dynamic\": true}}}, \"sparsity_config\": {\"format\": \"dense\"}}",
    "{\"quant_method\": \"fp8\", \"fmt\": \"e4m3\", \"activation_scheme\": \"dynamic\", \"weight_block_size\": [128, "
    "128]}",
    NULL};

/* The tensors of a model, in memory: `kind` is its own form, `of` that of the model whose values it has. */
static void make_tensors(const char *family, enum kind kind, enum kind of)
{
    forget();
    rnd = rnd_begin("make_tensors", 5 + (uint64_t)of);
    add_plain("model.embed_tokens.weight", 2, N_TABLE, N_EMBD, 0, 1);
    add_plain("model.norm.weight", 1, 1, N_EMBD, 1, 0.1f);
    for (int l = 0; l < N_LAYER; l++)
        add_layer(family, l, kind, of);
}

static void write_model(const char *to, const char *family, enum kind kind, enum kind of)
{
    make_tensors(family, kind, of);
    write_config(to, family, quantization[kind]);
    write_weights(to);
}

static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors"};

static void setup(void)
{
    static char text[1 << 20];
    strcpy(dir, "/tmp/galley-fp8-XXXXXX");
    strcpy(twin, "/tmp/galley-f32-XXXXXX");
    ck_assert(mkdtemp(dir) && mkdtemp(twin));
    for (int i = 0; i < 2; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/qwen3/%s", MODELS, names[i]);
        FILE *f = fopen(path, "rb");
        ck_assert_ptr_nonnull(f);
        size_t n = fread(text, 1, sizeof text, f);
        fclose(f);
        write_text(dir, names[i], text, n);
        write_text(twin, names[i], text, n);
    }
}

static void teardown(void)
{
    forget();
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2; k++) {
            char path[512];
            snprintf(path, sizeof path, "%s/%s", k ? twin : dir, names[i]);
            unlink(path);
        }
    rmdir(dir);
    rmdir(twin);
}

/* ---- Logits ---- */

static void open_model(struct model *m, const char *path)
{
    struct err e = {0};
    ck_assert_msg(!model_open(path, m, &e), "%s", e.msg);
}

/* Log-probabilities of all tokens after each of N_TOK. */
static float *logits_of(struct model *m, const char *backend)
{
    static const int32_t tok[N_TOK] = {5, 250, 17, 17, 3, 99, 128, 200, 64};
    struct err e = {0};
    struct rig rig;
    int32_t bt[] = {0, 1}, list[V];
    struct kv_config kv = {.block_len = 16, .n_block = 2, .k_type = DT_F32, .v_type = DT_F32};
    struct tiny_model t = {.d = m->desc, .w = m->w};
    float *out = malloc(sizeof *out * N_TOK * V);
    ck_assert_int_eq(m->desc.n_vocab, V);
    ck_assert_msg(!model_make_weights(m, 2, &e), "%s", e.msg);
    rig_open(&rig, backend_find(backend, &e), &t, &kv, 2);
    source_loaded(&m->source);
    rig_chain(&rig, 0, 0, tok, N_TOK, bt, 2);
    for (int32_t i = 0; i < V; i++)
        list[i] = i;
    for (int32_t r = 0; r < N_TOK; r++)
        for (int32_t at = 0; at < V; at += PLAN_MAX_LIST)
            plan_readout(&rig.plan,
                         &(struct readout){.kind = READ_LOGPROB,
                                           .raw = 1,
                                           .row = r,
                                           .n = V - at < PLAN_MAX_LIST ? V - at : PLAN_MAX_LIST,
                                           .bank = -1},
                         list + at);
    rig_step(&rig);
    memcpy(out, rig.out.f, sizeof *out * N_TOK * V);
    rig_close(&rig);
    return out;
}

/* The largest difference as a share of the largest value. */
static double share_off(const float *a, const float *b)
{
    double off = 0, most = 0;
    for (int i = 0; i < N_TOK * V; i++) {
        ck_assert(isfinite(a[i]) && isfinite(b[i]));
        off = fmax(off, fabs((double)a[i] - (double)b[i]));
        most = fmax(most, fabs((double)b[i]));
    }
    return off / most;
}

START_TEST(every_kind_of_scale_gives_the_logits_of_its_values)
{
    const char *family = families[_i / N_KIND];
    struct model m, plain;
    write_model(dir, family, (enum kind)(_i % N_KIND), (enum kind)(_i % N_KIND));
    write_model(twin, family, PLAIN, (enum kind)(_i % N_KIND));
    open_model(&m, dir);
    open_model(&plain, twin);
    const struct layer_weights *w = &m.w.layer[1];
    ck_assert_str_eq(m.info.quant, "FP8");
    ck_assert_int_eq(w->wq.type, DT_FP8);
    ck_assert_int_eq(m.w.tok_embd.type, DT_F32);
    ck_assert_int_eq((w->expert ? w->expert[2].down : w->down).type, DT_F32); /* 192 columns: 64 short of blocks */
    ck_assert_uint_eq(m.info.n_param, plain.info.n_param);
    float *want = logits_of(&plain, "ref"), *got = logits_of(&m, "ref");
    ck_assert_mem_eq(got, want, sizeof *want * N_TOK * V);
    free(got);
    if (backend_find("cpu", NULL)) {
        got = logits_of(&m, "cpu"); /* made anew: loading let go of it */
        ck_assert_double_le(share_off(got, want), 1e-5);
        free(got);
    }
    free(want);
    model_close(&m);
    model_close(&plain);
}
END_TEST

/* ---- Becoming FP8 at load ---- */

static void check_made(const struct tensor *t, const struct tensor *from)
{
    int64_t n = from->n_col;
    size_t row_bytes = dtype_row_bytes(DT_FP8, n);
    uint8_t want[2 * 132];
    float row[256];
    ck_assert_int_eq(t->type, DT_FP8);
    ck_assert_int_le(n, 256);
    for (int64_t r = 0; r < from->n_row; r++) {
        memcpy(row, (const uint8_t *)from->data + sizeof *row * (size_t)(r * n), sizeof *row * (size_t)n);
        dtype_from_f32(DT_FP8, row, want, n);
        ck_assert_mem_eq((const uint8_t *)t->data + row_bytes * (size_t)r, want, row_bytes);
    }
}

START_TEST(plain_matrices_become_fp8)
{
    struct err e = {0};
    struct model m, plain;
    write_model(twin, families[_i], PLAIN, PER_CHANNEL);
    open_model(&m, twin);
    open_model(&plain, twin);
    ck_assert_msg(!model_to_fp8(&m, &e), "%s", e.msg);
    ck_assert_msg(!model_make_weights(&m, 3, &e), "%s", e.msg);
    ck_assert_str_eq(m.info.quant, "FP8");
    double n_made_elements = 0;
    for (int l = 0; l < N_LAYER; l++) {
        const struct layer_weights *w = &m.w.layer[l], *from = &plain.w.layer[l];
        check_made(&w->wq, &from->wq);
        check_made(&w->wv, &from->wv);
        check_made(&w->wo, &from->wo);
        check_made(w->expert ? &w->expert[1].gate : &w->gate, w->expert ? &from->expert[1].gate : &from->gate);
        check_made(w->expert ? &w->expert[2].up : &w->up, w->expert ? &from->expert[2].up : &from->up);
        ck_assert_int_eq(w->attn_norm.type, DT_F32);
        ck_assert(!w->router.data || w->router.type == DT_F32);
        ck_assert_int_eq((w->expert ? w->expert[0].down : w->down).type, DT_F32);
        n_made_elements += N_EMBD * (2 * N_EMBD + 2 * 64 + 2 * N_FF * (w->expert ? N_EXPERT : 1));
    }
    ck_assert_int_eq(m.w.tok_embd.type, DT_F32);
    ck_assert_double_eq(plain.weight_bytes - m.weight_bytes, n_made_elements * (4 - 132.0 / 128));
    float *got = logits_of(&m, "ref"), *want = logits_of(&plain, "ref");
    double off = share_off(got, want);
    printf("%s in FP8: off by %.2e of the largest\n", families[_i], off);
    ck_assert(off > 1e-6 && off < 0.1);
    free(got);
    free(want);
    model_close(&m);
    model_close(&plain);
}
END_TEST

START_TEST(values_that_are_not_finite_are_refused)
{
    struct err e = {0};
    struct model m;
    make_tensors("llama", PLAIN, PER_TENSOR);
    for (int i = 0; i < n_made; i++)
        if (strstr(made[i].name, "layers.1.mlp.up_proj"))
            memcpy(made[i].data + 4 * 130, &(float){INFINITY}, 4);
    write_config(dir, "llama", NULL);
    write_weights(dir);
    open_model(&m, dir);
    ck_assert_msg(!model_to_fp8(&m, &e), "%s", e.msg);
    ck_assert_int_eq(model_make_weights(&m, 2, &e), -ERR_FORMAT);
    ck_assert_msg(strstr(e.msg, "ffn_up of layer 1") && strstr(e.msg, "row 1 has a value that is not finite"), "%s",
                  e.msg);
    model_close(&m);
}
END_TEST

/* Whichever allocation fails: an error, and nothing is left behind. */
START_TEST(memory_that_runs_out_is_an_error)
{
    long n = 0;
    write_model(dir, "mixtral", PER_BLOCK, PER_BLOCK);
    for (int rc = -1; rc; n++) {
        struct err e = {0};
        struct model m;
        mem_fail_nth(n + 1);
        rc = model_open(dir, &m, &e);
        if (!rc) {
            rc = model_to_fp8(&m, &e);
            if (!rc)
                rc = model_make_weights(&m, 2, &e);
            model_close(&m);
        }
        mem_fail_nth(0);
        ck_assert_msg(!rc || (rc == -ERR_NOMEM && e.msg[0]), "allocation %ld: %d: %s", n, rc, e.msg);
    }
    ck_assert_int_ge(n, 20);
}
END_TEST

/* ---- What is refused ---- */

static struct made *find_made(const char *name)
{
    for (int i = 0; i < n_made; i++)
        if (!strcmp(made[i].name, name))
            return &made[i];
    ck_abort_msg("no %s", name);
}

/* Opening or making: whichever it is, one sentence with `message` in it. */
static void expect(const char *message)
{
    struct err e = {0};
    struct model m;
    write_weights(dir);
    int rc = model_open(dir, &m, &e);
    if (!rc) {
        rc = model_make_weights(&m, 2, &e);
        model_close(&m);
    }
    ck_assert_msg(rc == -ERR_FORMAT, "code %d, expected: %s", rc, message);
    ck_assert_msg(strstr(e.msg, message) != NULL, "'%s' is not in: %s", message, e.msg);
}

static const char q_proj[] = "model.layers.0.self_attn.q_proj.weight";

static struct made *anew(enum kind kind, const char *name)
{
    make_tensors("llama", kind, kind);
    return find_made(name);
}

START_TEST(damaged_scales_are_refused)
{
    char scale[128], inverse[128];
    snprintf(scale, sizeof scale, "%s_scale", q_proj);
    snprintf(inverse, sizeof inverse, "%s_scale_inv", q_proj);
    write_config(dir, "llama", NULL); /* the tensors say enough */
    strcpy(anew(PER_TENSOR, scale)->name, "x");
    expect("q_proj.weight: F8_E4M3 without model.layers.0.self_attn.q_proj.weight_scale or");
    anew(PER_CHANNEL, scale)->dim[0] = 64, find_made(scale)->dim[1] = 2;
    expect("q_proj.weight_scale: 64 x 2 scales for 128 x 128 codes");
    anew(PER_CHANNEL, scale)->dim[0] = 127, find_made(scale)->bytes = 2 * 127;
    expect("127 x 1 scales");
    anew(PER_BLOCK, "model.layers.1.mlp.gate_proj.weight_scale_inv")->dim[0] = 1;
    find_made("model.layers.1.mlp.gate_proj.weight_scale_inv")->dim[1] = 2;
    expect("gate_proj.weight_scale_inv: 1 x 2 scales for 192 x 128 codes");
    anew(PER_TENSOR, scale)->type = "I32";
    expect("q_proj.weight_scale: scales of type I32");
    static const float not_finite[] = {NAN, INFINITY, -INFINITY, 1e37f};
    for (int i = 0; i < 4; i++) {
        put_scale(anew(PER_TENSOR, scale), 0, not_finite[i]);
        expect("q_proj.weight: row 0 has a scale that is not finite");
        put_scale(anew(PER_CHANNEL, scale), 77, not_finite[i]);
        expect("q_proj.weight: row 77 has a scale that is not finite");
        put_scale(anew(PER_BLOCK, inverse), 0, not_finite[i]);
        expect("q_proj.weight: row");
    }
}
END_TEST

START_TEST(damaged_codes_are_refused)
{
    write_config(dir, "llama", NULL);
    anew(PER_BLOCK, q_proj)->data[5 * 128 + 127] = 0xff;
    expect("q_proj.weight: row 5 has a code that is not a number");
    anew(PER_BLOCK, "model.layers.1.mlp.down_proj.weight")->data[2 * 192 - 1] = 0x7f; /* becomes F32 */
    expect("down_proj.weight: row 1 has a code that is not a number");
    anew(PER_BLOCK, q_proj)->type = "F8_E5M2";
    expect("q_proj.weight: type F8_E5M2 is not supported (F32, F16, BF16 and matrices of F8_E4M3 are)");
    anew(PER_BLOCK, q_proj)->dim[0] = 64, find_made(q_proj)->bytes /= 2;
    expect("q_proj.weight: 64 x 128, expected 128 x 128");
    struct made *norm = anew(PER_BLOCK, "model.norm.weight");
    norm->type = "F8_E4M3", norm->bytes /= 4;
    expect("model.norm.weight: type F8_E4M3 is not supported");
}
END_TEST

START_TEST(other_ways_to_quantise_are_refused)
{
    static const struct {
        const char *config, *message;
    } refused[] = {
        {"{\"quant_method\": \"awq\", \"bits\": 4}",
         "quant_method: \"awq\" is not supported (fp8, compressed-tensors)"},
        {"{\"quant_method\": \"gptq\"}", "quant_method: \"gptq\""},
        {"{\"load_in_8bit\": true}", "quant_method: nothing"},
        {"17", "quant_method: nothing"},
        {"{\"quant_method\": \"fp8\", \"fmt\": \"e5m2\"}", "fmt: \"e5m2\" is not supported (e4m3)"},
        {"{\"quant_method\": \"fp8\", \"weight_block_size\": [64, 128]}", "weight_block_size: [64,128]"},
        {"{\"quant_method\": \"fp8\", \"weight_block_size\": 128}", "weight_block_size: 128"},
        {"{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\"}", "format: \"pack-quantized\""},
        {"{\"quant_method\": \"compressed-tensors\", \"sparsity_config\": {\"format\": \"sparse-24-bitmask\"}}",
         "sparsity_config: format: \"sparse-24-bitmask\""},
        {"{\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"a\": {\"weights\": {\"type\": \"int\"}}}}",
         "weights: type: \"int\""},
        {"{\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"a\": {\"weights\": {\"type\": \"float\", "
         "\"num_bits\": 4}}}}",
         "weights: num_bits: 4"},
        {"{\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"a\": {\"weights\": {\"type\": \"float\", "
         "\"num_bits\": 8, \"strategy\": \"group\"}}}}",
         "weights: strategy: \"group\""},
        {"{\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"a\": {\"weights\": {\"type\": \"float\", "
         "\"num_bits\": 8, \"strategy\": \"block\", \"block_structure\": [1, 128]}}}}",
         "weights: block_structure: [1,128]"},
    };
    make_tensors("llama", PLAIN, PER_TENSOR);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        write_config(dir, "llama", refused[i].config);
        expect(refused[i].message);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("fp8");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, every_kind_of_scale_gives_the_logits_of_its_values, 0, N_FAMILY * N_KIND);
    tcase_add_loop_test(tc, plain_matrices_become_fp8, 0, N_FAMILY);
    tcase_add_test(tc, memory_that_runs_out_is_an_error);
    tcase_add_test(tc, values_that_are_not_finite_are_refused);
    tcase_add_test(tc, damaged_scales_are_refused);
    tcase_add_test(tc, damaged_codes_are_refused);
    tcase_add_test(tc, other_ways_to_quantise_are_refused);
    return suite_run(tc);
}
