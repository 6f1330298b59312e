#include "file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mem.h"

static int read_all(FILE *f, const char *path, char *text, size_t max, size_t *n, struct err *e)
{
    errno = 0;
    *n = fread(text, 1, max + 1, f);
    if (ferror(f))
        return err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
    if (*n > max)
        return err_set(e, ERR_INVALID, "%s: larger than %zu bytes", path, max);
    text[*n] = 0;
    return 0;
}

char *file_read(const char *path, size_t max, size_t *n, struct err *e)
{
    size_t got = 0;
    FILE *f = fopen(path, "rbe");
    char *text = mem_alloc(max + 2);
    int rc = !f      ? err_set(e, ERR_IO, "%s: %s", path, strerror(errno))
             : !text ? err_set(e, ERR_NOMEM, "out of memory")
                     : read_all(f, path, text, max, &got, e);
    if (f)
        fclose(f);
    if (rc) {
        mem_free(text);
        return NULL;
    }
    if (n)
        *n = got;
    return text;
}
