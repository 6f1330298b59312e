#include "draft/trigram_search.h"

#include <math.h>

#include "plan.h"
#include "rng.h"

static const double C1 = 32, C2 = 8;
static const float UNSEEN = .5F; /* weight of what was not seen: a successor seen once is not certain */

float trigram_share(const float *weight, int32_t n, int32_t i)
{
    float sum = UNSEEN;
    for (int32_t k = 0; k < n; k++)
        sum += weight[k];
    return weight[i] / sum;
}

void trigram_weigh(const struct trigram_search *s, const struct trigram_context *c, int32_t depth, float *weight)
{
    float plain = 0, noisy = 0;
    for (int32_t i = 0; i < c->n; i++) {
        weight[i] = c->weight[i];
        if (s->noise)
            weight[i] *= expf(rng_token_gumbel(s->noise->key, s->noise->position + depth, NOISE_TARGET, c->tok[i]));
        plain += c->weight[i];
        noisy += weight[i];
    }
    for (int32_t i = 0; s->noise && i < c->n; i++)
        weight[i] *= plain / noisy;
}

/* What the bonus of all children has in common. */
static double eagerness(int32_t n_parent)
{
    return sqrt((double)n_parent) * (C1 + log((n_parent + C2 + 1) / C2));
}

static double score(double reward, int32_t n_visit, double weight, double eager)
{
    return n_visit == 0 ? INFINITY : reward / n_visit + weight * eager / (1 + n_visit);
}

double trigram_score(double reward, int32_t n_visit, double weight, int32_t n_parent)
{
    return score(reward, n_visit, weight, eagerness(n_parent));
}

/* Of equal scores the last, which is the heaviest. */
static int32_t best_child(const struct trigram_search *s, int32_t node)
{
    const struct trigram_node *parent = &s->node[node];
    double eager = eagerness(parent->n_visit), best = -INFINITY;
    int32_t at = parent->first;
    for (int32_t i = parent->first; i < parent->first + parent->n_child; i++) {
        const struct trigram_node *c = &s->node[i];
        double value = score(c->reward, c->n_visit, c->weight, eager);
        if (value >= best) {
            best = value;
            at = i;
        }
    }
    return at;
}

/* The children of a leaf, by weight. */
static void expand(struct trigram_search *s, int32_t node)
{
    struct trigram_node *parent = &s->node[node];
    const struct trigram_context *c =
        parent->depth < s->max_depth ? trigrams_find(s->table, parent->prev, parent->tok) : NULL;
    if (!c || s->n + c->n > TRIGRAM_MAX_NODE)
        return;
    float weight[TRIGRAM_SUCCESSORS];
    trigram_weigh(s, c, parent->depth, weight);
    parent->first = s->n;
    parent->n_child = c->n;
    for (int32_t i = 0; i < c->n; i++) {
        int32_t at = s->n++;
        for (; at > parent->first && s->node[at - 1].weight > weight[i]; at--)
            s->node[at] = s->node[at - 1];
        s->node[at] = (struct trigram_node){.prev = parent->tok,
                                            .tok = c->tok[i],
                                            .parent = node,
                                            .depth = parent->depth + 1,
                                            .weight = weight[i],
                                            .share = trigram_share(weight, c->n, i)};
    }
}

/* By weight. */
static int32_t draw(struct trigram_search *s, const struct trigram_context *c)
{
    float sum = 0;
    for (int32_t i = 0; i < c->n; i++)
        sum += c->weight[i];
    s->draw = rng_mix(s->draw);
    float at = rng_unit((uint32_t)s->draw) * sum;
    for (int32_t i = 0; i < c->n - 1; i++)
        if ((at -= c->weight[i]) < 0)
            return i;
    return c->n - 1;
}

/* Weights of a continuation drawn by chance, down to the search's depth. */
static double roll_out(struct trigram_search *s, const struct trigram_node *from)
{
    double sum = 0;
    int32_t prev = from->prev, tok = from->tok;
    for (int32_t depth = from->depth; depth < s->max_depth; depth++) {
        const struct trigram_context *c = trigrams_find(s->table, prev, tok);
        if (!c)
            break;
        int32_t i = draw(s, c);
        sum += c->weight[i];
        prev = tok;
        tok = c->tok[i];
    }
    return sum;
}

static double path_weight(const struct trigram_search *s, int32_t node)
{
    double sum = 0;
    for (; node > 0; node = s->node[node].parent)
        sum += s->node[node].weight;
    return sum;
}

static void iterate(struct trigram_search *s)
{
    int32_t node = 0;
    while (s->node[node].n_child > 0)
        node = best_child(s, node);
    expand(s, node);
    if (s->node[node].n_child > 0)
        node = s->node[node].first + s->node[node].n_child - 1;
    double reward = 1 + path_weight(s, node) + roll_out(s, &s->node[node]);
    for (; node >= 0; node = s->node[node].parent) {
        s->node[node].n_visit++;
        s->node[node].reward += reward;
    }
}

void trigram_search(struct trigram_search *s, struct trigrams *table, const struct trigram_noise *noise, int32_t prev,
                    int32_t tok, int32_t max_depth, uint64_t seed)
{
    s->table = table;
    s->noise = noise;
    s->draw = seed;
    s->max_depth = max_depth < TRIGRAM_DEPTH ? max_depth : TRIGRAM_DEPTH;
    s->n = 1;
    s->node[0] = (struct trigram_node){.prev = prev, .tok = tok, .parent = -1};
    for (int32_t i = 0; i < TRIGRAM_ITERATIONS; i++) {
        iterate(s);
        if (s->n == 1)
            return; /* nothing is known to follow */
    }
}
