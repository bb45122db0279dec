"""Floor 5: TOML, read where it is ours, and edited line by line.

Thousands of documents, compared with tomllib, are in fuzz/.
"""

import pytest

from conftest import every_case
import xeroctl
from xeroctl import NotConfigured, compact_json, toml_with

try:
    import tomllib
except ImportError:
    tomllib = None

# What a value stands for; tomllib agrees.
VALUES = [
    ("true", True), ("false", False), ("0", 0), ("17", 17), ("-10", -10),
    ("0.0", 0.0), ("-0.5", -0.5), ("1e5", 1e5), ("6.6E-07", 6.6e-7),
    ('""', ""), ("''", ""), ('"b"#c', "b"), ('"# none"', "# none"),
    (r'"\b\t\n\f\r\"\\"', "\b\t\n\f\r\"\\"),
    (r'"\u0041\U0001F600\u0000\uD7ff"', "A😀\0\ud7ff"),
    ('"tab\there é \x80\u2028"', "tab\there é \x80\u2028"),
    (r"'C:\new\u12'", r"C:\new\u12"), ('""""""', ""), ('"""\n"""', ""),
    ('"""\r\nb\r\n"""', "b\n"), ('"""\n\nb"""', "\nb"),
    ('"""b \\\n   c"""', "b c"), ('"""b\\  \r\n\r\n \t c\\\n"""', "bc"),
    ('"""b\\\\\nc"""', "b\\\nc"), ('"""x"y""z"""', 'x"y""z'),
    ('"""b"""""', 'b""'), ('""""b"""', '"b'), ("''''b'''''", "'b''"),
    ("'''\nx\\\ny\\u'''", "x\\\ny\\u"), ('"""\\r\n"""', "\r\n"),
    ('"""\n[b]\nc = 1\n"""', "[b]\nc = 1\n"),
]

# Python 3.15 reads TOML 1.1.
IN_TOML_1_1 = r'"\x41"'

# What is no value; tomllib refuses it, too.
NO_VALUES = [
    IN_TOML_1_1,
    "", "# c", "b", "1 2", '"b" c', '"b', "'b", '"b\nc"', "'b\r\nc'", '"""b',
    "'''b\n''", '"""b""""""', "'''b''''''", '""""', r'"\u12"',
    r'"\U0000"', r'"\ud800"', r'"\U0000dFff"', r'"\U00110000"', r'"\q"',
    r'"\ "', '"b\\\n"', '"""\nb\\ c"""', '"""\\\rb"""', "1\rx", "01", "1__0",
    "1_", "_1", "+0x1", "0X1", "0x", "0b2", "0o8", "0x_1", "1.", ".5",
    "1._5", "1.5_", "1.e5", "1e", "++1", "- 1", "Inf", "١", "True", "truex",
]

# What tomllib reads and we do not.
MORE = ["+17", "1_000", "0xDead_beeF", "0o7", "0b1", "inf", "-nan", "9" * 30,
        "[]", "[1,\n2]", "[[\n'],'\n]] # c", '{a = "}"}', "1979-05-27",
        "1979-05-27T07:32:00Z", "07:32:00"]

NAMES = [("a-b_C9", "a-b_C9"), ("1", "1"), ("true", "true"), ('""', ""),
         ("''", ""), ('"a b"', "a b"), ("'a.b'", "a.b"),
         (r'"\u00e9\n"', "é\n"), (r"'\u00e9'", "\\u00e9"), ('"]"', "]"),
         ('"="', "="), ("'#'", "#")]


def read_toml(text):
    return xeroctl.read_toml(text, "c.toml")


def refused(text):
    """What is said of a line: line 3: …"""
    with pytest.raises(NotConfigured) as caught:
        read_toml(text)
    assert str(caught.value).startswith("c.toml: ")
    return str(caught.value)[len("c.toml: "):]


def tables(root=None, **deployments):
    """What read_toml reads."""
    return {(): root or {}, **{
        ("deployment", name): deployments[name] for name in deployments}}


def is_toml(text):
    try:
        tomllib.loads(text)
    except ValueError:
        return False
    return True


@every_case
@pytest.mark.parametrize("source, value", VALUES)
def test_a_value_is_what_it_stands_for(source, value):
    key = "endpoint" if isinstance(value, str) else "timeout"
    key = "y" if isinstance(value, bool) else key
    text = f"[deployment.p] \t# c\n\tx\t=\t{source}\t\r\n{key}={source}"
    assert repr(read_toml(text)) == repr(
        tables(p={"x": value, key: value}))
    if tomllib:
        assert repr(tomllib.loads(text)["deployment"]["p"]) == repr(
            read_toml(text)["deployment", "p"])


@every_case
@pytest.mark.parametrize("source", NO_VALUES)
def test_what_is_no_value_is_refused_with_its_line(source):
    for text in (f"[deployment.p]\n\nendpoint = {source}\nx = 1\n",
                 f"[deployment.p]\n# c\n  endpoint\t={source}"):
        assert refused(text).startswith("line 3: ")
        assert source == IN_TOML_1_1 or not tomllib or not is_toml(text)


@every_case
@pytest.mark.parametrize("source", MORE)
def test_more_than_we_know_is_refused_in_what_is_ours_alone(source):
    for text in (f"current = {source}\n", f"deployment = {source}\n",
                 f"[deployment]\np = {source}\n",
                 f"[deployment.p]\ntimeout = {source}\nx = 1\n",
                 f"[deployment.p]\nendpoint = {source}\nx = 1\n"):
        line = text.count("\n", 0, text.index("=")) + 1
        assert refused("\n" + text).startswith(f"line {line + 1}: ")
    text = (f"x = {source}\n[other]\ny.z={source}\n[[deployment.p.more]]\n"
            f"endpoint = {source}\n[[more]]\n[deployment.p]\nx = {source}\n"
            "endpoint = 'k'")
    assert read_toml(text) == tables(p={"more": None, "x": None,
                                      "endpoint": "k"})
    assert not tomllib or is_toml(text)


@pytest.mark.parametrize("source, name", NAMES)
def test_a_name_has_many_spellings(source, name):
    wanted = tables(**{name: {"timeout": 1, name: 2}})
    text = f" [ 'deployment'\t. {source} ]\n\"timeout\" = 1\n{source} = 2"
    assert read_toml(text) == wanted
    assert not tomllib or tables(**tomllib.loads(text)[
        "deployment"]) == wanted


P = "[deployment.p]\n"


@every_case
@pytest.mark.parametrize("text, line", [
    ("a", 1), ("= 1", 1), ("a 1", 1), ("a b = 1", 1), ("a.  = 1", 1),
    (".a = 1", 1), ("a..b = 1", 1), ("é = 1", 1), ("a: 1", 1),
    ("[a] b = 1", 1), ("[a", 1), ("[]", 1), ("[a]]", 1), ("[a.]", 1),
    ("[[a]", 1), ("[ [a]]", 1), ("[a\n]", 1), ("]", 1), ('"""a""" = 1', 1),
    ('"a\nb" = 1', 1), ("a = 1\n\x0c\n", 2), ("\u00a0a = 1", 1),
    ("a = 1\n\ufeffa = 1", 2), ("a = [\n1", 1), ("a = {\nb = 1", 1),
    ("current = 'a'\n'current' = 'b'", 2), (P + "x = 1\nx = 2", 3),
    ("deployment.p.x = 1\n", 1), (P + P, 2), ("current = 5", 1),
    (P + "endpoint = 5", 2), (P + "timeout = '5'", 2),
    (P + "base_url = true", 2),
    ("[deployment]\n[other]\n['deployment']", 3), ("deployment = 1\n" + P, 1),
    ("deployment.p = 1\n" + P, 1), ("[deployment]\np = 1\n" + P, 2),
    (P + "[deployment]\np.x = 1", 3), ("[deployment]\np.x = 1\n" + P, 2),
    ("[current]", 1),
    ("current.x = 1", 1), ("[[deployment]]", 1), ("[[deployment.p]]", 1),
    (P + "base_url.x = 1", 2), ("[deployment.p.base_url]", 1),
    ("[[deployment.p.base_url]]", 1)])
def test_what_cannot_be_is_refused_with_its_line(text, line):
    assert refused(text).startswith(f"line {line}: ")


@pytest.mark.parametrize("text, names", [
    ("", ""), ("\n\n  \t# é\t!\r\n", ""), ("[deployment]", ""),
    (P, "p"), ("[deployment.p.more]\n" + P, "p"), (P + "[deployment]", "p"),
    (P + "tags.x = 1\ntags.x = 1\n[deployment.q]", "pq"),
    ("[deployment.p.more.more]\nx = 1\n[[x]]\n[x.y]\n[[x]]", "p")])
def test_tables_come_in_any_order(text, names):
    assert "".join(path[-1] for path in read_toml(text) if path) == names


@pytest.mark.parametrize("text", [
    "api_key = xero_secret", "api_key = 'xero_secret",
    "style = 'xero_secret\x01", 'api_key = "xero_secret\\q"',
    'api_key = "a" xero_secret', "api_key xero_secret", "xero_secret",
    "x = ['xero_secret"])
def test_no_error_quotes_a_value(text):
    assert "xero_secret" not in refused(P + text)


def test_what_is_long_is_no_trouble():
    for quotes in ('"""', "'''"):
        text = f"{P}endpoint = {quotes}{'x y' * 300000}\n{quotes}"
        found = read_toml(text)["deployment", "p"]["endpoint"]
        assert len(found) == 900001
    for text in (" " * 900000 + "é", "a" * 900000, "a." * 400000 + "b",
                 'a = "' + "\\n" * 400000, "a = '''" + "''x" * 300000,
                 "a = 1" + " " * 900000 + "é = 1", "[" + " " * 900000):
        assert refused(f"{text}\n[x").startswith("line ")
    assert read_toml(f"a = {'[' * 400000}\n{']' * 400000}") == tables()


@pytest.mark.parametrize("text", [
    "", "prod", "a b", 'q"q', "back\\slash", "line\nend\r\n", "\x00\x1f\x85",
    "é日😀", "\t", "'", "#", "]", "=", "\u2028\x85", '"""', "a.b", "\\u0041"])
def test_what_is_rendered_reads_back(text):
    source = toml_with(f"current = {compact_json(text)}",
                       ("deployment", text, "style"), text)
    assert read_toml(source) == tables(
        {"current": text}, **{text: {"style": text}})
    assert not tomllib or tomllib.loads(source) == {
        "current": text, "deployment": {text: {"style": text}}}


def test_only_what_must_be_is_quoted():
    for name, shown in (("a-b_9", "a-b_9"), ("a b", '"a b"')):
        assert toml_with("", ("deployment", name, "x"), "y") == (
            f'[deployment.{shown}]\nx = "y"\n')
    assert toml_with("", ("current",), "é/\0") == 'current = "é/\\u0000"\n'


CONFIG = '''\
# xeroctl

current = "prod"  # the usual

# ours
[deployment.prod]
base_url = "https://a/v1"   # keep
  "api_key" = 'k'
unknown = [ 3,  # three
]
# note = """

# the other
# one
[ deployment . "staging" ]
base_url = """
[deployment.prod]
base_url = 1
"""

[deployment.staging.extra]
x = {}
'''
PROD, STAGING = ("deployment", "prod"), ("deployment", "staging")


@every_case
@pytest.mark.parametrize("table, key, value, old, new", [
    ((), "current", "staging", '"prod"  #', '"staging"  #'),
    ((), "current", None, 'current = "prod"  # the usual\n', ""),
    (PROD, "base_url", "x", '"https://a/v1"', '"x"'),
    (PROD, "api_key", "k2", "'k'", '"k2"'),
    (PROD, "api_key", None, "  \"api_key\" = 'k'\n", ""),
    (PROD, "unknown", None, "unknown = [ 3,  # three\n]\n", ""),
    (PROD, "timeout", 3.0, 'three\n]\n', 'three\n]\ntimeout = 3.0\n'),
    (STAGING, "base_url", "x",
     '"""\n[deployment.prod]\nbase_url = 1\n"""', '"x"'),
    (STAGING, "style", "y", '= 1\n"""\n', '= 1\n"""\nstyle = "y"\n'),
    (("deployment", "a b"), "style", "y", "x = {}\n",
     'x = {}\n\n[deployment."a b"]\nstyle = "y"\n'),
    (PROD, "nothing", None, "", ""), (("x", "y"), "nothing", None, "", "")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_edit_changes_nothing_else(table, key, value, old, new, end):
    text, old, new = (part.replace("\n", end) for part in (CONFIG, old, new))
    assert text.count(old) == 1 or not old
    assert toml_with(text, table + (key,), value) == text.replace(old, new, 1)


@every_case
@pytest.mark.parametrize("text, table, result", [
    ("", (), 'x = "v"\n'), ("", PROD, '[deployment.prod]\nx = "v"\n'),
    ("b = 2", (), 'b = 2\nx = "v"\n'), ("# c", (), 'x = "v"\n\n# c'),
    ("b = 2\n", PROD, 'b = 2\n\n[deployment.prod]\nx = "v"\n'),
    ("[t]", (), 'x = "v"\n\n[t]'),
    ("# y\n\n# c\n[t]", (), 'x = "v"\n\n# y\n\n# c\n[t]'),
    ("[deployment.prod]", PROD, '[deployment.prod]\nx = "v"\n'),
    ("\t[deployment.prod] # c\r\n", PROD,
     '\t[deployment.prod] # c\r\nx = "v"\r\n'),
    ("[deployment.prod]\n# c\n\n\n[u]\n", PROD,
     '[deployment.prod]\nx = "v"\n# c\n\n\n[u]\n'),
    ("[deployment.prod]\n# c\n[u]\n", PROD,
     '[deployment.prod]\nx = "v"\n# c\n[u]\n'),
    ("deployment-q.x = 2\n", PROD,
     'deployment-q.x = 2\n\n[deployment.prod]\nx = "v"\n')])
def test_a_new_key_finds_its_place(text, table, result):
    assert toml_with(text, table + ("x",), "v") == result


@every_case
@pytest.mark.parametrize("text, table, result", [
    (CONFIG, PROD, CONFIG.replace(CONFIG[
        CONFIG.index("[deployment.prod]"):CONFIG.index("# note")], "")),
    (CONFIG, STAGING, CONFIG[:CONFIG.index("[ deployment")] + "\n"),
    (CONFIG, ("deployment", "nothing"), CONFIG),
    ("[a]\n[b]\n[c]\n", ("b",), "[a]\n[c]\n"), ("[a]", ("a",), ""),
    ("[a]\r\n[b]\r\n\r\n[c]", ("b",), "[a]\r\n\r\n[c]"),
    ("# a\n[a]\n# in\nx=1 # x\n# b\n[b]\n", ("a",),
     "# a\n# in\n# b\n[b]\n"),
    ("[a.b]\n[c]\n[a.d]\n[e]\n", ("a",), "[c]\n[e]\n"),
    ("[[a]]\n[c]\n[[a]]\n", ("a",), "[c]\n")])
def test_a_dropped_table_leaves_the_comments(text, table, result):
    assert toml_with(text, table, None) == result
