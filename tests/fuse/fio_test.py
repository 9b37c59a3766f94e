#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""fio writes at random and verifies what it reads back, by mapping, by read(2) and write(2), and
past the page cache, while another process invalidates pages all the time.
"""
import random
import subprocess
import threading

from fusetest import PAGE, Front, MiB, Report, Scratch, disk, require

require("fio")
report = Report()
SIZE = 32 * MiB

with Scratch() as folder, disk(folder, SIZE) as backend, Front(folder, backend.uri) as front:
    for engine, more in (("mmap", []), ("sync", []), ("psync", ["--direct=1"]),
                         ("libaio", ["--direct=1", "--iodepth=16"])):
        stop = threading.Event()

        def disturb():
            chance = random.Random(2)
            while not stop.is_set():
                front.invalidate(*[[chance.randrange(SIZE // PAGE) * PAGE, PAGE]
                                   for _ in range(50)])
        disturber = threading.Thread(target=disturb)
        disturber.start()
        done = subprocess.run(
            ["fio", "--name=verify", "--filename=" + front.path, "--size=%d" % SIZE,
             "--rw=randwrite",
             "--bs=4k", "--verify_backlog=512", "--ioengine=" + engine, "--verify=crc32c",
             "--verify_fatal=1", "--do_verify=1", "--randseed=7", "--loops=1",
             "--output-format=terse", "--allow_file_create=0", *more],
            cwd=folder, capture_output=True, text=True, check=False, timeout=200)
        stop.set()
        disturber.join()
        report.equal("fio, %s %s: %s" % (engine, more, done.stderr), done.returncode, 0)
    front.ok("sync")
    with open(front.path, "rb") as device, open(folder + "/disk", "rb") as image:
        report.true("the server has what the device shows", device.read() == image.read())
report.done()
