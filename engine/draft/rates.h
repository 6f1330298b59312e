/* How often guesses come true, by what is known of them beforehand. Private to engine/. */
#ifndef GALLEY_RATES_H
#define GALLEY_RATES_H

#include <stdbool.h>
#include <stdint.h>

enum { N_GUESS_CLASS = 8 };

struct accept_rates { /* owner: the engine thread; one for each sequence and source, one for each source that all feed
                       */
    float hit[N_GUESS_CLASS], seen[N_GUESS_CLASS];
};

/* The chance that a guess of class c comes true: what this sequence has seen, backed by what all have, backed by
 * `prior`. */
float accept_rate(const struct accept_rates *own, const struct accept_rates *all, int32_t c, float prior);
void accept_learn(struct accept_rates *r, int32_t c, bool hit);
/* Over all classes; `prior` where nothing was seen. */
float accept_mean(const struct accept_rates *own, const struct accept_rates *all, float prior);

#endif
