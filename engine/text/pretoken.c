/* Cutting text into words, the pieces that merges never cross, with the regular expression each family of models was
 * trained with. Matching runs on PCRE2's JIT where the machine has it. */
#include <string.h>

#include "mem.h"
#include "tok_impl.h"

/* White space by the Unicode property, spelled out: PCRE2's \s adds U+180E, which the models' own engine does not. */
#define WS "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define TAIL_SPACE "[" WS "]+(?![^" WS "])|[" WS "]+"
#define PUNCTUATION " ?[^" WS "\\p{L}\\p{N}]+"

static const char gpt2_regex[] = "'(?:[stmd]|re|ve|ll)| ?\\p{L}+| ?\\p{N}+|" PUNCTUATION "|" TAIL_SPACE;

/* Digits are cut out one by one first, so a run of spaces before a digit ends a text of its own. */
static const char digits_regex[] =
    "'(?:[stmd]|re|ve|ll)| ?\\p{L}+|\\p{N}|" PUNCTUATION "|[" WS "]+(?![^" WS "\\p{N}])|[" WS "]+";

#define NEWER_REGEX(digits)                                                                                            \
    "(?i:'(?:[stmd]|re|ve|ll))|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "|" PUNCTUATION "[\\r\\n]*|[" WS                 \
    "]*[\\r\\n]+|" TAIL_SPACE

static const char llama3_regex[] = NEWER_REGEX("\\p{N}{1,3}");
static const char qwen2_regex[] = NEWER_REGEX("\\p{N}");

/* A word does not go from small letters to capital ones; marks belong to letters. */
#define CAPITALS "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define SMALL "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CONTRACTION "(?i:'(?:[stmd]|re|ve|ll))?"

static const char gpt4o_regex[] =
    "[^\\r\\n\\p{L}\\p{N}]?" CAPITALS "*" SMALL "+" CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?" CAPITALS "+" SMALL
    "*" CONTRACTION "|\\p{N}{1,3}|" PUNCTUATION "[\\r\\n/]*|[" WS "]*[\\r\\n]+|" TAIL_SPACE;

/* The families. ignore_merges: a word that is a token becomes that token, whatever the merges say. */
struct family {
    const char *regex;
    bool is_nfc, ignore_merges, adds_bos;
};

static const struct family gpt2 = {gpt2_regex, false, false, false}, digits = {digits_regex, false, false, false},
                           llama3 = {llama3_regex, false, true, true}, qwen2 = {qwen2_regex, true, false, false},
                           gpt4 = {llama3_regex, false, false, false}, gpt4o = {gpt4o_regex, false, false, false};

/* tokenizer.ggml.pre as converters write it; only names whose models were checked to cut like this. */
static const struct {
    const char *name;
    const struct family *family;
} name_table[] = {
    {"default", &gpt2},  {"gpt-2", &gpt2},
    {"gpt2", &gpt2},     {"phi-2", &gpt2},
    {"smollm", &digits}, {"starcoder", &digits},
    {"refact", &digits}, {"llama-bpe", &llama3},
    {"llama3", &llama3}, {"llama-v3", &llama3},
    {"qwen2", &qwen2},   {"qwen2.5", &qwen2},
    {"qwen3", &qwen2},   {"deepseek-r1-qwen", &qwen2},
    {"dbrx", &gpt4},     {"smaug-bpe", &gpt4},
    {"gpt-4o", &gpt4o},
};

static const struct family *family_find(const char *name)
{
    for (size_t i = 0; i < sizeof name_table / sizeof *name_table; i++)
        if (!strcmp(name_table[i].name, name))
            return name_table[i].family;
    return NULL;
}

/* ---- PCRE2 ---- */

enum { JIT_STACK_START = 32 << 10, JIT_STACK_MAX = 8 << 20, HEAP_LIMIT_KIB = 64 << 10, MATCH_LIMIT = 50 * 1000 * 1000 };

static void *pcre_alloc(size_t size_bytes, void *unused)
{
    return mem_alloc(size_bytes);
}

static void pcre_free(void *p, void *unused)
{
    mem_free(p);
}

static int add_stage(struct pretoken *p, const char *regex, struct err *e)
{
    pcre2_general_context *general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
    int code = 0;
    PCRE2_SIZE offset;
    pcre2_code *made = NULL;
    if (context)
        made = pcre2_compile((PCRE2_SPTR)regex, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &offset, context);
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    if (!made && (!code || code == PCRE2_ERROR_HEAP_FAILED))
        return err_set(e, ERR_NOMEM, "out of memory for the pre-tokenizer's expression");
    if (!made)
        return err_set(e, ERR_FORMAT, "the pre-tokenizer's expression does not compile (PCRE2 error %d)", code);
    if (pcre2_jit_compile(made, PCRE2_JIT_COMPLETE))
        p->has_jit = false;
    p->code[p->n_stage++] = made;
    return 0;
}

int pretoken_init(struct pretoken *p, const struct tok_config *c, struct err *e)
{
    *p = (struct pretoken){.has_jit = true, .is_nfc = c->is_nfc, .ignore_merges = c->ignores_merges};
    if (!c->regex) {
        const char *name = c->pre ? c->pre : "default";
        const struct family *f = family_find(name);
        if (!f)
            return err_set(e, ERR_FORMAT, "unknown pre-tokenizer '%.100s' (tokenizer.ggml.pre)", name);
        p->is_nfc = f->is_nfc;
        p->ignore_merges = f->ignore_merges;
        p->adds_bos = f->adds_bos;
        return add_stage(p, f->regex, e);
    }
    if (c->n_regex > TOK_MAX_REGEX)
        return err_set(e, ERR_FORMAT, "the pre-tokenizer has %d expressions, over %d", c->n_regex, TOK_MAX_REGEX);
    int rc = 0;
    for (int i = 0; !rc && i < c->n_regex; i++)
        rc = add_stage(p, c->regex[i], e);
    return rc;
}

void pretoken_free(struct pretoken *p)
{
    for (int i = 0; i < p->n_stage; i++)
        pcre2_code_free(p->code[i]);
}

int pretoken_scratch_init(struct pretoken_scratch *s, const struct pretoken *p)
{
    *s = (struct pretoken_scratch){0};
    pcre2_general_context *general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (!general)
        return -ERR_NOMEM;
    s->match = pcre2_match_data_create(1, general);
    s->context = pcre2_match_context_create(general);
    if (p->has_jit)
        s->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, general);
    pcre2_general_context_free(general);
    if (!s->match || !s->context || (p->has_jit && !s->stack))
        return -ERR_NOMEM;
    pcre2_set_match_limit(s->context, MATCH_LIMIT);
    pcre2_set_heap_limit(s->context, HEAP_LIMIT_KIB);
    if (s->stack)
        pcre2_jit_stack_assign(s->context, NULL, s->stack);
    return 0;
}

void pretoken_scratch_free(struct pretoken_scratch *s)
{
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    if (s->stack)
        pcre2_jit_stack_free(s->stack);
}

size_t pretoken_next(const struct pretoken *p, int stage, struct pretoken_scratch *s, const char *text, size_t n,
                     size_t at)
{
    PCRE2_SPTR t = (PCRE2_SPTR)text;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (p->has_jit)
        rc = pcre2_jit_match(p->code[stage], t, n, at, PCRE2_NO_UTF_CHECK, s->match, s->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(p->code[stage], t, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->match, s->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return n;
    if (rc < 0)
        return 0;
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(s->match);
    /* What the expression skips is a piece too. */
    return range[0] > at ? range[0] : range[1] > at ? range[1] : n;
}
