/* Reading GGUF model files, versions 2 and 3, little-endian. For the model loader, the tokenizer's loader and
 * `galley quantize`; the server never sees it. Everything is checked when the file is opened: after that, every
 * slice and pointer handed out lies within the file. Nothing is copied: slices point into the map, are not
 * NUL-terminated and live as long as the struct gguf.
 *
 * Source: ggml's docs/gguf.md. Narrowed where a hostile file could hurt: no nested arrays, at most 4 dimensions. */
#ifndef GALLEY_GGUF_H
#define GALLEY_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "model/map.h"
#include "slice.h"

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STR,
    GGUF_ARR,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_N_TYPE
};

enum { GGUF_MAX_DIM = 4, GGUF_MAX_NAME = 256, GGUF_DEFAULT_ALIGNMENT = 32 };

struct gguf_kv {
    struct slice key;   /* valid UTF-8 without control characters */
    int type;           /* enum gguf_type */
    int elem_type;      /* of an array's elements; otherwise the same as type */
    uint64_t n;         /* elements; 1 unless an array */
    const uint8_t *val; /* the elements as stored, unaligned */
    size_t val_bytes;
};

struct gguf_tensor {
    struct slice name;
    int n_dim;
    int64_t dim[GGUF_MAX_DIM]; /* dim[0] is the row length; unused ones are 1 */
    int64_t n_row;             /* dim[1] * dim[2] * dim[3] */
    int type;                  /* ggml's number; may be one that dtype_info does not know */
    uint64_t offset;           /* from the start of the data section */
    const uint8_t *data;       /* into the map, aligned within the file only */
    size_t size_bytes;
};

struct gguf {            /* owned by whoever opened it */
    const uint8_t *base; /* the file */
    size_t size_bytes;
    struct file_map map; /* where base points, when it is ours to unmap */
    uint32_t version, alignment;
    int64_t n_kv, n_tensor;
    struct gguf_kv *kv;         /* in file order */
    struct gguf_tensor *tensor; /* in file order */
    const struct gguf_kv **kv_by_key;
    const struct gguf_tensor **tensor_by_name;
};

/* ERR_IO, ERR_NOMEM, or ERR_FORMAT with a message that names the key, the tensor or the byte offset. */
int gguf_open(struct gguf **out, const char *path, struct err *e);
/* The memory stays the caller's and must outlive the result. `name` stands for the path in messages. */
int gguf_open_mem(struct gguf **out, const void *data, size_t size_bytes, const char *name, struct err *e);
void gguf_close(struct gguf *g); /* NULL is legal */

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name);
size_t gguf_head_bytes(const struct gguf *g); /* before the first tensor; a file without tensors is all head */

/* Scalars. -ERR_NOTFOUND when the key is missing, -ERR_FORMAT when its type or range does not fit; both fill e.
 * Integers of any width are accepted as long as the value fits; f32 takes any float. */
int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *out, struct err *e);
int gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct err *e);
int gguf_get_f32(const struct gguf *g, const char *key, float *out, struct err *e);
int gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e);
int gguf_get_str(const struct gguf *g, const char *key, struct slice *out, struct err *e);

/* Arrays: the length first, then the elements into the caller's buffer of that length. i32 takes integers of any
 * width that fit, and booleans; f32 any float. */
int gguf_arr_len(const struct gguf *g, const char *key, uint64_t *n, struct err *e);
int gguf_get_i32s(const struct gguf *g, const char *key, int32_t *out, uint64_t n, struct err *e);
int gguf_get_f32s(const struct gguf *g, const char *key, float *out, uint64_t n, struct err *e);
int gguf_get_strs(const struct gguf *g, const char *key, struct slice *out, uint64_t n, struct err *e);

/* Elements a block and bytes a block of any type ggml knows; false for a number it does not know. */
bool gguf_type_size(int type, int *block_len, int *block_bytes);

#endif
