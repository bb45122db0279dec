"""No key shows: not on a stream, in a file, a traceback, a process list.

Every row of the command map runs with all that makes it talk.  What is meant
to be seen once is a new secret, on standard output, of the commands in ONCE.
"""

import base64
import json
import os
import random
import re
import threading
import time
from urllib.parse import quote, unquote

import pytest

import xeroctl
from conftest import IS_FULL, at_both_ends, costly
from test_faults import FAULTS, SLOW, meet
from world import CALLS, SECRET, Interrupting, command_of

SEED = 5
PASSWORD = "pr0xy-Passw0rd-91"
ONCE = ("keys create", "keys rotate", "webhooks create", "agents create",
        "agents join-keys create", "agents revoke-credentials",
        "agents curve-rotate", "webhooks update")
MODES = {
    "-vv": (["-vv"], {}),
    "-vv as JSON": (["-vv", "-o", "json"], {}),
    "--curl": (["--curl"], {}),
    "--curl -vv": (["--curl", "-vv", "-o", "json"], {}),
    "--dry-run": (["--dry-run"], {}),
    "--dry-run -vv": (["--dry-run", "-vv", "-o", "json"], {}),
    "debug": (["-vv"], {"XEROTIER_DEBUG": "1"}),
    "proxy": (["-vv"], {"XEROTIER_DEBUG": "1", "HTTP_PROXY": "",
                        "XEROTIER_BASE_URL": "http://router.test/proj_demo"
                                             "/v1"}),
    "no proxy": (["-vv", "--timeout", "1"], {
        "XEROTIER_DEBUG": "1", "XEROTIER_BASE_URL":
        "http://router.test/proj_demo/v1",
        "HTTP_PROXY": f"http://me:{PASSWORD}@127.0.0.1:1"}),
}
KEPT = "config.toml", "key.txt", "secret.txt"   # files with a secret in them
DRIVEN = [row for row in CALLS if not row.is_init
          and not row.name.startswith(("help", "shell", "commands"))]
WITH_SECRETS = (
    ["webhooks", "--create", "--url", "https://example.com/hook", "--events",
     "batch.completed", "--secret", SECRET],
    ["api", "POST", "/webhooks", "--raw-field", "secret=" + SECRET,
     "--raw-field", "url=https://example.com/hook", "--field",
     'events=["batch.completed"]'],
)


def sample(cases, count, most=None):
    """Some of the cases, the same ones each time; most: with --full."""
    cases = list(cases)
    count = min(most or len(cases), len(cases)) if IS_FULL else count
    return random.Random(SEED).sample(cases, count)


def halves(secret):
    middle = len(secret) // 2
    return [secret[:middle], secret[middle:]]


def patterns(world):
    """The parts of every secret that there is, as they may be written."""
    pair = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    return [part for secret in (world.router.key, PASSWORD, pair, SECRET)
            for part in halves(secret)]


def made_secrets(world):
    """The secrets in what the router has answered."""
    found = []

    def look(value):
        for name, item in (value.items() if isinstance(value, dict) else ()):
            if name in ("key", "api_key", "secret", "token", "join_key") and (
                    isinstance(item, str)):
                found.append(item)
            look(item)
    for seen in world.router.requests:
        for piece in getattr(seen, "said", ()):
            try:
                look(json.loads(piece.decode("utf-8")))
            except (ValueError, RecursionError):
                pass    # no answer in which the router tells a secret
    return found


def check_hidden(world, row, shown):
    """Assert that neither stream nor a file holds a part of a secret."""
    parts = patterns(world)
    new = [part for secret in made_secrets(world)
           for part in halves(secret) if len(part) > 7]
    once = row is not None and command_of(row) in ONCE
    for part in parts + new:
        assert part not in shown.stderr
    for part in parts + (new if not once else []):
        assert part not in shown
    for name, data in world.files_now().items():
        if name not in KEPT:
            assert not [part for part in parts if part.encode() in data], name


def run_mode(world, row, mode):
    more, environ = MODES[mode]
    if environ.get("HTTP_PROXY") == "":
        environ = dict(environ, HTTP_PROXY=f"http://me:{PASSWORD}@127.0.0.1:"
                                           f"{world.router.port}")
    return world.start(row, *more, **environ)


@pytest.mark.parametrize("row, mode", sample(
    [(row, mode) for row in DRIVEN for mode in MODES], 90), ids=str)
def test_no_row_shows_a_secret(world, row, mode):
    world.prepare(row)
    shown = run_mode(world, row, mode)
    assert "internal error" not in shown.stderr
    check_hidden(world, row, shown)


def test_a_row_talks_where_nothing_shows(world):
    """The tests above look at texts that could have held a secret."""
    row = next(row for row in DRIVEN if row.name == "models model_1")
    said = {}
    for mode in MODES:
        world.prepare(row)
        said[mode] = run_mode(world, row, mode)
    assert "Authorization: Bearer xero_demo_…" in said["-vv"].stderr
    assert "$XEROTIER_API_KEY" in said["--curl"]
    assert "Traceback" in said["no proxy"].stderr
    assert said["proxy"].exit_status == 0
    assert said["no proxy"].exit_status == 5


@pytest.mark.parametrize("command", sorted(
    {command_of(row) for row in DRIVEN} & set(ONCE)))
def test_a_new_secret_is_shown_once_on_standard_output(world, command):
    row = next(row for row in DRIVEN if command_of(row) == command)
    world.prepare(row)
    shown = world.start(row, "-vv")
    for secret in made_secrets(world):
        assert shown.count(secret) == 1 and secret not in shown.stderr


@pytest.mark.parametrize("words", WITH_SECRETS, ids=lambda words: words[0])
@pytest.mark.parametrize("mode", ["-vv", "--curl", "--dry-run", "debug"])
def test_a_secret_that_was_typed_is_not_repeated(world, words, mode):
    world.reset(None)
    more, environ = MODES[mode]
    shown = world.run(*words, *more, "--force", **environ)
    assert shown.exit_status == 0
    for part in halves(SECRET):
        assert part not in shown.stderr
        assert part not in shown or mode in ("-vv", "debug")


# == faults ==================================================================

def quoting(key):
    """Answers that quote the key; one of them where a message is cut."""
    error = json.dumps({"error": {"message": f"no such key: {key}",
                                  "code": key, "param": key}}).encode()
    plain = f"Bearer {key} is not good".encode()
    found = {
        "error": dict(status=401, raw=error),
        "error 400": dict(status=400, raw=error),
        "text": dict(status=500, raw=plain, content_type="text/plain"),
        "HTML": dict(status=502, content_type="text/html",
                     raw=b"<title>" + plain + b"</title>" + plain),
        "no JSON": dict(raw=plain),
        "reason": dict(status=500, reason=f"no {key}", raw=b""),
        "redirect": dict(redirect=f"https://example.com/{key}"),
        "request id": dict(status=400, headers={"X-Request-ID": key}),
        "frames": dict(frames=[b"data: " + error + b"\n\n"]),
        "no frame": dict(frames=[b"data: " + plain + b"\n\n"]),
        "retry": dict(status=503, raw=error, headers={"Retry-After": key}),
    }
    for place in (80, 90, 100, 110, 195, 280, 290, 295, 299):
        found[f"cut at {place}"] = dict(
            status=500, raw=b"x" * place + key.encode() + b"y" * 300,
            content_type="text/plain")
        found[f"title cut at {place}"] = dict(
            status=502, raw=b"<html><title>" + b"x" * place + key.encode()
            + b"y" * 300 + b"</title>", content_type="text/html")
    return found


ASKING = [row for row in DRIVEN if row.group.name not in (
    "config", "webhooks") and not row.is_endless
    and command_of(row) not in ("batches check", "health check")]
QUOTES = sorted(quoting("k"))


@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize("name", QUOTES)
def test_a_server_that_quotes_the_key_does_not_get_it_shown(world, name,
                                                            form):
    for row in sample(ASKING, 2, 40):
        world.prepare(row)
        meet(world, 1, quoting(world.router.key)[name])
        shown = world.start(row, "-vv", *(
            () if row.is_interactive else ("-o", form)),
            clock=Interrupting(300), XEROTIER_DEBUG="1")
        for part in halves(world.router.key):
            assert part not in shown.stderr, row
            if shown.exit_status:
                assert part not in shown, row


def fault_cases():
    return [(row, name) for row in ASKING for name in FAULTS
            if name not in SLOW]


@pytest.mark.parametrize("row, name", sample(fault_cases(), 40, 2500), ids=str)
def test_no_fault_shows_a_secret(world, row, name):
    world.prepare(row)
    meet(world, 1, FAULTS[name])
    shown = world.start(row, "-vv", clock=Interrupting(300),
                        XEROTIER_DEBUG="1")
    check_hidden(world, row, shown)


# == processes ===============================================================

TELLTALE = """#!/bin/sh
{
  tr '\\0' ' ' < /proc/$$/cmdline; echo
  tr '\\0' ' ' < /proc/$PPID/cmdline; echo
  tr '\\0' '\\n' < /proc/$$/environ
} > "$0.seen"
cat "${0%/*}/key.txt"
"""

# How a key is given, and what stands in the config for it.
WAYS = {
    "command": ('api_key_command = "{tool}"', [], {}),
    "keychain": ('api_key_keychain = "demo"', [], {}),
    "config": ('api_key = "{key}"', [], {}),
    "file": ('api_key_file = "{file}"', [], {}),
    "variable": ('api_key_env = "MY_KEY"', [], {"MY_KEY": "{key}"}),
    "environment": ("", [], {"XEROTIER_API_KEY": "{key}"}),
    "@file": ("", ["--api-key", "@{file}"], {}),
    "stdin": ("", ["--api-key", "-"], {}),
}


@pytest.fixture
def telltale(tmp_path, router):
    """A tool that notes what others could see of it, and tells the key."""
    for name, text in (("secret-tool", TELLTALE), ("key.txt", router.key)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o700)
    return tmp_path / "secret-tool"


def started_way(start, router, telltale, way):
    """Start `models` with the key given in one of the ways."""
    line, words, environ = WAYS[way]
    values = {"tool": telltale, "key": router.key,
              "file": telltale.parent / "key.txt"}
    config = telltale.parent / "config.toml"
    config.write_text(f'current = "a"\n[deployment.a]\nbase_url ='
                      f' "{router.base_url}"\n' + line.format(**values))
    config.chmod(0o600)
    environ = {name: text.format(**values) for name, text in environ.items()}
    return start("models", *(word.format(**values) for word in words),
                 against=None, XEROTIER_CONFIG=str(config),
                 PATH=f"{telltale.parent}:/usr/bin:/bin", **environ)


@pytest.mark.skipif(not os.path.exists("/proc/self/cmdline"),
                    reason="needs /proc")
@at_both_ends
@pytest.mark.parametrize("way", [
    way if way in ("command", "stdin") else pytest.param(way, marks=costly)
    for way in WAYS])
def test_no_process_list_shows_a_key(start, router, telltale, way):
    gate = threading.Event()
    router.order("GET /models", gate=(0, gate))
    process = started_way(start, router, telltale, way)
    process.stdin.write(router.key.encode())
    process.stdin.close()
    limit = time.monotonic() + 10
    while not router.seen("GET", "/models"):
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.005)
    with open(f"/proc/{process.pid}/cmdline", "rb") as source:
        command_line = source.read().decode()
    gate.set()
    assert process.wait(10) == 0
    assert router.seen("GET", "/models")[0].headers["Authorization"] == (
        f"Bearer {router.key}")
    seen = telltale.parent / "secret-tool.seen"
    assert seen.exists() == (way in ("command", "keychain"))
    said = (process.stdout.read() + process.stderr.read()).decode()
    for part in halves(router.key):
        assert part not in command_line and part not in said
        assert not seen.exists() or part not in seen.read_text()


# == a key in any form ========================================================

KEY = 'xero_acme-prod_Zk9/aB"3+xQ7_rT2mW5vY8c'
PART = KEY[len("xero_acme-prod_"):]
OTHER = "xero_acme-prod_Zk9aPwQx4LmN8sT1vB6y"    # of the same project
FORMS_OF_IT = {
    "itself": KEY, "its part": PART, "a run": PART[5:18],
    "its begin": KEY[:24], "its end": KEY[-12:],
    "in a URL": quote(KEY, safe=""), "in a URL, lower": quote(
        KEY, safe="").replace("%2F", "%2f"),
    "JSON": json.dumps(KEY)[1:-1], "JSON, too": KEY.replace(
        "/", "\\/").replace('"', '\\"'),
    "JSON in code": "".join("\\u%04x" % ord(c) for c in KEY),
    "HTML": KEY.replace("/", "&#x2F;").replace('"', "&#x22;"),
}
WORDS = "test", "x", "null", "id", "1", "EMPTY", "ollama"


def known(*secrets, **more):
    found = xeroctl.Secrets(**more)
    for secret in secrets:
        found.add(secret)
    return found


@pytest.mark.parametrize("form", FORMS_OF_IT)
def test_no_form_of_a_key_is_left(form):
    secrets, said = known(KEY), FORMS_OF_IT[form]
    for text in (said, f"no '{said}'...", f"a=1&k={said}&b", f"<{said}>",
                 said + "\n" + said):
        shown = secrets.masked(text)
        assert said not in shown and "…" in shown
        assert secrets.masked_json({"a": [text], text: 1}) == {
            "a": [shown], shown: 1}


def test_what_is_no_secret_of_a_key_stays():
    secrets = known(KEY)
    for text in (OTHER, "xero_acme-prod_", "acme-prod", PART[:11], "Zk9", ""):
        assert secrets.masked(text) == text
        assert secrets.masked_json([text]) == [text]


@pytest.mark.parametrize("word", WORDS)
def test_a_key_that_is_a_word_is_one_only_alone_and_behind_bearer(word):
    secrets = known(word)
    text = f"no {word}, {word}-1, /{word}/ {word}"
    record = {"id": word, "file_id": word, "object": word, word: 1,
              "note": text}
    assert secrets.masked(text) == text
    assert secrets.masked_json(record) == record
    assert secrets.masked_json({"param": word, "k": [word]}) == {
        "param": "…", "k": ["…"]}
    assert secrets.masked(f"(Bearer {word}) Bearer {word}-1") == (
        f"(Bearer …) Bearer {word}-1")


def test_a_long_text_and_a_long_key_take_no_time():
    chance = random.Random(SEED)
    key = "".join(chance.choice("abcdefgh/\\") for _ in range(500))
    secrets, text = known(key), "a quick\\nbrown fox %20" * 20000
    began = time.monotonic()
    assert secrets.masked(text) == text
    assert secrets.masked(text + json.dumps(key)) == text + '"…"'
    assert time.monotonic() - began < 5


RECORD = {"id": "thing-1", "name": f"n {KEY}", "status": "ready",
          "url": f"http://h/?k={quote(KEY, safe='')}", "created": 1770000000}


@pytest.mark.parametrize("form", xeroctl.FORMS)
@pytest.mark.parametrize("words", [("models",), ("models", "m"),
                                   ("api", "/x"), ("files", "--all")],
                         ids=" ".join)
def test_a_key_in_a_record_is_shown_in_no_form(run, router, words, form):
    body = RECORD if len(words) == 2 and words[1] != "--all" else {
        "object": "list", "data": [RECORD]}
    router.order("*", body=json.dumps(body).encode())
    shown = run(*words, "-o", form, "-vv", XEROTIER_API_KEY=KEY)
    assert shown.exit_status == 0 and "thing-1" in shown
    for text in (shown, shown.stderr):
        for reading in (text, unquote(text), text.replace("\\", "")):
            assert PART[:12] not in reading and PART[-12:] not in reading


def test_a_key_that_is_a_number_breaks_no_json(run, router):
    record = {"id": "a-1770000000", "created": 1770000000}
    router.order("*", body=json.dumps(record).encode())
    shown = run("models", "m", "-o", "json", "-vv",
                XEROTIER_API_KEY="1770000000")
    for text in (shown, shown.stderr.rpartition("\n< ")[2]):
        assert json.loads(text) == {"id": "a-…", "created": 1770000000}


def test_a_key_made_beside_ours_is_shown(run, router):
    router.order("*", body=json.dumps(
        {"id": "key_1", "key": OTHER, "name": KEY}).encode())
    shown = run("keys", "create", "--name", "a", "--scopes", "management",
                "-o", "json", XEROTIER_API_KEY=KEY)
    assert json.loads(shown) == {"id": "key_1", "key": OTHER,
                                 "name": "xero_acme-prod_…"}
    assert OTHER not in shown.stderr


LINES = "".join(json.dumps({
    "custom_id": f"{word}-1", "method": "POST", "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
}) + "\n" for word in WORDS)


@pytest.mark.parametrize("key", WORDS + (KEY,))
def test_what_a_direct_run_writes_has_each_id_and_no_key(
        run, router, tmp_path, key):
    place = tmp_path / "in.jsonl"
    place.write_text(LINES)
    said = {"message": f"no {key} here", "code": key, "note": f"-{key}-"}
    router.order("*", times=2, status=400, raw=json.dumps(
        {"error": said}).encode())
    router.order("*", times=None, body=json.dumps({
        "id": "a", "note": said["note"], "choices": [{
            "index": 0, "finish_reason": "stop", "message": {
                "role": "assistant", "content": "ok"}}]}).encode())
    out = tmp_path / "out.jsonl"
    shown = run("batches", "run", "--endpoint", "demo", "--input", str(place),
                "--output-file", str(out), "--direct", XEROTIER_API_KEY=key)
    assert shown.exit_status == 1, shown
    texts = [path.read_text("utf-8") for path in tmp_path.glob("out*.jsonl")]
    found = [json.loads(line) for text in texts for line in text.splitlines()]
    assert sorted(one["custom_id"] for one in found) == sorted(
        f"{word}-1" for word in WORDS)
    bad, = {json.dumps(one["error"], sort_keys=True)
            for one in found if one["error"]}
    assert json.loads(bad)["code"] == xeroctl.redacted_key(key)
    if key == KEY:
        texts.append((tmp_path / "out.jsonl.state.json").read_text("utf-8"))
        assert not [text for text in texts if PART[:12] in text]
    else:
        assert f"no {key} here" in json.loads(bad)["message"]
        assert all(one["response"]["body"]["note"] == said["note"]
                   for one in found if not one["error"])


# == what is quoted ===========================================================

HIDDEN_URLS = (
    "user:{}@h.example/v1", "http:/user:{}@h.example/v1",
    "http:\\\\user:{}@h.example/v1", "HTTP://user:{}@h.example/v1",
    "http:user:{}@h.example/v1", "//user:{}@h.example/v1",
    "http:///user:{}@h.example/v1", "http://user:p/{}@h.example/v1",
    "http://user:{}%40h.example/v1", "http://user:{}?x@h.example/v1",
    "ftp://user:{}@h/v1", "h.example/v1?key={}", "http://h/v1?key={}",
    "http://h/v1#{}", "user:{}", "http://h:{}/v1", "http://h/ {}",
)
HIDDEN = "SeCrEtPw"


@pytest.mark.parametrize("url", HIDDEN_URLS)
def test_a_url_that_may_hold_a_secret_is_not_quoted(run, tmp_path, url):
    url = url.format(HIDDEN)
    config = tmp_path / "config.toml"
    config.write_text(f"current = 'a'\n[deployment.a]\nbase_url = '{url}'\n"
                      "api_key = 'k'\n")
    config.chmod(0o600)
    path = {"against": None, "XEROTIER_CONFIG": str(config)}
    for words, environ in (
            (["models"], {"XEROTIER_BASE_URL": url}),
            (["models", "--base-url", url], {}), (["models"], {}),
            (["models", "--base-url", "http://127.0.0.1:1/v1"], {}),
            (["models", "--frontend-url", url, "--base-url",
              "http://h/p/v1", "--api-key", "k"], {}),
            (["status"], {}), (["config", "set", "a", "base_url", url], {}),
            (["config", "add", "b", "--api-key", "k", "--base-url", url], {})):
        for form in ("table", "json"):
            shown = run(*words, "-o", form, "-vv", **dict(path, **environ))
            assert shown.exit_status in (2, 3), shown
            assert HIDDEN not in shown + shown.stderr, words
    shown = run("config", "list", **path)
    assert "@" not in url or "%40" in url or HIDDEN not in shown


def test_a_url_without_a_secret_is_quoted(run):
    for url in ("h.example/p/v1", "localhost:8000/v1", "ftp://h/v1"):
        shown = run("models", XEROTIER_BASE_URL=url)
        assert url in shown.stderr and shown.exit_status == 3


def test_a_hint_with_the_form_of_a_url_stays(run):
    shown = run("models", "--proxy", f"ftp://me:{PASSWORD}@h")
    assert "hint: http://[USER:PASSWORD@]HOST:PORT\n" in shown.stderr
    assert PASSWORD not in shown.stderr


def test_a_url_of_another_origin_is_not_quoted(run, router):
    for url in (f"https://u:{HIDDEN}@h/x", f"https://h/x?sig={HIDDEN}"):
        shown = run("api", "GET", url)
        assert shown.exit_status == 2 and HIDDEN not in shown.stderr
    assert not router.requests


@pytest.mark.parametrize("key", ["xero_demo_8d1f6c0b72e94a35", "sk-live-12",
                                 "sk-proj-8d1f6c0b72e94a35",
                                 "xero_8d1f6c0b72e94a35"])
def test_a_key_where_a_name_belongs_is_not_quoted(run, tmp_path, key):
    for source in ("api_key_env", "api_key_command", "api_key_file"):
        config = tmp_path / "config.toml"
        config.write_text("current = 'a'\n[deployment.a]\nbase_url ="
                          f" 'http://h/p/v1'\n{source} = '{key}'\n")
        config.chmod(0o600)
        path = {"against": None, "XEROTIER_CONFIG": str(config)}
        for words in (["models"], ["config", "show"], ["config", "use", key],
                      ["models", "--context", key], ["models", "-o", key],
                      ["status"], ["status", "--context", key],
                      ["--" + key], [key], ["config", "unset", key, "a"],
                      ["models", "--api-key", "@" + key]):
            for form in ("table", "json"):
                shown = run(*words, **dict(path, XEROTIER_OUTPUT=form))
                assert key[-6:] not in shown + shown.stderr, shown


@pytest.mark.parametrize("words, environ, wanted", [
    (["--proxy", f"http://me:{PASSWORD}@h:1"], {}, "--proxy http://me@h:1"),
    (["--proxy", f"me:{PASSWORD}@h:1"], {}, "--proxy me@h:1"),
    (["--proxy", f"HTTP:/me:{PASSWORD}@@h:1"], {}, "--proxy HTTP:/me@h:1"),
    (["--proxy", f"http:me:{PASSWORD}@h:1"], {}, "--proxy http@h:1"),
    (["--proxy", "h:1"], {}, "--proxy h:1"),
    (["--proxy", ""], {"HTTP_PROXY": "http://h:1"}, "--proxy ''"),
    ([], {"HTTP_PROXY": f"http://me:{PASSWORD}@h:1"}, '--proxy "$HTTP_PROXY"'),
    ([], {"http_proxy": f"http://me:{PASSWORD}@h:1"}, '--proxy "$http_proxy"'),
    ([], {"HTTPS_PROXY": f"http://me:{PASSWORD}@h:1"}, None),
    ([], {"HTTP_PROXY": "http://h:1", "NO_PROXY": "*"}, None)])
def test_a_curl_command_has_no_password_of_a_proxy(run, words, environ,
                                                   wanted):
    for form in ("table", "json"):
        shown = run("models", "--curl", "-o", form, *words, **environ)
        text = json.loads(shown)["curl"] if form == "json" else shown
        assert text.rstrip("\n").endswith(wanted or "Accept-Encoding") or (
            wanted is None and "--proxy" not in text)
        assert PASSWORD not in shown + shown.stderr


# == members and headers that hold a secret ===================================

SECRET_NAMES = (
    "secret", "api_key", "apiKey", "password", "token", "key", "access_token",
    "refreshToken", "client_secret", "x-api-key", "private_key", "join_key",
    "db_password", "proxy_authorization", "Authorization", "hf_token",
    "signing_key", "SECRET_KEY", "keys", "api_tokens", "curve_secret_key",
    "idempotency_key")
PLAIN_NAMES = (
    "max_tokens", "max_completion_tokens", "max_output_tokens", "maxTokens",
    "prompt_tokens", "total_tokens", "tokens", "token_count", "tokenizer",
    "token_type", "curve_public_key", "publicKey", "key_id", "key_prefix",
    "key_name", "keywords", "prompt_cache_key", "cached_tokens", "author")


def test_a_name_says_whether_a_secret_is_in_it():
    for names, shown in ((SECRET_NAMES, "…"), (PLAIN_NAMES, "text")):
        for name in names:
            assert xeroctl.redacted({name: "text"}) == {name: shown}
            assert xeroctl.redacted([{name: ["text"]}]) == [{name: [shown]}]
            assert xeroctl.redacted({name: {"a": "text"}, "b": name}) == {
                name: {"a": "text"}, "b": name}
            assert xeroctl.redacted({name: 5, "a": None}) == {
                name: 5, "a": None}


def test_the_names_of_the_command_line_that_hold_a_secret_are_few():
    names = {field.sends for group in xeroctl.GROUPS for verb in group.verbs
             for field in verb.flags if field.sends}
    columns = {path for group in xeroctl.GROUPS for spec in (
        group.columns + group.fields) for path in getattr(
            xeroctl.as_column(spec), "paths", ())}
    assert {name for name in names | columns
            if re.search(xeroctl.SECRET_NAME, name)} == {"secret", "key"}


def test_the_body_of_an_error_is_redacted_by_name(run, router):
    router.order("*", status=400, raw=json.dumps(
        {"error": {"message": "no"}, "api_key": HIDDEN}).encode())
    shown = run("models", "-vv", "--header", f"X-Hf-Token: {HIDDEN}",
                "--header", "X-Max-Tokens: 5")
    assert shown.exit_status == 1 and HIDDEN not in shown.stderr
    assert '"api_key":"…"' in shown.stderr
    assert "X-Max-Tokens: 5" in shown.stderr
