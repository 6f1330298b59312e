#include "draft_tree.h"

#include <math.h>

#include "drafting.h"
#include "rng.h"
#include "strategy/verified.h"

enum {
    MODEL_DEFAULT_DRAFT = 5, /* tokens a step where the request names the model but no number */
    TREE_DEFAULT_WIDTH = 2,
    TREE_DEFAULT_DEPTH = 8,
    MAX_BRANCH = 4, /* candidates of a node that become its children */
};

static const float LEAST_CHANCE = .02f; /* of a node: below, it is not worth its bookkeeping */

/* A token that the draft model would draw is classed by the probability it has there; one that would come second or
 * later likewise, in classes of their own. */
static const double first_above[N_GUESS_CLASS - 1] = {.15, .3, .45, .6, .75, .88, .96};
static const double later_above[N_GUESS_CLASS - 1] = {.01, .03, .06, .1, .17, .25, .35};
static const float first_prior[N_GUESS_CLASS] = {.2f, .3f, .4f, .5f, .6f, .75f, .85f, .95f};
static const float later_prior[N_GUESS_CLASS] = {.01f, .02f, .04f, .08f, .12f, .18f, .25f, .3f};

static uint8_t class_of(double p, const double *above)
{
    uint8_t c = 0;
    while (c < N_GUESS_CLASS - 1 && p >= above[c])
        c++;
    return c;
}

/* ---- What came of the last draft ---- */

static void learn(struct seq *s)
{
    struct history_text t = drafts_text(s);
    if (drafts_by_worth(s) && draft_began_right(&s->modelled, &t))
        ledger_hit(&s->req->eng->ledger, drafter_source(s->drafter));
    draft_learn(&s->modelled, &t, &s->model_rates);
    if (!s->verified) /* its drafts were drawn by another law */
        draft_learn(&s->modelled, &t, &s->drafter->rates);
}

/* What the draft model computed stands as far as its rows lie in order and came true. */
void tree_restart(struct seq *s)
{
    const struct draft *d = &s->modelled;
    learn(s);
    int32_t n_ctx = s->n_draft_ctx, node = -1;
    for (int32_t i = 0; i < s->n_held && n_ctx < seq_n_tok(s) - 1; i++, n_ctx++) { /* the last is read again */
        node = draft_child(d, node, seq_tok(s, n_ctx));
        if (node < 0 || s->held[i] != node)
            break;
    }
    if (s->draft_kv.n_block > 0)
        s->draft_kv.n_computed = n_ctx;
    s->n_held = 0;
    if (s->verified)
        verified_restart(s);
    s->modelled = (struct draft){.n_text = s->req->n_prediction + seq_n_tok(s)};
}

/* ---- How it may grow ---- */

float tree_mean_rate(const struct seq *s)
{
    return accept_mean(&s->model_rates.first, &s->drafter->rates.first, .6f);
}

struct tree_shape tree_shape(const struct seq *s)
{
    const struct decoding_params *d = &s->req->p.decoding;
    int32_t most = drafts_most(s), named = drafts_named(s, MODEL_DEFAULT_DRAFT);
    if (d->strategy != DECODE_SPECULATIVE)
        return (struct tree_shape){.nodes = s->req->eng->opt.max_draft, .width = MAX_BRANCH, .depth = most};
    if (d->tree.nodes == 0)
        return (struct tree_shape){.named = true, .nodes = named, .width = 1, .depth = named};
    int32_t depth = d->tree.depth ? d->tree.depth : TREE_DEFAULT_DEPTH, cap = s->req->eng->opt.max_draft,
            nodes =
                verified_shares(s->verified) ? DRAFT_MAX : d->tree.nodes; /* its draws may be spent on others, too */
    return (struct tree_shape){.named = true,
                               .nodes = nodes < cap ? nodes : cap,
                               .width = d->tree.width ? d->tree.width : TREE_DEFAULT_WIDTH,
                               .depth = depth < most ? depth : most};
}

int32_t tree_depth(const struct seq *s, int32_t node)
{
    int32_t depth = 0;
    for (; node >= 0; node = s->modelled.parent[node])
        depth++;
    return depth;
}

bool tree_may_grow(const struct seq *s, int32_t node)
{
    struct tree_shape shape = tree_shape(s);
    return s->modelled.n < shape.nodes && tree_depth(s, node) < shape.depth;
}

/* ---- Growing ---- */

struct candidate {
    int32_t tok;
    double p, drawn; /* drawn: the value that the draw would compare */
};

/* The likeliest tokens in the order in which the draft model, with the target's noise, would draw them. */
static int32_t rank(const struct seq *s, const int32_t *tok, const float *logprob, int32_t position,
                    struct candidate *c)
{
    int32_t n = 0;
    for (int32_t i = 0; i < TREE_CANDIDATES && tok[i] >= 0; i++) {
        struct candidate new = {.tok = tok[i], .p = exp(logprob[i]), .drawn = logprob[i]};
        if (s->req->p.temperature > 0)
            new.drawn += rng_token_gumbel(s->noise_key, position, NOISE_TARGET, new.tok);
        int32_t at = n++;
        for (; at > 0 && c[at - 1].drawn < new.drawn; at--)
            c[at] = c[at - 1];
        c[at] = new;
    }
    return n;
}

_Static_assert((int)VERIFIED_LIST == (int)TREE_CANDIDATES, "one list of the draft model's likeliest tokens");

/* Children that are to be verified by a named rule are drawn from the draft model's law. */
static int32_t draw(struct seq *s, int32_t node, const int32_t *tok, const float *logprob, int32_t width,
                    struct candidate *c)
{
    int32_t drawn[VERIFIED_WIDTH], n = verified_draw(s, node, tok, logprob, width, drawn);
    for (int32_t i = 0; i < n; i++)
        c[i] = (struct candidate){.tok = tok[drawn[i]], .p = exp(logprob[drawn[i]])};
    return n;
}

/* A child of the node, with the chance that it comes true; 0, and no child, where that is not worth its row. What the
 * drafter says first of all is kept in any case: whether it comes true is learnt from. */
static float add_child(struct seq *s, int32_t node, int32_t tok, double p, bool later, bool named)
{
    struct draft *d = &s->modelled;
    uint8_t g = class_of(p, later ? later_above : first_above);
    float above = node < 0 ? 1 : d->chance[node],
          rate = later ? accept_rate(&s->model_rates.later, &s->drafter->rates.later, g, later_prior[g])
                       : accept_rate(&s->model_rates.first, &s->drafter->rates.first, g, first_prior[g]);
    if (!named && (node >= 0 || later) && above * rate < LEAST_CHANCE)
        return 0;
    d->tok[d->n] = tok;
    d->parent[d->n] = (int16_t)node;
    d->guess[d->n] = (uint8_t)(later ? g | GUESS_LATER : g);
    d->chance[d->n++] = above * rate;
    return above * rate;
}

static void drafted(struct seq *s)
{
    s->draft = &s->modelled;
    s->modelled.strong = true;
    if (drafts_by_worth(s))
        ledger_ask(&s->req->eng->ledger, drafter_source(s->drafter));
}

float tree_grow_depth(struct seq *s, const int32_t *node, int32_t n)
{
    struct drawn_child child[DRAFT_MAX];
    struct tree_shape shape = tree_shape(s);
    int32_t room = n > 0 && tree_may_grow(s, node[0]) ? shape.nodes - s->modelled.n : 0;
    int32_t n_child = verified_draw_depth(s, node, n, shape.width, room, child);
    float sum = 0;
    for (int32_t i = 0; i < n_child; i++) {
        bool later = i > 0 && child[i - 1].node == child[i].node;
        s->verified->path[s->modelled.n + 1] = child[i].path;
        float chance = add_child(s, child[i].node, child[i].tok, child[i].p, later, true);
        sum += later ? 0 : chance;
    }
    drafted(s);
    return sum;
}

float tree_grow_drawn(struct seq *s, int32_t node, int32_t edge)
{
    const struct drawn_node *d = &s->verified->node[node + 1];
    bool later = d->n_drawn > 1;
    float chance = add_child(s, node, d->tok[edge], d->q[edge], later, true);
    drafted(s);
    return later ? 0 : chance;
}

float tree_grow(struct seq *s, int32_t node, const int32_t *tok, const float *logprob)
{
    struct candidate c[TREE_CANDIDATES];
    struct tree_shape shape = tree_shape(s);
    float first = 0;
    int32_t n = s->verified ? draw(s, node, tok, logprob, shape.width, c)
                            : rank(s, tok, logprob, seq_n_tok(s) + tree_depth(s, node), c);
    for (int32_t i = 0; i < n && i < shape.width && tree_may_grow(s, node); i++) {
        if (c[i].p < (double)s->req->p.decoding.threshold)
            break;
        float chance = add_child(s, node, c[i].tok, c[i].p, i > 0, shape.named);
        first = i ? first : chance;
    }
    drafted(s);
    return first;
}

int32_t tree_held_at(const struct seq *s, int32_t node)
{
    int32_t i = 0;
    while (s->held[i] != node)
        i++;
    return i;
}

void tree_sort(struct seq *s)
{
    int16_t place[DRAFT_MAX];
    if (s->verified)
        return; /* all of it is verified; nothing is to be chosen */
    draft_sort(&s->modelled, place);
    for (int32_t i = 0; i < s->n_held; i++)
        s->held[i] = place[s->held[i]];
}
