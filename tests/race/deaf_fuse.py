#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""zbig-fuse, but when it is asked to drop pages it says that it has, and does not; or, if
$REFUSES_WHILE names a file, it says that it cannot, as long as there is that file.

It takes the control socket's place and hands everything else on."""
import json
import os
import socket
import subprocess
import sys
import threading

refuses_while = os.environ.get('REFUSES_WHILE')
arguments = sys.argv[1:]
place = arguments.index('--control') + 1
path = arguments[place]
arguments[place] = path + '.real'
child = subprocess.Popen([os.environ['REAL_ZBIG_FUSE']] + arguments, close_fds=False)


def answer(op):
    """Its own, if it has one."""
    if op != 'invalidate':
        return None
    if refuses_while is None:
        return b'{"ok": true}\n'
    if os.path.exists(refuses_while):
        return b'{"ok": false, "code": "unavailable", "error": "not today"}\n'
    return None


def serve(client):
    with client, client.makefile('rwb') as asked, socket.socket(socket.AF_UNIX) as upstream:
        upstream.connect(path + '.real')
        real = upstream.makefile('rwb')
        for line in asked:
            reply = answer(json.loads(line).get('op'))
            if not reply:
                real.write(line)
                real.flush()
                reply = real.readline()
            if not reply:
                return
            asked.write(reply)
            asked.flush()


def quiet(client):
    try:
        serve(client)
    except OSError:
        pass        # the agent sees its connection closed, and tries again


def accept():
    if os.path.exists(path):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            threading.Thread(target=quiet, args=(listener.accept()[0],), daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
os._exit(child.wait())
