#include "model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gguf.h"
#include "mem.h"

struct family {
    const char *architecture;
    uint32_t flags; /* enum model_flag; QK_NORM is taken from the tensors */
};

static const struct family families[] = {
    {"llama", 0}, /* Llama 1 to 3, and Mistral as its GGUF files call themselves */
    {"mistral", 0},
    {"qwen2", MODEL_NEOX_ROPE},
    {"qwen3", MODEL_NEOX_ROPE},
};

static const struct family *family_find(struct slice arch, struct err *e)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (slice_eq(arch, families[i].architecture))
            return &families[i];
    err_set(e, ERR_FORMAT, "general.architecture: '%.*s' is not one Galley knows (llama, mistral, qwen2, qwen3)",
            (int)arch.len, arch.p);
    return NULL;
}

/* ---- Keys ---- */

/* "{arch}.suffix" */
static const char *arch_key(const struct model *m, const char *suffix, char buf[128])
{
    snprintf(buf, 128, "%s.%s", m->architecture, suffix);
    return buf;
}

/* A required whole number in lo..hi. */
static int get_size(const struct model *m, const char *suffix, int32_t lo, int32_t hi, int32_t *out, struct err *e)
{
    char key[128];
    uint32_t v;
    int rc = gguf_get_u32(m->file, arch_key(m, suffix, key), &v, e);
    if (rc)
        return rc;
    if (v < (uint32_t)lo || v > (uint32_t)hi)
        return err_set(e, ERR_FORMAT, "%s: %u is outside of %d..%d", key, v, lo, hi);
    *out = (int32_t)v;
    return 0;
}

/* The same, with a default where the key is missing. */
static int get_size_or(const struct model *m, const char *suffix, int32_t lo, int32_t hi, int32_t fallback,
                       int32_t *out, struct err *e)
{
    char key[128];
    *out = fallback;
    return gguf_find(m->file, arch_key(m, suffix, key)) ? get_size(m, suffix, lo, hi, out, e) : 0;
}

static int get_float_or(const struct model *m, const char *suffix, float fallback, float *out, struct err *e)
{
    char key[128];
    *out = fallback;
    if (!gguf_find(m->file, arch_key(m, suffix, key)))
        return 0;
    int rc = gguf_get_f32(m->file, key, out, e);
    if (!rc && !(isfinite(*out) && *out > 0))
        rc = err_set(e, ERR_FORMAT, "%s: %g is not a positive number", key, (double)*out);
    return rc;
}

static int read_sizes(struct model *m, struct err *e)
{
    struct model_desc *d = &m->desc;
    int32_t value_len;
    int rc = get_size(m, "block_count", 1, 1024, &d->n_layer, e);
    if (!rc)
        rc = get_size(m, "embedding_length", 1, 1 << 17, &d->n_embd, e);
    if (!rc)
        rc = get_size(m, "feed_forward_length", 1, 1 << 20, &d->n_ff, e);
    if (!rc)
        rc = get_size(m, "context_length", 1, 1 << 24, &d->n_ctx_train, e);
    if (!rc)
        rc = get_size(m, "attention.head_count", 1, 1024, &d->n_head, e);
    if (!rc)
        rc = get_size_or(m, "attention.head_count_kv", 1, 1024, d->n_head, &d->n_head_kv, e);
    if (!rc)
        rc = get_size_or(m, "attention.key_length", 2, MODEL_MAX_HEAD_DIM, d->n_embd / d->n_head, &d->head_dim, e);
    if (!rc)
        rc = get_size_or(m, "attention.value_length", 2, MODEL_MAX_HEAD_DIM, d->head_dim, &value_len, e);
    if (!rc)
        rc = get_size_or(m, "rope.dimension_count", 2, MODEL_MAX_HEAD_DIM, d->head_dim, &d->rope_dim, e);
    if (!rc)
        rc = get_size_or(m, "attention.sliding_window", 0, INT32_MAX, 0, &d->sliding_window, e);
    if (!rc)
        rc = get_float_or(m, "attention.layer_norm_rms_epsilon", 1e-5f, &d->rms_eps, e);
    if (rc)
        return rc;
    if (d->n_head % d->n_head_kv || d->head_dim > MODEL_MAX_HEAD_DIM || d->head_dim < 2 || d->head_dim % 2 ||
        d->rope_dim % 2 || d->rope_dim > d->head_dim || value_len != d->head_dim)
        return err_set(e, ERR_FORMAT, "%s: %d heads over %d of %d (values %d, rotated %d) do not fit together",
                       m->architecture, d->n_head, d->n_head_kv, d->head_dim, value_len, d->rope_dim);
    d->attn_scale = 1 / sqrtf((float)d->head_dim);
    return 0;
}

/* Rotation frequencies: the base, a linear factor, and Llama 3's factors from rope_freqs.weight. */
static int read_exit(struct model *m, struct err *e)
{
    uint32_t layer;
    const char *key = "galley.early_exit_layer";
    if (!gguf_find(m->file, key))
        return 0;
    int rc = gguf_get_u32(m->file, key, &layer, e);
    if (!rc && layer >= (uint32_t)m->desc.n_layer)
        return err_set(e, ERR_FORMAT, "%s is %u, and the model has %d layers", key, layer, m->desc.n_layer);
    m->exit_layer = rc ? 0 : (int32_t)layer;
    return rc;
}

static int read_rope(struct model *m, struct err *e)
{
    struct model_desc *d = &m->desc;
    char key[128];
    float base, factor = 1;
    struct slice type;
    int rc = get_float_or(m, "rope.freq_base", 10000, &base, e);
    if (!rc && gguf_find(m->file, arch_key(m, "rope.scaling.type", key))) {
        rc = gguf_get_str(m->file, key, &type, e);
        if (!rc && slice_eq(type, "linear"))
            rc = get_float_or(m, "rope.scaling.factor", 1, &factor, e);
        else if (!rc && !slice_eq(type, "none") && !slice_eq(type, "llama3"))
            rc = err_set(e, ERR_FORMAT, "%s: RoPE scaling '%.*s' is not supported", key, (int)type.len, type.p);
    }
    if (rc)
        return rc;
    int32_t half = d->rope_dim / 2;
    d->rope_mscale = 1;
    for (int32_t i = 0; i < half; i++)
        d->rope_inv_freq[i] = (float)(pow(base, -2.0 * i / d->rope_dim) / factor);

    const struct gguf_tensor *t = gguf_tensor_find(m->file, "rope_freqs.weight");
    if (!t)
        return 0;
    if (t->type != DT_F32 || t->dim[0] != half || t->n_row != 1)
        return err_set(e, ERR_FORMAT, "rope_freqs.weight: expected %d f32 factors", half);
    for (int32_t i = 0; i < half; i++) {
        float f;
        memcpy(&f, t->data + 4 * (size_t)i, 4);
        if (!(isfinite(f) && f > 0))
            return err_set(e, ERR_FORMAT, "rope_freqs.weight: element %d is not a positive number", i);
        d->rope_inv_freq[i] /= f;
    }
    return 0;
}

/* ---- Tensors ---- */

static int take(struct model *m, const char *name, int64_t n_row, int64_t n_col, bool required, struct tensor *out,
                struct err *e)
{
    const struct gguf_tensor *t = gguf_tensor_find(m->file, name);
    if (!t)
        return required ? err_set(e, ERR_FORMAT, "tensor %s is missing", name) : 0;
    if (!dtype_info(t->type))
        return err_set(e, ERR_FORMAT,
                       "tensor %s: type %d is not supported (F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K are)", name,
                       t->type);
    if (t->dim[0] != n_col || t->n_row != n_row)
        return err_set(e, ERR_FORMAT, "tensor %s: %lld x %lld, expected %lld x %lld", name, (long long)t->n_row,
                       (long long)t->dim[0], (long long)n_row, (long long)n_col);
    *out = (struct tensor){.data = t->data, .type = t->type, .n_row = n_row, .n_col = n_col};
    m->info.n_param += (uint64_t)n_row * (uint64_t)n_col;
    return 0;
}

static int take_layer(struct model *m, int32_t l, struct err *e)
{
    const struct model_desc *d = &m->desc;
    struct layer_weights *w = &m->w.layer[l];
    int64_t n_q = (int64_t)d->n_head * d->head_dim, n_kv = (int64_t)d->n_head_kv * d->head_dim;
    const struct {
        const char *suffix;
        int64_t n_row, n_col;
        bool required;
        struct tensor *to;
    } want[] = {
        {"attn_norm.weight", 1, d->n_embd, true, &w->attn_norm},
        {"ffn_norm.weight", 1, d->n_embd, true, &w->ffn_norm},
        {"attn_q.weight", n_q, d->n_embd, true, &w->wq},
        {"attn_k.weight", n_kv, d->n_embd, true, &w->wk},
        {"attn_v.weight", n_kv, d->n_embd, true, &w->wv},
        {"attn_q.bias", 1, n_q, false, &w->bq},
        {"attn_k.bias", 1, n_kv, false, &w->bk},
        {"attn_v.bias", 1, n_kv, false, &w->bv},
        {"attn_q_norm.weight", 1, d->head_dim, d->flags & MODEL_QK_NORM, &w->q_norm},
        {"attn_k_norm.weight", 1, d->head_dim, d->flags & MODEL_QK_NORM, &w->k_norm},
        {"attn_output.weight", d->n_embd, n_q, true, &w->wo},
        {"ffn_gate.weight", d->n_ff, d->n_embd, true, &w->gate},
        {"ffn_up.weight", d->n_ff, d->n_embd, true, &w->up},
        {"ffn_down.weight", d->n_embd, d->n_ff, true, &w->down},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s", l, want[i].suffix);
        int rc = take(m, name, want[i].n_row, want[i].n_col, want[i].required, want[i].to, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int take_tensors(struct model *m, struct err *e)
{
    struct model_desc *d = &m->desc;
    const struct gguf_tensor *embd = gguf_tensor_find(m->file, "token_embd.weight");
    if (!embd)
        return err_set(e, ERR_FORMAT, "tensor token_embd.weight is missing");
    if (embd->n_row < 1 || embd->n_row > 1 << 22)
        return err_set(e, ERR_FORMAT, "tensor token_embd.weight: %lld rows", (long long)embd->n_row);
    d->n_vocab = (int32_t)embd->n_row;
    if (gguf_tensor_find(m->file, "blk.0.attn_q_norm.weight"))
        d->flags |= MODEL_QK_NORM;
    /* Every layer needs tensors of its own, so a hostile count of layers costs no memory. */
    if (d->n_layer > m->file->n_tensor)
        return err_set(e, ERR_FORMAT, "%s.block_count: %d layers, but the file has only %lld tensors", m->architecture,
                       d->n_layer, (long long)m->file->n_tensor);
    m->w.layer = mem_calloc((size_t)d->n_layer, sizeof *m->w.layer);
    if (!m->w.layer)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = take(m, "token_embd.weight", d->n_vocab, d->n_embd, true, &m->w.tok_embd, e);
    if (!rc)
        rc = take(m, "output_norm.weight", 1, d->n_embd, true, &m->w.out_norm, e);
    if (!rc)
        rc = take(m, "output.weight", d->n_vocab, d->n_embd, false, &m->w.out, e);
    for (int32_t l = 0; !rc && l < d->n_layer; l++)
        rc = take_layer(m, l, e);
    return rc;
}

/* ---- The rest ---- */

static char *copy_str(struct slice s)
{
    return mem_strndup(s.p, s.len);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void describe(struct model *m, const char *path)
{
    struct model_info *info = &m->info;
    struct slice name;
    if (!gguf_get_str(m->file, "general.name", &name, NULL) && name.len > 0) {
        snprintf(info->name, sizeof info->name, "%.*s", (int)name.len, name.p);
    } else {
        snprintf(info->name, sizeof info->name, "%s", base_name(path));
        char *dot = strstr(info->name, ".gguf");
        if (dot)
            *dot = 0;
    }
    info->n_vocab = m->desc.n_vocab;
    info->n_ctx_train = m->desc.n_ctx_train;
    info->chat_template = m->chat_template;
    info->architecture = m->architecture;
    snprintf(info->quant, sizeof info->quant, "%s", dtype_info(m->w.layer[0].up.type)->name);
}

/* Files pad the vocabulary to a round number: rows without a token are left out, so that they are never sampled. */
static int trim_vocab(struct model *m, struct err *e)
{
    int32_t n = tok_n_vocab(m->tok);
    if (n > m->desc.n_vocab)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens has %d tokens, token_embd.weight only %d rows", n,
                       m->desc.n_vocab);
    m->desc.n_vocab = n;
    m->w.tok_embd.n_row = n;
    if (m->w.out.data)
        m->w.out.n_row = n;
    return 0;
}

static int open_file(struct model *m, const char *path, struct err *e)
{
    struct slice arch, chat;
    int rc = gguf_open(&m->file, path, e);
    if (!rc)
        rc = gguf_get_str(m->file, "general.architecture", &arch, e);
    if (rc)
        return rc;
    const struct family *family = family_find(arch, e);
    if (!family)
        return -ERR_FORMAT;
    m->desc.flags = family->flags;
    m->architecture = copy_str(arch);
    if (!gguf_get_str(m->file, "tokenizer.chat_template", &chat, NULL))
        m->chat_template = copy_str(chat);
    if (!m->architecture)
        return err_set(e, ERR_NOMEM, "out of memory");
    rc = read_sizes(m, e);
    if (!rc)
        rc = read_exit(m, e);
    if (!rc)
        rc = read_rope(m, e);
    if (!rc)
        rc = take_tensors(m, e);
    if (!rc)
        rc = tok_from_gguf(&m->tok, m->file, e);
    if (!rc)
        rc = trim_vocab(m, e);
    if (!rc)
        rc = source_open(&m->source, m->file, path, e);
    m->w.source = &m->source.ops;
    if (!rc)
        describe(m, path);
    return rc;
}

int model_open(const char *path, struct model *m, struct err *e)
{
    struct err inner = {0};
    *m = (struct model){0};
    int rc = open_file(m, path, &inner);
    if (rc) {
        model_close(m);
        /* gguf_open names the file itself */
        return strstr(inner.msg, base_name(path)) ? err_set(e, -rc, "%s", inner.msg)
                                                  : err_set(e, -rc, "%s: %s", path, inner.msg);
    }
    return 0;
}

void model_close(struct model *m)
{
    tok_free(m->tok);
    mem_free(m->w.layer);
    mem_free(m->chat_template);
    mem_free(m->architecture);
    source_close(&m->source);
    gguf_close(m->file);
    *m = (struct model){0};
}
