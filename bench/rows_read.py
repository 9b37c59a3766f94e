# SPDX-License-Identifier: BSD-3-Clause
"""R1 to R3: reading over NBD, against nbdkit's file plugin on the same bytes."""
import json
import os

from harness import MIB, PLUGIN, Nbdkit, interleave, sh, timed


def servers(lab, fmt, mib):
    """Both servers, each with the same bytes, on sockets of the same kind."""
    url = lab.database(fmt, mib)
    return (Nbdkit(lab.folder, 'zbig', PLUGIN, url),
            Nbdkit(lab.folder, 'file', 'file', lab.random_file(mib)))


def copy_speed(uri, mib):
    return mib / timed(lambda: sh('nbdcopy', uri, 'null:'))


def sequential(lab, report, row, fmt, target):
    mib = 128 if lab.quick else 512
    zbig, plain = servers(lab, fmt, mib)
    with zbig, plain:
        speeds = interleave(lab.times,
                            zbig=lambda: copy_speed(zbig.uri('/A'), mib),
                            file=lambda: copy_speed(plain.uri(), mib))
    report.ratio(row, 'sequential read, %d MiB, %s' % (mib, fmt), 'nbdkit file',
                 speeds['zbig'], speeds['file'], 'MiB/s', target)


def sequential_zblk0(lab, report):
    sequential(lab, report, 'R1', 'ZBlk0', 0.9)


def sequential_zblk1(lab, report):
    sequential(lab, report, 'R2', 'ZBlk1', 0.7)
    sequential(lab, report, 'R2', 'auto', 0.7)


def fio_iops(lab, uri, depth):
    out = lab.path('fio.json')
    sh('fio', '--name=r', '--ioengine=nbd', '--uri=' + uri, '--rw=randread', '--bs=4k',
       '--iodepth=%d' % depth, '--time_based', '--runtime=%d' % (1 if lab.quick else 3),
       '--output-format=json', '--output=' + out)
    with open(out) as result:
        figures = json.load(result)
    os.unlink(out)
    return figures['jobs'][0]['read']['iops']


def random_4k(lab, report):
    mib = 128 if lab.quick else 512
    for fmt in 'ZBlk0', 'ZBlk1':
        zbig, plain = servers(lab, fmt, mib)
        with zbig, plain:
            for depth in 1, 16:
                iops = interleave(lab.times,
                                  zbig=lambda: fio_iops(lab, zbig.uri('/A'), depth),
                                  file=lambda: fio_iops(lab, plain.uri(), depth))
                report.ratio('R3', 'random 4 KiB reads, depth %d, %s' % (depth, fmt), 'nbdkit file',
                             iops['zbig'], iops['file'], 'IOPS', 0.9)
