/* A model from a Hugging Face directory: config.json as sizes and frequencies, generation_config.json as what requests
 * begin from. Source: the fields as transformers reads them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "hf_json.h"
#include "mem.h"
#include "model_impl.h"
#include "safetensors.h"

/* ---- Fields of config.json ---- */

static int64_t whole(const json_t *c, const char *key, int64_t fallback)
{
    const json_t *v = json_object_get(c, key);
    return json_is_integer(v) ? json_integer_value(v) : fallback;
}

static double number(const json_t *c, const char *key, double fallback)
{
    const json_t *v = json_object_get(c, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

/* A whole number in lo..hi; `fallback` (0: none) where it is missing or null. */
static int get_size(const json_t *c, const char *key, int64_t lo, int64_t hi, int64_t fallback, int32_t *out,
                    struct err *e)
{
    int64_t v = whole(c, key, fallback);
    if (!fallback && !json_is_integer(json_object_get(c, key)))
        return err_set(e, ERR_FORMAT, "config.json: %s is missing or no whole number", key);
    if (v < lo || v > hi)
        return err_set(e, ERR_FORMAT, "config.json: %s: %lld is outside of %lld..%lld", key, (long long)v,
                       (long long)lo, (long long)hi);
    *out = (int32_t)v;
    return 0;
}

/* A positive number; `fallback` where it is missing or null. */
static int get_positive(const json_t *c, const char *key, double fallback, float *out, struct err *e)
{
    const json_t *v = json_object_get(c, key);
    double x = number(c, key, fallback);
    bool is_given = v && !json_is_null(v);
    *out = (float)x;
    if (is_given && (!json_is_number(v) || !(isfinite(*out) && *out > 0)))
        return err_set(e, ERR_FORMAT, "config.json: %s is not a positive number", key);
    return 0;
}

static int read_family(struct model *m, const json_t *c, struct err *e)
{
    const char *type = json_string_value(json_object_get(c, "model_type"));
    if (!type)
        return err_set(e, ERR_FORMAT, "config.json: model_type is missing");
    const struct family *f = family_find(slice_of(type), true, e);
    if (!f)
        return -ERR_FORMAT;
    model_begin(m, f);
    m->desc.flags |= MODEL_NEOX_ROPE;
    m->architecture = mem_strdup(type);
    return m->architecture ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

static int read_sizes(struct model *m, const json_t *c, struct err *e)
{
    struct model_desc *d = &m->desc;
    int rc = get_size(c, "num_hidden_layers", 1, MODEL_MAX_LAYER, 0, &d->n_layer, e);
    if (!rc)
        rc = get_size(c, "hidden_size", 1, 1 << 17, 0, &d->n_embd, e);
    if (!rc)
        rc = get_size(c, "intermediate_size", 1, 1 << 20, 0, &d->n_ff, e);
    if (!rc)
        rc = get_size(c, "max_position_embeddings", 1, 1 << 24, 0, &d->n_ctx_train, e);
    if (!rc)
        rc = get_size(c, "num_attention_heads", 1, 1024, 0, &d->n_head, e);
    if (!rc)
        rc = get_size(c, "num_key_value_heads", 1, 1024, d->n_head, &d->n_head_kv, e);
    if (!rc)
        rc = get_size(c, "head_dim", 2, MODEL_MAX_HEAD_DIM, d->n_embd / d->n_head, &d->head_dim, e);
    if (!rc)
        rc = get_positive(c, "rms_norm_eps", 1e-6, &d->rms_eps, e);
    if (rc)
        return rc;
    double part = number(json_object_get(c, "rope_parameters"), "partial_rotary_factor",
                         number(c, "partial_rotary_factor", 1)),
           rotated = d->head_dim * part;
    if (!(rotated >= 2 && rotated <= d->head_dim))
        return err_set(e, ERR_FORMAT, "config.json: partial_rotary_factor: %g of heads of %d", part, d->head_dim);
    d->rope_dim = (int32_t)rotated;
    m->is_tied = json_is_true(json_object_get(c, "tie_word_embeddings"));
    m->needs_head = json_is_false(json_object_get(c, "tie_word_embeddings"));
    return model_check_heads(m, e);
}

/* The gate's function: what a family has, unless it is named. */
static int read_activation(struct model *m, const json_t *c, struct err *e)
{
    const char *key = json_object_get(c, "hidden_activation") ? "hidden_activation" : "hidden_act";
    const char *name = json_string_value(json_object_get(c, key));
    if (!name)
        return 0;
    if (!strcmp(name, "silu") || !strcmp(name, "swish"))
        m->desc.flags &= ~(uint32_t)MODEL_GELU;
    else if (!strcmp(name, "gelu_pytorch_tanh"))
        m->desc.flags |= MODEL_GELU;
    else
        return err_set(e, ERR_FORMAT, "config.json: %s: '%.32s' is not supported (silu, gelu_pytorch_tanh)", key, name);
    return 0;
}

/* What scores, embeddings, residuals and logits are multiplied by, and their caps. */
static int read_scales(struct model *m, const json_t *c, struct err *e)
{
    struct model_desc *d = &m->desc;
    float width, divisor;
    double embd_scale = m->family->traits & FAMILY_EMBD_SQRT ? sqrt(d->n_embd) : 1;
    int rc = get_positive(c, "query_pre_attn_scalar", d->head_dim, &width, e);
    if (!rc)
        rc = get_positive(c, "attention_multiplier", 1 / sqrt(width), &d->attn_scale, e);
    if (!rc)
        rc = get_positive(c, "attn_logit_softcapping", 0, &d->attn_softcap, e);
    if (!rc)
        rc = get_positive(c, "final_logit_softcapping", 0, &d->logit_softcap, e);
    if (!rc)
        rc = get_positive(c, "embedding_multiplier", embd_scale, &d->embd_scale, e);
    if (!rc)
        rc = get_positive(c, "residual_multiplier", 1, &d->residual_scale, e);
    if (!rc)
        rc = get_positive(c, "logits_scaling", 1, &divisor, e);
    d->logit_scale = rc ? 1 : 1 / divisor;
    return rc;
}

static int read_experts(struct model *m, const json_t *c, struct err *e)
{
    struct model_desc *d = &m->desc;
    const char *key = json_object_get(c, "num_experts") ? "num_experts" : "num_local_experts";
    if (!json_object_get(c, key))
        return 0;
    int rc = get_size(c, key, 1, MODEL_MAX_EXPERT, 0, &d->n_expert, e);
    int32_t most = d->n_expert < MODEL_MAX_EXPERT_USED ? d->n_expert : MODEL_MAX_EXPERT_USED;
    if (!rc)
        rc = get_size(c, "num_experts_per_tok", 1, most, 0, &d->n_expert_used, e);
    if (!rc)
        rc = get_size(c, "moe_intermediate_size", 1, 1 << 20, d->n_ff, &d->n_ff_expert, e);
    const json_t *norm = json_object_get(c, "norm_topk_prob");
    if (json_is_boolean(norm))
        d->flags = json_is_true(norm) ? d->flags | MODEL_EXPERT_SUM_1 : d->flags & ~(uint32_t)MODEL_EXPERT_SUM_1;
    return rc;
}

/* ---- Layers: windows and rotations ---- */

/* One text or number for each layer, or none at all. */
static int check_list(const struct model *m, const json_t *list, const char *key, struct err *e)
{
    if (list && !json_is_null(list) && json_array_size(list) != (size_t)m->desc.n_layer)
        return err_set(e, ERR_FORMAT, "config.json: %s: %zu elements, expected one for each of %d layers", key,
                       json_array_size(list), m->desc.n_layer);
    return 0;
}

/* Which layers have a window: as a list, as Qwen's last ones, or as a period. */
static int read_windows(struct model *m, const json_t *c, uint8_t slides[MODEL_MAX_LAYER], int32_t *window,
                        struct err *e)
{
    const struct model_desc *d = &m->desc;
    const json_t *types = json_object_get(c, "layer_types"), *size = json_object_get(c, "sliding_window");
    bool asked = m->family->traits & FAMILY_WINDOW_ASKED;
    int32_t period = m->family->full_period;
    *window = 0;
    if (!(m->family->traits & FAMILY_WINDOW) || (!period && (!size || json_is_null(size))) ||
        (asked && !json_is_true(json_object_get(c, "use_sliding_window"))))
        return 0;
    int rc = get_size(c, "sliding_window", 1, INT32_MAX, 0, window, e);
    if (!rc)
        rc = check_list(m, types, "layer_types", e);
    if (!rc && period)
        rc = get_size(c, "sliding_window_pattern", 1, MODEL_MAX_LAYER, period, &period, e);
    if (rc)
        return rc;
    int64_t first = asked ? whole(c, "max_window_layers", 0) : 0;
    for (int32_t l = 0; l < d->n_layer; l++) {
        const char *type = json_string_value(json_array_get(types, (size_t)l));
        if (type && strcmp(type, "sliding_attention") && strcmp(type, "full_attention"))
            return err_set(e, ERR_FORMAT, "config.json: layer_types: '%.32s' is not supported", type);
        slides[l] = type ? !strcmp(type, "sliding_attention") : l >= first && (!period || (l + 1) % period != 0);
    }
    return 0;
}

/* SmolLM3: 0 for layers that are not rotated, or the last of so many. */
static int read_unrotated(const struct model *m, const json_t *c, uint8_t unrotated[MODEL_MAX_LAYER], struct err *e)
{
    const json_t *list = json_object_get(c, "no_rope_layers");
    int32_t period = m->family->unrotated_period;
    if (!period)
        return 0;
    int rc = check_list(m, list, "no_rope_layers", e);
    if (!rc)
        rc = get_size(c, "no_rope_layer_interval", 1, MODEL_MAX_LAYER, period, &period, e);
    for (int32_t l = 0; !rc && l < m->desc.n_layer; l++) {
        const json_t *v = json_array_get(list, (size_t)l);
        unrotated[l] = v ? json_is_integer(v) && !json_integer_value(v) : (l + 1) % period == 0;
    }
    return rc;
}

static int read_factors(const struct model *m, const json_t *s, const char *key, float out[MODEL_MAX_HEAD_DIM / 2],
                        struct err *e)
{
    const json_t *list = json_object_get(s, key);
    size_t half = (size_t)m->desc.rope_dim / 2;
    if (json_array_size(list) != half)
        return err_set(e, ERR_FORMAT, "config.json: %s: %zu factors, expected %zu", key, json_array_size(list), half);
    for (size_t i = 0; i < half; i++) {
        out[i] = (float)json_number_value(json_array_get(list, i));
        if (!(isfinite(out[i]) && out[i] > 0))
            return err_set(e, ERR_FORMAT, "config.json: %s: element %zu is not a positive number", key, i);
    }
    return 0;
}

/* What an object says of scaling; `base` where it says nothing of that. */
static int read_scaling(const struct model *m, const json_t *c, const json_t *s, double base, struct rope_spec *out,
                        struct err *e)
{
    const char *type = json_string_value(json_object_get(s, "rope_type"));
    if (!type)
        type = json_string_value(json_object_get(s, "type"));
    *out = (struct rope_spec){
        .base = number(s, "rope_theta", base),
        .factor = number(s, "factor", 1),
        .n_ctx_original = number(s, "original_max_position_embeddings",
                                 number(c, "original_max_position_embeddings", m->desc.n_ctx_train)),
        .low = number(s, "low_freq_factor", 1),
        .high = number(s, "high_freq_factor", 4),
        .beta_slow = number(s, "beta_slow", 1),
        .beta_fast = number(s, "beta_fast", 32),
        .mscale = number(s, "attention_factor", 0),
    };
    if (type && rope_scaling_by_name(slice_of(type), &out->scaling, e)) {
        struct err why = *e;
        return err_set(e, ERR_FORMAT, "config.json: %.400s", why.msg);
    }
    return 0;
}

/* LongRoPE: one list of factors for contexts up to the original one, another for longer ones. */
static int read_long_factors(struct model *m, const json_t *s, struct rope_spec *spec,
                             float factors[MODEL_MAX_HEAD_DIM / 2], struct err *e)
{
    float mscale;
    int rc = read_factors(m, s, "short_factor", factors, e);
    m->short_freq = mem_calloc((size_t)m->desc.rope_dim / 2, sizeof *m->short_freq);
    if (!rc && !m->short_freq)
        rc = err_set(e, ERR_NOMEM, "out of memory");
    if (!json_object_get(s, "factor"))
        spec->factor = m->desc.n_ctx_train / spec->n_ctx_original;
    spec->divide = factors;
    m->n_ctx_short = (int32_t)fmin(spec->n_ctx_original, 1 << 24);
    if (!rc)
        rc = rope_frequencies(spec, m->desc.rope_dim, m->short_freq, &mscale, e);
    return rc ? rc : read_factors(m, s, "long_factor", factors, e);
}

static int read_layers(struct model *m, const json_t *c, struct err *e)
{
    struct model_desc *d = &m->desc;
    struct rope_spec global, local;
    uint8_t slides[MODEL_MAX_LAYER] = {0}, unrotated[MODEL_MAX_LAYER] = {0};
    float factors[MODEL_MAX_HEAD_DIM / 2];
    int32_t window;
    double base = number(c, "rope_theta", 10000), local_base = number(c, "rope_local_base_freq", m->family->local_base);
    const json_t *s = json_object_get(c, "rope_parameters"); /* transformers 5 */
    if (!json_is_object(s))
        s = json_object_get(c, "rope_scaling");
    const json_t *of_local = json_object_get(s, "sliding_attention"), *of_global = json_object_get(s, "full_attention");
    int rc = read_scaling(m, c, of_global ? of_global : s, base, &global, e);
    if (!rc)
        rc = read_scaling(m, c, of_local, local_base, &local, e);
    if (!rc && global.scaling == ROPE_LONGROPE)
        rc = read_long_factors(m, s, &global, factors, e);
    if (!rc)
        rc = read_windows(m, c, slides, &window, e);
    if (!rc)
        rc = read_unrotated(m, c, unrotated, e);
    if (rc)
        return rc;
    if (global.scaling == ROPE_YARN) /* sequences may be longer than those trained on first */
        d->n_ctx_train = (int32_t)fmin(fmax(d->n_ctx_train, global.n_ctx_original * global.factor), 1 << 24);
    bool has_local = of_local || local_base > 0;
    return model_set_layers(m, slides, window, &global, has_local ? &local : NULL, unrotated, e);
}

/* ---- The neighbours ---- */

static int read_template(struct model *m, const char *dir, struct err *e)
{
    json_t *t;
    m->chat_template = hf_text(dir, "chat_template.jinja");
    if (m->chat_template)
        return 0;
    int rc = hf_json(dir, "tokenizer_config.json", &t, e);
    const json_t *v = json_object_get(t, "chat_template");
    for (size_t i = 0; i < json_array_size(v); i++) { /* several, by name */
        const json_t *one = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name && !strcmp(name, "default"))
            v = json_object_get(one, "template");
    }
    if (json_is_string(v))
        m->chat_template = mem_strdup(json_string_value(v));
    json_decref(t);
    return rc;
}

/* What requests that do not say are sampled with. */
static void read_sampling(struct model *m, const json_t *g)
{
    if (json_is_false(json_object_get(g, "do_sample")))
        return;
    model_set_sampling(m, &(struct sampling_said){.temperature = number(g, "temperature", (double)NAN),
                                                  .top_p = number(g, "top_p", (double)NAN),
                                                  .min_p = number(g, "min_p", (double)NAN),
                                                  .top_k = (double)whole(g, "top_k", -1),
                                                  .repetition_penalty = number(g, "repetition_penalty", (double)NAN)});
}

static int read_neighbours(struct model *m, const char *dir, const json_t *config, struct err *e)
{
    json_t *g;
    int32_t eos[HF_MAX_EOS];
    int rc = hf_json(dir, "generation_config.json", &g, e);
    if (rc)
        return rc;
    read_sampling(m, g);
    const json_t *ids = json_object_get(g, "eos_token_id");
    int n = hf_ids(ids ? ids : json_object_get(config, "eos_token_id"), eos, HF_MAX_EOS);
    json_decref(g);
    rc = tok_from_hf(&m->tok, dir, eos, n, e);
    return rc ? rc : read_template(m, dir, e);
}

int model_from_hf(struct model *m, const char *dir, struct err *e)
{
    json_t *c;
    int rc = hf_json(dir, "config.json", &c, e);
    if (!rc && !c)
        return err_set(e, ERR_NOTFOUND, "%s: no config.json: not a Hugging Face model directory", dir);
    if (!rc)
        rc = read_family(m, c, e);
    if (!rc)
        rc = model_check_quantization(c, e);
    if (!rc)
        rc = read_sizes(m, c, e);
    if (!rc)
        rc = read_activation(m, c, e);
    if (!rc)
        rc = read_scales(m, c, e);
    if (!rc)
        rc = read_experts(m, c, e);
    if (!rc)
        rc = read_layers(m, c, e);
    if (!rc)
        rc = st_open(&m->st, dir, e);
    if (!rc)
        rc = read_neighbours(m, dir, c, e);
    json_decref(c);
    return rc;
}
