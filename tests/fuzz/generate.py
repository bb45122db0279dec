"""What the fuzzer throws at the program: made from a seeded Random, no more.

Each maker takes a random.Random and returns bytes; the same seed makes the
same bytes under every Python.
"""

import json
import random

LETTERS = ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
           "0123456789")
ODD_TOKENS = [
    "null", "true", "false", "0", "-1", "-0", "-0.0", "1.0", "0.1", "1e-7",
    "1e16", "1e22", "1.5e300", "1e999", "-1e999", "NaN", "Infinity",
    "-Infinity", "12345678901234567890", "1770000000", "-62135596801",
    "253402300800", "1e18", "1" + "0" * 400, "-1" + "0" * 400, "9" * 4300,
    "9" * 4301, "9" * 5000, '""', '" "', "[]", "{}", "[[]]", "[null]",
    '[1,"a",{}]', '{"":{}}', '{"id":null}', '{"a":1,"a":2}', '{"text":[]}',
    "[" * 30 + "]" * 30, '{"a":' * 200 + "1" + "}" * 200,
    "[" * 330 + "]" * 330, "[" * 900 + "]" * 900, "[" * 990 + "]" * 990,
    '{"text":' * 900 + '"x"' + "}" * 900, "[" * 10000 + "]" * 10000,
    '{"text":' * 10000 + "1" + "}" * 10000, "01", "+1", ".5", "1.", "'a'",
    "undefined", "tru", '"\\x41"', '"\\u12"', '"\x01"', "\u0661",
]
ODD_NUMBERS = ["1" + "0" * 400, "-1" + "0" * 400, "9" * 4300, "1e999",
               "-1e999", "1e300", "-1", "0", "true", "1.5", "null", '"1"']
ODD_TEXTS = [
    "a\nb", "a\nerror: b", "a\tb", "a\rb", "a\0b", "\x1b]52;c;eA==\x07",
    "\x9b31m", "\u202eabc", "\ud800", "\udc80", "\udcc3\udca9", "\ude00\ud83d",
    "\u2028", "\x85", "\x0b\x0c", "\ufeff", "\u65e5\u672c", "\U0001f600",
    "e\u0301", "%s%d%n", "{0}{a}", "../../x", "/", "=1+1", '"', "a,b", "'",
    "\\", "x" * 5000, "data: [DONE]", "[DONE]", "error", "completed",
    "failed", "active", "2026-01-01", "2026-01-01T00:00:00Z",
    "0000-00-00T00:00:00Z", "9999-12-31T23:59:60+99:99",
    "2026-13-45T25:61:61Z", "0001-01-01T00:00:00+14:00", "1770000000", "-",
]
ODD_BYTES = [b"\xff", b"\xc3", b"\xe2\x80", b"\xf0\x9f\x98", b"\xed\xa0\x80",
             b"\xc0\xaf", b"\0", b"\x1a", b"\x85", b"\xe2\x80\xa8", b"\n",
             b"\r", b"\r\n", b"\t", b"\x0b", b"\x0c", b" ", b",", b":", b"{",
             b"}", b"[", b"]", b'"', b"\\", b"0", b"-", b"e", b"\xef\xbb\xbf",
             b"null", b"data:", b"#", b"=", b"."]


class Token(str):
    """A piece of JSON text that stands in a tree as it is."""


class Members(list):
    """The members of an object as pairs, in which a name may come twice."""


def chance_of(target, seed, number):
    """The Random of one case; it depends on nothing else."""
    return random.Random(f"{target}/{seed}/{number}")


def json_source(value, chance):
    """JSON text of a tree, with tokens as they are; texts in two spellings."""
    if isinstance(value, Token):
        return str(value)
    if isinstance(value, dict):
        value = Members(value.items())
    if isinstance(value, Members):
        return "{%s}" % ",".join(
            f"{json.dumps(name)}:{json_source(item, chance)}"
            for name, item in value)
    if isinstance(value, list):
        return "[%s]" % ",".join(json_source(item, chance) for item in value)
    if isinstance(value, str) and chance.random() < 0.5:
        text = json.dumps(value, ensure_ascii=False)
        if text.isprintable():
            return text
    return json.dumps(value)


def places_in(tree, path=()):
    """Yield the path of each node of a tree, the root first."""
    yield path
    if isinstance(tree, dict):
        for name in tree:
            yield from places_in(tree[name], path + (name,))
    elif isinstance(tree, list) and not isinstance(tree, Members):
        for index, item in enumerate(tree):
            yield from places_in(item, path + (index,))


def odd_value(chance):
    kind = chance.random()
    if kind < 0.35:
        return chance.choice(ODD_TEXTS)
    if kind < 0.5:
        return Token(chance.choice(ODD_NUMBERS))
    return Token(chance.choice(ODD_TOKENS))


def changed_node(node, chance):
    """Another value for a node, made of it or of nothing."""
    how = chance.randrange(8)
    if how == 0:
        return [node]
    if how == 1:
        return {chance.choice(["data", "error", "id", "object", ""]): node}
    if how == 2 and isinstance(node, dict):
        pairs = list(node.items())
        return Members(pairs + [(chance.choice(
            pairs or [("a", 0)])[0], odd_value(chance))])
    if how == 3 and isinstance(node, dict):
        name = chance.choice(["x_new", "error", "", "id", "\u2028", "a.b"])
        return dict(node, **{name: odd_value(chance)})
    if how == 4 and isinstance(node, list) and node:
        return node + [odd_value(chance), node[0]]
    return odd_value(chance)


def with_change(tree, path, chance):
    """A copy of a tree with another node at a path, or with none."""
    if not path:
        return changed_node(tree, chance)
    first, rest = path[0], path[1:]
    if isinstance(tree, dict):
        pairs = dict(tree)
    else:
        pairs = dict(enumerate(tree))
    if not rest and chance.random() < 0.2:
        del pairs[first]
    else:
        pairs[first] = with_change(pairs[first], rest, chance)
    return pairs if isinstance(tree, dict) else list(pairs.values())


def mutated_tree(tree, chance):
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        if not isinstance(tree, (dict, list)) or isinstance(tree, Members):
            break
        paths = list(places_in(tree))
        tree = with_change(tree, chance.choice(paths), chance)
    return tree


def mutated_bytes(data, chance):
    """The bytes with a few of them changed, lost, doubled or added."""
    for _ in range(chance.choice([1, 1, 2, 4])):
        at = chance.randint(0, len(data))
        end = min(len(data), at + chance.choice([0, 0, 1, 2, 10]))
        odd = chance.choice(ODD_BYTES)
        piece = chance.choice([b"", odd, data[at:end] * 2])
        data = data[:at] + piece + data[end:]
    return data


def json_answer(tree, chance):
    """The bytes of an answer that once was a tree."""
    data = json_source(mutated_tree(tree, chance), chance).encode()
    how = chance.randrange(24)
    if how < 3:
        return mutated_bytes(data, chance)
    if how == 3:
        return data[:chance.randint(0, len(data))]
    return {4: b"\xef\xbb\xbf" + data, 5: b" \r\n\t" + data + b"\n ",
            6: data.decode().encode("utf-16"), 7: data + data, 8: b"",
            9: b"<!doctype html><title>a\nb</title>" + data,
            10: b"\x0b" + data}.get(how, data)


# == server-sent events ======================================================

SSE_PIECES = [
    b"data: ", b"data:", b"data", b"data :", b"event: ", b"event:message",
    b"event", b"error: ", b"error", b"id: 1", b"id: \0", b"retry: 10",
    b": remark", b":", b" ",
    b"\t", b"\x0b", b"Data: x", b"a", b"{}", b'{"a":1}', b"[DONE]", b"  x ",
    b"\xef\xbb\xbf", b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xe2\x80\xa8",
    b"\xc2\x85", b"\xff", b"\xc3", b"\xf0\x9f", b"\0", b"x" * 300,
]
SSE_ENDS = [b"\n", b"\n", b"\n\n", b"\r\n", b"\r\n\r\n", b"\r", b"\r\r",
            b"\n\r", b"\n\r\n", b"\r\r\n"]


def sse_body(chance):
    """A body of lines in every spelling, and of some that are none."""
    data = chance.choice([b"", b"", b"", b"\xef\xbb\xbf", b"\n"])
    for _ in range(chance.randint(0, 9)):
        if chance.random() < 0.4:
            data += chance.choice([b"data: x", b"data:y", b" ", b"\t"])
        else:
            data += b"".join(chance.choice(SSE_PIECES)
                             for _ in range(chance.choice([0, 1, 1, 2, 3])))
        data += chance.choice(SSE_ENDS)
    if chance.random() < 0.3:
        data = mutated_bytes(data, chance)
    return data + chance.choice([b"", b"", b"data: end", b"data: end\n\n"])


def split(data, chance):
    """The data in pieces, none of them empty."""
    most = chance.choice([1, 2, 7, 64, len(data) + 1])
    pieces, at = [], 0
    while at < len(data):
        size = chance.randint(1, most)
        pieces.append(data[at:at + size])
        at += size
    return pieces


def stream_body(payloads, chance, names):
    """The payloads as a stream, some of them, or its frames, mutated."""
    end = chance.choice([b"\n", b"\n", b"\n", b"\r\n", b"\r"])
    data, mutates = b"", chance.random() < 0.8
    for payload in payloads:
        if mutates and chance.random() < 0.25:
            payload = mutated_tree(payload, chance)
        source = json_source(payload, chance).encode()
        if chance.random() < 0.1:
            data += b": remark" + end
        if names and isinstance(payload, dict) and chance.random() < 0.8:
            data += b"event: " + str(payload.get("type")).encode(
                "utf-8", "replace") + end
        data += b"data: " + source + end * 2
    if not names or chance.random() < 0.5:
        data += b"data: [DONE]" + end * 2
    if chance.random() < 0.3:
        data += b"data: beyond the end" + end * 2
    if chance.random() < 0.25:
        data = mutated_bytes(data, chance)
    if chance.random() < 0.15:
        data = data[:chance.randint(0, len(data))]
    return data


# == TOML ====================================================================

TOML_TABLES = ["prod", "c d", "", "a.b", "\u65e5", "1", "-"]
TOML_KEYS = ["base_url", "api_key", "timeout", "style", "endpoint", "x", "e f",
             "api_key_env"]
TOML_VALUES = [
    '"text # no"', "'lit'", '"xero_SECRET_0123456789"', "12", "-0.5", "true",
    "0x1F", "0o17", "0b1", "1_000", "+1e5", "inf", "-nan", '"a\\"b"', '""',
    '"""\n[t]\n a = 1\n"""', "'''\nx = '\n'''", '"""a""""', '"""\\\n  b"""',
    '"\\u00e9\\U0001F600"', '"\u65e5\u2028\x85"', '"http://127.0.0.1:1/v1"',
    "'\t'", '"\\b\\t\\n\\f\\r\\\\"',
    "9" * 400, "1e999", '"openai"', "0.0", "false",
]
TOML_BAD_VALUES = [
    "xero_SECRET_0123456789", "[1]", "{a = 1}", "2026-01-01", "07:32:00",
    "01", "1__0", "'''", '"""', '"', "'", '"\\q"', '"\\ud800"', "", "nul",
    '"\x01"', "9" * 5000, '"\\UFFFFFFFF"', "0x", "+0x1", "1.", "\u0661",
    '"xero_SECRET_0123456789', 'xero_SECRET_0123456789"',
]


TOML_UNKNOWN = [
    "[1]", "[]", "[\n  1, # ]\n  '[',\n]", '["a", ["]"], """\n[x]\n"""]',
    "{a = 1}", "{}", "{ a = [{b = '}'}], c.d = \"]\" }", "2026-01-01",
    "2026-01-01T00:00:00Z", "07:32:00.5", "[\n[\n]\n]",
]


TOML_PIECES = [
    "a", " ", "#", "\t", "\u65e5", '"', "'", '""', "''", '\\"', "\\\\", "\\n",
    "\\u00e9", "\\uD7ff", "\\ud800", "\\uDfFF", "\\U0001F600", "\\U0000dFff",
    "\\U0000E000", "\\U0010FFFF", "\\U00110000", "\\x41", "\\q", "\n", "\r\n",
    "\r", "\\\n \t", "\\ \r\n\n ", "\\ a", "\x7f", "\x01", "\x85",
]


def toml_string(chance):
    """What may be a string, of few pieces."""
    quotes = chance.choice(['"', "'", '"""', "'''"])
    pieces = TOML_PIECES[:15] if chance.random() < 0.5 else TOML_PIECES
    return quotes + "".join(chance.choice(pieces) for _ in range(
        chance.randint(0, 4))) + quotes


def toml_number(chance):
    """What may be a number."""
    return chance.choice(["", "", "+", "-", "0x", "0o", "0b"]) + "".join(
        chance.choice("0123789_.eE+-afn") for _ in range(
            chance.randint(1, 4)))


def toml_name(chance, name):
    """One of the ways to write a name."""
    plain = name if name and not set(name) & set(' .\u65e5') else f'"{name}"'
    return chance.choice([plain, plain, plain, f'"{name}"', f"'{name}'",
                          '"%s"' % "".join(f"\\u{ord(c):04x}"
                                           for c in name)])


def toml_names(chance, names):
    """A key, dotted or not."""
    dot = chance.choice([".", ".", " . ", "\t."])
    return dot.join(toml_name(chance, name) for name in names)


def toml_header(chance):
    """The names of a table, of ours most times."""
    table, key = chance.choice(TOML_TABLES[:3]), chance.choice(TOML_KEYS)
    return chance.choice([["deployment", table]] * 16 + [
        ["deployment", chance.choice(TOML_TABLES)]] * 9 + [
        ["deployment"], ["other"], ["other"], ["other", table], [table],
        ["deployment", table, "x"], ["deployment", table, "more"],
        ["deployment", table, "more", key], ["current"],
        ["deployment", table, key]])


def toml_pair(chance, header):
    """The names of a key in a table, of ours most times."""
    table, key = chance.choice(TOML_TABLES), chance.choice(TOML_KEYS)
    usual = {0: [["current"], ["x"], ["y"], ["deployment", table, key]],
             1: [[table, key], [table, "x"]]}.get(len(header), [[key]])
    return chance.choice(usual) if chance.random() < 0.9 else chance.choice([
        [key], [key, "y"], ["more", "y"], ["more"], [table, key],
        ["deployment", table], ["deployment", table, key, "y"],
        ["deployment"]])


def toml_value(chance, is_valid):
    number = chance.random()
    if not is_valid and number < 0.15:
        return chance.choice([toml_string(chance), toml_number(chance),
                              chance.choice(TOML_BAD_VALUES)])
    return chance.choice(TOML_VALUES if number < 0.95 else TOML_UNKNOWN)


def toml_lines(chance, header, is_valid):
    """Yield the lines of a table."""
    if header:
        names = toml_names(chance, header)
        yield chance.choice(["[%s]"] * 16 + ["[ %s\t]", "[[%s]]"]) % names
    for _ in range(chance.choice([0, 1, 1, 2, 3, 5])):
        names = toml_names(chance, toml_pair(chance, header))
        value = toml_value(chance, is_valid)
        yield chance.choice([
            "", "# [a]", "# %s = %s", "%s = %s", "%s=%s", "%s\t=\t%s",
            "%s = %s", "%s = %s"]).replace("%s", names, 1).replace(
                "%s", value, 1)


def toml_document(chance, is_valid=False):
    """A document of keys and tables; is_valid: no line is bad in itself."""
    end = chance.choice(["\n", "\n", "\r\n"])
    headers = [[]] + [toml_header(chance)
                      for _ in range(chance.choice([0, 1, 2, 3, 4]))]
    lines = [chance.choice(["", "", "", "  ", "\t"]) + line
             + chance.choice(["", "", "", " # c = 1", "\t#", "# \u65e5"])
             for header in headers
             for line in toml_lines(chance, header, is_valid)]
    text = end.join(lines) + chance.choice(["", end, end * 2])
    if is_valid or chance.random() < 0.7:
        return text.encode()
    return mutated_bytes(text.encode(), chance)


# == JSON Lines ==============================================================

def request_of(number):
    return {"custom_id": f"r{number}", "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "max_tokens": number, "messages": [
                {"role": "user", "content": "x\u2028y"}]}}


def json_lines(chance):
    """A batch input; lines are mutated, ends mixed, the last one missing."""
    data = chance.choice([b""] * 9 + [b"\xef\xbb\xbf"])
    is_wild = chance.random() < 0.7
    for _ in range(chance.choice([0, 1, 2, 3, 5, 30])):
        tree = request_of(chance.randrange(400))
        if is_wild and chance.random() < 0.4:
            tree = mutated_tree(tree, chance)
        line = json_source(tree, chance).encode()
        if is_wild and chance.random() < 0.2:
            line = mutated_bytes(line, chance)
        line += chance.choice([b"", b"", b" ", b"\r", b"\t\r", b"\x0b"]
                              if is_wild else [b""])
        data += line + (chance.choice([b"\n"] * 20 + [b"\n\n", b"\r", b"\x85"])
                        if is_wild else b"\n")
    return data[:-1] if data and chance.random() < 0.3 else data


# == configs, block by block =================================================

CONFIG_NAMES = ["prod", "stag ing", "a.b", "\u65e5", "1", "-", "]#", 'q"\\']
CONFIG_VALUES = {
    "base_url": "http://h/p/v1", "api_key": "k-1", "api_key_env": "K",
    "api_key_file": "a b\\c", "style": "openai", "endpoint": "x#\u65e5\n\t\"",
    "cacert": "\u2028\x01", "timeout": 2.5}
CONFIG_NOTES = ["", "", "# note", "  # x = 1 \u65e5", "\t", "# [deployment.prod]",
                '# """', "#"]


def spelled_string(chance, text):
    """One of the ways to write a string in TOML."""
    ways = [json.dumps(text)]
    if text.isprintable() and "'" not in text:
        ways += [f"'{text}'", f"'''{text}'''"]
    if not set(text) & set('"\\\x01'):
        ways += [f'"""\n{text}"""', f'"""\\\n   {text}"""']
    return chance.choice(ways)


def spelled_name(chance, name):
    plain = not set(name) - set(LETTERS + "-_")
    ways = [name] * 4 * plain + [json.dumps(name),
                                 json.dumps(name, ensure_ascii=False)]
    if "'" not in name:
        ways.append(f"'{name}'")
    return chance.choice(ways)


def config_block(chance, header, name, source, value, end):
    """A key with its value: [path, header, before, source, behind, value]."""
    before = chance.choice(["", "", "  ", "\t"]) + spelled_name(
        chance, name) + chance.choice([" = ", "=", "\t=  "])
    behind = chance.choice(["", "", " # c", "\t", "  # = \"'["])
    return [header + (name,), header, before, source, behind + end, value]


def table_block(chance, path, end, is_array=False):
    dot = chance.choice([".", ".", " . "])
    names = dot.join(spelled_name(chance, name) for name in path)
    form = "[[%s]]" if is_array else chance.choice(["[%s]", "[ %s\t]"])
    line = chance.choice(["", "", "  "]) + form % names + chance.choice(
        ["", "", " # [t]"])
    return [path, path, line, "", end, None if is_array else {}]


def foreign_keys(chance, header, end, names):
    """Keys of nobody that we know, with values of every kind."""
    for name in names:
        if chance.random() < 0.4:
            source = chance.choice(TOML_UNKNOWN + ["1e3", "true", '"x"'])
            value = {"1e3": 1e3, "true": True, '"x"': "x"}.get(source)
            yield config_block(chance, header, name,
                               source.replace("\n", end), value, end)


def notes(chance, end):
    for _ in range(chance.choice([0, 0, 1, 2])):
        yield [(), (), chance.choice(CONFIG_NOTES), "", end, None]


def deployment_blocks(chance, name, end):
    path = "deployment", name
    yield table_block(chance, path, end)
    keys = [key for key in CONFIG_VALUES if chance.random() < 0.4]
    sources = [key for key in keys if key[:7] == "api_key"]
    keys = [key for key in keys if key not in sources[1:]]
    chance.shuffle(keys)
    for key in keys:
        yield from notes(chance, end)
        value = CONFIG_VALUES[key]
        text = "2.5" if key == "timeout" else spelled_string(chance, value)
        yield config_block(chance, path, key, text, value, end)
    yield from foreign_keys(chance, path, end, ["colour", "e f"])
    if chance.random() < 0.2:
        yield from notes(chance, end)
        yield table_block(chance, path + ("more",), end, chance.random() < 0.3)
        yield from foreign_keys(chance, path + ("more",), end, ["endpoint"])


def config_blocks(chance):
    """(blocks, byte order mark) of a config that is read."""
    end = chance.choice(["\n", "\n", "\r\n"])
    names = chance.sample(CONFIG_NAMES, chance.choice([0, 1, 2, 3]))
    blocks = list(notes(chance, end))
    if names and chance.random() < 0.6:
        value = chance.choice(names)
        blocks.append(config_block(chance, (), "current", spelled_string(
            chance, value), value, end))
    blocks += foreign_keys(chance, (), end, ["tags", "api_key"])
    tables = [list(deployment_blocks(chance, name, end)) for name in names]
    for path in (("other",), ("other", "prod"), ("prod",), ("deployment",)):
        if chance.random() < 0.2:
            tables.append([table_block(chance, path, end)] + list(
                foreign_keys(chance, path, end, ["x", "current"])
                if path[0] != "deployment" else ()))
    chance.shuffle(tables)
    for table in tables:
        blocks += list(notes(chance, end)) + table
    blocks += notes(chance, end)
    if blocks and chance.random() < 0.3:
        blocks[-1][4] = blocks[-1][4][:-len(end)]
    return blocks, chance.choice([""] * 9 + ["\ufeff"])


def config_changes(chance):
    """A sequence of (verb, name, key, value) as the verbs of config have."""
    for _ in range(chance.choice([1, 2, 4, 8])):
        verb = chance.choice(["use", "put", "change", "change", "unset",
                              "unset", "drop"])
        name = chance.choice(CONFIG_NAMES[:5])
        key = chance.choice(list(CONFIG_VALUES) + (
            ["colour", "more"] if verb == "unset" else []))
        value = 5.0 if key == "timeout" else chance.choice(
            ["v", "a 'b' \"c\" \\", "\u65e5\x85"])
        if key in ("base_url", "api_key"):
            value = "https://new/p/v1"
        if key == "style":
            value = "xerotier"
        if verb == "put":
            value = {"base_url": "https://put/p/v1", chance.choice(
                ["api_key", "api_key_env"]): "K"}
        yield verb, name, key, value


# == keys, and what a server makes of them ===================================

WORD_KEYS = ["test", "x", "null", "id", "1", "true", "EMPTY", "ollama", "none",
             "list", "data", "a.b", "s3", "error", "\\", '"', "%", "object",
             "Bearer", "changed"]
LONG_KEYS = ["no-key-required", "completed", "1770000000", "lm-studio",
             "message-of", '"id":"id-1"', '{"object":"list",', "a" * 40,
             "abababababababab", "password1"]
SIGNS = "+/=-_.~!$&'()*,;:@%\\\"<>#?[]{}|^`"


def drawn(chance, letters, least, most):
    return "".join(chance.choice(letters)
                   for _ in range(chance.randint(least, most)))


def api_key(chance):
    """A key as people have them: a word, a random one, one of odd signs."""
    kind = chance.randrange(6)
    if kind < 2:
        return chance.choice([WORD_KEYS, LONG_KEYS][kind])
    slug = chance.choice(["demo", "acme-prod", "x"])
    return ["xero_" + slug + "_" + drawn(chance, LETTERS + "-_", 8, 60),
            "sk-" + drawn(chance, LETTERS, 8, 200),
            drawn(chance, LETTERS + SIGNS * 2, 8, 50),
            drawn(chance, LETTERS[10:40], 1, 7)][kind - 2]


def secret_part(key):
    """What of a key is nobody's business."""
    head, _, rest = key.partition("_")
    slug, _, rest = rest.partition("_")
    return rest if head == "xero" and slug and rest else key


def percent(character, chance):
    return chance.choice(["%%%02x", "%%%02X"]) % ord(character)


def spelled(key, chance):
    """(a way in which a key may be quoted, whether that is JSON source)."""
    part, way = secret_part(key), chance.randrange(7)
    if way == 0:
        return "".join(c if c in LETTERS else percent(c, chance)
                       for c in key), False
    if way == 1:
        return "".join(percent(c, chance) if chance.random() < 0.3 else c
                       for c in key), False
    if way == 2:    # JSON in a text
        return json.dumps(key)[1:-1].replace("/", "\\/"), False
    if way == 3:
        return "".join("\\u%04x" % ord(c) if chance.random() < 0.4 or c in
                       '"\\' else c for c in key), True
    if way == 4 and len(part) > 12:
        start = chance.randrange(len(part) - 12)
        return part[start:chance.randint(start + 12, len(part))], False
    return (part if way == 5 and len(part) > 7 else key), False


def keyed_answer(chance):
    """A key, what is quoted of it, and an answer in which that stands.

    In the body, ids have the key in them if it is short: id-KEY-1.
    """
    key = api_key(chance)
    is_short = len(key) < 8
    said, is_source = (key, False) if is_short else spelled(key, chance)
    source = said if is_source else json.dumps(said)[1:-1]
    before, after = chance.choice([("", ""), ("no ", " here"), ("'", "'..."),
                                   ("Bearer ", ""), ("<", ">"), ("?k=", "&x")])
    name = json.dumps(f"id-{key}-1" if is_short else "id-1")
    about = f'"{before}{source}{after}"'
    record = (f'{{"id":{name},"object":"thing","name":{about},"note":"{source}'
              f'","status":"ready","list":[{about}],"more":{{"k":{about}}},'
              '"count":1770000000' + f',{about}:1' * (not is_short) + "}")
    error = (f'{{"error":{{"message":{about},"type":"invalid","code":"'
             f'{source}","param":{about}}}}}')
    return {"key": key, "said": said, "before": before, "name": name,
            "is_source": is_source, "record": record, "error": error,
            "text": f"{before}{said}{after}"}


# == rows, as the csv module writes them =====================================

CELL_PIECES = [
    "=1+1", "+1", "-1", "@x", '"', '""', "'", ",", ";", "\t", "\n", "\r",
    "\r\n", " ", "a", "é", "日本", "\U0001f600", "\u2028", "\x85", "\x0b",
    "\x0c", "\x1a", "\ufeff", "{a}", "{{", "}}", "{", "}", "{b}", "\\", "\\n",
    "%s", "null", "0", "1e5", "x" * 3000, "\x1b[31m", "\u202e", "\x7f"]


def csv_cell(chance):
    return "".join(chance.choice(CELL_PIECES)
                   for _ in range(chance.choice([0, 1, 1, 2, 3, 8])))


def csv_table(chance):
    """(columns, rows): names of columns are odd, and each is there once.

    A byte order mark in front of the first would be that of the file.
    """
    names = ["a", "b"] + sorted({csv_cell(chance).lstrip("\ufeff") for _ in
                                 range(chance.randrange(4))} - {"a", "b"})
    chance.shuffle(names)
    return names, [[csv_cell(chance) for _ in names]
                   for _ in range(chance.choice([1, 1, 2, 3, 8]))]


def csv_data(chance, columns, rows):
    """The table as bytes, and its delimiter: in any way to write it."""
    import csv
    import io
    delimiter, text = chance.choice(",,\t"), io.StringIO()
    # A terminator of both makes the module quote what has one of them.
    csv.writer(text, delimiter=delimiter, quoting=chance.choice(
        [csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        lineterminator="\r\n").writerows([columns] + rows)
    data = text.getvalue().encode("utf-8")
    if chance.random() < 0.3:
        data = data[:-2]
    return (chance.choice([b"", b"\xef\xbb\xbf"])
            + chance.choice([b"", b"", b"\n\r\n"]) + data
            + chance.choice([b"", b"\r\n\n\n"])), delimiter
