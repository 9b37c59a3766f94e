#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The control socket: each operation's reply and the state after it, requests out of turn, and
input that no client would send.
"""
import json
import os
import socket
import stat
import subprocess
import threading
import time

from nbdtest import (BIN, PAGE, PLUGIN, Control, Report, Scratch, Server, data_extents, database,
                     error_of, manifest, zbig_ok)

report = Report()
HEAD = manifest()["last_tid"]
FIRST = manifest()["transactions"][2]["tid"]
SIZE = 12 << 20


def refused(reply, code, part):
    report.equal("code of %r" % reply, (reply["ok"], reply.get("code")), (False, code))
    report.true("error of %r has %r" % (reply, part), part in reply.get("error", ""))
    report.true("one line", "\n" not in reply.get("error", ""))


def changed_both(reply):
    """Two commits changed pages 5, 6, 9 and 10 of block 0: those at least, that block at most."""
    for page in (5, 6, 9, 10):
        report.true("page %d is in the extents" % page, any(
            offset < (page + 1) * PAGE and page * PAGE < offset + length
            for offset, length in reply["extents"]), reply)
    report.true("no other block is", all(o + n <= 2 << 20 for o, n in reply["extents"]), reply)


def operations(server):
    hello = server.ok("hello")
    report.equal("hello", (hello["url"], hello["last_tid"], hello["pid"]),
                 ("file://" + os.path.join(server.folder, "Data.fs"), HEAD, server.process.pid))
    report.equal("attach", server.attach("d", "/a", "/a"),
                 {"ok": True, "at": HEAD, "size": SIZE, "volume_size": SIZE, "dirty_bytes": 0,
                  "settled": True, "facts": {"oid": "0000000000000001"}})
    report.equal("status", server.ok("status"), {"ok": True, "devices": [
        {"device": "d", "export": "/a", "volume": "/a", "at": HEAD, "size": SIZE,
         "volume_size": SIZE, "dirty_bytes": 0, "frozen_bytes": 0, "read_only": False,
         "settled": True, "stale": False, "full": None, "error": None,
         "overlay_bytes": server.ok("status")["devices"][0]["overlay_bytes"]}]})

    # Out of turn, and names that are taken or unknown.
    overlay = os.path.join(server.folder, "other")
    refused(server.control("attach", device="d", export="/b", volume="/a", overlay=overlay), "busy",
            "device d is attached already")
    refused(server.control("attach", device="e", export="/a", volume="/a", overlay=overlay), "busy",
            "belongs to device d")
    refused(server.control("attach", device="e", export="/a#e", volume="/a",
                           overlay=os.path.join(server.folder, "overlay-d")), "busy", "in use")
    refused(server.control("attach", device="e", export="/x", volume="/x", overlay=overlay),
            "not_found", "no volume /x")
    refused(server.control("attach", device="e", export="/x", volume="x", overlay=overlay),
            "invalid", "x")
    refused(server.control("attach", device="e", export="/e", volume="/a", at="f" * 16,
                           overlay=overlay), "not_found", "no transaction")
    refused(server.control("attach", device="e", export="/e", volume="/a", size=4096,
                           overlay=overlay), "invalid", "too small")
    refused(server.control("attach", device="e", export="/e", volume="/a", overlay="relative"),
            "invalid", "absolute")
    refused(server.control("attach", device="e", export="/e", volume="/a",
                           overlay=os.path.join(server.folder, "Data.fs")),
            "not_found", "Not a directory")
    for op in ("detach", "freeze", "unfreeze", "committed", "abort", "refresh", "status"):
        refused(server.control(op, device="nobody", at=HEAD), "not_found", "no device nobody")
    refused(server.control("committed", device="d", at=HEAD), "busy", "no commit is under way")
    report.equal("unfreeze of what is not frozen",
                 server.ok("unfreeze", device="d")["dirty_bytes"], 0)

    # One commit that fails, and one that lands; others change the volume meanwhile.
    handle = server.connect("/a")
    before = bytes(handle.pread(SIZE, 0))
    handle.pwrite(b"1" * 100, 5 * PAGE)
    refused(server.control("refresh", device="d", at="head"), "busy", "uncommitted")
    refused(server.control("detach", device="d"), "busy", "4096 bytes of uncommitted writes")
    report.equal("freeze", server.ok("freeze", device="d"),
                 {"ok": True, "dirty_bytes": PAGE, "at": HEAD, "extents": [[5 * PAGE, PAGE]]})
    for op in ("freeze", "abort", "refresh"):
        refused(server.control(op, device="d"), "busy", "commit is under way")
    frozen = server.connect("/a#frozen")
    report.equal("frozen extents", data_extents(frozen), [(5 * PAGE, PAGE)])
    report.true("frozen is read-only", frozen.is_read_only())
    handle.pwrite(b"2" * 100, 6 * PAGE)
    report.equal("unfreeze", server.ok("unfreeze", device="d")["dirty_bytes"], 2 * PAGE)
    report.true("frozen export is over", error_of(lambda: frozen.pread(PAGE, 5 * PAGE)) is not None)
    server.ok("freeze", device="d")
    frozen = server.connect("/a#frozen")
    report.equal("frozen extents", data_extents(frozen), [(5 * PAGE, 2 * PAGE)])
    change = os.path.join(server.folder, "change")
    with open(change, "wb") as f:
        f.write(bytes(frozen.pread(2 * PAGE, 5 * PAGE)))
    zbig_ok("import", os.path.join(server.folder, "Data.fs"), "/a", change, "--offset", 5 * PAGE)
    committed = server.ok("hello")["last_tid"]
    report.true("the head moved", committed > HEAD)
    refused(server.control("committed", device="d", at="f" * 16, stored=True), "not_found",
            "no transaction")
    refused(server.control("committed", device="d", at=FIRST, stored=True), "invalid", "older")
    report.equal("committed", server.ok("committed", device="d", at=committed, stored=True),
                 {"ok": True, "at": committed, "dirty_bytes": 0, "settled": True, "extents": [],
                  "size": SIZE, "volume_size": SIZE, "facts": {"oid": "0000000000000001"}})
    expected = bytearray(before)
    expected[5 * PAGE:5 * PAGE + 100] = b"1" * 100
    expected[6 * PAGE:6 * PAGE + 100] = b"2" * 100
    report.true("content after the commit", bytes(handle.pread(SIZE, 0)) == bytes(expected))

    # The base of what was written during a commit that another's came before (docs).
    server.ok("freeze", device="d")
    handle.pwrite(b"3", 9 * PAGE)
    zbig_ok("import", os.path.join(server.folder, "Data.fs"), "/a", change, "--offset", 9 * PAGE)
    others = server.ok("hello")["last_tid"]
    reply = server.ok("committed", device="d", at=others, stored=False)
    changed_both(reply)
    report.equal("settled", reply["settled"], False)
    server.ok("settled", device="d")
    status = server.ok("status", device="d")["devices"][0]
    report.equal("the view moved", (status["at"], status["dirty_bytes"]), (others, PAGE))
    report.equal("base", server.ok("freeze", device="d")["at"], committed)
    server.ok("unfreeze", device="d")

    # Abort and refresh say what changed.
    reply = server.ok("abort", device="d")
    report.equal("abort", (reply["at"], reply["extents"]), (others, [[9 * PAGE, PAGE]]))
    reply = server.ok("refresh", device="d", at=HEAD)
    report.equal("refresh to the past", reply["at"], HEAD)
    changed_both(reply)
    report.true("content of the past", bytes(handle.pread(SIZE, 0)) == before)
    reply = server.ok("refresh", device="d", at="head")
    report.equal("refresh to the head", reply["at"], others)
    changed_both(reply)

    # The base of what is written to a page that somebody may have a copy of from before.
    status = server.ok("status", device="d")["devices"][0]
    report.equal("not settled", (reply["settled"], status["settled"]), (False, False))
    handle.pwrite(b"5", 5 * PAGE)
    server.ok("settled", device="d")
    report.true("settled", server.ok("status", device="d")["devices"][0]["settled"])
    report.equal("base", server.ok("freeze", device="d")["at"], HEAD)
    refused(server.control("committed", device="d", at=HEAD, stored=True), "invalid", "older")
    server.ok("unfreeze", device="d")
    server.ok("abort", device="d")
    server.ok("settled", device="d")

    # Detach with each of its ways.
    handle.pwrite(b"4", 0)
    report.equal("detach, keep", server.ok("detach", device="d", keep=True)["dirty_bytes"], PAGE)
    report.true("a client of a detached device",
                error_of(lambda: handle.pread(PAGE, 0)) is not None)
    report.equal("attach again", server.attach("d", "/a", "/a")["dirty_bytes"], PAGE)
    report.equal("content", server.read("/a", 0, 1), b"4")
    refused(server.control("detach", device="d", keep=True, discard=True), "invalid", "exclude")
    report.equal("detach, discard",
                 server.ok("detach", device="d", discard=True)["dirty_bytes"], PAGE)
    report.true("its files are gone", not os.path.exists(os.path.join(server.folder, "overlay-d")))
    server.attach("d", "/a", "/a", size=SIZE + 1)
    report.equal("size", server.ok("status")["devices"][0]["size"], SIZE + PAGE)
    report.equal("the rest is zeros", server.read("/a", SIZE, PAGE), bytes(PAGE))
    report.equal("detach, clean", server.ok("detach", device="d")["dirty_bytes"], 0)

    # A read-only device.
    server.attach("r", "/a", "/a", at=FIRST, read_only=True)
    handle = server.connect("/a")
    report.true("read-only", handle.is_read_only())
    refused(server.control("freeze", device="r"), "read_only", "read-only")
    server.ok("unfreeze", device="r")
    report.equal("refresh", server.ok("refresh", device="r", at="head")["at"], others)
    report.true("content", bytes(handle.pread(PAGE, 0)) == server.read("/a@" + others, 0, PAGE))
    server.ok("detach", device="r")


def bad_input(server):
    with Control(server.control_path) as control:
        for line, part in (
                (b"", "JSON object"), (b"[]", "JSON object"), (b"{", "JSON object"),
                (b"nonsense", "JSON object"), (b"\xff\xfe", "JSON object"),
                (b"1e999", "JSON object"),
                (b"[" * 100000, "JSON object"), (b"{}", "'op' is missing"),
                (b'{"op":1}', "'op' must be a string"), (b'{"op":""}', "'op' must have"),
                (b'{"op":"no"}', "no such op: no"),
                (b'{"op":"' + b"x" * 5000 + b'"}', "'op' must have"),
                (b'{"op":"attach"}', "'device' is missing"),
                (b'{"op":"attach","device":"d","export":"/a","volume":"/a"}',
                 "'overlay' is missing"),
                (b'{"op":"attach","device":"d","export":"/a","volume":"/a","size":-1}', "'size'"),
                (b'{"op":"attach","device":"d","export":"/a","volume":"/a","size":1e30}', "'size'"),
                (b'{"op":"attach","device":"d","export":"/a","volume":"/a","read_only":1}',
                 "'read_only'"),
                (b'{"op":"attach","device":"d","export":"/a","volume":"/a","at":"12"}', "'at'"),
                (b'{"op":"attach","device":"d\\u0000","export":"/a","volume":"/a"}',
                 "none of them zero"),
                (b'{"op":"committed","device":"d"}', "'at' is missing|no device"),
                (b'{"op":"detach","device":["d"]}', "'device' must be a string")):
            reply = control.ask(line)
            report.equal("ok of %r" % line[:60], reply["ok"], False)
            report.true("%r says %s" % (line[:60], part),
                        any(p in reply["error"] for p in part.split("|")), reply)
            report.true("the error is short", len(reply["error"]) < 300)
        report.true("the connection lives", control.ask('{"op":"hello"}')["ok"])
        # Two requests in one piece, one in two pieces.
        control.socket.sendall(b'{"op":"hello"}\n{"op":"status"}\n{"op":')
        report.true("first", "pid" in json.loads(control.reader.readline()))
        report.true("second", "devices" in json.loads(control.reader.readline()))
        control.socket.sendall(b'"hello"}\n')
        report.true("third", "pid" in json.loads(control.reader.readline()))

    with Control(server.control_path) as control:
        try:
            control.socket.sendall(b"x" * (3 << 20))
        except BrokenPipeError:
            pass  # it did not wait for the rest
        report.true("a line without an end",
                    "1 MiB" in json.loads(control.reader.readline())["error"])
        try:
            report.equal("and the connection is closed", control.reader.read(), b"")
        except ConnectionResetError:
            pass
    # Clients that go away in the middle.
    for piece in (b"", b'{"op":"he', b'{"op":"status"}\n' * 1000):
        with Control(server.control_path) as control:
            control.socket.sendall(piece)
    time.sleep(0.5)  # those above have ended
    many = [Control(server.control_path) for _ in range(64)]
    report.true("64 connections answer", all(c.ask('{"op":"hello"}')["ok"] for c in many))
    with Control(server.control_path) as control:
        report.true("the 65th is told",
                    "too many" in json.loads(control.reader.readline())["error"])
    for control in many:
        control.__exit__()
    report.true("alive", server.ok("hello")["ok"])


def at_once(server):
    """Status and steps of several devices from several connections."""
    for name in ("d0", "d1", "d2"):
        server.attach(name, "/a#" + name, "/a")
    stop, replies = threading.Event(), []

    def poll():
        with Control(server.control_path) as control:
            while not stop.is_set():
                replies.append(control.ask('{"op":"status"}')["ok"])

    def steps(name):
        handle = server.connect("/a#" + name)
        for i in range(30):
            handle.pwrite(b"x" * PAGE, i * PAGE)
            server.ok("freeze", device=name)
            server.ok("unfreeze", device=name)
        report.equal("abort of " + name, server.ok("abort", device=name)["extents"],
                     [[0, 30 * PAGE]])

    threads = [threading.Thread(target=steps, args=(name,)) for name in ("d0", "d1", "d2")]
    poller = threading.Thread(target=poll)
    poller.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    poller.join()
    report.true("every status was answered", replies and all(replies))


def socket_file(server):
    mode = stat.S_IMODE(os.stat(server.control_path).st_mode)
    report.equal("mode of the socket", oct(mode), oct(0o600))
    second = subprocess.run(server.arguments[:3] + [server.socket + "2"] + server.arguments[6:],
                            capture_output=True, timeout=60, check=False)
    report.true("a second server on the same socket is refused",
                second.returncode != 0 and b"another server listens there" in second.stderr,
                second.stderr)
    report.true("the first lives", server.ok("hello")["ok"])
    server.kill()
    report.true("a killed server leaves its socket", os.path.exists(server.control_path))
    server.start()
    report.true("which the next one takes over", server.ok("hello")["ok"])
    if os.geteuid() == 0:
        os.chmod(server.folder, 0o711)
        os.chmod(server.control_path, 0o666)
        probe = ("import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
                 "s.sendall(b'{\"op\":\"hello\"}\\n'); sys.exit(0 if s.recv(10)==b'' else 1)")
        other = subprocess.run(["/usr/bin/python3", "-c", probe, server.control_path], check=False,
                               user=65534, timeout=60, capture_output=True)
        report.true("another user gets no answer", other.returncode == 0 or
                    b"ConnectionResetError" in other.stderr or b"BrokenPipe" in other.stderr,
                    other.stderr)
    report.equal("exit status", server.stop(), 0)
    report.true("a server that ends removes it", not os.path.exists(server.control_path))
    for path, part in ((server.folder, "no socket"), (server.folder + "/" + "x" * 200, "at most"),
                       (server.folder + "/no/folder", "No such file")):
        done = subprocess.run(["nbdkit", "-f", "-U", server.socket, PLUGIN,
                               os.path.join(server.folder, "Data.fs"), "control=" + path],
                              capture_output=True, timeout=60, check=False)
        report.true("control=%s" % path[:50], done.returncode != 0 and part.encode() in done.stderr,
                    done.stderr)


def pinned(folder):
    with Server(folder, os.path.join(folder, "Data.fs"), "at=" + FIRST) as server:
        report.equal("head", server.ok("hello")["last_tid"], FIRST)
        report.equal("content", server.read("/a"), server.read("/a@" + FIRST))
        report.true("later states are not shown",
                    error_of(lambda: server.connect("/a@" + HEAD)) is not None)
        refused(server.control("attach", device="d", export="/a", volume="/a",
                               overlay=folder + "/o"), "read_only", "one state")
        report.equal("a read-only device", server.attach("d", "/a", "/a", read_only=True)["at"],
                     FIRST)


def frozen_file(server):
    """What freeze gives a commit: extents, as many as there are, and a file that has the bytes."""
    pages = 16384 * 2 + 2
    server.attach("f", "/f", "/a", size=2 * pages * PAGE)
    refused(server.control("frozen", device="f"), "busy", "no commit is under way")
    handle = server.connect("/f")
    handle.pwrite(b"1" * 100, 0)
    for page in range(1, pages):
        handle.zero(PAGE, 2 * page * PAGE)
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(server.control_path)
        control.sendall(b'{"op": "freeze", "device": "f"}\n')
        line, passed, _, _ = socket.recv_fds(control, 4096, 4)
        while not line.endswith(b"\n"):
            line += control.recv(1 << 20)
    reply = json.loads(line)
    report.equal("files passed", len(passed), 1)
    handle.pwrite(b"2" * 100, 0)
    report.equal("bytes of the frozen file", os.pread(passed[0], 100, 0), b"1" * 100)
    found = reply["extents"]
    while "next" in reply:
        report.equal("extents in a full line", len(reply["extents"]), 16384)
        reply = server.ok("frozen", device="f", **{"from": reply["next"]})
        found += reply["extents"]
    report.true("all extents", found == [[2 * page * PAGE, PAGE] for page in range(pages)])
    report.equal("behind the end", server.ok("frozen", device="f", **{"from": 1 << 50}),
                 {"ok": True, "extents": []})
    os.close(passed[0])
    server.ok("unfreeze", device="f")
    server.ok("detach", device="f", discard=True)


def growth(server):
    """The volume becomes longer: devices whose views move to that grow, but for one with a size."""
    server.attach("w", "/w", "/a")
    server.attach("r", "/r", "/a", read_only=True)
    server.attach("x", "/x", "/a", size=SIZE)
    old = server.connect("/w")
    whole = server.connect("/w#growing")
    report.true("the kernel's export has no size", whole.get_size() > 1 << 60, whole.get_size())
    report.true("its end", error_of(lambda: whole.pread(PAGE, SIZE)) == "EINVAL")
    more = os.path.join(server.folder, "more")
    with open(more, "wb") as f:
        f.write(b"m" * (4 << 20))
    zbig_ok("import", os.path.join(server.folder, "Data.fs"), "/a", more, "--offset", SIZE)
    longer = SIZE + (4 << 20)
    for device in "wrx":
        reply = server.ok("refresh", device=device, at="head")
        report.equal("sizes of " + device, (reply["size"], reply["volume_size"]),
                     (SIZE if device == "x" else longer, longer))
        report.equal("%s to a new client" % device, server.connect("/" + device).get_size(),
                     reply["size"])
    report.equal("size to the client of before", old.get_size(), SIZE)
    report.equal("bytes past the old end", bytes(whole.pread(PAGE, longer - PAGE)), b"m" * PAGE)
    whole.pwrite(b"w" * PAGE, longer - PAGE)
    for action in (lambda: whole.pread(2 * PAGE, longer - PAGE),
                   lambda: whole.pwrite(b"w" * PAGE, longer),
                   lambda: whole.zero(PAGE, 1 << 61)):
        report.equal("past the new end", error_of(action), "EINVAL")
    report.equal("written", server.read("/w", longer - PAGE), b"w" * PAGE)

    # Devices come back, to the state before and after.
    server.kill()
    server.start()
    report.equal("with writes", server.attach("w", "/w", "/a", resume=True)["size"], longer)
    report.equal("too small for its volume by now",
                 server.attach("x", "/x", "/a", size=SIZE, resume=True)["size"], SIZE)
    report.equal("larger than its volume",
                 server.attach("r", "/r", "/a", read_only=True, at=HEAD, resume=True,
                               least=longer)["size"], longer)
    report.equal("past the volume", server.read("/r", SIZE), bytes(longer - SIZE))
    for device in "wrx":
        server.ok("detach", device=device, discard=True)


def main():
    report.true("programs are built", os.path.exists(os.path.join(BIN, "zbig")), BIN)
    with Scratch() as folder:
        with Server(folder, database(folder)) as server:
            operations(server)
            frozen_file(server)
            growth(server)
            bad_input(server)
            at_once(server)
            socket_file(server)
        pinned(folder)
    report.done()


if __name__ == "__main__":
    main()
