#!/usr/bin/env python3
"""What a start costs: help, config, completion and one chat, as ratios.

Against the bare interpreter, and against the floor of one readable file: an
interpreter that compiles xeroctl.py and imports what the command needs.  At
Tab a shell walks a table that was printed once, by shell-completion; it
starts the program only for the names of contexts (config list -o id).

    python3 tests/bench/startup.py [--runs N] [PYTHON …]
"""

import os
import sys
import tempfile

from measure import SCRIPT, TESTS, arguments, interleaved, verdict, version

sys.path.insert(0, TESTS)

from router import Router  # noqa: E402

COMPILE = f"compile(open({SCRIPT!r}, 'rb').read(), 'x', 'exec'); "
LOCAL = COMPILE + "import argparse, json"
NETWORK = LOCAL + ", urllib.request"
LOCAL_AIM, CHAT_AIM = 1.2, 1.25
CONFIG = 'current = "one"\n' + "".join(
    f'\n[deployment.{name}]\n'
    f'base_url = "https://{name}.example.com/project/v1"\n'
    for name in ("one", "two", "three"))


def commands(python):
    """What is measured: {name: command}."""
    ours = [python, SCRIPT]
    return {
        "bare": [python, "-c", "pass"],
        "floor": [python, "-c", LOCAL],
        "network floor": [python, "-c", NETWORK],
        "--version": ours + ["--version"],
        "--help": ours + ["--help"],
        "chat --help": ours + ["chat", "--help"],
        "chat send --help": ours + ["chat", "send", "--help"],
        "config list": ours + ["config", "list"],
        "Tab on a context": ours + ["config", "list", "-o", "id"],
        "completion": ours + ["__complete", "chat", "--st"],
        "one chat": ours + ["chat", "-m", "Hello"],
        "one chat, streamed": ours + ["chat", "-m", "Hello", "--stream"],
    }


def report(costs):
    """A row per command: milliseconds, and the ratios to bare and floor."""
    print(f"  {'':20}{'CPU ms':>8}{'wall ms':>9}{'/ bare':>8}{'/ floor':>9}"
          "   (ratios of CPU)")
    for name, cost in costs.items():
        is_chat = name.startswith("one chat")
        floor = costs["network floor" if is_chat else "floor"]
        ratio = cost.cpu / floor.cpu
        said = "" if name in ("bare", "floor", "network floor") else (
            "   " + verdict(ratio, at_most=CHAT_AIM if is_chat
                            else LOCAL_AIM))
        print(f"  {name:20}{cost.cpu * 1000:8.1f}{cost.wall * 1000:9.1f}"
              f"{cost.cpu / costs['bare'].cpu:8.2f}{ratio:9.2f}{said}")


def main():
    args = arguments(__doc__.splitlines()[0], runs=15)
    with Router() as router, tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "config.toml")
        with open(path, "w") as target:
            target.write(CONFIG)
        environ = {"XEROTIER_BASE_URL": router.base_url,
                   "XEROTIER_API_KEY": router.key,
                   "XEROTIER_ENDPOINT": "demo", "XEROTIER_CONFIG": path}
        for python in args.python:
            print(f"{version(python)}, least of {args.runs} runs")
            report(interleaved(commands(python), args.runs, environ))


if __name__ == "__main__":
    main()
