# SPDX-License-Identifier: BSD-3-Clause
"""Z1 to Z6: databases of a ZEO server, against wendelin.core over ZEO's own client in Python.

Both talk to the same server (ZEO 6, over TCP on this machine), which has the database in memory.
"Cold" means that the client has nothing of it: a fresh server of zbig's, a fresh program in Python.
"""
import os
import random
import re
import select
import statistics
import subprocess
import sys
import time

import nbd

from harness import MIB, PLUGIN, TOP, Agent, Nbdkit, Process, interleave, settle, sh, timed
from rows_mapped import BLOCK, PAGE, Mapping

sys.path.insert(0, os.path.join(TOP, 'tests', 'support'))
from zeoserver import ZeoServer  # noqa: E402

FORMATS = 'ZBlk0', 'ZBlk1'
DELAY = 5


def served(lab, fmt, mib):
    """A ZEO server of a database of its own with /A of `mib` MiB of random bytes."""
    folder = lab.path('zeo-%s-%d' % (fmt, mib))
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(folder + '/Data.fs'):
        os.link(lab.database(fmt, mib), folder + '/Data.fs')
    return ZeoServer(folder, conf='msgpack true')


def cold_copy(lab, url, mib):
    with Nbdkit(lab.folder, 'zeo', PLUGIN, url) as server:
        nbd.NBD().connect_uri(server.uri('/A'))     # connected, and the catalogue read
        return mib / timed(lambda: sh('nbdcopy', server.uri('/A'), 'null:'))


def sequential(lab, report):
    mib = 64 if lab.quick else 256
    for fmt in FORMATS:
        with served(lab, fmt, mib) as server:
            speeds = interleave(lab.times, zbig=lambda: cold_copy(lab, server.url, mib),
                                peer=lambda: mib / lab.peer('read', server.url)['seconds'][0])
        report.ratio('Z1', 'sequential read over ZEO, cold, %d MiB, %s' % (mib, fmt),
                     'wendelin.core', speeds['zbig'], speeds['peer'], 'MiB/s', 3)


def again(lab, report):
    """The second read, which asks the server nothing."""
    mib = 64 if lab.quick else 256
    for fmt in FORMATS:
        with served(lab, fmt, mib) as server, Agent(lab.folder) as agent:
            agent.names.append('again')
            path = agent.zbig('attach', server.url, '/A', '--name', 'again', '--read-only',
                              '--fuse', lab.path('again')).strip()

            def zbig():
                with Mapping(path) as mapping:
                    mapping.read_all()
                    return mib / timed(mapping.read_all)

            speeds = interleave(lab.times, zbig=zbig,
                                peer=lambda: mib / lab.peer('read', server.url)['seconds'][1])
        report.ratio('Z2', 'second read through a mapping over ZEO, %d MiB, %s' % (mib, fmt),
                     'wendelin.core', speeds['zbig'], speeds['peer'], 'MiB/s', None)


def first_touch(lab, report):
    mib, count = 128, 30
    for fmt in FORMATS:
        with served(lab, fmt, mib) as server:
            def zbig():
                with Nbdkit(lab.folder, 'zeo', PLUGIN, server.url) as plugin:
                    handle = nbd.NBD()
                    handle.connect_uri(plugin.uri('/A'))
                    where = random.Random(3)
                    took = [timed(lambda: handle.pread(PAGE, block * BLOCK))
                            for block in where.sample(range(mib * MIB // BLOCK), count)]
                    handle.shutdown()
                    return 1000 * statistics.median(took)

            took = interleave(
                lab.times, zbig=zbig,
                peer=lambda: 1000 * statistics.median(
                    lab.peer('touch', server.url, count)['seconds']))
        report.ratio('Z3', 'first read in a random block over ZEO, %s' % fmt, 'wendelin.core',
                     took['zbig'], took['peer'], 'ms', 0.5, higher_is_better=False)


def one_page(lab, report):
    mib, times = 64, 20 if lab.quick else 100
    for fmt in FORMATS:
        folder = lab.path('zeo-pages-' + fmt)
        os.makedirs(folder)
        with ZeoServer(folder, conf='msgpack true') as server:
            lab.peer('commit', server.url, mib, env={'WENDELIN_CORE_ZBLK_FMT': fmt})
            ours, where = [], random.Random(2)
            with Agent(lab.folder) as agent:
                handle = nbd.NBD()
                handle.connect_uri(agent.attach(server.url, '/A', 'bench', '--format', fmt))
                settle()
                for _ in range(times):
                    handle.pwrite(os.urandom(PAGE), where.randrange(mib * MIB // PAGE) * PAGE)
                    start = time.perf_counter()
                    agent.commit('bench')
                    ours.append(1000 * (time.perf_counter() - start))
                handle.shutdown()
            theirs = lab.peer('pages', server.url, times, env={'WENDELIN_CORE_ZBLK_FMT': fmt})
        report.ratio('Z4', 'one page changed and committed over ZEO, %s' % fmt, 'wendelin.core',
                     [statistics.median(ours)], [1000 * statistics.median(theirs['seconds'])],
                     'ms', 0.5, higher_is_better=False)


class Link(Process):
    """delay_proxy.py in front of a server; its URL."""

    def __init__(self, url, milliseconds):
        address = re.match('zeo://([^?]+)', url).group(1)
        super().__init__([sys.executable, os.path.join(TOP, 'bench', 'delay_proxy.py'), address,
                          str(milliseconds)], stdout=subprocess.PIPE)
        if not select.select([self.child.stdout], [], [], 20)[0]:
            raise RuntimeError('the delaying proxy did not start')
        self.url = url.replace(address, '127.0.0.1:%d' % int(self.child.stdout.readline()))


def far_away(lab, report):
    """What is under way must fill the link: then a delay costs a sequential read nothing."""
    mib = 128 if lab.quick else 256
    for fmt in FORMATS:
        with served(lab, fmt, mib) as server, Link(server.url, 0) as near, \
                Link(server.url, DELAY) as far:
            speeds = interleave(lab.times, far=lambda: cold_copy(lab, far.url, mib),
                                near=lambda: cold_copy(lab, near.url, mib))
        report.ratio('Z5', 'cold sequential read over a link of %d ms, %s' % (DELAY, fmt),
                     'the same link without delay', speeds['far'], speeds['near'], 'MiB/s', 0.8)


def freshness(lab, report):
    """From when Python's commit has returned to the byte in a mapping of zbig's."""
    mib, times = 16, 50 if lab.quick else 200
    for fmt in FORMATS:
        folder = lab.path('zeo-fresh-' + fmt)
        os.makedirs(folder)
        with ZeoServer(folder, conf='msgpack true') as server, Agent(lab.folder) as agent:
            lab.peer('commit', server.url, mib, env={'WENDELIN_CORE_ZBLK_FMT': fmt})
            agent.names.append('fresh')
            path = agent.zbig('attach', server.url, '/A', '--name', 'fresh', '--read-only',
                              '--fuse', lab.path('fresh')).strip()
            seen = []
            with Mapping(path) as mapping, lab.peer_started(
                    'marks', server.url, times, env={'WENDELIN_CORE_ZBLK_FMT': fmt}) as marks:
                for number in range(1, times + 1):
                    wanted, end = number.to_bytes(8, 'little'), time.monotonic() + 30
                    while mapping.map[BLOCK:BLOCK + 8] != wanted:
                        if time.monotonic() > end:
                            raise RuntimeError('the mapping stays stale')
                        time.sleep(0.0001)
                    seen.append(time.monotonic())
                committed = marks.result()['committed']
        took = [1000 * max(0.0, at - since) for at, since in zip(seen, committed)]
        median = statistics.median(took)
        report.add('Z6', 'commit by Python over ZEO to fresh mapped byte, %s, median' % fmt,
                   'limit', '%.3g ms' % median, '10 ms', '%.3g' % (median / 10), '<= 1',
                   median <= 10)
