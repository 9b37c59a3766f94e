#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""zbig and Python write to one database in turn, a hundred random transactions; then each of them
reads every volume at every tid, and finds what a model says.

    alternating_test.py py3|py2 [SEED]
"""
import os
import random
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)),
                os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support")]
from model import Model, Volume, patch  # noqa: E402
from peer import Peer  # noqa: E402
from zbigtest import MiB, Report, Scratch, zbig, zbig_ok  # noqa: E402

TRANSACTIONS = 100


def random_write(rng, volume):
    """(offset, data) that fits."""
    size = min(rng.choice([1, 10, 4096, 10000, 3 * volume.blksize // 2]), volume.room(), 300000)
    offset = rng.randrange(volume.room() - size + 1)
    data = patch(rng, size)
    if rng.random() < 0.1:  # the same bytes again
        data = bytes(volume.content[offset:offset + size])
    return offset, data or b"\0"


def zbig_step(rng, url, model, step):
    volume = rng.choice(list(model.volumes.values()))
    offset, data = random_write(rng, volume)
    fmt = rng.choice(["ZBlk0", "ZBlk1", "auto"])
    said = zbig_ok("import", url, volume.path, "-", "--offset", offset, "--format", fmt,
                   "-m", "step %d by zbig" % step, "--user", "zbig", stdin=data).text.strip()
    if said == "nothing changed":
        assert volume.content[offset:offset + len(data)] == data, (volume.path, offset, len(data))
        return
    # Zeros into a hole are a change, too: peers see the block.
    volume.write(offset, data)
    model.committed(said)


def python_step(rng, url, model, peer, step):
    volume = rng.choice(list(model.volumes.values()))
    message = {"message": "step %d by Python" % step, "user": "python"}
    if volume.fixed and peer.mapping and rng.random() < 0.7:
        offset, data = random_write(rng, volume)
        if volume.content[offset:offset + len(data)] == data:
            return
        tid = peer("mapped", url=url, path=volume.path, offset=offset, data=data.hex(), **message)
        volume.write(offset, data)
        model.committed(tid)
        return
    # One format: wendelin.core 0.13 fails on a block that is converted twice in a transaction.
    writes, fmt = [], rng.choice(["ZBlk0", "ZBlk1"])
    for _ in range(rng.randint(1, 3)):
        offset, data = random_write(rng, volume)
        volume.write(offset, data)
        writes.append([volume.path, offset, data.hex(), fmt])
    tid = peer("write", url=url, writes=writes, **message)
    model.committed(tid)


def main():
    environment = sys.argv[1]
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print("seed", seed, flush=True)
    rng, report = random.Random(seed), Report()
    with Scratch() as folder, Peer(environment) as peer:
        peer.mapping = peer.maps()
        url = os.path.join(folder, "Data.fs")
        size = 4 * MiB + 4096
        tid = peer("create", url=url, path="/array", dtype="<u8", shape=[size // 8])
        zbig_ok("create", url, "/site/small", "--raw", "--block-size", 1000)
        zbig_ok("create", url, "/raw", "--raw", "--block-size", 4096)
        model = Model([Volume("/array", 2 * MiB, size), Volume("/site/small", 1000),
                       Volume("/raw", 4096)])
        for step in range(TRANSACTIONS):
            if step % 2 == 0:
                zbig_step(rng, url, model, step)
            else:
                python_step(rng, url, model, peer, step)
        report.true("transactions", len(model.states) > TRANSACTIONS // 2, len(model.states))
        model.compare_zbig(report, url)
        model.compare_python(report, url, peer)
        check = zbig("check", url)
        report.true("zbig check", check.status == 0, check)
        log = {t["tid"]: t for t in zbig_ok("log", url, "--json").json()}
        missing = [t for t in model.states if t not in log]
        report.equal("tids that the log lacks", missing, [])
        users = {t["user"].split()[-1] for t in log.values() if t["user"]}
        report.equal("users in the log", users, {"zbig", "python"})
        del tid
    report.done()


if __name__ == "__main__":
    main()
