"""Each sdist and each wheel carries what it should, and nothing else."""

from __future__ import annotations

import re
import sysconfig
import tarfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from environments import PACKAGES, REPOSITORY, SPEEDUPS

IMPORTS = {
    "uwasp-core": "uwasp",
    "uwasp-threads": "uwasp_threads",
    "uwasp-gevent": "uwasp_gevent",
    "uwasp-asyncio": "uwasp_asyncio",
    "uwasp-redis": "uwasp_redis",
    "uwasp-flask": "uwasp_flask",
    "uwasp-pytest": "uwasp_pytest",
    SPEEDUPS: "uwasp_speedups",
    "uwasp-cli": "uwasp_cli",
    "uwasp-django": "uwasp_django",
    "uwasp-socketio": "uwasp_socketio",
}
REDIS_SCHEMES = ("redis", "redis+sentinel", "redis+unix", "rediss", "rediss+sentinel")
ENTRY_POINTS = {
    "uwasp-core": "[uwasp.buses] local = uwasp.local_transport:LocalTransport",
    "uwasp-threads": "[uwasp.handlers] threads = uwasp_threads:ThreadHandler",
    "uwasp-gevent": "[uwasp.handlers] gevent = uwasp_gevent:GeventHandler",
    "uwasp-asyncio": "[uwasp.handlers] asyncio = uwasp_asyncio:AsyncioHandler",
    "uwasp-cli": "[console_scripts] uwasp = uwasp_cli.command:main",
    "uwasp-redis": "[uwasp.buses] " + " ".join(f"{scheme} = uwasp_redis:RedisTransport" for scheme in REDIS_SCHEMES),
    "uwasp-pytest": "[pytest11] uwasp = uwasp_pytest.plugin",
}
DEPENDENCIES = {
    "uwasp-core": {"websockets"},
    "uwasp-threads": {"uwasp-core"},
    "uwasp-gevent": {"uwasp-core", "gevent"},
    "uwasp-asyncio": {"uwasp-core"},
    "uwasp-redis": {"uwasp-core", "redis"},
    "uwasp-flask": {"uwasp-core", "flask"},
    "uwasp-django": {"uwasp-core", "django"},
    "uwasp-socketio": {"uwasp-core", "python-engineio"},
    "uwasp-pytest": {"uwasp-core", "pytest"},
    "uwasp-cli": {"uwasp-core"},
    "uwasp-meta": {"uwasp-core", "uwasp-threads", "uwasp-gevent", "uwasp-cli", SPEEDUPS},
    SPEEDUPS: {"uwasp-core"},
}


@pytest.fixture(params=[*PACKAGES, SPEEDUPS])
def package(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(package: str) -> Path:
    return REPOSITORY / "packages" / package


@pytest.fixture
def wheel(package: str, distributions: Path) -> ZipFile:
    (path,) = distributions.glob(f"{package.replace('-', '_')}-*.whl")
    return ZipFile(path)


@pytest.fixture
def sdist(package: str, distributions: Path) -> tarfile.TarFile:
    (path,) = distributions.glob(f"{package.replace('-', '_')}-*.tar.gz")
    return tarfile.open(path)


def modules(package: str, source: Path) -> set[str]:
    """What the package's source folder holds that an installation needs."""
    if package not in IMPORTS:
        return set()
    folder = source / "src"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.py*") if path.suffix in (".py", ".pyi")}
    return found | {f"{IMPORTS[package]}/py.typed"}


def metadata(wheel: ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def distribution_name(requirement: str) -> str:
    return re.split(r"[<>=;\s]", requirement)[0]


def test_a_wheel_holds_the_modules_and_its_metadata(
    package: str, source: Path, wheel: ZipFile, request: pytest.FixtureRequest
) -> None:
    about = f"{package.replace('-', '_')}-{metadata(wheel)['Version']}.dist-info"
    expected = modules(package, source) | {
        f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")
    }
    if package in ENTRY_POINTS:
        expected.add(f"{about}/entry_points.txt")
    if package == SPEEDUPS:
        request.getfixturevalue("compiler")
        expected |= {f"{about}/top_level.txt", f"uwasp_speedups/_speedups{sysconfig.get_config_var('EXT_SUFFIX')}"}
    assert set(wheel.namelist()) == expected


def test_an_sdist_holds_what_its_wheel_is_built_from(package: str, source: Path, sdist: tarfile.TarFile) -> None:
    names = {name.partition("/")[2] for name in sdist.getnames()}
    # hatchling adds the .gitignore that is in force, whatever the configuration says.
    expected = {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", ".gitignore"}
    if package == SPEEDUPS:
        folders = {"", "src", "src/uwasp_speedups"}
        names = {name for name in names - folders if ".egg-info" not in name}
        expected = expected - {".gitignore"} | {"setup.cfg", "setup.py", "src/uwasp_speedups/_speedups.c"}
    assert names == expected | {f"src/{module}" for module in modules(package, source)}


def test_the_license_is_apache_2_0(package: str, source: Path, wheel: ZipFile) -> None:
    assert metadata(wheel)["License-Expression"] == "Apache-2.0"
    assert metadata(wheel).get_all("License-File") == ["LICENSE"]
    assert (source / "LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()


def test_the_metadata_says_which_python_and_names_no_address(wheel: ZipFile) -> None:
    about = metadata(wheel)
    assert about["Requires-Python"] == ">=3.10"
    assert not any(name in about for name in ("Home-page", "Download-URL", "Project-URL"))
    supported = [line.rpartition(" ")[2] for line in about.get_all("Classifier", []) if ":: Python :: 3." in line]
    assert supported == ["3.10", "3.11", "3.12", "3.13"]


def test_the_readme_is_the_description(source: Path, wheel: ZipFile) -> None:
    about = metadata(wheel)
    assert about["Description-Content-Type"] == "text/markdown"
    assert about.get_payload() == (source / "README.md").read_text()


def test_a_package_requires_what_it_imports(package: str, wheel: ZipFile) -> None:
    required = metadata(wheel).get_all("Requires-Dist", [])
    names = {distribution_name(line) for line in required if "extra ==" not in line}
    assert names == DEPENDENCIES[package]


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("uwasp-core", "websockets"),
        ("uwasp-redis", "redis"),
        ("uwasp-flask", "flask"),
        ("uwasp-django", "django"),
        ("uwasp-socketio", "python-engineio"),
    ],
)
def test_ci_tries_the_oldest_of_what_is_required(wheel: ZipFile, name: str) -> None:
    (required,) = (line for line in metadata(wheel).get_all("Requires-Dist", []) if line.startswith(name))
    oldest = re.sub(r"<[\d.]+,", "", required).replace(">=", "==")
    assert f'"{oldest}"' in (REPOSITORY / "hatch.toml").read_text()
    assert "hatch run minimum:test" in (REPOSITORY / ".ci" / "run").read_text()


def test_the_extras_of_the_core_name_the_builds_of_uwsgi_and_the_c(distributions: Path) -> None:
    (path,) = distributions.glob("uwasp_core-*.whl")
    with ZipFile(path) as wheel:
        about = metadata(wheel)
    assert set(about.get_all("Provides-Extra", [])) == {"uwsgi", "pyuwsgi", "speedups"}
    optional = {line for line in about.get_all("Requires-Dist", []) if "extra ==" in line}
    assert {(distribution_name(line), line.rpartition(" ")[2]) for line in optional} == {
        ("uwsgi", "'uwsgi'"),
        ("pyuwsgi", "'pyuwsgi'"),
        (SPEEDUPS, "'speedups'"),
    }


def test_handlers_buses_and_the_command_are_entry_points(package: str, wheel: ZipFile) -> None:
    points = [wheel.read(name).decode().split() for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert points == ([ENTRY_POINTS[package].split()] if package in ENTRY_POINTS else [])
