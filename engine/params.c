/* What a request may ask for: defaults, ranges, and what contradicts itself. */
#include "params.h"

#include <string.h>

#include "ways.h"

enum {
    MAX_LOGPROBS = 20,
    MAX_STOPS = 64,
    MAX_STOP_IDS = 256,
    MAX_BIAS = 1024,
    MAX_SALT = 1024,
    MAX_PREDICTION = 1 << 22
};

void gen_params_init(struct gen_params *p)
{
    *p = (struct gen_params){
        .temperature = 1,
        .top_p = 1,
        .typical_p = 1,
        .top_h_n = 100,
        .repetition_penalty = 1,
        .max_tokens = 16,
        .n = 1,
        .n_logprobs = -1,
        .n_prompt_logprobs = -1,
        .decoding = {.cautious = {.h_min = 0.01F, .h_max = 1.5F, .max_trials = 10, .max_segment = 64},
                     .contrastive = {.alpha = 0.6F, .k = 4},
                     .beam = {.width = 4, .n_group = 1, .diversity = 0.5F, .length_penalty = 1},
                     .superposed = {.alpha = 0.54F, .tau = 0.06F, .rescore = true}}};
}

/* ---- Ranges ---- */

static int check_range(const struct param_range *r, struct err *e)
{
    if (r->value <= r->hi && (r->open_lo ? r->value > r->lo : r->value >= r->lo)) /* NaN fails both */
        return 0;
    return err_set_field(e, ERR_INVALID, r->field, "%s must be %s %g and at most %g, not %g", r->field,
                         r->open_lo ? "above" : "at least", r->lo, r->hi, r->value);
}

int params_check_ranges(const struct param_range *range, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (check_range(&range[i], e))
            return -ERR_INVALID;
    return 0;
}

static int check_ids(const char *field, const int32_t *id, int32_t n, int32_t n_vocab, struct err *e)
{
    for (int32_t i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= n_vocab)
            return err_set_field(e, ERR_INVALID, field, "%s: %d is not a token id of this model (0 to %d)", field,
                                 id[i], n_vocab - 1);
    return 0;
}

static int check_stops(const struct gen_params *p, struct err *e)
{
    if (p->n_stop > MAX_STOPS)
        return err_set_field(e, ERR_INVALID, "stop", "stop has %d strings, at most %d are taken", p->n_stop, MAX_STOPS);
    for (int32_t i = 0; i < p->n_stop; i++) {
        size_t len = strlen(p->stop[i]);
        if (len == 0 || len > MAX_STOP_BYTES)
            return err_set_field(e, ERR_INVALID, "stop", "stop: string %d has %zu bytes; 1 to %d are taken", i, len,
                                 MAX_STOP_BYTES);
    }
    return 0;
}

/* ---- Verifiers ---- */

bool params_names_verifier(const struct gen_params *p)
{
    return p->decoding.verify > DECODE_VERIFY_NSS && p->temperature > 0; /* at 0 all are one */
}

enum verify_kind params_verifier(const struct gen_params *p)
{
    return (enum verify_kind)(p->decoding.verify - DECODE_VERIFY_NSS);
}

enum draft_law params_draft_law(const struct gen_params *p)
{
    static const enum draft_law named[] = {[DECODE_SAMPLING_IID] = DRAFT_IID,
                                           [DECODE_SAMPLING_WOR] = DRAFT_WOR,
                                           [DECODE_SAMPLING_GREEDY] = DRAFT_GREEDY,
                                           [DECODE_SAMPLING_SBS] = DRAFT_WOR,
                                           [DECODE_SAMPLING_DYSPEC] = DRAFT_WOR};
    if (p->decoding.tree.nodes == 0)
        return DRAFT_CHAIN;
    if (p->decoding.tree.sampling != DECODE_SAMPLING_AUTO)
        return named[p->decoding.tree.sampling];
    enum verify_kind kind = params_verifier(p);
    return kind == VERIFY_KSEQ ? DRAFT_IID : kind == VERIFY_GREEDY ? DRAFT_GREEDY : DRAFT_WOR;
}

void gen_params_best_verifier(struct gen_params *p)
{
    const struct decoding_params *d = &p->decoding;
    int32_t branch = d->tree.nodes == 0 || d->tree.width == 1 ? 1 : 2;
    enum verify_kind kind = d->tree.sampling == DECODE_SAMPLING_AUTO
                                ? verify_auto(p->temperature, p->top_k, true, branch).kind
                                : verify_for(params_draft_law(p));
    p->decoding.verify = (enum decode_verify)(DECODE_VERIFY_NSS + (int)kind);
}

static int check_verify(const struct gen_params *p, struct err *e)
{
    _Static_assert(DECODE_VERIFY_TRAVERSAL - DECODE_VERIFY_NSS == (int)VERIFY_TRAVERSAL, "one order of verifiers");
    const char *field = "decoding.verify";
    const struct decoding_params *d = &p->decoding;
    if (d->verify <= DECODE_VERIFY_NSS) {
        if (d->tree.sampling != DECODE_SAMPLING_AUTO)
            return err_set_field(e, ERR_INVALID, field, "decoding.draft.tree.sampling needs a %s other than nss",
                                 field);
        return 0;
    }
    if (d->strategy != DECODE_SPECULATIVE || (d->source != DRAFT_SOURCE_MODEL && d->source != DRAFT_SOURCE_EXIT))
        return err_set_field(e, ERR_INVALID, field,
                             "%s: \"%s\" weighs a draft model's probabilities; it needs decoding.strategy \"model\"",
                             field, verify_name(params_verifier(p)));
    if (!verify_valid(params_verifier(p), params_draft_law(p)))
        return err_set_field(e, ERR_INVALID, field, "%s: \"%s\" does not keep the law of drafts drawn as \"%s\"", field,
                             verify_name(params_verifier(p)), draft_law_name(params_draft_law(p)));
    return 0;
}

/* A threshold is a chain's, of a model that may draft. */
static int check_threshold(const struct gen_params *p, struct err *e)
{
    const char *field = "decoding.draft.threshold";
    const struct decoding_params *d = &p->decoding;
    bool from_model = d->source == DRAFT_SOURCE_AUTO || d->source == DRAFT_SOURCE_MODEL ||
                      d->source == DRAFT_SOURCE_EXIT || d->fallback != DRAFT_SOURCE_AUTO;
    if (d->threshold == 0)
        return 0;
    if (d->strategy != DECODE_SPECULATIVE || !from_model)
        return err_set_field(e, ERR_INVALID, field,
                             "%s says where a model's chain ends; it needs decoding.strategy \"model\" or "
                             "\"early_exit\", or a decoding.draft.fallback",
                             field);
    if (d->tree.nodes)
        return err_set_field(e, ERR_INVALID, field,
                             "%s is of chains; a tree has decoding.draft.tree.threshold (sampling \"dyspec\")", field);
    if (params_names_verifier(p))
        return err_set_field(e, ERR_INVALID, field,
                             "%s needs decoding.verify \"nss\": \"%s\" does not keep the law where a drawn token is "
                             "left out",
                             field, verify_name(params_verifier(p)));
    return 0;
}

static bool is_exit(const struct request_limits *lim, int32_t layer)
{
    for (int32_t i = 0; i < lim->n_exit; i++)
        if (lim->exit_layer[i] == layer)
            return true;
    return false;
}

static int check_exits(const struct decoding_params *d, const struct request_limits *lim, struct err *e)
{
    const char *field = "decoding.draft.exits";
    if (d->exits.n == 0)
        return 0;
    if (d->strategy != DECODE_SPECULATIVE || d->tree.nodes ||
        (d->source != DRAFT_SOURCE_EXIT && d->fallback != DRAFT_SOURCE_EXIT))
        return err_set_field(e, ERR_INVALID, field, "%s are of a chain; they need decoding.strategy \"early_exit\"",
                             field);
    for (int32_t i = 0; i < d->exits.n; i++) {
        if (!is_exit(lim, d->exits.layer[i]) || (i && d->exits.layer[i] <= d->exits.layer[i - 1]))
            return err_set_field(
                e, ERR_INVALID, field,
                "%s must ascend, and each be a layer that the model names (galley.early_exit_layers); %d "
                "is not",
                field, d->exits.layer[i]);
        if (check_range(&(struct param_range){"decoding.draft.thresholds", d->exits.threshold[i], 0, 1, false}, e))
            return -ERR_INVALID;
    }
    return 0;
}

static int check_drafter(const char *field, enum draft_source source, const struct request_limits *lim, struct err *e)
{
    if (source == DRAFT_SOURCE_MODEL && !lim->has_draft)
        return err_set_field(e, ERR_INVALID, field, "%s: the server was started without a draft model (--draft-model)",
                             field);
    if (source == DRAFT_SOURCE_EXIT && !lim->n_exit)
        return err_set_field(e, ERR_INVALID, field,
                             "%s: the model names no layer to leave after (galley.early_exit_layer)", field);
    return 0;
}

static int check_params(struct gen_params *p, const struct request_limits *lim, int32_t n_vocab, struct err *e)
{
    _Static_assert((int)MAX_RANKED <= (int)PLAN_MAX_TOPK, "one readout ranks them");
    const struct param_range range[] = {
        {"temperature", p->temperature, 0, 100, false},
        {"top_p", p->top_p, 0, 1, true},
        {"min_p", p->min_p, 0, 1, false},
        {"typical_p", p->typical_p, 0, 1, true},
        {"top_h", p->top_h, 0, 1, false},
        {"top_h_mode", p->top_h_mode, TOP_H_PARTIAL, TOP_H_ENTROPY, false},
        {"top_h_n", p->top_h_n, 1, INT32_MAX, false},
        {"top_k", p->top_k, 0, INT32_MAX, false},
        {"decoding.draft.threshold", p->decoding.threshold, 0, 1, false},
        {"decoding.draft.tree.threshold", p->decoding.tree.threshold, 0, 1, false},
        {"repetition_penalty", p->repetition_penalty, 0, 100, true},
        {"frequency_penalty", p->frequency_penalty, -2, 2, false},
        {"presence_penalty", p->presence_penalty, -2, 2, false},
        {"max_tokens", p->max_tokens, -1, INT32_MAX, false},
        {"min_tokens", p->min_tokens, 0, p->max_tokens < 0 ? lim->n_ctx : p->max_tokens, false},
        {"n", p->n, 1, lim->max_choices, false},
        {"n", p->choice0, 0, INT32_MAX - MAX_CHOICES, false},
        {"logprobs", p->n_logprobs, -1, p->max_tokens == 1 ? MAX_RANKED : MAX_LOGPROBS, false},
        {"prompt_logprobs", p->n_prompt_logprobs, -1, MAX_LOGPROBS, false},
        {"stop_token_ids", p->n_stop_ids, 0, MAX_STOP_IDS, false},
        {"logit_bias", p->n_bias, 0, MAX_BIAS, false},
        {"prediction", p->n_prediction, 0, MAX_PREDICTION, false},
        {"decoding.draft.max", p->decoding.max_draft, 0, DRAFT_MAX, false},
        {"decoding.draft.tree.nodes", p->decoding.tree.nodes, 0, DRAFT_MAX, false},
        {"decoding.draft.tree.width", p->decoding.tree.width, 0, 8, false},
        {"decoding.draft.tree.depth", p->decoding.tree.depth, 0, DRAFT_MAX, false},
        {"decoding.draft.min_match", p->decoding.min_match, 0, HISTORY_MAX_GRAM, false},
        {"timeout", (double)p->timeout_ns, 0, 1e18, false},
    };
    if (params_check_ranges(range, sizeof range / sizeof *range, e))
        return -ERR_INVALID;
    for (int32_t i = 0; i < p->n_bias; i++)
        if (check_ids("logit_bias", &p->bias[i].tok, 1, n_vocab, e) ||
            check_range(&(struct param_range){"logit_bias", p->bias[i].bias, -100, 100, false}, e))
            return -ERR_INVALID;
    if (p->cache_salt && (!*p->cache_salt || strlen(p->cache_salt) > MAX_SALT))
        return err_set_field(e, ERR_INVALID, "cache_salt", "cache_salt must have 1 to %d bytes", MAX_SALT);
    if (check_verify(p, e) || way_check(p, lim, e) || check_threshold(p, e) || check_exits(&p->decoding, lim, e))
        return -ERR_INVALID;
    if (check_drafter("decoding.draft.source", p->decoding.source, lim, e) ||
        check_drafter("decoding.draft.fallback", p->decoding.fallback, lim, e))
        return -ERR_INVALID;
    if (p->decoding.scope == DRAFT_SCOPE_TENANT && !p->cache_salt)
        return err_set_field(e, ERR_INVALID, "decoding.draft.scope",
                             "decoding.draft.scope: \"tenant\" needs a cache_salt, which says who shares");
    int rc = check_stops(p, e);
    return rc ? rc : check_ids("stop_token_ids", p->stop_ids, p->n_stop_ids, n_vocab, e);
}

/* Decides max_tokens, or says why the request can never run. */
static int check_length(struct gen_params *p, int32_t n_prompt, const struct request_limits *lim, struct err *e)
{
    if (n_prompt < 1)
        return err_set_field(e, ERR_INVALID, "prompt", "prompt must have at least one token");
    int32_t room = lim->n_ctx - n_prompt;
    if (room < (p->max_tokens == 0 ? 0 : 1))
        return err_set_field(e, ERR_TOOLONG, "prompt",
                             "This model's maximum context length is %d tokens, but the prompt has %d.", lim->n_ctx,
                             n_prompt);
    if (p->max_tokens < 0)
        p->max_tokens = room;
    if (p->max_tokens > room)
        return err_set_field(e, ERR_TOOLONG, "max_tokens",
                             "This model's maximum context length is %d tokens, but %d were asked for: %d in the "
                             "prompt and %d to generate (max_tokens).",
                             lim->n_ctx, n_prompt + p->max_tokens, n_prompt, p->max_tokens);
    int rc = way_check_length(p, e);
    if (rc)
        return rc;
    int32_t need = way_n_block(p, n_prompt, lim->block_len);
    if (need > lim->n_block)
        return err_set_field(
            e, ERR_TOOLONG, "max_tokens",
            "%d tokens need %d KV blocks, the server has %d: lower max_tokens, or start it with a larger --kv-mem",
            n_prompt + p->max_tokens, need, lim->n_block);
    return 0;
}

int params_check(struct gen_params *p, const int32_t *prompt, int32_t n_prompt, const struct request_limits *lim,
                 int32_t n_vocab, struct err *e)
{
    int rc = check_params(p, lim, n_vocab, e);
    if (!rc)
        rc = check_ids("prompt", prompt, n_prompt, n_vocab, e);
    if (!rc)
        rc = check_ids("prediction", p->prediction, p->n_prediction, n_vocab, e);
    return rc ? rc : check_length(p, n_prompt, lim, e);
}
