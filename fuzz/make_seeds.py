#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""make_seeds.py DOCS CORPUS: the hex examples of DOCS/*.md as first inputs of the fuzzers.

CORPUS/pickle and CORPUS/record get each record as it is, CORPUS/btree sets of them as fuzz_btree
reads them, CORPUS/PAGE what else there is on a page (filestorage)."""

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


main()
