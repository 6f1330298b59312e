/* A model's weights as a file, for the back end that loads them: which of its pages are wanted and which are done with,
 * and how to know the file again. Private to engine/. */
#ifndef GALLEY_SOURCE_H
#define GALLEY_SOURCE_H

#include "backend.h"
#include "gguf.h"

struct source { /* owner: the model */
    struct weight_source ops;
    const struct gguf *file;
    char *name; /* the file's and a hash of where it lies, so that models of one name do not get in each other's way */
};

/* The file must outlive the source, and the source must not be moved. */
int source_open(struct source *s, const struct gguf *file, const char *path, struct err *e);
void source_close(struct source *s);
/* The back end has taken the weights: nothing of the map need stay in memory. */
void source_loaded(const struct source *s);

#endif
