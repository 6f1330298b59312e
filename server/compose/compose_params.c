/* The `decoding` field of an answer that is composed, and what it does not go with. */
#include <string.h>

#include "job.h"

static const struct compose_ops *ops_named(const char *word)
{
    static const struct compose_ops *const all[] = {&compose_vote, &compose_navigate};
    for (int i = 0; word && i < 2; i++)
        if (!strcmp(word, all[i]->name))
            return all[i];
    return NULL;
}

static const struct compose_ops *ops_of(const json_t *decoding)
{
    return ops_named(json_string_value(json_is_string(decoding) ? decoding : json_object_get(decoding, "strategy")));
}

bool compose_is_named(const json_t *decoding)
{
    return ops_of(decoding) != NULL;
}

/* A text that ends or marks something: of the given length and without a NUL, which C strings end at. */
static bool read_marker(const json_t *o, const char *key, const char *name, size_t max, const char **out,
                        struct api_error *e)
{
    const json_t *v = field_get(o, key);
    if (!field_string_as(o, key, name, out, e) || !v)
        return !e->status;
    size_t n = json_string_length(v);
    if (n < 1 || n > max || strlen(*out) != n) {
        api_fail(e, 400, name, "%s must have 1 to %zu bytes, none of them NUL", name, max);
        return false;
    }
    return true;
}

/* ---- vote ---- */

static bool read_answer(const json_t *v, struct answer_rule *rule, struct api_error *e)
{
    static const char *const key[] = {"after"};
    const char *word = json_string_value(v);
    *rule = (struct answer_rule){.kind = word && !strcmp(word, "text") ? ANSWER_TEXT : ANSWER_NUMBER};
    if (!v || (word && (!strcmp(word, "text") || !strcmp(word, "number"))))
        return true;
    if (!json_is_object(v) || !json_object_size(v)) {
        api_fail(e, 400, "decoding.answer",
                 "decoding.answer must be \"number\", \"text\" or {\"after\": \"a marker\"}");
        return false;
    }
    rule->kind = ANSWER_AFTER;
    if (!only_keys(v, "decoding.answer", key, 1, e) ||
        !read_marker(v, "after", "decoding.answer.after", 256, &rule->after, e))
        return false;
    if (!rule->after)
        api_fail(e, 400, "decoding.answer.after", "decoding.answer.after must be a string, not null");
    return rule->after != NULL;
}

static bool read_vote(const json_t *o, struct job *j, struct api_error *e)
{
    static const char *const key[] = {"strategy", "samples", "by", "keep", "answer"};
    static const char *const way[] = {"majority", "complexity"};
    const char *by = "majority";
    int32_t samples = 8;
    if (!only_keys(o, "decoding", key, 5, e) || !field_int32_as(o, "samples", "decoding.samples", 1, 64, &samples, e) ||
        !field_string_as(o, "by", "decoding.by", &by, e) ||
        !read_answer(field_get(o, "answer"), &j->how.vote.answer, e))
        return false;
    int32_t i = find_name("decoding.by", by, way, 2, e);
    if (i < 0)
        return false;
    j->how.vote.samples = j->how.vote.keep = samples;
    j->how.vote.by_complexity = i == 1;
    if (i == 1) {
        j->how.vote.keep = (samples + 1) / 2;
        return field_int32_as(o, "keep", "decoding.keep", 1, samples, &j->how.vote.keep, e);
    }
    if (field_get(o, "keep"))
        api_fail(e, 400, "decoding.keep",
                 "decoding.keep needs decoding.by \"complexity\": in a majority all samples vote");
    return !e->status;
}

/* ---- navigate ---- */

static bool read_navigate(const json_t *o, struct job *j, struct api_error *e)
{
    static const char *const key[] = {"strategy", "rounds", "per_round", "item_stop", "max_item", "feed_back"};
    j->how.navigate.rounds = j->how.navigate.per_round = 10;
    j->how.navigate.max_item = 64;
    j->how.navigate.item_stop = "\"";
    j->how.navigate.feed_back = true;
    return only_keys(o, "decoding", key, 6, e) &&
           field_int32_as(o, "rounds", "decoding.rounds", 1, 32, &j->how.navigate.rounds, e) &&
           field_int32_as(o, "per_round", "decoding.per_round", 1, 32, &j->how.navigate.per_round, e) &&
           read_marker(o, "item_stop", "decoding.item_stop", 64, &j->how.navigate.item_stop, e) &&
           field_int32_as(o, "max_item", "decoding.max_item", 1, 256, &j->how.navigate.max_item, e) &&
           field_bool_as(o, "feed_back", "decoding.feed_back", &j->how.navigate.feed_back, e);
}

/* ---- What the rest of the request may not say ---- */

struct refusal {
    bool applies;
    const char *field, *why;
};

static bool check_refusals(const char *name, const struct refusal *r, int32_t n, struct api_error *e)
{
    for (int32_t i = 0; i < n; i++)
        if (r[i].applies) {
            api_fail(e, 400, r[i].field, "%s: not with decoding.strategy \"%s\": %s", r[i].field, name, r[i].why);
            return false;
        }
    return true;
}

static bool check_vote(const struct job *j, struct api_error *e)
{
    const struct gen_params *p = &j->par.p;
    const struct refusal r[] = {
        {p->temperature == 0, "temperature", "at temperature 0 all samples are the same; take one above 0"},
        {p->n > 1, "n", "the samples (decoding.samples) become one answer"},
        {j->best_of > 1, "best_of", "the samples (decoding.samples) become one answer"},
        {j->n_prompt > 1, j->format ? j->format->prompt_field : "prompt", "one prompt is voted on"},
        {j->par.max_tokens_given && p->max_tokens == 0, "max_tokens", "a sample has at least one token"},
    };
    return check_refusals("vote", r, sizeof r / sizeof *r, e);
}

static bool check_navigate(const struct job *j, struct api_error *e)
{
    const struct gen_params *p = &j->par.p;
    const struct refusal r[] = {
        {p->temperature != 0 && field_get(j->body, "temperature"), "temperature", "items are continued greedily"},
        {p->n > 1, "n", "rounds and per_round say how many choices there are"},
        {j->best_of > 1, "best_of", "rounds and per_round say how many choices there are"},
        {j->n_prompt > 1, j->format ? j->format->prompt_field : "prompt", "one prompt is continued"},
        {j->par.max_tokens_given && p->max_tokens == 0, "max_tokens", "an item has at least one token"},
        {j->echo, "echo", "its prompt is not only the client's"},
        {j->has_logprobs, "logprobs", "its tokens follow prompts that are not the client's"},
        {p->n_prompt_logprobs >= 0, "prompt_logprobs", "its prompt is not only the client's"},
        {p->n_stop > 0, "stop", "decoding.item_stop ends an item"},
        {p->min_tokens > 0, "min_tokens", "decoding.item_stop ends an item"},
        {field_get(j->body, "prediction") != NULL, "prediction", "there is not one text to predict"},
    };
    return check_refusals("navigate", r, sizeof r / sizeof *r, e);
}

bool compose_read(struct job *j, const json_t *decoding, struct api_error *e)
{
    bool votes = ops_of(decoding) == &compose_vote;
    const json_t *o = json_is_object(decoding) ? decoding : NULL;
    j->how.ops = ops_of(decoding);
    return votes ? read_vote(o, j, e) && check_vote(j, e) : read_navigate(o, j, e) && check_navigate(j, e);
}
