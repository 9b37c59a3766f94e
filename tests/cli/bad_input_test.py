#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Whatever is wrong with what a person types or with a file: one clear line, the right exit status,
nothing lost.

Each row of the tables is a call, the status that it must have, and what its first line on stderr
must match. After every row the database is what it was.
"""
import fcntl
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from zbigtest import ZBIG, MiB, Report, Scratch, sha256, zbig, zbig_ok  # noqa: E402

report = Report()


def one_line(what, result, status, pattern):
    """The result of a call that must fail: status, one line, perhaps one of advice."""
    error = result.err.decode("utf-8", "replace")
    lines = error.split("\n")
    report.equal(what + ": status", result.status, status)
    report.true(what + ": one line, and one of advice at most",
                lines[-1] == "" and 2 <= len(lines) <= 3, error)
    verb = str(result.arguments[0]) if result.arguments else ""
    report.true(what + ": names the verb", error.startswith("zbig: %s: " % verb), error)
    report.true(what + ": says " + pattern, re.search(pattern, lines[0]), error)


class Database:
    """A database with a volume /A of 10000 bytes and a folder /d with a bare file /d/raw."""

    def __init__(self, folder):
        self.url = os.path.join(folder, "Data.fs")
        self.content = os.urandom(10000)
        zbig_ok("create", self.url, "/A", "--size", 10000, "--block-size", 4096)
        zbig_ok("create", self.url, "/d/raw", "--raw", "--size", 8192, "--block-size", 4096)
        self.tid = zbig_ok("import", self.url, "/A", "-", stdin=self.content).text.strip()
        self.log = zbig_ok("log", self.url, "--json").out

    def unchanged(self, what):
        report.equal(what + ": /A afterwards", sha256(zbig_ok("export", self.url, "/A").out),
                     sha256(self.content))
        report.equal(what + ": log afterwards", zbig_ok("log", self.url, "--json").out, self.log)


def typed_rows(db, folder):
    """(arguments, status, pattern) of what is wrong in the call itself."""
    url = db.url
    missing = os.path.join(folder, "nothing")
    text = os.path.join(folder, "text")
    with open(text, "w", encoding="ascii") as f:
        f.write("this is no database\n" * 100)
    directory = os.path.join(folder, "directory")
    os.mkdir(directory)
    long_file = os.path.join(folder, "long")
    with open(long_file, "wb") as f:
        f.write(b"x" * 10001)
    return [
        # verbs and options
        (["nothing"], 2, "no such verb"),
        (["ls"], 2, "URL is missing"),
        (["info", url], 2, "VOLUME is missing"),
        (["ls", url, "more"], 2, "one argument too many: more"),
        (["ls", url, "--nothing"], 2, "--nothing"),
        (["ls", url, "--js"], 2, "--js"),
        (["export", url, "/A", "--at"], 2, "--at"),
        (["log", url, "-n", "many"], 2, "many"),
        (["log", url, "-n", "-1"], 2, "-1"),
        # databases
        (["ls", missing], 4, "nothing"),
        (["ls", os.path.join(missing, "Data.fs")], 4, "nothing"),
        (["ls", "file://" + missing], 4, "nothing"),
        (["ls", directory], 2, "directory"),
        (["ls", text], 7, "text"),
        (["check", text], 7, "text"),
        (["ls", ""], 2, ""),
        (["ls", "ftp://host/Data.fs"], 2, "ftp"),
        (["ls", "zeo://localhost:9991?wait_timeout=1"], 6, "refused"),
        (["import", missing, "/A", text], 4, "nothing"),
        (["import", directory, "/A", text], 2, "directory"),
        (["create", os.path.join(missing, "Data.fs"), "/A", "--size", "1"], 4, "nothing"),
        (["create", directory, "/A", "--size", "1"], 2, "directory"),
        (["create", text, "/A", "--size", "1"], 7, "text"),
        # volumes
        (["info", url, "/nothing"], 4, "/nothing"),
        (["info", url, "/d/nothing"], 4, "/d/nothing"),
        (["info", url, "/A/B"], 4, "/A"),
        (["info", url, "/d"], 4, "/d"),
        (["info", url, "A"], 2, "'?A'?"),
        (["info", url, ""], 2, ""),
        (["info", url, "oid:"], 2, "oid:"),
        (["info", url, "oid:xyz"], 2, "oid:xyz"),
        (["info", url, "oid:ffffff"], 4, "ffffff"),
        (["export", url, "/nothing"], 4, "/nothing"),
        (["import", url, "/nothing", text], 4, "/nothing"),
        (["log", url, "/nothing"], 4, "/nothing"),
        (["diff", url, "/nothing", "head", "head"], 4, "/nothing"),
        (["check", url, "/nothing"], 4, "/nothing"),
        # moments
        (["export", url, "/A", "--at", "0000000000000001"], 4, "/A"),
        (["export", url, "/A", "--at", "7fffffffffffffff"], 4, "7fffffffffffffff"),
        (["export", url, "/A", "--at", "ffffffffffffffff"], 4, "ffffffffffffffff"),
        (["export", url, "/A", "--at", "yesterday"], 2, "yesterday"),
        (["export", url, "/A", "--at", "2026-13-01"], 2, "2026-13-01"),
        (["export", url, "/A", "--at", "1990-01-01"], 4, "/A"),
        (["ls", url, "--at", "soon"], 2, "soon"),
        (["log", url, "--since", "soon"], 2, "soon"),
        (["diff", url, "/A", "head", "soon"], 2, "soon"),
        # sizes and ranges
        (["create", url, "/n", "--size", ""], 2, "--size"),
        (["create", url, "/n", "--size", "-1"], 2, "-1"),
        (["create", url, "/n", "--size", "1.5M"], 2, "1.5M"),
        (["create", url, "/n", "--size", "8E"], 2, "8E"),
        (["create", url, "/n", "--size", "99999999999999999999"], 2, "99999999999999999999"),
        (["create", url, "/n"], 2, "--size"),
        (["create", url, "/n", "--size", "1M", "--block-size", "0"], 2, "block"),
        (["create", url, "/n", "--size", "1M", "--block-size", "4E"], 2, "block"),
        (["create", url, "/n", "--size", "12", "--dtype", "f8"], 2, "--size"),
        (["create", url, "/n", "--size", "16", "--dtype", "nothing"], 2, "nothing"),
        (["create", url, "/n", "--size", "16", "--dtype", "f8", "--shape", "3"], 2, "--size"),
        (["create", url, "/n", "--shape", "4294967296,4294967296"], 2, "--shape"),
        (["create", url, "/n", "--shape", "3,,4"], 2, "3,,4"),
        (["create", url, "/n", "--raw", "--size", "1", "--dtype", "f8"], 2, "--raw"),
        (["create", url, "/A", "--size", "1"], 2, "/A"),
        (["create", url, "/A/B", "--size", "1"], 2, "/A"),
        (["create", url, "/", "--size", "1"], 2, "/"),
        (["create", url, "n", "--size", "1"], 2, "n"),
        (["create", url, "oid:1", "--size", "1"], 2, "oid"),
        (["export", url, "/A", "--offset", "10001"], 2, "--offset"),
        (["export", url, "/A", "--length", "10001"], 2, "--length"),
        (["export", url, "/A", "--offset", "1", "--length", "10000"], 2, "--length"),
        (["export", url, "/A", "--offset", "x"], 2, "x"),
        # files
        (["export", url, "/A", "-o", directory], 2, "directory"),
        (["export", url, "/A", "-o", os.path.join(missing, "f")], 4, "nothing"),
        (["import", url, "/A", missing], 4, "nothing"),
        (["import", url, "/A", directory], 2, "directory"),
        (["import", url, "/A", long_file], 2, "10001"),
        (["import", url, "/A", text, "--offset", "9999"], 2, "past /A"),
        (["import", url, "/A", text, "--offset", "8E"], 2, "8E"),
        (["import", url, "/A", text, "--format", "zblk0"], 2, "zblk0"),
        (["import", url, "/A", text, "-m", "m" * 70000], 2, "65535"),
    ]


def test_typed(db, folder):
    for arguments, status, pattern in typed_rows(db, folder):
        what = " ".join(arguments)[:120]
        result = zbig(*arguments, stdin=b"", cwd=folder)
        one_line(what, result, status, pattern)
        report.equal(what + ": stdout", result.out, b"")
    db.unchanged("after all of these")
    report.true("nothing was made on the way", not os.path.exists(os.path.join(folder, "nothing")))


def test_help():
    for arguments in (["--help"], ["help"], ["help", "ls"], ["--version"], ["ls", "--help"]):
        result = zbig(*arguments)
        report.true("zbig " + " ".join(arguments), result.status == 0 and result.out, result)
    nothing = zbig()
    report.equal("zbig alone", (nothing.status, nothing.out), (2, b""))
    for arguments in (["export", "--help"], ["import", "-h"]):
        report.true("usage", b"usage: zbig " in zbig(*arguments).out)


def test_environment(db):
    result = zbig("import", db.url, "/A", "-", stdin=b"x",
                  env={"WENDELIN_CORE_ZBLK_FMT": "nonsense"})
    one_line("WENDELIN_CORE_ZBLK_FMT", result, 2, "nonsense")
    db.unchanged("WENDELIN_CORE_ZBLK_FMT")


def test_locked(db):
    with open(db.url + ".lock", "a+", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        one_line("import, locked", zbig("import", db.url, "/A", "-", stdin=b"x"), 5, "Data.fs")
        one_line("create, locked", zbig("create", db.url, "/n", "--size", 1), 5, "Data.fs")
        db.unchanged("while it is locked")  # reading is possible meanwhile
    zbig_ok("import", db.url, "/A", "-", stdin=db.content[:10])
    db.unchanged("after the lock")


def test_no_terminal(db):
    """The bytes of a volume are not written to a terminal."""
    master, slave = os.openpty()
    done = subprocess.run([ZBIG, "export", db.url, "/A"], stdout=slave, stderr=subprocess.PIPE,
                          check=False)
    os.close(slave)
    os.close(master)
    report.equal("export to a terminal", done.returncode, 2)
    report.true("export to a terminal says why", b"terminal" in done.stderr, done.stderr)


def test_closed_pipe(db):
    """A reader that goes away is an error, and no crash."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([ZBIG, "export", db.url, "/A"], stdout=writer, stderr=subprocess.PIPE,
                          check=False)
    os.close(writer)
    report.equal("export to a closed pipe", done.returncode, 1)
    report.true("export to a closed pipe says why", b"Broken pipe" in done.stderr, done.stderr)
    with open("/dev/full", "wb") as full:
        done = subprocess.run([ZBIG, "ls", db.url], stdout=full, stderr=subprocess.PIPE,
                              check=False)
    report.equal("ls to a full device", done.returncode, 1)


def test_output_is_whole_or_not_there(folder):
    """A failure or Ctrl-C leaves what was there before, and nothing beside it."""
    url = os.path.join(folder, "big.fs")
    zbig_ok("create", url, "/big", "--size", "64M")
    zbig_ok("import", url, "/big", "-", stdin=os.urandom(64 * MiB))
    target_folder = os.path.join(folder, "out")
    os.mkdir(target_folder)
    target = os.path.join(target_folder, "file")
    with open(target, "wb") as f:
        f.write(b"old")
    os.chmod(target, 0o640)

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MiB, MiB))
    one_line("export, file too large", zbig("export", url, "/big", "-o", target,
                                            preexec_fn=limited), 1, "large")
    report.equal("files after a failure", os.listdir(target_folder), ["file"])

    for delay in (0.0, 0.01, 0.02, 0.05):
        child = subprocess.Popen([ZBIG, "export", url, "/big", "-o", target],
                                 stderr=subprocess.PIPE)
        time.sleep(delay)
        child.send_signal(signal.SIGINT)
        error = child.communicate(timeout=30)[1]
        if child.returncode == 1:
            report.true("Ctrl-C says so", b"interrupted" in error, error)
        report.equal("files after Ctrl-C", os.listdir(target_folder), ["file"])
    with open(target, "rb") as f:
        old = f.read()
    if old == b"old":
        zbig_ok("export", url, "/big", "-o", target)
    report.equal("size in the end", os.path.getsize(target), 64 * MiB)
    report.equal("mode in the end", os.stat(target).st_mode & 0o777, 0o640)


class SmallDisk:
    """A tmpfs of 4 MiB; None where it can't be mounted."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "disk")
        os.mkdir(self.path)

    def __enter__(self):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", self.path],
                              capture_output=True, check=False)
        return self.path if done.returncode == 0 else None

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.path], capture_output=True, check=False)


def test_full_disk(folder):
    with SmallDisk(folder) as disk:
        if disk is None:
            print("SKIP: full disk: a tmpfs can be mounted by root only")
            return
        url = os.path.join(disk, "Data.fs")
        content = os.urandom(MiB)
        zbig_ok("create", url, "/A", "--size", "8M")
        zbig_ok("import", url, "/A", "-", stdin=content)
        log = zbig_ok("log", url, "--json").out
        size = os.path.getsize(url)
        source = os.path.join(folder, "source")
        with open(source, "wb") as f:
            f.write(os.urandom(8 * MiB))
        one_line("import, full disk", zbig("import", url, "/A", source), 1, "No space left")
        report.equal("log after a full disk", zbig_ok("log", url, "--json").out, log)
        report.equal("file after a full disk", os.path.getsize(url), size)
        report.equal("content after a full disk",
                     sha256(zbig_ok("export", url, "/A", "--length", MiB).out), sha256(content))
        report.equal("check after a full disk", zbig("check", url).status, 0)
        target = os.path.join(disk, "out")
        two = os.path.join(folder, "two.fs")
        zbig_ok("create", two, "/A", "--size", "8M")
        zbig_ok("import", two, "/A", source)
        one_line("export, full disk", zbig("export", two, "/A", "-o", target), 1, "No space left")
        report.true("no partial file", not [n for n in os.listdir(disk) if n.startswith("out")],
                    os.listdir(disk))
        # Room again: the same import goes through.
        zbig_ok("import", url, "/A", "-", "--offset", MiB, stdin=content)


def test_permissions(folder):
    """What another user may not do: nothing is changed, and the message says permission."""
    if os.geteuid() != 0:
        user = {}
    else:
        user = {"user": 65534, "group": 65534, "extra_groups": []}
    # Where nobody can reach it, whatever the folder of the build is.
    with tempfile.TemporaryDirectory(prefix="zbig-test-") as place:
        os.chmod(place, 0o755)
        program = os.path.join(place, "zbig")
        shutil.copy(ZBIG, program)
        closed = os.path.join(place, "closed")
        os.mkdir(closed)
        db = Database(closed)
        os.chmod(db.url, 0o444)
        source = os.path.join(place, "source")
        with open(source, "wb") as f:
            f.write(b"x")
        secret = os.path.join(place, "secret")
        shutil.copy(db.url, secret)
        os.chmod(secret, 0)
        os.chmod(closed, 0o555)

        def run(*arguments):
            done = subprocess.run([program, *arguments], capture_output=True, check=False, cwd="/",
                                  **user)
            from zbigtest import Result
            return Result(arguments, done.returncode, done.stdout, done.stderr)

        report.equal("read from a read-only folder", run("export", db.url, "/A").out, db.content)
        denied = "(?i)permission|read-only"
        one_line("unreadable database", run("ls", secret), 1, denied)
        one_line("import, read-only folder", run("import", db.url, "/A", source), 1, denied)
        one_line("create, read-only folder",
                 run("create", os.path.join(closed, "n.fs"), "/A", "--size", "1"), 1, denied)
        one_line("export, read-only folder",
                 run("export", db.url, "/A", "-o", os.path.join(closed, "out")), 1, denied)
        one_line("import, unreadable file", run("import", db.url, "/A", secret), 1, denied)
        os.chmod(closed, 0o755)
        db.unchanged("permissions")
        report.equal("files", sorted(n for n in os.listdir(closed) if not n.endswith(".index")),
                     ["Data.fs", "Data.fs.lock"])


def main():
    with Scratch() as folder:
        db = Database(folder)
        test_help()
        test_typed(db, folder)
        test_environment(db)
        test_locked(db)
        test_no_terminal(db)
        test_closed_pipe(db)
        test_output_is_whole_or_not_there(folder)
        test_full_disk(folder)
        test_permissions(folder)
    report.done()


if __name__ == "__main__":
    main()
