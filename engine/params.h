/* The parameters of a request, before there is one. Private to engine/. */
#ifndef GALLEY_PARAMS_H
#define GALLEY_PARAMS_H

#include "request.h"
#include "verify/verify.h"

/* Checks every range, and decides max_tokens where it was left open. -ERR_INVALID names the field; -ERR_TOOLONG: prompt
 * and max_tokens do not fit the context or the KV cache, ever. */
int params_check(struct gen_params *p, const int32_t *prompt, int32_t n_prompt, const struct request_limits *lim,
                 int32_t n_vocab, struct err *e);

/* A verifier other than NSS settles its drafts. */
bool params_names_verifier(const struct gen_params *p);
enum verify_kind params_verifier(const struct gen_params *p);
/* How drafts are drawn: as asked, or as suits the verifier. */
enum draft_law params_draft_law(const struct gen_params *p);

struct param_range {
    const char *field;
    double value, lo, hi;
    bool open_lo; /* lo itself is excluded */
};
/* -ERR_INVALID names the first field that is out of its range; NaN always is. */
int params_check_ranges(const struct param_range *range, size_t n, struct err *e);

#endif
