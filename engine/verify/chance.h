/* Where the verifiers and the draft laws get their chance from: two questions, so that a test can answer them with
 * every possible answer in turn and add up exact probabilities. Private to engine/. */
#ifndef GALLEY_CHANCE_H
#define GALLEY_CHANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "plan.h"

struct chance { /* owner: the caller; every question advances the source */
    /* i with probability weight[i] / sum of weights; weights that are not positive count as 0; -1: all of them do. */
    int32_t (*choose)(void *self, const double *weight, int32_t n);
    double (*gumbel)(void *self); /* standard Gumbel noise, finite */
    void *self;
};

/* True with probability `heads`. What is certain costs no randomness; NaN is tails. */
static inline bool chance_coin(const struct chance *c, double heads)
{
    if (heads >= 1)
        return true;
    return heads > 0 && c->choose(c->self, (double[2]){heads, 1 - heads}, 2) == 0;
}

/* The source that serves requests: Philox with counter {questions so far, position, stream, 0}. Do not copy it.
 *
 * `position` is that of the token after the tree's ROOT, the same for the whole step, whatever the depth of the node in
 * question. A step commits at least one token, so no two steps of a sequence share a counter. The position of the node
 * would not do: a verifier that works upwards, and a tree whose shape depends on what was drawn, look at noise of
 * positions that the step does not reach, and the next step would be asked to be surprised by the same noise again. */
struct chance_philox { /* owner: the caller */
    struct chance chance;
    uint64_t key; /* the law's noise_key */
    uint32_t position, stream, n_asked;
};

/* Returns &c->chance. One source serves one step of a sequence: a tree that grows in waves keeps it. `stream`:
 * NOISE_ACCEPT for verification, NOISE_DRAFT for drafting. */
const struct chance *chance_philox(struct chance_philox *c, uint64_t key, int32_t position, enum noise_stream stream);

#endif
