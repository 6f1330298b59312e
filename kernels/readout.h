/* Readouts of a row from its logits and hidden states: shared by the back ends that run on a CPU. Private to kernels/.
 */
#ifndef GALLEY_READOUT_H
#define GALLEY_READOUT_H

#include "law.h"

struct readout_ws { /* owner: one thread of a back end */
    struct law_ws law;
    struct law_dist dist;
    int32_t law_row;     /* the row that dist belongs to, -1: none */
    int32_t lse_row;     /* the row that the next two belong to */
    double lse, entropy; /* of the raw logits */
    uint32_t *skip;      /* [mask_words(n_vocab)] all zero between calls */
};

int readout_ws_create(struct readout_ws *ws, int32_t n_vocab, int32_t max_path, struct err *e);
void readout_ws_free(struct readout_ws *ws);
/* To be called when a new step begins: row numbers start to mean something else. */
void readout_begin(struct readout_ws *ws);

/* SAMPLE, TOPK, LOGPROB or PROBE of one row. Readouts of one row should follow each other: the law is then applied
 * once. */
void readout_logits(const struct step_plan *p, const struct span *s, const struct readout *r, const float *logits,
                    struct readout_ws *ws, struct step_result *out);

/* The span of each readout's row, by binary search over row0. */
const struct span *plan_span_of(const struct step_plan *p, int32_t row);

#endif
