/* Drafts: tokens that a sequence may well say next, offered to be verified beside its last token. A chain of drafted
 * tokens costs rows of the step and buys the tokens that turn out right. Private to engine/.
 *
 * The draw at every row depends on the sequence's key and position alone, so verifying is comparing: the text is what
 * plain decoding gives, whatever was drafted (NSS with a position-keyed draw: autoregressive.md, sections 0 and 17).
 */
#ifndef GALLEY_DRAFT_H
#define GALLEY_DRAFT_H

#include <stdbool.h>
#include <stdint.h>

#include "history.h"

enum {
    DRAFT_MAX = 64, /* drafted tokens of a sequence in one step */
    COPY_DEFAULT_MIN_MATCH = 3,
    COPY_DEFAULT_DRAFT = 10 /* the paper's */
};

/* ---- How often guesses come true ---- */

/* A guess is classed by how many tokens before it agree with the text being copied: long agreements mostly go on. */
enum { N_AGREEMENT = 8 };

struct accept_rates { /* owner: the engine thread; one for each sequence and one that all feed */
    float hit[N_AGREEMENT], seen[N_AGREEMENT];
};

/* The chance that the next token of a copied text comes true after `len` agreeing ones: what this sequence has seen,
 * backed by what all have, backed by a cautious guess. */
float accept_rate(const struct accept_rates *own, const struct accept_rates *all, int32_t len);
void accept_learn(struct accept_rates *r, int32_t len, bool hit);

/* ---- Copying ---- */

struct draft {
    int32_t n;
    int32_t tok[DRAFT_MAX];
    float accept[DRAFT_MAX]; /* chance that it comes true, given those before it did */
    int32_t agreed;          /* tokens before tok[0] that agree with the text it was copied from */
    bool predicted;          /* copied from the request's own prediction */
};

/* Copies from prompt, prediction and output (CopySpec, autoregressive.md section 1; predicted outputs). After a copy
 * breaks off it looks for its place again near where it broke, so that an edited word costs a step and not a search. */
struct copy_drafter { /* owner: its sequence; all memory reserved with the request */
    bool on, begins;  /* begins: nothing was said yet, and there is a prediction of it */
    struct history history;
    struct accept_rates rates;
    int32_t follow; /* the token that comes next if the last copy goes on; -1: nothing was copied */
    int32_t n_text; /* tokens when the draft was made */
};

size_t copy_bytes(int32_t max_tokens_in_all);
void copy_init(struct copy_drafter *c, void *mem, int32_t max_tokens_in_all, int32_t min_match, bool has_prediction);

/* What may follow the text, at most DRAFT_MAX tokens. */
void copy_propose(struct copy_drafter *c, const struct accept_rates *all, const struct history_text *t,
                  struct draft *d);
/* The text has grown: learns from which guesses came true, whether or not they were verified. */
void copy_observe(struct copy_drafter *c, struct accept_rates *all, const struct history_text *t,
                  const struct draft *d);

#endif
