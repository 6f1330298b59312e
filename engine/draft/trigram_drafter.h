/* Drafts from a table of trigrams and a search over it, as a tree. Private to engine/. */
#ifndef GALLEY_TRIGRAM_DRAFTER_H
#define GALLEY_TRIGRAM_DRAFTER_H

#include "draft/draft.h"
#include "draft/trigram_search.h"

enum {
    TRIGRAM_PREFIXES = 24,     /* most visited nodes of the search that are drafted, each with its best successor */
    TRIGRAM_DEFAULT_DRAFT = 8, /* tokens a step where the request names the source but no number */
};

struct trigram_drafter { /* owner: its sequence. The table is its request's, or its tenant's */
    bool on;
    int32_t n_taken; /* tokens of prompt and output that the table has from here on; starts behind the prompt */
    struct tree_rates rates;
};

/* Learns from the draft before, whether or not it was verified, and empties it. */
void trigram_follow(struct trigram_drafter *g, struct tree_rates *all, const struct history_text *t, struct draft *d);

/* How often its first choices come true. */
float trigram_mean_rate(const struct trigram_drafter *g, const struct tree_rates *all);

/* The next draft: what may follow the text, at most max_node tokens and max_depth deep. `noise`: at a temperature. */
void trigram_propose(struct trigram_drafter *g, struct trigrams *table, struct trigram_search *s,
                     const struct tree_rates *all, const struct history_text *t, const struct trigram_noise *noise,
                     int32_t max_node, int32_t max_depth, struct draft *d);

#endif
