#!/usr/bin/env python3
"""What a start costs: --version, --help and one chat, as ratios.

Against the bare interpreter, and against the floor of one readable file: an
interpreter that compiles xeroctl.py and imports what the command needs.

    python3 tests/bench/startup.py [--runs N] [PYTHON …]
"""

import sys

from measure import SCRIPT, TESTS, arguments, interleaved, version

sys.path.insert(0, TESTS)

from router import Router  # noqa: E402

COMPILE = f"compile(open({SCRIPT!r}, 'rb').read(), 'x', 'exec'); "
LOCAL = COMPILE + "import argparse, json"
NETWORK = LOCAL + ", urllib.request"


def commands(python):
    chat = [python, SCRIPT, "chat", "-m", "Hello"]
    return {
        "bare": [python, "-c", "pass"],
        "floor": [python, "-c", LOCAL],
        "network floor": [python, "-c", NETWORK],
        "--version": [python, SCRIPT, "--version"],
        "--help": [python, SCRIPT, "--help"],
        "chat --help": [python, SCRIPT, "chat", "send", "--help"],
        "one chat": chat,
        "one chat, streamed": chat + ["--stream"],
    }


def report(costs):
    """A row per command: milliseconds, and the ratios to bare and floor."""
    print(f"  {'':20}{'CPU ms':>8}{'wall ms':>9}{'/ bare':>8}{'/ floor':>9}"
          "   (ratios of CPU)")
    for name, cost in costs.items():
        floor = costs["network floor" if "one chat" in name else "floor"]
        print(f"  {name:20}{cost.cpu * 1000:8.1f}{cost.wall * 1000:9.1f}"
              f"{cost.cpu / costs['bare'].cpu:8.2f}"
              f"{cost.cpu / floor.cpu:9.2f}")


def main():
    args = arguments(__doc__.splitlines()[0], runs=15)
    with Router() as router:
        environ = {"XEROTIER_BASE_URL": router.base_url,
                   "XEROTIER_API_KEY": router.key,
                   "XEROTIER_ENDPOINT": "demo"}
        for python in args.python:
            print(f"{version(python)}, least of {args.runs} runs")
            report(interleaved(commands(python), args.runs, environ))


if __name__ == "__main__":
    main()
