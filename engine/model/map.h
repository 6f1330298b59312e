/* Whole files, mapped read-only. Private to engine/: for readers of model files and n-gram stores. */
#ifndef GALLEY_MAP_H
#define GALLEY_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct file_map { /* owned by whoever opened it */
    const void *p;
    size_t size_bytes; /* 0: an empty file; p is then NULL */
    int64_t modified_ns;
};

/* -ERR_NOTFOUND, -ERR_IO; -ERR_FORMAT: not a regular file. Who truncates a file while it is mapped kills its readers
 * (SIGBUS): replace files by renaming. */
int map_open(struct file_map *m, const char *path, struct err *e);
void map_close(struct file_map *m);
/* Hints about bytes of the map: they will be read soon, so that the system may read ahead; they will not be read for a
 * while, so that they need not count as this process's memory. Reading them is legal all the same. Memory that is of no
 * file loses what it holds. */
void map_want(const void *p, size_t bytes);
void map_done(const void *p, size_t bytes);

#endif
