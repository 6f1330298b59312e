#include "ways.h"

#include <string.h>

#include "params.h"
#include "strategy/beam_search.h"
#include "strategy/cautious.h"
#include "strategy/contrastive.h"
#include "strategy/strategy.h"
#include "strategy/superposition.h"

enum { MAX_TREE = 1 << 20 }; /* nodes of a beam search */

const struct strategy_ops *strategy_of(const struct request *r)
{
    if (r->p.max_tokens == 0) /* only the prompt is scored */
        return &strategy_chain;
    switch (r->p.decoding.strategy) {
    case DECODE_CAUTIOUS:
        return &strategy_cautious;
    case DECODE_CONTRASTIVE:
        return &strategy_contrastive;
    case DECODE_BEAM:
        return &strategy_search;
    case DECODE_SUPERPOSED:
        return &strategy_superposed;
    default:
        return &strategy_chain;
    }
}

/* Members of one gang. A single trial is the trunk's own draw and needs none. */
static int32_t n_member(const struct gen_params *p)
{
    const struct decoding_params *d = &p->decoding;
    if (p->max_tokens == 0)
        return 0;
    if (d->strategy == DECODE_CAUTIOUS)
        return d->cautious.max_trials > 1 ? d->cautious.max_trials : 0;
    return d->strategy == DECODE_BEAM ? d->beam.width : 0;
}

/* Beam and Superposed make all choices at once. */
static bool is_joint(const struct gen_params *p)
{
    return p->max_tokens != 0 && (p->decoding.strategy == DECODE_BEAM || p->decoding.strategy == DECODE_SUPERPOSED);
}

static int32_t n_gang(const struct gen_params *p)
{
    return is_joint(p) ? 1 : p->max_tokens != 0 && p->decoding.strategy == DECODE_CAUTIOUS ? p->n : 0;
}

int32_t way_n_seq(const struct gen_params *p)
{
    int32_t spare = p->decoding.strategy == DECODE_BEAM && p->max_tokens > 0 ? p->decoding.beam.width + 1 : 0;
    return p->n + n_gang(p) * n_member(p) + spare;
}

/* ---- Ranges ---- */

static int check_cautious(struct cautious_params *c, const struct request_limits *lim, struct err *e)
{
    const struct param_range range[] = {
        {"decoding.h_min", c->h_min, 0, 100, false},
        {"decoding.h_max", c->h_max, c->h_min, 100, true},
        {"decoding.max_trials", c->max_trials, 1, CAUTIOUS_MAX_TRIALS, false},
        {"decoding.max_segment", c->max_segment, 1, CAUTIOUS_MAX_SEGMENT, false},
        {"decoding.segment_end", c->n_end, 0, CAUTIOUS_MAX_ENDS, false},
    };
    if (c->max_trials > lim->max_choices - 1)
        c->max_trials = lim->max_choices > 1 ? lim->max_choices - 1 : 1;
    return params_check_ranges(range, sizeof range / sizeof *range, e);
}

static int check_contrastive(const struct contrastive_params *c, const struct request_limits *lim, struct err *e)
{
    const struct param_range range[] = {
        {"decoding.penalty_alpha", c->alpha, 0, 1, false},
        {"decoding.top_k", c->k, 1, CONTRASTIVE_MAX_K, false},
    };
    if (c->k > lim->max_row)
        return err_set_field(e, ERR_INVALID, "decoding.top_k",
                             "decoding.top_k: the server computes %d tokens a step (--max-batch-tokens)", lim->max_row);
    if (!lim->has_contrast)
        return err_set_field(e, ERR_INVALID, "decoding.strategy",
                             "decoding.strategy: the server was started with --no-contrastive");
    return params_check_ranges(range, sizeof range / sizeof *range, e);
}

static int check_beam(const struct gen_params *p, struct beam_params *b, const struct request_limits *lim,
                      struct err *e)
{
    const struct param_range range[] = {
        {"decoding.num_beams", b->width, 1, BEAM_MAX, false},
        {"decoding.num_beam_groups", b->n_group, 1, b->width, false},
        {"decoding.diversity_penalty", b->diversity, 0, 100, false},
        {"decoding.length_penalty", b->length_penalty, -10, 10, false},
    };
    int rc = params_check_ranges(range, sizeof range / sizeof *range, e);
    if (rc)
        return rc;
    if (b->width % b->n_group)
        return err_set_field(e, ERR_INVALID, "decoding.num_beam_groups",
                             "decoding.num_beam_groups: %d groups do not divide %d beams", b->n_group, b->width);
    if (b->width > lim->max_choices - 1)
        b->width = (lim->max_choices - 1) / b->n_group * b->n_group;
    if (b->width == 0)
        return err_set_field(e, ERR_INVALID, "decoding.num_beam_groups",
                             "decoding.num_beam_groups: the server runs %d sequences of a request at once (--max-seqs, "
                             "--max-choices), too few for %d groups",
                             lim->max_choices, b->n_group);
    if (p->n > b->width)
        return err_set_field(e, ERR_INVALID, "n", "n: %d choices of %d beams", p->n, b->width);
    return 0;
}

int way_check_length(const struct gen_params *p, struct err *e)
{
    int32_t width = p->decoding.beam.width;
    if (p->decoding.strategy == DECODE_BEAM && 2 * (int64_t)width * p->max_tokens > MAX_TREE)
        return err_set_field(e, ERR_INVALID, "max_tokens", "max_tokens: %d beams of %d tokens are too many; at most %d",
                             width, p->max_tokens, MAX_TREE / 2 / width);
    return 0;
}

static int check_superposed(struct gen_params *p, struct superposition_params *u, const struct request_limits *lim,
                            struct err *e)
{
    if (u->n_draft == 0)
        u->n_draft = p->n > 3 ? p->n : 3;
    const struct param_range range[] = {
        {"decoding.num_drafts", u->n_draft, 1, SUPERPOSED_MAX_DRAFT, false},
        {"decoding.top", u->n_top, 0, SUPERPOSED_MAX_TOP, false},
        {"decoding.alpha", u->alpha, 0, 1, false},
        {"decoding.tau", u->tau, 0.01, 10, false},
        {"decoding.reset_every", u->reset_every, 0, SUPERPOSED_MAX_TOKENS, false},
        {"max_tokens", p->max_tokens, -1, u->reset_every ? INT32_MAX : SUPERPOSED_MAX_TOKENS, false},
        {"top_logprobs", p->n_logprobs, -1, u->rescore ? 0 : -1, false},
        {"n", p->n, 1, u->n_draft, false},
    };
    int rc = params_check_ranges(range, sizeof range / sizeof *range, e);
    if (rc)
        return rc;
    if (p->frequency_penalty != 0 || p->presence_penalty != 0 || p->repetition_penalty != 1)
        return err_set_field(e, ERR_INVALID, "decoding.strategy",
                             "decoding.strategy: superposed drafts share one distribution, which no penalty can tell "
                             "apart: leave the penalties out");
    if (u->rescore && lim->max_row < SUPERPOSED_MAX_TOKENS)
        return err_set_field(e, ERR_INVALID, "decoding.rescore",
                             "decoding.rescore: the server computes %d tokens a step (--max-batch-tokens)",
                             lim->max_row);
    if (u->alpha > 0 && !lim->has_ngram)
        return err_set_field(e, ERR_INVALID, "decoding.alpha",
                             "decoding.alpha: the server was started without an n-gram store (--ngram)");
    if (u->n_top == 0)
        u->n_top = 3 * u->n_draft;
    if (p->max_tokens < 0 && u->reset_every == 0)
        p->max_tokens = SUPERPOSED_MAX_TOKENS;
    return 0;
}

int way_check(struct gen_params *p, const struct request_limits *lim, struct err *e)
{
    struct decoding_params *d = &p->decoding;
    if (!decodes_exactly(d->strategy) &&
        (p->n_prediction || d->source || d->max_draft || d->threshold > 0 || d->exits.n || d->tree.nodes || d->verify))
        return err_set_field(e, ERR_INVALID, "decoding.draft", "decoding.draft: nothing is drafted with this strategy");
    switch (d->strategy) {
    case DECODE_CAUTIOUS:
        return check_cautious(&d->cautious, lim, e);
    case DECODE_CONTRASTIVE:
        return check_contrastive(&d->contrastive, lim, e);
    case DECODE_BEAM:
        return check_beam(p, &d->beam, lim, e);
    case DECODE_SUPERPOSED:
        return check_superposed(p, &d->superposed, lim, e);
    default:
        return 0;
    }
}

int32_t way_n_block(const struct gen_params *p, int32_t n_prompt, int32_t block_len)
{
    int32_t own = p->decoding.strategy == DECODE_CAUTIOUS && p->decoding.cautious.max_segment < p->max_tokens
                      ? p->decoding.cautious.max_segment
                      : p->max_tokens;
    return (n_prompt + p->max_tokens + block_len - 1) / block_len + n_member(p) * (own / block_len + 2);
}

/* ---- Memory ---- */

/* Zeroed. */
static void *take(struct request *r, size_t n, size_t size)
{
    return arena_alloc(&r->mem, n * size > 0 ? n * size : 1);
}

static void init_members(struct request *r, struct gang *g, int32_t leader)
{
    int32_t n = n_member(&r->p);
    g->leader = &r->seq[leader];
    g->member = &r->seq[r->p.n + leader * n];
    g->n_member = n;
    g->leader->gang = g;
    for (int32_t i = 0; i < n; i++)
        g->member[i].gang = g;
    r->gang[r->n_gang++] = g;
    r->decoding.width = n;
}

static bool init_cautious(struct request *r)
{
    size_t n_said = (size_t)r->p.decoding.cautious.max_segment,
           n_top = r->p.n_logprobs > 0 ? (size_t)r->p.n_logprobs : 0;
    struct cautious_params *p = &r->p.decoding.cautious;
    for (int32_t i = 0; i < p->n_end; i++) {
        size_t size = strlen(p->end[i]) + 1;
        char *copy = take(r, size, 1);
        if (!copy)
            return false;
        p->end[i] = memcpy(copy, p->end[i], size);
    }
    for (int32_t c = 0; c < r->p.n; c++) {
        struct cautious *state = take(r, 1, sizeof *state);
        if (!state)
            return false;
        state->kept = -1;
        state->gang = (struct gang){.gather = cautious_gather, .token = cautious_token};
        init_members(r, &state->gang, c);
        for (int32_t i = 0; i < state->gang.n_member; i++) {
            struct trial *t = &state->trial[i];
            t->said = take(r, n_said, sizeof *t->said);
            t->top = take(r, n_said * n_top, sizeof *t->top);
            if (!t->said || !t->top)
                return false;
            state->gang.member[i].strategy = &strategy_trial;
        }
    }
    return true;
}

static bool init_contrastive(struct request *r)
{
    for (int32_t i = 0; i < r->p.n; i++) {
        struct contrastive *c = take(r, 1, sizeof *c);
        if (!c)
            return false;
        r->seq[i].contrastive = c;
    }
    return true;
}

static bool init_beam(struct request *r)
{
    const struct beam_params *p = &r->p.decoding.beam;
    size_t n_tree = (size_t)beam_tree_size(p->width, r->p.max_tokens),
           n_top = r->p.n_logprobs > 0 ? (size_t)r->p.n_logprobs : 0;
    struct beam_search *b = take(r, 1, sizeof *b);
    r->score = take(r, (size_t)r->p.n, sizeof *r->score);
    if (!b || !r->score)
        return false;
    *b = (struct beam_search){.width = p->width, .n_group = p->n_group, .list_len = beam_list_len(p->width)};
    b->gang = (struct gang){.gather = beam_gather, .token = beam_token};
    init_members(r, &b->gang, 0);
    b->spare = b->gang.member + b->width;
    b->tree = take(r, n_tree, sizeof *b->tree);
    b->top = take(r, n_tree * n_top, sizeof *b->top);
    b->said = take(r, (size_t)r->p.max_tokens, sizeof *b->said);
    if (!b->tree || !b->top || !b->said)
        return false;
    for (int32_t i = 0; i < b->width; i++) {
        b->read_at[i] = -1;
        b->gang.member[i].strategy = &strategy_beam;
    }
    return true;
}

static bool init_superposed(struct request *r)
{
    const struct superposition_params *p = &r->p.decoding.superposed;
    struct superposition *u = take(r, 1, sizeof *u);
    r->score = take(r, (size_t)r->p.n, sizeof *r->score);
    if (!u || !r->score)
        return false;
    superposed_params_init(&u->how);
    u->how.n_draft = p->n_draft;
    u->how.alpha = p->alpha;
    u->how.tau = p->tau;
    u->n_top = p->n_top;
    if (p->reset_every) {
        u->before = take(r, (size_t)r->p.max_tokens, sizeof *u->before);
        if (!u->before)
            return false;
    }
    u->gang = (struct gang){.gather = superposed_gather, .token = superposed_token};
    init_members(r, &u->gang, 0);
    r->decoding.width = p->n_draft;
    return true;
}

bool way_init(struct request *r)
{
    r->n_run = is_joint(&r->p) ? 1 : r->p.n;
    for (int32_t i = 0; i < r->p.n; i++)
        r->seq[i].strategy = strategy_of(r);
    if (r->p.max_tokens == 0)
        return true;
    r->gang = take(r, (size_t)n_gang(&r->p), sizeof *r->gang);
    switch (r->p.decoding.strategy) {
    case DECODE_CAUTIOUS:
        return r->gang && init_cautious(r);
    case DECODE_CONTRASTIVE:
        return init_contrastive(r);
    case DECODE_BEAM:
        return r->gang && init_beam(r);
    case DECODE_SUPERPOSED:
        return r->gang && init_superposed(r);
    default:
        return true;
    }
}

bool request_score(const struct request *r, int32_t choice, double *score, double *logprob)
{
    if (!r->score)
        return false;
    *score = r->score[choice].score;
    *logprob = r->score[choice].logprob;
    return true;
}
