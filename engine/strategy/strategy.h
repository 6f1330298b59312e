/* A way of decoding. Every request names one; all of them share every step, and none has a mode of its own in the
 * scheduler or in a back end: a strategy says what rows and readouts it wants and settles what comes back.
 * Private to engine/. */
#ifndef GALLEY_STRATEGY_H
#define GALLEY_STRATEGY_H

#include "engine_impl.h"

struct strategy_ops {
    const char *name;
    /* Rows the sequence can use now, at least 1 while it is not finished. */
    int32_t (*want)(const struct seq *s);
    /* Appends a span of s->n_want rows, s->rows drafted ones after them, and its readouts to the plan; sets s->span
     * and s->readout0. -ERR_NOMEM: the plan is full (the caller takes back what was appended; the sequence waits for
     * the next step). */
    int (*plan)(struct engine *eng, struct seq *s, struct step_plan *p);
    /* Reads the results, commits, accepts tokens; may finish the sequence. */
    void (*settle)(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r);
};

extern const struct strategy_ops strategy_chain;

/* ---- For strategies: law.c ---- */

/* The sequence's law as of its last token; returns the plan's index or -ERR_NOMEM. */
int seq_plan_law(struct seq *s, struct step_plan *p);
/* The raw log-probabilities that the request asked for, of a sampled token: what SAMPLE (with n = 1) and the TOPK after
 * it returned. top[] needs room for n_logprobs. */
void read_top(const struct step_plan *p, const struct step_result *r, int32_t readout, struct top_logprob *top,
              int32_t *n_top);

#endif
