#include "rt.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text/utf8.h"

static _Noreturn void unwind(struct jrt *rt, int code)
{
    rt->code = code;
    longjmp(rt->trap, 1);
}

static _Noreturn void fail_with_line(struct jrt *rt, int code, const char *fmt, va_list ap)
{
    char msg[sizeof((struct err *)0)->msg];
    vsnprintf(msg, sizeof msg, fmt, ap);
    err_set(rt->err, code, "line %d: %.480s", rt->line, msg);
    unwind(rt, code);
}

void jrt_fail(struct jrt *rt, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail_with_line(rt, rt->fault, fmt, ap);
}

void jrt_limit(struct jrt *rt, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail_with_line(rt, ERR_TOOLONG, fmt, ap);
}

void jrt_raise(struct jrt *rt, const char *msg, size_t n)
{
    err_set(rt->err, ERR_INVALID, "%.*s", n < 500 ? (int)n : 500, msg);
    unwind(rt, ERR_INVALID);
}

void jrt_out_of_steps(struct jrt *rt)
{
    jrt_limit(rt, "the template does too much work (limit: %llu steps)", (unsigned long long)rt->limit.steps);
}

void jrt_too_deep(struct jrt *rt)
{
    jrt_limit(rt, "nested too deeply (limit: %d levels)", rt->limit.depth);
}

void *jrt_alloc(struct jrt *rt, size_t size_bytes)
{
    if (size_bytes > rt->limit.memory_bytes || rt->arena.used_bytes > rt->limit.memory_bytes - size_bytes)
        jrt_limit(rt, "the template needs too much memory (limit: %zu bytes)", rt->limit.memory_bytes);
    void *p = arena_alloc(&rt->arena, size_bytes);
    if (!p) {
        err_set(rt->err, ERR_NOMEM, "out of memory in a chat template");
        unwind(rt, ERR_NOMEM);
    }
    return p;
}

void *jrt_array(struct jrt *rt, size_t n, size_t size_bytes)
{
    if (n > SIZE_MAX / size_bytes)
        jrt_limit(rt, "the template needs too much memory (limit: %zu bytes)", rt->limit.memory_bytes);
    return jrt_alloc(rt, n * size_bytes);
}

void jbuf_grow(struct jrt *rt, struct jbuf *b, size_t n_more)
{
    if (b->cap - b->n >= n_more)
        return;
    if (n_more > SIZE_MAX / 4 || b->cap > SIZE_MAX / 4)
        jrt_limit(rt, "the template needs too much memory (limit: %zu bytes)", rt->limit.memory_bytes);
    size_t cap = b->cap < 64 ? 128 : b->cap * 2;
    while (cap - b->n < n_more)
        cap *= 2;
    char *p = jrt_alloc(rt, cap);
    if (b->n)
        memcpy(p, b->p, b->n);
    b->p = p;
    b->cap = cap;
}

void jbuf_add(struct jrt *rt, struct jbuf *b, const char *p, size_t n)
{
    if (!n)
        return;
    jrt_charge(rt, n);
    jbuf_grow(rt, b, n);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void jbuf_puts(struct jrt *rt, struct jbuf *b, const char *s)
{
    jbuf_add(rt, b, s, strlen(s));
}

void jbuf_fill(struct jrt *rt, struct jbuf *b, char c, size_t n)
{
    if (!n)
        return;
    jrt_charge(rt, n);
    jbuf_grow(rt, b, n);
    memset(b->p + b->n, c, n);
    b->n += n;
}

void jbuf_cp(struct jrt *rt, struct jbuf *b, uint32_t cp)
{
    jbuf_grow(rt, b, 4);
    b->n += (size_t)utf8_put((int32_t)cp, (uint8_t *)b->p + b->n);
}

void jbuf_printf(struct jrt *rt, struct jbuf *b, const char *fmt, ...)
{
    char small[64];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < (int)sizeof small) {
        jbuf_add(rt, b, small, (size_t)n);
        return;
    }
    jbuf_grow(rt, b, (size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
}
