# SPDX-License-Identifier: BSD-3-Clause
"""R3, W3 and W4 where there is more in the database that they have nothing to do with.

Cost must grow as the work grows and not faster. So the same work is done in a volume of ten times
the size, and beside ten million other objects, each in turn with the same in a small database: the
peer is zbig itself, and the ratio should be near 1. (A1 is about the number of objects already.)
"""
import os
import statistics

from harness import MIB, PEERS, PLUGIN, TOP, ZBIG, Agent, Nbdkit, interleave, settle, sh
from rows_read import fio_iops
from rows_write import connect, one_byte_in_blocks, page_commit

SMALL = 'a database of a tenth'
FEWER = 'without the others'


def volume(lab, fmt, mib, times=1, others=0):
    """A database with /A of `mib` MiB, `times` times one after the other, and other objects."""
    key = (fmt, mib, times, others)
    if key in lab.databases:
        return lab.databases[key]
    path = lab.path('%s-%dx%d-%d.fs' % (fmt, times, mib, others))
    sh(ZBIG, 'create', path, '/A', '--size', '%dM' % (mib * times))
    for i in range(times):
        sh(ZBIG, 'import', path, '/A', lab.random_file(mib), '--format', fmt,
           '--offset', str(i * mib * MIB))
    if others:
        sh(os.path.join(PEERS, 'py3', 'bin', 'python'), '-B',
           os.path.join(TOP, 'bench', 'big_database.py'), path, str(others))
    lab.databases[key] = path
    return path


def cases(lab, fmt):
    """(what is larger, the peer, the larger database with its MiB, the small one with its)"""
    mib, others = (64, 10**5) if lab.quick else (256, 10**7)
    small = volume(lab, fmt, mib), mib
    yield '10 times the size', SMALL, (volume(lab, fmt, mib, times=10), 10 * mib), small
    yield '%.0e other objects' % others, FEWER, (volume(lab, fmt, mib, others=others), mib), small


def random_4k(lab, report):
    for fmt in 'ZBlk0', 'ZBlk1':
        for what, peer, (large, _), (small, _) in cases(lab, fmt):
            with Nbdkit(lab.folder, 'large', PLUGIN, large) as one, \
                    Nbdkit(lab.folder, 'small', PLUGIN, small) as other:
                for server in one, other:     # the page cache is warm, and so are ours
                    sh('nbdcopy', server.uri('/A'), 'null:')
                for depth in 1, 16:
                    iops = interleave(lab.times,
                                      large=lambda: fio_iops(lab, one.uri('/A'), depth),
                                      small=lambda: fio_iops(lab, other.uri('/A'), depth))
                    work = 'random 4 KiB reads, depth %d, %s: %s' % (depth, fmt, what)
                    report.ratio('G-R3', work, peer, iops['large'], iops['small'], 'IOPS', 0.8)


def one_byte_in_100_blocks(lab, report):
    count = 20 if lab.quick else 100
    for what, peer, large, small in cases(lab, 'ZBlk1'):
        with Agent(lab.folder) as agent:
            both = interleave(
                lab.times,
                large=lambda: one_byte_in_blocks(agent, large[0], 'ZBlk1', large[1], count),
                small=lambda: one_byte_in_blocks(agent, small[0], 'ZBlk1', small[1], count))
        work = '1 byte in each of %d blocks, ZBlk1: %s' % (count, what)
        for i, (figure, unit) in enumerate((('time', 's'), ('growth', 'bytes'))):
            report.ratio('G-W3', '%s: %s' % (work, figure), peer, [f[i] for f in both['large']],
                         [f[i] for f in both['small']], unit, 1.25 if i == 0 else 1.05,
                         higher_is_better=False)


def one_page(lab, report):
    times = 20 if lab.quick else 200
    for what, peer, large, small in cases(lab, 'ZBlk1'):
        with Agent(lab.folder) as agent:
            handles = [connect(agent.attach(path, '/A', name, '--format', 'ZBlk1'))
                       for name, (path, _) in (('large', large), ('small', small))]
            settle()
            both = interleave(times,
                              large=lambda: page_commit(agent, handles[0], 'large', large[1]),
                              small=lambda: page_commit(agent, handles[1], 'small', small[1]))
            for handle in handles:
                handle.shutdown()
        report.ratio('G-W4', 'one page changed and committed, ZBlk1: ' + what, peer,
                     [statistics.median(both['large']) * 1e3],
                     [statistics.median(both['small']) * 1e3], 'ms', 1.25, higher_is_better=False)
