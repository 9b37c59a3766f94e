# SPDX-License-Identifier: BSD-3-Clause
"""Real ZEO servers for tests, by tests/peers/zeo-server."""
import os
import signal
import subprocess

from zbigtest import PEERS, ROOT, python_of

SCRIPT = os.path.join(ROOT, "tests", "peers", "zeo-server")


class ZeoServer:
    """with ZeoServer(folder, "py3") as server: a server over folder/Data.fs, at server.url."""

    def __init__(self, folder, environment="py3", conf="", socket=None):
        python_of(environment)
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self.env = dict(os.environ, PEERS=PEERS, PEER_ENV=environment, ZEO_OPTIONS=conf)
        if socket:
            self.env["ZEO_SOCKET"] = socket

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.signal(signal.SIGCONT)
        self.stop()

    def _script(self, verb):
        # Not through a pipe: the server would hold it open.
        with open(os.path.join(self.folder, "said"), "w+", encoding="utf-8") as said:
            subprocess.run([SCRIPT, verb, self.folder], stdout=said, env=self.env, check=True,
                           timeout=60)
            said.seek(0)
            return said.read().strip()

    def start(self):
        self.url = self._script("start")

    def stop(self):
        self._script("stop")

    def pid(self):
        with open(os.path.join(self.folder, "zeo.pid"), encoding="utf-8") as f:
            return int(f.read())

    def signal(self, number):
        try:
            os.kill(self.pid(), number)
        except (OSError, ValueError):
            pass
