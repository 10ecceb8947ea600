"""The log's stream: whole lines in order, and a reader that stalls costs lines, not time."""

import os
import subprocess
import sys
import threading

from sidecar.runtime.log_writer import QUEUE_LINES, LogWriter

PIPE_BYTES = 65536


def test_lines_come_whole_and_in_order():
    ours, theirs = os.pipe()
    with open(theirs, "w") as stream, open(ours) as reader:
        writer = LogWriter(stream, lambda _: None)
        for number in range(500):
            writer.write(f"line {number}\n")
        writer.finish()
        assert [next(reader) for _ in range(500)] == [f"line {number}\n" for number in range(500)]


def test_a_reader_that_stalls_costs_lines_which_are_counted():
    ours, theirs = os.pipe()
    told = threading.Event()
    lost: list[int] = []

    def tell(count: int) -> None:
        lost.append(count)
        told.set()

    with open(theirs, "w") as stream, open(ours, "rb") as reader:
        writer = LogWriter(stream, tell)
        line = "x" * 1023 + "\n"
        written = 5 * QUEUE_LINES
        for _ in range(written):
            writer.write(line)  # returns, though nobody reads: or this test would never end
        kept = written
        received = 0
        while not told.is_set() or received < kept * len(line):
            received += len(os.read(reader.fileno(), PIPE_BYTES))
            if told.is_set():
                kept = written - sum(lost)
        assert received == kept * len(line)
        assert QUEUE_LINES <= kept <= QUEUE_LINES + PIPE_BYTES // len(line) + 2


def test_the_last_line_before_the_exit_is_written():
    program = "from sidecar.runtime import logs; logs.setup(); logs.Log('x').info('last_words')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert '"last_words"' in done.stderr


def test_a_stalled_reader_does_not_hold_up_the_exit():
    """The last lines are waited for, but not for ever."""
    program = (
        "import sys; from sidecar.runtime import logs; logs.setup(); log = logs.Log('x')\n"
        "for _ in range(100): log.info('words', text='x' * 10000)\n"
        "print('done', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        assert process.wait(15) == 0
