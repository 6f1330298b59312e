/* Tensors that no file has: FP8 from checkpoints whose codes and scales lie apart, and from 16 and 32 bits where that
 * is wished. They get a place when a model is opened and their values before it is loaded, so that looking at a model
 * costs nothing. Private to engine/model. */
#ifndef GALLEY_FP8_H
#define GALLEY_FP8_H

#include <stdbool.h>

#include "backend.h"

struct fp8_scales { /* of codes; all borrowed from a file's map */
    const uint8_t *data;
    int32_t type;       /* DT_F32, DT_F16 or DT_BF16 */
    int64_t n_col;      /* scales a row of them */
    int64_t rows, cols; /* of the codes, that share one */
};

struct fp8_item { /* a tensor to be made */
    char name[96];
    struct tensor from;      /* floats, or e4m3 codes of a byte */
    struct fp8_scales scale; /* data NULL: `from` are floats */
    struct tensor to;
};

struct fp8_chunk { /* address space, whose pages come as they are written */
    uint8_t *p;
    size_t size_bytes, used_bytes;
};

struct fp8_store { /* owner: the model */
    struct fp8_chunk *chunk;
    struct fp8_item *item;
    int32_t n_chunk, n_item, cap_item;
};

/* Whether rows of n can be FP8. Codes in other rows become F32, which has their values too. */
static inline bool fp8_fits(int64_t n_col)
{
    return n_col % FP8_BLOCK == 0;
}

/* *to stands for `from` from now on; it is filled by fp8_fill. -ERR_NOMEM. */
int fp8_add(struct fp8_store *s, const char *name, const struct tensor *from, const struct fp8_scales *scale,
            struct tensor *to, struct err *e);
/* n_thread 0: one for each processor. -ERR_FORMAT names the tensor of a scale, code or value that is not finite. */
int fp8_fill(struct fp8_store *s, int32_t n_thread, struct err *e);
/* Whether these bytes are of a tensor that was made. */
bool fp8_has(const struct fp8_store *s, const void *data);
/* The values are not needed any more; their places stay. */
void fp8_drop(const struct fp8_store *s);
void fp8_free(struct fp8_store *s);

#endif
