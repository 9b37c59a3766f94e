# SPDX-License-Identifier: BSD-3-Clause
"""M1 and D1: memory of the server and of the agent, size of the database."""
import os

from harness import MIB, PLUGIN, ZBIG, Agent, Nbdkit, sh
from rows_write import fresh


def memory(lab, report):
    mib = 128 if lab.quick else 1024
    for fmt in 'ZBlk0', 'ZBlk1':
        url = lab.database(fmt, mib)
        with Nbdkit(lab.folder, 'zbig', PLUGIN, url) as server:
            sh('nbdcopy', server.uri('/A'), 'null:')
            peak = server.memory('VmHWM') / 1024
        report.add('M1', 'server after reading %d MiB, %s' % (mib, fmt), 'limit 48 MiB',
                   '%.4g MiB' % peak, '48 MiB', '%.3g' % (peak / 48), '<= 1', peak <= 48)
    mib = 256 if lab.quick else 4096
    url = fresh(lab, 'big.fs')
    sh(ZBIG, 'create', url, '/A', '--size', '%dM' % mib)
    with Agent(lab.folder) as agent:
        uri = agent.attach(url, '/A', 'bench')
        sh('nbdcopy', lab.random_file(mib), uri)
        agent.commit('bench')
        peak = agent.memory('VmHWM') / 1024
        agent.zbig('detach', 'bench')
    report.add('M1', 'agent after committing %d MiB' % mib, 'limit 256 MiB', '%.4g MiB' % peak,
               '256 MiB', '%.3g' % (peak / 256), '<= 1', peak <= 256)
    for path in url, lab.path('random-%d' % mib):
        os.unlink(path)


def content(lab, kind):
    """A file of 64 MiB: `zeros`, `heads` (each 2 MiB block a 10 % head), `random`."""
    path = lab.path('content-' + kind)
    with open(path, 'wb') as out:
        for _ in range(32):
            length = {'zeros': 0, 'heads': 2 * MIB // 10, 'random': 2 * MIB}[kind]
            out.write(os.urandom(length) + bytes(2 * MIB - length))
    return path


def database_size(lab, report):
    for fmt in 'ZBlk0', 'ZBlk1':
        for kind in 'zeros', 'heads', 'random':
            url = fresh(lab, 'ours.fs')
            sh(ZBIG, 'create', url, '/A', '--size', '64M')
            before = os.path.getsize(url)
            sh(ZBIG, 'import', url, '/A', content(lab, kind), '--format', fmt)
            growth = os.path.getsize(url) - before
            peer = lab.peer('fill', fresh(lab, 'theirs.fs'), kind,
                            env={'WENDELIN_CORE_ZBLK_FMT': fmt})
            report.ratio('D1', '64 MiB of %s, %s' % (kind, fmt), 'wendelin.core', [growth],
                         [peer['growth']], 'bytes', 1.02, higher_is_better=False)
