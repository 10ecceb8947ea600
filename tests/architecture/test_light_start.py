"""What a start costs is what it imports: asking for help must not load a proxy, nor a proxy what it does not use."""

import subprocess
import sys

HEAVY = {"asyncio", "httpx", "msgspec", "prometheus_client", "redis", "uvloop", "yaml", "ssl"}


def loaded_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after `code`."""
    program = f"import sys\n{code}\nprint(*sys.modules, sep='\\n', file=sys.__stdout__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_loads_nothing_heavy():
    loaded = loaded_after(
        "import contextlib, io\n"
        "from sidecar.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['check', '--help'])"
    )
    assert "sidecar.cli" in loaded
    assert loaded & HEAVY == set()


def test_importing_the_package_starts_nothing():
    loaded = loaded_after("import sidecar")
    assert not {name for name in loaded if name.startswith("sidecar.")}


def test_a_proxy_loads_neither_database_nor_http_client_before_it_needs_them():
    assert loaded_after("import sidecar.app.program") & {"sqlite3", "httpx", "hiredis", "aiodns"} == set()
