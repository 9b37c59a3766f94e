# SPDX-License-Identifier: BSD-3-Clause
"""What every row needs: servers to measure, interleaved timing, ratios, and the table.

A row is a function `row(lab, report)`. It measures zbig and its peers in turn (A B A B ...), so
that a machine that gets slower in the middle slows both, and reports medians with the ratio pair by
pair.
"""
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ.get('ZBIG_BIN', os.path.join(TOP, 'build', 'bin'))
ZBIG = os.path.join(BIN, 'zbig')
PLUGIN = os.path.join(BIN, 'nbdkit-zbig-plugin.so')
PEERS = os.environ.get('PEERS', os.path.join(TOP, '.peers'))
MIB = 1 << 20


def say(text):
    print('bench: ' + text, file=sys.stderr, flush=True)


def sh(*args, **kwargs):
    """Runs a command that must succeed; its standard output as text."""
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    if done.returncode != 0:
        raise RuntimeError('%s: exit %d: %s' % (' '.join(args), done.returncode,
                                                done.stderr.decode(errors='replace')[-500:]))
    return done.stdout.decode()


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interleave(times, **functions):
    """Calls each function in turn, `times` times over, after one round that does not count.

    Functions return the figure. -> {name: [figure, ...]}"""
    for function in functions.values():
        function()
    figures = {name: [] for name in functions}
    for _ in range(times):
        for name, function in functions.items():
            figures[name].append(function())
    return figures


class Process:
    """A child that is stopped, by its pid, when the block ends.

    In a session of its own, as the agent's servers are: the kernel gives sessions their shares of a
    busy machine (sched_autogroup)."""

    def __init__(self, args, **kwargs):
        self.child = subprocess.Popen(args, stdin=subprocess.DEVNULL, start_new_session=True,
                                      **kwargs)
        self.pid = self.child.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def memory(self, key):
        """KiB of /proc/PID/status, as VmRSS, VmHWM, RssAnon."""
        return memory(self.pid, key)


def memory(pid, key):
    with open('/proc/%d/status' % pid) as status:
        for line in status:
            if line.startswith(key + ':'):
                return int(line.split()[1])
    return 0


class Nbdkit(Process):
    """nbdkit with any plugin, on a socket of its own."""

    def __init__(self, folder, name, *args):
        self.socket = os.path.join(folder, name + '.sock')
        pid_file = os.path.join(folder, name + '.pid')
        for stale in (self.socket, pid_file):
            if os.path.exists(stale):
                os.unlink(stale)
        super().__init__(['nbdkit', '-f', '-P', pid_file, '-U', self.socket] + list(args))
        end = time.time() + 300
        while not os.path.exists(pid_file):
            if self.child.poll() is not None or time.time() > end:
                raise RuntimeError('nbdkit %s did not start' % ' '.join(args))
            time.sleep(0.001)

    def uri(self, export=''):
        return 'nbd+unix:///%s?socket=%s' % (export.replace('/', '%2F'), self.socket)


def settle():
    """What earlier rows wrote is on the disk, so that nobody's sync is slow for another's pages."""
    os.sync()


class Requests:
    """The HTTP API on a connection that is kept, as a program in C would use it. Python's own
    client takes 0.1 ms for a request, where a commit takes 0.4."""

    def __init__(self, path):
        self.path = path
        self.connect()

    def connect(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(self.path)

    def post(self, target, body):
        """-> status, text"""
        request = ('POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
                   'Content-Length: %d\r\n\r\n%s' % (target, len(body), body)).encode()
        try:
            return self.exchange(request)
        except (BrokenPipeError, ConnectionResetError):     # was idle for too long
            self.socket.close()
            self.connect()
            return self.exchange(request)

    def exchange(self, request):
        self.socket.sendall(request)
        answer, whole = b'', None
        while whole is None or len(answer) < whole:
            piece = self.socket.recv(65536)
            if not piece:
                raise ConnectionResetError('the agent closed the connection')
            answer += piece
            head = answer.find(b'\r\n\r\n')
            if whole is None and head >= 0:
                length = re.search(rb'(?i)\r\ncontent-length: *(\d+)', answer[:head])
                whole = head + 4 + int(length.group(1))
        return int(answer[9:12]), answer[head + 4:].decode()


class Agent(Process):
    """A private zbigd, and one device of it to write to."""

    def __init__(self, folder):
        self.state = os.path.join(folder, 'agent-state')
        self.path = os.path.join(folder, 'zbigd.sock')
        self.log = open(os.path.join(folder, 'zbigd.log'), 'a')
        super().__init__([os.path.join(BIN, 'zbigd'), '--foreground', '--state', self.state,
                          '--socket', self.path], stdout=self.log, stderr=self.log)
        self.env = dict(os.environ, ZBIG_SOCKET=self.path)
        self.names = []
        end = time.time() + 10
        while True:
            try:
                self.requests = Requests(self.path)
                return
            except OSError:
                if self.child.poll() is not None or time.time() > end:
                    raise RuntimeError('zbigd did not start: see ' + self.log.name)
                time.sleep(0.01)

    def zbig(self, *args):
        return sh(ZBIG, *args, env=self.env)

    def attach(self, url, volume, name, *options):
        """-> NBD URI"""
        self.names.append(name)
        told = self.zbig('attach', url, volume, '--name', name, '--socket-only', *options)
        return told.split()[-1]

    def commit(self, name):
        """Commits through the HTTP API; one connection for all, as a program would."""
        status, text = self.requests.post('/v1/commit', json.dumps({'devices': [name]}))
        if status != 200:
            raise RuntimeError('commit: %d %s' % (status, text))
        return json.loads(text)

    def server_pid(self):
        folder_of_sockets = os.path.dirname(self.path).encode() + b'/servers/'
        for folder in os.listdir('/proc'):
            try:
                with open('/proc/%s/cmdline' % folder, 'rb') as cmdline:
                    words = cmdline.read().split(b'\0')
            except OSError:
                continue
            if words[0].endswith(b'nbdkit') and any(folder_of_sockets in w for w in words):
                return int(folder)
        return None

    def __exit__(self, *args):
        for name in self.names:
            subprocess.run([ZBIG, 'detach', name, '--discard'], env=self.env,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        super().__exit__(*args)
        server = self.server_pid()
        if server:
            os.kill(server, signal.SIGTERM)
        self.log.close()


def peer_command(args):
    return [os.path.join(PEERS, 'py3', 'bin', 'python'), '-W', 'ignore', '-B',
            os.path.join(TOP, 'bench', 'peer.py')] + [str(arg) for arg in args]


class Peer(Process):
    def __init__(self, args, env):
        super().__init__(peer_command(args), stdout=subprocess.PIPE,
                         env=dict(os.environ, **(env or {})))

    def result(self):
        return json.loads(self.child.communicate(timeout=60)[0])


class Lab:
    """A scratch folder on the disk under test, with the databases that rows share."""

    def __init__(self, quick):
        self.quick = quick
        self.times = 3 if quick else 5
        base = os.environ.get('ZBIG_BENCH_DIR', os.path.join(TOP, 'build', 'bench'))
        os.makedirs(base, exist_ok=True)
        self.results = base
        self.folder = tempfile.mkdtemp(prefix='run-', dir=base)
        self.databases = {}

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def random_file(self, mib):
        path = self.path('random-%d' % mib)
        if not os.path.exists(path):
            with open(path, 'wb') as out:
                for _ in range(mib):
                    out.write(os.urandom(MIB))
        return path

    def database(self, fmt, mib):
        """A Data.fs with the volume /A of `mib` MiB of random bytes, written by zbig."""
        key = (fmt, mib)
        if key not in self.databases:
            url = self.path('%s-%d.fs' % (fmt, mib))
            sh(ZBIG, 'create', url, '/A', '--size', '%dM' % mib)
            sh(ZBIG, 'import', url, '/A', self.random_file(mib), '--format', fmt)
            self.databases[key] = url
        return self.databases[key]

    def peer(self, *args, env=None):
        """Runs a verb of bench/peer.py with the real Python programs; its JSON."""
        settle()
        return json.loads(sh(*peer_command(args), env=dict(os.environ, **(env or {}))))

    def peer_started(self, *args, env=None):
        """The same beside other work; `result()` waits for its JSON."""
        return Peer(args, env)

    def has_peers(self):
        return os.access(os.path.join(PEERS, 'py3', 'bin', 'python'), os.X_OK)

    def fdatasync(self):
        """Median seconds of a 4 KiB overwrite with fdatasync on this disk."""
        fd = os.open(self.path('fdatasync'), os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(fd, bytes(MIB), 0)
        os.fsync(fd)
        took = []
        for i in range(50):
            start = time.perf_counter()
            os.pwrite(fd, os.urandom(4096), i * 4096)
            os.fdatasync(fd)
            took.append(time.perf_counter() - start)
        os.close(fd)
        return statistics.median(took)

    def appended_commits(self, sizes):
        """Seconds, for each size, of what no durable commit to a log can do without: so many bytes
        appended and synced, then one byte of them written and synced."""
        fd = os.open(self.path('appended'), os.O_RDWR | os.O_CREAT, 0o600)
        took, end = [], os.fstat(fd).st_size
        for size in sizes:
            data = os.urandom(size)
            start = time.perf_counter()
            os.pwrite(fd, data, end)
            os.fdatasync(fd)
            os.pwrite(fd, b' ', end + 16)
            os.fdatasync(fd)
            took.append(time.perf_counter() - start)
            end += size
        os.close(fd)
        return took


class Report:
    """Collects lines; each is a ratio with a target, or a figure with a limit."""

    def __init__(self):
        self.lines = []

    def add(self, row, work, peer, zbig_text, peer_text, ratio, target, met):
        """One line. `ratio` as text; `met`: True, False, or None where there is no target."""
        self.lines.append(dict(row=row, work=work, peer=peer, zbig=zbig_text, peer_figure=peer_text,
                               ratio=ratio, target=target, met=met))
        say('%s %s: zbig %s, %s %s, ratio %s (target %s)%s' % (
            row, work, zbig_text, peer, peer_text, ratio, target,
            {True: '', False: '  MISSED', None: ''}[met]))

    def ratio(self, row, work, peer, zbig, other, unit, target, higher_is_better=True):
        """From the interleaved figures of both: medians, and the median of the pairs' ratios."""
        pairs = statistics.median(a / b for a, b in zip(zbig, other))
        met, wanted = None, ''
        if target is not None:     # else told for comparison only
            met = pairs >= target if higher_is_better else pairs <= target
            wanted = ('>= %g' if higher_is_better else '<= %g') % target
        self.add(row, work, peer, show(zbig, unit), show(other, unit), '%.3g' % pairs, wanted, met)
        return pairs

    def markdown(self):
        out = ['| row | work | zbig | peer | its figure | zbig : peer | target | |',
               '|---|---|---|---|---|---|---|---|']
        for line in self.lines:
            mark = {True: 'met', False: '**missed**', None: ''}[line['met']]
            out.append('| %s | %s | %s | %s | %s | %s | %s | %s |' % (
                line['row'], line['work'], line['zbig'], line['peer'], line['peer_figure'],
                line['ratio'], line['target'], mark))
        return '\n'.join(out) + '\n'


def show(figures, unit):
    if not isinstance(figures, list):
        figures = [figures]
    return '%.4g %s' % (statistics.median(figures), unit)
