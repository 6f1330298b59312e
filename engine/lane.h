/* Running a lane: a model, its plan, and what its steps cost. Private to engine/. */
#ifndef GALLEY_LANE_H
#define GALLEY_LANE_H

#include "engine_impl.h"

/* The copies that blocks need before this plan's pass. */
void lane_plan_moves(struct lane *lane);
/* Submits the lane's plan, waits, and keeps the cost of such plans current. */
int lane_run(struct lane *lane, struct step_cost *cost, struct err *e);
/* A crash in a back end prints the plan it was running. */
void lane_dump_on_bug(void);

/* Times steps of 1, 2, 4, ... rows through the first n_layer layers, for a tenth of a second or so. Before the first
 * request. */
int lane_calibrate(struct lane *lane, int32_t n_layer, struct step_cost *cost, int32_t max_row, struct err *e);

#endif
