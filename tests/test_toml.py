"""Floor 5: TOML, read and edited."""

import copy
import math
import random

import pytest

from xeroctl import (TomlError, drop_toml_table, edit_toml, parse_toml,
                     read_toml, toml_key, toml_statements, toml_string,
                     toml_value)

try:
    import tomllib
except ImportError:
    tomllib = None

INF = math.inf

VALID = [
    ("", {}), ("\n\n", {}), ("\r\n", {}), ("  \t", {}), ("# only", {}),
    ("# é 日本\t!\n", {}), ("a = 1", {"a": 1}), ("a=1\n", {"a": 1}),
    ("\ta\t=\t1\t# c\r\n", {"a": 1}), ("a = 1\r\nb = 2\n", {"a": 1, "b": 2}),
    ("a-b_C9 = 1", {"a-b_C9": 1}), ("1 = 2", {"1": 2}), ("-=0", {"-": 0}),
    ("1.2 = 3", {"1": {"2": 3}}), ("true = false", {"true": False}),
    ("inf = -inf", {"inf": -INF}), ('"" = 1', {"": 1}), ("'' = 1", {"": 1}),
    ('"a b" = 1', {"a b": 1}), ("'a.b' = 1", {"a.b": 1}),
    (r'"\u00e9\n" = 1', {"é\n": 1}), (r"'\u00e9' = 1", {"\\u00e9": 1}),
    ("a.b = 1", {"a": {"b": 1}}), ("a . b\t.c = 1", {"a": {"b": {"c": 1}}}),
    ("a.\"b.c\".'d' = 1", {"a": {"b.c": {"d": 1}}}),
    ("a.b = 1\na.c = 2", {"a": {"b": 1, "c": 2}}),
    ("a.b = 1\nx = 0\na.c = 2", {"a": {"b": 1, "c": 2}, "x": 0}),
    ("a = true\nb = false", {"a": True, "b": False}),
    ("a = 0", {"a": 0}), ("a = -0", {"a": 0}), ("a = +0", {"a": 0}),
    ("a = +17", {"a": 17}), ("a = -1_000_0", {"a": -10000}),
    ("a = 9223372036854775808", {"a": 2 ** 63}),
    ("a = 0xDead_beeF", {"a": 0xdeadbeef}), ("a = 0x00", {"a": 0}),
    ("a = 0o07_7", {"a": 63}), ("a = 0b1_01", {"a": 5}),
    ("a = 0x1e5", {"a": 0x1e5}), ("a = 0.0", {"a": 0.0}),
    ("a = -0.0", {"a": -0.0}), ("a = 3.14", {"a": 3.14}),
    ("a = +1_0.0_1", {"a": 10.01}), ("a = 1e5", {"a": 1e5}),
    ("a = 1E+0_5", {"a": 1e5}), ("a = 6.6e-07", {"a": 6.6e-7}),
    ("a = 0e0", {"a": 0.0}), ("a = inf", {"a": INF}),
    ("a = +inf", {"a": INF}), ("a = -inf", {"a": -INF}),
    ("a = nan", {"a": math.nan}), ("a = -nan", {"a": math.nan}),
    ("a = 1e999", {"a": INF}),
    ('a = ""', {"a": ""}), ("a = ''", {"a": ""}), ('a = "b"#c', {"a": "b"}),
    ('a = "# no comment"', {"a": "# no comment"}),
    (r'a = "\b\t\n\f\r\"\\"', {"a": "\b\t\n\f\r\"\\"}),
    (r'a = "\u0041\U0001F600\u0000"', {"a": "A😀\0"}),
    (r'a = "\ud7ff\ue000\U0010FFFF"', {"a": "\ud7ff\ue000\U0010ffff"}),
    ('a = "tab\there é \x80\u2028"', {"a": "tab\there é \x80\u2028"}),
    (r"a = 'C:\new\u12'", {"a": r"C:\new\u12"}),
    ("a = 'say \"x\"'", {"a": 'say "x"'}),
    ('a = """"""', {"a": ""}), ("a = ''''''", {"a": ""}),
    ('a = """\n"""', {"a": ""}), ('a = """\r\nb\r\n"""', {"a": "b\n"}),
    ('a = """b\n\nc"""', {"a": "b\n\nc"}), ('a = """\n\nb"""', {"a": "\nb"}),
    ('a = """b \\\n   c"""', {"a": "b c"}),
    ('a = """b\\  \r\n\r\n \t c\\\n"""', {"a": "bc"}),
    ('a = """\\\n  b"""', {"a": "b"}), ('a = """b\\\\\nc"""', {"a": "b\\\nc"}),
    ('a = """b\\"\\"\\"c"""', {"a": 'b"""c'}),
    ('a = """x"y""z"""', {"a": 'x"y""z'}), ('a = """b""""', {"a": 'b"'}),
    ('a = """b"""""', {"a": 'b""'}), ('a = """"b"""', {"a": '"b'}),
    ('a = """""b"""', {"a": '""b'}), ("a = ''''b'''''", {"a": "'b''"}),
    ("a = '''\nx\\\ny\\u'''", {"a": "x\\\ny\\u"}),
    ("a = '''b''c\r\n'''", {"a": "b''c\n"}),
    ('a = """\n[b]\nc = 1\n"""\nd = 2', {"a": "[b]\nc = 1\n", "d": 2}),
    (r'a = """\r\n"""', {"a": "\r\n"}), ('a = """\\r\n"""', {"a": "\r\n"}),
    ("[a]", {"a": {}}), ("[a]\n[b]", {"a": {}, "b": {}}),
    ("[ a . \"b c\" .d ] # c\nx = 1", {"a": {"b c": {"d": {"x": 1}}}}),
    ("  [a]\n  b = 1", {"a": {"b": 1}}), ("[a.b]\n[a]", {"a": {"b": {}}}),
    ("[a.b]\n[a]\nc = 1", {"a": {"b": {}, "c": 1}}),
    ("[a]\n[a.b]\n[a.c]", {"a": {"b": {}, "c": {}}}),
    ("['']\n'' = ''", {"": {"": ""}}), ('["]"]\n"=" = 1', {"]": {"=": 1}}),
    ("a.b = 1\n[a.c]\nd = 2", {"a": {"b": 1, "c": {"d": 2}}}),
    ("[a]\nb.c = 1\n[a.b.d]\ne = 2", {"a": {"b": {"c": 1, "d": {"e": 2}}}}),
    ("[a.b.c]\n[a]\nb.d = 1", {"a": {"b": {"c": {}, "d": 1}}}),
    ("b = 1\n[a]\nb = 2", {"b": 1, "a": {"b": 2}}),
]

# What tomllib refuses too, with the line that we name.
INVALID = [
    ("\ufeffa = 1", 1), ("a", 1), ("a =", 1), ("= 1", 1), ("a = # c", 1),
    ("a = b", 1), ("a 1", 1), ("a b = 1", 1), ("a.  = 1", 1), (".a = 1", 1),
    ("a..b = 1", 1), ("é = 1", 1), ("a: 1", 1), ("a = 1 b = 2", 1),
    ("a = 1 2", 1), ('a = "b" c', 1), ("[a] b = 1", 1), ("[a", 1), ("[]", 1),
    ("[a]]", 1), ("[a.]", 1), ("[a b]", 1), ("[a\n]", 1), ("]", 1),
    ("[ [a]]", 1), ('a = "b', 1), ("a = 'b", 1), ('a = "b\nc"', 1),
    ("a = 'b\r\nc'", 1), ('\na = """b\n', 2), ("\na = '''b\n''", 2),
    ('a = """b""""""', 1), ("a = '''b''''''", 1), ('a = """"', 1),
    ('"""a""" = 1', 1), ("'''a''' = 1", 1), ('"a\nb" = 1', 1),
    (r'a = "\x41"', 1), (r'a = "\u12"', 1), (r'a = "\U0000"', 1),
    (r'a = "\ud800"', 1), (r'a = "\udfff"', 1), (r'a = "\U00110000"', 1),
    (r'a = "\UFFFFFFFF"', 1), (r'a = "\q"', 1), (r'a = "\ "', 1),
    ('a = "b\\\n"', 1), ('a = """\nb\\ c"""', 2), ('a = """\\\rb"""', 1),
    ('a = "\x00"', 1), ('a = "\x7f"', 1), ("a = '\x1f'", 1),
    ('a = """\n\x01"""', 2), ("a = '''\n\rb'''", 2), ('a = """b\rc"""', 1),
    ("# \x00", 1), ("a = 1 # \x7f", 1), ("# \rb", 1), ("\r", 1),
    ("a = 1\rb = 2", 1), ("a = 1\n\x0c\n", 2), ("\u00a0a = 1", 1),
    ("a = 01", 1), ("a = 1__0", 1), ("a = 1_", 1), ("a = _1", 1),
    ("a = +0x1", 1), ("a = 0X1", 1), ("a = 0x", 1), ("a = 0b2", 1),
    ("a = 0o8", 1), ("a = 0x_1", 1), ("a = 1.", 1), ("a = .5", 1),
    ("a = 1._5", 1), ("a = 1.5_", 1), ("a = 1.e5", 1), ("a = 1e", 1),
    ("a = ++1", 1), ("a = - 1", 1), ("a = Inf", 1), ("a = ١", 1),
    ("a = True", 1), ("a = truex", 1), ("a = 00.5", 1), ("a = nann", 1),
    ("a = 1\na = 2", 2), ("a = 1\n'a' = 2", 2), ("a.b = 1\na.b = 2", 2),
    ("a = 1\na.b = 2", 2), ("a.b = 1\na = 2", 2), ("[a]\n[a]", 2),
    ("[a]\n[b]\n['a']", 3), ("a = 1\n[a]", 2), ("a = 1\n[a.b]", 2),
    ("[a]\nb = 1\n[a.b]", 3), ("[a.b]\n[a]\nb = 1", 3),
    ("a.b = 1\n[a]", 2), ("[a]\nb.c = 1\n[a.b]", 3),
    ("[a.b]\n[a]\nb.c = 1", 3), ("[a.b.c]\n[a]\nb.d = 1\n[a.b]", 4),
    ("a." + "b." * 50 + "c = 1\na.b = 1", 2), ("a = " + "9" * 5000, 1),
]

# What tomllib reads and we do not.
UNKNOWN = [
    ("a = []", "arrays"), ("a = [1,\n2]", "arrays"),
    ("a = {}", "inline tables"), ("a = {b = 1}", "inline tables"),
    ("[[a]]", "arrays of tables"), ("a = 1979-05-27", "dates and times"),
    ("a = 1979-05-27T07:32:00Z", "dates and times"),
    ("a = 07:32:00", "dates and times")]


def refused(read, text):
    with pytest.raises(TomlError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize("text, value", VALID)
def test_what_is_toml_is_read(text, value):
    assert repr(parse_toml(text)) == repr(value)
    assert repr(read_toml(text)) == repr(value)


@pytest.mark.parametrize("text, line", INVALID)
def test_what_is_no_toml_is_refused_with_its_line(text, line):
    if text.endswith("9" * 5000) and not tomllib:
        return
    assert refused(parse_toml, text).startswith(f"line {line}: ")
    assert refused(read_toml, text).startswith("line ")
    if tomllib:
        with pytest.raises(ValueError):
            tomllib.loads(text)


@pytest.mark.parametrize("text, what", UNKNOWN)
def test_more_toml_than_we_know_is_refused_by_name(text, what):
    assert refused(parse_toml, "\n" + text) == (
        f"line 2: {what} are not supported here")
    if tomllib:
        assert read_toml(text) == tomllib.loads(text)


def test_tomllibs_own_words_keep_their_line():
    assert refused(read_toml, "a = 1\nb = \n").startswith("line 2: ")
    assert refused(read_toml, 'a = 1\nb = "').startswith("line 2: ")
    assert "line 1: " in refused(read_toml, "a = " + "[" * 100000)


@pytest.mark.parametrize("text", [
    "api_key = xero_secret", "api_key = 'xero_secret", "a = xero_secret\x01",
    'api_key = "xero_secret\\q"', 'api_key = "a" xero_secret'])
def test_no_error_quotes_a_value(text):
    assert "xero_secret" not in refused(parse_toml, text)
    assert "xero_secret" not in refused(read_toml, text)


def test_a_long_string_is_no_trouble():
    for quotes in ('"""', "'''"):
        text = f"a = {quotes}{'x y' * 300000}\n{quotes}"
        assert parse_toml(text)["a"] == "x y" * 300000 + "\n"


@pytest.mark.skipif(not tomllib, reason="tomllib came with Python 3.11")
def test_no_mangled_document_is_read_otherwise_than_by_tomllib():
    chance, seen = random.Random(7), [0, 0]
    seeds = [text for text, _ in VALID + INVALID + UNKNOWN if len(text) < 99]
    for _ in range(6000):
        text = "\n".join(chance.sample(seeds, chance.randint(1, 2)))
        for _ in range(chance.randint(0, 2)):
            at = chance.randint(0, len(text))
            new = chance.choice(['"', "'", "\\", "\n", "\r", "a", ".", "=",
                                 "[", "]", "#", "1", "_", " ", "e", "", "\r\n",
                                 '"""', "'''", "u", "0", "-", "\t"])
            text = text[:at] + new + text[at + chance.randint(0, 2):]
        try:
            value = parse_toml(text)
        except TomlError:
            seen[0] += 1
            continue
        seen[1] += 1
        assert repr(tomllib.loads(text)) == repr(value), text
    assert min(seen) > 500


ODD_TEXTS = [
    "", "prod", "a b", 'q"q', "back\\slash", "line\nend\r\n", "\x00\x1f\x7f",
    "é日😀", "\t", "'", "#", "]", "=", "\u2028\x85", '"""', "a.b", "\\u0041"]


@pytest.mark.parametrize("value", ODD_TEXTS + [
    0, -1, 2 ** 70, True, False, 0.1, -0.0, 1e16, 1e-7, 1e22, INF, -INF,
    math.nan, 1.5e300])
def test_a_rendered_value_reads_back(value):
    text = f"a = {toml_value(value)}\n"
    assert repr(read_toml(text)) == repr(parse_toml(text)) == repr(
        {"a": value})


@pytest.mark.parametrize("name", ODD_TEXTS + ["a-b_9", "é"])
def test_a_rendered_key_reads_back(name):
    text = f"{toml_key(name)}.x = 1\n[{toml_key('t' + name)}]"
    assert read_toml(text) == {name: {"x": 1}, "t" + name: {}}


def test_only_what_must_be_is_quoted():
    assert (toml_key("a-b_9"), toml_key("a b")) == ("a-b_9", '"a b"')
    assert toml_string("é/\x7f\0") == '"é/\\u007f\\u0000"'
    with pytest.raises(ValueError):
        toml_string("\ud800")


CONFIG = '''\
# xeroctl

current = "prod"  # the usual

# ours
[deployment.prod]
base_url = "https://a/v1"   # keep
  "api_key" = 'k'
unknown = 3
# note = """

# the other
# one
[ deployment . "staging" ]
base_url = """
[deployment.prod]
base_url = 1
"""

[deployment.staging.extra]
x = 1
'''
PROD, STAGING = ("deployment", "prod"), ("deployment", "staging")


@pytest.mark.parametrize("table, key, value, old, new", [
    ((), "current", "staging", '"prod"  #', '"staging"  #'),
    ((), "current", None, 'current = "prod"  # the usual\n', ""),
    ((), "more", 1, "usual\n", "usual\nmore = 1\n"),
    (PROD, "base_url", "x", '"https://a/v1"', '"x"'),
    (PROD, "api_key", "k2", "'k'", '"k2"'),
    (PROD, "api_key", None, "  \"api_key\" = 'k'\n", ""),
    (PROD, "unknown", 3.0, "unknown = 3", "unknown = 3.0"),
    (PROD, "unknown", True, "unknown = 3", "unknown = true"),
    (PROD, "new key", "v", 'note = """\n', 'note = """\n"new key" = "v"\n'),
    (STAGING, "base_url", "x",
     '"""\n[deployment.prod]\nbase_url = 1\n"""', '"x"'),
    (STAGING, "y", 1, '= 1\n"""\n', '= 1\n"""\ny = 1\n'),
    (STAGING + ("extra",), "y", 1, "x = 1\n", "x = 1\ny = 1\n"),
    (("deployment",), "z", 1, "x = 1\n", "x = 1\n\n[deployment]\nz = 1\n"),
    (("a b", "c"), "z", 1, "x = 1\n", 'x = 1\n\n["a b".c]\nz = 1\n'),
    (PROD, "api_key", "k", "", ""), (PROD, "nothing", None, "", ""),
    (("nothing",), "nothing", None, "", "")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_edit_changes_nothing_else(table, key, value, old, new, end):
    text, old, new = (part.replace("\n", end) for part in (CONFIG, old, new))
    assert text.count(old) == 1 or not old
    assert edit_toml(text, table, key, value) == text.replace(old, new, 1)


@pytest.mark.parametrize("text, table, key, value, result", [
    ("", (), "a", 1, "a = 1\n"), ("", ("t",), "a", 1, "[t]\na = 1\n"),
    ("b = 2", (), "a", 1, "b = 2\na = 1\n"),
    ("b = 2", ("t",), "a", 1, "b = 2\n\n[t]\na = 1\n"),
    ("b = 2\n\n", ("t",), "a", 1, "b = 2\n\n[t]\na = 1\n"),
    ("# c", (), "a", 1, "# c\na = 1\n"), ("[t]", (), "a", 1, "a = 1\n\n[t]"),
    ("# x\n\n# c\n[t]", (), "a", 1, "# x\n\na = 1\n\n# c\n[t]"),
    ("[t]", ("t",), "a", 1, "[t]\na = 1\n"),
    ("\t[t] # c\r\n", ("t",), "a", 1, "\t[t] # c\r\n\ta = 1\r\n"),
    ("[t]\n# c\n\n\n[u]\n", ("t",), "a", 1, "[t]\n# c\na = 1\n\n\n[u]\n"),
    ("[t]\n# c\n[u]\n", ("t",), "a", 1, "[t]\na = 1\n# c\n[u]\n"),
    ("t.b = 2\n# c\nx = 1\n", ("t",), "a", 1,
     "t.b = 2\nt.a = 1\n# c\nx = 1\n"),
    ("t.b.c = 2\n", ("t",), "a", 1, "t.b.c = 2\nt.a = 1\n"),
    ("t . 'b'. c=2", ("t",), "b", None, "t . 'b'. c=2"),
    ("[t]\n b.c = 2", ("t", "b"), "d", 1, "[t]\n b.c = 2\n b.d = 1\n"),
    ("t.b = 2\n", ("t", "u"), "a", 1, "t.b = 2\n\n[t.u]\na = 1\n"),
    ("deployment.'p q' . base_url = 'x' # c", ("deployment", "p q"),
     "base_url", "y", "deployment.'p q' . base_url = \"y\" # c"),
    ("t.b = 2\nt.a = 1", ("t",), "a", None, "t.b = 2\n"),
    ("a = 'x'\n", (), "a", "x", "a = 'x'\n"), ("a=1", (), "a", 1, "a=1"),
    ("a=nan", (), "a", math.nan, "a=nan"), ("a=1", (), "a", True, "a=true")])
def test_an_edit_finds_its_place(text, table, key, value, result):
    assert edit_toml(text, list(table), key, value) == result


@pytest.mark.parametrize("text, table, key", [
    ("a = 1", ("a",), "b"), ("[a]", (), "a"), ("a.b = 1", (), "a"),
    ("a = [1]", (), "b"), ("a = 1\na = 2", (), "b"), ("a = 'x", (), "a")])
def test_an_edit_that_cannot_be_is_an_error(text, table, key):
    assert refused(lambda text: edit_toml(text, table, key, 5), text)


@pytest.mark.parametrize("text, table, result", [
    (CONFIG, PROD, CONFIG[:CONFIG.index("# ours")]
     + CONFIG[CONFIG.index("# the other"):]),
    (CONFIG, STAGING, CONFIG[:CONFIG.index("\n# the other")]),
    (CONFIG, ("deployment",), CONFIG[:CONFIG.index("\n# ours")]),
    (CONFIG, ("nothing",), CONFIG), (CONFIG, ("current",), CONFIG),
    ("[a]\n[b]\n[c]\n", ("b",), "[a]\n\n[c]\n"), ("[a]", ("a",), ""),
    ("[a]\r\n\r\n\r\n[b]\r\n\r\n\r\n[c]", ("b",), "[a]\r\n\r\n[c]"),
    ("\n\n# a\n[a]\n\n[b]\n", ("a",), "[b]\n"),
    ("[a]\n\n# far\n\n# near\n[b]\nx=1\n# in\n\n# y\n", ("b",),
     "[a]\n\n# far\n\n# y\n"),
    ("[a]\nx=1\n# b\n[b]\n# c\n[c]\n", ("b",), "[a]\nx=1\n\n# c\n[c]\n"),
    ("[a.b]\n[c]\n[a.d]\n[e]\n", ("a",), "[c]\n\n[e]\n"),
    ("x = 1\na.b = 1\n# c\ny = 2\na.c.d = 1\nz=3\n", ("a",),
     "x = 1\n# c\ny = 2\nz=3\n"),
    ("x = 1\n\na.b = 1\n\n[a.c]\n", ("a",), "x = 1\n"),
    ("x = 1\n\na.b = 1\n\n[c]\n", ("a",), "x = 1\n\n[c]\n")])
def test_a_dropped_table_leaves_one_blank_line(text, table, result):
    assert drop_toml_table(text, list(table)) == result


def spelled(chance, name):
    """One of the ways to write a name."""
    plain = toml_key(name)
    return chance.choice([plain, plain, toml_string(name), f"'{name}'"])


def spelled_value(chance):
    return chance.choice([
        '"text # no"', "'lit'", "12", "-0.5", "true", "0x1F", '"a\\"b"',
        '"""\n[t]\n a = 1\n# x\n"""', "'''\r\nx = '\r\n'''", '"""a""""',
        '"""\\\n   [a.b]"""'])


def made_document(chance):
    """A document of keys and tables in many spellings; maybe not valid."""
    names, lines = ["a", "b", "c d", "e"], []
    for _ in range(chance.randint(0, 9)):
        path = [spelled(chance, chance.choice(names)) for _ in range(
            chance.choice([1, 1, 2, 2, 3]))]
        dots = chance.choice([".", ".", " . "]).join(path)
        remark = chance.choice(["", "", " # c = 1", "\t#"])
        indent = chance.choice(["", "", "", "  ", "\t"])
        lines.append(indent + chance.choice([
            "", "# x = 1", "# [a]", f"[{dots}]{remark}", f"[ {dots} ]",
            f"{dots} = {spelled_value(chance)}{remark}",
            f"{dots}={spelled_value(chance)}{remark}"]))
    end = chance.choice(["\n", "\n", "\r\n"])
    return end.join(lines) + chance.choice(["", end, end * 2])


def made_documents(chance, count):
    while count:
        text = made_document(chance)
        try:
            parse_toml(text)
        except TomlError:
            continue
        count -= 1
        yield text


def pruned(tree):
    """The tree without its empty tables, which have no line to stand on."""
    if not isinstance(tree, dict):
        return tree
    kept = {name: pruned(value) for name, value in tree.items()}
    return {name: kept[name] for name in kept if kept[name] != {}}


def expected_edit(tree, table, key, value):
    """What an edit should make of a tree; None if it cannot be done."""
    tree = here = copy.deepcopy(tree)
    for name in table:
        if not isinstance(here.get(name, {}), dict):
            return tree if value is None else None
        here = here.setdefault(name, {})
    if isinstance(here.get(key), dict):
        return tree if value is None else None
    here[key] = value
    if value is None:
        del here[key]
    return tree


def remarks(text):
    return [text[one.start:one.end].strip() for one in toml_statements(text)
            if one.kind == "comment"]


def test_any_edit_of_any_document_changes_only_that():
    chance, refusals = random.Random(11), 0
    for text in made_documents(chance, 600):
        table = tuple(chance.choice(["a", "b", "c d", "e"])
                      for _ in range(chance.randint(0, 2)))
        key = chance.choice(["a", "b", "c d", "e", "new"])
        value = chance.choice([None, "v\n", 5, 1.5, False])
        wanted = expected_edit(read_toml(text), table, key, value)
        if wanted is None:
            refusals += 1
            assert refused(lambda t: edit_toml(t, table, key, value), text)
            continue
        edited = edit_toml(text, table, key, value)
        assert pruned(read_toml(edited)) == pruned(wanted), (text, edited)
        assert parse_toml(edited) == read_toml(edited)
        assert edit_toml(edited, table, key, value) == edited
        assert remarks(edited) == remarks(text)
    assert refusals < 200


def test_any_key_that_comes_and_goes_leaves_no_trace():
    chance = random.Random(12)
    for text in made_documents(chance, 300):
        headers = [one.path for one in toml_statements(text)
                   if one.kind == "table"]
        table = chance.choice(headers or [()])
        edited = edit_toml(text, table, "new", 1)
        back = edit_toml(edited, table, "new", None)
        assert back.strip() == text.strip()


def test_any_dropped_table_takes_nothing_else_along():
    chance = random.Random(13)
    for text in made_documents(chance, 600):
        table = tuple(chance.choice(["a", "b", "c d", "e"])
                      for _ in range(chance.randint(1, 2)))
        wanted = here = copy.deepcopy(read_toml(text))
        for name in table[:-1]:
            here = here.get(name)
            here = here if isinstance(here, dict) else {}
        if isinstance(here.get(table[-1]), dict):
            del here[table[-1]]
        dropped = drop_toml_table(text, table)
        assert pruned(read_toml(dropped)) == pruned(wanted), (text, dropped)
        assert drop_toml_table(dropped, table) == dropped


def test_the_statements_of_a_document_are_all_of_it():
    for text in made_documents(random.Random(14), 200):
        found = list(toml_statements(text))
        assert "".join(text[one.start:one.end] for one in found) == text
        for one in found:
            if one.kind == "key":
                pair = f"{text[slice(*one.key)]}={text[slice(*one.place)]}"
                assert list(toml_statements(pair))[0].names == one.names
