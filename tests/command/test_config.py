"""`uwasp config`: each file is used as it comes, by uWSGI, systemd and nginx."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest
from websockets.sync.client import connect, unix_connect

from commands import port_of, port_of_router, uwasp
from processes import BareUwsgi, Process, debian_uwsgi, listening_socket, require_program, uwsgi_program
from test_run import shown
from uwasp_cli.access import Closed, closed_to


def written(kind, *arguments, **keywords) -> str:
    result = uwasp("config", "--for", kind, *arguments, **keywords)
    assert result.returncode == 0, result.stderr
    return result.stdout


def echo(client) -> str:
    client.send("hello")
    return client.recv(timeout=20)


def options_of(ini: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+) = (.*)$", ini, re.MULTILINE))


@pytest.fixture
def start_ini(started):
    """Start a uWSGI with an ini: `start_ini(text, program)`."""

    def start(text, program=None):
        def make(folder):
            (folder / "site.ini").write_text(text)
            return BareUwsgi([str(program or uwsgi_program()), "--ini", str(folder / "site.ini")], folder / "log")

        process = started(make)
        process.wait_for_output("spawned uWSGI worker 1")
        return process

    return start


def test_an_ini_has_nothing_of_the_env_file_and_that_is_said(project, tmp_path):
    (tmp_path / "secrets").write_text("SECRET=hidden\n")
    result = uwasp("config", "echo:application", "--for", "ini", "--env-file", tmp_path / "secrets", cwd=project)
    assert "hidden" not in result.stdout
    assert result.stderr == (
        f"uwasp: the variables of {tmp_path}/secrets are not in the ini; "
        "have what starts uWSGI read it, as the unit of --for systemd does\n"
    )


@pytest.mark.parametrize("handler", ["threads", "gevent"])
def test_an_ini_serves(project, tmp_path, start_ini, handler):
    text = (project / "echo.py").read_text()
    (project / "echo.py").write_text(text.replace('"threads"', f'"{handler}"'))
    arguments = ["--bind", f"unix:{tmp_path}/uwsgi.sock", "--stats", f"{tmp_path}/stats", "--", "--http-socket"]
    ini = written("ini", "echo:application", *arguments, f"{tmp_path}/http", cwd=project)
    uwsgi = start_ini(ini)
    with unix_connect(f"{tmp_path}/http", uri="ws://localhost/echo") as client:
        assert echo(client) == "hello"
    assert (tmp_path / "stats").is_socket()
    assert "invalid" not in uwsgi.output
    assert "unrecognized" not in uwsgi.output


@pytest.mark.parametrize("handler", ["threads", "gevent"])
def test_an_ini_for_debians_uwsgi_names_its_plugins_in_their_order(project, tmp_path, start_ini, handler):
    program = debian_uwsgi("python3", "gevent_python3", "http")
    text = (project / "echo.py").read_text()
    (project / "echo.py").write_text(text.replace('"threads"', f'"{handler}"'))
    where = ["--bind", "127.0.0.1:0", "--router", "--stats", f"{tmp_path}/stats"]
    ini = written("ini", "echo:application", "--uwsgi", program, *where, cwd=project)
    plugins = ["python3", *(["gevent_python3"] if handler == "gevent" else []), "http"]
    assert re.findall(r"^plugin = (.*)$", ini, re.MULTILINE) == plugins
    uwsgi = start_ini(ini, program)
    with connect(f"ws://127.0.0.1:{port_of_router(uwsgi)}/echo", proxy=None) as client:
        assert echo(client) == "hello"


def test_an_ini_says_what_run_does_with_the_same_reasons(project):
    arguments = ["echo:application", "--processes", "3", "--harakiri", "9", "--bind", "unix:/run/echo/uwsgi.sock"]
    ini = written("ini", *arguments, cwd=project)
    of_run = shown(*arguments, "--stats", "/run/echo/uwsgi.stats", cwd=project)
    assert options_of(ini) == {name: value or "true" for name, value in of_run.items()}
    assert "# so many seconds for its WebSockets to part with 1001, before it is killed\nharakiri-graceful" in ini


def test_the_stats_socket_of_an_ini_is_beside_its_socket(project, tmp_path, start_ini):
    ini = written("ini", "echo:application", "--bind", f"unix:{tmp_path}/x.sock", cwd=project)
    assert options_of(ini)["stats"] == f"{tmp_path}/x.stats"
    start_ini(ini).wait_for_output(f"Stats server enabled on {tmp_path}/x.stats")
    assert options_of(written("ini", "echo:application", cwd=project))["stats"] == "/run/echo/uwsgi.stats"
    of_http = written("ini", "echo:application", "--bind", "127.0.0.1:8000", cwd=project)
    assert options_of(of_http)["stats"] == "/run/echo/uwsgi.stats"  # the folder that the unit makes


def test_a_percent_sign_in_a_path_is_one_for_uwsgi(project, tmp_path, start_ini):
    odd = tmp_path / "100%d"
    shutil.copytree(project, odd)
    where = ["--bind", "127.0.0.1:0", "--stats", ""]
    start_ini(written("ini", "echo:application", *where, cwd=odd))


def test_a_word_behind_two_hyphens_that_is_no_option_is_one_line(project):
    result = uwasp("config", "echo:application", "--for", "ini", "--", "nonsense", cwd=project)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)


class Notified:
    """What systemd is to a service of `Type=notify`."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(30)

    def wait_for(self, text: bytes) -> None:
        while text not in self.socket.recv(4096):
            pass


def test_a_unit_of_systemd_is_sound_and_its_start_says_when_it_is_ready(project, tmp_path, started):
    ini = tmp_path / "echo.ini"
    where = ["--bind", "127.0.0.1:0", "--stats", f"{tmp_path}/stats", "--ini", ini, "--user", "root"]
    ini.write_text(written("ini", "echo:application", *where, cwd=project))
    unit = written("systemd", "echo:application", *where, cwd=project)
    file = tmp_path / "echo.service"
    file.write_text(unit)
    verify = require_program("systemd-analyze")
    verified = subprocess.run([verify, "verify", file], capture_output=True, text=True)
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if "echo.service" in line]) == (0, [])

    said = options_of(unit.replace("=", " = ", 1).replace("=", " = "))
    assert said["LimitNOFILE"] == options_of(ini.read_text())["max-fd"]
    (start,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    (cwd,) = re.findall(r"^WorkingDirectory=(.*)$", unit, re.MULTILINE)
    notified = Notified(tmp_path / "notify")
    env = {"NOTIFY_SOCKET": str(notified.path)}
    uwsgi = started(lambda folder: BareUwsgi(shlex.split(start), folder / "log", env, cwd=cwd))
    with notified.socket:
        notified.wait_for(b"READY=1")
    with connect(f"ws://127.0.0.1:{port_of(uwsgi)}/echo", proxy=None) as client:
        assert echo(client) == "hello"
    (reload,) = re.findall(r"^ExecReload=(.*)$", unit, re.MULTILINE)
    subprocess.run(shlex.split(reload.replace("$MAINPID", str(uwsgi.popen.pid))), check=True)
    uwsgi.wait_for_output("spawned uWSGI worker 1", 2)
    assert uwsgi.popen.poll() is None


def test_a_unit_whose_user_may_not_enter_what_it_needs_says_so(project):
    project.chmod(0o700)
    config = ["config", "echo:application", "--for", "systemd", "--user"]
    said = uwasp(*config, "nobody", cwd=project)
    places = rf"/\S+ \(drwx------\), and the unit needs {re.escape(str(project))}( and /\S+)*"
    remedy = "have that elsewhere, such as in /srv, or name another --user"
    assert re.search(rf"^uwasp: nobody may not enter {places}; {remedy}$", said.stderr, re.MULTILINE)
    assert (said.returncode, said.stdout.count("User=nobody\n")) == (0, 1)
    own = pwd.getpwuid(os.geteuid()).pw_name
    assert uwasp(*config, own, cwd=project).stderr == ""
    assert uwasp(*config, "nobody-knows-them", cwd=project).stderr == ""


def test_modes_and_links_keep_a_user_out():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        inner = folder / "home"
        (inner / "bin").mkdir(parents=True)
        (folder / "link").symlink_to(inner / "bin")
        for mode, shown, is_closed in ((0o755, "drwxr-xr-x", False), (0o750, "drwxr-x---", True), (0o711, "", False)):
            inner.chmod(mode)
            closed = Closed(f"{inner} ({shown})", str(inner / "bin")) if is_closed else None
            assert closed_to("nobody", str(inner / "bin")) == closed
            assert closed_to("nobody", str(folder / "link")) == closed
        assert closed_to("nobody", str(folder / "nothing is here")) is None


def test_a_unit_has_paths_with_blanks_and_percent_signs_as_systemd_wants_them(project, tmp_path):
    odd = tmp_path / "100%d of it"
    shutil.copytree(project, odd)
    (odd / "its env").write_text("NAME=value\n")
    ini = odd / 'the "ini" of $HOME'
    ini.write_text("")
    program = odd / "uwsgi here"
    program.symlink_to(uwsgi_program())
    arguments = ["--env-file", "its env", "--user", "root", "--ini", ini, "--uwsgi", program]
    unit = written("systemd", "echo:application", *arguments, cwd=odd)
    file = tmp_path / "echo.service"
    file.write_text(unit)
    verified = subprocess.run([require_program("systemd-analyze"), "verify", file], capture_output=True, text=True)
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if "echo.service" in line]) == (0, [])
    said = options_of(unit.replace("=", " = "))
    as_systemd_has_it = str(odd).replace("%", "%%")
    assert said["WorkingDirectory"] == as_systemd_has_it
    assert said["EnvironmentFile"] == f"{as_systemd_has_it}/its env"
    begin, end = f'"{as_systemd_has_it}/', '"'
    assert said["ExecStart"] == rf"{begin}uwsgi here{end} --ini {begin}the \"ini\" of $$HOME{end}"


@pytest.fixture
def certificate(tmp_path):
    openssl = require_program("openssl")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    folder = tmp_path / "of; mine"
    folder.mkdir()
    command += ["-keyout", folder / "key.pem", "-out", folder / "certificate.pem"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "certificate.pem", folder / "key.pem"


NGINX = """
daemon off;
user root;
pid {folder}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site;
}}
"""


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_site_of_nginx_serves_websockets_over_tls(project, tmp_path, started, start_ini, certificate, kind):
    nginx = require_program("nginx", "/usr/sbin/nginx")
    bind = f"unix:{tmp_path}/uwsgi.sock" if kind == "unix" else "127.0.0.1:0"
    pem, key = certificate
    stats = ["--stats", f"{tmp_path}/stats"]
    uwsgi = start_ini(written("ini", "echo:application", "--bind", bind, *stats, cwd=project))
    if kind == "tcp":
        bind = f"127.0.0.1:{port_of(uwsgi)}"
    tls = ["--server-name", "localhost", "--certificate", pem, "--certificate-key", key]
    site = written("nginx", "echo:application", "--bind", bind, *stats, *tls, cwd=project)
    assert site.count("listen 443 ssl;") == site.count("listen 80;") == 1
    with listening_socket() as secure, listening_socket() as insecure:
        port, plain = (listening.getsockname()[1] for listening in (secure, insecure))
        # Only the ports are the test's own, and that there may be no IPv6 here.
        site = re.sub(r"^ *listen \[::\].*\n", "", site, flags=re.MULTILINE)
        site = site.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        site = site.replace("listen 80", f"listen 127.0.0.1:{plain}")
        fds = [secure.fileno(), insecure.fileno()]

        def make(folder):
            shutil.copy("/etc/nginx/uwsgi_params", folder)
            (folder / "site").write_text(site)
            (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
            env = {"NGINX": "".join(f"{fd};" for fd in fds)}  # nginx takes over the sockets with these numbers
            return Process([str(nginx), "-c", f"{folder}/nginx.conf", "-e", "stderr"], folder / "log", env, fds)

        started(make)
    context = ssl.create_default_context(cafile=str(pem))
    url = f"wss://localhost:{port}/echo"
    checked = uwasp("check", "--url", url, env={**os.environ, "SSL_CERT_FILE": str(pem)})
    assert (checked.returncode, checked.stdout) == (0, f"{url} opens, and answers a ping\nnothing bites\n")
    with connect(url, ssl=context, proxy=None) as client:
        assert echo(client) == "hello"
    with socket.create_connection(("127.0.0.1", plain), timeout=20) as client:
        client.sendall(b"GET /echo HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b"301" in client.recv(4096).split(b"\r\n")[0]
