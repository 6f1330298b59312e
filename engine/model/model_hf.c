/* A model from a Hugging Face directory: config.json as sizes and frequencies, generation_config.json as what requests
 * begin from. Source: the fields as transformers reads them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "hf_json.h"
#include "mem.h"
#include "model_impl.h"
#include "safetensors.h"

static const char *const families[] = {"llama", "mistral", "qwen2", "qwen3"};

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

static int read_family(struct model *m, const json_t *c, struct err *e)
{
    const char *type = json_string_value(json_object_get(c, "model_type"));
    if (!type)
        return err_set(e, ERR_FORMAT, "config.json: model_type is missing");
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strcmp(type, families[i])) {
            m->architecture = mem_strdup(type);
            m->desc.flags = MODEL_NEOX_ROPE;
            return m->architecture ? 0 : err_set(e, ERR_NOMEM, "out of memory");
        }
    return err_set(e, ERR_FORMAT,
                   "config.json: model_type '%.64s' is not one Galley knows (llama, mistral, qwen2, "
                   "qwen3)",
                   type);
}

/* Qwen lets only the layers from max_window_layers on slide. */
static int read_window(struct model *m, const json_t *c, struct err *e)
{
    struct model_desc *d = &m->desc;
    bool is_qwen = !strncmp(m->architecture, "qwen", 4);
    int64_t window = whole(c, "sliding_window", 0), first = whole(c, "max_window_layers", d->n_layer);
    if (window <= 0 || window > INT32_MAX || !strcmp(m->architecture, "llama") ||
        (is_qwen && (!json_is_true(json_object_get(c, "use_sliding_window")) || first >= d->n_layer)))
        return 0;
    if (is_qwen && first > 0)
        return err_set(e, ERR_FORMAT,
                       "config.json: max_window_layers: sliding windows in %lld of %d layers are not "
                       "supported",
                       (long long)(d->n_layer - first), d->n_layer);
    d->sliding_window = (int32_t)window;
    return 0;
}

static int read_sizes(struct model *m, const json_t *c, struct err *e)
{
    struct model_desc *d = &m->desc;
    int rc = get_size(c, "num_hidden_layers", 1, 1024, 0, &d->n_layer, e);
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
    if (rc)
        return rc;
    double rotated = d->head_dim * number(c, "partial_rotary_factor", 1), eps = number(c, "rms_norm_eps", 1e-6);
    if (!(rotated >= 2 && rotated <= d->head_dim) || !(isfinite(eps) && eps > 0))
        return err_set(e, ERR_FORMAT, "config.json: partial_rotary_factor or rms_norm_eps is out of range");
    d->rope_dim = (int32_t)rotated;
    d->rms_eps = (float)eps;
    m->is_tied = json_is_true(json_object_get(c, "tie_word_embeddings"));
    rc = model_check_heads(m, e);
    return rc ? rc : read_window(m, c, e);
}

/* ---- Rotation ---- */

/* Llama 3.1's: slow pairs rotate slower by `factor`, fast ones as ever, those between by a mixture. */
static double llama3_scaled(double freq, const json_t *s)
{
    double factor = number(s, "factor", 1), low = number(s, "low_freq_factor", 1),
           high = number(s, "high_freq_factor", 4), ctx = number(s, "original_max_position_embeddings", 8192);
    double turns = ctx * freq / (2 * M_PI); /* over the original context */
    if (turns > high)
        return freq;
    if (turns < low)
        return freq / factor;
    double smooth = (turns - low) / (high - low);
    return (1 - smooth) * freq / factor + smooth * freq;
}

static int read_rope(struct model *m, const json_t *c, struct err *e)
{
    struct model_desc *d = &m->desc;
    const json_t *s = json_object_get(c, "rope_parameters"); /* transformers 5 */
    if (!json_is_object(s))
        s = json_object_get(c, "rope_scaling");
    const char *type = json_string_value(json_object_get(s, "rope_type"));
    if (!type)
        type = json_string_value(json_object_get(s, "type"));
    bool is_llama3 = type && !strcmp(type, "llama3"), is_linear = type && !strcmp(type, "linear");
    if (type && !is_llama3 && !is_linear && strcmp(type, "default"))
        return err_set(e, ERR_FORMAT, "config.json: RoPE scaling '%.32s' is not supported (default, linear, llama3)",
                       type);
    double base = number(s, "rope_theta", number(c, "rope_theta", 10000)), factor = number(s, "factor", 1);
    if (!(base > 0 && isfinite(base) && factor > 0 && isfinite(factor)))
        return err_set(e, ERR_FORMAT, "config.json: rope_theta and the RoPE factor must be positive");
    d->rope_mscale = 1;
    for (int32_t i = 0; i < d->rope_dim / 2; i++) {
        double freq = pow(base, -2.0 * i / d->rope_dim);
        freq = is_llama3 ? llama3_scaled(freq, s) : is_linear ? freq / factor : freq;
        if (!(isfinite(freq) && freq > 0))
            return err_set(e, ERR_FORMAT, "config.json: RoPE scaling makes a frequency of %g", freq);
        d->rope_inv_freq[i] = (float)freq;
    }
    return 0;
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

/* What requests that do not say are sampled with; only values that a request could have. */
static void read_sampling(struct model_info *info, const json_t *g)
{
    double t = number(g, "temperature", -1), p = number(g, "top_p", -1), min_p = number(g, "min_p", -1),
           r = number(g, "repetition_penalty", -1);
    int64_t k = whole(g, "top_k", -1);
    struct sampling_defaults *d = &info->sampling;
    if (json_is_false(json_object_get(g, "do_sample")))
        return;
    d->has_temperature = t >= 0 && t <= 100;
    d->temperature = (float)t;
    d->has_top_p = p > 0 && p <= 1;
    d->top_p = (float)p;
    d->has_min_p = min_p >= 0 && min_p <= 1;
    d->min_p = (float)min_p;
    d->has_repetition_penalty = r > 0 && r <= 100;
    d->repetition_penalty = (float)r;
    d->has_top_k = k >= 0 && k <= INT32_MAX;
    d->top_k = (int32_t)k;
}

static int read_neighbours(struct model *m, const char *dir, const json_t *config, struct err *e)
{
    json_t *g;
    int32_t eos[HF_MAX_EOS];
    int rc = hf_json(dir, "generation_config.json", &g, e);
    if (rc)
        return rc;
    read_sampling(&m->info, g);
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
        rc = read_sizes(m, c, e);
    if (!rc)
        rc = read_rope(m, c, e);
    if (!rc)
        rc = st_open(&m->st, dir, e);
    if (!rc)
        rc = read_neighbours(m, dir, c, e);
    json_decref(c);
    return rc;
}
