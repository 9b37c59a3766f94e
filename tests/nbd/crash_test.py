#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""kill -9 of the server at random moments, while clients write and the agent freezes and unfreezes:
every write that was answered is there after the restart, and is dirty.
"""
import random
import threading
import time

from nbdtest import PAGE, Report, Scratch, Server, database, nbd

report = Report()
PAGES = 256
ROUNDS = 12


def main():
    rng = random.Random(3)
    with Scratch() as folder, Server(folder, database(folder)) as server:
        server.attach("d", "/a", "/a")
        clean = server.read("/a", 0, PAGES * PAGE)
        # For each page the last number that was answered, and those that may be there besides.
        answered, possible = {}, {}

        def write(first, count, start):
            try:
                handle = server.connect("/a")
                number = start
                while True:
                    number += 1
                    page = first + number * 7 % count
                    possible[page] = number
                    handle.pwrite(number.to_bytes(8, "big") * 512, page * PAGE)
                    answered[page] = number
            except nbd.Error:
                pass

        for round_ in range(ROUNDS):
            threads = [threading.Thread(target=write, args=(n * 64, 64, 1000000 * round_))
                       for n in range(4)]
            for thread in threads:
                thread.start()
            until = time.monotonic() + rng.uniform(0.02, 0.3)
            while time.monotonic() < until:
                server.ok("freeze", device="d")
                time.sleep(rng.uniform(0, 0.01))
                if round_ % 2 == 1 and time.monotonic() > until - 0.05:
                    time.sleep(0.05)  # killed while frozen, with writes on top
                    break
                server.ok("unfreeze", device="d")
            server.kill()
            for thread in threads:
                thread.join()
            server.start()
            reply = server.attach("d", "/a", "/a")
            report.true("dirty bytes in round %d" % round_,
                        len(answered) * PAGE <= reply["dirty_bytes"] <= len(possible) * PAGE,
                        (reply, len(answered), len(possible)))
            shown = server.read("/a", 0, PAGES * PAGE)
            for page in range(PAGES):
                bytes_ = shown[page * PAGE:(page + 1) * PAGE]
                number = int.from_bytes(bytes_[:8], "big")
                if page not in answered and bytes_ == clean[page * PAGE:(page + 1) * PAGE]:
                    continue
                report.true("page %d in round %d is whole" % (page, round_),
                            bytes_ == number.to_bytes(8, "big") * 512)
                report.true("page %d in round %d is not older than what was answered" %
                            (page, round_), number in (answered.get(page), possible.get(page)),
                            (number, answered.get(page), possible.get(page)))
                answered[page] = possible[page] = number
        server.ok("detach", device="d", discard=True)
    report.done()


if __name__ == "__main__":
    main()
