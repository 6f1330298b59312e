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
    /* Only all the rows it wants are of use to it now; NULL: never. */
    bool (*whole)(const struct seq *s);
    /* Reads the results, commits, accepts tokens; may finish the sequence. */
    void (*settle)(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r);
};

extern const struct strategy_ops strategy_chain, strategy_cautious, strategy_trial, strategy_contrastive,
    strategy_search, strategy_beam, strategy_superposed;

/* What a request's choices are decoded with: members of gangs have ops of their own. */
const struct strategy_ops *strategy_of(const struct request *r);

/* ---- For strategies: law.c ---- */

/* The sequence's law as of n_out_after tokens behind its last one; returns the plan's index or -ERR_NOMEM. */
int seq_plan_law(struct seq *s, struct step_plan *p, int32_t n_out_after);

/* ---- rows.c ---- */

struct span_shape {
    int32_t n_row;         /* decided tokens that are computed */
    int32_t n_chain_after; /* rows the caller adds behind them that go on the chain */
    bool draws;            /* there will be readouts of the law, */
    int32_t n_out_after;   /* which stands so many tokens behind the last decided one */
};

/* Opens the sequence's span: law, decided rows, blocks, readouts of the prompt's scores. Sets s->span and s->readout0.
 */
int seq_plan_span(struct engine *eng, struct seq *s, struct step_plan *p, const struct span_shape *shape);
/* Records the prompt's scores; returns the readout after them. Before seq_commit. */
int32_t seq_take_prompt_scores(struct seq *s, const struct step_plan *p, const struct step_result *r);
/* Readouts of a draw, with the log-probabilities that the request asked for; members of gangs and their leaders always
 * learn ln p of it. */
int seq_plan_draw(struct seq *s, struct step_plan *p, int32_t row);
/* What they returned, from that readout on. top[] needs room for n_logprobs; the result borrows it. */
struct sampled read_draw(const struct seq *s, const struct step_plan *p, const struct step_result *r, int32_t readout,
                         struct top_logprob *top);
/* What a TOPK returned; -1s are left out. */
void read_top(const struct step_plan *p, const struct step_result *r, int32_t readout, struct top_logprob *top,
              int32_t *n_top);

#endif
