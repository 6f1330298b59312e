#include "draft/trigram_drafter.h"

_Static_assert(2 * (int)TRIGRAM_PREFIXES <= (int)DRAFT_MAX, "each prefix and its best successor");

static const float MEAN_PRIOR = .3F;
static const float LEAST_CHANCE = .01F; /* of a node: below, it is not worth a row anywhere */

/* A guess is classed by its share of what its context was followed by; how often it comes true is learnt. */
static const float above[N_GUESS_CLASS - 1] = {.05F, .12F, .22F, .35F, .5F, .65F, .8F};
static const float first_prior[N_GUESS_CLASS] = {.08F, .12F, .18F, .25F, .35F, .45F, .55F, .65F};
static const float later_prior[N_GUESS_CLASS] = {.01F, .02F, .05F, .09F, .14F, .2F, .25F, .3F};

void trigram_follow(struct trigram_drafter *g, struct tree_rates *all, const struct history_text *t, struct draft *d)
{
    draft_learn(d, t, &g->rates);
    draft_learn(d, t, all);
    *d = (struct draft){.n_text = t->n};
}

float trigram_mean_rate(const struct trigram_drafter *g, const struct tree_rates *all)
{
    return accept_mean(&g->rates.first, &all->first, MEAN_PRIOR);
}

/* ---- From the search's tree to a draft ---- */

/* The most visited nodes, parents before their children: no node is visited more often than its parent. */
static int32_t most_visited(const struct trigram_search *s, int32_t *node)
{
    int32_t n = 0;
    for (int32_t i = 1; i < s->n; i++) {
        int32_t visits = s->node[i].n_visit;
        if (visits == 0 || (n == TRIGRAM_PREFIXES && visits <= s->node[node[n - 1]].n_visit))
            continue;
        int32_t at = n < TRIGRAM_PREFIXES ? n++ : n - 1;
        for (; at > 0 && s->node[node[at - 1]].n_visit < visits; at--)
            node[at] = node[at - 1];
        node[at] = i;
    }
    return n;
}

struct growth { /* one draft being made */
    const struct trigram_drafter *g;
    const struct tree_rates *all;
    struct draft *d;
};

static void add_node(struct growth *w, int32_t parent, int32_t tok, float share, bool first)
{
    struct draft *d = w->d;
    uint8_t c = 0;
    while (c < N_GUESS_CLASS - 1 && share >= above[c])
        c++;
    float rate = first ? accept_rate(&w->g->rates.first, &w->all->first, c, first_prior[c])
                       : accept_rate(&w->g->rates.later, &w->all->later, c, later_prior[c]);
    d->tok[d->n] = tok;
    d->parent[d->n] = (int16_t)parent;
    d->guess[d->n] = (uint8_t)(first ? c : c | GUESS_LATER);
    d->chance[d->n++] = rate * (parent < 0 ? 1 : d->chance[parent]);
}

/* Its parent's heaviest child stands last among them. */
static bool is_first(const struct trigram_search *s, int32_t node)
{
    const struct trigram_node *parent = &s->node[s->node[node].parent];
    return node == parent->first + parent->n_child - 1;
}

static int32_t heaviest(const float *weight, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (weight[i] >= weight[best]) /* of equals the last, as in the search */
            best = i;
    return best;
}

/* Best successors of drafted nodes that are not drafted themselves: where the search ended, or did not look. */
static void add_successors(struct growth *w, struct trigram_search *s, const int32_t *node, int32_t n,
                           int32_t max_depth)
{
    for (int32_t i = 0; i < n; i++) {
        const struct trigram_node *from = &s->node[node[i]];
        const struct trigram_context *c =
            from->depth < max_depth ? trigrams_find(s->table, from->prev, from->tok) : NULL;
        if (!c)
            continue;
        float weight[TRIGRAM_SUCCESSORS];
        trigram_weigh(s, c, from->depth, weight);
        int32_t best = heaviest(weight, c->n);
        if (draft_child(w->d, i, c->tok[best]) < 0)
            add_node(w, i, c->tok[best], trigram_share(weight, c->n, best), true);
    }
}

/* The best of it; what is hardly ever true is left out, and with a parent so are its children. */
static void trim(struct draft *d, int32_t max_node)
{
    int16_t place[DRAFT_MAX];
    draft_sort(d, place);
    d->n = d->n < max_node ? d->n : max_node;
    while (d->n > 0 && d->chance[d->n - 1] < LEAST_CHANCE)
        d->n--;
}

void trigram_propose(struct trigram_drafter *g, struct trigrams *table, struct trigram_search *s,
                     const struct tree_rates *all, const struct history_text *t, const struct trigram_noise *noise,
                     int32_t max_node, int32_t max_depth, struct draft *d)
{
    int32_t node[TRIGRAM_PREFIXES], place[TRIGRAM_MAX_NODE];
    struct growth w = {.g = g, .all = all, .d = d};
    *d = (struct draft){.n_text = t->n};
    if (t->n < 2 || max_node < 1 || max_depth < 1)
        return;
    trigram_search(s, table, noise, history_tok(t, t->n - 2), history_tok(t, t->n - 1), max_depth, (uint64_t)t->n);
    int32_t n = most_visited(s, node);
    place[0] = -1;
    for (int32_t i = 0; i < n; i++) {
        place[node[i]] = i;
        add_node(&w, place[s->node[node[i]].parent], s->node[node[i]].tok, s->node[node[i]].share,
                 is_first(s, node[i]));
    }
    add_successors(&w, s, node, n, max_depth);
    trim(d, max_node);
}
