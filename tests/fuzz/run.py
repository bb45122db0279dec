#!/usr/bin/env python3
"""Fuzz by hand: python3 tests/fuzz/run.py json --cases 100000 --seed 7.

--first N begins with case N, which repeats a case that was told; --keep-on
goes on behind a failure, and counts them.
"""

import argparse
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import generate  # noqa: E402
import targets  # noqa: E402
from router import Router  # noqa: E402

ROUTER_LASTS = 500


class Bench:
    """What the cases of one run share: a router, and a file to write."""

    def __init__(self, folder):
        self.path, self.used = os.path.join(folder, "fuzzed"), 0
        self.open_router = None

    @property
    def router(self):
        """A router that has not seen too much yet."""
        self.used += 1
        if self.open_router is None or self.used % ROUTER_LASTS == 0:
            self.close()
            self.open_router = Router().start()
        return self.open_router

    def close(self):
        if self.open_router:
            self.open_router.stop()
        self.open_router = None


def form_of(chance):
    return chance.choice(targets.FORMS + ("json", "json", "table"))


def json_case(chance, bench):
    number = chance.randrange(len(targets.ROWS))
    status, tree = 200, targets.ROWS[number][1]
    if chance.random() < 0.15:
        status, tree = chance.choice(list(targets.STATUSES)), targets.ERROR
    elif chance.random() < 0.1:
        tree = dict(tree, id=chance.choice(generate.ODD_TEXTS))
    targets.check_answer(bench.router, number, form_of(chance), status,
                         generate.json_answer(tree, chance))


def stream_case(chance, bench):
    number = chance.randrange(len(targets.STREAMS))
    _, payloads, names = targets.STREAMS[number]
    body = generate.stream_body(payloads, chance, names)
    pieces = generate.split(body, chance)[:200]
    targets.check_stream(bench.router, number, form_of(chance),
                         b"".join(pieces), pieces)


def sse_case(chance, _):
    body = generate.sse_body(chance)
    targets.check_sse(body, generate.split(body, chance))


def toml_case(chance, bench):
    data = generate.toml_document(chance)
    targets.check_toml(data)
    if chance.random() < 0.2:
        targets.check_config(data, chance.randrange(len(targets.COMMANDS)),
                             chance.choice(["table", "json"]), bench.path)


def edit_case(chance, _):
    data = generate.toml_document(chance, is_valid=chance.random() < 0.8)
    table = "deployment", chance.choice(generate.TOML_TABLES[:3] + ["new"])
    value = chance.choice([None, None, "v", "", 'q"\n\\\u2028\x1f',
                           "\u65e5"])
    key = chance.choice(generate.TOML_KEYS[:5])
    value = 1.5 if value is not None and key == "timeout" else value
    for path, value in ((table, None), (table + (key,), value),
                        (("current",), value and str(value))):
        targets.check_edit(data, path, value)


def config_case(chance, bench):
    targets.check_config_edits(
        generate.config_blocks(chance), generate.config_changes(chance),
        bench.path if chance.random() < 0.03 else None)


def jsonl_case(chance, bench):
    targets.check_lines(generate.json_lines(chance), bench.path,
                        chance.choice(["table", "table", "json", "csv"]))


def secrets_case(chance, bench):
    status = chance.choice([200, 200, 200] + list(targets.STATUSES))
    targets.check_secret(
        bench.router, generate.keyed_answer(chance),
        chance.choice(targets.SECRET_CALLS), form_of(chance), status,
        chance.random() < 0.3, chance.choice([[], [], ["-v"], ["-vv"]]))


def rows_case(chance, bench):
    columns, rows = generate.csv_table(chance)
    data, delimiter = generate.csv_data(chance, columns, rows)
    targets.check_rows(bench.router, bench.path, columns, rows, data,
                       delimiter, chance.random() < 0.5)


CASES = {"json": json_case, "stream": stream_case, "sse": sse_case,
         "secrets": secrets_case, "rows": rows_case,
         "toml": toml_case, "edit": edit_case, "config": config_case,
         "jsonl": jsonl_case}


def run_case(target, seed, number, bench):
    """Run one case; it depends on these three, and on nothing before it."""
    CASES[target](generate.chance_of(target, seed, number), bench)


def failures(target, seed, numbers, folder):
    """Run cases; yield (number, problem) for each that fails."""
    bench = Bench(folder)
    try:
        for number in numbers:
            try:
                run_case(target, seed, number, bench)
            except Exception as problem:
                yield number, problem
    finally:
        bench.close()


def repeat_line(target, seed, number):
    return (f"python3 tests/fuzz/run.py {target} --seed {seed}"
            f" --first {number} --cases 1")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=sorted(CASES))
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep-on", action="store_true")
    args = parser.parse_args()
    numbers = range(args.first, args.first + args.cases)
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, problem in failures(args.target, args.seed, numbers,
                                        folder):
            print(f"{type(problem).__name__}: {str(problem)[:3000]}")
            print("again:", repeat_line(args.target, args.seed, number))
            count += 1
            if not args.keep_on:
                break
    print(f"{args.target}: {count} failed, seed {args.seed}")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
