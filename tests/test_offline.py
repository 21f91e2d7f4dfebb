"""Once set up, nothing reaches for the network."""

import os
import socket
import subprocess
import sys

import pytest

# Python runs a `sitecustomize` module at start, in child processes too; an audit hook sees C code's sockets,
# and stays.
BLOCK = """
import socket
import sys

CALLS = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"}

def block(event, arguments):
    if event in CALLS and getattr(arguments[0], "family", None) != socket.AF_UNIX:
        raise RuntimeError(f"reached for the network: {event} {arguments[1:]}")

sys.addaudithook(block)
"""


@pytest.fixture
def offline(tmp_path):
    """offline(code) runs Python code in a process without network."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK, "utf-8")

    def run(code):
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    return run


def test_the_block_blocks(offline):
    """A server that does answer cannot be reached, by address or by name, from a process or from its
    child.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        attempts = [
            connect,
            f"import socket; s = socket.socket(); s.connect(('127.0.0.1', {port}))",
            "import socket; socket.getaddrinfo('localhost', 80)",
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {connect!r}], check=True)",
        ]
        assert subprocess.run([sys.executable, "-c", connect]).returncode == 0
        for code in attempts:
            run = offline(code)
            assert run.returncode == 1 and "reached for the network" in run.stderr


def test_the_engine_needs_no_network(offline):
    run = offline("import minialign; print(minialign.load('base').respond('Explain the moon landing.'))")
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
