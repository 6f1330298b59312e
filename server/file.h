/* Small files in one piece. Private to server/. */
#ifndef GALLEY_FILE_H
#define GALLEY_FILE_H

#include <stddef.h>

#include "err.h"

/* The bytes and a NUL behind them; the caller frees them with mem_free. NULL: the error says which file and why; a file
 * of more than `max` bytes is an error. `n` may be NULL. */
char *file_read(const char *path, size_t max, size_t *n, struct err *e);

#endif
