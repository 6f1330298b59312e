/* What follows two tokens: a table that learns from text as it comes (ADED, also called Adaptix: autoregressive.md,
 * section 8) and may start from an n-gram store's counts. Private to engine/.
 *
 * Every token moves a window of TRIGRAM_WINDOW tokens on by one, and every trigram inside the window gains
 * TRIGRAM_RATE: what was just said counts most while it is in sight, and a trigram that passed through the window has
 * gained the rate as often as the window has trigrams. (The paper's code learns once a step; here the table depends on
 * the text alone, not on how many tokens a step happened to bring.) A weight that reaches TRIGRAM_CAP halves all of its
 * context's: the paper's table only grows, until all of its weights are equal.
 *
 * Memory is fixed: contexts lie in sets of four, and a new one takes the place of its set's longest untouched. Each
 * keeps the TRIGRAM_SUCCESSORS heaviest successors. */
#ifndef GALLEY_TRIGRAM_H
#define GALLEY_TRIGRAM_H

#include <stdbool.h>

#include "draft/history.h"

struct ngram;

enum {
    TRIGRAM_SUCCESSORS = 12,
    TRIGRAM_WINDOW = 16,
    TRIGRAM_MAX_TAKE = 512,        /* tokens taken in at once: long prompts are taken in over several steps */
    TRIGRAM_MAX_SCAN = 1024,       /* continuations of the store that are looked at */
    TRIGRAM_MAX_CONTEXTS = 1 << 11 /* of a request, which has its memory while it waits: 224 KiB */
};
#define TRIGRAM_RATE 0.04F
#define TRIGRAM_CAP 3.0F

struct trigram_context { /* two tokens and what followed them, in the order in which it was first seen */
    int32_t a, b, n;     /* n 0: the place is free */
    uint32_t used;       /* when it was last touched */
    int32_t tok[TRIGRAM_SUCCESSORS];
    float weight[TRIGRAM_SUCCESSORS]; /* above 0, at most TRIGRAM_CAP; a store's are probabilities */
};

struct trigrams {                    /* owner: a request or the engine's tenants; touched by the engine thread */
    struct trigram_context *context; /* [n_context] sets of four */
    int32_t n_context;
    uint32_t clock;
    const struct ngram *store; /* NULL: the table starts empty */
};

/* Contexts of a request with a text of so many tokens, a power of two; what a store adds needs room of its own. */
int32_t trigrams_size(int32_t n_tok, bool has_store);
size_t trigrams_bytes(int32_t n_context);
/* `mem` is the caller's, zeroed, and must outlive t. */
void trigrams_init(struct trigrams *t, void *mem, int32_t n_context, const struct ngram *store);
void trigrams_clear(struct trigrams *t);

/* Token `at` of the text has come: the trigrams of the window that ends with it are learnt. */
void trigrams_learn(struct trigrams *t, const struct history_text *text, int32_t at);
/* Learns tokens *from .. to - 1 or the first of them, and moves *from on. */
void trigrams_take(struct trigrams *t, const struct history_text *text, int32_t *from, int32_t to);

/* What follows (a, b): learnt, else from the store, else NULL. Borrowed until the next call. */
const struct trigram_context *trigrams_find(struct trigrams *t, int32_t a, int32_t b);

#endif
