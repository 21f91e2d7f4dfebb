"""What `make` asks of a Python before it makes .venv with it, and of pip afterwards.

python set_up.py               which Python this is, on what machine; status 1 if there are no wheels for it
python set_up.py install ...   pip install, deaf to all of the reader's pip settings but the road to packages

It runs before anything is installed, and an old Python must be able to read it, so as to say how old it is.
"""

import ast
import os
import platform
import re
import subprocess
import sys
import sysconfig

# Where packages come from, and how they travel. What is installed, and where, must not come from a pip.conf:
# with `user`, `target` or `no-deps` in it, .venv would stay without packages and be called ready.
ROAD = {
    "cache-dir",
    "cert",
    "client-cert",
    "constraint",
    "default-timeout",
    "extra-index-url",
    "find-links",
    "index-url",
    "keyring-provider",
    "no-cache-dir",
    "no-index",
    "proxy",
    "pypi-url",
    "resume-retries",
    "retries",
    "timeout",
    "trusted-host",
    "use-deprecated",
    "use-feature",
}


def this_python():
    """What decides which wheels there are: (kind, version, system, machine, version of macOS or libc)."""
    kind = platform.python_implementation()
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        kind = "free-threaded " + kind
    if sys.maxsize < 2**32:
        kind = "32-bit " + kind
    if platform.system() == "Darwin":
        return kind, platform.python_version(), "macOS", platform.machine(), platform.mac_ver()[0]
    libc = " ".join(platform.libc_ver())
    return kind, platform.python_version(), platform.system(), platform.machine(), libc


def has_wheels(kind, version, system, machine, release):
    """Whether every pin has a wheel there. It is torch 2.13.0 that asks for most."""
    if kind != "CPython" or not (3, 11) <= numbers(version) <= (3, 14):
        return False
    if system == "macOS":
        return machine == "arm64" and numbers(release) >= (14,)
    glibc = release.startswith("glibc") and numbers(release) >= (2, 28)
    return system == "Linux" and machine in ("x86_64", "aarch64") and glibc


def numbers(version):
    """The first two numbers of a version: (3, 14) of "3.14.0rc1"."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def road(listing):
    """The settings of the road among those that `pip config list` prints, as environment variables."""
    settings = {}
    for section in ("global", "install", ":env:"):  # each overrules those before it
        for key, value in re.findall("^" + section + r"\.([a-z-]+)=(.*)$", listing, re.M):
            if key in ROAD and ast.literal_eval(value):
                settings["PIP_" + key.upper().replace("-", "_")] = ast.literal_eval(value)
    return settings


def run_pip(arguments):
    pip = [sys.executable, "-m", "pip"]
    # PYTHONWARNINGS=error would stop pip at its first deprecation, and no other is meant for it either
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    audible = dict(environment, PIP_QUIET="0", PIP_PYTHON="")
    listing = subprocess.run(pip + ["config", "list"], env=audible, stdout=subprocess.PIPE, text=True)
    if listing.returncode:
        return listing.returncode
    ours = {name: value for name, value in environment.items() if not name.startswith("PIP_")}
    ours.update(road(listing.stdout), PIP_CONFIG_FILE=os.devnull)
    return subprocess.run(pip + arguments, env=ours).returncode


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(run_pip(sys.argv[1:]))
    print(" ".join(this_python()))
    sys.exit(not has_wheels(*this_python()))
