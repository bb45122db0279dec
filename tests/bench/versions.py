#!/usr/bin/env python3
"""How this xeroctl.py stands to another one: cost and memory, as ratios.

Both take turns in one run: from the file, with kept bytecode, and for many
events or lines against few, so that starting up does not count.  Below 1 is
what has become quicker, or smaller.

    git show REVISION:xeroctl.py > BEFORE.py
    python3 tests/bench/versions.py --before BEFORE.py [--runs N] [PYTHON …]
"""

import os
import shutil
import socket
import statistics
import sys
import tempfile

import jsonl
import stream
from measure import (SCRIPT, TESTS, arguments, interleaved, peak_memory,
                     version)

sys.path.insert(0, TESTS)

from kept import install  # noqa: E402
from router import Router  # noqa: E402

STARTS = {"--version": ["--version"], "help": ["help"],
          "help batches run": ["help", "batches", "run"],
          "config list": ["config", "list"],
          "one chat": ["chat", "-m", "Hello"],
          "one chat, streamed": ["chat", "-m", "Hello", "--stream"]}
STREAMS = 20
CONCURRENCIES = 1, 8
AGES = "before", "now"


def of(script, command):
    """The command of a benchmark, with a script in place of ours."""
    return [script if word == SCRIPT else word for word in command]


def tell(name, costs, unit):
    """A line for what both cost, and the ratio."""
    before, now = costs
    print(f"  {name:32}{before:10.2f}{now:10.2f} {unit:3}"
          f"{now / before:8.2f}")


def measure_starts(python, scripts, folder, runs):
    """Tell what a start costs, from the file and with kept bytecode."""
    found = {}
    for age, script in scripts.items():
        place = os.path.join(folder, age)
        os.makedirs(place)
        shutil.copy(script, os.path.join(place, "xeroctl.py"))
        kept = install(os.path.join(place, "home"), python, place)
        for name, words in STARTS.items():
            found[name, age] = [python, script, *words]
            found[name + ", kept", age] = [kept, *words]
    with Router() as router:
        environ = {"XEROTIER_BASE_URL": router.base_url,
                   "XEROTIER_API_KEY": router.key,
                   "XEROTIER_ENDPOINT": "demo"}
        costs = interleaved(found, runs, environ)
        for name in dict.fromkeys(name for name, _ in found):
            tell(name, [costs[name, age].cpu * 1000 for age in AGES], "ms")
        for name in "--version", "one chat", "one chat, kept":
            tell("peak of " + name, [
                peak_memory(found[name, age], environ) / 1e6
                for age in AGES], "MB")


def per_item(what, scripts, commands, runs, count, clock="cpu"):
    """Tell the microseconds of one item, of those between many and few."""
    costs = interleaved({(name, age): of(script, command)
                         for age, script in scripts.items()
                         for name, command in commands.items()
                         if name.startswith("ours")}, runs, {})
    tell(what, [(getattr(costs["ours many", age], clock)
                 - getattr(costs["ours few", age], clock)) / count * 1e6
                for age in AGES], "µs")


def measure_items(python, scripts, folder, runs):
    """Tell what an event and a line cost, and the peaks of many."""
    events = stream.commands(python, folder)
    per_item("an event of a stream", scripts, events, runs,
             stream.EVENTS - stream.FEW)
    checks = {name: jsonl.ours(python, "batches", "check", jsonl.write_lines(
        os.path.join(folder, name), count))
        for name, count in (("ours many", jsonl.MANY),
                            ("ours few", jsonl.FEW))}
    per_item("a line of a check", scripts, checks, runs,
             jsonl.MANY - jsonl.FEW)
    for count in CONCURRENCIES:
        with jsonl.served(jsonl.SERVER, count) as url:
            per_item(f"a line of a direct run, {count} at once", scripts,
                     jsonl.direct_commands(python, folder, url, count), runs,
                     jsonl.SENT_MANY - jsonl.SENT_FEW, "wall")
    for name, command in (("a stream", events["ours many"]),
                          ("a check", checks["ours many"])):
        tell("peak of " + name, [
            peak_memory(of(script, command), {}) / 1e6
            for script in scripts.values()], "MB")


def measure_latency(python, scripts):
    """Tell the median of the first token's latency."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/p/v1"
        took = [[stream.first_token_ms(listener, of(
            script, stream.ours(python, url)))
            for script in scripts.values()] for _ in range(STREAMS)]
    tell("first token, median", map(statistics.median, zip(*took)), "ms")


def main():
    args = arguments(__doc__.splitlines()[0], runs=7, before={
        "required": True, "help": "the xeroctl.py to compare with"})
    scripts = dict(zip(AGES, (os.path.abspath(args.before), SCRIPT)))
    for python in args.python:
        print(f"{version(python)}, least of {args.runs} runs\n"
              f"  {'':32}{'before':>10}{'now':>10}{'ratio':>12}")
        with tempfile.TemporaryDirectory() as folder:
            measure_starts(python, scripts, folder, args.runs)
            measure_items(python, scripts, folder, args.runs)
        measure_latency(python, scripts)


if __name__ == "__main__":
    main()
