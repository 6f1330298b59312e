/* A back end without arithmetic, for tests: a row's logits are a hash of the (position, input) pairs it sees, so that
 * any mistake in a mask, a commit, a fork or a rollback changes the text. It has a real paged pool (one 64-bit value a
 * slot) and takes every plan and readout that the real ones take. About 10^5 steps a second. */
#ifndef GALLEY_FAKE_H
#define GALLEY_FAKE_H

#include "backend.h"

extern const struct backend_ops backend_fake;

/* A description to load it with; weights may be NULL. */
struct model_desc fake_model_desc(int32_t n_vocab, int32_t n_ctx_train);

/* Makes the n-th wait from now fail as a broken device would (0: never). Process-wide. */
void fake_fail_wait(long n);
/* Every wait sleeps this long, to make a slow model. Process-wide. */
void fake_set_step_us(long us);

#endif
