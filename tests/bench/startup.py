#!/usr/bin/env python3
"""What a start costs: help, config, completion and one chat, as ratios.

Against the bare interpreter, and against the floor of one readable file: an
interpreter that compiles xeroctl.py and imports what the command needs.  Kept
are the same calls by the launcher of the README, which compiles nothing and
leaves out site; bare -IS is what is left of the interpreter then.

    python3 tests/bench/startup.py [--runs N] [PYTHON …]
"""

import os
import sys
import tempfile

from measure import (SCRIPT, TESTS, arguments, interleaved, peak_memory,
                     verdict, version)

sys.path.insert(0, TESTS)

from kept import install  # noqa: E402
from router import Router  # noqa: E402

COMPILE = f"compile(open({SCRIPT!r}, 'rb').read(), 'x', 'exec')"
LOCAL = COMPILE + "; import json, re"
NETWORK = LOCAL + ", http.client"
LOCAL_AIM, CHAT_AIM = 1.2, 1.25
BARE_AIMS = {"--version": 12, "kept --version": 3, "kept chat": 5}
CHAT = "chat", "-m", "Hello"
TAB = "__complete", "chat", "--st"
CONFIG = 'current = "one"\n' + "".join(
    f'\n[deployment.{name}]\n'
    f'base_url = "https://{name}.example.com/project/v1"\n'
    for name in ("one", "two", "three"))


def commands(python, kept):
    """What is measured: {name: command}."""
    ours = [python, SCRIPT]
    return {
        "bare": [python, "-c", "pass"],
        "bare -IS": [python, "-IS", "-c", "pass"],
        "kept --version": [kept, "--version"],
        "kept config list": [kept, "config", "list"],
        "kept Tab on a flag": [kept, *TAB],
        "kept chat": [kept, *CHAT],
        "compile": [python, "-c", COMPILE],
        "floor": [python, "-c", LOCAL],
        "network floor": [python, "-c", NETWORK],
        "--version": ours + ["--version"],
        "--help": ours + ["--help"],
        "chat --help": ours + ["chat", "--help"],
        "chat send --help": ours + ["chat", "send", "--help"],
        "config list": ours + ["config", "list"],
        "Tab on a context": ours + ["config", "list", "-o", "id"],
        "Tab on a flag": ours + list(TAB),
        "one chat": ours + list(CHAT),
        "one chat, streamed": ours + [*CHAT, "--stream"],
    }


def verdicts(name, to_bare, to_floor):
    """How a row stands to what it aims at."""
    if name in BARE_AIMS:
        yield "/ bare " + verdict(to_bare, at_most=BARE_AIMS[name])
    if name.startswith("one chat"):
        yield "/ floor " + verdict(to_floor, at_most=CHAT_AIM)
    elif not name.startswith(("bare", "kept", "compile", "floor", "network")):
        yield "/ floor " + verdict(to_floor, at_most=LOCAL_AIM)


def report(costs, memory):
    """A row per command: time, the ratios to bare and floor, and memory."""
    print(f"  {'':20}{'CPU ms':>8}{'wall ms':>9}{'/ bare':>8}{'/ floor':>9}"
          f"{'MB':>7}   (ratios of CPU; most memory)")
    for name, cost in costs.items():
        is_chat = name.startswith(("one chat", "kept chat"))
        floor = costs["network floor" if is_chat else "floor"]
        to_bare = cost.cpu / costs["bare"].cpu
        to_floor = cost.cpu / floor.cpu
        print(f"  {name:20}{cost.cpu * 1000:8.1f}{cost.wall * 1000:9.1f}"
              f"{to_bare:8.2f}{to_floor:9.2f}{memory[name] / 1e6:7.1f}   "
              + ", ".join(verdicts(name, to_bare, to_floor)))
    print("  memory, --version to compile: " + verdict(
        memory["--version"] / memory["compile"], at_most=1))


def main():
    args = arguments(__doc__.splitlines()[0], runs=15)
    with Router() as router, tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "config.toml")
        with open(path, "w") as target:
            target.write(CONFIG)
        environ = {"XEROTIER_BASE_URL": router.base_url,
                   "XEROTIER_API_KEY": router.key,
                   "XEROTIER_ENDPOINT": "demo", "XEROTIER_CONFIG": path}
        for number, python in enumerate(args.python):
            print(f"{version(python)}, least of {args.runs} runs")
            measured = commands(python, install(
                os.path.join(folder, str(number)), python))
            report(interleaved(measured, args.runs, environ), {
                name: peak_memory(command, environ)
                for name, command in measured.items()})


if __name__ == "__main__":
    main()
