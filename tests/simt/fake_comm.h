/* A communicator of threads and barriers: what is queued is done when all ranks have come to it, or kept where the
 * stream's calls are recorded. Ranks that call different things, or with different sizes, end the test. Sums are in an
 * order that depends on their size, as a library's may be. */
#ifndef GALLEY_FAKE_COMM_H
#define GALLEY_FAKE_COMM_H

#include <stdbool.h>

#include "comm.h"

extern const struct comm_api fake_comm;

struct fake_comm_faults {
    bool missing;     /* there is no library */
    int32_t rank;     /* that the rest is about */
    bool never_joins; /* it does not return from join */
    long silent_at;   /* from its n-th sum or exchange from now on it does not answer, until it is aborted; 0: never */
    bool deaf;        /* .. and not even then, until fake_comm_release */
    long fail_at;     /* its n-th sum or exchange from now on cannot be queued; 0: none */
};
extern struct fake_comm_faults fake_comm_faults;

void fake_comm_reset(void); /* all have left */
long fake_comm_live(void);  /* ranks that have joined and not left */
void fake_comm_release(void);
/* The same table with another time-out. */
const struct comm_api *fake_comm_within(int32_t timeout_ms);

#endif
