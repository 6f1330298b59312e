#include "params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"

/* ---- Fields ---- */

const json_t *field_get(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    return json_is_null(v) ? NULL : v;
}

static const char *kind_of(const json_t *v)
{
    static const char *const name[] = {"an object", "an array", "a string", "an integer",
                                       "a number",  "true",     "false",    "null"};
    return name[json_typeof(v)];
}

static bool wrong_type(const json_t *v, const char *name, const char *wanted, struct api_error *e)
{
    api_fail(e, 400, name, "%s must be %s, not %s", name, wanted, kind_of(v));
    return false;
}

bool field_int(const json_t *o, const char *name, int64_t lo, int64_t hi, int64_t *out, struct api_error *e)
{
    return field_int_as(o, name, name, lo, hi, out, e);
}

bool field_int_as(const json_t *o, const char *key, const char *name, int64_t lo, int64_t hi, int64_t *out,
                  struct api_error *e)
{
    const json_t *v = field_get(o, key);
    if (!v)
        return true;
    bool whole = json_is_real(v) && json_real_value(v) == floor(json_real_value(v)) &&
                 fabs(json_real_value(v)) < 9e15; /* 10.0 */
    if (!json_is_integer(v) && !whole)
        return wrong_type(v, name, "an integer", e);
    int64_t n = whole ? (int64_t)json_real_value(v) : (int64_t)json_integer_value(v);
    if (n < lo || n > hi) {
        api_fail(e, 400, name, "%s must be at least %lld and at most %lld, not %lld", name, (long long)lo,
                 (long long)hi, (long long)n);
        return false;
    }
    *out = n;
    return true;
}

bool field_int32_as(const json_t *o, const char *key, const char *name, int32_t lo, int32_t hi, int32_t *out,
                    struct api_error *e)
{
    int64_t v = *out;
    if (!field_int_as(o, key, name, lo, hi, &v, e))
        return false;
    *out = (int32_t)v;
    return true;
}

static bool field_int32(const json_t *o, const char *name, int32_t lo, int32_t hi, int32_t *out, struct api_error *e)
{
    return field_int32_as(o, name, name, lo, hi, out, e);
}

bool field_float(const json_t *o, const char *name, float *out, struct api_error *e)
{
    return field_float_as(o, name, name, out, e);
}

bool field_float_as(const json_t *o, const char *key, const char *name, float *out, struct api_error *e)
{
    const json_t *v = field_get(o, key);
    if (!v)
        return true;
    if (!json_is_number(v))
        return wrong_type(v, name, "a number", e);
    *out = (float)json_number_value(v);
    return true;
}

bool field_bool(const json_t *o, const char *name, bool *out, struct api_error *e)
{
    return field_bool_as(o, name, name, out, e);
}

bool field_bool_as(const json_t *o, const char *key, const char *name, bool *out, struct api_error *e)
{
    const json_t *v = field_get(o, key);
    if (!v)
        return true;
    if (!json_is_boolean(v))
        return wrong_type(v, name, "true or false", e);
    *out = json_is_true(v);
    return true;
}

bool field_string(const json_t *o, const char *name, const char **out, struct api_error *e)
{
    return field_string_as(o, name, name, out, e);
}

bool field_string_as(const json_t *o, const char *key, const char *name, const char **out, struct api_error *e)
{
    const json_t *v = field_get(o, key);
    if (!v)
        return true;
    if (!json_is_string(v))
        return wrong_type(v, name, "a string", e);
    *out = json_string_value(v);
    return true;
}

/* Writes `"a", "b" or "c"`. */
static void list_names(char *out, size_t size, const char *const *name, int32_t n)
{
    size_t at = 0;
    out[0] = '\0';
    for (int32_t i = 0; i < n && at < size; i++) {
        int len = snprintf(out + at, size - at, "%s\"%s\"", i == 0 ? "" : i == n - 1 ? " or " : ", ", name[i]);
        at += len > 0 ? (size_t)len : 0;
    }
}

/* The number of `word` among the names; -1 and an error that lists them. */
int32_t find_name(const char *field, const char *word, const char *const *name, int32_t n, struct api_error *e)
{
    char names[256];
    for (int32_t i = 0; i < n; i++)
        if (!strcmp(word, name[i]))
            return i;
    list_names(names, sizeof names, name, n);
    api_fail(e, 400, field, "%s must be %s, not \"%.40s\"", field, names, word);
    return -1;
}

bool only_keys(const json_t *o, const char *field, const char *const *key, int32_t n, struct api_error *e)
{
    const char *given;
    json_t *value;
    char names[256];
    json_object_foreach((json_t *)o, given, value)
    {
        bool known = false;
        for (int32_t i = 0; i < n; i++)
            known |= !strcmp(given, key[i]);
        if (!known) {
            list_names(names, sizeof names, key, n);
            api_fail(e, 400, field, "%s has no field \"%.40s\"; it takes %s", field, given, names);
            return false;
        }
    }
    return true;
}

json_t *body_parse(const struct call *c, struct api_error *e)
{
    json_error_t why;
    if (c->body.n == 0) {
        api_fail(e, 400, NULL, "The request has no body; a JSON object is expected.");
        return NULL;
    }
    json_t *body = json_loadb(c->body.p, c->body.n, 0, &why);
    if (!body)
        api_fail(e, 400, NULL, "The body is not valid JSON: %s (line %d, column %d)", why.text, why.line, why.column);
    else if (!json_is_object(body)) {
        api_fail(e, 400, NULL, "The body must be a JSON object, not %s", kind_of(body));
        json_decref(body);
        body = NULL;
    }
    return body;
}

/* ---- Lists ---- */

bool token_ids_read(const json_t *array, const char *name, int32_t **out, int32_t *n, struct api_error *e)
{
    size_t count = json_array_size(array);
    if (count > INT32_MAX / 8) {
        api_fail(e, 400, name, "%s is too long", name);
        return false;
    }
    int32_t *id = mem_alloc(count * sizeof *id);
    if (!id) {
        api_fail(e, 500, NULL, "The server is out of memory.");
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *v = json_array_get(array, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX) {
            api_fail(e, 400, name, "%s[%zu] is not a token id", name, i);
            mem_free(id);
            return false;
        }
        id[i] = (int32_t)json_integer_value(v);
    }
    *out = id;
    *n = (int32_t)count;
    return true;
}

static bool out_of_memory(struct api_error *e)
{
    api_fail(e, 500, NULL, "The server is out of memory.");
    return false;
}

/* A string or an array of strings. */
static bool read_stop(const json_t *body, struct params *out, struct api_error *e)
{
    const json_t *v = field_get(body, "stop");
    if (!v)
        return true;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    out->stop = mem_alloc(n * sizeof *out->stop);
    if (!out->stop)
        return out_of_memory(e);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(s))
            return wrong_type(s, "stop", "a string or an array of strings", e);
        out->stop[i] = json_string_value(s);
    }
    out->p.stop = out->stop;
    out->p.n_stop = (int32_t)(n < INT32_MAX ? n : INT32_MAX);
    return true;
}

static bool read_stop_ids(const json_t *body, struct params *out, struct api_error *e)
{
    const json_t *v = field_get(body, "stop_token_ids");
    if (!v)
        return true;
    if (!json_is_array(v))
        return wrong_type(v, "stop_token_ids", "an array of token ids", e);
    if (!token_ids_read(v, "stop_token_ids", &out->stop_ids, &out->p.n_stop_ids, e))
        return false;
    out->p.stop_ids = out->stop_ids;
    return true;
}

/* {"50256": -100}: keys are token ids as strings. */
static bool read_bias(const json_t *body, struct params *out, struct api_error *e)
{
    const json_t *v = field_get(body, "logit_bias");
    if (!v)
        return true;
    if (!json_is_object(v))
        return wrong_type(v, "logit_bias", "an object", e);
    out->bias = mem_alloc(json_object_size(v) * sizeof *out->bias);
    if (!out->bias)
        return out_of_memory(e);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)v, key, value)
    {
        char *end;
        long id = strtol(key, &end, 10);
        if (end == key || *end || id < 0 || id > INT32_MAX) {
            api_fail(e, 400, "logit_bias", "logit_bias: '%.40s' is not a token id", key);
            return false;
        }
        if (!json_is_number(value))
            return wrong_type(value, "logit_bias", "an object with numbers as values", e);
        out->bias[out->p.n_bias++] = (struct logit_bias){.tok = (int32_t)id, .bias = (float)json_number_value(value)};
    }
    out->p.bias = out->bias;
    return true;
}

/* ---- The shared fields ---- */

static bool read_sampling(const json_t *body, struct gen_params *p, struct api_error *e)
{
    const char *mode = NULL;
    int32_t top_k = p->top_k;
    bool ok = field_float(body, "temperature", &p->temperature, e) && field_float(body, "top_p", &p->top_p, e) &&
              field_float(body, "min_p", &p->min_p, e) && field_float(body, "typical_p", &p->typical_p, e) &&
              field_float(body, "top_h", &p->top_h, e) && field_string(body, "top_h_mode", &mode, e) &&
              field_int32(body, "top_h_n", 1, INT32_MAX, &p->top_h_n, e) &&
              field_int32(body, "top_k", -1, INT32_MAX, &top_k, e) &&
              field_float(body, "repetition_penalty", &p->repetition_penalty, e) &&
              field_float(body, "frequency_penalty", &p->frequency_penalty, e) &&
              field_float(body, "presence_penalty", &p->presence_penalty, e);
    if (!ok)
        return false;
    p->top_k = top_k < 0 ? 0 : top_k; /* -1 is vLLM's way to say all */
    if (mode && strcmp(mode, "partial") && strcmp(mode, "entropy")) {
        api_fail(e, 400, "top_h_mode", "top_h_mode must be \"partial\" or \"entropy\", not \"%.40s\"", mode);
        return false;
    }
    p->top_h_mode = mode && !strcmp(mode, "entropy");
    return true;
}

static bool read_lengths(const json_t *body, struct params *out, const struct server *srv, struct api_error *e)
{
    struct gen_params *p = &out->p;
    int64_t seed;
    float timeout_s = 0;
    out->max_tokens_given = field_get(body, "max_tokens") || field_get(body, "max_completion_tokens");
    bool ok = field_int32(body, "max_tokens", 0, INT32_MAX, &p->max_tokens, e) &&
              field_int32(body, "max_completion_tokens", 0, INT32_MAX, &p->max_tokens, e) &&
              field_int32(body, "min_tokens", 0, INT32_MAX, &p->min_tokens, e) &&
              field_int32(body, "n", 1, 128, &p->n, e) && field_bool(body, "ignore_eos", &p->ignore_eos, e) &&
              field_bool(body, "include_stop_str_in_output", &p->include_stop, e) &&
              field_int32(body, "priority", INT32_MIN, INT32_MAX, &p->priority, e) &&
              field_string(body, "cache_salt", &p->cache_salt, e) && field_float(body, "timeout", &timeout_s, e);
    if (!ok)
        return false;
    bool skip_special = true;
    if (!field_bool(body, "skip_special_tokens", &skip_special, e))
        return false;
    p->keep_special = !skip_special;
    if (!(timeout_s >= 0 && timeout_s <= 86400)) {
        api_fail(e, 400, "timeout", "timeout must be at least 0 and at most 86400 seconds");
        return false;
    }
    int64_t limit_ns = srv->opt->request_timeout * INT64_C(1000000000);
    p->timeout_ns = timeout_s > 0 ? (int64_t)((double)timeout_s * 1e9) : 0;
    if (limit_ns && (!p->timeout_ns || p->timeout_ns > limit_ns))
        p->timeout_ns = limit_ns;
    if (field_get(body, "seed")) {
        if (!field_int(body, "seed", INT64_MIN, INT64_MAX, &seed, e))
            return false;
        p->has_seed = true;
        p->seed = (uint64_t)seed;
    }
    return true;
}

static bool read_stream(const json_t *body, struct params *out, struct api_error *e)
{
    if (!field_bool(body, "stream", &out->stream, e) ||
        !field_bool(body, "return_token_ids", &out->return_token_ids, e))
        return false;
    const json_t *opt = field_get(body, "stream_options");
    if (!opt)
        return true;
    if (!json_is_object(opt))
        return wrong_type(opt, "stream_options", "an object", e);
    if (!out->stream) {
        api_fail(e, 400, "stream_options", "stream_options is only allowed when stream is true");
        return false;
    }
    return field_bool(opt, "include_usage", &out->include_usage, e) &&
           field_bool(opt, "continuous_usage_stats", &out->continuous_usage, e);
}

/* What the model's own files would have requests begin from. */
static void apply_defaults(const struct sampling_defaults *d, struct gen_params *p)
{
    p->temperature = d->has_temperature ? d->temperature : p->temperature;
    p->top_p = d->has_top_p ? d->top_p : p->top_p;
    p->min_p = d->has_min_p ? d->min_p : p->min_p;
    p->top_k = d->has_top_k ? d->top_k : p->top_k;
    p->repetition_penalty = d->has_repetition_penalty ? d->repetition_penalty : p->repetition_penalty;
}

bool params_read(const json_t *body, const struct server *srv, struct params *out, struct api_error *e)
{
    *out = (struct params){0};
    gen_params_init(&out->p);
    apply_defaults(&srv->sampling, &out->p);
    if (!read_sampling(body, &out->p, e) || !read_lengths(body, out, srv, e) || !read_stream(body, out, e) ||
        !read_stop(body, out, e) || !read_stop_ids(body, out, e) || !read_bias(body, out, e))
        return false;
    if (field_get(body, "prompt_logprobs") &&
        !field_int32(body, "prompt_logprobs", 0, 20, &out->p.n_prompt_logprobs, e))
        return false;
    if (out->stream && out->p.n_prompt_logprobs >= 0) {
        api_fail(e, 400, "prompt_logprobs", "prompt_logprobs cannot be streamed");
        return false;
    }
    out->p.emit_tokens = out->return_token_ids;
    return true;
}

void params_free(struct params *p)
{
    mem_free(p->bias);
    mem_free(p->stop);
    mem_free(p->stop_ids);
    *p = (struct params){0};
}

bool params_check_model(const json_t *body, const struct server *srv, struct api_error *e)
{
    const char *model = NULL;
    if (!field_string(body, "model", &model, e))
        return false;
    if (!model || !*model || !strcmp(model, srv->model_name))
        return true;
    api_fail(e, 404, "model", "The model `%.200s` does not exist; this server has `%s`.", model, srv->model_name);
    e->code = "model_not_found";
    return false;
}

bool params_check_unknown(const json_t *body, const struct server *srv, const char *const *own, struct api_error *e)
{
    static const char *const shared[] = {"model",
                                         "temperature",
                                         "top_p",
                                         "min_p",
                                         "typical_p",
                                         "top_h",
                                         "top_h_mode",
                                         "top_h_n",
                                         "top_k",
                                         "repetition_penalty",
                                         "frequency_penalty",
                                         "presence_penalty",
                                         "max_tokens",
                                         "max_completion_tokens",
                                         "min_tokens",
                                         "n",
                                         "ignore_eos",
                                         "include_stop_str_in_output",
                                         "priority",
                                         "cache_salt",
                                         "timeout",
                                         "skip_special_tokens",
                                         "seed",
                                         "stream",
                                         "stream_options",
                                         "return_token_ids",
                                         "stop",
                                         "stop_token_ids",
                                         "logit_bias",
                                         "prompt_logprobs",
                                         "decoding",
                                         "prediction",
                                         "logprobs",
                                         "user",
                                         "store",
                                         "metadata",
                                         "safety_identifier",
                                         "prompt_cache_key",
                                         "service_tier",
                                         "verbosity",
                                         "reasoning",
                                         "reasoning_effort",
                                         "modalities",
                                         NULL};
    if (!srv->opt->strict)
        return true;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)body, key, value)
    {
        bool known = false;
        for (const char *const *list = shared; list; list = list == shared ? own : NULL)
            for (int i = 0; list[i]; i++)
                known |= !strcmp(list[i], key);
        if (!known) {
            api_fail(e, 400, NULL, "Unknown field: %.100s", key);
            return false;
        }
    }
    return true;
}
