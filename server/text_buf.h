/* A growing text buffer with JSON's way of writing strings and numbers: the token path writes its own bytes, which is
 * faster than building values and prints numbers shortest round-trip. Private to server/. */
#ifndef GALLEY_TEXT_BUF_H
#define GALLEY_TEXT_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text_buf {
    char *p;
    size_t n, cap;
    bool failed; /* out of memory: what follows is dropped, and the owner must look before sending */
};

void tb_free(struct text_buf *b);
/* Forgets the first n bytes. */
void tb_drop(struct text_buf *b, size_t n);
void tb_add(struct text_buf *b, const char *bytes, size_t n);
void tb_str(struct text_buf *b, const char *s);
void tb_printf(struct text_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string, quotes and all. Invalid UTF-8 becomes U+FFFD. */
void tb_json(struct text_buf *b, const char *bytes, size_t n);
void tb_json_str(struct text_buf *b, const char *s); /* NULL gives null */
/* The inside of a JSON string, without the quotes. */
void tb_escape(struct text_buf *b, const char *bytes, size_t n);
/* The shortest decimal that reads back as the same float / double; JSON has no inf or nan: they become -9999 and 0. */
void tb_float(struct text_buf *b, float v);
void tb_double(struct text_buf *b, double v);
void tb_int(struct text_buf *b, int64_t v);

#endif
