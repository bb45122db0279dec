#!/usr/bin/env python3
"""What much data costs: a batch checked, or sent line by line, and memory.

The check is held against a bare loop of json.loads over the same lines, a
direct run against a bare loop of urllib in as many threads, both for many
lines and for few, so that starting up does not count.  The server keeps
connections open for whoever wants that, as real ones do.  Peaks of memory
are those of whole processes, for little data and for much: flat is what
grows by less than a buffer or two.

    python3 tests/bench/jsonl.py [--runs N] [--large]
                                 [--only check|direct|files|lists] [PYTHON …]

--large measures the memory at 1 GB too; it needs 3 GB of disk.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile

from measure import (SCRIPT, TESTS, arguments, interleaved, peak_memory,
                     verdict, version)

PARTS = "check", "direct", "files", "lists"
MANY, FEW = 200000, 1000
SENT_MANY, SENT_FEW = 4000, 400
CONCURRENCIES = 1, 8, 32
SMALL, LARGE, HUGE = 10 ** 7, 10 ** 8, 10 ** 9
LISTED_FEW, LISTED_MANY = 1000, 20000
CHECK_AIM, DIRECT_AIM = 1.3, 0.95

LOOP = """
import json, sys
for line in open(sys.argv[1], "rb"):
    json.loads(line)
"""

URLLIB = """
import json, queue, sys, threading, urllib.request
url, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
jobs, out, lock = queue.Queue(2 * count), open(path + ".out", "wb"), (
    threading.Lock())
def work():
    for line in iter(jobs.get, None):
        request = json.loads(line)
        body = json.dumps(request["body"]).encode()
        answer = urllib.request.urlopen(urllib.request.Request(
            url + request["url"], body,
            {"Content-Type": "application/json"}))
        result = {"custom_id": request["custom_id"], "response":
                  {"status_code": answer.status, "body": json.load(answer)}}
        with lock:
            out.write(json.dumps(result).encode() + b"\\n")
workers = [threading.Thread(target=work) for _ in range(count)]
for worker in workers:
    worker.start()
for line in open(path, "rb"):
    jobs.put(line)
for _ in workers:
    jobs.put(None)
for worker in workers:
    worker.join()
"""


def write_lines(path, count=None, size=None, words=24):
    """Write so many lines of a batch, or as many as fill so many bytes."""
    text, number, written = "some words " * words, 0, 0
    with open(path, "wb") as target:
        while number != count and (size is None or written < size):
            number += 1
            body = {"model": "my-model", "max_tokens": 64, "messages": [
                {"role": "system", "content": "Answer briefly."},
                {"role": "user", "content": f"{number}: {text}"}]}
            written += target.write(json.dumps({
                "custom_id": f"request-{number}", "method": "POST",
                "url": "/v1/chat/completions",
                "body": body}).encode() + b"\n")
    return path


def ours(python, *words):
    return [python, SCRIPT, "--quiet", *words]


def measure_check(python, folder, runs):
    """Print what the check of a line costs, against json.loads."""
    commands = {}
    for name, count in (("many", MANY), ("few", FEW)):
        path = write_lines(os.path.join(folder, name), count)
        commands["loop " + name] = [python, "-c", LOOP, path]
        commands["ours " + name] = ours(python, "batches", "check", path)
    costs = interleaved(commands, runs, {})
    loop, check = (
        (costs[name + " many"].cpu - costs[name + " few"].cpu)
        / (MANY - FEW) * 1e6 for name in ("loop", "ours"))
    print(f"  check: {check:.2f} µs a line, json.loads {loop:.2f} µs, ratio"
          f" {check / loop:.2f}, {verdict(check / loop, at_most=CHECK_AIM)}"
          f" ({MANY} lines, least of {runs})")


SERVER = """
import socket, sys, threading
body = (b'{"id":"x","choices":[{"index":0,"message":{"role":"assistant",'
        b'"content":"yes"},"finish_reason":"stop"}],'
        b'"usage":{"total_tokens":12}}')
answer = (b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\n"
          b"Content-Length: %d\\r\\n\\r\\n%b"
          % (len(body), body))
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(128)
print(listener.getsockname()[1], flush=True)
def serve():
    while True:
        client, _ = listener.accept()
        while answer_one(client):
            pass
        client.close()
def answer_one(client):
    asked = b""
    while b"\\r\\n\\r\\n" not in asked:
        block = client.recv(65536)
        if not block:
            return False
        asked += block
    head, _, rest = asked.partition(b"\\r\\n\\r\\n")
    head = head.lower()
    left = int(head.partition(b"content-length: ")[2].split()[0])
    while len(rest) < left:
        rest += client.recv(65536)
    client.sendall(answer)
    return b"connection: close" not in head
for _ in range(int(sys.argv[1])):
    threading.Thread(target=serve).start()
"""


@contextlib.contextmanager
def served(source, *words):
    """Run a server in a process of its own; yield its URL."""
    server = subprocess.Popen(
        [sys.executable, "-c", source, *map(str, words)],
        stdout=subprocess.PIPE)
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.stdout.close()
        server.wait()


def direct_commands(python, folder, url, concurrency):
    """Both ways to send many lines and few."""
    found = {}
    for name, count in (("many", SENT_MANY), ("few", SENT_FEW)):
        path = write_lines(os.path.join(folder, "sent " + name), count)
        found["loop " + name] = [python, "-c", URLLIB, url, path,
                                 str(concurrency)]
        found["ours " + name] = ours(
            python, "--style", "openai", "--base-url", url + "/v1",
            "--force", "batches", "run", "--direct", "--concurrency",
            str(concurrency), "--input", path, "--output-file", path + "2")
    return found


def measure_direct(python, folder, runs, concurrency):
    """Print the throughput of a direct run against urllib in threads."""
    with served(SERVER, concurrency) as url:
        costs = interleaved(
            direct_commands(python, folder, url, concurrency), runs, {})

    def per_line(name, what):
        return (getattr(costs[name + " many"], what)
                - getattr(costs[name + " few"], what)) / (
                    SENT_MANY - SENT_FEW) * 1e6
    ratio = per_line("loop", "wall") / per_line("ours", "wall")
    print(f"  direct, {concurrency} at once:"
          f" {1e6 / per_line('ours', 'wall'):.0f} lines a second, urllib"
          f" {1e6 / per_line('loop', 'wall'):.0f}, ratio {ratio:.2f},"
          f" {verdict(ratio, at_least=DIRECT_AIM)}; CPU"
          f" {per_line('ours', 'cpu'):.0f} µs a line, urllib"
          f" {per_line('loop', 'cpu'):.0f} µs"
          f" ({SENT_MANY} lines, least of {runs})")


def file_peaks(python, folder, size):
    """Return {what: peak} of so many bytes checked, sent and fetched."""
    sys.path.insert(0, TESTS)
    from router import Router
    path = write_lines(os.path.join(folder, "large"), size=size)
    with Router() as router:
        router.file_limit = router.batch_limit = 2 * size
        place = ["--base-url", router.base_url, "--api-key", router.key]
        peaks = {"start": peak_memory(ours(python, "--version"), {}),
                 "check": peak_memory(ours(
                     python, "batches", "check", "--split", path), {})}
        if size < 500 * 10 ** 6:  # the most that a file may have
            peaks["upload"] = peak_memory(ours(
                python, *place, "files", "--upload", path), {})
            file_id = next(iter(router.files))
        else:
            file_id = add_large(router, path)
        peaks["download"] = peak_memory(ours(
            python, *place, "files", file_id, "--download",
            path + ".back"), {})
    return peaks


def measure_files(python, folder, sizes):
    """Print the peaks of checking, uploading and downloading."""
    tell_peaks({f"{size / 1e6:.0f} MB": file_peaks(python, folder, size)
                for size in sizes})


def tell_peaks(found):
    """Print peaks by amount of data, and by how much the last ones grow."""
    first, *_, last = found.values()
    found["growth"] = {name: last[name] - first[name] for name in first}
    for amount, peaks in found.items():
        print(f"  memory, {amount}: " + ", ".join(
            f"{name} {peak / 1e6:.1f} MB" for name, peak in peaks.items()))


def add_large(router, path):
    """Have a router serve a file that is too large to be uploaded."""
    with open(path, "rb") as source:
        return router.add_file("large.jsonl", source.read())["id"]


LISTS = """
import http.server, json, sys, urllib.parse
count = int(sys.argv[1])
def item(number):
    return {"id": "file-%d" % number, "object": "file", "bytes": number,
            "filename": "a-file-%d.jsonl" % number, "purpose": "batch",
            "status": "processed", "created_at": 1770000000 + number}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        query = dict(urllib.parse.parse_qsl(
            urllib.parse.urlsplit(self.path).query))
        first = int(query.get("after", "file-0").rpartition("-")[2]) + 1
        last = min(first + int(query.get("limit", 100)) - 1, count)
        body = json.dumps({"object": "list", "has_more": last < count,
                           "first_id": "file-%d" % first,
                           "last_id": "file-%d" % last,
                           "data": list(map(item, range(first, last + 1)))})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *words):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def list_peaks(python, count):
    """Return {form: peak} of so many records listed with --all."""
    with served(LISTS, count) as url:
        return {form: peak_memory(ours(
            python, "--base-url", url + "/p/v1", "--api-key", "k", "files",
            "--all", "-o", form), {}) for form in ("jsonl", "csv", "id")}


def measure_lists(python):
    """Print the peaks of lists with --all."""
    tell_peaks({f"--all over {count} records": list_peaks(python, count)
                for count in (LISTED_FEW, LISTED_MANY)})


def main():
    args = arguments(__doc__.splitlines()[0], 5, large=dict(
        action="store_true"), only=dict(choices=PARTS, default=PARTS))
    sizes = [SMALL, LARGE] + [HUGE] * args.large
    for python in args.python:
        print(version(python))
        with tempfile.TemporaryDirectory() as folder:
            if "check" in args.only:
                measure_check(python, folder, args.runs)
            for concurrency in CONCURRENCIES * ("direct" in args.only):
                measure_direct(python, folder, args.runs, concurrency)
            if "files" in args.only:
                measure_files(python, folder, sizes)
            if "lists" in args.only:
                measure_lists(python)


if __name__ == "__main__":
    sys.exit(main())
