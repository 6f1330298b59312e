/* The law: logits to the processed distribution p. One implementation, used by every back end that runs on a CPU
 * (ref, cpu, fake), so that p is the same wherever it is computed. Private to kernels/. */
#ifndef GALLEY_LAW_H
#define GALLEY_LAW_H

#include "plan.h"

struct law_ws { /* owner: one thread of a back end; every array has n_vocab elements unless noted */
    int32_t n_vocab;
    float *score;    /* processed logits, shifted and divided by the temperature; -inf outside the support */
    float *p;        /* probabilities, 0 outside the support */
    float *key;      /* scratch: sort keys of a truncation, what it leaves */
    float *tile_max; /* [tiles of vocab.h] largest score of each */
    int32_t *order;  /* the support comes first */
    int32_t *stack;  /* [n_vocab + 1] pivots of the incremental sort */
    int32_t *path;   /* [max_path] tokens between the counts and the row */
    int32_t max_path;
    void *mem;
};

struct law_dist {           /* borrowed from the workspace until the next law_apply */
    const float *p, *score; /* [n_vocab] */
    const int32_t *support; /* [n] tokens with p > 0, in no stated order */
    int32_t n, n_vocab;     /* n 0: no token is allowed, or the logits are not finite */
    int32_t argmax;
};

int law_ws_create(struct law_ws *ws, int32_t n_vocab, int32_t max_path, struct err *e);
void law_ws_free(struct law_ws *ws);

/* p of plan row `row`, which belongs to span `s`. logits[n_vocab] are read only. */
void law_apply(const struct step_plan *p, const struct span *s, int32_t row, const float *logits, struct law_ws *ws,
               struct law_dist *out);

/* The first half of law_apply: fills the workspace's scores, processed logits less the largest, divided by the
 * temperature (at 0 neither). Returns the argmax, -1 when no token is allowed or the logits are not finite. */
int32_t law_scores(const struct step_plan *p, const struct span *s, int32_t row, const float *logits,
                   struct law_ws *ws);

/* The token that law_draw would draw from p for NOISE_TARGET, without computing p where the law truncates nothing. The
 * workspace's last law_dist is lost. */
int32_t law_sample(const struct step_plan *p, const struct span *s, int32_t row, const float *logits,
                   struct law_ws *ws);

/* A draw from p by the Gumbel-max rule: argmax of ln p + noise(key, position, stream, token), lowest id among equals,
 * so that the token depends on nothing but p, key and position. `skip` (may be NULL) is a bitmap of tokens left out.
 * Returns -1 when nothing is left. `temperature` 0 gives the argmax. */
int32_t law_draw(const struct law_dist *d, const struct law *l, int32_t position, enum noise_stream stream,
                 const uint32_t *skip);

#endif
