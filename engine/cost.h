/* What a step costs: seconds as a function of its rows, timed at start-up and kept current by every step. Only ratios
 * matter to those who ask, so the curve's shape is learnt slowly and the level, which follows context lengths and the
 * machine's mood, quickly; but what a point says that was not seen for long is news about the shape. Private to
 * engine/. */
#ifndef GALLEY_COST_H
#define GALLEY_COST_H

#include <stdint.h>

enum { COST_MAX_POINT = 16 };

struct step_cost { /* owner: the engine thread */
    int32_t n_point;
    int32_t row[COST_MAX_POINT];    /* ascending: 1, 2, 4, ... */
    double s[COST_MAX_POINT];       /* seconds at level 1 */
    double first[COST_MAX_POINT];   /* as timed at the start */
    int32_t unseen[COST_MAX_POINT]; /* steps since one of about so many rows */
    double level;                   /* how much dearer steps are now than the curve says */
};

void cost_init(struct step_cost *c);
/* A point of the curve, rows ascending. */
void cost_set(struct step_cost *c, int32_t n_row, double seconds);
/* A step was run. */
void cost_observe(struct step_cost *c, int32_t n_row, double seconds);
/* Seconds a step of n_row is expected to take; 0 rows cost nothing. */
double cost_step(const struct step_cost *c, int32_t n_row);
/* The most rows beside n_row others, at most `most`, with which the step takes at most `times` as long. */
int32_t cost_rows_within(const struct step_cost *c, int32_t n_row, double times, int32_t most);
/* The fewest rows, at most `most`, that cost no more each than `slack` times what they would in a full step. */
int32_t cost_rows_efficient(const struct step_cost *c, double slack, int32_t most);

#endif
