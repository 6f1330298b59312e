/* libFuzzer: text through encode and decode. The ids' bytes are the text again, and the incremental decoder gives the
 * text itself when it is UTF-8, and always whole characters. The first byte of the input chooses flags and family. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"
#include "tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const merges[] = {
    "a a", "aa aa", "a b", "\u0120 a", "\u0120 \u0120", "\u0120\u0120 \u0120\u0120", "\u00c3 \u00a9", "1 1", "! !"};
/* Those that do not normalise: their texts come back byte by byte. */
static const char *const family[] = {"gpt-2", "smollm", "llama-bpe"};

static struct tokenizer *tok[3];
static struct tok_scratch *scratch[3];

static void check(int must)
{
    if (!must)
        abort();
}

static void start(void)
{
    struct err e;
    for (int i = 0; i < 3; i++) {
        check(!tok_new_tiny(&tok[i], family[i], merges, sizeof merges / sizeof *merges, &e));
        check((scratch[i] = tok_scratch_new(tok[i])) != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!tok[0])
        start();
    if (size < 1)
        return 0;
    int which = data[0] % 3, flags = data[0] / 3 % 2 ? TOK_PARSE_SPECIAL : 0;
    const struct tokenizer *t = tok[which];
    const char *text = (const char *)data + 1;
    size_t len = size - 1, n, n_again;
    int32_t *id = malloc((len + 1) * sizeof *id);
    char *back = malloc(len + 1), *decoded = malloc(len * 3 + detok_bound(t));
    struct err e;

    check(!tok_encode(t, text, len, flags, id, len + 1, &n, scratch[which], &e));
    check(tok_encode(t, text, len, flags, NULL, 0, &n_again, scratch[which], &e) == (n ? -ERR_TOOLONG : 0) &&
          n_again == n);

    struct detok d;
    detok_init(&d, t, false);
    size_t n_back = 0, n_decoded = 0;
    for (size_t i = 0; i < n; i++) {
        struct slice piece = tok_piece(t, id[i]);
        check(piece.len <= len - n_back);
        memcpy(back + n_back, piece.p, piece.len);
        n_back += piece.len;
        size_t now = detok_push(&d, id[i], decoded + n_decoded);
        check(now <= detok_bound(t) && utf8_valid(decoded + n_decoded, now));
        n_decoded += now;
    }
    n_decoded += detok_flush(&d, decoded + n_decoded);
    check(n_back == len && !memcmp(back, text, len));
    if (utf8_valid(text, len))
        check(n_decoded == len && !memcmp(decoded, text, len));
    free(id);
    free(back);
    free(decoded);
    return 0;
}
