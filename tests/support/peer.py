# SPDX-License-Identifier: BSD-3-Clause
"""Talks to tests/interop/python_side.py in the Python of a peer environment."""
import json
import os
import subprocess

from zbigtest import ROOT, python_of


class Peer:
    """with Peer("py3") as peer: peer("write", url=..., ...); raises what went wrong there."""

    def __init__(self, environment):
        self.python = python_of(environment)

    def __enter__(self):
        script = os.path.join(ROOT, "tests", "interop", "python_side.py")
        self.process = subprocess.Popen([self.python, "-B", "-W", "ignore", script],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        universal_newlines=True)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def __call__(self, op, **request):
        request["op"] = op
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("the Python peer ended during %s" % op)
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError("the Python peer failed in %s:\n%s" % (op, answer["error"]))
        return answer["ok"]

    def maps(self):
        """Whether wendelin.core has its C extension here, so that arrays can be mapped."""
        done = subprocess.run([self.python, "-W", "ignore", "-c",
                               "import wendelin.bigfile._bigfile as m; "
                               "assert m.__file__.endswith('.so')"],
                              capture_output=True, check=False)
        return done.returncode == 0
