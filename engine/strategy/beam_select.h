/* One time step of Diverse Beam Search (Vijayakumar et al., arXiv:1610.02424; autoregressive.md, section 11), apart
 * from all engine types: groups choose one after the other, and a token costs `diversity` for each beam of an earlier
 * group that chose it at the same step. One group is plain beam search. Private to engine/. */
#ifndef GALLEY_BEAM_SELECT_H
#define GALLEY_BEAM_SELECT_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"

struct beam_list { /* what may follow a beam */
    double score;  /* the beam's so far */
    int32_t n;
    const int32_t *tok;
    const float *logprob; /* descending */
};

struct beam_pick {
    int32_t beam, tok; /* index of the beam it goes on from */
    double score;      /* penalties included */
    float logprob;     /* of tok */
    int32_t rank;      /* of tok in the beam's list */
};

/* Tokens of a list that must be seen so that neither ends nor penalties can hide a candidate: a group picks two for
 * each of its beams, and so did every group before it. */
static inline int32_t beam_list_len(int32_t width)
{
    return 2 * width;
}

/* The n_want best continuations of a group's beams, best first; of equals the lower beam's, then the lower token.
 * used[n_used]: the tokens that beams of earlier groups chose. Returns how many there are. */
int32_t beam_best(const struct beam_list *beam, int32_t n_beam, const int32_t *used, int32_t n_used, double diversity,
                  int32_t n_want, struct beam_pick *out);

/* What a text is ranked by: its score over its tokens to the power of the length penalty. */
double beam_final_score(double score, int32_t n_tok, float length_penalty);

#endif
