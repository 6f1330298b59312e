/* A CUDA runtime made of malloc and memcpy: what is queued is done at once, kernels run through the shim. It fails as
 * it is told to. */
#ifndef GALLEY_FAKE_RUNTIME_H
#define GALLEY_FAKE_RUNTIME_H

#include "runtime.h"

extern const struct cuda_api fake_runtime;

struct fake_faults {
    int32_t n_device;     /* reported */
    int32_t major;        /* compute capability */
    size_t total_bytes;   /* device memory */
    long fail_alloc;      /* the n-th allocation from now on fails; 0: none */
    long lose_after;      /* the device is lost after n more waits for the stream; 0: never */
};

void fake_runtime_reset(void); /* one healthy device of 1 GiB; all must have been freed */
extern struct fake_faults fake_faults;
long fake_runtime_live(void);   /* allocations and streams not given back */
long fake_runtime_allocs(void); /* allocations made, since the reset */

#endif
