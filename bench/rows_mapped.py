# SPDX-License-Identifier: BSD-3-Clause
"""R4 to R6, I1, I2: programs that map a device, through FUSE.

"Cold" means that the kernel has no page of the device; what the server reads from disk is in memory
for all alike. Peers behind the same front end (zbig-fuse, over nbdkit's file plugin) tell what zbig
costs; nbdfuse tells what the front end does. WCFS (the server of wendelin.core's development
branch, in Go, on FUSE too) is in no package registry, so its figures are constants: one reading on
a noisy 2-core machine. They give the order of magnitude.
"""
import json
import mmap
import os
import random
import socket
import statistics
import subprocess
import time

from harness import BIN, MIB, Agent, Nbdkit, Process, interleave, timed

WCFS_READ = {'ZBlk0': 334, 'ZBlk1': 82}         # MiB/s, a whole file through a mapping, cold
WCFS_TOUCH = {'ZBlk0': 4.2, 'ZBlk1': 16}        # ms, first touch of a byte in a random block
WCFS_AGAIN = 5900                               # MiB/s, the second read through the mapping
WCFS_FRESH = {'ZBlk0': 7.5, 'ZBlk1': 22.7}      # ms, commit acknowledged to fresh elsewhere
BLOCK = 2 * MIB
PAGE = 4096


class Mapping:
    """A file as a program maps it that only reads."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self.fd).st_size
        self.map = mmap.mmap(self.fd, self.size, prot=mmap.PROT_READ)
        self.piece = memoryview(bytearray(128 << 10))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.map.close()
        os.close(self.fd)

    def read_all(self):
        with memoryview(self.map) as all_of_it:
            for at in range(0, self.size, len(self.piece)):
                part = all_of_it[at:at + len(self.piece)]
                self.piece[:len(part)] = part


def forget(path):
    """The kernel drops the pages of the file; no program may have them mapped."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def cold_speed(path):
    forget(path)
    with Mapping(path) as mapping:
        return mapping.size / MIB / timed(mapping.read_all)


def second_speed(path):
    with Mapping(path) as mapping:
        mapping.read_all()
        return mapping.size / MIB / timed(mapping.read_all)


def touches(path, offsets):
    """Mean milliseconds of the first touch of each."""
    forget(path)
    with Mapping(path) as mapping:
        return 1000 * statistics.mean(timed(lambda: mapping.map[at]) for at in offsets)


class Front(Process):
    """A program that makes an NBD export a file, mounted when this returns."""

    def __init__(self, path, args):
        self.path = path
        super().__init__(args, stderr=subprocess.DEVNULL)
        end = time.time() + 20
        while not os.path.exists(path) or os.stat(path).st_size == 0:
            if self.child.poll() is not None or time.time() > end:
                raise RuntimeError('%s did not start' % args[0])
            time.sleep(0.01)

    def __exit__(self, *args):
        subprocess.run(['fusermount3', '-uz', self.path], stderr=subprocess.DEVNULL)
        super().__exit__(*args)


class ZbigFuse(Front):
    def __init__(self, lab, name, uri):
        self.control = lab.path(name + '.control')
        super().__init__(lab.path(name), [os.path.join(BIN, 'zbig-fuse'), '--foreground',
                                          '--read-only', '--uri', uri, '--control', self.control,
                                          lab.path(name)])

    def connect(self):
        """To its control socket, which closes connections until the mount is complete."""
        end = time.time() + 20
        while True:
            control = socket.socket(socket.AF_UNIX)
            try:
                control.connect(self.control)
                replies = control.makefile('rb')
                control.sendall(b'{"op": "hello"}\n')
                if replies.readline():
                    return control, replies
            except OSError:
                if time.time() > end:
                    raise
            control.close()
            time.sleep(0.01)


class NbdFuse(Front):
    def __init__(self, lab, name, uri):
        open(lab.path(name), 'w').close()
        super().__init__(lab.path(name), ['nbdfuse', '-r', lab.path(name), uri])


class Fronts:
    """A volume of the agent, and the same bytes from nbdkit's file plugin in both front ends."""

    def __init__(self, lab, fmt, mib):
        self.plain = lab.random_file(mib)
        self.parts = [Agent(lab.folder), Nbdkit(lab.folder, 'file', 'file', self.plain)]
        agent, server = self.parts
        agent.names.append('mapped')
        self.zbig = agent.zbig('attach', lab.database(fmt, mib), '/A', '--name', 'mapped',
                               '--read-only', '--fuse', lab.path('mapped')).strip()
        self.parts.append(ZbigFuse(lab, 'same-front-end', server.uri()))
        self.same = self.parts[-1].path
        self.parts.append(NbdFuse(lab, 'nbdfuse', server.uri()))
        self.nbdfuse = self.parts[-1].path

    def __enter__(self):
        return self

    def __exit__(self, *args):
        for part in reversed(self.parts):
            part.__exit__(*args)


def against_wcfs(report, row, work, figures, unit, other, target, higher_is_better):
    """zbig's figures beside a constant, which is no peer of the same run."""
    ratio = statistics.median(figures) / other
    met = ratio >= target if higher_is_better else ratio <= target
    report.add(row, work, 'WCFS (a constant)', '%.4g %s' % (statistics.median(figures), unit),
               '%g %s' % (other, unit), '%.3g' % ratio,
               ('>= %.3g' if higher_is_better else '<= %.3g') % target, met)


def whole_file(lab, report):
    mib = 128 if lab.quick else 512
    for fmt, times_wcfs in ('ZBlk0', 2.5), ('ZBlk1', 8):
        work = 'whole file through a mapping, cold, %d MiB, %s' % (mib, fmt)
        with Fronts(lab, fmt, mib) as fronts:
            speeds = interleave(lab.times,
                                zbig=lambda: cold_speed(fronts.zbig),
                                same=lambda: cold_speed(fronts.same),
                                nbdfuse=lambda: cold_speed(fronts.nbdfuse))
        report.ratio('R4', work, 'nbdkit file, same front end', speeds['zbig'], speeds['same'],
                     'MiB/s', 0.9)
        report.ratio('R4', work, 'nbdkit file, nbdfuse', speeds['zbig'], speeds['nbdfuse'],
                     'MiB/s', None)
        against_wcfs(report, 'R4', work, speeds['zbig'], 'MiB/s', WCFS_READ[fmt], times_wcfs, True)


def again(lab, report):
    mib = 128 if lab.quick else 512
    with Fronts(lab, 'ZBlk0', mib) as fronts:
        speeds = interleave(lab.times,
                            zbig=lambda: second_speed(fronts.zbig),
                            plain=lambda: second_speed(fronts.plain))
    report.ratio('R6', 'second read through the mapping, %d MiB' % mib, 'plain file',
                 speeds['zbig'], speeds['plain'], 'MiB/s', 0.9)
    against_wcfs(report, 'R6', 'second read through the mapping, %d MiB' % mib, speeds['zbig'],
                 'MiB/s', WCFS_AGAIN, 1, True)


def first_touch(lab, report):
    mib = 128 if lab.quick else 512
    dice = random.Random(4)
    # Around each of a few touches the kernel reads more; after 100 it has learnt not to.
    few = [at + dice.randrange(BLOCK) for at in range(0, mib * MIB, BLOCK)]
    dice.shuffle(few)
    few = few[:64]
    many = [dice.randrange(mib * MIB // PAGE) * PAGE for _ in range(1000)]
    for fmt, part_of_wcfs in ('ZBlk0', 1 / 10), ('ZBlk1', 1 / 30):
        work = 'first touch of a byte in each of 64 random blocks, %s' % fmt
        with Fronts(lab, fmt, mib) as fronts:
            for offsets, what in (few, work), (many, '1000 random pages through a mapping, ' + fmt):
                took = interleave(lab.times,
                                  zbig=lambda: touches(fronts.zbig, offsets),
                                  same=lambda: touches(fronts.same, offsets),
                                  nbdfuse=lambda: touches(fronts.nbdfuse, offsets))
                for peer, name in ('same', 'nbdkit file, same front end'), \
                        ('nbdfuse', 'nbdkit file, nbdfuse'):
                    report.ratio('R5', what, name, took['zbig'], took[peer], 'ms', None)
                if what == work:
                    against_wcfs(report, 'R5', work, took['zbig'], 'ms', WCFS_TOUCH[fmt],
                                 part_of_wcfs, False)
                    python = lab.peer('touch', lab.database(fmt, mib), 64)
                    report.ratio('R5', work, 'wendelin.core', took['zbig'],
                                 [1000 * statistics.mean(python['seconds'])] * lab.times, 'ms',
                                 None)


def percentile(figures, percent):
    return sorted(figures)[min(len(figures) - 1, len(figures) * percent // 100)]


def freshness(lab, report):
    """One program changes a page and commits; another has it mapped and looks all the time."""
    rounds = 50 if lab.quick else 300
    for fmt in 'ZBlk0', 'ZBlk1':
        url = lab.database(fmt, 64)
        with Agent(lab.folder) as agent:
            paths = {}
            for name in 'writer', 'watcher':
                agent.names.append(name)
                paths[name] = agent.zbig('attach', url, '/A', '--name', name, '--format', fmt,
                                         '--fuse', lab.path(name)).strip()
            from_ack, from_call = [], []
            fd = os.open(paths['writer'], os.O_WRONLY)
            with Mapping(paths['watcher']) as mapping:
                mapping.read_all()
                for number in range(1, rounds + 1):
                    place = random.randrange(mapping.size // PAGE) * PAGE
                    mark = number.to_bytes(8, 'little')
                    os.pwrite(fd, mark, place)
                    called = time.perf_counter()
                    agent.commit('writer')
                    acknowledged = time.perf_counter()
                    while mapping.map[place:place + 8] != mark:
                        if time.perf_counter() - acknowledged > 10:
                            raise RuntimeError('the mapping stays stale: %s' % agent.zbig('status'))
                    fresh = time.perf_counter()
                    from_ack.append(1000 * (fresh - acknowledged))
                    from_call.append(1000 * (fresh - called))
            os.close(fd)
        work = 'commit acknowledged to fresh in another mapping, %s' % fmt
        for what, figure, limit in (work + ', median', percentile(from_ack, 50), 2), \
                (work + ', p99', percentile(from_ack, 99), 20):
            report.add('I1', what, 'limit', '%.3g ms' % figure, '%g ms' % limit,
                       '%.3g' % (figure / limit), '<= 1', figure <= limit)
        against_wcfs(report, 'I1', work + ', median', from_ack, 'ms', WCFS_FRESH[fmt], 1, False)
        # The answer to a commit waits for the others' pages. What it takes in all, syncs included:
        for percent in 50, 99:
            report.add('I1', 'commit called to fresh in another mapping, %s, p%d' % (fmt, percent),
                       '', '%.3g ms' % percentile(from_call, percent), '', '', '', None)


def drop(lab, report):
    """Exact invalidation of mapped pages: the time of one request with so many extents."""
    mib = 128 if lab.quick else 512
    counts = (1, 100, 10000)
    took = {count: [] for count in counts}
    with Nbdkit(lab.folder, 'file', 'file', lab.random_file(mib)) as server, \
            ZbigFuse(lab, 'dropped', server.uri()) as front, Mapping(front.path) as mapping:
        control, replies = front.connect()
        for _ in range(lab.times):
            for count in counts:
                mapping.read_all()
                step = mib * MIB // count // PAGE * PAGE
                request = json.dumps({'op': 'invalidate',
                                      'extents': [[i * step, PAGE] for i in range(count)]})
                start = time.perf_counter()
                control.sendall(request.encode() + b'\n')
                reply = json.loads(replies.readline())
                took[count].append(1000 * (time.perf_counter() - start))
                if not reply['ok']:
                    raise RuntimeError('invalidate: %s' % reply)
    for count in counts:
        report.add('I2', 'mapped pages dropped: %d extents of 4 KiB' % count, '',
                   '%.3g ms' % statistics.median(took[count]), '', '', '', None)
    report.ratio('I2', 'mapped pages dropped: 10000 extents', '100 extents', took[10000],
                 took[100], 'ms', 150, higher_is_better=False)
