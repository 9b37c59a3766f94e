#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Every block of every volume at every listed tid of one database, by `zbig export`, has the hash
that its manifest lists.

    export_test.py FOLDER           a folder of tests/data/original
    export_test.py FOLDER NAME.fs   a database of tests/data/more/FOLDER

Also: sizes, what ls, info, log and diff say of the same states, and that reading changed nothing on
the disk.
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from zbigtest import DATA, Report, sha256, zbig, zbig_ok  # noqa: E402

# Above this, blocks are exported one by one.
WHOLE = 64 << 20

report = Report()


def snapshot(folder):
    """Names, sizes and times of what a folder holds."""
    return {e.name: (e.stat().st_size, e.stat().st_mtime_ns) for e in os.scandir(folder)}


def differing(old, new):
    """The extents where two contents differ, the shorter one as if zeros followed."""
    size = max(len(old), len(new))
    old, new = old.ljust(size, b"\0"), new.ljust(size, b"\0")
    extents, at = [], 0
    while at < size:
        step = min(4096, size - at)
        if old[at:at + step] == new[at:at + step]:
            at += step
            continue
        while at < size and old[at] == new[at]:
            at += 1
        start = at
        while at < size and old[at] != new[at]:
            at += 1
        extents.append((start, at - start))
    return extents


def covers(extents, inner):
    """Whether extents (ascending) cover all of `inner`."""
    for start, length in inner:
        if not any(e["offset"] <= start and start + length <= e["offset"] + e["length"]
                   for e in extents):
            return False
    return True


def check_diff(url, name, tids, old, new):
    """diff must name every byte that differs, and only pages that have one."""
    extents = zbig_ok("diff", url, name, *tids, "--json").json()
    inner = differing(old, new)
    what = "%s diff %s %s" % (name, *tids)
    report.true(what + " covers the bytes that differ", covers(extents, inner),
                (extents, inner[:5]))
    size = max(len(old), len(new))
    for e in extents:
        for page in range(e["offset"] // 4096 * 4096, e["offset"] + e["length"], 4096):
            a = old[page:page + 4096].ljust(4096, b"\0")
            b = new[page:page + 4096].ljust(4096, b"\0")
            if page < size and not report.true(what + " is exact", a != b, (page, extents)):
                return


def original(folder):
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as f:
        manifest = json.load(f)
    url = os.path.join(folder, "Data.fs")
    listed = {v["path"]: v for v in zbig_ok("ls", url, "--json").json()}
    for volume in manifest["volumes"]:
        check_volume(manifest, url, volume, listed)
    log = zbig_ok("log", url, "--json").json()
    expected = [t for t in manifest["transactions"]
                if not manifest["since"] or t["tid"] >= manifest["since"]]
    if not manifest["since"]:
        report.equal("tids of the log", [t["tid"] for t in log],
                     [t["tid"] for t in reversed(expected)])
    said = {t["tid"]: (t["user"], t["description"]) for t in log}
    for t in expected:
        if t["tid"] in said:
            report.equal("user, description of " + t["tid"], said[t["tid"]],
                         (t["user"], t["description"]))


def check_volume(manifest, url, volume, listed):
    name = volume["path"]
    if not volume["states"]:  # gone before the first state that a pack has left
        report.equal(name + ": status", zbig("info", url, name).status, 4)
        return
    blocks = {}
    previous = None  # tid and content of the state before, while it is small
    for state in volume["states"]:
        tid = state["tid"]
        what = "%s at %s" % (name, tid)
        if state.get("exists") is False:
            report.equal(what + ": status", zbig("export", url, name, "--at", tid).status, 4)
            previous = None
            continue
        for number, block in state["blocks"].items():
            if block is None:
                blocks.pop(int(number), None)
            else:
                blocks[int(number)] = block[0]
        if manifest["since"] and tid < manifest["since"]:
            continue
        content = check_state(url, name, volume, state, blocks, what)
        if content is not None and previous and len(content) <= 1 << 20:
            check_diff(url, name, (previous[0], tid), previous[1], content)
        previous = (tid, content) if content is not None else None

    last = volume["states"][-1]
    if last.get("exists") is False:
        return
    info = zbig_ok("info", url, name, "--json").json()
    report.equal(name + ": info",
                 {k: info[k] for k in ("kind", "oid", "zfile", "blktab", "blksize")},
                 {"kind": volume["class"], **{k: volume[k] for k in
                                              ("oid", "zfile", "blktab", "blksize")}})
    report.equal(name + ": info: size, blocks", (info["size"], info["blocks"]),
                 (last["size"], len(blocks)))
    if name in listed:
        report.equal(name + ": ls", listed[name], {k: info[k] for k in listed[name]})
    else:
        report.true(name + " is listed, or an oid", name.startswith("oid:"), sorted(listed))
    touched = [t["tid"] for t in zbig_ok("log", url, name, "--json").json()]
    report.equal(name + ": log is newest first", touched, sorted(touched, reverse=True))
    missing = [s["tid"] for s in volume["states"] if s["tid"] not in touched and
               s.get("exists") is not False and
               not (manifest["since"] and s["tid"] <= manifest["since"])]
    report.equal(name + ": transactions that the log lacks", missing, [])


def check_state(url, name, volume, state, blocks, what):
    """Compares one state; gives its content if it is small."""
    size, blksize = state["size"], volume["blksize"]
    at = ("--at", state["tid"])
    if size <= WHOLE:
        content = zbig_ok("export", url, name, *at).out
        report.equal(what + ": size", len(content), size)
        report.equal(what + ": sha256", sha256(content), state["sha256"])
        for number, digest in blocks.items():
            block = content[number * blksize:(number + 1) * blksize]
            if len(block) == blksize:
                report.equal("%s block %d" % (what, number), sha256(block)[:16], digest)
        return content
    for number, digest in blocks.items():
        block = zbig_ok("export", url, name, *at, "--offset", number * blksize,
                        "--length", blksize).out
        report.equal("%s block %d" % (what, number), sha256(block)[:16], digest)
    end = zbig("export", url, name, *at, "--offset", size, "--length", 1)
    report.equal(what + ": a byte past the size", end.status, 2)
    return None


def more(folder, name):
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as f:
        manifest = json.load(f)["databases"][name]
    url = os.path.join(folder, name)
    if "damaged" in manifest and not check_damaged(url, manifest):
        return
    until = manifest.get("until") or "f" * 16
    for state in manifest["states"]:
        if state["tid"] > until:
            report.equal("state past the damage", zbig("export", url, "/a", "--at",
                                                       state["tid"]).status, 4)
            continue
        for path, expected in state["volumes"].items():
            what = "%s at %s" % (path, state["tid"])
            result = None
            if "sha256" in expected:
                result = zbig("export", url, path, "--at", state["tid"])
            if result is None:
                continue
            if result.status == 4 and expected["size"] == 0:
                continue  # not made yet
            if report.equal(what + ": status", (result.status, result.err), (0, b"")):
                report.equal(what + ": size", len(result.out), expected["size"])
                report.equal(what + ": sha256", sha256(result.out), expected["sha256"])
    if "damaged" in manifest:
        return
    for path, volume in manifest["volumes"].items():
        info = zbig_ok("info", url, path, "--json").json()
        report.equal(path + ": blksize", info["blksize"], volume["blksize"])
        for key in ("dtype", "order"):
            if volume.get(key):
                report.equal(path + ": " + key, info[key], volume[key])
        for number, digest in volume["blocks"].items():
            start = int(number) * info["blksize"]
            if start + info["blksize"] > info["size"]:
                continue
            block = zbig_ok("export", url, path, "--offset", start, "--length", info["blksize"]).out
            report.equal("%s block %s" % (path, number), sha256(block)[:len(digest)], digest)


def check_damaged(url, manifest):
    """A damaged database opens at its last whole transaction, or is refused in one line. Gives
    whether it opens."""
    log = zbig("log", url, "--json", "-n", 1)
    if manifest["until"] is None:
        if log.status == 0 and log.json() == []:  # an empty file is an empty database
            return False
        report.equal("status", log.status, 7)
        report.true("one line", log.err.startswith(b"zbig: log: ") and
                    log.err.count(b"\n") <= 2 and log.out == b"", log)
        report.equal("status of check", zbig("check", url).status, 7)
        return False
    report.equal("newest transaction", log.json()[0]["tid"], manifest["until"])
    check = zbig("check", url)
    report.equal("status of check", check.status, 7)
    report.true("check names the place", os.path.basename(url).encode() in check.out, check)
    return True


def main():
    if len(sys.argv) == 2:
        folder = os.path.join(DATA, "original", sys.argv[1])
        before = snapshot(folder)
        original(folder)
    else:
        folder = os.path.join(DATA, "more", sys.argv[1])
        before = snapshot(folder)
        more(folder, sys.argv[2])
    report.equal("the folder after", snapshot(folder), before)
    report.done()


if __name__ == "__main__":
    main()
