/* How one head's K and V stand in the pool. Slots come in groups, of KEY_LANES or of a whole block where blocks are
 * shorter.
 *
 * A group of K holds element 0 of all its keys, then element 1 of all, and so on, so that a vector register takes one
 * element of 16 keys with one load. V, which is read a key at a time, holds a key's elements together, and its groups
 * are of one key. Q8_0 makes both in pieces of 32 elements, each with the scales of all keys of the group before its
 * codes; its V has groups as K has. A group is as long as its keys would be one after another. Private to kernels/cpu.
 */
#ifndef GALLEY_CPU_LANES_H
#define GALLEY_CPU_LANES_H

#include <stdint.h>

enum { KEY_LANES = 16 };

struct lane { /* one key of a group */
    char *group;
    int32_t n, step; /* keys of the group; from one element of a key to its next: n in K, 1 in V */
    int32_t i;       /* which key */
};

/* The dim elements of a key of this KV type, as stored, to another group. */
void lane_copy(int32_t type, int32_t dim, struct lane from, struct lane to);

#endif
