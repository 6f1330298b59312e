/* From template text to tokens, with jinja2's whitespace rules (trim_blocks, lstrip_blocks, the signs - and +).
 * For engine/text/jinja only. */
#ifndef GALLEY_JINJA_LEX_H
#define GALLEY_JINJA_LEX_H

#include "value.h"

enum jtok_kind {
    JTOK_EOF,
    JTOK_DATA,
    JTOK_BLOCK_BEGIN,
    JTOK_BLOCK_END,
    JTOK_VAR_BEGIN,
    JTOK_VAR_END,
    JTOK_NAME,
    JTOK_STRING,
    JTOK_INT,
    JTOK_FLOAT,
    /* operators: the order of lex.c's table */
    JTOK_POW,
    JTOK_FLOORDIV,
    JTOK_EQ,
    JTOK_NE,
    JTOK_GE,
    JTOK_LE,
    JTOK_ADD,
    JTOK_SUB,
    JTOK_DIV,
    JTOK_MUL,
    JTOK_MOD,
    JTOK_TILDE,
    JTOK_LBRACKET,
    JTOK_RBRACKET,
    JTOK_LPAREN,
    JTOK_RPAREN,
    JTOK_LBRACE,
    JTOK_RBRACE,
    JTOK_GT,
    JTOK_LT,
    JTOK_ASSIGN,
    JTOK_DOT,
    JTOK_COLON,
    JTOK_PIPE,
    JTOK_COMMA,
    JTOK_SEMICOLON,
};

struct jtok {
    enum jtok_kind kind;
    int line;
    struct jstr *s;  /* data, name, string */
    struct jval num; /* int, float */
};

/* All tokens of src, JTOK_EOF last. The source is copied: nothing points into it afterwards. */
struct jtok *jlex_run(struct jrt *rt, const char *src, size_t n);
const char *jlex_describe(enum jtok_kind kind); /* for messages */

#endif
