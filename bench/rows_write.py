# SPDX-License-Identifier: BSD-3-Clause
"""W1 to W5 and F1: from dirty overlay to commit acknowledged, against ZODB and wendelin.core."""
import json
import os
import random
import socket
import statistics
import threading
import time

import nbd

from harness import MIB, PLUGIN, ZBIG, Agent, Nbdkit, interleave, settle, sh

BLOCK = 2 * MIB


def connect(uri):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


def fresh(lab, name):
    """A path in the lab where no database is."""
    path = lab.path(name)
    for suffix in '', '.index', '.lock', '.tmp':
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    return path


def commit_after_fill(lab, agent, fmt, mib):
    """Seconds to commit `mib` MiB of random bytes, all dirty, into an empty volume."""
    url = fresh(lab, 'commit.fs')
    sh(ZBIG, 'create', url, '/A', '--size', '%dM' % mib)
    uri = agent.attach(url, '/A', 'bench', '--format', fmt)
    sh('nbdcopy', '--flush', lab.random_file(mib), uri)
    settle()
    start = time.perf_counter()
    agent.commit('bench')
    took = time.perf_counter() - start
    agent.zbig('detach', 'bench')
    return took


def commit_whole(lab, report, row, fmt, peers):
    """`peers`: (name, verb of peer.py, target in speed)"""
    mib = 64 if lab.quick else 256
    env = {'WENDELIN_CORE_ZBLK_FMT': fmt}

    def peer(verb):
        return lambda: mib / lab.peer(verb, fresh(lab, 'peer.fs'), mib, env=env)['seconds']

    with Agent(lab.folder) as agent:
        speeds = interleave(lab.times, zbig=lambda: mib / commit_after_fill(lab, agent, fmt, mib),
                            **{verb: peer(verb) for _, verb, _ in peers})
    for name, verb, target in peers:
        report.ratio(row, 'commit %d MiB of random bytes, %s' % (mib, fmt), name, speeds['zbig'],
                     speeds[verb], 'MiB/s', target)


def commit_zblk0(lab, report):
    commit_whole(lab, report, 'W1', 'ZBlk0', [('FileStorage alone', 'filestorage', 1.0),
                                              ('wendelin.core', 'commit', 1.5)])


def commit_zblk1(lab, report):
    commit_whole(lab, report, 'W2', 'ZBlk1', [('wendelin.core', 'commit', 5.0)])


def filled(lab, name, fmt, mib):
    """A database of its own with /A of `mib` MiB random bytes, written by wendelin.core."""
    path = fresh(lab, name)
    lab.peer('commit', path, mib, env={'WENDELIN_CORE_ZBLK_FMT': fmt})
    return path


def one_byte_in_blocks(agent, url, fmt, mib, count):
    """One byte changed in each of `count` random blocks and committed: seconds, bytes of growth."""
    uri = agent.attach(url, '/A', 'bench', '--format', fmt)
    handle, before = connect(uri), os.path.getsize(url)
    for block in random.Random(1).sample(range(mib * MIB // BLOCK), count):
        at = block * BLOCK + 12345
        handle.pwrite(bytes([handle.pread(1, at)[0] ^ 0x5a]), at)
    settle()     # the last detach wrote an index, of 90 MB where there are ten million objects
    start = time.perf_counter()
    agent.commit('bench')
    took = time.perf_counter() - start
    handle.shutdown()
    agent.zbig('detach', 'bench')
    return took, os.path.getsize(url) - before


def one_byte_in_100_blocks(lab, report):
    mib = 256 if not lab.quick else 64
    count = 100 if not lab.quick else 20
    for fmt in 'ZBlk1', 'ZBlk0':
        ours = filled(lab, 'ours.fs', fmt, mib)
        theirs = filled(lab, 'theirs.fs', fmt, mib)

        def peer():
            result = lab.peer('patch', theirs, count, env={'WENDELIN_CORE_ZBLK_FMT': fmt})
            return result['seconds'], result['growth']

        with Agent(lab.folder) as agent:
            both = interleave(lab.times,
                              zbig=lambda: one_byte_in_blocks(agent, ours, fmt, mib, count),
                              peer=peer)
        work = '1 byte in each of %d blocks, %s' % (count, fmt)
        seconds, growth = ([[figures[i] for figures in both[who]] for who in ('zbig', 'peer')]
                           for i in (0, 1))
        report.ratio('W3', work + ': time', 'wendelin.core', *seconds, 's',
                     1 / 50 if fmt == 'ZBlk1' else 1.0, higher_is_better=False)
        report.ratio('W3', work + ': growth', 'wendelin.core', *growth, 'bytes', 1.05,
                     higher_is_better=False)


def page_commit(agent, handle, device, mib, where=random.Random(2)):
    """Seconds to commit one random page of a device's `mib` MiB that was written to."""
    handle.pwrite(os.urandom(4096), where.randrange(mib * MIB // 4096) * 4096)
    start = time.perf_counter()
    agent.commit(device)
    return time.perf_counter() - start


def one_page(lab, report):
    mib, times = 64, 20 if lab.quick else 200
    for fmt in 'ZBlk1', 'ZBlk0':
        ours = filled(lab, 'ours.fs', fmt, mib)
        theirs = filled(lab, 'theirs.fs', fmt, mib)
        took, syncs, floors = [], [], []
        with Agent(lab.folder) as agent:
            handle = connect(agent.attach(ours, '/A', 'bench', '--format', fmt))
            settle()
            for i in range(times):
                took.append(page_commit(agent, handle, 'bench', mib))
                if i % 50 == 0:
                    syncs.append(lab.fdatasync())
                    floors.append(statistics.median(lab.appended_commits([4344] * 50)))
            handle.shutdown()
        peer = lab.peer('pages', theirs, times, env={'WENDELIN_CORE_ZBLK_FMT': fmt})['seconds']
        work = 'one page changed and committed, %s' % fmt
        ours_ms = [statistics.median(took) * 1e3]
        report.ratio('W4', work, 'wendelin.core', ours_ms, [statistics.median(peer) * 1e3], 'ms',
                     0.5, higher_is_better=False)
        if fmt == 'ZBlk1':
            report.ratio('W4', work, 'a 4 KiB fdatasync', ours_ms,
                         [statistics.median(syncs) * 1e3], 'ms', 6, higher_is_better=False)
            report.ratio('W4', work, '4 KiB appended, the two syncs of a commit', ours_ms,
                         [statistics.median(floors) * 1e3], 'ms', None)


def appends(lab, report):
    times = 50 if lab.quick else 500
    for fmt in 'ZBlk0', 'ZBlk1', 'auto':
        url = fresh(lab, 'ours.fs')
        sh(ZBIG, 'create', url, '/A', '--size', str(times * 4096))
        before, took = os.path.getsize(url), []
        with Agent(lab.folder) as agent:
            handle = connect(agent.attach(url, '/A', 'bench', '--format', fmt))
            settle()
            for i in range(times):
                handle.pwrite(os.urandom(4096), i * 4096)
                start = time.perf_counter()
                agent.commit('bench')
                took.append(time.perf_counter() - start)
            handle.shutdown()
        growth = os.path.getsize(url) - before
        # `auto` is in no release of wendelin.core; its algorithm keeps such a block ZBlk1.
        peer_fmt = 'ZBlk1' if fmt == 'auto' else fmt
        peer = lab.peer('appends', fresh(lab, 'theirs.fs'), times,
                        env={'WENDELIN_CORE_ZBLK_FMT': peer_fmt})
        settle()
        floor = lab.appended_commits([(i + 1) * 4096 if fmt == 'ZBlk0' else growth // times
                                      for i in range(times)])
        name = 'wendelin.core' + (' (ZBlk1)' if fmt == 'auto' else '')
        work = '%d appends of 4 KiB, a commit each, %s' % (times, fmt)
        report.ratio('W5', work + ': growth', name, [growth], [peer['growth']], 'bytes', 1.05,
                     higher_is_better=False)
        report.ratio('W5', work + ': time', name, [sum(took)], [sum(peer['seconds'])], 's', 0.1,
                     higher_is_better=False)
        report.ratio('W5', work + ': time', 'as many bytes appended, two syncs each', [sum(took)],
                     [sum(floor)], 's', None, higher_is_better=False)


class SteadyWriter(threading.Thread):
    """Writes one page after the other; remembers the longest that one took while armed."""

    def __init__(self, uri):
        super().__init__()
        self.handle, self.worst, self.armed, self.stop = connect(uri), 0.0, False, False

    def run(self):
        page, i = os.urandom(4096), 0
        while not self.stop:
            start = time.perf_counter()
            self.handle.pwrite(page, i % 256 * 4096)
            took = time.perf_counter() - start
            if self.armed:
                self.worst = max(self.worst, took)
            i += 1
            time.sleep(0.0002)
        self.handle.shutdown()


class Control:
    """The control socket of a server; docs/control-protocol.md."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile('r')

    def ask(self, op, **fields):
        self.socket.sendall(json.dumps(dict(fields, op=op)).encode() + b'\n')
        answer = json.loads(self.lines.readline())
        if not answer['ok']:
            raise RuntimeError('%s: %s' % (op, answer['error']))
        return answer


def freeze(lab, report):
    """How long a snapshot takes, and the longest that a writer of pages is held up by it."""
    for mib in 1, 128 if lab.quick else 1024:
        url = fresh(lab, 'freeze.fs')
        sh(ZBIG, 'create', url, '/A', '--size', '%dM' % max(mib, 2))
        control_path = lab.path('control.sock')
        with Nbdkit(lab.folder, 'zbig', PLUGIN, url, 'control=' + control_path) as server:
            control = Control(control_path)
            control.ask('attach', device='bench', export='/A', volume='/A', at='head', size=0,
                        read_only=False, overlay=lab.path('overlay-%d' % mib))
            sh('nbdcopy', lab.random_file(mib), server.uri('/A'))
            writer = SteadyWriter(server.uri('/A'))
            writer.start()
            snapshots, longest = [], []
            for _ in range(lab.times * 4):
                time.sleep(0.1)
                writer.worst, writer.armed = 0.0, True
                start = time.perf_counter()
                control.ask('freeze', device='bench')
                snapshots.append((time.perf_counter() - start) * 1e3)
                time.sleep(0.02)
                writer.armed = False
                longest.append(writer.worst * 1e3)
                control.ask('unfreeze', device='bench')
            writer.stop = True
            writer.join()
            control.ask('detach', device='bench', discard=True)
        for what, figures in (('snapshot of %d MiB dirty', snapshots),
                              ('longest write around it, %d MiB dirty', longest)):
            report.ratio('F1', what % mib, 'limit 10 ms', figures, [10.0] * len(figures), 'ms', 1.0,
                         higher_is_better=False)
