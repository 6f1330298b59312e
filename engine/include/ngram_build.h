/* Making n-gram stores from text: `galley ngram build`. Public: the server's command line calls it. */
#ifndef GALLEY_NGRAM_BUILD_H
#define GALLEY_NGRAM_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

enum { NGRAM_BUILD_MAX_N = 6, NGRAM_BUILD_MAX_MIN_COUNT = 65536 };

struct ngram_build_report {
    uint32_t n_token, n_doc;            /* n_token: marks of beginning and end included */
    uint32_t n_gram[NGRAM_BUILD_MAX_N]; /* kept, of 1 .. 6 tokens */
    uint32_t min_count;                 /* what was kept occurred so often */
    uint64_t file_bytes;
};

struct ngram_build_options { /* borrowed for the call */
    const char *model_path;  /* GGUF: the tokenizer is taken from it */
    const char *out_path;
    const char *const *text_path; /* [n_text] "-": standard input */
    int32_t n_text;
    /* A line that ends a document, in every file; it and the line break before it are not text. NULL: a file is one
     * document, byte for byte. A file's end always ends its document. */
    const char *separator;
    bool parse_special;  /* "<|im_end|>" in the text is the token, not nine characters */
    int32_t max_n;       /* 2 .. NGRAM_BUILD_MAX_N */
    uint32_t min_count;  /* 1 .. NGRAM_BUILD_MAX_MIN_COUNT: rarer n-grams are left out */
    uint64_t max_bytes;  /* of the store: min_count is raised until it fits. 0: any size */
    size_t memory_bytes; /* for counting, at least 2^16; the tokenizer and some MB come on top. Text beyond it goes
                            through temporary files beside out_path, up to 56 bytes a token */
    void (*progress)(const struct ngram_build_report *so_far); /* now and then, with n_token and n_doc; NULL: none */
};

/* Counts the n-grams of every document and writes the store, which appears under its name only when it is complete. A
 * document begins with the tokenizer's bos where the model wants one, and ends with its eos unless its text ends with
 * a token that ends answers. The same text and options but memory_bytes give the same bytes.
 *
 * -ERR_INVALID: an option out of range, more than 2^32 - 1 tokens, nothing to keep. -ERR_FORMAT: the model file.
 * -ERR_IO, -ERR_NOTFOUND, -ERR_NOMEM. */
int ngram_build(const struct ngram_build_options *o, struct ngram_build_report *report, struct err *e);

#endif
