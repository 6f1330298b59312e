#include "decoding.h"

#include "ways.h"

#include <string.h>

static const char *const strategy_name[] = {[DECODE_AUTO] = "auto",
                                            [DECODE_OFF] = "off",
                                            [DECODE_SPECULATIVE] = "speculative",
                                            [DECODE_CAUTIOUS] = "cautious",
                                            [DECODE_CONTRASTIVE] = "contrastive",
                                            [DECODE_BEAM] = "beam",
                                            [DECODE_SUPERPOSED] = "superposed"};
static const char *const source_name[] = {[DRAFT_SOURCE_AUTO] = "auto",
                                          [DRAFT_SOURCE_COPY] = "copy",
                                          [DRAFT_SOURCE_MODEL] = "model",
                                          [DRAFT_SOURCE_EXIT] = "early_exit",
                                          [DRAFT_SOURCE_TRIGRAM] = "trigram"};
static const char *const scope_name[] = {[DRAFT_SCOPE_REQUEST] = "request", [DRAFT_SCOPE_TENANT] = "tenant"};
static const char *const verify_name[] = {"auto", "nss", "naive", "rrs", "kseq", "greedy", "block", "traversal"};
static const char *const sampling_name[] = {"auto", "iid", "wor", "greedy", "sbs", "dyspec"};
enum { N_VERIFY = sizeof verify_name / sizeof *verify_name };

const char *decoding_source_name(enum draft_source source)
{
    return source_name[source];
}

/* ---- Reading ---- */

/* A strategy's name, or a draft source's, which means speculation from it; diverse_beam is beam in groups. */
static bool read_strategy(const char *word, bool has_ngram, struct decoding_params *d, struct api_error *e)
{
    static const struct {
        enum decode_strategy strategy;
        enum draft_source source;
        int32_t width, n_group;
    } meaning[] = {{DECODE_AUTO, DRAFT_SOURCE_AUTO, 0, 0},           {DECODE_OFF, DRAFT_SOURCE_AUTO, 0, 0},
                   {DECODE_SPECULATIVE, DRAFT_SOURCE_AUTO, 0, 0},    {DECODE_SPECULATIVE, DRAFT_SOURCE_COPY, 0, 0},
                   {DECODE_SPECULATIVE, DRAFT_SOURCE_MODEL, 0, 0},   {DECODE_SPECULATIVE, DRAFT_SOURCE_EXIT, 0, 0},
                   {DECODE_SPECULATIVE, DRAFT_SOURCE_TRIGRAM, 0, 0}, {DECODE_CAUTIOUS, DRAFT_SOURCE_AUTO, 0, 0},
                   {DECODE_CONTRASTIVE, DRAFT_SOURCE_AUTO, 0, 0},    {DECODE_BEAM, DRAFT_SOURCE_AUTO, 4, 1},
                   {DECODE_BEAM, DRAFT_SOURCE_AUTO, 8, 4},           {DECODE_SUPERPOSED, DRAFT_SOURCE_AUTO, 0, 0}};
    static const char *const word_of[] = {"auto",         "off",        "speculative", "copy",        "model",
                                          "early_exit",   "trigram",    "cautious",    "contrastive", "beam",
                                          "diverse_beam", "superposed", "vote",        "navigate"};
    int32_t i = find_name("decoding.strategy", word, word_of, sizeof word_of / sizeof *word_of, e);
    BUG_ON(i >= (int32_t)(sizeof meaning / sizeof *meaning)); /* composed ones are read elsewhere */
    if (i < 0)
        return false;
    d->strategy = meaning[i].strategy;
    d->source = meaning[i].source;
    if (d->strategy == DECODE_SUPERPOSED && !has_ngram)
        d->superposed.alpha = 0;
    d->beam.width = meaning[i].width;
    d->beam.n_group = meaning[i].n_group;
    return true;
}

static bool from_a_model(const struct decoding_params *d)
{
    return d->source == DRAFT_SOURCE_MODEL || d->source == DRAFT_SOURCE_EXIT;
}

static bool read_tree(const json_t *tree, struct decoding_params *d, struct api_error *e)
{
    static const char *const key[] = {"nodes", "width", "depth", "sampling", "threshold"};
    int64_t nodes = 16, width = 2, depth = 8;
    const char *sampling = "auto";
    if (!tree)
        return true;
    if (!json_is_object(tree)) {
        api_fail(e, 400, "decoding.draft.tree", "decoding.draft.tree must be an object");
        return false;
    }
    if (d->strategy != DECODE_SPECULATIVE || !from_a_model(d) || d->max_draft) {
        api_fail(e, 400, "decoding.draft.tree",
                 "decoding.draft.tree needs decoding.strategy \"model\" (or \"speculative\" with decoding.draft.source "
                 "\"model\"), and takes the place of decoding.draft.max");
        return false;
    }
    if (!only_keys(tree, "decoding.draft.tree", key, 5, e) ||
        !field_string_as(tree, "sampling", "decoding.draft.tree.sampling", &sampling, e) ||
        !field_int_as(tree, "nodes", "decoding.draft.tree.nodes", 1, 64, &nodes, e) ||
        !field_int_as(tree, "width", "decoding.draft.tree.width", 1, 8, &width, e) ||
        !field_int_as(tree, "depth", "decoding.draft.tree.depth", 1, 64, &depth, e) ||
        !field_float_as(tree, "threshold", "decoding.draft.tree.threshold", &d->tree.threshold, e))
        return false;
    int32_t i = find_name("decoding.draft.tree.sampling", sampling, sampling_name,
                          sizeof sampling_name / sizeof *sampling_name, e);
    if (i < 0)
        return false;
    d->tree.sampling = (enum decode_sampling)i;
    if (field_get(tree, "threshold") && d->tree.sampling != DECODE_SAMPLING_DYSPEC) {
        api_fail(e, 400, "decoding.draft.tree.threshold",
                 "decoding.draft.tree.threshold needs decoding.draft.tree.sampling \"dyspec\"");
        return false;
    }
    d->tree.nodes = (int32_t)nodes;
    d->tree.width = (int32_t)width;
    d->tree.depth = (int32_t)depth;
    return true;
}

/* Who drafts where nothing can be copied; `auto` weighs that by itself. */
static bool read_fallback(const json_t *draft, struct decoding_params *d, struct api_error *e)
{
    static const char *const name[] = {"none", "model", "early_exit"};
    static const enum draft_source meaning[] = {DRAFT_SOURCE_AUTO, DRAFT_SOURCE_MODEL, DRAFT_SOURCE_EXIT};
    const char *field = "decoding.draft.fallback", *word = NULL;
    if (!field_string_as(draft, "fallback", field, &word, e))
        return false;
    int32_t i = word ? find_name(field, word, name, 3, e) : 0;
    if (i < 0)
        return false;
    if (word && d->source != DRAFT_SOURCE_COPY) {
        api_fail(e, 400, field, "%s says who drafts where nothing can be copied; it needs decoding.strategy \"copy\"",
                 field);
        return false;
    }
    d->fallback = meaning[i];
    return true;
}

static bool read_exits(const json_t *draft, struct decoding_params *d, struct api_error *e)
{
    const json_t *exits = field_get(draft, "exits"), *thresholds = field_get(draft, "thresholds");
    size_t n = json_array_size(exits);
    if (!exits && !thresholds)
        return true;
    if (!json_is_array(exits) || n < 1 || n > MAX_EXIT) {
        api_fail(e, 400, "decoding.draft.exits", "decoding.draft.exits must be an array of 1 to %d layers", MAX_EXIT);
        return false;
    }
    if (thresholds && (!json_is_array(thresholds) || json_array_size(thresholds) != n)) {
        api_fail(e, 400, "decoding.draft.thresholds",
                 "decoding.draft.thresholds must be an array of a number for each of the %zu exits", n);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *layer = json_array_get(exits, i), *threshold = json_array_get(thresholds, i);
        if (!json_is_integer(layer) || json_integer_value(layer) < 1 || json_integer_value(layer) > INT16_MAX ||
            (threshold && !json_is_number(threshold))) {
            api_fail(e, 400,
                     threshold && !json_is_number(threshold) ? "decoding.draft.thresholds" : "decoding.draft.exits",
                     "decoding.draft.exits must be layers of the model, decoding.draft.thresholds numbers");
            return false;
        }
        d->exits.layer[i] = (int32_t)json_integer_value(layer);
        d->exits.threshold[i] = threshold ? (float)json_number_value(threshold) : i + 1 < n ? 0.5F : 0;
    }
    d->exits.n = (int32_t)n;
    return true;
}

static bool read_draft(const json_t *draft, struct decoding_params *d, struct api_error *e)
{
    static const char *const key[] = {"source", "fallback", "max",   "threshold", "min_match",
                                      "scope",  "tree",     "exits", "thresholds"};
    const char *source = NULL, *scope = scope_name[d->scope];
    int64_t max = d->max_draft, min_match = d->min_match;
    if (!draft)
        return true;
    if (!json_is_object(draft)) {
        api_fail(e, 400, "decoding.draft", "decoding.draft must be an object");
        return false;
    }
    if (!only_keys(draft, "decoding.draft", key, sizeof key / sizeof *key, e) ||
        !field_string_as(draft, "source", "decoding.draft.source", &source, e) ||
        !field_string_as(draft, "scope", "decoding.draft.scope", &scope, e) ||
        !field_int_as(draft, "max", "decoding.draft.max", 1, 64, &max, e) ||
        !field_float_as(draft, "threshold", "decoding.draft.threshold", &d->threshold, e) ||
        !field_int_as(draft, "min_match", "decoding.draft.min_match", 1, 16, &min_match, e))
        return false;
    if (d->strategy == DECODE_OFF) {
        api_fail(e, 400, "decoding.draft", "decoding.draft: nothing is drafted when decoding.strategy is \"off\"");
        return false;
    }
    int32_t i =
        source ? find_name("decoding.draft.source", source, source_name, N_DRAFT_SOURCE, e) : (int32_t)d->source;
    if (i < 0)
        return false;
    if (d->source != DRAFT_SOURCE_AUTO && i != (int32_t)d->source) {
        api_fail(e, 400, "decoding.draft.source", "decoding.draft.source is \"%s\", but decoding.strategy \"%s\"",
                 source, source_name[d->source]);
        return false;
    }
    d->source = (enum draft_source)i;
    i = find_name("decoding.draft.scope", scope, scope_name, 2, e);
    if (i < 0)
        return false;
    d->scope = (enum draft_scope)i;
    if (field_get(draft, "scope") && d->source != DRAFT_SOURCE_AUTO && d->source != DRAFT_SOURCE_TRIGRAM) {
        api_fail(e, 400, "decoding.draft.scope",
                 "decoding.draft.scope says what trigrams are learnt from; with decoding.draft.source \"%s\" none are",
                 source_name[d->source]);
        return false;
    }
    d->max_draft = (int32_t)max;
    d->min_match = (int32_t)min_match;
    if (!read_fallback(draft, d, e))
        return false;
    return read_exits(draft, d, e) && read_tree(field_get(draft, "tree"), d, e);
}

static bool read_verify(const char *word, struct decoding_params *d, struct api_error *e)
{
    int32_t i = find_name("decoding.verify", word, verify_name, N_VERIFY, e);
    d->verify = i < 0 ? DECODE_VERIFY_AUTO : (enum decode_verify)i;
    return i >= 0;
}

/* Whether a seed's text is to stay the same whatever is drafted; if not, the law alone, for more accepted drafts. */
static bool read_invariant_seed(const json_t *v, struct gen_params *p, struct api_error *e)
{
    struct decoding_params *d = &p->decoding;
    const char *field = "decoding.invariant_seed";
    bool invariant = d->verify <= DECODE_VERIFY_NSS, told = field_get(v, "invariant_seed");
    if (!field_bool_as(v, "invariant_seed", field, &invariant, e))
        return false;
    if (told && invariant && d->verify > DECODE_VERIFY_NSS)
        api_fail(e, 400, field, "%s: with decoding.verify \"%s\" a text depends on its drafts", field,
                 verify_name[d->verify]);
    else if (told && !invariant && (d->strategy != DECODE_SPECULATIVE || !from_a_model(d)))
        api_fail(e, 400, field,
                 "%s: only drafts of a model are verified otherwise; it needs decoding.strategy \"model\"", field);
    else if (told && !invariant && (p->has_seed || d->verify == DECODE_VERIFY_NSS))
        api_fail(e, 400, field, "%s: false contradicts %s", field, p->has_seed ? "seed" : "decoding.verify \"nss\"");
    if (e->status)
        return false;
    if (!invariant && d->verify == DECODE_VERIFY_AUTO)
        gen_params_best_verifier(p);
    return true;
}

/* What the object leaves open is as the server has it by default. */
static bool read_decoding(const json_t *v, const struct options *opt, struct gen_params *p, struct api_error *e)
{
    static const char *const key[] = {"strategy", "draft", "verify", "lossless", "invariant_seed"};
    struct decoding_params *d = &p->decoding;
    if (json_is_string(v))
        return read_strategy(json_string_value(v), opt->ngram, d, e);
    if (!json_is_object(v)) {
        api_fail(e, 400, "decoding", "decoding must be a string or an object");
        return false;
    }
    const char *strategy = opt->decoding, *verify = "auto";
    bool lossless = true; /* what is drafted keeps at least the law; asking for less changes nothing */
    if (!field_string_as(v, "strategy", "decoding.strategy", &strategy, e) ||
        !read_strategy(strategy, opt->ngram, d, e))
        return false;
    if (!decodes_exactly(d->strategy))
        return way_read(v, d, e);
    return only_keys(v, "decoding", key, sizeof key / sizeof *key, e) &&
           field_string_as(v, "verify", "decoding.verify", &verify, e) &&
           field_bool_as(v, "lossless", "decoding.lossless", &lossless, e) && read_verify(verify, d, e) &&
           read_draft(field_get(v, "draft"), d, e) && read_invariant_seed(v, p, e);
}

static bool bad_prediction(struct api_error *e)
{
    api_fail(e, 400, "prediction",
             "prediction must be {\"type\": \"content\", \"content\": ...} with a string or an array of parts of type "
             "\"text\"");
    return false;
}

static bool read_prediction(struct job *j, const json_t *v, struct api_error *e)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    const json_t *content = json_object_get(v, "content");
    if (!type || strcmp(type, "content") || !(json_is_string(content) || json_is_array(content)))
        return bad_prediction(e);
    if (json_is_string(content))
        tb_add(&j->prediction.text, json_string_value(content), json_string_length(content));
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i), *text = json_object_get(part, "text");
        const char *part_type = json_string_value(json_object_get(part, "type"));
        if (!part_type || strcmp(part_type, "text") || !json_is_string(text))
            return bad_prediction(e);
        tb_add(&j->prediction.text, json_string_value(text), json_string_length(text));
    }
    if (j->prediction.text.failed)
        api_fail(e, 500, NULL, "The server is out of memory.");
    return !j->prediction.text.failed;
}

/* The word that --ways has for what was read. */
static const char *way_of(const struct job *j)
{
    const struct decoding_params *d = &j->par.p.decoding;
    return j->how.ops                                          ? j->how.ops->name
           : d->strategy == DECODE_BEAM && d->beam.n_group > 1 ? "diverse_beam"
                                                               : strategy_name[d->strategy];
}

static bool is_allowed(const struct job *j, struct api_error *e)
{
    const char *ways = j->loop->srv->opt->ways;
    if (!j->tells_decoding || option_has(ways, way_of(j)))
        return true;
    api_fail(e, 400, "decoding.strategy", "decoding.strategy: \"%s\" is not among this server's ways of decoding (%s)",
             way_of(j), ways);
    return false;
}

bool decoding_read(struct job *j, struct api_error *e)
{
    const json_t *decoding = field_get(j->body, "decoding"), *prediction = field_get(j->body, "prediction");
    struct decoding_params *d = &j->par.p.decoding;
    j->tells_decoding = decoding != NULL;
    const struct options *opt = j->loop->srv->opt;
    bool is_composed = compose_is_named(decoding); /* its children are decoded as the server has it by default */
    if (is_composed && !compose_read(j, decoding, e))
        return false;
    if (!(decoding && !is_composed ? read_decoding(decoding, opt, &j->par.p, e)
                                   : read_strategy(opt->decoding, opt->ngram, d, e)))
        return false;
    if (!is_allowed(j, e))
        return false;
    bool copies = d->strategy != DECODE_OFF && decodes_exactly(d->strategy) &&
                  (d->source == DRAFT_SOURCE_AUTO || d->source == DRAFT_SOURCE_COPY);
    if (prediction && decoding && !is_composed && !copies) {
        api_fail(e, 400, "prediction", "prediction: nothing is copied when decoding is \"%s\"%s",
                 strategy_name[d->strategy],
                 from_a_model(d)                     ? " from a model"
                 : d->source == DRAFT_SOURCE_TRIGRAM ? " from trigrams"
                                                     : "");
        return false;
    }
    return !prediction || read_prediction(j, prediction, e);
}

/* ---- Telling ---- */

static void write_draft(const struct decoding_params *d, const char *verify, struct text_buf *b)
{
    tb_printf(b, ",\"draft\":{\"source\":\"%s\"", source_name[d->source]);
    if (d->fallback)
        tb_printf(b, ",\"fallback\":\"%s\"", source_name[d->fallback]);
    if (d->threshold > 0)
        tb_printf(b, ",\"threshold\":%.7g", d->threshold);
    for (int32_t i = 0; i < d->exits.n; i++)
        tb_printf(b, "%s%d%s", i ? "," : ",\"exits\":[", d->exits.layer[i], i + 1 < d->exits.n ? "" : "]");
    tb_printf(b, "},\"verify\":\"%s\"", verify);
}

void decoding_write(const struct job *j, struct text_buf *b)
{
    const struct decoding_params *d = &j->par.p.decoding;
    const struct compose_ops *ops = j->how.ops;
    struct job_usage u;
    int32_t n_position = 0;
    bool is_exact = d->verify <= DECODE_VERIFY_NSS || j->par.p.temperature == 0,
         is_drafted = decodes_exactly(d->strategy);
    if (!j->tells_decoding)
        return;
    job_usage(j, &u);
    for (int32_t k = 0; k < DECODING_POSITIONS; k++)
        n_position = u.decoding.drafted_at[k] ? k + 1 : n_position;
    tb_printf(b, ",\"decoding\":{\"strategy\":\"%s\"", way_of(j));
    if (ops)
        ops->tell(j, b);
    else if (!is_drafted)
        way_write(j, &u.decoding, b);
    else if (d->strategy != DECODE_OFF)
        write_draft(d, verify_name[is_exact ? DECODE_VERIFY_NSS : d->verify], b);
    tb_printf(b, ",\"guarantee\":\"%s\",\"steps\":%lld,\"drafted\":%lld,\"accepted\":%lld,\"acceptance\":[",
              ops || !is_drafted ? "approximate"
              : is_exact         ? "exact"
                                 : "lossless",
              (long long)u.decoding.n_step, (long long)u.decoding.n_drafted, (long long)u.decoding.n_accepted);
    for (int32_t k = 0; k < n_position; k++)
        tb_printf(b, "%s%.4g", k ? "," : "", (double)u.decoding.accepted_at[k] / (double)u.decoding.drafted_at[k]);
    tb_str(b, "]}");
}
