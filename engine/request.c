/* Creating a request: all memory is reserved here, on the caller's thread. */
#include "request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "mem.h"
#include "params.h"
#include "rng.h"
#include "strategy/verified.h"
#include "ways.h"

enum { MIN_TOKENS_TO_DRAFT = 4, MAX_COPYING = 8 }; /* choices that get an index of their own to copy from */

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
    if (!params_names_verifier(&r->p) || s->choice >= r->p.n)
        return;
    s->verified = copy(r, NULL, sizeof *s->verified, failed);
    if (s->verified)
        *s->verified = (struct verified){.kind = params_verifier(&r->p),
                                         .law = params_draft_law(&r->p),
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
    if (params_names_verifier(&r->p) && want < 2 * largest * (uint32_t)(verified_room(r) + 2))
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
    int rc = params_check(&checked, prompt, n_prompt, lim, tok_n_vocab(tok), e);
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
