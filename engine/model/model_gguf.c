/* A model from a GGUF file: its keys as sizes and frequencies. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gguf.h"
#include "mem.h"
#include "model_impl.h"

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
    int rc = gguf_get_u32(m->gguf, arch_key(m, suffix, key), &v, e);
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
    return gguf_find(m->gguf, arch_key(m, suffix, key)) ? get_size(m, suffix, lo, hi, out, e) : 0;
}

static int get_float_or(const struct model *m, const char *suffix, float fallback, float *out, struct err *e)
{
    char key[128];
    *out = fallback;
    if (!gguf_find(m->gguf, arch_key(m, suffix, key)))
        return 0;
    int rc = gguf_get_f32(m->gguf, key, out, e);
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
    if (value_len != d->head_dim)
        return err_set(e, ERR_FORMAT, "%s: values of %d beside keys of %d", m->architecture, value_len, d->head_dim);
    return model_check_heads(m, e);
}

static int read_exit(struct model *m, struct err *e)
{
    uint32_t layer;
    const char *key = "galley.early_exit_layer";
    if (!gguf_find(m->gguf, key))
        return 0;
    int rc = gguf_get_u32(m->gguf, key, &layer, e);
    if (!rc && layer >= (uint32_t)m->desc.n_layer)
        return err_set(e, ERR_FORMAT, "%s is %u, and the model has %d layers", key, layer, m->desc.n_layer);
    m->exit_layer = rc ? 0 : (int32_t)layer;
    return rc;
}

/* Rotation frequencies: the base, a linear factor, and Llama 3's factors from rope_freqs.weight. */
static int read_rope(struct model *m, struct err *e)
{
    struct model_desc *d = &m->desc;
    char key[128];
    float base, factor = 1;
    struct slice type;
    int rc = get_float_or(m, "rope.freq_base", 10000, &base, e);
    if (!rc && gguf_find(m->gguf, arch_key(m, "rope.scaling.type", key))) {
        rc = gguf_get_str(m->gguf, key, &type, e);
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

    const struct gguf_tensor *t = gguf_tensor_find(m->gguf, "rope_freqs.weight");
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

int model_from_gguf(struct model *m, const char *path, struct err *e)
{
    struct slice arch, chat, name;
    int rc = gguf_open(&m->gguf, path, e);
    if (!rc)
        rc = gguf_get_str(m->gguf, "general.architecture", &arch, e);
    if (rc)
        return rc;
    const struct family *family = family_find(arch, e);
    if (!family)
        return -ERR_FORMAT;
    m->desc.flags = family->flags;
    m->architecture = mem_strndup(arch.p, arch.len);
    if (!gguf_get_str(m->gguf, "tokenizer.chat_template", &chat, NULL))
        m->chat_template = mem_strndup(chat.p, chat.len);
    if (!gguf_get_str(m->gguf, "general.name", &name, NULL))
        snprintf(m->info.name, sizeof m->info.name, "%.*s", (int)name.len, name.p);
    if (!m->architecture)
        return err_set(e, ERR_NOMEM, "out of memory");
    rc = read_sizes(m, e);
    if (!rc)
        rc = read_exit(m, e);
    if (!rc)
        rc = read_rope(m, e);
    return rc ? rc : tok_from_gguf(&m->tok, m->gguf, e);
}
