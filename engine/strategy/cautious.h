/* Cautious next-token prediction (CNTP, autoregressive.md, section 3): where the law's entropy is high, several trials
 * go on until a segment ends, and the one with the lowest perplexity is kept. The trunk is the choice's own sequence,
 * leader of a gang; the trials are its members. Private to engine/. */
#ifndef GALLEY_CAUTIOUS_H
#define GALLEY_CAUTIOUS_H

#include "gang.h"

struct said { /* a token of a trial, for when it is kept */
    int32_t tok, rank, n_top;
    float logprob; /* raw */
};

struct trial {
    int32_t n;               /* tokens */
    double sum_lnp;          /* of the law */
    bool over;               /* its segment has ended */
    struct said *said;       /* [max_segment] */
    struct top_logprob *top; /* [max_segment][n_logprobs], NULL without */
};

struct cautious { /* owner: its request's arena */
    struct gang gang;
    struct trial trial[CAUTIOUS_MAX_TRIALS]; /* of the gang's members */
    int32_t n_trial;                         /* of the segment that is being tried; 0: none is */
    int32_t kept, n_said;                    /* the trial whose tokens go out, -1: none; of them gone out */
};

/* Trials for a law of that entropy in nats, at most n_max. */
int32_t cautious_trials(const struct cautious_params *c, double entropy, int32_t n_max);
/* The trial with the lowest perplexity, the first of equals. */
int32_t cautious_choose(const struct trial *trial, int32_t n);

enum gang_news cautious_gather(struct engine *eng, struct gang *g);
bool cautious_token(const struct gang *g, int32_t text, int32_t i, struct sampled *out);

#endif
