/* A sequence's draft from the draft model: a tree of nodes, grown a layer at a time. Its branches are the tokens that
 * the draft model would draw first, second, ... with the target's own noise, because the target will draw with the
 * same: both mostly draw the same token (the position-keyed coupling, autoregressive.md section 0). Private to the
 * waves.
 */
#ifndef GALLEY_DRAFT_TREE_H
#define GALLEY_DRAFT_TREE_H

#include "engine_impl.h"

enum { TREE_CANDIDATES = 16 }; /* likeliest tokens of the draft model that are ranked with the noise */

/* Learns what came of the last tree, keeps what the draft model computed for it as far as it came true, and empties it.
 */
void tree_restart(struct seq *s);

/* The tree that a sequence may grow: of any shape while it pays, or as its request names it. */
struct tree_shape {
    bool named;
    int32_t nodes, width, depth;
};
struct tree_shape tree_shape(const struct seq *s);
bool tree_may_grow(const struct seq *s, int32_t node);
/* How often the draft model's first choice comes true. */
float tree_mean_rate(const struct seq *s);
/* Drafted tokens down to the node; 0 for -1, the sequence's last token. */
int32_t tree_depth(const struct seq *s, int32_t node);

/* Gives the node children, from the likeliest tokens after it and their log-probabilities [TREE_CANDIDATES, -1 ends].
 * Returns the chance of the first, 0: there is none, or the chain ends because its drafter is unsure. */
float tree_grow(struct seq *s, int32_t node, const int32_t *tok, const float *logprob);

/* The same for the n nodes of a depth that a verifier's drafts are drawn from at once; verified_read knows what follows
 * them. */
float tree_grow_depth(struct seq *s, const int32_t *node, int32_t n);

/* The child that was drawn last at a node, by its place in the node's list (DySpec). Returns its chance, 0 unless it is
 * the node's first. */
float tree_grow_drawn(struct seq *s, int32_t node, int32_t edge);

/* The place among the held rows of a node that the draft model has read. */
int32_t tree_held_at(const struct seq *s, int32_t node);

/* Puts the nodes in falling order of chance, parents before their children; not those of a named verifier, of which
 * none may be chosen by chance. */
void tree_sort(struct seq *s);

#endif
