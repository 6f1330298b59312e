/* From a request's JSON to gen_params: the fields that completions and chat share. Every reader takes null for absent,
 * and names the field in its error. Private to server/. */
#ifndef GALLEY_PARAMS_H
#define GALLEY_PARAMS_H

#include <jansson.h>

#include "server.h"

/* Each leaves *out as it is when the field is absent or null; false: e is filled. */
bool field_int(const json_t *o, const char *name, int64_t lo, int64_t hi, int64_t *out, struct api_error *e);
bool field_float(const json_t *o, const char *name, float *out, struct api_error *e);
bool field_bool(const json_t *o, const char *name, bool *out, struct api_error *e);
/* Borrowed from the JSON. */
bool field_string(const json_t *o, const char *name, const char **out, struct api_error *e);
/* Of an object inside the body; `name` is what errors call it, a static string. */
bool field_int_as(const json_t *o, const char *key, const char *name, int64_t lo, int64_t hi, int64_t *out,
                  struct api_error *e);
bool field_int32_as(const json_t *o, const char *key, const char *name, int32_t lo, int32_t hi, int32_t *out,
                    struct api_error *e);
bool field_float_as(const json_t *o, const char *key, const char *name, float *out, struct api_error *e);
bool field_bool_as(const json_t *o, const char *key, const char *name, bool *out, struct api_error *e);
bool field_string_as(const json_t *o, const char *key, const char *name, const char **out, struct api_error *e);
/* The value when it is there and not null. */
const json_t *field_get(const json_t *o, const char *name);

/* The number of `word` among the names; -1 and an error that lists them. `field` is what errors call it. */
int32_t find_name(const char *field, const char *word, const char *const *name, int32_t n, struct api_error *e);
/* Refuses keys of the object that are not listed. */
bool only_keys(const json_t *o, const char *field, const char *const *key, int32_t n, struct api_error *e);

/* The body as an object, or NULL and e filled. The caller drops the reference. */
json_t *body_parse(const struct call *c, struct api_error *e);

struct params { /* owner: a job; p points into the other arrays and into the JSON */
    struct gen_params p;
    struct logit_bias *bias;
    const char **stop;
    int32_t *stop_ids;
    bool stream, include_usage, continuous_usage, return_token_ids;
    bool max_tokens_given;
};

/* Everything but what only one endpoint knows (logprobs, max_tokens' default). */
bool params_read(const json_t *body, const struct server *srv, struct params *out, struct api_error *e);
void params_free(struct params *p);
/* The model's name must be ours, or absent. */
bool params_check_model(const json_t *body, const struct server *srv, struct api_error *e);
/* In strict mode: refuses fields that are in neither list (NULL-terminated). */
bool params_check_unknown(const json_t *body, const struct server *srv, const char *const *own, struct api_error *e);

/* A JSON array of token ids; *out is freed with mem_free. */
bool token_ids_read(const json_t *array, const char *name, int32_t **out, int32_t *n, struct api_error *e);

#endif
