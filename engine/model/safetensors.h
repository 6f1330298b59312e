/* Weights of a Hugging Face directory: model.safetensors, or the shards that model.safetensors.index.json lists, mapped
 * and checked as they are opened; after that every pointer handed out lies within its file. Private to engine/.
 *
 * Source: the safetensors format (u64 length, JSON header, data). Narrowed: at most 4 dimensions. */
#ifndef GALLEY_SAFETENSORS_H
#define GALLEY_SAFETENSORS_H

#include <stdbool.h>

#include "err.h"
#include "map.h"

enum { ST_MAX_DIM = 4 };

struct st_tensor {
    char *name;
    int type;          /* enum dtype; -1: one that Galley does not compute with */
    char type_name[8]; /* as the file says it */
    int n_dim;
    int64_t dim[ST_MAX_DIM]; /* outermost first */
    const uint8_t *data;     /* may be unaligned */
    size_t size_bytes;
};

struct st_file {
    struct file_map map;
    size_t data_at; /* bytes before the tensors */
};

struct safetensors { /* owned by whoever opened it */
    struct st_file *file;
    int32_t n_file, n_tensor;
    struct st_tensor *tensor; /* by name, ascending */
};

/* -ERR_NOTFOUND: the directory has neither. -ERR_FORMAT names file, tensor or byte. */
int st_open(struct safetensors **out, const char *dir, struct err *e);
/* One file's bytes, which stay the caller's: for fuzzing. */
int st_open_mem(struct safetensors **out, const void *data, size_t size_bytes, const char *name, struct err *e);
void st_close(struct safetensors *s); /* NULL is legal */
const struct st_tensor *st_find(const struct safetensors *s, const char *name);

#endif
