/* Models of known shapes with random weights, for benches that go through a back end's contract. Private to
 * tests/bench.
 */
#ifndef GALLEY_RANDOM_MODEL_H
#define GALLEY_RANDOM_MODEL_H

#include <stdbool.h>

#include "backend.h"

struct model_shape {
    const char *name;
    int32_t n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab;
    uint32_t flags; /* of model_desc */
    bool own_head;  /* the head is not the embedding table */
};

/* NULL: none has this name. */
const struct model_shape *model_shape_find(const char *name);
void model_shape_describe(const struct model_shape *s, struct model_desc *d);
struct random_weights { /* owner: the bench */
    struct model_weights w;
    void *matrices; /* [bytes] */
    float *ones;
    size_t bytes, at;
    bool apart;
};
/* Matrices of one type. `apart`: each lies in a place of its own, as in a file; else all begin at the same. */
void random_weights_make(struct random_weights *r, const struct model_shape *s, int type, bool apart);
void random_weights_free(struct random_weights *r);
/* Matrices share one buffer, which `load` copies. Prints how long it took; exits on an error. */
struct bmodel *random_model_load(const struct backend_ops *ops, struct backend *b, const struct model_shape *s,
                                 int type);
/* Exits with the program's name and the error, if rc says that there is one. */
void bench_check(int rc, const struct err *e);

#endif
