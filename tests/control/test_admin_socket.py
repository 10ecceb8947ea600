"""The Unix socket: for its owner only, replaced when stale, never taken from somebody who lives."""

import os
import socket
import stat

import pytest

from sidecar.base.errors import ConfigError
from sidecar.runtime.admin_http import Door
from sidecar.runtime.admin_socket import bind_unix, unbind_unix


def test_only_the_owner_may_open_it(admin):
    assert stat.S_IMODE(os.stat(admin.doors[Door.UNIX].path).st_mode) == 0o600


def test_it_is_gone_after_the_end(tmp_path):
    path = str(tmp_path / "a.sock")
    sock, inode = bind_unix(path)
    sock.close()
    unbind_unix(path, inode)
    assert not os.path.exists(path)


def test_a_successors_socket_is_left_alone(tmp_path):
    path = str(tmp_path / "a.sock")
    first, inode = bind_unix(path)
    second = socket.socket(socket.AF_UNIX)
    os.rename(path, path + ".kept")  # so that the inode is not given out anew
    second.bind(path)
    unbind_unix(path, inode)
    assert os.path.exists(path)
    first.close()
    second.close()


def test_a_stale_socket_is_replaced(tmp_path):
    path = str(tmp_path / "a.sock")
    bind_unix(path)[0].close()
    assert os.path.exists(path)
    sock, _ = bind_unix(path)
    sock.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    sock.close()


def test_a_living_one_is_an_error_that_says_what_to_do(start_admin, admin):
    path = admin.doors[Door.UNIX].path
    with pytest.raises(ConfigError, match=f"another sidecar answers at {path}; stop it"):
        start_admin()
    assert admin.ask("/livez", door=Door.UNIX).status == 200


def test_a_file_that_is_no_socket_is_not_removed(tmp_path):
    path = tmp_path / "a.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="not a socket"):
        bind_unix(str(path))
    assert path.read_text() == "precious"


def test_its_directory_is_made(tmp_path):
    path = str(tmp_path / "run" / "sidecar" / "a.sock")
    sock, inode = bind_unix(path)
    sock.close()
    unbind_unix(path, inode)


def test_a_directory_that_cannot_be_made_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"admin\.socket: cannot make .*choose a path"):
        bind_unix(str(tmp_path / "file" / "a.sock"))


def test_a_path_that_is_too_long_is_told_before_the_system_does(tmp_path):
    with pytest.raises(ConfigError, match="107"):
        bind_unix(str(tmp_path / ("x" * 200)))


def test_a_taken_port_is_an_error_that_says_what_to_do(start_admin, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
            start_admin(bind=f"127.0.0.1:{port}")
    assert not (tmp_path / "admin.sock").exists()
