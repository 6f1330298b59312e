/* Creating a request: every range is checked and all memory reserved here, on the caller's thread. */
#include "request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "mem.h"
#include "rng.h"
#include "strategy/verified.h"
#include "ways.h"

enum { MIN_TOKENS_TO_DRAFT = 4, MAX_COPYING = 8 }; /* choices that get an index of their own to copy from */
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

int check_ranges(const struct param_range *range, size_t n, struct err *e)
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

static bool names_verifier(const struct gen_params *p)
{
    return p->decoding.verify > DECODE_VERIFY_NSS && p->temperature > 0; /* at 0 all are one */
}

static enum verify_kind kind_of(const struct gen_params *p)
{
    return (enum verify_kind)(p->decoding.verify - DECODE_VERIFY_NSS);
}

/* How drafts are drawn: as asked, or as suits the verifier. */
static enum draft_law law_of(const struct gen_params *p)
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
    enum verify_kind kind = kind_of(p);
    return kind == VERIFY_KSEQ ? DRAFT_IID : kind == VERIFY_GREEDY ? DRAFT_GREEDY : DRAFT_WOR;
}

void gen_params_best_verifier(struct gen_params *p)
{
    const struct decoding_params *d = &p->decoding;
    int32_t branch = d->tree.nodes == 0 || d->tree.width == 1 ? 1 : 2;
    enum verify_kind kind = d->tree.sampling == DECODE_SAMPLING_AUTO
                                ? verify_auto(p->temperature, p->top_k, true, branch).kind
                                : verify_for(law_of(p));
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
                             field, verify_name(kind_of(p)));
    if (!verify_valid(kind_of(p), law_of(p)))
        return err_set_field(e, ERR_INVALID, field, "%s: \"%s\" does not keep the law of drafts drawn as \"%s\"", field,
                             verify_name(kind_of(p)), draft_law_name(law_of(p)));
    return 0;
}

static int check_drafter(const char *field, enum draft_source source, const struct request_limits *lim, struct err *e)
{
    if (source == DRAFT_SOURCE_MODEL && !lim->has_draft)
        return err_set_field(e, ERR_INVALID, field, "%s: the server was started without a draft model (--draft-model)",
                             field);
    if (source == DRAFT_SOURCE_EXIT && !lim->has_exit)
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
    if (check_ranges(range, sizeof range / sizeof *range, e))
        return -ERR_INVALID;
    for (int32_t i = 0; i < p->n_bias; i++)
        if (check_ids("logit_bias", &p->bias[i].tok, 1, n_vocab, e) ||
            check_range(&(struct param_range){"logit_bias", p->bias[i].bias, -100, 100, false}, e))
            return -ERR_INVALID;
    if (p->cache_salt && (!*p->cache_salt || strlen(p->cache_salt) > MAX_SALT))
        return err_set_field(e, ERR_INVALID, "cache_salt", "cache_salt must have 1 to %d bytes", MAX_SALT);
    if (check_verify(p, e) || way_check(p, lim, e))
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

/* ---- Memory ---- */

/* Copies n bytes into the request's arena; *failed latches an allocation that failed. */
static void *copy(struct request *r, const void *src, size_t size_bytes, bool *failed)
{
    void *p = arena_alloc(&r->mem, size_bytes);
    if (!p)
        *failed = true;
    else if (size_bytes && src)
        memcpy(p, src, size_bytes);
    return p;
}

static void copy_stops(struct request *r, const struct gen_params *p, bool *failed)
{
    char **text = copy(r, NULL, sizeof *text * (size_t)p->n_stop, failed);
    int32_t *len = copy(r, NULL, sizeof *len * (size_t)p->n_stop, failed);
    for (int32_t i = 0; !*failed && i < p->n_stop; i++) {
        len[i] = (int32_t)strlen(p->stop[i]);
        text[i] = copy(r, p->stop[i], (size_t)len[i] + 1, failed);
        r->stop_set.max_len = len[i] > r->stop_set.max_len ? len[i] : r->stop_set.max_len;
    }
    r->stop_set.text = (const char *const *)text;
    r->stop_set.len = len;
    r->stop_set.n = p->n_stop;
    r->p.stop = (const char *const *)text;
}

static int compare_bias(const void *a, const void *b)
{
    return ((const struct logit_bias *)a)->tok - ((const struct logit_bias *)b)->tok;
}

/* Sorted and, of equal tokens, the last given. A bias of -100 is a ban, as OpenAI documents it. */
static void copy_biases(struct request *r, bool *failed)
{
    struct logit_bias *b = copy(r, r->p.bias, sizeof *b * (size_t)r->p.n_bias, failed);
    r->user_ban = copy(r, NULL, sizeof *r->user_ban * (size_t)r->p.n_bias, failed);
    if (*failed)
        return;
    qsort(b, (size_t)r->p.n_bias, sizeof *b, compare_bias);
    int32_t n = 0;
    for (int32_t i = 0; i < r->p.n_bias; i++) {
        if (i + 1 < r->p.n_bias && b[i + 1].tok == b[i].tok)
            continue;
        if (b[i].bias <= -100)
            r->user_ban[r->n_user_ban++] = b[i].tok;
        else
            b[n++] = b[i];
    }
    r->p.bias = b;
    r->p.n_bias = n;
}

/* Tokens that end an answer, banned while fewer than min_tokens were generated. */
static void collect_bans(struct request *r, const struct tokenizer *tok, bool *failed)
{
    int32_t n_eog;
    const int32_t *eog = tok_eog(tok, &n_eog);
    r->ban = copy(r, NULL, sizeof *r->ban * (size_t)(n_eog + r->p.n_stop_ids), failed);
    if (*failed || r->p.min_tokens == 0)
        return;
    memcpy(r->ban, eog, sizeof *eog * (size_t)n_eog);
    if (r->p.n_stop_ids)
        memcpy(r->ban + n_eog, r->p.stop_ids, sizeof *r->ban * (size_t)r->p.n_stop_ids);
    r->n_ban = n_eog + r->p.n_stop_ids;
}

static bool has_penalties(const struct gen_params *p)
{
    return p->repetition_penalty != 1 || p->frequency_penalty != 0 || p->presence_penalty != 0;
}

void seq_count_token(struct seq *s, int32_t tok)
{
    if (!has_penalties(&s->req->p))
        return;
    int32_t at = 0, hi = s->n_law_tok;
    while (at < hi) {
        int32_t mid = (at + hi) / 2;
        if (s->law_tok[mid].tok < tok)
            at = mid + 1;
        else
            hi = mid;
    }
    if (at == s->n_law_tok || s->law_tok[at].tok != tok) {
        memmove(&s->law_tok[at + 1], &s->law_tok[at], sizeof *s->law_tok * (size_t)(s->n_law_tok - at));
        s->law_tok[at] = (struct law_tok){.tok = tok};
        s->n_law_tok++;
    }
    s->law_tok[at].n_output++;
}

static int compare_law_tok(const void *a, const void *b)
{
    return ((const struct law_tok *)a)->tok - ((const struct law_tok *)b)->tok;
}

/* Biases and prompt counts, sorted and merged; every choice starts from a copy. Returns how many. */
static int32_t initial_counts(const struct request *r, struct law_tok *out)
{
    int32_t n = 0, merged = 0;
    for (int32_t i = 0; i < r->p.n_bias; i++)
        out[n++] = (struct law_tok){.tok = r->p.bias[i].tok, .bias = r->p.bias[i].bias};
    for (int32_t i = 0; has_penalties(&r->p) && i < r->n_prompt; i++)
        out[n++] = (struct law_tok){.tok = r->prompt[i], .n_prompt = 1};
    qsort(out, (size_t)n, sizeof *out, compare_law_tok);
    for (int32_t i = 0; i < n; i++)
        if (merged && out[merged - 1].tok == out[i].tok) {
            out[merged - 1].n_prompt += out[i].n_prompt;
            out[merged - 1].bias += out[i].bias;
        } else {
            out[merged++] = out[i];
        }
    return merged;
}

static uint64_t random_u64(void)
{
    uint64_t x;
    if (getrandom(&x, sizeof x, 0) != (ssize_t)sizeof x)
        x = (uint64_t)(uintptr_t)&x; /* never on Linux; a weak key is no safety matter */
    return x;
}

/* Copying is on unless the request says otherwise or is too short to gain. */
static void init_copy(struct request *r, struct seq *s, bool *failed)
{
    const struct decoding_params *d = &r->p.decoding;
    if (s->choice >= MAX_COPYING || d->strategy == DECODE_OFF || !decodes_exactly(d->strategy) ||
        (d->source != DRAFT_SOURCE_AUTO && d->source != DRAFT_SOURCE_COPY) ||
        (r->p.max_tokens < MIN_TOKENS_TO_DRAFT && !r->n_prediction))
        return;
    int32_t n = r->n_prediction + r->n_prompt + r->p.max_tokens;
    void *mem = copy(r, NULL, copy_bytes(n), failed);
    if (mem)
        copy_init(&s->copy, mem, n, d->min_match ? d->min_match : COPY_DEFAULT_MIN_MATCH, r->n_prediction > 0);
}

/* A table for all choices, on the same terms. */
static void init_trigrams(struct request *r, const struct request_limits *lim, bool *failed)
{
    const struct decoding_params *d = &r->p.decoding;
    if (d->strategy == DECODE_OFF || !decodes_exactly(d->strategy) || r->p.max_tokens < MIN_TOKENS_TO_DRAFT ||
        (d->source != DRAFT_SOURCE_AUTO && d->source != DRAFT_SOURCE_TRIGRAM))
        return;
    int32_t n = trigrams_size(r->n_prompt + r->p.max_tokens, lim->has_ngram);
    void *mem = copy(r, NULL, trigrams_bytes(n), failed);
    if (mem)
        trigrams_init(&r->trigrams, mem, n, NULL);
}

static void init_verified(struct request *r, struct seq *s, bool *failed)
{
    if (!names_verifier(&r->p) || s->choice >= r->p.n)
        return;
    s->verified = copy(r, NULL, sizeof *s->verified, failed);
    if (s->verified)
        *s->verified = (struct verified){.kind = kind_of(&r->p),
                                         .law = law_of(&r->p),
                                         .sampling = r->p.decoding.tree.sampling,
                                         .threshold = r->p.decoding.tree.threshold};
}

static void init_seq(struct request *r, int32_t choice, const struct request_limits *lim, const struct tokenizer *tok,
                     uint64_t seed, bool *failed)
{
    struct seq *s = &r->seq[choice];
    int32_t n_tok = r->n_prompt + r->p.max_tokens, max_text = (int32_t)detok_bound(tok);
    int32_t n_law_tok = r->p.n_bias + (has_penalties(&r->p) ? n_tok : 0);
    *s = (struct seq){
        .req = r, .choice = choice, .span = -1, .noise_key = rng_mix(seed + (uint64_t)r->p.choice0 + (uint64_t)choice)};
    s->out = copy(r, NULL, sizeof *s->out * (size_t)r->p.max_tokens, failed);
    size_t table_bytes = sizeof *s->kv.block * (size_t)((n_tok + DRAFT_MAX) / lim->block_len + 2);
    s->kv.block = copy(r, NULL, table_bytes, failed);
    s->draft_kv.block = lim->has_draft && choice < r->p.n ? copy(r, NULL, table_bytes, failed) : NULL;
    s->law_tok = copy(r, NULL, sizeof *s->law_tok * (size_t)n_law_tok, failed);
    s->stop.cap = stop_scan_cap(&r->stop_set, max_text);
    s->stop.held = r->stop_set.n ? copy(r, NULL, 2 * (size_t)s->stop.cap, failed) : NULL;
    detok_init(&s->detok, tok, !r->p.keep_special);
    init_copy(r, s, failed);
    s->trigram = (struct trigram_drafter){.on = r->trigrams.context && choice < r->p.n, .n_taken = r->n_prompt};
    init_verified(r, s, failed);
    if (*failed)
        return;
    if (choice == 0) {
        s->n_law_tok = initial_counts(r, s->law_tok);
    } else {
        s->n_law_tok = r->seq[0].n_law_tok;
        memcpy(s->law_tok, r->seq[0].law_tok, sizeof *s->law_tok * (size_t)s->n_law_tok);
    }
}

static void init_ring(struct request *r, const struct tokenizer *tok, bool *failed)
{
    int32_t text = stop_scan_cap(&r->stop_set, 2 * (int32_t)detok_bound(tok)),
            n_top = r->p.n_logprobs > 0 ? r->p.n_logprobs : 0;
    r->max_event_bytes = (int32_t)(sizeof(struct gen_event) + sizeof(struct top_logprob) * (size_t)n_top) + text;
    /* Eight events of any size and, where drafts may come true at once, as many ordinary ones as a draft has tokens. A
     * named verifier decides only what can be said whatever its size. */
    bool drafts = r->p.decoding.strategy != DECODE_OFF && decodes_exactly(r->p.decoding.strategy);
    uint32_t ordinary = (uint32_t)(sizeof(struct gen_event) + sizeof(struct top_logprob) * (size_t)n_top) + 16,
             n_ordinary = (uint32_t)(!drafts                       ? 0
                                     : r->p.max_tokens < DRAFT_MAX ? r->p.max_tokens
                                                                   : DRAFT_MAX),
             largest = ring_record_bytes((uint32_t)r->max_event_bytes), cap = 4096,
             want = (8 * largest + n_ordinary * ring_record_bytes(ordinary)) * (uint32_t)r->p.n;
    if (names_verifier(&r->p) && want < 2 * largest * (uint32_t)(verified_room(r) + 2))
        want = 2 * largest * (uint32_t)(verified_room(r) + 2);
    while (cap < want)
        cap *= 2;
    ring_init(&r->ring, copy(r, NULL, cap, failed), cap);
}

static void init_prompt_logprobs(struct request *r, bool *failed)
{
    if (r->p.n_prompt_logprobs < 0)
        return;
    r->prompt_lp = copy(r, NULL, sizeof *r->prompt_lp * (size_t)r->n_prompt, failed);
    r->prompt_top = copy(r, NULL, sizeof *r->prompt_top * (size_t)r->n_prompt * (size_t)r->p.n_prompt_logprobs, failed);
}

int request_build(const struct request_limits *lim, const struct tokenizer *tok, const int32_t *prompt,
                  int32_t n_prompt, const struct gen_params *p, struct sink *sink, void *user, struct request **out,
                  struct err *e)
{
    *out = NULL;
    struct gen_params checked = *p;
    int rc = check_params(&checked, lim, tok_n_vocab(tok), e);
    if (!rc)
        rc = check_ids("prompt", prompt, n_prompt, tok_n_vocab(tok), e);
    if (!rc)
        rc = check_ids("prediction", p->prediction, p->n_prediction, tok_n_vocab(tok), e);
    if (!rc)
        rc = check_length(&checked, n_prompt, lim, e);
    if (rc)
        return rc;

    struct request *r = mem_calloc(1, sizeof *r);
    if (!r)
        return err_set(e, ERR_NOMEM, "out of memory");
    bool failed = false;
    arena_init(&r->mem, 8192);
    r->p = checked;
    r->sink = sink;
    r->user = user;
    r->n_prompt = n_prompt;
    r->news = (struct news){.req = r};
    r->done = (struct news){.req = r, .done = true};
    r->prompt = copy(r, prompt, sizeof *prompt * (size_t)n_prompt, &failed);
    r->n_prediction = p->n_prediction < lim->n_ctx ? p->n_prediction : lim->n_ctx; /* no answer is longer */
    r->p.prediction = r->prediction = copy(r, p->prediction, sizeof *p->prediction * (size_t)r->n_prediction, &failed);
    r->p.stop_ids = copy(r, p->stop_ids, sizeof *p->stop_ids * (size_t)p->n_stop_ids, &failed);
    r->p.cache_salt = p->cache_salt ? copy(r, p->cache_salt, strlen(p->cache_salt) + 1, &failed) : NULL;
    copy_stops(r, p, &failed);
    copy_biases(r, &failed);
    collect_bans(r, tok, &failed);
    init_ring(r, tok, &failed);
    init_prompt_logprobs(r, &failed);
    r->n_seq = way_n_seq(&r->p);
    r->seq = copy(r, NULL, sizeof *r->seq * (size_t)r->n_seq, &failed);
    init_trigrams(r, lim, &failed);
    uint64_t seed = r->p.has_seed ? r->p.seed : random_u64();
    for (int32_t i = 0; !failed && i < r->n_seq; i++)
        init_seq(r, i, lim, tok, rng_mix(seed), &failed);
    if (failed || !way_init(r)) {
        request_free(r);
        return err_set(e, ERR_NOMEM, "out of memory for a request of %d tokens", n_prompt + checked.max_tokens);
    }
    r->n_active = r->p.n;
    *out = r;
    return 0;
}

void request_free(struct request *r)
{
    if (!r)
        return;
    arena_free(&r->mem);
    mem_free(r);
}
