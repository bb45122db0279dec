"""A router that holds all that the examples of the help are about.

An example is run as it stands there; the ids in it (model_1, batch_1) stand
for those that the router gave.  A row is one example of one verb.  What a run
has changed is put back before the next one, which is quicker than to seed a
new router.
"""

import collections
import hashlib
import hmac
import http.client
import io
import json
import os
import pickle
import shlex

import xeroctl
from conftest import FakeClock, Result, environment, text_stream
from router import DEMO_PROJECT, Router

NOW = 1770000000
LINE = json.dumps({
    "custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
    "body": {"model": "demo-model",
             "messages": [{"role": "user", "content": "Hi"}]}}) + "\n"
LINES = LINE + LINE.replace('"a"', '"b"')
TEMPLATE = json.dumps({"name": "my-template", "system_prompt": "Be brief."})
ITEM = json.dumps({"type": "message", "role": "user", "content": "hi"})
BODY = b'{"id":"evt_1","type":"batch.completed","data":{}}'
SECRET = "whsec_5b7e19c04fd2a683"
TIMESTAMP = str(NOW)
CONFIG = """\
current = "prod"

[deployment.prod]
base_url = "{base}"
api_key = "{key}"
endpoint = "demo"
timeout = 30

[deployment.staging]
base_url = "{base}"
api_key = "{key}"
"""
ENDLESS = "approvals watch"


def signature(timestamp=TIMESTAMP):
    """What the platform sends with BODY (hexadecimal, HMAC-SHA256)."""
    message = timestamp.encode() + b"." + BODY
    return hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest()


# == rows ====================================================================

class Row:
    """One example of the help: its words, and the verb that it is of."""

    def __init__(self, group, verb, example):
        self.group, self.verb, self.example = group, verb, example
        words = shlex.split(example.partition("xeroctl ")[2].rstrip(")"))
        self.words = words[:words.index("|")] if "|" in words else words
        self.name = " ".join(self.words)

    def __repr__(self):
        return self.name

    @property
    def is_plan(self):
        return "--dry-run" in self.words

    @property
    def asks(self):
        """Whether it may ask a person, which --force answers."""
        return self.verb.writes

    @property
    def is_init(self):
        return self.name.startswith("config init")

    @property
    def is_interactive(self):
        return "--interactive" in self.words

    @property
    def is_endless(self):
        return self.name.startswith(ENDLESS)

    def plain(self):
        """The words of the call itself, in no chosen form, not planned."""
        words = [word for word in self.words if word != "--dry-run"]
        if "-o" in words:
            at = words.index("-o")
            words[at:at + 2] = []
        return words


def command_of(row):
    """The name of a row's verb, as the map of commands has it."""
    return xeroctl.verb_map(row.group, row.verb)["command"]


def each_row():
    """Every example of every verb, each command line once."""
    found = {}
    for group in xeroctl.GROUPS + xeroctl.ABOUT:
        for verb in group.verbs:
            for example in xeroctl.examples_of(group, verb):
                row = Row(group, verb, example)
                found.setdefault(row.name, row)
    return list(found.values())


def each_call():
    """Every way to call that the examples show, without -o and --dry-run."""
    found = {}
    for row in each_row():
        row.words = row.plain()
        row.name = " ".join(row.words)
        found.setdefault(row.name, row)
    return list(found.values())


ROWS, CALLS = each_row(), each_call()


def unfinished(world):
    """Have the batch go on, with nothing that works on it."""
    world.router.batches[world.ids["batch_1"]]["status"] = "in_progress"


# What has to be so before a row can be run: how it begins, and what is done.
# The rows that end what they are about take one that is there for them.
PREPARATIONS = (
    ("batches batch_1 --cancel", unfinished),
    ("models model_1 --unshare", "models model_1 --share"),
    ("models versions model_1 --promote",
     "models versions model_1 --create 2.0.0"),
    ("models versions model_1 --rollback",
     "models versions model_1 --create 2.0.0",
     "models versions model_1 --promote 2.0.0",
     "models versions model_1 --create 3.0.0",
     "models versions model_1 --promote 3.0.0"),
    ("workspaces bind", "workspaces unbind ws_1 --agent agent_1"),
    ("chats restore", "chats archive chat_1"),
    ("exports download", "exports get exp_1", "exports get exp_1",
     "exports get exp_1"),
    ("exec raw", "exec watch inv_1"),
    ("config add", "config remove prod"),
)


# == streams and clocks ======================================================

class Interrupting(FakeClock):
    """A clock on which Ctrl-C is pressed after so many naps."""

    def __init__(self, most=12):
        super().__init__()
        self.most = most

    def sleep(self, seconds):
        super().sleep(seconds)
        if len(self.slept) >= self.most:
            raise KeyboardInterrupt


def text_of(stream):
    """What was written, bytes that are no text included."""
    stream.flush()
    return stream.buffer.getvalue().decode("utf-8", "surrogateescape")


def in_text(binary):
    return io.TextIOWrapper(binary, encoding="ascii", newline="")


# == the router ==============================================================

class Remembering(Router):
    """The router, which keeps what it has answered beside each request.

    What it holds can be saved and put back; a record stays the same object,
    since what is on its way refers to it.
    """

    SMALL = "values", "uses", "bindings", "snapshots", "turns", "plans"
    LARGE = "contents", "weights"

    def __init__(self, **options):
        super().__init__(clock=lambda: NOW, **options)
        self.lists = [name for name, value in vars(self.store).items()
                      if hasattr(value, "records")]

    def answer(self, seen, fault):
        answer = super().answer(seen, fault)
        if answer.is_stream:
            answer.pieces = list(answer.pieces)
        seen.status, seen.said = answer.status, (
            list(answer.pieces) if answer.is_stream
            else [answer.pieces.read()] if hasattr(answer.pieces, "read")
            else list(answer.pieces))
        return answer

    def rest(self):
        """Wait for the batches that run in the background."""
        for work in self.works:
            work.join(10)

    def settle(self):
        """Wait until what clients have left behind has been read, too."""
        last = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        last.request("GET", "/healthz", headers={"Connection": "close"})
        last.getresponse().read()
        last.close()
        for connection in list(self.connections):
            connection.hang_up()
            connection.join()

    def save(self):
        self.rest()
        store = self.store
        lists = [getattr(store, name) for name in self.lists]
        return ([(each, each.made, dict(each.records), dict(each.owners),
                  [(key, list(steps), enter)
                   for key, (steps, enter) in each.courses.items()])
                 for each in lists],
                pickle.dumps([
                    [list(each.records.values()) for each in lists],
                    {name: getattr(store, name) for name in self.SMALL}], 4),
                {name: dict(getattr(store, name)) for name in self.LARGE})

    def put_back(self, saved):
        self.rest()
        kept, pickled, large = saved
        with self.lock:
            contents, small = pickle.loads(pickled)
            vars(self.store).update(small)
            for name, value in large.items():
                setattr(self.store, name, dict(value))
            for one, values in zip(kept, contents):
                restore(*one, values=values)
            self.requests.clear()
            self.orders.clear()


def restore(collection, made, records, owners, courses, values):
    """Give a collection back what it held, in the same objects."""
    for record, value in zip(records.values(), values):
        record.clear()
        record.update(value)
    collection.records.clear()
    collection.records.update(records)
    collection.made, collection.owners = made, dict(owners)
    collection.courses = {
        key: (collections.deque(steps), enter)
        for key, steps, enter in courses}


# == the world ===============================================================

class World:
    """The router, a folder with the files, and what the ids stand for."""

    def __init__(self, router, folder):
        self.router, self.folder = router, str(folder)
        self.ids, self.saved = {}, {}
        store = router.store
        for slug in ("my-llm", "my-embed", "my-rank"):
            store.endpoints.create(DEMO_PROJECT, **dict(
                store.endpoint(DEMO_PROJECT, "demo"), slug=slug, name=slug,
                id=store.endpoints.next_id()))
        self.write_files()
        self.seed()
        self.saved[None] = router.save(), self.files_now()
        router.requests.clear()

    # Files

    def place(self, name):
        return os.path.join(self.folder, *name.split("/"))

    def write(self, name, text):
        """Write a file of the folder, readable for its owner only."""
        data = text if isinstance(text, bytes) else text.encode("utf-8")
        os.makedirs(os.path.dirname(self.place(name)), exist_ok=True)
        with open(self.place(name), "wb") as target:
            target.write(data)
        os.chmod(self.place(name), 0o600)

    def write_files(self):
        for name in ("in.jsonl", "requests.jsonl", "prompts.jsonl"):
            self.write(name, LINES)
        self.write("in.txt", "linux\nbread\n")
        self.write("in.csv", "title,text\nlinux,a kernel\nbread,a food\n")
        self.write("model.gguf", b"GGUF" + bytes(96))
        self.write("secret.txt", SECRET + "\n")
        self.write("body.json", BODY)
        self.write("item.json", ITEM)
        self.write("template.json", TEMPLATE)
        self.write("key.txt", self.router.key + "\n")
        self.write("config.toml", CONFIG.format(base=self.router.base_url,
                                                key=self.router.key))
        self.write("prompts/one.txt", "Hello\n")
        self.write("path/notes.txt", "Hello\n")
        self.write("templates/one.json", TEMPLATE)

    def files_now(self):
        """What is in the folder: bytes by name."""
        found = {}
        for folder, _, names in os.walk(self.folder):
            for name in names:
                place = os.path.join(folder, name)
                with open(place, "rb") as source:
                    found[os.path.relpath(place, self.folder)] = source.read()
        return found

    def put_files_back(self, files):
        now = self.files_now()
        for name in set(now) - set(files):
            os.remove(self.place(name))
        for name, data in files.items():
            if now.get(name) != data:
                self.write(name, data)

    # What is there

    def made(self, *argv):
        """Make a thing with the program itself; return what it shows."""
        shown = self.run(*argv, "-o", "json")
        assert shown.exit_status == 0, shown
        return json.loads(shown)

    def seed(self):
        """Make what the ids in the examples stand for."""
        store = self.router.store
        first = {name: next(iter(getattr(store, name).records))
                 for name in ("models", "workspaces", "agents", "candidates",
                              "slos", "members", "learnings")}
        self.ids = {
            "model_1": first["models"], "ws_1": first["workspaces"],
            "agent_1": first["agents"], "cand_1": first["candidates"],
            "slo_1": first["slos"], "lrn_1": first["learnings"],
            "usr_1": list(store.members.records)[-1],
            "approval_1": next(
                each["id"] for each in store.approvals.records.values()
                if each["status"] == "pending"
                and each["risk"] != "irreversible"),
            "triage": "drain-kubernetes-node", "theme": "default_model"}
        self.seed_inference()
        self.seed_management()

    def seed_inference(self):
        on = ("--endpoint", "my-llm")
        self.made("chat", "send", *on, "-m", "Hi", "--store")
        kept = self.router.add_file("exp/1/a.jsonl", LINE.encode(),
                                    relative_path="exp/1/a.jsonl")
        self.router.add_file("exp/2/a.jsonl", LINE.encode(),
                             relative_path="exp/2/a.jsonl")
        self.router.batch_plan(fail_lines={"b": 400})
        batch = self.made("batches", *on, "--input", self.place("in.jsonl"))
        self.router.rest()
        conversation = self.made("conversations", "create", *on)
        response = self.made("responses", "create", *on, "-m", "Hi",
                             "--background")
        self.made("conversations", "add-item", conversation["id"], *on,
                  "--role", "user", "--content", "hi")
        self.ids.update({
            "file-1": kept["id"], "batch_1": batch["id"],
            "conv_1": conversation["id"], "resp_1": response["id"],
            "msg_1": list(self.router.store.conversation_items.records)[-1],
            "chatcmpl-1": next(iter(self.router.completions)),
            "upload_1": self.begun_upload()})

    def seed_management(self):
        workspace = self.ids["ws_1"]
        self.made("workspaces", "bind", workspace, "--agent",
                  self.ids["agent_1"])
        self.made("models", "versions", self.ids["model_1"], "--create",
                  "1.9.0")
        for name, words in (
                ("chat_1", ("chats", "create", "--workspace", workspace)),
                ("mnt_1", ("maintenance", "schedule", "--title", "Disks",
                           "--starts-at", "2026-12-01T10:00:00Z",
                           "--ends-at", "2026-12-01T12:00:00Z")),
                ("inv_1", ("exec", "invoke", "--workspace", workspace,
                           "--tool", "kubectl_get", "--args", "{}")),
                ("webhook_1", ("webhooks", "--create", "--url",
                               "https://example.com/hook", "--events",
                               "batch.completed")),
                ("key_1", ("keys", "create", "--name", "ci", "--scopes",
                           "inference")),
                ("jk_1", ("agents", "join-keys", "--create", "--name", "a",
                          "--region", "eu", "--router-addr",
                          "tcp://router:7777")),
                ("invite_1", ("project", "invite", "--email",
                              "b@example.com")),
                ("exp_1", ("exports", "create", "logs", "--from", "7d")),
                ("dlg_1", ("approvals", "delegate", "--to", "grace"))):
            self.ids[name] = self.made(*words)["id"]

    def begun_upload(self):
        """An upload that has not been completed."""
        self.router.order("POST /complete", status=400)
        self.run("upload", self.place("model.gguf"), "my-model")
        self.router.orders.clear()
        return next(iter(self.router.uploads))

    # Rows

    def argv(self, words):
        """The words of an example, with ids and files that are there."""
        values = {"$SIGNATURE": signature(), "$TIMESTAMP": TIMESTAMP,
                  "8080": "0", "https://HOST/PROJECT/v1":
                  self.router.base_url}
        named = [self.ids.get(word, values.get(word, word))
                 for word in words]
        return named[:2] + [self.word(word) for word in named[2:]]

    def word(self, word):
        """A file of the folder by its whole path, any other word as it is."""
        name, at, path = word.partition("@")
        if at and not name:
            return "@" + self.place(path)
        if word == ".":
            return self.folder
        if word in self.saved[None][1] or word.startswith("out.") or (
                word in ("path", "prompts", "templates")):
            return self.place(word)
        return word

    def prepare(self, row):
        """Put everything back, with what a row needs beside it."""
        steps = next((steps for beginning, *steps in PREPARATIONS
                      if row.name.startswith(beginning)), None)
        key = steps and row.name
        if key not in self.saved:
            self.reset(None)
            for step in steps:
                if callable(step):
                    step(self)
                    continue
                shown = self.run(*self.argv(step.split()), "--force")
                assert shown.exit_status == 0, (step, shown)
            self.saved[key] = self.router.save(), self.files_now()
        self.reset(key)

    def reset(self, key):
        saved, files = self.saved[key]
        self.router.put_back(saved)
        self.put_files_back(files)

    def start(self, row, *more, words=None, force=True, **options):
        """Run a row as a person would: with an answer, an end, an input."""
        words = self.argv(row.words if words is None else words)
        more += ("--force",) * (force and row.asks and "--force" not in words)
        if row.is_endless:
            options.setdefault("clock", Interrupting())
        options.setdefault("stdin", b"Hello\n" if row.is_interactive
                           else self.router.key.encode()
                           if "api_key" in words else BODY)
        return self.run(*words, *more, **options)

    def run(self, *argv, stdin=b"", stdout=None, stderr=None, clock=None,
            **environ):
        """Run in process, with bytes or a stream as input; return a Result."""
        streams = xeroctl.Streams(
            text_stream(stdin) if isinstance(stdin, bytes) else stdin,
            *(in_text(one or io.BytesIO()) for one in (stdout, stderr)))
        environ.setdefault("XEROTIER_CONFIG", self.place("config.toml"))
        status = xeroctl.main(argv, environment(self.router, **environ),
                              streams, clock or FakeClock())
        return Result(text_of(streams.stdout), text_of(streams.stderr),
                      status)
