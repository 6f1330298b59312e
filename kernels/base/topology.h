/* The processors that this process may use, as Linux describes them: physical cores, NUMA nodes, and how much of them a
 * control group grants. Open to all floors. */
#ifndef GALLEY_TOPOLOGY_H
#define GALLEY_TOPOLOGY_H

#include <stdint.h>

enum { MAX_CPU = 4096, MAX_NODE = 64 };

struct cpu_mask {
    uint64_t bit[MAX_CPU / 64];
};

static inline void cpu_mask_set(struct cpu_mask *m, int32_t cpu)
{
    m->bit[cpu / 64] |= UINT64_C(1) << cpu % 64;
}

static inline int cpu_mask_has(const struct cpu_mask *m, int32_t cpu)
{
    return m->bit[cpu / 64] >> cpu % 64 & 1;
}

struct topology_cpu {
    int32_t cpu;
    int32_t core; /* equal for those that share one: the lowest of them, allowed or not */
    int32_t node;
};

struct topology {
    int32_t n_cpu, n_core, n_node;    /* allowed ones; cores and nodes that have an allowed processor */
    struct topology_cpu cpu[MAX_CPU]; /* ascending */
};

/* The calling thread's affinity: what taskset, a control group's cpuset and the machine leave. Processor 0 if it cannot
 * be had. */
void topology_allowed(struct cpu_mask *out);
/* Reads ROOT/sys; "" is the real root, tests have trees of their own. What is not described there is taken for a core
 * of its own on node 0; nodes from MAX_NODE on count as node 0. Something must be allowed. */
void topology_read(struct topology *t, const char *root, const struct cpu_mask *allowed);
/* Processors' worth of time that the control group (version 2: ROOT/proc/self/cgroup, ROOT/sys/fs/cgroup) and those
 * above it grant, rounded up; INT32_MAX without a limit. More threads than that only get each other stopped. */
int32_t topology_quota(const char *root);
/* Threads that find work at once: one for each core, within the quota. */
int32_t topology_threads(const struct topology *t, const char *root);

#endif
