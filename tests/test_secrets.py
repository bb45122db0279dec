"""No key shows: not on a stream, in a file, a traceback, a process list.

Every row of the command map runs with all that makes it talk.  What is meant
to be seen once is a new secret, on standard output, of the commands in ONCE.
"""

import base64
import json
import os
import random
import threading
import time

import pytest

import xeroctl
from conftest import IS_FULL, at_both_ends, costly
from test_faults import FAULTS, SLOW, meet
from world import CALLS, SECRET, Interrupting, Remembering, World

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


def command_of(row):
    return xeroctl.verb_map(row.group, row.verb)["command"]


def sample(cases, count, most=None):
    """Some of the cases, the same ones each time; most: with --full."""
    cases = list(cases)
    count = min(most or len(cases), len(cases)) if IS_FULL else count
    return random.Random(SEED).sample(cases, count)


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory):
    with Remembering() as router:
        yield World(router, tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(shared_world, monkeypatch):
    monkeypatch.chdir(shared_world.folder)
    return shared_world


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
