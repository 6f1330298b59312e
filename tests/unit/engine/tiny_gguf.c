#include "tiny_gguf.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/gguf_write.h"
#include "random_plan.h"

/* GPT-2's byte alphabet: printable bytes stand for themselves, the others for U+0100 and up. */
static int byte_text(int b, char *out)
{
    static int code[256];
    if (!code['!']) {
        int next = 256;
        for (int i = 0; i < 256; i++)
            code[i] = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174 ? i : next++;
    }
    int c = code[b];
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xC0 | c >> 6);
    out[1] = (char)(0x80 | (c & 63));
    return 2;
}

static void put_vocab(struct gguf_writer *w)
{
    static char text[TINY_VOCAB][32], merge_text[TINY_VOCAB][32];
    static struct slice tok[TINY_VOCAB], merge[TINY_VOCAB];
    static int32_t type[TINY_VOCAB];
    static const char *const special[] = {"<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    int n = 0, n_merge = 0;
    for (int b = 0; b < 256; b++, n++) {
        tok[n] = (struct slice){text[n], (size_t)byte_text(b, text[n])};
        type[n] = 1;
    }
    for (size_t i = 0; i < sizeof special / sizeof *special; i++, n++) {
        tok[n] = slice_of(special[i]);
        type[n] = 3;
    }
    for (const char *a = "abcdefgh"; *a && n < TINY_VOCAB; a++)
        for (const char *b = "aeiouxyz"; *b && n < TINY_VOCAB; b++, n++, n_merge++) {
            snprintf(text[n], sizeof text[n], "%c%c", *a, *b);
            snprintf(merge_text[n_merge], sizeof merge_text[n_merge], "%c %c", *a, *b);
            tok[n] = slice_of(text[n]);
            type[n] = 1;
            merge[n_merge] = slice_of(merge_text[n_merge]);
        }
    ck_assert_int_eq(n, TINY_VOCAB);
    gguf_put_str(w, "tokenizer.ggml.model", "gpt2");
    gguf_put_str(w, "tokenizer.ggml.pre", "gpt-2");
    gguf_put_strs(w, "tokenizer.ggml.tokens", tok, TINY_VOCAB);
    gguf_put_i32s(w, "tokenizer.ggml.token_type", type, TINY_VOCAB);
    gguf_put_strs(w, "tokenizer.ggml.merges", merge, (uint64_t)n_merge);
    gguf_put_u32(w, "tokenizer.ggml.eos_token_id", TINY_EOS);
    gguf_put_u32(w, "tokenizer.ggml.eot_token_id", TINY_IM_END);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false);
    gguf_put_str(w, "tokenizer.chat_template",
                 "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
                 "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
}

enum { N_EMBD = 32, N_HEAD = 2, N_KV = 1, N_FF = 64 };

struct shape {
    const char *name;
    int64_t n_row, n_col;
};
enum { N_SHAPE = 9 };

int32_t tiny_n_layer = 2, tiny_exit_layer, tiny_head_dim;
void (*tiny_more_keys)(struct gguf_writer *w);

static int32_t head_dim(void)
{
    return tiny_head_dim ? tiny_head_dim : N_EMBD / N_HEAD;
}

static void layer_shapes(struct shape shape[N_SHAPE])
{
    const struct shape all[N_SHAPE] = {
        {"attn_norm.weight", 1, N_EMBD},
        {"ffn_norm.weight", 1, N_EMBD},
        {"attn_q.weight", N_HEAD * head_dim(), N_EMBD},
        {"attn_k.weight", N_KV * head_dim(), N_EMBD},
        {"attn_v.weight", N_KV * head_dim(), N_EMBD},
        {"attn_output.weight", N_EMBD, N_HEAD * head_dim()},
        {"ffn_gate.weight", N_FF, N_EMBD},
        {"ffn_up.weight", N_FF, N_EMBD},
        {"ffn_down.weight", N_EMBD, N_FF},
    };
    memcpy(shape, all, sizeof all);
}

static void declare(struct gguf_writer *w, const char *name, const struct shape *s)
{
    int64_t dim[2] = {s->n_col, s->n_row};
    ck_assert_int_eq(gguf_put_tensor(w, slice_of(name), s->n_row == 1 ? 1 : 2, dim, 0, NULL), 0);
}

static void data(struct gguf_writer *w, const struct shape *s, struct rnd *r, float flaw)
{
    static struct rnd other = {.state = 99};
    float v;
    for (int64_t i = 0; i < s->n_row * s->n_col; i++) {
        v = s->n_row == 1 ? 1 : 0.4f * (rnd_normal(r) + (flaw != 0 ? flaw * rnd_normal(&other) : 0));
        ck_assert_int_eq(gguf_write_data(w, &v, sizeof v, NULL), 0);
    }
}

char *tiny_gguf_write(const char *arch, int32_t n_ctx, uint64_t seed, float flaw)
{
    char *path = strdup("/tmp/galley-tiny-XXXXXX"), key[64];
    close(mkstemp(path));
    struct err e = {0};
    struct gguf_writer *w;
    struct rnd r = {.state = seed};
    struct shape layer_shape[N_SHAPE];
    layer_shapes(layer_shape);
    ck_assert_msg(!gguf_writer_open(&w, path, 0, &e), "%s", e.msg);
    gguf_put_str(w, "general.architecture", arch);
    gguf_put_str(w, "general.name", "tiny");
    const struct {
        const char *suffix;
        uint32_t value;
    } sizes[] = {
        {"context_length", (uint32_t)n_ctx}, {"embedding_length", N_EMBD},     {"block_count", (uint32_t)tiny_n_layer},
        {"feed_forward_length", N_FF},       {"attention.head_count", N_HEAD}, {"attention.head_count_kv", N_KV}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, sizes[i].suffix);
        gguf_put_u32(w, key, sizes[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    gguf_put_f32(w, key, 1e-5f);
    if (tiny_head_dim) {
        snprintf(key, sizeof key, "%s.attention.key_length", arch);
        gguf_put_u32(w, key, (uint32_t)tiny_head_dim);
        snprintf(key, sizeof key, "%s.attention.value_length", arch);
        gguf_put_u32(w, key, (uint32_t)tiny_head_dim);
    }
    if (tiny_exit_layer)
        gguf_put_u32(w, "galley.early_exit_layer", (uint32_t)tiny_exit_layer);
    if (tiny_more_keys)
        tiny_more_keys(w);
    put_vocab(w);

    const struct shape embd = {"", TINY_VOCAB, N_EMBD}, norm = {"", 1, N_EMBD};
    declare(w, "token_embd.weight", &embd);
    declare(w, "output_norm.weight", &norm);
    for (int l = 0; l < tiny_n_layer; l++)
        for (int i = 0; i < N_SHAPE; i++) {
            snprintf(key, sizeof key, "blk.%d.%s", l, layer_shape[i].name);
            declare(w, key, &layer_shape[i]);
        }
    ck_assert_msg(!gguf_write_head(w, &e), "%s", e.msg);
    data(w, &embd, &r, flaw);
    data(w, &norm, &r, flaw);
    for (int l = 0; l < tiny_n_layer; l++)
        for (int i = 0; i < N_SHAPE; i++)
            data(w, &layer_shape[i], &r, flaw);
    ck_assert_msg(!gguf_writer_finish(w, &e), "%s", e.msg);
    gguf_writer_close(w);
    return path;
}
