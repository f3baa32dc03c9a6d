"""Where the command begins."""

import signal
import subprocess
import sys
import time


def test_main__interrupted_while_it_is_imported__says_so_without_a_traceback() -> None:
    slow = (
        "import pouw.cli.entry as e, sys, time; "
        "sys.meta_path.insert(0, type('Slow', (), {'find_spec': staticmethod("
        "lambda name, *_: (print('here', flush=True), time.sleep(60)) and None "
        "if name == 'pouw.cli.main' else None)})); sys.exit(e.main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (130, "error: interrupted\n")
