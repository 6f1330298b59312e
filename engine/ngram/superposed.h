/* Superposed Decoding: k drafts told apart by n-grams alone, one model pass for all of them (section 2 of
 * papers/autoregressive.md). Here is one step's scoring and selection, as a pure function in f64. Private to engine/: a
 * strategy keeps the drafts' tokens, asks the model for the TOPK of one row and feeds the mixture of embeddings that
 * `weight` describes (equal last tokens are merged by whoever makes the row).
 *
 * The first step is a step like any other, with the prompt as the only draft, at score 0: its candidates are distinct
 * tokens. (There the paper scores with P alone, its code with n-grams too; here as in the code.) */
#ifndef GALLEY_SUPERPOSED_H
#define GALLEY_SUPERPOSED_H

#include <stdbool.h>
#include <stdint.h>

#include "ngram/ngram.h"

enum { SUPERPOSED_MAX_DRAFT = 10, SUPERPOSED_MAX_TOP = 64 };

struct superposed_params {
    int32_t n_draft;              /* k: 1 .. SUPERPOSED_MAX_DRAFT */
    double alpha;                 /* 0 .. 1: what the n-grams weigh; 0: no store is asked */
    double tau;                   /* > 0: the shared distribution is softmax(logits / tau) over the kept tokens */
    double lambda[NGRAM_MAX - 1]; /* >= 0, of the 2- .. 6-grams; need not sum to 1 */
    double penalty; /* > 0: of a token that no n-gram of its draft foresees, where such a token has to be taken */
};

/* The paper's: k = 3, alpha = .54, tau = .06, lambda = (.01, .04, .15, .18, .12), penalty 200. */
void superposed_params_init(struct superposed_params *p);

struct superposed_top {   /* borrowed: the model's likeliest tokens, shared by all drafts */
    int32_t n;            /* 1 .. SUPERPOSED_MAX_TOP; the paper keeps 3 k */
    const int32_t *tok;   /* [n] distinct, likeliest first: of equals, the one that stands first wins */
    const float *logprob; /* [n] natural, at temperature 1, up to a common constant; -inf and NaN: never chosen */
    const bool *is_end;   /* [n] this token would finish a draft; NULL: none would */
};

struct superposed_draft { /* borrowed: an alive draft, or the prompt */
    const int32_t *tok;   /* [n] the text up to here; only the last NGRAM_MAX - 1 tokens matter */
    int32_t n;
    double score; /* s_i: sum of the scores of its tokens */
};

struct superposed_pick { /* a draft that goes on with a token */
    int32_t parent;      /* index of the draft */
    int32_t at, tok;     /* index of the token in the list; the token */
    double score;        /* of the longer draft */
};

struct superposed_step {
    int32_t n_alive, n_finished;
    struct superposed_pick alive[SUPERPOSED_MAX_DRAFT]; /* best first; those foreseen by n-grams before the others */
    struct superposed_pick finished[2 * SUPERPOSED_MAX_DRAFT]; /* by an end token, best first */
    double weight[SUPERPOSED_MAX_DRAFT]; /* [n_alive] w = softmax of the alive scores: of each draft's last token in the
                                            mixture; sums to 1, nearly */
};

/* One step from n_from drafts (1 .. SUPERPOSED_MAX_DRAFT). Of the 2 k best candidates (draft, token) those with an end
 * token are finished; of the others the best k are alive, looked for beyond the 2 k best where too many of these end.
 * Ties: lower draft, then earlier in the list. `store` NULL: as an empty one.
 *
 * A token that follows none of its draft's contexts in the store scores -inf; where that is so for all tokens of a
 * draft, each scores (1 - alpha) ln P less the penalty. The section leaves open what happens where fewer than k
 * candidates are finite; here the best other tokens, at that same score but after all finite ones, make up for them, as
 * long as they end nothing. So there are k alive drafts wherever the list has tokens for them; fewer otherwise, and
 * none when every token is an end or impossible. */
void superposed_step(const struct superposed_params *p, const struct ngram *store, const struct superposed_top *top,
                     const struct superposed_draft *from, int32_t n_from, struct superposed_step *out);

#endif
