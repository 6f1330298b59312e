#include "tok_hf.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "mem.h"

static const char space_mark[] = "\xe2\x96\x81"; /* U+2581 */

static const char *text_of(const json_t *v, const char *key)
{
    const char *s = json_string_value(json_object_get(v, key));
    return s ? s : "";
}

static int unknown(const char *step, const json_t *v, struct err *e)
{
    return err_set(e, ERR_FORMAT, "tokenizer.json: %s '%.40s' is not one Galley knows, or not with these settings",
                   step, text_of(v, "type"));
}

/* A Sequence's steps in turn, or the one. */
#define EACH_STEP(v, list, at, one)                                                                                    \
    for (size_t at = 0; (one = !strcmp(text_of(v, "type"), "Sequence") ? json_array_get(json_object_get(v, list), at)  \
                               : at                                    ? NULL                                          \
                                                                       : (v)) != NULL;                                                                    \
         at++)

/* ---- Normalizer ---- */

static bool replaces_spaces(const json_t *v)
{
    return !strcmp(text_of(json_object_get(v, "pattern"), "String"), " ") && !strcmp(text_of(v, "content"), space_mark);
}

static int read_normalizer(const json_t *v, struct tok_config *c, struct hf_steps *steps, struct err *e)
{
    const json_t *one;
    if (!json_is_object(v))
        return 0;
    EACH_STEP(v, "normalizers", i, one)
    {
        const char *type = text_of(one, "type");
        if (!strcmp(type, "NFC"))
            c->is_nfc = true;
        else if (!strcmp(type, "Replace") && replaces_spaces(one))
            steps->replaces_spaces = true;
        else if (!strcmp(type, "Prepend") && !strcmp(text_of(one, "prepend"), space_mark))
            c->prefix = TOK_PREFIX_ALWAYS;
        else
            return unknown("normalizer", one, e);
    }
    return 0;
}

/* ---- Pre-tokenizer ---- */

/* White space as the models' own engine understands \s, and \uXXXX, in PCRE2's spelling. Freed with mem_free. */
static char *translate(const char *regex)
{
    static const char ws[] =
        "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"
        "\\x{3000}";
    char *out = mem_alloc(strlen(regex) * (sizeof ws + 4) + 1), *to = out;
    bool in_class = false;
    if (!out)
        return NULL;
    for (const char *p = regex; *p; p++) {
        if (*p != '\\' || !p[1]) {
            in_class = *p == '[' ? true : *p == ']' ? false : in_class;
            *to++ = *p;
            continue;
        }
        p++;
        if (*p == 's')
            to += sprintf(to, in_class ? "%s" : "[%s]", ws);
        else if (*p == 'S' && !in_class)
            to += sprintf(to, "[^%s]", ws);
        else if (*p == 'u' && isxdigit((unsigned char)p[1]) && strspn(p + 1, "0123456789abcdefABCDEF") >= 4) {
            to += sprintf(to, "\\x{%.4s}", p + 1);
            p += 4;
        } else {
            *to++ = '\\';
            *to++ = *p;
        }
    }
    *to = 0;
    return out;
}

static int add_regex(struct tok_config *c, struct hf_steps *steps, const char *regex, struct err *e)
{
    if (c->n_regex == TOK_MAX_REGEX)
        return err_set(e, ERR_FORMAT, "tokenizer.json: over %d pre-tokenizers", TOK_MAX_REGEX);
    steps->regex[c->n_regex] = translate(regex);
    if (!steps->regex[c->n_regex])
        return err_set(e, ERR_NOMEM, "out of memory");
    c->n_regex++;
    return 0;
}

/* Pieces and what lies between them are all kept: that is what cutting by an expression does here. */
static int read_split(const json_t *v, struct tok_config *c, struct hf_steps *steps, struct err *e)
{
    const char *regex = text_of(json_object_get(v, "pattern"), "Regex"), *behavior = text_of(v, "behavior");
    bool is_inverse = json_is_true(json_object_get(v, "invert"));
    if (*regex && ((!strcmp(behavior, "Isolated") && !is_inverse) || (!strcmp(behavior, "Removed") && is_inverse)))
        return add_regex(c, steps, regex, e);
    /* Gemma's, which finds no space any more once the normalizer has replaced them. */
    if (steps->replaces_spaces && !strcmp(text_of(json_object_get(v, "pattern"), "String"), " "))
        return 0;
    return unknown("pre_tokenizer", v, e);
}

static int read_byte_level(const json_t *v, struct tok_config *c, struct hf_steps *steps, struct err *e)
{
    static const char gpt2[] = "'(?:[stmd]|re|ve|ll)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    if (json_is_true(json_object_get(v, "add_prefix_space")))
        return unknown("pre_tokenizer", v, e);
    return json_is_false(json_object_get(v, "use_regex")) ? 0 : add_regex(c, steps, gpt2, e);
}

static int read_metaspace(const json_t *v, struct tok_config *c, struct hf_steps *steps, struct err *e)
{
    const char *scheme = text_of(v, "prepend_scheme");
    if (strcmp(text_of(v, "replacement"), space_mark))
        return unknown("pre_tokenizer", v, e);
    steps->replaces_spaces = true;
    if (!strcmp(scheme, "first"))
        c->prefix = TOK_PREFIX_FIRST;
    else if (!strcmp(scheme, "always") || (!*scheme && !json_is_false(json_object_get(v, "add_prefix_space"))))
        c->prefix = TOK_PREFIX_MISSING;
    c->splits_spaces = !json_is_false(json_object_get(v, "split"));
    return 0;
}

static int read_pre_tokenizer(const json_t *v, struct tok_config *c, struct hf_steps *steps, struct err *e)
{
    const json_t *one;
    int rc = 0;
    if (!json_is_object(v))
        return 0;
    EACH_STEP(v, "pretokenizers", i, one)
    {
        const char *type = text_of(one, "type");
        if (!strcmp(type, "Split"))
            rc = read_split(one, c, steps, e);
        else if (!strcmp(type, "ByteLevel"))
            rc = read_byte_level(one, c, steps, e);
        else if (!strcmp(type, "Digits"))
            rc = add_regex(c, steps, json_is_true(json_object_get(one, "individual_digits")) ? "\\p{N}" : "\\p{N}+", e);
        else if (!strcmp(type, "Metaspace"))
            rc = read_metaspace(one, c, steps, e);
        else
            rc = unknown("pre_tokenizer", one, e);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- Post-processor ---- */

/* At most one token before the text and one after it. */
static int read_template(const json_t *v, struct hf_steps *steps, struct err *e)
{
    const json_t *single = json_object_get(v, "single");
    bool is_after = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *part = json_array_get(single, i), *special = json_object_get(part, "SpecialToken");
        if (!special) {
            is_after = true;
            continue;
        }
        const char **name = is_after ? &steps->eos : &steps->bos;
        if (*name)
            return unknown("post_processor", v, e);
        *name = text_of(special, "id");
    }
    return 0;
}

static int read_post_processor(const json_t *v, struct hf_steps *steps, struct err *e)
{
    const json_t *one;
    if (!json_is_object(v))
        return 0;
    EACH_STEP(v, "processors", i, one)
    {
        const char *type = text_of(one, "type");
        int rc = !strcmp(type, "TemplateProcessing") ? read_template(one, steps, e)
                 : !strcmp(type, "ByteLevel")        ? 0
                                                     : unknown("post_processor", one, e);
        if (rc)
            return rc;
    }
    return 0;
}

int hf_read_steps(const json_t *file, struct tok_config *c, struct hf_steps *steps, struct err *e)
{
    int rc = read_normalizer(json_object_get(file, "normalizer"), c, steps, e);
    if (!rc)
        rc = read_pre_tokenizer(json_object_get(file, "pre_tokenizer"), c, steps, e);
    if (!rc)
        rc = read_post_processor(json_object_get(file, "post_processor"), steps, e);
    c->regex = (const char *const *)steps->regex;
    return rc;
}

void hf_steps_free(struct hf_steps *steps)
{
    for (int i = 0; i < TOK_MAX_REGEX; i++)
        mem_free(steps->regex[i]);
}
