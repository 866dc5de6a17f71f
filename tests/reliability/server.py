"""A process that has imported all of the project and forks a child for every script that is to run.

`python -m tests.reliability.server` reads a JSON request a line from its input and answers each with a line. A child
is a process of its own that runs the script as `python SCRIPT` would, without the seconds that importing torch takes.
Nothing but imports happens before the fork: one thread, no pool, no random state that a script could rely on.
"""

import atexit
import ctypes
import importlib
import json
import os
import random
import runpy
import signal
import sys
import threading
import traceback
from pathlib import Path

import numpy as np
import torch

from tests.reliability import hooks

ROOT = Path(__file__).parents[2]
MODULES = (  # what the scripts import, and what they import late
    *(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in ("datasets", "models", "utils")
        for path in (ROOT / folder).rglob("*.py")
        if not path.stem.startswith("__")
    ),
    "sklearn.datasets",
    "scipy.signal",
    "matplotlib.backends.backend_agg",
    "matplotlib.font_manager",
    "torch._dynamo",
)
STARTED_AS_MODULES = ("datasets.avmnist_check", "datasets.ntu_prepare", "utils.predict", "utils.study")


def run_child(request: dict) -> int:
    """Become the script that the request names; returns its exit code."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no child outlives the tests
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(request["cwd"])
    for number, name in enumerate((os.devnull, request["stdout"], request["stderr"])):
        descriptor = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # noqa: SIM115
    for seed in (random.seed, np.random.seed, torch.manual_seed):  # as in a new process: unknown
        seed(int.from_bytes(os.urandom(4), "little"))
    script, *arguments = request["command"]
    if request.get("log") or request.get("fault"):
        hooks.install(request["cwd"], request.get("log"), request.get("fault"))
    try:
        if script.endswith(".py"):
            sys.argv = [str(ROOT / script), *arguments]
            sys.path[0] = str(Path(sys.argv[0]).parent)
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            sys.argv = [script, *arguments]
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException as error:
        traceback.print_exc()
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # as the interpreter's end: threads, then exit handlers
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def main() -> None:
    for name in MODULES:
        if name not in STARTED_AS_MODULES:
            importlib.import_module(name)
    answers = os.dup(1)
    os.dup2(2, 1)
    assert threading.active_count() == 1, threading.enumerate()
    print("ready", file=os.fdopen(os.dup(answers), "w"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        elif "shell" in request:
            answer = os.waitstatus_to_exitcode(os.system(request["shell"]))
        else:
            answer = os.fork()
            if not answer:
                os.close(answers)
                os._exit(run_child(request))
        os.write(answers, f"{answer}\n".encode())
    os._exit(0)  # nothing to tidy: faster


if __name__ == "__main__":
    main()
