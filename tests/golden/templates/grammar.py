"""Random small templates for the differential test of the chat-template engine: a grammar that mostly makes sense, so
that most cases render, and sometimes does not, so that errors are compared too."""
import random

VARS = {
    "s": "Hello, World",
    "t": "  two words\n and a line ",
    "u": "Straße Ünï ΣΑΣ 漢字 🙂 ǆ",
    "e": "",
    "m": "<b>\"x\" & 'y'</b>",
    "num": "42.5",
    "n": 7,
    "z": 0,
    "neg": -3,
    "f": 2.5,
    "g": 1e16,
    "h": -0.1,
    "yes": True,
    "no": False,
    "none_": None,
    "l": [3, 1, 2],
    "ls": ["b", "A", "c", "a", "B"],
    "le": [],
    "lm": [1, "a", None, True, 2.5, [1], {"k": "v"}],
    "ll": [[1, "x"], [2, "y"], [3, "z"]],
    "d": {"a": 1, "b": "two", "c": [1, 2], "items": "it", "Z": None},
    "de": {},
    "dd": {"x": {"y": {"z": "deep"}}, "k": "v"},
    "rows": [
        {"name": "Ann", "age": 30, "tag": "x", "addr": {"city": "Oslo"}},
        {"name": "bob", "age": 25, "tag": "y", "addr": {"city": "Rome"}},
        {"name": "Cid", "age": 30, "tag": "x", "addr": {}},
    ],
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi\n"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1.0}}}]},
        {"role": "tool", "content": "{\"r\": [1, 2]}"},
    ],
}
STRINGS = ["s", "t", "u", "e", "m", "num", "'a'", "'b-c d'", '"x\\ty\\n"', "'%s-%s'", "'é'", "'aXbXc'", "'  '",
           "'{}:{}'", "'\\u00e9\\x41\\101'", "'It''s'", "'1,2,3'", "'abcabc'", "'ß'", "'Ａ1'"]
INTS = ["n", "z", "neg", "0", "1", "2", "3", "-1", "10", "0x1f", "1_000", "l|length", "s|length"]
FLOATS = ["f", "g", "h", "1.5", "0.1", "1e3", "2.0", "1e-7", "123456789.123", "-2.5", "3.0"]
LISTS = ["l", "ls", "le", "lm", "ll", "[1, 2, 3]", "['x', 'y']", "(1, 2)", "range(4)", "range(1, 9, 3)", "rows", "()",
         "(5,)", "messages", "d.keys()", "d.values()", "d.items()", "[n, s]", "ls|select('lower')", "u.split()"]
DICTS = ["d", "de", "dd", "rows[0]", "messages[2]", "{'q': 1, 'r': s}", "{1: 'i', 'k': none, 2.5: true}", "dict(a=n)",
         "messages[0]"]
ODD = ["undefined_", "none_", "yes", "no", "none", "true", "False", "d.nope", "ns", "loop", "m1", "range", "l.append",
       "d.update", "s.upper", "namespace(a=1)", "joiner('|')", "cycler('a', 'b')", "rows.name", "s.__class__"]
ATTRS = ["a", "b", "c", "items", "name", "age", "role", "content", "x", "upper", "keys", "nope", "Z", "k", "__len__",
         "get", "addr"]
STR_METHODS = ["upper()", "lower()", "title()", "capitalize()", "strip()", "lstrip()", "rstrip()", "strip(' H')",
               "lstrip('aH ')", "rstrip('d\\n ')", "split()", "split(' ')", "split(',', 1)", "split('X')", "rsplit(' ', 1)",
               "rsplit()", "splitlines()", "splitlines(true)", "replace('l', 'L')", "replace('', '-')",
               "replace('a', 'b', 1)", "startswith('H')", "endswith(('d', 'x'))", "find('o')", "rfind('o')", "find('o', 5)",
               "count('l')", "count('')", "index('H')", "isdigit()", "isalpha()", "isspace()", "isupper()", "islower()",
               "istitle()", "isalnum()", "removeprefix('He')", "removesuffix('ld')", "center(20, '*')", "ljust(15)",
               "rjust(15, '0')", "zfill(8)", "partition(',')", "rpartition('l')", "swapcase()", "join(ls)", "join('xyz')",
               "format(1, n)", "format('q', s)", "casefold()", "expandtabs(4)", "isnumeric()", "isdecimal()",
               "isidentifier()", "isprintable()", "isascii()", "split(none, 1)", "split(maxsplit=1)", "format_map(d)"]
LIST_METHODS = ["index(1)", "count(1)", "count('a')", "append(1)", "copy()", "index('zzz')", "pop()", "index('a')"]
DICT_METHODS = ["get('a')", "get('nope')", "get('nope', 'dflt')", "items()", "keys()", "values()", "pop('a')", "copy()",
                "get('k', d)", "items()|list", "keys()|list", "update({})", "get([])"]
FILTERS = ["upper", "lower", "title", "capitalize", "trim", "trim('H')", "length", "count", "list", "first", "last", "join",
           "join(', ')", "join('-', attribute='name')", "string", "int", "int(9)", "int(base=16)", "float", "abs", "round",
           "round(1)", "round(1, 'floor')", "round(0, 'ceil')", "round(-1)", "sum", "sum(attribute='age')", "sum(start=5)",
           "min", "max", "max(attribute='age')", "sort", "sort(reverse=true)", "sort(attribute='name')",
           "sort(case_sensitive=true)", "sort(attribute='age,name')", "unique|list", "unique", "reverse|list", "reverse",
           "default('D')", "default('D', true)", "d('x')", "tojson", "tojson(indent=2)", "tojson(indent=4)",
           "tojson(sort_keys=true)", "tojson(ensure_ascii=true)", "tojson(separators=(',', ':'))", "safe", "escape", "e",
           "replace('l', '[l]')", "replace('a', 'b', 1)", "replace(1, 2)", "indent", "indent(2)", "indent(2, true)",
           "indent('> ', true, true)", "wordcount", "map('upper')|list", "map(attribute='name')|list",
           "map(attribute='addr.city', default='?')|list", "map('length')|list", "select|list", "select('odd')|list",
           "reject('odd')|list", "select('string')|list", "reject('none')|list", "selectattr('age')|list",
           "selectattr('tag', 'equalto', 'x')|list", "rejectattr('tag', 'eq', 'x')|map(attribute='name')|join(',')",
           "selectattr('age', 'gt', 26)|list|length", "dictsort", "dictsort(by='value')", "dictsort(true, reverse=true)",
           "items|list", "batch(2)|list", "batch(2, 'f')|list", "slice(2)|list", "slice(3, 'f')|list", "groupby('tag')",
           "groupby('age')|map('first')|list", "groupby('tag')|map(attribute='list')|map('length')|list", "center(20)",
           "format(1, 2)", "format(n)", "format(a=1)", "attr('a')", "attr('upper')", "truncate(5)", "truncate(5, true, '')",
           "truncate(8, false, '..', 0)", "striptags", "urlencode", "forceescape", "map('int')|sum", "map('default', 'x')|list",
           "nosuchfilter", "list|length", "select('in', [1, 2])|list", "select('divisibleby', 2)|list", "first|upper",
           "map('tojson')|join(' ')", "map('replace', 'a', 'b')|list"]
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping",
         "sequence", "iterable", "callable", "odd", "even", "divisibleby 3", "divisibleby(2)", "eq 1", "equalto('a')",
         "ne 1", "lt 5", "gt 2", "ge 3", "le 2", "in [1, 2]", "in 'abc'", "in(ls)", "lower", "upper", "sameas none",
         "sameas true", "filter", "test", "escaped", "greaterthan 1", "nosuchtest", "== 1"]
WHITE = ["", "", "", "-", "+"]
TEXT = [" ", "\n", "  \n  ", "text", "\n\n", "a\n  ", "  b", "\t\n", "é ", "{", "}", "%", "{ {", "x\r\ny", " \x0b "]


class Gen:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.budget = 14

    def pick(self, seq):
        return self.r.choice(seq)

    def spend(self):
        self.budget -= 1
        return self.budget > 0

    def atom(self, kind=None):
        kind = kind or self.r.choices("sifldo", [5, 4, 2, 4, 3, 2])[0]
        if self.r.random() < 0.04:
            kind = "o"
        return self.pick({"s": STRINGS, "i": INTS, "f": FLOATS, "l": LISTS, "d": DICTS, "o": ODD}[kind])

    def expr(self, depth=0):
        if depth > 3 or not self.spend():
            return self.atom()
        k = self.r.random()
        e = self.expr
        if k < 0.18:
            return self.atom()
        if k < 0.36:
            return f"{self.postfixable(depth)}|{self.pick(FILTERS)}"
        if k < 0.44:
            return f"{self.postfixable(depth)} is {self.pick(['', '', 'not '])}{self.pick(TESTS)}"
        if k < 0.54:
            kind = self.pick("sssld")
            methods = {"s": STR_METHODS, "l": LIST_METHODS, "d": DICT_METHODS}[kind]
            return f"({self.atom(kind)}).{self.pick(methods)}"
        if k < 0.60:
            return f"{self.postfixable(depth)}.{self.pick(ATTRS)}"
        if k < 0.66:
            return f"{self.postfixable(depth)}[{self.subscript(depth)}]"
        if k < 0.76:
            kind = self.pick("iiiffssl")
            op = self.pick(["+", "-", "*", "/", "//", "%", "**", "+", "*"])
            return f"{self.atom(kind)} {op} {self.atom(self.pick([kind, kind, 'i', 'f']))}"
        if k < 0.80:
            return f"{e(depth + 1)} ~ {e(depth + 1)}"
        if k < 0.87:
            kind = self.pick("iisfl")
            op = self.pick(["==", "!=", "<", ">", "<=", ">=", "in", "not in"])
            chain = f" {self.pick(['<', '==', '>='])} {self.atom(kind)}" if self.r.random() < 0.2 else ""
            return f"{self.atom(kind)} {op} {self.atom(self.pick([kind, 'l', 'd']) if 'in' in op else kind)}{chain}"
        if k < 0.91:
            return f"{e(depth + 1)} {self.pick(['and', 'or'])} {e(depth + 1)}"
        if k < 0.93:
            return f"{self.pick(['not ', '-', '+'])}{self.postfixable(depth)}"
        if k < 0.96:
            tail = f" else {e(depth + 1)}" if self.r.random() < 0.8 else ""
            return f"{e(depth + 1)} if {e(depth + 1)}{tail}"
        if k < 0.98:
            items = ", ".join(e(depth + 1) for _ in range(self.r.randint(0, 3)))
            return self.pick([f"[{items}]", f"({items},)" if items else "()"])
        return "{" + ", ".join(f"{self.atom(self.pick('ssi'))}: {e(depth + 1)}" for _ in range(self.r.randint(0, 3))) + "}"

    def postfixable(self, depth):
        return self.atom() if self.r.random() < 0.65 else f"({self.expr(depth + 1)})"

    def subscript(self, depth):
        k = self.r.random()
        if k < 0.3:
            return self.atom("i")
        if k < 0.45:
            return repr(self.pick(ATTRS))
        if k < 0.55:
            return self.expr(depth + 1)
        part = lambda: self.pick(["", "", "1", "-1", "2", "-2", "0", "n", "100", "-100"])  # noqa: E731
        step = self.pick(["", "", ":", ":2", ":-1", ":-2", ":1"])
        return f"{part()}:{part()}{step}"

    def tag(self, inner):
        return "{%" + self.pick(WHITE) + " " + inner + " " + self.pick(WHITE) + "%}"

    def output(self):
        return "{{" + self.pick(["", "", "-"]) + " " + self.expr() + " " + self.pick(["", "", "-"]) + "}}"

    def target(self):
        return self.pick(["v", "v", "w", "n", "s", "item"])

    def stmt(self, depth, in_loop=False):
        k = self.r.random()
        body = lambda loop=in_loop: self.body(depth + 1, loop)  # noqa: E731
        t = self.tag
        if depth > 2 or k < 0.30 or not self.spend():
            return self.output()
        if k < 0.42:
            out = t("if " + self.expr()) + body()
            if self.r.random() < 0.3:
                out += t("elif " + self.expr()) + body()
            if self.r.random() < 0.4:
                out += t("else") + body()
            return out + t("endif")
        if k < 0.58:
            head = self.pick(["for i in " + self.atom("l"), "for i in " + self.expr(), "for a, b in " + self.pick(["ll", "d.items()", "d|items", "rows"]),
                              "for v in " + self.atom("l") + " if " + self.expr(), "for k in " + self.atom("d"),
                              "for i in l if i is odd", "for s in ls"])
            inner = body(True) + self.pick(["", "{{ loop.index }}", "{{ loop.last }}{{ loop.length }}", "{{ i }}",
                                             "{{ loop.previtem }}/{{ loop.nextitem }}", "{{ loop.cycle('a', 'b') }}",
                                             "{{ loop.changed(i) }}", "{{ loop.revindex0 }}{{ loop.first }}",
                                             t("if loop.index > 1") + t("break") + t("endif"),
                                             t("if loop.first") + t("continue") + t("endif"), "{{ loop }}"])
            orelse = t("else") + body() if self.r.random() < 0.2 else ""
            return t(head) + inner + orelse + t("endfor")
        if k < 0.72:
            k2 = self.r.random()
            if k2 < 0.6:
                return t(f"set {self.target()} = {self.expr()}")
            if k2 < 0.7:
                return t("set v, w = " + self.pick(["1, 2", "ll[0]", "'ab'", self.expr()]))
            if k2 < 0.85:
                return t("set ns = namespace(x=1)") + t("set ns.x = " + self.expr()) + "{{ ns.x }}{{ ns }}"
            return t("set " + self.target() + self.pick(["", " | upper", " | trim | length"])) + body() + t("endset")
        if k < 0.82:
            sig = self.pick(["", "a", "a, b=2", "a=1, b=s", "a, b=a"])
            call = self.pick(["", "1", "1, 2", "a=3", "1, b='q'", "b=1", "1, 2, 3", "1, zzz=4", "*[1, 2]", "**{'a': 5}"])
            inner = self.pick(["{{ a }}{{ b }}", "{{ varargs }}", "{{ kwargs }}", "{{ caller() }}", body(False), "{{ v }}"])
            use = self.pick([f"{{{{ m1({call}) }}}}", t(f"call m1({call})") + body(False) + t("endcall"), "{{ m1.name }}"])
            return t(f"macro m1({sig})") + inner + t("endmacro") + use
        if k < 0.86:
            return t("with v = " + self.expr() + self.pick(["", ", w = 2", ", w = v"])) + body() + "{{ v }}{{ w }}" + t("endwith")
        if k < 0.90:
            return t("filter " + self.pick(["upper", "trim", "replace('a', 'b')", "indent(2)", "length", "trim|upper"])) + body() + t("endfilter")
        if k < 0.93:
            return t("raw") + self.pick(["{{ x }}", "{% if %}", " \n ", "{#"]) + t("endraw")
        if k < 0.96:
            return "{#" + self.pick(WHITE) + " comment \n" + self.pick(WHITE) + "#}"
        if k < 0.98:
            return t("generation") + body(False) + t("endgeneration")
        return t("print " + self.expr())

    def body(self, depth=0, in_loop=False):
        out = ""
        for _ in range(self.r.randint(1, 3 if depth else 4)):
            if self.r.random() < 0.5:
                out += self.pick(TEXT)
            out += self.stmt(depth, in_loop)
        return out + (self.pick(TEXT) if self.r.random() < 0.3 else "")


class Scopes(Gen):
    """Few names, set and read everywhere: which variable does each one mean?"""

    NAMES = ["n", "s", "q", "l2", "loop"]

    def name(self):
        return self.pick(self.NAMES[:4] * 3 + ["loop"]) if self.r.random() < 0.02 else self.pick(self.NAMES[:4])

    def show(self):
        return "{{ " + self.name() + " }};"

    def value(self):
        return self.pick([str(self.r.randint(0, 9)), self.name(), f"{self.name()} ~ 'x'", f"[{self.name()}]", "'lit'",
                          f"{self.name()} is defined"])

    def stmt(self, depth, in_loop=False):
        k = self.r.random()
        if depth > 3 or k < 0.3 or not self.spend():
            return self.show()
        n, t = self.name(), lambda x: "{% " + x + " %}"  # noqa: E731
        body = lambda loop=in_loop: "".join(self.stmt(depth + 1, loop) for _ in range(self.r.randint(1, 3)))  # noqa: E731
        if k < 0.45:
            return t(f"set {n} = {self.value()}")
        if k < 0.60:
            out = t("if " + self.pick(["true", "false", n, f"{n} is defined", "1 == 2"])) + body()
            if self.r.random() < 0.4:
                out += t("elif " + self.value()) + body()
            if self.r.random() < 0.5:
                out += t("else") + body()
            return out + t("endif")
        if k < 0.75:
            head = self.pick([f"for {n} in [1, 2]", f"for {n} in 'ab' if {self.value()}", f"for {n}, {self.name()}2 in ll",
                              f"for {n} in le", f"for {n} in l", f"for {n} in [1, 2, 3] if {n} != 2"])
            tail = self.pick(["", "", "{{ loop.index }}", "{{ loop.last }}", t("if loop.first") + t("continue") + t("endif"),
                              t("break")])
            lead = self.pick(["", "", tail])
            orelse = t("else") + body() if self.r.random() < 0.25 else ""
            return t(head) + lead + body(True) + ("" if lead else tail) + orelse + t("endfor")
        if k < 0.80:
            return (t(f"for {n} in [1, [2, [3]]] recursive") + "{{ loop.depth }}" + self.show() + t(f"if {n} is iterable")
                    + "{{ loop(" + n + ") }}" + t("endif") + body(True) + t("endfor"))
        if k < 0.88:
            sig = self.pick(["", n, f"{n}=1", f"{n}={self.value()}"])
            m = self.pick(["m1", "m2"])
            return t(f"macro {m}({sig})") + body(False) + t("endmacro") + self.pick(["", "{{ %s() }}" % m, "{{ %s(5) }}" % m])
        if k < 0.92:
            return t(f"with {n} = {self.value()}, {self.name()} = {self.value()}") + body() + t("endwith")
        if k < 0.95:
            return t(f"set {n}") + body() + t("endset")
        if k < 0.97:
            return t("filter upper") + body() + t("endfilter")
        if k < 0.985:
            return t("macro mc()") + "<{{ caller() }}>" + t("endmacro") + t("call mc()") + body(False) + t("endcall")
        return "{{ m1() if m1 is defined }}{{ m2() if m2 is defined }}"


class Blanks(Gen):
    """Tags of all kinds between blanks: what is stripped?"""

    def blank(self):
        return "".join(self.pick([" ", "\n", "\t", "  ", "\n\n", "x", "", "\r\n", "\u00a0"]) for _ in range(self.r.randint(0, 4)))

    def body(self, depth=0, in_loop=False):
        out = self.blank()
        w = lambda: self.pick(WHITE)  # noqa: E731
        for _ in range(self.r.randint(1, 6)):
            k = self.r.random()
            if k < 0.25:
                out += "{{" + self.pick(["", "-"]) + " n " + self.pick(["", "-"]) + "}}"
            elif k < 0.45:
                out += "{#" + w() + self.pick([" c ", "", "\n", " a\n b ", "- x"]) + w() + "#}"
            elif k < 0.60:
                out += "{%" + w() + " set v = 1 " + w() + "%}"
            elif k < 0.70:
                out += "{%" + w() + self.pick([" ", ""]) + "raw " + w() + "%}" + self.blank() + "{%" + w() + " endraw" + w() + "%}"
            elif k < 0.85 and depth < 2:
                out += "{%" + w() + "if true" + w() + "%}" + self.body(depth + 1) + "{%" + w() + "endif" + w() + "%}"
            elif depth < 2:
                out += "{%" + w() + " for i in [1, 2]" + w() + "%}" + self.body(depth + 1) + "{%" + w() + " endfor " + w() + "%}"
            out += self.blank()
        return out


def template(seed):
    """Half of the cases are single expressions."""
    g = Gen(seed)
    kind = g.r.random()
    if kind < 0.5:
        return g.output()
    if kind < 0.7:
        return g.body()
    if kind < 0.87:
        scopes = Scopes(seed)
        return "".join(scopes.stmt(0) for _ in range(5))
    return Blanks(seed).body()
