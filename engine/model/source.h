/* A model's weights as files, for the back end that loads them: which pages are wanted and which are done with, and
 * how to know the files again. Private to engine/. */
#ifndef GALLEY_SOURCE_H
#define GALLEY_SOURCE_H

#include "backend.h"
#include "map.h"

struct source_file {
    const struct file_map *map; /* borrowed; must outlive the source */
    size_t head_bytes;          /* before the first tensor */
};

struct fp8_store;

struct source { /* owner: the model */
    struct weight_source ops;
    const struct fp8_store *made; /* borrowed: tensors that are in no file */
    struct source_file *file;     /* [n_file] owned */
    int32_t n_file;
    char *name; /* the file's and a hash of where it lies, so that models of one name do not get in each other's way */
};

/* The source must not be moved. `path`: the file or directory. */
int source_open(struct source *s, const struct source_file *file, int32_t n_file, const struct fp8_store *made,
                const char *path, struct err *e);
void source_close(struct source *s);
/* The back end has taken the weights: nothing of them need stay in memory, and what is of no file does not. */
void source_loaded(const struct source *s);

#endif
