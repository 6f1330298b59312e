/* The state of one compilation or one rendering: memory, limits, and the way out on failure. For engine/text/jinja
 * only.
 *
 * Failure here unwinds with longjmp to the one setjmp in chat_template.c. Evaluation is deeply recursive, almost every
 * operation can fail, and all memory lives in one arena, so there is nothing to release on the way: functions return
 * their value, and the public boundary turns a failure into an ordinary -ERR_*. */
#ifndef GALLEY_JINJA_RT_H
#define GALLEY_JINJA_RT_H

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "chat_template.h"
#include "err.h"

struct jact; /* activation of the template or of a macro: eval.h */
struct jdict;
struct jbuf;

struct jrt {
    struct arena arena;
    struct err *err; /* filled before the jump; may be NULL */
    jmp_buf trap;
    int code;  /* ERR_* of the failure */
    int line;  /* line of the template being compiled or evaluated */
    int fault; /* ERR_* that an ordinary failure means: ERR_FORMAT while compiling, ERR_INVALID while rendering */
    int depth; /* nesting right now */
    uint64_t n_step;
    struct render_limits limit; /* no field is 0 */

    /* Rendering only. */
    const struct render_opts *opts;
    struct jdict *vars; /* what the caller passed in */
    struct jact *act;   /* innermost activation */
    struct jbuf *out;   /* where output statements write: the text, or a capture */
    size_t n_out_total; /* bytes written by all output statements */
};

/* Zeroed, 16-byte aligned; never NULL. */
void *jrt_alloc(struct jrt *rt, size_t size_bytes);
/* n elements; checks the product. */
void *jrt_array(struct jrt *rt, size_t n, size_t size_bytes);

/* An error of the template or of its input: the message gets the line in front. */
_Noreturn void jrt_fail(struct jrt *rt, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A limit was hit. */
_Noreturn void jrt_limit(struct jrt *rt, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* raise_exception(): the message as it is. */
_Noreturn void jrt_raise(struct jrt *rt, const char *msg, size_t n);
_Noreturn void jrt_out_of_steps(struct jrt *rt);
_Noreturn void jrt_too_deep(struct jrt *rt);

static inline void jrt_step(struct jrt *rt, uint64_t n)
{
    rt->n_step += n;
    if (rt->n_step > rt->limit.steps)
        jrt_out_of_steps(rt);
}

/* Work in proportion to n bytes of string. */
static inline void jrt_charge(struct jrt *rt, size_t n_bytes)
{
    jrt_step(rt, n_bytes / 64);
}

static inline void jrt_enter(struct jrt *rt)
{
    if (++rt->depth > rt->limit.depth)
        jrt_too_deep(rt);
}

static inline void jrt_leave(struct jrt *rt)
{
    rt->depth--;
}

/* A growing byte string in the arena. */
struct jbuf {
    char *p;
    size_t n, cap;
};

void jbuf_grow(struct jrt *rt, struct jbuf *b, size_t n_more);
void jbuf_add(struct jrt *rt, struct jbuf *b, const char *p, size_t n);
void jbuf_puts(struct jrt *rt, struct jbuf *b, const char *s);
void jbuf_fill(struct jrt *rt, struct jbuf *b, char c, size_t n);
void jbuf_cp(struct jrt *rt, struct jbuf *b, uint32_t cp); /* UTF-8 */
void jbuf_printf(struct jrt *rt, struct jbuf *b, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static inline void jbuf_putc(struct jrt *rt, struct jbuf *b, char c)
{
    if (b->n == b->cap)
        jbuf_grow(rt, b, 1);
    b->p[b->n++] = c;
}

#endif
