/* Drafts: tokens that a sequence may well say next, offered to be verified beside its last token: a chain, or a tree of
 * alternatives. They cost rows of the step and buy the tokens that turn out right. Private to engine/.
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

struct draft { /* nodes in falling order of chance, so that the best n of them are the first n and hold their parents */
    int32_t n;
    int32_t tok[DRAFT_MAX];
    int16_t parent[DRAFT_MAX]; /* an earlier node; -1: follows the sequence's last token */
    float chance[DRAFT_MAX];   /* that it comes true */
    uint8_t guess[DRAFT_MAX];  /* class of the guess, for accept_learn */
    int32_t n_text;            /* tokens of the text when it was made */
    bool predicted;            /* copied from the request's own prediction */
    bool strong;               /* a source that was asked for by name is followed */
};

/* The node that says `tok` after `parent`; -1: none. */
static inline int32_t draft_child(const struct draft *d, int32_t parent, int32_t tok)
{
    for (int32_t i = parent + 1; i < d->n; i++)
        if (d->parent[i] == parent && d->tok[i] == tok)
            return i;
    return -1;
}

/* The text went on with what the drafter said first. */
bool draft_began_right(const struct draft *d, const struct history_text *t);

/* Puts the nodes in falling order of chance, parents before their children; place[i]: where node i went. */
void draft_sort(struct draft *d, int16_t *place);

enum { GUESS_LATER = 8 }; /* in a node's guess: not its parent's first choice; such are guesses of another kind */

struct tree_rates { /* how often the first choices of nodes came true, and the others */
    struct accept_rates first, later;
};

/* Learns from a draft and the text that came: on the way that it took through the tree the child that came true was
 * guessed right, its siblings wrong. Whether or not they were verified. */
void draft_learn(const struct draft *d, const struct history_text *t, struct tree_rates *rates);

struct draft_rows { /* rows of a step: the likeliest path first, so that accepting it moves nothing */
    int32_t n;
    bool is_chain; /* each follows the one before */
    int32_t tok[DRAFT_MAX];
    int16_t parent[DRAFT_MAX]; /* an earlier row; -1: the sequence's last token */
    int16_t depth[DRAFT_MAX];  /* 0 for those after the last token */
    uint64_t sees[DRAFT_MAX];  /* rows above it and itself, one bit each */
    int16_t node[DRAFT_MAX];   /* of the draft */
};

/* The best n nodes of the draft as rows. */
void draft_lay_out(const struct draft *d, int32_t n, struct draft_rows *rows);
/* The row that says `tok` after row `parent`; -1: none. */
int32_t draft_next_row(const struct draft_rows *rows, int32_t parent, int32_t tok);

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

/* Learns from the draft before, whether or not it was verified, and makes the next: what may follow the text, at most
 * DRAFT_MAX tokens. */
void copy_propose(struct copy_drafter *c, struct accept_rates *all, const struct history_text *t, struct draft *d);

#endif
