/* Which continuations of two tokens does a table promise? A Monte-Carlo tree search (autoregressive.md, section 8):
 * weights of the table are its priors, and a path is worth the sum of the weights along it. Private to engine/.
 *
 * Three things differ from the paper's code: the weights along the path are added (there another token is looked up, and
 * they are not), the same table and seed give the same tree, and at a temperature the weights take the target's noise. */
#ifndef GALLEY_TRIGRAM_SEARCH_H
#define GALLEY_TRIGRAM_SEARCH_H

#include "draft/trigram.h"

enum { TRIGRAM_ITERATIONS = 150, TRIGRAM_DEPTH = 4, TRIGRAM_MAX_NODE = 1 + TRIGRAM_ITERATIONS * TRIGRAM_SUCCESSORS };

/* What the target draws its tokens with (rng.h): the drafted token then is the one that the same noise picks among what
 * the table knows, and more often the target's. */
struct trigram_noise {
    uint64_t key;
    int32_t position; /* of the token after the text */
};

struct trigram_node {
    int32_t prev, tok;      /* its context; the root's are the text's last two tokens */
    int32_t parent, depth;  /* -1 and 0: the root */
    int32_t first, n_child; /* its children stand together, the heaviest last */
    int32_t n_visit;
    float weight, share; /* in its parent's context, after the noise; of all weight there, less a little where there is little */
    double reward;       /* summed over its visits */
};

struct trigram_search { /* owner: the engine thread; one for all sequences */
    struct trigrams *table;
    const struct trigram_noise *noise; /* NULL: none */
    uint64_t draw;                     /* state of the rollouts' draws, which take no noise */
    int32_t max_depth, n;
    struct trigram_node node[TRIGRAM_MAX_NODE]; /* parents before their children; 0 is the root */
};

/* Searches what may follow (prev, tok), at most max_depth (1 to TRIGRAM_DEPTH) tokens deep. Table and noise must stay
 * as long as s is read. */
void trigram_search(struct trigram_search *s, struct trigrams *table, const struct trigram_noise *noise, int32_t prev,
                    int32_t tok, int32_t max_depth, uint64_t seed);

/* The weights [c->n] of what follows a node at `depth`: with noise each is multiplied by exp(noise), and their sum stays. */
void trigram_weigh(const struct trigram_search *s, const struct trigram_context *c, int32_t depth, float *weight);

/* A child's score: mean reward and, the more the heavier and the less visited it is, a bonus. Infinite when unvisited.
 */
double trigram_score(double reward, int32_t n_visit, double weight, int32_t n_parent);

/* A successor's weight as a share of all n and of what was not seen. */
float trigram_share(const float *weight, int32_t n, int32_t i);

#endif
