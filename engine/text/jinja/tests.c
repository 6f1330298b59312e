/* Tests: `x is defined`. The table is at the end. */
#include "builtin.h"
#include "iter.h"
#include "ops.h"
#include "text.h"
#include "ustr.h"

#define TEST(name)                                                                                                     \
    static struct jval t_##name(struct jrt *rt, struct jval self, const struct jval *arg, const struct jargs *all)

static int64_t modulo(struct jrt *rt, struct jval v, struct jval by)
{
    struct jval m = jops_binary(rt, JOP_MOD, v, by);
    if (m.kind == J_FLOAT)
        return m.f == 0 ? 0 : m.f == 1 ? 1 : 2;
    return jval_is_int(m) ? jval_as_int(m) : 2;
}

TEST(odd)
{
    return jval_bool(modulo(rt, self, jval_int(2)) == 1);
}

TEST(even)
{
    return jval_bool(modulo(rt, self, jval_int(2)) == 0);
}

TEST(divisibleby)
{
    return jval_bool(modulo(rt, self, arg[0]) == 0);
}

TEST(defined)
{
    return jval_bool(self.kind != J_UNDEF);
}

TEST(undefined)
{
    return jval_bool(self.kind == J_UNDEF);
}

static bool is_known(struct jrt *rt, const struct jbuiltin_table *t, struct jval name)
{
    if (!jval_hashable(name))
        jrt_fail(rt, "unhashable type: '%s'", jval_type(name));
    return name.kind == J_STR && jbuiltin_find(t, name.s);
}

TEST(filter)
{
    return jval_bool(is_known(rt, &jbuiltin_filters, self));
}

TEST(test)
{
    return jval_bool(is_known(rt, &jbuiltin_tests, self));
}

TEST(none)
{
    return jval_bool(self.kind == J_NONE);
}

TEST(boolean)
{
    return jval_bool(self.kind == J_BOOL);
}

TEST(true)
{
    return jval_bool(self.kind == J_BOOL && self.b);
}

TEST(false)
{
    return jval_bool(self.kind == J_BOOL && !self.b);
}

TEST(integer)
{
    return jval_bool(self.kind == J_INT);
}

TEST(float)
{
    return jval_bool(self.kind == J_FLOAT);
}

TEST(number)
{
    return jval_bool(jval_is_num(self));
}

TEST(string)
{
    return jval_bool(self.kind == J_STR);
}

TEST(mapping)
{
    return jval_bool(self.kind == J_DICT);
}

TEST(sequence)
{
    return jval_bool(jiter_len(rt, self) >= 0 && self.kind != J_VIEW);
}

TEST(iterable)
{
    return jval_bool(jiter_can(self) || self.kind == J_LOOP);
}

TEST(callable)
{
    bool yes = self.kind == J_UNDEF || self.kind == J_MACRO || self.kind == J_FUNC || self.kind == J_METHOD ||
               self.kind == J_LOOP || self.kind == J_JOINER;
    return jval_bool(yes);
}

TEST(sameas)
{
    return jval_bool(jval_same(self, arg[0]));
}

TEST(escaped)
{
    return jval_bool(self.kind == J_STR && self.markup);
}

TEST(in)
{
    return jval_bool(jops_contains(rt, arg[0], self));
}

TEST(lower)
{
    return jstr_one_case(jtext_of(rt, self), ustr_is_lower, ustr_is_upper);
}

TEST(upper)
{
    return jstr_one_case(jtext_of(rt, self), ustr_is_upper, ustr_is_lower);
}

#define COMPARE(name, op)                                                                                              \
    TEST(name)                                                                                                         \
    {                                                                                                                  \
        return jval_bool(jops_compare(rt, op, self, arg[0]));                                                          \
    }

COMPARE(eq, JOP_EQ)
COMPARE(ne, JOP_NE)
COMPARE(lt, JOP_LT)
COMPARE(le, JOP_LE)
COMPARE(gt, JOP_GT)
COMPARE(ge, JOP_GE)

static const struct jbuiltin rows[] = {
    {"!=", t_ne, 1, 1, NULL},
    {"<", t_lt, 1, 1, NULL},
    {"<=", t_le, 1, 1, NULL},
    {"==", t_eq, 1, 1, NULL},
    {">", t_gt, 1, 1, NULL},
    {">=", t_ge, 1, 1, NULL},
    {"boolean", t_boolean, 0, 0, NULL},
    {"callable", t_callable, 0, 0, NULL},
    {"defined", t_defined, 0, 0, NULL},
    {"divisibleby", t_divisibleby, 1, 1, "num"},
    {"eq", t_eq, 1, 1, NULL},
    {"equalto", t_eq, 1, 1, NULL},
    {"escaped", t_escaped, 0, 0, NULL},
    {"even", t_even, 0, 0, NULL},
    {"false", t_false, 0, 0, NULL},
    {"filter", t_filter, 0, 0, NULL},
    {"float", t_float, 0, 0, NULL},
    {"ge", t_ge, 1, 1, NULL},
    {"greaterthan", t_gt, 1, 1, NULL},
    {"gt", t_gt, 1, 1, NULL},
    {"in", t_in, 1, 1, "seq"},
    {"integer", t_integer, 0, 0, NULL},
    {"iterable", t_iterable, 0, 0, NULL},
    {"le", t_le, 1, 1, NULL},
    {"lessthan", t_lt, 1, 1, NULL},
    {"lower", t_lower, 0, 0, NULL},
    {"lt", t_lt, 1, 1, NULL},
    {"mapping", t_mapping, 0, 0, NULL},
    {"ne", t_ne, 1, 1, NULL},
    {"none", t_none, 0, 0, NULL},
    {"number", t_number, 0, 0, NULL},
    {"odd", t_odd, 0, 0, NULL},
    {"sameas", t_sameas, 1, 1, "other"},
    {"sequence", t_sequence, 0, 0, NULL},
    {"string", t_string, 0, 0, NULL},
    {"test", t_test, 0, 0, NULL},
    {"true", t_true, 0, 0, NULL},
    {"undefined", t_undefined, 0, 0, NULL},
    {"upper", t_upper, 0, 0, NULL},
};
const struct jbuiltin_table jbuiltin_tests = JBUILTIN_TABLE(rows);
