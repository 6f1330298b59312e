#include "err.h"

#include <stdio.h>
#include <stdlib.h>

static void (*bug_hook)(void);

int err_vset(struct err *e, int code, const char *fmt, va_list ap)
{
    if (e) {
        e->code = code;
        e->field = NULL;
        vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    }
    return -code;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err_vset(e, code, fmt, ap);
    va_end(ap);
    return -code;
}

int err_set_field(struct err *e, int code, const char *field, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err_vset(e, code, fmt, ap);
    va_end(ap);
    if (e)
        e->field = field;
    return -code;
}

void bug_set_hook(void (*hook)(void))
{
    bug_hook = hook;
}

void bug_abort(const char *file, int line, const char *what)
{
    void (*hook)(void) = bug_hook;
    bug_hook = NULL; /* a bug inside the hook must not recurse */
    fprintf(stderr, "level=fatal msg=\"bug: %s\" at=%s:%d\n", what, file, line);
    if (hook)
        hook();
    abort();
}
