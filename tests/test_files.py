"""Files that are written whole or not at all, and that keep what their owner chose: modes, links, places."""

import os
import stat
import subprocess
import sys

import pytest

from minialign.files import write_atomically


@pytest.fixture(autouse=True)
def umask():
    """The usual one, whatever this machine's is."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


# --- whole, or not at all ---


@pytest.mark.parametrize("where", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch, where, error):
    path = tmp_path / "folder" / "file"
    write_atomically(path, b"old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, where, fail)
    with pytest.raises(type(error)):
        write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    """Not an exception: the process is gone in the middle of the write, without any clean-up."""
    path = tmp_path / "file"
    write_atomically(path, b"old")
    code = f"""if True:
        import os, pathlib
        from minialign.files import write_atomically
        os.fsync = lambda _: os._exit(9)
        write_atomically(pathlib.Path({str(path)!r}), b"new and longer")"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert path.read_bytes() == b"old"


# --- modes ---


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o007, 0o660), (0o000, 0o666)])
def test_a_new_file_gets_what_the_umask_leaves(tmp_path, umask, mode):
    os.umask(umask)
    write_atomically(tmp_path / "file", b"")
    assert mode_of(tmp_path / "file") == mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755, 0o2664])
def test_an_old_file_keeps_its_mode(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_atomically(path, b"new")
    assert mode_of(path) == mode and path.read_bytes() == b"new"


def test_a_private_file_is_private_while_it_is_written(tmp_path, monkeypatch):
    path, seen = tmp_path / "votes", []
    path.write_bytes(b"old")
    path.chmod(0o600)
    monkeypatch.setattr(os, "fsync", lambda _: seen.extend(map(mode_of, tmp_path.iterdir())))
    write_atomically(path, b"new")
    assert seen == [0o600, 0o600]


@pytest.mark.parametrize("allowed", [True, False])
def test_the_owner_stays_where_that_is_allowed(tmp_path, monkeypatch, allowed):
    path, given = tmp_path / "file", []
    path.write_bytes(b"old")

    def chown(_, user, group):
        given.append((user, group))
        if not allowed:
            raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    write_atomically(path, b"new")
    assert given == [(path.stat().st_uid, path.stat().st_gid)] and path.read_bytes() == b"new"


def test_a_read_only_file_is_not_replaced(tmp_path):
    path = tmp_path / "votes"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match=r"votes is read-only: make it writable or choose another name"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


# --- links and places ---


def test_what_a_link_points_to_is_written_and_the_link_stays(tmp_path):
    """Also through a second link, into another folder, with a relative target."""
    (tmp_path / "store").mkdir()
    target = tmp_path / "store" / "file"
    target.write_bytes(b"old")
    target.chmod(0o640)
    (tmp_path / "store" / "link").symlink_to("file")
    link = tmp_path / "link"
    link.symlink_to("store/link")
    write_atomically(link, b"new")
    assert link.is_symlink() and (tmp_path / "store" / "link").is_symlink()
    assert target.read_bytes() == b"new" and mode_of(target) == 0o640
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "link", "link", "store"]


def test_a_link_to_nothing_gets_its_target(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("later/file")
    write_atomically(link, b"new")
    assert link.is_symlink() and (tmp_path / "later" / "file").read_bytes() == b"new"


def test_links_in_a_circle_are_an_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").is_symlink()


def test_folders_and_devices_stay_what_they_are(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # what /dev/null and /dev/stdout would be to root: replaced by a file
    (tmp_path / "link").symlink_to("pipe")
    for place in (tmp_path, tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(ValueError, match=f"{place} is a folder or a device: give the name of a file"):
            write_atomically(place, b"new")
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 2


def test_a_path_as_text_in_a_folder_that_is_not_there_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_atomically("folder/file", b"new")
    write_atomically("file", b"new")
    assert (tmp_path / "folder" / "file").read_bytes() == (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("letter", ["a", "é", "🦑"])
def test_a_name_as_long_as_names_may_be(tmp_path, letter):
    path = tmp_path / (letter * (255 // len(letter.encode())))
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
