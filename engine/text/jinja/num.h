/* Numbers in and out as Python writes and reads them. For engine/text/jinja only. */
#ifndef GALLEY_JINJA_NUM_H
#define GALLEY_JINJA_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rt.h"

enum { JNUM_REPR_MAX = 40 };

/* repr(float): the shortest digits that read back as x. Returns the length. */
int jnum_repr(double x, char out[JNUM_REPR_MAX]);

/* int(text, base) and float(text): surrounding whitespace, a sign, and single underscores between digits are allowed.
 * Base 0 takes the base from the prefix. False when it is no number; *overflow when it is one beyond 64 bits. */
bool jnum_parse_int(const char *p, size_t n, int base, int64_t *out, bool *overflow);
bool jnum_parse_float(struct jrt *rt, const char *p, size_t n, double *out);

/* round(x, n_digits), half to even, exact. */
double jnum_round(double x, int64_t n_digits);

#endif
