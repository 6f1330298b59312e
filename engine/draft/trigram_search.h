/* Which continuations of two tokens does a table promise? A Monte-Carlo tree search (autoregressive.md, section 8):
 * weights of the table are its priors, and a path is worth the sum of the weights along it. Private to engine/.
 *
 * Two things differ from the paper's code: the weights along the path are added (there another token is looked up, and
 * they are not), and the same table and seed give the same tree. */
#ifndef GALLEY_TRIGRAM_SEARCH_H
#define GALLEY_TRIGRAM_SEARCH_H

#include "draft/trigram.h"

enum { TRIGRAM_ITERATIONS = 150, TRIGRAM_DEPTH = 4, TRIGRAM_MAX_NODE = 1 + TRIGRAM_ITERATIONS * TRIGRAM_SUCCESSORS };

struct trigram_node {
    int32_t prev, tok;      /* its context; the root's are the text's last two tokens */
    int32_t parent, depth;  /* -1 and 0: the root */
    int32_t first, n_child; /* its children stand together, the heaviest last */
    int32_t n_visit;
    float weight, share; /* in its parent's context; of all weight there, less a little where there is little */
    double reward;       /* summed over its visits */
};

struct trigram_search { /* owner: the engine thread; one for all sequences */
    struct trigrams *table;
    uint64_t draw; /* state of the rollouts' draws */
    int32_t max_depth, n;
    struct trigram_node node[TRIGRAM_MAX_NODE]; /* parents before their children; 0 is the root */
};

/* Searches what may follow (prev, tok), at most max_depth (1 to TRIGRAM_DEPTH) tokens deep. */
void trigram_search(struct trigram_search *s, struct trigrams *table, int32_t prev, int32_t tok, int32_t max_depth,
                    uint64_t seed);

/* A child's score: mean reward and, the more the heavier and the less visited it is, a bonus. Infinite when unvisited.
 */
double trigram_score(double reward, int32_t n_visit, double weight, int32_t n_parent);

/* A successor's weight as a share of its context's, where `few` stands for all that was not seen. */
float trigram_share(const struct trigram_context *c, int32_t i);

#endif
