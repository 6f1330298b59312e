/* A run of bytes that somebody else owns: strings from mapped files are not NUL-terminated and may hold anything. */
#ifndef GALLEY_SLICE_H
#define GALLEY_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct slice {
    const char *p;
    size_t len;
};

static inline struct slice slice_of(const char *text)
{
    return (struct slice){text, strlen(text)};
}

static inline bool slice_eq(struct slice s, const char *text)
{
    return s.len == strlen(text) && !memcmp(s.p, text, s.len);
}

#endif
