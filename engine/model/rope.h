/* Rotation frequencies (RoPE) and the ways files stretch them over longer contexts. Private to engine/model. */
#ifndef GALLEY_ROPE_H
#define GALLEY_ROPE_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "slice.h"

enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN, ROPE_LONGROPE };

struct rope_spec {
    enum rope_scaling scaling;
    double base, factor;         /* factor: how much longer contexts become */
    double n_ctx_original;       /* the context before scaling: of llama3, yarn and longrope */
    double low, high;            /* llama3: turns over that context below and above which pairs are slow and fast */
    double beta_slow, beta_fast; /* yarn: the same */
    double mscale;               /* multiplies cos and sin; 0: what the scaling's definition says */
    const float *divide;         /* [dim / 2] each pair's own factor; NULL: none */
};

/* "linear", "yarn", ... */
int rope_scaling_by_name(struct slice name, enum rope_scaling *out, struct err *e);
/* inv_freq[dim / 2] and mscale as model_desc has them; -ERR_FORMAT where they are no positive numbers. */
int rope_frequencies(const struct rope_spec *s, int32_t dim, float *inv_freq, float *mscale, struct err *e);

#endif
