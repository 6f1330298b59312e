/* Which worker runs where, and which part of every matrix is near whom: pure functions of the topology. Nothing here
 * changes a result. Private to kernels/cpu. */
#ifndef GALLEY_CPU_PLACEMENT_H
#define GALLEY_CPU_PLACEMENT_H

#include "topology.h"

enum { MAX_WORKER = 1024 };

struct placement {
    int32_t n_worker, n_node;    /* nodes that have workers */
    int32_t cpu[MAX_WORKER];     /* one for each worker */
    int32_t node_id[MAX_NODE];   /* as the machine numbers them, ascending */
    int32_t first[MAX_NODE + 1]; /* node k has the workers first[k] .. first[k + 1] - 1 */
};

/* Deals n_worker <= MAX_WORKER workers: each gets a physical core of its own while there are any, then a processor of
 * its own, then processors are shared; on each of these levels nodes get as many as they have of what is dealt, in
 * proportion, so that all of the machine's memory is read at once. */
void placement_make(struct placement *p, const struct topology *t, int32_t n_worker);
/* For workers that go where they like. */
void placement_ignore_nodes(struct placement *p);
int32_t placement_node(const struct placement *p, int32_t worker);
/* Node k's share of n things, which are dealt in multiples of `unit`: as its share of the workers. */
void placement_share(const struct placement *p, int32_t n, int32_t unit, int32_t k, int32_t *first, int32_t *end);

#endif
