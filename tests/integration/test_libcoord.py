"""libcoord as other people's programs find it: installed, by pkg-config, shared and static, from C and from C++."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from harness import COORDD, REPO, within
from test_examples import DIRECTORY, SHOWN

OUT = Path(COORDD).resolve().parent
SANITIZE = ["-fsanitize=address,undefined"] if OUT.name == "asan" else ["--coverage"] if OUT.name == "coverage" else []
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <coord.h>

/* Names that the library has inside, too. */
int client_now(void);
int client_now(void) { return 1; }
int frame_scan(void);
int frame_scan(void) { return 1; }

int main(void)
{
	struct coord_error err;
	struct coord_reply *reply;
	struct coord_client *c = coord_client_new(NULL, getenv("BROKER"), &err);

	if (!c || coord_client_ask(c, "ping", NULL, -1, &reply, &err)) {
		fprintf(stderr, "%s: %s\n", err.code, err.message);
		return 1;
	}
	printf("%.4s %s %d\n", coord_reply_result(reply)->via.str.ptr, coord_version(), client_now() + frame_scan());
	coord_reply_free(reply);
	coord_client_free(c);
	return 0;
}
"""


def run(*command, **more):
    done = subprocess.run([*map(str, command)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within(120), **more)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    run("make", "-s", "-C", REPO, "install-libcoord", f"MODE={OUT.name}", f"BUILD={OUT.parent}", f"PREFIX={root}", env=env)
    return root


def pkg_config(root, *options):
    env = {**os.environ, "PKG_CONFIG_PATH": str(root / "lib/pkgconfig"), "PKG_CONFIG_ALLOW_SYSTEM_LIBS": "1"}
    return run("pkg-config", *options, "coord", env=env).split()


def header_names():
    text = re.sub(r"/\*.*?\*/|typedef[^;]*;", "", (REPO / "src/client/coord.h").read_text(), flags=re.S)
    return set(re.findall(r"\b(coord_\w+)\s*\(", text))


@pytest.mark.parametrize("compiler", [["cc", "-std=c11", "-Wall", "-Wextra", "-Werror"], ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror"]], ids=["c", "c++"])
@pytest.mark.parametrize("how", ["shared", "static"])
def test_a_program_is_compiled_by_pkg_config_and_runs(installed, tmp_path, own, compiler, how):
    source = tmp_path / ("program.c" if compiler[0] == "cc" else "program.cc")
    source.write_text(PROGRAM)
    libs = pkg_config(installed, "--cflags", "--libs")
    if how == "static":
        libs = pkg_config(installed, "--cflags", "--libs", "--static")
        libs[libs.index("-lcoord")] = str(installed / "lib/libcoord.a")
    run(*compiler, *SANITIZE, "-o", tmp_path / "program", source, *libs)
    env = {**os.environ, "LD_LIBRARY_PATH": str(installed / "lib"), "BROKER": f"unix://{own().unix_path}"}
    assert run(tmp_path / "program", env=env) == f"pong {pkg_config(installed, '--modversion')[0]} 2\n"
    needed = run("readelf", "-d", tmp_path / "program")
    assert ("libcoord.so.0" in needed) == (how == "shared")


@pytest.mark.parametrize("name", SHOWN)
def test_the_examples_in_c_print_what_their_page_shows(installed, tmp_path, own, name):
    source = DIRECTORY / "c" / f"{name}.c"
    assert "$(pkg-config --cflags --libs coord)" in source.read_text()
    strict = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]
    run("cc", *strict, *SANITIZE, "-o", tmp_path / name, source, *pkg_config(installed, "--cflags", "--libs"))
    env = {**os.environ, "LD_LIBRARY_PATH": str(installed / "lib"), "COORDCTL_SERVER": f"unix://{own().unix_path}"}
    for _ in range(2):  # it leaves nothing behind that a second run would find
        assert run(tmp_path / name, env=env) == SHOWN[name]


def test_what_is_exported_is_what_the_header_declares(installed):
    declared = header_names()
    listed = set(re.findall(r"^\t(coord_\w+);", (REPO / "src/client/coord.map").read_text(), re.M))
    shared = run("nm", "-D", "--defined-only", "--with-symbol-versions", installed / "lib/libcoord.so")
    static = run("nm", "-g", "--defined-only", installed / "lib/libcoord.a")
    assert len(declared) > 50
    assert listed == declared
    assert set(re.findall(r" T (\w+)@@COORD_0\.1$", shared, re.M)) == declared
    assert set(re.findall(r" T (\w+)$", static, re.M)) == declared


def test_nothing_in_it_ends_a_process_or_speaks(installed):
    undefined = set(re.findall(r" U (\w+)", run("nm", "-g", "--undefined-only", installed / "lib/libcoord.a")))
    assert not undefined & {"exit", "_exit", "abort", "signal", "sigaction", "printf", "fprintf", "puts", "__fprintf_chk", "__printf_chk", "syslog", "stderr", "stdout", "pthread_create", "fork"}
