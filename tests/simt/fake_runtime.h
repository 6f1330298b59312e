/* A CUDA runtime made of malloc and memcpy: what is queued is done at once, kernels run through the shim. Each device
 * has memory of its own, which streams of another may not touch; any number of threads may call it. Between graph_begin
 * and graph_end it is recorded instead (fake_graph.h); what the real runtime forbids meanwhile spoils the recording
 * here too. It fails as it is told to. */
#ifndef GALLEY_FAKE_RUNTIME_H
#define GALLEY_FAKE_RUNTIME_H

#include "runtime.h"

extern const struct cuda_api fake_runtime;

struct fake_faults {
    int32_t driver_version; /* 13000: CUDA 13.0; 0: no driver */
    int32_t n_device;       /* reported */
    int32_t major;          /* compute capability */
    bool prohibited, busy;  /* by its compute mode; as another process has it */
    size_t total_bytes;     /* memory of each device */
    int32_t odd, odd_minor; /* where odd is not 0: that device has this minor capability, */
    size_t odd_bytes;       /* and, where this is not 0, so much memory */
    int32_t device;         /* that the rest is about */
    long fail_alloc;        /* the n-th allocation from now on fails; 0: none. Making a graph counts as one */
    long lose_after;        /* the device is lost after n more waits for the stream; 0: never */
    long lose_at;           /* the device is lost at the n-th call from now on that can say so; 0: never */
};

struct CUstream_st {
    int32_t device;
};

/* From now on, until the reset: copies and zeros are not done when they are queued but at the last moment, when
 * somebody waits for the stream or a kernel follows. Who changes or frees what is still to be copied is found out. */
void fake_runtime_defer(void);

void fake_runtime_reset(void); /* one healthy device of 1 GiB; all must have been freed */
extern struct fake_faults fake_faults;
long fake_runtime_live(void);   /* allocations, streams and graphs not given back */
long fake_runtime_allocs(void); /* allocations made, since the reset */

/* For timing the host: from now on kernels and copies are not run, and device memory is not there until it is touched.
 */
void fake_runtime_skip(void);

struct fake_calls { /* queued since the last look, whatever a graph holds counting once */
    long n_kernel, n_copy, n_graph;
};
struct fake_calls fake_runtime_calls(void);

#endif
