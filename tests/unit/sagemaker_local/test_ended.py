import subprocess
import sys
import threading

import psutil

from sagemaker_local.ended import wait_ended


def test_what_waits_to_be_reaped_has_ended():
    with subprocess.Popen(["sleep", "600"]) as child:  # this process is its parent, and does not reap it yet
        process = psutil.Process(child.pid)
        assert wait_ended([process], timeout_s=0.05) == [process]
        child.kill()
        assert wait_ended([process], timeout_s=60) == []
        assert process.status() == psutil.STATUS_ZOMBIE


def test_it_waits_until_the_last_has_ended():
    program = "import sys; sys.stdin.read()"
    children = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) for _ in range(2)]
    end = threading.Timer(0.3, lambda: [child.stdin.close() for child in children if child.stdin])
    end.start()
    assert wait_ended([psutil.Process(child.pid) for child in children], timeout_s=60) == []
    assert [child.wait() for child in children] == [0, 0]
    end.join()


def test_a_process_that_is_gone_has_ended():
    child = subprocess.Popen(["true"])
    process = psutil.Process(child.pid)
    child.wait()
    assert wait_ended([process], timeout_s=0) == []
