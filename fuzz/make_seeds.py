#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""make_seeds.py DOCS CORPUS: the first inputs of the fuzzers, from the hex examples of DOCS/*.md.

CORPUS/pickle and CORPUS/record get each record as it is, CORPUS/btree sets of them as fuzz_btree
reads them, CORPUS/PAGE what else there is on a page (filestorage). CORPUS/overlay and
CORPUS/control get what a server writes and is asked."""

import pathlib
import re
import sys


def examples(page):
    for name, lines in re.findall(r"```hex (\S+)\n(.*?)```", page.read_text(), re.S):
        data = bytearray()
        for line in lines.splitlines():
            line = re.sub(r"^[0-9a-f]{4,8}  ", "", line).split("  ")[0]
            data += bytes.fromhex(line)
        yield name, bytes(data)


def write(folder, name, data):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def numbered(records):
    """Records with their oids, each behind oid and length in two bytes each, little-endian."""
    return b"".join(
        oid.to_bytes(2, "little") + len(data).to_bytes(2, "little") + data for oid, data in records
    )

STATE = b"""sequence 3
size 163840
view 0000000000001000
base 0000000000001000
bottom 1 flushed
top 2
boot another boot"""

ATTACH = (
    b'{"op": "attach", "device": "A", "export": "/A", "volume": "/A", "at": "head", '
    b'"size": 65536, "resume": true, "overlay": "/"}\n'
)
REQUESTS = [
    b'{"op": "hello"}\n{"op": "status"}\n',
    ATTACH + b'{"op": "freeze", "device": "A"}\n{"op": "unfreeze", "device": "A"}\n'
    b'{"op": "detach", "device": "A", "keep": true}\n' + ATTACH,
    ATTACH + b'{"op": "freeze", "device": "A"}\n'
    b'{"op": "committed", "device": "A", "at": "03f5945815555555", "stored": true}\n'
    b'{"op": "abort", "device": "A"}\n{"op": "settled", "device": "A"}\n'
    b'{"op": "status", "device": "A"}\n{"op": "detach", "device": "A", "discard": true}\n',
    ATTACH.replace(b'"resume"', b'"read_only"')
    + b'{"op": "refresh", "device": "A", "at": "head"}\n',
]


def main():
    docs, corpus = map(pathlib.Path, sys.argv[1:])
    for page in sorted(docs.glob("*.md")):
        for name, data in examples(page):
            if page.stem not in ("pickle", "btree"):
                write(corpus / page.stem, name, data)
                continue
            write(corpus / "pickle", name, data)
            write(corpus / "record", name, data)
            write(corpus / "btree", name, numbered([(1, data)]))
    nodes = dict(examples(docs / "btree.md"))
    tree = [(1, "lobtree-two-buckets"), (28, "lobucket-next"), (29, "lobucket-last")]
    write(corpus / "btree", "tree", numbered([(oid, nodes[name]) for oid, name in tree]))
    write(corpus / "overlay", "as-it-was", b"\0\3\0\1\x20")
    write(corpus / "overlay", "state", STATE + b"\0\0\0\xf0\1\1\0\x80\0")
    for number, lines in enumerate(REQUESTS):
        write(corpus / "control", str(number), lines)


main()
