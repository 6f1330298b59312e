#include "ways.h"

#include <math.h>

static bool read_ends(const json_t *v, struct cautious_params *c, struct api_error *e)
{
    const char *field = "decoding.segment_end";
    if (!v)
        return true;
    if (!json_is_array(v) || json_array_size(v) < 1 || json_array_size(v) > CAUTIOUS_MAX_ENDS) {
        api_fail(e, 400, field, "%s must be an array of 1 to %d strings", field, CAUTIOUS_MAX_ENDS);
        return false;
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *end = json_array_get(v, i);
        if (!json_is_string(end) || json_string_length(end) < 1 || json_string_length(end) > 16) {
            api_fail(e, 400, field, "%s must have strings of 1 to 16 bytes", field);
            return false;
        }
        c->end[c->n_end++] = json_string_value(end);
    }
    return true;
}

static bool read_cautious(const json_t *o, struct cautious_params *c, struct api_error *e)
{
    static const char *const key[] = {"strategy",    "h_min",       "h_max",  "max_trials",
                                      "max_segment", "segment_end", "formula"};
    static const char *const formula[] = {"code", "paper"};
    const char *named = formula[0];
    if (!only_keys(o, "decoding", key, sizeof key / sizeof *key, e) ||
        !field_float_as(o, "h_min", "decoding.h_min", &c->h_min, e) ||
        !field_float_as(o, "h_max", "decoding.h_max", &c->h_max, e) ||
        !field_int32_as(o, "max_trials", "decoding.max_trials", INT32_MIN, INT32_MAX, &c->max_trials, e) ||
        !field_int32_as(o, "max_segment", "decoding.max_segment", INT32_MIN, INT32_MAX, &c->max_segment, e) ||
        !field_string_as(o, "formula", "decoding.formula", &named, e) || !read_ends(field_get(o, "segment_end"), c, e))
        return false;
    int32_t i = find_name("decoding.formula", named, formula, 2, e);
    c->by_paper = i == 1;
    return i >= 0;
}

static bool read_contrastive(const json_t *o, struct contrastive_params *c, struct api_error *e)
{
    static const char *const key[] = {"strategy", "penalty_alpha", "top_k"};
    return only_keys(o, "decoding", key, sizeof key / sizeof *key, e) &&
           field_float_as(o, "penalty_alpha", "decoding.penalty_alpha", &c->alpha, e) &&
           field_int32_as(o, "top_k", "decoding.top_k", INT32_MIN, INT32_MAX, &c->k, e);
}

static bool read_beam(const json_t *o, struct beam_params *b, struct api_error *e)
{
    static const char *const key[] = {"strategy",       "num_beams",       "length_penalty",
                                      "early_stopping", "num_beam_groups", "diversity_penalty"};
    bool diverse = b->n_group > 1;
    return only_keys(o, "decoding", key, diverse ? 6 : 4, e) &&
           field_int32_as(o, "num_beams", "decoding.num_beams", INT32_MIN, INT32_MAX, &b->width, e) &&
           field_int32_as(o, "num_beam_groups", "decoding.num_beam_groups", INT32_MIN, INT32_MAX, &b->n_group, e) &&
           field_float_as(o, "diversity_penalty", "decoding.diversity_penalty", &b->diversity, e) &&
           field_float_as(o, "length_penalty", "decoding.length_penalty", &b->length_penalty, e) &&
           field_bool_as(o, "early_stopping", "decoding.early_stopping", &b->early_stopping, e);
}

static bool read_superposed(const json_t *o, struct superposition_params *u, struct api_error *e)
{
    static const char *const key[] = {"strategy", "num_drafts", "top", "alpha", "tau", "rescore", "reset_every"};
    return only_keys(o, "decoding", key, sizeof key / sizeof *key, e) &&
           field_int32_as(o, "num_drafts", "decoding.num_drafts", INT32_MIN, INT32_MAX, &u->n_draft, e) &&
           field_int32_as(o, "top", "decoding.top", INT32_MIN, INT32_MAX, &u->n_top, e) &&
           field_float_as(o, "alpha", "decoding.alpha", &u->alpha, e) &&
           field_float_as(o, "tau", "decoding.tau", &u->tau, e) &&
           field_bool_as(o, "rescore", "decoding.rescore", &u->rescore, e) &&
           field_int32_as(o, "reset_every", "decoding.reset_every", INT32_MIN, INT32_MAX, &u->reset_every, e);
}

bool way_read(const json_t *o, struct decoding_params *d, struct api_error *e)
{
    return d->strategy == DECODE_CAUTIOUS      ? read_cautious(o, &d->cautious, e)
           : d->strategy == DECODE_CONTRASTIVE ? read_contrastive(o, &d->contrastive, e)
           : d->strategy == DECODE_SUPERPOSED  ? read_superposed(o, &d->superposed, e)
                                               : read_beam(o, &d->beam, e);
}

/* ---- Telling ---- */

static void write_scores(const struct job *j, struct text_buf *b)
{
    double score, logprob;
    const char *sep = "";
    tb_str(b, ",\"scores\":[");
    for (int32_t i = 0; i < j->n_prompt; i++) {
        const struct request *r = j->prompt[i].r;
        for (int32_t c = 0; r && c < j->par.p.n && request_score(r, c, &score, &logprob); c++, sep = ",") {
            tb_printf(b, "%s{\"score\":%.7g", sep, score);
            if (!isnan(logprob))
                tb_printf(b, ",\"logprob\":%.7g", logprob);
            tb_str(b, "}");
        }
    }
    tb_str(b, "]");
}

void way_write(const struct job *j, const struct request_decoding *did, struct text_buf *b)
{
    const struct decoding_params *d = &j->par.p.decoding;
    if (d->strategy == DECODE_CAUTIOUS)
        tb_printf(b, ",\"max_trials\":%d,\"segments\":%lld", did->width, (long long)did->n_segment);
    else if (d->strategy == DECODE_CONTRASTIVE)
        tb_printf(b, ",\"penalty_alpha\":%.7g,\"top_k\":%d", d->contrastive.alpha, d->contrastive.k);
    else if (d->strategy == DECODE_SUPERPOSED)
        tb_printf(b, ",\"num_drafts\":%d,\"alpha\":%.7g,\"tau\":%.7g,\"reset_every\":%d", did->width,
                  d->superposed.alpha, d->superposed.tau, d->superposed.reset_every);
    else
        tb_printf(b, ",\"num_beams\":%d,\"num_beam_groups\":%d", did->width, d->beam.n_group);
    if ((d->strategy == DECODE_BEAM || d->strategy == DECODE_SUPERPOSED) && j->best_of == j->par.p.n)
        write_scores(j, b);
}
