/* A model from a GGUF file: its keys as sizes and frequencies. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gguf.h"
#include "mem.h"
#include "model_impl.h"

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
    int rc = get_size(m, "block_count", 1, MODEL_MAX_LAYER, &d->n_layer, e);
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
        rc = get_float_or(m, "attention.layer_norm_rms_epsilon", 1e-5f, &d->rms_eps, e);
    if (rc)
        return rc;
    if (value_len != d->head_dim)
        return err_set(e, ERR_FORMAT, "%s: values of %d beside keys of %d", m->architecture, value_len, d->head_dim);
    return model_check_heads(m, e);
}

/* What scores, embeddings, residuals and logits are multiplied by, and their caps. */
static int read_scales(struct model *m, struct err *e)
{
    struct model_desc *d = &m->desc;
    float attn_scale = d->attn_scale, logit_scale = 1;
    if (m->family->wide_layers == d->n_layer)
        attn_scale = 1 / sqrtf((float)d->n_embd / (float)d->n_head);
    if (m->family->traits & FAMILY_EMBD_SQRT)
        d->embd_scale = sqrtf((float)d->n_embd);
    int rc = get_float_or(m, "attention.scale", attn_scale, &d->attn_scale, e);
    if (!rc)
        rc = get_float_or(m, "attn_logit_softcapping", 0, &d->attn_softcap, e);
    if (!rc)
        rc = get_float_or(m, "final_logit_softcapping", 0, &d->logit_softcap, e);
    if (!rc)
        rc = get_float_or(m, "embedding_scale", d->embd_scale, &d->embd_scale, e);
    if (!rc)
        rc = get_float_or(m, "residual_scale", 1, &d->residual_scale, e);
    if (!rc)
        rc = get_float_or(m, "logit_scale", 1, &logit_scale, e);
    d->logit_scale = 1 / logit_scale; /* which is what the key means */
    return rc;
}

static int read_experts(struct model *m, struct err *e)
{
    struct model_desc *d = &m->desc;
    char key[128];
    bool sums_to_1;
    int rc = get_size_or(m, "expert_count", 0, MODEL_MAX_EXPERT, 0, &d->n_expert, e);
    if (rc || !d->n_expert)
        return rc;
    int32_t most = d->n_expert < MODEL_MAX_EXPERT_USED ? d->n_expert : MODEL_MAX_EXPERT_USED;
    rc = get_size(m, "expert_used_count", 1, most, &d->n_expert_used, e);
    if (!rc)
        rc = get_size_or(m, "expert_feed_forward_length", 1, 1 << 20, d->n_ff, &d->n_ff_expert, e);
    if (!rc && gguf_find(m->gguf, arch_key(m, "expert_weights_norm", key))) {
        rc = gguf_get_bool(m->gguf, key, &sums_to_1, e);
        d->flags = sums_to_1 ? d->flags | MODEL_EXPERT_SUM_1 : d->flags & ~(uint32_t)MODEL_EXPERT_SUM_1;
    }
    return rc;
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
    if (!rc && layer > 0)
        m->exit_layer[m->n_exit++] = (int32_t)layer;
    return rc;
}

static int read_exits(struct model *m, struct err *e)
{
    uint64_t n;
    const char *key = "galley.early_exit_layers";
    if (!gguf_find(m->gguf, key))
        return read_exit(m, e);
    int rc = gguf_arr_len(m->gguf, key, &n, e);
    if (!rc && (n < 1 || n > MAX_EXIT))
        return err_set(e, ERR_FORMAT, "%s has %llu layers; 1 to %d are taken", key, (unsigned long long)n, MAX_EXIT);
    if (!rc)
        rc = gguf_get_i32s(m->gguf, key, m->exit_layer, n, e);
    for (uint64_t i = 0; !rc && i < n; i++)
        if (m->exit_layer[i] <= (i ? m->exit_layer[i - 1] : 0) || m->exit_layer[i] >= m->desc.n_layer)
            return err_set(e, ERR_FORMAT, "%s must ascend from 1 to below the model's %d layers", key, m->desc.n_layer);
    m->n_exit = rc ? 0 : (int32_t)n;
    return rc;
}

/* NAN: there is no such number. */
static double number_or_nan(const struct model *m, const char *key)
{
    float x;
    uint32_t n;
    return !gguf_get_f32(m->gguf, key, &x, NULL) ? (double)x : !gguf_get_u32(m->gguf, key, &n, NULL) ? n : (double)NAN;
}

/* llama.cpp's converter takes them from generation_config.json. */
static void read_sampling(struct model *m)
{
    model_set_sampling(
        m, &(struct sampling_said){.temperature = number_or_nan(m, "general.sampling.temp"),
                                   .top_p = number_or_nan(m, "general.sampling.top_p"),
                                   .min_p = number_or_nan(m, "general.sampling.min_p"),
                                   .top_k = number_or_nan(m, "general.sampling.top_k"),
                                   .repetition_penalty = number_or_nan(m, "general.sampling.penalty_repeat")});
}

/* ---- Layers: windows and rotations ---- */

/* Each pair's own factor, if there is a tensor of that name. */
static int read_factors(const struct model *m, const char *name, float out[MODEL_MAX_HEAD_DIM / 2], bool *found,
                        struct err *e)
{
    int32_t half = m->desc.rope_dim / 2;
    const struct gguf_tensor *t = gguf_tensor_find(m->gguf, name);
    *found = t != NULL;
    if (!t)
        return 0;
    if (t->type != DT_F32 || t->dim[0] != half || t->n_row != 1)
        return err_set(e, ERR_FORMAT, "%s: expected %d f32 factors", name, half);
    memcpy(out, t->data, sizeof *out * (size_t)half);
    for (int32_t i = 0; i < half; i++)
        if (!(isfinite(out[i]) && out[i] > 0))
            return err_set(e, ERR_FORMAT, "%s: element %d is not a positive number", name, i);
    return 0;
}

static int read_scaling(const struct model *m, struct rope_spec *s, struct err *e)
{
    char key[128];
    struct slice type;
    float base, factor, low, high, magnitude;
    int32_t original;
    int rc = get_float_or(m, "rope.freq_base", 10000, &base, e);
    if (!rc && gguf_find(m->gguf, arch_key(m, "rope.scaling.type", key))) {
        rc = gguf_get_str(m->gguf, key, &type, e);
        if (!rc)
            rc = rope_scaling_by_name(type, &s->scaling, e);
    }
    if (!rc)
        rc = get_float_or(m, "rope.scaling.factor", 1, &factor, e);
    if (!rc)
        rc = get_size_or(m, "rope.scaling.original_context_length", 1, 1 << 24, m->desc.n_ctx_train, &original, e);
    if (!rc)
        rc = get_float_or(m, "rope.scaling.attn_factor", 1, &magnitude, e);
    if (!rc)
        rc = get_float_or(m, "rope.scaling.yarn_beta_slow", 1, &low, e);
    if (!rc)
        rc = get_float_or(m, "rope.scaling.yarn_beta_fast", 32, &high, e);
    if (rc)
        return rc;
    if (s->scaling == ROPE_LLAMA3) /* whose factors are in rope_freqs.weight */
        s->scaling = ROPE_PLAIN;
    s->base = base;
    s->factor = factor;
    s->n_ctx_original = original;
    s->beta_slow = low;
    s->beta_fast = high;
    if (s->scaling == ROPE_YARN)
        s->mscale = magnitude * (0.1 * log(fmax(factor, 1)) + 1);
    else
        s->mscale = magnitude;
    return 0;
}

/* LongRoPE: one list of factors for contexts up to the original one, another for longer ones. */
static int read_long_factors(struct model *m, struct rope_spec *s, float factors[MODEL_MAX_HEAD_DIM / 2], struct err *e)
{
    float near_factors[MODEL_MAX_HEAD_DIM / 2], mscale;
    bool has_short, has_long;
    int rc = read_factors(m, "rope_factors_short.weight", near_factors, &has_short, e);
    if (!rc)
        rc = read_factors(m, "rope_factors_long.weight", factors, &has_long, e);
    if (rc || (!has_short && !has_long))
        return rc;
    if (!has_short || !has_long)
        return err_set(e, ERR_FORMAT, "tensor rope_factors_%s.weight is missing", has_short ? "long" : "short");
    s->scaling = ROPE_LONGROPE;
    s->factor = 1;
    s->divide = near_factors;
    m->n_ctx_short = (int32_t)s->n_ctx_original;
    m->short_freq = mem_calloc((size_t)m->desc.rope_dim / 2, sizeof *m->short_freq);
    if (!m->short_freq)
        return err_set(e, ERR_NOMEM, "out of memory");
    rc = rope_frequencies(s, m->desc.rope_dim, m->short_freq, &mscale, e);
    s->divide = factors;
    return rc;
}

/* Which layers have a window: as a list, as a period, or as the family has it. */
static int read_windows(struct model *m, uint8_t slides[MODEL_MAX_LAYER], int32_t *window, struct err *e)
{
    struct model_desc *d = &m->desc;
    const char *suffix = "attention.sliding_window_pattern";
    char key[128];
    int32_t period = m->family->full_period, list[MODEL_MAX_LAYER];
    const struct gguf_kv *kv = gguf_find(m->gguf, arch_key(m, suffix, key));
    int rc = 0;
    if (kv && kv->type == GGUF_ARR) {
        if (kv->n != (uint64_t)d->n_layer)
            return err_set(e, ERR_FORMAT, "%s: %llu elements, expected one for each of %d layers", key,
                           (unsigned long long)kv->n, d->n_layer);
        rc = gguf_get_i32s(m->gguf, key, list, kv->n, e);
    } else {
        rc = get_size_or(m, suffix, 1, MODEL_MAX_LAYER, period, &period, e);
        for (int32_t l = 0; l < d->n_layer; l++)
            list[l] = !period || (l + 1) % period != 0;
    }
    for (int32_t l = 0; !rc && l < d->n_layer; l++)
        slides[l] = list[l] != 0;
    if (!rc)
        rc = period ? get_size(m, "attention.sliding_window", 1, INT32_MAX, window, e)
                    : get_size_or(m, "attention.sliding_window", 0, INT32_MAX, 0, window, e);
    if (!rc && !*window)
        memset(slides, 0, MODEL_MAX_LAYER);
    return rc;
}

static int read_layers(struct model *m, struct err *e)
{
    struct rope_spec global = {0}, local;
    uint8_t slides[MODEL_MAX_LAYER] = {0}, unrotated[MODEL_MAX_LAYER] = {0};
    float factors[MODEL_MAX_HEAD_DIM / 2], base;
    int32_t window, period = m->family->unrotated_period;
    bool has_factors;
    int rc = read_scaling(m, &global, e);
    if (!rc)
        rc = read_factors(m, "rope_freqs.weight", factors, &has_factors, e);
    if (!rc && has_factors)
        global.divide = factors;
    if (!rc && !has_factors)
        rc = read_long_factors(m, &global, factors, e);
    if (!rc)
        rc = read_windows(m, slides, &window, e);
    if (!rc)
        rc = get_float_or(m, "rope.freq_base_swa", (float)m->family->local_base, &base, e);
    if (rc)
        return rc;
    local = (struct rope_spec){.base = base, .factor = 1};
    for (int32_t l = 0; period && l < m->desc.n_layer; l++)
        unrotated[l] = (l + 1) % period == 0;
    return model_set_layers(m, slides, window, &global, base > 0 ? &local : NULL, unrotated, e);
}

int model_from_gguf(struct model *m, const char *path, struct err *e)
{
    struct slice arch, chat, name;
    int rc = gguf_open(&m->gguf, path, e);
    if (!rc)
        rc = gguf_get_str(m->gguf, "general.architecture", &arch, e);
    if (rc)
        return rc;
    const struct family *family = family_find(arch, false, e);
    if (!family)
        return -ERR_FORMAT;
    model_begin(m, family);
    if (!(family->traits & FAMILY_PAIRS))
        m->desc.flags |= MODEL_NEOX_ROPE;
    m->architecture = mem_strndup(arch.p, arch.len);
    if (!gguf_get_str(m->gguf, "tokenizer.chat_template", &chat, NULL))
        m->chat_template = mem_strndup(chat.p, chat.len);
    if (!gguf_get_str(m->gguf, "general.name", &name, NULL))
        snprintf(m->info.name, sizeof m->info.name, "%.*s", (int)name.len, name.p);
    if (!m->architecture)
        return err_set(e, ERR_NOMEM, "out of memory");
    read_sampling(m);
    rc = read_sizes(m, e);
    if (!rc)
        rc = read_scales(m, e);
    if (!rc)
        rc = read_experts(m, e);
    if (!rc)
        rc = read_exits(m, e);
    if (!rc)
        rc = read_layers(m, e);
    return rc ? rc : tok_from_gguf(&m->tok, m->gguf, e);
}
