# SPDX-License-Identifier: BSD-3-Clause
"""A1 and A2: from a database on disk to the first byte read, by its number of objects."""
import os
import time

from harness import PEERS, PLUGIN, TOP, ZBIG, Agent, interleave, sh
from rows_write import connect, fresh


def big_database(lab, objects):
    """A database with the volume /A and so many other objects, and a valid index."""
    path = lab.path('objects-%d.fs' % objects)
    if not os.path.exists(path):
        sh(ZBIG, 'create', path, '/A', '--size', '4M')
        sh(ZBIG, 'import', path, '/A', lab.random_file(4))
        sh(os.path.join(PEERS, 'py3', 'bin', 'python'), '-B',
           os.path.join(TOP, 'bench', 'big_database.py'), path, str(objects))
    return path


def attach_seconds(agent, path):
    """Seconds from `zbig attach` (which starts a server) to the first byte."""
    start = time.perf_counter()
    handle = connect(agent.attach(path, '/A', 'bench'))
    handle.pread(1, 12345)
    took = time.perf_counter() - start
    handle.shutdown()
    agent.zbig('detach', 'bench')
    return took


def counts(lab):
    return (10**4, 10**5) if lab.quick else (10**4, 10**6, 10**7)


def with_index(lab, report):
    for objects in counts(lab):
        path = big_database(lab, objects)
        with Agent(lab.folder) as agent:
            seconds = interleave(lab.times, zbig=lambda: attach_seconds(agent, path),
                                 peer=lambda: lab.peer('open', path)['seconds'])
        report.ratio('A1', 'attach, %d objects: limit 0.5 s' % objects, 'the limit',
                     seconds['zbig'], [0.5] * len(seconds['zbig']), 's', 1.0,
                     higher_is_better=False)
        report.ratio('A1', 'attach, %d objects' % objects, 'FileStorage() in Python',
                     seconds['zbig'], seconds['peer'], 's', None)


def without_index(lab, report):
    objects = counts(lab)[-1] // 10
    path = big_database(lab, objects)

    def forget_index(then):
        if os.path.exists(path + '.index'):
            os.unlink(path + '.index')
        return then()

    def zbig_info():
        start = time.perf_counter()
        sh(ZBIG, 'info', path, '/A')
        return time.perf_counter() - start

    seconds = interleave(lab.times, zbig=lambda: forget_index(zbig_info),
                         peer=lambda: forget_index(lambda: lab.peer('open', path)['seconds']))
    report.ratio('A2', 'open %d objects without an index' % objects, 'Python opens',
                 seconds['zbig'], seconds['peer'], 's', 1 / 20, higher_is_better=False)
