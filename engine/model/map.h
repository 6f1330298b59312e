/* Whole files, mapped read-only. Private to engine/: for readers of model files and n-gram stores. */
#ifndef GALLEY_MAP_H
#define GALLEY_MAP_H

#include <stddef.h>

#include "err.h"

struct file_map { /* owned by whoever opened it */
    const void *p;
    size_t size_bytes; /* 0: an empty file; p is then NULL */
};

/* -ERR_NOTFOUND, -ERR_IO; -ERR_FORMAT: not a regular file. Who truncates a file while it is mapped kills its readers
 * (SIGBUS): replace files by renaming. */
int map_open(struct file_map *m, const char *path, struct err *e);
void map_close(struct file_map *m);

#endif
