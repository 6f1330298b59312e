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

#include "draft/history.h"
#include "draft/rates.h"

enum {
    DRAFT_MAX = 64, /* drafted tokens of a sequence in one step */
    COPY_DEFAULT_MIN_MATCH = 3,
    COPY_DEFAULT_DRAFT = 10 /* the paper's */
};

struct draft {
    int32_t n;
    int32_t tok[DRAFT_MAX];
    float accept[DRAFT_MAX];  /* chance that it comes true, given those before it did */
    uint8_t guess[DRAFT_MAX]; /* class of the guess, for accept_learn */
    int32_t n_text;           /* tokens of the text when it was made */
    bool predicted;           /* copied from the request's own prediction */
    bool strong;              /* a source that was asked for by name is followed */
};

/* The text has grown: learns which guesses came true, whether or not they were verified. Returns how many did in a
 * row. */
int32_t draft_observe(const struct draft *d, const struct history_text *t, struct accept_rates *own,
                      struct accept_rates *all);

/* ---- Copying ---- */

/* Copies from prompt, prediction and output (CopySpec, autoregressive.md section 1; predicted outputs). After a copy
 * breaks off it looks for its place again near where it broke, so that an edited word costs a step and not a search. */
struct copy_drafter { /* owner: its sequence; all memory reserved with the request */
    bool on, begins;  /* begins: nothing was said yet, and there is a prediction of it */
    struct history history;
    struct accept_rates rates;
    int32_t follow; /* the token that comes next if the last copy goes on; -1: nothing was copied */
};

size_t copy_bytes(int32_t max_tokens_in_all);
void copy_init(struct copy_drafter *c, void *mem, int32_t max_tokens_in_all, int32_t min_match, bool has_prediction);

/* Learns from the draft before, and makes the next: what may follow the text, at most DRAFT_MAX tokens. */
void copy_propose(struct copy_drafter *c, struct accept_rates *all, const struct history_text *t, struct draft *d);

#endif
