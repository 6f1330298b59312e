/* Writing an n-gram store from counted windows. Private to engine/ngram. */
#ifndef GALLEY_NGRAM_WRITE_H
#define GALLEY_NGRAM_WRITE_H

#include "ngram/counter.h"
#include "ngram/format.h"

enum { NGRAM_MAX_MIN_COUNT = 1 << 16 };

struct ngram_write_options {
    int32_t n_vocab, max_n; /* max_n: as the counter has it */
    uint64_t fingerprint;
    uint32_t min_count; /* 1 .. NGRAM_MAX_MIN_COUNT: n-grams that occurred less often are left out */
    uint64_t max_bytes; /* of the file; min_count is raised until it fits. 0: any size */
};

/* Reads the finished counter twice and makes the file at `path`, which appears under its name only when it is complete.
 * The same counts give the same bytes. `h`: the header that was written. -ERR_IO, -ERR_NOMEM; -ERR_INVALID: nothing
 * would be left, or it cannot be made to fit. */
int ngram_write(const char *path, struct ngram_counter *c, const struct ngram_write_options *o, struct ngram_header *h,
                struct err *e);

#endif
