/* Running a lane: a model, its plan, and what its steps cost. Private to engine/. */
#ifndef GALLEY_LANE_H
#define GALLEY_LANE_H

#include "engine_impl.h"

/* The copies that blocks need before this plan's pass. */
void lane_plan_moves(struct lane *lane);
/* Submits the lane's plan, waits, and keeps its cost current. */
int lane_run(struct lane *lane, struct err *e);
/* A crash in a back end prints the plan it was running. */
void lane_dump_on_bug(void);

/* Times steps of 1, 2, 4, ... rows, for a tenth of a second or so. Before the first request. */
int lane_calibrate(struct lane *lane, int32_t max_row, struct err *e);

#endif
