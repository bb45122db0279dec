"""How far a job is: one line, of the same form for whatever takes long.

    part 1/3 [####....] 412/2000, 2 failed, 11.7/s, 2m 32s left, 31.5k tokens

On a terminal it stands in place and fits; elsewhere it is a line with the
time at most every 30 seconds.  An estimate is told once enough has passed.
"""

import re

import pytest

import xeroctl
from conftest import text_stream, written
from test_runs import Job, asks_for, chat_line
from test_terminal import screen

assert screen  # a fixture
STAMP = r"2026-02-0\dT\d\d:\d\d:\d\dZ "
TRANSFER = {"as_amount": xeroctl.as_size}


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


@pytest.fixture
def terminal(clock, screen):
    """terminal(columns) is a Terminal whose stderr is one, if it has any."""
    def maker(columns=None, quiet=False, **environ):
        place = columns and screen(columns)
        stderr = place.stream() if place else text_stream()
        found = xeroctl.Terminal(xeroctl.Streams(None, None, stderr), environ,
                                 clock)
        found.adjust(quiet, "auto", False)
        found.said = place.shown if place else lambda: written(stderr)
        return found
    return maker


def lines_of(terminal):
    """What stood in the line, each time that it was written anew."""
    return re.findall(r"\r(?:\x1b\[2m)?([^\r\x1b]+)", terminal.said())


def work(terminal, clock, seconds=36, rate=11.72, total=2000, label="part 1/3",
         failed=2, tokens=31512, **words):
    """Get on at a rate for so long, looked at each second."""
    with xeroctl.Progress(terminal, **words) as progress:
        for second in range(seconds + 1):
            progress.show(label, int(rate * second), total, failed, tokens)
            clock.sleep(1)


# == its form ================================================================

@pytest.mark.parametrize("columns, line", [
    (120, "part 1/3 [####................] 421/2000, 2 failed, 11.7/s,"
          " 2m 15s left, 31.5k tokens"),
    (80, "part 1/3 [##............] 421/2000, 2 failed, 11.7/s,"
         " 2m 15s left, 31.5k tokens"),
    (60, "part 1/3 [#.......] 421/2000, 2 failed, 11.7/s, 2m 15s left"),
    (40, "part 1/3 421/2000, 2 failed, 11.7/s"),
    (20, "part 1/3 421/2000"), (8, "… 421/…")])
def test_the_line_fits_the_terminal(terminal, clock, columns, line):
    wide = terminal(columns)
    work(wide, clock)
    assert lines_of(wide)[-1] == line and len(line) < columns


NAME = "uploading " + "x" * 60


@pytest.mark.parametrize("columns, line", [
    (120, NAME[:68] + "… [.....] 360.0 MB/20.0 GB, 10.0 MB/s, 32m 44s left"),
    (80, NAME[:28] + "… [.....] 360.0 MB/20.0 GB, 10.0 MB/s, 32m 44s left"),
    (60, NAME[:16] + "… 360.0 MB/20.0 GB, 10.0 MB/s, 32m 44s left")])
def test_figures_stand_behind_a_long_name(terminal, clock, columns, line):
    wide = terminal(columns)
    work(wide, clock, rate=10 ** 7, total=2 * 10 ** 10, label=NAME, failed=0,
         tokens=0, **TRANSFER)
    assert lines_of(wide)[-1] == line


def test_no_colour_is_none(terminal, clock):
    plain = terminal(80, NO_COLOR="1")
    work(plain, clock)
    assert "\x1b[2m" not in plain.said() and len(lines_of(plain)) == 37


def test_quiet_says_nothing(terminal, clock):
    for place in terminal(80, True), terminal(None, True):
        work(place, clock, seconds=90)
        assert place.said() == ""


@pytest.mark.parametrize("place", [{}, {"columns": 80, "TERM": "dumb"}])
def test_elsewhere_it_is_a_line_of_the_log(terminal, clock, place):
    pipe = terminal(**place)
    work(pipe, clock, seconds=90)
    assert pipe.said().splitlines() == [
        "2026-02-02T02:40:30Z part 1/3 351/2000, 2 failed, 11.7/s, 2m 21s"
        " left, 31.5k tokens",
        "2026-02-02T02:41:00Z part 1/3 703/2000, 2 failed, 11.7/s, 1m 51s"
        " left, 31.5k tokens",
        "2026-02-02T02:41:30Z part 1/3 1054/2000, 2 failed, 11.7/s, 81 s"
        " left, 31.5k tokens"]
    assert "\x1b" not in pipe.said() and "\r" not in pipe.said()


def test_a_size_that_is_not_known_has_no_bar(terminal, clock):
    wide = terminal(80)
    work(wide, clock, rate=10 ** 6, total=None, failed=0, tokens=0, **TRANSFER)
    assert lines_of(wide)[-1] == "part 1/3 36.0 MB, 1.0 MB/s"


# == estimates ===============================================================

def shown_at(terminal, clock, counts, total):
    """{second: line} of counts, by the second that they are seen in."""
    progress, found = xeroctl.Progress(terminal), {}
    for second, count in counts.items():
        clock.sleep(second - clock.at)
        progress.show("sending", count, total)
    lines = lines_of(terminal)
    assert len(lines) == len(counts)
    found.update(zip(counts, lines))
    return found


def test_one_answer_is_no_base_for_an_estimate(terminal, clock):
    shown = shown_at(terminal(80), clock, {0: 0, 1: 1, 3: 4, 4.9: 60, 6: 72},
                     175000)
    for second in 0, 1, 3, 4.9:
        assert "left" not in shown[second] and "/s" not in shown[second]
    assert re.search(r" 72/175000, 12\.\d/s, [34]h \d+m left", shown[6])


def test_what_was_there_before_is_no_pace(terminal, clock):
    shown = shown_at(terminal(80), clock, {0: 1500, 10: 1510}, 2000)
    assert "1.0/s, 8m 10s left" in shown[10]


def test_a_pace_of_minutes_is_told_by_the_minute(terminal, clock):
    shown = shown_at(terminal(80), clock, {0: 0, 600: 5}, 10)
    assert "0.5/min, 10m 0s left" in shown[600]


def test_the_rate_is_smooth_and_follows(terminal, clock):
    """A count that jumps does not make it jump; a slower pace shows."""
    jumps = {second: second // 10 * 100 for second in range(0, 300, 2)}
    shown = shown_at(terminal(80), clock, jumps, 10 ** 5)
    rates = [float(re.search(r"([\d.]+)/s", shown[second]).group(1))
             for second in jumps if second >= 60]
    assert 7 < min(rates) and max(rates) < 13


def test_a_slower_pace_shows(terminal, clock):
    counts = {second: min(10 * second, 600 + second - 60)
              for second in range(0, 241, 2)}
    shown = shown_at(terminal(80), clock, counts, 10 ** 5)
    assert "10.0/s" in shown[60]
    rate = float(re.search(r"([\d.]+)/s", shown[240]).group(1))
    assert rate < 2.5


def test_what_is_sent_anew_has_no_pace_until_it_is_there_again(terminal,
                                                               clock):
    shown = shown_at(terminal(80), clock, {
        0: 0, 10: 1000, 11: 0, 16: 500, 30: 1900}, 10 ** 4)
    assert "100.0/s" in shown[10] and "/s" in shown[30]
    assert "/s" not in shown[11] and "left" not in shown[11]


# == a run ===================================================================

def test_a_batch_run_says_what_it_will_do_and_how_it_went(run, router, clock,
                                                         job):
    job.fill("abcdefg")
    router.batch_plan(fail_lines={"a": 500, "b": 500, "c": 429})
    shown = run(*job.argv("--split", "--max-requests", "3"))
    assert shown.exit_status == 1, shown
    first, *more = shown.stderr.splitlines()
    assert first == "7 requests, 1.0 KB, in 3 parts"
    assert more[-2:] == ["  2 x HTTP 500 The router failed.",
                         "  1 x HTTP 429 Slow down."]
    assert all(re.match(STAMP + r"part [1-3]/3( \w+)? \d/7(,|\Z)", line)
               for line in more[:-3])
    rows = dict(line.split(None, 1) for line in shown.splitlines())
    assert re.match(r"\d+\.\d/s$", rows["Rate:"])


def test_the_slowest_part_is_named(run, router, job):
    def slow(seen):
        batch = router.batches["batch_2"]
        if batch["status"] == "completed":
            batch["completed_at"] = batch["created_at"] + 250
        return False
    router.order("GET /batches/batch_2", times=None, when=slow)
    argv = job.argv("--split", "--max-requests", "2")
    shown = run(*argv)
    assert "\nSlowest part: batch_2, 4m 10s\n" in shown, shown
    assert "Slowest" not in run(*Job(job.folder).argv("--force"))


def test_a_direct_run_says_what_it_will_do(run, router, job):
    shown = run(*job.argv("--direct", "--concurrency", "3"))
    assert shown.stderr == "4 requests, 588 B, 3 at a time\n"


def test_a_run_that_goes_on_says_what_is_left(run, router, job):
    router.order("POST /chat/completions", when=asks_for("c"), status=401)
    words = "--direct", "--concurrency", "1"
    assert run(*job.argv(*words)).exit_status == 3
    assert run(*job.argv(*words)).stderr.startswith("2 requests, 294 B, 1 at")


def test_a_direct_run_says_how_far_it_is(run, router, clock, job):
    job.write(b"".join(json_line(number) for number in range(10)))

    def pass_time(seen):
        clock.sleep(10)
        return False
    router.order("POST /chat/completions", when=asks_for("3"), status=500)
    router.order("POST /chat/completions", times=None, when=pass_time)
    shown = run(*job.argv("--direct", "--concurrency", "1"))
    lines = [line for line in shown.stderr.splitlines() if "sending" in line]
    assert [re.sub(STAMP, "", line) for line in lines] == [
        "sending 3/10, 66 tokens",
        "sending 7/10, 1 failed, 7.3/min, 25 s left, 132 tokens",
        "sending 10/10, 1 failed, 6.6/min, 198 tokens"]


def json_line(number):
    return (xeroctl.compact_json(chat_line(str(number))) + "\n").encode()
