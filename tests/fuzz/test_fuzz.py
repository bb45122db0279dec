"""Whatever comes, the promises hold: some thousand cases, each from a seed.

tests/fuzz/run.py makes many more by hand; what one of them has shown is kept
as a file under cases/, and run by name.
"""

import os
import tempfile

import pytest

import generate
import run as by_hand
import targets
from conftest import IS_FULL

CASES = os.path.join(targets.HERE, "cases")
SEED = 1

# How many cases of each target run; --full runs twenty times as many.
COUNTS = {"sse": 1000, "toml": 1000, "edit": 500, "config": 250,
          "jsonl": 200, "json": 200, "secrets": 200, "rows": 40,
          "stream": 50}


def kept(folder):
    """The bytes of each case that is kept for a target, by its name."""
    folder = os.path.join(CASES, folder)
    found = []
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as source:
            found.append(pytest.param(source.read(), id=name))
    return found


def kept_answers():
    """(row, bytes) of each answer; before ~ is how the row's words begin."""
    found = []
    for name in sorted(os.listdir(os.path.join(CASES, "json"))):
        begin = name.partition("~")[0]
        lines = ["-".join(words) for words, *_ in targets.ROWS]
        row = lines.index(begin if begin in lines else next(
            line for line in lines if line.startswith(begin)))
        with open(os.path.join(CASES, "json", name), "rb") as source:
            found.append(pytest.param(row, source.read(), id=name))
    return found


@pytest.fixture(scope="module")
def bench():
    with tempfile.TemporaryDirectory() as folder:
        bench = by_hand.Bench(folder)
        yield bench
        bench.close()


@pytest.mark.parametrize("target", sorted(COUNTS))
def test_no_case_breaks_a_promise(target, bench):
    count = COUNTS[target] * (20 if IS_FULL else 1)
    for number in range(count):
        try:
            by_hand.run_case(target, SEED, number, bench)
        except Exception as problem:
            again = by_hand.repeat_line(target, SEED, number)
            pytest.fail(f"{problem}\nagain: {again}")


@pytest.mark.parametrize("body", kept("sse"))
def test_a_kept_stream_of_bytes_has_the_events_of_the_standard(body):
    for size in range(1, len(body) + 1):
        pieces = [body[at:at + size] for at in range(0, len(body), size)]
        targets.check_sse(body, pieces)


@pytest.mark.parametrize("row, body", kept_answers())
def test_a_kept_answer_is_shown_or_refused_in_each_form(row, body, bench):
    for form in targets.FORMS:
        targets.check_answer(bench.router, row, form, 200, body)


@pytest.mark.parametrize("body", kept("errors"))
def test_a_kept_error_is_told_once_in_each_form(body, bench):
    row = [words for words, *_ in targets.ROWS].index(["models"])
    for status in targets.STATUSES:
        for form in ("table", "json"):
            targets.check_answer(bench.router, row, form, status, body)


@pytest.mark.parametrize("number, body", [
    pytest.param(number, *case.values, id=f"{folder}-{case.id}")
    for number, folder in enumerate(("chat", "responses"))
    for case in kept(folder)])
def test_a_kept_stream_is_shown_or_refused_in_each_form(number, body, bench):
    for form in targets.FORMS:
        targets.check_stream(bench.router, number, form, body,
                             [body[:99], body[99:]])


@pytest.mark.parametrize("data", kept("jsonl"))
def test_a_kept_batch_input_is_judged_line_by_line(data, bench):
    for form in targets.FORMS:
        targets.check_lines(data, bench.path, form)


def test_a_case_depends_on_its_seed_alone():
    def made(seed):
        return [maker(generate.chance_of("x", seed, 7)) for maker in (
            generate.sse_body, generate.toml_document, generate.json_lines)]
    assert made(1) == made(1)
    assert made(1) != made(2)
