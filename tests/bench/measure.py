"""What the benchmarks share: children timed in turn, minima kept.

Machines are shared and noisy: the commands are run interleaved, the least
CPU time and the least wall time of each are kept, and only ratios of one run
are worth quoting.
"""

import argparse
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
SCRIPT = os.path.join(os.path.dirname(TESTS), "xeroctl.py")


def arguments(summary, runs, **more):
    """The command line of a benchmark: interpreters, and runs of each.

    more are flags of its own, {name: what add_argument takes}.
    """
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("python", nargs="*", default=[sys.executable],
                        help="interpreters to measure (default: this one)")
    parser.add_argument("--runs", type=int, default=runs)
    for name, options in more.items():
        parser.add_argument("--" + name, **options)
    return parser.parse_args()


class Cost:
    """The least that a command took: seconds of CPU and of wall."""

    def __init__(self):
        self.cpu = self.wall = float("inf")

    def take(self, cpu, wall):
        self.cpu, self.wall = min(self.cpu, cpu), min(self.wall, wall)


def run_once(command, environ):
    """Run a command; return its (CPU s, wall s)."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environ,
                               stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = status
    process.stderr.close()
    if status:
        sys.exit(f"{command} ended with {status}: {said.decode()}")
    return usage.ru_utime + usage.ru_stime, wall


# A child counts the memory of the process that forked it until it runs its
# own program, so that a small one has to stand between.
LAUNCHER = """
import resource, subprocess, sys
subprocess.check_call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_memory(command, environ):
    """Run a command; return the peak of its memory, in bytes."""
    said = subprocess.check_output(
        [sys.executable, "-I", "-S", "-c", LAUNCHER, *command], env=environ)
    return int(said) * (1 if sys.platform == "darwin" else 1024)


def interleaved(commands, runs, environ):
    """Run named commands in turn; return {name: Cost}."""
    costs = {name: Cost() for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            costs[name].take(*run_once(command, environ))
    return costs


def verdict(ratio, at_most=None, at_least=None):
    """How a ratio stands to its aim."""
    is_met = ratio <= at_most if at_least is None else ratio >= at_least
    aim = (f"at most {at_most}" if at_least is None
           else f"at least {at_least}")
    return f"aim {aim}: " + ("met" if is_met else "MISSED")


def version(python):
    """How an interpreter names itself."""
    said = subprocess.check_output([python, "--version"],
                                   stderr=subprocess.STDOUT)
    return said.decode().strip()
