/* Errors: open to all floors. A fallible function returns 0 or -ERR_*, and fills `struct err` (when the
 * caller passed one) with one sentence for a person. The first error wins only if the caller keeps it so. */
#ifndef GALLEY_ERR_H
#define GALLEY_ERR_H

#include <stdarg.h>

enum err_code {
    ERR_OK = 0,
    ERR_NOMEM = 1,   /* an allocation failed, or a pool of fixed size is exhausted */
    ERR_INVALID = 2, /* the caller's data is wrong: a request, an option, a template's input */
    ERR_FORMAT = 3,  /* a file is malformed, truncated or of an unknown kind */
    ERR_IO = 4,      /* the operating system refused */
    ERR_BUSY = 5,    /* try again later: queue full, server draining */
    ERR_NOTFOUND = 6,
    ERR_TOOLONG = 7, /* a request that can never fit */
    ERR_DEVICE = 8,  /* the back end is broken; sticky */
    ERR_CANCELED = 9,
    ERR_DEADLINE = 10,
};

struct err {
    int code;      /* ERR_* */
    char msg[512]; /* NUL-terminated UTF-8, no trailing newline */
    const char *field; /* the field of the caller's data that is wrong, a static string; NULL when none is to blame */
};

/* Formats into `e` (may be NULL) and returns -code, so that `return err_set(e, ERR_IO, ...)` reads well. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same, and blames a field. */
int err_set_field(struct err *e, int code, const char *field, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
int err_vset(struct err *e, int code, const char *fmt, va_list ap);

/* A bug in Galley itself: prints where, runs the hook (which dumps the plan being run), aborts. */
#define BUG_ON(cond)                                                                                                   \
    do {                                                                                                               \
        if (__builtin_expect(!!(cond), 0))                                                                             \
            bug_abort(__FILE__, __LINE__, #cond);                                                                      \
    } while (0)

__attribute__((noreturn)) void bug_abort(const char *file, int line, const char *what);
void bug_set_hook(void (*hook)(void)); /* called once before abort; must not allocate */

#endif
