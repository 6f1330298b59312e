/* How one head's K stands in the pool: keys as lanes. Slots come in groups of KEY_LANES (a whole block where blocks are
 * shorter), and a group holds element 0 of all its keys, then element 1 of all, and so on; of Q8_0, for each 32
 * elements, all scales and then the codes in that order. So a vector register takes one element of 16 keys with one
 * load, and a group is as long as its keys would be one after another. V, which is read a key at a time, is stored so,
 * which is the same as groups of one. Private to kernels/cpu. */
#ifndef GALLEY_CPU_LANES_H
#define GALLEY_CPU_LANES_H

#include <stdint.h>

enum { KEY_LANES = 16 };

struct lane { /* one key of a group */
    char *group;
    int32_t n, i; /* keys of the group; which of them */
};

/* The dim elements of a key of this KV type, as stored, to another group. */
void lane_copy(int32_t type, int32_t dim, struct lane from, struct lane to);

#endif
