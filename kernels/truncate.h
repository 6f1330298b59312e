/* The truncating half of the law. Private to law.c. */
#ifndef GALLEY_TRUNCATE_H
#define GALLEY_TRUNCATE_H

#include <stdbool.h>

#include "law.h"

bool law_truncates(const struct law *l);
/* From scores, tile maxima and unnormalised p (the largest 1, `mass` in all): the tokens that stay are order[0 ..
 * result). */
int32_t law_truncate(const struct law *l, struct law_ws *ws, double mass);

#endif
