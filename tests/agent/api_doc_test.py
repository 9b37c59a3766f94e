# SPDX-License-Identifier: BSD-3-Clause
"""The examples of docs/api.md: each command is run, and its answer has what the page shows.

A block of json after a block of sh is what the command answers. Of an object the keys must be
there, with values of the same type, and equal where the page does not show "..." or a tid.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

page = os.path.join(os.path.dirname(__file__), '..', '..', 'docs', 'api.md')
bin_folder = os.environ['ZBIG_BIN']
for program in ('curl', 'nbdcopy', 'nbdkit'):
    if not shutil.which(program):
        print('SKIP: %s is not installed' % program)
        sys.exit(77)


def compare(shown, got, place):
    if isinstance(shown, dict):
        for key, value in shown.items():
            assert key in got, '%s: no key %s in %s' % (place, key, got)
            compare(value, got[key], '%s.%s' % (place, key))
    elif isinstance(shown, list):
        assert len(shown) == len(got), '%s: %s' % (place, got)
        for i, value in enumerate(shown):
            compare(value, got[i], '%s[%d]' % (place, i))
    elif isinstance(shown, str) and '...' in shown:
        pattern = '.*'.join(map(re.escape, shown.split('...')))
        assert isinstance(got, str) and re.fullmatch(pattern, got), \
            '%s: %r is shown, the answer has %r' % (place, shown, got)
    elif isinstance(shown, int) and \
            place.rsplit('.')[-1] in ('pid', 'bytes_stored', 'overlay_bytes'):
        assert isinstance(got, int), place
    else:
        assert shown == got, '%s: %r is shown, the answer has %r' % (place, shown, got)


with open(page, encoding='utf-8') as file:
    blocks = re.findall(r'^```(\w+)\n(.*?)^```', file.read(), re.M | re.S)
with tempfile.TemporaryDirectory(prefix='zbt.') as work:
    # $HOME keeps the device's link and state out of this user's own.
    env = dict(os.environ, ZBIG_SOCKET=work + '/run/zbigd.sock', DB=work + '/Data.fs')
    subprocess.run([bin_folder + '/zbig', 'create', env['DB'], '/A', '--size', '8M'], check=True)
    agent = subprocess.Popen([bin_folder + '/zbigd', '--foreground', '--state', work + '/state'],
                             env=env, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.time() + 20
        while not os.path.exists(env['ZBIG_SOCKET']) and time.time() < deadline:
            time.sleep(0.05)
        run = 0
        for i, (kind, text) in enumerate(blocks):
            if kind != 'sh':
                continue
            print(text)
            done = subprocess.run(['bash', '-ec', text], env=env, stdout=subprocess.PIPE, text=True,
                                  check=True, timeout=60)
            answer = json.loads(done.stdout)
            print(answer)
            assert blocks[i + 1][0] == 'json', 'an example without its answer'
            compare(json.loads(blocks[i + 1][1]), answer, 'answer')
            run += 1
        assert run >= 8, 'only %d examples found' % run
    finally:
        agent.terminate()
        agent.wait(20)
