/* What each tensor of a model becomes and where it goes in the region of packed weights. Private to kernels/cpu: the
 * loader and the repack cache. */
#ifndef GALLEY_CPU_SLOTS_H
#define GALLEY_CPU_SLOTS_H

#include "cpu.h"

struct slot { /* a tensor: a matrix or a vector */
    const struct tensor *from;
    size_t from_bytes;
    struct weight *matrix;
    float **vector;
    size_t at, bytes;    /* in the region */
    int32_t before, all; /* of a matrix: its panels are handed out as all, of which so many come before them */
};

struct slots {                      /* owner: the loader */
    struct slot *slot;              /* in the model's order, in which they lie in the region */
    const struct slot **by_address; /* in the file's order, in which they are read */
    int32_t n;
    size_t bytes, from_bytes; /* all of them, packed and in the file */
};

/* Plans every tensor that the model has; m->layer is there, and nothing of `s` must be freed when it fails. */
int slots_plan(struct slots *s, struct bmodel *m, const struct model_weights *w, struct err *e);
void slots_free(struct slots *s);
/* Points the model's matrices and vectors into the region that starts at base. */
void slots_place(const struct slots *s, char *base);
/* The node whose workers are the first to be handed the panel that lies at this byte of the region. */
int32_t slots_node(const struct slots *s, const struct placement *place, size_t at);

#endif
